"""The boards that a machine can be given, by name, and the processors that go with them."""

# There is no "from __future__ import annotations" here: NamedTuple would compile each annotation at each start.

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from dbt.abi.addresses import GPA_0, Gpa
from isa.arm.cpus import CPUS

if TYPE_CHECKING:
    from dbt.board.board import Board
    from dbt.board.devicetree import Chosen

CPU_MODELS = tuple(CPUS)


class BoardModel(NamedTuple):
    """A board. Its code is imported when it is needed, because a machine has only one.

    - ``ram_base`` and ``largest_ram``: where RAM begins, and how many bytes fit before they hide devices.
    - ``console_base``: where the UART is that the console is connected to.
    - ``program_cpu`` and ``kernel_cpu``: the processor that a program or a kernel has unless the user chooses one.
    - ``machine_number``: what a kernel gets in R1 (Linux, arch/arm/tools/mach-types).
    - ``has_atags``: whether there are kernels for this board that know no device trees.
    - ``virtio_base`` and ``virtio_slots``: where the virtio devices are, and how many there can be.
    - ``has_psci``: whether HVC calls firmware, see :mod:`dbt.board.psci`.
    - ``holes_read_zero``: whether kernels may access what is not there, see :class:`dbt.board.bus.DeviceBus`.
    """

    name: str
    ram_base: Gpa
    largest_ram: int
    console_base: Gpa
    program_cpu: str
    kernel_cpu: str
    machine_number: int
    has_atags: bool
    has_psci: bool
    holes_read_zero: bool
    virtio_base: Gpa
    virtio_slots: int

    @property
    def build(self) -> "Callable[..., Board]":
        """The function that makes a board of this model, as :func:`dbt.board.versatile.build_board`."""
        if self.name == "virt":
            from dbt.board.virt import build_board as build_virt

            return build_virt
        from dbt.board.versatile import build_board

        return build_board

    def tree(self, chosen: "Chosen", present: Callable[[Gpa], bool], cpu: str, seed: int) -> bytes:
        """Return the device tree of this board with that processor, with a node for each device that is ``present``.

        The tree contains random numbers for the kernel, if the board gives any: those that follow from ``seed``.
        """
        if self.name == "virt":
            from dbt.board.virt_tree import virt_tree

            return virt_tree(chosen, present, cpu, seed)
        from dbt.board.devicetree import board_tree

        return board_tree(chosen, present)


#: Program: everything that is implemented of ARMv4 to ARMv7-A, whichever processor has it. Kernel: the processor of the
#: Versatile/PB (ARM DUI 0224), for which its kernels are built. Versatile/PB itself decodes at most 256 MB of RAM.
VERSATILE = BoardModel(
    "versatile",
    GPA_0,
    256 << 20,
    Gpa(0x101F1000),
    "any",
    "arm926",
    387,
    has_atags=True,
    has_psci=False,
    holes_read_zero=True,
    virtio_base=Gpa(0x10030000),  # which the board reserves (ARM DUI 0224, table 4-1)
    virtio_slots=32,
)
#: QEMU's board of that name. It has no number: kernels for it have device trees.
VIRT = BoardModel(
    "virt",
    Gpa(0x40000000),
    2 << 30,
    Gpa(0x09000000),
    "cortex-a15",
    "cortex-a15",
    0xFFFFFFFF,
    has_atags=False,
    has_psci=True,
    holes_read_zero=False,
    virtio_base=Gpa(0x0A000000),
    virtio_slots=32,
)
BOARDS: Mapping[str, BoardModel] = {board.name: board for board in (VERSATILE, VIRT)}
#: The processors that only the board virt has.
_VIRT_CPUS = ("cortex-a15", "cortex-a7")


def default_board(cpu: str | None) -> BoardModel:
    """Return the board of a machine for which the user has chosen a processor, or none, and no board."""
    return VIRT if cpu in _VIRT_CPUS else VERSATILE

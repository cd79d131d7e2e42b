"""The boards that a machine can be given, by name, and the processors that go with them."""

# There is no "from __future__ import annotations" here: NamedTuple would compile each annotation at each start.

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from dbt.abi.addresses import GPA_0, Gpa
from isa.arm.cpus import CPUS

if TYPE_CHECKING:
    from dbt.board.board import Board, BoardWiring
    from dbt.board.devicetree import Chosen
    from dbt.memory.ram import RamLayout, RamRegion

CPU_MODELS = tuple(CPUS)
#: The largest RAM that a machine may have, in bytes.
MAX_MEMORY = 2 << 30
#: Receives the power key: that it is pressed. There are no data.
POWER_KEY = "power key"
#: Receives changes of XenStore from outside: a byte for the type of the request, and its payload.
STORE = "store"
#: Receives the same for programs that wait until it is done.
STORE_REQUEST = "store request"


class BoardModel(NamedTuple):
    """A board. Its code is imported when it is needed, because a machine has only one.

    - ``ram_base`` and ``largest_ram``: where RAM begins, and how many bytes fit before they hide devices.
    - ``console_base``: where the UART is that the console is connected to.
    - ``program_cpu`` and ``kernel_cpu``: the processor that a program or a kernel has unless the user chooses one.
    - ``machine_number``: what a kernel gets in R1 (Linux, arch/arm/tools/mach-types).
    - ``has_atags``: whether there are kernels for this board that know no device trees.
    - ``virtio_base`` and ``virtio_slots``: where the virtio devices are, and how many there can be.
    - ``has_psci``: whether HVC calls firmware, see :mod:`dbt.board.psci`.
    - ``is_domain``: whether it is that of a domain of Xen, whose hypervisor it has (:mod:`dbt.hypervisor.xen`).
    - ``most_back_ends``: how many para-virtual devices a domain can have.
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
    is_domain: bool = False
    most_back_ends: int = 0

    @property
    def build(self) -> "Callable[[BoardWiring], Board]":
        """The function that makes a board of this model, as it is after a reset."""
        if self.name == "virt":
            from dbt.board.virt import build_board as build_virt

            return build_virt
        if self.is_domain:
            from dbt.board.xen import build_board as build_xen

            return build_xen
        from dbt.board.versatile import build_board

        return build_board

    def layout(self, memory: "int | Sequence[RamRegion]") -> "RamLayout":
        """Return where a machine has RAM that is given so many bytes, or these regions. Raise ValueError for regions
        without those that the board must have.
        """
        from dbt.memory.ram import RamLayout

        layout = RamLayout.of(memory, self.ram_base)
        if not self.is_domain:
            return layout
        from dbt.board.xen import RESERVED

        if isinstance(memory, int):
            return RamLayout((*layout.regions, *RESERVED))
        missing = [region for region in RESERVED if region not in layout.regions]
        if missing:
            raise ValueError(f"a machine with the board {self.name} also has the RAM {missing[0]}")
        return layout

    def kernel_layout(self, layout: "RamLayout") -> "RamLayout":
        """Return the RAM that a kernel is put into: not what a hypervisor has below it."""
        from dbt.memory.ram import RamLayout

        regions = tuple(region for region in layout.regions if region.base >= self.ram_base)
        return RamLayout(regions) if self.is_domain and regions else layout

    def tree(self, chosen: "Chosen", present: Callable[[Gpa], bool], cpu: str, seed: int) -> bytes:
        """Return the device tree of this board with that processor, with a node for each device that is ``present``.

        The tree contains random numbers for the kernel, if the board gives any: those that follow from ``seed``.
        """
        if self.name == "virt":
            from dbt.board.virt_tree import virt_tree

            return virt_tree(chosen, present, cpu, seed)
        if self.is_domain:
            from dbt.board.xen_tree import xen_tree

            return xen_tree(chosen, cpu)
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
#: A domain of Xen on ARM. Its console is para-virtual, so it has no base.
XEN = BoardModel(
    "xen",
    Gpa(0x40000000),
    2 << 30,
    GPA_0,
    "cortex-a15",
    "cortex-a15",
    0xFFFFFFFF,
    has_atags=False,
    has_psci=True,
    holes_read_zero=False,
    virtio_base=GPA_0,
    virtio_slots=0,
    is_domain=True,
    most_back_ends=32,
)
BOARDS: Mapping[str, BoardModel] = {board.name: board for board in (VERSATILE, VIRT, XEN)}
#: The processors that only the board virt has.
_VIRT_CPUS = ("cortex-a15", "cortex-a7")


def default_board(cpu: str | None) -> BoardModel:
    """Return the board of a machine for which the user has chosen a processor, or none, and no board."""
    return VIRT if cpu in _VIRT_CPUS else VERSATILE

"""What a machine runs: reads the files of a program or kernel, and says what goes into RAM and registers."""

# There is no "from __future__ import annotations" here: NamedTuple would compile each annotation at each start.

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from dbt.abi.addresses import Gpa
from dbt.abi.layout import PAGE_SIZE
from dbt.backend.digest import digest
from dbt.board.boards import VERSATILE, BoardModel
from dbt.board.loader import Image, read_image
from dbt.host.semihosting import Layout, join_arguments
from dbt.memory.ram import RamLayout

if TYPE_CHECKING:
    from dbt.board.devicetree import Chosen

#: The size in bytes of the stack that SYS_HEAPINFO reserves. If the RAM is small, it is an eighth of that.
_STACK_SIZE = 8 << 20


_NOWHERE = Layout(0, 0, 0, 0)


class Guest(NamedTuple):
    """A program or a kernel, ready to be put into RAM.

    ``cpu_model`` and ``semihosting`` apply unless the user chooses otherwise. ``elf`` is the file with its symbols.
    ``registers`` are those that a boot loader sets, from R0 on. ``command_line`` and ``layout`` are semihosting's
    answers.
    """

    cpu_model: str
    semihosting: bool
    is_kernel: bool = False
    image: Image | None = None
    elf: bytes = b""
    registers: tuple[int, ...] = ()
    command_line: bytes = b""
    layout: Layout = _NOWHERE


class ProgramIdentity:
    """Which program a machine has, by what it is: the hot code that is left of a run is found by it in the next.

    It is a digest of the segment where the program begins. So it does not depend on arguments, on a kernel's RAM disk
    or its command line.
    """

    def __init__(self) -> None:
        self._image: Image | None = None
        self._digest = b""

    def use(self, image: Image) -> None:
        """Take the image that has been loaded."""
        self._image, self._digest = image, b""

    def restore(self, digest: bytes) -> None:
        """Take over what :meth:`digest` returned of another machine."""
        self._image, self._digest = None, digest

    def digest(self) -> bytes:
        """Return 32 bytes, or nothing as long as nothing has been loaded."""
        if not self._digest and self._image is not None:
            entry = self._image.entry
            first = [part for part in self._image.segments if part.gpa <= entry < part.end] or self._image.segments
            self._digest = digest(*(data for part in first for data in (part.gpa.to_bytes(4, "little"), part.data)))
        return self._digest


#: What a machine has before anything is loaded.
NO_GUEST = Guest(VERSATILE.program_cpu, True)


def read_program(
    board: BoardModel,
    data: bytes,
    path: str,
    ram: RamLayout,
    base: int | None,
    entry: int | None,
    args: Sequence[str],
) -> Guest:
    """Return an ELF executable, or a flat binary that goes to ``base``. Raise ImageError if it cannot be loaded."""
    image = read_image(data, path, ram, _gpa(base), _gpa(entry), board.ram_base)
    line = join_arguments([path.rpartition("/")[2], *args])
    return Guest(
        board.program_cpu,
        True,
        image=image,
        elf=data if image.is_elf else b"",
        command_line=line,
        layout=_layout(image, ram),
    )


def read_kernel(
    board: BoardModel,
    cpu: str | None,
    rng_seed: int,
    path: str,
    ram: RamLayout,
    has_device: Callable[[Gpa], bool],
    initrd: str | None,
    dtb: str | None,
    append: str,
    atags: bool,
    base: int | None,
    entry: int | None,
    has_virtio: bool,
) -> Guest:
    """Return a kernel; see :meth:`dbt.vm.loaded_machine.LoadedMachine.load_kernel`.

    ``cpu`` is the processor that the user has chosen, if any. ``has_device`` returns True if a device answers at a GPA,
    and ``has_virtio`` says whether the user wants virtio devices.
    """
    if dtb is not None and atags:
        raise ValueError("a kernel is given a device tree or ATAGs, not both")
    from dbt.board.boot import read_boot

    cpu_model = cpu or board.kernel_cpu

    def tree(chosen: "Chosen") -> bytes:
        return board.tree(chosen, has_device, cpu_model, rng_seed)

    boot = read_boot(path, ram, initrd, dtb, append, atags, tree, _gpa(base), _gpa(entry), board, has_virtio)
    line = join_arguments([path.rpartition("/")[2], *append.split()])
    return Guest(board.kernel_cpu, False, True, boot.image, boot.elf, boot.registers, line, _layout(boot.image, ram))


def _gpa(address: int | None) -> Gpa | None:
    return None if address is None else Gpa(address)


def _layout(image: Image, ram: RamLayout) -> Layout:
    """Return where heap and stack are: in the main region, and beyond the program if that is there."""
    main = ram.main
    stack_limit = main.end - min(_STACK_SIZE, main.size // 8)
    inside = [segment.end for segment in image.segments if main.base <= segment.gpa < main.end]
    heap = min(-(-max([main.base, *inside]) // PAGE_SIZE) * PAGE_SIZE, stack_limit)
    return Layout(heap, stack_limit, main.end, stack_limit)

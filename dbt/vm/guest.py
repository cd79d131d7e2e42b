"""What a machine runs: files of a program or a kernel go in, what is put into RAM and registers comes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dbt.abi.addresses import Gpa, Gva
from dbt.board.cpu_models import KERNEL_CPU, PROGRAM_CPU
from dbt.board.loader import Image, read_image
from dbt.host.semihosting import Layout, join_arguments
from dbt.memory.ram import PAGE_SIZE

#: The stack that SYS_HEAPINFO keeps free of the heap: this much, or an eighth of a small RAM.
_STACK_SIZE = 8 << 20


_NOWHERE = Layout(0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Guest:
    """``cpu_model`` and ``semihosting`` are what it has unless the user chooses. ``elf``: the file with its symbols.

    ``registers``: what a boot loader sets, from R0 on. ``command_line`` and ``layout`` are what semihosting tells it.
    """

    cpu_model: str
    semihosting: bool
    is_kernel: bool = False
    image: Image | None = None
    elf: bytes = b""
    registers: tuple[int, ...] = ()
    command_line: bytes = b""
    layout: Layout = _NOWHERE


#: A machine into which nothing has been loaded.
NO_GUEST = Guest(PROGRAM_CPU, True)


def read_program(
    data: bytes, path: str, ram_size: int, base: Gpa | None, entry: Gva | None, args: Sequence[str]
) -> Guest:
    """An ELF executable, or a flat binary that goes to ``base``; ImageError if it cannot be loaded."""
    image = read_image(data, path, ram_size, base, entry)
    line = join_arguments([path.rpartition("/")[2], *args])
    return Guest(
        PROGRAM_CPU,
        True,
        image=image,
        elf=data if image.is_elf else b"",
        command_line=line,
        layout=_layout(image, ram_size),
    )


def read_kernel(
    path: str,
    ram_size: int,
    has_device: Callable[[Gpa], bool],
    initrd: str | None,
    dtb: str | None,
    append: str,
    atags: bool,
    base: Gpa | None,
    entry: Gpa | None,
) -> Guest:
    """See :meth:`dbt.vm.machine.Machine.load_kernel`. ``has_device``: whether one answers at a GPA."""
    if dtb is not None and atags:
        raise ValueError("a kernel is given a device tree or ATAGs, not both")
    from dbt.board.boot import read_boot

    boot = read_boot(path, ram_size, initrd, dtb, append, atags, lambda gpa: has_device(Gpa(gpa)), base, entry)
    line = join_arguments([path.rpartition("/")[2], *append.split()])
    return Guest(KERNEL_CPU, False, True, boot.image, boot.elf, boot.registers, line, _layout(boot.image, ram_size))


def _layout(image: Image, ram_size: int) -> Layout:
    stack_limit = ram_size - min(_STACK_SIZE, ram_size // 8)
    heap = min(-(-image.end // PAGE_SIZE) * PAGE_SIZE, stack_limit)
    return Layout(heap, stack_limit, ram_size, stack_limit)

"""Images: an ELF executable or a flat binary goes in, checked segments and an entry point come out.

Whatever a file may contain, reading it yields an :class:`Image` that fits the machine's RAM or an
:class:`ImageError` that says what is wrong and what to do. Only the ELF header and the program
headers are read here; symbols are another room's (:mod:`dbt.machine.symbols`).
"""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import dataclass

from dbt.mmu.memory import GuestMemory

#: Where a flat binary is loaded unless the user says otherwise: QEMU's choice for versatilepb.
FLAT_BASE = 0x10000

_ELF_HEADER = struct.Struct("<16sHHIIIIIHHHHHH")
_PROGRAM_HEADER = struct.Struct("<8I")
_ET_NAMES = {0: "no file type", 1: "a relocatable object", 3: "a shared object or position-independent", 4: "a core dump"}
_EXECUTABLE = 2
_EM_ARM = 40
_EM_NAMES = {
    2: "SPARC", 3: "32-bit x86", 8: "MIPS", 20: "PowerPC", 21: "64-bit PowerPC", 62: "x86-64", 183: "64-bit ARM (AArch64)",
    243: "RISC-V",
}  # fmt: skip
_PT_LOAD, _PT_INTERP = 1, 3
_PF_X = 1
_ZEROS = bytes(1 << 16)
_BUILD_HINT = "Build it for bare-metal ARM, for example: arm-none-eabi-gcc -marm --specs=rdimon.specs"

_THUMB_REMEDY = (
    "Build it with -marm and link libraries that are A32 code too; Debian's newlib has them for -march=armv5te"
)


class ImageError(Exception):
    """A program that cannot be loaded: which file, what is wrong with it, and the remedy."""

    def __init__(self, path: str, what: str, remedy: str) -> None:
        super().__init__(f"{path}: {what}. {remedy}.")
        self.path = path
        self.what = what
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Segment:
    """``data`` goes to ``gpa``; zeros follow it up to ``size`` bytes. ``gva`` is where it is linked to run."""

    gpa: int
    gva: int
    data: bytes
    size: int
    executable: bool

    @property
    def end(self) -> int:
        return self.gpa + self.size


@dataclass(frozen=True, slots=True)
class Image:
    """A program whose segments do not overlap and lie in RAM, and whose entry lies in one of them."""

    path: str
    entry: int
    segments: tuple[Segment, ...]
    is_elf: bool

    @property
    def end(self) -> int:
        """The first address after the program: where a heap may begin."""
        return max(segment.end for segment in self.segments)

    def place(self, memory: GuestMemory) -> None:
        """Write the program into RAM."""
        for segment in self.segments:
            memory.write_ram(segment.gpa, segment.data)
            for start in range(segment.gpa + len(segment.data), segment.end, len(_ZEROS)):
                memory.write_ram(start, _ZEROS[: segment.end - start])


def read_file(path: str) -> bytes:
    """The content of a program file; ImageError if there is none."""
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise ImageError(path, "it is not a regular file", "Give the path of an ELF executable or a flat binary")
            data = file.read()
    except FileNotFoundError:
        raise ImageError(path, "there is no such file", "Check the path") from None
    except IsADirectoryError:
        raise ImageError(path, "it is a directory", "Give the path of the program in it") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ImageError(path, f"it cannot be read: {reason}", "Check the path and its permissions") from None
    if not data:
        raise ImageError(path, "it is empty", "Build the program again")
    return data


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def read_image(data: bytes, path: str, ram_size: int, base: int | None = None, entry: int | None = None) -> Image:
    """Check a program against a RAM of ``ram_size`` bytes at address 0.

    An ELF executable says itself where it goes; ``entry`` overrides its entry point. Anything else
    is a flat binary only if ``base`` says where it goes, so that a wrong file is not executed; its
    entry is its first byte unless given. ``path`` names the program in errors.
    """
    if not data:
        raise ImageError(path, "it is empty", "Build the program again")
    if base is None:
        image = _read_elf(data, path, entry)
    else:
        if data[:4] == b"\x7fELF":
            raise ImageError(path, "it is an ELF file, which says itself where it goes", "Leave out --base")
        _check_base(path, base)
        segment = Segment(base, base, data, len(data), True)
        image = Image(path, base if entry is None else entry, (segment,), False)
    _check_places(image, ram_size)
    _check_entry(image, ram_size)
    return image


def _check_base(path: str, base: int) -> None:
    if base < 0 or base > 0xFFFFFFFF or base % 4:
        raise ImageError(path, f"the base {base:#x} is not a 32-bit multiple of 4", f"Try --base {FLAT_BASE:#x}")


# -- ELF (System V ABI, Object Files; ELF for the ARM Architecture, IHI 0044) --------------------


def _read_elf(data: bytes, path: str, entry: int | None) -> Image:
    def refuse(what: str, remedy: str = _BUILD_HINT) -> ImageError:
        return ImageError(path, what, remedy)

    if data[:4] != b"\x7fELF":
        remedy = f"If it is a flat binary, say where it goes, for example --base {FLAT_BASE:#x}"
        raise refuse("it is not an ELF file", remedy)
    if len(data) < _ELF_HEADER.size:
        raise refuse(f"it is truncated: {len(data)} bytes do not hold an ELF header", "Build or copy it again")
    ident, kind, machine, _, elf_entry, offset, _, _, _, header_size, count, _, _, _ = _ELF_HEADER.unpack_from(data)
    foreign = f"it is a program for {_EM_NAMES.get(machine, f'ELF machine {machine}')}, not 32-bit ARM"
    if ident[5] == 2:
        raise refuse("it is big-endian", "Build it for little-endian ARM: -mlittle-endian")
    if ident[4] == 2:
        raise refuse(foreign if machine in _EM_NAMES else "it is a 64-bit ELF file, not a 32-bit one")
    if ident[4] != 1 or ident[5] != 1 or ident[6] != 1:
        raise refuse("its ELF identification is damaged", "Build or copy it again")
    if machine != _EM_ARM:
        raise refuse(foreign)
    if kind != _EXECUTABLE:
        what = f"it is {_ET_NAMES.get(kind, f'ELF type {kind}')}, not an executable"
        raise refuse(what, "Link it statically to fixed addresses: -static -no-pie, without -c, -r or -shared")
    if count and header_size != _PROGRAM_HEADER.size:
        raise refuse(f"its program headers are {header_size} bytes long instead of 32", "Build or copy it again")
    if offset + count * _PROGRAM_HEADER.size > len(data):
        raise refuse("it is truncated: its program headers lie beyond its end", "Build or copy it again")
    segments: list[Segment] = []
    for number in range(count):
        header = _PROGRAM_HEADER.unpack_from(data, offset + number * _PROGRAM_HEADER.size)
        if header[0] == _PT_INTERP:
            raise refuse("it is a dynamically linked program for an operating system")
        if header[0] == _PT_LOAD and header[5]:
            segments.append(_read_segment(data, path, number, header))
    if not segments:
        raise refuse("it has nothing to load (no PT_LOAD segment)", "Link it into an executable")
    return Image(path, _physical(elf_entry, segments) if entry is None else entry, tuple(segments), True)


def _read_segment(data: bytes, path: str, number: int, header: tuple[int, ...]) -> Segment:
    """One PT_LOAD header. Its physical address counts: the MMU is off when the program starts."""
    _, offset, gva, gpa, file_size, size, flags, _ = header
    if file_size > size:
        what = f"segment {number} has more bytes in the file ({file_size:#x}) than in memory ({size:#x})"
        raise ImageError(path, what, "Build or copy it again")
    if offset + file_size > len(data):
        what = f"it is truncated: segment {number} ends at {offset + file_size:#x}, the file at {len(data):#x}"
        raise ImageError(path, what, "Build or copy it again")
    return Segment(gpa, gva, data[offset : offset + file_size], size, bool(flags & _PF_X))


def _physical(entry: int, segments: list[Segment]) -> int:
    """The GPA of an entry point that is given as a GVA, as QEMU takes it."""
    for segment in segments:
        if segment.executable and segment.gva <= entry & ~1 < segment.gva + segment.size:
            return entry - segment.gva + segment.gpa
    return entry


# -- against the machine -------------------------------------------------------------------------


def _check_places(image: Image, ram_size: int) -> None:
    ordered = sorted(image.segments, key=lambda segment: segment.gpa)
    for lower, upper in zip(ordered, ordered[1:], strict=False):
        if lower.end > upper.gpa:
            what = f"its segments at {lower.gpa:#x} and {upper.gpa:#x} overlap"
            raise ImageError(image.path, what, "Correct the addresses in the linker script")
    last = ordered[-1]
    if last.end > ram_size:
        place = f"[{last.gpa:#x}, {last.end:#x})" if image.is_elf else f"its {last.size:#x} bytes at {last.gpa:#x}"
        what = f"{'segment ' if image.is_elf else ''}{place} {'is' if image.is_elf else 'are'} outside the RAM, [0, {ram_size:#x})"
        raise ImageError(image.path, what, _memory_remedy(last.end))


def _memory_remedy(end: int) -> str:
    megabytes = 1 << ((end - 1) >> 20).bit_length()
    if end <= MAX_MEMORY:
        return f"Give the machine more memory: --memory {megabytes}M"
    return "Link it to lower addresses: RAM begins at 0"


#: The largest RAM that a machine may have, in bytes.
MAX_MEMORY = 2 << 30


def _check_entry(image: Image, ram_size: int) -> None:
    entry = image.entry
    what = None
    if entry & 1:
        thumb = f"its entry point {entry:#x} is Thumb code, which is outside this instruction set (A32)"
        raise ImageError(image.path, thumb, _THUMB_REMEDY)
    if entry < 0 or entry > 0xFFFFFFFF or entry & 2:
        what = "is not a 32-bit multiple of 4"
    elif entry >= ram_size:
        what = f"is outside the RAM, [0, {ram_size:#x})"
    elif not any(segment.gpa <= entry < segment.end for segment in image.segments):
        what = "lies in no segment of the program"
    if what is not None:
        remedy = "Define _start in the program, or give --entry ADDRESS"
        raise ImageError(image.path, f"its entry point {entry:#x} {what}", remedy)

"""Reading programs: an ELF executable or a flat binary becomes checked segments and an entry point.

Whatever a file contains, reading it gives an :class:`Image` that fits the machine's RAM, or raises an
:class:`ImageError` that says what is wrong and what to do. Only the ELF header and the program headers are read here;
:mod:`dbt.inspector.symbols` reads the symbols.
"""

# There is no "from __future__ import annotations" here: NamedTuple would compile each annotation at each start.

import struct
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from dbt.abi.addresses import GPA_0, Gpa, Gva
from dbt.board.boards import MAX_MEMORY
from dbt.board.files import FileTooLarge, read_bounded
from dbt.memory.guest_memory import GuestMemory
from dbt.memory.ram import RamLayout

#: Where a flat binary is loaded from the beginning of RAM on, unless the user says otherwise.
FLAT_BASE = Gpa(0x8000)  # where newlib and the ARM Linux convention put a program
FLAT_SUFFIXES = (".bin", ".img", ".raw")

#: The largest file that is read, in bytes: no program for such a machine has nearly as much, symbols included.
MAX_FILE = 512 << 20

_ELF_HEADER = struct.Struct("<16sHHIIIIIHHHHHH")
_PROGRAM_HEADER = struct.Struct("<8I")
_ET_NAMES = {
    0: "no file type",
    1: "a relocatable object",
    3: "a shared object or position-independent",
    4: "a core dump",
}
_ET_EXEC = 2
_CLASS_64, _BIG_ENDIAN = 2, 2
_EM_ARM = 40
_EM_NAMES = {
    2: "SPARC", 3: "32-bit x86", 8: "MIPS", 20: "PowerPC", 21: "64-bit PowerPC", 62: "x86-64",
    183: "64-bit ARM (AArch64)", 243: "RISC-V",
}  # fmt: skip
_ET_DYN = 3
_OS_GNU = 3
_PT_LOAD, _PT_DYNAMIC, _PT_INTERP, _PT_NOTE, _PT_GNU_STACK = 1, 2, 3, 4, 0x6474E551
#: The head of the note by which a linker says for which system a program is: NT_GNU_ABI_TAG.
_ABI_TAG = struct.pack("<III4s", 4, 16, 1, b"GNU")
_HARD_FLOAT = 0x400
#: Bytes at the beginning of a file in which a linker places all that tells a program for Linux.
HEAD_BYTES = 4096
_PF_X = 1
_ZEROS = bytes(1 << 16)
#: By what kernels are known that are no ELF files: where it is, its bytes, and the kind.
_KERNELS = ((0x24, b"\x18\x28\x6f\x01", "a zImage"), (0, b"\x27\x05\x19\x56", "a uImage"))
_LINUX_REMEDY = "The command dbt run gives it a Linux guest; a machine by itself takes bare-metal programs"
_BUILD_REMEDY = "Build it for bare-metal ARM, for example: arm-none-eabi-gcc -marm --specs=rdimon.specs"
_DAMAGE_REMEDY = "Build or copy it again"
_LINK_REMEDY = "Link it statically to fixed addresses: -static -no-pie, without -c, -r or -shared"

_THUMB_REMEDY = (
    "Build it with -marm and link libraries that are A32 code too; Debian's newlib has them for -march=armv5te"
)


class ImageError(Exception):
    """Raised for a program that cannot be loaded. The message names the file, what is wrong with it, and the remedy."""

    def __init__(self, path: str, what: str, remedy: str) -> None:
        super().__init__(f"{path}: {what}. {remedy}.")
        self.path = path
        self.what = what
        self.remedy = remedy


class Segment(NamedTuple):
    """A part of a program. ``data`` goes to ``gpa``, and zeros follow it up to ``size`` bytes.

    ``gva`` is the address for which it is linked.
    """

    gpa: Gpa
    gva: Gva
    data: bytes
    size: int
    executable: bool

    @property
    def end(self) -> int:
        return self.gpa + self.size


class Image(NamedTuple):
    """A program whose segments lie in RAM, with its entry in one of them. The bytes of two segments never overlap.

    The entry is a physical address, because the MMU is off at the start.

    The zeros of one segment may reach over the bytes of another, because linkers pack load addresses. The bytes stay.
    """

    path: str
    entry: Gpa
    segments: tuple[Segment, ...]
    is_elf: bool

    @property
    def end(self) -> int:
        """The first address after the program, where a heap may begin."""
        return max(segment.end for segment in self.segments)

    def place(self, memory: GuestMemory) -> None:
        """Write the program into RAM: first all zeros, then the bytes, which zeros therefore cannot overwrite."""
        for segment in self.segments:
            for start in range(segment.gpa + len(segment.data), segment.end, len(_ZEROS)):
                memory.write_ram(Gpa(start), _ZEROS[: segment.end - start])
        for segment in self.segments:
            memory.write_ram(segment.gpa, segment.data)


def read_file(path: str, largest: int = MAX_FILE) -> bytes:
    """Return the content of a program file. Raise ImageError if there is none.

    A file that is no ELF file may have ``largest`` bytes, which is what the machine's RAM holds. An ELF file has more
    than what is loaded, and may have MAX_FILE bytes. Nothing is read of a file that is larger.
    """

    def limit(head: bytes) -> int:
        return MAX_FILE if head[:4] == b"\x7fELF" else min(largest, MAX_FILE)

    try:
        data = read_bounded(path, limit)
    except FileNotFoundError:
        raise ImageError(path, "there is no such file", "Check the path") from None
    except IsADirectoryError:
        raise ImageError(path, "it is a directory", "Give the path of the program in it") from None
    except FileTooLarge as error:
        what = f"it has {error.size:,} bytes, and a file of at most {error.limit:,} can be loaded"
        raise ImageError(
            path, what, "Check the path, strip the program, or give the machine more memory (--memory)"
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        if reason == "it is not a regular file":
            raise ImageError(path, reason, "Give the path of an ELF executable or a flat binary") from None
        raise ImageError(path, f"it cannot be read: {reason}", "Check the path and its permissions") from None
    if not data:
        raise ImageError(path, "it is empty", "Build the program again")
    return data


def read_image(
    data: bytes,
    path: str,
    ram: RamLayout,
    base: Gpa | None = None,
    entry: Gpa | None = None,
    ram_base: Gpa = GPA_0,
) -> Image:
    """Check a program against the ``ram`` of a machine.

    An ELF executable says itself where it goes; ``entry`` overrides its entry point. A flat binary
    goes to ``base``, or to FLAT_BASE from ``ram_base`` on if it is named like one; anything else is refused, so that a
    wrong file is not executed. Its entry is its first byte unless given. ``path`` names the program in
    errors.
    """
    if not data:
        raise ImageError(path, "it is empty", "Build the program again")
    if base is None and data[:4] != b"\x7fELF" and path.lower().endswith(FLAT_SUFFIXES):
        base = Gpa(ram_base + FLAT_BASE)
    if base is None:
        if kind := next((kind for at, magic, kind in _KERNELS if data[at : at + len(magic)] == magic), None):
            raise ImageError(path, f"it is {kind}, a kernel and no program", "Boot it: --kernel FILE")
        image = read_elf(data, path, entry, ram_base)
    else:
        if data[:4] == b"\x7fELF":
            refuse_base(path, "an ELF file", base)
        check_base(path, base)
        segment = Segment(base, Gva(base), data, len(data), True)
        image = Image(path, base if entry is None else entry, (segment,), False)
    check_image(image, ram)
    return image


def refuse_base(path: str, what: str, base: Gpa | None) -> None:
    """Raise ImageError if a base is given for a file that contains its addresses. ``what`` is the kind of file."""
    if base is not None:
        raise ImageError(
            path, f"it is {what}, which has load addresses of its own", "Leave out the base address (--base)"
        )


def check_base(path: str, base: Gpa | None) -> None:
    """Raise ImageError if no A32 code can be at ``base``."""
    if base is None:
        return
    if base < 0 or base > 0xFFFFFFFF or base % 4:
        raise ImageError(
            path,
            f"the base {base:#x} is not a 32-bit multiple of 4",
            f"Try the base address {FLAT_BASE:#x} (--base {FLAT_BASE:#x})",
        )


# -- ELF (System V ABI, Object Files; ELF for the ARM Architecture, IHI 0044) --------------------


class _Header(NamedTuple):
    """The ELF header, with the names of the ELF specification."""

    ident: bytes
    type: int
    machine: int
    version: int
    entry: int
    phoff: int
    shoff: int
    flags: int
    ehsize: int
    phentsize: int
    phnum: int
    shentsize: int
    shnum: int
    shstrndx: int


class LinuxExecutable(NamedTuple):
    """A program for Linux. ``interpreter`` is the dynamic linker that it names, or empty for a static one."""

    interpreter: str
    is_hard_float: bool
    begins_in_thumb: bool


def look_for_linux(head: bytes) -> LinuxExecutable | None:
    """Return what a file is that begins with ``head``, or None if it is no program for Linux on 32-bit ARM.

    A static program need not say for which system it is. It is taken for one of Linux if the linker has asked for a
    stack, and has placed the ELF header in memory: those for machines without an operating system do not have both.
    """
    if len(head) < _ELF_HEADER.size or not head.startswith(b"\x7fELF\x01\x01\x01"):
        return None
    header = _Header(*_ELF_HEADER.unpack_from(head))
    size = _PROGRAM_HEADER.size
    if header.machine != _EM_ARM or header.type not in (_ET_EXEC, _ET_DYN) or header.phentsize != size:
        return None
    interpreter, is_linux, wants_stack, has_header = "", header.ident[7] == _OS_GNU, False, False
    for at in range(header.phoff, min(header.phoff + header.phnum * size, len(head) - size + 1), size):
        kind, offset, _, _, length, *_ = _PROGRAM_HEADER.unpack_from(head, at)
        content = head[offset : offset + length]
        if kind == _PT_INTERP:
            interpreter, is_linux = content.split(b"\0")[0].decode("utf-8", "surrogateescape"), True
        is_linux |= kind == _PT_NOTE and _ABI_TAG in content
        is_linux |= kind == _PT_DYNAMIC and header.type == _ET_DYN
        wants_stack |= kind == _PT_GNU_STACK
        has_header |= kind == _PT_LOAD and offset == 0 and length > 0
    if not (is_linux or (wants_stack and has_header)):
        return None
    return LinuxExecutable(interpreter, bool(header.flags & _HARD_FLOAT), bool(header.entry & 1))


def linux_executable(path: str) -> LinuxExecutable | None:
    """Return what the file is, or None if it is no program for Linux, or cannot be read."""
    try:
        with open(path, "rb", buffering=0) as file:
            return look_for_linux(file.read(HEAD_BYTES))
    except OSError:
        return None


def is_script(path: str) -> bool:
    """Return True for a file that names its interpreter."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(2) == b"#!"
    except OSError:
        return False


def is_linux_program(path: str) -> bool:
    """Return True for a program for Linux, or a script, which can be read."""
    return linux_executable(path) is not None or is_script(path)


def read_elf(data: bytes, path: str, entry: Gpa | None, ram_base: Gpa = GPA_0) -> Image:
    """Return the segments of an ELF executable, which are not checked against a machine. ``entry`` overrides its
    own. ``ram_base`` is where the machine's RAM begins, for the message of an error.
    """
    if data[:4] != b"\x7fELF":
        base = ram_base + FLAT_BASE
        remedy = f"If it is a flat binary, give its base address, for example {base:#x} (--base {base:#x})"
        raise ImageError(path, "it is not an ELF file", remedy)
    if len(data) < _ELF_HEADER.size:
        what = f"it is truncated: {len(data)} bytes do not hold an ELF header"
        raise ImageError(path, what, _DAMAGE_REMEDY)
    if look_for_linux(data[:HEAD_BYTES]) is not None:
        raise ImageError(path, "it is a program for Linux", _LINUX_REMEDY)
    header = _Header(*_ELF_HEADER.unpack_from(data))
    for wrong, what, remedy in _header_checks(header, len(data)):
        if wrong:
            raise ImageError(path, what, remedy)
    segments: list[Segment] = []
    for number in range(header.phnum):
        program = _PROGRAM_HEADER.unpack_from(data, header.phoff + number * _PROGRAM_HEADER.size)
        if program[0] == _PT_LOAD and program[5]:
            segments.append(_read_segment(data, path, number, program))
    if not segments:
        raise ImageError(path, "it has nothing to load (no PT_LOAD segment)", "Link it into an executable")
    return Image(path, _physical(Gva(header.entry), segments) if entry is None else entry, tuple(segments), True)


def _header_checks(header: _Header, file_size: int) -> Iterator[tuple[bool, str, str]]:
    """Yield possible defects of a header, the most telling first: whether it has the defect, its name, the remedy."""
    elf_class, byte_order, version = header.ident[4:7]
    foreign = f"it is a program for {_EM_NAMES.get(header.machine, f'ELF machine {header.machine}')}, not 32-bit ARM"
    kind = _ET_NAMES.get(header.type, f"ELF type {header.type}")
    program_headers_end = header.phoff + header.phnum * _PROGRAM_HEADER.size
    yield byte_order == _BIG_ENDIAN, "it is big-endian", "Build it for little-endian ARM: -mlittle-endian"
    yield elf_class == _CLASS_64 and header.machine in _EM_NAMES, foreign, _BUILD_REMEDY
    yield elf_class == _CLASS_64, "it is a 64-bit ELF file, not a 32-bit one", _BUILD_REMEDY
    yield (elf_class, byte_order, version) != (1, 1, 1), "its ELF identification is damaged", _DAMAGE_REMEDY
    yield header.machine != _EM_ARM, foreign, _BUILD_REMEDY
    yield header.type != _ET_EXEC, f"it is {kind}, not an executable", _LINK_REMEDY
    yield (
        header.phnum > 0 and header.phentsize != _PROGRAM_HEADER.size,
        f"its program headers are {header.phentsize} bytes long instead of 32",
        _DAMAGE_REMEDY,
    )
    yield program_headers_end > file_size, "it is truncated: its program headers lie beyond its end", _DAMAGE_REMEDY


def _read_segment(data: bytes, path: str, number: int, header: tuple[int, ...]) -> Segment:
    """Return the segment of one PT_LOAD header. Its physical address counts, because the MMU is off at the start."""
    _, offset, gva, gpa, file_size, size, flags, _ = header
    if file_size > size:
        what = f"segment {number} has more bytes in the file ({file_size:#x}) than in memory ({size:#x})"
        raise ImageError(path, what, _DAMAGE_REMEDY)
    if offset + file_size > len(data):
        what = f"it is truncated: segment {number} ends at {offset + file_size:#x}, the file at {len(data):#x}"
        raise ImageError(path, what, _DAMAGE_REMEDY)
    return Segment(Gpa(gpa), Gva(gva), data[offset : offset + file_size], size, bool(flags & _PF_X))


def _physical(entry: Gva, segments: list[Segment]) -> Gpa:
    """Return the GPA of an entry point that the file gives as a GVA, as QEMU does."""
    for segment in segments:
        if segment.executable and segment.gva <= entry & ~1 < segment.gva + segment.size:
            return Gpa(entry - segment.gva + segment.gpa)
    return Gpa(entry)  # of a file that gives it as a GPA


# -- against the machine -------------------------------------------------------------------------


def check_image(image: Image, ram: RamLayout) -> None:
    """Raise ImageError unless the segments lie in RAM, their bytes do not overlap, and one of them holds the entry."""
    _check_places(image, ram)
    _check_entry(image, ram)


def _check_places(image: Image, ram: RamLayout) -> None:
    with_bytes = sorted((segment for segment in image.segments if segment.data), key=lambda segment: segment.gpa)
    for lower, upper in pairwise(with_bytes):
        if lower.gpa + len(lower.data) > upper.gpa:
            what = f"its segments at {lower.gpa:#x} and {upper.gpa:#x} overlap"
            raise ImageError(image.path, what, "Correct the addresses in the linker script")
    for segment in sorted(image.segments, key=lambda segment: -segment.end):
        if not ram.covers(segment.gpa, segment.end - segment.gpa):
            place = f"segment [{segment.gpa:#x}, {segment.end:#x}) is" if image.is_elf else "its end is"
            raise ImageError(image.path, f"{place} outside the RAM, {ram}", _memory_remedy(segment.end, ram))


def _memory_remedy(end: int, ram: RamLayout) -> str:
    if ram.flat is None or ram.flat.base:
        return f"Link it to where there is RAM, {ram}, or choose another board (--board)"
    if end <= MAX_MEMORY:
        size = 1 << ((end - 1) >> 20).bit_length()
        return f"Give the machine more memory: {size} MiB (--memory {size}M)"
    return "Link it to lower addresses: RAM begins at 0"


def _check_entry(image: Image, ram: RamLayout) -> None:
    entry = image.entry
    what = None
    if entry & 1:
        thumb = f"its entry point {entry:#x} is Thumb code, which is outside this instruction set (A32)"
        raise ImageError(image.path, thumb, _THUMB_REMEDY)
    if entry < 0 or entry > 0xFFFFFFFF or entry & 2:
        what = "is not a 32-bit multiple of 4"
    elif not ram.covers(entry, 4):
        what = f"is outside the RAM, {ram}"
    elif not any(segment.gpa <= entry < segment.end for segment in image.segments):
        what = "lies in no segment of the program"
    if what is not None:
        remedy = "Define _start in the program, or give the address of its first instruction (--entry)"
        raise ImageError(image.path, f"its entry point {entry:#x} {what}", remedy)

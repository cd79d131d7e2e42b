"""Booting a kernel: the ARM Linux boot protocol (Linux, Documentation/arch/arm/booting.rst).

From the kernel's file and what goes with it, this module makes an image of everything that is to be in RAM, and the
registers that a boot loader sets: R0 is 0, R1 the number of the machine, R2 the address of the device tree or of the
ATAGs. The rest of the protocol (MMU and caches off, supervisor mode, interrupts masked) is the state after a reset.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from dbt.abi.addresses import Gpa, Gva
from dbt.board.atags import tag_list
from dbt.board.boards import VERSATILE, BoardModel
from dbt.board.devicetree import Chosen, DeviceTreeError, board_tree, patch_tree
from dbt.board.loader import (
    Image,
    ImageError,
    Segment,
    check_base,
    check_image,
    read_elf,
    read_file,
    refuse_base,
)
from dbt.memory.ram import RamLayout, RamRegion

# Where things go from the beginning of RAM on, as in QEMU 7.2 (hw/arm/boot.c), but for _LINUX_BASE.
_KERNEL_BASE = 0x10000
#: Linux' TEXT_OFFSET: uncompressed, it takes the address so far below itself for the beginning of RAM. Where QEMU
#: has it, at 0x10000, Linux 6.1 does not get to its first message; here it boots.
_LINUX_BASE = 0x8000
#: How uncompressed Linux tells who it is (init/version.c, linux_banner). Nothing at its beginning does.
_LINUX_BANNER = b"Linux version "
_ATAGS_BASE = 0x100
#: A kernel's first page tables are here, below TEXT_OFFSET.
_ATAGS_END = 0x4000
_INITRD_HIGHEST = 128 << 20
_ALIGNMENT = 4096
#: Bytes of the largest device tree that is read; those of real boards have some 100 KB.
_LARGEST_TREE = 16 << 20

_ZIMAGE = struct.Struct("<III")  # magic, start, end (booting.rst, 5)
_ZIMAGE_OFFSET, _ZIMAGE_MAGIC, _ZIMAGE_FOREIGN = 0x24, 0x016F2818, 0x18286F01

_UIMAGE = struct.Struct(">7I4B32s")  # u-boot, include/image.h, struct legacy_img_hdr
_UIMAGE_MAGIC = 0x27051956
_UIMAGE_LINUX, _UIMAGE_ARM = 5, 2
_UIMAGE_KERNEL, _UIMAGE_KERNEL_NOLOAD = 2, 14
_UIMAGE_PLAIN, _UIMAGE_GZIP = 0, 1

#: Linux is linked to run at a multiple of this (CONFIG_PAGE_OFFSET), which stands for the beginning of RAM.
_PAGE_OFFSET_UNIT = 0x10000000
_ALWAYS = 0xE  # the condition of an A32 instruction
_KINDS = "Give a zImage, a flat image, a uImage, or an ELF kernel for 32-bit ARM"
_AGAIN = "Copy it again"
#: By what a kernel is told of virtio devices: a node of a tree, or an argument of Linux.
_VIRTIO, _VIRTIO_ARGUMENT = b"virtio,mmio", "virtio_mmio.device="
_TELL = "Let it have the board's own device tree, or tell it of them by --append virtio_mmio.device= (docs/linux.md)"

_OTHERS = (
    (0, b"\x1f\x8b", "it is compressed with gzip"),
    (0, b"\xfd7zXZ", "it is compressed with xz"),
    (0, b"\xd0\x0d\xfe\xed", "it is a device tree or a FIT image"),
    (0, b"!<arch>\n", "it is a library"),
    (0x38, b"ARM\x64", "it is a kernel for 64-bit ARM"),
    (0x202, b"HdrS", "it is a kernel for x86"),
)

Tree = Callable[[Chosen], bytes]


class _Form(Enum):
    """The kind of a kernel's file, by its content."""

    ELF = auto()
    UIMAGE = auto()
    ZIMAGE = auto()
    LINUX = auto()  # uncompressed and flat
    FLAT = auto()  # says nothing of what it is


@dataclass(frozen=True, slots=True)
class Boot:
    """Everything that is to be in RAM, the values of R0 to R2, and the kernel's file if that is ELF, else no bytes."""

    image: Image
    registers: tuple[int, int, int]
    elf: bytes = b""


def read_boot(
    kernel: str,
    ram: RamLayout,
    initrd: str | None = None,
    dtb: str | None = None,
    append: str = "",
    atags: bool = False,
    tree: Tree = board_tree,
    base: Gpa | None = None,
    entry: Gpa | None = None,
    board: BoardModel = VERSATILE,
    needs_tree: bool = False,
) -> Boot:
    """Read the files and place them in the ``ram`` of a machine. Raise ImageError if that is impossible: there must
    be RAM where the ``board`` has it.

    ``base`` and ``entry`` are those of :func:`read_kernel`. ``append`` is the kernel's command line. Without ``dtb``
    and ``atags``, Linux is given what ``tree`` makes. On a board that has ATAGs, another flat image is given these, as
    by QEMU. If the kernel ``needs_tree``, because there are virtio devices, it is an error if nothing tells it of them.
    """
    main = ram.regions[0]
    if main.base != board.ram_base or main.read_only:
        where = f"{board.ram_base:#x}" if board.ram_base else "0"
        what = f"the board boots kernels in RAM at address {where}, and there is {ram}"
        raise ImageError(kernel, what, "Put RAM there")
    if atags and not board.has_atags:
        what = f"the board {board.name} has no ATAGs: kernels for it are given a device tree"
        raise ImageError(kernel, what, "Leave out --atags")
    ram_size = main.size
    data = read_file(kernel, ram_size + _UIMAGE.size)
    image = read_kernel(data, kernel, ram, base, entry)
    disk = None if initrd is None else _read(initrd, "initial RAM disk", "--initrd", ram_size)
    own_tree = None if dtb is None else _read(dtb, "device tree", "--dtb", min(ram_size, _LARGEST_TREE))
    bootargs = os.fsencode(append)
    if b"\0" in bootargs:
        raise ValueError("a kernel's command line holds no NUL")
    end = main.base + min(ram_size // 2, _INITRD_HIGHEST)
    segments = list(image.segments)
    place = None
    if disk is not None:
        assert initrd is not None
        start = _above(end, image.end)
        end = start + len(disk)
        place = (start, end)
        segments.append(_place(initrd, "the initial RAM disk", start, disk, main))
    tags = _tags(image, tag_list(ram_size, bootargs, place), must_fit=atags) if board.has_atags else None
    needs_tree = needs_tree and _VIRTIO_ARGUMENT not in append
    if tags is not None and (atags or (dtb is None and _form(data, kernel) is _Form.FLAT)):
        if needs_tree:
            raise ImageError(kernel, "ATAGs do not tell a kernel of the machine's virtio devices", _TELL)
        gpa = tags.gpa
    else:
        if needs_tree and own_tree is not None and _VIRTIO not in own_tree:
            raise ImageError(dtb or kernel, "it does not tell the kernel of the machine's virtio devices", _TELL)
        gpa = _above(end, image.end)
        info = _tree(dtb, own_tree, Chosen(ram_size, bootargs, place, main.base), tree)
        segments.append(_place(dtb or kernel, "the device tree", gpa, info, main))
    if tags is not None:  # with a tree too: Linux from before there were any looks where its board has its ATAGs
        segments.append(tags)
    elf = data if image.is_elf else b""
    return Boot(image._replace(segments=tuple(segments)), (0, board.machine_number, gpa), elf)


def _read(path: str, what: str, option: str, largest: int) -> bytes:
    try:
        return read_file(path, largest)
    except ImageError as error:
        raise ImageError(path, error.what, f"Check the path of the {what} ({option})") from None


def _above(wanted: int, kernel_end: int) -> Gpa:
    return Gpa(-(-max(wanted, kernel_end) // _ALIGNMENT) * _ALIGNMENT)


def _place(path: str, what: str, gpa: Gpa, data: bytes, ram: RamRegion) -> Segment:
    if gpa + len(data) > ram.end:
        place = f"{what} does not fit: it would be at [{gpa:#x}, {gpa + len(data):#x}), the RAM is {ram}"
        raise ImageError(path, place, "Make it smaller, or give the machine more memory (--memory)")
    return Segment(gpa, Gva(gpa), data, len(data), False)


def _tree(path: str | None, data: bytes | None, chosen: Chosen, make: Tree) -> bytes:
    if data is None:
        return make(chosen)
    try:
        return patch_tree(data, chosen)
    except DeviceTreeError as error:
        assert path is not None
        remedy = "Give a tree that dtc made (-O dtb), or none for the board's own"
        raise ImageError(path, f"it {error}", remedy) from None


def _tags(kernel: Image, tags: bytes, must_fit: bool) -> Segment | None:
    """Return the segment of the ATAGs at their address on this board. If they do not fit, return none or raise
    ImageError.
    """
    end, limit = _ATAGS_BASE + len(tags), min(_ATAGS_END, *(segment.gpa for segment in kernel.segments))
    if end <= limit:
        return Segment(Gpa(_ATAGS_BASE), Gva(_ATAGS_BASE), tags, len(tags), False)
    if must_fit:
        what = f"the ATAGs at [{_ATAGS_BASE:#x}, {end:#x}) do not fit below {limit:#x}"
        raise ImageError(kernel.path, what, "Give a shorter command line, or a device tree")
    return None


# -- the kernel's file ---------------------------------------------------------------------------


def read_kernel(data: bytes, path: str, ram: RamLayout, base: Gpa | None = None, entry: Gpa | None = None) -> Image:
    """Return the segments and the entry of a kernel in any of its forms. Raise ImageError if it is none or does not
    fit.

    A zImage or a flat image goes to ``base``. Without ``base`` it goes where QEMU places it; uncompressed Linux goes
    where it expects to be. The other forms contain their addresses. ``entry``, a GPA, overrides the kernel's own.
    """
    match _form(data, path):
        case _Form.ELF:
            refuse_base(path, "an ELF file", base)
            image = _from_virtual(read_elf(data, path, None), ram)
        case _Form.UIMAGE:
            refuse_base(path, "a uImage", base)
            image = _read_uimage(data, path, ram.regions[0])
        case form:
            check_base(path, base)
            image = _flat(data, path, form, ram.regions[0].base, base)
    if entry is not None:
        image = image._replace(entry=entry)
    check_image(image, ram)
    return image


def _form(data: bytes, path: str) -> _Form:
    """Return the form of the file. Raise ImageError for a zImage that cannot be booted."""
    if data[:4] == b"\x7fELF":
        return _Form.ELF
    if data[:4] == _UIMAGE_MAGIC.to_bytes(4, "big"):
        return _Form.UIMAGE
    if _is_zimage(data, path):
        return _Form.ZIMAGE
    return _Form.LINUX if _LINUX_BANNER in data else _Form.FLAT


def _flat(
    data: bytes, path: str, form: _Form, ram_base: Gpa, base: Gpa | None = None, entry: Gpa | None = None
) -> Image:
    """Return a zImage or a flat image as a segment. Only the A32 code at its beginning identifies a flat image."""
    if form is not _Form.ZIMAGE:
        for offset, magic, what in _OTHERS:
            if data[offset : offset + len(magic)] == magic:
                raise ImageError(path, what, _KINDS)
        if len(data) < 4 or data[3] >> 4 != _ALWAYS:
            raise ImageError(path, "it is no kernel: it does not begin with A32 code", _KINDS)
    if base is None:
        base = Gpa(ram_base + (_LINUX_BASE if form is _Form.LINUX else _KERNEL_BASE))
    return Image(path, base if entry is None else entry, (Segment(base, Gva(base), data, len(data), True),), False)


def _is_zimage(data: bytes, path: str) -> bool:
    if len(data) < _ZIMAGE_OFFSET + _ZIMAGE.size:
        return False
    magic, start, end = _ZIMAGE.unpack_from(data, _ZIMAGE_OFFSET)
    if magic == _ZIMAGE_FOREIGN:
        raise ImageError(path, "it is a big-endian zImage", "Build the kernel for little-endian ARM")
    if magic != _ZIMAGE_MAGIC:
        return False
    if end - start > len(data):
        what = f"it is truncated: the zImage says that it has {end - start} bytes, and has {len(data)}"
        raise ImageError(path, what, _AGAIN)
    return True


def _read_uimage(data: bytes, path: str, ram: RamRegion) -> Image:
    """Read u-boot's format: a header of 64 bytes with two checksums and the address of the content."""
    if len(data) < _UIMAGE.size:
        raise ImageError(path, "it is truncated: it does not hold the header of a uImage", _AGAIN)
    _, header_crc, _, size, load, entry, data_crc, system, processor, kind, packing, _ = _UIMAGE.unpack_from(data)
    header = data[:4] + bytes(4) + data[8 : _UIMAGE.size]
    content = data[_UIMAGE.size : _UIMAGE.size + size]
    for wrong, what, remedy in (
        (zlib.crc32(header) != header_crc, "the checksum of its uImage header is wrong", _AGAIN),
        (len(content) < size, f"it is truncated: {size} bytes are to follow its uImage header", _AGAIN),
        (zlib.crc32(content) != data_crc, "the checksum of the uImage's content is wrong", _AGAIN),
        (
            (system, processor) != (_UIMAGE_LINUX, _UIMAGE_ARM) or kind not in (_UIMAGE_KERNEL, _UIMAGE_KERNEL_NOLOAD),
            f"it is a uImage of no Linux kernel for 32-bit ARM (OS {system}, processor {processor}, type {kind})",
            _KINDS,
        ),
        (
            packing not in (_UIMAGE_PLAIN, _UIMAGE_GZIP),
            f"its content is compressed by method {packing}",
            "Make the uImage of a zImage, with mkimage -C none",
        ),
    ):
        if wrong:
            raise ImageError(path, what, remedy)
    if packing == _UIMAGE_GZIP:
        content = _unpack(content, path, ram.size)
    form = _form(content, path)
    if kind == _UIMAGE_KERNEL_NOLOAD:
        return _flat(content, path, form, ram.base)
    return _flat(content, path, form, ram.base, Gpa(load), Gpa(entry))


def _unpack(content: bytes, path: str, ram_size: int) -> bytes:
    unpacker = zlib.decompressobj(wbits=31)
    try:
        unpacked = unpacker.decompress(content, ram_size + 1)
    except zlib.error as error:
        raise ImageError(path, f"the uImage's content cannot be decompressed: {error}", "Make it again") from None
    if not unpacker.eof and len(unpacked) <= ram_size:
        raise ImageError(path, "the uImage's compressed content is truncated", "Make it again")
    return unpacked


def _from_virtual(image: Image, ram: RamLayout) -> Image:
    """Move a vmlinux down to the RAM. It has the kernel's virtual addresses in place of physical ones."""
    lowest = min(segment.gpa for segment in image.segments)
    offset = lowest // _PAGE_OFFSET_UNIT * _PAGE_OFFSET_UNIT - ram.regions[0].base
    if ram.covers(lowest, 1):
        offset = 0
    moved = tuple(segment._replace(gpa=Gpa(segment.gpa - offset)) for segment in image.segments)
    return image._replace(entry=Gpa(image.entry - offset), segments=moved)

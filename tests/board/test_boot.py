"""A kernel starts as the boot protocol says, whatever it is wrapped in; what is no kernel is named."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbt.abi.addresses import Gpa
from dbt.board.atags import tag_list
from dbt.board.boot import Boot, read_boot, read_kernel
from dbt.board.loader import ImageError
from dbt.host.console import CaptureConsole
from dbt.memory.ram import RamLayout
from dbt.vm.machine import Machine, TierName
from dbt.vm.result import StopReason
from tests.assembler import assemble
from tests.board.kernels import CODE, uimage, zimage
from tests.vm.programs import TIERS, make_elf

RAM = 16 << 20
LAYOUT = RamLayout.of(RAM)


def boot(path: Path, data: bytes = b"", ram: int = RAM, **options: object) -> Boot:
    if data:
        path.write_bytes(data)
    return read_boot(str(path), RamLayout.of(ram), **options)  # type: ignore[arg-type]


def places(found: Boot) -> list[tuple[int, int]]:
    return [(segment.gpa, segment.end) for segment in found.image.segments]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "kernel"


@pytest.mark.parametrize("tier", TIERS)
def test_the_kernel_finds_what_the_protocol_promises(file: Path, tier: TierName) -> None:
    file.write_bytes(zimage())
    machine = Machine(memory=RAM, tier=tier, console=CaptureConsole())
    machine.load_kernel(str(file), append="console=ttyAMA0")
    result = machine.run(fuel=100)
    assert result.reason is StopReason.FAULT and "bkpt" in result.message
    r0, r1, r2, cpsr = struct.unpack("<4I", machine.read(0x3000, 16))
    assert (r0, r1, r2) == (0, 387, RAM // 2)
    assert cpsr & 0xFF == 0xD3  # supervisor mode, A32, IRQ and FIQ masked
    assert machine.cpu["sctlr"] & 0x1005 == 0  # MMU and caches off
    assert machine.read(r2, 4) == b"\xd0\x0d\xfe\xed"
    machine.reset()
    assert list(machine.r[:3]) == [0, 387, r2] and machine.pc == 0x10000


def test_a_program_after_a_kernel_is_a_program(file: Path, hello_elf: bytes) -> None:
    file.write_bytes(zimage())
    machine = Machine(memory=RAM, tier="reference", console=CaptureConsole())
    machine.load_kernel(str(file))
    assert machine.cpu_model == "arm926" and not machine.semihosting_enabled
    machine.load_bytes(hello_elf)
    assert machine.cpu_model == "any" and machine.semihosting_enabled and not any(machine.r[:3])


@pytest.fixture
def hello_elf() -> bytes:
    return make_elf(assemble("b ."))


@pytest.mark.parametrize(
    ("data", "base", "entry"),
    [
        (zimage(), 0x10000, 0x10000),
        (zimage(size=0x30), 0x10000, 0x10000),  # a device tree is appended
        (CODE, 0x10000, 0x10000),
        (CODE + b"Linux version 2.6.12 (gcc)", 0x8000, 0x8000),
        (uimage(CODE, 0x20000, 0x20004), 0x20000, 0x20004),
        (uimage(gzip.compress(CODE), packing=1), 0x8000, 0x8000),
        (uimage(zimage(), kind=14), 0x10000, 0x10000),
        (make_elf(CODE, 0x100000), 0x100000, 0x100000),
        (make_elf(CODE, 0x8000, gva=0xC0008000, entry=0xC0008004), 0x8000, 0x8004),
        (make_elf(CODE, 0xC0008000, entry=0xC0008004), 0x8000, 0x8004),  # vmlinux
        (make_elf(CODE, 0x80008000), 0x8000, 0x8000),
    ],
    ids=[
        "zImage",
        "appended",
        "flat",
        "Linux",
        "uImage",
        "gzip",
        "noload",
        "ELF",
        "ELF-physical",
        "vmlinux",
        "vmlinux-2G",
    ],
)
def test_a_kernel_goes_where_it_belongs(data: bytes, base: int, entry: int) -> None:
    image = read_kernel(data, "kernel", LAYOUT)
    (segment,) = image.segments
    assert (segment.gpa, image.entry) == (base, entry)
    assert CODE in segment.data


def test_what_is_told_about_the_board(file: Path) -> None:
    """A flat kernel of any kind has ATAGs at R2, as under QEMU; Linux a tree, and so has what is given one."""
    for data in (zimage(), CODE + b"Linux version 6.1", uimage(CODE), make_elf(CODE)):
        assert boot(file, data).registers[2] == RAM // 2
    assert boot(file, CODE).registers[2] == 0x100
    assert boot(file, CODE, base=0).registers[2] == RAM // 2  # where it is itself at 0x100
    tree = file.with_name("tree")
    tree.write_bytes(boot(file, zimage()).image.segments[1].data)
    assert boot(file, CODE, dtb=str(tree)).registers[2] == RAM // 2


def test_a_base_and_an_entry() -> None:
    for data in (CODE, zimage(), CODE + b"Linux version 2.6.12 (gcc)"):
        image = read_kernel(data, "kernel", LAYOUT, Gpa(0x40000), Gpa(0x40004))
        assert (image.segments[0].gpa, image.entry) == (0x40000, 0x40004)
    for data in (make_elf(CODE), uimage(CODE)):
        assert read_kernel(data, "kernel", LAYOUT, None, Gpa(0x8004)).entry == 0x8004
        with pytest.raises(ImageError, match="has load addresses of its own"):
            read_kernel(data, "kernel", LAYOUT, Gpa(0x8000))
    with pytest.raises(ImageError, match="multiple of 4"):
        read_kernel(CODE, "kernel", LAYOUT, Gpa(0x8002))


def test_the_disk_and_the_tree_go_above_the_kernel(file: Path, tmp_path: Path) -> None:
    disk = tmp_path / "initrd"
    disk.write_bytes(b"d" * 5000)
    found = boot(file, zimage(), initrd=str(disk))
    kernel, initrd, tree, tags = places(found)
    assert kernel[0] == 0x10000
    assert initrd == (RAM // 2, RAM // 2 + 5000)
    assert tree[0] == RAM // 2 + 8192 == found.registers[2]
    assert tags[0] == 0x100
    assert places(boot(file, initrd=str(disk), ram=1 << 30))[1][0] == 128 << 20
    big = zimage(bytes(RAM // 2))
    assert places(boot(file, big, initrd=str(disk)))[1][0] == -(-(0x10000 + len(big)) // 4096) * 4096


def test_atags(file: Path, tmp_path: Path) -> None:
    disk = tmp_path / "initrd"
    disk.write_bytes(b"disk")
    found = boot(file, zimage(), initrd=str(disk), append="quiet", atags=True)
    assert found.registers == (0, 387, 0x100)
    tags = found.image.segments[-1]
    assert tags.gpa == 0x100
    assert tags.data == struct.pack(
        "<5I 4I 4I 2I8s 2I",
        *(5, 0x54410001, 1, 4096, 0),
        *(4, 0x54410002, RAM, 0),
        *(4, 0x54420005, RAM // 2, 4),
        *(4, 0x54410009, b"quiet\0\0\0"),
        *(0, 0),
    )
    with_tree = boot(file, zimage(), initrd=str(disk), append="quiet")
    assert with_tree.registers[2] != 0x100 and with_tree.image.segments[-1] == tags
    assert places(boot(file, make_elf(CODE, 0)))[0][0] == 0  # they are left out where the kernel is
    assert tag_list(4096) == struct.pack("<11I", 5, 0x54410001, 1, 4096, 0, 4, 0x54410002, 4096, 0, 0, 0)


BAD = {
    "text": (b"#!/bin/sh\n", "A32 code"),
    "short": (b"\xe1", "A32 code"),
    "gzip": (gzip.compress(CODE), "gzip"),
    "xz": (b"\xfd7zXZ\0", "xz"),
    "dtb": (b"\xd0\x0d\xfe\xed" + bytes(60), "device tree"),
    "arm64": (CODE + bytes(0x38 - len(CODE)) + b"ARM\x64", "64-bit ARM"),
    "x86": (CODE + bytes(0x202 - len(CODE)) + b"HdrS", "x86"),
    "big-endian": (zimage(magic=0x18286F01), "big-endian"),
    "truncated zImage": (zimage(size=1000), "has 1000 bytes"),
    "truncated uImage": (uimage(CODE)[:40], "truncated"),
    "short uImage": (uimage(CODE)[:-1], "to follow"),
    "damaged uImage": (uimage(CODE)[:-1] + b"x", "content is wrong"),
    "damaged uImage header": (uimage(CODE)[:20] + b"x" + uimage(CODE)[21:], "header is wrong"),
    "uImage of a disk": (uimage(CODE, kind=3), "type 3"),
    "uImage for x86": (uimage(CODE, processor=3), "processor 3"),
    "uImage for VxWorks": (uimage(CODE, system=14), "OS 14"),
    "uImage with lzma": (uimage(CODE, packing=3), "method 3"),
    "uImage with no gzip": (uimage(CODE, packing=1), "decompressed"),
    "uImage with half a gzip": (uimage(gzip.compress(CODE)[:20], packing=1), "truncated"),
    "uImage bomb": (uimage(gzip.compress(bytes(RAM + 1)), packing=1), "A32 code"),
    "uImage out of RAM": (uimage(CODE, RAM), "outside the RAM"),
    "entry elsewhere": (uimage(CODE, 0x8000, 0x9000), "entry point"),
    "Thumb": (uimage(CODE, 0x8000, 0x8001), "Thumb"),
    "relocatable": (make_elf(CODE, header={"e_type": 1}), "relocatable"),
    "64-bit": (make_elf(CODE, header={"class": 2, "e_machine": 183}), "64-bit ARM"),
    "too big": (zimage(bytes(RAM)), "outside the RAM"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_kernel_is_named(name: str) -> None:
    data, words = BAD[name]
    with pytest.raises(ImageError) as error:
        read_kernel(data, "kernel", LAYOUT)
    text = str(error.value)
    assert text.startswith("kernel: ") and text.endswith(".") and words in text


def test_what_does_not_fit_is_named(file: Path, tmp_path: Path) -> None:
    disk = tmp_path / "initrd"
    disk.write_bytes(bytes(RAM // 2))
    with pytest.raises(ImageError, match=r"device tree does not fit.*--memory"):
        boot(file, zimage(), initrd=str(disk))
    disk.write_bytes(bytes(RAM // 2 + 1))
    with pytest.raises(ImageError, match=r"initial RAM disk does not fit.*--memory"):
        boot(file, initrd=str(disk))
    with pytest.raises(ImageError, match="ATAGs"):
        boot(file, append="x" * 0x4000, atags=True)
    with pytest.raises(ImageError, match=r"no such file.*--initrd"):
        boot(file, initrd=str(tmp_path / "missing"))
    with pytest.raises(ImageError, match=r"begins with 0x23212f62"):
        disk.write_bytes(b"#!/bin/sh" + bytes(40))
        boot(file, dtb=str(disk))
    with pytest.raises(ValueError, match="NUL"):
        boot(file, append="a\0b")
    with pytest.raises(ValueError, match="not both"):
        Machine(RAM, console=CaptureConsole()).load_kernel(str(file), dtb=str(disk), atags=True)


@given(st.binary(max_size=300), st.sampled_from([b"", b"\x27\x05\x19\x56", b"\x7fELF", zimage()[:0x28]]))
@settings(deadline=None, max_examples=300)
def test_any_bytes_are_a_kernel_or_an_error(data: bytes, head: bytes) -> None:
    try:
        image = read_kernel(head + data, "kernel", LAYOUT)
    except ImageError:
        return
    assert image.end <= RAM


SVC = assemble("mov r0, #0x18 ; ldr r1, =0x20026 ; svc 0x123456")


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize(("asked", "reached"), [(None, False), (False, False), (True, True)])
def test_a_kernel_reaches_the_host_only_if_asked(file: Path, tier: TierName, asked: bool | None, reached: bool) -> None:
    file.write_bytes(SVC)
    machine = Machine(memory=RAM, tier=tier, console=CaptureConsole(), semihosting=asked)
    machine.load_kernel(str(file))
    assert (machine.run(fuel=100).reason is StopReason.EXITED) == reached


def test_a_program_reaches_the_host_unless_forbidden() -> None:
    for asked, reason in ((None, StopReason.EXITED), (True, StopReason.EXITED), (False, StopReason.FAULT)):
        machine = Machine(memory=RAM, tier="reference", console=CaptureConsole(), semihosting=asked)
        machine.load_bytes(SVC, base=0x8000)
        assert machine.run(fuel=100).reason is reason


def test_the_processor_is_one_of_those_that_there_are(file: Path) -> None:
    with pytest.raises(ValueError, match="cortex-a8"):
        Machine(memory=RAM, cpu="z80")
    file.write_bytes(zimage())
    machine = Machine(memory=RAM, tier="reference", console=CaptureConsole(), cpu="cortex-a8")
    machine.load_kernel(str(file))
    assert machine.cpu_model == "cortex-a8"


#: Timer 0 runs out after 100 us and interrupts once, as the handler masks IRQs where it returns to.
_INTERRUPTED = """
    ldr r1, =0x101e2000 ; mov r0, #100 ; str r0, [r1] ; mov r0, #0xa3 ; str r0, [r1, #8]
    ldr r1, =0x10140000 ; mov r0, #16 ; str r0, [r1, #16]
    mov r3, #0 ; ldr r2, =0xe51ff004 ; str r2, [r3, #0x18] ; adr r2, handler ; str r2, [r3, #0x1c]
    msr cpsr_c, #0x53
wait:
    mrs r4, cpsr ; tst r4, #0x80 ; beq wait
    b halt
handler:
    mrs r5, spsr ; orr r5, r5, #0x80 ; msr spsr_c, r5 ; subs pc, lr, #4
halt:
"""
_FIQ_ENABLED = "ldr r1, =0x10140000 ; mov r0, #32 ; str r0, [r1, #12] ; str r0, [r1, #16] ; "
_HALTS = {
    "after it was up": (_INTERRUPTED + "b halt", (StopReason.EXITED, 0)),
    "FIQs not masked, but none enabled": (_INTERRUPTED + "msr cpsr_c, #0x93 ; self: b self", (StopReason.EXITED, 0)),
    "while booting": ("halt: b halt", (StopReason.HALTED, None)),
    "an FIQ may come": (_INTERRUPTED + _FIQ_ENABLED + "msr cpsr_c, #0x93 ; self: b self", (StopReason.FUEL, None)),
    "an IRQ may come": ("msr cpsr_c, #0x53 ; halt: b halt", (StopReason.FUEL, None)),
    "another loop": ("halt: nop ; b halt", (StopReason.FUEL, None)),
}


@pytest.mark.parametrize("tier", ["threaded", "stitched", "auto"])
@pytest.mark.parametrize("name", _HALTS)
def test_a_kernel_that_halts_ends_the_run(file: Path, name: str, tier: TierName) -> None:
    code, end = _HALTS[name]
    file.write_bytes(zimage(assemble(code, 0x10030)))
    machine = Machine(memory=RAM, tier=tier, console=CaptureConsole())
    machine.load_kernel(str(file))
    result = machine.run(fuel=(1 << 25) + 1)
    assert (result.reason, result.exit_code) == end, result.message
    assert result.icount == ((1 << 25) + 1 if result.reason is StopReason.FUEL else 1 << 24)


def test_a_program_that_does_nothing_is_not_ended(tmp_path: Path) -> None:
    machine = Machine(memory=RAM, tier="threaded", console=CaptureConsole())
    machine.load_bytes(assemble("halt: b halt"), 0x8000)
    assert machine.run(fuel=(1 << 25) + 1).reason is StopReason.FUEL

"""Every file is an image or an ImageError that says what to do."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dbt.abi.addresses import Gpa
from dbt.board.boot import read_boot
from dbt.board.loader import ImageError, read_file, read_image
from dbt.host.console import CaptureConsole
from dbt.memory.guest_memory import GuestMemory
from dbt.memory.ram import Ram, RamLayout
from dbt.vm.machine import Machine
from tests.vm.programs import BASE, exiting, make_elf

RAM = 1 << 20
LAYOUT = RamLayout.of(RAM)
CODE = exiting(0)


def complaint(data: bytes, **arguments: int) -> str:
    with pytest.raises(ImageError) as error:
        read_image(data, "guest.elf", LAYOUT, **{name: Gpa(gpa) for name, gpa in arguments.items()})
    text = str(error.value)
    assert text.startswith("guest.elf: ") and text.endswith(".") and ".." not in text
    return text


def test_an_executable_is_placed_with_its_bss_zeroed() -> None:
    memory = GuestMemory(Ram(RAM))
    memory.write_ram(Gpa(BASE), b"\xff" * 0x400)
    image = read_image(make_elf(CODE, bss=0x100), "guest.elf", LAYOUT)
    image.place(memory)
    end = BASE + len(CODE)
    assert image.entry == BASE and image.end == end + 0x100
    assert memory.read_ram(Gpa(BASE), len(CODE)) == CODE
    assert memory.read_ram(Gpa(end), 0x100) == bytes(0x100)
    assert memory.read_ram(Gpa(end + 0x100), 4) == b"\xff" * 4


def test_a_large_bss_is_zeroed_to_its_last_byte() -> None:
    memory = GuestMemory(Ram(RAM))
    memory.write_ram(Gpa(0), b"\xff" * RAM)
    read_image(make_elf(CODE, bss=0x30001), "guest.elf", LAYOUT).place(memory)
    end = BASE + len(CODE) + 0x30001
    assert memory.read_ram(Gpa(end - 0x30001), 0x30001) == bytes(0x30001)
    assert memory.read_ram(Gpa(end), 1) == b"\xff"


def test_the_physical_address_counts_and_the_entry_follows_it() -> None:
    image = read_image(make_elf(CODE, BASE, gva=0xC0000000, entry=0xC0000004), "guest.elf", LAYOUT)
    assert image.segments[0].gpa == BASE
    assert image.entry == BASE + 4


def test_a_flat_binary_goes_where_base_says() -> None:
    image = read_image(CODE, "guest.bin", LAYOUT, base=Gpa(0x10000))
    assert (image.entry, image.end) == (0x10000, 0x10000 + len(CODE))
    assert read_image(CODE, "guest.bin", LAYOUT, base=Gpa(0x10000), entry=Gpa(0x10004)).entry == 0x10004


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"#!/bin/sh\n", "--base"),
        (bytes(0x24) + struct.pack("<I", 0x016F2818), "zImage, a kernel and no program. Boot it: --kernel FILE"),
        (struct.pack(">I", 0x27051956) + bytes(60), "uImage, a kernel and no program. Boot it: --kernel FILE"),
        (b"\x7fELF", "truncated"),
        (make_elf(CODE)[:80], "program headers lie beyond"),
        (make_elf(CODE)[:-4], "truncated: segment 0"),
        (make_elf(CODE, header={"data": 2}), "big-endian"),
        (make_elf(CODE, header={"e_machine": 62, "class": 2}), "x86-64"),
        (make_elf(CODE, header={"e_machine": 3}), "32-bit x86"),
        (make_elf(CODE, header={"e_machine": 183, "class": 2}), "AArch64"),
        (make_elf(CODE, header={"e_machine": 9999}), "ELF machine 9999"),
        (make_elf(CODE, header={"class": 7}), "damaged"),
        (make_elf(CODE, header={"e_type": 1}), "relocatable"),
        (make_elf(CODE, header={"e_type": 3}), "position-independent"),
        (make_elf(CODE, header={"e_type": 4}), "core dump"),
        (make_elf(CODE, header={"e_phentsize": 56}), "56 bytes"),
        (make_elf(CODE, header={"e_phnum": 0}), "nothing to load"),
        (make_elf(CODE, segment={"p_type": 4}), "nothing to load"),
        (make_elf(CODE, segment={"p_type": 3}), "program for Linux"),
        (make_elf(bytes.fromhex("04000000 10000000 01000000 474e5500"), segment={"p_type": 4}), "program for Linux"),
        (make_elf(CODE, segment={"p_memsz": 4}), "more bytes in the file"),
        (make_elf(CODE, base=0x200000), "--memory 4M"),
        (make_elf(CODE, base=0xF0000000), "lower addresses"),
        (make_elf(CODE, segment={"p_memsz": 0x4000000}), "--memory 128M"),
        (make_elf(CODE, entry=BASE + 1), "-marm"),
        (make_elf(CODE, entry=BASE + 2), "multiple of 4"),
        (make_elf(CODE, entry=0x4000), "no segment"),
        (make_elf(CODE, entry=0x40000000), "outside the RAM"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_said(data: bytes, words: str) -> None:
    assert words in complaint(data)


def test_the_base_that_is_proposed_is_in_ram() -> None:
    with pytest.raises(ImageError, match="--base 0x40008000"):
        read_image(b"#!/bin/sh\n", "guest", LAYOUT, ram_base=Gpa(0x40000000))


def test_what_is_wrong_with_the_options_is_said() -> None:
    assert "Leave out the base address (--base)" in complaint(make_elf(CODE), base=BASE)
    assert "multiple of 4" in complaint(CODE, base=2)
    assert "--memory 2M" in complaint(CODE, base=RAM)
    assert "no segment" in complaint(CODE, base=BASE, entry=BASE - 4)
    assert "Thumb" in complaint(make_elf(CODE), entry=BASE + 1)
    assert "-0x4" in complaint(make_elf(CODE), entry=-4)


def test_segments_must_not_overlap() -> None:
    one = make_elf(CODE)
    header = one[52:84]
    both = one[:44] + (2).to_bytes(2, "little") + one[46:84] + header + CODE
    assert "overlap" in complaint(both)


def make_overlapping(bss: int, second: int) -> bytes:
    """Two segments: CODE with ``bss`` bytes of zeros behind it, and CODE again at ``second``."""
    first = make_elf(CODE, bss=bss)
    header = struct.pack("<8I", 1, 52 + 64, second, second, len(CODE), len(CODE), 5, 4)
    one = bytearray(first[52:84])
    struct.pack_into("<I", one, 4, 52 + 64)
    return first[:44] + (2).to_bytes(2, "little") + first[46:52] + bytes(one) + header + CODE


@pytest.mark.parametrize("gap", [0, 4, 0x40])
def test_zeros_give_way_to_the_bytes_of_another_segment(gap: int) -> None:
    """As under QEMU: linkers that pack load addresses make such files."""
    memory = GuestMemory(Ram(RAM))
    memory.write_ram(Gpa(BASE), b"\xff" * 0x400)
    second = BASE + len(CODE) + gap
    image = read_image(make_overlapping(0x100, second), "guest.elf", LAYOUT)
    image.place(memory)
    assert image.end == BASE + len(CODE) + 0x100
    assert memory.read_ram(Gpa(BASE), image.end - BASE) == (CODE + bytes(gap) + CODE).ljust(image.end - BASE, b"\0")
    assert memory.read_ram(Gpa(image.end), 4) == b"\xff" * 4


def test_bytes_must_not_overlap() -> None:
    assert "overlap" in complaint(make_overlapping(0x100, BASE + len(CODE) - 4))


@pytest.mark.skipif(shutil.which("arm-none-eabi-gcc") is None, reason="arm-none-eabi-gcc is not installed")
def test_load_addresses_that_are_packed(tmp_path: Path) -> None:
    """Data and its zeros in one segment, and a load address directly behind the data (QEMU, commit bf1733392ca2)."""
    (tmp_path / "rom.ld").write_text(PACKED_SCRIPT)
    (tmp_path / "start.S").write_text(PACKED_PROGRAM)
    program = tmp_path / "packed.elf"
    command = ["arm-none-eabi-gcc", "-marm", "-nostdlib", "-T", "rom.ld", "start.S", "-o", "packed.elf"]
    subprocess.run(command, check=True, cwd=tmp_path)
    console = CaptureConsole()
    machine = Machine(memory=RAM, tier="threaded", console=console)
    machine.load(str(program))
    assert machine.run(timeout=10).exit_code == 0
    assert bytes(console.output) == b"data copied\nfast copied\n"


PACKED_SCRIPT = """
MEMORY {
  rom : ORIGIN = 0x10000, LENGTH = 64K
  ram : ORIGIN = 0x40000, LENGTH = 64K
  tcm : ORIGIN = 0x80000, LENGTH = 64K
}
ENTRY(_start)
SECTIONS {
  .text : { *(.text*) } > rom
  .data : { __data_start = .; *(.data*) __data_end = .; } > ram AT > rom
  __data_lma = LOADADDR(.data);
  .bss (NOLOAD) : { *(.bss*) } > ram
  .fast : { __fast_start = .; *(.fast*) __fast_end = .; } > tcm AT > rom
  __fast_lma = LOADADDR(.fast);
}
"""

PACKED_PROGRAM = """
    .text
    .global _start
_start:
    ldr r0, =__data_lma
    ldr r1, =__data_start
    ldr r2, =__data_end
1:  cmp r1, r2
    ldrlo r3, [r0], #4
    strlo r3, [r1], #4
    blo 1b
    ldr r0, =__fast_lma
    ldr r1, =__fast_start
    ldr r2, =__fast_end
2:  cmp r1, r2
    ldrlo r3, [r0], #4
    strlo r3, [r1], #4
    blo 2b
    mov r0, #4
    ldr r1, =data
    svc 0x123456
    mov r0, #4
    ldr r1, =fast
    svc 0x123456
    mov r0, #0x18
    ldr r1, =0x20026
    svc 0x123456
    .ltorg
    .data
data: .asciz "data copied\\n"
    .balign 4
    .bss
    .space 0x2000
    .section .fast, "aw"
fast: .asciz "fast copied\\n"
    .balign 4
"""


@pytest.mark.parametrize("content", [b"", b"\x7fELF"])
def test_nothing_is_read_of_a_file_that_cannot_be_loaded(tmp_path: Path, content: bytes) -> None:
    """Six gigabytes that take no room on disk."""
    path = tmp_path / "large.bin"
    path.write_bytes(content)
    os.truncate(path, 6 << 30)
    tracemalloc.start()
    try:
        for read in (
            lambda: read_file(str(path), RAM),
            lambda: read_boot(str(path), LAYOUT),
            lambda: Machine(memory=RAM, tier="reference", console=CaptureConsole()).load(str(path)),
        ):
            with pytest.raises(ImageError, match="it has 6,442,450,944 bytes"):
                read()
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


def test_a_file_of_the_size_of_the_ram(tmp_path: Path) -> None:
    path = tmp_path / "flat.bin"
    path.write_bytes(bytes(RAM))
    assert len(read_file(str(path), RAM)) == RAM
    with pytest.raises(ImageError, match="more memory"):
        read_file(str(path), RAM - 1)
    path.write_bytes(make_elf(CODE))
    assert read_file(str(path), 16) == make_elf(CODE)


def test_a_file_whose_size_is_not_told() -> None:
    assert os.stat("/proc/self/stat").st_size == 0
    assert read_file("/proc/self/stat").startswith(b"%d " % os.getpid())


@pytest.mark.parametrize("name", ["missing", "directory", "empty", "pipe", "nul\0"])
def test_what_cannot_be_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageError) as error:
        read_file(str(tmp_path / name))
    assert str(tmp_path / name) in str(error.value)


SOUND = make_elf(CODE, bss=64, symbols={"main": (BASE, 8)})


@settings(max_examples=500, deadline=None)
@given(st.integers(0, len(SOUND)))
def test_a_truncated_file_is_refused_or_sound(length: int) -> None:
    try_to_read(SOUND[:length])


@settings(max_examples=2000, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(SOUND) - 1), st.integers(0, 255)), min_size=1, max_size=8))
@example([(44, 255), (45, 255)])
def test_a_mutated_file_is_refused_or_sound(changes: list[tuple[int, int]]) -> None:
    data = bytearray(SOUND)
    for place, value in changes:
        data[place] = value
    try_to_read(bytes(data))


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=200), st.integers(-8, 1 << 33), st.one_of(st.none(), st.integers(-8, 1 << 33)))
def test_any_flat_binary_is_refused_or_sound(data: bytes, base: Gpa, entry: Gpa | None) -> None:
    try_to_read(data, base, entry)


MEMORY = GuestMemory(Ram(RAM))


def try_to_read(data: bytes, base: Gpa | None = None, entry: Gpa | None = None) -> None:
    try:
        image = read_image(data, "guest.elf", LAYOUT, base, entry)
    except ImageError:
        return
    image.place(MEMORY)
    assert image.end <= RAM and image.entry < RAM and image.entry % 4 == 0

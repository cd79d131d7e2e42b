"""Every file is an image or an ImageError that says what to do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dbt.abi.addresses import Gpa
from dbt.board.loader import ImageError, read_file, read_image
from dbt.memory.guest_memory import GuestMemory
from dbt.memory.ram import Ram
from tests.vm.programs import BASE, exiting, make_elf

RAM = 1 << 20
CODE = exiting(0)


def complaint(data: bytes, **arguments: int) -> str:
    with pytest.raises(ImageError) as error:
        read_image(data, "guest.elf", RAM, **arguments)
    text = str(error.value)
    assert text.startswith("guest.elf: ") and text.endswith(".") and ".." not in text
    return text


def test_an_executable_is_placed_with_its_bss_zeroed() -> None:
    memory = GuestMemory(Ram(RAM))
    memory.write_ram(Gpa(BASE), b"\xff" * 0x400)
    image = read_image(make_elf(CODE, bss=0x100), "guest.elf", RAM)
    image.place(memory)
    end = BASE + len(CODE)
    assert image.entry == BASE and image.end == end + 0x100
    assert memory.read_ram(Gpa(BASE), len(CODE)) == CODE
    assert memory.read_ram(Gpa(end), 0x100) == bytes(0x100)
    assert memory.read_ram(Gpa(end + 0x100), 4) == b"\xff" * 4


def test_a_large_bss_is_zeroed_to_its_last_byte() -> None:
    memory = GuestMemory(Ram(RAM))
    memory.write_ram(Gpa(0), b"\xff" * RAM)
    read_image(make_elf(CODE, bss=0x30001), "guest.elf", RAM).place(memory)
    end = BASE + len(CODE) + 0x30001
    assert memory.read_ram(Gpa(end - 0x30001), 0x30001) == bytes(0x30001)
    assert memory.read_ram(Gpa(end), 1) == b"\xff"


def test_the_physical_address_counts_and_the_entry_follows_it() -> None:
    image = read_image(make_elf(CODE, BASE, gva=0xC0000000, entry=0xC0000004), "guest.elf", RAM)
    assert image.segments[0].gpa == BASE
    assert image.entry == BASE + 4


def test_a_flat_binary_goes_where_base_says() -> None:
    image = read_image(CODE, "guest.bin", RAM, base=0x10000)
    assert (image.entry, image.end) == (0x10000, 0x10000 + len(CODE))
    assert read_image(CODE, "guest.bin", RAM, base=0x10000, entry=0x10004).entry == 0x10004


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"#!/bin/sh\n", "--base"),
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
        (make_elf(CODE, segment={"p_type": 3}), "operating system"),
        (make_elf(bytes.fromhex("04000000 10000000 01000000 474e5500"), segment={"p_type": 4}), "operating system"),
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


def test_what_is_wrong_with_the_options_is_said() -> None:
    assert "Leave out --base" in complaint(make_elf(CODE), base=BASE)
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
def test_any_flat_binary_is_refused_or_sound(data: bytes, base: int, entry: int | None) -> None:
    try_to_read(data, base, entry)


MEMORY = GuestMemory(Ram(RAM))


def try_to_read(data: bytes, base: int | None = None, entry: int | None = None) -> None:
    try:
        image = read_image(data, "guest.elf", RAM, base, entry)
    except ImageError:
        return
    image.place(MEMORY)
    assert image.end <= RAM and image.entry < RAM and image.entry % 4 == 0

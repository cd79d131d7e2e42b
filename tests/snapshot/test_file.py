"""Snapshot files: what was written comes back, increments too, and what is wrong gives one paragraph."""

from __future__ import annotations

import os
import random
import re
import struct
from pathlib import Path

import msgspec
import pytest
import zstandard
from blake3 import blake3

from dbt.abi.addresses import Gpa
from dbt.abi.layout import PAGE_SIZE
from dbt.memory.ram import RamLayout, RamRegion
from dbt.snapshot.chain import SnapshotChain
from dbt.snapshot.errors import SnapshotError
from tests.snapshot.images import LAYOUT, VALUES, Pages, load, page_of, same, save, some_pages


def refused(path: Path) -> str:
    """Return the error for a file, which must be one paragraph that names it."""
    with pytest.raises(SnapshotError) as caught:
        load(path)
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    return text


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 60, 160])
def test_a_state_comes_back(tmp_path: Path, count: int) -> None:
    pages = some_pages(count)
    save(tmp_path / "a", pages)
    values, back = load(tmp_path / "a")
    assert same(values, VALUES)
    assert back.content == pages.content
    assert back.layout == LAYOUT
    assert os.stat(tmp_path / "a").st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["a"]


def test_the_same_state_gives_the_same_bytes(tmp_path: Path) -> None:
    assert save(tmp_path / "a", some_pages()) == save(tmp_path / "b", some_pages())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert save(tmp_path / "b", some_pages(), {**VALUES, "icount": 1}) != save(tmp_path / "a", some_pages())


def test_another_program_can_read_a_file_by_the_documentation(tmp_path: Path) -> None:
    pages = some_pages()
    digest = save(tmp_path / "a", pages)
    data = (tmp_path / "a").read_bytes()
    magic, version, size, stated = struct.unpack_from("<8sII32s", data)
    assert (magic, version, stated) == (b"\x89dbtsnap", 1, digest)
    assert blake3(data[:16] + data[48 : 48 + size]).digest() == digest
    header = msgspec.msgpack.decode(data[48 : 48 + size])
    at = 48 + size
    length, stored, checksum = header["values"]
    assert blake3(data[at : at + stored]).digest() == checksum
    values = zstandard.decompress(data[at : at + stored])
    assert len(values) == length
    assert same(msgspec.msgpack.decode(values), VALUES)
    at += stored
    content = b""
    for stored, checksum in struct.iter_unpack("<I32s", header["chunks"]):
        assert blake3(data[at : at + stored]).digest() == checksum
        content += zstandard.decompress(data[at : at + stored])
        at += stored
    assert at == len(data)
    numbers = [start + n for start, count in struct.iter_unpack("<II", header["pages"]) for n in range(count)]
    assert {page: content[n << 12 : n + 1 << 12] for n, page in enumerate(numbers)} == pages.content


# -- increments ------------------------------------------------------------------------------------


def changed(pages: Pages, seed: int, count: int = 10) -> Pages:
    """Return RAM in which some pages have other content, some are zero, and some are not zero any more."""
    made, content = random.Random(seed), dict(pages.content)
    for page in made.sample(sorted(content), count):
        content[page] = made.choice([bytes(PAGE_SIZE), page_of(seed * 77 + page)])
    for page in made.sample(range(128), count):
        content[page] = page_of(seed * 99 + page)
    return Pages(content)


def test_increments_come_back(tmp_path: Path) -> None:
    states = [some_pages()]
    for number in range(5):
        states.append(changed(states[-1], number))
    save(tmp_path / "0", states[0])
    for number in range(1, 6):
        values = {**VALUES, "icount": number}
        save(tmp_path / f"{number}", states[number], values, (tmp_path / f"{number - 1}", states[number - 1]))
    for number in range(1, 6):
        values, back = load(tmp_path / f"{number}")
        assert values["icount"] == number
        assert back.content == states[number].content
    assert (tmp_path / "3").stat().st_size < (tmp_path / "0").stat().st_size


def test_an_increment_without_a_difference_has_no_pages(tmp_path: Path) -> None:
    pages = some_pages()
    save(tmp_path / "a", pages)
    save(tmp_path / "b", pages, parent=(tmp_path / "a", pages))
    assert load(tmp_path / "b")[1].content == pages.content
    with SnapshotChain(str(tmp_path / "b")) as chain:
        assert not chain.files[0].header.pages.total


def test_an_increment_moves_with_its_parent(tmp_path: Path) -> None:
    first, second = some_pages(), changed(some_pages(), 1)
    (tmp_path / "here").mkdir()
    save(tmp_path / "here/a", first)
    save(tmp_path / "here/b", second, parent=(tmp_path / "here/a", first))
    (tmp_path / "here").rename(tmp_path / "there")
    assert load(tmp_path / "there/b")[1].content == second.content
    (tmp_path / "link").symlink_to("there/b")
    assert load(tmp_path / "link")[1].content == second.content


def test_a_parent_that_is_missing_or_another_is_named(tmp_path: Path) -> None:
    first, second = some_pages(), changed(some_pages(), 1)
    save(tmp_path / "a", first)
    save(tmp_path / "b", second, parent=(tmp_path / "a", first))
    save(tmp_path / "a", second)
    assert "Put the file back" in refused(tmp_path / "b")
    (tmp_path / "a").unlink()
    assert "increment to a" in refused(tmp_path / "b")
    assert "No such file" in refused(tmp_path / "b")
    os.mkfifo(tmp_path / "a")
    assert "not a regular file" in refused(tmp_path / "b")


def test_a_chain_that_is_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dbt.snapshot.chain.MAX_DEPTH", 10)
    pages = some_pages(1)
    save(tmp_path / "0", pages)
    for number in range(1, 11):
        save(tmp_path / f"{number}", pages, parent=(tmp_path / f"{number - 1}", pages))
    assert load(tmp_path / "9")[1].content == pages.content
    assert "more than 9 parents" in refused(tmp_path / "10")


def test_a_parent_with_other_ram_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "a", Pages({1: page_of(1)}, RamLayout((RamRegion(Gpa(0), 1 << 20),))))
    save(tmp_path / "b", Pages({1: page_of(2)}), parent=(tmp_path / "a", Pages({1: page_of(1)})))
    assert "its parent at [0, 0x100000)" in refused(tmp_path / "b")


# -- files that are wrong --------------------------------------------------------------------------


def test_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "missing")
    assert "regular file" in refused(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    assert "regular file" in refused(tmp_path / "fifo")
    for name, content in {"empty": b"", "short": b"\x89dbt", "elf": b"\x7fELF" + bytes(200)}.items():
        (tmp_path / name).write_bytes(content)
        assert "no snapshot of dbt" in refused(tmp_path / name)
    with pytest.raises(SnapshotError, match="cannot be read"):
        SnapshotChain("a\0b")


def test_a_file_without_permission_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "a", some_pages())
    (tmp_path / "a").chmod(0)
    if os.access(tmp_path / "a", os.R_OK):
        pytest.skip("this user may read everything")
    assert "Permission denied" in refused(tmp_path / "a")


def test_a_newer_format_is_named(tmp_path: Path) -> None:
    save(tmp_path / "a", some_pages())
    data = bytearray((tmp_path / "a").read_bytes())
    data[8:12] = (2).to_bytes(4, "little")
    (tmp_path / "a").write_bytes(data)
    text = refused(tmp_path / "a")
    assert "has the format 2, and this dbt knows format 1" in text
    assert "version of dbt that wrote it" in text


def test_a_file_that_was_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "a", some_pages(20))
    data = (tmp_path / "a").read_bytes()
    for size in [*range(200), *range(200, len(data), 997), len(data) - 1]:
        (tmp_path / "b").write_bytes(data[:size])
        refused(tmp_path / "b")
    (tmp_path / "b").write_bytes(data + b"\0")
    assert re.search(r"has [\d,]+ bytes, and [\d,]+ belong to it", refused(tmp_path / "b"))


def test_every_byte_is_covered_by_a_checksum(tmp_path: Path) -> None:
    save(tmp_path / "a", some_pages(20))
    data = (tmp_path / "a").read_bytes()
    for at in [*range(1000), *range(1000, len(data), 501), len(data) - 1]:
        wrong = bytearray(data)
        wrong[at] ^= 1 << at % 8
        (tmp_path / "b").write_bytes(wrong)
        refused(tmp_path / "b")

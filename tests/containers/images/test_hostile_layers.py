"""Archives that are made to do harm: each is refused by name, or does what it would do in docker, within the layer."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from dbt.containers.images.erofs_reader import ErofsReader, Inode
from dbt.containers.images.errors import BadLayer
from dbt.containers.images.layer_files import archive_of, build_layer
from dbt.containers.images.tar_reader import Limits
from dbt.containers.images.unpacking import unpacked
from tests.containers.images.archives import archive, diff_id, files, member, pax, raw, record, summed

_SEED, _MUTANTS = 20241129, 600
_XATTR = "SCHILY.xattr."
DIRECTORY, LINK, HARD = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


class Layer:
    """A layer that is built in a directory."""

    def __init__(self, folder: Path, data: bytes, **limits: int) -> None:
        self._image, self._recipe = folder / "image", folder / "recipe"
        with self._image.open("wb+") as image, self._recipe.open("wb") as recipe:
            self.built = build_layer(unpacked(io.BytesIO(data)), image, recipe, Limits(**limits))
        self.reader = ErofsReader(str(self._image))

    def archive(self) -> bytes:
        return b"".join(archive_of(str(self._image), str(self._recipe), self.built.diff_id))

    def all(self) -> dict[str, Inode]:
        """Return everything but the root, by its path."""
        found: dict[str, Inode] = {}
        todo = [("", self.reader.root)]
        while todo:
            path, folder = todo.pop()
            for name, nid in self.reader.children(folder).items():
                inode = self.reader.inode(nid)
                whole = f"{path}{name.decode('utf-8', 'surrogateescape')}"
                found[whole] = inode
                if stat.S_ISDIR(inode.mode):
                    todo.append((f"{whole}/", inode))
        return found

    def content(self, path: str) -> bytes:
        return b"".join(self.reader.content(self.all()[path]))


def one(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", **fields: Any) -> bytes:
    return archive([member(name, kind, data, **fields)])


def after(*before: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    return archive(before, form)


_SYMLINK = member("a", LINK, linkname="/b")

REFUSED: dict[str, tuple[bytes, str]] = {
    "a name that leads out": (one("../x"), r"a path that leads out of it: \.\./x"),
    "a name that leads out in the middle": (one("a/../../x"), "a path that leads out of it"),
    "an absolute name that leads out": (one("/../x"), "a path that leads out of it"),
    "a root that is a file": (one("."), "a root that is no directory"),
    "a root that is a link": (one("/", LINK, linkname="/etc"), "a root that is no directory"),
    "a file as a directory": (after(member("a"), member("a/b")), "a path below what is no directory: a/b"),
    "a device as a directory": (
        after(member("a", tarfile.CHRTYPE), member("a/b")),
        "a path below what is no directory",
    ),
    "a loop of links": (
        after(member("a", LINK, linkname="b"), member("b", LINK, linkname="a"), member("a/c")),
        "a path with too many links: a/c",
    ),
    "a long way of links": (
        after(*(member(f"l{n}", LINK, linkname=f"l{n - 1}") for n in range(60)), member("l59/x")),
        "a path with too many links",
    ),
    "a hard link to nothing": (one("a", HARD, linkname="b"), "a link to what is not there: a to b"),
    "a hard link to itself": (one("a", HARD, linkname="a"), "a link to what is not there"),
    "a hard link out": (one("a", HARD, linkname="../../etc/passwd"), "a path that leads out of it"),
    "a hard link to the root": (one("a", HARD, linkname="/"), "a link to what is not there"),
    "a hard link to a directory": (
        after(member("d", DIRECTORY), member("a", HARD, linkname="d")),
        "a hard link to a directory: a",
    ),
    "a hard link through a link": (
        after(_SYMLINK, member("b", DIRECTORY), member("b/c"), member("x", HARD, linkname="a/c")),
        "a link to what is not there",
    ),
    "a whiteout of nothing": (one(".wh."), "a whiteout of nothing"),
    "a whiteout of itself": (one("d/.wh.."), "a whiteout of nothing"),
    "a whiteout of the parent": (one("d/.wh..."), "a whiteout of nothing"),
    "a path that is too long": (one("a/" * 2100), "a path of more than 4095 bytes"),
    "a name that is too long": (one("a" * 256), "a name of more than 255 bytes"),
    "a name with a zero": (pax(record("path", "a\0b")), "a name with a zero in it"),
    "a link to nothing": (one("a", LINK, linkname=""), "a symbolic link with a target of no use"),
    "a link that is too long": (one("a", LINK, linkname="a/" * 2100), "a symbolic link with a target of no use"),
    "a device that is too large": (
        raw(kind=b"3", major=b"\x80\0\0\0\0\0\x10\0" + b"0000000\0"),
        "a device that Linux does not have: file",
    ),
    "a negative device": (raw(kind=b"4", major=b"\xff" * 8), "a device that Linux does not have"),
    "an owner that is too large": (one("a", uid=(1 << 32) - 1), "an owner that Linux does not have"),
    "a negative owner": (raw(uid=b"\xff" * 8), "an owner that Linux does not have"),
    "an unknown kind": (raw(kind=b"M"), "an entry of the unknown kind b'M': file"),
    "a directory with data": (raw(b"d/", b"00000000010") + bytes(512), "a directory with data: d/"),
    "a wrong checksum": (raw()[:148] + b"0000000\0" + raw()[156:], "a header with a wrong checksum"),
    "a number that is none": (raw(size=b"0000000000x"), "in place of a number"),
    "a negative size": (raw(size=b"\xff" * 12), "a header with the size -1"),
    "an endless size": (raw(size=b"\x80" + b"\x7f" * 11), "a header with the size"),
    "a size that is not there": (raw(size=b"00000002000") + bytes(512), "the archive ends too early"),
    "half a header": (raw()[:100], "the archive ends too early"),
    "more after the end": (bytes(512) + raw() + bytes(1024), "goes on after a block of zeros"),
    "no archive": (b"no archive" * 100, "a header with"),
    "an attribute that is too large": (
        one("a", pax_headers={f"{_XATTR}user.a": "v" * 65536}),
        "extended attributes that Linux does not have",
    ),
    "attributes that are too many": (
        one("a", pax_headers={f"{_XATTR}user.{n}": "v" * 60000 for n in range(2)}),
        "extended attributes that Linux does not have",
    ),
    "an attribute with a long name": (
        one("a", pax_headers={f"{_XATTR}user.{'n' * 300}": "v"}),
        "extended attributes that Linux does not have",
    ),
    "an attribute with a zero": (
        pax(record(f"{_XATTR}user.a\0b", "v")),
        "extended attributes that Linux does not have",
    ),
    "an extended header without length": (pax(b"path=a\n"), "a damaged extended header"),
    "an extended header that is too short": (pax(b"9 path=a\n\n"), "a damaged extended header"),
    "an extended header of length 0": (pax(b"0 path=a\n"), "a damaged extended header"),
    "an extended header of length 2": (pax(b"2 path=a\n"), "a damaged extended header"),
    "an extended header without a value": (pax(b"7 path\n"), "a damaged extended header"),
    "an extended header of 2 MiB": (pax(record("comment", "c" * (2 << 20))), "extended headers of more than 1048576"),
    "a long name of 2 MiB": (
        raw(size=b"00010000000", kind=b"L") + bytes(2 << 20) + raw(),
        "extended headers of more than 1048576",
    ),
    "an extended size that is none": (pax(record("size", "-1")), "in place of a number"),
    "an extended time that is none": (pax(record("mtime", "now")), "in place of a time"),
    "sparse pieces that overlap": (
        pax(record("GNU.sparse.map", "0,512,0,512") + record("GNU.sparse.size", "1024") + record("size", "1024"))
        + bytes(1024),
        "a sparse file whose pieces overlap",
    ),
    "sparse pieces beyond the end": (
        pax(record("GNU.sparse.map", "512,512") + record("GNU.sparse.size", "512") + record("size", "512"))
        + bytes(512),
        "a sparse file whose pieces are not its size",
    ),
    "sparse pieces that are not there": (
        pax(record("GNU.sparse.map", "0,9999") + record("GNU.sparse.size", "9999")),
        "a sparse file whose pieces are not its size",
    ),
    "sparse pieces without a size": (pax(record("GNU.sparse.map", "0,0")), "in place of a number"),
    "half a sparse piece": (
        pax(record("GNU.sparse.map", "0") + record("GNU.sparse.size", "9")),
        "a sparse file whose pieces are not its size",
    ),
    "a sparse map without end": (
        pax(
            *[
                record("GNU.sparse.major", "1")
                + record("GNU.sparse.minor", "0")
                + record("GNU.sparse.realsize", "9")
                + record("size", "1024")
            ]
        )
        + b"9999999\n" * 128,
        "a sparse file without a map",
    ),
    "a sparse file of another form": (pax(record("GNU.sparse.major", "2")), "a sparse file of an unknown form"),
    "a sparse header without end": (
        raw(kind=b"S", rest=b"\0" * 96 + b"\1") + (bytes(504) + b"\1" + bytes(7)) * 5,
        "the archive ends too early",
    ),
    "a damaged gzip": (gzip.compress(files(a=b"1"))[:-4], "the gzip stream of the archive is damaged"),
    "more after a gzip": (gzip.compress(files(a=b"1")) + b"more", "the gzip stream of the archive is damaged"),
    "a damaged zstd": (zstandard.compress(files(a=b"1"))[:30] + bytes(9), "the zstd stream of the archive is damaged"),
    "half a zstd": (zstandard.compress(files(a=b"1"))[:-4], "the zstd stream of the archive is damaged: it ends"),
    "more after a zstd": (zstandard.compress(files(a=b"1")) + b"more", "the zstd stream of the archive is damaged"),
    "a damaged bzip2": (bz2.compress(files(a=b"1"))[:-4], "the bzip2 stream of the archive is damaged"),
    "a damaged xz": (lzma.compress(files(a=b"1"))[:-4], "the xz stream of the archive is damaged"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_hostile_is_refused(name: str, tmp_path: Path) -> None:
    data, said = REFUSED[name]
    with pytest.raises(BadLayer, match=said):
        Layer(tmp_path, data)


def _deep(name: str) -> bytes:
    return archive([member(f"{name}{'/a' * 1900}")])


BOMBS: dict[str, tuple[Callable[[], bytes], dict[str, int], str]] = {
    "gzip": (lambda: gzip.compress(files(a=bytes(20 << 20))), {}, "more than 1048576 bytes"),
    "zstd": (lambda: zstandard.compress(files(a=bytes(20 << 20))), {}, "more than 1048576 bytes"),
    "xz": (lambda: lzma.compress(files(a=bytes(20 << 20))), {}, "more than 1048576 bytes"),
    "bytes behind the end": (lambda: gzip.compress(files() + bytes(20 << 20)), {}, "more than 1048576 bytes"),
    "a sparse file": (
        lambda: pax(record("GNU.sparse.map", "0,0") + record("GNU.sparse.size", str(1 << 50))),
        {},
        "the files of the archive have more than 1048576 bytes",
    ),
    "sparse files": (
        lambda: pax(record("GNU.sparse.map", "0,0") + record("GNU.sparse.size", "1000000")) * 2,
        {},
        "the files of the archive have more than 1048576 bytes",
    ),
    "entries": (lambda: raw() * 101, {"entries": 100}, "more than 100 entries"),
    "directories": (lambda: _deep("x"), {"folders": 1000}, "more than 1000 directories without an entry"),
    "links that make directories": (
        lambda: after(member("a", LINK, linkname="b/" * 1500), member("a/c")),
        {"folders": 1000},
        "more than 1000 directories without an entry",
    ),
    "components": (lambda: _deep("x") + _deep("y"), {"steps": 1000}, "have more than 1000 components together"),
    "names": (lambda: after(*(member("n" * 200) for _ in range(10))), {"names": 1000}, "have more than 1000 bytes"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_end_at_a_limit(name: str, tmp_path: Path) -> None:
    make, limits, said = BOMBS[name]
    with pytest.raises(BadLayer, match=said):
        Layer(tmp_path, make(), **{"bytes": 1 << 20, **limits})
    assert (tmp_path / "image").stat().st_blocks * 512 <= 2 << 20


def test_names_mean_something_in_the_layer_only(tmp_path: Path) -> None:
    layer = Layer(
        tmp_path,
        after(
            member("/absolute", data=b"1"),
            member("./b/../dots", data=b"2"),
            _SYMLINK,
            member("a/through", data=b"3"),
            member("up", LINK, linkname="../../.."),
            member("up/top", data=b"4"),
            member("x/dangling", LINK, linkname="/y/z"),
            member("x/dangling/made", data=b"5"),
        ),
    )
    expected = {"absolute": b"1", "dots": b"2", "b/through": b"3", "top": b"4", "y/z/made": b"5"}
    regular = {path for path, inode in layer.all().items() if stat.S_ISREG(inode.mode)}
    assert {path: layer.content(path) for path in regular} == expected


def test_the_last_of_several_entries_counts(tmp_path: Path) -> None:
    data = after(
        member("a", data=b"old"),
        member("kept", HARD, linkname="a"),
        member("a", data=b"new" * 1000),
        member("d", DIRECTORY),
        member("d/gone"),
        member("d", data=b"a file"),
        member("e", data=b"a file"),
        member("e", DIRECTORY),
        member("e/new"),
        member("f", DIRECTORY, mode=0o700),
        member("f/kept"),
        member("f", DIRECTORY, mode=0o711),
    )
    layer = Layer(tmp_path, data)
    found = layer.all()
    assert set(found) == {"a", "kept", "d", "e", "e/new", "f", "f/kept"}
    assert [layer.content(path) for path in ("a", "kept", "d")] == [b"new" * 1000, b"old", b"a file"]
    assert [found[path].links for path in ("a", "kept", "f")] == [1, 1, 2]
    assert stat.S_IMODE(found["f"].mode) == 0o711
    assert layer.archive() == data


def test_sparse_files_of_every_form(tmp_path: Path) -> None:
    numbers = b"%011o\0%011o\0" * 2 % (512, 512, 5000, 100)
    old = raw(size=b"%011o" % 612, kind=b"S", magic=b"ustar  \0", rest=numbers + bytes(48) + b"\0" + b"%011o\0" % 9000)
    new = record("GNU.sparse.major", "1") + record("GNU.sparse.minor", "0") + record("GNU.sparse.realsize", "9000")
    head = raw(b"pax", b"%011o" % len(new + record("size", "1124")), b"x")
    body = new + record("size", "1124")
    content = b"x" * 612
    expected = bytes(512) + b"x" * 512 + bytes(3976) + b"x" * 100 + bytes(3900)
    padded = content + bytes(-612 % 512)
    numbered = b"2\n512\n512\n5000\n100\n".ljust(512, b"\0")
    forms = {
        "old": old + padded,
        "0.1": pax(
            record("GNU.sparse.map", "512,512,5000,100") + record("GNU.sparse.size", "9000") + record("size", "612")
        )
        + padded,
        "1.0": head + body + bytes(-len(body) % 512) + raw() + numbered + padded,
    }
    for form, data in forms.items():
        layer = Layer(tmp_path, data + bytes(1024))
        assert layer.content("file") == expected, form
        assert layer.built.size == 9000
        assert layer.archive() == data + bytes(1024)


def test_a_deep_tree_needs_no_recursion(tmp_path: Path) -> None:
    layer = Layer(tmp_path, _deep("x"))
    assert len(layer.all()) == 1901


def _every_kind() -> bytes:
    chance = random.Random(_SEED)
    return archive(
        [
            member("d", DIRECTORY, pax_headers={f"{_XATTR}user.a": "b"}),
            member("d/file", data=chance.randbytes(3000)),
            member("d/small", data=b"small", mtime=1.5),
            member("link", LINK, linkname="d"),
            member("link/through", data=b"t"),
            member("hard", HARD, linkname="d/file"),
            member("null", tarfile.CHRTYPE, devmajor=1, devminor=3),
            member("pipe", tarfile.FIFOTYPE),
            member("d/.wh..wh..opq"),
            member(".wh.gone"),
            member("long" * 50, data=b"long"),
        ],
    )


def _mutant(data: bytes, chance: random.Random) -> bytes:
    """Return the archive with some bytes changed. Often headers get their right checksums again."""
    blocks = [bytearray(data[at : at + 512]) for at in range(0, len(data), 512)]
    headers = [block for block in blocks if block[257:262] == b"ustar"]
    for _ in range(chance.randint(1, 4)):
        block = chance.choice(headers if chance.random() < 0.8 else blocks)
        at = chance.choice((chance.randrange(512), chance.randrange(8), 124 + chance.randrange(33), 345))
        block[at] = chance.choice((0, 0x30, 0x37, 0x2F, 0x2E, 0x80, 0xFF, chance.randrange(256)))
        if chance.random() < 0.8:
            block[:] = summed(block)
    if chance.random() < 0.2:
        blocks.insert(chance.randrange(len(blocks)), bytearray(chance.choice(headers)))
    if chance.random() < 0.1:
        del blocks[chance.randrange(len(blocks)) :]
    whole = b"".join(blocks)
    return gzip.compress(whole, 1)[: -chance.randrange(1, 20)] if chance.random() < 0.05 else whole


def test_mutants_are_refused_or_whole(tmp_path: Path) -> None:
    """What is not refused gives a file system that can be read, and the same archive again."""
    chance, data = random.Random(_SEED), _every_kind()
    refused = 0
    for number in range(_MUTANTS):
        mutant = _mutant(data, chance)
        try:
            layer = Layer(tmp_path, mutant, bytes=1 << 24)
        except BadLayer:
            refused += 1
            continue
        assert layer.archive() == mutant, number
        assert layer.built.diff_id == diff_id(mutant)
        counts: dict[int, int] = {}
        for path, inode in layer.all().items():
            assert path and ".." not in path.split("/")
            counts[inode.nid] = counts.get(inode.nid, 0) + 1
            assert sum(map(len, layer.reader.content(inode))) == inode.size
            layer.reader.xattrs(inode)
        for inode in layer.all().values():
            assert stat.S_ISDIR(inode.mode) or inode.links == counts[inode.nid]
    assert _MUTANTS * 0.2 < refused < _MUTANTS * 0.95


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress, bz2.compress, lzma.compress])
def test_packed_streams_may_have_several_parts(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    data = files(a=random.Random(1).randbytes(700_000), b=bytes(9_000_000))
    packed = pack(data[:300_000]) + pack(data[300_000:]) + bytes(700)
    assert Layer(tmp_path, packed).archive() == data

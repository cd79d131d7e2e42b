"""The file systems of layers, beside tarfile, erofs-utils and what the archive says; a guest's kernel mounts them in
tests/containers/runtime.
"""

from __future__ import annotations

import io
import random
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dbt.containers.images.erofs_reader import ErofsReader, Inode
from dbt.containers.images.errors import StoreError
from dbt.containers.images.layer_files import build_layer
from dbt.containers.images.tar_reader import Limits
from tests.containers.images.archives import archive, member

_NEEDS_FSCK = pytest.mark.skipif(shutil.which("fsck.erofs") is None, reason="there is no fsck.erofs")


def image_of(layer: bytes, path: Path) -> Path:
    with path.open("xb+") as image:
        build_layer(io.BytesIO(layer), image, io.BytesIO(), Limits())
    return path


def tree_of(image: ErofsReader) -> dict[str, Inode]:
    found, todo = {"": image.root}, [("", image.root)]
    while todo:
        path, folder = todo.pop()
        for name, nid in image.children(folder).items():
            inode = image.inode(nid)
            whole = f"{path}/{name.decode()}".lstrip("/")
            found[whole] = inode
            if stat.S_ISDIR(inode.mode):
                todo.append((whole, inode))
    return found


def _many_kinds() -> bytes:
    """Return an archive with every kind of file, and every size near a limit of the format."""
    chance = random.Random(1)
    members = [
        member(".", tarfile.DIRTYPE, mode=0o711, uid=5, gid=6),
        member("full", tarfile.DIRTYPE, mode=0o1777),
        member("empty", tarfile.DIRTYPE),
        member("tty", tarfile.CHRTYPE, devmajor=4, devminor=300, mode=0o620, gid=5),
        member("disk", tarfile.BLKTYPE, devmajor=259, devminor=70000),
        member("pipe", tarfile.FIFOTYPE),
        member("owned", data=b"x", uid=70000, gid=4_000_000_000, mode=0o4711, mtime=1234567890.5),
        member("link", tarfile.SYMTYPE, linkname="full"),
        member("long", tarfile.SYMTYPE, linkname="/".join(["a" * 200] * 20)),
        member("attributes", data=b"a" * 2000, pax_headers={"SCHILY.xattr.user.big": "v" * 4000}),
        member("capable", pax_headers={"SCHILY.xattr.security.capability": "\1\0\0\2\0 "}),
    ]
    for size in (1, 2047, 2048, 2049, 4095, 4096, 4097, 100_000):
        members.append(member(f"size{size}", data=chance.randbytes(size)))
    names = {f"full/{chance.choice('!-.a0')}{chance.randrange(10**9):0{1 + number % 200}}" for number in range(1500)}
    members += [member(name, data=name.encode()) for name in sorted(names)]
    members.append(member("full/again", tarfile.LNKTYPE, linkname="size4097"))
    return archive(members)


def test_every_file_is_as_the_archive_says(tmp_path: Path) -> None:
    layer = _many_kinds()
    image = ErofsReader(str(image_of(layer, tmp_path / "image")))
    found = tree_of(image)
    with tarfile.open(fileobj=io.BytesIO(layer)) as expected:
        members = {one.name.removeprefix(".").lstrip("/"): one for one in expected.getmembers()}
        assert set(found) == set(members)
        for name, info in members.items():
            inode = found[name]
            data = b"".join(image.content(inode))
            if info.islnk():
                assert inode == found[info.linkname]
                assert inode.links == 2
                continue
            mode = 0o777 if info.issym() else info.mode
            assert (inode.uid, inode.gid, stat.S_IMODE(inode.mode)) == (info.uid, info.gid, mode)
            assert inode.mtime == (int(info.mtime), int(info.mtime % 1 * 10**9))
            if info.isreg():
                content = expected.extractfile(info)
                assert content is not None
                assert data == content.read()
            elif info.issym():
                assert data == info.linkname.encode()
            elif info.isdev() and not info.isfifo():
                assert inode.device == (info.devmajor, info.devminor)
            attributes = {key[13:]: value for key, value in info.pax_headers.items() if key.startswith("SCHILY.xattr.")}
            assert image.xattrs(inode) == {key.encode(): value.encode() for key, value in attributes.items()}
    assert found["full"].links == 2
    assert image.root.links == 4


@_NEEDS_FSCK
def test_erofs_utils_read_it(tmp_path: Path) -> None:
    contents = {f"folder/file{number}": b"%d" % number * number for number in range(2000)}
    layer = archive(
        [
            member("folder", tarfile.DIRTYPE),
            *(member(name, data=data) for name, data in contents.items()),
            member("link", tarfile.SYMTYPE, linkname="folder"),
        ]
    )
    path, target = image_of(layer, tmp_path / "image"), tmp_path / "extracted"
    subprocess.run(["fsck.erofs", f"--extract={target}", "--no-preserve", path], check=True, capture_output=True)
    assert {name: (target / name).read_bytes() for name in contents} == contents
    assert len(list((target / "folder").iterdir())) == len(contents)
    assert (target / "link").readlink() == Path("folder")


def test_what_a_layer_hides_is_for_overlayfs(tmp_path: Path) -> None:
    layer = archive(
        [
            *(member(name, tarfile.DIRTYPE) for name in ("opaque", "both", "bare")),
            *(member(name) for name in ("opaque/.wh..wh..opq", ".wh.gone", ".wh.both", ".wh.file", "file")),
            member(".wh..wh.plnk"),
            member("forged", pax_headers={"SCHILY.xattr.trusted.overlay.redirect": "/", "SCHILY.xattr.user.a": "b"}),
        ]
    )
    image = ErofsReader(str(image_of(layer, tmp_path / "image")))
    found = tree_of(image)
    assert set(found) == {"", "opaque", "both", "bare", "gone", "file", "forged"}
    attributes = {name: image.xattrs(inode) for name, inode in found.items()}
    opaque = {b"trusted.overlay.opaque": b"y"}
    assert attributes.pop("opaque") == attributes.pop("both") == opaque
    assert attributes.pop("forged") == {b"user.a": b"b"}
    assert not any(attributes.values())
    assert stat.S_ISREG(found["file"].mode)
    assert stat.S_ISCHR(found["gone"].mode) and found["gone"].device == (0, 0)


def test_a_damaged_image_is_told(tmp_path: Path) -> None:
    """Whatever the disk has lost, nothing but a StoreError comes of it."""
    chance = random.Random(5)
    path = image_of(_many_kinds(), tmp_path / "image")
    whole = path.read_bytes()
    inodes = int.from_bytes(whole[1024 + 40 : 1024 + 44], "little") * 4096
    damaged = 0
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(3):
            at = chance.choice((chance.randrange(1024, 1152), chance.randrange(inodes, len(data))))
            data[at] = chance.choice((0, 0xFF, chance.randrange(256)))
        changed = tmp_path / "changed"
        changed.write_bytes(data[: chance.choice((len(data), len(data), chance.randrange(len(data))))])
        try:
            image = ErofsReader(str(changed))
            for inode in _some(image):
                image.xattrs(inode)
                if inode.size < len(data):
                    list(image.content(inode))
        except StoreError:
            damaged += 1
    assert 30 < damaged < 150


def _some(image: ErofsReader) -> Iterator[Inode]:
    """Yield what is in the root directory, and in directories there."""
    for nid in image.children(image.root).values():
        inode = image.inode(nid)
        yield inode
        if stat.S_ISDIR(inode.mode):
            yield from map(image.inode, image.children(inode).values())

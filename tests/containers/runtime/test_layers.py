"""The layers of an image in a guest: its kernel mounts what the store writes, and sees in it what FilesView sees."""

from __future__ import annotations

import hashlib
import io
import os
import random
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dbt.containers.images.store import ImageStore
from dbt.containers.images.view import FilesView
from tests.containers.images.archives import HIGH, LOW, archive, member
from tests.containers.runtime.boxes import NEEDS_BUSYBOX, Boxes

pytestmark = NEEDS_BUSYBOX
_KINDS = {
    **{stat.S_IFREG: "regular file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symbolic link", stat.S_IFIFO: "fifo"},
    **{stat.S_IFCHR: "character special file", stat.S_IFBLK: "block special file"},
}
#: What a container has mounted, or has of its own.
_OWN = ("/dev", "/proc", "/sys", "/.dockerenv", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/etc/mtab")


def _busybox() -> bytes:
    return Path(os.environ["DBT_CONTAINER_IMAGES"], "busybox-armel.tar").read_bytes()


def _third() -> bytes:
    chance = random.Random(3)
    members = [
        member("many", tarfile.DIRTYPE, mode=0o1777, uid=3),
        *(member(f"many/{'n' * (number % 200)}{number}", data=b"%d" % number) for number in range(700)),
        *(member(f"size{size}", data=chance.randbytes(size)) for size in (2048, 2049, 4096, 4097, 300_000)),
        member("tty", tarfile.CHRTYPE, devmajor=4, devminor=300, mode=0o620, gid=5),
        member("disk", tarfile.BLKTYPE, devmajor=259, devminor=70000),
        member("pipe", tarfile.FIFOTYPE, mtime=1_900_000_000),
        member("owned", data=b"x", uid=70000, gid=4_000_000_000, mode=0o4711),
        member("again", tarfile.LNKTYPE, linkname="size4097"),
        member("long", tarfile.SYMTYPE, linkname="/".join(["a" * 200] * 20)),
        member("empty"),
    ]
    return archive(members)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImageStore]:
    made = ImageStore(str(tmp_path_factory.mktemp("store")))
    yield made
    made.close()


def test_a_guest_sees_what_the_archives_say(store: ImageStore, tmp_path: Path) -> None:
    layers = [store.add_layer(io.BytesIO(layer)) for layer in (_busybox(), LOW, _third(), HIGH)]
    boxes = Boxes(tmp_path, tuple(layer.erofs for layer in layers))
    script = (
        "find / -xdev -exec stat -c '%n|%F|%a|%u|%g|%s|%Y|%t:%T|%h' {} +; echo; find / -xdev -type f -exec md5sum {} +;"
        'echo; find / -xdev -type l -exec sh -c \'for one; do echo "$one|$(readlink "$one")"; done\' - {} +'
    )
    try:
        said, ended = boxes.run(boxes.said("sh", "-c", script))
    finally:
        boxes.close()
    assert (ended.exit_code, said.errors) == (0, b"")
    files, sums, links = (part.splitlines() for part in said.output.decode().split("\n\n"))
    expected, expected_sums, expected_links = _seen(FilesView(layers))
    assert {_comparable(line) for line in files if not line.startswith((*_OWN, "/|"))} == expected
    assert {line for line in sums if not line[34:].startswith(_OWN)} == expected_sums
    assert {line for line in links if not line.startswith(_OWN)} == expected_links


def _comparable(line: str) -> str:
    """Return a line without what is overlayfs's of a directory: size, time and links."""
    return line.rsplit("|", 4)[0] if "|directory|" in line else line


def _seen(view: FilesView) -> tuple[set[str], set[str], set[str]]:
    """Return the same lines of what FilesView sees."""
    files, sums, links = set[str](), set[str](), set[str]()
    names: dict[tuple[int, int], list[str]] = {}
    seen = {path: found for path, found in view.walk("/") if path != "/" and not path.startswith(_OWN)}
    for path, found in seen.items():
        names.setdefault(found.identity, []).append(path)
    for path, found in seen.items():
        kind, count = stat.S_IFMT(found.mode), len(names[found.identity])
        text = _KINDS[kind] if kind != stat.S_IFREG or found.size else "regular empty file"
        device = ":".join(f"{number:x}" for number in found.device)
        mode = stat.S_IMODE(found.mode)
        line = f"{path}|{text}|{mode:o}|{found.uid}|{found.gid}|{found.size}|{found.mtime[0]}|{device}|{count}"
        files.add(_comparable(line))
        if kind == stat.S_IFREG:
            sums.add(f"{hashlib.md5(b''.join(view.pieces(path))).hexdigest()}  {path}")
        elif kind == stat.S_IFLNK:
            links.add(f"{path}|{found.link}")
    return files, sums, links


def test_the_directories_of_mounted_files_are_the_images(store: ImageStore, tmp_path: Path) -> None:
    """Also if its last layer hides what the layers below have there."""
    layer = archive(
        [
            member("etc", tarfile.DIRTYPE, mode=0o2750, uid=7, gid=8),
            member("etc/.wh..wh..opq"),
            member("etc/hosts", data=b"image", mode=0o600),
            member("dev", tarfile.DIRTYPE, mode=0o700, uid=9),
        ]
    )
    layers = [store.add_layer(io.BytesIO(one)) for one in (_busybox(), layer)]
    boxes = Boxes(tmp_path, tuple(one.erofs for one in layers))
    script = "stat -c '%a %u %g' /etc; cat /etc/hosts /etc/resolv.conf; ls /etc; touch /etc/new; ls /dev | grep -c null"
    files = {"/etc/hosts": b"1.2.3.4 there\n", "/etc/resolv.conf": b"nameserver\n"}
    try:
        said, _ = boxes.run(boxes.said("sh", "-c", script, files=files))
    finally:
        boxes.close()
    lines = said.output.decode().splitlines()
    assert lines == ["2750 7 8", "1.2.3.4 there", "nameserver", "hosts", "resolv.conf", "1"], said


def test_a_layer_with_odd_contents_does_a_guest_no_harm(store: ImageStore, tmp_path: Path) -> None:
    """Everything is looked at, and copied up where there is room for it."""
    xattr = "SCHILY.xattr."
    odd = archive(
        [
            member(".wh..wh..opq"),
            member("d", tarfile.DIRTYPE, pax_headers={f"{xattr}user.a": "v" * 300}),
            member("d/large", data=b"a" * 2000, pax_headers={f"{xattr}user.a": "v" * 60000}),
            member("d/tail", data=b"t" * 2000, pax_headers={f"{xattr}user.a": "v" * 500}),
            member("d/acl", data=b"acl", pax_headers={f"{xattr}system.posix_acl_access": "none"}),
            member("d/capable", data=b"c", pax_headers={f"{xattr}security.capability": "none"}),
            member("d/forged", tarfile.DIRTYPE, pax_headers={f"{xattr}trusted.overlay.redirect": "/l/1"}),
            member("d/forged/file"),
            member("d/" + "n" * 255),
            member("deep" + "/d" * 200, tarfile.DIRTYPE),
            member("many", tarfile.DIRTYPE, pax_headers={f"{xattr}user.{n}": "v" * 9000 for n in range(6)}),
            member("many/file", data=b"many"),
            member("zero", tarfile.BLKTYPE),
        ]
    )
    layers = [store.add_layer(io.BytesIO(layer)) for layer in (_busybox(), odd)]
    boxes = Boxes(tmp_path, tuple(layer.erofs for layer in layers))
    script = (
        "cd /d; ls | wc -l; ls forged; cat /zero; find /deep | wc -l; cat /many/file; echo; chmod 600 *; md5sum tail;"
        "chmod 600 /many/file; stat -c '%a %n' *; echo alive"
    )
    try:
        said, ended = boxes.run(boxes.said("sh", "-c", script))
    finally:
        boxes.close()
    tail, name = hashlib.md5(b"t" * 2000).hexdigest(), "n" * 255
    modes = ["644 acl", "644 capable", "600 forged", "644 large", f"600 {name}", "600 tail"]
    expected = ["6", "file", "201", "many", f"{tail}  tail", *modes, "alive"]
    assert said.output.decode().splitlines() == expected, said.errors
    assert ended.exit_code == 0

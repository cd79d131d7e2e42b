"""Archives of containers: what goes in comes out, and nothing gets out of the container's root directory."""

from __future__ import annotations

import io
import tarfile
from collections.abc import AsyncIterator, Iterator, Sequence
from random import Random
from stat import S_IFDIR, S_IFREG

import pytest

from dbt.containers.runtime.container_vm import ContainerVm
from dbt.containers.runtime.spec import PathFailure, Process, Spec
from tests.containers.runtime.boxes import Boxes, all_of, collected, words_layer

_TIME = 1_600_000_000


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Boxes]:
    folder = tmp_path_factory.mktemp("boxes")
    made = Boxes(folder, (words_layer(folder),))
    yield made
    made.close()


@pytest.fixture(scope="module")
def box(boxes: Boxes) -> ContainerVm:
    """A container that runs, which tests use one after the other, each in another directory."""
    return boxes.run(boxes.start("words", "copy"))


def member(name: str, data: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = len(data), _TIME, 0o644
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def archive(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=form) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return made.getvalue()


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 50_000):
        yield data[at : at + 50_000]


def put(boxes: Boxes, box: ContainerVm, path: str, data: bytes, no_overwrite: bool = False) -> None:
    boxes.run(box.put_archive(path, pieces(data), no_overwrite))


def got(boxes: Boxes, box: ContainerVm, path: str) -> dict[str, tarfile.TarInfo]:
    return {info.name: info for info in members(boxes.run(_archive(box, path)))}


async def _archive(box: ContainerVm, path: str) -> bytes:
    return await collected((await box.get_archive(path))[1])


def members(data: bytes) -> Sequence[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return tar.getmembers()


def content(data: bytes, name: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        file = tar.extractfile(name)
        assert file is not None
        return file.read()


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_everything_that_a_file_can_be_comes_back(boxes: Boxes, box: ContainerVm, form: int) -> None:
    long, random = "n" * 90 + "/" + "m" * 200, Random(1).randbytes(200_001)
    sent = [
        member("dir", type=tarfile.DIRTYPE, mode=0o2750, uid=12, gid=34),
        member("dir/random", random, mode=0o4711, uid=3_000_000),
        member("dir/zeros", bytes(100_000) + b"end"),
        member(f"dir/{long}", b"long"),
        member("dir/link", type=tarfile.SYMTYPE, linkname="t" * 300, mode=0o777),
        member("dir/same", type=tarfile.LNKTYPE, linkname="dir/random", mode=0o4711, uid=3_000_000),
        member("dir/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
        member("dir/disk", type=tarfile.BLKTYPE, devmajor=259, devminor=70_000),
        member("dir/pipe", type=tarfile.FIFOTYPE),
    ]
    put(boxes, box, "/tmp", archive(*sent, form=form))
    data = boxes.run(_archive(box, "/tmp/dir"))
    found = {info.name: info for info in members(data)}
    for info, wanted in sent:
        mine = found[info.name]
        keys = ("mode", "uid", "gid", "mtime", "devmajor", "devminor")
        assert [getattr(mine, key) for key in keys] == [getattr(info, key) for key in keys], info.name
        if mine.isfile():
            assert content(data, info.name) == (wanted or random)
    assert found["dir/link"].linkname == "t" * 300
    names = {"dir/random", "dir/same"}
    (hard,) = (info for info in found.values() if info.islnk())
    assert {hard.name, hard.linkname} == names
    assert found["dir/disk"].type == tarfile.BLKTYPE and found["dir/pipe"].type == tarfile.FIFOTYPE


def test_attributes_of_files(boxes: Boxes, box: ContainerVm) -> None:
    given = {"SCHILY.xattr.user.color": "blue", "SCHILY.xattr.trusted.overlay.opaque": "y"}
    put(boxes, box, "/tmp", archive(member("attributes", b"x", pax_headers=given)))
    assert got(boxes, box, "/tmp/attributes")["attributes"].pax_headers == {"SCHILY.xattr.user.color": "blue"}


@pytest.mark.parametrize("name", ["../out", "a/../../out", "/../out", "a/.."])
def test_names_that_lead_out_are_refused(boxes: Boxes, box: ContainerVm, name: str) -> None:
    with pytest.raises(PathFailure, match="leads out of its directory"):
        put(boxes, box, "/tmp", archive(member(name, b"x")))


def test_a_link_leads_to_nothing_outside_the_container(boxes: Boxes, box: ContainerVm) -> None:
    """The agent's own /container is not the container's."""
    links = (member("up", type=tarfile.SYMTYPE, linkname="../../../../container/disk"), member("up/file", b"x"))
    with pytest.raises(PathFailure, match="up/"):
        put(boxes, box, "/tmp", archive(*links))
    absolute = (member("absolute", type=tarfile.SYMTYPE, linkname="/etc"), member("absolute/new", b"mine"))
    put(boxes, box, "/tmp", archive(*absolute))
    assert content(boxes.run(_archive(box, "/etc/new")), "new") == b"mine"


def test_a_hard_link_leads_to_nothing_outside_its_directory(boxes: Boxes, box: ContainerVm) -> None:
    with pytest.raises(PathFailure, match="leads out"):
        put(boxes, box, "/tmp", archive(member("hard", type=tarfile.LNKTYPE, linkname="../etc/passwd")))


def test_what_is_there_is_replaced(boxes: Boxes, box: ContainerVm) -> None:
    inner = archive(member("r/x/y", b"old"))
    put(boxes, box, "/tmp", inner)
    with pytest.raises(PathFailure):
        put(boxes, box, "/tmp", archive(member("r/x", b"file")), no_overwrite=True)
    put(boxes, box, "/tmp", archive(member("r/x", b"file")))
    assert content(boxes.run(_archive(box, "/tmp/r")), "r/x") == b"file"


@pytest.mark.parametrize("damage", ["cut", "checksum", "noise", "huge record", "record"])
def test_what_is_no_archive(boxes: Boxes, box: ContainerVm, damage: str) -> None:
    data = bytearray(archive(member("file", bytes(5000))))
    match damage:
        case "cut":
            del data[2000:]
        case "checksum":
            data[3] ^= 1
        case "noise":
            data[:] = Random(2).randbytes(5000)
        case "huge record":
            info = tarfile.TarInfo("pax")
            info.type, info.size = tarfile.XHDTYPE, 1 << 32
            data[:] = info.tobuf(tarfile.GNU_FORMAT) + bytes(10240)
        case "record":
            info = tarfile.TarInfo("pax")
            info.type, info.size = tarfile.XHDTYPE, 20
            data[:] = info.tobuf(tarfile.GNU_FORMAT) + b"4294967295 path=abc\n".ljust(512, b"\0") + bytes(10240)
    with pytest.raises(PathFailure):
        put(boxes, box, "/tmp", bytes(data))
    said = boxes.run(all_of(boxes.run(box.exec(Process(("words", "say", "well"), ("PATH=/bin",))))))
    assert said.output == b"well\n"


def test_paths(boxes: Boxes, box: ContainerVm) -> None:
    found = boxes.run(box.stat("/etc/passwd"))
    assert (found.name, found.mode & 0o170000, found.size > 20) == ("passwd", S_IFREG, True)
    assert boxes.run(box.stat("/")).mode & 0o170000 == S_IFDIR
    with pytest.raises(PathFailure) as failure:
        boxes.run(box.stat("/nothing"))
    assert failure.value.error == 2
    for path in ("", "a\0b", "/" + "x" * 5000):
        with pytest.raises(PathFailure):
            boxes.run(box.stat(path))


async def _write(boxes: Boxes) -> Spec:
    spec = boxes.spec("words", "write", "/tmp/new", "text", "write", "/etc/passwd", "other", "write", "/one", "1")
    vm = await boxes.runtime.start(spec)
    assert (await all_of(vm.main)).code == 0
    await vm.wait()
    return spec


def test_a_container_that_does_not_run(boxes: Boxes) -> None:
    spec = boxes.run(_write(boxes))
    vm = boxes.run(boxes.runtime.open_stopped(spec))
    assert boxes.run(vm.changes()) == [(0, "/etc"), (0, "/etc/passwd"), (1, "/one"), (0, "/tmp"), (1, "/tmp/new")]

    async def layer() -> bytes:
        return await collected(await vm.diff_layer())

    async def everything() -> bytes:
        return await collected(await vm.export())

    assert {info.name for info in members(boxes.run(layer()))} == {"etc", "etc/passwd", "one", "tmp", "tmp/new"}
    data = boxes.run(everything())
    assert content(data, "etc/passwd") == b"other\n" and content(data, "bin/words").startswith(b"\x7fELF")
    assert not any(info.name.startswith(("proc/", "sys/")) for info in members(data))
    put(boxes, vm, "/", archive(member("late", b"x")))
    boxes.run(vm.stop())
    vm = boxes.run(boxes.runtime.open_stopped(spec))
    assert boxes.run(vm.stat("/late")).size == 1
    boxes.run(vm.stop())

"""What the server answers: files as they are, changes as they are asked for, and nothing outside the directory."""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dbt.devices.virtio.ninep import MOST_FIDS, Outcome
from dbt.host.ninep import messages as m
from dbt.host.ninep.fids import Fid
from dbt.host.ninep.open_files import MOST_OPEN
from tests.host.ninep.client import NOFID, ROOT, Client, Refused, long, text, words


@pytest.fixture
def root(tmp_path: Path) -> Path:
    share = tmp_path / "share"
    (share / "sub").mkdir(parents=True)
    (share / "a").write_bytes(b"hello\n")
    (share / "sub" / "b").write_bytes(bytes(range(256)) * 40)
    (tmp_path / "secret").write_bytes(b"secret")
    (share / "out").symlink_to(tmp_path)
    (share / "out-file").symlink_to(tmp_path / "secret")
    (share / "link").symlink_to("a")
    os.mkfifo(share / "fifo")
    return share


@pytest.fixture
def client(root: Path) -> Iterator[Client]:
    client = Client(root)
    yield client
    client.server.close()


def refused(code: int, call: Callable[..., object], *arguments: object) -> None:
    with pytest.raises(Refused) as caught:
        call(*arguments)
    assert errno.errorcode[caught.value.errno] == errno.errorcode[code]


# -- sessions --------------------------------------------------------------------------------------


def test_a_version_begins_a_session_anew(client: Client) -> None:
    client.open("a")
    reply = client.call(m.TVERSION, words(1 << 30) + text("9P2000.L"))
    assert reply == words(1 << 20) + text("9P2000.L")
    assert client.fids == {}
    refused(errno.EMSGSIZE, client.call, m.TVERSION, words(4095) + text("9P2000.L"))
    assert client.call(m.TVERSION, words(8192) + text("9P2000.u"))[4:] == text("unknown")
    refused(errno.EPROTO, client.call, m.TATTACH, words(ROOT, NOFID) + text("") * 2 + words(0))


def test_there_is_no_authentication(client: Client) -> None:
    refused(errno.EOPNOTSUPP, client.call, m.TAUTH, words(9) + text("") * 2 + words(0))
    refused(errno.EOPNOTSUPP, client.call, m.TXATTRWALK, words(ROOT, 9) + text("user.x"))
    assert client.call(m.TFLUSH, b"\1\0") == b""


def test_a_walk_stops_where_there_is_nothing(client: Client) -> None:
    def walk(*names: bytes) -> bytes:
        return client.call(m.TWALK, words(ROOT, 5) + struct.pack("<H", len(names)) + b"".join(map(text, names)))

    assert len(walk(b"sub", b"nothing", b"more")) == 2 + 13
    assert 5 not in client.fids
    refused(errno.ENOENT, walk, b"nothing")
    refused(errno.ENOENT, walk, b"sub/b")
    refused(errno.ENOENT, walk, b"")
    refused(errno.EINVAL, walk, *[b"sub"] * 17)
    root = client.getattr(ROOT)
    assert walk(b"..", b"..", b"sub", b".", b"..")[-13:] == walk_qid(client, ROOT)
    assert client.getattr(5) == root
    refused(errno.EINVAL, walk, b"a")  # the fid 5 is taken


def walk_qid(client: Client, fid: int) -> bytes:
    return client.call(m.TGETATTR, words(fid) + long(0))[8:21]


# -- files -----------------------------------------------------------------------------------------


def test_files_are_read(client: Client, root: Path) -> None:
    content = (root / "sub" / "b").read_bytes()
    fid = client.open("sub/b")
    assert client.read(fid, 0, 100) == content[:100]
    assert client.read(fid, 5000, 1 << 30) == content[5000:][: 8192 - 11]
    assert client.read(fid, len(content)) == b""
    refused(errno.EBADF, client.write, fid, b"x")
    refused(errno.EINVAL, client.read, fid, 1 << 63)
    refused(errno.EINVAL, client.read, client.walk("a"))
    client.clunk(fid)
    refused(errno.EINVAL, client.read, fid)


def test_files_are_made_and_written(client: Client, root: Path) -> None:
    fid = client.create("sub", "new", os.O_RDWR, 0o640)
    assert client.write(fid, b"12345") == 5
    assert client.write(fid, b"xy", 3) == 2
    assert client.read(fid) == b"123xy"
    assert client.call(m.TFSYNC, words(fid, 1)) == client.call(m.TFSYNC, words(fid, 0)) == b""
    made = root / "sub" / "new"
    assert made.read_bytes() == b"123xy"
    assert stat.S_IMODE(made.stat().st_mode) == 0o640
    assert made.stat().st_uid == os.geteuid()
    refused(errno.EEXIST, client.create, "sub", "new", os.O_RDWR | os.O_EXCL)
    again = client.create("sub", "new", os.O_WRONLY | os.O_TRUNC)
    assert made.read_bytes() == b""
    appended = client.open("sub/new", os.O_WRONLY | os.O_APPEND)
    client.write(again, b"abc")
    client.write(appended, b"d", 0)
    assert made.read_bytes() == b"abcd"


def test_a_file_without_a_name_is_still_open(client: Client, root: Path) -> None:
    fid = client.create("", "temporary")
    client.write(fid, b"data")
    client.call(m.TUNLINKAT, words(ROOT) + text("temporary") + words(0))
    assert not (root / "temporary").exists()
    assert client.read(fid) == b"data"
    assert client.getattr(fid)[5] == 4
    client.setattr(fid, 8, size=2)
    assert client.read(fid) == b"da"
    client.server.forget()  # as in a machine that was restored
    refused(errno.ESTALE, client.read, fid)


def test_files_are_opened_again(client: Client, root: Path) -> None:
    fid = client.create("", "kept", os.O_RDWR | os.O_EXCL)
    client.write(fid, b"kept")
    other = client.open("a", os.O_RDWR | os.O_TRUNC)
    client.write(other, b"new")
    client.server.forget()
    assert client.read(fid) == b"kept"
    assert client.read(other) == b"new"
    assert client.server.lost_file(map(Fid.unpack, client.fids.values())) is None
    client.server.forget()
    (root / "kept").unlink()
    assert client.server.lost_file(map(Fid.unpack, client.fids.values())) == (b"kept", os.strerror(errno.ESTALE))


def test_the_flags_of_a_saved_fid_are_not_obeyed_blindly(root: Path) -> None:
    client = Client(root, read_only=True)
    for flags in (os.O_RDWR, os.O_TRUNC, os.O_RDWR | os.O_TRUNC | os.O_CREAT):
        client.fids[5] = Fid((b"a",), 1000, flags).pack()
        if flags & os.O_RDWR:
            refused(errno.EROFS, client.read, 5)
    assert (root / "a").read_bytes() == b"hello\n"
    client.fids[5] = Fid((b"..", b"secret"), 1000, 0).pack()
    refused(errno.EINVAL, client.read, 5)
    client.server.close()


def test_attributes(client: Client, root: Path) -> None:
    found = (root / "a").stat()
    mode, uid, gid, links, rdev, size, unit, blocks, *times = client.getattr(client.walk("a"))
    assert (mode, uid, gid, links, rdev, size) == (found.st_mode, found.st_uid, found.st_gid, 1, 0, 6)
    assert (unit, blocks) == (4096, found.st_blocks)
    assert times[:4] == [*divmod(found.st_atime_ns, 10**9), *divmod(found.st_mtime_ns, 10**9)]
    assert stat.S_ISLNK(client.getattr(client.walk("out"))[0])
    assert stat.S_ISFIFO(client.getattr(client.walk("fifo"))[0])


def test_attributes_are_set(client: Client, root: Path) -> None:
    fid, path = client.walk("a"), root / "a"
    client.setattr(fid, 1 | 8 | 0x10 | 0x20 | 0x80 | 0x100, 0o600, 0, 0, 3, 1000, 5, 2000, 7)
    found = path.stat()
    assert (stat.S_IMODE(found.st_mode), path.read_bytes()) == (0o600, b"hel")
    client.setattr(fid, 0x10 | 0x20 | 0x80 | 0x100, 0, 0, 0, 0, 1000, 5, -2000, 7)
    found = path.stat()
    assert (found.st_atime_ns, found.st_mtime_ns) == (1000 * 10**9 + 5, -2000 * 10**9 + 7)
    client.setattr(fid, 0x10)
    assert path.stat().st_atime_ns > 10**18
    assert path.stat().st_mtime_ns == -2000 * 10**9 + 7
    client.setattr(fid, 2 | 4, 0, found.st_uid, found.st_gid)
    refused(errno.EPERM, client.setattr, fid, 2, 0, found.st_uid + 1)
    refused(errno.EPERM, client.setattr, fid, 4, 0, 0, found.st_gid + 1)
    refused(errno.EINVAL, client.setattr, fid, 0x90, 0, 0, 0, 0, 0, 10**9, 0, 0)
    refused(errno.EINVAL, client.setattr, fid, 0x90, 0, 0, 0, 0, 1 << 62, 0, 0, 0)
    refused(errno.EINVAL, client.setattr, fid, 8, 0, 0, 0, 1 << 63)


def test_links_are_changed_and_not_their_targets(client: Client, root: Path) -> None:
    secret = root.parent / "secret"
    before = secret.stat()
    fid = client.walk("out-file")
    client.setattr(fid, 0x20 | 0x100, 0, 0, 0, 0, 0, 0, 77, 0)
    assert (root / "out-file").lstat().st_mtime == 77
    refused(errno.EOPNOTSUPP, client.setattr, fid, 1, 0o777)
    refused(errno.EINVAL, client.setattr, fid, 8)
    after = secret.stat()
    assert (before.st_mode, before.st_mtime_ns, before.st_size) == (after.st_mode, after.st_mtime_ns, after.st_size)


@pytest.mark.parametrize("mode", [0o4755, 0o2755])
def test_nobody_else_can_act_as_the_user(client: Client, root: Path, mode: int) -> None:
    refused(errno.EPERM, client.create, "", "new", os.O_RDWR, mode)
    refused(errno.EPERM, client.setattr, client.walk("a"), 1, mode)
    assert not (root / "new").exists()


# -- names -----------------------------------------------------------------------------------------


def test_directories(client: Client, root: Path) -> None:
    client.call(m.TMKDIR, words(ROOT) + text("made") + words(0o1750, 0))
    assert stat.S_IMODE((root / "made").stat().st_mode) == 0o1750
    names = {os.fsencode(path.name): path.lstat() for path in root.iterdir()}
    listed = client.list(client.open(""))
    assert sorted(name for name, _, _ in listed) == sorted([*names, b".", b".."])
    for name, kind, inode in listed:
        found = names.get(name, root.stat())
        assert (inode, kind) == (found.st_ino, found.st_mode >> 12)
    refused(errno.ENOTEMPTY, client.call, m.TUNLINKAT, words(ROOT) + text("sub") + words(0x200))
    refused(errno.EISDIR, client.call, m.TUNLINKAT, words(ROOT) + text("made") + words(0))
    client.call(m.TUNLINKAT, words(ROOT) + text("made") + words(0x200))
    assert not (root / "made").exists()
    refused(errno.EISDIR, client.open, "sub", os.O_RDWR)
    refused(errno.ENOTDIR, client.open, "a", os.O_DIRECTORY)
    refused(errno.EOPNOTSUPP, client.read, client.open("sub"))


def test_a_directory_that_shrinks_is_read_to_its_end(client: Client, root: Path) -> None:
    many = root / "many"
    many.mkdir()
    for number in range(500):
        (many / f"file{number}").touch()
    fid, offset, removed = client.open("many"), 0, set()
    while data := client.call(m.TREADDIR, words(fid) + long(offset) + words(200))[4:]:
        at = 0
        while at < len(data):
            *_, offset, _, size = struct.unpack_from("<BIQQBH", data, at)
            name = data[at + 24 : at + 24 + size]
            at += 24 + size
            assert 0 < offset < 1 << 31
            if not name.startswith(b"."):
                client.call(m.TUNLINKAT, words(client.walk("many")) + text(name) + words(0))
                removed.add(name)
        client.server._listing = (0, [])  # as in a machine that was restored
    assert len(removed) == 500
    assert list(many.iterdir()) == []
    refused(errno.EINVAL, client.call, m.TREADDIR, words(client.open("sub")) + long(2) + words(10))


def test_symbolic_links_are_made_and_read(client: Client, root: Path) -> None:
    client.call(m.TSYMLINK, words(ROOT) + text("s") + text("../../anything") + words(0))
    assert os.readlink(root / "s") == "../../anything"
    assert client.call(m.TREADLINK, words(client.walk("s"))) == text("../../anything")
    refused(errno.EINVAL, client.call, m.TREADLINK, words(client.walk("a")))
    refused(errno.EINVAL, client.call, m.TREADLINK, words(ROOT))


def test_nodes_are_files_only(client: Client, root: Path) -> None:
    client.call(m.TMKNOD, words(ROOT) + text("node") + words(stat.S_IFREG | 0o600, 0, 0, 0))
    assert stat.S_ISREG((root / "node").stat().st_mode)
    for kind in (stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK):
        refused(errno.EPERM, client.call, m.TMKNOD, words(ROOT) + text("bad") + words(kind | 0o600, 1, 3, 0))


def test_hard_links(client: Client, root: Path) -> None:
    client.call(m.TLINK, words(client.walk("sub"), client.walk("a")) + text("hard"))
    assert (root / "sub" / "hard").samefile(root / "a")
    client.call(m.TLINK, words(ROOT, client.walk("out-file")) + text("hard-link"))
    assert (root / "hard-link").is_symlink()
    assert (root.parent / "secret").stat().st_nlink == 1
    refused(errno.EPERM, client.call, m.TLINK, words(ROOT, client.walk("sub")) + text("directory"))
    refused(errno.EPERM, client.call, m.TLINK, words(ROOT, ROOT) + text("root"))


def test_fids_go_with_what_is_renamed(client: Client, root: Path) -> None:
    deep, opened, beside = client.walk("sub/b"), client.open("sub/b"), client.walk("a")
    client.call(m.TRENAMEAT, words(ROOT) + text("sub") + words(ROOT) + text("moved"))
    assert Fid.unpack(client.fids[deep]).path == (b"moved", b"b")
    assert client.getattr(deep)[5] == 10240
    client.call(m.TRENAME, words(deep, ROOT) + text("top"))
    assert (root / "top").stat().st_size == 10240
    client.server.forget()
    assert client.read(opened, 0, 3) == b"\0\1\2"
    assert Fid.unpack(client.fids[beside]).path == (b"a",)
    refused(
        errno.EINVAL, client.call, m.TRENAMEAT, words(ROOT) + text("moved") + words(client.walk("moved")) + text("x")
    )
    refused(errno.EBUSY, client.call, m.TRENAME, words(ROOT, client.walk("moved")) + text("x"))


def test_remove_gives_the_fid_up(client: Client, root: Path) -> None:
    fid, directory = client.open("a"), client.walk("sub")
    client.call(m.TREMOVE, words(fid))
    assert not (root / "a").exists()
    assert fid not in client.fids
    refused(errno.ENOTEMPTY, client.call, m.TREMOVE, words(directory))
    assert directory not in client.fids


def test_locks_are_granted(client: Client) -> None:
    fid = client.open("a")
    lock = bytes([1]) + words(1) + long(0) + long(0) + words(42) + text("guest")
    assert client.call(m.TLOCK, words(fid) + lock) == b"\0"
    asked = bytes([1]) + long(0) + long(0) + words(42) + text("guest")
    assert client.call(m.TGETLOCK, words(fid) + asked) == bytes([2]) + asked[1:]
    refused(errno.EINVAL, client.call, m.TLOCK, words(fid) + lock[:1] + words(8) + lock[5:])


def test_space(client: Client, root: Path) -> None:
    kind, size, blocks, *_, longest = struct.unpack("<IIQQQQQQI", client.call(m.TSTATFS, words(ROOT)))
    found = os.statvfs(root)
    assert (kind, size, blocks, longest) == (0x01021997, found.f_frsize, found.f_blocks, found.f_namemax)


# -- what is refused -------------------------------------------------------------------------------


def test_nothing_leads_outside(client: Client) -> None:
    for path in ("out/secret", "out/share/a", "link/x"):
        refused(errno.ENOENT, client.walk, path)
    for path in ("out", "out-file", "link"):
        refused(errno.ELOOP, client.open, path)
    for name in ("../x", "sub/x", "/tmp/x"):
        refused(errno.ENOENT, client.create, "", name)
    refused(errno.EINVAL, client.create, "", "x\0y")
    for name, code in ((".", errno.EEXIST), ("..", errno.EEXIST), ("", errno.ENOENT)):
        refused(code, client.create, "sub", name)
        refused(code, client.call, m.TMKDIR, words(ROOT) + text(name) + words(0o755, 0))
    refused(errno.EISDIR, client.call, m.TRENAMEAT, words(ROOT) + text("a") + words(ROOT) + text(".."))
    refused(errno.ENOTEMPTY, client.call, m.TUNLINKAT, words(ROOT) + text("..") + words(0x200))
    refused(errno.ELOOP, client.create, "", "out-file", os.O_RDWR)


def test_a_directory_that_becomes_a_link_leads_nowhere(client: Client, root: Path) -> None:
    fid, opened = client.walk("sub"), client.walk("sub/b")
    (root / "sub").rename(root / "was-sub")
    (root / "sub").symlink_to(root.parent)
    (root / "was-sub" / "b").rename(root.parent / "b")
    refused(errno.ENOTDIR, client.call, m.TLOPEN, words(opened, os.O_RDONLY))
    refused(errno.ENOTDIR, client.call, m.TLCREATE, words(fid) + text("new") + words(os.O_RDWR, 0o600, 0))
    refused(errno.ELOOP, client.call, m.TLOPEN, words(fid, os.O_RDONLY))
    assert not (root.parent / "new").exists()


def test_special_files_are_shown_and_not_opened(client: Client, root: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(root / "socket"))
        for path in ("fifo", "socket"):
            assert client.getattr(client.walk(path))[5] == 0
            for flags in (os.O_RDONLY, os.O_RDWR, os.O_WRONLY):
                refused(errno.EACCES, client.open, path, flags)


def test_a_read_only_directory_does_not_change(root: Path) -> None:
    def snapshot() -> list[tuple[str, int, int]]:
        return sorted((str(path), path.lstat().st_mode, path.lstat().st_mtime_ns) for path in root.rglob("*"))

    before, client = snapshot(), Client(root, read_only=True)
    fid, opened = client.walk("a"), client.open("a")
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_TRUNC, os.O_APPEND):
        refused(errno.EROFS, client.open, "a", flags)
    refused(errno.EROFS, client.create, "", "new")
    refused(errno.EROFS, client.write, opened, b"x")
    refused(errno.EROFS, client.setattr, fid, 1, 0o600)
    for kind in (m.TMKDIR, m.TSYMLINK, m.TMKNOD, m.TLINK, m.TRENAME, m.TRENAMEAT, m.TUNLINKAT, m.TREMOVE):
        refused(errno.EROFS, client.call, kind, words(fid, ROOT) + text("x") * 3 + words(0, 0, 0))
    assert client.read(opened) == b"hello\n"
    client.server.close()
    assert snapshot() == before


def test_fids_and_files_are_bounded(client: Client) -> None:
    for number in range(1, MOST_FIDS):
        client.fids[number] = Fid(()).pack()
    refused(errno.ENFILE, client.call, m.TWALK, words(ROOT, 1 << 20) + b"\0\0")
    client.fids = {ROOT: Fid(()).pack()}
    opened = [client.open("a") for _ in range(MOST_OPEN)]
    refused(errno.EMFILE, client.open, "a")
    client.clunk(opened[0])
    client.open("a")
    refused(errno.EINVAL, client.call, m.TWALK, words(ROOT, NOFID) + b"\0\0")


def test_a_path_has_an_end(client: Client, root: Path) -> None:
    name, fid = "d" * 255, ROOT
    for _ in range(16):
        client.call(m.TMKDIR, words(fid) + text(name) + words(0o755, 0))
        fid = client.walk(name, fid)
    refused(errno.ENAMETOOLONG, client.call, m.TMKDIR, words(fid) + text("more") + words(0o755, 0))
    refused(errno.ENAMETOOLONG, client.create, "", "x" * 256)


@pytest.mark.parametrize(
    "message",
    [
        m.message(m.TWALK, 1, b""),
        m.message(m.TWALK, 1, words(0, 1) + b"\x05\0" + text("a")),
        m.message(m.TWRITE, 1, words(0) + long(0) + words(1 << 31)),
        m.message(m.TLOPEN, 1, words(0)),
        m.message(m.TATTACH, 1, words(1, 2) + b"\xff\xff"),
    ],
)
def test_a_message_that_ends_early_is_refused(client: Client, message: bytes) -> None:
    reply = client.send(message)
    assert reply[4] == m.RLERROR
    assert int.from_bytes(reply[7:], "little") == errno.EPROTO


def test_unknown_messages_are_refused(client: Client) -> None:
    known = {value for name, value in vars(m).items() if name.startswith("T") and name != "TYPE_CHECKING"}
    for kind in set(range(0, 255)) - known:
        refused(errno.EOPNOTSUPP, client.call, kind, bytes(100))


def test_an_answer_has_room(client: Client) -> None:
    client.room = 64
    fid = client.open("sub/b")
    assert len(client.read(fid, 0, 1000)) == 64 - 11
    refused(errno.EMSGSIZE, client.call, m.TGETATTR, words(fid) + long(0))


def test_an_outcome_is_what_was_packed() -> None:
    outcome = Outcome(b"reply", 8192, {1: b"x" * 20, 2: None, 3: b""})
    packed = outcome.pack()
    assert Outcome.unpack(packed) == outcome
    for size in range(len(packed)):
        with pytest.raises(ValueError, match="outcome"):
            Outcome.unpack(packed[:size])
    with pytest.raises(ValueError, match="outcome"):
        Outcome.unpack(packed + b"x")

"""The server of 9P2000.L (diod's protocol.md): the bytes of a request lead to the bytes of an answer.

It has no state of its own but open files: fids come with each request (:class:`dbt.devices.virtio.ninep.Request`), and
what becomes of them goes back with the answer. Everything in a request is hostile until it is checked; whatever is
wrong with it is answered by an error number. Error numbers are QEMU's where it says what was wrong.

Files belong to the user who runs dbt. The guest sees the host's owners as they are, and cannot change them.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from zlib import crc32

from dbt.devices.virtio.ninep import MOST_BYTES, Outcome, Request
from dbt.host.ninep import messages as m
from dbt.host.ninep.fids import Fid, FidTable, Path, is_name, is_too_long
from dbt.host.ninep.listing import DT_DIRECTORY, Entry, behind, list_directory
from dbt.host.ninep.messages import QID, Reader, failure, string
from dbt.host.ninep.open_files import OpenFiles
from dbt.host.ninep.shared_file import SharedFile
from dbt.host.ninep.tree import SharedTree, by_number, check_mode

_VERSION = b"9P2000.L"
_LEAST_MSIZE = 4096
#: What Rread and Twrite take besides the data, and room for more, as clients reckon (P9_IOHDRSZ).
_IO_HEADER = 24
_READ_HEADER = 11
_MOST_NAMES = 16
#: The flags of open(2) that are obeyed: how it is accessed, and O_APPEND, O_TRUNC, O_EXCL, O_DSYNC and O_SYNC.
_FLAGS = os.O_ACCMODE | os.O_APPEND | os.O_TRUNC | os.O_EXCL | os.O_DSYNC | os.O_SYNC | os.O_DIRECTORY
_KEPT_FLAGS = _FLAGS & ~(os.O_TRUNC | os.O_EXCL)
_CHANGING = os.O_WRONLY | os.O_RDWR | os.O_APPEND | os.O_TRUNC
_AT_REMOVEDIR = 0x200
#: What Tgetattr has answered: all but the time of creation, the generation and the data version.
_BASIC = 0x7FF
_ATTRIBUTES = struct.Struct("<Q13sIIIQQQQQqQqQqQQQQQ")
_MODE, _UID, _GID, _SIZE, _ATIME, _MTIME, _CTIME, _ATIME_SET, _MTIME_SET = (1 << bit for bit in range(9))
_SET = struct.Struct("<IIIIQQQQQ")
_SPACE = struct.Struct("<IIQQQQQQI")
#: The file system that Linux' client says that it is.
_V9FS_MAGIC = 0x01021997
_SECOND = 10**9
#: Seconds since 1970 that every file system can have, and the host's functions take.
_LAST_SECOND = 1 << 33
_LARGEST = (1 << 63) - 1
_LOCK = struct.Struct("<BIQQI")
_GETLOCK = struct.Struct("<BQQI")
_BLOCKING_LOCK = 1
_UNLOCKED = 2

_CHANGES = frozenset(
    {
        m.TLCREATE,
        m.TSYMLINK,
        m.TMKNOD,
        m.TRENAME,
        m.TSETATTR,
        m.TXATTRCREATE,
        m.TLINK,
        m.TMKDIR,
        m.TRENAMEAT,
        m.TUNLINKAT,
        m.TWRITE,
        m.TREMOVE,
    }
)


class _Turn:
    """One request that is being answered."""

    def __init__(self, request: Request) -> None:
        self.fids = FidTable(request.fids)
        self.msize = request.msize
        self.room = request.room
        self.serial = request.serial


class Server:
    """The server of one directory, or of one file (``is_file``). Raise OSError if it cannot be opened. ``read_only``:
    each change is refused.
    """

    def __init__(self, root: str, read_only: bool = False, is_file: bool = False) -> None:
        self._tree = SharedFile(root) if is_file else SharedTree(root)
        self._read_only = read_only
        self._files = OpenFiles()
        self._listing: tuple[int, list[Entry]] = (0, [])

    def close(self) -> None:
        """Close the directory and all files. A second call does nothing."""
        self._files.close()
        self._tree.close()

    def forget(self) -> None:
        """Close all files, because the client is gone."""
        self._files.close()

    def lost_file(self, fids: Iterable[Fid]) -> tuple[bytes, str] | None:
        """Return the name of a file that cannot be opened again, of those that are open, and why; or None."""
        for fid in fids:
            if fid.serial:
                try:
                    self._descriptor(fid, set)
                except OSError as error:
                    return b"/".join(fid.path), error.strerror or str(error)
        return None

    def answer(self, request: Request) -> Outcome:
        """Answer a request. Precondition: it has a header."""
        _, kind, tag = m.HEADER.unpack_from(request.message)
        turn = _Turn(request)
        try:
            method = _METHODS.get(kind)
            if method is None:
                raise failure(errno.EOPNOTSUPP)
            if self._read_only and kind in _CHANGES:
                raise failure(errno.EROFS)
            if not turn.msize and kind != m.TVERSION:
                raise failure(errno.EPROTO)
            body = method(self, turn, Reader(request.message, m.HEADER.size))
            reply = m.message(kind + 1, tag, *([body] if isinstance(body, bytes) else body))
            if len(reply) > turn.room:
                raise failure(errno.EMSGSIZE)
        except OSError as error:
            reply = m.error_message(tag, error.errno or errno.EIO)
        except (ValueError, OverflowError):  # a number or name that the host's functions do not take
            reply = m.error_message(tag, errno.EINVAL)
        return Outcome(reply, turn.msize, turn.fids.changes)

    # -- sessions ------------------------------------------------------------------------------

    def _version(self, turn: _Turn, body: Reader) -> bytes:
        msize, version = body.number(4), body.text()
        if msize < _LEAST_MSIZE:
            raise failure(errno.EMSGSIZE)
        turn.fids.clear()
        self._files.close()
        msize, is_known = min(msize, MOST_BYTES), version == _VERSION
        turn.msize = msize if is_known else 0
        return msize.to_bytes(4, "little") + string(_VERSION if is_known else b"unknown")

    def _attach(self, turn: _Turn, body: Reader) -> bytes:
        number, _, _, _, _ = body.number(4), body.number(4), body.text(), body.text(), body.number(4)
        turn.fids.add(number, Fid(()))
        return self._qid(self._tree.stat(()))

    def _flush(self, turn: _Turn, body: Reader) -> bytes:
        """There is nothing to give up: the request before has been answered."""
        body.number(2)
        return b""

    def _walk(self, turn: _Turn, body: Reader) -> bytes:
        number, new, count = body.number(4), body.number(4), body.number(2)
        if count > _MOST_NAMES:
            raise failure(errno.EINVAL)
        names = [body.text() for _ in range(count)]
        fid = turn.fids.get(number)
        path, qids = fid.path, [b""] * 0
        for name in names:
            try:
                if not name or b"/" in name:
                    raise failure(errno.ENOENT)
                path = path[:-1] if name == b".." else path if name == b"." else (*path, name)
                qids.append(self._qid(self._tree.stat(path)))
            except OSError:
                if not qids:
                    raise
                break
        if len(qids) == count:
            if new != number:
                turn.fids.add(new, Fid(path))
            elif fid.serial:
                raise failure(errno.EINVAL)
            else:
                turn.fids.put(number, Fid(path))
        return len(qids).to_bytes(2, "little") + b"".join(qids)

    def _clunk(self, turn: _Turn, body: Reader) -> bytes:
        number = body.number(4)
        self._give_up(turn, number, turn.fids.get(number))
        return b""

    def _give_up(self, turn: _Turn, number: int, fid: Fid) -> None:
        turn.fids.remove(number)
        self._files.drop(fid.serial)

    # -- open files ----------------------------------------------------------------------------

    def _open(self, turn: _Turn, body: Reader) -> bytes:
        number, flags = body.number(4), body.number(4)
        fid = turn.fids.get(number)
        if fid.serial:
            raise failure(errno.EINVAL)
        flags &= _FLAGS & ~os.O_EXCL
        if self._read_only and flags & _CHANGING:
            raise failure(errno.EROFS)
        self._files.check_room(turn.fids.serials)
        handle = self._tree.open(fid.path, flags)
        return self._opened(turn, number, Fid(fid.path, turn.serial, flags), handle)

    def _create(self, turn: _Turn, body: Reader) -> bytes:
        number, name, flags, mode = body.number(4), body.text(), body.number(4), body.number(4)
        fid = turn.fids.get(number)
        if fid.serial:
            raise failure(errno.EINVAL)
        path = _child(fid, name)
        flags &= _FLAGS & ~os.O_DIRECTORY
        self._files.check_room(turn.fids.serials)
        handle = self._tree.create(path, flags, mode)
        return self._opened(turn, number, Fid(path, turn.serial, flags), handle)

    def _opened(self, turn: _Turn, number: int, fid: Fid, handle: int) -> bytes:
        self._files.put(turn.serial, handle)
        turn.fids.put(number, fid._replace(flags=fid.flags & _KEPT_FLAGS))
        found = os.fstat(handle)
        unit = 0 if stat.S_ISDIR(found.st_mode) else _unit(turn.msize, found)
        return self._qid(found) + unit.to_bytes(4, "little")

    def _descriptor(self, fid: Fid, in_use: Callable[[], set[int]]) -> int:
        """Return the descriptor of an open fid. Open the file again if the machine has not done so itself."""
        handle = self._files.get(fid.serial)
        if handle is None:
            flags = fid.flags & _KEPT_FLAGS  # which may come from a snapshot
            if self._read_only and flags & _CHANGING:
                raise failure(errno.EROFS)
            self._files.check_room(in_use)
            try:
                handle = self._tree.open(fid.path, flags)
            except FileNotFoundError:
                raise failure(errno.ESTALE) from None
            self._files.put(fid.serial, handle)
        return handle

    def _used(self, turn: _Turn, number: int, missing: int = errno.EINVAL) -> int:
        fid = turn.fids.get(number, missing)
        if not fid.serial:
            raise failure(errno.EINVAL)
        return self._descriptor(fid, turn.fids.serials)

    def _read(self, turn: _Turn, body: Reader) -> Sequence[bytes]:
        number, offset, count = body.number(4), body.number(8), body.number(4)
        handle = self._used(turn, number)
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise failure(errno.EOPNOTSUPP)
        count = min(count, turn.room - _READ_HEADER)
        data = os.pread(handle, count, _position(offset))
        return len(data).to_bytes(4, "little"), data

    def _write(self, turn: _Turn, body: Reader) -> bytes:
        number, offset, count = body.number(4), body.number(8), body.number(4)
        data = memoryview(body.data(count))
        handle, done = self._used(turn, number), 0
        position = _position(offset)
        while done < count:
            try:
                done += os.pwrite(handle, data[done:], position + done)
            except OSError:
                if not done:
                    raise
                break
        return done.to_bytes(4, "little")

    def _fsync(self, turn: _Turn, body: Reader) -> bytes:
        number, data_only = body.number(4), body.number(4)
        handle = self._used(turn, number, errno.ENOENT)
        if data_only:
            os.fdatasync(handle)
        else:
            os.fsync(handle)
        return b""

    def _read_directory(self, turn: _Turn, body: Reader) -> bytes:
        number, offset, count = body.number(4), body.number(8), body.number(4)
        fid = turn.fids.get(number, errno.EINVAL)
        handle = self._used(turn, number)
        if not stat.S_ISDIR(os.fstat(handle).st_mode):
            raise failure(errno.EINVAL)
        if not offset or self._listing[0] != fid.serial:
            this, parent = os.fstat(handle), self._tree.stat(fid.path[:-1])
            self._listing = (fid.serial, list_directory(handle, this, parent))
        room, data = min(count, turn.room - _READ_HEADER), bytearray()
        for group in behind(self._listing[1], offset):
            packed = b"".join(map(self._entry, group))
            if len(data) + len(packed) > room:
                if not data:
                    raise failure(errno.EINVAL)  # as getdents(2) if the next entry does not fit
                break
            data += packed
        return len(data).to_bytes(4, "little") + data

    def _entry(self, entry: Entry) -> bytes:
        kind = m.QID_DIRECTORY if entry.kind == DT_DIRECTORY else m.QID_SYMLINK if entry.kind == 10 else m.QID_FILE
        head = QID.pack(kind, 0, entry.inode) + entry.number.to_bytes(8, "little") + bytes([entry.kind])
        return head + string(entry.name)

    # -- attributes ----------------------------------------------------------------------------

    @contextmanager
    def _node(self, turn: _Turn, fid: Fid) -> Iterator[int]:
        """Yield a descriptor of what a fid names, which may have no name any more if it is open."""
        if fid.serial:
            yield self._descriptor(fid, turn.fids.serials)
        else:
            with self._tree.node(fid.path) as handle:
                yield handle

    def _getattr(self, turn: _Turn, body: Reader) -> bytes:
        number, _ = body.number(4), body.number(8)
        fid = turn.fids.get(number)
        found = os.fstat(self._descriptor(fid, turn.fids.serials)) if fid.serial else self._tree.stat(fid.path)
        seconds = [
            part for at in (found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns) for part in divmod(at, _SECOND)
        ]
        return _ATTRIBUTES.pack(
            _BASIC,
            self._qid(found),
            found.st_mode,
            found.st_uid,
            found.st_gid,
            found.st_nlink,
            found.st_rdev,
            found.st_size,
            _unit(turn.msize, found),
            found.st_blocks,
            *seconds,
            0,
            0,
            0,
            0,
        )

    def _setattr(self, turn: _Turn, body: Reader) -> bytes:
        number = body.number(4)
        valid, mode, uid, gid, size, *times = body.take(_SET)
        with self._node(turn, turn.fids.get(number)) as handle:
            found, name = os.fstat(handle), by_number(handle)
            if valid & _MODE:
                check_mode(mode, stat.S_ISDIR(found.st_mode))
                os.chmod(name, mode & 0o7777)
            if valid & (_ATIME | _MTIME):
                os.utime(name, ns=_times(valid, times, found))
            if (valid & _UID and uid != found.st_uid) or (valid & _GID and gid != found.st_gid):
                raise failure(errno.EPERM)
            if valid & _SIZE:
                os.truncate(name, _position(size))
        return b""

    def _statfs(self, turn: _Turn, body: Reader) -> bytes:
        found = self._tree.space(turn.fids.get(body.number(4)).path)
        return _SPACE.pack(
            _V9FS_MAGIC,
            found.f_frsize,
            found.f_blocks,
            found.f_bfree,
            found.f_bavail,
            found.f_files,
            found.f_ffree,
            0,
            found.f_namemax,
        )

    def _no_attributes(self, turn: _Turn, body: Reader) -> bytes:
        raise failure(errno.EOPNOTSUPP)

    # -- names ---------------------------------------------------------------------------------

    def _qid(self, found: os.stat_result) -> bytes:
        mode = found.st_mode
        kind = m.QID_DIRECTORY if stat.S_ISDIR(mode) else m.QID_SYMLINK if stat.S_ISLNK(mode) else m.QID_FILE
        path = found.st_ino
        if found.st_dev != self._tree.device:  # another file system that is mounted there, with its own numbers
            path ^= crc32(found.st_dev.to_bytes(8, "little")) << 32
        version = int(found.st_mtime_ns // _SECOND) ^ found.st_size << 8
        return QID.pack(kind, version & 0xFFFFFFFF, path & 0xFFFFFFFFFFFFFFFF)

    def _make_directory(self, turn: _Turn, body: Reader) -> bytes:
        number, name, mode = body.number(4), body.text(), body.number(4)
        path = _child(turn.fids.get(number), name)
        self._tree.make_directory(path, mode)
        return self._qid(self._tree.stat(path))

    def _make_link(self, turn: _Turn, body: Reader) -> bytes:
        number, name, target = body.number(4), body.text(), body.text()
        path = _child(turn.fids.get(number), name)
        self._tree.make_link(path, target)
        return self._qid(self._tree.stat(path))

    def _make_node(self, turn: _Turn, body: Reader) -> bytes:
        number, name, mode = body.number(4), body.text(), body.number(4)
        path = _child(turn.fids.get(number), name)
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            raise failure(errno.EPERM)
        os.close(self._tree.create(path, os.O_WRONLY | os.O_EXCL, mode & 0o7777))
        return self._qid(self._tree.stat(path))

    def _link(self, turn: _Turn, body: Reader) -> bytes:
        directory, number, name = body.number(4), body.number(4), body.text()
        path = _child(turn.fids.get(directory), name)
        self._tree.link(turn.fids.get(number).path, path)
        return b""

    def _read_link(self, turn: _Turn, body: Reader) -> bytes:
        return string(self._tree.read_link(turn.fids.get(body.number(4)).path))

    def _rename(self, turn: _Turn, body: Reader) -> bytes:
        number, directory, name = body.number(4), body.number(4), body.text()
        self._move(turn, turn.fids.get(number).path, _child(turn.fids.get(directory), name, errno.EISDIR))
        return b""

    def _rename_at(self, turn: _Turn, body: Reader) -> bytes:
        old_directory, old_name, new_directory, new_name = body.number(4), body.text(), body.number(4), body.text()
        old = _child(turn.fids.get(old_directory), old_name, errno.EISDIR)
        self._move(turn, old, _child(turn.fids.get(new_directory), new_name, errno.EISDIR))
        return b""

    def _move(self, turn: _Turn, old: Path, new: Path) -> None:
        self._tree.rename(old, new)
        turn.fids.move(old, new)

    def _remove(self, turn: _Turn, body: Reader) -> bytes:
        number = body.number(4)
        fid = turn.fids.get(number, errno.EINVAL)
        try:
            is_directory = stat.S_ISDIR(self._tree.stat(fid.path).st_mode)
            self._tree.remove(fid.path, is_directory)
        finally:
            self._give_up(turn, number, fid)
        return b""

    def _unlink_at(self, turn: _Turn, body: Reader) -> bytes:
        number, name, flags = body.number(4), body.text(), body.number(4)
        if name == b".":
            raise failure(errno.EINVAL)
        if name == b"..":
            raise failure(errno.ENOTEMPTY)
        if flags & ~_AT_REMOVEDIR:
            raise failure(errno.EINVAL)
        self._tree.remove(_child(turn.fids.get(number, errno.EINVAL), name), bool(flags))
        return b""

    # -- locks ---------------------------------------------------------------------------------

    def _lock(self, turn: _Turn, body: Reader) -> bytes:
        """Grant a lock. The client is the only one, and keeps account of its own processes."""
        number = body.number(4)
        _, flags, *_ = body.take(_LOCK)
        body.text()
        if flags & ~_BLOCKING_LOCK:
            raise failure(errno.EINVAL)
        self._used(turn, number, errno.ENOENT)
        return b"\0"

    def _get_lock(self, turn: _Turn, body: Reader) -> bytes:
        number = body.number(4)
        _, start, length, process = body.take(_GETLOCK)
        client = body.text()
        self._used(turn, number, errno.ENOENT)
        return _GETLOCK.pack(_UNLOCKED, start, length, process) + string(client)


def _child(fid: Fid, name: bytes, wrong: int = errno.EEXIST) -> Path:
    """Return the path of an entry of a directory. Raise OSError with ``wrong`` for ``.`` and ``..``."""
    if name in (b".", b".."):
        raise failure(wrong)
    if not is_name(name):
        raise failure(errno.ENOENT)
    path = (*fid.path, name)
    if is_too_long(path):
        raise failure(errno.ENAMETOOLONG)
    return path


def _unit(msize: int, found: os.stat_result) -> int:
    """Return how many bytes the client had best read and write at once: whole blocks, as far as a message has room."""
    room = msize - _IO_HEADER
    return room // found.st_blksize * found.st_blksize or room if found.st_blksize else room


def _position(offset: int) -> int:
    if offset > _LARGEST:
        raise failure(errno.EINVAL)
    return offset


def _times(valid: int, times: list[int], found: os.stat_result) -> tuple[int, int]:
    """Return the times of access and of change in nanoseconds: those of the request, the present one, or the old."""
    now = time.time_ns()

    def choose(changes: int, is_given: int, seconds: int, nanoseconds: int, old: int) -> int:
        if not valid & changes:
            return old
        if not valid & is_given:
            return now
        if seconds >= 1 << 63:
            seconds -= 1 << 64
        if abs(seconds) > _LAST_SECOND or nanoseconds >= _SECOND:
            raise failure(errno.EINVAL)
        return seconds * _SECOND + nanoseconds

    return (
        choose(_ATIME, _ATIME_SET, times[0], times[1], found.st_atime_ns),
        choose(_MTIME, _MTIME_SET, times[2], times[3], found.st_mtime_ns),
    )


#: The bodies of the answers. That of a read is in parts, because copies of large data take time.
_METHODS: dict[int, Callable[[Server, _Turn, Reader], bytes | Sequence[bytes]]] = {
    m.TSTATFS: Server._statfs,
    m.TLOPEN: Server._open,
    m.TLCREATE: Server._create,
    m.TSYMLINK: Server._make_link,
    m.TMKNOD: Server._make_node,
    m.TRENAME: Server._rename,
    m.TREADLINK: Server._read_link,
    m.TGETATTR: Server._getattr,
    m.TSETATTR: Server._setattr,
    m.TXATTRWALK: Server._no_attributes,
    m.TXATTRCREATE: Server._no_attributes,
    m.TREADDIR: Server._read_directory,
    m.TFSYNC: Server._fsync,
    m.TLOCK: Server._lock,
    m.TGETLOCK: Server._get_lock,
    m.TLINK: Server._link,
    m.TMKDIR: Server._make_directory,
    m.TRENAMEAT: Server._rename_at,
    m.TUNLINKAT: Server._unlink_at,
    m.TVERSION: Server._version,
    m.TATTACH: Server._attach,
    m.TFLUSH: Server._flush,
    m.TWALK: Server._walk,
    m.TREAD: Server._read,
    m.TWRITE: Server._write,
    m.TCLUNK: Server._clunk,
    m.TREMOVE: Server._remove,
}

"""The 9p device (virtio 1.2, section 5.9 has its number; Linux' net/9p/trans_virtio.c is its description).

A request is a message of 9P2000.L, and a server of the host's answers it. The client's fids are state of the device.
What the server answers, and what becomes of the fids, is one value (:class:`Outcome`): it is input from outside, which
can be recorded and delivered again without the server.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Final, NamedTuple

from dbt.devices.fields import LARGEST_COUNT
from dbt.devices.state import Wiring
from dbt.devices.virtio.device import RequestError, VirtioDevice
from dbt.devices.virtio.queue import Chain

_F_MOUNT_TAG: Final = 1 << 0
#: Bytes of a message at most, and how many the client gets that does not ask for a size.
MOST_BYTES: Final = 1 << 20
#: Fids of a client at most.
MOST_FIDS: Final = 1 << 15
#: Size, type and tag of a message, and the same with the error number of Rlerror.
HEADER: Final = struct.Struct("<IBH")
_ERROR: Final = struct.Struct("<IBHI")
#: Bytes that the smallest answer may need.
SMALLEST_ROOM: Final = _ERROR.size
_RLERROR, _TREADDIR, _TREAD = 7, 40, 116
#: Where Tread and Treaddir say how many bytes they want.
_COUNT: Final = 19
_COUNT_BYTES: Final = 4
_LATENCY_NS: Final = 2_000
_HEAD: Final = struct.Struct("<III")
_CHANGE: Final = struct.Struct("<Ii")


class Request(NamedTuple):
    """A message, and what the server has to know to answer it.

    ``room`` is how many bytes the answer can have, ``msize`` how many the client has agreed on, 0 before it has.
    ``serial`` numbers the requests, from 1 on.
    """

    message: bytes
    room: int
    msize: int
    fids: Mapping[int, bytes]
    serial: int


class Outcome(NamedTuple):
    """What a request has led to: the answer, the size of messages, and the fids that have changed or are gone (None).

    :meth:`pack` makes it bytes.
    """

    reply: bytes | memoryview
    msize: int
    fids: dict[int, bytes | None]

    def pack(self) -> bytes:
        parts = [_HEAD.pack(len(self.reply), self.msize, len(self.fids)), self.reply]
        for number, packed in self.fids.items():
            parts.append(_CHANGE.pack(number, -1 if packed is None else len(packed)))
            parts.append(packed or b"")
        return b"".join(parts)

    @classmethod
    def unpack(cls, data: bytes) -> Outcome:
        """Return the outcome that :meth:`pack` has made bytes of. Raise ValueError for others."""
        try:
            size, msize, count = _HEAD.unpack_from(data)
            at = _HEAD.size + size
            reply, fids = memoryview(data)[_HEAD.size : at], {}
            for _ in range(count):
                number, length = _CHANGE.unpack_from(data, at)
                at += _CHANGE.size
                fids[number] = None if length == -1 else data[at : at + length]
                at += max(length, 0)
        except struct.error:
            raise ValueError("the outcome of a request ends in the middle") from None
        if len(reply) != size or at != len(data) or msize > MOST_BYTES:
            raise ValueError("the outcome of a request has another size than it says")
        return cls(reply, msize, fids)


#: Answers a request with a packed outcome. No bytes: the run is going to end, and the request fails.
Answer = Callable[[Request], bytes]


@dataclass(eq=False)
class NineP(VirtioDevice):
    """A device by which the guest mounts what ``answer`` serves, under the name ``tag``.

    ``msize`` is the size of messages that the client has agreed on, or 0. ``fids`` are the client's, as the server
    packs them. ``asked`` counts requests.
    """

    device_id: ClassVar[int] = 9
    queue_count: ClassVar[int] = 1

    tag: Wiring[bytes]
    answer: Wiring[Answer]
    msize: int = 0
    fids: dict[int, bytes] = field(default_factory=dict)
    asked: int = 0

    def is_possible(self) -> bool:
        return (
            0 <= self.msize <= MOST_BYTES
            and 0 <= self.asked < LARGEST_COUNT
            and len(self.fids) <= MOST_FIDS
            and all(0 <= number < 1 << 32 for number in self.fids)
        )

    def features(self) -> int:
        return _F_MOUNT_TAG

    def reset(self) -> None:
        self.msize, self.fids = 0, {}

    def config(self) -> bytes:
        return len(self.tag).to_bytes(2, "little") + self.tag

    def most_bytes(self, queue: int) -> int:
        return 2 * MOST_BYTES + (1 << 16)

    def duration(self, queue: int, chain: Chain) -> int:
        return duration_of(chain.read(0, _COUNT + _COUNT_BYTES), chain.out_size, chain.in_size)

    def serve(self, queue: int, chain: Chain) -> int:
        head = chain.read(0, HEADER.size)
        if len(head) < HEADER.size or chain.in_size < SMALLEST_ROOM:
            raise RequestError("a request of 9p has no room for its header or for an answer")
        size, _, _ = HEADER.unpack(head)
        if not HEADER.size <= size <= chain.out_size:
            raise RequestError(f"a request of 9p says that it has {size} bytes, and has {chain.out_size}")
        return chain.write(self.respond(chain.read(0, size), chain.in_size))

    def respond(self, message: bytes, room: int) -> bytes | memoryview:
        """Return the answer to a message, of at most ``room`` bytes. Preconditions: the message has the size that it
        says, and there is :data:`SMALLEST_ROOM`.
        """
        self.asked += 1
        most = min(room, self.msize or MOST_BYTES)
        packed = self.answer(Request(message, most, self.msize, self.fids, self.asked))
        if not packed:
            _, _, tag = HEADER.unpack_from(message)
            return _ERROR.pack(_ERROR.size, _RLERROR, tag, errno.EIO)
        outcome = Outcome.unpack(packed)
        self.msize = outcome.msize
        for number, fid in outcome.fids.items():
            if fid is None:
                self.fids.pop(number, None)
            else:
                self.fids[number] = fid
        return outcome.reply


def duration_of(head: bytes, size: int, room: int) -> int:
    """Return how many nanoseconds a request takes, by the beginning of its message: one for each byte that is moved.

    The message has ``size`` bytes, and its answer at most ``room``.
    """
    wanted = 0
    if len(head) >= _COUNT + _COUNT_BYTES and head[4] in (_TREAD, _TREADDIR):
        wanted = min(int.from_bytes(head[_COUNT : _COUNT + _COUNT_BYTES], "little"), room)
    return _LATENCY_NS + size + wanted

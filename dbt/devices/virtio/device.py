"""What a virtio device is to its transport: features, a configuration space, and requests that it serves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from dbt.devices.state import Stateful
from dbt.devices.virtio.queue import MAX_BYTES, Chain


class RequestError(ValueError):
    """Raised for a request of a form that no driver would send: the device needs a reset then."""


class TryLater(Exception):
    """Raised for a request that cannot be done now, and has changed nothing that matters when it is done again."""


@dataclass(eq=False)
class VirtioDevice(Stateful):
    """A device behind a transport (:class:`dbt.devices.virtio.transport.Transport`).

    ``device_id`` is that of the specification, section 5. Of its ``queue_count`` queues, those in ``input_queues`` have
    empty buffers that wait for what the device has to say; in the others are requests. Those in ``immediate_queues``
    are answered when the driver notifies the device, and take no time. ``receiver`` names what it receives from
    outside (:class:`dbt.board.board.Board`), if it does.

    ``limited`` names what can be limited for each second (:mod:`dbt.devices.virtio.throttle`). Immediate queues and
    input queues that a limit paces are in ``paced_queues``, with its number; the requests of all others are.
    """

    device_id: ClassVar[int]
    queue_count: ClassVar[int]
    input_queues: ClassVar[frozenset[int]] = frozenset()
    immediate_queues: ClassVar[frozenset[int]] = frozenset()
    receiver: ClassVar[str] = ""
    limited: ClassVar[tuple[str, ...]] = ()
    paced_queues: ClassVar[Mapping[int, int]] = MappingProxyType({})

    def features(self) -> int:
        """Return the device's own feature bits that are offered."""
        return 0

    def start(self, features: int) -> None:
        """The driver is ready (DRIVER_OK), and has accepted these features."""

    def reset(self) -> None:
        """Forget what the driver has said. What is kept on a medium stays."""

    def config(self) -> bytes:
        """Return the configuration space."""
        return b""

    def write_config(self, offset: int, data: bytes) -> None:
        """Take a write of the driver's to the configuration space. All of it is within the space."""

    def most_bytes(self, queue: int) -> int:
        """Return how many bytes the buffers of a request have at most. A request with more needs a reset."""
        return MAX_BYTES

    def can_serve(self, queue: int) -> bool:
        """Return False if requests of a queue have to wait until the driver has taken what the device has to say."""
        return True

    def duration(self, queue: int, chain: Chain) -> int:
        """Return how long the request takes, in nanoseconds of virtual time, as far as its form tells.

        It is not asked for requests of immediate queues, unless a limit paces them.
        """
        raise NotImplementedError

    def costs(self, queue: int, size: int) -> Sequence[int]:
        """Return what ``size`` bytes in the buffers of a request, or for an input queue, take of each limit."""
        return ()

    def serve(self, queue: int, chain: Chain) -> int:
        """Do a request, and return how many bytes were written to its buffers. Raise RequestError."""
        raise NotImplementedError

    def answered(self) -> None:
        """Requests of an immediate queue have been done, for now: what they gave may be passed on together."""

    @property
    def arrivals_at_once(self) -> int:
        """How many things the device can take from outside before the driver has to be told, with the same result as if
        the driver were told of each. It is at least 1.
        """
        return 1

    def arrive(self, data: bytes) -> None:
        """Take something from outside."""
        raise NotImplementedError

    def next_input(self, queue: int) -> bytes | None:
        """Return what the device has for the next buffer of an input queue, or None."""
        return None

    @property
    def spans_buffers(self) -> bool:
        """True if what :meth:`next_input` returns may be spread over several buffers."""
        return False

    def for_buffers(self, data: bytes, rooms: Sequence[int]) -> bytes:
        """Return what :meth:`next_input` has returned, for buffers with room for so many bytes. Raise RequestError."""
        return data

    def take_input(self, queue: int, size: int) -> None:
        """Forget the first ``size`` bytes of what :meth:`next_input` has returned. They have been delivered."""

    def has_config_change(self) -> bool:
        """Return True, once, if the configuration space has changed by itself."""
        return False

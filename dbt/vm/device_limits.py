"""What disks and network cards may do in a second of their guest's time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

#: Rates and bursts are less than this (:data:`dbt.devices.virtio.throttle.RATE_LIMIT`).
_LIMIT: Final = 1 << 48


class Rate(NamedTuple):
    """``per_second`` units in each second, 1 or more, and at most ``burst`` more after some that were not used."""

    per_second: int
    burst: int = 0


class DiskLimits(NamedTuple):
    """What a disk may do: the ``bytes`` that are read and written, and its ``operations``. None is no limit."""

    bytes: Rate | None = None
    operations: Rate | None = None


class NetLimits(NamedTuple):
    """What a network card may do: the bits of the frames that are ``sent`` and ``received``. None is no limit."""

    sent: Rate | None = None
    received: Rate | None = None


def packed(limits: DiskLimits | NetLimits) -> bytes:
    """Return limits as their device takes them (:meth:`dbt.devices.virtio.throttle.Throttle.set`).

    Raise ValueError for values that make no sense.
    """
    return b"".join(
        number.to_bytes(8, "little")
        for name, rate in zip(limits._fields, limits, strict=True)
        for number in _checked(name, rate)
    )


def _checked(name: str, rate: Rate | None) -> Iterable[int]:
    if rate is None:
        return 0, 0
    numbers = tuple(rate) if isinstance(rate, tuple) else ()
    whole = len(numbers) == 2 and all(isinstance(number, int) and not isinstance(number, bool) for number in numbers)
    if not whole or not 1 <= numbers[0] < _LIMIT or not 0 <= numbers[1] < _LIMIT:
        raise ValueError(
            f"the limit of {name} is {rate!r:.100}, and not a Rate of 1 or more a second, or None, with whole numbers "
            f"less than 2^48"
        )
    return numbers

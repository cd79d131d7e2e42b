"""Times as docker writes them: RFC 3339 with nanoseconds, and seconds since 1970."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import Final

from dbt.containers.engine.errors import BadParameter

#: What docker has for a time that has not come.
ZERO: Final = "0001-01-01T00:00:00Z"
_NS: Final = 10**9
_SECONDS: Final = re.compile(r"(-?\d{1,12})(?:\.(\d{1,9})\d*)?")
_RFC3339: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")


def now() -> str:
    """Return this moment."""
    return text_of(time.time_ns())


def text_of(ns: int, fixed: bool = False) -> str:
    """Return a time, in nanoseconds since 1970. Zeros at its end are left out unless it is ``fixed``."""
    seconds, rest = divmod(ns, _NS)
    fraction = f"{rest:09d}" if fixed else f"{rest:09d}".rstrip("0")
    whole = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{whole}.{fraction}Z" if fraction else f"{whole}Z"


def ns_of(text: str) -> int:
    """Return a time of ours in nanoseconds since 1970. Raise ValueError for what is none."""
    found = _RFC3339.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no time by RFC 3339")
    seconds = int(datetime.fromisoformat(found[1] + found[3].replace("Z", "+00:00")).timestamp())
    return seconds * _NS + int((found[2] or "").ljust(9, "0"))


def asked_ns(text: str) -> int | None:
    """Return a time that a client has asked for, in nanoseconds since 1970, or None for none: seconds since 1970 with
    a fraction, or RFC 3339. Raise BadParameter.
    """
    if not text or text == "0":
        return None
    if found := _SECONDS.fullmatch(text):
        return int(found[1]) * _NS + int((found[2] or "").ljust(9, "0"))
    try:
        return ns_of(text)
    except ValueError:
        raise BadParameter(f'invalid value: parsing time "{text}"') from None

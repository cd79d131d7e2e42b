"""Limits of resources for the programs of a container (setrlimit(2)), in docker's words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

_RESOURCES: Final = "cpu fsize data stack core rss nproc nofile memlock as locks sigpending msgqueue nice rtprio rttime"
#: The numbers of resources for an ARM's kernel, by docker's names.
RESOURCES: Final = {name: number for number, name in enumerate(_RESOURCES.split())}


class Ulimit(msgspec.Struct, rename="pascal"):
    """A limit of a resource. -1 is no limit."""

    name: str = ""
    soft: int = 0
    hard: int = 0


def check_ulimits(ulimits: Sequence[Ulimit], failure: type[Exception]) -> None:
    """Raise ``failure`` for limits that there are not."""
    for one in ulimits:
        if one.name not in RESOURCES:
            raise failure(f"invalid ulimit type: {one.name[:80]}; there are {', '.join(sorted(RESOURCES))}")
        if not all(-1 <= value < 1 << 63 for value in (one.soft, one.hard)):
            raise failure(f"ulimit {one.name}: a limit is a number from 0 on, or -1 for none")
        if one.hard != -1 and not -1 < one.soft <= one.hard:
            raise failure(
                f"ulimit {one.name}: the soft limit must be less than or equal to the hard limit: "
                f"{one.soft} > {one.hard}"
            )

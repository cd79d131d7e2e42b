"""In what our answers differ from dockerd's on purpose, and why. Lines of transcripts that fit are not compared."""

from __future__ import annotations

import re
from typing import Final, NamedTuple


class Difference(NamedTuple):
    """Lines that differ: a pattern for their beginnings."""

    reason: str
    lines: re.Pattern[str]


def _difference(reason: str, lines: str) -> Difference:
    return Difference(reason, re.compile(lines))


DIFFERENCES: Final = (
    _difference(
        "A dockerd of version 20 answers 500 to some requests that are wrong. Later ones answer 400, as ours.",
        "= (400|500) application/json",
    ),
    _difference(
        "Layers are EROFS images, and there is no driver to choose.", r"\.(GraphDriver\.|Driver(Status.*)? = )"
    ),
    _difference(
        "What runs containers is dbt: there is no containerd, no runc and no init of docker's.",
        r"\.(ContainerdCommit|RuncCommit|InitCommit|Runtimes|InitBinary|DefaultRuntime)\b",
    ),
    _difference(
        "The engine's version has one component, and no commit of its own for each part.",
        r"\.(Components|BuildTime|GoVersion|GitCommit|Platform|Experimental)\b",
    ),
)


def compared(transcript: str) -> list[str]:
    """Return the lines of a transcript that are compared."""
    return [line for line in transcript.splitlines() if not any(one.lines.match(line) for one in DIFFERENCES)]

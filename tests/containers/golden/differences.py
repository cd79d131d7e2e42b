"""In what our answers differ from dockerd's on purpose, and why."""

from __future__ import annotations

import re
from typing import Final, NamedTuple


class Difference(NamedTuple):
    """A pattern for lines of transcripts that are not compared, or if it is not for ``whole`` lines, for what is left
    out of them.
    """

    reason: str
    pattern: re.Pattern[str]
    whole: bool = True


def _lines(reason: str, pattern: str) -> Difference:
    return Difference(reason, re.compile(pattern))


def _words(reason: str, pattern: str) -> Difference:
    return Difference(reason, re.compile(pattern), whole=False)


DIFFERENCES: Final = (
    _lines(
        "Go's words for what is no JSON are those of its library: ours say the same in those of another one.",
        r".*(invalid character 'o'|json: cannot|invalid (JSON|filter): )",
    ),
    _words(
        "Later versions of docker than 20 say which name has to be in small letters.", r" \([^()]*\)(?= must be lowerc)"
    ),
    _words(
        "What is no archive is told in the words of what reads it: a program there, a part of the engine here.",
        r"(?<=Error processing tar file).*",
    ),
    _lines(
        "What a client of version 20 says last depends on when a container fails.",
        r"! (See 'docker run --help'|time=.*error waiting for container)",
    ),
    _words(
        "A dockerd of version 20 answers 500 to some requests that are wrong. Later ones answer 400, as ours.",
        r"(?<=^= )[45]00(?= application/json$)",
    ),
    _lines("Images of ARM have a variant, and are made by another engine.", r"\.(Variant|DockerVersion) = "),
    _lines("Layers are EROFS images, and there is no driver to choose.", r"\.(GraphDriver\.|Driver(Status.*)? = )"),
    _lines(
        "What runs containers is dbt: there is no containerd, no runc and no init of docker's.",
        r"\.(ContainerdCommit|RuncCommit|InitCommit|Runtimes|InitBinary|DefaultRuntime|HostConfig\.Runtime)\b",
    ),
    _lines(
        "The engine's version has one component, and no commit of its own for each part.",
        r"\.(Components|BuildTime|GoVersion|GitCommit|Platform|Experimental)\b",
    ),
    _lines(
        "The guest has control groups of version 2, this host's dockerd those of version 1.",
        r"\.(blkio_stats|memory_stats\.(stats|max_usage)|(pre)?cpu_stats\.cpu_usage\.percpu|HostConfig\.CgroupnsMode)",
    ),
    _words(
        "A container has a disk of its own, whose room is told.",
        r"(?<=Total reclaimed space: ).*|(?<=\.SpaceReclaimed = ).*",
    ),
    _lines(
        "A network tells its gateway from the beginning, and bridges of the host have no options here.",
        r"(\[\d+\])?\.(IPAM\.Config\[0\]\.Gateway|Options\.com\.docker\.network)",
    ),
    _lines("Ports are published for IPv4 alone.", r".*(\[::\]|^::|-> ::):\d+$"),
    _words("Ports are published for IPv4 alone.", r", (\[::\]|::):\d+->\d+/tcp"),
    _lines(
        "What a client has not given, and what it has given empty, is the same here.",
        r'\s*(\S*\.|")(Options|Labels)"?(:| =) (null|\{\}),?$',
    ),
)


def compared(transcript: str) -> list[str]:
    """Return the lines of a transcript that are compared."""
    lines = transcript.splitlines()
    for one in DIFFERENCES:
        if one.whole:
            lines = [line for line in lines if not one.pattern.match(line)]
        else:
            lines = [one.pattern.sub("", line) for line in lines]
    return lines

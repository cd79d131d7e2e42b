"""Names and ids of containers: which can be, and one for who has chosen none."""

from __future__ import annotations

import re
import secrets
from collections.abc import Container
from typing import Final

from dbt.containers.engine.errors import BadParameter

_NAME: Final = re.compile(r"/?[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_QUALITIES: Final = (
    *("amber", "bold", "brisk", "calm", "clever", "crisp", "eager", "fair", "fond", "gentle", "glad", "keen", "kind"),
    *("lively", "lucid", "mellow", "merry", "mild", "neat", "nimble", "patient", "plain", "proud", "quiet", "rapid"),
    *("serene", "sharp", "shy", "sleek", "smart", "steady", "sunny", "swift", "tidy", "vivid", "warm", "wise", "witty"),
)
_PEOPLE: Final = (
    *("babbage", "backus", "bartik", "boole", "cocke", "cray", "dijkstra", "engelbart", "euclid", "floyd", "furber"),
    *("goldberg", "hamilton", "hamming", "hoare", "hopper", "iverson", "johnson", "karp", "kay", "kernighan", "knuth"),
    *(
        "lamarr",
        "lamport",
        "liskov",
        "lovelace",
        "mccarthy",
        "milner",
        "minsky",
        "naur",
        "perlis",
        "ritchie",
        "shannon",
    ),
    *("stallman", "tarjan", "thompson", "torvalds", "turing", "wilkes", "wilson", "wirth", "zuse"),
)
_MOST_TRIES: Final = 6
_ID: Final = re.compile(r"[0-9a-f]{64}")
_ID_BYTES: Final = 32


def some_id() -> str:
    """Return an id that nobody has."""
    return secrets.token_hex(_ID_BYTES)


def is_id(text: str) -> bool:
    """Return True for what can be the id of a container."""
    return _ID.fullmatch(text) is not None


def checked_name(name: str) -> str:
    """Return a name without docker's leading slash. Raise BadParameter for what is none."""
    if not _NAME.fullmatch(name):
        raise BadParameter(f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    return name.removeprefix("/")


def some_name(taken: Container[str]) -> str:
    """Return a name that nobody has."""
    for number in range(_MOST_TRIES):
        name = f"{secrets.choice(_QUALITIES)}_{secrets.choice(_PEOPLE)}{number or ''}"
        if name not in taken:
            return name
    return f"container_{secrets.token_hex(8)}"

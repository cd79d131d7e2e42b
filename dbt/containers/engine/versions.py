"""Versions of Docker's API: the oldest and the newest that we speak, and which one a request wants."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from dbt.containers.engine.errors import BadParameter


class ApiVersion(NamedTuple):
    """A version of the API, as 1.47."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


OLDEST: Final = ApiVersion(1, 24)
NEWEST: Final = ApiVersion(1, 47)
_PREFIX: Final = re.compile(r"/v(\d{1,4})\.(\d{1,4})(/.*)")


def split_version(path: str) -> tuple[ApiVersion, str]:
    """Return the version that a path begins with, by default the newest, and the rest. Raise BadParameter for versions
    that we do not speak.
    """
    found = _PREFIX.fullmatch(path)
    if found is None:
        return NEWEST, path
    version = ApiVersion(int(found[1]), int(found[2]))
    if version > NEWEST:
        raise BadParameter(f"client version {version} is too new. Maximum supported API version is {NEWEST}")
    if version < OLDEST:
        raise BadParameter(
            f"client version {version} is too old. Minimum supported API version is {OLDEST}, please upgrade your "
            "client to a newer version"
        )
    return version, found[3]

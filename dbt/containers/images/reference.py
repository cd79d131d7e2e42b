"""Names of images: what a user writes, in the full form, and as docker shows it.

``busybox`` is ``docker.io/library/busybox:latest``. The grammar is that of the distribution project.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from dbt.containers.images.errors import InvalidReference

DEFAULT_DOMAIN: Final = "docker.io"
DEFAULT_TAG: Final = "latest"
_OFFICIAL: Final = "library/"
_LONGEST_NAME: Final = 255

_DOMAIN_PART = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_DOMAIN_PART}(?:\.{_DOMAIN_PART})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
_PATH_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_PATH_PART}(?:/{_PATH_PART})*")
_TAG = re.compile(r"[\w][\w.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_IDENTIFIER = re.compile(r"[0-9a-f]{64}")
_ID_PREFIX = re.compile(r"(?:sha256:)?([0-9a-f]{1,64})")


def is_digest(text: str) -> bool:
    """Return True for a SHA-256 in the form ``sha256:`` and 64 digits."""
    return _DIGEST.fullmatch(text) is not None


def id_prefix(text: str) -> str | None:
    """Return the digits of a text that may be the beginning of an image's id, or None."""
    found = _ID_PREFIX.fullmatch(text)
    return found[1] if found else None


class Reference(NamedTuple):
    """A name in its parts. ``domain`` is the registry, ``path`` the repository there; a tag or a digest may follow."""

    domain: str
    path: str
    tag: str | None = None
    digest: str | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Return the reference that a user has written. Raise InvalidReference."""
        if _IDENTIFIER.fullmatch(text):
            raise InvalidReference(f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings")
        name, at, digest = text.partition("@")
        domain, slash, rest = name.partition("/")
        if not slash or not ("." in domain or ":" in domain or domain == "localhost" or domain.lower() != domain):
            domain, rest = DEFAULT_DOMAIN, name
        if domain == "index.docker.io":
            domain = DEFAULT_DOMAIN
        path, colon, tag = rest.partition(":")
        if path.lower() != path and _PATH.fullmatch(path.lower()):
            raise InvalidReference(f"invalid reference format: repository name ({path}) must be lowercase")
        good = _DOMAIN.fullmatch(domain) and _PATH.fullmatch(path)
        if not good or (colon and not _TAG.fullmatch(tag)) or (at and not _DIGEST.fullmatch(digest)):
            raise InvalidReference("invalid reference format")
        if domain == DEFAULT_DOMAIN and "/" not in path:
            path = _OFFICIAL + path
        if len(domain) + 1 + len(path) > _LONGEST_NAME:
            raise InvalidReference(f"repository name must not be more than {_LONGEST_NAME} characters")
        return cls(domain, path, tag or None, digest or None)

    @property
    def repository(self) -> str:
        """The full name without tag and digest."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_repository(self) -> str:
        """The repository as docker shows it: without what is the default."""
        if self.domain == DEFAULT_DOMAIN:
            bare = self.path.removeprefix(_OFFICIAL)
            return bare if "/" not in bare else self.path
        return self.repository

    @property
    def familiar(self) -> str:
        """The whole name as docker shows it."""
        return self.familiar_repository + self._rest

    @property
    def _rest(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def with_default_tag(self) -> Reference:
        """Return the reference with the tag ``latest``, if it has neither a tag nor a digest."""
        return self if self.tag or self.digest else self._replace(tag=DEFAULT_TAG)

    def __str__(self) -> str:
        return self.repository + self._rest


def familiar(name: str) -> str:
    """Return a full name as docker shows it: ``busybox:latest`` for ``docker.io/library/busybox:latest``."""
    return Reference.parse(name).familiar

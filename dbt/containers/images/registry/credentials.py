"""Who a user is for a registry, as docker's commands send it, and what a registry asks for that."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final, NamedTuple

import msgspec

from dbt.containers.images.errors import RegistryError
from dbt.containers.images.reference import DEFAULT_DOMAIN

_LONGEST: Final = 1 << 16
_PARAMETER = re.compile(r'\s*([A-Za-z_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))\s*(?:,|$)')


class Credentials(msgspec.Struct, frozen=True, rename=lambda name: name.replace("_", "")):
    """Who pulls or pushes: a name with its password, or what a login has given in their place. All may be empty."""

    username: str = ""
    password: str = ""
    auth: str = ""
    server_address: str = ""
    identity_token: str = ""
    registry_token: str = ""

    def __repr__(self) -> str:
        return f"Credentials({self.username!r})"

    @property
    def basic(self) -> str | None:
        """The value of the header Authorization with name and password, or None without them."""
        if not self.username:
            return None
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


NOBODY: Final = Credentials()


def read_credentials(header: str) -> Credentials:
    """Return what a header X-Registry-Auth says: JSON in base64, of either alphabet. What cannot be read is nobody, as
    in docker, which older clients rely on.
    """
    if len(header) > _LONGEST:
        return NOBODY
    try:
        document = base64.urlsafe_b64decode(header.replace("+", "-").replace("/", "_") + "=" * (-len(header) % 4))
        found = msgspec.json.decode(document, type=Credentials)
    except (binascii.Error, msgspec.MsgspecError, ValueError):
        return NOBODY
    return _with_auth(found)


def _with_auth(found: Credentials) -> Credentials:
    """Take name and password from ``auth``, where the files of docker's clients have them."""
    if found.username or not found.auth:
        return found
    try:
        name, _, password = base64.b64decode(found.auth).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return found
    return msgspec.structs.replace(found, username=name, password=password.rstrip("\0"))


class Challenge(NamedTuple):
    """How a registry wants to know who somebody is. ``scheme`` is "basic" or "bearer"."""

    scheme: str
    realm: str
    service: str


def read_challenge(header: str) -> Challenge:
    """Return the challenge in a header WWW-Authenticate. Raise RegistryError for one that is not understood."""
    scheme, _, rest = header[:_LONGEST].strip().partition(" ")
    values: dict[str, str] = {}
    place = 0
    while found := _PARAMETER.match(rest, place):
        if found.end() == place:
            break
        values[found[1].lower()] = re.sub(r"\\(.)", r"\1", found[2]) if found[2] is not None else found[3]
        place = found.end()
    if scheme.lower() == "bearer" and not values.get("realm"):
        raise RegistryError("the registry wants a token, and does not say from where")
    if scheme.lower() not in ("basic", "bearer"):
        raise RegistryError(f"the registry asks for credentials in an unknown way: {scheme[:40]!r}")
    return Challenge(scheme.lower(), values.get("realm", ""), values.get("service", ""))


def read_credentials_file(header: str) -> dict[str, Credentials]:
    """Return what a header X-Registry-Config says: credentials by the domains of registries. What cannot be read is
    nobody.
    """
    if not header or len(header) > _LONGEST:
        return {}
    try:
        document = base64.urlsafe_b64decode(header.replace("+", "-").replace("/", "_") + "=" * (-len(header) % 4))
        found = msgspec.json.decode(document, type=dict[str, Credentials])
    except (binascii.Error, msgspec.MsgspecError, ValueError):
        return {}
    return {domain_of(address): _with_auth(one) for address, one in found.items()}


def domain_of(address: str) -> str:
    """Return the domain of images that an address of a registry stands for, as docker's files have it."""
    host = (address.partition("://")[2] or address).partition("/")[0]
    return DEFAULT_DOMAIN if host in ("", "index.docker.io", "registry-1.docker.io", DEFAULT_DOMAIN) else host

"""What a request is authorized with: name and password, or a token that a service gives for them."""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

import msgspec

from dbt.containers.images.errors import RegistryError
from dbt.containers.images.json_document import decode
from dbt.containers.images.registry.credentials import Challenge, Credentials, read_challenge
from dbt.containers.images.registry.failures import refusal

if TYPE_CHECKING:
    from dbt.containers.images.registry.client import RegistryClient

#: How long a token is good if nobody says so, and how much earlier another one is asked for, in seconds.
_USUAL_S: Final = 60
_EARLIER_S: Final = 10
_LONGEST_S: Final = 86400
_CLIENT_ID: Final = "docker"


class _Token(msgspec.Struct, frozen=True):
    token: str = ""
    access_token: str = ""
    refresh_token: str = ""
    expires_in: float = _USUAL_S


class Tokens:
    """Knows how a registry asks who somebody is, and answers."""

    def __init__(self, client: RegistryClient, credentials: Credentials, scopes: tuple[str, ...]) -> None:
        self._client = client
        self._credentials = credentials
        self._scopes = scopes
        self._challenge: Challenge | None = None
        self._token = credentials.registry_token
        self._until = float("inf") if self._token else 0.0
        self.refresh_token = ""

    def challenged(self, header: str) -> None:
        """Note what the registry has said in WWW-Authenticate. Raise RegistryError for what is not understood."""
        if header:
            self._challenge = read_challenge(header)

    async def renew(self, header: str) -> bool:
        """Note a challenge for something that has been refused, and return True if another attempt may help."""
        before = self._challenge
        self.challenged(header)
        if self._credentials.registry_token:
            return False
        is_bearer = self._challenge is not None and self._challenge.scheme == "bearer"
        had_token = bool(self._token)
        self._token, self._until = "", 0.0
        return before is None or (is_bearer and had_token)

    async def header(self) -> str | None:
        """Return the value of the header Authorization, if there is one."""
        if self._credentials.registry_token:
            return f"Bearer {self._credentials.registry_token}"
        if self._challenge is None:
            return None
        if self._challenge.scheme == "basic":
            return self._credentials.basic
        if not self._token or time.monotonic() >= self._until:
            await self._fetch(self._challenge)
        return f"Bearer {self._token}"

    async def _fetch(self, challenge: Challenge) -> None:
        """Get a token from the service that the registry names."""
        realm = self._client.joined(self._client.url("/"), challenge.realm)
        fields = {"service": challenge.service} if challenge.service else {}
        known = self._credentials
        if known.identity_token:
            fields |= {"grant_type": "refresh_token", "refresh_token": known.identity_token, "client_id": _CLIENT_ID}
            fields |= {"scope": " ".join(self._scopes)}
            form = {"Content-Type": "application/x-www-form-urlencoded"}
            answer = await self._client.fetch("POST", realm, form, urlencode(fields).encode())
        else:
            pairs = [*fields.items(), *(("scope", scope) for scope in self._scopes)]
            pairs += [("account", known.username), ("client_id", _CLIENT_ID)] if known.username else []
            more = urlencode(pairs).encode()
            query = b"&".join(part for part in (realm.query, more) if part)
            headers = {"Authorization": known.basic} if known.basic else {}
            answer = await self._client.fetch("GET", realm.copy_with(query=query), headers)
        if answer.status != HTTPStatus.OK:
            raise refusal(answer.status, answer.body)
        self._take(answer.body)

    def _take(self, body: bytes) -> None:
        try:
            found = decode(body, _Token)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise RegistryError("the service of tokens gives no token") from None
        token = found.token or found.access_token
        if not token or not token.isascii() or not token.isprintable():
            raise RegistryError("the service of tokens gives no token")
        lifetime = min(max(found.expires_in, _USUAL_S), _LONGEST_S)
        self._token, self._until = token, time.monotonic() + lifetime - _EARLIER_S
        self.refresh_token = found.refresh_token

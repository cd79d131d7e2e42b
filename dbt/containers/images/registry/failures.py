"""What a registry's refusals are for the user, in docker's words."""

from __future__ import annotations

import errno
import re
import ssl
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import msgspec

from dbt.containers.images.errors import PullDenied, RegistryError
from dbt.containers.images.reference import Reference

if TYPE_CHECKING:
    import httpx

_LONGEST: Final = 400
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


class _Entry(msgspec.Struct, frozen=True):
    code: str = "UNKNOWN"
    message: str = ""


class _Answer(msgspec.Struct, frozen=True):
    errors: list[_Entry] = []


class Refusal(RegistryError):
    """Raised for an answer of a registry that is an error. ``code`` is one of the specification, or empty."""

    def __init__(self, http_status: int, code: str, text: str) -> None:
        super().__init__(text)
        self.http_status = http_status
        self.code = code
        self.text = text


class Unreachable(RegistryError):
    """Raised if a registry does not answer, or not to the end. ``was_refused``: there is nobody, or no TLS."""

    def __init__(self, text: str, was_refused: bool = False) -> None:
        super().__init__(text)
        self.was_refused = was_refused


def printable(text: str) -> str:
    """Return a text of a registry for a terminal: shortened, and without what would control that."""
    return _UNPRINTABLE.sub(" ", text)[:_LONGEST]


def refusal(http_status: int, body: bytes) -> Refusal:
    """Return what an answer with an error says."""
    try:
        errors = msgspec.json.decode(body, type=_Answer).errors
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        errors = []
    if errors:
        code, message = printable(errors[0].code), printable(errors[0].message)
        return Refusal(http_status, code.upper(), f"{code.lower().replace('_', ' ')}: {message}")
    if http_status == HTTPStatus.UNAUTHORIZED:
        return Refusal(http_status, "UNAUTHORIZED", "unauthorized: authentication required")
    return Refusal(http_status, "", f"received unexpected HTTP status: {http_status} {_phrase(http_status)}".rstrip())


def _phrase(http_status: int) -> str:
    try:
        return HTTPStatus(http_status).phrase
    except ValueError:
        return ""


def pull_failure(error: Refusal, reference: Reference) -> RegistryError:
    """Return what a refusal is for who pulls."""
    if error.code in ("DENIED", "UNAUTHORIZED"):
        name = reference.familiar_repository
        hint = f"pull access denied for {name}, repository does not exist or may require 'docker login'"
        return PullDenied(f"{hint}: {error.text}")
    if error.code == "MANIFEST_UNKNOWN" or (error.http_status == HTTPStatus.NOT_FOUND and not error.code):
        return PullDenied(f"manifest for {reference.familiar} not found: {error.text}")
    if error.code == "NAME_UNKNOWN":
        return PullDenied(f"repository {reference.familiar_repository} not found: {error.text}")
    return error


def unreachable(method: str, url: httpx.URL, error: Exception) -> Unreachable:
    """Return what a failure of the network is, as programs in Go write it."""
    shown = printable(str(url.copy_with(query=None, userinfo=None)))
    reason, was_refused = _reason(url, error)
    return Unreachable(f'{method.capitalize()} "{shown}": {reason}', was_refused)


def _reason(url: httpx.URL, error: Exception) -> tuple[str, bool]:
    import httpx

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"x509: {cause.verify_message}", False
        if isinstance(cause, ssl.SSLError):
            return "http: server gave HTTP response to HTTPS client", True
        if isinstance(cause, OSError) and cause.errno == errno.ECONNREFUSED:
            port = url.port or {"http": 80, "https": 443}.get(url.scheme)
            return f"dial tcp {url.host}:{port}: connect: connection refused", True
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx.TimeoutException | TimeoutError):
        return "net/http: request canceled while waiting for the registry (Client.Timeout exceeded)", False
    if "Name or service not known" in str(error) or "name resolution" in str(error):
        return f"dial tcp: lookup {url.host}: no such host", False
    return printable(str(error) or type(error).__name__), isinstance(error, httpx.ConnectError)

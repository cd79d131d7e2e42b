"""The web page, and the door by which browsers come in: a port of this host alone, and a token that only its user has.

Every user of this host can connect to the port. So each request needs the token, but for the page itself, which has
nothing to tell. The token is in the address behind ``#``, which a browser sends to nobody, and the page sends it in a
header. A page of somebody else's cannot, so it can ask for nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import msgspec

from dbt.daemon.http_messages import Answer, Handler, Request, Response
from dbt.daemon.routes import Call, Route, json_answer

_PAGE: Final = Path(__file__).with_name("page") / "index.html"
#: What the page may do: its own script and style, and requests to where it comes from.
_POLICY: Final = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


class Page(msgspec.Struct, frozen=True):
    """The address of the page. Who knows it controls the machines."""

    url: str


class WebDoor:
    """``listen`` begins to listen on a port of this host, and returns it. It is called once, for the first page."""

    def __init__(self, listen: Callable[[], Awaitable[int]]) -> None:
        self._listen = listen
        self._token = secrets.token_urlsafe(32)
        self._port: int | None = None

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/", "The page", self._page, media="text/html"),
            Route("POST", "/v1/page", "The address of the page, for a browser of this host", self._open, gives=Page),
        ]

    def guarding(self, handler: Handler) -> Handler:
        """Return a handler that lets in who comes by the unix socket, or has the token."""

        async def handle(request: Request) -> Answer:
            given = request.headers.get("authorization", "").encode()
            is_known = request.is_local or secrets.compare_digest(given, f"Bearer {self._token}".encode())
            if is_known or (request.method == "GET" and request.path == "/"):
                return await handler(request)
            return json_answer({"error": "who is that? `dbt vm page` prints the address of the page."}, 401)

        return handle

    async def _page(self, call: Call) -> Answer:
        return Response(200, _PAGE.read_bytes(), "text/html; charset=utf-8", _HEADERS)

    async def _open(self, call: Call) -> Answer:
        if self._port is None:
            self._port = await self._listen()
        return json_answer(Page(f"http://127.0.0.1:{self._port}/#{self._token}"))

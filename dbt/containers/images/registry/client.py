"""One registry over HTTP: where it is, who we are for it, and what its answers may be at most."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from dbt.containers.images.errors import RegistryError
from dbt.containers.images.registry.credentials import Credentials
from dbt.containers.images.registry.failures import Unreachable, refusal, unreachable
from dbt.containers.images.registry.hosts import InsecureHosts, check_hop, host_of, is_same_origin
from dbt.containers.images.registry.tokens import Tokens

if TYPE_CHECKING:
    import httpx

#: How long a registry may be silent, and how long it may take for an answer that is not a layer, in seconds.
_SILENCE_S: Final = 30.0
_CONNECT_S: Final = 15.0
_ANSWER_S: Final = 60.0
_MOST_REDIRECTS: Final = 5
_SMALL: Final = 1 << 20
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_OUR_NAME: Final = "dbt-container/1"


class SmallAnswer(NamedTuple):
    """An answer whose body has been read."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: httpx.URL


class RegistryClient:
    """Speaks to the registry of a domain, for one user and some ``scopes`` ("repository:library/busybox:pull").

    It is used as an async context, whose beginning finds out how the registry is spoken to. Raise RegistryError there
    and everywhere: for what the registry refuses (Refusal), for what does not reach it (Unreachable), for lies.
    """

    def __init__(self, domain: str, credentials: Credentials, scopes: tuple[str, ...], insecure: InsecureHosts) -> None:
        try:
            import httpx
        except ImportError:
            raise RegistryError("registries need httpx: pip install 'dbt-arm[containers]'") from None

        logging.getLogger("httpx").setLevel(logging.WARNING)  # it would tell addresses, in which there are secrets
        self._insecure = insecure
        self._host = host_of(domain)
        self._is_insecure = insecure.allows(self._host)
        self._clients: dict[bool, httpx.AsyncClient] = {}
        self.tokens = Tokens(self, credentials, scopes)
        try:
            self._base = httpx.URL(f"https://{self._host}")
        except httpx.InvalidURL as error:
            raise RegistryError(f"{self._host} is no address of a registry: {error}") from None
        check_hop(self._base, self._base, insecure)

    async def __aenter__(self) -> Self:
        try:
            await self._find()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End all connections."""
        for client in self._clients.values():
            await client.aclose()

    def _client(self, url: httpx.URL) -> httpx.AsyncClient:
        """Return the client for an address. A registry whose certificate is not checked may lead to others' hosts."""
        import httpx

        is_insecure = self._insecure.allows(url.netloc.decode("ascii"))
        if is_insecure not in self._clients:
            self._clients[is_insecure] = httpx.AsyncClient(
                verify=_no_verification() if is_insecure else ssl.create_default_context(),
                timeout=httpx.Timeout(_SILENCE_S, connect=_CONNECT_S),
                headers={"User-Agent": _OUR_NAME, "Accept-Encoding": "identity"},
                trust_env=not is_insecure,
            )
        return self._clients[is_insecure]

    async def _find(self) -> None:
        """Find out whether the registry speaks TLS, and how it asks who we are."""
        try:
            answer = await self._ping()
        except Unreachable as error:
            if not (self._is_insecure and error.was_refused):
                raise
            self._base = self._base.copy_with(scheme="http")
            answer = await self._ping()
        if answer.status == HTTPStatus.UNAUTHORIZED:
            self.tokens.challenged(answer.headers.get("www-authenticate", ""))
        elif answer.status != HTTPStatus.OK:
            raise refusal(answer.status, answer.body)

    async def _ping(self) -> SmallAnswer:
        async with self._sent("GET", self._base.copy_with(path="/v2/"), {}) as response:
            return await self._small(response, _SMALL)

    def url(self, path: str) -> httpx.URL:
        """Return the address of a path, which may have a query."""
        return self._base.join(path)

    def check(self, url: httpx.URL) -> None:
        """Raise RegistryError for an address that this registry must not send us to."""
        check_hop(self._base, url, self._insecure)

    async def ask(
        self,
        method: str,
        path: str | httpx.URL,
        headers: Mapping[str, str] | None = None,
        most: int = _SMALL,
        content: bytes | AsyncIterator[bytes] | None = None,
        expected: tuple[int, ...] = (HTTPStatus.OK,),
    ) -> SmallAnswer:
        """Return an answer with a body of at most ``most`` bytes, and a status that is ``expected``."""
        async with self.stream(method, path, headers, content) as response:
            answer = await self._small(response, most)
        if answer.status not in expected:
            raise refusal(answer.status, answer.body)
        return answer

    @contextlib.asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str | httpx.URL,
        headers: Mapping[str, str] | None = None,
        content: bytes | AsyncIterator[bytes] | None = None,
    ) -> AsyncIterator[httpx.Response]:
        """Give an answer whose body has not been read. It is that of the address that redirects lead to."""
        url = self.url(path) if isinstance(path, str) else path
        for _ in range(2):
            async with self._redirected(method, url, dict(headers or {}), content) as response:
                is_first = content is None or isinstance(content, bytes)
                if response.status_code == HTTPStatus.UNAUTHORIZED and is_first:
                    header = response.headers.get("www-authenticate", "")
                    if header and await self.tokens.renew(header):
                        continue
                yield response
                return
        raise refusal(HTTPStatus.UNAUTHORIZED, b"")

    @contextlib.asynccontextmanager
    async def _redirected(
        self, method: str, url: httpx.URL, headers: dict[str, str], content: bytes | AsyncIterator[bytes] | None
    ) -> AsyncIterator[httpx.Response]:
        for _ in range(_MOST_REDIRECTS + 1):
            known = await self.tokens.header() if is_same_origin(url, self._base) else None
            more = {"Authorization": known} if known else {}
            async with self._sent(method, url, headers | more, content) as response:
                target = response.headers.get("location")
                if response.status_code not in _REDIRECTS or not target or method not in ("GET", "HEAD"):
                    yield response
                    return
                url = self.joined(url, target)
        raise RegistryError(f"the registry {self._host} redirects for ever")

    def joined(self, url: httpx.URL, target: str) -> httpx.URL:
        """Return the address that a header Location gives. Raise RegistryError if it must not lead there."""
        import httpx

        try:
            found = url.join(target)
        except (httpx.InvalidURL, ValueError) as error:
            raise RegistryError(f"the registry {self._host} leads to no address: {error}") from None
        self.check(found)
        return found

    async def fetch(
        self, method: str, url: httpx.URL | str, headers: dict[str, str], content: bytes | None = None
    ) -> SmallAnswer:
        """Return the answer of another address than the registry's, such as that of its tokens. Nothing is added."""
        import httpx

        async with self._sent(method, httpx.URL(url), headers, content) as response:
            return await self._small(response, _SMALL)

    @contextlib.asynccontextmanager
    async def _sent(
        self, method: str, url: httpx.URL, headers: dict[str, str], content: Any = None
    ) -> AsyncIterator[httpx.Response]:
        import httpx

        client = self._client(url)
        request = client.build_request(method, url, headers=headers, content=content)
        try:
            async with asyncio.timeout(_ANSWER_S if content is None else None):
                response = await client.send(request, stream=True)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, TimeoutError) as error:
            raise unreachable(method, url, error) from None
        try:
            yield response
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise unreachable(method, url, error) from None
        finally:
            await response.aclose()

    async def _small(self, response: httpx.Response, most: int) -> SmallAnswer:
        body = bytearray()
        try:
            async with asyncio.timeout(_ANSWER_S):
                async for piece in response.aiter_raw():
                    body += piece
                    if len(body) > most:
                        raise RegistryError(f"the registry {self._host} gives more than {most} bytes for an answer")
        except TimeoutError as error:
            raise unreachable(response.request.method, response.url, error) from None
        return SmallAnswer(response.status_code, response.headers, bytes(body), response.url)


def _no_verification() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context

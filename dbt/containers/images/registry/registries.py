"""All registries: what the engine and the builder ask for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Final

from dbt.containers.images.errors import ImageError, ImageNotFound
from dbt.containers.images.image import Image
from dbt.containers.images.reference import DEFAULT_DOMAIN, Reference
from dbt.containers.images.registry.client import RegistryClient
from dbt.containers.images.registry.credentials import NOBODY, Credentials, domain_of
from dbt.containers.images.registry.description import described
from dbt.containers.images.registry.failures import Refusal
from dbt.containers.images.registry.hosts import InsecureHosts
from dbt.containers.images.registry.known import KnownBlobs
from dbt.containers.images.registry.messages import Report, status
from dbt.containers.images.registry.platforms import read_platform
from dbt.containers.images.registry.pull import Pull, ending, tags_of
from dbt.containers.images.registry.push import Push
from dbt.containers.images.registry.search import search_catalogue, search_hub, split_term
from dbt.containers.images.store import ImageStore

_MOST_RESULTS: Final = 100


class Registries:
    """Pulls into a store, and pushes from it.

    - ``folder``: where layers are for as long as they are underway, in files that nobody else sees.
    - ``insecure``: registries that may speak HTTP, or have a certificate of anybody, besides those of this host:
      a host, a host with its port, or a network as 10.1.0.0/16.
    """

    def __init__(self, store: ImageStore, folder: str, insecure: Iterable[str] = ()) -> None:
        self._store = store
        self._folder = folder
        self._insecure = InsecureHosts(insecure)
        self._known = KnownBlobs()

    def client(self, domain: str, credentials: Credentials, scopes: Iterable[str]) -> RegistryClient:
        """Return a client for a registry."""
        return RegistryClient(domain, credentials, tuple(dict.fromkeys(scopes)), self._insecure)

    async def pull(
        self, reference: Reference, report: Report, credentials: Credentials = NOBODY, platform: str = ""
    ) -> Image:
        """Pull an image, and return it. ``report`` gets docker's messages, while the image comes.

        ``platform`` is what the user asks for, as "linux/arm/v5"; only such images run here. Raise ImageError: its text
        is docker's where it has one, and its status that of the HTTP answer, if no message has been reported.
        """
        read_platform(platform)
        reference = reference.with_default_tag()
        async with self.client(reference.domain, credentials, [f"repository:{reference.path}:pull"]) as client:
            pull = Pull(client, self._store, reference, self._folder, report, self._known)
            image, is_new = await pull.run()
        report(ending(reference.familiar, is_new))
        return image

    async def pull_all(
        self, reference: Reference, report: Report, credentials: Credentials = NOBODY, platform: str = ""
    ) -> list[Image]:
        """Pull all tags of a repository, and return their images, as :meth:`pull` does it for one."""
        read_platform(platform)
        found = []
        some_are_new = False
        async with self.client(reference.domain, credentials, [f"repository:{reference.path}:pull"]) as client:
            for tag in await tags_of(client, reference):
                one = reference._replace(tag=tag)
                image, is_new = await Pull(client, self._store, one, self._folder, report, self._known).run()
                found.append(image)
                some_are_new = some_are_new or is_new
        report(ending(reference.familiar, some_are_new))
        return found

    async def push(self, reference: Reference, report: Report, credentials: Credentials = NOBODY) -> None:
        """Push an image, or all tags of a repository if ``reference`` has none. Raise ImageError."""
        report(status(f"The push refers to repository [{reference.repository}]"))
        images = self._tagged(reference)
        scopes = [f"repository:{reference.path}:pull,push"]
        for image in images.values():
            for layer in image.layers:
                found = self._known.elsewhere(layer.diff_id, reference.domain, reference.path)
                scopes += [f"repository:{found[0]}:pull"] if found else []
        async with self.client(reference.domain, credentials, scopes) as client:
            for tag, image in images.items():
                pushed = Push(client, self._store, reference, self._folder, report, self._known)
                digest = await pushed.run(image, tag)
                await asyncio.to_thread(self._store.tag, image, reference._replace(tag=None, digest=digest))

    async def search(self, term: str, limit: int = 25, credentials: Credentials = NOBODY) -> list[dict[str, Any]]:
        """Return what a registry has with ``term``, which may begin with its domain, in the form of docker's API."""
        if not 1 <= limit <= _MOST_RESULTS:
            raise BadRequest(f"limit {limit} is outside the range of [1, {_MOST_RESULTS}]")
        domain, wanted = split_term(term)
        client = self.client(domain, credentials, ["registry:catalog:*"])
        if domain == DEFAULT_DOMAIN:
            async with contextlib.aclosing(client):
                return await search_hub(client, wanted, limit)
        async with client:
            return await search_catalogue(client, domain, wanted, limit)

    async def describe(self, reference: Reference, credentials: Credentials = NOBODY) -> dict[str, Any]:
        """Return what a registry has under a name, in the form of docker's API. Raise ImageError."""
        reference = reference.with_default_tag()
        async with self.client(reference.domain, credentials, [f"repository:{reference.path}:pull"]) as client:
            return await described(client, reference)

    async def login(self, credentials: Credentials) -> str:
        """See whether a registry knows somebody. Return a token that stands for the password, or nothing if it gives
        none. Raise ImageError.
        """
        domain = domain_of(credentials.server_address)
        async with self.client(domain, credentials, []) as client:
            try:
                await client.ask("GET", "/v2/")
            except Refusal as error:
                if error.http_status != HTTPStatus.UNAUTHORIZED:
                    raise
                failed = f"login attempt to {client.url('/v2/')} failed with status: 401 Unauthorized"
                raise LoginFailed(failed) from None
            return client.tokens.refresh_token

    def _tagged(self, reference: Reference) -> dict[str, Image]:
        """Return the images that a reference means, by their tags."""
        if reference.digest:
            raise BadRequest("cannot push a digest reference")
        prefix = reference.repository + ":"
        found = {
            name.removeprefix(prefix): image
            for image in self._store.images()
            for name in image.names
            if name.startswith(prefix)
        }
        if not found:
            raise ImageNotFound(f"An image does not exist locally with the tag: {reference.familiar_repository}")
        if reference.tag and reference.tag not in found:
            raise ImageNotFound(f"tag does not exist: {reference.familiar}")
        return {tag: image for tag, image in sorted(found.items()) if reference.tag in (None, tag)}


class BadRequest(ImageError):
    """Raised for what makes no sense to ask for."""

    status = HTTPStatus.BAD_REQUEST


class LoginFailed(ImageError):
    """Raised if a registry does not know somebody."""

    status = HTTPStatus.UNAUTHORIZED

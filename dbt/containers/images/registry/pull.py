"""Pull: an image comes from a registry into the store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import IO, Annotated, Any, BinaryIO, Final, NamedTuple, cast

import msgspec
from msgspec import Meta

from dbt.containers.images.config import MOST_BYTES as MOST_OF_CONFIG
from dbt.containers.images.config import ImageConfig, read_config
from dbt.containers.images.errors import ImageNotFound, InvalidReference, RegistryError
from dbt.containers.images.image import Image, Layer
from dbt.containers.images.json_document import decode
from dbt.containers.images.platform import Platform
from dbt.containers.images.reference import Reference
from dbt.containers.images.registry.blobs import download, read_small
from dbt.containers.images.registry.client import RegistryClient
from dbt.containers.images.registry.failures import Refusal, pull_failure
from dbt.containers.images.registry.known import KnownBlobs
from dbt.containers.images.registry.manifests import (
    ACCEPTED,
    MOST_BYTES,
    Descriptor,
    Index,
    Manifest,
    Received,
    digest_of,
    read_manifest,
)
from dbt.containers.images.registry.messages import Meter, Report, action, short, status
from dbt.containers.images.registry.platforms import check_platform, check_soft_float, refusal
from dbt.containers.images.store import ImageStore

_MOST_DOWNLOADS: Final = 3
_MOST_TAGS: Final = 1000
#: What the layers of an image may have together, compressed, in bytes.
MOST_OF_IMAGE: Final = 32 << 30


class _Found(NamedTuple):
    """The manifest of an image, and the digest of what its name stands for, which may be an index."""

    manifest: Manifest
    digest: str


class Pull:
    """One image that comes from a registry. ``folder`` is for files that nobody else sees."""

    def __init__(
        self,
        client: RegistryClient,
        store: ImageStore,
        reference: Reference,
        folder: str,
        report: Report,
        known: KnownBlobs,
    ) -> None:
        self._client = client
        self._store = store
        self._reference = reference
        self._folder = folder
        self._report = report
        self._known = known
        self._downloads = asyncio.Semaphore(_MOST_DOWNLOADS)

    async def run(self) -> tuple[Image, bool]:
        """Pull the image. Return it, and True if its name did not stand for it before. Raise ImageError, with a text as
        docker's where it has one.
        """
        reference = self._reference
        try:
            found = await self._find(reference)
        except Refusal as error:
            raise pull_failure(error, reference) from None
        self._report(status(f"Pulling from {reference.path}", reference.tag or reference.digest))
        manifest = found.manifest
        known = await asyncio.to_thread(self._image_of, manifest.config.digest)
        if known is not None:
            return await self._keep(known.document, found.digest, known.layers)
        document = await read_small(self._client, reference.path, manifest.config, MOST_OF_CONFIG)
        config = read_config(document)
        check_platform(reference, Platform(config.os, config.architecture, config.variant))
        _check_layers(manifest, config)
        layers = await self._layers(manifest.layers, config.diff_ids)
        await asyncio.to_thread(check_soft_float, reference, layers)
        for blob, diff_id in zip(manifest.layers, config.diff_ids, strict=True):
            self._known.add(diff_id, reference.domain, reference.path, blob)
        return await self._keep(document, found.digest, layers)

    async def _find(self, reference: Reference) -> _Found:
        """Return the manifest for our platform, which may be one of several."""
        name = reference.digest or reference.tag
        assert name is not None
        received = await manifest_of(self._client, reference.path, name, reference.digest)
        first, digest = received.manifest, received.digest
        if isinstance(first, Manifest):
            return _Found(first, digest)
        best = first.best()
        if best is None:
            raise refusal(reference, first.platforms())
        second = (await manifest_of(self._client, reference.path, best.digest, best.digest, best.size)).manifest
        if isinstance(second, Index):
            raise RegistryError("the registry has a list of manifests in a list of manifests")
        return _Found(second, digest)

    async def _layers(self, blobs: Sequence[Descriptor], diff_ids: Sequence[str]) -> list[Layer]:
        """Return the layers. They come several at once, and go into the store in their order."""
        known: dict[str, Layer] = {}
        for diff_id in diff_ids:
            layer = await asyncio.to_thread(self._store.layer, diff_id)
            if layer is not None:
                known[diff_id] = layer
        tasks: dict[str, asyncio.Task[IO[bytes]]] = {}
        for blob, diff_id in zip(blobs, diff_ids, strict=True):
            if diff_id in known:
                self._report(action("Already exists", short(blob.digest)))
            elif blob.digest not in tasks:
                self._report(action("Pulling fs layer", short(blob.digest)))
                tasks[blob.digest] = asyncio.create_task(self._download(blob))
        try:
            for blob, diff_id in zip(blobs, diff_ids, strict=True):
                if diff_id not in known:
                    file = await _first_of(tasks, blob.digest)
                    known[diff_id] = await self._add(file, blob, diff_id)
        finally:
            await _close(tasks.values())
        return [known[diff_id] for diff_id in diff_ids]

    async def _download(self, blob: Descriptor) -> IO[bytes]:
        if self._downloads.locked():
            self._report(action("Waiting", short(blob.digest)))
        async with self._downloads:
            meter = Meter(self._report, "Downloading", short(blob.digest), blob.size)
            file = await download(self._client, self._reference.path, blob, self._folder, meter.at)
        self._report(action("Verifying Checksum", short(blob.digest)))
        self._report(action("Download complete", short(blob.digest)))
        return file

    async def _add(self, file: IO[bytes], blob: Descriptor, diff_id: str) -> Layer:
        loop = asyncio.get_running_loop()
        meter = Meter(self._report, "Extracting", short(blob.digest), blob.size)
        file.seek(0)
        counted = _Counted(file, lambda place: loop.call_soon_threadsafe(meter.at, place))
        layer = await asyncio.to_thread(self._store.add_layer, cast("BinaryIO", counted), diff_id)
        self._report(action("Pull complete", short(blob.digest)))
        return layer

    async def _keep(self, document: bytes, digest: str, layers: Sequence[Layer]) -> tuple[Image, bool]:
        """Give the image its names. ``layers`` are held until then, so that they stay."""
        reference = self._reference
        names = [str(reference._replace(digest=None))] if reference.tag and not reference.digest else []
        pinned = f"{reference.repository}@{digest}"
        before = await asyncio.to_thread(self._id_of, names[0] if names else pinned)
        image = await asyncio.to_thread(self._store.add_image, document, names, None, [pinned])
        assert [layer.diff_id for layer in layers] == [layer.diff_id for layer in image.layers]
        self._report(status(f"Digest: {digest}"))
        return image, before != image.id

    def _image_of(self, id: str) -> Image | None:
        try:
            return self._store.by_id(id)
        except ImageNotFound:
            return None

    def _id_of(self, name: str) -> str | None:
        try:
            return self._store.find(name).id
        except ImageNotFound:
            return None


async def manifest_of(
    client: RegistryClient, path: str, name: str, digest: str | None, size: int | None = None
) -> Received:
    """Return what a name or digest of the repository ``path`` stands for. Raise RegistryError."""
    answer = await client.ask("GET", f"/v2/{path}/manifests/{name}", {"Accept": ACCEPTED}, most=MOST_BYTES)
    found = digest_of(answer.body)
    announced = answer.headers.get("docker-content-digest", found)
    if found != (digest or found) or size not in (None, len(answer.body)):
        raise RegistryError(f"manifest verification failed for digest {digest}")
    if announced.startswith("sha256:") and announced != found:
        raise RegistryError(f"manifest verification failed: the registry gives {found} as {announced[:100]}")
    return read_manifest(answer.body, answer.headers.get("content-type", ""))


class _Counted:
    """A file that says how far it has been read."""

    def __init__(self, file: IO[bytes], at: Callable[[int], object]) -> None:
        self._file = file
        self._at = at
        self._place = 0

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._place += len(data)
        self._at(self._place)
        return data


async def _first_of(tasks: dict[str, asyncio.Task[IO[bytes]]], digest: str) -> IO[bytes]:
    """Return the file of a download, or raise what has ended any of them."""
    wanted = tasks[digest]
    while not wanted.done():
        running = [task for task in tasks.values() if not task.done()]
        done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    return wanted.result()


async def _close(tasks: Iterable[asyncio.Task[IO[bytes]]]) -> None:
    """End downloads, and close the files of those that have ended."""
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if not isinstance(result, BaseException):
            result.close()


def ending(name: str, is_new: bool) -> dict[str, Any]:
    """Return the last message of a pull."""
    return status(f"Status: {'Downloaded newer image for' if is_new else 'Image is up to date for'} {name}")


class _Tags(msgspec.Struct, frozen=True):
    tags: Annotated[list[str], Meta(max_length=_MOST_TAGS)] | None = None


async def tags_of(client: RegistryClient, reference: Reference) -> list[str]:
    """Return the tags of a repository. Raise ImageError."""
    try:
        answer = await client.ask("GET", f"/v2/{reference.path}/tags/list")
        found = decode(answer.body, _Tags).tags or []
        return [Reference.parse(f"{reference.repository}:{tag}").tag or "" for tag in found]
    except Refusal as error:
        raise pull_failure(error, reference) from None
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, InvalidReference) as error:
        raise RegistryError(f"the registry gives a list of tags that is none: {error}") from None


def _check_layers(manifest: Manifest, config: ImageConfig) -> None:
    if config.rootfs is None or config.rootfs.type != "layers":
        raise RegistryError("invalid rootfs in image configuration")
    if len(manifest.layers) != len(config.diff_ids):
        raise RegistryError("layers from manifest don't match image configuration")
    size = sum(layer.size for layer in manifest.layers)
    if size > MOST_OF_IMAGE:
        raise RegistryError(f"the layers of the image have {size} bytes, and at most {MOST_OF_IMAGE} are taken")

"""Push: an image goes from the store to a registry."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import tempfile
import zlib
from collections.abc import Iterator
from http import HTTPStatus
from typing import IO, Any, Final

from dbt.containers.images.disk import not_kept
from dbt.containers.images.image import Image, Layer
from dbt.containers.images.reference import Reference
from dbt.containers.images.registry.client import RegistryClient
from dbt.containers.images.registry.known import KnownBlobs
from dbt.containers.images.registry.manifests import CONFIG, LAYER, SCHEMA2, Descriptor, digest_of
from dbt.containers.images.registry.messages import Meter, Report, action, short, status
from dbt.containers.images.registry.upload import has_blob, mount, upload
from dbt.containers.images.store import ImageStore

_MOST_UPLOADS: Final = 5
_LEVEL: Final = 6
_GZIP: Final = 31  # zlib's way to say: 15 bits of window, and gzip's header, whose time is 0
_CREATED: Final = (HTTPStatus.CREATED, HTTPStatus.OK, HTTPStatus.ACCEPTED)


class Push:
    """One image that goes to a repository. ``folder`` is for files that nobody else sees."""

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
        self._domain = reference.domain
        self._path = reference.path
        self._folder = folder
        self._report = report
        self._known = known
        self._uploads = asyncio.Semaphore(_MOST_UPLOADS)

    async def run(self, image: Image, tag: str) -> str:
        """Push an image, and return the digest of its manifest. Raise RegistryError."""
        layers = {layer.diff_id: layer for layer in reversed(image.layers)}
        for diff_id in layers:
            self._report(action("Preparing", short(diff_id)))
        tasks = {diff_id: asyncio.create_task(self._layer(layer)) for diff_id, layer in layers.items()}
        try:
            await asyncio.gather(*tasks.values())
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)
        blobs = [tasks[layer.diff_id].result() for layer in image.layers]
        config = Descriptor(CONFIG, image.id, len(image.document))
        if not await has_blob(self._client, self._path, config.digest):
            await upload(self._client, self._path, config, io.BytesIO(image.document), lambda _: None)
        return await self._manifest(tag, config, blobs)

    async def _layer(self, layer: Layer) -> Descriptor:
        """Let the repository have a layer, and return the blob that it is there."""
        name = short(layer.diff_id)
        if self._uploads.locked():
            self._report(action("Waiting", name))
        async with self._uploads:
            blob = self._known.blob(layer.diff_id, self._domain, self._path)
            if blob is None or not await has_blob(self._client, self._path, blob.digest):
                blob = await self._mounted(layer, name) or await self._sent(layer, name)
            else:
                self._report(action("Layer already exists", name))
        self._known.add(layer.diff_id, self._domain, self._path, blob)
        return blob

    async def _mounted(self, layer: Layer, name: str) -> Descriptor | None:
        found = self._known.elsewhere(layer.diff_id, self._domain, self._path)
        if found is None or not await mount(self._client, self._path, found[1].digest, found[0]):
            return None
        self._report(action(f"Mounted from {found[0]}", name))
        return found[1]

    async def _sent(self, layer: Layer, name: str) -> Descriptor:
        compressing = asyncio.create_task(asyncio.to_thread(self._compressed, layer))
        try:
            file, blob = await asyncio.shield(compressing)
        except asyncio.CancelledError:
            compressing.add_done_callback(_forget)
            raise
        with file:
            if await has_blob(self._client, self._path, blob.digest):
                self._report(action("Layer already exists", name))
                return blob
            self._report(action("Pushing", name, 0, blob.size))
            meter = Meter(self._report, "Pushing", name, blob.size)
            await upload(self._client, self._path, blob, file, meter.at)
        self._report(action("Pushed", name))
        return blob

    def _compressed(self, layer: Layer) -> tuple[IO[bytes], Descriptor]:
        """Return a file, which has no name, with a layer as registries have it. The same layer gives the same bytes."""
        file: IO[bytes] = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115
        try:
            size, digest = _compress(self._store.layer_tar(layer), file)
        except OSError as error:
            file.close()
            raise not_kept("a layer that is compressed", self._folder, error) from None
        except BaseException:
            file.close()
            raise
        return file, Descriptor(LAYER, digest, size)

    async def _manifest(self, tag: str, config: Descriptor, blobs: list[Descriptor]) -> str:
        document = _manifest(config, blobs)
        digest = digest_of(document)
        path = f"/v2/{self._path}/manifests/{tag}"
        await self._client.ask("PUT", path, {"Content-Type": SCHEMA2}, content=document, expected=_CREATED)
        self._report(status(f"{tag}: digest: {digest} size: {len(document)}"))
        self._report({"progressDetail": {}, "aux": {"Tag": tag, "Digest": digest, "Size": len(document)}})
        return digest


def _compress(tar: Iterator[bytes], file: IO[bytes]) -> tuple[int, str]:
    """Write an archive to a file with gzip. Return the size and the digest of what has been written."""
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
    found = hashlib.sha256()
    size = 0
    for piece in _packed(tar, packer):
        file.write(piece)
        found.update(piece)
        size += len(piece)
    return size, "sha256:" + found.hexdigest()


def _packed(tar: Iterator[bytes], packer: Any) -> Iterator[bytes]:
    for piece in tar:
        if packed := packer.compress(piece):
            yield packed
    yield packer.flush()


def _forget(task: asyncio.Task[tuple[IO[bytes], Descriptor]]) -> None:
    """Close the file of a layer that nobody wants any more."""
    if not task.cancelled() and task.exception() is None:
        task.result()[0].close()


def _manifest(config: Descriptor, blobs: list[Descriptor]) -> bytes:
    """Return the manifest of an image, in the very bytes that docker writes for it."""
    described = [{"mediaType": blob.media_type, "size": blob.size, "digest": blob.digest} for blob in (config, *blobs)]
    document = {"schemaVersion": 2, "mediaType": SCHEMA2, "config": described[0], "layers": described[1:]}
    return json.dumps(document, indent=3).encode()

"""Archives of images as `docker save` has written them since docker 25: OCI layouts with a manifest.json beside."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from dbt.containers.images.image import Image
from dbt.containers.images.reference import Reference, familiar
from dbt.containers.images.store import ImageStore
from dbt.containers.images.tar_writer import TarWriter

_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
_INDEX: Final = "application/vnd.oci.image.index.v1+json"


class Saved(NamedTuple):
    """An image to be saved under these names, in full."""

    image: Image
    names: Sequence[str]


def save(store: ImageStore, images: Iterable[Saved]) -> Iterator[bytes]:
    """Yield the archive of images. Raise StoreError if a layer is damaged."""
    written = TarWriter()
    listed, manifests, repositories = [], [], dict[str, dict[str, str]]()
    for folder in ("blobs/", "blobs/sha256/"):
        yield written.header(folder, 0)
    for image, names in _by_image(images):
        for layer in image.layers:
            yield from written.file(_path(layer.diff_id), store.layer_tar_size(layer), store.layer_tar(layer))
        yield from written.document(_path(image.id), image.document)
        manifest = _manifest(store, image)
        digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
        yield from written.document(_path(digest), manifest)
        manifests += _descriptors(digest, len(manifest), image, names)
        layers = [_path(layer.diff_id) for layer in image.layers]
        listed.append({"Config": _path(image.id), "RepoTags": [familiar(name) for name in names], "Layers": layers})
        for name in names:
            reference = Reference.parse(name)
            top = (layers or [image.id])[-1].rpartition("/")[2]
            repositories.setdefault(reference.familiar_repository, {})[str(reference.tag)] = top
    index = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": manifests}
    documents: tuple[tuple[str, Any], ...] = (
        *(("index.json", index), ("manifest.json", listed), ("oci-layout", {"imageLayoutVersion": "1.0.0"})),
        *((("repositories", repositories),) if repositories else ()),
    )
    for path, document in documents:
        yield from written.document(path, msgspec.json.encode(document))
    yield written.end()


def _by_image(images: Iterable[Saved]) -> list[Saved]:
    """Return each image once, with all its names."""
    found: dict[str, Saved] = {}
    for image, names in images:
        before = found[image.id].names if image.id in found else ()
        found[image.id] = Saved(image, list(dict.fromkeys((*before, *names))))
    return list(found.values())


def _path(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _manifest(store: ImageStore, image: Image) -> bytes:
    def descriptor(kind: str, digest: str, size: int) -> dict[str, Any]:
        return {"mediaType": kind, "digest": digest, "size": size}

    document = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": descriptor(_CONFIG, image.id, len(image.document)),
        "layers": [descriptor(_LAYER, layer.diff_id, store.layer_tar_size(layer)) for layer in image.layers],
    }
    return msgspec.json.encode(document)


def _descriptors(digest: str, size: int, image: Image, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return what index.json has of an image: an entry for each name, or one without."""
    platform = {"architecture": image.config.architecture, "os": image.config.os}
    if image.config.variant:
        platform["variant"] = image.config.variant
    plain: dict[str, Any] = {"mediaType": _MANIFEST, "digest": digest, "size": size, "platform": platform}
    if not names:
        return [plain]
    return [
        {
            **plain,
            "annotations": {
                "io.containerd.image.name": name,
                "org.opencontainers.image.ref.name": Reference.parse(name).tag or "",
            },
        }
        for name in names
    ]

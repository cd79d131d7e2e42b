"""Manifests: what an image in a registry consists of, as checked values."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Final, NamedTuple, TypeVar

import msgspec
from msgspec import Meta

from dbt.containers.images.config import Digest
from dbt.containers.images.errors import RegistryError
from dbt.containers.images.json_document import decode
from dbt.containers.images.platform import Platform
from dbt.containers.images.registry.platforms import rank

SCHEMA2: Final = "application/vnd.docker.distribution.manifest.v2+json"
_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
_OCI: Final = "application/vnd.oci.image.manifest.v1+json"
_INDEX: Final = "application/vnd.oci.image.index.v1+json"
_SCHEMA1: Final = ("application/vnd.docker.distribution.manifest.v1+json",
                   "application/vnd.docker.distribution.manifest.v1+prettyjws")  # fmt: skip
CONFIG: Final = "application/vnd.docker.container.image.v1+json"
LAYER: Final = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_CONFIGS: Final = (CONFIG, "application/vnd.oci.image.config.v1+json", "application/octet-stream", "")
_LAYERS: Final = frozenset((
    LAYER,
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
))  # fmt: skip
#: What is asked for: the order is that of our wishes.
ACCEPTED: Final = ", ".join((SCHEMA2, _LIST, _OCI, _INDEX))

#: A manifest is some kilobytes, and the specification wants registries to take 4 MiB.
MOST_BYTES: Final = 4 << 20
#: As many layers as docker allows.
MOST_LAYERS: Final = 125
_MOST_ENTRIES: Final = 4096

_Document = TypeVar("_Document", bound=msgspec.Struct)
_Size = Annotated[int, Meta(ge=0, le=1 << 62)]


class Descriptor(msgspec.Struct, frozen=True, rename="camel"):
    """Something that has a digest: its kind, and how many bytes it has."""

    media_type: str
    digest: Digest
    size: _Size


class _EntryPlatform(msgspec.Struct, frozen=True):
    os: str = ""
    architecture: str = ""
    variant: str = ""


class _Entry(msgspec.Struct, frozen=True, rename="camel"):
    digest: Digest
    size: _Size
    media_type: str = ""
    platform: _EntryPlatform = _EntryPlatform()

    @property
    def of(self) -> Platform:
        return Platform(self.platform.os, self.platform.architecture, self.platform.variant)


class Index(msgspec.Struct, frozen=True, rename="camel"):
    """Manifests of the same image for several platforms."""

    schema_version: int
    manifests: Annotated[list[_Entry], Meta(max_length=_MOST_ENTRIES)]

    def best(self) -> _Entry | None:
        """Return the manifest that runs here best, or None if there is none."""
        fitting = [(found, entry) for entry in self.manifests if (found := rank(entry.of)) is not None]
        return min(fitting, key=lambda pair: pair[0])[1] if fitting else None

    def platforms(self) -> list[Platform]:
        """Return what there are images for. Attestations are for "unknown", and are none."""
        return [entry.of for entry in self.manifests if entry.platform.os not in ("", "unknown")]


class Manifest(msgspec.Struct, frozen=True, rename="camel"):
    """An image for one platform: its configuration, and its layers, the lowest first."""

    schema_version: int
    config: Descriptor
    layers: Annotated[list[Descriptor], Meta(max_length=MOST_LAYERS)]


class _Kind(msgspec.Struct, frozen=True, rename="camel"):
    schema_version: int = 0
    media_type: str = ""
    manifests: Any = None
    layers: Any = None


def digest_of(document: bytes) -> str:
    """Return the digest of a document."""
    return "sha256:" + hashlib.sha256(document).hexdigest()


class Received(NamedTuple):
    """What a name or digest stands for: the document, its digest, size in bytes, and media type."""

    manifest: Manifest | Index
    digest: str
    size: int
    media_type: str


def read_manifest(document: bytes, content_type: str) -> Received:
    """Return what a registry has given for a name. Raise RegistryError, which says what is wrong with it.

    The kind that a document says itself counts, and has to be the one that the answer's header says: two meanings of
    the same bytes, which have one digest, would let a registry choose what a digest stands for.
    """
    announced = content_type.partition(";")[0].strip()
    kind = _decode(document, _Kind)
    media_type = kind.media_type or announced
    if media_type in _SCHEMA1 or kind.schema_version == 1:
        raise RegistryError("the image has a manifest of schema 1, which is no longer supported: push it again")
    if announced in (SCHEMA2, _LIST, _OCI, _INDEX) and announced != media_type:
        raise RegistryError(f"the manifest is called {announced} by the registry, and {media_type[:100]} by itself")
    if kind.manifests and kind.layers:
        raise RegistryError("the manifest is both of an image and of several, so its digest stands for neither")
    if kind.schema_version != 2:
        raise RegistryError(f"unsupported schema version {kind.schema_version} of a manifest")
    if media_type in (_LIST, _INDEX):
        return Received(_decode(document, Index), digest_of(document), len(document), media_type)
    if media_type in (SCHEMA2, _OCI):
        return Received(_checked(_decode(document, Manifest)), digest_of(document), len(document), media_type)
    raise RegistryError(f"unsupported manifest media type: {media_type[:100]!r}")


def _decode(document: bytes, kind: type[_Document]) -> _Document:
    try:
        return decode(document, kind)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise RegistryError(f"the registry gives a manifest that is none: {error}") from None


def _checked(manifest: Manifest) -> Manifest:
    """Return a manifest of an image. Raise RegistryError for one of something else, or with unknown layers."""
    if manifest.config.media_type not in _CONFIGS:
        raise RegistryError(f"the manifest is not of an image, but of {manifest.config.media_type[:100]!r}")
    for layer in manifest.layers:
        if layer.media_type not in _LAYERS:
            raise RegistryError(f"the image has a layer of a kind that is not supported: {layer.media_type[:100]!r}")
    return manifest

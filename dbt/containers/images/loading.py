"""Archives of images: those of `docker save`, of every version, and OCI layouts.

An archive comes as a stream, and says at its end what its files are. So a file that looks like JSON is kept, and every
other one is taken for a layer and added at once. Those that no image needs go with the next collection.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, BinaryIO, Final, NamedTuple, TypeVar

import msgspec

from dbt.containers.images import tar_reader as tar
from dbt.containers.images.config import Digest, read_config
from dbt.containers.images.errors import BadArchive, BadConfig, BadLayer, InvalidReference, WrongPlatform
from dbt.containers.images.history import ARCHITECTURE, SYSTEM
from dbt.containers.images.image import Image, Layer
from dbt.containers.images.json_document import decode
from dbt.containers.images.legacy import legacy_config
from dbt.containers.images.reference import Reference
from dbt.containers.images.store import ImageStore
from dbt.containers.images.tar_header import BLOCK
from dbt.containers.images.tar_reader import Entry, Limits, TarReader, shown
from dbt.containers.images.unpacking import ByteSource, is_packed, unpacked

#: Of the archive itself. Its layers have limits of their own.
_LIMITS: Final = Limits(bytes=1 << 38, entries=1 << 16)
_MOST_DOCUMENT: Final = 8 << 20
_MOST_DOCUMENTS: Final = 64 << 20
_MOST_LINKS: Final = 8
_MOST_NESTED: Final = 4
_MOST_IMAGES: Final = 1024
#: Where an OCI layout has the name of an image: containerd's whole, or OCI's tag, which may be a whole name too.
_NAMES: Final = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
T = TypeVar("T")


class Loaded(NamedTuple):
    """An image of an archive. ``names`` are those that it got, in full, and ``renamed`` the images that had them."""

    image: Image
    names: list[str]
    renamed: list[tuple[str, str]]


class _Described(msgspec.Struct, frozen=True, rename="pascal"):
    """An image in ``manifest.json``: paths in the archive."""

    config: str
    repo_tags: list[str] | None = None
    layers: list[str] | None = None


class _Platform(msgspec.Struct, frozen=True):
    architecture: str = ""
    os: str = ""
    variant: str = ""


class _Descriptor(msgspec.Struct, frozen=True):
    """What OCI's documents say of another one."""

    digest: Digest
    platform: _Platform | None = None
    annotations: dict[str, str] | None = None


class _Manifest(msgspec.Struct, frozen=True):
    """A manifest of an image, or an index of manifests."""

    config: _Descriptor | None = None
    layers: list[_Descriptor] | None = None
    manifests: list[_Descriptor] | None = None


def load(store: ImageStore, stream: BinaryIO | ByteSource, renames: bool = True) -> Iterator[Loaded]:
    """Add the images of an archive, compressed or not, and yield each. Raise BadArchive, BadLayer, BadConfig, or
    StoreError. The images before the one that is wrong stay. Unless it ``renames`` others, an image does not get names
    that others have.
    """
    try:
        content = _Content(store, stream)
    except BadLayer as error:
        raise BadArchive(str(error)) from None
    if (listed := content.document("manifest.json")) is not None:
        for described in _few(_decoded(listed, list[_Described], "manifest.json")):
            layers = [content.layer(path) for path in described.layers or []]
            config = content.needed(described.config)
            yield _add(store, config, layers, described.repo_tags or [], renames)
    elif (index := content.document("index.json")) is not None:
        yield from _load_layout(store, content, _decoded(index, _Manifest, "index.json"), renames)
    elif (listed := content.document("repositories")) is not None:
        yield from _load_legacy(store, content, listed, renames)
    else:
        raise BadArchive("the archive has no images: there is no manifest.json, index.json or repositories in it")


def _is_document(first: bytes) -> bool:
    """Return True if a file that begins so is no layer: it looks like JSON, or is shorter than any tar archive."""
    if is_packed(first) or first[257:262] == b"ustar":
        return False
    return first.lstrip()[:1] in (b"{", b"[") or len(first) < BLOCK


class _ContentSource:
    """What is in a file of the archive, as a stream."""

    def __init__(self, first: bytes, pieces: Iterator[bytes]) -> None:
        self._held, self._pieces = first, pieces

    def read(self, size: int, /) -> bytes:
        if not self._held:
            self._held = next(self._pieces, b"")
        piece, self._held = self._held[:size], self._held[size:]
        return piece


class _Content:
    """The files of an archive: documents, layers, and links between names."""

    def __init__(self, store: ImageStore, stream: BinaryIO | ByteSource) -> None:
        self._store = store
        self._documents: dict[str, bytes] = {}
        self._layers: dict[str, Layer | str] = {}
        self._links: dict[str, str] = {}
        self._held = 0
        reader = TarReader(unpacked(stream), _LIMITS)
        for entry in reader.entries():
            name = _normal(entry.name)
            if entry.kind == tar.FILE and entry.pieces is None:
                self._take(name, entry, reader)
            elif entry.kind in (tar.SYMLINK, tar.HARD_LINK):
                below = name.rpartition("/")[0] if entry.kind == tar.SYMLINK else ""
                self._links[name] = _normal(f"{below}/".encode() + entry.link)

    def _take(self, name: str, entry: Entry, reader: TarReader) -> None:
        pieces = reader.content()
        first = b""
        while len(first) < BLOCK and (piece := next(pieces, b"")):  # a stream may give less than what tells what it is
            first += piece
        if entry.size <= _MOST_DOCUMENT and _is_document(first):
            self._held += entry.size
            if self._held > _MOST_DOCUMENTS:
                raise BadArchive(f"the archive has documents of more than {_MOST_DOCUMENTS} bytes")
            self._documents[name] = first + b"".join(pieces)
            return
        try:
            self._layers[name] = self._store.add_layer(_ContentSource(first, pieces))
        except BadLayer as error:  # it may be none
            self._layers[name] = str(error)  # the error itself has what was read of it

    def _followed(self, path: str) -> str:
        name = _normal(path.encode("utf-8", "surrogateescape"))
        for _ in range(_MOST_LINKS):
            if name not in self._links:
                return name
            name = self._links[name]
        raise BadArchive(f"the archive has too many links at {shown(path.encode())}")

    def document(self, path: str) -> bytes | None:
        return self._documents.get(self._followed(path))

    def needed(self, path: str) -> bytes:
        found = self.document(path)
        if found is None:
            raise BadArchive(f"the archive has no file {shown(path.encode('utf-8', 'replace'))}, which an image needs")
        return found

    def layer(self, path: str) -> Layer:
        name = self._followed(path)
        found = self._layers.get(name)
        if isinstance(found, Layer):
            return found
        shown_name = shown(path.encode("utf-8", "replace"))
        if found is None and name not in self._documents:
            raise BadArchive(f"the archive has no file {shown_name}, which an image needs")
        raise BadLayer(f"the layer {shown_name}: {found or 'it is no archive'}")

    def blob(self, descriptor: _Descriptor) -> bytes:
        """Return a document of an OCI layout, which has to be what its digest says."""
        found = self.needed(_blob_path(descriptor))
        if f"sha256:{hashlib.sha256(found).hexdigest()}" != descriptor.digest:
            raise BadArchive(f"the archive has a document that is not {descriptor.digest}, as it should be")
        return found


def _normal(path: bytes) -> str:
    """Return a path in the archive, from its root, in one form for all that mean the same."""
    parts: list[bytes] = []
    for part in path.split(b"/"):
        if part == b"..":
            if not parts:
                raise BadArchive(f"the archive has a path that leads out of it: {shown(path)}")
            parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts).decode("utf-8", "surrogateescape")


def _blob_path(descriptor: _Descriptor) -> str:
    return f"blobs/{descriptor.digest.replace(':', '/')}"


def _decoded(document: bytes, form: type[T], name: str) -> T:
    try:
        return decode(document, form)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadArchive(f"the archive has a wrong {name}: {error}") from None


def _few(images: list[T]) -> list[T]:
    if len(images) > _MOST_IMAGES:
        raise BadArchive(f"the archive has more than {_MOST_IMAGES} images")
    return images


def _add(store: ImageStore, config: bytes, layers: list[Layer], names: list[str], renames: bool) -> Loaded:
    """Add an image whose layers have been added, and check that they are those of its configuration."""
    full = []
    for name in names:
        try:
            full.append(str(Reference.parse(name).with_default_tag()))
        except InvalidReference as error:
            raise BadArchive(f"the archive has an image named {name!r:.100}: {error}") from None
    expected, found = read_config(config).diff_ids, [layer.diff_id for layer in layers]
    if len(expected) != len(found):
        raise BadConfig(f"invalid manifest, layers length mismatch: expected {len(found)}, got {len(expected)}")
    for number, (one, other) in enumerate(zip(expected, found, strict=True)):
        if one != other:
            raise BadConfig(f'invalid diffID for layer {number}: expected "{one}", got "{other}"')
    with store.change():
        had = {name: image.id for image in store.images() for name in image.names}
        if not renames:
            full = [name for name in full if name not in had]
        image = store.add_image(config, full)
    renamed = [(name, had[name]) for name in full if had.get(name, image.id) != image.id]
    return Loaded(image, full, renamed)


# -- OCI layouts -----------------------------------------------------------------------------------


def _load_layout(store: ImageStore, content: _Content, index: _Manifest, renames: bool) -> Iterator[Loaded]:
    for descriptor in _few(index.manifests or []):
        manifest = _image_manifest(content, descriptor)
        assert manifest.config is not None
        config = content.blob(manifest.config)
        layers = [content.layer(_blob_path(layer)) for layer in manifest.layers or []]
        yield _add(store, config, layers, _names(descriptor.annotations or {}), renames)


def _image_manifest(content: _Content, descriptor: _Descriptor) -> _Manifest:
    """Return the manifest of the image that a descriptor leads to, through indexes of several platforms."""
    for _ in range(_MOST_NESTED):
        manifest = _decoded(content.blob(descriptor), _Manifest, "manifest")
        if manifest.config is not None:
            return manifest
        descriptor = _suitable(manifest.manifests or [])
    raise BadArchive("the archive has too many indexes in each other")


def _suitable(descriptors: list[_Descriptor]) -> _Descriptor:
    """Return the descriptor of the image that runs here, the lowest variant first."""
    found = [one for one in descriptors if one.platform is None or _runs(one.platform)]
    if not found:
        raise WrongPlatform(f"the archive has no image for {SYSTEM}/{ARCHITECTURE}")
    return min(found, key=lambda one: one.platform.variant if one.platform else "")


def _runs(platform: _Platform) -> bool:
    return (platform.os, platform.architecture) == (SYSTEM, ARCHITECTURE)


def _names(annotations: dict[str, str]) -> list[str]:
    whole, tag = (annotations.get(key, "") for key in _NAMES)
    if whole:
        return [whole]
    return [tag] if ":" in tag or "/" in tag else []


# -- before manifest.json ---------------------------------------------------------------------------


def _load_legacy(store: ImageStore, content: _Content, listed: bytes, renames: bool) -> Iterator[Loaded]:
    names: dict[str, list[str]] = {}
    for repository, tags in _decoded(listed, dict[str, dict[str, str]], "repositories").items():
        for tag, top in tags.items():
            names.setdefault(top, []).append(f"{repository}:{tag}")
    for top, found in _few(list(names.items())):
        steps: list[dict[str, Any]] = []
        layers: list[Layer] = []
        step: str | None = top
        seen: set[str] = set()
        while step:
            if len(steps) > _LIMITS.component or step in seen:
                raise BadArchive("the archive has an image of too many layers")
            seen.add(step)
            steps.insert(0, _decoded(content.needed(f"{step}/json"), dict[str, Any], "json"))
            layers.insert(0, content.layer(f"{step}/layer.tar"))
            parent = steps[0].get("parent")
            step = parent if isinstance(parent, str) else None
        yield _add(store, legacy_config(steps, [layer.diff_id for layer in layers]), layers, found, renames)

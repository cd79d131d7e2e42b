"""Images for the tests of registries, made of nothing, and a store that keeps them in memory."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO

from dbt.containers.images.config import read_config
from dbt.containers.images.errors import BadLayer, ImageNotFound
from dbt.containers.images.image import Image, Layer
from dbt.containers.images.reference import Reference
from dbt.containers.images.registry.manifests import CONFIG, LAYER, SCHEMA2


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def tar_of(**files: bytes) -> bytes:
    """Return an archive with files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def config_of(tars: Sequence[bytes], variant: str = "v5", architecture: str = "arm") -> bytes:
    document = {
        "architecture": architecture,
        "variant": variant,
        "os": "linux",
        "created": "2026-01-02T03:04:05Z",
        "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(tar) for tar in tars]},
        "history": [{"created_by": "a test"} for _ in tars],
    }
    return json.dumps(document).encode()


class MadeImage:
    """An image as a registry has it: ``blobs`` by digest, and its manifest."""

    def __init__(self, *tars: bytes, variant: str = "v5", architecture: str = "arm") -> None:
        self.tars = tars
        self.config = config_of(tars, variant, architecture)
        self.layers = [gzip.compress(tar, mtime=0) for tar in tars]
        self.blobs = {digest(blob): blob for blob in (self.config, *self.layers)}
        self.platform = {"os": "linux", "architecture": architecture, "variant": variant}

    @property
    def id(self) -> str:
        return digest(self.config)

    def document(self) -> dict[str, Any]:
        return {
            "schemaVersion": 2,
            "mediaType": SCHEMA2,
            "config": {"mediaType": CONFIG, "size": len(self.config), "digest": digest(self.config)},
            "layers": [{"mediaType": LAYER, "size": len(blob), "digest": digest(blob)} for blob in self.layers],
        }

    @property
    def manifest(self) -> bytes:
        return json.dumps(self.document()).encode()


@dataclass
class MemoryStore:
    """What pull and push need of a store. It checks layers' digests, and nothing else."""

    tars: dict[str, bytes] = field(default_factory=dict)
    by_name: dict[str, Image] = field(default_factory=dict)
    by_id: dict[str, Image] = field(default_factory=dict)

    def images(self) -> list[Image]:
        return list(self.by_id.values())

    def find(self, text: str) -> Image:
        if text not in self.by_name:
            raise ImageNotFound(f"No such image: {Reference.parse(text).familiar}")
        return self.by_name[text]

    def layer(self, diff_id: str) -> Layer | None:
        return Layer(diff_id, "", 0) if diff_id in self.tars else None

    def add_layer(self, tar: BinaryIO, expected_diff_id: str | None = None) -> Layer:
        data = tar.read()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        if expected_diff_id not in (None, digest(data)):
            raise BadLayer(f"layer {digest(data)} is not {expected_diff_id}")
        self.tars[digest(data)] = data
        return Layer(digest(data), "", len(data))

    def add_image(
        self, document: bytes, names: Sequence[str] = (), parent: str | None = None, digests: Sequence[str] = ()
    ) -> Image:
        config = read_config(document)
        layers = tuple(Layer(diff_id, "", len(self.tars[diff_id])) for diff_id in config.diff_ids)
        image = Image(digest(document), config, layers, tuple(names), tuple(digests), parent, 0.0, document)
        self.by_id[image.id] = image
        for name in (*names, *digests):
            self.by_name[name] = image
        return image

    def layer_tar(self, layer: Layer) -> Iterator[bytes]:
        data = self.tars[layer.diff_id]
        for place in range(0, len(data), 1 << 16):
            yield data[place : place + (1 << 16)]

    def tag(self, image: Image, reference: Reference) -> None:
        named = replace(image, names=(*image.names, str(reference)))
        self.by_name[str(reference)] = self.by_id[image.id] = named

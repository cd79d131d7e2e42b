"""Images for the tests of registries, made of nothing."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from typing import Any

from dbt.containers.images.image import Image
from dbt.containers.images.registry.manifests import CONFIG, LAYER, SCHEMA2
from dbt.containers.images.store import ImageStore


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


def content(store: ImageStore, image: Image) -> list[bytes]:
    """Return the archives of an image's layers, the lowest first."""
    return [b"".join(store.layer_tar(layer)) for layer in image.layers]

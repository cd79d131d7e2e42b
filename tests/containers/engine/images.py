"""Images for tests of the engine, put into its store before it starts."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import msgspec

from dbt.containers.images.reference import Reference
from dbt.containers.images.store import ImageStore

WORDS = Path(__file__).resolve().parents[3] / "guests/linux/images/words"
_BUSYBOX = Path(os.environ.get("DBT_CONTAINER_IMAGES", ""), "busybox-armel.tar")
HAS_BUSYBOX = bool(os.environ.get("DBT_CONTAINER_IMAGES")) and _BUSYBOX.is_file()


def add_images(folder: Path) -> None:
    """Put the image ``words`` into the engine's store, and ``busybox`` if there is one."""
    store = ImageStore(str(folder / "images"))
    try:
        _add(store, "words", io.BytesIO(words_tar()), {"Cmd": ["words", "say", "hi"], "Env": ["PATH=/bin"]})
        if HAS_BUSYBOX:
            with open(_BUSYBOX, "rb") as tar:
                _add(store, "busybox", tar, {"Cmd": ["sh"], "Env": ["PATH=/bin"]})
    finally:
        store.close()


def _add(store: ImageStore, name: str, tar: io.BufferedIOBase | io.BufferedReader, run: dict[str, object]) -> None:
    layer = store.add_layer(tar)
    document = {
        "architecture": "arm",
        "variant": "v5",
        "os": "linux",
        "config": run,
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
        "history": [{"created": "2026-01-01T00:00:00Z", "created_by": "test"}],
    }
    store.add_image(msgspec.json.encode(document), [str(Reference.parse(name).with_default_tag())])


def words_tar() -> bytes:
    """Return the files of the image ``words``."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for folder in ("bin", "etc", "proc", "sys", "dev", "tmp", "data", "data/deep"):
            info = tarfile.TarInfo(folder)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(info)
        for name, data, mode in (
            ("data/given", b"by the image", 0o640),
            ("bin/words", WORDS.read_bytes(), 0o755),
            ("etc/passwd", b"root:x:0:0::/root:/bin/words\nann:x:1000:1001::/home/ann:/bin/words\n", 0o644),
            ("etc/group", b"root:x:0:\nann:x:1001:\n", 0o644),
        ):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), mode
            archive.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("data/deep/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        archive.addfile(link)
    return out.getvalue()

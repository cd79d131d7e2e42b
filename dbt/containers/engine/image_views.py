"""What docker's lists and documents say of images, in each version of its API."""

from __future__ import annotations

from typing import Any, Final

from dbt.containers.engine.timestamps import ZERO, text_of
from dbt.containers.engine.versions import ApiVersion
from dbt.containers.images.history import HistoryRow
from dbt.containers.images.image import Image

_NS: Final = 10**9
_NOT_COUNTED: Final = -1
#: The fields of a configuration that are always there.
_CONFIG: Final[dict[str, Any]] = {
    "Hostname": "",
    "Domainname": "",
    "User": "",
    "AttachStdin": False,
    "AttachStdout": False,
    "AttachStderr": False,
    "Tty": False,
    "OpenStdin": False,
    "StdinOnce": False,
    "Env": None,
    "Cmd": None,
    "Image": "",
    "Volumes": None,
    "WorkingDir": "",
    "Entrypoint": None,
    "OnBuild": None,
    "Labels": None,
}
_ONLY_IF_SET: Final = ("ExposedPorts", "Healthcheck", "ArgsEscaped", "StopSignal", "StopTimeout", "Shell")


def summary(image: Image, version: ApiVersion, containers: int = _NOT_COUNTED, shared: int = -1) -> dict[str, Any]:
    """Return what a list says of an image. ``shared`` are the bytes of layers that other images have too."""
    tags, digests = sorted(image.repo_tags), sorted(image.repo_digests)
    if not tags and not digests and version < (1, 43):
        tags, digests = ["<none>:<none>"], ["<none>@<none>"]
    found = {
        "Containers": containers,
        "Created": image.created_seconds,
        "Id": image.id,
        "Labels": (image.config.run.labels if image.config.run else None) or None,
        "ParentId": image.parent or "",
        "RepoDigests": digests if digests or version >= (1, 43) else None,
        "RepoTags": tags if tags or version >= (1, 43) else None,
        "SharedSize": shared,
        "Size": image.size,
    }
    return found | ({"VirtualSize": image.size} if version < (1, 44) else {})


def document(image: Image, version: ApiVersion) -> dict[str, Any]:
    """Return docker's description of an image."""
    kept = image.json()
    found = {
        "Id": image.id,
        "RepoTags": sorted(image.repo_tags),
        "RepoDigests": sorted(image.repo_digests),
        "Parent": image.parent or "",
        "Comment": image.config.comment,
        "Created": image.created,
        "DockerVersion": image.config.docker_version,
        "Author": image.config.author,
        "Config": _config(kept.get("config")),
        "Architecture": image.config.architecture,
        "Os": image.config.os,
        "Size": image.size,
        "GraphDriver": {"Data": None, "Name": "erofs"},
        "RootFS": {"Type": "layers", "Layers": [layer.diff_id for layer in image.layers]},
        "Metadata": {"LastTagTime": text_of(int(image.tagged * _NS)) if image.tagged else ZERO},
    }
    if image.config.variant:
        found["Variant"] = image.config.variant
    if version < (1, 44):
        found["VirtualSize"] = image.size
    if version < (1, 45):
        found["Container"] = _text(kept.get("container"))
        found["ContainerConfig"] = _config(kept.get("container_config"))
    return found


def _config(kept: Any) -> dict[str, Any]:
    """Return a configuration with all fields that docker writes. What else it has is left out."""
    given = kept if isinstance(kept, dict) else {}
    found = {name: given.get(name, default) for name, default in _CONFIG.items()}
    return found | {name: given[name] for name in _ONLY_IF_SET if given.get(name)}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def history_row(row: HistoryRow) -> dict[str, Any]:
    """Return a step of an image as docker writes it."""
    return {
        "Comment": row.comment,
        "Created": row.created,
        "CreatedBy": row.created_by,
        "Id": row.id,
        "Size": row.size,
        "Tags": row.tags or None,
    }

"""The configuration of an image, as checked values. The names of the fields are those of its JSON.

What is not listed here is kept in the document that an image has beside it (:class:`dbt.containers.images.image.Image`)
and means nothing to us.
"""

from __future__ import annotations

import re
from typing import Annotated, Final

import msgspec
from msgspec import Meta, field

from dbt.containers.images.errors import BadConfig
from dbt.containers.images.json_document import decode

#: A configuration is some kilobytes. This much is kept of none.
MOST_BYTES: Final = 8 << 20
#: An image has at most 125 layers, and between them steps that have made none.
_MOST_STEPS: Final = 1 << 12
_PLACE = re.compile(r"^(?P<what>.*?)(?: - at `\$\.?(?P<place>.*)`)?$", re.DOTALL)

Digest = Annotated[str, Meta(pattern=r"^sha256:[0-9a-f]{64}$(?!\n)")]


class HealthCheck(msgspec.Struct, frozen=True, rename="pascal"):
    """How one sees whether a container is well. Times are in nanoseconds; 0 is the default."""

    test: list[str] | None = None
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class _Nothing(msgspec.Struct, frozen=True):
    """An object of which nothing is kept."""


class RunConfig(msgspec.Struct, frozen=True, rename="pascal"):
    """What a container of the image is started with, if its user says nothing else."""

    user: str = ""
    exposed_ports: dict[str, _Nothing] | None = None
    env: list[str] | None = None
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    volumes: dict[str, _Nothing] | None = None
    working_dir: str = ""
    labels: dict[str, str] | None = None
    stop_signal: str = ""
    stop_timeout: int | None = None
    shell: list[str] | None = None
    on_build: list[str] | None = None
    healthcheck: HealthCheck | None = None
    args_escaped: bool = False


class RootFs(msgspec.Struct, frozen=True):
    """The layers: SHA-256 of their uncompressed tar archives, the lowest first."""

    type: str = "layers"
    diff_ids: list[Digest] | None = None


class History(msgspec.Struct, frozen=True):
    """How a layer was made, or a step that made none."""

    created: str = ""
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


class ImageConfig(msgspec.Struct, frozen=True):
    """The configuration of an image, by the OCI image specification and docker's additions."""

    architecture: str = ""
    os: str = ""
    variant: str = ""
    os_version: str = field(default="", name="os.version")
    created: str | None = None
    author: str = ""
    comment: str = ""
    docker_version: str = ""
    run: RunConfig | None = field(default=None, name="config")
    rootfs: RootFs | None = None
    history: Annotated[list[History], Meta(max_length=_MOST_STEPS)] | None = None

    @property
    def diff_ids(self) -> list[str]:
        """The layers, the lowest first."""
        return (self.rootfs.diff_ids if self.rootfs else None) or []


def read_config(document: bytes) -> ImageConfig:
    """Return the configuration in a JSON document. Raise BadConfig, which names the field."""
    if len(document) > MOST_BYTES:
        raise BadConfig(f"the image's configuration has {len(document)} bytes, and at most {MOST_BYTES} are read")
    try:
        return decode(document, ImageConfig)
    except msgspec.ValidationError as error:
        found = _PLACE.match(str(error))
        assert found is not None
        place = f" at {found['place']}" if found["place"] else ""
        raise BadConfig(f"the image's configuration is wrong{place}: {found['what']}") from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadConfig(f"the image's configuration is no JSON: {error}") from None

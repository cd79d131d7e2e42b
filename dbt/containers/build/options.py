"""What a user asks of a build: the query of docker's API."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from dbt.containers.build.failures import BadDockerfile
from dbt.containers.images.reference import Reference
from dbt.containers.images.registry.credentials import Credentials, read_credentials_file
from dbt.containers.runtime.spec import DEFAULT_SHM
from dbt.containers.runtime.ulimits import Ulimit, check_ulimits

_FALSE: Final = ("", "0", "no", "false", "none")
#: A number of bytes in a query, of 64 bits.
_NUMBER: Final = re.compile(r"-?[0-9]{1,18}")


@dataclass(frozen=True)
class BuildOptions:
    """Options of a build.

    - ``names``: what the image is called. ``dockerfile``: the file's path in the context, ``target``: a stage of it.
    - ``arguments``: values of ARG; None is one that only has to be there. ``labels``: more of them.
    - ``uses_cache``, ``pulls``: images that are here already are taken; those that are here are pulled again.
    - ``cache_sources``: names of images whose steps are taken, and no others, if there are any.
    - ``is_quiet``: nothing but the image's id is told. ``removes``, ``always_removes``: what is said of containers.
    - ``network``: the name of the network that programs are in. ``hosts``: addresses by names for them.
    - ``memory``: what each program may use, in bytes, or None.
    - ``ulimits``, ``shm_size``: limits of resources, and the bytes of /dev/shm.
    - ``credentials`` by the domains of registries.
    """

    names: tuple[Reference, ...] = ()
    dockerfile: str = "Dockerfile"
    target: str = ""
    platform: str = ""
    arguments: Mapping[str, str | None] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    uses_cache: bool = True
    pulls: bool = False
    cache_sources: tuple[str, ...] = ()
    is_quiet: bool = False
    removes: bool = True
    always_removes: bool = False
    network: str = "bridge"
    hosts: tuple[tuple[str, str], ...] = ()
    memory: int | None = None
    ulimits: tuple[Ulimit, ...] = ()
    shm_size: int = DEFAULT_SHM
    credentials: Mapping[str, Credentials] = field(default_factory=dict)


def read_options(query: Mapping[str, Sequence[str]], registry_config: str = "") -> BuildOptions:
    """Return the options in a query, whose names may come several times, and in a header X-Registry-Config.

    Raise BadDockerfile, or InvalidReference.
    """

    def last(name: str, default: str = "") -> str:
        return (query.get(name) or [default])[-1] or default

    def flag(name: str, default: str = "") -> bool:
        return last(name, default).strip().lower() not in _FALSE

    if last("version") == "2":
        raise BadDockerfile("there is no BuildKit here: set DOCKER_BUILDKIT=0 for the classic builder")
    if last("remote"):
        raise BadDockerfile("a build has its context from its client here: a remote one cannot be used")
    memory, shm_size = _size(last("memory", "0"), "memory limit"), _size(last("shmsize", "0"), "size of /dev/shm")
    ulimits = tuple(_table(last("ulimits"), list[Ulimit], "ulimits"))
    check_ulimits(ulimits, BadDockerfile)
    return BuildOptions(
        names=tuple(Reference.parse(name).with_default_tag() for name in query.get("t", ()) if name),
        dockerfile=last("dockerfile", "Dockerfile"),
        target=last("target"),
        platform=last("platform"),
        arguments=_table(last("buildargs"), dict[str, str | None], "build args"),
        labels=_table(last("labels"), dict[str, str], "labels"),
        uses_cache=not flag("nocache"),
        pulls=flag("pull"),
        cache_sources=tuple(_table(last("cachefrom"), list[str], "cache sources")),
        is_quiet=flag("q"),
        removes=flag("rm", "1"),
        always_removes=flag("forcerm"),
        network=_network(last("networkmode", "default")),
        hosts=tuple((name, address) for name, _, address in (one.partition(":") for one in _hosts(query))),
        memory=memory if memory > 0 else None,
        ulimits=ulimits,
        shm_size=shm_size if shm_size > 0 else DEFAULT_SHM,
        credentials=read_credentials_file(registry_config),
    )


def _size(text: str, what: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise BadDockerfile(f"invalid {what}: {text[:40]}")
    return int(text)


def _network(mode: str) -> str:
    if mode == "host" or mode.startswith("container:"):
        raise BadDockerfile(f"the network mode {mode[:80]} cannot be used here: programs have the network of a VM")
    return "bridge" if mode == "default" else mode


def _hosts(query: Mapping[str, Sequence[str]]) -> list[str]:
    return [one for one in ",".join(query.get("extrahosts", ())).split(",") if one]


def _table(text: str, form: Any, what: str) -> Any:
    if not text:
        return {}
    try:
        return msgspec.json.decode(text, type=form | None) or {}
    except (msgspec.MsgspecError, RecursionError) as error:
        raise BadDockerfile(f"error reading {what}: {error}") from None

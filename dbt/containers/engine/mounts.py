"""What is mounted in a container: directories of the host, volumes, and file systems in memory."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from dbt.containers.engine.config import ContainerConfig, HostConfig, MountWish
from dbt.containers.engine.errors import BadParameter, NotFound
from dbt.containers.engine.records import MountPoint
from dbt.containers.network.volumes import Volumes

_MODES: Final = frozenset(
    {"ro", "rw", "z", "Z", "nocopy", "private", "rprivate", "shared", "rshared", "slave", "rslave", "consistent"}
    | {"cached", "delegated"}
)
_VOLUME_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")


class MountMaker:
    """Finds what a new container mounts, and makes volumes for it.

    ``mounts_of`` returns what a container mounts, by its name or id, for --volumes-from.
    """

    def __init__(self, volumes: Volumes, mounts_of: Callable[[str], list[MountPoint]]) -> None:
        self._volumes = volumes
        self._mounts_of = mounts_of

    def points(self, config: ContainerConfig, host: HostConfig) -> list[MountPoint]:
        """Return what is mounted, by target. Raise BadParameter or NetworkFailure."""
        found: dict[str, MountPoint] = {}
        chosen: set[str] = set()
        for text in host.volumes_from or ():
            for point in self._from(text):
                found[point.target] = point
        for point in [*map(self._bind, host.binds or ()), *map(self._wished, host.mounts or ())]:
            if point.target in chosen:
                raise BadParameter(f"Duplicate mount point: {point.target}")
            chosen.add(point.target)
            found[point.target] = point
        for target, options in (host.tmpfs or {}).items():
            found[_target(target)] = MountPoint("tmpfs", _target(target), mode=options, options=options)
        for target in config.volumes or ():
            if _target(target) not in found:
                volume = self._volumes.create()
                found[_target(target)] = _of_volume(volume.name, volume.path, _target(target))
        return sorted(found.values(), key=lambda one: one.target)

    def _from(self, text: str) -> Iterable[MountPoint]:
        name, _, mode = text.partition(":")
        if mode not in ("", "ro", "rw"):
            raise BadParameter(f'invalid mode for volumes-from: "{mode}"')
        try:
            points = self._mounts_of(name)
        except NotFound as error:  # with status 404, docker's command would pull the image
            raise BadParameter(str(error)) from None
        for point in points:
            if point.type != "tmpfs":
                yield msgspec.structs.replace(point, read_only=point.read_only or mode == "ro", is_filled=False)

    def _bind(self, text: str) -> MountPoint:
        source, colon, rest = text.partition(":")
        target, _, mode = rest.partition(":")
        options = [one for one in mode.split(",") if one]
        if not colon or not source or not target or ":" in mode:
            raise BadParameter(f"invalid volume specification: '{text}'")
        for one in options:
            if one not in _MODES:
                raise BadParameter(f'invalid mode: "{mode}"')
        read_only = "ro" in options
        if source.startswith("/"):
            source = posixpath.normpath(source)
            self._make_source(source)
            return MountPoint("bind", _target(target), source, mode=mode, read_only=read_only, propagation="rprivate")
        if not _VOLUME_NAME.fullmatch(source):
            raise BadParameter(
                f'create {source}: "{source}" includes invalid characters for a local volume name, only '
                '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path'
            )
        volume = self._volumes.create(source)
        return _of_volume(volume.name, volume.path, _target(target), mode or "z", read_only, "nocopy" not in options)

    @staticmethod
    def _make_source(source: str) -> None:
        if os.path.exists(source):  # which may be a file
            return
        try:
            os.makedirs(source, exist_ok=True)
        except OSError as error:
            raise BadParameter(
                f"error while creating mount source path '{source}': mkdir {source}: {(error.strerror or '').lower()}"
            ) from None

    def _wished(self, wish: MountWish) -> MountPoint:
        target = _target(wish.target)
        match wish.type:
            case "bind":
                if not wish.source.startswith("/"):
                    raise BadParameter(f"invalid mount config for type \"bind\": invalid mount path: '{wish.source}'")
                if (wish.bind_options or {}).get("CreateMountpoint"):
                    self._make_source(wish.source)
                if not os.path.exists(wish.source):
                    raise BadParameter(
                        f'invalid mount config for type "bind": bind source path does not exist: {wish.source}'
                    )
                return MountPoint("bind", target, wish.source, read_only=wish.read_only, propagation="rprivate")
            case "volume":
                options = wish.volume_options or {}
                if options.get("Subpath"):
                    raise BadParameter("volume-subpath cannot be: a volume is mounted as a whole")
                driver = options.get("DriverConfig") or {}
                volume = self._volumes.create(
                    wish.source, driver.get("Name", ""), options.get("Labels"), driver.get("Options")
                )
                return _of_volume(volume.name, volume.path, target, "z", wish.read_only, not options.get("NoCopy"))
            case "tmpfs":
                if wish.source:
                    raise BadParameter('invalid mount config for type "tmpfs": field Source must not be specified')
                size = wish.tmpfs_options.size_bytes if wish.tmpfs_options else 0
                mode = wish.tmpfs_options.mode if wish.tmpfs_options else 0
                words = [f"size={size}"] if size else []
                words += [f"mode={mode:o}"] if mode else []
                words += ["ro"] if wish.read_only else []
                return MountPoint("tmpfs", target, read_only=wish.read_only, options=",".join(words))
        raise BadParameter(f'invalid mount config for type "{wish.type}": mount type unknown')


def _of_volume(
    name: str, path: str, target: str, mode: str = "", read_only: bool = False, is_filled: bool = True
) -> MountPoint:
    return MountPoint("volume", target, path, name, "local", mode, read_only, is_filled=is_filled)


def _target(path: str) -> str:
    if not path.startswith("/"):
        raise BadParameter(f"invalid mount path: '{path}' mount path must be absolute")
    if posixpath.normpath(path) == "/":
        raise BadParameter("invalid specification: destination can't be '/'")
    return posixpath.normpath(path)

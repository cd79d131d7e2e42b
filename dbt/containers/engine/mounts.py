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

_PROPAGATION: Final = frozenset({"private", "rprivate", "shared", "rshared", "slave", "rslave"})
#: What the mode of a mount says, each at most once: rights, labels, copying, propagation and consistency.
_MODES: Final = (
    frozenset({"ro", "rw"}),
    frozenset({"z", "Z"}),
    frozenset({"nocopy"}),
    _PROPAGATION,
    frozenset({"consistent", "cached", "delegated"}),
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
        for text in host.binds or ():
            _choose(chosen, found, self._bind(text))
        for wish in host.mounts or ():
            _choose(chosen, found, self._wished(wish))
        for target, options in (host.tmpfs or {}).items():
            _choose(chosen, found, MountPoint("tmpfs", _target(target), mode=options, options=options))
        for target in config.volumes or ():
            if _target(target) not in found:
                volume = self._volumes.create()
                found[_target(target)] = _of_volume(volume.name, volume.path, _target(target))
        return sorted(found.values(), key=lambda one: one.target)

    def _from(self, text: str) -> Iterable[MountPoint]:
        name, _, mode = text.partition(":")
        if not name:
            raise BadParameter("volumes-from specification cannot be an empty string")
        if mode not in ("", "ro", "rw"):
            raise BadParameter(f"invalid mode: {mode}")
        try:
            points = self._mounts_of(name)
        except NotFound as error:  # with status 404, docker's command would pull the image
            raise BadParameter(str(error)) from None
        for point in points:
            if point.type != "tmpfs":
                yield msgspec.structs.replace(point, read_only=point.read_only or mode == "ro", is_filled=False)

    def _bind(self, text: str) -> MountPoint:
        """Return what ``-v`` says: TARGET, SOURCE:TARGET or SOURCE:TARGET:MODE."""
        invalid = f"invalid volume specification: '{text}'"
        source, *rest = text.split(":")
        if not source or len(rest) > 2 or (len(rest) == 1 and _is_mode(rest[0])):
            raise BadParameter(invalid)
        if not rest:
            source, rest = "", [source]
        mode = rest[1] if len(rest) > 1 else ""
        if not _is_mode(mode):
            raise BadParameter(f"invalid mode: {mode}")
        options = mode.split(",") if mode else []
        kind = "bind" if source.startswith("/") else "volume"
        has_other = "nocopy" in options if kind == "bind" else not _PROPAGATION.isdisjoint(options)
        try:
            if has_other:
                raise BadParameter(f"field {'Volume' if kind == 'bind' else 'Bind'}Options must not be specified")
            target = _target(rest[0])
            if kind == "volume" and not source and "ro" in options:
                raise BadParameter("must not set ReadOnly mode when using anonymous volumes")
        except BadParameter as error:
            raise BadParameter(f'{invalid}: invalid mount config for type "{kind}": {error}') from None
        if kind == "bind":
            source = posixpath.normpath(source)
            self._make_source(source)
            propagation = next((one for one in options if one in _PROPAGATION), "rprivate")
            return MountPoint("bind", target, source, mode=mode, read_only="ro" in options, propagation=propagation)
        if source and not _VOLUME_NAME.fullmatch(source):
            raise BadParameter(
                f'create {source}: "{source}" includes invalid characters for a local volume name, only '
                '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path'
            )
        volume = self._volumes.create(source)
        return _of_volume(volume.name, volume.path, target, mode or "z", "ro" in options, "nocopy" not in options)

    @staticmethod
    def _make_source(source: str) -> None:
        if os.path.exists(source):  # which may be a file
            return
        missing = [source]
        while not os.path.exists(parent := os.path.dirname(missing[-1])):
            missing.append(parent)
        try:
            os.makedirs(source, exist_ok=True)
            for path in missing:
                os.chmod(path, 0o755)  # whatever the umask is
        except OSError as error:
            raise BadParameter(
                f"error while creating mount source path '{source}': mkdir {source}: {(error.strerror or '').lower()}"
            ) from None

    def _wished(self, wish: MountWish) -> MountPoint:
        try:
            target = _checked_wish(wish)
            if wish.type == "bind":
                if (wish.bind_options or {}).get("CreateMountpoint"):
                    self._make_source(wish.source)
                if not os.path.exists(wish.source):
                    raise BadParameter(f"bind source path does not exist: {wish.source}")
        except BadParameter as error:
            raise BadParameter(f'invalid mount config for type "{wish.type}": {error}') from None
        match wish.type:
            case "bind":
                propagation = (wish.bind_options or {}).get("Propagation") or "rprivate"
                return MountPoint("bind", target, wish.source, read_only=wish.read_only, propagation=propagation)
            case "volume":
                options = wish.volume_options or {}
                if options.get("Subpath"):
                    raise BadParameter("volume-subpath cannot be: a volume is mounted as a whole")
                driver = options.get("DriverConfig") or {}
                volume = self._volumes.create(
                    wish.source, driver.get("Name", ""), options.get("Labels"), driver.get("Options")
                )
                return _of_volume(volume.name, volume.path, target, "z", wish.read_only, not options.get("NoCopy"))
        size = wish.tmpfs_options.size_bytes if wish.tmpfs_options else 0
        mode = wish.tmpfs_options.mode if wish.tmpfs_options else 0
        words = [f"size={size}"] if size else []
        words += [f"mode={mode:o}"] if mode else []
        words += ["ro"] if wish.read_only else []
        return MountPoint("tmpfs", target, read_only=wish.read_only, options=",".join(words))


def _choose(chosen: set[str], found: dict[str, MountPoint], point: MountPoint) -> None:
    """Let something be mounted. Raise BadParameter if another one is to be at the same place."""
    if point.target in chosen:
        raise BadParameter(f"Duplicate mount point: {point.target}")
    chosen.add(point.target)
    found[point.target] = point


def _is_mode(text: str) -> bool:
    """Return True for the mode of a mount: words of different kinds, or nothing."""
    words = text.split(",") if text else []
    kinds = [next((kind for kind in _MODES if word in kind), None) for word in words]
    return None not in kinds and len(set(kinds)) == len(kinds)


def _checked_wish(wish: MountWish) -> str:
    """Return where something is to be mounted. Raise BadParameter for fields that do not go together."""
    if not wish.target:
        raise BadParameter("field Target must not be empty")
    target = _target(wish.target)
    match wish.type:
        case "bind":
            if not wish.source:
                raise BadParameter("field Source must not be empty")
            propagation = (wish.bind_options or {}).get("Propagation") or "rprivate"
            if propagation not in _PROPAGATION:
                raise BadParameter(f"invalid propagation mode: {propagation}")
            if wish.volume_options is not None:
                raise BadParameter("field VolumeOptions must not be specified")
            if not wish.source.startswith("/"):
                raise BadParameter(f"invalid mount path: '{wish.source}' mount path must be absolute")
        case "volume" | "tmpfs":
            if wish.bind_options is not None:
                raise BadParameter("field BindOptions must not be specified")
            if wish.type == "tmpfs" and wish.source:
                raise BadParameter("field Source must not be specified")
            if wish.type == "volume" and not wish.source and wish.read_only:
                raise BadParameter("must not set ReadOnly mode when using anonymous volumes")
        case _:
            raise BadParameter("mount type unknown")
    return target


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

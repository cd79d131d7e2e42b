"""What docker's inspect and lists say of containers."""

from __future__ import annotations

import time
from typing import Any, Final

from dbt.containers.engine.container import Container
from dbt.containers.engine.errors import BadParameter
from dbt.containers.engine.filters import Filters
from dbt.containers.engine.records import MountPoint, State
from dbt.containers.engine.timestamps import ZERO, ns_of
from dbt.containers.engine.versions import ApiVersion
from dbt.containers.images.errors import InvalidReference
from dbt.containers.images.reference import Reference

_NS = 10**9
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_STATUSES = frozenset({"created", "running", "paused", "restarting", "removing", "exited", "dead"})
_HEALTHS: Final = frozenset({"starting", "healthy", "unhealthy", "none"})
_MOST_PORT: Final = 65535
LIST_FILTERS = frozenset(
    {"ancestor", "before", "expose", "exited", "health", "id", "isolation", "is-task", "label", "label!", "name"}
    | {"network", "publish", "since", "status", "volume"}
)


def inspect(container: Container, version: ApiVersion) -> dict[str, Any]:
    """Return docker's description of a container."""
    record, image = container.record, container.image
    made, state = record.definition, record.state
    config, was_started = made.config.json(), state.started != ZERO
    host = made.host.json()
    if version < (1, 42):
        host["KernelMemory"] = host["KernelMemoryTCP"] = 0
    return {
        "Id": made.id,
        "Created": made.created,
        "Path": made.path,
        "Args": made.args,
        "State": _state(container.shown_state),
        "Image": image.id,
        "ResolvConfPath": f"{container.folder}/resolv.conf" if was_started else "",
        "HostnamePath": f"{container.folder}/hostname" if was_started else "",
        "HostsPath": f"{container.folder}/hosts" if was_started else "",
        "LogPath": container.log.path if was_started else "",
        "Name": f"/{record.name}",
        "RestartCount": state.restarts,
        "Driver": "erofs",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": [one for one, exec in container.execs.items() if exec.is_running] or None,
        "HostConfig": host,
        "GraphDriver": {"Data": None, "Name": "erofs"},
        "Mounts": [_mount(point) for point in made.mounts if point.type != "tmpfs" or not point.mode],
        "Config": config,
        "NetworkSettings": container.networks.settings_json(version, was_started),
    }


def _state(state: State) -> dict[str, Any]:
    found: dict[str, Any] = {
        "Status": state.status,
        "Running": state.running,
        "Paused": state.paused,
        "Restarting": state.restarting,
        "OOMKilled": state.oom_killed,
        "Dead": state.dead,
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": state.started,
        "FinishedAt": state.finished,
    }
    if state.health is not None:
        health = state.health
        found["Health"] = {"Status": health.status, "FailingStreak": health.failing, "Log": health.log}
    return found


def _mount(point: MountPoint) -> dict[str, Any]:
    found: dict[str, Any] = {"Type": point.type}
    if point.name:
        found["Name"] = point.name
    found |= {"Source": point.source, "Destination": point.target}
    if point.driver:
        found["Driver"] = point.driver
    return found | {"Mode": point.mode, "RW": not point.read_only, "Propagation": point.propagation}


def summary(container: Container, networks: dict[str, Any], ports: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what docker's list says of a container."""
    record = container.record
    made, state = record.definition, container.shown_state
    return {
        "Id": made.id,
        "Names": [f"/{record.name}"],
        "Image": made.config.image,
        "ImageID": container.image.id,
        "Command": " ".join([made.path, *(f"'{one}'" if " " in one else one for one in made.args)]),
        "Created": ns_of(made.created) // _NS,
        "Ports": ports,
        "Labels": made.config.labels or {},
        "State": state.status,
        "Status": status_text(container),
        "HostConfig": {"NetworkMode": made.host.network_mode},
        "NetworkSettings": {"Networks": networks},
        "Mounts": [_mount(point) for point in made.mounts if point.type != "tmpfs" or not point.mode],
    }


def status_text(container: Container) -> str:
    """Return docker's sentence about the state of a container, as "Up 2 minutes"."""
    state = container.shown_state
    if state.running:
        if state.restarting:
            return f"Restarting ({state.exit_code}) {_ago(state.finished)} ago"
        text = f"Up {_ago(state.started)}"
        if state.paused:
            return f"{text} (Paused)"
        if state.health is not None:
            return (
                f"{text} (health: starting)" if state.health.status == "starting" else f"{text} ({state.health.status})"
            )
        return text
    if state.dead:
        return "Dead"
    if state.started == ZERO:
        return "Created"
    return f"Exited ({state.exit_code}) {_ago(state.finished)} ago"


def _ago(moment: str) -> str:
    return duration_text((time.time_ns() - ns_of(moment)) / _NS)


def duration_text(seconds: float) -> str:
    """Return a time as docker tells it to people: "About a minute"."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < _MINUTE:
        return f"{whole} seconds"
    minutes = whole // _MINUTE
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(seconds / _HOUR + 0.5)
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    for name, days, most in (("days", 1, 14), ("weeks", 7, 60), ("months", 30, 730)):
        if hours < 24 * most:
            return f"{hours // 24 // days} {name}"
    return f"{int(seconds / _DAY / 365)} years"


class Chosen:
    """Whether a container is in a list with filters. ``others`` are all containers that the filters may name."""

    def __init__(self, filters: Filters, everything: bool, before: Container | None, since: Container | None) -> None:
        for status in filters.get("status"):
            if status not in _STATUSES:
                raise BadParameter(f"Invalid filter 'status={status}'")
        for health in filters.get("health"):
            if health not in _HEALTHS:
                raise BadParameter(f"Unrecognised filter value for health: {health}")
        for code in filters.get("exited"):
            if not code.lstrip("+-").isdigit():
                raise BadParameter(f'strconv.Atoi: parsing "{code}": invalid syntax')
        filters.boolean("is-task")
        self._published = _ports_of(filters, "publish")
        self._exposed = _ports_of(filters, "expose")
        self._filters = filters
        self._everything = everything or any(name in filters for name in ("status", "exited", "before", "since"))
        self._before = before
        self._since = since

    def _has_port(self, container: Container) -> bool:
        """Return True if there are no filters of ports, or the container has a port of either."""
        if self._published is None and self._exposed is None:
            return True
        rows = container.networks.ports_json()
        published = {f"{row['PublicPort']}/{row['Type']}" for row in rows if "PublicPort" in row}
        exposed = {f"{row['PrivatePort']}/{row['Type']}" for row in rows}
        return not published.isdisjoint(self._published or ()) or not exposed.isdisjoint(self._exposed or ())

    def __call__(self, container: Container, networks: list[str]) -> bool:
        """Return True if it is. ``networks`` are names and ids of the networks in which the container is."""
        filters, record = self._filters, container.record
        made, state = record.definition, container.shown_state
        health = state.health.status if state.health is not None else "none"
        return (
            (self._everything or state.running)
            and filters.matches("name", f"/{record.name}")
            and ("id" not in filters or any(container.id.startswith(one) for one in filters.get("id")))
            and filters.labels(made.config.labels or {})
            and filters.no_labels(made.config.labels or {})
            and filters.exact("status", state.status)
            and filters.exact("health", health)
            and (
                "exited" not in filters or (state.status == "exited" and str(state.exit_code) in filters.get("exited"))
            )
            and ("ancestor" not in filters or any(_is_of(one, container) for one in filters.get("ancestor")))
            and filters.any_of("network", networks)
            and ("volume" not in filters or any(_mounts(one, made.mounts) for one in filters.get("volume")))
            and not filters.boolean("is-task")
            and self._has_port(container)
            and (self._before is None or ns_of(made.created) < ns_of(self._before.record.definition.created))
            and (self._since is None or ns_of(made.created) > ns_of(self._since.record.definition.created))
        )


def _is_of(name: str, container: Container) -> bool:
    """Return True if a container was made of an image of that name or id."""
    image = container.image
    bare = name.removeprefix("sha256:")
    if image.id.removeprefix("sha256:").startswith(bare) and len(bare) >= 4:
        return True
    try:
        wanted = str(Reference.parse(name).with_default_tag())
    except InvalidReference:
        return False
    return wanted in image.names


def _ports_of(filters: Filters, name: str) -> frozenset[str] | None:
    """Return the ports of a filter, as 80/tcp, or None without it. Raise BadParameter for what is none and no range."""
    if name not in filters:
        return None
    found: set[str] = set()
    for text in filters.get(name):
        numbers, _, kind = text.partition("/")
        first, dash, last = numbers.partition("-")
        for number in (first, last) if dash else (first,):
            if not (number.isascii() and number.isdigit()):
                reason = f'strconv.ParseUint: parsing "{number}": invalid syntax'
                raise BadParameter(f"error while looking up for {name} {text}: {reason}")
        if max(int(first), int(last or 0)) > _MOST_PORT or (dash and int(first) > int(last)):
            raise BadParameter(f"error while looking up for {name} {text}: Invalid range specified for the Port")
        found |= {f"{number}/{kind or 'tcp'}" for number in range(int(first), int(last or first) + 1)}
    return frozenset(found)


def _mounts(name: str, points: list[MountPoint]) -> bool:
    return any(name in (point.name, point.target, point.source) for point in points)

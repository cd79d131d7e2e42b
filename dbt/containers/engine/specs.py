"""The specification of a container's VM, from what the engine remembers of the container."""

from __future__ import annotations

import os
from collections.abc import Iterable

from dbt.containers.engine.config import ThrottleDevice
from dbt.containers.engine.creation import environment
from dbt.containers.engine.host_options import gives_no_privileges
from dbt.containers.engine.records import Definition
from dbt.containers.images.image import Image
from dbt.containers.network.addresses import parse_rate
from dbt.containers.network.membership import Membership
from dbt.containers.network.records import LABEL_RATE
from dbt.containers.runtime.spec import Limits, Mount, Process, Spec, Tmpfs

#: The name of the disk in the container's directory.
DISK = "disk"
_PERIOD_US = 100_000
_NANO = 10**9


def host_name_of(definition: Definition) -> str:
    """Return the name of the container's host."""
    return definition.config.hostname or definition.id[:12]


def process_of(definition: Definition) -> Process:
    """Return the container's own program."""
    config, host = definition.config, definition.host
    rows, columns = host.console_size
    return Process(
        (definition.path, *definition.args),
        environment(config, host_name_of(definition)),
        config.working_dir or "/",
        config.user,
        ("", *(host.group_add or ())),
        config.tty,
        rows or 24,
        columns or 80,
        config.open_stdin,
        host.privileged,
    )


def limits_of(definition: Definition, place: Membership | None = None) -> Limits:
    """Return what the container may use, with its ``place`` in networks if it has one. Raise NetworkFailure."""
    host = definition.host
    cpus = host.nano_cpus
    if not cpus and host.cpu_quota > 0:
        cpus = host.cpu_quota * _NANO // (host.cpu_period or _PERIOD_US)
    label = (definition.config.labels or {}).get(LABEL_RATE)
    rates = [rate for rate in (parse_rate(label) if label else None, place.rate if place else None) if rate]
    return Limits(
        memory=host.memory or None,
        nano_cpus=cpus or None,
        cpu_shares=host.cpu_shares or None,
        pids=host.pids_limit if host.pids_limit and host.pids_limit > 0 else None,
        read_bps=_least(host.blkio_device_read_bps),
        write_bps=_least(host.blkio_device_write_bps),
        read_iops=_least(host.blkio_device_read_iops),
        write_iops=_least(host.blkio_device_write_iops),
        network_bps=min(rates, default=None),
    )


def _least(devices: Iterable[ThrottleDevice] | None) -> int | None:
    return min((device.rate for device in devices or () if device.rate), default=None)


def spec_of(definition: Definition, image: Image, folder: str, place: Membership | None = None) -> Spec:
    """Return the specification of the container's VM. ``folder`` is the container's directory, and ``place`` the one in
    networks. Raise NetworkFailure for a rate that is none.
    """
    config, host = definition.config, definition.host
    name = host_name_of(definition)
    points = definition.mounts
    return Spec(
        id=definition.id,
        host_name=name,
        layers=layers_of(image),
        disk=os.path.join(folder, DISK),
        process=process_of(definition),
        domain_name=config.domainname,
        mounts=tuple(Mount(one.source, one.target, one.read_only) for one in points if one.type != "tmpfs"),
        tmpfs=tuple(Tmpfs(one.target, one.options) for one in points if one.type == "tmpfs"),
        read_only=host.readonly_rootfs,
        limits=limits_of(definition, place),
        interfaces=place.interfaces if place else (),
        files=place.files if place else {},
        init=bool(host.init),
        privileged=host.privileged,
        cap_add=tuple(host.cap_add or ()),
        cap_drop=tuple(host.cap_drop or ()),
        shm_size=host.shm_size,
        sysctls=host.sysctls or {},
        ulimits=tuple(host.ulimits or ()),
        oom_score_adj=host.oom_score_adj,
        open_system_paths=host.opens_system_paths,
        no_new_privileges=gives_no_privileges(host),
    )


def layers_of(image: Image) -> tuple[str, ...]:
    """Return the file systems of an image's layers, the lowest first."""
    return tuple(layer.erofs for layer in image.layers)

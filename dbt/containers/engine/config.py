"""The configuration of a container, as docker's JSON has it. The names of the fields are those of the JSON."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import field

from dbt.containers.images.config import HealthCheck
from dbt.containers.runtime.ulimits import Ulimit

_Words = list[str] | str | None


class ContainerConfig(msgspec.Struct, rename="pascal", omit_defaults=False):
    """What does not depend on the host: the program and its surroundings."""

    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: dict[str, Any] | None = None
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: list[str] | None = None
    cmd: _Words = None
    healthcheck: HealthCheck | None = None
    args_escaped: bool = False
    image: str = ""
    volumes: dict[str, Any] | None = None
    working_dir: str = ""
    entrypoint: _Words = None
    network_disabled: bool = False
    mac_address: str = ""
    on_build: list[str] | None = None
    labels: dict[str, str] | None = None
    stop_signal: str = ""
    stop_timeout: int | None = None
    shell: list[str] | None = None

    def json(self) -> dict[str, Any]:
        """Return it as docker writes it: without what docker leaves out if it is empty."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        for name in _LEFT_OUT_OF_CONFIG:
            if not found[name] and not (name == "StopTimeout" and found[name] == 0):
                del found[name]
        found["Labels"] = found["Labels"] or {}
        found["Env"] = found["Env"] or []
        return found


_LEFT_OUT_OF_CONFIG = (
    *("ExposedPorts", "Healthcheck", "ArgsEscaped", "NetworkDisabled", "MacAddress", "StopSignal", "StopTimeout"),
    "Shell",
)


class LogConfig(msgspec.Struct, rename="pascal"):
    """Where what a container writes is kept."""

    type: str = ""
    config: dict[str, str] = {}


class RestartPolicy(msgspec.Struct, rename="pascal"):
    """Whether a container that has ended is started again: no, always, unless-stopped or on-failure."""

    name: str = ""
    maximum_retry_count: int = 0


class ThrottleDevice(msgspec.Struct, rename="pascal"):
    """How much a block device may do in a second."""

    path: str = ""
    rate: int = 0


class TmpfsOptions(msgspec.Struct, rename="pascal", omit_defaults=True):
    """Options of a file system in memory."""

    size_bytes: int = 0
    mode: int = 0


class MountWish(msgspec.Struct, rename="pascal", omit_defaults=True):
    """Something to be mounted: a directory of the host (bind), a volume, or a file system in memory (tmpfs)."""

    type: str = ""
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: dict[str, Any] | None = None
    volume_options: dict[str, Any] | None = None
    tmpfs_options: TmpfsOptions | None = None


class PortBinding(msgspec.Struct, rename="pascal"):
    """A port of the host."""

    host_ip: str = field(default="", name="HostIp")
    host_port: str = ""


class HostConfig(msgspec.Struct, rename="pascal"):
    """What depends on the host: limits, rights, mounts, networks, and what happens at the end."""

    binds: list[str] | None = None
    container_id_file: str = field(default="", name="ContainerIDFile")
    log_config: LogConfig = field(default_factory=LogConfig)
    network_mode: str = ""
    port_bindings: dict[str, list[PortBinding] | None] | None = None
    restart_policy: RestartPolicy = field(default_factory=RestartPolicy)
    auto_remove: bool = False
    volume_driver: str = ""
    volumes_from: list[str] | None = None
    console_size: tuple[int, int] = (0, 0)
    annotations: dict[str, str] | None = None
    cap_add: list[str] | None = None
    cap_drop: list[str] | None = None
    cgroupns_mode: str = ""
    dns: list[str] | None = None
    dns_options: list[str] | None = None
    dns_search: list[str] | None = None
    extra_hosts: list[str] | None = None
    group_add: list[str] | None = None
    ipc_mode: str = ""
    cgroup: str = ""
    links: list[str] | None = None
    oom_score_adj: int = 0
    pid_mode: str = ""
    privileged: bool = False
    publish_all_ports: bool = False
    readonly_rootfs: bool = False
    security_opt: list[str] | None = None
    storage_opt: dict[str, str] | None = None
    tmpfs: dict[str, str] | None = None
    uts_mode: str = field(default="", name="UTSMode")
    userns_mode: str = ""
    shm_size: int = 0
    sysctls: dict[str, str] | None = None
    runtime: str = ""
    isolation: str = ""
    cpu_shares: int = 0
    memory: int = 0
    nano_cpus: int = 0
    cgroup_parent: str = ""
    blkio_weight: int = 0
    blkio_weight_device: list[Any] | None = None
    blkio_device_read_bps: list[ThrottleDevice] | None = None
    blkio_device_write_bps: list[ThrottleDevice] | None = None
    blkio_device_read_iops: list[ThrottleDevice] | None = field(default=None, name="BlkioDeviceReadIOps")
    blkio_device_write_iops: list[ThrottleDevice] | None = field(default=None, name="BlkioDeviceWriteIOps")
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_realtime_period: int = 0
    cpu_realtime_runtime: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    devices: list[Any] | None = None
    device_cgroup_rules: list[str] | None = None
    device_requests: list[Any] | None = None
    memory_reservation: int = 0
    memory_swap: int = 0
    memory_swappiness: int | None = None
    oom_kill_disable: bool | None = None
    pids_limit: int | None = None
    ulimits: list[Ulimit] | None = None
    cpu_count: int = 0
    cpu_percent: int = 0
    io_maximum_iops: int = field(default=0, name="IOMaximumIOps")
    io_maximum_bandwidth: int = field(default=0, name="IOMaximumBandwidth")
    mounts: list[MountWish] | None = None
    masked_paths: list[str] | None = None
    readonly_paths: list[str] | None = None
    init: bool | None = None

    @property
    def opens_system_paths(self) -> bool:
        """True if nothing of /proc and /sys is to be hidden or frozen: --security-opt systempaths=unconfined."""
        return self.masked_paths == [] == self.readonly_paths

    def json(self) -> dict[str, Any]:
        """Return it as docker writes it: without what docker leaves out if it is empty."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        for name in ("Annotations", "StorageOpt", "Tmpfs", "Sysctls", "Mounts", "Init"):
            if not found[name] and found[name] is not False:
                del found[name]
        return found


class CreateBody(ContainerConfig, rename="pascal"):
    """The body of the request for a new container."""

    host_config: HostConfig = field(default_factory=HostConfig)
    networking_config: dict[str, Any] = field(default_factory=dict)

    def config(self) -> ContainerConfig:
        """Return the configuration alone."""
        return ContainerConfig(**{name: getattr(self, name) for name in ContainerConfig.__struct_fields__})


def words(value: _Words) -> list[str]:
    """Return a command, which may be written as one word."""
    return [value] if isinstance(value, str) else list(value or [])

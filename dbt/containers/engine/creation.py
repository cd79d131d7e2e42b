"""What a new container is made of: the client's wishes, what the image says, and docker's defaults."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from dbt.containers.engine.config import ContainerConfig, HostConfig, words
from dbt.containers.engine.errors import BadParameter
from dbt.containers.engine.log_file import LogOptions
from dbt.containers.engine.signals import signal_number
from dbt.containers.images.config import HealthCheck, RunConfig
from dbt.containers.runtime.capabilities import capability_bits
from dbt.containers.runtime.root_request import check_texts
from dbt.containers.runtime.spec import RuntimeFailure

DEFAULT_SHM: Final = 64 << 20
_LEAST_MEMORY: Final = 6 << 20
_LEAST_INTERVAL: Final = 1_000_000
_HOST_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,63}")
_POLICIES: Final = frozenset({"", "no", "always", "unless-stopped", "on-failure"})
_MASKED: Final = [
    *("/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list"),
    *("/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"),
]
_READ_ONLY: Final = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]


def merge_config(config: ContainerConfig, image: RunConfig | None) -> None:
    """Complete a configuration by what the image says, as docker does. Raise BadParameter."""
    of_image = image or RunConfig()
    config.user = config.user or of_image.user
    config.working_dir = config.working_dir or of_image.working_dir
    config.stop_signal = config.stop_signal or of_image.stop_signal
    config.stop_timeout = of_image.stop_timeout if config.stop_timeout is None else config.stop_timeout
    config.shell = config.shell or of_image.shell
    config.exposed_ports = {**(of_image.exposed_ports or {}), **(config.exposed_ports or {})} or None
    config.volumes = {**(of_image.volumes or {}), **(config.volumes or {})} or None
    config.labels = {**(of_image.labels or {}), **(config.labels or {})}
    config.env = _merged_env(config.env or [], of_image.env or [])
    config.on_build = of_image.on_build
    if not words(config.entrypoint):
        if not words(config.cmd):
            config.cmd = of_image.cmd
        if config.entrypoint is None:
            config.entrypoint = of_image.entrypoint
    config.entrypoint = None if words(config.entrypoint) in ([""], []) else words(config.entrypoint)
    config.cmd = words(config.cmd) or None
    if of_image.healthcheck is not None:
        config.healthcheck = _merged_check(config.healthcheck, of_image.healthcheck)
    if not config.entrypoint and not config.cmd:
        raise BadParameter("No command specified")


def _merged_env(chosen: list[str], of_image: list[str]) -> list[str]:
    """Return the variables, each once: the image's come after those that the user has chosen."""
    found: dict[str, str] = {}
    for one in chosen:
        found[one.partition("=")[0]] = one
    for one in of_image:
        found.setdefault(one.partition("=")[0], one)
    return list(found.values())


def _merged_check(chosen: HealthCheck | None, of_image: HealthCheck) -> HealthCheck:
    if chosen is None:
        return of_image
    given = {name: value for name, value in msgspec.structs.asdict(chosen).items() if value}
    return msgspec.structs.replace(of_image, **given)


def check_config(config: ContainerConfig) -> None:
    """Raise BadParameter for a configuration that no container can have."""
    if config.hostname and not _HOST_NAME.fullmatch(config.hostname):
        raise BadParameter(f"invalid hostname format: {config.hostname}")
    if config.working_dir and not config.working_dir.startswith("/"):
        raise BadParameter(f"the working directory '{config.working_dir}' is invalid, it needs to be an absolute path")
    check_program_texts(
        (config.hostname, config.domainname, config.user, config.working_dir, *(config.env or ()),
         *words(config.entrypoint), *words(config.cmd), *(config.volumes or ()))
    )  # fmt: skip
    for one in config.env or []:
        if not one.partition("=")[0]:
            raise BadParameter(f"invalid environment variable: {one}")
    if config.stop_signal:
        signal_number(config.stop_signal)
    check = config.healthcheck
    if check is not None:
        for name in ("interval", "timeout", "start_period", "start_interval"):
            value = getattr(check, name)
            if value and value < _LEAST_INTERVAL:
                words_ = "".join(part.title() for part in name.split("_"))
                raise BadParameter(f"{words_} in Healthcheck cannot be less than 1ms")
        if check.retries < 0:
            raise BadParameter("Retries in Healthcheck cannot be negative")


def check_program_texts(texts: Iterable[str]) -> None:
    """Raise BadParameter for texts that no program can be given: with a zero character, or that are no Unicode."""
    try:
        check_texts(tuple(texts))
    except RuntimeFailure as failure:
        raise BadParameter(str(failure)) from None


def complete_host(host: HostConfig) -> list[str]:
    """Fill in docker's defaults. Return warnings for the user. Raise BadParameter for what cannot be."""
    host.log_config.type = host.log_config.type or "json-file"
    host.network_mode = host.network_mode or "default"
    host.shm_size = host.shm_size or DEFAULT_SHM
    host.ipc_mode = host.ipc_mode or "private"
    host.cgroupns_mode = host.cgroupns_mode or "private"
    host.runtime = host.runtime or "runc"
    if not host.privileged:
        host.masked_paths, host.readonly_paths = list(_MASKED), list(_READ_ONLY)
    if host.memory and not host.memory_swap:
        host.memory_swap = 2 * host.memory
    _check_policy(host)
    _check_limits(host)
    _check_modes(host)
    check_program_texts((*(host.group_add or ()), *(host.binds or ()), *_flat(host.tmpfs), *_flat(host.sysctls)))
    check_program_texts(text for one in host.mounts or () for text in (one.source, one.target))
    try:
        capability_bits(host.cap_add or (), host.cap_drop or (), host.privileged)
    except RuntimeFailure as failure:
        raise BadParameter(str(failure)) from None
    return _warnings(host)


def _flat(texts: Mapping[str, str] | None) -> list[str]:
    return [text for pair in (texts or {}).items() for text in pair]


def _check_policy(host: HostConfig) -> None:
    policy = host.restart_policy
    if policy.name not in _POLICIES:
        raise BadParameter(f"invalid restart policy '{policy.name}'")
    if policy.maximum_retry_count < 0:
        raise BadParameter("maximum retry count cannot be negative")
    if policy.maximum_retry_count and policy.name != "on-failure":
        raise BadParameter(f"maximum retry count cannot be used with restart policy '{policy.name}'")
    if host.auto_remove and policy.name not in ("", "no"):
        raise BadParameter("can't create 'AutoRemove' container with restart policy")


def _check_limits(host: HostConfig) -> None:
    if 0 < host.memory < _LEAST_MEMORY:
        raise BadParameter("Minimum memory limit allowed is 6MB")
    if host.nano_cpus < 0:
        raise BadParameter("range of CPUs is from 0.01 to 1.00, as there are only 1 CPUs available")
    if host.nano_cpus and (host.cpu_period or host.cpu_quota):
        what = "CPU Period" if host.cpu_period else "CPU Quota"
        raise BadParameter(f"Conflicting options: Nano CPUs and {what} cannot both be set.")
    if host.shm_size < 0:
        raise BadParameter("SHM size can not be less than 0")
    if host.log_config.type not in ("json-file", "none"):
        raise BadParameter(f"logger: no log driver named '{host.log_config.type}' is registered")
    LogOptions.read(host.log_config.config)


def _check_modes(host: HostConfig) -> None:
    """Raise BadParameter for namespaces that a container shares with others: each has a machine of its own."""
    for name, mode in (("ipc", host.ipc_mode), ("pid", host.pid_mode), ("uts", host.uts_mode)):
        kind = mode.partition(":")[0]
        if kind in ("host", "container") and not (name == "uts" and kind != "host"):
            raise BadParameter(
                f"--{name} {kind} cannot be: each container runs in a virtual machine of its own, so it shares no "
                "namespace with this host or with other containers"
            )
    if host.network_mode.startswith("container:"):
        raise BadParameter(
            "--network container:NAME cannot be: each container runs in a virtual machine of its own, so it has its "
            "own network cards; let both be in one network, where they find each other by name"
        )
    if host.devices:
        raise BadParameter("--device cannot be: a container's virtual machine has none of this host's devices")
    if host.device_requests:
        raise BadParameter("--gpus cannot be: a container's virtual machine has none of this host's devices")


def _warnings(host: HostConfig) -> list[str]:
    found = []
    if host.nano_cpus > 10**9:
        found.append("A container's virtual machine has one processor, so --cpus is 1 at most.")
    host.oom_kill_disable = bool(host.oom_kill_disable)
    if host.oom_kill_disable:
        found.append("Your kernel does not support OomKillDisable. OomKillDisable discarded.")
        host.oom_kill_disable = False
    if host.cpuset_cpus or host.cpuset_mems:
        found.append("Your kernel does not support cpuset or the cgroup is not mounted. Cpuset discarded.")
        host.cpuset_cpus = host.cpuset_mems = ""
    return found


def environment(config: ContainerConfig, host_name: str) -> tuple[str, ...]:
    """Return the environment of a container's program: docker's variables, and then the container's own."""
    found: dict[str, str | None] = {
        "PATH": "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOSTNAME": f"HOSTNAME={host_name}",
    }
    if config.tty:
        found["TERM"] = "TERM=xterm"
    return with_variables(found, config.env or [])


def with_variables(found: Mapping[str, Any], more: list[str]) -> tuple[str, ...]:
    """Return the variables in ``found`` with others in their place or behind them. A name without a value takes its
    variable away.
    """
    made = dict(found)
    for one in more:
        name, equals, _ = one.partition("=")
        made[name] = one if equals else None
    return tuple(one for one in made.values() if one is not None)

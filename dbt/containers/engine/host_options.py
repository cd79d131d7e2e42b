"""What a client wants of the host for a container: checked, and completed by docker's defaults."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Final

from dbt.containers.engine.config import HostConfig
from dbt.containers.engine.creation import check_program_texts
from dbt.containers.engine.errors import BadParameter
from dbt.containers.engine.log_file import LogOptions
from dbt.containers.engine.port_bindings import check_bindings
from dbt.containers.network.host_files import HOST_GATEWAY
from dbt.containers.runtime.capabilities import capability_bits
from dbt.containers.runtime.spec import DEFAULT_SHM, RuntimeFailure
from dbt.containers.runtime.ulimits import check_ulimits

_LEAST_MEMORY: Final = 6 << 20
_POLICIES: Final = frozenset({"", "no", "always", "unless-stopped", "on-failure"})
_MASKED: Final = [
    *("/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list"),
    *("/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"),
]
_READ_ONLY: Final = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
#: What gives a container another name, for one that is linked to it. In a network, all find each other by their names.
LINK: Final = "--link"
#: What other kernels do for processes that share them, and what docker itself advises against: the names of the fields,
#: and the options of docker.
_WITHOUT_EFFECT: Final = {
    "blkio_weight": "--blkio-weight",
    "blkio_weight_device": "--blkio-weight-device",
    "cgroup_parent": "--cgroup-parent",
    "cpu_realtime_period": "--cpu-rt-period",
    "cpu_realtime_runtime": "--cpu-rt-runtime",
    "device_cgroup_rules": "--device-cgroup-rule",
    "links": LINK,
    "memory_reservation": "--memory-reservation",
    "memory_swappiness": "--memory-swappiness",
}
#: Ways in which programs are confined on a kernel that others use, and the values that say that they are not.
_SECURITY: Final = {
    "apparmor": ("unconfined",),
    "label": ("disable",),
    "seccomp": ("unconfined",),
}
_IPC_MODES: Final = ("none", "private", "shareable", "host", "container")
_TRUE: Final = ("1", "t", "true")
_FALSE: Final = ("0", "f", "false")


def complete_host(host: HostConfig) -> list[str]:
    """Fill in docker's defaults. Return warnings for the user. Raise BadParameter for what cannot be."""
    host.log_config.type = host.log_config.type or "json-file"
    host.network_mode = host.network_mode or "default"
    host.shm_size = host.shm_size or DEFAULT_SHM
    host.ipc_mode = host.ipc_mode or "private"
    host.cgroupns_mode = host.cgroupns_mode or "private"
    host.runtime = host.runtime or "runc"
    if not (host.privileged or host.opens_system_paths):
        host.masked_paths, host.readonly_paths = list(_MASKED), list(_READ_ONLY)
    _check_policy(host)
    _check_limits(host)
    _check_memory(host)
    _check_cpus(host)
    _check_hosts(host)
    check_bindings(host.port_bindings or {})
    _check_modes(host)
    _check_drivers(host)
    check_ulimits(host.ulimits or (), BadParameter)
    check_program_texts((*(host.group_add or ()), *(host.binds or ()), *_flat(host.tmpfs), *_flat(host.sysctls)))
    check_program_texts(text for one in host.mounts or () for text in (one.source, one.target))
    for field, names in (("CapAdd", host.cap_add), ("CapDrop", host.cap_drop)):
        try:
            capability_bits(names or (), ())
        except RuntimeFailure as failure:
            raise BadParameter(f"invalid {field}: {failure}") from None
    if host.memory and not host.memory_swap:
        host.memory_swap = 2 * host.memory
    return [*_warnings(host), *_discarded(host), *_security_warnings(host)]


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
    if not -1000 <= host.oom_score_adj <= 1000:
        raise BadParameter(f"Invalid value {host.oom_score_adj}, range for OOM score adjustment is from -1000 to 1000")
    if host.shm_size < 0:
        raise BadParameter("SHM size can not be less than 0")
    if host.log_config.type not in ("json-file", "none"):
        name = host.log_config.type
        raise BadParameter(f'error looking up logging plugin {name}: plugin "{name}" not found')
    if host.log_config.type != "none":
        LogOptions.read(host.log_config.config)


def _check_memory(host: HostConfig) -> None:
    if host.memory and host.memory < _LEAST_MEMORY:
        raise BadParameter("Minimum memory limit allowed is 6MB")
    if host.memory > 0 and 0 < host.memory_swap < host.memory:
        raise BadParameter("Minimum memoryswap limit should be larger than memory limit, see usage")
    if not host.memory and host.memory_swap > 0:
        raise BadParameter("You should always set the Memory limit when using Memoryswap limit, see usage")
    if host.memory_swappiness is not None and not -1 <= host.memory_swappiness <= 100:
        raise BadParameter(f"Invalid value: {host.memory_swappiness}, valid memory swappiness range is 0-100")
    if 0 < host.memory_reservation < _LEAST_MEMORY:
        raise BadParameter("Minimum memory reservation allowed is 6MB")
    if 0 < host.memory < host.memory_reservation:
        raise BadParameter("Minimum memory limit can not be less than memory reservation limit, see usage")


def _check_cpus(host: HostConfig) -> None:
    if host.nano_cpus and (host.cpu_period or host.cpu_quota):
        what = "CPU Period" if host.cpu_period else "CPU Quota"
        raise BadParameter(f"Conflicting options: Nano CPUs and {what} cannot both be set")
    if host.nano_cpus < 0:
        raise BadParameter("range of CPUs is from 0.01 to 1.00, as there are only 1 CPUs available")
    if host.cpu_period and not 1000 <= host.cpu_period <= 1_000_000:
        raise BadParameter("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if 0 < host.cpu_quota < 1000:
        raise BadParameter("CPU cfs quota can not be less than 1ms (i.e. 1000)")


def _check_hosts(host: HostConfig) -> None:
    """Raise BadParameter for more hosts that are none: each is a name and an address."""
    for text in host.extra_hosts or ():
        name, colon, address = text.partition(":")
        if not name or not colon:
            raise BadParameter(f'bad format for add-host: "{text}"')
        if address != HOST_GATEWAY and not _is_address(address):
            raise BadParameter(f'invalid IP address in add-host: "{address}"')


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _check_modes(host: HostConfig) -> None:
    """Raise BadParameter for namespaces that a container shares with others: each has a machine of its own."""
    if host.ipc_mode.partition(":")[0] not in _IPC_MODES:
        raise BadParameter(f"Invalid IPC mode: {host.ipc_mode}")
    if host.cgroupns_mode not in ("private", "host"):
        raise BadParameter(f"invalid cgroup namespace mode: {host.cgroupns_mode}")
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
    if host.cgroupns_mode == "host":
        found.append("A container's virtual machine has control groups of its own. --cgroupns host discarded.")
        host.cgroupns_mode = "private"
    return found


def _discarded(host: HostConfig) -> list[str]:
    """Take away what has no effect on a virtual machine, and return the warnings about it."""
    found = []
    for name, option in _WITHOUT_EFFECT.items():
        value = getattr(host, name)
        if value and value != -1:  # which docker's client sends for a swappiness that was not said
            found.append(discarded(option))
            setattr(host, name, type(value)())
    return found


def discarded(option: str) -> str:
    """Return the warning that an option of docker has no effect."""
    return f"{option} has no effect on a container in a virtual machine of its own. {option} discarded."


def _check_drivers(host: HostConfig) -> None:
    """Raise BadParameter for other ways to run and to store than there are."""
    if host.runtime != "runc":
        raise BadParameter(f"unknown or invalid runtime name: {host.runtime}")
    if host.isolation not in ("", "default"):
        raise BadParameter(f"invalid isolation '{host.isolation}' on linux")
    if host.volume_driver not in ("", "local"):
        raise BadParameter(f'plugin "{host.volume_driver}" not found: volumes are made by the driver local')
    if host.storage_opt:
        raise BadParameter("--storage-opt cannot be: a container's disk is as large as those of all others")
    if host.userns_mode not in ("", "host"):
        raise BadParameter(f"invalid user namespace mode: {host.userns_mode}")


def gives_no_privileges(host: HostConfig) -> bool:
    """Return whether no program may give another one more rights. Raise BadParameter if that is not said clearly."""
    given = False
    for name, value in map(_security_option, host.security_opt or ()):
        if name == "no-new-privileges":
            if value.lower() not in ("", *_TRUE, *_FALSE):
                raise BadParameter(f'invalid --security-opt 2: "no-new-privileges={value}"')
            given = value.lower() not in _FALSE
    return given


def _security_option(text: str) -> tuple[str, str]:
    """Return name and value: older clients write a colon between them."""
    name, _, value = text.partition("=") if "=" in text else text.partition(":")
    return name, value


def _security_warnings(host: HostConfig) -> list[str]:
    """Raise BadParameter for security options that there are nowhere, and return warnings for those without effect."""
    gives_no_privileges(host)
    found = []
    for name, value in map(_security_option, host.security_opt or ()):
        if name not in ("no-new-privileges", *_SECURITY):
            raise BadParameter(f'invalid --security-opt 2: "{name}"')
        if name in _SECURITY and value not in _SECURITY[name]:
            found.append(
                f"A container is confined by a virtual machine of its own, and not by {name}. --security-opt "
                f"{name} discarded."
            )
    return found

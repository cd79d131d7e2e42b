"""What a container's limits are to its domain: its part of the host, and what its devices do in a second."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dbt.containers.runtime.spec import Limits
from dbt.hypervisor.credit import DEFAULT_WEIGHT, MAX_WEIGHT
from dbt.vm.device_limits import DiskLimits, NetLimits, Rate

if TYPE_CHECKING:
    from dbt.hypervisor.limits import LimitChanges

_CORE: Final = 10**9
_USUAL_SHARES: Final = 1024
#: What a guest may have besides what its memory controller counts, in bytes.
_MORE_MEMORY: Final = 128 << 20
#: More than a guest can have, in bytes: it is no limit any more.
_MOST_MEMORY: Final = 1 << 40


def domain_limits(limits: Limits) -> LimitChanges:
    """Return the limits of a container's domain."""
    part = 1.0 if not limits.nano_cpus else min(max(limits.nano_cpus / _CORE, 0.001), 1.0)
    weight = DEFAULT_WEIGHT * (limits.cpu_shares or _USUAL_SHARES) // _USUAL_SHARES
    found: LimitChanges = {
        "core_time": part,
        "weight": min(max(weight, 1), MAX_WEIGHT),
        "disks": DiskLimits(_least(limits.read_bps, limits.write_bps), _least(limits.read_iops, limits.write_iops)),
        "nets": NetLimits(_least(limits.network_bps), _least(limits.network_bps)),
    }
    if limits.memory is not None:
        found["memory"] = min(limits.memory, _MOST_MEMORY) + _MORE_MEMORY
    return found


def _least(*rates: int | None) -> Rate | None:
    given = [rate for rate in rates if rate]
    return Rate(min(given)) if given else None

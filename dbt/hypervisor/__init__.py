"""Many machines on one host: domains, and the scheduler that gives each its share.

>>> from dbt.hypervisor import Host
>>> with Host(cores=1) as host:
...     host.define("guest", boot).start()
...     host.run()
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dbt.hypervisor.carrier import VmLost
    from dbt.hypervisor.console_ring import ConsoleFull, ConsoleRing
    from dbt.hypervisor.credit import LatencyClass
    from dbt.hypervisor.domain import Domain
    from dbt.hypervisor.host import Host
    from dbt.hypervisor.lifecycle import DomainState, LifecycleError
    from dbt.hypervisor.limits import Limits
    from dbt.hypervisor.process.carrier import ProcessCarrier
    from dbt.hypervisor.reports import Clock, DomainPeriod, LogEntry, PeriodReport
    from dbt.hypervisor.usage import Usage
    from dbt.vm.device_limits import DiskLimits, NetLimits, Rate

_HOME = {
    "Clock": "dbt.hypervisor.reports",
    "ConsoleFull": "dbt.hypervisor.console_ring",
    "ConsoleRing": "dbt.hypervisor.console_ring",
    "DiskLimits": "dbt.vm.device_limits",
    "Domain": "dbt.hypervisor.domain",
    "DomainPeriod": "dbt.hypervisor.reports",
    "DomainState": "dbt.hypervisor.lifecycle",
    "Host": "dbt.hypervisor.host",
    "LatencyClass": "dbt.hypervisor.credit",
    "LifecycleError": "dbt.hypervisor.lifecycle",
    "Limits": "dbt.hypervisor.limits",
    "LogEntry": "dbt.hypervisor.reports",
    "NetLimits": "dbt.vm.device_limits",
    "PeriodReport": "dbt.hypervisor.reports",
    "ProcessCarrier": "dbt.hypervisor.process.carrier",
    "Rate": "dbt.vm.device_limits",
    "Usage": "dbt.hypervisor.usage",
    "VmLost": "dbt.hypervisor.carrier",
}
__all__ = [
    "Clock",
    "ConsoleFull",
    "ConsoleRing",
    "DiskLimits",
    "Domain",
    "DomainPeriod",
    "DomainState",
    "Host",
    "LatencyClass",
    "LifecycleError",
    "Limits",
    "LogEntry",
    "NetLimits",
    "PeriodReport",
    "ProcessCarrier",
    "Rate",
    "Usage",
    "VmLost",
]


def __getattr__(name: str) -> Any:
    """The public names, imported when first used."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)

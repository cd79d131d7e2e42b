"""Many machines on one host: domains, and the scheduler that gives each its share.

>>> from dbt.hypervisor import Host
>>> with Host(cores=1) as host:
...     host.define("guest", boot).start()
...     host.run()
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dbt.hypervisor.console_ring import ConsoleFull, ConsoleRing
    from dbt.hypervisor.credit import LatencyClass
    from dbt.hypervisor.domain import Domain, Limits, Usage
    from dbt.hypervisor.host import Host
    from dbt.hypervisor.lifecycle import DomainState, LifecycleError
    from dbt.hypervisor.reports import Clock, DomainPeriod, LogEntry, PeriodReport

_HOME = {
    "Clock": "dbt.hypervisor.reports",
    "ConsoleFull": "dbt.hypervisor.console_ring",
    "ConsoleRing": "dbt.hypervisor.console_ring",
    "Domain": "dbt.hypervisor.domain",
    "DomainPeriod": "dbt.hypervisor.reports",
    "DomainState": "dbt.hypervisor.lifecycle",
    "Host": "dbt.hypervisor.host",
    "LatencyClass": "dbt.hypervisor.credit",
    "LifecycleError": "dbt.hypervisor.lifecycle",
    "Limits": "dbt.hypervisor.domain",
    "LogEntry": "dbt.hypervisor.reports",
    "PeriodReport": "dbt.hypervisor.reports",
    "Usage": "dbt.hypervisor.domain",
}
__all__ = [
    "Clock",
    "ConsoleFull",
    "ConsoleRing",
    "Domain",
    "DomainPeriod",
    "DomainState",
    "Host",
    "LatencyClass",
    "LifecycleError",
    "Limits",
    "LogEntry",
    "PeriodReport",
    "Usage",
]


def __getattr__(name: str) -> Any:
    """The public names, imported when first used."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)

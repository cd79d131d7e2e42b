"""What a host is told and what it reports, as values."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

from dbt.hypervisor.lifecycle import DomainState


class Clock(Enum):
    """How time passes for the domains of a host."""

    #: As fast as it goes: where everybody waits, time jumps. The guard on the host's time is on.
    FREE = "free"
    #: A second of a guest that waits takes a second of the host's time. The guard on the host's time is on.
    REAL = "real"
    #: As FREE, but what happens depends on nothing but the domains: a rerun makes the same decisions.
    LOCKSTEP = "lockstep"


class LogEntry(NamedTuple):
    """A turn that is over: whose it was, where it began by the clock of its core, and what was used of it."""

    core: int
    start: int
    name: str
    units: int
    instructions: int
    charged: int
    state: DomainState


class DomainPeriod(NamedTuple):
    """What a domain has used in one period.

    ``units`` is what it has paid of its share: instructions and charges. ``extra`` is what it has used besides, on a
    core that would have been idle. ``instructions`` have retired in both. ``host_ns`` is the host's CPU time, in
    nanoseconds. ``most`` is what a domain with a part of a core's time might use in both, and otherwise None.
    """

    units: int
    extra: int
    instructions: int
    host_ns: int
    most: int | None = None


class PeriodReport(NamedTuple):
    """A period that is over: its number, from 0 on, and what each domain has used."""

    number: int
    domains: Mapping[str, DomainPeriod]

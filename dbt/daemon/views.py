"""What the daemon tells of a domain, as values that become JSON."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from dbt.daemon.definition import NAME_PATTERN, Latency
from dbt.daemon.known_domains import Record
from dbt.hypervisor.host import Host
from dbt.hypervisor.lifecycle import ALIVE
from dbt.hypervisor.limits import MOST


class DomainInfo(msgspec.Struct, frozen=True):
    """A domain: what it is, its state, and its share. ``reason`` is why its machine has ended. ``xenstore`` is the
    socket of its XenStore, while it has a machine that is a domain of Xen.
    """

    name: str
    uuid: str
    state: str
    reason: str
    exit_code: int | None
    autostart: bool
    persistent: bool
    managed_save: bool
    weight: int
    cap: float | None
    latency: str
    xenstore: str | None

    @classmethod
    def of(cls, record: Record) -> DomainInfo:
        domain, share = record.domain, record.definition.share
        return cls(
            record.name,
            str(domain.uuid),
            domain.state.value,
            domain.reason,
            domain.exit_code,
            record.definition.autostart,
            record.persistent,
            record.managed_save is not None,
            share.weight,
            share.cap,
            share.latency,
            record.boot.xenstore if domain.state in ALIVE else None,
        )


class DomainStats(msgspec.Struct, frozen=True):
    """What a domain has used since it was defined, and in the last period.

    ``instructions`` have retired, other events were ``charged``; ``host_ns`` is the host's CPU time. ``share`` is the
    part of a core that the domain has had in the last period, in instructions of the host's nominal rate.
    ``host_share`` is the part of a core by the host's CPU time.
    """

    name: str
    state: str
    instructions: int
    charged: int
    turns: int
    host_ns: int
    console_bytes: int
    share: float
    host_share: float


def stats_of(host: Host, records: list[Record]) -> list[DomainStats]:
    """Return the statistics of domains."""
    last = host.reports[-1].domains if host.reports else {}
    units, ns = host.period_units, host.period_units * 1_000_000_000 // host.rate
    found = []
    for record in records:
        domain, usage, period = record.domain, record.domain.usage, last.get(record.name)
        found.append(
            DomainStats(
                record.name,
                domain.state.value,
                usage.instructions,
                usage.charged,
                usage.turns,
                usage.host_ns,
                domain.console.written,
                0.0 if period is None else round((period.units + period.extra) / units, 4),
                0.0 if period is None else round(period.host_ns / ns, 4),
            )
        )
    return found


class HostInfo(msgspec.Struct, frozen=True):
    """The host: its cores, their nominal rate in instructions a second, and the daemon."""

    cores: int
    rate: int
    pid: int
    version: str
    directory: str
    domains: int


class Wanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A definition that is to be kept."""

    definition: dict[str, Any]


class Shutdown(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a guest is to shut down: within how many seconds, or None not to wait for it."""

    timeout: float | None = None


class Autostart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whether a domain starts when the daemon does."""

    autostart: bool


class Boots(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whether a domain boots although its machine has been saved."""

    force_boot: bool = False


class LimitsChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """Other limits of memory, and of devices in a second of the guest's time. What is None stays; 0 is no limit."""

    memory: int | None = None
    disk_bytes: int | None = None
    disk_operations: int | None = None
    net_sent: int | None = None
    net_received: int | None = None


class Memory(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many bytes of its RAM a guest is to have. It gives the rest back by its balloon."""

    size: Annotated[int, Meta(ge=0, le=MOST)]


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The absolute path of a file."""

    path: str


class Named(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The name of a domain or a snapshot. For a snapshot, the next number if none is given."""

    name: Annotated[str, Meta(pattern=NAME_PATTERN)] | None = None


class Disk(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A disk, as ``--drive`` of ``dbt run`` has it, or the path of its file."""

    drive: str


class Migration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a machine is to be moved to, and how.

    - ``destination``: ``unix:PATH``, the socket of another daemon of this host, or ``tcp:HOST:PORT``.
    - ``live``: the guest runs meanwhile.
    - ``persistent``: the domain stays defined there when its guest has ended.
    - ``undefine_source``: it is forgotten here.
    - ``tls_creds``: the directory with the certificates. ``unsafe_tcp``: TCP without TLS may leave this host.
    - ``copy_storage``: disks are copied to the other daemon, and not used by both.
    - ``leave_hubs``: the machine goes although others are at its hub, which stay.
    - ``bandwidth``: the bytes that are sent in a second at most, while the guest runs.
    """

    destination: str
    live: bool = False
    persistent: bool = False
    undefine_source: bool = False
    tls_creds: str | None = None
    unsafe_tcp: bool = False
    copy_storage: bool = False
    leave_hubs: bool = False
    bandwidth: Annotated[int, Meta(ge=1)] | None = None


class MigrationReport(msgspec.Struct, frozen=True):
    """How a machine was moved: rounds and pages, the bytes sent, those of disks, for how long its guest stood still,
    and the time.
    """

    name: str
    rounds: int
    pages: int
    sent_bytes: int
    storage_bytes: int
    downtime_s: float
    total_s: float


class Resuming(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a guest goes on: with ``force`` also if its machine may run elsewhere."""

    force: bool = False


class ShareChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Another share of the host. What is None stays; a ``cap`` of 1 is none."""

    weight: int | None = None
    cap: float | None = None
    latency: Latency | None = None

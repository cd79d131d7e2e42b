"""What domains use, in the text format of Prometheus (version 0.0.4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from dbt.daemon.domains import Domains
from dbt.daemon.views import DomainInfo, DomainStats, stats_of
from dbt.hypervisor.lifecycle import DomainState

MEDIA: Final = "text/plain; version=0.0.4; charset=utf-8"
_STATISTICS: Final[tuple[tuple[str, str, str, Callable[[DomainStats], float]], ...]] = (
    ("instructions_total", "counter", "Instructions that have retired.", lambda one: one.instructions),
    ("charged_total", "counter", "What other events were charged, in instructions.", lambda one: one.charged),
    ("turns_total", "counter", "How often the domain has had a core.", lambda one: one.turns),
    ("cpu_seconds_total", "counter", "CPU time of the host.", lambda one: one.host_ns / 1e9),
    (
        "console_bytes_total",
        "counter",
        "Bytes that the guest has written to its console.",
        lambda one: one.console_bytes,
    ),
    ("share", "gauge", "Part of a core in the last period, at the nominal rate.", lambda one: one.share),
)


def text(domains: Domains) -> bytes:
    """Return the metrics of all domains."""
    records = domains.all()
    lines = ["# HELP dbt_domains Domains in a state.", "# TYPE dbt_domains gauge"]
    infos = [DomainInfo.of(record) for record in records]
    for state in DomainState:
        count = sum(info.state == state.value for info in infos)
        lines.append(f'dbt_domains{{state="{state.value}"}} {count}')
    lines += ["# HELP dbt_domain_weight Weight of the domain.", "# TYPE dbt_domain_weight gauge"]
    lines += [f'dbt_domain_weight{{domain="{info.name}"}} {info.weight}' for info in infos]
    statistics: list[DomainStats] = stats_of(domains.host, records)
    for name, kind, help_, value in _STATISTICS:
        lines += [f"# HELP dbt_domain_{name} {help_}", f"# TYPE dbt_domain_{name} {kind}"]
        lines += [f'dbt_domain_{name}{{domain="{one.name}"}} {value(one)}' for one in statistics]
    host = domains.host
    lines += ["# HELP dbt_host_cores Cores that domains share.", "# TYPE dbt_host_cores gauge"]
    lines += [f"dbt_host_cores {host.cores}"]
    return ("\n".join(lines) + "\n").encode()

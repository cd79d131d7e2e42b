"""``dbt vm schedinfo``: a domain's share of the host."""

from __future__ import annotations

from dbt.cli.status import CommandError, Status
from dbt.cli.values import optional, parse_choice, parse_count
from dbt.cli.vm.connection import ask, of_domain
from dbt.cli.vm.verbs import print_columns, show

_LATENCIES = ("interactive", "normal", "batch")


def schedinfo(name: str, weight: str | None, cap: str | None, latency: str | None, as_json: bool) -> int:
    """Change what is given, and show the share."""
    change = {
        "weight": None if weight is None else parse_count("--weight", weight, "parts"),
        "cap": optional(_parse_part, "--cap", cap),
        "latency": None if latency is None else parse_choice("--latency", latency, _LATENCIES),
    }
    if any(value is not None for value in change.values()):
        found = ask("POST", of_domain(name, "share"), change)
    else:
        found = ask("GET", of_domain(name))
    share = {key: found[key] for key in change}
    if as_json:
        return show(share, True)
    print_columns(("", ""), [(f"{key}:", "none" if value is None else str(value)) for key, value in share.items()])
    return Status.DONE


def _parse_part(option: str, text: str) -> float:
    try:
        part = float(text)
    except ValueError:
        part = 0.0
    if not 0 < part <= 1:
        raise CommandError(f"{option} {text}: this is no part of a core, above 0 and up to 1.", Status.USAGE)
    return part

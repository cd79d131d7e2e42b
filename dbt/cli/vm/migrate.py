"""``dbt vm migrate``: a machine is moved to another daemon."""

from __future__ import annotations

import argparse
import os

from dbt.cli.values import parse_count
from dbt.cli.vm.connection import ask, of_domain
from dbt.cli.vm.verbs import show


def migrate(parsed: argparse.Namespace) -> int:
    """Move the machine, and say how long its guest has stood still."""
    destination, bandwidth = parsed.destination, parsed.bandwidth
    if destination.startswith("unix:"):
        destination = f"unix:{os.path.abspath(destination.removeprefix('unix:'))}"
    wanted = {
        "destination": destination,
        "live": parsed.live,
        "persistent": parsed.persistent,
        "undefine_source": parsed.undefinesource,
        "tls_creds": None if parsed.tls_creds is None else os.path.abspath(parsed.tls_creds),
        "unsafe_tcp": parsed.unsafe_tcp,
        "copy_storage": parsed.copy_storage,
        "leave_hubs": parsed.leave_hubs,
        "bandwidth": None if bandwidth is None else parse_count("--bandwidth", bandwidth, "MiB a second") << 20,
    }
    answer = ask("POST", of_domain(parsed.name, "migrate"), wanted)
    stood = f"its guest stood still for {answer['downtime_s'] * 1000:.1f} ms"
    return show(answer, parsed.json, f"domain {answer['name']} is at {parsed.destination} now; {stood}")

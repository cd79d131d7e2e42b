"""How long it takes to list 200 domains of the daemon, at its socket and by command."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from dbt_command import DBT, checkout_environment
from figure import Figure, timed

from dbt.daemon.client import Client
from vms_bench.setup import Setup

_DOMAINS, _RUNS = 200, 20
_SOCKET_MS, _COMMAND_MS = 10.0, 120.0
#: mcr p15, 0, r0, c7, c0, 4; b .-4
_WAIT = bytes.fromhex("900f07ee fdffffea")


def _ask(path: Path) -> object:
    with Client(str(path)) as client:
        return client.ask("GET", "/v1/domains")


def measure(_: Setup) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="bench-vms-") as folder:
        state = Path(folder, "vm")
        environment = {**checkout_environment(), "DBT_VM_DIR": str(state)}

        def vm(*arguments: str) -> None:
            subprocess.run((*DBT, "vm", *arguments), env=environment, check=True, stdout=subprocess.DEVNULL)

        Path(folder, "guest.bin").write_bytes(_WAIT)
        paths = []
        for number in range(_DOMAINS):
            path = Path(folder, f"{number}.toml")
            path.write_text(f'name = "d{number}"\n[machine]\nprogram = "guest.bin"\nbase = 0\nmemory = "1M"\n')
            paths.append(os.fspath(path))
        try:
            vm("define", *paths)
            at_socket = timed(lambda: _ask(state / "vm.sock"), _RUNS)
            by_command = timed(lambda: vm("list", "--all"), _RUNS)
        finally:
            vm("daemon", "--stop")
    return [
        Figure(f"a list of {_DOMAINS} domains, at the socket", at_socket, "ms", _SOCKET_MS),
        Figure(f"a list of {_DOMAINS} domains, by command", by_command, "ms", _COMMAND_MS),
    ]

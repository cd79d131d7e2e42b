"""A host as a process of its own, which runs a domain and is then killed."""

from __future__ import annotations

import sys
from uuid import UUID

from dbt.hypervisor import Clock, Host, ProcessCarrier
from dbt.hypervisor.limits import LimitChanges
from dbt.hypervisor.process.process_vm import ProcessVm
from tests.domains.guests import boot


def main(directory: str, guest: str, uuid: str, then: str) -> None:
    """Start a guest, do what ``then`` says, tell its PID, and wait to be killed."""
    clock = Clock.LOCKSTEP if then == "lockstep" else Clock.REAL
    host = Host(1, clock, 10_000_000, carrier=ProcessCarrier(directory))
    share: LimitChanges = {"core_time": 0.25} if then == "core time" else {"cap": 0.5}
    domain = host.define("a", boot(guest), uuid=UUID(uuid), **share)
    domain.start()
    host.run(periods=2)
    if then == "pause":
        domain.pause()
    if then in ("leaving", "released"):
        leaving = domain.vm.leaving()
        leaving.begin_epoch()
        if then == "released":
            leaving.release((), keeps_networks=True)
    assert isinstance(domain.vm, ProcessVm)
    print(domain.vm.pid, domain.icount, domain.state_hash(), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])

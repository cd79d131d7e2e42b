"""A zygote that was started in advance is the one that the first carrier has, and ends with whoever started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from dbt.hypervisor import Clock, Domain, DomainState, Host
from dbt.hypervisor.process import zygote_start
from dbt.hypervisor.process.carrier import ProcessCarrier
from dbt.hypervisor.process.process_vm import ProcessVm
from tests.domains.guests import boot
from tests.waiting import wait_until

_LEAVES_ONE = """
from dbt.hypervisor.process.zygote_start import begin_zygote, take_zygote
import os
begin_zygote()
print(take_zygote().process.pid, flush=True)
os._exit(0)
"""


def test_it_is_the_first_carriers() -> None:
    zygote_start.begin_zygote()
    (begun,) = zygote_start._begun
    with ProcessCarrier() as carrier:
        with Host(1, Clock.LOCKSTEP, 10_000_000, seed=7, carrier=carrier) as host:
            host.define("a", boot("memory")).start()
            host.run(periods=1)
            assert host.reports[-1].domains["a"].instructions > 0
        assert not zygote_start._begun
        assert begun.process.poll() is None
    assert begun.process.returncode == 0


def has_originals(domain: Domain) -> bool:
    """Whether the process of a machine shares its memory with others by a file."""
    assert isinstance(domain.vm, ProcessVm)
    return "dbt-originals" in Path(f"/proc/{domain.vm.pid}/maps").read_text()


def test_it_puts_its_memory_in_order_before_the_second_machine() -> None:
    zygote_start.begin_zygote()
    with (
        ProcessCarrier(modules=["tests.domains.guests"]) as carrier,
        Host(1, Clock.LOCKSTEP, 10_000_000, seed=7, carrier=carrier) as host,
    ):
        first, second, third = (host.define(name, boot("memory")) for name in "abc")
        first.start()
        assert not has_originals(first)
        second.start()
        assert has_originals(second)
        host.run(periods=2)
        first.destroy()  # and with it the compilers that it has had to itself
        third.start()
        host.run(periods=2)
        assert has_originals(third)
        assert {name: one.instructions > 0 for name, one in host.reports[-1].domains.items()} == {
            "a": False,
            "b": True,
            "c": True,
        }


def test_the_end_of_its_first_machine_is_noticed() -> None:
    """Nobody else that was forked may have the machine's socket."""
    zygote_start.begin_zygote()
    with (
        ProcessCarrier(modules=["tests.domains.guests"]) as carrier,
        Host(1, Clock.LOCKSTEP, 10_000_000, seed=7, carrier=carrier) as host,
    ):
        first = host.define("first", boot("memory"))
        first.start()
        assert isinstance(first.vm, ProcessVm)
        os.kill(first.vm.pid, signal.SIGKILL)
        host.run(periods=1)
        assert first.state is DomainState.CRASHED
        assert "SIGKILL" in first.reason


def test_it_puts_its_memory_in_order_when_nobody_asks_for_anything() -> None:
    zygote_start.begin_zygote()
    (begun,) = zygote_start._begun
    with ProcessCarrier(modules=["tests.domains.guests"]) as carrier, Host(1, Clock.FREE, carrier=carrier) as host:
        carrier.prepare()
        maps = Path(f"/proc/{begun.process.pid}/maps")
        wait_until(lambda: "dbt-originals" in maps.read_text(), "a zygote that has settled")
        only = host.define("only", boot("memory"))
        only.start()
        assert has_originals(only)


def test_it_ends_with_whoever_has_started_it() -> None:
    done = subprocess.run([sys.executable, "-c", _LEAVES_ONE], check=True, stdout=subprocess.PIPE, text=True)
    wait_until(lambda: not os.path.exists(f"/proc/{int(done.stdout)}"), "the end of the zygote")

"""A zygote that was started in advance is the one that the first carrier has, and ends with whoever started it."""

from __future__ import annotations

import os
import subprocess
import sys

from dbt.hypervisor import Clock, Host
from dbt.hypervisor.process import zygote_start
from dbt.hypervisor.process.carrier import ProcessCarrier
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


def test_it_ends_with_whoever_has_started_it() -> None:
    done = subprocess.run([sys.executable, "-c", _LEAVES_ONE], check=True, stdout=subprocess.PIPE, text=True)
    wait_until(lambda: not os.path.exists(f"/proc/{int(done.stdout)}"), "the end of the zygote")

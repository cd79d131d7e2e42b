"""Several Linux machines on one host: each goes its own way, and clones answer beside their template."""

from __future__ import annotations

import re
from threading import Thread

from dbt import Machine
from dbt.host.console import CaptureConsole, Console
from dbt.hypervisor import Clock, Domain, DomainState, Host
from dbt.vm.state import state_hash
from tests.linux.booting import NEEDS_LINUX, TIMEOUT, boot

pytestmark = NEEDS_LINUX
_TREE = "versatile-pb.dtb"


def with_shell(console: Console) -> Machine:
    return boot("auto-async", console, _TREE, "rdinit=/bin/sh")


def with_tests(console: Console) -> Machine:
    return boot("auto-async", console, _TREE, "autoreboot")


def test_a_linux_beside_others_is_the_linux_alone() -> None:
    """After as many instructions, most of a boot with its timers and waits, it has the state of a machine alone."""
    with Host(1, Clock.LOCKSTEP, log=True) as host:
        first, second = host.define("first", with_tests, weight=2), host.define("second", with_tests)
        first.start()
        second.start()
        host.run(periods=5)
        assert second.usage.instructions > 50_000_000
        for domain in (first, second):
            domain.pause()
            domain.machine.run(fuel=1000)
            with with_tests(CaptureConsole()) as alone:
                alone.run(fuel=domain.machine.icount)
                assert state_hash(domain.machine) == state_hash(alone)


def test_clones_of_a_shell_answer_for_themselves() -> None:
    with Host(2, Clock.REAL) as host:
        template = host.define("template", with_shell)
        template.start()
        thread = Thread(target=host.run, kwargs={"timeout": TIMEOUT})
        thread.start()
        try:
            assert template.console.wait_for(b"# ", TIMEOUT)
            clones = [template.clone(f"clone {number}") for number in range(3)]
            for number, clone in enumerate(clones):
                clone.resume()
                clone.console.send(b"x=%d; echo is $((x * 11))\n" % number)
            for number, clone in enumerate(clones):
                assert answers(clone, b"\nis %d\r\n" % (number * 11))
            template.console.send(b"echo is ${x:-template}\n")
            assert answers(template, b"\nis template\r\n")
        finally:
            host.stop()
            thread.join(TIMEOUT)
        assert {domain.state for domain in host.domains.values()} <= {DomainState.BLOCKED, DomainState.RUNNING}


def answers(domain: Domain, text: bytes) -> bool:
    found = domain.console.wait_for(text, TIMEOUT)
    return found and not re.search(b"Oops|panic", domain.console.output)

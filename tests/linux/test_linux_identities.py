"""Clones of a Linux that has not begun give other random numbers, and each the same ones again."""

from __future__ import annotations

import re

from dbt import Machine
from dbt.host.console import Console
from dbt.hypervisor import Clock, Host
from tests.linux.debian import DISK, KERNEL, NEEDS_DEBIAN

pytestmark = NEEDS_DEBIAN
_CLONES = 2
#: More than the boots take.
_PERIODS = 3000
_PROMPT = b"/ # "
_COMMAND = b"/bin/busybox mount -t proc p /proc; /bin/busybox cat /proc/sys/kernel/random/uuid\n"
_UUID = re.compile(rb"\n[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def boot(console: Console) -> Machine:
    machine = Machine(64 << 20, console=console, cpu="cortex-a15")
    machine.load_kernel(KERNEL, initrd=DISK, append="console=ttyAMA0 rdinit=/bin/sh quiet")
    return machine


def numbers() -> list[bytes]:
    """Boot clones, and return a number that each kernel gives by getrandom to its first program."""
    found: dict[str, bytes] = {}
    with Host(2, Clock.LOCKSTEP, seed=5) as host:
        template = host.define("template", boot)
        template.start()
        template.pause()
        waiting = [template.clone(f"clone {number}") for number in range(_CLONES)]
        for clone in waiting:
            clone.resume()
        for _ in range(_PERIODS):
            host.run(periods=1)
            for clone in waiting:
                if _PROMPT in clone.console.output:
                    clone.console.send(_COMMAND)
            waiting = [clone for clone in waiting if _PROMPT not in clone.console.output]
            for name, clone in host.domains.items():
                if (match := _UUID.search(clone.console.output)) is not None:
                    found[name] = match[0]
            if len(found) == _CLONES:
                return list(found.values())
        raise AssertionError({name: clone.console.output[-200:] for name, clone in host.domains.items()})


def test_clones_give_other_numbers_and_the_same_ones_again() -> None:
    first = numbers()
    assert len(set(first)) == _CLONES
    assert numbers() == first

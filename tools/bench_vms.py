"""What many machines in one host cost (``make bench-vms``): their memory, and the time to start them.

    python tools/bench_vms.py [--images DIR] [--only ROW]... [--json FILE]

DIR is what `make virt` makes: Debian's kernel for ARMv7 and its initial RAM disk (docs/virt.md). Without it, rows of
Linux are left out. Each row is measured in a process of its own. Memory is Private_Dirty (proc(5), smaps_rollup): what
a machine more would take of the host.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from figure import Figure, timed

from dbt import Machine
from dbt.abi.addresses import Gva
from dbt.assembler.program import assemble_program
from dbt.host.console import Console
from dbt.hypervisor import Clock, Domain, Host

_LINUX_CLONES, _BARE_METAL = 100, 1000
_LIMIT_LINUX_MB, _LIMIT_BARE_METAL_MB, _LIMIT_START_MS = 6.0, 2.0, 20.0
_IDLE_S = 60.0
_STARTS = 50
_BOOT_S = 600.0
_PROMPT = b"# "
#: A guest that waits for a timer of the board versatile, which interrupts it each 10 ms.
_TICKER = """
    b start
    .space 20
    b irq
start:
    ldr r4, =0x10140000 ; mov r0, #0x10 ; str r0, [r4, #0x10]
    ldr r5, =0x101e2000 ; ldr r0, =10000 ; str r0, [r5] ; mov r0, #0xe2 ; str r0, [r5, #8]
    msr cpsr_c, #0xd2 ; mov sp, #0x8000 ; msr cpsr_c, #0x53
again:
    mcr p15, #0, r0, c7, c0, #4 ; b again
irq:
    ldr r5, =0x101e2000 ; str r5, [r5, #0xc] ; subs pc, lr, #4
"""


def private_dirty_mb() -> float:
    """Return what this process has of the host for itself, in MiB."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1]) / 1024
    raise OSError("the host's kernel does not tell Private_Dirty")


def _boot_bare_metal(console: Console) -> Machine:
    machine = Machine(1 << 20, console=console)
    machine.load_bytes(assemble_program(_TICKER, Gva(0)), base=0, entry=0)
    return machine


def bare_metal(_: Path | None) -> list[Figure]:
    """Return the memory of a domain without an operating system, of which there are many in a process."""
    with Host(2, Clock.REAL) as host:
        host.define("first", _boot_bare_metal).start()
        host.run(timeout=1.0)
        before = private_dirty_mb()
        for number in range(_BARE_METAL):
            host.define(f"domain {number}", _boot_bare_metal).start()
        host.run(timeout=10.0)
        each = (private_dirty_mb() - before) / _BARE_METAL
    return [Figure(f"{_BARE_METAL} bare-metal domains, each", [each], "MB", _LIMIT_BARE_METAL_MB)]


def linux_clones(images: Path | None) -> list[Figure]:
    """Return the memory of a clone that is a Linux at its prompt, and the time to a clone's first instruction."""
    assert images is not None

    def boot(console: Console) -> Machine:
        machine = Machine(64 << 20, console=console, cpu="cortex-a15", devices=["rng"])
        machine.load_kernel(
            images / "vmlinuz", initrd=images / "initramfs-virt.cpio.gz", append="console=ttyAMA0 rdinit=/bin/sh quiet"
        )
        return machine

    with Host(2, Clock.REAL) as host:
        template = host.define("template", boot)
        template.start()
        _run_until(host, lambda: _PROMPT in template.console.output)
        host.run(timeout=5.0)  # until what the kernel does in the background has come to rest
        starts = timed(lambda: _first_instruction(host, template), _STARTS)
        before = private_dirty_mb()
        for number in range(_LINUX_CLONES):
            template.clone(f"clone {number}").resume()
        host.run(timeout=_IDLE_S)
        each = (private_dirty_mb() - before) / _LINUX_CLONES
    return [
        Figure(f"{_LINUX_CLONES} Linux clones after {_IDLE_S:.0f} s, each", [each], "MB", _LIMIT_LINUX_MB),
        Figure("a Linux clone, its first instruction, and its end", starts, "ms", _LIMIT_START_MS),
    ]


def _first_instruction(host: Host, template: Domain) -> None:
    """Make a clone, and let it execute one instruction, for which its time jumps to the end of its wait."""
    clone = template.clone("to start")
    clone.machine.run(fuel=1)
    host.undefine(clone.name, destroy=True)


def _run_until(host: Host, is_over: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _BOOT_S
    while not is_over():
        if time.monotonic() > deadline:
            raise TimeoutError("the guests do not get where they are to")
        host.run(timeout=0.001)


#: The rows, by name: what measures them, and whether it needs Linux.
ROWS: dict[str, tuple[Callable[[Path | None], list[Figure]], bool]] = {
    "bare-metal": (bare_metal, False),
    "linux-clones": (linux_clones, True),
}


def measure(name: str, images: Path | None) -> list[Figure]:
    """Measure a row in a new process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(ROWS[name][0], images).result()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, default=os.environ.get("DBT_VIRT_IMAGES"), help="where Linux is")
    parser.add_argument("--only", action="append", choices=ROWS, help="measure this row alone; may be repeated")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    options = parser.parse_args(arguments)
    figures: list[Figure] = []
    for name in options.only or ROWS:
        if ROWS[name][1] and options.images is None:
            print(f"{name}: left out, because it needs --images")
            continue
        for figure in measure(name, options.images and Path(options.images)):
            print(figure.row, flush=True)
            figures.append(figure)
    if options.json is not None:
        options.json.write_text(json.dumps([figure._asdict() for figure in figures], indent=1))


if __name__ == "__main__":
    main()

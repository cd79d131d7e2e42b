"""What many machines in one host cost (``make bench-vms``): their memory, the time to start them, lists and scheduling.

    python tools/bench_vms.py [--images DIR] [--only ROW]... [--json FILE]

DIR is what `make virt` makes: Debian's kernel for ARMv7 and its initial RAM disk (docs/virt.md). Without it, rows of
Linux are left out. Each row is measured in a process of its own. Memory is Private_Dirty (proc(5), smaps_rollup): what
a machine more would take of the host. What is asked holds for the numbers of machines that are the defaults.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from figure import Figure
from vms_bench import lists, processes, threads
from vms_bench.setup import Setup

#: The rows, by name: what measures them, and whether it needs Linux.
ROWS: dict[str, tuple[Callable[[Setup], list[Figure]], bool]] = {
    "bare-metal": (threads.bare_metal, False),
    "bare-metal-processes": (processes.bare_metal, False),
    "linux-clones": (threads.linux, True),
    "linux-processes": (processes.linux, True),
    "lists": (lists.measure, False),
    "overhead": (threads.overhead, False),
}


def measure(name: str, setup: Setup) -> list[Figure]:
    """Measure a row in a new process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(ROWS[name][0], setup).result()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, default=os.environ.get("DBT_VIRT_IMAGES"), help="where Linux is")
    parser.add_argument("--only", action="append", choices=ROWS, help="measure this row alone; may be repeated")
    parser.add_argument("--linux", type=int, default=100, help="how many Linux there are [100]")
    parser.add_argument("--bare-metal", type=int, default=1000, help="how many machines are in one process [1000]")
    parser.add_argument("--processes", type=int, default=200, help="how many machines are processes [200]")
    parser.add_argument("--idle", type=float, default=60.0, help="how many seconds they wait [60]")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    options = parser.parse_args(arguments)
    images = options.images and Path(options.images)
    setup = Setup(images, options.linux, options.bare_metal, options.processes, options.idle)
    figures: list[Figure] = []
    for name in options.only or ROWS:
        if ROWS[name][1] and images is None:
            print(f"{name}: left out, because it needs --images")
            continue
        for figure in measure(name, setup):
            print(figure.row, flush=True)
            figures.append(figure)
    if options.json is not None:
        options.json.write_text(json.dumps([figure._asdict() for figure in figures], indent=1))


if __name__ == "__main__":
    main()

"""The benchmark of para-virtualization (``make bench-pv``): the same kernel with privilege, without it, and in QEMU.

minios does what a kernel is asked for, many times each (guests/minios/user/bench.c). The table has the form of that of
"Xen and the Art of Virtualization" (SOSP 2003): a row for each configuration, a column for each operation.

QEMU     ``qemu-system-arm -M versatilepb -cpu arm1176``, the kernel that has the processor for itself
full     dbt, the same image on the same board
PV       dbt, the kernel in user mode on a domain of Xen, which asks the hypervisor (docs/para-virtualization.md)

Times are CPU time of the host for one operation, user and system, in microseconds: medians of runs in turn. Regions are
compiled in a first run that is not counted.

With Debian's kernel (``--images DIR``), a second table has Linux with virtio devices in QEMU and on the board virt, and
with those of Xen as a domain: what goes to and from disk, network (by ``passt``, whose time counts as well) and console
in a second of CPU time.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from bench import count, machine
from bench_real import make_translator
from dbt_command import DBT, checkout_environment
from debian_packages import BuildError
from io_bench.guest import UP, Images
from io_bench.paravirtual import linux_session
from io_bench.sessions import HostEnds
from io_bench.watching import GuestError, Watch, between
from real_programs.processes import adopt_orphans

_ROOT = Path(__file__).resolve().parents[1]
_IMAGES = _ROOT / "guests" / "images"
_TIMEOUT = 600.0  # seconds, of one run
#: What the guest calls the operations, how many it does, and how many of what is written about one does of them.
OPERATIONS: Final = {
    "null": ("null call", 4_000_000),
    "switch": ("context switch", 200_000),
    "map": ("map page", 3_200_000),
    "fault": ("page fault", 96_000),
    "fork": ("fork, exit", 3000),
    "exec": ("fork, exec", 1000),
    "console": ("console, 64 B", 16_000),
    "pages": ("console, 4 KiB", 2000),
    "tick": ("timer tick", 20_000),
    "event": ("event", 1_000_000),
    "inside": ("event inside", 4_000_000),
}
ENGINES: Final[Mapping[str, list[str]]] = {
    "QEMU": [
        *("qemu-system-arm", "-M", "versatilepb", "-cpu", "arm1176", "-nographic", "-no-reboot"),
        *("-kernel", str(_IMAGES / "minios-bench.elf")),
    ],
    "full": [*DBT, "run", "--cpu", "arm1176", str(_IMAGES / "minios-bench.elf")],
    "PV": [*DBT, "run", "--xen", "--memory", "8M", str(_IMAGES / "minios-pv-bench.elf")],
}


def measure(engine: str, environment: Mapping[str, str]) -> dict[str, float]:
    """Run an engine once. Return the CPU time of one of each operation in microseconds. Raise GuestError."""
    marks = {
        name: (f"begin {name} {times}".encode(), f"end {name}".encode()) for name, (_, times) in OPERATIONS.items()
    }
    watch = Watch([mark for pair in marks.values() for mark in pair])
    watch.run([ENGINES[engine]], environment, _TIMEOUT)
    found = {}
    for name, (begin, end) in marks.items():
        times = between(watch.moments[begin], watch.moments[end])
        found[name] = (times.user + times.system) / OPERATIONS[name][1] * 1e6
    return found


def table(found: Mapping[str, list[dict[str, float]]]) -> list[str]:
    """Return the lines of the table: medians, and below what PV takes compared with the others."""
    medians = {
        engine: {name: statistics.median(run[name] for run in runs) for name in OPERATIONS}
        for engine, runs in found.items()
        if runs
    }
    lines = ["".join([f"{'us':8}", *(f"{title:>15}" for title, _ in OPERATIONS.values())])]
    lines += [_line(engine, [f"{times[name]:.2f}" for name in OPERATIONS]) for engine, times in medians.items()]
    for engine in medians:
        if engine != "PV":
            ratios = [f"{medians['PV'][name] / max(medians[engine][name], 1e-9):.2f}x" for name in OPERATIONS]
            lines.append(_line(f"PV/{engine}", ratios))
    return lines


def _line(name: str, cells: list[str], width: int = 15) -> str:
    return "".join([f"{name:8}", *(f"{cell:>{width}}" for cell in cells)])


def measure_linux(engine: str, images: Images, folder: Path, environment: Mapping[str, str]) -> dict[str, float]:
    """Run Linux in an engine once. Return what it moves in a second of CPU time, by titles. Raise GuestError."""
    session = linux_session(engine, images, folder, HostEnds())
    watch = Watch(session.expected)
    watch.run(session.commands[engine], environment, _TIMEOUT, session.sockets[engine])
    boot = between(watch.moments[b""], watch.moments[UP])
    found = {"boot, s": boot.user + boot.system}
    for work in session.parts:
        times = between(watch.moments[work.begin], watch.moments[work.end])
        found[f"{work.title}, {work.unit}/s"] = work.amount / max(times.user + times.system, 0.01)
    return found


def linux_table(found: Mapping[str, list[dict[str, float]]]) -> list[str]:
    """Return the lines of the table of Linux: medians."""
    titles = next((list(runs[0]) for runs in found.values() if runs), [])
    rows = {
        engine: [f"{statistics.median(run[title] for run in runs):.1f}" for title in titles]
        for engine, runs in found.items()
        if runs
    }
    return [_line("Linux", titles, 25), *(_line(engine, cells, 25) for engine, cells in rows.items())]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    folder = os.environ.get("DBT_VIRT_IMAGES") or _ROOT / "build" / "virt"
    parser.add_argument("--images", type=Path, default=folder, help="the directory with vmlinuz (%(default)s)")
    parser.add_argument("--only", choices=("minios", "linux"), help="one of the tables")
    parser.add_argument("--turns", type=count, default=3, help="each engine so many times (%(default)s)")
    options = parser.parse_args()
    adopt_orphans()
    engines = [engine for engine in ENGINES if engine != "QEMU" or shutil.which("qemu-system-arm")]
    images = Images(options.images.resolve())
    reason = images.missing() or ("" if shutil.which("passt") else "there is no passt")
    found: dict[str, list[dict[str, float]]] = {engine: [] for engine in engines}
    in_linux: dict[str, list[dict[str, float]]] = {engine: [] for engine in engines}
    with tempfile.TemporaryDirectory(prefix="dbt-bench-") as name:
        try:
            cache = make_translator("", _ROOT, Path(name)).handlers
            environment = {**os.environ, **checkout_environment(), "DBT_CACHE_DIR": str(cache)}
            if options.only != "linux":
                for engine in engines:
                    if engine != "QEMU":
                        measure(engine, environment)
                for _ in range(options.turns):
                    for engine in engines:
                        found[engine].append(measure(engine, environment))
            if options.only != "minios" and not reason:
                for _ in range(options.turns):
                    for engine in engines:
                        in_linux[engine].append(measure_linux(engine, images, Path(name), environment))
        except (BuildError, GuestError) as error:
            print(f"bench_pv: {error}", file=sys.stderr)
            return 1
    print(", ".join(f"{key} {value}" for key, value in machine().items() if value))
    if options.only != "linux":
        print("\n".join(table(found)))
    if options.only != "minios":
        print("\n".join(linux_table(in_linux)) if not reason else f"nothing is measured in Linux: {reason}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

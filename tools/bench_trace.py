"""The cost of recording a translation trace: the CPU time of a run with it, and with counts, over that of one without.

    python tools/bench_trace.py [--runs N] [--kernels a,b] [--json FILE]

Kernels of guests/bench run as whole processes with a warm cache, in the three ways in turn, and medians are compared. A
run with `--jit sync` before them makes the cache, so that all have the regions that they want. User CPU time tells more
than the clock does, because other programs disturb it less.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from dbt_command import DBT, checkout_environment

ROOT = Path(__file__).resolve().parents[1]
KERNELS = ROOT / "guests" / "bench" / "images"
WAYS = {"plain": [], "recorded": ["--record-trace", "trace"], "counted": ["--record-trace", "trace", "--trace-counts"]}
#: The most that the log and the counts may cost.
LIMITS = {"recorded": 1.1, "counted": 1.15}
DEFAULT = "crc32,interpreter,objects,quicksort,sha256,softfloat,strings,tokenizer"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--kernels", default=DEFAULT)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    print(f"{'':14}" + "".join(f"{way:>12}" for way in WAYS) + "".join(f"{way + ' x':>14}" for way in LIMITS))
    with tempfile.TemporaryDirectory() as folder:
        for name in options.kernels.split(","):
            found[name] = {way: statistics.median(times) for way, times in measure(name, options.runs, folder).items()}
            print(line(name, found[name]), flush=True)
    ratios = {way: [medians[way] / medians["plain"] for medians in found.values()] for way in LIMITS}
    means = {way: math.exp(statistics.mean(map(math.log, values))) for way, values in ratios.items()}
    print(f"{'geom. mean':14}{'':36}" + "".join(f"{mean:14.3f}" for mean in means.values()))
    if options.json is not None:
        options.json.write_text(json.dumps({"seconds": found, "ratios": means}, indent=1))
    return 0 if all(means[way] <= limit for way, limit in LIMITS.items()) else 1


def measure(name: str, runs: int, folder: str) -> dict[str, list[float]]:
    """Return the seconds of user CPU time of each run, by way."""
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    for run in range(-1, runs):
        for way, more in WAYS.items():
            jit = ["--jit", "sync"] if run < 0 else []
            command = [*DBT, "run", *jit, *more, str(KERNELS / f"{name}.elf")]
            before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
            subprocess.run(command, cwd=folder, env=checkout_environment(), check=True, stdout=subprocess.DEVNULL)
            if run >= 0:
                times[way].append(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before)
    return times


def line(name: str, medians: dict[str, float]) -> str:
    seconds = "".join(f"{medians[way]:12.3f}" for way in WAYS)
    return f"{name:14}{seconds}" + "".join(f"{medians[way] / medians['plain']:14.3f}" for way in LIMITS)


if __name__ == "__main__":
    sys.exit(main())

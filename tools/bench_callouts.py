"""The cost of sensitive operations, as operations per second under dbt and, if it is installed, qemu-system-arm.

    python tools/bench_callouts.py [--runs N] [--json FILE]

The guest (guests/callouts) executes one operation a number of times. Whole processes are timed in turn, with few and
with many operations. The difference of the medians is the time of the operations without start-up.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import time
from pathlib import Path

from dbt_command import DBT, checkout_environment

ROOT = Path(__file__).resolve().parents[1]
IMAGE = ROOT / "guests" / "callouts" / "callouts.elf"
#: Operations, their descriptions, and how many of them take the slower engine about a second.
OPERATIONS = {
    "svc": ("SVC and return", 10_000_000),
    "return": ("exception return", 10_000_000),
    "mode": ("two mode switches (MSR)", 10_000_000),
    "abort": ("data abort and return", 3_000_000),
    "tables": ("two switches of TTBR0", 5_000_000),
    "flush": ("TLB flush and what it refills", 3_000_000),
    "device": ("device register read (a counter)", 10_000_000),
    "interrupt": ("interrupt, raised and lowered by the PL190", 100_000),
}
FEW = 1


def dbt_command(operation: str, times: int) -> list[str]:
    return [*DBT, "run", "--cpu", "arm926", str(IMAGE), operation, str(times)]


def qemu_command(operation: str, times: int) -> list[str]:
    arguments = ",".join(f"arg={word}" for word in ("callouts", operation, str(times)))
    return [
        "qemu-system-arm", "-M", "versatilepb", "-cpu", "arm926", "-m", "128", "-nographic",
        "-audiodev", "none,id=none", "-semihosting-config", f"enable=on,target=native,{arguments}",
        "-kernel", str(IMAGE),
    ]  # fmt: skip


ENGINES = {"dbt": dbt_command, "QEMU": qemu_command}


def seconds(command: list[str]) -> float:
    started = time.perf_counter()
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=300, env=checkout_environment()
    )
    taken = time.perf_counter() - started
    if b"done" not in done.stdout:
        raise SystemExit(f"{' '.join(command)}: {(done.stdout + done.stderr).decode(errors='replace')[-500:]}")
    return taken


def measure(operation: str, engines: list[str], runs: int) -> dict[str, float]:
    """Return the operations per second of each engine."""
    times = OPERATIONS[operation][1]
    taken: dict[tuple[str, int], list[float]] = {}
    for _ in range(runs):
        for engine in engines:
            for count in (FEW, times):
                taken.setdefault((engine, count), []).append(seconds(ENGINES[engine](operation, count)))
    medians = {key: statistics.median(values) for key, values in taken.items()}
    return {engine: (times - FEW) / (medians[engine, times] - medians[engine, FEW]) for engine in engines}


def main() -> None:
    parser = argparse.ArgumentParser(description="Operations per second of sensitive operations.")
    parser.add_argument("--runs", type=int, default=3, help="runs of each, of which the median counts")
    parser.add_argument("--json", type=Path, help="write the results to this file too")
    options = parser.parse_args()
    engines = ["dbt", *(["QEMU"] if shutil.which("qemu-system-arm") else [])]
    seconds(dbt_command("svc", FEW))  # builds the handlers if the cache has none
    print(f"{'operations per second':44}" + "".join(f"{engine:>14}" for engine in engines) + f"{'ratio':>8}")
    results: dict[str, dict[str, float]] = {}
    for operation, (title, _) in OPERATIONS.items():
        rates = results[operation] = measure(operation, engines, options.runs)
        ratio = f"{rates['dbt'] / rates['QEMU']:8.2f}" if "QEMU" in rates else ""
        print(f"{title:44}" + "".join(f"{rates[engine]:14,.0f}" for engine in engines) + ratio, flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()

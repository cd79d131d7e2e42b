"""Speed of dbt beside Unicorn and, where it is installed, qemu-system-arm: ``make bench``.

Every engine runs the same image as a whole process, in alternation; medians of the wall time are
compared. Instructions are counted once, by dbt. ``--json FILE`` keeps the figures.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import random
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
GUESTS = ROOT / "guests"
DBT = [sys.executable, "-m", "dbt"]


@dataclass(frozen=True)
class Workload:
    """``path``: image; ``base``: load address of a flat one; ``args``: what follows argv[0]; ``tier``: of dbt."""

    name: str
    path: Path
    base: int | None
    args: tuple[str, ...]
    tier: str


@dataclass
class Row:
    workload: Workload
    instructions: int
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def median(self, engine: str) -> float:
        return statistics.median(self.seconds[engine])


def workloads(tier: str) -> list[Workload]:
    """The compute loop, then the C guests with their long arguments."""
    manifest = tomllib.loads((GUESTS / "manifest.toml").read_text())
    found = []
    for name, guest in manifest.items():
        if "bench_args" not in guest or guest.get("files"):
            continue
        image = guest["images"][-1] if guest["kind"] == "asm" else f"{name}-armv7-a-O2.elf"
        found.append(
            Workload(name, GUESTS / "images" / Path(image).name, guest.get("base"), tuple(guest["bench_args"]), tier)
        )
    return found


def dbt_command(load: Workload) -> list[str]:
    base = [] if load.base is None else ["--base", hex(load.base)]
    return [*DBT, "run", "--tier", load.tier, *base, str(load.path), *load.args]


def unicorn_command(load: Workload) -> list[str]:
    return [sys.executable, str(ROOT / "tools" / "unicorn_run.py"), hex(load.base or 0), str(load.path), *load.args]


def qemu_command(load: Workload) -> list[str]:
    arguments = "".join(f",arg={a}" for a in (load.path.name, *load.args))
    image = (
        ["-kernel", str(load.path)]
        if load.base is None
        else ["-device", f"loader,file={load.path},addr={load.base:#x},cpu-num=0"]
    )
    return [
        "qemu-system-arm", "-M", "versatilepb", "-cpu", "cortex-a8", "-m", "128", "-nographic",
        "-monitor", "none", "-serial", "null", "-audiodev", "none,id=n0",
        "-semihosting-config", f"enable=on,target=native{arguments}", *image,
    ]  # fmt: skip


def timed(command: list[str]) -> tuple[float, str]:
    """Wall time in seconds, and what the command wrote to standard error."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        done = subprocess.run(command, cwd=folder, capture_output=True, stdin=subprocess.DEVNULL, check=False)
        seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\nended with status {done.returncode}:\n{done.stderr.decode()[-2000:]}")
    return seconds, done.stderr.decode()


def count_instructions(load: Workload) -> int:
    _, report = timed([*DBT, "run", "--json", *dbt_command(load)[len(DBT) + 1 :]])
    return int(json.loads(report.splitlines()[-1])["icount"])


def machine() -> dict[str, str]:
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    return {
        "cpu": f"{model} x{os.cpu_count()}",
        "python": platform.python_version(),
        "llvmlite": importlib.metadata.version("llvmlite"),
        "unicorn": importlib.metadata.version("unicorn"),
        "commit": commit or "unknown",
    }


def distinct_program(count: int) -> bytes:
    """A flat program of ``count`` different data-processing instructions, each executed once, and an exit."""
    chance = random.Random(1)
    words: dict[int, None] = {}
    while len(words) < count:
        opcode, s = chance.choice((0, 1, 2, 3, 4, 12, 14)), chance.randrange(2)
        registers = chance.randrange(8) << 16 | chance.randrange(8) << 12
        immediate = 0xE2000000 | chance.randrange(4096)
        shifted = 0xE0000000 | chance.randrange(32) << 7 | chance.randrange(4) << 5 | chance.randrange(8)
        words[chance.choice((immediate, shifted)) | opcode << 21 | s << 20 | registers] = None
    # mov r0, #SYS_EXIT; ldr r1, =ADP_Stopped_ApplicationExit; svc 0x123456
    return struct.pack(f"<{count + 4}I", *words, 0xE3A00018, 0xE59F1000, 0xEF123456, 0x20026)


def show_start_up(runs: int) -> dict[str, float]:
    """Wall time in seconds of what is over at once."""
    hello = [*DBT, "run", str(GUESTS / "images" / "hello-armv7-a-O2.elf")]
    with tempfile.NamedTemporaryFile(suffix=".bin") as program:
        program.write(distinct_program(200_000))
        program.flush()
        commands = {"hello": hello, "200,000 distinct instructions, once each": [*DBT, "run", program.name]}
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(runs):
            for name, command in commands.items():
                times[name].append(timed(command)[0])
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    for name, seconds in medians.items():
        print(f"{name}: {seconds:.3f} s (whole process, warm cache, median)")
    return medians


def show(rows: list[Row], engines: list[str]) -> None:
    table = Table(title="millions of guest instructions per second (whole process, median)")
    table.add_column("workload")
    table.add_column("M insns", justify="right")
    for engine in engines:
        table.add_column(engine, justify="right")
    for engine in engines[1:]:
        table.add_column(f"dbt/{engine}", justify="right")
    for row in rows:
        speeds = [row.instructions / row.median(engine) / 1e6 for engine in engines]
        ratios = [f"{row.median(engine) / row.median('dbt'):.2f}" for engine in engines[1:]]
        table.add_row(row.workload.name, f"{row.instructions / 1e6:.0f}", *(f"{s:.0f}" for s in speeds), *ratios)
    for_all = [
        f"{statistics.geometric_mean(row.median(engine) / row.median('dbt') for row in rows):.2f}"
        for engine in engines[1:]
    ]
    table.add_row("geometric mean", "", *("" for _ in engines), *for_all)
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="workloads (all)")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--tier", default="threaded", help="of dbt (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    commands = {"dbt": dbt_command, "unicorn": unicorn_command}
    if shutil.which("qemu-system-arm"):
        commands["qemu"] = qemu_command
    else:
        print("qemu-system-arm is not installed: measured without it")
    timed([*DBT, "run", str(GUESTS / "images" / "hello-armv7-a-O2.elf")])  # the cache is warm from here on
    rows = []
    for load in workloads(options.tier):
        if options.names and load.name not in options.names:
            continue
        row = Row(load, count_instructions(load), {engine: [] for engine in commands})
        for _ in range(options.runs):
            for engine, command in commands.items():
                row.seconds[engine].append(timed(command(load))[0])
        rows.append(row)
        print(f"{load.name}: {', '.join(f'{e} {row.median(e):.2f} s' for e in commands)}", flush=True)
    show(rows, list(commands))
    start_up = show_start_up(2 * options.runs + 1)
    facts = machine()
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    if options.json:
        figures = [
            {"workload": row.workload.name, "instructions": row.instructions, "seconds": row.seconds} for row in rows
        ]
        options.json.write_text(json.dumps({"machine": facts, "rows": figures, "start_up": start_up}, indent=1) + "\n")


if __name__ == "__main__":
    main()

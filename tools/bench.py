"""The benchmark of dbt beside native code, QEMU and Unicorn (``make bench``).

The kernels of guests/bench run as whole processes, all engines in turn. Medians of the wall time are compared:

native      the same source, compiled here with ``gcc -O2``
dbt cold    the cache has the handlers, as after the first run on a machine, and no regions
dbt warm    the kernel has run before, and its regions are in the cache
QEMU        ``qemu-system-arm -M versatilepb -cpu cortex-a8``
Unicorn     tools/unicorn_run.py

Engines that are not installed are left out, and the output says so. Before a kernel is measured, dbt counts its
instructions; this run also makes its warm cache. A run that fails, or does not print that its result is right, ends
the benchmark.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import random
import re
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench_report import Result, load_pyplot, show_results, show_start_up, write_plot
from dbt_command import DBT, checkout_environment

ROOT = Path(__file__).resolve().parents[1]
KERNELS = ROOT / "guests" / "bench"
HELLO = ROOT / "guests" / "images" / "hello-armv7-a-O2.elf"
QEMU = [
    "qemu-system-arm", "-M", "versatilepb", "-cpu", "cortex-a8", "-m", "128", "-nographic",
    "-monitor", "none", "-serial", "null", "-audiodev", "none,id=n0",
]  # fmt: skip
TIMEOUT = 3600  # seconds, of one run


@dataclass(frozen=True)
class Command:
    """A command to measure. ``cache`` is dbt's cache directory. If it is ``fresh``, each run has a copy of it."""

    words: Sequence[str]
    cache: Path | None = None
    fresh: bool = False


@dataclass(frozen=True)
class Dbt:
    """How dbt is called. ``handlers`` is a cache directory with the handlers and no regions."""

    options: tuple[str, ...]
    handlers: Path

    def words(self, image: Path, *args: str) -> list[str]:
        return [*DBT, "run", *self.options, str(image), *args]


@dataclass(frozen=True)
class Kernel:
    name: str
    rounds: int
    args: tuple[str, ...]

    @property
    def source(self) -> Path:
        return KERNELS / f"{self.name}.c"

    @property
    def image(self) -> Path:
        return KERNELS / "images" / f"{self.name}.elf"

    @property
    def says(self) -> bytes:
        return f"{self.name}: ok".encode()


def all_kernels() -> list[str]:
    return sorted(source.stem for source in KERNELS.glob("*.c"))


def make_kernel(name: str, scale: float) -> Kernel:
    found = re.search(r"^#define ROUNDS (\d+)$", (KERNELS / f"{name}.c").read_text(), re.MULTILINE)
    if found is None:
        raise SystemExit(f"guests/bench/{name}.c has no line '#define ROUNDS'")
    rounds = max(1, round(int(found[1]) * scale))
    return Kernel(name, rounds, (str(rounds),))


# -- running -------------------------------------------------------------------------------------


def timed(command: Command, says: bytes = b"") -> tuple[float, str]:
    """Return the wall time in seconds, and the text on standard error. The output must contain ``says``."""
    with tempfile.TemporaryDirectory() as folder:
        cache = command.cache
        if cache is not None and command.fresh:
            cache = Path(shutil.copytree(cache, Path(folder) / "cache"))
        environment = checkout_environment()
        if cache is not None:
            environment["DBT_CACHE_DIR"] = str(cache)
        words = " ".join(command.words)
        start = time.perf_counter()
        try:
            done = subprocess.run(
                command.words,
                cwd=folder,
                env=environment,
                capture_output=True,
                stdin=subprocess.DEVNULL,
                timeout=TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise SystemExit(f"{words}\nis still running after {TIMEOUT} s") from None
        seconds = time.perf_counter() - start
    if done.returncode or says not in done.stdout:
        output = (done.stdout + done.stderr).decode(errors="replace")[-2000:]
        raise SystemExit(f"{words}\nended with status {done.returncode}, and said:\n{output}")
    return seconds, done.stderr.decode()


@dataclass
class Bench:
    """The kernels and engines that are measured. ``folder`` is for temporary files."""

    dbt: Dbt
    folder: Path
    runs: int
    unicorn_runs: int
    gcc: bool
    qemu: bool

    def native(self, kernel: Kernel) -> Command:
        binary = self.folder / kernel.name
        timed(Command(["gcc", "-O2", "-std=gnu11", str(kernel.source), "-o", str(binary)]))
        return Command([str(binary), *kernel.args])

    def commands(self, kernel: Kernel, warm: Path) -> dict[str, Command]:
        """Return the command of each engine."""
        words = self.dbt.words(kernel.image, *kernel.args)
        commands = {"native": self.native(kernel)} if self.gcc else {}
        commands["cold"] = Command(words, self.dbt.handlers, fresh=True)
        commands["warm"] = Command(words, warm)
        if self.qemu:
            commands["QEMU"] = qemu_command(kernel.image, kernel.args)
        if self.unicorn_runs:
            script = str(ROOT / "tools" / "unicorn_run.py")
            commands["Unicorn"] = Command([sys.executable, script, "0", str(kernel.image), *kernel.args])
        return commands

    def measure(self, kernel: Kernel) -> Result:
        warm = Path(shutil.copytree(self.dbt.handlers, self.folder / f"{kernel.name}-cache"))
        commands = self.commands(kernel, warm)
        counting = Dbt((*self.dbt.options, "--json"), warm).words(kernel.image, *kernel.args)
        _, report = timed(Command(counting, warm), kernel.says)
        instructions = int(json.loads(report.splitlines()[-1])["icount"])
        seconds: dict[str, list[float]] = {engine: [] for engine in commands}
        for turn in range(max(self.runs, self.unicorn_runs)):
            for engine, command in commands.items():
                if turn < (self.unicorn_runs if engine == "Unicorn" else self.runs):
                    seconds[engine].append(timed(command, kernel.says)[0])
        return Result(kernel.name, kernel.rounds, instructions, seconds)


def qemu_command(image: Path, args: Sequence[str]) -> Command:
    arguments = "".join(f",arg={a}" for a in (image.name, *args))
    return Command([*QEMU, "-semihosting-config", f"enable=on,target=native{arguments}", "-kernel", str(image)])


# -- start-up ------------------------------------------------------------------------------------


def distinct_program(count: int) -> bytes:
    """Return a flat program of ``count`` different data-processing instructions, each executed once, and an exit."""
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


def measure_start_up(bench: Bench, first_run: float, runs: int) -> dict[str, list[float]]:
    """Measure short runs in seconds: hello, and 200,000 instructions of which none is executed twice."""
    program = bench.folder / "distinct.bin"
    program.write_bytes(distinct_program(200_000))
    handlers = bench.dbt.handlers
    warm = Path(shutil.copytree(handlers, bench.folder / "hello-cache"))

    def distinct(*options: str) -> Command:
        return Command(Dbt(options, handlers).words(program), handlers, fresh=True)

    commands = {
        "hello": Command(bench.dbt.words(HELLO), warm),
        "distinct, as above": distinct(*bench.dbt.options),
        "distinct, --jit off": distinct("--tier", "auto", "--jit", "off"),
        "distinct, --tier threaded": distinct("--tier", "threaded"),
    }
    if bench.qemu:
        commands["hello, QEMU"] = qemu_command(HELLO, ())
        load = ["-device", f"loader,file={program},addr=0x8000,cpu-num=0"]
        commands["distinct, QEMU"] = Command([*QEMU, "-semihosting-config", "enable=on,target=native", *load])
    seconds: dict[str, list[float]] = {"hello, first run ever": [first_run], **{name: [] for name in commands}}
    for _ in range(runs):
        for name, command in commands.items():
            seconds[name].append(timed(command)[0])
    return seconds


# -- the machine ---------------------------------------------------------------------------------


def first_line(*command: str) -> str | None:
    """Return the first line that a program prints about its version."""
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.splitlines()[0].strip() if done.stdout else None


def version_of(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def machine() -> dict[str, str | None]:
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "cpu": f"{model[1] if model else platform.processor()} x{os.cpu_count()}",
        "load": f"{os.getloadavg()[0]:.1f}",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "llvmlite": version_of("llvmlite"),
        "unicorn": version_of("unicorn"),
        "gcc": first_line("gcc", "--version"),
        "qemu": first_line("qemu-system-arm", "--version"),
        "commit": first_line("git", "describe", "--always", "--dirty"),
        "date": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


# -- the command line ----------------------------------------------------------------------------


def count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of runs")
    return int(text)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kernels", metavar="A,B,C", help=f"these only, of {', '.join(all_kernels())}")
    parser.add_argument("--scale", type=float, default=1.0, help="run so many times as long: 0.1 for a quick look")
    parser.add_argument("--runs", type=count, default=3, help="of each engine but Unicorn (%(default)s)")
    parser.add_argument("--unicorn-runs", type=count, default=1, help="0 leaves Unicorn out (%(default)s)")
    parser.add_argument("--tier", default="auto", help="dbt's option (%(default)s)")
    parser.add_argument("--jit", help="dbt's option")
    parser.add_argument("--no-start-up", action="store_true", help="leave out the start-up times")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep all figures in FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw them: .svg, .png or .pdf")
    options = parser.parse_args()
    options.kernels = all_kernels() if options.kernels is None else options.kernels.split(",")
    if unknown := set(options.kernels) - set(all_kernels()):
        parser.error(f"there is no kernel {', '.join(sorted(unknown))} in guests/bench")
    if options.scale <= 0 or options.runs < 1:
        parser.error("--scale must be more than 0, and --runs at least 1")
    return options


def found(what: str, there: bool) -> bool:
    if not there:
        print(f"{what} is not installed: measured without it")
    return there


@dataclass
class Record:
    """The file of --json. It is written after every kernel, so that a benchmark that is stopped leaves results."""

    path: Path | None
    machine: dict[str, str | None]
    options: dict[str, object]
    results: list[Result] = field(default_factory=list)
    start_up: dict[str, list[float]] = field(default_factory=dict)

    def save(self) -> None:
        if self.path is not None:
            content = {
                "machine": self.machine,
                "options": self.options,
                "kernels": [vars(result) for result in self.results],
                "start_up": self.start_up,
            }
            self.path.write_text(json.dumps(content, indent=1) + "\n")


def run_benchmark(options: argparse.Namespace, folder: Path, progress: Callable[[str], None]) -> Record:
    jit = () if options.jit is None else ("--jit", options.jit)
    dbt = Dbt(("--tier", options.tier, *jit), folder / "handlers")
    unicorn = options.unicorn_runs if found("unicorn", importlib.util.find_spec("unicorn") is not None) else 0
    gcc, qemu = (found(name, shutil.which(name) is not None) for name in ("gcc", "qemu-system-arm"))
    bench = Bench(dbt, folder, options.runs, unicorn, gcc, qemu)
    kept = {name: value for name, value in vars(options).items() if name not in ("json", "plot")}
    record = Record(options.json, machine(), kept)

    # The first run builds the handlers. The directory, which has no regions, is the start of each cold run.
    first_run, _ = timed(Command(Dbt(("--tier", "threaded"), dbt.handlers).words(HELLO), dbt.handlers))
    for name in options.kernels:
        result = bench.measure(make_kernel(name, options.scale))
        record.results.append(result)
        record.save()
        medians = (f"{engine} {result.median(engine):.2f} s" for engine in result.seconds)
        progress(f"{name}: {', '.join(medians)}")
    if not options.no_start_up:
        record.start_up = measure_start_up(bench, first_run, 2 * options.runs + 1)
        record.save()
    return record


def main() -> None:
    options = read_options()
    pyplot = None if options.plot is None else load_pyplot()
    with tempfile.TemporaryDirectory(prefix="dbt-bench-") as folder:
        record = run_benchmark(options, Path(folder), lambda line: print(line, flush=True))
    show_results(record.results)
    show_start_up({name: statistics.median(seconds) for name, seconds in record.start_up.items()})
    print(", ".join(f"{name}: {value or 'none'}" for name, value in record.machine.items()))
    if pyplot is not None:
        write_plot(pyplot, record.results, options.plot)


if __name__ == "__main__":
    main()

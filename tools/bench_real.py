"""The benchmark of real programs beside QEMU (``make bench-real``).

The programs are made from Debian's source packages, which are fetched on first use. Each runs as a whole process under
qemu-system-arm and under dbt in turn, and must have the same output in both:

QEMU        ``qemu-system-arm -M versatilepb -cpu cortex-a8``
first       dbt with the handlers in its cache and no regions, as after the first run of anything on a machine
second      dbt again, with what the first run has left in the cache
third       and again

Wall time is that of the process. CPU time includes dbt's compiler, also what it does after the guest has ended.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

from bench import HELLO, machine
from dbt_command import DBT, checkout_environment
from debian_packages import BuildError
from real_programs.bare_metal import BareMetal, build_all
from real_programs.building import Builder
from real_programs.catalogue import EXECUTABLES, WORKLOADS, Workload
from real_programs.inputs import place_files
from real_programs.processes import adopt_orphans, run_timed
from real_programs.results import Report, Result, load_report, show_report

_FOLDER = Path(__file__).resolve().parents[1] / "build" / "real-programs"


def count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 1 or more")
    return int(text)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", action="store_true", help="print the programs, and end")
    parser.add_argument("--show", type=Path, metavar="FILE", help="print the tables of a file of --json, and end")
    parser.add_argument("--programs", metavar="A,B,C", help="these only")
    parser.add_argument("--turns", type=count, default=3, help="QEMU and dbt's three runs so many times (%(default)s)")
    parser.add_argument("--tier", default="auto", help="dbt's option (%(default)s)")
    parser.add_argument("--jit", help="dbt's option")
    parser.add_argument("--folder", type=Path, default=_FOLDER, help="where sources and programs are kept")
    parser.add_argument("--jobs", type=count, default=os.cpu_count() or 1, help="compilers at a time (%(default)s)")
    parser.add_argument("--build-only", action="store_true", help="make the programs and their files, and end")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep all figures in FILE")
    options = parser.parse_args()
    options.programs = list(WORKLOADS) if options.programs is None else options.programs.split(",")
    if unknown := set(options.programs) - set(WORKLOADS):
        parser.error(f"there is no program {', '.join(sorted(unknown))}: --list has their names")
    return options


def list_programs() -> None:
    for workload in WORKLOADS.values():
        package = EXECUTABLES[workload.executable].package
        print(f"{workload.name:20} {workload.executable} {' '.join(workload.arguments)} (package {package})")


def make_handlers(folder: Path) -> Path:
    """Return a new cache directory with the handlers and nothing else."""
    cache = folder / "handlers"
    cache.mkdir()
    environment = {**checkout_environment(), "DBT_CACHE_DIR": str(cache)}
    ended = run_timed([*DBT, "run", "--tier", "threaded", str(HELLO)], folder, environment, 600)
    if ended.status != 0:
        raise BuildError(f"dbt cannot run {HELLO}: {ended.errors.decode(errors='replace')[-500:]}")
    return cache


def measure(options: argparse.Namespace, folder: Path, images: dict[str, Path], builder: Builder) -> Report:
    adopt_orphans()
    qemu = shutil.which("qemu-system-arm") is not None
    if not qemu:
        print("qemu-system-arm is not installed (apt-get install qemu-system-arm): outputs are not compared")
    jit = () if options.jit is None else ("--jit", options.jit)
    handlers = make_handlers(folder)
    bench = BareMetal(handlers, options.folder / "inputs", ("--tier", options.tier, *jit), options.turns, qemu)
    kept = {name: getattr(options, name) for name in ("programs", "turns", "tier", "jit")}
    report = Report(machine(), kept)
    for name, image in images.items():
        workload = WORKLOADS[name]
        result = Result(name, builder.version(EXECUTABLES[workload.executable].package))
        report.programs.append(result)
        bench.measure(workload, image, result, lambda line: print(line, flush=True))
        if result.failure is not None:
            print(f"{name} failed: {result.failure}", flush=True)
        if options.json is not None:
            report.save(options.json)
    return report


def build(options: argparse.Namespace, builder: Builder) -> dict[str, Path]:
    """Make the programs. Returns the image of each, and says which could not be made."""
    builder.check_tools()
    workloads: list[Workload] = [WORKLOADS[name] for name in options.programs]
    built = build_all(builder, workloads, options.jobs)
    images = {}
    for workload in workloads:
        image = built[workload.executable]
        if isinstance(image, Path):
            images[workload.name] = image
        else:
            print(f"left out {workload.name}: {image}", file=sys.stderr)
    return images


def main() -> int:
    options = read_options()
    if options.list:
        list_programs()
        return 0
    try:
        if options.show is not None:
            show_report(load_report(options.show))
            return 0
        options.folder = options.folder.resolve()
        builder = Builder(options.folder)
        images = build(options, builder)
        if options.build_only:
            files = [name for workload in images for name in WORKLOADS[workload].files]
            place = options.folder / "files"
            place.mkdir(exist_ok=True)
            place_files(files, place, options.folder / "inputs")
            print(f"the programs are in {options.folder / 'programs'}, their files in {place}")
            return 0 if len(images) == len(options.programs) else 1
        with tempfile.TemporaryDirectory(prefix="dbt-bench-") as folder:
            report = measure(options, Path(folder), images, builder)
    except (BuildError, OSError, ValueError) as error:
        print(f"bench_real: {error}", file=sys.stderr)
        return 1
    show_report(report)
    complete = len(images) == len(options.programs) and all(result.failure is None for result in report.programs)
    return 0 if complete else 1


if __name__ == "__main__":
    raise SystemExit(main())

"""The benchmark of real programs beside QEMU (``make bench-real``).

The programs are made from Debian's source packages, which are fetched on first use. Each runs as a whole process under
the engines in turn, and must print the same in all:

QEMU        ``qemu-system-arm -M versatilepb``, for bare-metal programs with ``-cpu cortex-a8``
qemu-arm    QEMU's user mode, for programs that are also run inside Linux
first       dbt with the handlers in its cache and no regions, as after the first run of anything on a machine
second      dbt again, with what the first run has left in the cache
third       and again

With ``--against``, the same runs of another checkout are ``old first`` and so on.

Wall time is that of the process. CPU time includes dbt's compiler, also what it does after the guest has ended. The
next run begins when it is done. The runs that are timed keep no statistics, as a user's. Which tiers executed how many
instructions is found in three further runs, which are not timed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bench import HELLO, machine
from dbt_command import DBT, checkout_environment
from debian_packages import BuildError
from real_programs.bare_metal import bare_metal_case
from real_programs.building import BARE_METAL, LINUX, Builder, Target
from real_programs.catalogue import EXECUTABLES, LINUX_WORKLOADS, WORKLOADS
from real_programs.guest_linux import GuestLinux
from real_programs.inputs import place_files
from real_programs.processes import adopt_orphans, run_timed
from real_programs.results import OLD, PARTS, QEMU, QEMU_USER, Report, Result, load_report, show_report
from real_programs.turns import Bench, Case, Translator

_ROOT = Path(__file__).resolve().parents[1]
_BUILD = _ROOT / "build"
_LINUX = Path(os.environ.get("DBT_LINUX_IMAGES") or _BUILD / "linux")
_PEER_COMMANDS = {QEMU: ("qemu-system-arm", "qemu-system-arm"), QEMU_USER: ("qemu-arm", "qemu-user")}


def count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 1 or more")
    return int(text)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", action="store_true", help="print the programs, and end")
    parser.add_argument("--show", type=Path, metavar="FILE", help="print the tables of a file of --json, and end")
    parser.add_argument("--part", choices=PARTS, help="the bare-metal programs or the part inside Linux only")
    parser.add_argument("--programs", metavar="A,B,C", help="these only; names of the Linux part begin with linux-")
    parser.add_argument("--turns", type=count, default=3, help="each engine so many times (%(default)s)")
    parser.add_argument("--tier", default="auto", help="dbt's option (%(default)s)")
    parser.add_argument("--jit", help="dbt's option")
    parser.add_argument("--against", type=Path, metavar="DIR", help="measure the dbt of this checkout in turn too")
    parser.add_argument("--linux", type=Path, default=_LINUX, help="what make linux has made (%(default)s)")
    parser.add_argument("--folder", type=Path, default=_BUILD / "real-programs", help="for sources and programs")
    parser.add_argument("--jobs", type=count, default=os.cpu_count() or 1, help="compilers at a time (%(default)s)")
    parser.add_argument("--build-only", action="store_true", help="make the programs and their files, and end")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep all figures in FILE")
    options = parser.parse_args()
    names = [name for part in PARTS if options.part in (None, part) for name in all_names()[part]]
    if options.programs is not None:
        chosen = options.programs.split(",")
        if unknown := set(chosen) - set(names):
            parser.error(f"there is no program {', '.join(sorted(unknown))}: --list has their names")
        names = [name for name in names if name in chosen]
    options.programs = names
    options.folder, options.linux = options.folder.resolve(), options.linux.resolve()
    return options


def all_names() -> dict[str, list[str]]:
    """Return the names of the programs of each part."""
    return {"programs": list(WORKLOADS), "linux": [f"linux-{name}" for name in LINUX_WORKLOADS]}


def list_programs() -> None:
    for name, workload in WORKLOADS.items():
        package = EXECUTABLES[workload.executable].package
        print(f"{name:20} {workload.executable} {' '.join(workload.arguments)} (package {package})")
    for name, linux in LINUX_WORKLOADS.items():
        print(f"linux-{name:14} {linux.script()}")


@dataclass
class Session:
    """A benchmark that runs: what is chosen, what is missing, and what has been built."""

    options: argparse.Namespace
    builder: Builder
    left_out: list[str]

    def leave_out(self, what: str, why: object) -> None:
        self.left_out.append(what)
        print(f"left out {what}: {why}", file=sys.stderr)

    def build(self, names: Iterable[str], target: Target) -> dict[str, Path]:
        """Make executables, several at a time. Returns those that could be made, and says why others could not."""
        wanted = [EXECUTABLES[name] for name in sorted(set(names))]
        built: dict[str, Path] = {}
        fetched = []
        for executable in wanted:  # apt-get cannot run twice at a time
            try:
                self.builder.sources.directory(executable)
                fetched.append(executable)
            except BuildError as error:
                self.leave_out(executable.name, error)
        with ThreadPoolExecutor(self.options.jobs) as pool:
            futures = {executable.name: pool.submit(self.builder.image, executable, target) for executable in fetched}
            for name, future in futures.items():
                try:
                    built[name] = future.result()
                except BuildError as error:
                    self.leave_out(name, error)
        return built

    def cases(self, peers: Sequence[str], folder: Path) -> list[tuple[str, Case, str]]:
        """Return the part, the case and the version of its package, of all that can be run.

        The disks for Linux are made in ``folder``.
        """
        jit = () if self.options.jit is None else ("--jit", self.options.jit)
        dbt_options = ("--tier", self.options.tier, *jit)
        programs = [WORKLOADS[name] for name in self.options.programs if name in WORKLOADS]
        images = self.build((workload.executable for workload in programs), BARE_METAL)
        found = [
            ("programs", bare_metal_case(workload, images[workload.executable], dbt_options, QEMU in peers),
             self.version(workload.executable))
            for workload in programs
            if workload.executable in images
        ]  # fmt: skip
        return found + self.linux_cases(peers, dbt_options, folder)

    def linux_cases(self, peers: Sequence[str], options: tuple[str, ...], folder: Path) -> list[tuple[str, Case, str]]:
        chosen = [workload for name, workload in LINUX_WORKLOADS.items() if f"linux-{name}" in self.options.programs]
        images = self.options.linux
        if chosen and not (images / "zImage").is_file():
            self.leave_out("the part inside Linux", f"there is no zImage in {images}: `make linux` builds one")
            return []
        programs = self.build((workload.executable for workload in chosen if workload.executable), LINUX)
        system = GuestLinux(
            images, self.options.folder, folder, options, qemu=QEMU in peers, qemu_user=QEMU_USER in peers
        )
        return [
            ("linux", system.case(workload, programs.get(workload.executable)), self.version(workload.executable))
            for workload in chosen
            if not workload.executable or workload.executable in programs
        ]

    def version(self, executable: str) -> str:
        return self.builder.sources.version(EXECUTABLES[executable].package) if executable else ""


def installed_peers(wanted: Mapping[str, tuple[str, str]]) -> list[str]:
    """Return the engines that dbt can be compared with, and say which are missing."""
    for name, (command, package) in wanted.items():
        if shutil.which(command) is None:
            print(f"{command} is not installed (apt-get install {package}): measured without {name}", file=sys.stderr)
    return [name for name, (command, _) in wanted.items() if shutil.which(command) is not None]


def make_translator(label: str, root: Path, folder: Path) -> Translator:
    """Return the dbt of a checkout, with a new cache directory in ``folder`` that has its handlers and nothing else."""
    cache = folder / f"{label.strip()}handlers"
    cache.mkdir()
    environment = {**checkout_environment(root), "DBT_CACHE_DIR": str(cache)}
    ended = run_timed([*DBT, "run", "--tier", "threaded", str(HELLO)], folder, environment, 600)
    if ended.status != 0:
        raise BuildError(f"the dbt of {root} cannot run {HELLO}: {ended.errors.decode(errors='replace')[-500:]}")
    return Translator(label, root, cache)


def measure(session: Session, folder: Path) -> Report:
    """Build and run everything that was chosen. Temporary files are in ``folder``."""
    options = session.options
    cases = session.cases(installed_peers(_PEER_COMMANDS), folder)
    adopt_orphans()
    translators = [make_translator("", _ROOT, folder)]
    if options.against is not None:
        translators.append(make_translator(OLD, options.against.resolve(), folder))
    bench = Bench(translators, options.folder, options.turns)
    kept = {name: getattr(options, name) for name in ("programs", "turns", "tier", "jit")}
    report = Report(machine(), kept)
    for part, case, version in cases:
        result = Result(part, case.name, version)
        report.results.append(result)
        bench.measure(case, result, lambda line: print(line, flush=True))
        if options.json is not None:
            report.save(options.json)
    return report


def build_only(session: Session) -> None:
    """Make the programs, and put the files that they read into one directory."""
    options = session.options
    cases = session.cases((), options.folder)
    place = options.folder / "files"
    place.mkdir(parents=True, exist_ok=True)
    place_files({name for _, case, _ in cases for name in case.files}, place, options.folder)
    print(f"the programs are in {options.folder}, and their files in {place}")


def main() -> int:
    options = read_options()
    if options.list:
        list_programs()
        return 0
    session = Session(options, Builder(options.folder), [])
    try:
        if options.show is not None:
            show_report(load_report(options.show))
            return 0
        if options.build_only:
            build_only(session)
            return 1 if session.left_out else 0
        with tempfile.TemporaryDirectory(prefix="dbt-bench-") as folder:
            report = measure(session, Path(folder))
    except (BuildError, OSError, ValueError) as error:
        print(f"bench_real: {error}", file=sys.stderr)
        return 1
    show_report(report)
    failed = [result for result in report.results if result.failure is not None]
    return 1 if failed or session.left_out else 0


if __name__ == "__main__":
    raise SystemExit(main())

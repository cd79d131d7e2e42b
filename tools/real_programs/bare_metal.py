"""The bare-metal part: each program under QEMU, and under dbt in three successive runs that begin without regions."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bench import qemu_command
from dbt_command import DBT, checkout_environment
from debian_packages import BuildError

from real_programs.building import Builder
from real_programs.catalogue import EXECUTABLES, Workload
from real_programs.inputs import place_files
from real_programs.processes import Ended, Times, file_digests, run_timed
from real_programs.results import PEER, Result

#: dbt's runs in succession, with the cache directory that the one before has left.
RUNS = ("first", "second", "third")
_TIMEOUT = 600.0  # seconds, of one run


class ProgramError(Exception):
    """Raised if a program does not end well, or if its results are not those under QEMU."""


def build_all(builder: Builder, workloads: Sequence[Workload], jobs: int) -> dict[str, Path | BuildError]:
    """Make the executables of ``workloads``, ``jobs`` at a time. A program that cannot be made has its error."""
    names = sorted({workload.executable for workload in workloads})

    def build(name: str) -> Path | BuildError:
        try:
            return builder.image(EXECUTABLES[name])
        except BuildError as error:
            return error

    for name in names:  # apt-get runs alone
        try:
            builder.source(EXECUTABLES[name].package)
        except BuildError as error:
            print(f"{name}: {error}")
    with ThreadPoolExecutor(jobs) as pool:
        return dict(zip(names, pool.map(build, names), strict=True))


@dataclass(frozen=True)
class BareMetal:
    """How the programs are run. ``handlers`` is a cache directory that has the handlers and no regions.

    ``inputs`` is the directory in which the files that programs read are kept, and ``qemu`` says whether QEMU is there.
    """

    handlers: Path
    inputs: Path
    options: tuple[str, ...]
    turns: int
    qemu: bool

    def measure(self, workload: Workload, image: Path, result: Result, progress: Callable[[str], None]) -> None:
        """Run a program in all engines in turn, and add the times to ``result``, or what went wrong."""
        try:
            for turn in range(self.turns):
                self._turn(workload, image, result)
                progress(f"{workload.name}, turn {turn + 1}: {_latest(result)}")
        except ProgramError as error:
            result.failure = str(error)

    def _turn(self, workload: Workload, image: Path, result: Result) -> None:
        expected = None
        if self.qemu:
            words = qemu_command(image, workload.arguments).words
            ended, left = self._run(workload, list(words), Path())
            expected = (ended.output, left)
            result.times.setdefault(PEER, []).append(ended.times)
        with tempfile.TemporaryDirectory(prefix="dbt-bench-") as folder:
            cache = Path(shutil.copytree(self.handlers, Path(folder) / "cache"))
            words = [*DBT, "run", *self.options, "--json", "--files", ".", str(image), *workload.arguments]
            for run in RUNS:
                ended, left = self._run(workload, words, cache)
                if expected is None:
                    expected = (ended.output, left)
                if (ended.output, left) != expected:
                    what = "its output" if ended.output != expected[0] else "a file that it left"
                    raise ProgramError(f"{what} in dbt's {run} run differs from what it should be")
                result.instructions = int(json.loads(ended.errors.splitlines()[-1])["icount"])
                result.times.setdefault(run, []).append(ended.times)

    def _run(self, workload: Workload, words: Sequence[str], cache: Path) -> tuple[Ended, dict[str, str]]:
        """Run a command in a new directory with the program's files. Returns also the digests of the files there."""
        with tempfile.TemporaryDirectory(prefix="dbt-bench-") as name:
            folder = Path(name)
            place_files(workload.files, folder, self.inputs)
            environment = {**checkout_environment(), "DBT_CACHE_DIR": str(cache)}
            ended = run_timed(words, folder, environment, _TIMEOUT)
            left = file_digests(folder)
        if ended.status != workload.status:
            said = " | ".join((ended.output + ended.errors).decode(errors="replace").split("\n")[-6:])
            how = f"still ran after {_TIMEOUT:.0f} s" if ended.status is None else f"ended with status {ended.status}"
            raise ProgramError(f"{words[0]} {how}: {said}")
        return ended, left


def _latest(result: Result) -> str:
    return ", ".join(f"{engine} {_show(times[-1])}" for engine, times in result.times.items())


def _show(times: Times) -> str:
    return f"{times.wall:.2f} s ({times.clock('cpu'):.2f} CPU)"

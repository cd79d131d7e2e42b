"""Turns: a case under each peer, and under dbt in successive runs of which the first has no compiled guest code."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dbt_command import checkout_environment

from real_programs.inputs import place_files
from real_programs.processes import Ended, file_digests, run_timed
from real_programs.results import OLD, Result

#: dbt's runs in succession, each with the cache directory that the one before has left.
RUNS = ("first", "second", "third")
_TIMEOUT = 600.0  # seconds, of one run


class ProgramError(Exception):
    """Raised if a program does not end well, or if its results are not those of the other engines."""


@dataclass(frozen=True)
class Case:
    """What is measured: a program's command in each engine.

    ``peers`` has the commands of the engines that dbt is compared with, and ``dbt`` dbt's own. ``counting`` is the same
    with a report of its statistics. It is for runs that are not timed, because to count costs time. Each runs in a new
    directory with ``files``. It must end with ``status`` and print what the others do. If ``compared`` is given, only
    the parts of the output that this pattern finds count.
    """

    name: str
    peers: dict[str, Sequence[str]]
    dbt: Sequence[str]
    counting: Sequence[str]
    files: tuple[str, ...] = ()
    status: int = 0
    compared: str = ""

    def results_of(self, output: bytes) -> list[str]:
        """Return the parts of the output that must be equal in all engines."""
        text = output.decode(errors="backslashreplace").replace("\r\n", "\n")
        return re.findall(self.compared, text, re.MULTILINE | re.DOTALL) if self.compared else [text]


@dataclass(frozen=True)
class Translator:
    """A dbt: the checkout at ``root``. Its engines' names begin with ``label``.

    ``handlers`` is a cache directory that has its handlers and no regions.
    """

    label: str
    root: Path
    handlers: Path


@dataclass(frozen=True)
class Bench:
    """How the cases are run. ``build`` is the directory in which the files that programs read are kept."""

    translators: Sequence[Translator]
    build: Path
    turns: int

    def measure(self, case: Case, result: Result, progress: Callable[[str], None]) -> None:
        """Run a case in all engines in turn, and add the times to ``result``, or what went wrong."""
        try:
            for turn in range(self.turns):
                self._turn(case, result)
                progress(f"{case.name}, turn {turn + 1}: {_latest(result)}")
            self._count(case, result)
        except ProgramError as error:
            result.failure = str(error)
            progress(f"{case.name} failed: {error}")

    def _turn(self, case: Case, result: Result) -> None:
        expected: tuple[list[str], dict[str, str]] | None = None

        def run(engine: str, words: Sequence[str], environment: dict[str, str]) -> Ended:
            nonlocal expected
            ended, left = self._run(case, words, environment)
            printed = case.results_of(ended.output)
            if not printed:
                raise ProgramError(f"{engine} printed no results: {_end(ended)}")
            if expected is None:
                expected = (printed, left)
            if printed != expected[0]:
                raise ProgramError(f"{engine} ({words[0]}) printed other results: {_end(ended)}")
            if left != expected[1]:
                raise ProgramError(f"{engine} ({words[0]}) left other files")
            result.times.setdefault(engine, []).append(ended.times)
            return ended

        for engine, words in case.peers.items():
            run(engine, words, dict(os.environ))
        for engine, environment in self._dbt_runs():
            run(engine, case.dbt, environment)

    def _count(self, case: Case, result: Result) -> None:
        """Make the runs of dbt once more without timing them, and add to ``result`` what executed the instructions."""
        for engine, environment in self._dbt_runs():
            ended, _ = self._run(case, case.counting, environment)
            _take_report(engine, ended, result)

    def _dbt_runs(self) -> Iterator[tuple[str, dict[str, str]]]:
        """Yield name and environment of each run of dbt. The first of a translator finds no regions."""
        for translator in self.translators:
            with tempfile.TemporaryDirectory(prefix="dbt-bench-") as folder:
                cache = shutil.copytree(translator.handlers, Path(folder) / "cache")
                environment = {**checkout_environment(translator.root), "DBT_CACHE_DIR": str(cache)}
                for name in RUNS:
                    yield f"{translator.label}{name}", environment

    def _run(self, case: Case, words: Sequence[str], environment: dict[str, str]) -> tuple[Ended, dict[str, str]]:
        """Run a command in a new directory with the program's files. Returns also the digests of the files there."""
        with tempfile.TemporaryDirectory(prefix="dbt-bench-") as name:
            folder = Path(name)
            place_files(case.files, folder, self.build)
            ended = run_timed(words, folder, environment, _TIMEOUT)
            left = file_digests(folder)
        if ended.status != case.status:
            how = f"still ran after {_TIMEOUT:.0f} s" if ended.status is None else f"ended with status {ended.status}"
            raise ProgramError(f"{' '.join(words)} {how}: {_end(ended)}")
        return ended, left


def _take_report(engine: str, ended: Ended, result: Result) -> None:
    """Take the numbers of instructions from the report of a dbt. Every run of it must execute as many."""
    tiers = json.loads(ended.errors.splitlines()[-1])["statistics"]["instructions"]
    mine = [name for name in result.tiers if name.startswith(OLD) == engine.startswith(OLD)]
    if mine and sum(result.tiers[mine[0]].values()) != sum(tiers.values()):
        raise ProgramError(f"{engine}: other numbers of instructions than in its {mine[0]} run: {tiers}")
    result.tiers[engine] = tiers


def _end(ended: Ended) -> str:
    """Return the end of what a process printed, in one line."""
    return " | ".join((ended.output + ended.errors).decode(errors="replace").split("\n")[-6:])


def _latest(result: Result) -> str:
    return ", ".join(
        f"{engine} {times[-1].wall:.2f} s ({times[-1].clock('cpu'):.2f} CPU)" for engine, times in result.times.items()
    )

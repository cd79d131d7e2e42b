"""Work that computes, in a container and under qemu-arm: the kernels of guests/bench, compiled for Linux."""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
from functools import partial
from pathlib import Path
from typing import Final

from figure import Figure, timed

from containers_bench.engine import Engine, Setup, our_engine

_SOURCES: Final = Path(__file__).resolve().parents[2] / "guests/bench"
_COMPILER: Final = "arm-linux-gnueabi-gcc"
_FLAGS: Final = ("-O2", "-static", "-marm", "-march=armv5te", "-mfloat-abi=soft")
_RUNS: Final = 3
#: A kernel is run for its usual length divided by this.
_PART: Final = 10


class _Kernels:
    """The kernels' programs, and an engine that can run them in containers."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self._engine, self._folder = engine, folder

    def times(self, program: Path, part: int, runs: int) -> tuple[list[float], list[float]]:
        """Return the milliseconds that a program takes in a container and under qemu-arm, in ``runs`` alternations."""
        ours, qemu, rounds = list[float](), list[float](), _rounds(program, part)
        run = ("run", "--rm", "-v", f"{self._folder}:/kernels:ro", "busybox", f"/kernels/{program.name}", rounds)
        for _ in range(runs):
            ours += timed(partial(self._engine.docker, *run), 1, skipped=0)
            qemu += timed(partial(_run_in_qemu, program, rounds), 1, skipped=0)
        return ours, qemu


def measure(setup: Setup) -> list[Figure]:
    """Return the times of all kernels relative to qemu-arm's, in the geometric mean, and of the slowest one.

    The start of a container is a large part of these times. So kernels that are slower are also run whole.
    """
    missing = [name for name in (_COMPILER, "qemu-arm") if shutil.which(name) is None]
    if missing:
        print(f"kernels: left out, because there is no {' and no '.join(missing)}")
        return []
    programs = _compile(setup.folder / "kernels")
    with our_engine(setup.folder / "kernels-engine") as engine:
        engine.import_busybox(setup.images, "armel")
        kernels = _Kernels(engine, setup.folder / "kernels")
        times = {program: kernels.times(program, _PART, _RUNS) for program in programs}
        first, third = _relative("first run", times, 0), _relative("third run", times, _RUNS - 1)
        slow = [program for program, ratio in third.items() if ratio > 1]
        whole = _relative("whole", {program: kernels.times(program, 1, 2) for program in slow}, 1)
    figures = [
        Figure(f"{len(times)} kernels, {name}", [statistics.geometric_mean(found.values())], "of qemu-arm", 1.0)
        for name, found in (("first run, geometric mean", first), ("third run, geometric mean", third))
    ]
    figures.append(Figure("slowest kernel, third run", [max(third.values())], "of qemu-arm", 1.0))
    if whole:
        figures.append(Figure("slowest kernel, whole", [max(whole.values())], "of qemu-arm", 1.0))
    return figures


def _relative(name: str, times: dict[Path, tuple[list[float], list[float]]], run: int) -> dict[Path, float]:
    """Return and print the time of a run of each kernel, relative to qemu-arm's."""
    found = {program: ours[run] / statistics.median(qemu) for program, (ours, qemu) in times.items()}
    print(f"  {name}, of qemu-arm: " + ", ".join(f"{program.name} {ratio:.2f}" for program, ratio in found.items()))
    return found


def _run_in_qemu(program: Path, rounds: str) -> None:
    subprocess.run(("qemu-arm", str(program), rounds), check=True, capture_output=True)


def _rounds(program: Path, part: int) -> str:
    """Return how many rounds a kernel is run for: its usual number, divided by ``part``."""
    found = re.search(r"^#define ROUNDS (\d+)$", (_SOURCES / f"{program.name}.c").read_text(), re.MULTILINE)
    assert found is not None
    return str(max(int(found[1]) // part, 1))


def _compile(folder: Path) -> list[Path]:
    folder.mkdir()
    programs = []
    for source in sorted(_SOURCES.glob("*.c")):
        program = folder / source.stem
        subprocess.run((_COMPILER, *_FLAGS, str(source), "-o", str(program)), check=True)
        programs.append(program)
    return programs

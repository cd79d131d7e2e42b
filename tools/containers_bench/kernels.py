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

from containers_bench.engine import Setup, our_engine

_SOURCES: Final = Path(__file__).resolve().parents[2] / "guests/bench"
_COMPILER: Final = "arm-linux-gnueabi-gcc"
_FLAGS: Final = ("-O2", "-static", "-marm", "-march=armv5te", "-mfloat-abi=soft")
_RUNS: Final = 3
#: The part of its usual length for which a kernel is run.
_PART: Final = 10


def measure(setup: Setup) -> list[Figure]:
    """Return the times of all kernels relative to qemu-arm's, in the geometric mean, and of the slowest one."""
    missing = [name for name in (_COMPILER, "qemu-arm") if shutil.which(name) is None]
    if missing:
        print(f"kernels: left out, because there is no {' and no '.join(missing)}")
        return []
    programs = _compile(setup.folder / "kernels")
    times: dict[str, tuple[list[float], list[float]]] = {}
    with our_engine(setup.folder / "kernels-engine") as engine:
        engine.import_busybox(setup.images, "armel")
        mount = f"{setup.folder / 'kernels'}:/kernels:ro"
        for program in programs:
            ours, qemu = times[program.name] = ([], [])
            for _ in range(_RUNS):
                run = ("run", "--rm", "-v", mount, "busybox", f"/kernels/{program.name}", _rounds(program))
                ours += timed(partial(engine.docker, *run), 1, skipped=0)
                qemu += timed(partial(_run_in_qemu, program), 1, skipped=0)
    found = {}
    for turn, name in ((0, "first"), (_RUNS - 1, "third")):
        found[name] = {kernel: ours[turn] / statistics.median(qemu) for kernel, (ours, qemu) in times.items()}
        print(
            f"  {name} run, of qemu-arm: " + ", ".join(f"{kernel} {ratio:.2f}" for kernel, ratio in found[name].items())
        )
    figures = [
        Figure(
            f"{len(times)} kernels, {name} run, geometric mean",
            [statistics.geometric_mean(ratios.values())],
            "of qemu-arm",
            1.0,
        )
        for name, ratios in found.items()
    ]
    figures.append(Figure("slowest kernel, third run", [max(found["third"].values())], "of qemu-arm", 1.0))
    return figures


def _run_in_qemu(program: Path) -> None:
    subprocess.run(("qemu-arm", str(program), _rounds(program)), check=True, capture_output=True)


def _rounds(program: Path) -> str:
    """Return how many rounds a kernel is run for."""
    found = re.search(r"^#define ROUNDS (\d+)$", (_SOURCES / f"{program.name}.c").read_text(), re.MULTILINE)
    assert found is not None
    return str(max(int(found[1]) // _PART, 1))


def _compile(folder: Path) -> list[Path]:
    folder.mkdir()
    programs = []
    for source in sorted(_SOURCES.glob("*.c")):
        program = folder / source.stem
        subprocess.run((_COMPILER, *_FLAGS, str(source), "-o", str(program)), check=True)
        programs.append(program)
    return programs

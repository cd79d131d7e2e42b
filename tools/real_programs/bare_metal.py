"""The bare-metal part: the programs under qemu-system-arm and under dbt, with semihosting."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench import qemu_command
from dbt_command import DBT

from real_programs.catalogue import Workload
from real_programs.results import QEMU
from real_programs.turns import Case


def bare_metal_case(workload: Workload, image: Path, options: Sequence[str], qemu: bool) -> Case:
    """Return a workload as a case. ``options`` are those of ``dbt run``; ``qemu`` says whether QEMU is there."""
    words = ["--files", ".", str(image), *workload.arguments]
    timed = [*DBT, "run", *options]
    peers = {QEMU: qemu_command(image, workload.arguments).words} if qemu else {}
    return Case(
        workload.name,
        peers,
        [*timed, *words],
        [*timed, "--json", *words],
        workload.files,
        workload.status,
        workload.compared,
    )

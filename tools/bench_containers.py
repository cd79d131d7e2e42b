"""What containers cost (``make bench-containers``), beside a real dockerd and qemu-arm where these are installed.

    python tools/bench_containers.py --images DIR [--only ROW]... [--runs N] [--json FILE]

DIR is what ``make images`` makes. Docker's command is the client of both engines. The real dockerd needs root, runs in
a network namespace of its own, and executes the busybox of the host's architecture: it says what a container costs
where no processor is emulated. All times are wall times of whole commands, in milliseconds, so the host should be idle.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from containers_bench import first_runs, idle, kernels, limits, verbs
from containers_bench.engine import Setup
from figure import Figure

ROWS: Final[dict[str, Callable[[Setup], list[Figure]]]] = {
    "verbs": verbs.measure,
    "first": first_runs.measure,
    "idle": idle.measure,
    "kernels": kernels.measure,
    "limits": limits.measure,
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--images", type=Path, default=os.environ.get("DBT_CONTAINER_IMAGES"), help="what make images made"
    )
    parser.add_argument("--only", action="append", choices=ROWS, help="measure these rows alone; may be repeated")
    parser.add_argument("--runs", type=int, default=15, help="how often a short command is run [15]")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    options = parser.parse_args(arguments)
    if options.images is None:
        parser.error("--images is needed: make images makes them")
    if shutil.which("docker") is None:
        parser.error("docker's command is needed: Debian's package docker.io has it")
    figures = []
    with tempfile.TemporaryDirectory(prefix="bench-containers-") as folder:
        setup = Setup(Path(folder), Path(options.images), options.runs)
        for name in options.only or ROWS:
            for figure in ROWS[name](setup):
                print(figure.row, flush=True)
                figures.append(figure)
    if options.json is not None:
        options.json.write_text(json.dumps([figure._asdict() for figure in figures], indent=1))


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"{error}\n{error.stderr or ''}") from None

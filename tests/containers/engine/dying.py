"""An engine that is killed when a migration has come to a point: ``dying.py POINT PYTHON -m dbt ARGUMENTS...``."""

from __future__ import annotations

import os
import signal
import sys

from dbt.cli import main as serve
from dbt.hypervisor.migration import Point, points


def main(chosen: str, *command: str) -> None:
    def reached(point: Point) -> None:
        if point.name == chosen:
            os.kill(os.getpid(), signal.SIGKILL)

    points.ignore = reached
    sys.argv = ["dbt", *command[3:]]
    serve()


if __name__ == "__main__":
    main(*sys.argv[1:])

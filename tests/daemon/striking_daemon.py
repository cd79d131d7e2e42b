"""A daemon that is killed when a migration reaches a point, whose name is the first argument. The others are options of
`dbt vm daemon`.
"""

from __future__ import annotations

import os
import signal
import sys

from dbt.cli.app import run_app
from dbt.hypervisor.migration import points
from dbt.hypervisor.migration.points import Point


def strike(point: Point) -> None:
    if point.name == sys.argv[1]:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    points.ignore = strike
    sys.exit(run_app(["vm", "daemon", *sys.argv[2:]]))

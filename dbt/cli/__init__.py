"""The command line: arguments go in, an exit status comes out, and no traceback reaches a user."""

from __future__ import annotations

import sys


def main() -> None:
    """The ``dbt`` command."""
    from dbt.cli.app import run_app

    sys.exit(run_app(sys.argv[1:]))

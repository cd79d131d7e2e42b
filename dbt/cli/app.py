"""The command line from its words to the exit status. A plain ``dbt run`` takes a way that loads no argparse."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from dbt.cli.report import guarded, keep_standard_descriptors


def run_app(arguments: Sequence[str]) -> int:
    """Run the command that the arguments name. Return the exit status."""
    keep_standard_descriptors()
    return guarded(partial(_dispatch, arguments))


def _dispatch(arguments: Sequence[str]) -> int:
    if arguments[:1] == ["run"]:
        from dbt.cli.run_options import RunOptions

        options = RunOptions.parse(arguments[1:])
        if options is not None:
            if options.restore is not None:  # most of which goes on while other modules are imported
                from dbt.snapshot.images import begin_reading

                begin_reading(options.restore)
            from dbt.cli.run import run_program

            return run_program(options)
    from dbt.cli.parser import run_command

    return run_command(arguments)

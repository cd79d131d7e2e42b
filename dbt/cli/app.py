"""The command line from its words to the exit status. A plain ``dbt run`` takes a way that loads no argparse."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from dbt.cli.report import guarded, keep_standard_descriptors

if TYPE_CHECKING:
    from dbt.cli.run_options import RunOptions


def run_app(arguments: Sequence[str]) -> int:
    """Run the command that the arguments name. Return the exit status."""
    keep_standard_descriptors()
    return guarded(partial(_dispatch, arguments))


def _dispatch(arguments: Sequence[str]) -> int:
    if arguments[:1] == ["run"]:
        from dbt.cli.run_options import RunOptions

        options = RunOptions.parse(arguments[1:])
        if options is not None:
            _begin_reading(options)
            from dbt.cli.run import run_program

            return run_program(options)
    from dbt.cli.parser import run_command

    return run_command(arguments)


def _begin_reading(options: RunOptions) -> None:
    """Begin to read the snapshot from which the run goes on, most of which happens while other modules are imported."""
    if options.restore is not None:
        from dbt.snapshot.images import begin_reading

        begin_reading(options.restore)
    elif options.program is not None and options.os is options.memory is options.base is None:
        from dbt.board.loader import is_linux_program

        if is_linux_program(options.program):
            from dbt.linux.template import Hardware, begin_reading_template

            begin_reading_template(Hardware())

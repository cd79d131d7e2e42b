"""The command line of a build in steps, each of which can be run alone."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from debian_packages import BuildError


def run_steps(description: str | None, steps: Mapping[str, Callable[[Path], None]]) -> int:
    """Run the steps that the command line asks for, and return the exit status of the program.

    A step gets the directory that the command line names. The first line of ``description`` names the program's work.
    """
    parser = step_parser(description, steps)
    return run_chosen(parser, parser.parse_args(), steps)


def step_parser(description: str | None, names: Iterable[str]) -> argparse.ArgumentParser:
    """Return the parser of the command line, for a program that has further options."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where everything goes")
    parser.add_argument("--steps", default=",".join(names), help="which steps, separated by commas (all)")
    return parser


def run_chosen(
    parser: argparse.ArgumentParser, arguments: argparse.Namespace, steps: Mapping[str, Callable[[Path], None]]
) -> int:
    """Run the steps that the arguments choose, as :func:`run_steps`."""
    folder = arguments.folder.resolve()
    try:
        for name in arguments.steps.split(","):
            if name not in steps:
                raise BuildError(f"there is no step {name!r}: use some of {', '.join(steps)}")
            print(f"== {name}", flush=True)
            folder.mkdir(parents=True, exist_ok=True)
            steps[name](folder)
    except (BuildError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    return 0

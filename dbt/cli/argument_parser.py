"""The parser of a command line, and how options are added to it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from dbt.cli.status import CommandError, Status

#: A command: a function from its arguments to its exit status.
Command = Callable[[argparse.Namespace], int]


class Parser(argparse.ArgumentParser):
    """The parser of one command. It raises CommandError for a wrong command line, with a hint at the help."""

    def __init__(self, **settings: Any) -> None:
        settings.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **settings)
        self.set_defaults(parser=self, command=self._print_help)

    def _print_help(self, parsed: argparse.Namespace) -> int:
        """Print the help, for a command that needs a further command."""
        self.print_help()
        return Status.DONE

    def _print_message(self, message: str, file: Any = None) -> None:
        """Print the help or the version. argparse's own method hides it if that cannot be written."""
        stream = sys.stdout if file is None else file
        if stream is not None:
            stream.write(message)
            stream.flush()

    def error(self, message: str) -> NoReturn:
        raise CommandError(f"{message}. See `{self.prog} --help`.", Status.USAGE)

    def refuse(self, argument: str) -> NoReturn:
        """Raise CommandError for an argument that is not understood, with a similar option if there is one."""
        from difflib import get_close_matches

        if not argument.startswith("-"):
            self.error(f"{argument}: there is nothing here that this could be for")
        name = argument.partition("=")[0]
        near = get_close_matches(name, self._option_string_actions)
        self.error(f"{name}: there is no such option" + (f"; there is {near[0]}" if near else ""))


class _Append(argparse.Action):
    """Appends a value to a tuple."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        setattr(namespace, self.dest, (*getattr(namespace, self.dest), values))


class Options:
    """Adds options to a parser or to a group of its options."""

    def __init__(self, parser: argparse.ArgumentParser, title: str | None = None) -> None:
        self._group = parser if title is None else parser.add_argument_group(title)

    def text(
        self, metavar: str, help_: str, *names: str, default: str | None = None, choices: Sequence[str] | None = None
    ) -> None:
        """Add an option with a value."""
        self._group.add_argument(*names, metavar=metavar, default=default, help=help_, choices=choices)

    def texts(self, metavar: str, help_: str, name: str) -> None:
        """Add an option with a value that may be given several times. Its values are a tuple."""
        self._group.add_argument(name, metavar=metavar, action=_Append, default=(), help=help_)

    def flag(self, help_: str, name: str) -> None:
        """Add an option without a value."""
        self._group.add_argument(name, action="store_true", help=help_)

    def argument(self, metavar: str, help_: str, name: str, required: bool = False) -> None:
        """Add a positional argument, which may be omitted unless it is ``required``."""
        self._group.add_argument(name, metavar=metavar, nargs=None if required else "?", help=help_)


def add_commands(parser: Parser) -> Callable[[str, str], Parser]:
    """Return a function that adds a command to a parser, given its name and its description in the list of commands."""
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    def add(name: str, help_: str) -> Parser:
        made = commands.add_parser(name, help=help_, usage=f"{parser.prog} {name} [OPTIONS]")
        made.prog = f"{parser.prog} {name}"
        return made

    return add


def add_base(options: Options) -> None:
    """Add the option that says where a flat binary goes."""
    help_ = "the file is a flat binary; it goes here [.bin, .img and .raw files: 0x8000, a kernel: 0x10000]"
    options.text("ADDRESS", help_, "--base")

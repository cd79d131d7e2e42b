"""The verbs of ``dbt container`` and their options. What they do is imported when they are called."""

from __future__ import annotations

import argparse

from dbt.cli.argument_parser import Options, Parser, add_commands


def add_container(parser: Parser) -> None:
    """Add the verbs to the parser of the command."""
    parser.usage = "dbt container VERB [OPTIONS] ..."
    parser.description = (
        "Run ARM containers, each in a virtual machine of its own. Docker's clients speak to\n"
        "the engine, which `dbt container serve` starts: set DOCKER_HOST to its socket."
    )
    add = add_commands(parser)
    _add_serve(add("serve", "run the engine, which answers docker's clients"))


def _add_serve(parser: Parser) -> None:
    parser.description = "Run the engine until a signal ends it. Containers end with it, unless it is killed."
    options = Options(parser)
    help_ = "listen at this unix socket [dbt/docker.sock in $XDG_RUNTIME_DIR, or in the engine's directory]"
    options.text("PATH", help_, "--socket")
    parser.set_defaults(command=_serve)


def _serve(parsed: argparse.Namespace) -> int:
    from dbt.cli.container.serve import serve_engine

    return serve_engine(parsed.socket)

"""The options of ``dbt cluster``."""

from __future__ import annotations

import argparse

from dbt.cli.argument_parser import Options, Parser, add_commands


def add_cluster(parser: Parser) -> None:
    parser.usage = "dbt cluster COMMAND [OPTIONS] FILE"
    parser.description = (
        "Run the machines that a file describes, and the network between them, as one\n"
        "deterministic system (docs/clusters.md)."
    )
    add = add_commands(parser)
    _add_run(add("run", "run a cluster"))
    _add_replay(add("replay", "run a recorded cluster again, and compare it"))
    _add_diff(add("diff", "say where two recordings of a cluster first differ"))


def _common(parser: Parser) -> Options:
    options = Options(parser)
    options.argument("FILE", "the description of the cluster, in TOML", "file", required=True)
    options.text("N", "how many machines execute at the same time; it changes nothing else [2]", "--cores", default="2")
    return options


def _add_run(parser: Parser) -> None:
    parser.usage = "dbt cluster run [OPTIONS] FILE"
    parser.description = (
        "Run a cluster. What guests write is printed a line at a time, with the name of\n"
        "the machine. Ctrl-C ends the run."
    )
    options = _common(parser)
    options.text("SECONDS", "stop after so many seconds of the machines' time [when nothing can happen]", "--seconds")
    options.text("N", "the seed of lost frames, in place of the file's", "--seed")
    options.text("RECORDING", "write down what is typed, what becomes of each frame, and the end", "--record")
    options.text("NAME", "give what is typed here to this machine, a line at a time", "--attach")
    options.text("DIR", "begin where a cluster was saved; the file says which disks the machines have", "--restore")
    options.text("DIR", "save the cluster at the end, in a new directory", "--save")

    def command(parsed: argparse.Namespace) -> int:
        from dbt.cli.cluster import RunRequest, run

        names = ("file", "cores", "seconds", "seed", "record", "attach", "restore", "save")
        return run(RunRequest(**{name: getattr(parsed, name) for name in names}))

    parser.set_defaults(command=command)


def _add_replay(parser: Parser) -> None:
    parser.usage = "dbt cluster replay [OPTIONS] FILE RECORDING"
    parser.description = (
        "Run a cluster as it was recorded, and compare each frame and the states at the\n"
        "end. Status 118 if something differs, with what and where first."
    )
    options = _common(parser)
    options.argument("RECORDING", "what `dbt cluster run --record` has written", "recording", required=True)
    options.text("N", "another seed of lost frames, to see where the run becomes another one", "--seed")
    options.text("DIR", "begin where a cluster was saved, as the recorded run did", "--restore")

    def command(parsed: argparse.Namespace) -> int:
        from dbt.cli.cluster import replay

        return replay(parsed.file, parsed.recording, parsed.cores, parsed.seed, parsed.restore)

    parser.set_defaults(command=command)


def _add_diff(parser: Parser) -> None:
    parser.usage = "dbt cluster diff RECORDING OTHER"
    parser.description = "Say where two recordings of a cluster first differ. Status 1 if they do."
    options = Options(parser)
    options.argument("RECORDING", "a recording", "recording", required=True)
    options.argument("OTHER", "another one", "other", required=True)

    def command(parsed: argparse.Namespace) -> int:
        from dbt.cli.cluster import diff

        return diff(parsed.recording, parsed.other)

    parser.set_defaults(command=command)

"""The verbs of ``dbt container`` and their options. What they do is imported when they are called."""

from __future__ import annotations

import argparse
from types import ModuleType

from dbt.cli.argument_parser import Options, Parser, add_commands


def add_container(parser: Parser) -> None:
    """Add the verbs to the parser of the command."""
    parser.usage = "dbt container VERB [OPTIONS] ..."
    parser.description = (
        "Run ARM containers, each in a virtual machine of its own. Docker's clients\n"
        "speak to the engine, which `dbt container serve` starts: set DOCKER_HOST to its\n"
        "socket. The other verbs are for those who have no docker. They start the engine\n"
        "if it is needed."
    )
    add = add_commands(parser)
    _add_serve(add("serve", "run the engine, which answers docker's clients"))
    _add_run(add("run", "run a program of an image in a new container"))
    _add_exec(add("exec", "run another program in a container"))
    _add_ps(add("ps", "list containers"))
    _add_logs(add("logs", "show what a container has written"))
    _add_stop(add("stop", "let containers end"))
    _add_rm(add("rm", "remove containers"))
    _add_replay(add("replay", "run a container that was recorded again, to the instruction"))
    _add_migrate(add("migrate", "move a container that runs to another engine"))
    _add_resume(add("resume", "let a container go on that stands still"))
    _add_images(add("images", "list images"))
    _add_pull(add("pull", "get an image from its registry"))


def _add_serve(parser: Parser) -> None:
    parser.description = (
        "Run the engine until a signal ends it. Containers end with it, unless it is\n"
        "killed: then the next one finds them."
    )
    options = Options(parser)
    help_ = "listen at this unix socket [dbt/docker.sock in $XDG_RUNTIME_DIR, or in the engine's directory]"
    options.text("PATH", help_, "--socket")
    help_ = "a registry that may speak HTTP, or have any certificate: a host with its port, or a network as 10.1.0.0/16"
    parser.add_argument("--insecure-registry", metavar="HOST", action="append", default=[], help=help_)
    options.text("PLACE", "also take containers of other hosts there: tcp:HOST:PORT", "--migration")
    options.text("DIR", "the directory with the certificates for that", "--tls-creds")
    parser.add_argument("--on-demand", action="store_true", help=argparse.SUPPRESS)
    parser.set_defaults(command=_serve)


def _add_run(parser: Parser) -> None:
    parser.usage = "dbt container run [OPTIONS] IMAGE [COMMAND [ARGS]...]"
    parser.description = "Run a program of an image in a new container. An image that is not here is\npulled."
    options = Options(parser)
    _add_program_options(parser)
    parser.add_argument("-d", "--detach", action="store_true", help="do not wait for its end; print its id")
    options.flag("remove the container when it has ended", "--rm")
    options.text("NAME", "the container's name [some name]", "--name")
    options.text("NAME", "the name of the container's host [its id]", "--hostname")
    options.text("PROGRAM", "execute this in place of the image's entry point", "--entrypoint")
    for names, metavar, help_ in (
        (("-v", "--volume"), "SOURCE:PATH[:ro]", "mount a directory of this host, or a volume. May be repeated"),
        (("-p", "--publish"), "[[ADDRESS:]PORT:]PORT", "publish a port on this host. May be repeated"),
    ):
        parser.add_argument(*names, metavar=metavar, action="append", default=[], help=help_)
    options.text("NAME", "the container's network: bridge, none, or one that was made [bridge]", "--network")
    options.text("SIZE", "how much memory its programs may have, as 64m", "--memory")
    options.text("N", "how much of a processor it may have, as 0.5", "--cpus")
    help_ = "whether it is started again: no, always, unless-stopped, on-failure[:TIMES] [no]"
    options.text("POLICY", help_, "--restart")
    help_ = "record it, so that it can be replayed; as docker's --label dbt.record=NAME"
    options.text("NAME", help_, "--record")
    parser.add_argument("image", metavar="IMAGE", help="the image's name or id")
    _add_command(parser, "the program and its arguments [the image's]")
    parser.set_defaults(command=lambda parsed: _verbs().run(parsed))


def _add_program_options(parser: Parser) -> None:
    parser.add_argument("-i", "--interactive", action="store_true", help="standard input is the program's")
    parser.add_argument("-t", "--tty", action="store_true", help="the program has a terminal")
    parser.add_argument("-e", "--env", metavar="NAME[=VALUE]", action="append", default=[], help="set a variable")
    parser.add_argument("-u", "--user", metavar="USER[:GROUP]", help="be this user [the image's, or root]")
    parser.add_argument("-w", "--workdir", metavar="PATH", help="the working directory [the image's]")


def _add_command(parser: Parser, help_: str) -> None:
    parser.add_argument("argv", metavar="COMMAND [ARGS]...", nargs=argparse.REMAINDER, help=help_)


def _add_exec(parser: Parser) -> None:
    parser.usage = "dbt container exec [OPTIONS] CONTAINER COMMAND [ARGS]..."
    _add_program_options(parser)
    _add_container(parser)
    _add_command(parser, "the program and its arguments")
    parser.set_defaults(command=lambda parsed: _verbs().execute(parsed))


def _add_container(parser: Parser) -> None:
    parser.add_argument("container", metavar="CONTAINER", help="its name or id")


def _add_containers(parser: Parser) -> None:
    parser.usage = f"{parser.prog} [OPTIONS] CONTAINER..."
    parser.add_argument("containers", metavar="CONTAINER", nargs="+", help="names or ids")


def _add_ps(parser: Parser) -> None:
    parser.add_argument("-a", "--all", action="store_true", help="also those that do not run")
    parser.add_argument("-q", "--quiet", action="store_true", help="print ids alone")
    parser.set_defaults(command=lambda parsed: _verbs().ps(parsed))


def _add_logs(parser: Parser) -> None:
    parser.usage = "dbt container logs [OPTIONS] CONTAINER"
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the container ends")
    parser.add_argument("-t", "--timestamps", action="store_true", help="print when each line was written")
    Options(parser).text("N", "the last lines alone [all]", "--tail")
    _add_container(parser)
    parser.set_defaults(command=lambda parsed: _verbs().logs(parsed))


def _add_stop(parser: Parser) -> None:
    _add_containers(parser)
    parser.add_argument("-t", "--time", metavar="SECONDS", help="kill it after this time [the container's, or 10]")
    parser.set_defaults(command=lambda parsed: _verbs().stop(parsed))


def _add_rm(parser: Parser) -> None:
    _add_containers(parser)
    parser.add_argument("-f", "--force", action="store_true", help="also if it runs")
    parser.set_defaults(command=lambda parsed: _verbs().remove(parsed))


def _add_replay(parser: Parser) -> None:
    parser.usage = "dbt container replay [OPTIONS] RECORDING"
    parser.description = (
        "Run a container again that was recorded by --record or by docker's --label\n"
        "dbt.record=NAME: it writes the same, and ends in the same state after as many\n"
        "instructions. Nothing outside is asked. Status 118 if something differs."
    )
    options = Options(parser)
    parser.add_argument("recording", metavar="RECORDING", help="its name, or its directory, as ./NAME")
    options.text("ICOUNT", "go as far only, and print the state of the machine there", "--at")
    help_ = "let gdb connect there, or at the beginning, and go back and forth: as `dbt run --gdb`"
    options.text("[HOST:]PORT|unix:PATH", help_, "--gdb")
    options.text("FILE", "record what the translator does", "--record-trace")
    parser.add_argument(
        "--tier", choices=("reference", "threaded", "stitched", "auto"), help="how it is executed [auto]"
    )
    options.flag("print the state as a JSON object, the last line of standard error", "--json")

    def command(parsed: argparse.Namespace) -> int:
        from dbt.cli.container.replay import replay

        return replay(parsed.recording, parsed.at, parsed.gdb, parsed.record_trace, parsed.tier, parsed.json)

    parser.set_defaults(command=command)


def _add_migrate(parser: Parser) -> None:
    parser.usage = "dbt container migrate [--tls-creds DIR] CONTAINER DESTINATION"
    parser.description = (
        "Move a container that runs to another engine, while it runs: its machine, its\n"
        "files, its log, its name and its id. If that fails, it stays."
    )
    Options(parser).text("DIR", "the directory with the certificates for TCP", "--tls-creds")
    _add_container(parser)
    help_ = "the other engine: unix:///PATH or PATH, its socket on this host; or tcp://HOST:PORT, its --migration"
    parser.add_argument("destination", metavar="DESTINATION", help=help_)
    parser.set_defaults(command=lambda parsed: _verbs().migrate(parsed))


def _add_resume(parser: Parser) -> None:
    parser.usage = "dbt container resume [--force] CONTAINER"
    parser.description = (
        "Let a container go on that was paused. With --force also one that was on its way\n"
        "to another engine, when nobody knows whether it is there: you know that it is\n"
        "not."
    )
    Options(parser).flag("also if the container may run at another engine: you know that it does not", "--force")
    _add_container(parser)
    parser.set_defaults(command=lambda parsed: _verbs().resume(parsed))


def _add_images(parser: Parser) -> None:
    parser.set_defaults(command=lambda parsed: _verbs().images(parsed))


def _add_pull(parser: Parser) -> None:
    parser.usage = "dbt container pull IMAGE"
    parser.add_argument("image", metavar="IMAGE", help="its name, with its registry unless that is docker.io")
    parser.set_defaults(command=lambda parsed: _verbs().pull(parsed))


def _verbs() -> ModuleType:
    from dbt.cli.container import verbs

    return verbs


def _serve(parsed: argparse.Namespace) -> int:
    from dbt.cli.container.serve import serve_engine

    return serve_engine(
        *(parsed.socket, parsed.on_demand, parsed.insecure_registry, parsed.migration, parsed.tls_creds)
    )

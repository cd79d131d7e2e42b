"""The verbs of ``dbt vm`` and their options, in virsh's words. What they do is imported when they are called."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NamedTuple

from dbt.cli.argument_parser import Command, Options, Parser, add_commands
from dbt.cli.values import parse_seconds

_FILES = "a definition in TOML; - is standard input. docs/vms.md has its format"


class Verb(NamedTuple):
    """A verb: its description, its options, and what it does."""

    about: str
    add: Callable[[Parser], None]
    command: Command


def add_vm(parser: Parser) -> None:
    parser.usage = "dbt vm VERB [OPTIONS] ..."
    parser.description = (
        "Run many machines on this host, by a daemon of this user, which starts when it\n"
        "is needed. Machines have names; their definitions are files in TOML."
    )
    add = add_commands(parser)
    for name, verb in VERBS.items():
        made = add(name, verb.about)
        made.description = f"{verb.about[:1].upper()}{verb.about[1:]}."
        verb.add(made)
        if name != "daemon":
            Options(made).flag("print JSON", "--json")
        made.set_defaults(command=verb.command)


# -- their options ---------------------------------------------------------------------------------


def _nothing(parser: Parser) -> None:
    """Add no options."""


def _name(parser: Parser) -> None:
    parser.usage = f"{parser.prog} [OPTIONS] NAME"
    Options(parser).argument("NAME", "the domain's name or UUID", "name", required=True)


def _names(parser: Parser) -> None:
    parser.usage = f"{parser.prog} [OPTIONS] NAME..."
    parser.add_argument("names", metavar="NAME", nargs="+", help="a domain's name or UUID")


def _names_or_all(parser: Parser) -> None:
    parser.usage = f"{parser.prog} [OPTIONS] [NAME...]"
    parser.add_argument("names", metavar="NAME", nargs="*", help="a domain's name or UUID [all]")


def _files(parser: Parser) -> None:
    parser.usage = f"{parser.prog} [OPTIONS] FILE..."
    parser.add_argument("files", metavar="FILE", nargs="+", help=_FILES)


def _list(parser: Parser) -> None:
    options = Options(parser)
    options.flag("also those without a machine", "--all")
    options.flag("only those without a machine", "--inactive")
    options.flag("print names alone", "--name")


def _shutdown(parser: Parser) -> None:
    _names(parser)
    Options(parser).text("SECONDS", "wait so long until it has; fail if it has not", "--timeout")


def _autostart(parser: Parser) -> None:
    _names(parser)
    Options(parser).flag("do not start it with the daemon", "--disable")


def _schedinfo(parser: Parser) -> None:
    _name(parser)
    options = Options(parser)
    options.text("N", "what domains want together they share by weight, 1 to 65535", "--weight")
    options.text("PART", "the part of a core that it gets at most, above 0; 1 is no limit", "--cap")
    options.text("CLASS", "who goes first on waking: interactive, normal or batch", "--latency")


def _console(parser: Parser) -> None:
    _name(parser)
    Options(parser).flag("begin with what the guest has written before", "--history")


def _event(parser: Parser) -> None:
    options = Options(parser)
    options.argument("NAME", "only of this domain", "name")
    options.flag("end after the first", "--once")


def _daemon(parser: Parser) -> None:
    options = Options(parser)
    options.text("N", "the cores that domains share [all that this process may use]", "--cores")
    options.text(
        "N", "the instructions that a core is taken to execute in a second [10^9]", "--rate", default="1000000000"
    )
    options.text("SECONDS", "end after so long without machines and clients [never]", "--idle-exit")
    options.flag("end the daemon that runs, and all machines", "--stop")
    parser.add_argument("--on-demand", action="store_true", help=argparse.SUPPRESS)


# -- what they do ----------------------------------------------------------------------------------


def _act(verb: str, done: str) -> Command:
    def command(parsed: argparse.Namespace) -> int:
        from dbt.cli.vm.verbs import act

        return act(parsed.names, verb, done, parsed.json)

    return command


def _do_list(parsed: argparse.Namespace) -> int:
    from dbt.cli.vm.verbs import list_domains

    return list_domains(parsed.all, parsed.inactive, parsed.name, parsed.json)


def _do_info(parsed: argparse.Namespace) -> int:
    from dbt.cli.vm.verbs import info

    return info(parsed.name, parsed.json)


def _do_stats(parsed: argparse.Namespace) -> int:
    from dbt.cli.vm.verbs import stats

    return stats(parsed.names, parsed.json)


def _do_define(starts: bool) -> Command:
    def command(parsed: argparse.Namespace) -> int:
        from dbt.cli.vm.verbs import define

        return define(parsed.files, starts, parsed.json)

    return command


def _do_undefine(parsed: argparse.Namespace) -> int:
    from dbt.cli.vm.verbs import undefine

    return undefine(parsed.names, parsed.json)


def _do_shutdown(verb: str, done: str) -> Command:
    def command(parsed: argparse.Namespace) -> int:
        from dbt.cli.vm.verbs import act

        timeout = None if parsed.timeout is None else parse_seconds("--timeout", parsed.timeout)
        return act(parsed.names, verb, done if timeout is None else "has shut down", parsed.json, {"timeout": timeout})

    return command


def _do_autostart(parsed: argparse.Namespace) -> int:
    from dbt.cli.vm.verbs import act

    done = "does not start with the daemon" if parsed.disable else "starts with the daemon"
    return act(parsed.names, "autostart", done, parsed.json, {"autostart": not parsed.disable})


def _do_schedinfo(parsed: argparse.Namespace) -> int:
    from dbt.cli.vm.share import schedinfo

    return schedinfo(parsed.name, parsed.weight, parsed.cap, parsed.latency, parsed.json)


def _do_console(parsed: argparse.Namespace) -> int:
    from dbt.cli.vm.console import attach

    return attach(parsed.name, parsed.history)


def _do_event(parsed: argparse.Namespace) -> int:
    from dbt.cli.vm.verbs import watch

    return watch(parsed.name, parsed.once, parsed.json)


def _do_daemon(parsed: argparse.Namespace) -> int:
    if parsed.stop:
        from dbt.cli.vm.connection import ask

        ask("POST", "/v1/stop", starts=False)
        return 0
    from dbt.cli.vm.serve import serve

    return serve(parsed.cores, parsed.rate, parsed.idle_exit, parsed.on_demand)


VERBS: dict[str, Verb] = {
    "define": Verb("keep definitions of domains, to be started later", _files, _do_define(False)),
    "create": Verb("define and start domains that are forgotten when they end", _files, _do_define(True)),
    "start": Verb("start domains", _names, _act("start", "started")),
    "shutdown": Verb("ask guests to shut down", _shutdown, _do_shutdown("shutdown", "is to shut down")),
    "reboot": Verb("ask guests to shut down, and start them again", _shutdown, _do_shutdown("reboot", "is to reboot")),
    "reset": Verb("switch machines off and on again, at once", _names, _act("reset", "reset")),
    "destroy": Verb("end machines at once", _names, _act("destroy", "destroyed")),
    "suspend": Verb("let guests stand still", _names, _act("suspend", "suspended")),
    "resume": Verb("let guests go on", _names, _act("resume", "resumed")),
    "undefine": Verb("forget domains, with their snapshots", _names, _do_undefine),
    "list": Verb("list domains", _list, _do_list),
    "dominfo": Verb("show one domain", _name, _do_info),
    "domstats": Verb("show what domains have used", _names_or_all, _do_stats),
    "console": Verb("connect to the console of a domain; Ctrl-] ends the connection", _console, _do_console),
    "autostart": Verb("start domains when the daemon starts", _autostart, _do_autostart),
    "schedinfo": Verb("show or change a domain's share of the host", _schedinfo, _do_schedinfo),
    "event": Verb("print what happens to domains, as it happens", _event, _do_event),
    "daemon": Verb("run the daemon in this process, as a service manager does", _daemon, _do_daemon),
}

"""The verbs of ``dbt vm`` and their options, in virsh's words. What they do is imported when they are called."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from types import ModuleType
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
    Options(parser).text("TYPE", "pv: a domain of Xen; full: a board with devices [what the definition says]", "--type")


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


def _start(parser: Parser) -> None:
    _names(parser)
    Options(parser).flag("boot, although managedsave has saved the machine", "--force-boot")


def _arguments(*arguments: tuple[str, str, str, bool]) -> Callable[[Parser], None]:
    """Return what adds positional arguments: metavariable, help, name, and whether it is required."""

    def add(parser: Parser) -> None:
        shown = (metavar if required else f"[{metavar}]" for metavar, _, _, required in arguments)
        parser.usage = f"{parser.prog} [OPTIONS] {' '.join(shown)}"
        for metavar, help_, name, required in arguments:
            Options(parser).argument(metavar, help_, name, required)

    return add


_NAME = ("NAME", "the domain's name or UUID", "name", True)
_FILE = ("FILE", "the file of the machine's state", "file", True)


def _rates(*rates: tuple[str, str, str]) -> Callable[[Parser], None]:
    """Return what adds options with a rate: metavariable, help, option."""

    def add(parser: Parser) -> None:
        _name(parser)
        for metavar, help_, option in rates:
            Options(parser).text(metavar, help_, option)

    return add


def _resume(parser: Parser) -> None:
    _names(parser)
    Options(parser).flag("also if the machine may run elsewhere: you know that it does not", "--force")


def _migrate(parser: Parser) -> None:
    _arguments(_NAME, ("DEST", "unix:PATH, the socket of another daemon, or tcp:HOST:PORT", "destination", True))(
        parser
    )
    options = Options(parser)
    options.flag("let the guest run meanwhile", "--live")
    options.flag("keep the domain defined there when its guest has ended", "--persistent")
    options.flag("forget the domain here", "--undefinesource")
    options.flag("copy the disks: the other daemon has them in a directory of its own then", "--copy-storage")
    options.flag("also if other machines are at its hub, which it does not reach from there", "--leave-hubs")
    options.text("MIB", "the MiB that are sent in a second at most, while the guest runs", "--bandwidth")
    options.text("DIR", "the directory with the certificates for TCP", "--tls-creds")
    options.flag("TCP without TLS: who reads the line reads the guest's memory", "--unsafe-tcp")


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
    help_ = (
        "the jail of each machine: on takes what the host gives, strict starts none without all of it, off is none [on]"
    )
    options.text("on|strict|off", help_, "--jail", default="on")
    options.text("PLACE", "also take machines of other hosts there: tcp:HOST:PORT", "--migration")
    options.text("DIR", "the directory with the certificates for that", "--tls-creds")
    options.flag("end the daemon that runs; machines go on", "--stop")
    parser.add_argument("--on-demand", action="store_true", help=argparse.SUPPRESS)


# -- what they do ----------------------------------------------------------------------------------


def _act(verb: str, done: str) -> Command:
    def command(parsed: argparse.Namespace) -> int:
        from dbt.cli.vm.verbs import act

        return act(parsed.names, verb, done, parsed.json)

    return command


def _do_start(parsed: argparse.Namespace) -> int:
    from dbt.cli.vm.verbs import act

    return act(parsed.names, "start", "started", parsed.json, {"force_boot": parsed.force_boot})


def _do_resume(parsed: argparse.Namespace) -> int:
    from dbt.cli.vm.verbs import act

    return act(parsed.names, "resume", "resumed", parsed.json, {"force": parsed.force})


def _do_migrate(parsed: argparse.Namespace) -> int:
    from dbt.cli.vm.migrate import migrate

    return migrate(parsed)


def _do_file(verb: str, done: str) -> Command:
    def command(parsed: argparse.Namespace) -> int:
        from dbt.cli.vm.states import with_file

        return with_file(parsed.name, verb, parsed.file, done, parsed.json)

    return command


def _of_states(call: Callable[[ModuleType, argparse.Namespace], int]) -> Command:
    """Return a command of :mod:`dbt.cli.vm.states`."""

    def command(parsed: argparse.Namespace) -> int:
        from dbt.cli.vm import states

        return call(states, parsed)

    return command


def _do_limits(**options: str) -> Command:
    """Return a command that changes limits: by the field of each, its option."""

    def command(parsed: argparse.Namespace) -> int:
        from dbt.cli.vm.states import change_limits

        given = {
            field.replace("_", "-"): (option, getattr(parsed, option.removeprefix("--").replace("-", "_")))
            for field, option in options.items()
        }
        return change_limits(parsed.name, given, parsed.json)

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

        return define(parsed.files, starts, parsed.type, parsed.json)

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


def _do_page(parsed: argparse.Namespace) -> int:
    from dbt.cli.vm.verbs import page

    return page(parsed.json)


def _do_daemon(parsed: argparse.Namespace) -> int:
    if parsed.stop:
        from dbt.cli.vm.connection import ask

        ask("POST", "/v1/stop", starts=False)
        return 0
    from dbt.cli.vm.serve import serve

    return serve(
        parsed.cores,
        parsed.rate,
        parsed.idle_exit,
        parsed.jail,
        parsed.on_demand,
        parsed.migration,
        parsed.tls_creds,
    )


VERBS: dict[str, Verb] = {
    "define": Verb("keep definitions of domains, to be started later", _files, _do_define(False)),
    "create": Verb("define and start domains that are forgotten when they end", _files, _do_define(True)),
    "start": Verb("start domains, or let them go on after managedsave", _start, _do_start),
    "shutdown": Verb("ask guests to shut down", _shutdown, _do_shutdown("shutdown", "is to shut down")),
    "reboot": Verb("ask guests to shut down, and start them again", _shutdown, _do_shutdown("reboot", "is to reboot")),
    "reset": Verb("switch machines off and on again, at once", _names, _act("reset", "reset")),
    "destroy": Verb("end machines at once", _names, _act("destroy", "destroyed")),
    "suspend": Verb("let guests stand still", _names, _act("suspend", "suspended")),
    "resume": Verb("let guests go on", _resume, _do_resume),
    "migrate": Verb("move a machine to another daemon", _migrate, _do_migrate),
    "undefine": Verb("forget domains, with their snapshots", _names, _do_undefine),
    "list": Verb("list domains", _list, _do_list),
    "dominfo": Verb("show one domain", _name, _do_info),
    "domstats": Verb("show what domains have used", _names_or_all, _do_stats),
    "console": Verb("connect to the console of a domain; Ctrl-] ends the connection", _console, _do_console),
    "autostart": Verb("start domains when the daemon starts", _autostart, _do_autostart),
    "schedinfo": Verb("show or change a domain's share of the host", _schedinfo, _do_schedinfo),
    "save": Verb("write a machine to a file and end it", _arguments(_NAME, _FILE), _do_file("save", "saved to")),
    "restore": Verb(
        "let a domain go on from a file of save",
        _arguments(_FILE),
        _of_states(lambda do, p: do.restore(p.file, p.json)),
    ),
    "managedsave": Verb("save machines for their next start, and end them", _names, _act("managedsave", "saved")),
    "dump": Verb("write a machine to a file; it goes on", _arguments(_NAME, _FILE), _do_file("dump", "dumped to")),
    "snapshot-create": Verb(
        "keep the present state of a machine",
        _arguments(_NAME, ("SNAPSHOT", "the snapshot's name [the next number]", "snapshot", False)),
        _of_states(lambda do, p: do.create_snapshot(p.name, p.snapshot, p.json)),
    ),
    "snapshot-list": Verb(
        "list the snapshots of a domain", _name, _of_states(lambda do, p: do.list_snapshots(p.name, p.json))
    ),
    "snapshot-revert": Verb(
        "let a domain go on from a snapshot; what it has now is lost",
        _arguments(_NAME, ("SNAPSHOT", "the snapshot's name", "snapshot", True)),
        _of_states(lambda do, p: do.revert(p.name, p.snapshot, p.json)),
    ),
    "snapshot-delete": Verb(
        "delete a snapshot",
        _arguments(_NAME, ("SNAPSHOT", "the snapshot's name", "snapshot", True)),
        _of_states(lambda do, p: do.delete_snapshot(p.name, p.snapshot, p.json)),
    ),
    "clone": Verb(
        "make a domain as another one, with its present state",
        _arguments(_NAME, ("NEW", "the name of the new domain", "other", True)),
        _of_states(lambda do, p: do.clone(p.name, p.other, p.json)),
    ),
    "blkdeviotune": Verb(
        "show or change what each disk may do in a second; 0 is no limit",
        _rates(("N", "bytes read and written", "--total-bytes-sec"), ("N", "operations", "--total-iops-sec")),
        _do_limits(disk_bytes="--total-bytes-sec", disk_operations="--total-iops-sec"),
    ),
    "domiftune": Verb(
        "show or change what each network card may do in a second; 0 is no limit",
        _rates(("BITS", "bits of frames that it receives", "--inbound"), ("BITS", "that it sends", "--outbound")),
        _do_limits(net_received="--inbound", net_sent="--outbound"),
    ),
    "setmem": Verb(
        "ask a guest to have so much memory, and to give the rest back by its balloon",
        _arguments(_NAME, ("SIZE", "such as 64M", "size", True)),
        _of_states(lambda do, p: do.set_memory(p.name, p.size, p.json)),
    ),
    "memtune": Verb(
        "show or change how much of the host's memory a machine may take",
        _rates(("SIZE", "more than that ends it as a crash; 0: no limit from the next start on", "--hard-limit")),
        _of_states(lambda do, p: do.change_memory_limit(p.name, p.hard_limit, p.json)),
    ),
    "attach-disk": Verb(
        "give a domain a disk, from its next start on",
        _arguments(_NAME, ("DISK", "its file, or a text as for `dbt run --drive`", "disk", True)),
        _of_states(lambda do, p: do.change_disk(p.name, p.disk, "disks", p.json)),
    ),
    "detach-disk": Verb(
        "take a disk from a domain, from its next start on",
        _arguments(_NAME, ("DISK", "its file", "disk", True)),
        _of_states(lambda do, p: do.change_disk(p.name, p.disk, "disks/detach", p.json)),
    ),
    "event": Verb("print what happens to domains, as it happens", _event, _do_event),
    "page": Verb("print the address of a page for a browser of this host", _nothing, _do_page),
    "daemon": Verb("run the daemon in this process, as a service manager does", _daemon, _do_daemon),
}

"""The commands and their options. The modules named after the commands do the work; they are imported when called.

Options are texts and flags here. :mod:`dbt.cli.values` converts the texts. A plain ``dbt run`` does not come here, see
:mod:`dbt.cli.app`; what it may give is said by :class:`dbt.cli.run_options.RunOptions`.
"""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import dbt
from dbt.board.boards import BOARDS, CPU_MODELS
from dbt.board.clock import DEFAULT_INSN_NS
from dbt.cli.status import EPILOG, CommandError, Status
from dbt.cli.values import parse_count
from dbt.frontend.optimizations import Optimizations

#: A command: a function from its arguments to its exit status.
Command = Callable[[argparse.Namespace], int]


def run_command(arguments: Sequence[str]) -> int:
    """Run the command that the arguments name. Return the exit status. Raise CommandError for a wrong command line."""
    try:
        parsed, unknown = make_parser(arguments).parse_known_args(arguments)
    except SystemExit as end:  # --help, --version
        return int(end.code or 0)
    parser: Parser = parsed.parser
    if unknown:
        parser.refuse(unknown[0])
    command: Command = parsed.command
    gc.enable()
    return command(parsed)


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


class _Options:
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


def make_parser(arguments: Sequence[str]) -> Parser:
    """Return the parser of the command ``dbt``. Only the command that the arguments name has its options."""
    parser = Parser(
        prog="dbt",
        usage="dbt COMMAND [OPTIONS] ...",
        description="Run 32-bit ARM (A32) machine code on x86-64 by dynamic binary translation.",
        epilog=EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"dbt {dbt.__version__}", help="print the version")
    add = _commands(parser)
    chosen = next((argument for argument in arguments if not argument.startswith("-")), None)
    for name, help_, add_options in (
        ("run", "run a bare-metal ARM program, or boot a kernel", _add_run),
        ("replay", "run a recorded run again up to an instruction, and show or debug it there", _add_replay),
        ("snapshot", "look at saved machines, check and compare them", _add_snapshot),
        ("translate", "compile ahead what was hot in a program's runs", _add_translate),
        ("trace", "read the recording of a run: what was translated, how and why", _add_trace),
        ("asm", "assemble A32 code", _add_asm),
        ("disasm", "disassemble A32 code, with the program's symbols", _add_disasm),
        ("isa", "list the instructions, made from their specification", _add_isa),
        ("doctor", "check this host, the libraries and the cache", _add_doctor),
        ("cache", "look at, check and empty the directory of translated code", _add_cache),
    ):
        command = add(name, help_)
        if name == chosen:
            add_options(command)
    return parser


def _commands(parser: Parser) -> Callable[[str, str], Parser]:
    """Return a function that adds a command to a parser, given its name and its description in the list of commands."""
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    def add(name: str, help_: str) -> Parser:
        made = commands.add_parser(name, help=help_, usage=f"{parser.prog} {name} [OPTIONS]")
        made.prog = f"{parser.prog} {name}"
        return made

    return add


def _base(options: _Options) -> None:
    help_ = "the file is a flat binary; it goes here [.bin, .img and .raw files: 0x8000, a kernel: 0x10000]"
    options.text("ADDRESS", help_, "--base")


# -- dbt run ---------------------------------------------------------------------------------------


def _add_run(parser: Parser) -> None:
    parser.usage = (
        "dbt run [OPTIONS] PROGRAM [ARGS]...\n"
        "       dbt run [OPTIONS] --kernel FILE\n"
        "       dbt run [OPTIONS] --restore SNAPSHOT"
    )
    parser.description = "Run a bare-metal ARM program, or boot a kernel. Its console is standard input\nand output."
    parser.epilog = EPILOG
    parser.set_defaults(command=_run)

    # The first that is no option is the program, and from there on nothing is ours, "--" neither.
    help_ = (
        "an ELF executable, or a flat binary; none with --kernel. What follows are the guest's arguments, passed on as "
        "they are, options too"
    )
    parser.add_argument("program", nargs=argparse.REMAINDER, metavar="PROGRAM [ARGS]...", help=help_)
    _add_guest(parser)
    _add_machine(parser)
    _add_limits(parser)
    _add_debugger(parser)
    _add_snapshots(parser)
    _add_translation(parser)
    _add_reports(parser)


def _add_guest(parser: Parser) -> None:
    options = _Options(parser, "the guest")
    _base(options)
    options.text("ADDRESS", "begin here, not at the program's own entry", "--entry")
    help_ = "boot a kernel instead: a zImage, a flat image, a uImage or an ELF file"
    options.text("FILE", help_, "--kernel")
    options.text("FILE", "the kernel's initial RAM disk", "--initrd")
    options.text("TEXT", "the kernel's command line", "--append")
    help_ = "the kernel's device tree, a blob; without it the kernel is given one of this board"
    options.text("FILE", help_, "--dtb")
    options.flag("give the kernel ATAGs, as old kernels expect, and no device tree", "--atags")


def _add_machine(parser: Parser) -> None:
    options = _Options(parser, "the machine")
    help_ = (
        f"the board: {', '.join(BOARDS)}. versatile is a Versatile/PB, with RAM from address 0 on; virt is QEMU's "
        "board of that name, with RAM from 0x40000000 on [virt for cortex-a15 and cortex-a7, else versatile]"
    )
    options.text("BOARD", help_, "--board")
    help_ = "RAM, up to 2G; more than 256M hides the devices of the board versatile [128M]"
    options.text("SIZE", help_, "--memory")
    help_ = f"the processor: {', '.join(CPU_MODELS)} [a kernel's: arm926, a program's: any, on virt: cortex-a15]"
    options.text("MODEL", help_, "--cpu")
    options.text("N", "the number of processors, of which there is one [1]", "--smp")
    help_ = (
        "put a virtio source of random numbers on the board virt; its numbers, and those that the board gives to a "
        "kernel, follow from N [no device, and seed=0 for the kernel's]"
    )
    options.text("seed=N", help_, "--rng")
    help_ = (
        "put a virtio disk on the board virt: a raw image, which the guest writes to. readonly: it cannot. snapshot: "
        "what it writes is part of the machine's state, and the file stays as it is. overlay: so too, and what it "
        "flushes is in the file G, to be used again. May be given several times"
    )
    options.texts("file=F[,format=raw][,readonly][,snapshot][,overlay=G][,serial=TEXT]", help_, "--drive")
    help_ = (
        "put a virtio network card on the board virt. unix: it is connected to a unix stream socket at which somebody "
        "listens, as with QEMU's `-netdev stream`, such as passt; hub: to other machines of this process. May be given "
        "several times. With unix, --realtime on is what a network expects [none]"
    )
    options.texts("unix:PATH|hub:NAME|none[,mac=ADDRESS]", help_, "--net")
    help_ = (
        "put a virtio balloon on the board virt, by which the guest gives memory back: what it reports as free is not "
        "in snapshots"
    )
    options.flag(help_, "--balloon")
    help_ = (
        "let the guest of the board virt mount a directory of the host by 9p, under the name TAG ['share']. ro: it can "
        "change nothing. A recording contains what the guest has got of it. May be given several times"
    )
    options.texts("DIR[:TAG][,ro]", help_, "--share")
    help_ = "whether SVC 0x123456 is a semihosting call, which the host answers [a program's: on, a kernel's: off]"
    options.text("on|off", help_, "--semihosting")
    options.text("DIR", "the guest may open files in this directory, by semihosting; else none", "--files")
    help_ = "the time of day when the guest starts, since 1970, or 'now' [2026-01-01; in a replay: the recording's]"
    options.text("SECONDS", help_, "--epoch")
    help_ = (
        "the time that an instruction takes for the guest, in ns, a divisor of 1000; QEMU's -icount shift=3 is 8 "
        f"[{DEFAULT_INSN_NS}; in a replay: the recording's]"
    )
    options.text("NS", help_, "--insn-ns")
    help_ = (
        "on: guest idle time passes in real time, unless a key comes, and a slow guest's time is raised to the host's; "
        "off: idle time is skipped [on a terminal or a socket: on, else and in a replay: off]"
    )
    options.text("on|off", help_, "--realtime")
    help_ = (
        "raw: every key goes to the guest, Ctrl-C too; Ctrl-A X ends the run, Ctrl-A S saves the machine, Ctrl-A P "
        "presses the power key of the board virt, Ctrl-A H helps; line: the terminal edits lines, and Ctrl-C ends the "
        "run [a kernel on a terminal: raw, else line]; virtio: the board virt has a virtio console, hvc0 for "
        "Linux, which gets the input in place of the UART"
    )
    options.text("raw|line|virtio", help_, "--console")
    help_ = (
        "where the console is, in QEMU's words: stdio, null, file:PATH, unix:PATH or tcp:HOST:PORT. A socket connects "
        "there; with ,server it listens, and the guest waits for somebody to connect; with ,server,nowait it does "
        "not. TCP without a HOST is of this host alone [stdio]"
    )
    options.text("END", help_, "--serial")


def _add_limits(parser: Parser) -> None:
    options = _Options(parser, "limits, record and replay")
    options.text("N", "stop after exactly N instructions", "--fuel")
    options.text("SECONDS", "stop after this time", "--timeout")
    help_ = "write down the input of the run and when it came, so that it can be replayed"
    options.text("FILE", help_, "--record")
    help_ = (
        "run again what was recorded, with the same options: the same input comes at the same instruction, and the "
        "end is compared. Standard input is not read. --tier may be another"
    )
    options.text("FILE", help_, "--replay")


def _add_debugger(parser: Parser) -> None:
    options = _Options(parser, "debugger and monitor")
    help_ = (
        "let gdb connect, by `target remote`: to this port of this host, of another one of its addresses, or to a unix "
        "socket. The guest runs until then; port 0 is any that is free"
    )
    options.text("[HOST:]PORT|unix:PATH", help_, "--gdb")
    help_ = (
        "a monitor at a unix socket, which speaks QEMU's machine protocol (QMP): query-status, stop, cont, quit, "
        "system_reset, system_powerdown, x-dbt-info, x-dbt-save. Several clients may be connected. With ,server the "
        "guest waits for the first one, as QEMU's does; with ,server,nowait and with nothing it does not"
    )
    options.text("unix:PATH", help_, "--qmp")
    help_ = "do not start the guest before a debugger lets it (--gdb), or a client of the monitor says cont (--qmp)"
    options.flag(help_, "--wait")
    help_ = (
        "with --gdb, keep the history of the run, so that gdb can run the guest backwards: reverse-stepi, "
        "reverse-continue and the like. It takes some time and up to 256 MiB"
    )
    options.flag(help_, "--history")


def _add_snapshots(parser: Parser) -> None:
    options = _Options(parser, "snapshots")
    help_ = (
        "write the state of the machine to FILE when --fuel, --timeout or Ctrl-C ends the run, so that it can go on "
        "another time; on a raw console also at Ctrl-A S"
    )
    options.text("FILE", help_, "--save")
    options.text("ICOUNT", "write it when exactly so many instructions have retired instead, and go on", "--save-at")
    help_ = (
        "go on from a snapshot, in place of a program or kernel. Processor, RAM, time and program are the snapshot's; "
        "everything else, such as --tier, --files and --console, may be another than before"
    )
    options.text("SNAPSHOT", help_, "--restore")
    help_ = "write only what differs from the snapshot that was restored; FILE goes to the same directory"
    options.flag(help_, "--increment")


def _add_translation(parser: Parser) -> None:
    options = _Options(parser, "translation")
    help_ = (
        "what executes the code. auto: each instruction by a ready handler at first; warm code is stitched, that is, "
        "native code is copied together from ready pieces; hot code is compiled. stitched: as auto, but nothing is "
        "compiled. threaded: handlers alone. reference: slowly, in Python. The guest notices no difference [auto]"
    )
    options.text("TIER", help_, "--tier", default="auto")
    help_ = (
        "with auto, how hot code is compiled: async, sync or off [async]. A loop or a function is hot when it has "
        "executed 32 million instructions, or as many as the variable DBT_HOT_AFTER says"
    )
    options.text("MODE", help_, "--jit", default="async")
    help_ = (
        "with auto, leave out these optimizations, to measure them or to find a defect. Separated by commas: "
        f"{', '.join(Optimizations.names())}"
    )
    options.text("NAMES", help_, "--without")
    help_ = (
        "with auto, write the stages of every region that is compiled to DIR: guest code, uops, LLVM IR before and "
        "after the passes, x86-64 assembly. Regions on disk are not used then"
    )
    options.text("DIR", help_, "--dump")


def _add_reports(parser: Parser) -> None:
    options = _Options(parser, "reports")
    options.flag("print what the run took, to standard error", "--stats")
    options.flag("print the registers at the end, to standard error", "--registers")
    options.text("FILE", "write every instruction and what it changes to FILE; slow", "--trace")
    help_ = "write down what the translator does: a recording for `dbt trace`"
    options.text("FILE", help_, "--record-trace")
    options.flag("with --record-trace, have compiled code count its blocks and exits", "--trace-counts")
    help_ = "name translated code by guest symbol for Linux's perf, in /tmp/perf-PID.map"
    options.flag(help_, "--perf-map")
    options.flag("print the result as a JSON object, the last line of standard error", "--json")


def _run(parsed: argparse.Namespace) -> int:
    from dbt.cli.run import run_program
    from dbt.cli.run_options import RunOptions

    words = parsed.program[1:] if parsed.program[:1] == ["--"] else parsed.program
    parsed.program, parsed.args = (words[0] if words else None), tuple(words[1:])
    return run_program(RunOptions.of(parsed))


# -- dbt translate ---------------------------------------------------------------------------------


def _add_translate(parser: Parser) -> None:
    parser.usage = "dbt translate [OPTIONS] PROGRAM\n       dbt translate [OPTIONS] --kernel FILE"
    parser.description = (
        "Compile what was hot in a program's runs and had not been compiled when they\n"
        "ended, so that the next run has it from the start. A run writes down what it\n"
        "leaves; without this command, the next one compiles it beside the guest.\n"
        "Ctrl-C is safe: what is compiled stays, and the rest is left for another time."
    )
    options = _Options(parser)
    options.argument("PROGRAM", "the program as it was given to `dbt run`, without arguments", "program")
    options.text("FILE", "a kernel instead, as it was given to `dbt run`", "--kernel")
    _base(options)
    options.text("ADDRESS", "where it begins, if `dbt run` was told", "--entry")
    options.text("SIZE", "RAM that is enough to load it [128M]", "--memory", default="128M")
    options.text("BOARD", "the board, if `dbt run` was told", "--board")
    options.text("MODEL", "the processor, if `dbt run` was told", "--cpu")

    def command(parsed: argparse.Namespace) -> int:
        from dbt.cli.run_options import RunOptions
        from dbt.cli.translate import translate

        if parsed.program is None and parsed.kernel is None:
            parser.error("PROGRAM is missing, or --kernel FILE")
        given = {
            name: getattr(parsed, name) for name in ("program", "kernel", "base", "entry", "memory", "board", "cpu")
        }
        return translate(RunOptions(**given))

    parser.set_defaults(command=command)


# -- the other commands ----------------------------------------------------------------------------


def _add_asm(parser: Parser) -> None:
    parser.usage = "dbt asm [OPTIONS] [FILE]"
    parser.description = "Assemble A32 code: a hexadecimal word a line, or a flat binary for\ndbt run --base."
    options = _Options(parser)
    options.argument("FILE", "assembly text in GNU syntax; - is standard input", "source")
    options.text("TEXT", "assemble this text; ';' separates", "-c", "--code")
    options.text("FILE", "write a flat binary", "-o", "--output")
    options.text("ADDRESS", "where the code is to run [0x10000]", "--base", default="0x10000")

    def command(parsed: argparse.Namespace) -> int:
        from dbt.cli.asm import assemble

        return assemble(parsed.source, parsed.code, parsed.output, parsed.base)

    parser.set_defaults(command=command)


def _add_disasm(parser: Parser) -> None:
    parser.usage = "dbt disasm [OPTIONS] [FILE]"
    parser.description = "Disassemble A32 code, with the program's symbols."
    options = _Options(parser)
    options.argument("FILE", "an ELF executable, or with --base a flat binary", "program")
    options.text("HEX", "disassemble these words", "-c", "--code")
    _base(options)
    options.text("ADDRESS", "begin here", "--start")
    options.text("ADDRESS", "end before this", "--stop")

    def command(parsed: argparse.Namespace) -> int:
        from dbt.cli.disasm import disassemble

        return disassemble(parsed.program, parsed.code, parsed.base, parsed.start, parsed.stop)

    parser.set_defaults(command=command)


def _add_isa(parser: Parser) -> None:
    parser.description = (
        "List the instructions, made from their specification.\n\n"
        "Each is innocuous; a call, which traps by design; privileged, which traps in\n"
        "user mode; or sensitive, which does not trap there and does something else.\n"
        "Callouts are what the translator rewrites it into."
    )
    options = _Options(parser)
    options.text("CLASS", "only these: innocuous, call, privileged or sensitive", "--class")
    options.flag("print a JSON array", "--json")

    def command(parsed: argparse.Namespace) -> int:
        from dbt.cli.isa import list_instructions

        return list_instructions(getattr(parsed, "class"), parsed.json)

    parser.set_defaults(command=command)


def _add_doctor(parser: Parser) -> None:
    parser.description = (
        "Check this host, the libraries and the cache, and try a small guest in every\ntier. Status 1 if something is "
        "wrong."
    )

    def command(parsed: argparse.Namespace) -> int:
        from dbt.cli.doctor import diagnose

        return diagnose()

    parser.set_defaults(command=command)


def _reader(
    made: Parser, words: str, file: str, description: str, what: Callable[[argparse.Namespace], int], more: str
) -> _Options:
    """Set up the parser of a command that reads a file. ``more`` is what its usage names behind the file."""
    made.usage = f"dbt {words} [OPTIONS] FILE{more}"
    made.description = description
    made.set_defaults(command=what)
    options = _Options(made)
    options.argument("FILE", file, "file", required=True)
    return options


def _add_trace(parser: Parser) -> None:
    parser.usage = "dbt trace COMMAND [OPTIONS] FILE"
    parser.description = (
        "Read what `dbt run --record-trace FILE` has written: which guest code ran, what\n"
        "it became at each stage, where the time went, and why control left the fast\npath."
    )
    add = _commands(parser)

    def reader(name: str, help_: str, what: Callable[[argparse.Namespace], int], more: str = "") -> _Options:
        made = add(name, help_)
        return _reader(made, f"trace {name}", "a recording", f"{help_[0].upper()}{help_[1:]}.", what, more)

    def stats(parsed: argparse.Namespace) -> int:
        from dbt.cli.trace import print_stats

        return print_stats(parsed.file, parsed.json)

    def top(parsed: argparse.Namespace) -> int:
        from dbt.cli.trace import print_top

        return print_top(parsed.file, parse_count("-n", parsed.n, "lines"), parsed.json)

    def block(parsed: argparse.Namespace) -> int:
        from dbt.cli.trace import print_block

        return print_block(parsed.file, parsed.region, parsed.pane, parsed.json)

    def why(parsed: argparse.Namespace) -> int:
        from dbt.cli.trace import print_why

        return print_why(parsed.file, parsed.place, parsed.json)

    def html(parsed: argparse.Namespace) -> int:
        from dbt.cli.trace import write_page

        return write_page(parsed.file, parsed.output, parse_count("--regions", parsed.regions, "regions"))

    options = reader("html", "write a report: one page that opens offline", html)
    options.text("FILE", "where to [report.html]", "-o", "--output", default="report.html")
    options.text("N", "panes of so many regions, the hottest first [500]", "--regions", default="500")

    def export(parsed: argparse.Namespace) -> int:
        from dbt.cli.trace import write_export

        return write_export(parsed.file, parsed.format, parsed.output)

    def view(parsed: argparse.Namespace) -> int:
        from dbt.cli.trace import view

        return view(parsed.file)

    def diff(parsed: argparse.Namespace) -> int:
        from dbt.cli.trace import print_diff

        return print_diff(parsed.file, parsed.other, parsed.files, parsed.json)

    options = reader("diff", "compare two runs: find the first instruction after which they differ", diff, " OTHER")
    options.argument("OTHER", "another recording", "other", required=True)
    options.text("DIR", "the directory for a guest that had --files in its run", "--files")
    options.flag("print JSON", "--json")
    reader("view", "look at it in the terminal", view)
    options = reader("export", "write it for another tool", export)
    options.text("FORMAT", "chrome (Perfetto too), drcov, folded or speedscope [chrome]", "--format", default="chrome")
    options.text("FILE", "where to [standard output]", "-o", "--output")
    reader("stats", "print the numbers of `dbt run --stats`", stats).flag("print JSON", "--json")
    options = reader("top", "print where the guest's instructions were executed, most first", top)
    options.text("N", "so many lines, 0 for all [20]", "-n", default="20")
    options.flag("print JSON", "--json")
    options = reader("block", "print a region or stitched code: guest code, uops, LLVM IR, x86-64", block, " REGION")
    which = "its number (#3), symbol, or an address in it; for stitched code stitched:SYMBOL or stitched:ADDRESS"
    options.argument("REGION", which, "region", required=True)
    panes = ("guest", "uops", "ir", "optimised", "host", "all")
    options.text("PANE", f"{', '.join(panes[:-1])} or all [all]", "--pane", default="all", choices=panes)
    options.flag("print JSON", "--json")
    options = reader("why", "print why control left compiled code, and what was not compiled", why, " [ADDRESS]")
    options.argument("ADDRESS", "an address or a symbol: in which tiers its code was, and why", "place")
    options.flag("print JSON", "--json")


def _add_replay(parser: Parser) -> None:
    description = (
        "Run again what `dbt run --record FILE` or --record-trace FILE has recorded, up to\n"
        "exactly so many instructions, and print the state of the machine there. With\n"
        "--gdb a debugger can begin there, and go back and forth. The files that the guest\n"
        "is made from must be where they were, and unchanged."
    )

    def command(parsed: argparse.Namespace) -> int:
        from dbt.cli.replay import replay

        if parsed.at is None:
            parser.error("--at ICOUNT is missing")
        return replay(parsed.file, parsed.at, parsed.gdb, parsed.files, parsed.json)

    options = _reader(parser, "replay", "a recording of input, or a trace", description, command, " --at ICOUNT")
    options.text("ICOUNT", "how many instructions to execute", "--at")
    options.text("[HOST:]PORT|unix:PATH", "let gdb connect there, as with `dbt run --gdb`", "--gdb")
    options.text("DIR", "the directory for a guest that had --files in its run", "--files")
    options.flag("print the state as a JSON object, the last line of standard error", "--json")


def _add_snapshot(parser: Parser) -> None:
    parser.usage = "dbt snapshot COMMAND [OPTIONS] FILE"
    parser.description = "Look at, check and compare what `dbt run --save FILE` has written."
    add = _commands(parser)

    def reader(
        name: str, help_: str, description: str, what: Callable[[argparse.Namespace], int], more: str = ""
    ) -> _Options:
        return _reader(add(name, help_), f"snapshot {name}", "a snapshot", description, what, more)

    def info(parsed: argparse.Namespace) -> int:
        from dbt.cli.snapshot import print_info

        return print_info(parsed.file, parsed.json)

    def verify(parsed: argparse.Namespace) -> int:
        from dbt.cli.snapshot import verify

        return verify(parsed.file, parsed.files, parsed.json)

    def diff(parsed: argparse.Namespace) -> int:
        from dbt.cli.snapshot import print_diff

        return print_diff(parsed.file, parsed.other, parsed.json)

    description = (
        "Print what a snapshot is of: the guest, where it stands, its RAM, and the files\n"
        "that the snapshot needs. RAM is not read."
    )
    reader("info", "print what a snapshot is of", description, info).flag("print a JSON object", "--json")
    description = (
        "Check every byte of a snapshot and of its parents, and that a machine can have\n"
        "the state. What is wrong is said in one paragraph, with status 121."
    )
    options = reader("verify", "check a snapshot and its parents", description, verify)
    options.text("DIR", "the directory for a guest that has files open", "--files")
    options.flag("print a JSON object", "--json")
    description = (
        "Print what differs between two snapshots: registers by name, devices by field,\n"
        "and pages of RAM with the symbols of the bytes that differ. Status 1 if anything\n"
        "does."
    )
    options = reader("diff", "print what differs between two snapshots", description, diff, " OTHER")
    options.argument("OTHER", "another snapshot", "other", required=True)
    options.flag("print a JSON object", "--json")


def _add_cache(parser: Parser) -> None:
    parser.usage = "dbt cache COMMAND [OPTIONS]"
    parser.description = "Look at, check and empty the directory of translated code."
    add = _commands(parser)

    info = add("info", "print where the cache is and what is in it")
    info.description = (
        "Print where the cache is and what is in it.\n\n"
        "The directory is $DBT_CACHE_DIR, else dbt in $XDG_CACHE_HOME or ~/.cache.\n"
        "Compiled regions may take $DBT_CACHE_SIZE bytes (64M, 1G, 0: write none; else\n"
        "256M), of which those used least recently go first."
    )
    _Options(info).flag("print a JSON object", "--json")

    def print_info(parsed: argparse.Namespace) -> int:
        from dbt.cli.cache import print_info

        return print_info(parsed.json)

    clear = add("clear", "remove what dbt put there")
    clear.description = "Remove what dbt put there. What is not dbt's stays, and a guest that runs is\nnot disturbed."
    _Options(clear).flag("only compiled regions: the handlers take seconds to build again", "--regions")

    def clear_cache(parsed: argparse.Namespace) -> int:
        from dbt.cli.cache import clear

        return clear(parsed.regions)

    verify = add("verify", "check every file's checksums")
    verify.description = "Check every file's checksums and name those that are damaged. Status 1 if there\nare any."
    _Options(verify).flag("remove the files that are damaged", "--repair")

    def verify_cache(parsed: argparse.Namespace) -> int:
        from dbt.cli.cache import verify

        return verify(parsed.repair)

    for command, function in ((info, print_info), (clear, clear_cache), (verify, verify_cache)):
        command.set_defaults(command=function)

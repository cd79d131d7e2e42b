"""The options of the commands other than ``dbt run``."""

from __future__ import annotations

import argparse

from dbt.cli.argument_parser import Command, Options, Parser, add_base, add_commands
from dbt.cli.values import parse_count


def add_translate(parser: Parser) -> None:
    parser.usage = "dbt translate [OPTIONS] PROGRAM\n       dbt translate [OPTIONS] --kernel FILE"
    parser.description = (
        "Compile what was hot in a program's runs and had not been compiled when they\n"
        "ended, so that the next run has it from the start. A run writes down what it\n"
        "leaves; without this command, the next one compiles it beside the guest.\n"
        "Ctrl-C is safe: what is compiled stays, and the rest is left for another time."
    )
    options = Options(parser)
    options.argument("PROGRAM", "the program as it was given to `dbt run`, without arguments", "program")
    options.text("FILE", "a kernel instead, as it was given to `dbt run`", "--kernel")
    add_base(options)
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


def add_asm(parser: Parser) -> None:
    parser.usage = "dbt asm [OPTIONS] [FILE]"
    parser.description = "Assemble A32 code: a hexadecimal word a line, or a flat binary for\ndbt run --base."
    options = Options(parser)
    options.argument("FILE", "assembly text in GNU syntax; - is standard input", "source")
    options.text("TEXT", "assemble this text; ';' separates", "-c", "--code")
    options.text("FILE", "write a flat binary", "-o", "--output")
    options.text("ADDRESS", "where the code is to run [0x10000]", "--base", default="0x10000")

    def command(parsed: argparse.Namespace) -> int:
        from dbt.cli.asm import assemble

        return assemble(parsed.source, parsed.code, parsed.output, parsed.base)

    parser.set_defaults(command=command)


def add_disasm(parser: Parser) -> None:
    parser.usage = "dbt disasm [OPTIONS] [FILE]"
    parser.description = "Disassemble A32 code, with the program's symbols."
    options = Options(parser)
    options.argument("FILE", "an ELF executable, or with --base a flat binary", "program")
    options.text("HEX", "disassemble these words", "-c", "--code")
    add_base(options)
    options.text("ADDRESS", "begin here", "--start")
    options.text("ADDRESS", "end before this", "--stop")

    def command(parsed: argparse.Namespace) -> int:
        from dbt.cli.disasm import disassemble

        return disassemble(parsed.program, parsed.code, parsed.base, parsed.start, parsed.stop)

    parser.set_defaults(command=command)


def add_isa(parser: Parser) -> None:
    parser.description = (
        "List the instructions, made from their specification.\n\n"
        "Each is innocuous; a call, which traps by design; privileged, which traps in\n"
        "user mode; or sensitive, which does not trap there and does something else.\n"
        "Callouts are what the translator rewrites it into."
    )
    options = Options(parser)
    options.text("CLASS", "only these: innocuous, call, privileged or sensitive", "--class")
    options.flag("print a JSON array", "--json")

    def command(parsed: argparse.Namespace) -> int:
        from dbt.cli.isa import list_instructions

        return list_instructions(getattr(parsed, "class"), parsed.json)

    parser.set_defaults(command=command)


def add_doctor(parser: Parser) -> None:
    parser.description = (
        "Check this host, the libraries and the cache, and try a small guest in every\ntier. Status 1 if something is "
        "wrong."
    )

    def command(parsed: argparse.Namespace) -> int:
        from dbt.cli.doctor import diagnose

        return diagnose()

    parser.set_defaults(command=command)


def _reader(made: Parser, words: str, file: str, description: str, what: Command, more: str) -> Options:
    """Set up the parser of a command that reads a file. ``more`` is what its usage names behind the file."""
    made.usage = f"dbt {words} [OPTIONS] FILE{more}"
    made.description = description
    made.set_defaults(command=what)
    options = Options(made)
    options.argument("FILE", file, "file", required=True)
    return options


def add_trace(parser: Parser) -> None:
    parser.usage = "dbt trace COMMAND [OPTIONS] FILE"
    parser.description = (
        "Read what `dbt run --record-trace FILE` has written: which guest code ran, what\n"
        "it became at each stage, where the time went, and why control left the fast\npath."
    )
    add = add_commands(parser)

    def reader(name: str, help_: str, what: Command, more: str = "") -> Options:
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


def add_replay(parser: Parser) -> None:
    description = (
        "Run again what `dbt run --record FILE` or --record-trace FILE has recorded, up\n"
        "to exactly so many instructions, and print the state of the machine there. With\n"
        "--gdb a debugger can begin there, and go back and forth. The files that the\n"
        "guest is made from must be where they were, and unchanged."
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


def add_snapshot(parser: Parser) -> None:
    parser.usage = "dbt snapshot COMMAND [OPTIONS] FILE"
    parser.description = "Look at, check and compare what `dbt run --save FILE` has written."
    add = add_commands(parser)

    def reader(name: str, help_: str, description: str, what: Command, more: str = "") -> Options:
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


def add_xenstore(parser: Parser) -> None:
    parser.usage = "dbt xenstore DOMAIN ls|read|write|rm|watch NODE [VALUE]"
    parser.description = (
        "Look at the XenStore of a domain of Xen that runs, and change it, as Xen's\n"
        "toolstack does. A NODE that does not begin with a slash is one of the domain's\n"
        "own. `write control/shutdown poweroff` asks it to power off."
    )
    options = Options(parser)
    help_ = "the name of a domain of `dbt vm`, or the socket that was given to `dbt run --xenstore`"
    options.argument("DOMAIN", help_, "domain", required=True)
    options.argument("OPERATION", "ls, read, write, rm or watch", "operation", required=True)
    options.argument("NODE", "the path of a node", "node", required=True)
    options.argument("VALUE", "what to write", "value")

    def command(parsed: argparse.Namespace) -> int:
        from dbt.cli.xenstore import OPERATIONS, xenstore

        if parsed.operation not in OPERATIONS:
            parser.error(f"{parsed.operation} is none of {', '.join(OPERATIONS)}")
        if (parsed.value is not None) != (parsed.operation == "write"):
            parser.error("VALUE is what to write, and write alone has one")
        return xenstore(parsed.domain, parsed.operation, parsed.node, parsed.value)

    parser.set_defaults(command=command)


def add_cache(parser: Parser) -> None:
    parser.usage = "dbt cache COMMAND [OPTIONS]"
    parser.description = "Look at, check and empty the directory of translated code."
    add = add_commands(parser)

    info = add("info", "print where the cache is and what is in it")
    info.description = (
        "Print where the cache is and what is in it.\n\n"
        "The directory is $DBT_CACHE_DIR, else dbt in $XDG_CACHE_HOME or ~/.cache.\n"
        "Compiled regions may take $DBT_CACHE_SIZE bytes (64M, 1G, 0: write none; else\n"
        "256M), of which those used least recently go first."
    )
    Options(info).flag("print a JSON object", "--json")

    def print_info(parsed: argparse.Namespace) -> int:
        from dbt.cli.cache import print_info

        return print_info(parsed.json)

    clear = add("clear", "remove what dbt put there")
    clear.description = "Remove what dbt put there. What is not dbt's stays, and a guest that runs is\nnot disturbed."
    Options(clear).flag("only compiled regions: the handlers take seconds to build again", "--regions")

    def clear_cache(parsed: argparse.Namespace) -> int:
        from dbt.cli.cache import clear

        return clear(parsed.regions)

    verify = add("verify", "check every file's checksums")
    verify.description = "Check every file's checksums and name those that are damaged. Status 1 if there\nare any."
    Options(verify).flag("remove the files that are damaged", "--repair")

    def verify_cache(parsed: argparse.Namespace) -> int:
        from dbt.cli.cache import verify

        return verify(parsed.repair)

    for command, function in ((info, print_info), (clear, clear_cache), (verify, verify_cache)):
        command.set_defaults(command=function)


def add_guest(parser: Parser) -> None:
    parser.usage = "dbt guest COMMAND [OPTIONS]"
    parser.description = (
        "Choose the kernel of the small Linux in which programs for Linux and containers\n"
        "run. A checkout of dbt has one; the Python package has none."
    )
    add = add_commands(parser)

    import_ = add("import", "take the kernel of a Debian package")
    import_.description = (
        "Take the kernel and the modules of a Debian package, such as the one on which\n"
        "linux-image-armmp for armhf depends. A guest is booted with it; if it comes up,\n"
        "all guests have this kernel from then on."
    )
    Options(import_).argument("PACKAGE", "a file linux-image-*.deb", "package", required=True)

    def import_kernel(parsed: argparse.Namespace) -> int:
        from dbt.cli.guest import import_kernel

        return import_kernel(parsed.package)

    info = add("info", "print which kernel guests have")
    info.description = (
        "Print which kernel guests have: that of $DBT_LINUX_GUEST, a directory, else the\n"
        "one that was imported, else the checkout's."
    )

    def print_guest(parsed: argparse.Namespace) -> int:
        from dbt.cli.guest import print_guest

        return print_guest()

    remove = add("remove", "remove the kernel that was imported")
    remove.description = "Remove the kernel that was imported."

    def remove_kernel(parsed: argparse.Namespace) -> int:
        from dbt.cli.guest import remove_kernel

        return remove_kernel()

    for command, function in ((import_, import_kernel), (info, print_guest), (remove, remove_kernel)):
        command.set_defaults(command=function)

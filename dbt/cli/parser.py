"""The commands and their options. The modules named after the commands do the work; they are imported when called.

Options are texts and flags here. :mod:`dbt.cli.values` converts the texts. A plain ``dbt run`` does not come here, see
:mod:`dbt.cli.app`; what it may give is said by :class:`dbt.cli.run_options.RunOptions`.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Sequence

import dbt
from dbt.board.boards import BOARDS, CPU_MODELS
from dbt.board.clock import DEFAULT_INSN_NS
from dbt.cli import command_arguments as others
from dbt.cli.argument_parser import Command, Options, Parser, add_base, add_commands
from dbt.cli.cluster_arguments import add_cluster
from dbt.cli.net_options import add_net_options
from dbt.cli.status import EPILOG
from dbt.frontend.optimizations import Optimizations


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


def make_parser(arguments: Sequence[str]) -> Parser:
    """Return the parser of the command ``dbt``. Only the command that the arguments name has its options."""
    parser = Parser(
        prog="dbt",
        usage="dbt COMMAND [OPTIONS] ...",
        description="Run 32-bit ARM (A32) machine code on x86-64 by dynamic binary translation.",
        epilog=EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"dbt {dbt.__version__}", help="print the version")
    add = add_commands(parser)
    chosen = next((argument for argument in arguments if not argument.startswith("-")), None)
    for name, help_, add_options in (
        ("run", "run an ARM program, bare-metal or for Linux, or boot a kernel", _add_run),
        ("replay", "run a recorded run again up to an instruction, and show or debug it there", others.add_replay),
        ("vm", "run many machines on this host, by a daemon", _add_vm),
        ("container", "run ARM containers for docker's clients, each in a virtual machine", _add_container),
        ("cluster", "run several machines and the network between them, record and replay them", add_cluster),
        ("snapshot", "look at saved machines, check and compare them", others.add_snapshot),
        ("translate", "compile ahead what was hot in a program's runs", others.add_translate),
        ("trace", "read the recording of a run: what was translated, how and why", others.add_trace),
        ("asm", "assemble A32 code", others.add_asm),
        ("disasm", "disassemble A32 code, with the program's symbols", others.add_disasm),
        ("isa", "list the instructions, made from their specification", others.add_isa),
        ("xenstore", "look at the XenStore of a domain of Xen that runs, and change it", others.add_xenstore),
        ("doctor", "check this host, the libraries and the cache", others.add_doctor),
        ("guest", "choose the kernel of programs for Linux and of containers", others.add_guest),
        ("cache", "look at, check and empty the directory of translated code", others.add_cache),
    ):
        command = add(name, help_)
        if name == chosen:
            add_options(command)
    return parser


def _add_vm(parser: Parser) -> None:
    from dbt.cli.vm.commands import add_vm

    add_vm(parser)


def _add_container(parser: Parser) -> None:
    from dbt.cli.container.commands import add_container

    add_container(parser)


# -- dbt run ---------------------------------------------------------------------------------------


def _add_run(parser: Parser) -> None:
    parser.usage = (
        "dbt run [OPTIONS] PROGRAM [ARGS]...\n"
        "       dbt run [OPTIONS] --kernel FILE\n"
        "       dbt run [OPTIONS] --restore SNAPSHOT\n"
        "       dbt run [OPTIONS] --incoming PLACE"
    )
    parser.description = (
        "Run an ARM program, bare-metal or for Linux, or boot a kernel. Its console is\nstandard input and output."
    )
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
    _add_migration(parser)
    _add_translation(parser)
    _add_reports(parser)


def _add_guest(parser: Parser) -> None:
    options = Options(parser, "the guest")
    add_base(options)
    options.text("ADDRESS", "begin here, not at the program's own entry", "--entry")
    help_ = (
        "linux: the program is one for Linux, and runs in a small Linux guest. none: it is a bare-metal one "
        "[what the ELF file says]"
    )
    options.text("OS", help_, "--os")
    help_ = (
        "the root directory of a program for Linux, with the dynamic linker and the libraries that it needs. It is not "
        "changed [$QEMU_LD_PREFIX, or an empty one]"
    )
    options.text("DIR", help_, "--root")
    help_ = "boot a kernel instead: a zImage, a flat image, a uImage or an ELF file"
    options.text("FILE", help_, "--kernel")
    options.text("FILE", "the kernel's initial RAM disk", "--initrd")
    options.text("TEXT", "the kernel's command line", "--append")
    help_ = "the kernel's device tree, a blob; without it the kernel is given one of this board"
    options.text("FILE", help_, "--dtb")
    options.flag("give the kernel ATAGs, as old kernels expect, and no device tree", "--atags")


def _add_machine(parser: Parser) -> None:
    options = Options(parser, "the machine")
    help_ = (
        f"the board: {', '.join(BOARDS)}. versatile is a Versatile/PB, with RAM from address 0 on; virt is QEMU's "
        "board of that name, with RAM from 0x40000000 on; xen is a domain of Xen on ARM, with its hypercalls and the "
        "console hvc0 [virt for cortex-a15 and cortex-a7, else versatile]"
    )
    options.text("BOARD", help_, "--board")
    options.flag("the same as --board xen", "--xen")
    help_ = "RAM, up to 2G; more than 256M hides the devices of the board versatile [128M]"
    options.text("SIZE", help_, "--memory")
    help_ = f"the processor: {', '.join(CPU_MODELS)} [a kernel's: arm926, a program's: any, on virt: cortex-a15]"
    options.text("MODEL", help_, "--cpu")
    options.text("N", "the number of processors, of which there is one [1]", "--smp")
    help_ = (
        "give the guest a virtio source of random numbers; its numbers, and those that the board gives to a "
        "kernel, follow from N [no device, and seed=0 for the kernel's]"
    )
    options.text("seed=N", help_, "--rng")
    help_ = (
        "give the guest a virtio disk: a raw image, which the guest writes to, or with format=qcow2 one of that "
        "format. readonly: the guest cannot write. snapshot: what it writes is part of the machine's state, and the "
        "file stays as it is. overlay=G: so too, and what it flushes is in the file G, to be used again. serial=TEXT: "
        "the disk's serial number. A qcow2 image needs `backing=FILE[,backing-format=qcow2]` for each image behind it. "
        "May be given several times"
    )
    options.texts("file=F[,OPTION]...", help_, "--drive")
    add_net_options(options)
    help_ = (
        "give the guest a virtio balloon, by which the guest gives memory back: what it reports as free is not "
        "in snapshots"
    )
    options.flag(help_, "--balloon")
    help_ = "ask the guest at the beginning to give back so much memory by the balloon, which the board has then"
    options.text("SIZE", help_, "--balloon-size")
    help_ = (
        "let the guest mount a directory of the host by 9p, under the name TAG ['share']. ro: it can "
        "change nothing. A recording contains what the guest has got of it. May be given several times"
    )
    options.texts("DIR[:TAG][,ro]", help_, "--share")
    help_ = (
        "give the guest a virtio socket device (AF_VSOCK) with the number CID, from 3 on. Who "
        "connects to the unix socket PATH and sends the line `CONNECT PORT` is connected to that port of the guest; a "
        "program of the guest that connects to a port of the host (CID 2) is connected to the unix socket PATH_PORT"
    )
    options.text("CID,unix:PATH|CID,none", help_, "--vsock")
    help_ = (
        "where programs of the host look at the XenStore of a domain of Xen (--xen), and change it: `dbt xenstore`. "
        "What they change is recorded"
    )
    options.text("unix:PATH", help_, "--xenstore")
    help_ = "whether SVC 0x123456 is a semihosting call, which the host answers [a program's: on, a kernel's: off]"
    options.text("on|off", help_, "--semihosting")
    options.text("DIR", "the guest may open files in this directory, by semihosting; else none", "--files")
    help_ = "the time of day when the guest starts, since 1970, or 'now' [2026-01-01; in a replay: the recording's]"
    options.text("SECONDS", help_, "--epoch")
    help_ = (
        "the time that an instruction takes for the guest, in ns, a divisor of 1000, 0.5, 0.2 or 0.1; QEMU's -icount "
        f"shift=3 is 8 [{DEFAULT_INSN_NS}; in a replay: the recording's]"
    )
    options.text("NS", help_, "--insn-ns")
    help_ = (
        "on: guest idle time passes in real time, unless a key comes, and a slow guest's time is raised to the host's; "
        "off: idle time is skipped [on a terminal, a socket or a network outside this process: on, else and in a "
        "replay: off]"
    )
    options.text("on|off", help_, "--realtime")
    help_ = (
        "raw: every key goes to the guest, Ctrl-C too; Ctrl-A X ends the run, Ctrl-A S saves the machine, Ctrl-A P "
        "presses the power key of the board virt, Ctrl-A H helps; line: the terminal edits lines, and Ctrl-C ends the "
        "run [a kernel on a terminal: raw, else line]; virtio: the guest has a virtio console, hvc0 for "
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
    options = Options(parser, "limits, record and replay")
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
    options = Options(parser, "debugger and monitor")
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
    help_ = "do not start the guest before a debugger lets it (--gdb) or, without --gdb, a client says cont (--qmp)"
    options.flag(help_, "--wait")
    help_ = (
        "with --gdb, keep the history of the run, so that gdb can run the guest backwards: reverse-stepi, "
        "reverse-continue and the like. It takes some time and up to 256 MiB"
    )
    options.flag(help_, "--history")


def _add_snapshots(parser: Parser) -> None:
    options = Options(parser, "snapshots")
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


def _add_migration(parser: Parser) -> None:
    options = Options(parser, "live migration")
    help_ = (
        "wait for a machine that is moved here while it runs, by the monitor's command migrate (--qmp) of another run. "
        "Processor, RAM, time and program are its own; disks, network cards and the like are given here. With TCP to "
        "other hosts, --tls-creds or ,plain says how far the line is trusted"
    )
    options.text("unix:PATH|tcp:HOST:PORT[,plain]", help_, "--incoming")
    help_ = "the directory with ca-cert.pem, server-cert.pem and server-key.pem, as QEMU's tls-creds-x509 has them"
    options.text("DIR", help_, "--tls-creds")


def _add_translation(parser: Parser) -> None:
    options = Options(parser, "translation")
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
    options = Options(parser, "reports")
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

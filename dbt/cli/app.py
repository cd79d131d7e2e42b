"""The commands and their options. What they do is in the modules named after them, imported when called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

import dbt
from dbt.cli.report import guarded, keep_standard_descriptors
from dbt.cli.status import EPILOG, CommandError, Status
from dbt.frontend.techniques import Techniques
from dbt.machine.cpu_models import CPU_MODELS

#: What typer raises for a wrong command line. Older versions take it from click, newer ones have their own.
UsageError: type[Exception] = typer.BadParameter.__bases__[0]


class _TextParameters:
    """Mixed into a command, it gives it its parameters as the texts that they are.

    typer has pydantic convert each of them, even those that are not given, which takes 200 ms at
    start-up. So parameters are declared as texts or flags here, and :mod:`dbt.cli.values` reads them.
    """

    def get_params(self, context: Any) -> list[Any]:
        parameters: list[Any] = super().get_params(context)  # type: ignore[misc]
        for parameter in parameters:
            parameter.process_value = partial(_keep_text, parameter)
        return parameters


def _keep_text(parameter: Any, context: Any, value: Any) -> Any:
    """What click's ``Parameter.process_value`` does, without the conversion."""
    if value is None and parameter.required:
        raise UsageError(f"{parameter.metavar} is missing", context)
    return value if parameter.callback is None else parameter.callback(context, parameter, value)


class TextCommand(_TextParameters, TyperCommand):
    """A command whose parameters are texts and flags."""


class TextGroup(_TextParameters, TyperGroup):
    """A group of commands whose own parameters are texts and flags."""


app = typer.Typer(
    name="dbt",
    cls=TextGroup,
    help="Run 32-bit ARM (A32) machine code on x86-64 by dynamic binary translation.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def run_app(arguments: Sequence[str]) -> int:
    """Run the command that the arguments name; the result is the exit status."""
    keep_standard_descriptors()
    return guarded(partial(_dispatch, list(arguments)))


def _dispatch(arguments: list[str]) -> int:
    try:
        return app(args=arguments, prog_name="dbt", standalone_mode=False) or Status.DONE
    except UsageError as error:
        raise CommandError(_usage_message(error), Status.USAGE) from None
    except typer.Abort:
        return Status.INTERRUPTED


def _usage_message(error: Any) -> str:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "dbt"
    return f"{error.format_message().rstrip('.')}. See `{command} --help`."


def _finish(command: Callable[[], int]) -> NoReturn:
    """Run the command and end with its status. What it raises must not reach typer, which has its own ideas."""
    raise typer.Exit(guarded(command))


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"dbt {dbt.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True, epilog=EPILOG)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


def _option(metavar: str, help_: str, *names: str) -> Any:
    return typer.Option(*names, metavar=metavar, help=help_)


_Base = Annotated[
    str | None, _option("ADDRESS", "The file is a flat binary; it goes here. [.bin, .img and .raw files: 0x8000]")
]


@app.command(cls=TextCommand, epilog=EPILOG, context_settings={"allow_interspersed_args": False})
def run(
    program: Annotated[
        str | None, typer.Argument(metavar="PROGRAM", help="An ELF executable, or a flat binary. None with --kernel.")
    ] = None,
    args: Annotated[
        list[str] | None,
        typer.Argument(metavar="ARGS", help="Arguments for the guest, passed on as they are, options too."),
    ] = None,
    memory: Annotated[
        str, _option("SIZE", "RAM, at address 0, up to 2G. More than 256M hides the board's devices.")
    ] = "128M",
    kernel: Annotated[
        str | None,
        _option("FILE", "Boot a Linux kernel instead: a zImage, an uncompressed Image, a uImage or an ELF file."),
    ] = None,
    initrd: Annotated[str | None, _option("FILE", "The kernel's initial RAM disk.")] = None,
    append: Annotated[str | None, _option("TEXT", "The kernel's command line.")] = None,
    dtb: Annotated[
        str | None,
        _option("FILE", "The device tree for the kernel, a blob. Else it is given one of the board as it is here."),
    ] = None,
    atags: Annotated[
        bool, typer.Option("--atags", help="Give the kernel ATAGs, not a device tree, as old ones expect.")
    ] = False,
    cpu: Annotated[
        str | None,
        _option("MODEL", f"The processor: {', '.join(CPU_MODELS)}. [a kernel's: arm926, a program's: any]"),
    ] = None,
    semihosting: Annotated[
        str | None,
        _option("on|off", "Whether SVC 0x123456 asks the host for something. [a program's: on, a kernel's: off]"),
    ] = None,
    fuel: Annotated[str | None, _option("N", "Stop after exactly N instructions.")] = None,
    timeout: Annotated[str | None, _option("SECONDS", "Stop after this time.")] = None,
    tier: Annotated[
        str, _option("TIER", "What executes the code: auto, threaded (compiles nothing) or reference (slow).")
    ] = "auto",
    jit: Annotated[str, _option("MODE", "With auto, how hot code is compiled: async, sync or off.")] = "async",
    without: Annotated[
        str | None,
        _option(
            "NAMES",
            "With auto, leave out techniques that make code fast, to see what they are worth or to find a defect: "
            f"of {', '.join(Techniques.names())}, separated by commas.",
        ),
    ] = None,
    dump: Annotated[
        str | None,
        _option(
            "DIR",
            "With auto, write the stages of every region that is compiled to DIR: guest code, uops, LLVM IR before and "
            "after the passes, x86-64 assembly. Regions on disk are not used then.",
        ),
    ] = None,
    base: _Base = None,
    entry: Annotated[str | None, _option("ADDRESS", "Begin here, not at the program's own entry.")] = None,
    files: Annotated[
        str | None, _option("DIR", "The guest may open files in this directory, by semihosting. Else none.")
    ] = None,
    epoch: Annotated[
        str | None,
        _option(
            "SECONDS",
            "The time of day when the guest starts, since 1970, or 'now'. Else it is 2026-01-01 in every run. "
            "An instruction takes 10 ns of the guest's time.",
        ),
    ] = None,
    realtime: Annotated[
        str | None,
        _option(
            "on|off",
            "On: what the guest waits takes as long for you, unless a key comes. Off: its time jumps ahead. "
            "[on a terminal: on, else and in a replay: off]",
        ),
    ] = None,
    console: Annotated[
        str | None,
        _option(
            "raw|line",
            "Raw: every key goes to the guest, Ctrl-C too; Ctrl-A X ends the run, Ctrl-A H helps. Line: the terminal "
            "edits lines, and Ctrl-C ends the run. [a kernel on a terminal: raw, else line]",
        ),
    ] = None,
    record: Annotated[
        str | None, _option("FILE", "Write down the input of the run and when it came, so that it can be replayed.")
    ] = None,
    replay: Annotated[
        str | None,
        _option(
            "FILE",
            "Run again what was recorded, with the same options: the same input comes at the same instruction, and the "
            "end is compared. Standard input is not read. --tier may be another.",
        ),
    ] = None,
    stats: Annotated[bool, typer.Option("--stats", help="Print what the run took, to standard error.")] = False,
    registers: Annotated[
        bool, typer.Option("--registers", help="Print the registers at the end, to standard error.")
    ] = False,
    trace: Annotated[str | None, _option("FILE", "Write every instruction and what it changes to FILE. Slow.")] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print the result as a JSON object, the last line of standard error.")
    ] = False,
) -> None:
    """Run a bare-metal ARM program, or boot a kernel. Its console is standard input and output."""
    from dbt.cli.options import RunOptions
    from dbt.cli.run import run_program

    options = RunOptions(
        program=program,
        args=tuple(args or ()),
        kernel=kernel,
        initrd=initrd,
        dtb=dtb,
        append=append,
        atags=atags,
        cpu=cpu,
        semihosting=semihosting,
        memory=memory,
        fuel=fuel,
        timeout=timeout,
        tier=tier,
        jit=jit,
        without=without,
        dump=dump,
        base=base,
        entry=entry,
        files=files,
        epoch=epoch,
        realtime=realtime,
        console=console,
        record=record,
        replay=replay,
        stats=stats,
        registers=registers,
        trace=trace,
        json=json,
    )
    _finish(lambda: run_program(options))


@app.command(cls=TextCommand)
def asm(
    source: Annotated[
        str | None, typer.Argument(metavar="FILE", help="Assembly text in GNU syntax; - is standard input.")
    ] = None,
    code: Annotated[str | None, _option("TEXT", "Assemble this text; ';' separates.", "-c")] = None,
    output: Annotated[str | None, _option("FILE", "Write a flat binary.", "-o")] = None,
    base: Annotated[str, _option("ADDRESS", "Where the code is to run.")] = "0x10000",
) -> None:
    """Assemble A32 code: a hexadecimal word a line, or a flat binary for dbt run --base."""
    from dbt.cli.asm import assemble

    _finish(lambda: assemble(source, code, output, base))


@app.command(cls=TextCommand)
def disasm(
    program: Annotated[
        str | None, typer.Argument(metavar="FILE", help="An ELF executable, or with --base a flat binary.")
    ] = None,
    code: Annotated[str | None, _option("HEX", "Disassemble these words.", "-c")] = None,
    base: _Base = None,
    start: Annotated[str | None, _option("ADDRESS", "Begin here.")] = None,
    stop: Annotated[str | None, _option("ADDRESS", "End before this.")] = None,
) -> None:
    """Disassemble A32 code, with the program's symbols."""
    from dbt.cli.disasm import disassemble

    _finish(lambda: disassemble(program, code, base, start, stop))


@app.command("isa", cls=TextCommand)
def isa_(
    class_: Annotated[
        str | None, _option("CLASS", "Only these: innocuous, call, privileged or sensitive.", "--class")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON array.")] = False,
) -> None:
    """List the instructions, made from their specification.

    Each is innocuous; a call, which traps by design; privileged, which traps in user mode; or sensitive, which does
    not trap there and does something else. Callouts are what the translator rewrites it into.
    """

    def command() -> int:
        from dbt.cli.isa import list_instructions

        return list_instructions(class_, json)

    _finish(command)


@app.command(cls=TextCommand)
def doctor() -> None:
    """Check this host, the libraries and the cache, and try a small guest. Status 1 if something is wrong."""
    from dbt.cli.doctor import diagnose

    _finish(diagnose)


cache = typer.Typer(cls=TextGroup)
app.add_typer(cache, name="cache", help="Look at, check and empty the directory of translated code.")


@cache.callback(invoke_without_command=True)
def _cache(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@cache.command(cls=TextCommand)
def info(json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False) -> None:
    """Print where the cache is and what is in it.

    The directory is $DBT_CACHE_DIR, else dbt in $XDG_CACHE_HOME or ~/.cache. Compiled regions may take $DBT_CACHE_SIZE
    bytes (64M, 1G, 0 for none; else 256M), of which those used least recently go first.
    """
    from dbt.cli.cache import print_info

    _finish(lambda: print_info(json))


@cache.command(cls=TextCommand)
def clear(
    regions: Annotated[
        bool, typer.Option("--regions", help="Only compiled regions: the handlers take seconds to build again.")
    ] = False,
) -> None:
    """Remove what dbt put there. What is not dbt's stays, and a guest that runs is not disturbed."""
    from dbt.cli.cache import clear

    _finish(lambda: clear(regions))


@cache.command(cls=TextCommand)
def verify(
    repair: Annotated[bool, typer.Option("--repair", help="Remove the files that are damaged.")] = False,
) -> None:
    """Check every file's checksums and name those that are damaged. Status 1 if there are any."""
    from dbt.cli.cache import verify

    _finish(lambda: verify(repair))

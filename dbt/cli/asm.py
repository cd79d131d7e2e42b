"""``dbt asm``: assembles text into A32 words."""

from __future__ import annotations

import sys

from dbt.abi.addresses import Gva
from dbt.cli.outputs import check_outputs, open_output
from dbt.cli.status import CommandError, Status
from dbt.cli.values import parse_gva

#: How many characters of a line an error message quotes.
_LONGEST_QUOTE = 100
_LARGEST_SOURCE = 16 << 20


def assemble(source: str | None, code: str | None, output: str | None, base: str) -> int:
    """Write the code to the file ``output``, or to standard output as hexadecimal words."""
    check_outputs([("-o", output)], [("the source", source)])
    name, text = _read_source(source, code)
    data = encode(text, parse_gva("--base", base), name)
    if output is None:
        words = [int.from_bytes(data[i : i + 4], "little") for i in range(0, len(data), 4)]
        sys.stdout.write("".join(f"{word:08x}\n" for word in words))
        sys.stdout.flush()
        return Status.DONE
    with open_output("-o", output) as file:
        file.write(data)
    return Status.DONE


def _read_source(source: str | None, code: str | None) -> tuple[str, str]:
    if (source is None) == (code is None):
        raise CommandError("give either a file of assembly text or -c TEXT. See `dbt asm --help`.", Status.USAGE)
    if code is not None:
        return "-c", code
    assert source is not None
    name = "standard input" if source == "-" else source
    try:
        with sys.stdin.buffer if source == "-" else open(source, "rb") as file:
            text = file.read(_LARGEST_SOURCE + 1)
    except OSError as error:
        raise CommandError(f"{name}: it cannot be read: {error.strerror}.", Status.BAD_INPUT) from None
    except ValueError:  # a NUL in the name
        raise CommandError(f"{name!r}: there is no such file.", Status.BAD_INPUT) from None
    if len(text) > _LARGEST_SOURCE:
        message = f"{name}: it has more than {_LARGEST_SOURCE >> 20} MiB, so it is no assembly source."
        raise CommandError(message, Status.BAD_INPUT)
    try:
        return name, text.decode()
    except UnicodeDecodeError:
        raise CommandError(f"{name}: it is not text. dbt asm reads assembly source.", Status.BAD_INPUT) from None


def encode(text: str, base: Gva, name: str) -> bytes:
    """Return the bytes of the program, a multiple of 4 of them. Raise CommandError if it cannot be assembled."""
    from dbt.assembler.program import assemble_program
    from dbt.assembler.source import AssemblyError

    try:
        data = assemble_program(text, base)
    except AssemblyError as error:
        place = "" if error.line is None else f"line {error.line} ({error.text[:_LONGEST_QUOTE]}): "
        message = f"{name}: {place}{error}. dbt asm reads A32 code in GNU syntax."
        raise CommandError(message, Status.BAD_INPUT) from None
    if not data:
        raise CommandError(f"{name}: there is nothing to assemble.", Status.BAD_INPUT)
    return data

"""``dbt asm``: assembly text goes in, A32 words come out, by keystone."""

from __future__ import annotations

import re
import sys
from bisect import bisect_left
from collections.abc import Callable

from dbt.cli.status import CommandError, Status
from dbt.cli.values import parse_address

#: Of a call of a label under a condition keystone makes a call of itself; of a branch, what it should be.
_CONDITIONAL_CALL = re.compile(r"\bbl(?=(eq|ne|cs|hs|cc|lo|mi|pl|vs|vc|hi|ls|ge|lt|gt|le)\s)", re.IGNORECASE)


def assemble(source: str | None, code: str | None, output: str | None, base: str) -> int:
    """Write the code to the file ``output``, or to standard output as hexadecimal words."""
    name, text = _read_source(source, code)
    data = encode(text, parse_address("--base", base), name)
    if output is None:
        words = [int.from_bytes(data[i : i + 4], "little") for i in range(0, len(data), 4)]
        sys.stdout.write("".join(f"{word:08x}\n" for word in words))
        sys.stdout.flush()
        return Status.DONE
    try:
        with open(output, "wb") as file:
            file.write(data)
    except OSError as error:
        raise CommandError(f"{output}: it cannot be written: {error.strerror}.", Status.USAGE) from None
    return Status.DONE


def _read_source(source: str | None, code: str | None) -> tuple[str, str]:
    if (source is None) == (code is None):
        raise CommandError("give either a file of assembly text or -c TEXT. See `dbt asm --help`.", Status.USAGE)
    if code is not None:
        return "-c", code
    assert source is not None
    try:
        if source == "-":
            return "standard input", sys.stdin.buffer.read().decode()
        with open(source, encoding="utf-8") as file:
            return source, file.read()
    except OSError as error:
        raise CommandError(f"{source}: it cannot be read: {error.strerror}.", Status.BAD_INPUT) from None
    except ValueError:
        raise CommandError(f"{source}: it is not text. dbt asm reads assembly source.", Status.BAD_INPUT) from None


def encode(text: str, base: int, name: str) -> bytes:
    """The bytes of the program, a multiple of 4 of them; CommandError if keystone refuses it."""
    import keystone

    engine = keystone.Ks(keystone.KS_ARCH_ARM, keystone.KS_MODE_ARM | keystone.KS_MODE_LITTLE_ENDIAN)

    def attempt(source: str) -> tuple[bytes, object]:
        """The code and None, or nothing and keystone's error."""
        try:
            return engine.asm(source, addr=base, as_bytes=True)[0] or b"", None
        except keystone.KsError as error:
            return b"", error

    data, error = attempt(text)
    if error is not None:
        what = str(error).split(" (KS_")[0]
        place = _find_line(text, lambda source: str(attempt(source)[1]) == str(error))
        raise CommandError(f"{name}: {place}: {what}. It is to be A32 in GNU syntax.", Status.BAD_INPUT)
    if not data:
        raise CommandError(f"{name}: there is nothing to assemble.", Status.BAD_INPUT)
    if _CONDITIONAL_CALL.search(text):
        data = _mend_calls(data, attempt(_CONDITIONAL_CALL.sub("b", text))[0])
    return data + bytes(-len(data) % 4)


def _mend_calls(data: bytes, branches: bytes) -> bytes:
    """The code with the offsets of ``branches``, the same with B for BL, where a conditional BL calls itself."""
    mended = bytearray(data)
    for place in range(0, min(len(data), len(branches)) - 3, 4):
        condition, operation = divmod(data[place + 3], 16)
        if condition < 14 and operation == 0b1011 and data[place : place + 3] == b"\xfe\xff\xff":
            mended[place : place + 3] = branches[place : place + 3]
    return bytes(mended)


def _find_line(text: str, fails: Callable[[str], bool]) -> str:
    """The first line with which the text fails as the whole of it does; keystone does not say."""
    lines = text.replace(";", "\n").splitlines() if "\n" not in text else text.splitlines()
    number = bisect_left(range(len(lines)), True, key=lambda last: fails("\n".join(lines[: last + 1])))
    return f"line {number + 1} ({lines[number].strip()})" if number < len(lines) else "the whole text"

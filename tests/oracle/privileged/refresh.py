"""A program that asks QEMU again and rewrites the files of ``expected/``.

python -m tests.oracle.privileged.refresh [CPU/PROGRAM ...]
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.oracle.privileged.emulators import run_qemu
from tests.oracle.privileged.programs import PROGRAMS, expected_file, make_program
from tests.oracle.privileged.record import Reader, line


@contextmanager
def _without_native_warnings() -> Iterator[None]:
    """Drop Keystone's warnings of deprecated instructions, which it writes to the process's standard error."""
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def refresh(cpu: str, name: str) -> str:
    program = make_program(cpu, name)
    with _without_native_warnings():
        output = run_qemu(program)
    lines = [line(*entry) for entry in Reader(program, output).results()]
    assert len(lines) == len(program.steps), f"{cpu} {name}: {len(lines)} results of {len(program.steps)} steps"
    path = expected_file(cpu, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(entry + "\n" for entry in lines))
    return f"{cpu}/{name}: {len(lines)} steps"


def main() -> None:
    for word in sys.argv[1:] or [f"{cpu}/{name}" for cpu, name in PROGRAMS]:
        cpu, _, name = word.partition("/")
        print(refresh(cpu, name))


if __name__ == "__main__":
    main()

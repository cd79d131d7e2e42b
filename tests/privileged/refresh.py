"""Ask QEMU again: ``python -m tests.privileged.refresh [cpu/program ...]`` rewrites the files of ``expected/``."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

from tests.privileged.emulators import run_qemu
from tests.privileged.programs import PROGRAMS, expected_file, make_program
from tests.privileged.record import Reader, line


def refresh(cpu: str, name: str) -> str:
    program = make_program(cpu, name)
    lines = [line(*entry) for entry in Reader(program, run_qemu(program)).results()]
    assert len(lines) == len(program.steps), f"{cpu} {name}: {len(lines)} results of {len(program.steps)} steps"
    path = expected_file(cpu, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(entry + "\n" for entry in lines))
    return f"{cpu}/{name}: {len(lines)} steps"


def main() -> None:
    chosen = [tuple(word.split("/")) for word in sys.argv[1:]] or PROGRAMS
    with ThreadPoolExecutor(2) as pool:
        for summary in pool.map(lambda entry: refresh(*entry), chosen):
            print(summary)


if __name__ == "__main__":
    main()

"""A program that asks QEMU again and rewrites the files of ``expected/``.

python -m tests.oracle.coprocessors.refresh [CPU ...]
"""

from __future__ import annotations

import sys
from functools import partial

from tests.oracle.coprocessors import CPUS, expected_file, monitors, psci, timers
from tests.oracle.coprocessors.differences import is_of_a_range
from tests.oracle.coprocessors.emulators import run_qemu
from tests.oracle.coprocessors.sweep import sweep


def main() -> None:
    for cpu in sys.argv[1:] or CPUS:
        lines = [line for line in sweep(partial(run_qemu, cpu)) if not is_of_a_range(line)]
        path = expected_file(cpu)
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in lines))
        print(f"{cpu}: {len(lines)} lines")
    for name, answers in (("psci", psci.answers), ("monitors", monitors.answers), ("timers", timers.answers)):
        lines = list(answers(partial(run_qemu, CPUS[0])))
        expected_file(name).write_text("".join(f"{line}\n" for line in lines))
        print(f"{name}: {len(lines)} lines")


if __name__ == "__main__":
    main()

"""What the real Xen and this hypervisor say to the same guests: a probe that makes hypercalls, and Debian's kernel.

    python -m tests.xen.compare_xen DIR --kernel vmlinuz --initrd initramfs-virt.cpio.gz

DIR has ``run-xen``, which runs a kernel as a domain of Xen under QEMU. Prints what differs, and ends with the status 1
if that is more than :data:`EXPECTED` has.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from threading import Timer

from dbt import Machine
from dbt.host.console import CaptureConsole
from tests.xen.probe import CALLS, image, recorded_calls

#: A line that the domain prints by its UART, or by console_io.
_CONSOLE = re.compile(r"\((?:XEN\) DOM1:|d1\)) (.*)")
_STAMP = re.compile(r"^\[ *\d+\.\d+\] ?")
_NUMBER = re.compile(r"\b(?:0x)?[0-9a-f]*\d[0-9a-f]*[KMG]?\b")
#: What the kernel says last.
_LAST = "=== XEN DONE ==="
#: The lines of Linux that may differ, and why.
EXPECTED = {
    r"Linux version|\(GNU Binutils|reserved, 16384K cma": "Xen breaks long lines",
    r"earlycon|ommand line|console|sbsa-uart|uart-pl011": "the console is hvc0 here, and a UART there",
    r"Machine model": "the toolstack names the machine, and Xen itself does not",
    r"Memory: |Freeing initrd": "places and sizes of the RAM disk",
    r"VFP support": "this processor has no VFP",
    r"hw-breakpoint": "Xen hides the debug registers",
    r"cpu_hotplug|xen_privcmd": "there is XenStore here, without a node for processors",
    r"^ *\d+: +\d+ +(GIC|xen-)": "counts and numbers of interrupts, and the devices that have them",
    r"^dbt: ": "what dbt says itself",
}


def lines_of_xen(
    reference: Path,
    kernel: Path,
    ramdisk: Path | None,
    append: str,
    is_last: Callable[[list[str]], bool],
    seconds: float,
) -> list[str]:
    """Return what a kernel prints as a domain of the real Xen, until ``is_last`` says that this is all.

    Raise TimeoutError if that takes too long, or if Xen or QEMU ends before.
    """
    command = [str(reference / "run-xen"), str(kernel), "" if ramdisk is None else str(ramdisk), append]
    found: list[str] = []
    text = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True) as process:
        assert process.stdout is not None
        timer = Timer(seconds, os.killpg, (process.pid, signal.SIGKILL))
        timer.start()
        try:
            for line in process.stdout:
                text = line.decode(errors="replace").rstrip()
                if matched := _CONSOLE.match(text):
                    found.append(matched[1].rstrip())
                    if is_last(found):
                        return found
        finally:
            timer.cancel()
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    raise TimeoutError(f"Xen's domain has not come to its end. The last line is {text!r}")


def lines_of_dbt(kernel: Path, ramdisk: Path | None, append: str, timeout: float = 600.0) -> list[str]:
    """Return what a kernel prints as a domain of this hypervisor."""
    console = CaptureConsole()
    with Machine(128 << 20, console=console, board="xen") as machine:
        machine.load_kernel(kernel, initrd=ramdisk, append=append)
        machine.run(timeout=timeout)
    return console.output.decode(errors="replace").replace("\r", "").splitlines()


def differing_calls(mine: Sequence[str], theirs: Sequence[str]) -> list[str]:
    """Return in words which calls of the probe are answered otherwise. The arguments are its words."""
    found, at = [], 0
    for number, call in enumerate(CALLS):
        end = at + 1 + call.shown
        if mine[at:end] != theirs[at:end]:
            found.append(f"call {number}, {call}: {' '.join(mine[at:end])}, and in Xen {' '.join(theirs[at:end])}")
        at = end
    return found


def differing_lines(mine: Iterable[str], theirs: Iterable[str]) -> tuple[list[str], list[str], int]:
    """Return the lines that only one of two kernels prints, times and other numbers left out, and how many both do."""
    ours, others = ({_NUMBER.sub("N", _STAMP.sub("", line.strip())): line for line in one} for one in (mine, theirs))
    only_here = [line for key, line in ours.items() if key not in others]
    only_there = [line for key, line in others.items() if key not in ours]
    return only_here, only_there, len(ours.keys() & others.keys())


def is_expected(line: str) -> bool:
    """Return True if a line may differ."""
    return any(re.search(pattern, line) for pattern in EXPECTED)


def missing_programs() -> list[str]:
    """Return the programs that run-xen needs and that are not installed."""
    return [name for name in ("qemu-system-arm", "dtc") if shutil.which(name) is None]


def compare_probe(reference: Path) -> list[str]:
    """Return in words how the answers to the probe differ."""
    with tempfile.TemporaryDirectory() as folder:
        probe = Path(folder) / "probe"
        probe.write_bytes(image(CALLS))
        count = sum(1 + call.shown for call in CALLS)
        theirs = lines_of_xen(reference, probe, None, "", lambda found: len(found) == count, 120.0)
        mine = lines_of_dbt(probe, None, "")
    assert len(mine) == count, (len(mine), count)
    return differing_calls(mine, theirs)


def compare_recorded(reference: Path) -> list[str]:
    """Return in words which calls of more_calls.txt Xen answers otherwise than is recorded there."""
    calls = recorded_calls()
    with tempfile.TemporaryDirectory() as folder:
        probe = Path(folder) / "probe"
        probe.write_bytes(image([one.call for one in calls]))
        count = sum(len(one.words) for one in calls)
        theirs = lines_of_xen(reference, probe, None, "", lambda found: len(found) == count, 120.0)
    found, lines = [], iter(theirs)
    for number, one in enumerate(calls):
        words = [next(lines) for _ in one.words]
        if words != one.words:
            found.append(f"recorded call {number}, {one.call}: {' '.join(one.words)}, and now {' '.join(words)}")
    return found


def compare_linux(reference: Path, kernel: Path, ramdisk: Path) -> tuple[list[str], list[str], int]:
    """Return what :func:`differing_lines` finds of Linux, whose RAM disk has /init-xen."""
    rest = "panic=-1 rdinit=/init-xen nowait autooff"
    append = f"console=ttyAMA0 earlycon {rest}"
    theirs = lines_of_xen(reference, kernel, ramdisk, append, lambda found: found[-1] == _LAST, 600.0)
    mine = lines_of_dbt(kernel, ramdisk, f"console=hvc0 earlycon=xenboot {rest}")
    return differing_lines(mine[: mine.index(_LAST) + 1], theirs)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.xen.compare_xen", description=__doc__)
    parser.add_argument("reference", type=Path, help="the directory that has run-xen")
    parser.add_argument("--kernel", type=Path, help="Debian's kernel; without it, only the probe runs")
    parser.add_argument("--initrd", type=Path, help="a RAM disk with /init-xen")
    options = parser.parse_args()
    if missing := missing_programs():
        print(f"{' and '.join(missing)} is not installed, so Xen cannot be run", file=sys.stderr)
        return 2
    for line in compare_probe(options.reference) + compare_recorded(options.reference):
        print(line)
    if options.kernel is None:
        return 0
    only_here, only_there, same = compare_linux(options.reference, options.kernel, options.initrd)
    print(f"{same} lines of Linux are the same")
    for where, lines in (("here", only_here), ("in Xen", only_there)):
        for line in lines:
            print(f"only {where}{'' if is_expected(line) else ' (not expected)'}: {line}")
    return int(not all(map(is_expected, only_here + only_there)))


if __name__ == "__main__":
    sys.exit(main())

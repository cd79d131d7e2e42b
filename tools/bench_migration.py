"""What it costs to move a machine that runs: downtime, total time, and how soon its guest is as fast as before.

    python tools/bench_migration.py DIR [--runs N] [--json FILE]

DIR is what `make virt` builds: Debian's kernel, whose guest of 128 MiB computes and writes a disk all the time. It goes
to and fro between two processes of this host. The downtime is from the end of the last turn of the guest at the source
to the beginning of the first at the destination, by the host's clock. A guest is as fast as before when it has executed
90 % of what it executed in as long a time before the move.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from dbt_command import checkout_environment
from figure import Figure

from dbt import CaptureConsole, Machine, read_snapshot, write_snapshot
from dbt.host.drive import Drive
from dbt.hypervisor import Clock, Domain, Host
from dbt.hypervisor.migration import Place, Progress, Settings
from dbt.vm.options import HostOptions

_MEMORY, _DISK = 128 << 20, 8 << 20
_APPEND = "console=ttyAMA0 rdinit=/init-virt nowait quiet"
_WORK = b"while :; do i=$((i+1)); echo $i | dd of=/dev/vda bs=512 seek=$((i%16000)) conv=notrunc 2>/dev/null; done\n"
_BOOT_FUEL, _MOST = 100_000_000, 20_000_000_000
#: Seconds in which the guest runs before and after each move, and the parts in which it is watched.
_RUN_S, _PART_S = 1.0, 0.1
_ENOUGH = 0.9
#: Whether memory is passed as a descriptor, and what is asked of the median of the downtime in milliseconds.
_WAYS = {"tcp": (False, 20.0), "unix": (False, None), "descriptor": (True, 5.0)}


def boot(images: Path, folder: Path) -> None:
    """Write a snapshot of a guest that is at work, and its disk."""
    disk = folder / "disk"
    disk.write_bytes(bytes(_DISK))
    console = CaptureConsole()
    with Machine(_MEMORY, console=console, board="virt", cpu="cortex-a15", drives=[Drive(str(disk))]) as guest:
        guest.load_kernel(images / "vmlinuz", initrd=images / "initramfs-virt.cpio.gz", append=_APPEND)
        while b"# " not in console.output:
            guest.run(fuel=_BOOT_FUEL)
            if guest.icount > _MOST:
                raise SystemExit(f"no shell after {_MOST:,} instructions: {console.output.decode()}")
        with guest.save() as state:
            write_snapshot(state, folder / "snapshot")


# -- a side --------------------------------------------------------------------------------------


class Side:
    """One process, with a host that runs all the time and the domain that comes and goes."""

    def __init__(self, folder: Path) -> None:
        self._drives = [Drive(str(folder / "disk"))]
        self._folder = folder
        self._host = Host(1, Clock.FREE)
        self._idle = self._host.define("idle", lambda console: _sleeper())  # so that the host waits
        self._idle.start()
        self.domain = self._host.define("guest", self._restored)
        self._turns: list[tuple[int, int]] = []
        self._first = 0
        self._watch(self.domain)
        threading.Thread(target=self._host.run, daemon=True).start()

    def _restored(self, console: Any) -> Machine:
        with read_snapshot(self._folder / "snapshot") as state:
            return Machine.restore(state, console=console, drives=self._drives)

    def _watch(self, domain: Domain) -> None:
        """Note when turns of the domain begin and end."""
        execute = domain.execute

        def watched(units: int) -> Any:
            began = time.monotonic_ns()
            try:
                return execute(units)
            finally:
                self._turns = [*self._turns[-1:], (began, time.monotonic_ns())]
                self._first = self._first or began

        domain.execute = watched  # type: ignore[method-assign]

    def start(self) -> None:
        self.domain.start()
        self.domain.console.send(_WORK)

    def rate(self) -> float:
        """Run for a second, and return the instructions of a part of it."""
        before = self.domain.usage.instructions
        time.sleep(_RUN_S)
        return (self.domain.usage.instructions - before) * _PART_S / _RUN_S

    def receive(self, place: str) -> dict[str, Any]:
        self._first = 0
        options: HostOptions = {"drives": self._drives}
        self.domain.receive(Place.parse(place), 60, options, listening=lambda where: say(listening=where))
        parts, before = [], self.domain.usage.instructions
        for _ in range(round(_RUN_S / _PART_S)):
            time.sleep(_PART_S)
            now = self.domain.usage.instructions
            parts.append(now - before)
            before = now
        return {"first_ns": self._first, "parts": parts}

    def migrate(self, place: str, by_descriptor: bool) -> dict[str, Any]:
        progress, rate = Progress(), self.rate()
        self.domain.migrate(Place.parse(place), Settings(by_descriptor=by_descriptor), progress)
        return {
            "last_ns": self._turns[-1][1],
            "acknowledged_ms": progress.downtime_s * 1e3,
            "total_ms": progress.total_s * 1e3,
            "rounds": progress.rounds,
            "rate": rate,
        }


def _sleeper() -> Machine:
    machine = Machine(1 << 20, console=CaptureConsole())
    machine.load_bytes((0xEE070F90).to_bytes(4, "little") + (0xEAFFFFFD).to_bytes(4, "little"), base=0)
    return machine


def say(**what: object) -> None:
    print(json.dumps(what), flush=True)


def serve(folder: Path) -> None:
    """Do what comes from the standard input, one object a line."""
    side = Side(folder)
    for line in sys.stdin:
        wanted = json.loads(line)
        match wanted.pop("do"):
            case "start":
                side.start()
                say(started=True)
            case "receive":
                say(**side.receive(**wanted))
            case "migrate":
                say(**side.migrate(**wanted))


# -- both ----------------------------------------------------------------------------------------


class Process:
    """A side in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--side", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=checkout_environment(),
        )

    def tell(self, **what: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a side has ended")
        found: dict[str, Any] = json.loads(line)
        return found

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


def move(source: Process, target: Process, way: str, folder: Path) -> dict[str, Any]:
    """Move the guest once. Return what both sides say."""
    place = "tcp:127.0.0.1:0" if way == "tcp" else f"unix:{folder / 'door'}"
    target.tell(do="receive", place=place)
    source.tell(do="migrate", place=target.hear()["listening"], by_descriptor=_WAYS[way][0])
    return {**source.hear(), **target.hear()}


def seconds_to_speed(found: dict[str, Any]) -> float:
    """Return when the guest was as fast as before, in seconds after the move; more than there were if it was not."""
    for number, part in enumerate(found["parts"], 1):
        if part >= _ENOUGH * found["rate"]:
            return number * _PART_S
    return _RUN_S + _PART_S


def measure(folder: Path, runs: int) -> list[Figure]:
    figures = []
    sides = [Process(folder), Process(folder)]
    try:
        sides[0].tell(do="start")
        sides[0].hear()
        for way, (_, limit) in _WAYS.items():
            moves = []
            for _ in range(runs):
                moves.append(move(sides[0], sides[1], way, folder))
                sides.reverse()
            downtimes = [(one["first_ns"] - one["last_ns"]) / 1e6 for one in moves]
            figures += [
                Figure(f"{way}: downtime", downtimes, "ms", limit),
                Figure(f"{way}: downtime, worst of {runs}", [max(downtimes)], "ms"),
                Figure(f"{way}: stop to acknowledgement", [one["acknowledged_ms"] for one in moves], "ms"),
                Figure(f"{way}: whole migration", [one["total_ms"] for one in moves], "ms"),
                Figure(f"{way}: rounds", [one["rounds"] for one in moves], ""),
                Figure(f"{way}: 90 % of the speed after", [seconds_to_speed(one) for one in moves], "s", 1.0),
            ]
            for figure in figures[-6:]:
                print(figure.row, flush=True)
    finally:
        for side in sides:
            side.end()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="?", type=Path, help="the directory with vmlinuz and initramfs-virt.cpio.gz")
    parser.add_argument("--runs", type=int, default=50, help="moves by each way")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    parser.add_argument("--side", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side is not None:
        serve(options.side)
        return
    if options.images is None:
        parser.error("give the directory that `make virt` has built")
    with tempfile.TemporaryDirectory() as name:
        boot(options.images, Path(name))
        figures = measure(Path(name), options.runs)
    if options.json is not None:
        options.json.write_text(json.dumps({figure.name: figure.values for figure in figures}, indent=1))


if __name__ == "__main__":
    main()

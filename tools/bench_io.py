"""The benchmark of devices beside QEMU (``make bench-io``): disks, networks, shared directories, consoles and booting.

Debian's kernel for ARMv7 runs on the board virt under qemu-system-arm and under dbt in turn, with the same devices, and
does the same work (docs/virt.md says where the kernel comes from). These engines take turns:

QEMU     ``qemu-system-arm -M virt``, with virtio-mmio in its version 2
first    dbt with the handlers in its cache and no regions
second   dbt again, with what the first run has left in the cache

All times are the host's: from one line that the guest prints to another. They are given as wall time and as CPU time of
all processes of the engine, user and system. A row without work is the time of a boot. Accesses without an operating
system are differences of whole processes, with many accesses and with one. Each row says what is asked of dbt, by both
clocks, and whether the medians hold it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from bench import count, machine
from bench_real import make_translator
from dbt_command import checkout_environment
from debian_packages import BuildError
from io_bench import accesses
from io_bench.guest import UP, Images
from io_bench.sessions import Session, boot_session, disk_session, hub_session, passt_session
from io_bench.table import ENGINES, FIRST, HEADING, QEMU, SECOND, Report, Row
from io_bench.watching import GuestError, Watch, between, time_used
from real_programs.processes import Times, adopt_orphans

_ROOT = Path(__file__).resolve().parents[1]
_SESSIONS: dict[str, Callable[[Images, Path], Session]] = {
    "boot": boot_session,
    "disk": disk_session,
    "hub": hub_session,
    "passt": passt_session,
}
_ACCESSES = "accesses"
_TIMEOUT = 300.0  # seconds, of one boot
_ONE = 1


def read_options() -> argparse.Namespace:
    names = (*_SESSIONS, _ACCESSES)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    images = Path(os.environ.get("DBT_VIRT_IMAGES") or _ROOT / "build" / "virt")
    parser.add_argument("--images", type=Path, default=images, help="the directory with vmlinuz (%(default)s)")
    parser.add_argument("--turns", type=count, default=3, help="each engine so many times (%(default)s)")
    parser.add_argument("--only", metavar="A,B", help=f"some of {', '.join(names)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep all figures in FILE")
    options = parser.parse_args()
    options.only = names if options.only is None else tuple(options.only.split(","))
    if unknown := set(options.only) - set(names):
        parser.error(f"there is no part {', '.join(sorted(unknown))}: use some of {', '.join(names)}")
    options.images = options.images.resolve()
    return options


class Bench:
    """The benchmark. ``handlers`` is a cache directory with handlers and without regions."""

    def __init__(self, images: Images, turns: int, handlers: Path, folder: Path) -> None:
        self._images = images
        self._turns = turns
        self._handlers = handlers
        self._folder = folder
        self._engines = ENGINES if shutil.which("qemu-system-arm") else ENGINES[1:]

    def _turn(self) -> Iterator[tuple[str, Mapping[str, str]]]:
        """Yield the engines of one turn, with their environments."""
        with tempfile.TemporaryDirectory(prefix="dbt-bench-") as folder:
            cache = shutil.copytree(self._handlers, Path(folder) / "cache")
            environment = {**checkout_environment(), "DBT_CACHE_DIR": str(cache)}
            for engine in self._engines:
                yield engine, environment

    def session(self, name: str) -> list[Row]:
        """Run a session in all engines in turn. Return its rows."""
        if reason := self._images.missing() or (name == "passt" and not shutil.which("passt") and _NO_PASST):
            return [Row(f"session {name}", failure=reason)]
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._folder))
        session = _SESSIONS[name](self._images, folder)
        boot = Row("boot to the first process", limits={FIRST: 1.0, SECOND: 0.5})
        rows = {work.name: Row(work.title, work.amount, work.unit, {SECOND: 1.0}) for work in session.parts}
        for _ in range(self._turns):
            for engine, environment in self._turn():
                watch = Watch(session.expected)
                which = QEMU if engine == QEMU else "dbt"
                try:
                    watch.run(session.commands[which], environment, _TIMEOUT, session.sockets.get(which))
                except GuestError as error:
                    return [Row(f"session {name}", failure=f"{engine}: {error}")]
                boot.add(engine, between(watch.moments[b""], watch.moments[UP]))
                for work in session.parts:
                    rows[work.name].add(engine, between(watch.moments[work.begin], watch.moments[work.end]))
        return list(rows.values()) or [boot]

    def accesses(self) -> list[Row]:
        """Measure accesses to devices without an operating system."""
        rows = []
        for one in accesses.ACCESSES:
            row = Row(one.title, one.rounds * one.accesses, "accesses", {SECOND: 1.0}, one.most_us)
            if one.kind == "virtio":
                row.limits = {}
            for _ in range(self._turns):
                for engine, environment in self._turn():
                    command = accesses.qemu_command if engine == QEMU else accesses.dbt_command
                    few, many = (self._whole(command(one.kind, rounds), environment) for rounds in (_ONE, one.rounds))
                    row.add(engine, between(few, many))
            rows.append(row)
        return rows

    @staticmethod
    def _whole(words: list[str], environment: Mapping[str, str]) -> Times:
        """Return the times of a whole process."""
        watch = Watch([accesses.DONE])
        watch.run([words], environment, _TIMEOUT)
        end = time_used(0.0)
        whole = Times(watch.moments[accesses.DONE].wall, end.user, end.system)
        return between(watch.moments[b""], whole)


_NO_PASST = "passt is not installed (apt-get install passt)"


def main() -> int:
    options = read_options()
    adopt_orphans()
    with tempfile.TemporaryDirectory(prefix="dbt-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # A passt that root has started makes its socket below as the user nobody.
        try:
            handlers = make_translator("", _ROOT, folder).handlers
        except BuildError as error:
            print(f"bench_io: {error}", file=sys.stderr)
            return 1
        bench = Bench(Images(options.images), options.turns, handlers, folder)
        report = Report(machine(), {"turns": options.turns, "only": list(options.only)})
        print(", ".join(f"{key} {value}" for key, value in report.machine.items() if value))
        print(HEADING, flush=True)
        for part in options.only:
            rows = bench.accesses() if part == _ACCESSES else bench.session(part)
            report.rows += rows
            for row in rows:
                print(row.line(), flush=True)
            if options.json is not None:
                report.save(options.json)
    return 1 if any(row.failure or row.missed() for row in report.rows) else 0


if __name__ == "__main__":
    raise SystemExit(main())

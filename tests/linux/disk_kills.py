"""An ext4 file system survives ``kill -9``: what the guest had synchronised is there, and fsck finds nothing wrong.

    DBT_VIRT_IMAGES=DIR python -m tests.linux.disk_kills --kind raw --count 100

A guest writes files to a disk, and says after each that it is synchronised. A snapshot is taken while it does so. Each
round restores it with the files of the disk as they were, lets the guest go on, and kills dbt at a random moment. Then
e2fsck replays the journal, must find nothing else to do, and each file that was synchronised has what was written.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from hashlib import md5
from pathlib import Path
from random import Random
from typing import IO

from dbt import Machine
from dbt.host.disk import RawFile
from dbt.host.disk_media import OpenDrive
from dbt.host.drive import Drive
from dbt.snapshot.snapshots import write_snapshot
from dbt.vm.result import StopReason
from tests.linux.debian import DISK, KERNEL, TIMEOUT
from tests.linux.typist import Typist

KINDS = ("raw", "qcow2", "overlay", "qcow2-overlay")
PROGRAMS = ("mke2fs", "e2fsck", "debugfs")
_SIZE = 64 << 20
_APPEND = "console=ttyAMA0 rdinit=/init-virt nowait quiet"
#: Every second file is synchronised by itself, the others with everything else. Old files go.
_LOAD = (
    "mount -t ext4 /dev/vda /mnt; i=0; while :; do i=$((i+1)); f=/mnt/f$i; n=$((i%37+1)); "
    "if [ $((i%2)) = 0 ]; then dd if=/dev/urandom of=$f bs=4k count=$n conv=fsync 2>/dev/null; "
    "else dd if=/dev/urandom of=$f.new bs=4k count=$n 2>/dev/null; mv $f.new $f; sync; fi; "
    "echo syn''ced $i $(md5sum <$f); [ $i -gt 30 ] && rm /mnt/f$((i-30)); done\n"
)
_SYNCED = re.compile(rb"synced (\d+) ([0-9a-f]{32})")
#: Files that the guest may be removing.
_KEPT = 25
_SLICE = 5_000_000


class Disk:
    """A disk of one of :data:`KINDS` in files of a folder."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder, self.kind = folder, kind
        self.image, self.overlay = folder / "disk", folder / "overlay"
        self.snapshot = folder / "snapshot"

    def make(self) -> None:
        raw = self.folder / "raw"
        with raw.open("wb") as file:
            file.truncate(_SIZE)
        subprocess.run(["mke2fs", "-q", "-t", "ext4", raw], check=True, timeout=60)
        if self._format == "qcow2":
            subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, self.image], check=True, timeout=60)
        else:
            raw.rename(self.image)

    @property
    def _format(self) -> str:
        return "qcow2" if self.kind.startswith("qcow2") else "raw"

    @property
    def drive(self) -> Drive:
        overlay = str(self.overlay) if self.kind.endswith("overlay") else ""
        return Drive(str(self.image), overlay=overlay, format=self._format)

    @property
    def option(self) -> str:
        option = f"file={self.image},format={self._format}"
        return f"{option},overlay={self.overlay}" if self.drive.overlay else option

    @property
    def changing(self) -> Path:
        """The file that the guest's writes go to."""
        return self.overlay if self.drive.overlay else self.image

    def keep(self) -> None:
        shutil.copy2(self.changing, self.folder / "kept")

    def put_back(self) -> None:
        """Make the file what it was when :meth:`keep` was called, to the time of its last change."""
        shutil.copy2(self.folder / "kept", self.changing)

    def content(self, path: Path) -> None:
        """Write what is on the disk to a raw file."""
        if self.kind == "qcow2":
            found = _run("qemu-img", "check", "-f", "qcow2", self.image)
            assert found.returncode in (0, 3), found.stdout  # 3 is for lost clusters
        with_changes = OpenDrive(self.drive if self.drive.overlay else self.drive._replace(read_only=True))
        with path.open("wb") as file:
            for at in range(0, _SIZE, 1 << 20):
                file.write(with_changes.medium.read(at, 1 << 20))
        with_changes.close()


def prepare(disk: Disk) -> None:
    """Boot a guest, and take a snapshot while it writes."""
    disk.make()
    console = Typist([(b"# ", _LOAD.encode())])
    with Machine(128 << 20, console=console, cpu="cortex-a15", drives=[disk.drive]) as machine:
        machine.load_kernel(KERNEL, initrd=DISK, append=_APPEND)
        while b"synced 3 " not in console.output:
            result = machine.run(fuel=_SLICE, timeout=TIMEOUT)
            assert result.reason is StopReason.FUEL, (result.message, bytes(console.output[-2000:]))
        with machine.save() as state:
            write_snapshot(state, str(disk.snapshot))
    disk.keep()


def run_and_kill(disk: Disk, random: Random) -> dict[int, str]:
    """Let the guest go on, kill dbt, and return the digests of the files that were synchronised, by number."""
    disk.put_back()
    command = [sys.executable, "-m", "dbt", "run", "--restore", str(disk.snapshot), "--drive", disk.option]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    said = process.stdout
    assert said is not None
    try:
        output = _read_until(said, random.randrange(1, 25))
        time.sleep(random.random() * 0.3)
    finally:
        process.kill()
        output += said.read()
        said.close()
        process.wait()
    return {int(number): digest.decode() for number, digest in _SYNCED.findall(output)}


def _read_until(said: IO[bytes], count: int) -> bytes:
    """Read until so many files have been synchronised."""
    output = b""
    while len(_SYNCED.findall(output)) < count:
        more = os.read(said.fileno(), 1 << 16)
        assert more, f"dbt has ended: {output!r}"
        output += more
    return output


def check(disk: Disk, synced: dict[int, str]) -> None:
    """Assert that the file system is in order, and has the files."""
    raw = disk.folder / "after"
    disk.content(raw)
    replayed = _run("e2fsck", "-fy", "-E", "journal_only", raw)
    assert replayed.returncode in (0, 1), replayed.stdout
    found = _run("e2fsck", "-fn", raw)
    assert found.returncode == 0, found.stdout
    newest = max(synced)
    for number, digest in synced.items():
        if number > newest - _KEPT:
            dumped = disk.folder / "file"
            dumped.unlink(missing_ok=True)
            _run("debugfs", "-R", f"dump /f{number} {dumped}", raw)
            assert dumped.exists(), f"file {number} of {newest} is not there"
            assert md5(dumped.read_bytes()).hexdigest() == digest, f"file {number} of {newest} is another one"


def _run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)


def kill_often(folder: Path, kind: str, count: int, seed: int) -> int:
    """Do so many rounds, and return how many files there were to check."""
    disk, random = Disk(folder, kind), Random(seed)
    prepare(disk)
    files = 0
    for _ in range(count):
        synced = run_and_kill(disk, random)
        files += min(len(synced), _KEPT)
        check(disk, synced)
    RawFile(str(disk.image), writable=True).close()  # the locks of the dead are gone
    return files


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.linux.disk_kills", description=__doc__)
    parser.add_argument("--kind", choices=KINDS, default="raw")
    parser.add_argument("--count", type=int, default=100, help="rounds [100]")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        files = kill_often(Path(folder), options.kind, options.count, options.seed)
    seconds = time.monotonic() - began
    print(f"{options.kind}: {options.count} kills in {seconds:.0f} s; all {files} synchronised files were there")


if __name__ == "__main__":
    main()

"""The part inside Linux: programs in a busybox system on the board, under qemu-system-arm, dbt and qemu-arm.

The kernel and its disk are those of ``make linux``. The programs come in a second disk, which is made here and follows
the first. Each case is a boot, its work, and a reset of the board.
"""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dbt_command import DBT

from dbt.linux.initramfs import DIRECTORY, PROGRAM, archive
from real_programs.catalogue import LinuxWorkload
from real_programs.inputs import GUEST, place_files
from real_programs.results import QEMU, QEMU_USER
from real_programs.turns import Case

#: What the guest prints between these lines is compared.
_COMPARED = r"^=== BEGIN ===\n(.*?)^=== END ==="
_TREE = "versatile-pb-minimal.dtb"


@dataclass(frozen=True)
class GuestLinux:
    """How a Linux is booted that does some work.

    ``images`` is the directory that ``make linux`` made, ``build`` the one that keeps the programs' files, and
    ``disks`` where the disks are made. ``qemu`` and ``qemu_user`` say which peers are there.
    """

    images: Path
    build: Path
    disks: Path
    options: tuple[str, ...]
    qemu: bool
    qemu_user: bool

    def case(self, workload: LinuxWorkload, program: Path | None) -> Case:
        """Return a workload as a case. ``program`` is its executable for Linux, if it has one."""
        kernel, tree, disk = str(self.images / "zImage"), str(self.images / _TREE), str(self._disk(workload, program))
        append = "console=ttyAMA0 quiet rdinit=/bench/init"
        peers: dict[str, Sequence[str]] = {}
        if self.qemu:
            peers[QEMU] = [
                *("qemu-system-arm", "-M", "versatilepb", "-m", "128", "-nographic", "-no-reboot", "-monitor", "none"),
                *("-audiodev", "none,id=n0", "-kernel", kernel, "-dtb", tree, "-initrd", disk, "-append", append),
            ]
        if self.qemu_user and program is not None:
            peers[QEMU_USER] = ["qemu-arm", str(program), *workload.arguments]
        timed = [*DBT, "run", *self.options]
        words = ["--kernel", kernel, "--dtb", tree, "--initrd", disk, "--append", append]
        return Case(
            f"linux-{workload.name}",
            peers,
            [*timed, *words],
            [*timed, "--json", *words],
            workload.files,
            compared=workload.compared or _COMPARED,
        )

    def _disk(self, workload: LinuxWorkload, program: Path | None) -> Path:
        """Make the disk of a system that does the work: busybox's, followed by one with the program and its files."""
        with tempfile.TemporaryDirectory(prefix="dbt-bench-") as name:
            place_files(workload.files, Path(name), self.build)
            files = {path.name: path.read_bytes() for path in Path(name).iterdir()}
        if program is not None:
            files[workload.executable] = program.read_bytes()
        files["init"] = (GUEST / "linux_init.sh").read_text().replace("# WORK\n", f"{workload.script()}\n").encode()
        entries = [("bench", DIRECTORY, b"", (0, 0))]
        entries += [(f"bench/{name}", PROGRAM, content, (0, 0)) for name, content in sorted(files.items())]
        disk = self.disks / f"disk-{workload.name}.cpio.gz"
        ours = gzip.compress(archive(entries), 1, mtime=0)
        disk.write_bytes((self.images / "initramfs-armel.cpio.gz").read_bytes() + ours)
        return disk

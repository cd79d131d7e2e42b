"""The part inside Linux: programs in a busybox system on the board, under qemu-system-arm, dbt and qemu-arm.

The kernel and its disk are those of ``make linux``. The programs come in a second disk, which is made here and follows
the first. Each case is a boot, its work, and a reset of the board.
"""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from build_linux import DIRECTORY, FILE, archive
from dbt_command import DBT

from real_programs.catalogue import LinuxWorkload
from real_programs.inputs import GUEST, place_files
from real_programs.results import QEMU, QEMU_USER
from real_programs.turns import Case

_FILES = ("text.txt", "programs.lua")
#: What the guest prints between these lines is compared.
_COMPARED = r"^=== BEGIN ===\n(.*?)^=== END ==="
_TREE = "versatile-pb-minimal.dtb"


@dataclass(frozen=True)
class GuestLinux:
    """A Linux to boot. ``images`` is the directory that ``make linux`` made, and ``disk`` the two disks in one file."""

    images: Path
    disk: Path
    options: tuple[str, ...]
    qemu: bool
    qemu_user: bool

    def case(self, workload: LinuxWorkload, programs: Mapping[str, Path]) -> Case:
        """Return a workload as a case. ``programs`` has the executables for Linux by their names."""
        kernel, tree = str(self.images / "zImage"), str(self.images / _TREE)
        append = f"console=ttyAMA0 quiet rdinit=/bench/init workload={workload.name}"
        system = ["-kernel", kernel, "-dtb", tree, "-initrd", str(self.disk), "-append", append]
        peers: dict[str, Sequence[str]] = {}
        if self.qemu:
            peers[QEMU] = [
                *("qemu-system-arm", "-M", "versatilepb", "-m", "128", "-nographic", "-no-reboot"),
                *("-monitor", "none", "-audiodev", "none,id=n0", *system),
            ]
        if self.qemu_user and workload.executable:
            peers[QEMU_USER] = ["qemu-arm", str(programs[workload.executable]), *workload.arguments]
        words = [*DBT, "run", *self.options, "--json", "--kernel", kernel, "--dtb", tree]
        words += ["--initrd", str(self.disk), "--append", append]
        return Case(f"linux-{workload.name}", peers, words, workload.files, compared=workload.compared or _COMPARED)


def make_disk(
    images: Path, workloads: Sequence[LinuxWorkload], programs: Mapping[str, Path], build: Path, folder: Path
) -> Path:
    """Make the disk of a system that has the programs and their files, in ``folder``. Returns the file's name."""
    with tempfile.TemporaryDirectory(prefix="dbt-bench-") as name:
        place_files(_FILES, Path(name), build)
        files = {path.name: path.read_bytes() for path in Path(name).iterdir()}
    files |= {name: path.read_bytes() for name, path in programs.items()} | {"init": _init(workloads)}
    entries = [("bench", DIRECTORY, b"", (0, 0))]
    entries += [(f"bench/{name}", FILE, content, (0, 0)) for name, content in sorted(files.items())]
    disk = folder / "disk.cpio.gz"
    disk.write_bytes((images / "initramfs-armel.cpio.gz").read_bytes() + gzip.compress(archive(entries), 1, mtime=0))
    return disk


def _init(workloads: Sequence[LinuxWorkload]) -> bytes:
    """Return the guest's first process. The kernel puts ``workload=NAME`` of its command line into the environment."""
    cases = "".join(f"{workload.name})\n{workload.script()}\n;;\n" for workload in workloads)
    return (GUEST / "linux_init.sh").read_text().replace("# WORKLOADS\n", cases).encode()

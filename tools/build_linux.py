"""The build of an unmodified Linux for the board from Debian's packages: kernel, device trees and a busybox disk.

    python tools/build_linux.py build/linux [--steps fetch,unpack,kernel,trees,disk]

A step that has been done is not repeated, except for the last two, which take no time. See docs/linux.md.
"""

from __future__ import annotations

import gzip
import mmap
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from build_steps import run_chosen, step_parser
from debian_packages import BuildError, PrivateApt, find_package, run_command

from dbt.linux.initramfs import DIRECTORY, LINK, PROGRAM, Entry, archive

SCRIPTS = Path(__file__).parent / "linux"
KERNEL, BUSYBOX = "linux-source-6.1", "busybox-static"
_PREFIX = "arm-linux-gnueabi-"
#: The programs that a build needs, and the packages that have them.
_NEEDED = {
    f"{_PREFIX}gcc": "gcc-arm-linux-gnueabi",
    "make": "make",
    "gcc": "gcc",
    "flex": "flex",
    "bison": "bison",
    "bc": "bc",
    "xz": "xz-utils",
}


def main() -> int:
    parser = step_parser(__doc__, STEPS)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="compilers at a time (one for each CPU)")
    arguments = parser.parse_args()
    return run_chosen(parser, arguments, {**STEPS, "kernel": partial(kernel, jobs=arguments.jobs)})


# -- packages ------------------------------------------------------------------------------------


def fetch(folder: Path) -> None:
    """Fetch the two packages with an apt of our own, because the host's does not know armel, and should not."""
    packages = folder / "packages"
    if all(find_package(packages, name) for name in (KERNEL, BUSYBOX)):
        return
    packages.mkdir(parents=True, exist_ok=True)
    apt = PrivateApt(folder / "apt", "deb", "armel", ("bookworm", "bookworm-security"))
    apt.update()
    apt.download((KERNEL, BUSYBOX), packages)


def unpack(folder: Path) -> None:
    for name in (KERNEL, BUSYBOX):
        target = folder / name
        found = find_package(folder / "packages", name)
        if found is None:
            raise BuildError(f"there is no package {name} in {folder / 'packages'}: fetch it first")
        if not target.is_dir():
            run_command("dpkg-deb", "--extract", found, target)
    if not (folder / "source").is_dir():
        partial = folder / "source.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        run_command(
            "tar",
            "--extract",
            "--strip-components=1",
            "--file",
            folder / KERNEL / f"usr/src/{KERNEL}.tar.xz",
            cwd=partial,
        )
        partial.rename(folder / "source")


# -- the kernel ----------------------------------------------------------------------------------


#: What is changed in the configuration: names and line numbers for debuggers, in the compiler's own version of DWARF.
_DEBUG_INFORMATION = ("--disable", "DEBUG_INFO_NONE", "--enable", "DEBUG_INFO_DWARF_TOOLCHAIN_DEFAULT")


def _has_debug_information(path: Path) -> bool:
    """Return True if a file has the name of DWARF's section among those of its sections, which come last in it."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return data.rfind(b".debug_info\0") >= 0
    except (FileNotFoundError, ValueError):  # ValueError: it is empty
        return False


def kernel(folder: Path, jobs: int = 1) -> None:
    """Build ``zImage``, the same as ``vmlinux`` with symbols and debug information, and the board's device tree.

    The configuration is the kernel's own for the board. Debug information does not change the kernel's code. A kernel
    that was built without it is built again.
    """
    if (folder / "zImage").exists() and _has_debug_information(folder / "vmlinux"):
        return
    missing = [package for command, package in _NEEDED.items() if shutil.which(command) is None]
    if missing:
        raise BuildError(f"install what a kernel is built with: apt-get install {' '.join(missing)}")
    if not (folder / "source").is_dir():
        raise BuildError(f"there is no kernel in {folder / 'source'}: unpack it first")
    make = ("make", "-C", folder / "source", "ARCH=arm", f"CROSS_COMPILE={_PREFIX}", f"-j{jobs}", "--silent")
    run_command(*make, "versatile_defconfig")
    run_command(folder / "source" / "scripts" / "config", *_DEBUG_INFORMATION, cwd=folder / "source")
    run_command(*make, "olddefconfig")
    run_command(*make, "zImage", "dtbs")
    if not _has_debug_information(folder / "source" / "vmlinux"):
        raise BuildError(f"the kernel in {folder / 'source'} was built without debug information")
    built = folder / "source" / "arch" / "arm" / "boot"
    shutil.copy(built / "dts" / "versatile-pb.dtb", folder)
    shutil.copy(folder / "source" / "vmlinux", folder)
    shutil.copy(built / "zImage", folder / "zImage.partial")
    (folder / "zImage.partial").rename(folder / "zImage")


#: The nodes of the board's tree that the small one keeps. A boot needs no more.
_KEPT = {
    "/": {"chosen", "memory", "xtal24mhz@24M", "core-module@10000000", "amba"},
    "/core-module@10000000": {"cm_aux_osc@24M", "timclk@1M", "pclk@24M"},
    "/amba": {"interrupt-controller@10140000", "uart@101f1000", "timer@101e2000"},
}


def trees(folder: Path) -> None:
    """Make the small device tree from the board's."""
    import fdt

    path = folder / "versatile-pb.dtb"
    if not path.exists():
        raise BuildError(f"there is no {path}: build the kernel first")
    tree = fdt.parse_dtb(path.read_bytes())
    for parent, kept in _KEPT.items():
        for node in list(tree.get_node(parent).nodes):
            if node.name not in kept:
                tree.remove_node(node.name, parent)
    tree.set_property("stdout-path", "/amba/uart@101f1000", "/chosen")
    (folder / "versatile-pb-minimal.dtb").write_bytes(tree.to_dtb())


# -- the disk ------------------------------------------------------------------------------------

_DEVICE = 0o020644
_DIRECTORIES = ("bin", "dev", "etc", "proc", "root", "sbin", "sys", "tmp")
#: Linux, Documentation/admin-guide/devices.txt
_DEVICES = {"console": (5, 1), "null": (1, 3), "tty": (5, 0), "ttyAMA0": (204, 64), "urandom": (1, 9), "zero": (1, 5)}


def disk(folder: Path) -> None:
    """Make an archive of a few files."""
    busybox = folder / BUSYBOX / "bin" / "busybox"
    if not busybox.exists():
        raise BuildError(f"there is no {busybox}: unpack it first")
    data = archive(list(busybox_entries(busybox.read_bytes())))
    (folder / "initramfs-armel.cpio.gz").write_bytes(gzip.compress(data, 9, mtime=0))


def busybox_entries(busybox: bytes) -> Iterator[Entry]:
    """Yield what every disk has: the directories, the devices, a busybox, and the first programs of a boot."""
    for name in _DIRECTORIES:
        yield name, DIRECTORY, b"", (0, 0)
    for name, number in _DEVICES.items():
        yield f"dev/{name}", _DEVICE, b"", number
    yield "bin/busybox", PROGRAM, busybox, (0, 0)
    yield "bin/sh", LINK, b"busybox", (0, 0)
    for name in ("init", "init2"):
        yield name, PROGRAM, (SCRIPTS / name).read_bytes(), (0, 0)


STEPS: dict[str, Callable[[Path], None]] = {
    "fetch": fetch,
    "unpack": unpack,
    "kernel": kernel,
    "trees": trees,
    "disk": disk,
}

if __name__ == "__main__":
    raise SystemExit(main())

"""The kernel that Debian ships for ARMv7, untouched, and an initial RAM disk that tries the devices of the board virt.

    python tools/build_virt.py build/virt [--steps fetch,unpack,kernel,disk]

A step that has been done is not repeated, except for the last two, which take no time. See docs/virt.md.
"""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Iterator
from pathlib import Path

from build_linux import BUSYBOX, SCRIPTS, busybox_entries
from build_steps import run_steps
from debian_packages import BuildError, PrivateApt, find_package, package_field, run_command

from dbt.linux.initramfs import DIRECTORY, PROGRAM, Entry, archive

#: The package that depends on the newest kernel of the suite.
_NEWEST = "linux-image-armmp"
_SUITES = ("bookworm",)
#: What /init-virt and /init-xen load, each in an order in which a module comes after those that it needs.
MODULES = (
    *("virtio_mmio", "virtio_blk", "failover", "net_failover", "virtio_net", "virtio_console", "virtio-rng"),
    *("virtio_balloon", "netfs", "fscache", "9pnet", "9pnet_virtio", "9p", "overlay", "crc16", "crc32c_generic"),
    *("mbcache", "jbd2", "ext4", "squashfs", "loop", "vsock", "vmw_vsock_virtio_transport_common"),
    *("vmw_vsock_virtio_transport", "veth", "tun", "llc", "stp", "bridge", "evdev"),
)
XEN_MODULES = (
    *("xen-blkfront", "xen-netfront", "netfs", "fscache", "9pnet", "9pnet_xen", "9p", "crc16", "crc32c_generic"),
    *("mbcache", "jbd2", "ext4", "xen-evtchn", "xen-gntdev", "xen-gntalloc", "xen-privcmd", "xenfs"),
)
#: What a domain that serves others loads by itself.
BACK_ENDS = ("xen-blkback", "xen-netback")


def fetch(folder: Path) -> None:
    """Fetch the newest kernel for armhf and a busybox for armel, with an apt of our own for each."""
    packages = folder / "packages"
    packages.mkdir(parents=True, exist_ok=True)
    if find_package(packages, BUSYBOX) is None:
        apt = PrivateApt(folder / "apt-armel", "deb", "armel", _SUITES)
        apt.update()
        apt.download((BUSYBOX,), packages)
    if _kernel(packages) is None:
        apt = PrivateApt(folder / "apt-armhf", "deb", "armhf", _SUITES)
        apt.update()
        apt.download((_NEWEST,), packages)
        apt.download((_kernel_name(packages),), packages)


def _kernel_name(packages: Path) -> str:
    """Return the name of the package that has the kernel."""
    newest = find_package(packages, _NEWEST)
    if newest is None:
        raise BuildError(f"there is no package {_NEWEST} in {packages}: fetch it first")
    return package_field(newest, "Depends").split()[0]


def _kernel(packages: Path) -> Path | None:
    if find_package(packages, _NEWEST) is None:
        return None
    return find_package(packages, _kernel_name(packages))


def unpack(folder: Path) -> None:
    packages = folder / "packages"
    for name, package in (("kernel", _kernel(packages)), (BUSYBOX, find_package(packages, BUSYBOX))):
        if package is None:
            raise BuildError(f"the package of the {name} is not in {packages}: fetch it first")
        if not (folder / name).is_dir():
            run_command("dpkg-deb", "--extract", package, folder / f"{name}.partial")
            (folder / f"{name}.partial").rename(folder / name)


def kernel(folder: Path) -> None:
    """Copy the kernel as it is to ``vmlinuz``, and its configuration to ``config``."""
    for name in ("vmlinuz", "config"):
        shutil.copy(_only(folder / "kernel" / "boot", f"{name}-*"), folder / name)


def disk(folder: Path) -> None:
    """Make the initial RAM disk: busybox, the modules, and the programs that the kernel may start (``rdinit=``)."""
    busybox = folder / BUSYBOX / "bin" / "busybox"
    if not busybox.exists():
        raise BuildError(f"there is no {busybox}: unpack it first")
    data = archive([*busybox_entries(busybox.read_bytes()), *_entries(folder)])
    (folder / "initramfs-virt.cpio.gz").write_bytes(gzip.compress(data, 9, mtime=0))


def _entries(folder: Path) -> Iterator[Entry]:
    for name in ("init-virt", "init-xen", "init-root", "init-lab"):
        yield name, PROGRAM, (SCRIPTS / name).read_bytes(), (0, 0)
    yield "lib", DIRECTORY, b"", (0, 0)
    yield "lib/modules", DIRECTORY, b"", (0, 0)
    for name, modules in (("order", MODULES), ("order-xen", XEN_MODULES)):
        yield f"lib/modules/{name}", PROGRAM, "".join(f"{module}\n" for module in modules).encode(), (0, 0)
    for module in dict.fromkeys((*MODULES, *XEN_MODULES, *BACK_ENDS)):
        yield f"lib/modules/{module}.ko", PROGRAM, _only(folder / "kernel" / "lib", f"{module}.ko").read_bytes(), (0, 0)


def _only(folder: Path, pattern: str) -> Path:
    found = list(folder.rglob(pattern))
    if len(found) != 1:
        raise BuildError(f"there are {len(found)} files {pattern} in {folder}, should be one: unpack the kernel again")
    return found[0]


STEPS = {"fetch": fetch, "unpack": unpack, "kernel": kernel, "disk": disk}

if __name__ == "__main__":
    raise SystemExit(run_steps(__doc__, STEPS))

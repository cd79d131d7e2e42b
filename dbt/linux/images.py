"""The files that a Linux guest is made of: its kernel, the agent, and the blank disk of a container.

Agent and disk belong to the package. The kernel is one of Debian's that the user has imported, or that of a checkout.
"""

from __future__ import annotations

import os
from typing import Final, NamedTuple

#: Names in a directory that has a kernel, such as guests/linux/images of a checkout. There is a file of modules where
#: the kernel has its drivers outside, and a file that says what was imported.
KERNEL: Final = "zImage"
MODULES: Final = "modules.cpio"
ORIGIN: Final = "origin"
_PACKAGE: Final = os.path.join(os.path.dirname(os.path.realpath(__file__)), "guest")
AGENT_PATH: Final = os.path.join(_PACKAGE, "agent")
DISK_PATH: Final = os.path.join(_PACKAGE, "disk.gz")
_CHECKOUT: Final = os.path.join(
    os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__)))), "guests", "linux", "images"
)
_VARIABLE: Final = "DBT_LINUX_GUEST"


class LinuxGuestError(Exception):
    """Raised if there is no Linux guest, or if it does not come up. The text says what to do."""


class GuestFiles(NamedTuple):
    """What a Linux guest boots from: a kernel (zImage), the agent (an ELF executable), and an archive of modules
    (:func:`dbt.linux.initramfs.archive`) that the agent loads, which is empty if the kernel needs none.
    """

    kernel: bytes
    agent: bytes
    modules: bytes = b""


def import_folder() -> str:
    """Return the path of the directory of the kernel that the user has imported. It need not exist."""
    data = os.environ.get("XDG_DATA_HOME", "")
    if not os.path.isabs(data):
        data = os.path.join(os.path.expanduser("~"), ".local", "share")
    return os.path.join(data, "dbt", "linux-guest")


def kernel_folder() -> str:
    """Return the path of the directory of the kernel: the one that ``$DBT_LINUX_GUEST`` names, else the imported one,
    else that of the checkout. Raise LinuxGuestError if it has no kernel.
    """
    folder = os.environ.get(_VARIABLE)
    if not folder:
        folder = next(filter(_has_kernel, (import_folder(), _CHECKOUT)), "")
    if not folder or not _has_kernel(folder):
        where = f" in {folder}" if folder else ""
        raise LinuxGuestError(
            f"a program for Linux runs in a small Linux guest, and there is no kernel ({KERNEL}){where}. Get Debian's "
            "package linux-image-armmp for armhf, and run `dbt guest import FILE.deb`. A checkout of dbt has a smaller "
            f"kernel: {_VARIABLE} can be its directory guests/linux/images"
        )
    return folder


def _has_kernel(folder: str) -> bool:
    return os.path.isfile(os.path.join(folder, KERNEL))


def read_guest_files() -> GuestFiles:
    """Return what a guest boots from. Raise LinuxGuestError, or OSError if a file cannot be read."""
    folder = kernel_folder()
    try:
        modules = _read(os.path.join(folder, MODULES))
    except FileNotFoundError:
        modules = b""
    return GuestFiles(_read(os.path.join(folder, KERNEL)), _read(AGENT_PATH), modules)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()

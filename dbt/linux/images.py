"""The files that a Linux guest is made of: its kernel, the agent, and the blank disk of a container."""

from __future__ import annotations

import os
from typing import Final

#: Names in the directory of the images, which is guests/linux/images of a checkout.
KERNEL: Final = "zImage"
AGENT: Final = "agent"
DISK: Final = "disk.gz"
_CHECKOUT: Final = os.path.join(
    os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__)))), "guests", "linux", "images"
)
_VARIABLE: Final = "DBT_LINUX_GUEST"


class LinuxGuestError(Exception):
    """Raised if there is no Linux guest, or if it does not come up. The text says what to do."""


def images_folder() -> str:
    """Return the path of the directory of the images. Raise LinuxGuestError if there is none."""
    folder = os.environ.get(_VARIABLE) or _CHECKOUT
    missing = [name for name in (KERNEL, AGENT) if not os.path.isfile(os.path.join(folder, name))]
    if missing:
        raise LinuxGuestError(
            f"a program for Linux runs in a small Linux guest, and there is no {' and no '.join(missing)} in {folder}. "
            f"These files are in the source code of dbt: set {_VARIABLE} to the directory guests/linux/images there"
        )
    return folder

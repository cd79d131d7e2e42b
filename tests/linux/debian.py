"""Debian's unmodified kernel for ARMv7, which tests boot on the board virt. It is not in the repository.

DBT_VIRT_IMAGES names a directory with ``vmlinuz`` of Debian's package linux-image-armmp (armhf), and with
``initramfs-virt.cpio.gz``, whose /init-virt loads the virtio modules and powers off (docs/virt.md).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_FOLDER = os.environ.get("DBT_VIRT_IMAGES", "")
KERNEL, DISK = (Path(_FOLDER) / name for name in ("vmlinuz", "initramfs-virt.cpio.gz"))
#: Skips a test where there is no such kernel.
NEEDS_DEBIAN = pytest.mark.skipif(
    not (_FOLDER and KERNEL.is_file() and DISK.is_file()),
    reason="no Debian kernel for virt: DBT_VIRT_IMAGES names the directory that has one (docs/virt.md)",
)
#: Seconds; far more than it takes.
TIMEOUT = 600.0

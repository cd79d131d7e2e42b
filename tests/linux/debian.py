"""Debian's unmodified kernel for ARMv7, which tests boot on the board virt. It is not in the repository.

DBT_VIRT_IMAGES names the directory in which ``make virt`` has made ``vmlinuz`` and ``initramfs-virt.cpio.gz``, whose
/init-virt loads the virtio modules and powers off, and ``make debian`` a disk ``debian-armel.img`` (docs/virt.md).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_FOLDER = os.environ.get("DBT_VIRT_IMAGES", "")
KERNEL, DISK, ROOT = (Path(_FOLDER) / name for name in ("vmlinuz", "initramfs-virt.cpio.gz", "debian-armel.img"))
#: Skips a test where there is no such kernel.
NEEDS_DEBIAN = pytest.mark.skipif(
    not (_FOLDER and KERNEL.is_file() and DISK.is_file()),
    reason="no Debian kernel for virt: `make virt` fetches one, and DBT_VIRT_IMAGES names the directory that has it",
)
#: Skips a test where there is no such kernel, or no root file system for it.
NEEDS_ROOT = pytest.mark.skipif(
    not (_FOLDER and KERNEL.is_file() and DISK.is_file() and ROOT.is_file()),
    reason="no Debian for virt: `make debian` makes one, and DBT_VIRT_IMAGES names the directory that has it",
)
#: Seconds; far more than it takes.
TIMEOUT = 600.0

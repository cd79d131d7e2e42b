"""Debian's kernel, and a probe, say the same as a domain of the real Xen, which runs under QEMU; see compare_xen."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.linux.debian import DISK, KERNEL
from tests.linux.domu import NEEDS_DOMU
from tests.xen.compare_xen import compare_linux, compare_probe, is_expected, missing_programs

_REFERENCE = Path(os.environ.get("DBT_XEN_REFERENCE", ""))
pytestmark = [
    NEEDS_DOMU,
    pytest.mark.skipif(
        not (_REFERENCE / "run-xen").is_file(),
        reason="DBT_XEN_REFERENCE names no directory that has run-xen, so there is no Xen to compare with",
    ),
    pytest.mark.skipif(bool(missing_programs()), reason="QEMU or the compiler of device trees is not installed"),
]


def test_the_probe_finds_what_is_listed() -> None:
    """Naming domain 0 is -EPERM here, where it has the back ends, and -ESRCH there, where it is not."""
    found = compare_probe(_REFERENCE)
    assert len(found) == 3 and all(line.endswith("ffffffff, and in Xen fffffffd") for line in found), found


def test_linux_prints_the_same() -> None:
    only_here, only_there, same = compare_linux(_REFERENCE, KERNEL, DISK)
    assert same > 180
    assert [line for line in only_here + only_there if not is_expected(line)] == []

"""The words of monitor.S, which is executed by the guest's processor, and the places that it knows."""

from __future__ import annotations

import struct
from typing import Final

from dbt.abi.addresses import Gpa, Gva
from dbt.abi.layout import PAGE_SIZE
from dbt.hypervisor.xen.interface import CPU_INTERFACE, PV_PAGES

#: The pages of the hypervisor: the tables of a guest without a process, second-level tables, the monitor's code and
#: words, and the guest's frame.
IDLE_TABLE, TABLES, CODE, WORDS, FRAME = (Gpa(PV_PAGES + number * PAGE_SIZE) for number in (0, 2, 3, 4, 5))
#: Where the guest's kernel has the frame mapped.
FRAME_OF_GUEST: Final = Gva(0xFFE00000)
#: Where the monitor runs, and what it has mapped behind that.
VECTORS: Final = Gva(0xFFFF0000)
MAPPED: Final = (CODE, WORDS, FRAME, CPU_INTERFACE)
#: Where it begins, in its page.
BEGIN: Final = 0x400

#: The monitor's own words, at the end of their page.
IN_KERNEL, ENTRY, KERNEL_DOMAINS, USER_DOMAINS, ACTION, TABLE, SLOT = (
    Gpa(WORDS + PAGE_SIZE - offset) for offset in (12, 16, 20, 24, 28, 32, 36)
)
#: At the beginning of that page are the tables of processes by their numbers, and here which one is in use.
MOST_SLOTS, NO_SLOT = 128, 0xFF
#: What the monitor is to do after a hypercall. It flushes the TLB for all but an upcall.
ACT_TABLE, ACT_CODE, ACT_FLUSH, ACT_UPCALL = 1, 2, 4, 8

_EXCEPTIONS: Final = """
eafffffe ea000005 ea000009 ea000011 ea000019 eafffffe ea000020 eafffffe e24ee004 e8cd7fff e320f000 e3a00000
ea000029 e50d0004 e51d000c e3500000 e51d0004 1a000034 e8cd7fff e320f000 e3a00001 ea000020 e24ee004 e8cd7fff
e320f000 ee150f30 ee161f50 e58d0048 e58d104c e3a00002 ea000017 e24ee008 e8cd7fff e320f000 ee150f10 ee161f10
e58d0048 e58d104c e3a00003 ea00000e e24ee004 e8cd7fff e320f000 e59f0230 e590100c e7e92051 e59f3228 e1520003
15801010 13a00004 150d0028 1a000002 e8dd7fff e320f000 e1b0f00e e58d0044 e14f1000 e58de03c e58d1040 e51d100c
e58d1050 e3a01001 e50d100c e51d1014 ee031f10 f57ff06f e3a010d0 e16ff001 e51de010 e59f11d0 e1b0f00e e35c0033
0a000044 e35c0035 0a00002b e140ea71 e50d0004 e51d001c e3500000 1a000001 e51d0004 e1b0f00e e3500008 0a000014
e50d1008 e3100001 151d1020 1e021f10 13a01000 1e0d1f30 13a010ff 150d1024 e3a01000 f57ff04f ee081f17 e3100002
1e071f15 f57ff04f f57ff06f e50d101c e51d1008 e3100008 1a000001 e51d0004 e1b0f00e e3a00000 e50d001c e51d0004
e8cd7fff e320f000 e14f1000 e58de03c e58d1040 e3a00001 e58d0050 e3a00004 e58d0044 e50d0028 eaffffca e3500080
2a000012 e50d1008 e24d1a01 e7911100 e3510000 0a00000c e50d0024 e3a00000 ee0d0f30 f57ff06f ee021f10 f57ff06f
e51d0024 e2800001 ee0d0f30 f57ff06f e51d1008 e3a00000 e1b0f00e e51d1008 e3e00015 e1b0f00e e59d0050 e3500000
1a00001c e51d0028 e3500000 1a00000d e59d0040 e3c000df e3c00401 e3800010 e16ff000 e3a00000 e50d000c e51d0018
ee030f10 f57ff06f e59de03c e8dd7fff e320f000 e1b0f00e e59f0054 e590100c e7e92051 e59f304c e1520003 15801010
13a00004 158d0044 1affff96 e3a00000 e50d0028 eaffffe5 e3a00000 e58d0050 e59d0040 e3c000ff e3c00401 e38000d0
e16ff000 e59de03c e8dd7fff e320f000 e1b0f00e ffff3000 000003ff ffe00000 e320f000 e320f000 e320f000 e320f000
"""
_BEGIN: Final = """
e321f0d3 ee020f30 ee021f10 e3a00001 ee020f50 ee033f10 e3a00000 ee0d0f30 ee0d0f50 ee0d0f70 ee090f1e ee0e0f11
f57ff04f ee080f17 ee070f15 f57ff04f ee012f10 f57ff06f e59f0048 e28f1004 e7eb1051 e180f001 e59f003c e321f0db
e1a0d000 e321f0d7 e1a0d000 e321f0d2 e1a0d000 e321f0d3 e1a0d000 e58d5000 e8dd2000 e320f000 e3a000d0 e16ff000
e1a0e004 e1b0f00e ffff0000 ffff2000
"""


def monitor_code() -> bytes:
    """Return the monitor's page."""
    return _pack(_EXCEPTIONS).ljust(BEGIN, b"\0") + _pack(_BEGIN)


def _pack(text: str) -> bytes:
    words = [int(word, 16) for word in text.split()]
    return struct.pack(f"<{len(words)}I", *words)

"""Coprocessor register transfers to CP14 and CP15.

Every other coprocessor instruction is undefined, and so matches no pattern: CDP, LDC and STC always,
MCR2 and MRC2 because CP14 and CP15 have no such registers (B3.15.2), MCRR and MRRC because all the
registers here are 32 bits wide, and whatever addresses CP0 to CP13, floating point included.
"""

from __future__ import annotations

from types import SimpleNamespace

from isa.spec import insn
from isa.uop import Recorder, Uop

PC = 15
#: Thread ID registers (CP15 c13, c0), by opc2: read and written by each thread switch and each use of TLS.
TPIDRURW, TPIDRURO = 2, 3


def _write_result(u: Recorder, f: SimpleNamespace, value: Uop) -> None:
    """Rt, or the four flags from the top bits where Rt is the PC."""
    if f.rt == PC:
        u.n, u.z, u.c, u.v = (value.bit(place) for place in (31, 30, 29, 28))
    else:
        u.reg[f.rt] = value


@insn("cond:4 1110 opc1:3 1 crn:4 rt:4 111 cp:1 opc2:3 1 crm:4",
      syntax="MRC{<c>} <coproc>, <opc1>, <Rt>, <CRn>, <CRm>, <opc2>", section="A8.8.107", where="crn!=13",
      forms=("rt==15",))  # fmt: skip
def mrc(u: Recorder, f: SimpleNamespace) -> None:
    number = f.cp + 14
    _write_result(u, f, u.callout("coprocessor_read", number, f.opc1, f.crn, f.crm, f.opc2, result=True))


@insn("cond:4 1110 opc1:3 0 crn:4 rt:4 111 cp:1 opc2:3 1 crm:4",
      syntax="MCR{<c>} <coproc>, <opc1>, <Rt>, <CRn>, <CRm>, <opc2>", section="A8.8.98", where="crn!=13")  # fmt: skip
def mcr(u: Recorder, f: SimpleNamespace) -> None:
    u.callout("coprocessor_write", f.cp + 14, f.opc1, f.crn, f.crm, f.opc2, u.reg[f.rt])


# CP15 c13 has registers in opc1 = 0, CRm = c0 only.


@insn("cond:4 1110 000 1 1101 rt:4 1111 opc2:3 1 0000", name="MRC (thread ID)",
      syntax="MRC{<c>} p15, 0, <Rt>, c13, c0, <opc2>", section="A8.8.107", forms=("rt==15", "opc2"))  # fmt: skip
def mrc_thread_id(u: Recorder, f: SimpleNamespace) -> None:
    words = {TPIDRURW: "tpidrurw", TPIDRURO: "tpidruro"}
    if int(f.opc2) in words:
        _write_result(u, f, u.get(words[int(f.opc2)]))
    else:
        _write_result(u, f, u.callout("coprocessor_read", 15, 0, 13, 0, f.opc2, result=True))


@insn("cond:4 1110 000 0 1101 rt:4 1111 opc2:3 1 0000", name="MCR (thread ID)",
      syntax="MCR{<c>} p15, 0, <Rt>, c13, c0, <opc2>", section="A8.8.98", forms=("opc2==2",))  # fmt: skip
def mcr_thread_id(u: Recorder, f: SimpleNamespace) -> None:
    if f.opc2 == TPIDRURW:
        u.set("tpidrurw", u.reg[f.rt])
    else:
        u.callout("coprocessor_write", 15, 0, 13, 0, f.opc2, u.reg[f.rt])

"""Multiplication and division."""

from __future__ import annotations

from types import SimpleNamespace

from isa.arm.a32.registry import insn
from isa.arm.operands import set_nz
from isa.arm.recorder import Recorder
from isa.ir.uop import Uop

# A destination or operand that is R15 is UNPREDICTABLE throughout; see choice: r15-operand and
# choice: discarded-pc-write. So is RdHi = RdLo: we choose that the high half wins.
# choice: long-multiply-same-register


def _wide(u: Recorder, low: Uop, high: Uop) -> Uop:
    """Return the 64-bit value of a register pair."""
    return u.reg[high].zext(64) << 32 | u.reg[low].zext(64)


def _write_wide(u: Recorder, low: Uop, high: Uop, value: Uop) -> None:
    u.reg[low] = value.trunc(32)
    u.reg[high] = (value >> 32).trunc(32)


def _half(value: Uop, top: Uop) -> Uop:
    """Return the signed halfword that a form's bit selects."""
    return value.ashr(16) if top else (value << 16).ashr(16)


def _swapped(u: Recorder, f: SimpleNamespace) -> Uop:
    """Return the second operand of the dual multiplies. X exchanges its halves."""
    value = u.reg[f.rm]
    return value.ror(16) if f.m else value


def _accumulate_q(u: Recorder, total: Uop, addend: Uop) -> Uop:
    """Return a 32-bit sum, which wraps. Set Q if the signed addition overflows."""
    result, _, overflow = u.add_with_carry(total, addend, 0)
    u.q = u.q | overflow
    return result


# -- 32 and 64-bit results ---------------------------------------------------------------------


@insn("cond:4 0000 000 s:1 rd:4 (0000) rm:4 1001 rn:4", syntax="MUL{S}{<c>} <Rd>, <Rn>, <Rm>",
      section="A8.8.114", forms=("s",))  # fmt: skip
def mul(u: Recorder, f: SimpleNamespace) -> None:
    result = u.reg[f.rn] * u.reg[f.rm]
    u.reg[f.rd] = result
    if f.s:  # C is UNKNOWN before ARMv5 and unchanged since
        set_nz(u, result)


@insn("cond:4 0000 001 s:1 rd:4 ra:4 rm:4 1001 rn:4", syntax="MLA{S}{<c>} <Rd>, <Rn>, <Rm>, <Ra>",
      section="A8.8.100", forms=("s",))  # fmt: skip
def mla(u: Recorder, f: SimpleNamespace) -> None:
    result = u.reg[f.rn] * u.reg[f.rm] + u.reg[f.ra]
    u.reg[f.rd] = result
    if f.s:
        set_nz(u, result)


@insn("cond:4 0000 0110 rd:4 ra:4 rm:4 1001 rn:4", syntax="MLS{<c>} <Rd>, <Rn>, <Rm>, <Ra>",
      section="A8.8.101", since=7)  # fmt: skip
def mls(u: Recorder, f: SimpleNamespace) -> None:
    u.reg[f.rd] = u.reg[f.ra] - u.reg[f.rn] * u.reg[f.rm]


@insn("cond:4 0000 0100 hi:4 lo:4 rm:4 1001 rn:4", syntax="UMAAL{<c>} <RdLo>, <RdHi>, <Rn>, <Rm>",
      section="A8.8.255", since=6)  # fmt: skip
def umaal(u: Recorder, f: SimpleNamespace) -> None:
    product = u.reg[f.rn].zext(64) * u.reg[f.rm].zext(64)
    _write_wide(u, f.lo, f.hi, product + u.reg[f.hi].zext(64) + u.reg[f.lo].zext(64))


def _register_long(name: str, section: str, signed: bool, accumulates: bool) -> None:
    @insn(
        f"cond:4 0000 1{signed:d}{accumulates:d} s:1 hi:4 lo:4 rm:4 1001 rn:4",
        syntax=f"{name}{{S}}{{<c>}} <RdLo>, <RdHi>, <Rn>, <Rm>",
        section=section,
        forms=("s",),
    )
    def long_multiply(u: Recorder, f: SimpleNamespace) -> None:
        n, m = u.reg[f.rn], u.reg[f.rm]
        result = n.sext(64) * m.sext(64) if signed else n.zext(64) * m.zext(64)
        if accumulates:
            result = result + _wide(u, f.lo, f.hi)
        _write_wide(u, f.lo, f.hi, result)
        if f.s:
            set_nz(u, result)


_register_long("UMULL", "A8.8.257", signed=False, accumulates=False)
_register_long("UMLAL", "A8.8.256", signed=False, accumulates=True)
_register_long("SMULL", "A8.8.189", signed=True, accumulates=False)
_register_long("SMLAL", "A8.8.178", signed=True, accumulates=True)


# -- halfwords ---------------------------------------------------------------------------------


@insn("cond:4 0001 0000 rd:4 ra:4 rm:4 1 m:1 n:1 0 rn:4", syntax="SMLA<x><y>{<c>} <Rd>, <Rn>, <Rm>, <Ra>",
      section="A8.8.176", since=5, forms=("m", "n"))  # fmt: skip
def smlaxy(u: Recorder, f: SimpleNamespace) -> None:
    product = _half(u.reg[f.rn], f.n) * _half(u.reg[f.rm], f.m)
    addend = u.reg[f.ra]
    u.reg[f.rd] = _accumulate_q(u, product, addend)


@insn("cond:4 0001 0110 rd:4 (0000) rm:4 1 m:1 n:1 0 rn:4", syntax="SMUL<x><y>{<c>} <Rd>, <Rn>, <Rm>",
      section="A8.8.188", since=5, forms=("m", "n"))  # fmt: skip
def smulxy(u: Recorder, f: SimpleNamespace) -> None:
    u.reg[f.rd] = _half(u.reg[f.rn], f.n) * _half(u.reg[f.rm], f.m)


@insn("cond:4 0001 0100 hi:4 lo:4 rm:4 1 m:1 n:1 0 rn:4", syntax="SMLAL<x><y>{<c>} <RdLo>, <RdHi>, <Rn>, <Rm>",
      section="A8.8.179", since=5, forms=("m", "n"))  # fmt: skip
def smlalxy(u: Recorder, f: SimpleNamespace) -> None:
    product = _half(u.reg[f.rn], f.n) * _half(u.reg[f.rm], f.m)
    _write_wide(u, f.lo, f.hi, product.sext(64) + _wide(u, f.lo, f.hi))


def _word_by_half(u: Recorder, f: SimpleNamespace) -> Uop:
    """Return bits 47:16 of a word times a halfword."""
    return (u.reg[f.rn].sext(64) * _half(u.reg[f.rm], f.m).sext(64) >> 16).trunc(32)


@insn("cond:4 0001 0010 rd:4 (0000) rm:4 1 m:1 1 0 rn:4", syntax="SMULW<y>{<c>} <Rd>, <Rn>, <Rm>",
      section="A8.8.190", since=5, forms=("m",))  # fmt: skip
def smulwy(u: Recorder, f: SimpleNamespace) -> None:
    u.reg[f.rd] = _word_by_half(u, f)


@insn("cond:4 0001 0010 rd:4 ra:4 rm:4 1 m:1 0 0 rn:4", syntax="SMLAW<y>{<c>} <Rd>, <Rn>, <Rm>, <Ra>",
      section="A8.8.181", since=5, forms=("m",))  # fmt: skip
def smlawy(u: Recorder, f: SimpleNamespace) -> None:
    product, addend = _word_by_half(u, f), u.reg[f.ra]
    u.reg[f.rd] = _accumulate_q(u, product, addend)


# -- dual halfwords ----------------------------------------------------------------------------


def _products(u: Recorder, f: SimpleNamespace) -> tuple[Uop, Uop]:
    """Return the products of the bottom and of the top halfwords, each 32 bits wide and exact."""
    n, m = u.reg[f.rn], _swapped(u, f)
    return (n << 16).ashr(16) * (m << 16).ashr(16), n.ashr(16) * m.ashr(16)


def _dual(u: Recorder, f: SimpleNamespace) -> Uop:
    """Return the sum or the difference of the two products in 64 bits, because it needs 33."""
    low, high = _products(u, f)
    return low.sext(64) - high.sext(64) if f.sub else low.sext(64) + high.sext(64)


def _wrap_q(u: Recorder, exact: Uop) -> Uop:
    """Return the low word of a 64-bit result. Set Q if the rest is not its sign extension."""
    result = exact.trunc(32)
    u.q = u.q | (result.sext(64) != exact)
    return result


@insn("cond:4 0111 0000 rd:4 1111 rm:4 0 sub:1 m:1 1 rn:4", name="SMUAD, SMUSD",
      syntax="SMUAD{X}{<c>} <Rd>, <Rn>, <Rm>", section="A8.8.187", since=6, forms=("sub", "m"))  # fmt: skip
def smuad(u: Recorder, f: SimpleNamespace) -> None:
    exact = _dual(u, f)
    u.reg[f.rd] = exact.trunc(32) if f.sub else _wrap_q(u, exact)  # a difference cannot overflow


@insn("cond:4 0111 0000 rd:4 ra:4 rm:4 0 sub:1 m:1 1 rn:4", name="SMLAD, SMLSD", where="ra!=15",
      syntax="SMLAD{X}{<c>} <Rd>, <Rn>, <Rm>, <Ra>", section="A8.8.177", since=6, forms=("sub", "m"))  # fmt: skip
def smlad(u: Recorder, f: SimpleNamespace) -> None:
    exact = _dual(u, f) + u.reg[f.ra].sext(64)
    u.reg[f.rd] = _wrap_q(u, exact)  # Q is for the whole sum, not for that of the products


@insn("cond:4 0111 0100 hi:4 lo:4 rm:4 0 sub:1 m:1 1 rn:4", name="SMLALD, SMLSLD",
      syntax="SMLALD{X}{<c>} <RdLo>, <RdHi>, <Rn>, <Rm>", section="A8.8.180", since=6,
      forms=("sub", "m"))  # fmt: skip
def smlald(u: Recorder, f: SimpleNamespace) -> None:
    _write_wide(u, f.lo, f.hi, _dual(u, f) + _wide(u, f.lo, f.hi))


# -- most significant words --------------------------------------------------------------------


def _most_significant(u: Recorder, f: SimpleNamespace, addend: Uop | None, subtract: bool) -> None:
    """Write to Rd the top word of Ra:0 + or - Rn * Rm, which is rounded if R is set."""
    result = u.reg[f.rn].sext(64) * u.reg[f.rm].sext(64)
    if addend is not None:
        high = addend.zext(64) << 32
        result = high - result if subtract else high + result
    if f.r:
        result = result + 0x80000000
    u.reg[f.rd] = (result >> 32).trunc(32)


@insn("cond:4 0111 0101 rd:4 1111 rm:4 00 r:1 1 rn:4", syntax="SMMUL{R}{<c>} <Rd>, <Rn>, <Rm>",
      section="A8.8.186", since=6, forms=("r",))  # fmt: skip
def smmul(u: Recorder, f: SimpleNamespace) -> None:
    _most_significant(u, f, None, subtract=False)


@insn("cond:4 0111 0101 rd:4 ra:4 rm:4 00 r:1 1 rn:4", syntax="SMMLA{R}{<c>} <Rd>, <Rn>, <Rm>, <Ra>",
      section="A8.8.184", since=6, where="ra!=15", forms=("r",))  # fmt: skip
def smmla(u: Recorder, f: SimpleNamespace) -> None:
    _most_significant(u, f, u.reg[f.ra], subtract=False)


@insn("cond:4 0111 0101 rd:4 ra:4 rm:4 11 r:1 1 rn:4", syntax="SMMLS{R}{<c>} <Rd>, <Rn>, <Rm>, <Ra>",
      section="A8.8.185", since=6, forms=("r",))  # fmt: skip
def smmls(u: Recorder, f: SimpleNamespace) -> None:
    _most_significant(u, f, u.reg[f.ra], subtract=True)


# -- division ----------------------------------------------------------------------------------


@insn("cond:4 0111 0001 rd:4 (1111) rm:4 0001 rn:4", syntax="SDIV{<c>} <Rd>, <Rn>, <Rm>",
      section="A8.8.165", since=8)  # fmt: skip
def sdiv(u: Recorder, f: SimpleNamespace) -> None:
    u.reg[f.rd] = u.reg[f.rn].sdiv(u.reg[f.rm])


@insn("cond:4 0111 0011 rd:4 (1111) rm:4 0001 rn:4", syntax="UDIV{<c>} <Rd>, <Rn>, <Rm>",
      section="A8.8.248", since=8)  # fmt: skip
def udiv(u: Recorder, f: SimpleNamespace) -> None:
    u.reg[f.rd] = u.reg[f.rn].udiv(u.reg[f.rm])

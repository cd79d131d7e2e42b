"""Saturation, parallel arithmetic on bytes and halfwords, packing, extension, bit fields, bit counts."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

from isa.arm.a32.registry import insn
from isa.arm.recorder import Recorder
from isa.ir.uop import Uop

# A destination or operand that is R15 is UNPREDICTABLE throughout; see choice: r15-operand and
# choice: discarded-pc-write.


def _saturate(u: Recorder, value: Uop, low: Uop | int, high: Uop | int) -> tuple[Uop, Uop]:
    """Return a signed value clamped to [low, high], and a flag that is 1 if it was outside."""
    below, above = value.slt(low), u.value(high, value.width).slt(value)
    return u.select(above, high, u.select(below, low, value)), below | above


def _lane(value: Uop, number: int, bits: int, signed: bool) -> Uop:
    """Return lane ``number`` of ``bits`` bits, extended to 32 bits."""
    top = value << (32 - bits * (number + 1)) if bits * (number + 1) < 32 else value
    return top.ashr(32 - bits) if signed else top >> (32 - bits)


def _join(lanes: list[Uop], bits: int) -> Uop:
    """Return a word made of its lanes, lowest first. Bits of a lane above its width are dropped."""
    mask = (1 << bits) - 1
    word = lanes[0] & mask
    for number, lane in enumerate(lanes[1:], 1):
        word = word | (lane & mask) << bits * number
    return word


def _shifted(value: Uop, arithmetic: Uop, imm5: Uop) -> Uop:
    """Return a value shifted by LSL, or by ASR in which #0 is #32. The carry, which costs an operand, is left out."""
    if not arithmetic:
        return value << imm5
    return value.ashr(31) if imm5 == 0 else value.ashr(imm5)


# -- saturating arithmetic ---------------------------------------------------------------------


def _saturate_q(u: Recorder, wide: Uop) -> Uop:
    """Return a 64-bit value saturated to 32 signed bits. Set Q if it was saturated."""
    result, saturated = _saturate(u, wide, -0x80000000, 0x7FFFFFFF)
    u.q = u.q | saturated
    return result.trunc(32)


def _register_saturating(name: str, op: str, section: str, doubles: bool, subtracts: bool) -> None:
    @insn(f"cond:4 0001 0{op}0 rn:4 rd:4 (0000) 0101 rm:4", syntax=f"{name}{{<c>}} <Rd>, <Rm>, <Rn>",
          section=section, since=5)  # fmt: skip
    def saturating(u: Recorder, f: SimpleNamespace) -> None:
        m, n = u.reg[f.rm].sext(64), u.reg[f.rn].sext(64)
        if doubles:
            n = _saturate_q(u, n + n).sext(64)
        u.reg[f.rd] = _saturate_q(u, m - n if subtracts else m + n)


_register_saturating("QADD", "00", "A8.8.134", doubles=False, subtracts=False)
_register_saturating("QSUB", "01", "A8.8.141", doubles=False, subtracts=True)
_register_saturating("QDADD", "10", "A8.8.138", doubles=True, subtracts=False)
_register_saturating("QDSUB", "11", "A8.8.139", doubles=True, subtracts=True)


def _bounds(u: Recorder, sat: Uop, signed: bool) -> tuple[Uop, Uop]:
    """Return the range of SSAT to ``sat`` + 1 bits, or of USAT to ``sat`` bits. It is known at decode time."""
    high = (u.const(1) << sat) - 1
    return (~high if signed else u.const(0)), high


def _register_saturate(name: str, signed: bool, section: str, halves_section: str) -> None:
    op = "01" if signed else "11"

    @insn(f"cond:4 0110 1{op} sat:5 rd:4 imm5:5 sh:1 01 rn:4",
          syntax=f"{name}{{<c>}} <Rd>, #<sat>, <Rn>{{, <shift>}}", section=section,
          since=6, forms=("sh", "imm5==0"))  # fmt: skip
    def saturate(u: Recorder, f: SimpleNamespace) -> None:
        operand = _shifted(u.reg[f.rn], f.sh, f.imm5)
        # USAT of a large positive number is signed arithmetic too: 64 bits are not needed.
        result, saturated = _saturate(u, operand, *_bounds(u, f.sat, signed))
        u.reg[f.rd] = result
        u.q = u.q | saturated

    @insn(f"cond:4 0110 1{op}0 sat:4 rd:4 (1111) 0011 rn:4", syntax=f"{name}16{{<c>}} <Rd>, #<sat>, <Rn>",
          section=halves_section, since=6)  # fmt: skip
    def saturate_halves(u: Recorder, f: SimpleNamespace) -> None:
        bounds, n = _bounds(u, f.sat, signed), u.reg[f.rn]
        low, low_saturated = _saturate(u, _lane(n, 0, 16, True), *bounds)
        high, high_saturated = _saturate(u, _lane(n, 1, 16, True), *bounds)
        u.reg[f.rd] = _join([low, high], 16)
        u.q = u.q | low_saturated | high_saturated


_register_saturate("SSAT", True, "A8.8.193", "A8.8.194")
_register_saturate("USAT", False, "A8.8.266", "A8.8.267")


# -- parallel addition and subtraction ---------------------------------------------------------

Finish = Callable[[Recorder, Uop, int], Uop]


def _clamp(low: Callable[[int], int], high: Callable[[int], int]) -> Finish:
    return lambda u, lane, bits: _saturate(u, lane, low(bits), high(bits))[0]


#: Prefix: opcode, whether lanes are signed, whether GE is set, and what is done with a lane's result.
PREFIXES: dict[str, tuple[str, bool, bool, Finish]] = {
    "S": ("001", True, True, lambda u, lane, bits: lane),
    "Q": ("010", True, False, _clamp(lambda bits: -(1 << bits - 1), lambda bits: (1 << bits - 1) - 1)),
    "SH": ("011", True, False, lambda u, lane, bits: lane.ashr(1)),
    "U": ("101", False, True, lambda u, lane, bits: lane),
    "UQ": ("110", False, False, _clamp(lambda bits: 0, lambda bits: (1 << bits) - 1)),
    "UH": ("111", False, False, lambda u, lane, bits: lane >> 1),
}
#: Operation: opcode, bits of a lane, which lanes subtract, whether the second operand's are exchanged.
PARALLEL: dict[str, tuple[str, int, tuple[bool, ...], bool]] = {
    "ADD16": ("000", 16, (False, False), False),
    "ASX": ("001", 16, (True, False), True),
    "SAX": ("010", 16, (False, True), True),
    "SUB16": ("011", 16, (True, True), False),
    "ADD8": ("100", 8, (False,) * 4, False),
    "SUB8": ("111", 8, (True,) * 4, False),
}
#: Sections A8.8.<n> of each prefix's instructions, in the order of PARALLEL.
SECTIONS: dict[str, tuple[int, ...]] = {
    "S": (158, 160, 195, 196, 159, 197),
    "Q": (135, 137, 140, 142, 136, 143),
    "SH": (169, 171, 172, 173, 170, 174),
    "U": (243, 245, 268, 269, 244, 270),
    "UQ": (258, 260, 261, 262, 259, 263),
    "UH": (249, 251, 252, 253, 250, 254),
}


def _greater_equal(lane: Uop, bits: int, signed: bool, subtracts: bool) -> Uop:
    """Return a lane's GE bit: no borrow, carry out, or not negative."""
    if signed or subtracts:
        return ~lane.bit(31)
    return lane.bit(bits)


def _register_parallel(prefix: str, operation: str, section: int) -> None:
    prefix_op, signed, sets_ge, finish = PREFIXES[prefix]
    op, bits, subtracts, exchanges = PARALLEL[operation]

    @insn(f"cond:4 0110 0{prefix_op} rn:4 rd:4 (1111) {op}1 rm:4",
          syntax=f"{prefix}{operation}{{<c>}} <Rd>, <Rn>, <Rm>", section=f"A8.8.{section}", since=6)  # fmt: skip
    def parallel(u: Recorder, f: SimpleNamespace) -> None:
        n, m = u.reg[f.rn], u.reg[f.rm]
        if exchanges:
            m = m.ror(16)
        exact = []
        for number, subtract in enumerate(subtracts):
            a, b = _lane(n, number, bits, signed), _lane(m, number, bits, signed)
            exact.append(a - b if subtract else a + b)
        u.reg[f.rd] = _join([finish(u, lane, bits) for lane in exact], bits)
        if sets_ge:
            width = 4 // len(exact)  # GE bits for each lane
            ge = u.const(0)
            for number, (lane, subtract) in enumerate(zip(exact, subtracts, strict=True)):
                bit = _greater_equal(lane, bits, signed, subtract)
                ge = ge | u.select(bit, ((1 << width) - 1) << number * width, u.const(0))
            u.ge = ge


for _prefix in PREFIXES:
    for _name, _section in zip(PARALLEL, SECTIONS[_prefix], strict=True):
        _register_parallel(_prefix, _name, _section)


@insn("cond:4 0110 1000 rn:4 rd:4 (1111) 1011 rm:4", syntax="SEL{<c>} <Rd>, <Rn>, <Rm>", section="A8.8.166", since=6)
def sel(u: Recorder, f: SimpleNamespace) -> None:
    n, m, ge = u.reg[f.rn], u.reg[f.rm], u.ge
    lanes = [u.select(ge.bit(number), _lane(n, number, 8, False), _lane(m, number, 8, False)) for number in range(4)]
    u.reg[f.rd] = _join(lanes, 8)


def _absolute_differences(u: Recorder, f: SimpleNamespace) -> Uop:
    n, m = u.reg[f.rn], u.reg[f.rm]
    total = u.const(0)
    for number in range(4):
        difference = _lane(n, number, 8, False) - _lane(m, number, 8, False)
        total = total + u.select(difference.bit(31), -difference, difference)
    return total


@insn("cond:4 0111 1000 rd:4 1111 rm:4 0001 rn:4", syntax="USAD8{<c>} <Rd>, <Rn>, <Rm>", section="A8.8.264", since=6)
def usad8(u: Recorder, f: SimpleNamespace) -> None:
    u.reg[f.rd] = _absolute_differences(u, f)


@insn("cond:4 0111 1000 rd:4 ra:4 rm:4 0001 rn:4", syntax="USADA8{<c>} <Rd>, <Rn>, <Rm>, <Ra>",
      section="A8.8.265", since=6, where="ra!=15")  # fmt: skip
def usada8(u: Recorder, f: SimpleNamespace) -> None:
    u.reg[f.rd] = _absolute_differences(u, f) + u.reg[f.ra]


# -- packing and extension ---------------------------------------------------------------------


@insn("cond:4 0110 1000 rn:4 rd:4 imm5:5 tb:1 01 rm:4", name="PKHBT, PKHTB",
      syntax="PKHBT{<c>} <Rd>, <Rn>, <Rm>{, LSL #<imm>}", section="A8.8.125", since=6,
      forms=("tb", "imm5==0"))  # fmt: skip
def pkh(u: Recorder, f: SimpleNamespace) -> None:
    operand = _shifted(u.reg[f.rm], f.tb, f.imm5)
    n = u.reg[f.rn]
    top, bottom = (n, operand) if f.tb else (operand, n)
    u.reg[f.rd] = (top & 0xFFFF0000) | (bottom & 0xFFFF)


def _register_extension(name: str, op: str, bits: int, signed: bool, halves: bool, sections: tuple[int, int]) -> None:
    def extended(u: Recorder, f: SimpleNamespace) -> list[Uop]:
        rotated = u.reg[f.rm].ror(f.rotate << 3)
        if halves:
            return [_lane(rotated, 0, 8, signed), _lane(rotated, 2, 8, signed)]
        return [_lane(rotated, 0, bits, signed)]

    @insn(f"cond:4 0110 1{op} 1111 rd:4 rotate:2 (00) 0111 rm:4", syntax=f"{name}{{<c>}} <Rd>, <Rm>{{, <rotation>}}",
          section=f"A8.8.{sections[0]}", since=6)  # fmt: skip
    def extend(u: Recorder, f: SimpleNamespace) -> None:
        lanes = extended(u, f)
        u.reg[f.rd] = _join(lanes, 16) if halves else lanes[0]

    added = name.replace("XT", "XTA")

    @insn(f"cond:4 0110 1{op} rn:4 rd:4 rotate:2 (00) 0111 rm:4",
          syntax=f"{added}{{<c>}} <Rd>, <Rn>, <Rm>{{, <rotation>}}", section=f"A8.8.{sections[1]}", since=6,
          where="rn!=15")  # fmt: skip
    def extend_and_add(u: Recorder, f: SimpleNamespace) -> None:
        lanes, n = extended(u, f), u.reg[f.rn]
        u.reg[f.rd] = _join([lanes[0] + n, lanes[1] + (n >> 16)], 16) if halves else n + lanes[0]


for _row in (
    ("SXTB16", "000", 8, True, True, (234, 231)),
    ("SXTB", "010", 8, True, False, (233, 230)),
    ("SXTH", "011", 16, True, False, (235, 232)),
    ("UXTB16", "100", 8, False, True, (275, 272)),
    ("UXTB", "110", 8, False, False, (274, 271)),
    ("UXTH", "111", 16, False, False, (276, 273)),
):
    _register_extension(*_row)


# -- bit fields --------------------------------------------------------------------------------


def _field_mask(u: Recorder, lsb: Uop, width_minus_1: Uop) -> Uop:
    """Return a mask of ones in bits lsb to lsb + width - 1. It is known at decode time."""
    return (u.const(0xFFFFFFFF) >> (31 - width_minus_1 & 31)) << lsb


@insn("cond:4 0111 110 msb:5 rd:4 lsb:5 001 rn:4", name="BFI, BFC", syntax="BFI{<c>} <Rd>, <Rn>, #<lsb>, #<width>",
      section="A8.8.20", since=7, forms=("rn==15",))  # fmt: skip
def bfi(u: Recorder, f: SimpleNamespace) -> None:
    # msb < lsb is UNPREDICTABLE; we choose the field of width msb - lsb + 33, cut at bit 31.
    # choice: empty-bit-field
    mask = _field_mask(u, f.lsb, (f.msb - f.lsb) & 31)
    inserted = u.const(0) if f.rn == 15 else (u.reg[f.rn] << f.lsb) & mask
    u.reg[f.rd] = (u.reg[f.rd] & ~mask) | inserted


def _register_extract(name: str, signed: bool, section: str) -> None:
    @insn(f"cond:4 0111 1{'01' if signed else '11'} widthm1:5 rd:4 lsb:5 101 rn:4",
          syntax=f"{name}{{<c>}} <Rd>, <Rn>, #<lsb>, #<width>", section=section, since=7)  # fmt: skip
    def extract(u: Recorder, f: SimpleNamespace) -> None:
        # lsb + width > 32 is UNPREDICTABLE; we choose the bits from 32 - width up, modulo 32.
        # choice: bit-field-over-the-top
        left = (31 - f.widthm1 - f.lsb) & 31
        right = 31 - f.widthm1
        top = u.reg[f.rn] << left
        u.reg[f.rd] = top.ashr(right) if signed else top >> right


_register_extract("SBFX", True, "A8.8.164")
_register_extract("UBFX", False, "A8.8.246")


# -- bit counts and reversals ------------------------------------------------------------------


@insn("cond:4 0001 0110 (1111) rd:4 (1111) 0001 rm:4", syntax="CLZ{<c>} <Rd>, <Rm>", section="A8.8.33", since=5)
def clz(u: Recorder, f: SimpleNamespace) -> None:
    u.reg[f.rd] = u.reg[f.rm].clz()


@insn("cond:4 0110 1011 (1111) rd:4 (1111) 0011 rm:4", syntax="REV{<c>} <Rd>, <Rm>", section="A8.8.145", since=6)
def rev(u: Recorder, f: SimpleNamespace) -> None:
    u.reg[f.rd] = u.reg[f.rm].bswap()


@insn("cond:4 0110 1011 (1111) rd:4 (1111) 1011 rm:4", syntax="REV16{<c>} <Rd>, <Rm>", section="A8.8.146", since=6)
def rev16(u: Recorder, f: SimpleNamespace) -> None:
    u.reg[f.rd] = u.reg[f.rm].bswap().ror(16)


@insn("cond:4 0110 1111 (1111) rd:4 (1111) 1011 rm:4", syntax="REVSH{<c>} <Rd>, <Rm>", section="A8.8.147", since=6)
def revsh(u: Recorder, f: SimpleNamespace) -> None:
    u.reg[f.rd] = u.reg[f.rm].bswap().ashr(16)


@insn("cond:4 0110 1111 (1111) rd:4 (1111) 0011 rm:4", syntax="RBIT{<c>} <Rd>, <Rm>", section="A8.8.144", since=7)
def rbit(u: Recorder, f: SimpleNamespace) -> None:
    u.reg[f.rd] = u.reg[f.rm].bitreverse()

"""Loads and stores of a single register, of a register pair, exclusives, swaps and preloads.

The ordinary transfers are a product of three tables: what is transferred (:data:`WORDS_AND_BYTES`,
:data:`HALFWORDS`, :data:`DOUBLEWORDS`), the addressing mode (:data:`MODES`) and the kind of offset.
Unaligned LDR, STR, LDRH, LDRSH and STRH are done as ARMv7 does them; the others must be aligned.
choice: unaligned-access
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

from isa.arm.a32.registry import insn
from isa.arm.operands import PC, SP, shift_by_immediate
from isa.arm.recorder import Recorder
from isa.ir.uop import BranchKind, Uop

ODD = ", ".join(f"rt!={number}" for number in range(1, 16, 2))


@dataclass(frozen=True, slots=True)
class Mode:
    """An addressing mode: its bits P and W, and how a base and an ``{}`` offset are written.

    The mode P = 0, W = 1 is the post-indexed one of the unprivileged transfers (LDRT and friends).
    """

    p: int
    w: int
    title: str
    syntax: str

    @property
    def indexes_first(self) -> bool:
        return self.p == 1

    @property
    def writes_back(self) -> bool:
        return self.p == 0 or self.w == 1

    @property
    def user(self) -> bool:
        return self.p == 0 and self.w == 1


OFFSET = Mode(1, 0, "offset", "[<Rn>, {}]")
PRE_INDEXED = Mode(1, 1, "pre-indexed", "[<Rn>, {}]!")
POST_INDEXED = Mode(0, 0, "post-indexed", "[<Rn>], {}")
UNPRIVILEGED = Mode(0, 1, "unprivileged", "[<Rn>], {}")
MODES = (OFFSET, PRE_INDEXED, POST_INDEXED, UNPRIVILEGED)


@dataclass(frozen=True, slots=True)
class Transfer:
    """What a load or store moves.

    ``op`` has its opcode bits: B and L for words and bytes, L and 7:4 for the others. ``sections`` are those of the
    immediate, the register and the unprivileged encodings, in A8.8.
    """

    name: str
    op: str
    load: bool
    size: int
    sections: tuple[int, int, int]
    signed: bool = False


WORDS_AND_BYTES = (
    Transfer("STR", "0 0", False, 4, (204, 205, 220)),
    Transfer("LDR", "0 1", True, 4, (63, 66, 92)),
    Transfer("STRB", "1 0", False, 1, (207, 208, 209)),
    Transfer("LDRB", "1 1", True, 1, (68, 70, 71)),
)
HALFWORDS = (
    Transfer("STRH", "0 1011", False, 2, (217, 218, 219)),
    Transfer("LDRH", "1 1011", True, 2, (80, 82, 83)),
    Transfer("LDRSB", "1 1101", True, 1, (84, 86, 87), signed=True),
    Transfer("LDRSH", "1 1111", True, 2, (88, 90, 91), signed=True),
)
DOUBLEWORDS = (
    Transfer("LDRD", "0 1101", True, 4, (72, 74, 0)),
    Transfer("STRD", "0 1111", False, 4, (210, 211, 0)),
)


# -- semantics ---------------------------------------------------------------------------------


def _transfer(u: Recorder, f: SimpleNamespace, what: Transfer, mode: Mode, offset: Uop) -> None:
    """Transfer one register. Rt is the PC only where the encoding says so: see :func:`_can_load_pc`."""
    base = u.reg[f.rn]
    indexed = base + offset
    address = indexed if mode.indexes_first else base
    if not what.load:
        u.store(address, u.reg[f.rt], what.size, user=mode.user)  # choice: str-pc-offset
    else:
        value = u.load(address, what.size, signed=what.signed, user=mode.user)
    to_pc = _can_load_pc(what, mode) and bool(f.rt == PC)
    if to_pc:
        u.interwork(value)
    if mode.writes_back:
        u.reg[f.rn] = indexed
    if not what.load:
        return
    if to_pc:
        pops = mode is POST_INDEXED and bool(f.rn == SP)
        u.branch(value, BranchKind.RETURN if pops else BranchKind.INDIRECT)
    else:
        # UNPREDICTABLE if Rt is the base written back; we choose that the loaded value wins.
        # choice: load-base-is-target
        u.reg[f.rt] = value


def _can_load_pc(what: Transfer, mode: Mode) -> bool:
    # The others are UNPREDICTABLE with Rt = PC; we choose to discard the value. choice: discarded-pc-write
    return what.name == "LDR" and not mode.user


def _transfer_pair(u: Recorder, f: SimpleNamespace, what: Transfer, mode: Mode, offset: Uop) -> None:
    """Transfer Rt and Rt+1. Rt = R14 is UNPREDICTABLE; we choose R15 as the second. choice: discarded-pc-write

    To load a written-back base or the index is UNPREDICTABLE too. choice: load-base-is-target, operands-read-first
    """
    base, second = u.reg[f.rn], f.rt + 1
    indexed = base + offset
    address = indexed if mode.indexes_first else base
    if what.load:
        values = u.load(address, 4, aligned=True), u.load(address + 4, 4, aligned=True)
    else:
        u.store(address, u.reg[f.rt], 4, aligned=True)
        u.store(address + 4, u.reg[second], 4, aligned=True)
    if mode.writes_back:
        u.reg[f.rn] = indexed
    if what.load:
        u.reg[f.rt], u.reg[second] = values


def _signed_immediate(u: Recorder, f: SimpleNamespace, magnitude: Uop) -> Uop:
    """Return the offset with the sign of U, which is computed at decode time."""
    return u.select(f.u == 1, magnitude, -magnitude)


def _signed_register(u: Recorder, f: SimpleNamespace, magnitude: Uop) -> Uop:
    return u.select(f.u == 1, magnitude, -magnitude)


# -- encodings ---------------------------------------------------------------------------------


def _register_word_or_byte(what: Transfer, mode: Mode) -> None:
    b, load = what.op.split()
    head = f"{mode.p} u:1 {b} {mode.w} {load} rn:4 rt:4"
    name = f"{what.name}T" if mode.user else what.name
    immediate_section, register_section, user_section = what.sections
    to_pc = ("rt==15",) if _can_load_pc(what, mode) else ()
    bases = {OFFSET: ("rn==15",), POST_INDEXED: ("rn==13",)}.get(mode, ()) if to_pc else ()

    @insn(
        f"cond:4 010 {head} imm12:12",
        name=f"{name} (immediate, {mode.title})",
        syntax=f"{name}{{<c>}} <Rt>, {mode.syntax.format('#+/-<imm12>')}",
        section=f"A8.8.{user_section if mode.user else immediate_section}",
        forms=(*bases, *to_pc),
    )
    def immediate(u: Recorder, f: SimpleNamespace) -> None:
        _transfer(u, f, what, mode, _signed_immediate(u, f, f.imm12))

    @insn(
        f"cond:4 011 {head} imm5:5 type:2 0 rm:4",
        name=f"{name} (register, {mode.title})",
        syntax=f"{name}{{<c>}} <Rt>, {mode.syntax.format('+/-<Rm>{, <shift>}')}",
        section=f"A8.8.{user_section if mode.user else register_section}",
        forms=(*(("u",) if mode is OFFSET else ()), "type", "imm5==0", *to_pc, *(b for b in bases if b == "rn==13")),
    )
    def register(u: Recorder, f: SimpleNamespace) -> None:
        offset, _ = shift_by_immediate(u, u.reg[f.rm], int(f.type), f.imm5)
        _transfer(u, f, what, mode, _signed_register(u, f, offset))


def _register_extra(what: Transfer, mode: Mode) -> None:
    """Register the transfers of A5.2.8 and A5.2.9: halfwords, signed bytes, register pairs."""
    load, op = what.op.split()
    name = f"{what.name}T" if mode.user else what.name
    immediate_section, register_section, user_section = what.sections
    pair = what in DOUBLEWORDS
    transfer = _transfer_pair if pair else _transfer
    registers = "<Rt>, <Rt2>" if pair else "<Rt>"
    since = 7 if mode.user else 5 if pair else 4
    # An odd Rt is UNPREDICTABLE in a pair; we choose an undefined instruction. choice: odd-register-pair
    where = ODD if pair else ""

    @insn(
        f"cond:4 000 {mode.p} u:1 1 {mode.w} {load} rn:4 rt:4 imm4h:4 {op} imm4l:4",
        name=f"{name} (immediate, {mode.title})",
        syntax=f"{name}{{<c>}} {registers}, {mode.syntax.format('#+/-<imm8>')}",
        section=f"A8.8.{user_section if mode.user else immediate_section}",
        since=since,
        where=where,
    )
    def immediate(u: Recorder, f: SimpleNamespace) -> None:
        transfer(u, f, what, mode, _signed_immediate(u, f, f.imm4h << 4 | f.imm4l))

    @insn(
        f"cond:4 000 {mode.p} u:1 0 {mode.w} {load} rn:4 rt:4 (0000) {op} rm:4",
        name=f"{name} (register, {mode.title})",
        syntax=f"{name}{{<c>}} {registers}, {mode.syntax.format('+/-<Rm>')}",
        section=f"A8.8.{user_section if mode.user else register_section}",
        since=since,
        where=where,
        forms=("u",) if mode is OFFSET else (),
    )
    def register(u: Recorder, f: SimpleNamespace) -> None:
        transfer(u, f, what, mode, _signed_register(u, f, u.reg[f.rm]))


for _mode in MODES:
    for _what in WORDS_AND_BYTES:
        _register_word_or_byte(_what, _mode)
    for _what in HALFWORDS:
        _register_extra(_what, _mode)
    for _what in DOUBLEWORDS:
        # P = 0, W = 1 is UNPREDICTABLE; we choose an undefined instruction. choice: unprivileged-pair
        if _mode is not UNPRIVILEGED:
            _register_extra(_what, _mode)


# -- semaphores --------------------------------------------------------------------------------


@insn("cond:4 0001 0 b:1 00 rn:4 rt:4 (0000) 1001 rt2:4", syntax="SWP{B}{<c>} <Rt>, <Rt2>, [<Rn>]",
      section="A8.8.229", forms=("b",))  # fmt: skip
def swp(u: Recorder, f: SimpleNamespace) -> None:
    # SCTLR.SW may disable it on ARMv7 with the Multiprocessing Extensions. choice: swp-enabled
    size = 1 if f.b else 4
    address = u.reg[f.rn]
    value = u.load(address, size, aligned=True)
    u.store(address, u.reg[f.rt2], size, aligned=True)
    u.reg[f.rt] = value


def _watch(u: Recorder, address: Uop) -> None:
    """Do ``SetExclusiveMonitors`` (A3.4.5). One local monitor watches one address. choice: exclusive-monitor"""
    u.set("exclusive", 1)
    u.set("exclusive_address", address)


def _doubleword(address: Uop) -> Uop:
    """Return the address, made odd unless it is doubleword-aligned, so that an aligned access to it faults.

    The fault then names the odd address. choice: exclusive-pair-fault-address
    """
    return address | address.bits(2, 2)


def _register_exclusive(suffix: str, op: str, size: int, since: int, load_section: int, store_section: int) -> None:
    @insn(f"cond:4 0001 1{op}1 rn:4 rt:4 (1111) 1001 (1111)", syntax=f"LDREX{suffix}{{<c>}} <Rt>, [<Rn>]",
          section=f"A8.8.{load_section}", since=since)  # fmt: skip
    def ldrex(u: Recorder, f: SimpleNamespace) -> None:
        address = u.reg[f.rn]
        value = u.load(address, size, aligned=True)
        _watch(u, address)
        u.reg[f.rt] = value

    @insn(f"cond:4 0001 1{op}0 rn:4 rd:4 (1111) 1001 rt:4", syntax=f"STREX{suffix}{{<c>}} <Rd>, <Rt>, [<Rn>]",
          section=f"A8.8.{store_section}", since=since)  # fmt: skip
    def strex(u: Recorder, f: SimpleNamespace) -> None:
        # Rd = Rn or Rt is UNPREDICTABLE; we choose what the sequence below does. choice: operands-read-first
        address = u.reg[f.rn]
        # The monitor is asked before the access can fault. choice: strex-monitor-first
        passes = u.get("exclusive").trunc(1) & (address == u.get("exclusive_address"))
        with u.when(passes):
            u.store(address, u.reg[f.rt], size, aligned=True)
        u.set("exclusive", 0)
        u.reg[f.rd] = (~passes).zext(32)


for _row in (("", "00", 4, 6, 75, 212), ("B", "10", 1, 6, 76, 213), ("H", "11", 2, 6, 78, 215)):
    _register_exclusive(*_row)


@insn("cond:4 0001 1011 rn:4 rt:4 (1111) 1001 (1111)", syntax="LDREXD{<c>} <Rt>, <Rt2>, [<Rn>]",
      section="A8.8.77", since=6, where=ODD)  # fmt: skip
def ldrexd(u: Recorder, f: SimpleNamespace) -> None:
    # An odd Rt is UNPREDICTABLE; we choose an undefined instruction. choice: odd-register-pair
    address = u.reg[f.rn]
    low = u.load(_doubleword(address), 4, aligned=True)
    high = u.load(address + 4, 4, aligned=True)
    _watch(u, address)
    u.reg[f.rt], u.reg[f.rt + 1] = low, high


@insn("cond:4 0001 1010 rn:4 rd:4 (1111) 1001 rt:4", syntax="STREXD{<c>} <Rd>, <Rt>, <Rt2>, [<Rn>]",
      section="A8.8.214", since=6, where=ODD)  # fmt: skip
def strexd(u: Recorder, f: SimpleNamespace) -> None:
    address = u.reg[f.rn]
    passes = u.get("exclusive").trunc(1) & (address == u.get("exclusive_address"))
    with u.when(passes):
        u.store(_doubleword(address), u.reg[f.rt], 4, aligned=True)
        u.store(address + 4, u.reg[f.rt + 1], 4, aligned=True)
    u.set("exclusive", 0)
    u.reg[f.rd] = (~passes).zext(32)


@insn("1111 0101 0111 (111111110000) 0001 (1111)", syntax="CLREX", section="A8.8.32", since=6)
def clrex(u: Recorder, f: SimpleNamespace) -> None:
    u.set("exclusive", 0)


# -- hints to the memory system: no effect on what a program computes. choice: hints-do-nothing -


@insn("1111 0101 u:1 1 01 rn:4 (1111) imm12:12", syntax="PLD [<Rn>, #+/-<imm12>]", section="A8.8.126", since=5)
@insn("1111 0111 u:1 1 01 rn:4 (1111) imm5:5 type:2 0 rm:4", syntax="PLD [<Rn>, +/-<Rm>{, <shift>}]",
      section="A8.8.128", since=5)  # fmt: skip
@insn("1111 0101 u:1 0 01 rn:4 (1111) imm12:12", syntax="PLDW [<Rn>, #+/-<imm12>]", section="A8.8.126",
      since=7, where="rn!=15")  # fmt: skip
@insn("1111 0111 u:1 0 01 rn:4 (1111) imm5:5 type:2 0 rm:4", syntax="PLDW [<Rn>, +/-<Rm>{, <shift>}]",
      section="A8.8.128", since=7)  # fmt: skip
@insn("1111 0100 u:1 1 01 rn:4 (1111) imm12:12", syntax="PLI [<Rn>, #+/-<imm12>]", section="A8.8.129", since=7)
@insn("1111 0110 u:1 1 01 rn:4 (1111) imm5:5 type:2 0 rm:4", syntax="PLI [<Rn>, +/-<Rm>{, <shift>}]",
      section="A8.8.130", since=7)  # fmt: skip
@insn("1111 0100 u:1 0 01 rn:4 rt:4 imm12:12", name="unallocated memory hint (immediate)", syntax="-",
      section="A5.7.1", since=7)  # fmt: skip
@insn("1111 0110 u:1 0 01 rn:4 rt:4 imm5:5 type:2 0 rm:4", name="unallocated memory hint (register)", syntax="-",
      section="A5.7.1", since=7)  # fmt: skip
def preload(u: Recorder, f: SimpleNamespace) -> None:
    """Do nothing: a preload has no effect on what a program computes."""

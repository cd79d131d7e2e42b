"""Data processing: the sixteen operations, each with its three kinds of second operand, and MOVW/MOVT."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

from isa.arm.a32.registry import insn
from isa.arm.exceptions import exception_return
from isa.arm.operands import LR, expand_imm, set_nz, shift_by_immediate, shift_by_register
from isa.arm.recorder import Recorder
from isa.ir.uop import BranchKind, Uop

# operation(u, rn, operand2) -> result, and carry and overflow where the operation defines them
# itself (the arithmetic ones); the logical ones take C from the shifter and leave V.
Result = tuple[Uop, Uop | None, Uop | None]
Operation = Callable[[Recorder, Uop, Uop], Result]

OPERATIONS: dict[str, tuple[int, str, Operation]] = {
    "AND": (0b0000, "A8.8.13", lambda u, a, b: (a & b, None, None)),
    "EOR": (0b0001, "A8.8.46", lambda u, a, b: (a ^ b, None, None)),
    "SUB": (0b0010, "A8.8.221", lambda u, a, b: u.add_with_carry(a, ~b, 1)),
    "RSB": (0b0011, "A8.8.152", lambda u, a, b: u.add_with_carry(b, ~a, 1)),
    "ADD": (0b0100, "A8.8.5", lambda u, a, b: u.add_with_carry(a, b, 0)),
    "ADC": (0b0101, "A8.8.1", lambda u, a, b: u.add_with_carry(a, b, u.c)),
    "SBC": (0b0110, "A8.8.161", lambda u, a, b: u.add_with_carry(a, ~b, u.c)),
    "RSC": (0b0111, "A8.8.155", lambda u, a, b: u.add_with_carry(b, ~a, u.c)),
    "TST": (0b1000, "A8.8.240", lambda u, a, b: (a & b, None, None)),
    "TEQ": (0b1001, "A8.8.237", lambda u, a, b: (a ^ b, None, None)),
    "CMP": (0b1010, "A8.8.37", lambda u, a, b: u.add_with_carry(a, ~b, 1)),
    "CMN": (0b1011, "A8.8.34", lambda u, a, b: u.add_with_carry(a, b, 0)),
    "ORR": (0b1100, "A8.8.122", lambda u, a, b: (a | b, None, None)),
    "MOV": (0b1101, "A8.8.102", lambda u, a, b: (b, None, None)),
    "BIC": (0b1110, "A8.8.21", lambda u, a, b: (a & ~b, None, None)),
    "MVN": (0b1111, "A8.8.115", lambda u, a, b: (~b, None, None)),
}
COMPARES = ("TST", "TEQ", "CMP", "CMN")
MOVES = ("MOV", "MVN")


def _finish(u: Recorder, f: SimpleNamespace, name: str, operation: Operation, operand2: Uop, carry: Uop) -> None:
    """Compute the result, and write Rd and the flags. All kinds of operands share this."""
    rn = u.const(0) if name in MOVES else u.reg[f.rn]
    result, carry_out, overflow = operation(u, rn, operand2)
    if name in COMPARES:
        _set_flags(u, result, carry_out, overflow, carry)
    elif f.rd == 15:
        if f.s:
            exception_return(u, result)
        else:
            returns = name == "MOV" and result.op == "get_reg" and result.args[0].number == LR
            u.alu_write_pc(result, BranchKind.RETURN if returns else BranchKind.INDIRECT)
    else:
        u.reg[f.rd] = result
        if f.s:
            _set_flags(u, result, carry_out, overflow, carry)


def _set_flags(u: Recorder, result: Uop, carry_out: Uop | None, overflow: Uop | None, shifter_carry: Uop) -> None:
    set_nz(u, result)
    u.c = shifter_carry if carry_out is None else carry_out
    if overflow is not None:
        u.v = overflow


def _register(name: str, opcode: int, section: str, operation: Operation) -> None:
    compares, moves = name in COMPARES, name in MOVES
    s, dest = ("1", "(0000)") if compares else ("s:1", "rd:4")
    first = "(0000)" if moves else "rn:4"
    written = () if compares else ("s", "rd==15")
    syntax = f"{name}{'' if compares else '{S}'}{{<c>}} " + ", ".join(
        part for part, there in (("<Rd>", not compares), ("<Rn>", not moves)) if there
    )
    op = f"{opcode:04b}"

    @insn(
        f"cond:4 001 {op} {s} {first} {dest} rotate:4 imm8:8",
        name=f"{name} (immediate)",
        syntax=f"{syntax}, #<const>",
        section=section,
        forms=written,
    )
    def immediate(u: Recorder, f: SimpleNamespace) -> None:
        operand2, carry = expand_imm(u, f.rotate, f.imm8)
        _finish(u, f, name, operation, operand2, carry)

    @insn(
        f"cond:4 000 {op} {s} {first} {dest} imm5:5 type:2 0 rm:4",
        name=f"{name} (register)",
        syntax=f"{syntax}, <Rm>{{, <shift>}}",
        section=section,
        forms=("type", "imm5==0", *written),
    )
    def register(u: Recorder, f: SimpleNamespace) -> None:
        operand2, carry = shift_by_immediate(u, u.reg[f.rm], int(f.type), f.imm5)
        _finish(u, f, name, operation, operand2, carry)

    @insn(
        f"cond:4 000 {op} {s} {first} {dest} rs:4 0 type:2 1 rm:4",
        name=f"{name} (register-shifted register)",
        syntax=f"{syntax}, <Rm>, <type> <Rs>",
        section=section,
        forms=("type", *written),
    )
    def register_shifted_register(u: Recorder, f: SimpleNamespace) -> None:
        # Rd, Rn, Rm or Rs = PC is UNPREDICTABLE; we choose the ordinary meaning of R15. choice: r15-operand
        operand2, carry = shift_by_register(u, u.reg[f.rm], int(f.type), u.reg[f.rs])
        _finish(u, f, name, operation, operand2, carry)


for _name, (_opcode, _section, _operation) in OPERATIONS.items():
    _register(_name, _opcode, _section, _operation)


@insn("cond:4 0011 0000 imm4:4 rd:4 imm12:12", syntax="MOVW{<c>} <Rd>, #<imm16>", section="A8.8.102", since=7)
def movw(u: Recorder, f: SimpleNamespace) -> None:
    u.reg[f.rd] = f.imm4 << 12 | f.imm12


@insn("cond:4 0011 0100 imm4:4 rd:4 imm12:12", syntax="MOVT{<c>} <Rd>, #<imm16>", section="A8.8.106", since=7)
def movt(u: Recorder, f: SimpleNamespace) -> None:
    u.reg[f.rd] = (u.reg[f.rd] & 0xFFFF) | (f.imm4 << 12 | f.imm12) << 16

"""The guest's flags inside a region, computed when they are read.

Most code compares, branches on one condition, and compares again, so of four flags three are never
looked at; but every exit of a region must show them all. They are therefore kept as what they follow
from: the operands of a subtraction, or the result of another operation. Which of the forms of
:class:`FlagKind` they have at a place of the region is known when it is lowered, so blocks are lowered once
for each kind with which control comes to them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from dbt.backend.lower import FLAGS
from dbt.backend.module import Function
from dbt.frontend.forming import Block
from isa.ir.queries import effect_of
from isa.ir.table import Effect
from isa.ir.uop import Uop


class FlagKind(Enum):
    """The form in which the flags are kept, from which their values follow."""

    STORED = "n, z, c and v themselves"
    RESULT = "N and Z from the result r; c and v themselves"
    MIXED = "N and Z from the result r; C and V from x - y"
    DIFFERENCE = "all from x - y"
    DEAD = "not needed, because all are set before one is read and before the region can be left"


#: The variables that each kind consists of.
PARTS = {
    FlagKind.STORED: ("n", "z", "c", "v"),
    FlagKind.RESULT: ("r", "c", "v"),
    FlagKind.MIXED: ("r", "x", "y"),
    FlagKind.DIFFERENCE: ("x", "y"),
    FlagKind.DEAD: (),
}


@dataclass(slots=True)
class FlagEffect:
    """The effect of an instruction on the flags: the operands of a subtraction that sets all four, or ``result``, from
    which N and Z follow, if there is such, and the values (one bit each) of the other flags that it sets.
    """

    difference: tuple[Uop, Uop] | None = None
    result: Uop | None = None
    values: dict[str, Uop] = field(default_factory=dict)

    def kind_after(self, before: FlagKind) -> FlagKind:
        """Return the kind of the flags after this effect."""
        if self.difference is not None:
            return FlagKind.DIFFERENCE
        if self.result is None:
            return FlagKind.STORED
        if not self.values and before in (FlagKind.DIFFERENCE, FlagKind.MIXED):
            return FlagKind.MIXED
        return FlagKind.RESULT


def flag_effect(block: list[Uop], lazy: bool) -> FlagEffect:
    """Return the effect of the ``set`` uops of a block, without those of nested blocks.

    If not ``lazy``, it has the values of the flags only, and neither a difference nor a result.
    """
    values = {str(uop.attr): _bit(uop.args[0]) for uop in block if uop.op == "set" and uop.attr in FLAGS}
    effect = FlagEffect(values=values)
    if not lazy:
        return effect
    zero = values.get("z")
    if zero is None or zero.op != "eq" or zero.args[0].width != 32 or zero.args[1].number != 0:
        return effect
    result = zero.args[0]
    if not _is_sign(values.get("n"), result):
        return effect
    if (difference := _difference(values, result)) is not None:
        return FlagEffect(difference)
    others = {name: value for name, value in values.items() if name in "cv" and not _is_old(value, name)}
    return FlagEffect(None, result, others)


def overwrites_flags(block: Block) -> bool:
    """Return True if a block sets all flags before it reads one, and before it can leave the region.

    It is taken for granted that the block does not check the budget, for which it may leave at its head.
    """
    for insn in block.insns:
        if any(_needs_flags(uop, block) for uop in insn.uops):
            return False
        if {uop.attr for uop in insn.uops if uop.op == "set"}.issuperset(FLAGS):
            return True
    return False


def _needs_flags(uop: Uop, block: Block) -> bool:
    """Return True if a uop may show the flags to somebody, or if what it writes may follow from them."""
    if uop.op == "load":
        return uop not in block.constants
    effect = effect_of(uop)
    if effect & (Effect.MAY_LEAVE | Effect.WRITES_MEMORY | Effect.CONTROLS | Effect.ENDS_PATH):
        return True
    values = list(uop.args) if effect & (Effect.WRITES_REGISTER | Effect.WRITES_STATE | Effect.WRITES_TEMP) else []
    while values:
        value = values.pop()
        if value.op == "get":
            return True
        values += value.args
    return False


def _bit(value: Uop) -> Uop:
    """Return the flag (one bit) that was zero-extended to the 32 bits of a word of the state."""
    if value.number is not None:
        return value.recorder.const(value.number, 1)
    assert value.op == "zext"
    return value.args[0]


def _is_sign(value: Uop | None, result: Uop) -> bool:
    if value is None or value.op != "trunc" or value.args[0].op != "lshr":
        return False
    shifted, distance = value.args[0].args
    return shifted is result and distance.number == 31


def _is_old(value: Uop, name: str) -> bool:
    """Return True if the flag is set to its present value."""
    return value.op == "trunc" and value.args[0].op == "get" and value.args[0].attr == name


def _difference(values: dict[str, Uop], result: Uop) -> tuple[Uop, Uop] | None:
    """Return x and y if all four flags are those of the subtraction x - y, else None."""
    carry, overflow = values.get("c"), values.get("v")
    if carry is None or overflow is None or (result.op, carry.op, overflow.op) != ("adc", "adc_carry", "adc_overflow"):
        return None
    if any(a is not b for other in (carry, overflow) for a, b in zip(result.args, other.args, strict=True)):
        return None
    x, y, carry_in = result.args
    if (subtrahend := result.subtrahend) is not None:
        return x, subtrahend
    # x + n is x - -n, carry and overflow included, but for the two numbers that are their own negatives.
    if carry_in.number == 0 and y.number is not None and y.number not in (0, 1 << 31):
        return x, y.recorder.const(-y.number)
    return None


class LazyFlags:
    """The flags while a region is lowered. ``kind`` says what is known of them at the place being written.

    Between blocks, and where paths meet, the variables of the kind are in allocas; in straight-line code r, x and y
    are the names of values.
    """

    def __init__(self, function: Function, stored: dict[str, str]) -> None:
        """``stored``: the allocas of n, z, c and v."""
        self._f = function
        self.kind = FlagKind.STORED
        self._allocas = stored | {name: function.emit_entry("alloca i32") for name in ("r", "x", "y")}
        self._names = dict.fromkeys(("r", "x", "y"), "")

    def read(self, name: str) -> str:
        """Return a flag as an i1."""
        f, parts = self._f, PARTS[self.kind]
        if self.kind is FlagKind.DEAD:
            return "poison"  # uops read C for a carry that they may not need
        if name in parts:
            return f.emit(f"trunc i32 {f.emit(f'load i32, ptr {self._allocas[name]}')} to i1")
        r, x, y = self._names["r"], self._names["x"], self._names["y"]
        match name:
            case "z":
                return f.emit(f"icmp eq i32 {r}, 0" if "r" in parts else f"icmp eq i32 {x}, {y}")
            case "n":
                sign = r if "r" in parts else f.emit(f"sub i32 {x}, {y}")
                return f.emit(f"icmp slt i32 {sign}, 0")
            case "c":
                return f.emit(f"icmp uge i32 {x}, {y}")
            case _:
                pair = f.emit(f"call {{i32, i1}} @llvm.ssub.with.overflow.i32(i32 {x}, i32 {y})")
                return f.emit(f"extractvalue {{i32, i1}} {pair}, 1")

    def less(self) -> str | None:
        """Return N != V as the comparison x < y (an i1), or None if the flags are of another kind."""
        if self.kind is not FlagKind.DIFFERENCE:
            return None
        return self._f.emit(f"icmp slt i32 {self._names['x']}, {self._names['y']}")

    def apply(self, effect: FlagEffect, value: Callable[[Uop], str]) -> None:
        """Apply an effect. ``value`` returns the LLVM operand of a uop."""
        kind = effect.kind_after(self.kind)
        if effect.difference is not None:
            self._names["x"], self._names["y"] = map(value, effect.difference)
        new = {name: value(uop) for name, uop in effect.values.items()}
        result = "" if effect.result is None else value(effect.result)
        self._store(kind, new)
        if result:
            self._names["r"] = result
        self.kind = kind

    def _store(self, kind: FlagKind, new: dict[str, str]) -> None:
        """Store those of n, z, c and v that the kind has in their allocas, unless they are there already."""
        f = self._f
        values = {}
        for name in FLAGS:
            if name in PARTS[kind]:
                if name in new:
                    values[name] = new[name]
                elif name not in PARTS[self.kind]:
                    values[name] = self.read(name)
        for name, bit in values.items():
            wide = f.emit(f"zext i1 {bit} to i32")
            f.do(f"store i32 {wide}, ptr {self._allocas[name]}")

    def become(self, kind: FlagKind) -> None:
        """Change to a kind, which is STORED or the present one, with all of its variables in the allocas."""
        assert kind in (FlagKind.STORED, self.kind)
        self._store(kind, {})
        self.kind = kind
        for name in PARTS[kind]:
            if name in self._names:
                self._f.do(f"store i32 {self._names[name]}, ptr {self._allocas[name]}")

    def resume(self, kind: FlagKind) -> None:
        """Begin a block at whose entry the allocas hold the variables of a kind."""
        self.kind = kind
        for name in PARTS[kind]:
            if name in self._names:
                self._names[name] = self._f.emit(f"load i32, ptr {self._allocas[name]}")

    def values(self) -> dict[str, str]:
        """Return the variables of the present kind as values (i32)."""
        return {
            name: self._names.get(name) or self._f.emit(f"load i32, ptr {self._allocas[name]}")
            for name in PARTS[self.kind]
        }

    def assume(self, kind: FlagKind, values: Mapping[str, str]) -> None:
        """Let the flags be of a kind whose variables have these values, as :meth:`values` returns them."""
        self.kind = kind
        for name in PARTS[kind]:
            if name in self._names:
                self._names[name] = values[name]
            else:
                self._f.do(f"store i32 {values[name]}, ptr {self._allocas[name]}")

    def known(self) -> tuple[FlagKind, dict[str, str]]:
        """Return what is known at this place of the code, for :meth:`know`."""
        return self.kind, dict(self._names)

    def know(self, known: tuple[FlagKind, dict[str, str]]) -> None:
        """Go on where :meth:`known` was called."""
        self.kind, self._names = known[0], dict(known[1])

    def words(self) -> dict[str, str]:
        """Return the four flags as handlers pass them on, as an i32 each."""
        f = self._f
        return {name: f.emit(f"zext i1 {self.read(name)} to i32") for name in FLAGS}

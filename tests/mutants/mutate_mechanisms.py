"""Would the tests of tests/regions notice? One thing at a time that is the region tier's own is made wrong.

Predictions are not among them: where control is guessed to go may be wrong, and nothing but time is lost.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dbt.backend import budget, flags, spans
from dbt.backend.flags import FlagEffect, FlagKind, LazyFlags
from dbt.backend.lower import FLAGS
from dbt.backend.region_lowering import RegionLowering
from dbt.backend.spans import Span
from dbt.engine.code_pages import CodePages
from dbt.engine.region_cache import RegionCache
from dbt.frontend import forming, graph
from dbt.frontend.forming import RegionFormer, _Forming
from isa.ir import queries
from tests.mutants.mutant import Mutant, agree, is_noticed, require_noticed
from tests.oracle.programs import CUTS, FIRST, MECHANISM_PROGRAMS, ProgramWriter, flag_program

RANDOM_PROGRAMS = 20


def flags_notice(by: str = "") -> bool:
    """Whether the programs for flags differ, the one named tried first; or, if not, any other."""
    names = sorted(FIRST, key=lambda name: name != by)
    return any(not agree(flag_program(FIRST[name]), "sync", (2000,) * 100) for name in names) or programs_notice()


def mechanisms_notice(by: str = "") -> bool:
    """As :func:`flags_notice`, of the other mechanisms."""
    names = sorted(MECHANISM_PROGRAMS, key=lambda name: name != by)
    runs = ((MECHANISM_PROGRAMS[name], kind) for name in names for kind in ("eager", "sync", "without flat"))
    return any(not agree(source, kind, CUTS) for source, kind in runs) or programs_notice()


def programs_notice() -> bool:
    cuts = (1, 5, 60, 200, 3, 1000, 3000)
    sources = (ProgramWriter(seed).write() for seed in range(RANDOM_PROGRAMS))
    return any(not agree(source, kind, cuts) for source in sources for kind in ("eager", "sync"))


# -- flags -------------------------------------------------------------------------------------

FLAG_MUTANTS = [
    Mutant(LazyFlags, "read", "icmp eq i32 {x}, {y}", "icmp ule i32 {x}, {y}"),
    Mutant(LazyFlags, "read", "icmp eq i32 {r}, 0", "icmp sle i32 {r}, 0"),
    Mutant(LazyFlags, "read", "sub i32 {x}, {y}", "sub i32 {y}, {x}"),
    Mutant(LazyFlags, "read", "icmp slt i32 {sign}, 0", "icmp sle i32 {sign}, 0"),
    Mutant(LazyFlags, "read", "icmp uge i32 {x}, {y}", "icmp ugt i32 {x}, {y}"),
    Mutant(LazyFlags, "read", "icmp uge i32 {x}, {y}", "icmp sge i32 {x}, {y}"),
    Mutant(LazyFlags, "read", "@llvm.ssub", "@llvm.usub"),
    Mutant(LazyFlags, "read", "@llvm.ssub", "@llvm.sadd"),
    Mutant(LazyFlags, "less", "icmp slt", "icmp sle"),
    Mutant(LazyFlags, "less", "icmp slt", "icmp ult"),
    Mutant(LazyFlags, "less", "is not FlagKind.DIFFERENCE", "not in (FlagKind.DIFFERENCE, FlagKind.MIXED)"),
    Mutant(LazyFlags, "_store", "name not in PARTS[self.kind]", "False"),
    Mutant(LazyFlags, "_store", "name in new", "False"),
    Mutant(LazyFlags, "become", "self._store(kind, {})", "pass"),
    Mutant(LazyFlags, "become", "if name in self._names", 'if name == "x"'),
    Mutant(LazyFlags, "apply", "effect.difference)", "reversed(effect.difference))"),
    Mutant(LazyFlags, "apply", "if result:", "if result and kind is FlagKind.RESULT:"),
    Mutant(LazyFlags, "apply", "if result:", "if result and kind is FlagKind.MIXED:"),
    Mutant(LazyFlags, "words", "for name in FLAGS", 'for name in "nzv"'),
    Mutant(FlagEffect, "kind_after", "not self.values and before in", "before in", "RESULT"),
    Mutant(FlagEffect, "kind_after", "before in (FlagKind.DIFFERENCE, FlagKind.MIXED)", "before"),
    Mutant(FlagEffect, "kind_after", "(FlagKind.DIFFERENCE, FlagKind.MIXED)", "(FlagKind.RESULT, FlagKind.MIXED)"),
    Mutant(flags, "_difference", "(0, 1 << 31)", "(1 << 31,)"),
    Mutant(flags, "_difference", "(0, 1 << 31)", "(0,)"),
    Mutant(flags, "_difference", "const(-y.number)", "const(y.number)"),
    Mutant(flags, "_difference", "carry_in.number == 0 and ", ""),
    Mutant(flags, "_difference", "return x, subtrahend", "return subtrahend, x"),
    Mutant(RegionLowering, "lower_when", "kind = FlagKind.STORED", "pass"),
    Mutant(RegionLowering, "lower_when", "self._lazy.resume(kind)", "pass"),
    Mutant(RegionLowering, "_lower_block", "self._lazy.resume(kind)", "self._lazy.kind = kind"),
]  # fmt: skip

_read = LazyFlags.read


def inverted(kind: FlagKind, flag: str) -> Callable[[], None]:
    """A mutation: one flag of one kind is read wrong."""

    def read(lazy: LazyFlags, name: str) -> str:
        bit = _read(lazy, name)
        return lazy._f.emit(f"xor i1 {bit}, true") if (lazy.kind, name) == (kind, flag) else bit

    return lambda: setattr(LazyFlags, "read", read)


@pytest.mark.parametrize("mutant", FLAG_MUTANTS, ids=str)
def test_a_mutant_of_the_flags_is_noticed(mutant: Mutant) -> None:
    require_noticed(mutant, lambda: flags_notice(mutant.by))


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("kind", set(FlagKind) - {FlagKind.DEAD})  # which says that what is read is not used
def test_a_flag_read_wrong_is_noticed(kind: FlagKind, flag: str) -> None:
    assert is_noticed(inverted(kind, flag), flags_notice)


# -- everything else ---------------------------------------------------------------------------

MUTANTS = [
    # Memory: the bounds of RAM, alignment, accesses checked together.
    Mutant(RegionLowering, "_flat_address", "size >> bits) + 1", "size >> bits) + 2"),
    Mutant(RegionLowering, "_flat_address", "self._flat.size - size", "self._flat.size - 1"),
    Mutant(RegionLowering, "_flat_address", "icmp ult", "icmp slt"),
    Mutant(RegionLowering, "_flat_address", "i32 {32 - bits})", "i32 32)", "unaligned"),
    Mutant(RegionLowering, "_alignment", "self._strict or access.aligned", "access.aligned", "alignment checks"),
    Mutant(RegionLowering, "_alignment", "self._strict or access.aligned", "self._strict", "unaligned"),
    Mutant(RegionLowering, "_check_place", "{PAGE_SIZE - size}", "{PAGE_SIZE - 1}", "one store at the end of RAM"),
    Mutant(RegionLowering, "_check_mode", "SCTLR_A if self._strict else 0", "0 if self._strict else SCTLR_A",
            "alignment checks"),
    Mutant(RegionLowering, "_check_span", "{base}, {span.low}", "{base}, {span.low + 4}"),
    Mutant(RegionLowering, "_span_entry", "{entry}, {last}", "{entry}, {entry}", "stores at the end of RAM"),
    Mutant(RegionLowering, "_or_writable", "icmp eq ptr {other}", "icmp ne ptr {other}", "stores at the end of RAM"),
    Mutant(RegionLowering, "_or_writable", "i32 {size}", "i32 1", "around the end of a page"),
    Mutant(RegionLowering, "_check_span", "self.check_aligned(first, span.align, slow)", "pass", "unaligned"),
    Mutant(RegionLowering, "_lower_in_span", "+ 4 * ordinal - span.low", "+ 4 * ordinal"),
    Mutant(RegionLowering, "_lower_in_span", "+ 4 * ordinal - span.low", "- span.low", "unaligned"),
    Mutant(spans, "find_spans", "open_spans.pop((register, op), None)", "pass", "a base that changes"),
    Mutant(spans, "displacement", 'if address.op == "add"', "if True"),
    Mutant(Span, "add", "max(self.high, high)", "self.high"),
    Mutant(Span, "add", "max(self.align, align)", "self.align"),
    # Constants, jump tables, and what they are made from.
    Mutant(RegionLowering, "lower_uop", "str(constant)", "str(constant ^ 1)", "a literal changes"),
    Mutant(RegionLowering, "_lower_table", "table.places", "{n + 1: place for n, place in table.places.items()}",
            "a switch"),
    Mutant(RegionLowering, "_switch", "i32 {number}, label", "i32 {number ^ 1}, label", "a switch"),
    Mutant(_Forming, "_fold_loads", "block.words[literal] = word", "pass", "a literal changes"),
    Mutant(_Forming, "_fold_loads", "uop.attr.size == 4", "uop.attr.size >= 1", "a byte of a literal"),
    Mutant(_Forming, "_read_table", "block.words[slot] = word", "pass", "a table changes"),
    Mutant(_Forming, "_read_table", "Place(target,", "Place(target + 4,", "a switch"),
    Mutant(forming, "table_index", "!= 2", "not in (1, 2)", "a dense table"),
    Mutant(forming, "relative_value", "pc + uop.attr", "pc + uop.attr + 4"),
    Mutant(_Forming, "_follow", "Place(Gva(last.pc + 4)", "Place(Gva(last.pc + 8)"),
    Mutant(RegionFormer, "_record", "insn.record_word(word)", "insn.record_word(word ^ 0x1000)"),
    # The budget, and leaving.
    Mutant(RegionLowering, "_lower_block", "len(block.insns))\n", "len(block.insns) + 1)\n"),
    Mutant(RegionLowering, "_exit_before_insn", "- self._index", "- self._index - 1"),
    Mutant(RegionLowering, "_exit_before_insn", "self._insn.pc,", "self._insn.pc + 4,"),
    Mutant(RegionLowering, "_retire", "self._go_on_threaded(place.pc, count,", "self._go_on_threaded(place.pc, 0,"),
    Mutant(RegionLowering, "_exit", "given_back += self._reserve", "pass"),
    Mutant(graph, "search", "found.heads.add(to)", "pass", "a dense table"),
    Mutant(budget, "find_checks", "+ follow[to]", ""),
    Mutant(RegionLowering, "_go_on_threaded", "BYPASS", "ARRIVE"),
    Mutant(RegionLowering, "_go", "str(place.pc)", "str(place.pc + 4)"),
    Mutant(RegionLowering, "lower_branch", "self._exit(ARRIVE, value, 0,", "self._exit(ARRIVE, value, 1,"),
    Mutant(RegionLowering, "lower_callout", "_before_insn(SideExit.T", "(BYPASS, '0', 0, SideExit.T",
            "jumps by literals"),
    Mutant(RegionLowering, "_enter", "i32 {gva}, label", "i32 {gva + 4}, label"),
    Mutant(RegionLowering, "op_gva", "{OP_SHIFT}", "{OP_SHIFT + 1}"),
    Mutant(CodePages, "replace_handler", "if 0 <= old < self._native.size", "if True"),
    # Registers.
    Mutant(RegionLowering, "_store_state", "in self._dirty", "in self._dirty[:-1]"),
    Mutant(queries, "registers_written", "for uop in walk(block)", "for uop in block", "some registers"),
    Mutant(queries, "_possible_numbers", "if mask >> bit & 1", "if mask >> bit & 1 and bit != 4", "some registers"),
    Mutant(RegionLowering, "lower_for_each_bit", "else ordinal", "else ordinal ^ 1", "lists"),
    Mutant(RegionLowering, "lower_pc", "+ ahead", "+ 4"),
    # Regions whose code or constants were written over.
    Mutant(RegionCache, "write", "gpa & ~3", "gpa", "a byte of a literal"),
    Mutant(RegionCache, "write", 'self._drop(entry, f"{what} written over", word)', "pass", "a literal changes"),
    Mutant(RegionCache, "_drop", "if self._code_pages.handler(gpa) == dropped.handler", "if False",
            "a table changes"),
    Mutant(RegionCache, "_drop", "if not entries", "if True", "shared code changes"),
    Mutant(RegionCache, "install", "set_covered(word, True)", "set_covered(word, False)", "a table changes"),
    Mutant(RegionCache, "install", "(gpa, gpa + len(data), 4)", "(gpa + 4, gpa + len(data), 4)", "a table changes"),
]  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_a_mutant_is_noticed(mutant: Mutant) -> None:
    require_noticed(mutant, lambda: mechanisms_notice(mutant.by))


#: What random programs notice by themselves.
PLAIN_MUTANTS = [
    Mutant(RegionLowering, "_exit_before_insn", "- self._index", "- self._index - 1"),
    Mutant(RegionLowering, "_lower_block", "len(block.insns))\n", "len(block.insns) - 1)\n"),
    Mutant(LazyFlags, "words", "for name in FLAGS", 'for name in "nzc"'),
    Mutant(RegionLowering, "_store_state", "in self._dirty", "in self._dirty[1:]"),
]


@pytest.mark.parametrize("mutant", PLAIN_MUTANTS, ids=str)
def test_random_programs_notice_a_mutant(mutant: Mutant) -> None:
    require_noticed(mutant, programs_notice)


def test_without_a_mutation_nothing_is_noticed() -> None:
    source = MECHANISM_PROGRAMS["a switch"]
    assert not is_noticed(lambda: None, lambda: not agree(source, "eager", CUTS) or not agree(source, "sync", CUTS))

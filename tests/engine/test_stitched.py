"""The stitched tier's own ways: blocks under any budget, code that is written over, and an arena that is full."""

from __future__ import annotations

import gc
from collections.abc import Callable
from random import Random

import pytest

from dbt import Machine
from dbt.abi.addresses import Gpa, Gva
from dbt.abi.cpu import CpuState
from dbt.abi.exits import Budget
from dbt.abi.layout import HOT_INSNS, MAX_STITCH_DELAY, STITCH_ARRIVALS, STITCH_COUNTERS, WARM_INSNS
from dbt.abi.stitching import FIELD_OFFSETS
from dbt.backend.stitcher import RESERVE
from dbt.engine.region_tier import RegionTier
from dbt.engine.stitched import StitchedCode, WrongThreshold, usual_thresholds
from dbt.engine.threaded import ThreadedTier
from dbt.frontend.optimizations import Optimizations
from dbt.host.console import CaptureConsole
from dbt.memory.guest_memory import GuestMemory
from tests.assembler import assemble
from tests.long import LONG
from tests.oracle.programs import DEVICE, ENTRY, RAM_SIZE, SmallMachine, require_same_state, run_side_by_side
from tests.vm.programs import BASE

KINDS = ("reference", "threaded", "stitched", "measured", "warm")
PAGE = 0x1000
#: Runs are cut so: now and then in the middle of blocks, now and then long.
CUTS = tuple(Random(5).choice((1, 2, 3, 7, 19, 100, 401)) for _ in range(4000))


def stitched(machine: SmallMachine) -> StitchedCode:
    assert isinstance(machine.tier, ThreadedTier) and machine.tier.stitched is not None
    return machine.tier.stitched


def enters_stitched(machine: SmallMachine, gpa: int) -> bool:
    """Return True if the op there has stitched code, as no tier of these machines makes regions."""
    assert isinstance(machine.tier, ThreadedTier)
    return machine.tier.is_decoded(Gpa(gpa)) and not machine.tier.code_pages.has_image_handler(Gpa(gpa))


def check_counts(machine: SmallMachine) -> None:
    """What a measured machine has counted adds up."""
    retired = machine.tier.retired
    assert set(retired) == {"stitched", "threaded", "reference"} and min(retired.values()) >= 0
    assert sum(retired.values()) == machine.icount - len(machine.exits)  # SmallMachine itself skips these


def check(source: str, cuts: tuple[int, ...] = CUTS) -> SmallMachine:
    """Run a program to its end in every kind, and return the machine whose code was stitched when it was warm."""
    machines = run_side_by_side(source, KINDS, cuts)
    assert machines[0].ended
    assert all(stitched(machine).count("insns") for machine in machines[2:])
    check_counts(machines[3])
    for machine in machines[:-1]:
        machine.close()
    return machines[-1]


# -- budgets -------------------------------------------------------------------------------------

MIXED = """
    mov r11, #2000 ; mov r8, #0x10000
loop: adds r0, r0, r11, ror #3 ; eors r3, r0, r11, lsl #3 ; strmi r3, [r8], #4 ; ldrpl r4, [r8, #-4]
    adcs r5, r4, r0 ; addcs r6, r6, #1 ; bl sub ; cmp r8, #0x11000 ; movhs r8, #0x10000
    subs r11, r11, #1 ; bne loop ; svc #0
sub: push {r4, r5, lr} ; umull r4, r5, r0, r11 ; tst r4, #1 ; popeq {r4, r5, pc} ; addvs r7, r4, r5
    bl leaf ; pop {r4, r5, pc}
leaf: add r2, pc, r2 ; mla r1, r2, r1, r11 ; bx lr
"""


def test_a_budget_may_end_at_any_instruction_of_warm_code() -> None:
    machines = [SmallMachine(kind, assemble(MIXED, ENTRY)) for kind in KINDS]
    for machine in machines:
        machine.advance(3000)
    assert enters_stitched(machines[-1], ENTRY + 8)
    for count in range(1, 100):
        for machine in machines:
            machine.advance(count)
        require_same_state(machines, f"a budget of {count}")
        check_counts(machines[3])
        for machine in machines:
            machine.advance(Random(count).randrange(200))
        require_same_state(machines, f"after a budget of {count}")
    assert machines[3].tier.retired["stitched"] > 5000
    for machine in machines:
        machine.close()


def test_a_long_straight_line_is_cut_into_blocks() -> None:
    line = " ; ".join(f"add r{n % 7}, r{n % 5}, #{n % 200}" for n in range(450))
    warm = check(f"mov r11, #60 ; loop: {line} ; subs r11, r11, #1 ; bne loop ; svc #0")
    assert stitched(warm).count("blocks") >= 5


def test_a_page_is_left_at_its_end() -> None:
    """By falling through, by a branch, by a call and by its return, also to code that is not there."""
    source = f"""
        mov r11, #200 ; ldr r8, data ; b 0x8fe0 ; data: .word {DEVICE}
        .space 0x8fe0 - 0x8010
    loop: add r0, r0, #1 ; bl f ; tst r11, #3 ; bne over ; nop ; add r1, pc, r1 ; ldr r2, next ; nop
    over: add r3, r3, r2 ; subs r11, r11, #1 ; bne loop ; svc #0
    next: .word 7
    f: tst r11, #1 ; popeq {{r9}} ; pusheq {{r9}} ; bxeq lr ; adr r12, g ; bx r12
    g: mov pc, lr
    """
    check(source)


# -- conditions, faults and devices ----------------------------------------------------------------

_CONDITIONS = ("eq", "ne", "hs", "lo", "mi", "pl", "vs", "vc", "hi", "ls", "ge", "lt", "gt", "le")


@pytest.mark.parametrize("condition", _CONDITIONS)
def test_conditional_instructions_are_skipped(condition: str) -> None:
    """Flags are those of sums, and now and then those of equal numbers."""
    c = condition
    check(f"""
        mov r11, #300 ; mov r10, #0x10000 ; ldr r7, seed
    loop: add r7, r7, r7, lsl #3 ; add r7, r7, #0x51 ; tst r11, #3 ; bne sum ; cmp r7, r7 ; b flags
    sum: adds r6, r7, r11, ror #7
    flags:
        add{c} r0, r0, #1 ; ldr{c} r1, [r10] ; str{c} r0, [r10], #4 ; bl{c} f ; b{c} one ; add r2, r2, #1
    one: adr lr, two ; push {{r3, lr}} ; pop{c} {{r3, pc}} ; add r3, r3, #1 ; add sp, sp, #8
    two: ldm{c} r10!, {{r4, r5}} ; add{c} r5, pc, r5 ; cmp{c} r4, r5 ; mov{c} pc, pc ; add r9, r9, #1
        bic r10, r10, #0x800 ; subs r11, r11, #1 ; bne loop ; svc #0
    f: add r8, r8, r7 ; cmp r8, r6 ; bx{c} lr ; sub r8, r8, #1 ; mov pc, lr
    seed: .word 0x12345677
    """)


ACCESSES = (
    "ldr r1, [r4]", "ldr r1, [r4], #4", "ldrb r1, [r4, r3]", "ldrh r1, [r4]", "ldrsh r1, [r4]", "ldrd r2, r3, [r4]",
    "ldm r4, {r1, r2, r3}", "ldm r4!, {r1, r2}", "str r11, [r4]", "str r11, [r4, #4]!", "strh r11, [r4]",
    "strb r11, [r4]", "strd r10, r11, [r4]", "stm r4, {r0, r11}", "swp r1, r11, [r4]", "ldrt r1, [r4]",
    "ldrex r1, [r4]", "addne r0, r0, #1 ; ldrne r1, [r4]",
)  # fmt: skip


@pytest.mark.parametrize("access", ACCESSES)
def test_an_access_that_is_not_plain(access: str) -> None:
    """To RAM, aligned or not, across the end of a page and of RAM, to a device, and to nothing, which is an abort."""
    places = [0x10000, 0x10001, 0x10002, 0x10FFE, 0x10FFC, RAM_SIZE - 4, RAM_SIZE - 2, DEVICE, DEVICE + 8, 0x4000_0000]
    warm = check(f"""
        mov r11, #400 ; adr r10, places ; mov r3, #0
    loop: and r9, r11, #15 ; cmp r9, #{len(places)} ; movhs r9, #0 ; ldr r4, [r10, r9, lsl #2] ; add r5, r5, #1
        mov r3, #0 ; tst r11, #16 ; {access} ; add r6, r6, r1 ; add r6, r6, r4 ; add r7, r7, r6, ror #1
        subs r11, r11, #1 ; bne loop ; svc #0
    places: .word {", ".join(map(str, places))}
    """)
    assert len(warm.exits) > 20 or "ldrex" in access
    assert warm.device.accesses


def test_instructions_without_stencils_are_executed_by_their_handlers() -> None:
    """In the middle of a block, and conditional."""
    warm = check("""
        mov r11, #300
    loop: add r1, r1, r0 ; mrs r0, spsr ; svc #3 ; add r2, r2, #1 ; tst r11, #1 ; udf #4 ; svceq #5
        mrsne r3, spsr ; add r4, r4, r3 ; subs r11, r11, #1 ; bne loop ; svc #0
    """)
    assert len(warm.exits) == 300 + 300 + 150 + 1


# -- code that is written over ---------------------------------------------------------------------

_PATCHES = {
    "the next instruction": "str r1, next ; next: add r0, r0, #1 ; add r2, r2, r0",
    "its own block, behind": "next: add r0, r0, #1 ; str r1, next ; add r2, r2, r0",
    "the head of the loop": "str r1, head ; next: add r0, r0, #1",
    "itself": "adr r9, this ; ldr r8, [r9] ; this: str r8, [r9] ; next: add r0, r0, #1",
    "the next block": "str r1, next ; tst r11, #4 ; bne next ; sub r0, r0, #3 ; next: add r0, r0, #1",
    "a skipped instruction": "str r1, next ; cmp r11, #0 ; moveq r0, #0 ; next: add r0, r0, #1",
    "a called function": "adr r9, f ; str r1, [r9] ; bl f ; next: add r0, r0, r2",
    "another page": "ldr r9, there ; str r1, [r9] ; bl 0x9ffc ; next: add r0, r0, r2",
    "two words": "adr r9, next ; mov r2, r1 ; stm r9, {r1, r2} ; next: add r0, r0, #1 ; add r0, r0, #1",
    "one byte": "strb r11, next ; next: add r0, r0, #1",
    "a half of one": "adr r9, next ; ldrh r2, [r9, #2] ; strh r2, [r9, #2] ; strb r11, [r9] ; next: add r0, r0, #1",
    "a store that faults": "ldr r9, next ; mov r8, #0x40000000 ; str r9, [r8] ; next: add r0, r0, #1",
}


@pytest.mark.parametrize("often", [0, 7, 31, 255] if LONG else [0, 31])
@pytest.mark.parametrize("patch", _PATCHES)
def test_code_that_is_written_over(patch: str, often: int) -> None:
    """It is written in each round, or in every eighth and so on, as ``add r0, r0, #n`` for another n."""
    rounds = 300 if often == 0 and "faults" in patch else 1500  # each fault ends a run
    check(f"""
        mov r11, #{rounds}
    head: add r0, r0, #1 ; ldr r1, word ; and r12, r11, #0x3f ; orr r1, r1, r12 ; tst r11, #{often} ; bne over
        {_PATCHES[patch]}
    over: add r3, r3, r0 ; bl f ; bl 0x9ffc
        subs r11, r11, #1 ; bne head ; svc #0
    there: .word 0x9ffc
    f: add r0, r0, #1 ; add r4, r4, #1 ; bx lr
    word: add r0, r0, #0
        .space 0x9ffc - (. - head + 0x8004)
        add r0, r0, #1 ; add r5, r5, #1 ; bx lr
    """)


def test_a_page_that_is_written_over_again_and_again_is_stitched_ever_more_seldom() -> None:
    source = "loop: add r0, r0, #1 ; add r1, r1, #1 ; b loop"
    machine = SmallMachine("warm", assemble(source, ENTRY))
    waits = []
    for _ in range(MAX_STITCH_DELAY + 3):
        count = stitched(machine).count("insns")
        machine.memory.write_ram(Gpa(ENTRY + 4), assemble("add r1, r1, #2", ENTRY + 4))
        machine.advance(1)  # the next arrival at the head is after as many instructions in each round
        before = machine.icount
        while stitched(machine).count("insns") == count:
            machine.advance(3)
        waits.append((machine.icount - before) // 3)
        machine.advance(5)
    assert stitched(machine).count("dropped") == MAX_STITCH_DELAY + 2  # the first write was before the first stitching
    most = STITCH_ARRIVALS << MAX_STITCH_DELAY
    assert waits[1:] == sorted(waits[1:]) and waits[0] <= STITCH_ARRIVALS and most // 2 < waits[-1] <= most, waits
    machine.close()


def test_the_hypervisors_writes_drop_stitched_code() -> None:
    machines = [SmallMachine(kind, assemble(MIXED, ENTRY)) for kind in KINDS]
    words = [assemble(f"{op} r0, r0, #{n}") for n, op in enumerate(("add", "sub", "eor", "orr", "bic", "rsb"))]
    random = Random(3)
    for step in range(60):
        code = random.choice(words)
        place = Gpa(ENTRY + 4 * random.randrange(2, 22))
        kept = machines[0].memory.read_ram(place, 4)
        for machine in machines:
            machine.memory.write_ram(place, code)
            machine.advance(97)
        require_same_state(machines, f"step {step}: {code.hex()} at {place:#x}")
        for machine in machines:
            machine.memory.write_ram(place, kept)
            machine.advance(500)
        require_same_state(machines, f"step {step}: {place:#x} as it was")
    assert stitched(machines[-1]).count("dropped") > 5
    for machine in machines:
        machine.close()


def test_a_code_page_that_was_given_up_is_stitched_anew() -> None:
    """With other code, which stores wrote that no longer look for ops; what had no stencil may have one now."""
    source = """
        mov r11, #40 ; ldr r8, page ; loop: blx r8 ; subs r11, r11, #1 ; bne loop ; svc #0
    page: .word 0x10000
    """
    made = assemble(source, ENTRY)
    machines = [SmallMachine(kind, made) for kind in KINDS]
    for code in ("mrs r1, spsr ; bx lr", "f: add r0, r0, #1 ; bx lr", "f: mov r0, r0, ror #3 ; add r0, r0, #5 ; bx lr"):
        for machine in machines:
            tier = machine.tier
            if isinstance(tier, ThreadedTier) and tier.code_pages.has_code(Gpa(0x10000)):
                assert tier.code_pages.give_up(0x10)
            machine.memory.ram.bytes[0x10000:0x10010] = assemble(code, 0x10000).ljust(16, b"\0")
            if isinstance(tier, ThreadedTier) and tier.stitched is not None:
                tier.stitched.drop_all()
            machine.cpu.r[15], machine.ended = ENTRY, False
            machine.advance(1000)
        assert machines[0].ended
        require_same_state(machines, code)
        assert enters_stitched(machines[-1], 0x10000) == ("mrs" not in code), code
    for machine in machines:
        machine.close()


# -- the arena -------------------------------------------------------------------------------------


class SmallArena(ThreadedTier):
    """A stitched tier with ``spare`` bytes in its arena besides those that the stitcher wants before it begins."""

    def __init__(self, cpu: CpuState, memory: GuestMemory, spare: int) -> None:
        super().__init__(cpu, memory, stitch=True)
        assert self.stitched is not None
        self.stitched.close()
        self.stitched = StitchedCode(cpu, self.native, thresholds=None, size=-(-(RESERVE + spare) // PAGE) * PAGE)


def _many_functions(count: int) -> str:
    """A program that calls many functions, in groups, each of which becomes warm."""
    bodies = "\n".join(
        f"f{n}: mov r4, #20 ; l{n}: add r{n % 4}, r{n % 4}, r4 ; tst r4, #{n % 7 + 1} ; beq m{n} ; eor r5, r5, r0\n"
        f"m{n}: subs r4, r4, #1 ; bne l{n} ; bx lr"
        for n in range(count)
    )
    calls = " ; ".join(f"bl f{n}" for n in range(count))
    return f"mov r11, #30 ; loop: {calls} ; subs r11, r11, #1 ; bne loop ; svc #0\n{bodies}"


@pytest.mark.parametrize("spare", [PAGE, 4 * PAGE, 10 * PAGE])
def test_a_full_arena_is_emptied_during_the_run(spare: int) -> None:
    """Also while an edge is about to be linked: what is stitched then has used the room."""
    code = assemble(_many_functions(160), ENTRY)
    small = SmallMachine("small", code, lambda cpu, memory: SmallArena(cpu, memory, spare))
    machines = [SmallMachine("reference", code), SmallMachine("threaded", code), small]
    for count in CUTS:
        for machine in machines:
            machine.advance(10 * count)
        require_same_state(machines, f"after {machines[0].icount} instructions")
        if machines[0].ended:
            break
    assert machines[0].ended
    assert stitched(small).count("resets") >= 2
    assert stitched(small).count("used") <= stitched(small).count("size")
    for machine in machines:
        machine.close()


def test_every_op_has_its_handler_back_when_the_arena_is_emptied() -> None:
    """Also after a page of which each instruction has the most jumps that a stencil can have."""
    loads = " ; ".join(["ldmdaeq r3!, {r1, pc}"] * 1019)
    other = assemble("mov r11, #40 ; l: add r0, r0, #1 ; subs r11, r11, #1 ; bne l ; mov r11, #20 ; b 0xa000", ENTRY)
    full = assemble(f"a: {loads} ; movs r5, #1 ; subs r11, r11, #1 ; bne a ; svc #0", 0xA000)
    machines = [SmallMachine(kind, other) for kind in ("reference", "threaded", "warm")]
    for machine in machines:
        machine.memory.write_ram(Gpa(0xA000), full)
        for count in (200, 15_000, 1_000, 100_000):
            machine.advance(count)
    require_same_state(machines)
    warm = machines[-1]
    assert warm.ended and stitched(warm).count("insns") > 1000
    assert enters_stitched(warm, ENTRY + 4) and enters_stitched(warm, 0xA000)
    stitched(warm).drop_all()
    for page in (ENTRY, 0xA000):
        assert not [gpa for gpa in range(page, page + PAGE, 4) if enters_stitched(warm, gpa)]
    for machine in machines:
        machine.cpu.r[15], machine.ended = ENTRY, False
        machine.advance(200_000)
    require_same_state(machines)
    for machine in machines:
        machine.close()


def test_two_machines_have_code_of_their_own() -> None:
    sources = (MIXED, MIXED.replace("add r6, r6, #1", "sub r6, r6, #5").replace("ror #3", "ror #9"))
    pairs = [[SmallMachine(kind, assemble(source, ENTRY)) for kind in ("reference", "warm")] for source in sources]
    for count in CUTS[:300]:
        for pair in pairs:
            for machine in pair:
                machine.advance(count)
            require_same_state(pair)
    assert all(enters_stitched(warm, ENTRY + 8) for _, warm in pairs)
    pairs[0][1].close()
    for machine in pairs[1]:
        machine.advance(5000)
    require_same_state(pairs[1])
    for machine in (pairs[0][0], *pairs[1]):
        machine.close()


# -- beneath regions -------------------------------------------------------------------------------

#: Its loop has two blocks, of which the second can only be reached from the first.
TWO_BLOCKS = assemble("ldr r5, =100000000 ; loop: add r0, r0, #1 ; tst r0, #1 ; beq on ; add r1, r1, #1 \n"
                      "on: eor r2, r2, r0 ; subs r5, r5, #1 ; bne loop ; b .", BASE)  # fmt: skip
HEAD = BASE + 4


def _looping(without: tuple[str, ...] = (), tier: str = "auto") -> Machine:
    machine = Machine(
        1 << 20,
        tier=tier,  # type: ignore[arg-type]
        jit="off",
        console=CaptureConsole(),
        optimizations=Optimizations.without(*without),
    )
    machine.load_bytes(TWO_BLOCKS, BASE)
    return machine


def _region_tier(machine: Machine) -> RegionTier:
    assert isinstance(machine.tier, RegionTier)
    return machine.tier


def _same(*machines: Machine) -> bool:
    return len({(*machine.r, machine.cpsr, machine.icount) for machine in machines}) == 1


def _drop_all(machine: Machine) -> None:
    _region_tier(machine).cache.drop_all("a test")


def _write_code(machine: Machine) -> None:
    machine.write(HEAD + 8, machine.read(HEAD + 8, 4))


@pytest.mark.parametrize("drop", [_drop_all, _write_code])
def test_a_region_takes_the_heads_place_and_gives_it_back(
    only_handlers: object, drop: Callable[[Machine], None]
) -> None:
    with _looping() as machine, _looping(tier="threaded") as threaded:
        tier = _region_tier(machine)
        for _ in range(3):
            machine.run(fuel=1000)
            assert not tier.code_pages.has_image_handler(Gpa(HEAD)), "it is stitched"
            while machine.pc != HEAD:
                machine.step()
            before = machine.retired["region"]
            assert tier.compile_now(Gva(HEAD))
            machine.run(fuel=1003)
            assert machine.retired["region"] > before + 900
            drop(machine)
            machine.run(fuel=1)
            before = machine.retired["region"]
            machine.run(fuel=1001)
            assert machine.retired["region"] == before
            threaded.run(fuel=machine.icount - threaded.icount)
            assert _same(machine, threaded)
        machine.run(fuel=100_000)
        assert not tier.code_pages.has_image_handler(Gpa(HEAD)), "it is stitched again"


def test_a_head_is_diverted_without_room(only_handlers: object) -> None:
    """All stitched code is dropped then."""
    with _looping() as machine, _looping(tier="threaded") as threaded:
        tier = _region_tier(machine)
        machine.run(fuel=1000)
        while machine.pc != HEAD:
            machine.step()
        code = tier.threaded.stitched
        assert code is not None
        code._fields[FIELD_OFFSETS["size"] // 8] = code.count("used") + 8
        assert tier.compile_now(Gva(HEAD)) and code.count("resets") == 1
        machine.run(fuel=1003)
        assert machine.retired["region"] > 900
        _drop_all(machine)
        machine.run(fuel=2000)
        threaded.run(fuel=machine.icount)
        assert _same(machine, threaded)


def test_heads_without_a_counter_are_executed_too(only_handlers: object) -> None:
    with _looping() as machine, _looping(tier="threaded") as threaded:
        code = _region_tier(machine).threaded.stitched
        assert code is not None
        code._fields[FIELD_OFFSETS["counters"] // 8] = STITCH_COUNTERS
        for fuel in (1000, 1, 2, 3, 4, 5, 100_000):
            machine.run(fuel=fuel)
            threaded.run(fuel=fuel)
            assert _same(machine, threaded)
        assert code.count("insns") and code.count("counters") == STITCH_COUNTERS


def test_a_region_is_asked_for_only_when_a_stitched_head_is_hot(
    only_handlers: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, its becoming warm only looks for one on disk. A round of 6.5 instructions counts as 8 at its head."""
    monkeypatch.delenv("DBT_HOT_AFTER")
    with Machine(1 << 20, jit="sync", console=CaptureConsole()) as machine:
        machine.load_bytes(TWO_BLOCKS, BASE)
        machine.run(fuel=(WARM_INSNS + HOT_INSNS) * 6 // 8)
        assert _region_tier(machine).regions.counts.compiled == 0
        machine.run(fuel=(WARM_INSNS + HOT_INSNS) // 8)
        assert _region_tier(machine).regions.counts.compiled == 1


@pytest.mark.parametrize("text", ["2147483648", "-1", "soon", "²", "1" * 5000, "0" * 12 + "9" * 20])
def test_a_threshold_that_is_none(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBT_HOT_AFTER", text)
    with pytest.raises(WrongThreshold, match="write a number below 2147483648"):
        usual_thresholds()


def test_without_stitching_nothing_is_stitched(only_handlers: object) -> None:
    with _looping(("stitching",)) as machine, _looping() as other:
        assert _region_tier(machine).threaded.stitched is None
        for _ in range(5):
            machine.run(fuel=1003)
            other.run(fuel=1003)
            assert _same(machine, other)


def test_the_arena_is_released() -> None:
    gc.collect()  # machines of other tests that nobody has closed
    before = _mapped_arenas()
    machine = SmallMachine("warm", assemble(MIXED, ENTRY))
    assert isinstance(machine.tier.run(5000)[0], Budget)
    assert _mapped_arenas() == before + 2
    machine.close()
    assert _mapped_arenas() == before


def _mapped_arenas() -> int:
    with open("/proc/self/maps") as maps:
        return maps.read().count("memfd:dbt-stitched")

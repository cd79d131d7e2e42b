"""Machines for the tiers under test. A line in TIERS adds a tier to all tests."""

from __future__ import annotations

from array import array

from dbt.abi.addresses import Gpa
from dbt.abi.cpu import CpuState
from dbt.abi.exits import (
    Breakpoint,
    Budget,
    DataAbort,
    HypervisorCall,
    SecureMonitorCall,
    SupervisorCall,
    ThumbEntry,
    VmExit,
    WaitForInterrupt,
)
from dbt.engine.reference import ReferenceTier
from dbt.engine.threaded import ThreadedTier
from dbt.memory.guest_memory import GuestMemory
from isa.arm.faults import Fault
from isa.arm.state import BANKS, LAYOUT, PSR_KEPT, Mode
from tests.oracle.bare import BareMachine, MakeTier
from tests.oracle.cases.case import BANK_MODES, CODE, DEFAULT_BANKS, RAM_SIZE, Case, Outcome, default_ram, overlay_banks

#: The words of the state that every case sets; :class:`TierMachine` relies on their order.
_FIRST_WORDS = (*(f"r{n}" for n in range(16)), "n", "z", "c", "v", "q", "ge", "psr")
assert [LAYOUT[name].index for name in _FIRST_WORDS[16:]] == list(range(16, 23))

_BANK_R8, _BANK_R13, _BANK_R14, _SPSR = (LAYOUT[n].index for n in ("bank_r8", "bank_r13", "bank_r14", "spsr"))


class CaseStitchedTier(ThreadedTier):
    """Stitches what it has decoded before each run. ``entered`` counts runs that began in stitched code.

    Code is decoded when it is executed. So the first run of a code decodes it.
    """

    name = "stitched"

    def __init__(self, cpu: CpuState, memory: GuestMemory) -> None:
        super().__init__(cpu, memory, stitch=True)
        self.entered = 0

    def run(self, budget: int) -> tuple[VmExit, int]:
        assert self.stitched is not None
        code = Gpa(self._cpu.r[15])
        if code in self._memory.ram and self.code_pages.has_code(code):
            if self.code_pages.has_image_handler(code):
                self.stitched.stitch(self.code_pages.op_at(code))
            self.entered += not self.code_pages.has_image_handler(code)
        return super().run(budget)


TIERS: dict[str, MakeTier] = {
    "reference": ReferenceTier,
    "threaded": ThreadedTier,
    "stitched": CaseStitchedTier,
}


class TierMachine(BareMachine):
    """One tier with a CPU and RAM of its own, reused for every case."""

    def __init__(self, name: str) -> None:
        super().__init__(TIERS[name], RAM_SIZE)
        self.name = name
        self.stitched = 0  # cases that began in stitched code
        self._clean = default_ram()  # the content of RAM, except for code, between cases
        self._code = b""
        self._fault = ""
        self.memory.write_ram(Gpa(0), self._clean)
        self._words = array("I", self.cpu.words.tolist())
        self._set_default_banks()

    def run(self, case: Case, stepwise: bool = False) -> Outcome:
        """Execute the case. With ``stepwise``, branches within the code are allowed: see :class:`Case`."""
        if not isinstance(self.tier, CaseStitchedTier):
            return self._run_loaded(case, stepwise)
        self._run_loaded(case, stepwise)
        before = self.tier.entered
        outcome = self._run_loaded(case, stepwise)
        self.stitched += self.tier.entered > before
        return outcome

    def _run_loaded(self, case: Case, stepwise: bool) -> Outcome:
        self._load(case)
        self._fault = ""
        end = self._run_stepwise(case) if stepwise else self._run_straight(case)
        registers = tuple(self.cpu.r.tolist())
        memory = bytes(self.memory.ram.bytes)
        banks = self._banks() if case.privileged else None
        outcome = Outcome(end, registers, self.cpu.cpsr, memory, banks, self._fault)
        self._restore_ram(memory)
        return outcome

    def _run_straight(self, case: Case) -> str:
        exit_, retired = self.tier.run(len(case.code))
        if isinstance(exit_, Budget):
            assert retired == len(case.code)
        else:
            assert retired < len(case.code)
        assert self.cpu.r[15] == exit_.pc
        return self._describe(exit_)

    def _run_stepwise(self, case: Case) -> str:
        for _ in case.code:
            exit_, _ = self.tier.run(1)
            if not isinstance(exit_, Budget):
                return self._describe(exit_)
            if not CODE <= self.cpu.r[15] < case.code_end:
                break
        return "ok"

    def _describe(self, exit_: VmExit) -> str:
        """Return the exit as outcomes name it. A branch to Thumb state shows as the new PC and CPSR.T."""
        match exit_:
            case Budget():
                return "ok"
            case ThumbEntry(_, target):
                self.cpu.r[15] = target & ~1
                return "thumb"
            case DataAbort(_, gva, _, write, reason):
                self._fault = f"{'write' if write else 'read'} {gva:#x}"
                return "alignment" if reason == Fault.ALIGNMENT else "abort"
            case SupervisorCall(_, immediate):
                return f"svc {immediate:#x}"
            case Breakpoint(_, immediate):
                return f"bkpt {immediate:#x}"
            case HypervisorCall(_, immediate):
                return f"hvc {immediate:#x}"
            case SecureMonitorCall(_, immediate):
                return f"smc {immediate:#x}"
            case WaitForInterrupt():
                return "wait"
            case _:
                return type(exit_).__name__.lower()

    # -- state -------------------------------------------------------------------------------------

    def _set_default_banks(self) -> None:
        words = self._words
        for name, mode in BANK_MODES.items():
            bank = BANKS[mode]
            words[_BANK_R13 + bank] = DEFAULT_BANKS[f"sp_{name}"]
            words[_BANK_R14 + bank] = DEFAULT_BANKS[f"lr_{name}"]
            if bank:
                words[_SPSR + bank] = DEFAULT_BANKS[f"spsr_{name}"]

    def _load(self, case: Case) -> None:
        words, cpsr = self._words, case.cpsr
        flags = (cpsr >> bit & 1 for bit in (31, 30, 29, 28, 27))
        words[: len(_FIRST_WORDS)] = array("I", (*case.registers, CODE, *flags, cpsr >> 16 & 15, cpsr & PSR_KEPT))
        other = "usr" if case.mode == Mode.FIQ else "fiq"
        for i in range(5):
            words[_BANK_R8 + i] = DEFAULT_BANKS[f"r{8 + i}_{other}"]
        self.cpu.words[:] = memoryview(words)
        if BANKS[case.mode]:
            self.cpu.spsr = case.spsr
        self.cpu["sctlr"] = case.sctlr
        for gpa, word in case.memory:
            self.memory.write_ram(Gpa(gpa), word.to_bytes(4, "little"))
        code = case.code_bytes
        if code != self._code:
            behind = self._clean[case.code_end : CODE + len(self._code)]
            self.memory.write_ram(Gpa(CODE), code + behind)
            self._code = code

    def _banks(self) -> dict[str, int]:
        """Return every banked register. Those of the current mode are among R8 to R14."""
        words = self.cpu.words.tolist()
        high = "usr" if self.cpu.mode == Mode.FIQ else "fiq"
        banks = {f"r{8 + i}_{high}": words[_BANK_R8 + i] for i in range(5)}
        for name, mode in BANK_MODES.items():
            bank = BANKS[mode]
            banks[f"sp_{name}"], banks[f"lr_{name}"] = words[_BANK_R13 + bank], words[_BANK_R14 + bank]
            if bank:
                banks[f"spsr_{name}"] = words[_SPSR + bank]
        return overlay_banks(banks, words, self.cpu.mode)

    def _restore_ram(self, memory: bytes) -> None:
        """Restore RAM. Code is written only where it changed."""
        if memory[:CODE] != self._clean[:CODE]:
            self.memory.write_ram(Gpa(0), self._clean[:CODE])
        code = self._code + self._clean[CODE + len(self._code) :]
        if memory[CODE:] != code:
            self.memory.write_ram(Gpa(CODE), code)

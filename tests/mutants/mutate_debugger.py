"""Would the walk of tests/gdb notice what the debugger, its packets and histories do wrong?"""

from __future__ import annotations

import pytest

from dbt.gdb import packets, session
from dbt.gdb.packets import PacketReader
from dbt.gdb.session import Session
from dbt.vm import debugger
from dbt.vm.debugger import Debugger
from dbt.vm.history import History
from tests.gdb.walk import WALKS
from tests.mutants.mutant import TIMEOUT_S, Mutant, limit_time, require_noticed

MUTANTS = [
    Mutant(packets, "checksum", "0xFF", "0x7F"),
    Mutant(packets, "escaped", "^ 0x20", "^ 0x00"),
    Mutant(packets, "unescaped", "^ 0x20", "^ 0x00"),
    Mutant(PacketReader, "_finished", "len(body) > MAX_PACKET", "False"),
    Mutant(PacketReader, "_finished", "int(digits, 16) != checksum(body)", "False"),
    Mutant(PacketReader, "_finished", "not _HEX.issuperset(digits)", "False"),
    Mutant(PacketReader, "_between", "yield Signal.INTERRUPT", "return"),
    Mutant(PacketReader, "feed", "self._begin()", "pass"),
    Mutant(session, "_number", "len(digits) > 16", "False"),
    Mutant(session, "_word", ">= _WORD", "> _WORD"),
    Mutant(session, "_word_text", '"little"', '"big"'),
    Mutant(Session, "_write_registers", "reverse=True", "reverse=False"),
    Mutant(Session, "_write_registers", "len(data) != 4 * len(numbers)", "False"),
    Mutant(Session, "_write_register", "len(data) != 4", "False"),
    Mutant(Session, "_write", "size != len(data)", "False"),
    Mutant(Session, "_read_memory", "min(size, _MOST_READ)", "size"),
    Mutant(Session, "_transfer", "offset + len(part) < len(whole)", "len(part) < len(whole)"),
    Mutant(Session, "_check_thread", "number not in self._target.vcpus", "False"),
    Mutant(Session, "_resume_back", "or not self._target.goes_back", ""),
    Mutant(Session, "_command", "answer = str(error)", "raise"),
    Mutant(Session, "stop_reply", "stop.address or 0", "0"),
    Mutant(Debugger, "insert_breakpoint", "gva & 3 or", ""),
    Mutant(
        Debugger, "insert_breakpoint", "[*others, _Breakpoint(kind, conditions)]", "[_Breakpoint(kind, conditions)]"
    ),
    Mutant(Debugger, "remove_breakpoint", "if others:", "if False:"),
    Mutant(Debugger, "insert_watchpoint", "len(self._watchpoints) >= MAX_WATCHPOINTS and", "False and"),
    Mutant(Debugger, "insert_watchpoint", "and watchpoint not in self._watchpoints", ""),
    Mutant(Debugger, "stops_at", "or self._was_stopped_here", ""),
    Mutant(Debugger, "_breakpoint_at", "!= limit[1]", "== limit[1]"),
    Mutant(Debugger, "_breakpoint_at", "if holds():", "if not holds():"),
    Mutant(Debugger, "stops_for", "not self._was_stopped_here and", ""),
    Mutant(debugger, "_watchpoint", "kind is not WatchKind.WRITE", "kind is WatchKind.WRITE"),
    Mutant(Debugger, "step", "not start <= pc < end", "True"),
    Mutant(Debugger, "_run_step", "self.steps_into_interrupts or", ""),
    Mutant(Debugger, "_run_step", "self._entered not in _INTERRUPTS - self.caught", "True"),
    Mutant(Debugger, "resume", "if is_past and not self._is_past", "if False"),
    Mutant(Debugger, "resume_back", "self._behind_access == self._here", "False"),
    Mutant(Debugger, "resume_back", "(stop := self._breakpoint_here()) is not None", "(stop := None) is not None"),
    Mutant(Debugger, "resume_back", "self.history.pass_instruction()", "pass"),
    Mutant(Debugger, "write_register", "self._note_edit()", "pass"),
    Mutant(Debugger, "write_memory", "self._note_edit()", "pass"),
    Mutant(Debugger, "detach", "self._breakpoints.clear()", "pass"),
    Mutant(Debugger, "detach", "self._watchpoints.clear()", "pass"),
    Mutant(Debugger, "detach", "self.caught.clear()", "pass"),
    Mutant(History, "last_hit", "here.icount + 1, here.icount", "here.icount + 1, here.icount - 40"),
    Mutant(History, "last_hit", "upper = end = start", "upper = end = start - 40"),
    Mutant(History, "last_hit", "self._roll_back(self.oldest)", "pass"),
    Mutant(History, "last_write", "self._creep_up_to(here)", "pass"),
    Mutant(History, "_creep", "reached in (here, now)", "reached in (now,)"),
    Mutant(History, "_roll_back", "checkpoint.icount > icount", "checkpoint.icount >= icount"),
    Mutant(History, "_put_back", "self._journal.repeat_until(self._newest)", "pass"),
    Mutant(History, "check_present", "if self.is_past:", "if False:"),
    Mutant(History, "branch", "self._newest = self._ended = None", "pass"),
    Mutant(History, "run", "self._ended = result", "pass"),
    Mutant(History, "step_back", "self._creep(here)", "pass"),
]


def _notices() -> bool:
    """Whether an answer is wrong, or none comes."""
    limit_time(2 * TIMEOUT_S)
    for walk in WALKS:
        walk()  # which raises
    return False


def test_nothing_is_noticed_without_a_mutant() -> None:
    _notices()
    limit_time(0)


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_a_mutant_is_noticed(mutant: Mutant) -> None:
    require_noticed(mutant, _notices)

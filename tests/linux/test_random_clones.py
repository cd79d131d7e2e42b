"""Clones of a Linux that has booted give other random numbers, once each is told what its own follow from."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha512
from pathlib import Path

import pytest

from dbt import CaptureConsole, Machine
from dbt.linux.console import ProgramConsole
from dbt.linux.program import Owner, make_plan
from dbt.linux.template import Hardware, read_template, shares
from dbt.vm.identity import Identity
from dbt.vm.recording import Recorder, identify, read_recording
from dbt.vm.replay import Replay
from dbt.vm.state import state_hash
from tests.long import LONG

_CLONES = 1000 if LONG else 30
_WORDS = str(Path(__file__).resolve().parents[2] / "guests/linux/images/words")
_SEED = 11
#: More than a clone executes, and the time of day that each is told.
_FUEL, _NOW = 1_000_000_000, 1_700_000_000


@pytest.fixture(scope="module")
def template() -> Iterator[Machine]:
    """A machine whose kernel has booted and waits for a program."""
    with read_template(Hardware(), print) as state:
        machine = Machine.restore(
            state, console=ProgramConsole(CaptureConsole()), shares=shares({}), jit="off", notice=print
        )
    with machine:
        yield machine


class Clone:
    """The clone of a number. Its first program asks the kernel for eight bytes, by getrandom."""

    def __init__(self, template: Machine, number: int, entropy: bytes | None = None) -> None:
        identity = Identity.of(_SEED, number, 0)
        if entropy is None:
            entropy = sha512(b"%d" % identity.rng_seed).digest()
        plan = make_plan(_WORDS, ["words", "random"], {}, None, None, Owner(0, 0, (), 0o22), None, _NOW, entropy)
        self.output = CaptureConsole()
        self._console = ProgramConsole(self.output, _WORDS)
        self._console.start(plan.request)
        self.machine = template.fork(identity, console=self._console, shares=shares(plan.folders))

    def number(self) -> bytes:
        with self.machine as machine:
            machine.run(fuel=_FUEL)
        assert self._console.status == 0, self._console.log
        return bytes(self.output.output)


def test_no_two_clones_get_the_same_numbers(template: Machine) -> None:
    found = [Clone(template, number).number() for number in range(_CLONES)]
    assert {len(one) for one in found} == {18}
    assert len(set(found)) == _CLONES
    again = 0, _CLONES // 2, _CLONES - 1
    assert [Clone(template, number).number() for number in again] == [found[number] for number in again]


def test_it_is_what_they_are_told_that_makes_them_differ(template: Machine) -> None:
    """Their kernels have one state: who is told the same has the same numbers."""
    assert Clone(template, 1, b"same").number() == Clone(template, 2, b"same").number()


def test_a_replay_gives_the_numbers_of_the_run_again(template: Machine, tmp_path: Path) -> None:
    """The recording has what the clone was told. The replay is told something else, which it does not look at."""
    path = str(tmp_path / "run")
    clone = Clone(template, 3)
    recorder = Recorder(clone.machine.input_source, path, identify(clone.machine, "1.0"))
    clone.machine.attach_input(recorder)
    with clone.machine:
        result = clone.machine.run(fuel=_FUEL)
        recorder.end(clone.machine, result)
        ended = state_hash(clone.machine)
    other = Clone(template, 3, b"other")
    source = Replay(read_recording(path), identify(other.machine, "1.0"))
    other.machine.attach_input(source)
    with other.machine:
        source.compare(other.machine, other.machine.run(fuel=_FUEL), pytest.fail)
        assert state_hash(other.machine) == ended
    assert other.output.output == clone.output.output != b""

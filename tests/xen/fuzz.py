"""Hypercalls with random arguments: each has a result, and the domain's state can be restored.

    python -m tests.xen.fuzz --count 1000000 --seed 1

A round is a new domain. Arguments are such that many of them make sense: edges, frames, pointers, small numbers.
"""

from __future__ import annotations

import argparse
import random

from dbt.hypervisor.xen.interface import Request
from dbt.vm.state import state_hash
from tests.xen.guests import ARGUMENTS, MEMORY, RAM, SELF, Caller, domain_machine

_CALLS_IN_A_ROUND = 20_000
_NUMBERS = (12, 13, 17, 18, 20, 21, 24, 29, 32, 33, 34)
_EDGES = (0, 1, 2, 7, 8, 15, 16, 63, 64, 1023, 1024, 4095, 4096, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_FRAMES = (0x40000, 0x40010, 0x40020, 0x400FF, 0x40100, 0x38000, 0x3803F, 0x39000, 0x39004, 0xFFFFF)
_POINTERS = (ARGUMENTS, ARGUMENTS + 4080, RAM + MEMORY - 8, 0, 0xFFFFFFF8, 0xF0000000, 0x38000000)


def _word(draw: random.Random) -> int:
    match draw.randrange(6):
        case 0:
            return draw.choice(_EDGES)
        case 1:
            return draw.choice(_FRAMES)
        case 2:
            return draw.choice(_POINTERS)
        case 3:
            return draw.choice((SELF, 0, 1))
        case 4:
            return draw.randrange(24)
        case _:
            return draw.getrandbits(32)


def _arguments(draw: random.Random) -> list[int]:
    args = [draw.choice((draw.randrange(16), _word(draw))), *(_word(draw) for _ in range(4))]
    for number in (1, 2):
        if draw.random() < 0.7:
            args[number] = draw.choice(_POINTERS[:3])
    return args


def fuzz(seed: int, calls: int) -> tuple[str, int]:
    """Return the hash of the domain's state after some calls, and how many of them have succeeded."""
    draw, done = random.Random(seed), 0
    with domain_machine(notice=lambda _: None) as machine:
        caller = Caller(machine)
        for number in range(calls):
            words = [_word(draw) for _ in range(16)]
            if draw.random() < 0.5:
                for at in range(1, 16, 2):  # numbers of 64 bits that are not large
                    words[at] = 0
            caller.put("16I", *words)
            args = _arguments(draw)
            answer = caller.domain.call(draw.choice(_NUMBERS), args)
            assert isinstance(answer, Request) or (type(answer) is int and -200 < answer < 1 << 32), answer
            assert len(args) == 5 and all(0 <= value < 1 << 32 for value in args)
            done += isinstance(answer, int) and answer >= 0
            if number % 500 == 0:
                caller.domain.restore(caller.domain.save())
        with machine.save() as state, type(machine).restore(state, tier="reference") as again:
            assert state_hash(again) == state_hash(machine)
        return state_hash(machine), done


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.xen.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="hypercalls [100000]")
    parser.add_argument("--seed", type=int, default=1, help="of the first round [1]")
    options = parser.parse_args()
    done, rounds = 0, -(-options.count // _CALLS_IN_A_ROUND)
    for seed in range(options.seed, options.seed + rounds):
        try:
            done += fuzz(seed, _CALLS_IN_A_ROUND)[1]
        except BaseException:
            print(f"seed {seed}")
            raise
    print(f"{rounds * _CALLS_IN_A_ROUND} hypercalls in {rounds} rounds; {done} had no error")


if __name__ == "__main__":
    main()

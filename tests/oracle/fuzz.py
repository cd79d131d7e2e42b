"""The fuzzer, which looks for differences between the tiers and Unicorn, and among the tiers, with new seeds.

Half of the time it runs single instructions and blocks beside Unicorn (``--only cases``), the other half random
programs (``--only programs``) in all tiers, and in the region tier without each of its optimizations.

A difference is shrunk and printed as one line in the format of tests/cases, which may be added
there, with the command that replays it:

    python -m tests.oracle.fuzz --replay 'adds r0, r1, r2 ; r1=-1 r2=1 => r0=0 nzcv=nZCv'

A random program is named by its number:

    python -m tests.oracle.fuzz --program 1234

With ``--stitched N`` it goes on until N cases were executed in stitched code. Instructions that have no stencil, and
words that are undefined, are not among these: handlers execute them.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial

from tests.oracle.cases import (
    TIERS,
    Campaign,
    Mismatch,
    TierMachine,
    UnicornMachine,
    compared_insns,
    disassemble,
    explanation,
    parse,
)
from tests.oracle.programs import KINDS, WITHOUT, compare_random_program

#: The number of comparisons in the run of one program.
PROGRAM_STEPS = 1000


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seconds", type=float, default=60, help="how long to look (60)")
    arguments.add_argument("--seed", type=int, default=time.time_ns() & 0xFFFFFFFF, help="first seed (the time)")
    arguments.add_argument("--tier", choices=list(TIERS), action="append", help="only these tiers (all)")
    arguments.add_argument("--replay", metavar="LINE", help="run one case and show what each tier and Unicorn give")
    arguments.add_argument("--only", choices=["cases", "programs"], help="one of the two kinds (both)")
    arguments.add_argument("--program", metavar="N", type=int, help="run one random program")
    arguments.add_argument("--stitched", metavar="N", type=int, help="run cases until N of them were in stitched code")
    options = arguments.parse_args()
    tiers = tuple(options.tier or TIERS)
    if options.replay:
        return replay(options.replay, tiers)
    if options.program is not None:
        return programs(options.program, 0)
    if options.stitched is not None:
        return fuzz(options.seed, math.inf, ("stitched",), options.stitched)
    seconds = options.seconds if options.only else options.seconds / 2
    failed = fuzz(options.seed, seconds, tiers) if options.only != "programs" else 0
    return failed | (programs(options.seed, seconds) if options.only != "cases" else 0)


def programs(seed: int, seconds: float) -> int:
    """Run random programs, at least one, until the time is up or one differs. Return how many differed."""
    start = time.monotonic()
    number = seed
    without = list(WITHOUT)
    while True:
        try:
            compare_random_program(number, [*KINDS, without[number % len(without)]], PROGRAM_STEPS)
        except Exception as error:  # a program that ends in one has found something too
            replay_it = f"python -m tests.oracle.fuzz --program {number}"
            print(f"{type(error).__name__}: {error}\nreplay: {replay_it}", file=sys.stderr)
            return 1
        number += 1
        elapsed = time.monotonic() - start
        if elapsed > seconds:
            print(f"{number - seed} programs in {elapsed:.0f} s, seeds from {seed}; no difference")
            return 0


def fuzz(seed: int, seconds: float, tiers: tuple[str, ...], stitched: int | None = None) -> int:
    """Run cases until the time is up, or until so many of them were ``stitched``. Return 1 if any differs, else 0."""
    campaign = Campaign([TierMachine(name) for name in tiers])
    start = time.monotonic()
    failures = 0
    for check in _work(campaign, seed):
        try:
            check()
        except Mismatch as mismatch:
            print(mismatch, file=sys.stderr)
            failures += 1
        in_stitched_code = sum(machine.stitched for machine in campaign.tiers)
        if time.monotonic() - start > seconds or (stitched is not None and in_stitched_code >= stitched):
            break
    elapsed = time.monotonic() - start
    counts = campaign.counts
    print(f"{counts.cases} cases in {elapsed:.0f} s ({counts.cases / elapsed:.0f}/s), seed {seed}; {', '.join(tiers)}")
    print(f"  {in_stitched_code:7} began in stitched code")
    for name, count in counts.explained.most_common():
        print(f"  {count:7} explained: {name}")
    print(f"  {failures:7} unexplained")
    return min(failures, 1)


def _work(campaign: Campaign, seed: int) -> Iterator[Callable[[], object]]:
    """Yield the calls of rounds over all instructions, with blocks and undefined words between them."""
    while True:
        for insn in compared_insns():
            yield partial(campaign.check_insn, insn, f"{seed}/{insn.name}/{insn.pattern.text}")
            yield partial(campaign.check_blocks, 5, f"{seed}/blocks/{insn.name}/{insn.pattern.text}")
            yield partial(campaign.check_undefined, 50, f"{seed}/undefined/{insn.name}/{insn.pattern.text}")
        seed += 1


def replay(line: str, tiers: tuple[str, ...]) -> int:
    """Show one case. Return 1 if a tier differs from what the line expects, or from Unicorn without explanation."""
    case, expected = parse(line)
    theirs = UnicornMachine().run(case)
    print(disassemble(case.code))
    print(f"unicorn, expected: {'; '.join(theirs.differences(expected)) or 'agree'}")
    failed = False
    for name in tiers:
        machine = TierMachine(name)
        ours, stepped = machine.run(case), machine.run(case, stepwise=True)
        print(f"{name}, expected: {'; '.join(stepped.differences(expected)) or 'agree'}")
        difference = "; ".join(ours.differences(theirs))
        known = explanation(case, ours, theirs) if difference else None
        print(f"{name}, unicorn: {difference or 'agree'}{f'   (explained: {known})' if known else ''}")
        failed |= any(stepped.differences(expected)) or bool(difference and not known)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

"""Oracle 1 for regions: every instruction and form, and random blocks, compiled as regions, against Unicorn."""

from __future__ import annotations

from dataclasses import replace

import pytest

from isa.arm.operands import ALWAYS
from tests.oracle.cases import (
    Campaign,
    Case,
    Generator,
    RegionMachine,
    TierMachine,
    compared_insns,
    defined_cases,
    straight_line_insns,
)

SEED = 20240608
GROUPS = 8
STATES_PER_WORD = 5
WORDS = 6  # per instruction at least; and two per form
BLOCKS = 60  # per group
STATES_PER_BLOCK = 4


@pytest.fixture(scope="module")
def machine() -> RegionMachine:
    return RegionMachine()


@pytest.fixture(scope="module")
def campaign(machine: RegionMachine) -> Campaign:
    return Campaign([TierMachine("reference"), machine])


@pytest.mark.parametrize("group", range(GROUPS))
def test_insns(campaign: Campaign, machine: RegionMachine, group: int) -> None:
    cases: list[Case] = []
    for insn in compared_insns()[group::GROUPS]:
        generator = Generator(f"{SEED}/{insn.name}/{insn.pattern.text}")
        forms = list(insn.forms())
        for n in range(max(WORDS, 2 * len(forms))):
            cond = ALWAYS if n % 3 == 0 else generator.random.randrange(ALWAYS)
            word = generator.word(insn, forms[n % len(forms)], cond)
            if word is None:
                continue
            cases += defined_cases(generator, insn, word, STATES_PER_WORD)
    machine.tier.prepare({case.code: None for case in cases})
    entered = machine.tier.entered
    for case in cases:
        campaign.check(case, SEED)
    assert machine.tier.entered - entered > 0.6 * len(cases), "too few cases ran in a region"


@pytest.mark.parametrize("group", range(GROUPS))
def test_blocks(campaign: Campaign, machine: RegionMachine, group: int) -> None:
    generator = Generator(f"{SEED}/blocks/{group}")
    choices = straight_line_insns()
    blocks = [generator.block(choices, generator.random.randint(1, 32)) for _ in range(BLOCKS)]
    machine.tier.prepare(case.code for case in blocks)
    for case in blocks:
        campaign.check(case, SEED)
        for _ in range(STATES_PER_BLOCK - 1):
            other = generator.case()
            campaign.check(replace(case, registers=other.registers, cpsr=other.cpsr), SEED)

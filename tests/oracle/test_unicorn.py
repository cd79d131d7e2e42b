"""Oracle 1: Unicorn. Every instruction, form and condition, and random blocks, must agree with it."""

from __future__ import annotations

import pytest

from tests.long import LONG
from tests.oracle.cases import Campaign, compared_insns

SEED = 20240607
GROUPS = 32
BLOCK_GROUPS = 8
BLOCKS = 500 if LONG else 250  # per group
UNDEFINED_GROUPS = 2
UNDEFINED_WORDS = 5000  # per group


@pytest.fixture(scope="module")
def campaign() -> Campaign:
    return Campaign()


@pytest.mark.parametrize("group", range(GROUPS))
def test_insns(campaign: Campaign, group: int) -> None:
    for insn in compared_insns()[group::GROUPS]:
        words = campaign.check_insn(insn, f"{SEED}/{insn.name}/{insn.pattern.text}")
        assert words, f"{insn.name}: every word breaks a rule of tests/oracle/cases/unpredictable.py"


@pytest.mark.parametrize("group", range(UNDEFINED_GROUPS))
def test_undefined(campaign: Campaign, group: int) -> None:
    campaign.check_undefined(UNDEFINED_WORDS, f"{SEED}/undefined/{group}")


@pytest.mark.parametrize("group", range(BLOCK_GROUPS))
def test_blocks(campaign: Campaign, group: int) -> None:
    campaign.check_blocks(BLOCKS, f"{SEED}/blocks/{group}")

"""Sensitive instructions: those that the literature names are found to be so by their uops."""

from __future__ import annotations

import json

import pytest

from isa.arm.a32 import REGISTRY
from isa.arm.architecture import CALLOUTS
from isa.ir.sensitivity import Sensitivity, answered_by, classify
from tests.cli.command import dbt

FOUND = {insn.name: classify(insn) for insn in REGISTRY}


@pytest.mark.parametrize(
    ("name", "sensitivity"),
    [
        # These break the condition (Penneman et al., Formal virtualization requirements for the ARM, 2013).
        ("MSR (register, CPSR)", Sensitivity.UNPRIVILEGED),
        ("MRS (CPSR)", Sensitivity.UNPRIVILEGED),
        ("CPS", Sensitivity.UNPRIVILEGED),
        ("MRS (SPSR)", Sensitivity.PRIVILEGED),
        ("LDM (user registers)", Sensitivity.PRIVILEGED),
        ("LDM (exception return)", Sensitivity.PRIVILEGED),
        ("RFE", Sensitivity.PRIVILEGED),
        ("SRS", Sensitivity.PRIVILEGED),
        ("MCR (SCTLR)", Sensitivity.PRIVILEGED),
        ("MRC (DFSR)", Sensitivity.PRIVILEGED),
        ("MCR (TLBIALL)", Sensitivity.PRIVILEGED),
        ("MRC (TPIDRURW)", Sensitivity.INNOCUOUS),
        ("MSR (register, flags)", Sensitivity.INNOCUOUS),
        ("SVC", Sensitivity.CALL),
        ("UDF", Sensitivity.CALL),
        ("B", Sensitivity.INNOCUOUS),
        ("BX", Sensitivity.INNOCUOUS),
        ("LDM", Sensitivity.INNOCUOUS),
    ],
)
def test_classes(name: str, sensitivity: Sensitivity) -> None:
    assert FOUND[name].sensitivity is sensitivity


def test_whatever_makes_a_callout_is_sensitive() -> None:
    sensitive = {Sensitivity.PRIVILEGED, Sensitivity.UNPRIVILEGED}
    assert all(found.sensitivity in sensitive for found in FOUND.values() if found.callouts)


def test_who_answers() -> None:
    assert answered_by(CALLOUTS["write_cpsr"]) == "specification"
    assert answered_by(CALLOUTS["tlb_flush"]) == "hypervisor"


def test_the_command() -> None:
    text = dbt("isa", "--class", "sensitive").stdout.decode()
    assert "CPS" in text and "write_cpsr" in text and "SVC" not in text
    assert max(map(len, text.splitlines())) <= 80
    rows = json.loads(dbt("isa", "--json").stdout)
    assert len(rows) == len(REGISTRY)
    assert {row["class"] for row in rows} == {kind.value for kind in Sensitivity}
    wrong = dbt("isa", "--class", "odd")
    assert wrong.returncode == 120 and b"none of innocuous" in wrong.stderr

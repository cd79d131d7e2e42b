"""tools/lockstep.py finds the instruction that a tier does wrong, in the midst of a region's block."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from dbt.backend.lower import LOWER
from tests.assembler import assemble
from tests.vm.programs import BASE, EXIT, make_elf

PATH = Path(__file__).resolve().parents[2] / "tools/lockstep.py"
LOOP = """
    movw r1, #9000
    loop: add r0, r0, #3 ; bic r3, r1, #7 ; cmp r3, #2400 ; mlalt r2, r0, r1, r2 ; movhs r4, r0
    add r5, r5, r2 ; str r5, [sp, #-8] ; ldr r6, [sp, #-8]
    subs r1, r1, #1 ; bne loop
    mov r2, #0
"""
MLA = BASE + 4 + 4 * 3


@pytest.fixture
def lockstep() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lockstep", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def guest(tmp_path: Path, only_handlers: Path) -> str:
    path = tmp_path / "loop.elf"
    path.write_bytes(make_elf(assemble(LOOP + EXIT)))
    return str(path)


def test_tiers_that_agree(lockstep: ModuleType, guest: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert lockstep.main([guest, "--step", "30000"]) == 0
    assert "no difference in 9" in capsys.readouterr().out


def test_the_first_wrong_instruction_is_found(
    lockstep: ModuleType, guest: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLALT comes to be executed in round 6601 of the loop, whose region is there by then."""
    monkeypatch.setitem(LOWER, "mul", LOWER["add"])
    assert lockstep.main([guest, "--step", "12347"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("instruction ") and f"at {MLA:#010x} (mlalt r2, r0, r1, r2)" in lines[0]
    both, threaded, region = (next(n for n, line in enumerate(lines) if line.startswith(f"{name}, after"))
                              for name in ("both", "threaded", "auto:sync"))  # fmt: skip
    icount = int(lines[0].split()[1].replace(",", ""))
    assert lines[both].startswith(f"both, after {icount - 1} ") and lines[threaded].endswith(f"{icount} instructions:")
    words = [" ".join(lines[start + 1 : end]).split() for start, end in ((both, threaded), (threaded, region))]
    wrong = " ".join(lines[region + 1 :]).split()
    states = [dict(zip(text[::2], text[1::2], strict=True)) for text in (*words, wrong)]
    r0, r1, r2 = (int(states[0][name], 16) for name in ("r0", "r1", "r2"))
    assert (int(states[1]["r2"], 16), int(states[2]["r2"], 16)) == (r0 * r1 + r2, r0 + r1 + r2)
    assert {name for name in states[1] if states[1][name] != states[2][name]} == {"r2"}

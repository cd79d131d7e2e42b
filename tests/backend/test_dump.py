"""``--dump``: what is written of a region at each stage, and what happens where it cannot be."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import pytest

from dbt import Machine
from dbt.abi.addresses import Gpa, Gva
from dbt.backend.dump import STAGES
from dbt.backend.elfobject import ElfObject
from dbt.engine.region_tier import RegionTier
from dbt.frontend.optimizations import Optimizations
from dbt.host.console import CaptureConsole
from tests.assembler import assemble
from tests.cli.command import COMMAND, dbt, environment, json_of, paragraph
from tests.codecache.hosts import on_small_disk
from tests.vm.programs import BASE, EXIT, make_elf

CODE = f"""
    movw r4, #20000
    loop: bl callee
    ldr r0, word
    ldm sp, {{r5, r6}}
    subs r4, r4, #1
    bne loop
    mov r2, #0
    {EXIT}
    callee: add r1, r1, #1
    bx lr
    word: .word 0x12345
"""
SYMBOLS = {"main": (BASE, 4), "loop": (BASE + 4, 20), "callee": (BASE + 56, 8)}


def elf() -> bytes:
    return make_elf(assemble(CODE.replace("ldm sp", "sub r3, sp, #16; ldm r3")), symbols=SYMBOLS)


def run(directory: Path, jit: Any = "sync", **options: Any) -> tuple[Machine, list[str]]:
    notices: list[str] = []
    machine = Machine(
        1 << 20, tier="auto", jit=jit, dump=str(directory), console=CaptureConsole(), notice=notices.append, **options
    )
    machine.load_bytes(elf())
    assert machine.run(timeout=60).exit_code == 0
    return machine, notices


def tier(machine: Machine) -> RegionTier:
    assert isinstance(machine.tier, RegionTier)
    return machine.tier


def index_of(directory: Path) -> list[list[str]]:
    lines = (directory / "index.txt").read_text().splitlines()
    assert all(line.startswith("#") for line in lines[:2])
    return [line.split() for line in lines[2:]]


def test_every_stage_is_there(only_handlers: Path, tmp_path: Path) -> None:
    machine, notices = run(tmp_path / "a" / "dump")
    assert not notices
    index = index_of(tmp_path / "a" / "dump")
    assert len(index) == tier(machine).regions.counts.compiled == tier(machine).regions.worker.requests > 0
    for name, blocks, insns, size, *times, address, symbol in index:
        folder = tmp_path / "a" / "dump" / name
        assert {path.name for path in folder.iterdir()} == set(STAGES)
        assert name.endswith(address.removeprefix("0x")) and symbol in ("loop", "callee")
        assert 0 < int(blocks) <= int(insns) < int(size)
        assert len(times) == 4 and all(0 < float(milliseconds) < 10_000 for milliseconds in times)


def stages(directory: Path, symbol: str = "loop") -> dict[str, Any]:
    name = next(line[0] for line in index_of(directory) if line[-1] == symbol)
    return {
        path.name: path.read_bytes() if path.suffix == ".o" else path.read_text()
        for path in (directory / name).iterdir()
    }


def test_the_stages_say_what_they_are_to_say(only_handlers: Path, tmp_path: Path) -> None:
    run(tmp_path)
    found = stages(tmp_path)
    guest = found["guest.txt"]
    for words in (
        f"block 0  {BASE + 4:#010x} loop\n", "; from outside, ", "bl #0x", "subs r4, r4, #1\n", "; call to block 1\n",
        f" callee  (returns to {BASE + 8:#010x})\n", "; return to block 2\n", "; loop to block 0\n", "(leaves)\n",
        "holds 0x00012345\n",
    ):  # fmt: skip
        assert words in guest, guest
    uops = found["uops.txt"]
    for words in (
        "block 1\n",
        "add r1, r1, #1\n    v0 = ",
        " = get_reg 1\n",
        "adc v2, 0xfffffffe, 1\n",
        "branch.loop",
        "load.32 v",
        "when ",
        "for_each_bit 0x60\n",
    ):
        assert words in uops, uops
    for name in ("region.ll", "region.opt.ll"):
        llvm.parse_assembly(found[name]).verify()
        assert "@region0(" in found[name]
    assert "alloca" in found["region.ll"] and "alloca" not in found["region.opt.ll"]
    assert "region0:" in found["region.s"] and "jmpq" in found["region.s"]
    assert "region0" in {symbol.name for symbol in ElfObject(found["region.o"]).symbols}


def test_a_pass_that_is_left_out_is_missed_in_the_dump(only_handlers: Path, tmp_path: Path) -> None:
    run(tmp_path, optimizations=Optimizations.without("sroa", "literals"))
    found = stages(tmp_path)
    assert "alloca" in found["region.opt.ll"] and "holds" not in found["guest.txt"]
    assert (tmp_path / "index.txt").read_text().startswith("# dbt: regions compiled, without literals,sroa\n")


def test_the_code_is_the_same_with_and_without(only_handlers: Path, tmp_path: Path) -> None:
    codes = []
    for options in ({"dump": str(tmp_path)}, {}):
        machine = Machine(1 << 20, tier="auto", jit="off", console=CaptureConsole(), **options)  # type: ignore[arg-type]
        machine.load_bytes(elf())
        machine.run(fuel=1000)
        assert tier(machine).compile_now(Gva(BASE + 4))
        codes.append(tier(machine).cache.installed[Gpa(BASE + 4)].region)
    assert codes[0] == codes[1]


def test_regions_on_disk_are_compiled_again_and_an_earlier_dump_is_replaced(
    only_handlers: Path, tmp_path: Path
) -> None:
    first, _ = run(tmp_path / "dump")
    count = len(index_of(tmp_path / "dump"))
    (tmp_path / "dump" / "0099-00000000").mkdir()
    (tmp_path / "dump" / "0098-00000000").mkdir()
    (tmp_path / "dump" / "0098-00000000" / "mine.txt").write_text("not dbt's")
    second, _ = run(tmp_path / "dump")
    before, now = tier(first).regions.counts, tier(second).regions.counts
    assert (now.compiled, now.loaded) == (before.compiled, 0)
    assert len(index_of(tmp_path / "dump")) == count
    names = {path.name for path in (tmp_path / "dump").iterdir()}
    assert names == {"index.txt", "0098-00000000", *(line[0] for line in index_of(tmp_path / "dump"))}
    assert (tmp_path / "dump" / "0098-00000000" / "mine.txt").exists()


def test_beside_the_guest(only_handlers: Path, tmp_path: Path) -> None:
    machine, _ = run(tmp_path, jit="async")
    for _ in range(300):
        tier(machine)._finish_all(tier(machine).compiler.wait())
        if not tier(machine).regions.worker.pending:
            break
    assert tier(machine).regions.dump is not None
    assert len(index_of(tmp_path)) >= tier(machine).regions.dump.written > 0  # type: ignore[union-attr]


def test_a_directory_that_cannot_be_made(only_handlers: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "dump"):
        machine, notices = run(place)
        assert len(notices) == 1 and str(place) in notices[0] and "the run goes on" in notices[0]
        assert tier(machine).regions.counts.compiled or tier(machine).regions.counts.loaded


def test_a_region_that_cannot_be_written(only_handlers: Path, tmp_path: Path) -> None:
    """It is compiled all the same."""
    (tmp_path / f"0001-{BASE + 4:08x}").write_text("in the way")
    (tmp_path / f"0001-{BASE + 56:08x}").write_text("in the way")
    machine, _ = run(tmp_path)
    counts = tier(machine).regions.dump
    assert counts is not None and (counts.failed, counts.reason) == (1, "File exists")
    assert counts.written == tier(machine).regions.counts.compiled - 1 == len(index_of(tmp_path))


def test_what_the_compiler_does_not_survive_is_found(
    only_handlers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dbt.backend.llvm._PASSES", {"sroa": lambda manager: os._exit(3)})
    machine, _ = run(tmp_path / "dump")
    assert tier(machine).regions.worker.lost == tier(machine).regions.worker.requests > 0
    assert not index_of(tmp_path / "dump")
    folders = sorted(path for path in (tmp_path / "dump").iterdir() if path.is_dir())
    assert len(folders) == tier(machine).regions.worker.lost
    for number, folder in enumerate(folders):
        assert folder.name.startswith(f"{number + 1:04}-")
        assert {path.name for path in folder.iterdir()} == {"guest.txt", "uops.txt", "region.ll"}


# -- the command ---------------------------------------------------------------------------------


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program.elf"
    path.write_bytes(elf())
    return path


def test_the_command(only_handlers: Path, tmp_path: Path, program: Path) -> None:
    options = ("run", "--tier", "auto", "--jit", "sync", "--dump", tmp_path / "dump")
    done = dbt(*options, program)
    assert (done.returncode, done.stderr) == (0, b"")
    assert index_of(tmp_path / "dump")
    answer = json_of(dbt(*options, "--json", program))
    assert answer["statistics"]["dump"] == {"written": len(index_of(tmp_path / "dump")), "failed": 0, "reason": ""}
    assert "--dump" in paragraph(dbt("run", "--tier", "threaded", "--dump", tmp_path / "dump", program), 120)
    done = dbt(*options, "--fuel", "10", program)
    assert done.returncode == 123 and b"no region was compiled" in done.stderr and b"sync" not in done.stderr


def test_a_full_disk(only_handlers: Path, tmp_path: Path, program: Path) -> None:
    (tmp_path / "small").mkdir()
    prefix = on_small_disk(tmp_path / "small", "20K")
    done = subprocess.run(
        [*prefix, *COMMAND, "run", "--tier", "auto", "--jit", "sync", "--dump", str(tmp_path / "small"), str(program)],
        capture_output=True, env=environment(), check=False,
    )  # fmt: skip
    text = paragraph(done, 0)
    assert f"to {tmp_path / 'small'}: No space left on device" in text

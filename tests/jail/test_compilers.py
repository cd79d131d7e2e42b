"""The compilers of machines in processes of their own: what of a region LLVM says, and what nobody believes it."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from uuid import uuid4

import pytest

from dbt import Machine
from dbt.abi.addresses import Gva, Hva
from dbt.backend.compile_region import NoObject, RegionCompiler
from dbt.backend.compiled import CompiledRegion, Refused
from dbt.backend.elfobject import NOBITS, PROGBITS
from dbt.backend.llvm import compile_object
from dbt.backend.region_exits import Assumptions
from dbt.engine.messages import MachineNotice, pack_machine, pack_request
from dbt.engine.region_tier import RegionTier
from dbt.engine.worker_process import serve
from dbt.host.console import CaptureConsole, Console
from dbt.hypervisor import Clock, Host, ProcessCarrier
from dbt.hypervisor.jail.measures import Strictness
from dbt.hypervisor.process.compilers import compile_apart, is_plausible
from tests.assembler import assemble
from tests.codecache.samples import CONTEXT
from tests.domains.guests import GUESTS
from tests.oracle.cases import CODE, CaseCode
from tests.regions.compilers import region, request
from tests.waiting import wait_until

_MODULE = "define i32 @region0() {{ ret i32 {} }}"
_SECTION = struct.Struct("<IIQQQQIIQQ")


def compiled(compiler: RegionCompiler) -> CompiledRegion | Refused:
    data = assemble("main: add r0, r0, #1; subs r5, r5, #1; bne main; bx lr", CODE)
    words = tuple(int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 4))
    return compiler.compile(CaseCode(words), Gva(CODE), Assumptions(CONTEXT))


@pytest.mark.parametrize("strictness", [Strictness.OFF, Strictness.ON])
def test_llvm_in_a_jail_makes_the_same(strictness: Strictness) -> None:
    text = _MODULE.format(7)
    assert compile_apart(text, (), strictness) == compile_object(text, (), 1)
    apart = compiled(RegionCompiler(apart=lambda text, passes: compile_apart(text, passes, strictness)))
    assert apart == compiled(RegionCompiler()) and isinstance(apart, CompiledRegion)


def test_llvm_that_fails_costs_the_region() -> None:
    with pytest.raises(NoObject):
        compile_apart("this is no module", (), Strictness.ON)

    def failing(text: str, passes: object) -> bytes:
        raise NoObject("it has ended")

    assert compiled(RegionCompiler(apart=failing)) == Refused("it has ended")


def test_llvm_that_was_taken_over_changes_nothing_but_code() -> None:
    """The words and the place of a region are those of the guest, so it is nothing for a guest with others."""
    other = compile_object(_MODULE.format(13), (), 1)
    honest, lie = compiled(RegionCompiler()), compiled(RegionCompiler(apart=lambda text, passes: other))
    assert isinstance(honest, CompiledRegion) and isinstance(lie, CompiledRegion)
    assert lie.code != honest.code
    assert lie._replace(code=honest.code, start=honest.start) == honest


def elf(*sections: tuple[int, int, int], count: int | None = None) -> bytes:
    """An object with sections of these types, sizes and alignments, at its beginning."""
    header = struct.pack("<4sBBB9xHHIQQQIHHHHHH", b"\x7fELF", 2, 1, 1, 1, 62, 1, 0, 0, 64, 0, 64, 0, 0, 64,
                         len(sections) if count is None else count, 0)  # fmt: skip
    return header + b"".join(
        _SECTION.pack(0, kind, 2, 0, 0, size, 0, 0, alignment, 0) for kind, size, alignment in sections
    )


def test_objects_that_would_take_more_memory_than_they_have_bytes_are_none() -> None:
    assert is_plausible(compile_object(_MODULE.format(1), (), 1))
    assert is_plausible(elf((PROGBITS, 64, 16)))
    for bad in (
        b"",
        b"\x7fELF",
        elf((PROGBITS, 1 << 40, 16)),
        elf(*[(PROGBITS, 100, 16)] * 9),
        elf((PROGBITS, 1, 1 << 40)),
        elf((NOBITS, 1 << 32, 16)),
        elf((PROGBITS, 1, 1), count=2),
    ):
        assert not is_plausible(bad)


def test_a_machine_does_not_say_where_the_cache_is(tmp_path: Path, only_handlers: Path) -> None:
    """Nor is it believed that a region has other words than those that the compiler has formed it of."""
    requests_read, requests_write = os.pipe()
    results_read, results_write = os.pipe()
    elsewhere = {"DBT_CACHE_DIR": str(tmp_path / "elsewhere")}
    os.write(requests_write, pack_machine(1, MachineNotice(Hva(0), True, elsewhere)))
    os.write(requests_write, pack_request(1, 1, request(4)))
    os.close(requests_write)
    pid = os.fork()
    if pid == 0:
        try:
            here = {"DBT_CACHE_DIR": str(only_handlers)}
            serve(requests_read, results_write, None, lambda: lambda mirror, wanted: region(wanted.gpa), here)
        finally:
            os._exit(0)
    for descriptor in (requests_read, results_write, results_read):
        os.close(descriptor)
    os.waitpid(pid, 0)
    assert not (tmp_path / "elsewhere").exists()
    assert len(list(only_handlers.glob("regions-*/*"))) == 1


@dataclass(frozen=True)
class Computes:
    """Makes a machine whose guest computes, and whose code is compiled beside it."""

    def __call__(self, console: Console) -> Machine:
        machine = Machine(1 << 20, console=console)
        machine.load_bytes(assemble(GUESTS["spinner"], 0), base=0, entry=0)
        return machine


def test_what_one_machine_has_compiled_is_there_for_the_next(
    only_handlers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DBT_HOT_AFTER", "10000")
    with ProcessCarrier() as carrier, Host(1, Clock.FREE, carrier=carrier) as host:
        host.define("computes", Computes(), uuid4()).start()
        thread = Thread(target=host.run)
        thread.start()
        try:
            wait_until(lambda: list(only_handlers.glob("regions-*/*")), "a region in the cache directory")
        finally:
            host.stop()
            thread.join()
    with Computes()(CaptureConsole()) as machine:
        machine.run(fuel=1_000_000)
        assert machine.retired["region"] > 900_000
        tier = machine.vcpu.tier
        assert isinstance(tier, RegionTier)
        assert (tier.regions.counts.loaded, tier.regions.counts.compiled) == (1, 0)

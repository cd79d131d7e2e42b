"""Compilers for the worker's process that go wrong in every way, by the request that they are given."""

from __future__ import annotations

import faulthandler
import os
import time
from collections.abc import Iterator

from dbt import Machine
from dbt.abi.addresses import Gpa, Gva, Hva
from dbt.backend.compiled import CompiledRegion, Refused
from dbt.engine.messages import CompileRequest, PageNotice, TargetNotice
from dbt.engine.mirror import CodeMirror
from dbt.engine.worker import CompileClient, CompileWorker
from dbt.engine.worker_process import Compile
from dbt.host.console import CaptureConsole
from tests.assembler import assemble
from tests.codecache.samples import CONTEXT
from tests.vm.programs import EXIT, make_elf

KILL, HANG, RAISE, NOTHING, SLOW = 0x100, 0x200, 0x300, 0x400, 0x500


def region(entry: int) -> CompiledRegion:
    runs = ((Gpa(entry), b"abcd"), (Gpa(entry + 64), b"efgh"))
    return CompiledRegion(Gpa(entry), 0, 1, runs, bytes(range(256)) * 400, CONTEXT)


def request(entry: int) -> CompileRequest:
    return CompileRequest(Gpa(entry), Gva(entry), CONTEXT)


def make_compile() -> Compile:
    faulthandler.disable()

    def compile_(mirror: CodeMirror, wanted: CompileRequest) -> CompiledRegion | Refused:
        match int(wanted.gpa):
            case 0x100:
                os.abort()
            case 0x200:
                time.sleep(1000)
            case 0x300:
                raise ValueError("a defect of the compiler")
            case 0x400:
                return Refused("nothing")
            case 0x500:
                time.sleep(0.5)
        return region(wanted.gpa)

    return compile_


class NoCode:
    """A machine that has executed nothing. ``told`` counts how often a compiler has been told so."""

    code_pages_address = Hva(0)

    def __init__(self) -> None:
        self.told = 0

    def changes(self) -> Iterator[PageNotice | TargetNotice]:
        return iter(())

    def forget_told(self) -> None:
        self.told += 1


def connect(worker: CompileWorker) -> CompileClient:
    return worker.connect(NoCode(), keep=False)


def wait_for_all(client: CompileClient, count: int) -> list[tuple[int, CompiledRegion | Refused]]:
    """The addresses asked for and what came of it, of so many requests, in order."""
    finished: list[tuple[int, CompiledRegion | Refused]] = []
    while len(finished) < count:
        got = client.wait()
        assert got, "nothing is pending any more"
        finished += [(int(wanted.gpa), answer) for wanted, answer in got]
    return finished


def loop_machine(notices: list[str] | None = None, cpu: str = "any") -> Machine:
    machine = Machine(
        1 << 20, jit="sync", console=CaptureConsole(), notice=([] if notices is None else notices).append, cpu=cpu
    )
    machine.load_bytes(make_elf(assemble(f"ldr r1, =20000\nloop: subs r1, r1, #1\nbne loop\nmov r2, #7\n{EXIT}")))
    return machine


def check_run(machine: Machine) -> None:
    assert machine.run().exit_code == 7
    assert machine.icount == 2 * 20_000 + 8

"""Compilers for the worker's process that go wrong in every way, by the request that they are given."""

from __future__ import annotations

import faulthandler
import os
import time
from collections.abc import Callable

from dbt.backend.compiled import CompiledRegion, Refused
from dbt.engine.worker import CompileWorker
from tests.codecache.samples import CONTEXT

KILL, HANG, RAISE, NOTHING = 0x100, 0x200, 0x300, 0x400


def region(entry: int) -> CompiledRegion:
    return CompiledRegion(entry, 0, 1, ((entry, b"abcd"), (entry + 64, b"efgh")), bytes(range(256)) * 400, CONTEXT)


def make_compile() -> Callable[[int], CompiledRegion | Refused]:
    faulthandler.disable()

    def compile_(entry: int) -> CompiledRegion | Refused:
        match entry:
            case 0x100:
                os.abort()
            case 0x200:
                time.sleep(1000)
            case 0x300:
                raise ValueError("a defect of the compiler")
            case 0x400:
                return Refused("nothing")
        return region(entry)

    return compile_


def wait_for_all(compiler: CompileWorker[int], count: int) -> list[tuple[int, CompiledRegion | Refused]]:
    finished: list[tuple[int, CompiledRegion | Refused]] = []
    while len(finished) < count:
        got = compiler.wait()
        assert got, "nothing is pending any more"
        finished += got
    return finished

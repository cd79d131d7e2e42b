"""Who completes the waits of a guest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from dbt.vm.vcpu import Vcpu


@contextmanager
def waits_in_python(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Yield the list of the ticks at which waits begin that Python completes."""
    found: list[int] = []
    begin_wait = Vcpu.begin_wait

    def note(vcpu: Vcpu) -> None:
        found.append(vcpu.now())
        begin_wait(vcpu)

    with monkeypatch.context() as patch:
        patch.setattr(Vcpu, "begin_wait", note)
        yield found

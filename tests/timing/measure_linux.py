"""A shell of Linux that waits for keys, in real time."""

from __future__ import annotations

from tests.linux.booting import NEEDS_LINUX, TIMEOUT, boot
from tests.linux.typist import Typist, typed

pytestmark = NEEDS_LINUX


def test_a_prompt_takes_next_to_nothing_of_the_host() -> None:
    """And three seconds of the guest are not six of the host."""
    console = Typist([*typed(["sleep 3; echo slept", "reboot -f"])])
    machine = boot("threaded", console, "versatile-pb-minimal.dtb", realtime=True)
    assert machine.run(timeout=TIMEOUT).exit_code == 0
    (started, busy_before), (ended, busy_after) = console.times
    assert 3 <= ended - started < 6
    assert busy_after - busy_before < (ended - started) / 2

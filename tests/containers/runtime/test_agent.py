"""The guest's agent hears of a program's end whichever of its processes the kernel lets run first."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from dbt.containers.runtime.spec import Ended
from dbt.linux import images
from tests.containers.runtime.boxes import Boxes, words_layer

_SOURCES = Path(__file__).resolve().parents[3] / "guests" / "linux"
#: Where the agent's process says who goes on in its place, which has been forked by then.
_TELLS = "    call(SYS_WRITE, carrier->report, (long)&going_on"
#: Others run meanwhile (sched_yield).
_LATE = "    for (int i = 0; i < 20000; i++)\n        call(158, 0, 0, 0, 0, 0);\n"


@pytest.mark.skipif(shutil.which("arm-linux-gnueabi-gcc") is None, reason="arm-linux-gnueabi-gcc is not installed")
def test_a_program_ends_before_it_is_said_which_process_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(_SOURCES / "agent", tmp_path / "linux" / "agent")
    shutil.copy(_SOURCES / "Makefile", tmp_path / "linux")
    source = tmp_path / "linux" / "agent" / "processes.c"
    text = source.read_text()
    assert text.count(_TELLS) == 1
    source.write_text(text.replace(_TELLS, _LATE + _TELLS))
    agent = tmp_path / "agent"
    subprocess.run(["make", "-s", "-C", tmp_path / "linux", f"PACKAGE={tmp_path}", agent], check=True)
    monkeypatch.setattr(images, "AGENT_PATH", str(agent))
    boxes = Boxes(tmp_path, (words_layer(tmp_path),))
    try:
        for _ in range(2):
            said, ended = boxes.run(boxes.said("words", "say", "hi"))
            assert said.output == b"hi\n" and ended == Ended(0)
    finally:
        boxes.close()

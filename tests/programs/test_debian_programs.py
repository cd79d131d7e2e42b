"""Programs of Debian armel answer as under qemu-arm (``debian_answers.json``, which ``refresh_debian`` makes).

DBT_ARMEL_ROOT is the directory that tools/build_programs.py makes (``make programs``).
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.programs.debian_commands import ANSWERS, ENVIRONMENT, Command, answer_of, commands, write_files
from tests.programs.running import DBT, run_command

_ROOT = os.environ.get("DBT_ARMEL_ROOT", "")
_ANSWERS = json.loads(ANSWERS.read_text())

needs_root = pytest.mark.skipif(
    not _ROOT or not os.path.isfile(f"{_ROOT}/usr/bin/bash"),
    reason="DBT_ARMEL_ROOT is no directory with a Debian for armel (make programs)",
)


@needs_root
@pytest.mark.parametrize("command", commands(), ids=lambda command: command.line[:60])
def test_a_program_answers_as_under_qemu_arm(command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    write_files(folder)
    stdin = b"" if command.stdin is None else (folder / command.stdin).read_bytes()
    program, *arguments = command.words
    words = (*DBT, "--root", _ROOT, f"{_ROOT}/usr/bin/{program}", *arguments)
    answer = answer_of(run_command(words, folder, stdin, ENVIRONMENT), str(folder))
    assert answer == _ANSWERS[command.line]


def test_every_command_has_an_answer() -> None:
    assert {command.line for command in commands()} == set(_ANSWERS)

"""``dbt cluster``: it runs what a file describes, records and replays it, and says where two recordings differ."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.assembler import assemble
from tests.cli.command import dbt, paragraph
from tests.cluster.guests import BASE, CODE

_MACHINE = """
[machines.{name}]
kernel = "{guest}.bin"
cpu = "cortex-a15"
memory = "16M"
hubs = ["lan"]
{more}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The description of a cluster of two guests that send frames, and one that does for what is typed."""
    for name in ("chatter", "typist", "sleeper"):
        (tmp_path / f"{name}.bin").write_bytes(assemble(CODE[name], BASE))
    machines = [
        _MACHINE.format(name="a", guest="chatter", more=""),
        _MACHINE.format(name="b", guest="chatter", more=""),
        _MACHINE.format(name="typist", guest="typist", more='script = [["", "hello"], ["o\\n", "again"]]'),
    ]
    path = tmp_path / "cluster.toml"
    path.write_text("seed = 1\n[hubs.lan]\nlatency_us = 300\nloss = 0.2\n" + "".join(machines))
    return path


def hashes(text: bytes) -> list[bytes]:
    return re.findall(rb"\w+: [0-9a-f]{64}", text)


def test_a_cluster_is_run_recorded_replayed_and_compared(file: Path) -> None:
    first, other = file.parent / "first", file.parent / "other"
    ran = dbt("cluster", "run", "--seconds", "0.05", "--record", first, file)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == b"typist| hello\ntypist| again\n"
    assert b"the cluster has run for 0.050000 s (time)" in ran.stderr and len(hashes(ran.stderr)) == 3
    again = dbt("cluster", "replay", "--cores", "1", file, first)
    assert again.returncode == 0, again.stderr
    assert again.stdout == ran.stdout and hashes(again.stderr) == hashes(ran.stderr)
    dbt("cluster", "run", "--seconds", "0.05", "--record", other, "--seed", "2", file)
    compared = dbt("cluster", "diff", first, other)
    assert compared.returncode == 1 and re.match(rb"at 0\.\d+ s \w+ sends its frame \d+", compared.stdout)
    assert dbt("cluster", "diff", first, first).returncode == 0
    assert "differs from its recording" in paragraph(
        dbt("cluster", "replay", "--seed", "2", file, first, stdin=b""), 118
    ).replace("typist| ", "")


def test_a_saved_cluster_goes_on(file: Path) -> None:
    saved = file.parent / "saved"
    whole = dbt("cluster", "run", "--seconds", "0.04", file)
    dbt("cluster", "run", "--seconds", "0.01", "--save", saved, file)
    rest = dbt("cluster", "run", "--seconds", "0.03", "--restore", saved, file)
    assert rest.returncode == 0 and hashes(rest.stderr) == hashes(whole.stderr)


def test_what_is_typed_goes_to_the_machine_that_is_named(file: Path) -> None:
    ran = dbt("cluster", "run", "--attach", "typist", "--seconds", "0.05", file, stdin=b"")
    assert ran.returncode == 0 and b"typist| hello\n" in ran.stdout
    text = paragraph(dbt("cluster", "run", "--attach", "nobody", file), 120)
    assert "the cluster has a, b, typist" in text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = [", "Invalid"),
        ("", "it has no machines"),
        ("seed = 1.5", "seed in the file is 1.5"),
        ("speed = 1", "the file has a field 'speed'"),
        ("[machines.a]", "machines.a has to have either a program or a kernel"),
        ("[machines.a]\nprogram = 'x'\nkernel = 'y'", "either a program or a kernel"),
        ("[machines.a]\nprogram = 'x'\nscript = ['y']", "'y' in the script of machines.a is not a pair"),
        ("[machines.a]\nprogram = 'x'\nmemory = '-1M'", "'-1M' is no size"),
        ("[machines.a]\nprogram = 'x'\nhubs = [1]", "hubs in machines.a is no list of texts"),
        ("[hubs.lan]\nlatency_us = 0\n[machines.a]\nprogram = 'x'", "the latency of the hub lan is 0"),
        (
            "[machines.a]\ncpu = 'cortex-a15'\nkernel = 'sleeper.bin'\nhubs = ['lan']",
            "is at the hub 'lan', and the cluster has none",
        ),
        ("[machines.a]\nkernel = 'missing.bin'", "missing.bin"),
        ("[machines.a]\nkernel = 'sleeper.bin'\ndisks = ['missing']", "missing"),
    ],
)
def test_a_file_that_describes_no_cluster_is_refused(file: Path, text: str, said: str) -> None:
    file.write_text(text)
    assert said in paragraph(dbt("cluster", "run", file), 121)

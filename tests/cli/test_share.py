"""``--share``: what the option says, and a run that is repeated without the directory."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dbt.cli.status import CommandError, Status
from dbt.cli.values import parse_share
from dbt.host.ninep.share import Share
from tests.cli.command import dbt
from tests.devices.virtio.guest import ORIGIN
from tests.devices.virtio.ninep_guest import NinePGuest


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("dir", Share("dir")),
        ("dir,ro", Share("dir", read_only=True)),
        ("dir:tag", Share("dir", "tag")),
        ("/a:b:tag,ro", Share("/a:b", "tag", True)),
        ("a,,b:t,,g", Share("a,b", "t,g")),
    ],
)
def test_what_the_option_says(text: str, share: Share) -> None:
    assert parse_share("--share", text) == share


@pytest.mark.parametrize("text", ["", ":tag", "dir:", "dir,rw", "dir,ro,ro"])
def test_what_it_does_not_say(text: str) -> None:
    with pytest.raises(CommandError, match="--share"):
        parse_share("--share", text)


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        (["a", "a"], "the same tag"),
        (["share", ""], "the same tag"),
        (["x" * 32], "is not 1 to 31 bytes"),
        (["x" * 31 + "\u00e4"], "is not 1 to 31 bytes"),
        (["\udcff"], "of UTF-8"),
    ],
)
def test_tags_that_no_guest_can_have(tmp_path: Path, tags: list[str], said: str) -> None:
    options = [word for tag in tags for word in ("--share", f"{tmp_path}:{tag}" if tag else tmp_path)]
    result = dbt("run", "--board", "virt", *options, "--kernel", "none")
    assert result.returncode == Status.USAGE, result.stderr
    assert b"dbt: --share: " in result.stderr and said.encode() in result.stderr


def test_a_recorded_run_needs_no_directory(tmp_path: Path) -> None:
    share = tmp_path / "share"
    share.mkdir()
    (share / "a").write_bytes(b"hello")
    guest = NinePGuest()
    guest.walk(1, "a")
    guest.open(1, 0)
    guest.read_at(1, 0, 100)
    image, recording = tmp_path / "image", str(tmp_path / "recording")
    image.write_bytes(guest.image())
    run = ["run", "--board", "virt", "--tier", "threaded", "--base", hex(ORIGIN), "--memory", "32M"]
    result = dbt(*run, "--share", f"{share}:data", "--record", recording, image)
    assert result.returncode == 0, result.stderr
    shutil.rmtree(share)
    for more in ([], ["--share", f"{share}:data"]):
        result = dbt(*run, *more, "--replay", recording, image)
        assert result.returncode == 0, result.stderr
    result = dbt(*run, "--share", f"{share}:data,ro", "--replay", recording, image)
    assert "the list of shared directories is data,ro here and was data" in result.stderr.decode()
    result = dbt(*run, "--share", str(share), image)
    assert "this is not a directory" in result.stderr.decode()

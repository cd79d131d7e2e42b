"""The texts of disks whose paths are made absolute, or are to be in another directory."""

from __future__ import annotations

from dbt.cli.values import parse_drive
from dbt.cli.vm.paths import absolute_drive, moved_drives


def test_a_comma_in_a_directory_is_a_part_of_the_path() -> None:
    text = absolute_drive("file=a,,b.img,format=qcow2,backing=base,readonly", "/one,two")
    assert text == "file=/one,,two/a,,b.img,format=qcow2,backing=/one,,two/base,readonly"
    drive = parse_drive("drive", text)
    assert [path for path, _ in drive.files] == ["/one,two/a,b.img", "/one,two/base"]


def test_disks_that_move_get_names_of_their_own() -> None:
    texts = moved_drives(["file=/x/a,,b", "file=/y/a,,b"], "/new,place")
    assert texts == ["file=/new,,place/a,,b", "file=/new,,place/1-a,,b"]

"""The Linux guest that programs go on from: it is the same wherever it boots, and is used only if it can be trusted."""

from __future__ import annotations

from pathlib import Path

import pytest

from dbt.codecache.handlers import load_image
from dbt.linux.images import LinuxGuestError, kernel_folder, read_guest_files
from dbt.linux.template import LEAST_MEMORY, Hardware, boot, read_template

SMALL = Hardware(LEAST_MEMORY)


def test_two_boots_give_the_same_state() -> None:
    files = read_guest_files()
    with boot(SMALL, files) as one, boot(SMALL, files) as other:
        assert one.values == other.values
        assert list(one.ram.nonzero_pages()) == list(other.ram.nonzero_pages())


def test_it_is_kept_and_made_again_if_it_is_damaged(only_handlers: Path) -> None:
    said: list[str] = []
    with read_template(SMALL, said.append) as first:
        values = first.values
    assert said == ["booting the Linux guest, once for many programs"]
    (path,) = only_handlers.glob("linux-*.snapshot")
    with read_template(SMALL, said.append) as again:
        assert again.values == values
    assert len(said) == 1
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with read_template(SMALL, said.append) as again:
        assert again.values == values
    assert len(said) == 3 and "cannot be used, and is made again" in said[1]
    assert path.read_bytes() != bytes(data)


def test_what_others_could_have_written_is_not_used(only_handlers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = load_image(print).pack()
    monkeypatch.setattr("dbt.codecache.handlers.compile_image", lambda: image)  # which is not used either, then
    said: list[str] = []
    read_template(SMALL, said.append).close()
    (path,) = only_handlers.glob("linux-*.snapshot")
    path.chmod(0o666)
    read_template(SMALL, said.append).close()
    assert "others may write to it" in said[1]
    only_handlers.chmod(0o777)
    said.clear()
    read_template(SMALL, said.append).close()
    assert "others may write to it" in said[0] and "boots for each program" in said[2]
    monkeypatch.setenv("DBT_CACHE_DIR", "/dev/null/cache")
    read_template(SMALL, said.append).close()
    assert said[-1].endswith(
        "cannot write to /dev/null/cache (Not a directory). Let DBT_CACHE_DIR name a directory that you may write"
    )


def test_images_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBT_LINUX_GUEST", str(tmp_path))
    with pytest.raises(LinuxGuestError, match=rf"no kernel \(zImage\) in {tmp_path}"):
        kernel_folder()


def test_a_kernel_that_does_not_come_up() -> None:
    with pytest.raises(LinuxGuestError, match="does not come up"):
        boot(SMALL, read_guest_files()._replace(agent=b"no program"))


def test_a_kernel_that_panics_and_begins_again() -> None:
    with pytest.raises(LinuxGuestError, match="does not come up"):
        boot(Hardware(8 << 20), read_guest_files())

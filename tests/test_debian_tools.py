"""What the builds of kernels and disks say without Debian's packages, and dpkg's account of extracted packages."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[1] / "tools"
_CONTROL = """Package: one
Version: 1.0
Architecture: armel
Multi-Arch: same
Maintainer: nobody <nobody@example.org>
Description: a package
 of one file
"""


@pytest.mark.parametrize(
    ("apt", "expected"),
    [
        (None, "apt-get is not installed"),
        ("echo trixie somewhere", "has no Debian suite bookworm. Add a line with bookworm to"),
        ("echo E: a broken list >&2; exit 100", "E: a broken list"),
    ],
)
@pytest.mark.parametrize("tool", ["build_linux.py", "build_virt.py"])
def test_without_packages_the_builds_say_so(tool: str, apt: str | None, expected: str, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    if apt is not None:
        (programs / "apt-get").write_text(f"#!/bin/sh\n{apt}\n")
        (programs / "apt-get").chmod(0o755)
    command = (sys.executable, str(TOOLS / tool), str(tmp_path / "build"), "--steps=fetch")
    found = subprocess.run(command, check=False, env={"PATH": str(programs)}, capture_output=True, text=True)
    assert found.returncode == 1
    assert expected in found.stderr
    assert "Debian's packages cannot be had here" in found.stderr
    assert found.stderr.count("\n") == 1


@pytest.mark.skipif(shutil.which("dpkg-query") is None, reason="dpkg is not installed")
def test_dpkg_finds_the_packages_unpacked(tmp_path: Path) -> None:
    package, root = tmp_path / "one", tmp_path / "root"
    for path, text in {
        "DEBIAN/control": _CONTROL,
        "DEBIAN/conffiles": "/etc/one/config\n",
        "DEBIAN/postinst": "#!/bin/sh\n",
        "etc/one/config": "as it was\n",
        "usr/share/one": "",
    }.items():
        (package / path).parent.mkdir(parents=True, exist_ok=True)
        (package / path).write_text(text)
    (package / "DEBIAN" / "postinst").chmod(0o755)
    archives, database = root / "var/cache/apt/archives", root / "var/lib/dpkg"
    archives.mkdir(parents=True)
    (database / "info").mkdir(parents=True)
    build = ("dpkg-deb", "--build", "--root-owner-group", package, archives / "one_1.0_armel.deb")
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    subprocess.run(("dpkg-deb", "--extract", archives / "one_1.0_armel.deb", root), check=True)
    subprocess.run((sys.executable, TOOLS / "debian" / "unpacked.py", root), check=True)

    def query(*arguments: str) -> str:
        return subprocess.run(
            ("dpkg-query", f"--admindir={database}", *arguments), check=True, capture_output=True, text=True
        ).stdout

    assert query("--show", "--showformat=${db:Status-Abbrev}${Version}", "one:armel") == "iU 1.0"
    assert query("--listfiles", "one:armel").splitlines() == [
        *("/.", "/etc", "/etc/one", "/etc/one/config", "/usr", "/usr/share", "/usr/share/one"),
    ]
    assert (database / "info" / "one:armel.postinst").stat().st_mode & 0o777 == 0o755
    assert not (root / "etc/one/config").exists()
    assert (root / "etc/one/config.dpkg-new").read_text() == "as it was\n"

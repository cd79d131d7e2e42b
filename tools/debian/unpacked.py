"""Write dpkg's account of packages that were extracted and not installed: afterwards they are unpacked, for dpkg.

    python unpacked.py ROOT

ROOT is the root directory of a system for which packages of ROOT/var/cache/apt/archives were extracted, as by
`mmdebstrap --variant=extract`. It has then what `dpkg --unpack` would have left, but that no preinst script has run,
and `dpkg --configure -a` inside the system completes the installation. Formats: deb-control(5), dpkg's "info/format" 1.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

#: Where an entry's architecture is part of its files' names: packages of which several can be installed.
_SEVERAL = "same"


def main() -> int:
    root = Path(sys.argv[1])
    database = root / "var" / "lib" / "dpkg"
    (database / "info" / "format").write_text("1\n")
    packages = sorted((root / "var" / "cache" / "apt" / "archives").glob("*.deb"))
    if not packages:
        print(f"unpacked.py: there are no packages in {root}", file=sys.stderr)
        return 1
    (database / "status").write_text("".join(_enter(package, root, database / "info") for package in packages))
    return 0


def _enter(package: Path, root: Path, info: Path) -> str:
    """Place the files of a package's control archive, and return its paragraph for the file ``status``."""
    with tempfile.TemporaryDirectory() as name:
        subprocess.run(("dpkg-deb", "--control", package, name), check=True)
        control = {path.name: path.read_bytes() for path in Path(name).iterdir()}
        modes = {path.name: path.stat().st_mode & 0o777 for path in Path(name).iterdir()}
    text = control.pop("control").decode().rstrip("\n")
    fields = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line and line[0] != " ")
    stem = fields["Package"]
    if fields.get("Multi-Arch") == _SEVERAL:
        stem += f":{fields['Architecture']}"
    for name, content in control.items():
        (info / f"{stem}.{name}").write_bytes(content)
        (info / f"{stem}.{name}").chmod(modes[name])
    (info / f"{stem}.list").write_text(_listing(package))
    lines = text.splitlines()
    lines.insert(1, "Status: install ok unpacked")
    configured = [line for line in control.get("conffiles", b"").decode().splitlines() if line.startswith("/")]
    if configured:
        lines += ["Conffiles:", *(f" {path} newconffile" for path in configured)]
    for path in configured:
        _set_aside(root / path[1:])
    return "\n".join(lines) + "\n\n"


def _set_aside(path: Path) -> None:
    """Give a configuration file the name that it has until it is configured."""
    path.rename(path.with_name(f"{path.name}.dpkg-new"))


def _listing(package: Path) -> str:
    """Return the names of a package's files, one a line, as dpkg keeps them."""
    archive = subprocess.run(("dpkg-deb", "--fsys-tarfile", package), check=True, stdout=subprocess.PIPE).stdout
    command = ("tar", "--list", "--quoting-style=literal", "--file=-")
    names = subprocess.run(command, check=True, input=archive, stdout=subprocess.PIPE).stdout.decode().splitlines()
    return "".join(f"/{name.removeprefix('./').rstrip('/') or '.'}\n" for name in names)


if __name__ == "__main__":
    raise SystemExit(main())

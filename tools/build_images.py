"""Images for containers, as archives of their files: busybox for ARM, the same for the host's dockerd, and a Debian.

    python tools/build_images.py build/images [--steps busybox,debian]

``docker import busybox-armel.tar busybox`` makes an image of one. It needs no privileges and no emulator. Of Debian the
packages are extracted: ``dpkg --configure -a`` is for the container. A step that has been done is not repeated.
"""

from __future__ import annotations

import io
import shlex
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from build_steps import run_steps
from debian_packages import BuildError, PrivateApt, find_package, mirror_of, run_command

_SUITE = "bookworm"
_UNPACKED = Path(__file__).parent / "debian" / "unpacked.py"
#: What the Debian has besides the essential packages.
_PACKAGES = ("?essential", "usr-is-merged", "python3-minimal", "sqlite3")
_DIRECTORIES = ("bin", "etc", "home", "usr", "usr/bin", "usr/sbin", "var", "var/www", "dev", "proc", "sys")
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n",
    "etc/group": "root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\n",
}
#: Seconds since 1970 that all files were changed at, so that the archive depends on the package alone.
_TIME = 1700000000


def busybox(folder: Path) -> None:
    """Fetch Debian's static busybox for both architectures, and pack it with links for its programs."""
    targets = {name: folder / f"busybox-{name}.tar" for name in ("armel", "amd64")}
    if all(target.exists() for target in targets.values()):
        return
    found = {name: _fetched(folder, name) for name in targets}
    # The host can ask the one for its own architecture alone. Both are made with the same configuration.
    listed = subprocess.run([found["amd64"], "--list"], check=True, capture_output=True, text=True).stdout.split()
    for name, target in targets.items():
        partial = target.with_suffix(".partial")
        _pack_busybox(found[name].read_bytes(), sorted(set(listed) - {"busybox"}), partial)
        partial.rename(target)


def _fetched(folder: Path, architecture: str) -> Path:
    """Return the program of the package ``busybox-static`` for an architecture."""
    packages = folder / architecture
    packages.mkdir(exist_ok=True)
    apt = PrivateApt(folder / f"apt-{architecture}", "deb", architecture, (_SUITE,))
    apt.update()
    apt.download(("busybox-static",), packages)
    package = find_package(packages, "busybox-static")
    assert package is not None
    run_command("dpkg-deb", "--extract", package, packages / "files")
    return packages / "files/bin/busybox"


def _pack_busybox(program: bytes, programs: list[str], target: Path) -> None:
    with tarfile.open(target, "w") as archive:
        for name, mode in {**dict.fromkeys(_DIRECTORIES, 0o755), "root": 0o700, "tmp": 0o1777}.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode, entry.mtime = tarfile.DIRTYPE, mode, _TIME
            archive.addfile(entry)
        for name, content in {**{name: text.encode() for name, text in _FILES.items()}, "bin/busybox": program}.items():
            entry = tarfile.TarInfo(name)
            entry.mode, entry.mtime, entry.size = 0o755 if name == "bin/busybox" else 0o644, _TIME, len(content)
            archive.addfile(entry, io.BytesIO(content))
        for name in programs:
            entry = tarfile.TarInfo(f"bin/{name}")
            entry.type, entry.linkname, entry.mode, entry.mtime = tarfile.SYMTYPE, "busybox", 0o777, _TIME
            archive.addfile(entry)


def debian(folder: Path) -> None:
    """Extract Debian's packages for armel, write dpkg's account of them, and pack that."""
    target = folder / "debian-armel.tar"
    if target.exists():
        return
    if shutil.which("mmdebstrap") is None:
        raise BuildError("install what a Debian is made with: apt-get install mmdebstrap")
    partial = folder / "debian-armel.partial.tar"
    partial.unlink(missing_ok=True)
    merged = 'for d in bin sbin lib; do mkdir -p "$1/usr/$d"; ln -s "usr/$d" "$1/$d"; done'
    account = f'{shlex.quote(sys.executable)} {shlex.quote(str(_UNPACKED))} "$1"'
    less = 'rm -rf "$1"/var/cache/apt/archives/*.deb "$1"/var/lib/apt/lists/* "$1"/usr/share/doc "$1"/usr/share/locale'
    run_command(
        *("mmdebstrap", "--variant=extract", "--architectures=armel", "--format=tar", "--skip=chroot/mount"),
        *(f"--include={package}" for package in _PACKAGES),
        f"--setup-hook={merged}",
        *(f"--extract-hook={hook}" for hook in (account, less)),
        *(_SUITE, partial, mirror_of(_SUITE)),
    )
    partial.rename(target)


STEPS = {"busybox": busybox, "debian": debian}

if __name__ == "__main__":
    raise SystemExit(run_steps(__doc__, STEPS))

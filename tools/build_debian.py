"""A disk with a Debian for armel that nobody has configured yet, and with work for it: ``debian-armel.img``.

    python tools/build_debian.py build/virt [--steps sources,root]

It needs no privileges and no emulator: the packages are extracted, and `dpkg --configure -a` is for the guest. A step
that has been done is not repeated; remove what it made to repeat it. See docs/virt.md.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

from build_steps import run_steps
from debian_packages import BuildError, PrivateApt, mirror_of, run_command, unpack_source

_OURS = Path(__file__).parent / "debian"
#: The program for Lua that is measured elsewhere too.
_PROGRAM = Path(__file__).parent / "real_programs" / "guest" / "programs.lua"
_SUITE = "bookworm"
#: The smallest system that can be configured, and the programs that have work to do.
_PACKAGES = (
    *("?essential", "usr-is-merged", "busybox-static", "mount", "perl", "python3", "libpython3.11-testsuite"),
    *("gcc", "libc6-dev", "make", "xz-utils", "bzip2"),
)
#: Source packages, and which of their files the guest gets.
_SOURCES = {
    "perl": (
        *("cpan/Digest-SHA", "cpan/MIME-Base64", "cpan/Scalar-List-Utils", "cpan/Text-Balanced"),
        *("cpan/Text-ParseWords", "cpan/Time-Local", "dist/Storable"),
    ),
    "bzip2": (".",),
    "lua5.4": ("src",),
}
_SIZE = "900M"
_NEEDED = {"mmdebstrap": "mmdebstrap", "dpkg-source": "dpkg-dev", "mke2fs": "e2fsprogs"}


def sources(folder: Path) -> None:
    """Fetch the source packages and place what the guest gets of them into ``work``."""
    work = folder / "work"
    if work.is_dir():
        return
    _require()
    partial = folder / "work.partial"
    shutil.rmtree(partial, ignore_errors=True)
    apt = PrivateApt(folder / "apt-source", "deb-src", "armel", (_SUITE,))
    apt.update()
    for package, parts in _SOURCES.items():
        packed, unpacked = folder / "sources" / package, folder / "sources" / f"{package}.unpacked"
        packed.mkdir(parents=True, exist_ok=True)
        if not list(packed.glob("*.dsc")):
            apt.download_source(package, packed)
        shutil.rmtree(unpacked, ignore_errors=True)
        unpack_source(package, packed, unpacked)
        for part in parts:
            shutil.copytree(unpacked / part, partial / package / part, symlinks=True, dirs_exist_ok=True)
        shutil.rmtree(unpacked)
    partial.rename(work)


def root(folder: Path) -> None:
    """Extract the packages, write dpkg's account of them, and make a disk of that and of the work."""
    image = folder / "debian-armel.img"
    if image.exists():
        return
    _require()
    if not (folder / "work").is_dir():
        raise BuildError(f"there is no {folder / 'work'}: make the step sources first")
    partial = folder / "debian-armel.img.partial"
    partial.unlink(missing_ok=True)
    merged = 'for d in bin sbin lib; do mkdir -p "$1/usr/$d"; ln -s "usr/$d" "$1/$d"; done'
    account = f'{shlex.quote(sys.executable)} {shlex.quote(str(_OURS / "unpacked.py"))} "$1"'
    placed = [f"{folder / 'work'}/.", f"{_OURS / 'guest'}/.", str(_PROGRAM)]
    place = f'mkdir -p "$1/srv" && cp -r {" ".join(map(shlex.quote, placed))} "$1/srv"'
    less = 'rm -rf "$1"/var/cache/apt/archives/*.deb "$1"/var/lib/apt/lists/*'
    disk = f'mke2fs -q -t ext4 -E root_owner=0:0 -d "$1" {shlex.quote(str(partial))} {_SIZE}'
    run_command(
        *("mmdebstrap", "--variant=extract", "--architectures=armel", "--format=null", "--skip=chroot/mount"),
        *(f"--include={package}" for package in _PACKAGES),
        f"--setup-hook={merged}",
        *(f"--extract-hook={hook}" for hook in (account, less, place, disk)),
        *(_SUITE, "-", mirror_of(_SUITE)),
    )
    partial.rename(image)


def _require() -> None:
    missing = [package for command, package in _NEEDED.items() if shutil.which(command) is None]
    if missing:
        raise BuildError(f"install what a Debian is made with: apt-get install {' '.join(missing)}")


STEPS = {"sources": sources, "root": root}

if __name__ == "__main__":
    raise SystemExit(run_steps(__doc__, STEPS))

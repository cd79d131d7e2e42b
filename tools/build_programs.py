"""A directory with the programs of a Debian for armel: ``root``, for ``dbt run --root`` and its tests.

    python tools/build_programs.py build/programs

It needs no privileges and no emulator: packages are extracted, and nothing of them is configured.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from build_steps import run_steps
from debian_packages import BuildError, mirror_of, run_command

_SUITE = "bookworm"
_PACKAGES = (
    *(
        "?essential",
        "usr-is-merged",
        "apcalc",
        "bc",
        "bison",
        "brotli",
        "bsdextrautils",
        "busybox-static",
        "cpio",
        "dc",
    ),
    *(
        "ed",
        "figlet",
        "file",
        "flex",
        "gawk",
        "gcc",
        "jq",
        "less",
        "libc6-dev",
        "libxml2-utils",
        "lua5.4",
        "lz4",
        "m4",
        "mawk",
    ),
    *("make", "nasm", "ncurses-bin", "ocaml-interp", "openssl", "patch", "perl", "procps", "psmisc", "python3", "ruby"),
    *(
        "sqlite3",
        "tcl",
        "tree",
        "units",
        "unzip",
        "uuid-runtime",
        "vim-tiny",
        "xmlstarlet",
        "xsltproc",
        "xxd",
        "xz-utils",
    ),
    *("bzip2", "zip", "zstd"),
)


def root(folder: Path) -> None:
    """Extract the packages."""
    target = folder / "root"
    if target.is_dir():
        return
    if shutil.which("mmdebstrap") is None:
        raise BuildError("install what a Debian is made with: apt-get install mmdebstrap")
    partial = folder / "root.partial"
    shutil.rmtree(partial, ignore_errors=True)
    merged = 'for d in bin sbin lib; do mkdir -p "$1/usr/$d"; ln -s "usr/$d" "$1/$d"; done'
    run_command(
        *("mmdebstrap", "--variant=extract", "--architectures=armel", "--format=directory", "--skip=chroot/mount"),
        *(f"--include={package}" for package in _PACKAGES),
        f"--setup-hook={merged}",
        *(_SUITE, partial, mirror_of(_SUITE)),
    )
    partial.rename(target)


STEPS = {"root": root}

if __name__ == "__main__":
    raise SystemExit(run_steps(__doc__, STEPS))

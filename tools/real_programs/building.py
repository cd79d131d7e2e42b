"""Fetching the source packages, and compiling the programs for a machine without an operating system."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

from debian_packages import BuildError, PrivateApt, unpack_source

from real_programs.catalogue import Executable
from real_programs.inputs import GUEST

_CC = "arm-none-eabi-gcc"
_NEEDED = {
    _CC: "gcc-arm-none-eabi libnewlib-arm-none-eabi",
    "apt-get": "apt",
    "dpkg-source": "dpkg-dev",
}
#: As the guests of guests/Makefile are compiled, which says why.
_COMPILE = ("-O2", "-std=gnu11", "-marm", "-mfloat-abi=soft", "-mno-unaligned-access", "-w")
_LINK = ("-march=armv5te", "-marm", "-mfloat-abi=soft", "--specs=rdimon.specs", "-Wl,--gc-sections", "-lm")


class Builder:
    """Makes executables in ``folder``, and keeps there what has been made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._apt: PrivateApt | None = None

    def check_tools(self) -> None:
        """Raise :class:`BuildError` if a program that every build needs is not installed."""
        missing = [package for command, package in _NEEDED.items() if shutil.which(command) is None]
        if missing:
            raise BuildError(f"the programs cannot be built here: apt-get install {' '.join(missing)}")

    def source(self, package: str) -> Path:
        """Return the directory of a source package, fetched and unpacked."""
        unpacked = self.folder / "sources" / package
        if not unpacked.is_dir():
            packed = self.folder / "packages" / package
            if not list(packed.glob("*.dsc")):
                packed.mkdir(parents=True, exist_ok=True)
                self._source_apt().download_source(package, packed)
            unpacked.parent.mkdir(parents=True, exist_ok=True)
            unpack_source(package, packed, unpacked)
        return unpacked

    def _source_apt(self) -> PrivateApt:
        if self._apt is None:
            self._apt = PrivateApt(self.folder / "apt", "deb-src", "armel", ("bookworm",))
            self._apt.update()
        return self._apt

    def version(self, package: str) -> str:
        """Return the version of a source package that has been fetched."""
        found = sorted((self.folder / "packages" / package).glob("*.dsc"))
        return found[-1].stem.partition("_")[2] if found else "unknown"

    def image(self, executable: Executable) -> Path:
        """Return the program's ELF file. It is compiled if that has not been done, or if something has changed."""
        image = self.folder / "programs" / f"{executable.name}.elf"
        source = self.source(executable.package)
        objects, link = self._commands(executable, source, image)
        recipe = self._recipe(executable, [objects, link])
        made = image.with_suffix(".recipe")
        if image.exists() and made.exists() and made.read_text() == recipe:
            return image
        image.parent.mkdir(parents=True, exist_ok=True)
        work = self.folder / "objects" / executable.name
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        _compile(executable.name, objects, work)
        _compile(executable.name, [*link, *sorted(path.name for path in work.glob("*.o")), "-lm"], work)
        shutil.rmtree(work)
        made.write_text(recipe)
        return image

    def _commands(self, executable: Executable, source: Path, image: Path) -> tuple[list[str], list[str]]:
        """Return the commands that compile and link, without the objects."""
        left_out = {path for pattern in executable.without for path in source.glob(pattern)}
        files = sorted({path for pattern in executable.sources for path in source.glob(pattern)} - left_out)
        if not files:
            raise BuildError(f"{executable.package} {self.version(executable.package)} has no {executable.sources[0]}")
        options = [f"-I{source / option[2:]}" if option.startswith("-I") else option for option in executable.options]
        words = [
            _CC,
            *_COMPILE,
            f"-march={executable.march}",
            *options,
            f"-I{GUEST / executable.name}",
            f"-I{source}",
            f"-I{GUEST}",
        ]
        words += ["-ffunction-sections", "-fdata-sections", "-c", *map(str, files)]
        words += [str(GUEST / name) for name in executable.ours]
        return words, [_CC, *_LINK, "-o", str(image)]

    def _recipe(self, executable: Executable, commands: list[list[str]]) -> str:
        """Return what decides the content of an executable: a change of it has the program compiled again."""
        files = [GUEST / name for name in executable.ours]
        files += [*GUEST.glob("*.h"), *(GUEST / executable.name).glob("*")]
        ours = {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}
        content = {"version": self.version(executable.package), "commands": commands, "ours": ours}
        return json.dumps(content, indent=1) + "\n"


def _compile(name: str, command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "error" in line or "undefined" in line]
        raise BuildError(f"{name} cannot be compiled: {'; '.join(errors[:3]) or done.stderr[-500:]}")

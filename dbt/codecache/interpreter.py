"""Starting Python for this package: modules come from where they come from here, never from the current directory.

``python -m`` looks into the current directory first, which may be anybody's.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping

#: The directory or the archive that holds the package.
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
_PR_SET_PDEATHSIG = 1
#: Has the package found where it is here, even if another ``dbt`` comes earlier in the path.
_FIND_PACKAGE = """\
import importlib.util, os, sys
root = sys.argv[1]
found = importlib.util.find_spec("dbt")
if not found or not found.origin or os.path.realpath(found.origin) != os.path.join(root, "dbt", "__init__.py"):
    sys.path.insert(0, root)
"""


def python_command(code: str) -> list[str]:
    """Return the command that runs ``code``, which may import dbt, with the isolation of this process and ``-P``."""
    options = ["-P"]
    if sys.flags.ignore_environment:
        options.append("-E")
    if sys.flags.no_user_site:
        options.append("-s")
    return [sys.executable, *options, "-c", _FIND_PACKAGE + code, ROOT]


def signal_at_parents_end(number: int) -> None:
    """Have the kernel send this process the signal ``number`` when the thread that started it ends."""
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def die_with(parent: int) -> None:
    """Have the kernel kill this process when the process ``parent`` ends, in whatever way. End it now if that is gone.

    Precondition: the thread of the parent that started this process waits for it. Otherwise the end of that thread
    alone would kill this process.
    """
    signal_at_parents_end(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def python_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment without the empty parts of PYTHONPATH: each stands for the current directory."""
    parts = [part for part in environment.get("PYTHONPATH", "").split(os.pathsep) if part]
    others = {name: value for name, value in environment.items() if name != "PYTHONPATH"}
    return {**others, "PYTHONPATH": os.pathsep.join(parts)} if parts else others

"""``python -m dbt``: the same as the command ``dbt``."""

import os
import sys

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def _leave_current_directory() -> None:
    """Take back that ``-m`` has modules looked for in the current directory first, which may be anybody's."""
    first = (sys.path[0] or os.curdir) if sys.path else ""
    if sys.flags.safe_path or not os.path.isdir(first):
        return
    if os.path.samefile(first, os.curdir) and not os.path.samefile(first, _ROOT):
        del sys.path[0]


if __name__ == "__main__":
    _leave_current_directory()
    from dbt.cli import main

    main()

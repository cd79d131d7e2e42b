"""Messages to the user, on standard error. Standard output belongs to the guest."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from dbt.cli.status import CommandError, Status
from dbt.inspector.symbols import printable

if TYPE_CHECKING:
    from rich.table import Table

#: What is always right: dbt is on no package index.
INSTALL_REMEDY = "install dbt with what it needs from its checkout"


def say(line: str, prefix: str = "dbt: ") -> None:
    """Print one line or paragraph. If there is no standard error, do nothing."""
    if sys.stderr is not None:
        with suppress(OSError, ValueError):
            print(printable(f"{prefix}{line}"), file=sys.stderr, flush=True)


def guarded(command: Callable[[], int], tell: Callable[[str], None] = say) -> int:
    """Run a command and return its exit status. Any exception becomes one paragraph and an exit status."""
    try:
        return command()
    except KeyboardInterrupt:
        tell("interrupted")
        return Status.INTERRUPTED
    except BrokenPipeError:
        return Status.BROKEN_PIPE
    except Exception as error:
        text, status = explain(error)
        if status is None and os.environ.get("DBT_DEBUG"):
            raise
        tell(text)
        return Status.FAILURE if status is None else status


def explain(error: Exception) -> tuple[str, Status | None]:
    """Return the paragraph for the user, and the status if what the user gave is wrong, or None if it is a failure.

    It is the last line of defence: a user gets a paragraph, a developer the traceback (DBT_DEBUG).
    """
    if isinstance(error, CommandError):
        return str(error), error.status
    if isinstance(error, ModuleNotFoundError):  # before the errors are imported, whose modules may need it too
        return f"the Python package {error.name!r} is missing: {INSTALL_REMEDY}, pip install -e .", None
    if (status := _status_of(error)) is not None:
        return str(error).removesuffix(".") + ".", status
    return _describe(error), None


def _status_of(error: Exception) -> Status | None:
    """Return the status for an error in what the user gave, whose text is for the user. Return None for any other.

    The errors are imported here, because a run without an error needs none of their modules.
    """
    from dbt.board.loader import ImageError
    from dbt.codecache.store import WrongCacheSize
    from dbt.daemon.client import ServiceGone
    from dbt.engine.stitched import WrongThreshold
    from dbt.host.disk import DiskError
    from dbt.host.net_option import NetworkError
    from dbt.host.store_socket import StoreSocketError
    from dbt.host.vsock import VsockError
    from dbt.snapshot.errors import SnapshotError
    from dbt.trace.log import TraceError
    from dbt.vm.input import RecordingError, ReplayDiverged
    from dbt.vm.shared_directory import ShareError

    match error:
        case ImageError() | RecordingError() | SnapshotError() | TraceError():
            return Status.BAD_INPUT
        case DiskError() | NetworkError() | ShareError() | VsockError() | StoreSocketError():
            return Status.BAD_INPUT
        case ReplayDiverged():
            return Status.DIVERGED
        case WrongCacheSize() | WrongThreshold():
            return Status.USAGE
        case ServiceGone():
            return Status.FAILURE
        case _:
            return None


def _describe(error: Exception) -> str:
    from dbt.codecache.handlers import HandlersUnavailable
    from dbt.host.console import ConsoleError

    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        detail = f" ({error.strerror})" if isinstance(error, OSError) else ""
        return f"the host has not enough memory for this machine{detail}: give it less with --memory."
    if isinstance(error, OSError) and error.strerror:
        name = f" ({error.filename})" if error.filename is not None else ""
        return f"the host refused: {error.strerror}{name}. DBT_DEBUG=1 shows where."
    if isinstance(error, (HandlersUnavailable, ConsoleError)):
        return f"{error}. DBT_DEBUG=1 shows where."
    kind = type(error).__name__
    return f"internal error: {kind}: {error}. This is a bug in dbt; run again with DBT_DEBUG=1 for the traceback."


def keep_standard_descriptors() -> None:
    """Fill standard descriptors that the caller closed, so that no file of ours takes their numbers."""
    for number, mode in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)


def print_table(title: str, rows: Iterable[tuple[str, ...]], to_stdout: bool = False) -> None:
    """Print a table of texts, whose first column names the row."""
    from rich.console import Console
    from rich.table import Table

    table: Table = Table(title=title, show_header=False, title_justify="left", box=None)
    for row in rows:
        table.add_row(*row)
    Console(stderr=not to_stdout, highlight=False, markup=False, emoji=False, soft_wrap=True).print(table)

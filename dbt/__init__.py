"""A dynamic binary translator and hypervisor for 32-bit ARM guests.

>>> from dbt import Machine
>>> machine = Machine()
>>> machine.load("guest.elf")
>>> machine.run(timeout=10).exit_code
0
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbt.abi.version import VERSION

if TYPE_CHECKING:
    from dbt.board.loader import ImageError
    from dbt.devices.state import StateError
    from dbt.host.console import CaptureConsole, HostConsole
    from dbt.host.disk import DiskError
    from dbt.host.drive import Drive
    from dbt.host.net_option import Forward, Net, NetworkError
    from dbt.host.output_console import FileConsole, NullConsole
    from dbt.host.socket_console import SocketConsole
    from dbt.memory.ram import RamRegion
    from dbt.qmp.monitor import QmpMonitor
    from dbt.snapshot.difference import SnapshotDifference, diff_snapshots
    from dbt.snapshot.errors import SnapshotError
    from dbt.snapshot.info import SnapshotInfo
    from dbt.snapshot.snapshots import read_snapshot, write_snapshot
    from dbt.vm.checkpoint import Checkpoint, CheckpointError
    from dbt.vm.history import History, HistoryError
    from dbt.vm.machine import Machine
    from dbt.vm.result import RunResult, StopReason
    from dbt.vm.vm_state import VmState

__version__ = VERSION
__all__ = [
    "CaptureConsole",
    "Checkpoint",
    "CheckpointError",
    "DiskError",
    "Drive",
    "FileConsole",
    "Forward",
    "History",
    "HistoryError",
    "HostConsole",
    "ImageError",
    "Machine",
    "Net",
    "NetworkError",
    "NullConsole",
    "QmpMonitor",
    "RamRegion",
    "RunResult",
    "SnapshotDifference",
    "SnapshotError",
    "SnapshotInfo",
    "SocketConsole",
    "StateError",
    "StopReason",
    "VmState",
    "__version__",
    "diff_snapshots",
    "read_snapshot",
    "write_snapshot",
]

_HOME = {
    "CaptureConsole": "dbt.host.console",
    "Checkpoint": "dbt.vm.checkpoint",
    "CheckpointError": "dbt.vm.checkpoint",
    "DiskError": "dbt.host.disk",
    "Drive": "dbt.host.drive",
    "FileConsole": "dbt.host.output_console",
    "Forward": "dbt.host.net_option",
    "History": "dbt.vm.history",
    "HistoryError": "dbt.vm.history",
    "HostConsole": "dbt.host.console",
    "ImageError": "dbt.board.loader",
    "Machine": "dbt.vm.machine",
    "Net": "dbt.host.net_option",
    "NetworkError": "dbt.host.net_option",
    "NullConsole": "dbt.host.output_console",
    "QmpMonitor": "dbt.qmp.monitor",
    "RamRegion": "dbt.memory.ram",
    "RunResult": "dbt.vm.result",
    "SnapshotDifference": "dbt.snapshot.difference",
    "SnapshotError": "dbt.snapshot.errors",
    "SnapshotInfo": "dbt.snapshot.info",
    "SocketConsole": "dbt.host.socket_console",
    "StateError": "dbt.devices.state",
    "StopReason": "dbt.vm.result",
    "VmState": "dbt.vm.vm_state",
    "diff_snapshots": "dbt.snapshot.difference",
    "read_snapshot": "dbt.snapshot.snapshots",
    "write_snapshot": "dbt.snapshot.snapshots",
}


def __dir__() -> list[str]:
    """The public names, for ``help(dbt)`` too."""
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    """The public names, imported when first used: the command line starts faster without them."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)

"""Two machines of one process, whose network cards are at one hub: the dbt of the network's part of ``make bench-io``.

    python tools/two_machines.py KERNEL FIRST_DISK SECOND_DISK

What the second says comes to the standard output. It ends with the second.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from io_bench.guest import APPEND, MEMORY_MB

from dbt import Machine
from dbt.host.console import CaptureConsole
from dbt.host.net_option import Net


class Said(CaptureConsole):
    """A console whose output goes to the standard output at once."""

    def write(self, data: bytes) -> None:
        os.write(1, data)


def boot(kernel: str, disk: str, number: int, console: CaptureConsole) -> Machine:
    net = Net("hub:bench", bytes((0x52, 0x54, 0, 0, 0, number)))
    machine = Machine(MEMORY_MB << 20, board="virt", cpu="cortex-a15", console=console, nets=[net], realtime=True)
    machine.load_kernel(Path(kernel), initrd=Path(disk), append=APPEND)
    return machine


def main() -> None:
    kernel, first, second = sys.argv[1:]

    def serve() -> None:
        with boot(kernel, first, 0, CaptureConsole()) as machine:
            machine.run()

    threading.Thread(target=serve, daemon=True).start()
    with boot(kernel, second, 1, Said()) as machine:
        machine.run()
    os._exit(0)  # The other machine may wait for ever.


if __name__ == "__main__":
    main()

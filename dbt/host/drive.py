"""How a machine is to use a file as a disk. :mod:`dbt.host.disk` opens it."""

from __future__ import annotations

from typing import NamedTuple


class Drive(NamedTuple):
    """A disk of a machine: a raw image in the file ``path``.

    - ``serial``: what the disk says its serial number is, of which the guest gets 20 bytes.
    - ``read_only``: the guest can only read it.
    - ``snapshot``: what the guest writes is kept by the machine, as part of its state, and the file does not change.
      Otherwise the file itself is the disk.
    """

    path: str
    read_only: bool = False
    snapshot: bool = False
    serial: str = ""

"""How a machine is to use a file as a disk. :mod:`dbt.host.disk` opens it."""

from __future__ import annotations

from typing import NamedTuple


class Drive(NamedTuple):
    """A disk of a machine: a raw image in the file ``path``.

    - ``serial``: what the disk says its serial number is, of which the guest gets 20 bytes.
    - ``read_only``: the guest can only read it.
    - ``snapshot``: what the guest writes is kept by the machine, as part of its state, and the file does not change.
      Otherwise the file itself is the disk.
    - ``overlay``: as ``snapshot``, and what the guest flushes is also put into the file of that name. Another machine
      with the same drive finds it there.
    """

    path: str
    read_only: bool = False
    snapshot: bool = False
    serial: str = ""
    overlay: str = ""

    @property
    def keeps_image(self) -> bool:
        """True if the image does not change, whatever the guest writes."""
        return self.read_only or self.snapshot or bool(self.overlay)

    @property
    def is_overlaid(self) -> bool:
        """True if what the guest writes is part of the machine's state."""
        return self.snapshot or bool(self.overlay)

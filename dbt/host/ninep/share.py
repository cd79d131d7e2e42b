"""Which directory of the host a guest shares, and how. :mod:`dbt.host.ninep.server` opens it."""

from __future__ import annotations

from typing import Final, NamedTuple

#: The name under which a guest finds the directory, unless another one is given.
DEFAULT_TAG: Final = "share"
#: Bytes of a tag at most: what Linux' driver and QEMU take.
LONGEST_TAG: Final = 31


class Share(NamedTuple):
    """A directory that a guest can mount by 9p.

    - ``path``: the directory. None is a share whose answers come from a recording.
    - ``tag``: the name by which the guest mounts it, at most :data:`LONGEST_TAG` bytes of UTF-8.
    - ``read_only``: the guest can change nothing.
    """

    path: str | None
    tag: str = DEFAULT_TAG
    read_only: bool = False

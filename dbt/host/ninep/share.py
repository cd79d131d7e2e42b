"""Which directory of the host a guest shares, and how. :mod:`dbt.host.ninep.server` opens it."""

from __future__ import annotations

from collections.abc import Sequence
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
    - ``is_file``: the path is that of a file, which is alone in the directory (:mod:`dbt.host.ninep.shared_file`).
    """

    path: str | None
    tag: str = DEFAULT_TAG
    read_only: bool = False
    is_file: bool = False


def fault_of(shares: Sequence[Share]) -> str:
    """Return why a guest cannot have these directories, as a sentence, or an empty text if it can."""
    tags = [share.tag.encode(errors="surrogatepass") for share in shares]
    if len(set(tags)) != len(tags):
        return "two shared directories have the same tag, by which the guest could not tell them apart"
    for tag in tags:
        if not 0 < len(tag) <= LONGEST_TAG or b"\0" in tag or not _is_text(tag):
            return f"the tag {tag!r:.100} of a shared directory is not 1 to {LONGEST_TAG} bytes of UTF-8"
    return ""


def _is_text(tag: bytes) -> bool:
    try:
        tag.decode()
    except UnicodeDecodeError:
        return False
    return True

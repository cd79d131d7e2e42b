"""The digest by which files of the cache are named, and damage in them is found: 32 bytes of BLAKE2b.

It comes from the interpreter's own module, because hashlib loads OpenSSL too: 2.5 ms at every start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hashlib import blake2b
else:
    try:
        from _blake2 import blake2b
    except ImportError:  # a Python without its own
        from hashlib import blake2b

__all__ = ("DIGEST_SIZE", "blake2b", "digest")

#: The length of a digest in bytes.
DIGEST_SIZE = 32


def digest(*parts: bytes) -> bytes:
    """Return the digest of these bytes, one after the other."""
    found = blake2b(digest_size=DIGEST_SIZE)
    for part in parts:
        found.update(part)
    return found.digest()

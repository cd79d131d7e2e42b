"""Assembles an A32 source with keystone into a flat binary.

    assemble.py source.s image.bin base

There is no linker: `base` is the address at which the image will be loaded, and labels are relative to it.
"""

import sys
from pathlib import Path

import keystone


def assemble(source: str, base: int) -> bytes:
    """The machine code of `source`; keystone.KsError when it does not assemble."""
    assembler = keystone.Ks(keystone.KS_ARCH_ARM, keystone.KS_MODE_ARM)
    code, _ = assembler.asm(source, base, as_bytes=True)
    return code


if __name__ == "__main__":
    source, image, base = sys.argv[1:]
    Path(image).write_bytes(assemble(Path(source).read_text(), int(base, 0)))

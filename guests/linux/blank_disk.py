"""Writes dbt/linux/guest/disk.gz: an empty ext4 file system for containers' disks, as mke2fs(8) makes it.

Usage: blank_disk.py FILE. What is kept are the pieces of the image that are not zero, each behind its offset and its
size (8 bytes each, little-endian), after the size of the image. All of it is compressed by gzip. The same version of
mke2fs gives the same file.
"""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import tempfile

SIZE = 10 << 30
BLOCK = 4096
#: A disk belongs to one VM, so all of them may have one name.
UUID = "64627463-6f6e-4461-896e-65726469736b"
#: All bitmaps are there from the beginning, which are not much, because the kernel takes long to make those of the
#: first groups of blocks. Inode tables and the journal are zero. There is one inode for 16 KiB, and nothing is kept for
#: growing.
OPTIONS = ("-b", str(BLOCK), "-i", "16384", "-I", "256", "-J", "size=16", "-m", "0")
CONFIGURATION = """
[defaults]
    base_features = sparse_super,large_file,filetype,dir_index,ext_attr
[fs_types]
    ext4 = {
        features = has_journal,extent,huge_file,flex_bg,dir_nlink,extra_isize
    }
"""
EXTENDED = f"lazy_itable_init=0,lazy_journal_init=1,nodiscard,hash_seed={UUID}"


def pieces(path: str) -> list[tuple[int, bytes]]:
    """Return the blocks that are not zero, those that follow each other together."""
    found: list[tuple[int, bytes]] = []
    with open(path, "rb") as file:
        at = 0
        while True:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                return found
            end = os.lseek(file.fileno(), at, os.SEEK_HOLE)
            for offset in range(at, end, BLOCK):
                block = os.pread(file.fileno(), BLOCK, offset)
                if not any(block):
                    continue
                if found and found[-1][0] + len(found[-1][1]) == offset:
                    found[-1] = found[-1][0], found[-1][1] + block
                else:
                    found.append((offset, block))
            at = end


def main() -> None:
    """Make the file system in a sparse file, and write what is in it."""
    with tempfile.TemporaryDirectory() as folder:
        configuration = os.path.join(folder, "mke2fs.conf")
        with open(configuration, "w", encoding="ascii") as file_:
            file_.write(CONFIGURATION)
        environment = {**os.environ, "E2FSPROGS_FAKE_TIME": "1", "MKE2FS_CONFIG": configuration}
        image = os.path.join(folder, "disk")
        with open(image, "wb") as file:
            file.truncate(SIZE)
        command = ["mke2fs", "-q", "-F", "-t", "ext4", "-U", UUID, "-E", EXTENDED, *OPTIONS, image]
        subprocess.run(command, check=True, env=environment)
        parts = [SIZE.to_bytes(8, "little")]
        for offset, data in pieces(image):
            parts += [offset.to_bytes(8, "little"), len(data).to_bytes(8, "little"), data]
    with open(sys.argv[1], "wb") as written:
        written.write(gzip.compress(b"".join(parts), mtime=0))


main()

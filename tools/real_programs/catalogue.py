"""The programs: where their sources come from, how they are compiled, and what they are run with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Executable:
    """A bare-metal program that is made from a source package of Debian.

    ``sources`` are patterns relative to the package's directory, of which those in ``without`` are left out. ``ours``
    are files of tools/real_programs/guest; headers that only this program needs are in the directory there that has its
    name. ``options`` are the compiler's; ``-I`` is relative to the package's directory. A program that Debian does not
    have comes from the git repository at ``address``.
    """

    name: str
    package: str
    sources: tuple[str, ...]
    without: tuple[str, ...] = ()
    ours: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    march: str = "armv7-a"
    address: str = ""


@dataclass(frozen=True)
class Workload:
    """One run of an executable. ``files`` are made by ``inputs`` or taken from tools/real_programs/guest.

    ``status`` is the exit status of a run that ends well. If a program prints times, ``compared`` is a pattern for the
    parts of its output that must be equal in all engines.
    """

    name: str
    executable: str
    arguments: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    status: int = 0
    compared: str = ""


_ROUNDTRIP = "roundtrip.c"

_EXECUTABLES = (
    Executable("lua", "lua5.4", ("src/*.c",), without=("src/luac.c",)),
    Executable(
        "coremark",
        "coremark",
        ("core_*.c", "posix/core_portme.c"),
        options=("-Iposix", "-DPERFORMANCE_RUN=1", "-DITERATIONS=0", "-DUSE_CLOCK=1", '-DFLAGS_STR="-O2"'),
        address="https://github.com/eembc/coremark",
    ),
    Executable("mujs", "mujs", ("one.c",), ours=("mujs_run.c",), march="armv5te"),
    Executable(
        "duktape", "duktape", ("src/duktape.c",), ours=("duktape_run.c",), options=("-Isrc", "-DDUK_USE_DATE_NOW_TIME")
    ),
    Executable("zlib", "zlib", ("*.c",), without=("gz*.c",), ours=(_ROUNDTRIP, "codec_zlib.c"), march="armv5te"),
    Executable(
        "bzip2",
        "bzip2",
        ("blocksort.c", "bzlib.c", "compress.c", "crctable.c", "decompress.c", "huffman.c", "randtable.c"),
        ours=(_ROUNDTRIP, "codec_bzip2.c"),
        options=("-DBZ_NO_STDIO",),
    ),
    Executable("lz4", "lz4", ("lib/lz4.c", "lib/lz4hc.c"), ours=(_ROUNDTRIP, "codec_lz4.c"), options=("-Ilib",)),
    Executable(
        "zstd",
        "libzstd",
        ("lib/common/*.c", "lib/compress/*.c", "lib/decompress/*.c"),
        ours=(_ROUNDTRIP, "codec_zstd.c"),
        options=("-Ilib", "-DZSTD_DISABLE_ASM"),
        march="armv5te",
    ),
    Executable(
        "mbedtls",
        "mbedtls",
        ("library/*.c", "programs/test/selftest.c"),
        options=("-Iinclude", "-Ilibrary", '-DMBEDTLS_USER_CONFIG_FILE="mbedtls_config.h"'),
    ),
    Executable(
        "picosat",
        "picosat",
        ("picosat.c", "app.c", "main.c", "version.c"),
        ours=("no_processes.c",),
        options=("-DNDEBUG", "-DNGETRUSAGE"),
    ),
    Executable(
        "expat",
        "expat",
        ("expat/lib/xmlparse.c", "expat/lib/xmlrole.c", "expat/lib/xmltok.c"),
        ours=("expat_count.c",),
        options=("-Iexpat/lib",),
        march="armv5te",
    ),
)
EXECUTABLES = {executable.name: executable for executable in _EXECUTABLES}

_WORKLOADS = (
    Workload(
        "coremark",
        "coremark",
        ("0x0", "0x0", "0x66", "3000", "7", "1", "2000"),
        compared=r"^\[0\]crc[^\n]*$",
    ),
    Workload("lua", "lua", ("programs.lua", "2"), ("programs.lua",)),
    Workload("mujs", "mujs", ("programs.js",), ("programs.js",)),
    Workload("duktape", "duktape", ("programs.js",), ("programs.js",)),
    Workload("zlib", "zlib", ("text.txt", "8"), ("text.txt",)),
    Workload("bzip2", "bzip2", ("text.txt", "2"), ("text.txt",)),
    Workload("lz4", "lz4", ("text.txt", "20"), ("text.txt",)),
    Workload("zstd", "zstd", ("text.txt", "10"), ("text.txt",)),
    Workload("mbedtls-ciphers", "mbedtls", ("aes", "gcm", "ccm", "camellia", "chacha20", "poly1305", "des")),
    Workload("mbedtls-digests", "mbedtls", ("md5", "ripemd160", "sha1", "sha256", "sha512")),
    Workload("mbedtls-keys", "mbedtls", ("mpi", "rsa", "ecp")),
    Workload("picosat", "picosat", ("formula.cnf",), ("formula.cnf",), status=20),  # it cannot be satisfied
    Workload("expat", "expat", ("document.xml", "4"), ("document.xml",)),
)
WORKLOADS = {workload.name: workload for workload in _WORKLOADS}


@dataclass(frozen=True)
class LinuxWorkload:
    """Work inside Linux: an executable with arguments, or else ``commands`` for busybox's shell.

    An executable is also run by qemu-arm, QEMU's user mode, if it reads no files that are only in the guest.
    """

    name: str
    executable: str = ""
    arguments: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    compared: str = ""
    commands: str = ""

    def script(self) -> str:
        """Return the commands for the shell."""
        return " ".join((f"./{self.executable}", *self.arguments)) if self.executable else self.commands


def _repeat(times: int, command: str) -> str:
    return f"i=0; while [ $i -lt {times} ]; do {command}; i=$((i + 1)); done"


_LINUX_WORKLOADS = (
    LinuxWorkload("boot", commands="echo booted"),
    LinuxWorkload(
        "coremark", "coremark", ("0x0", "0x0", "0x66", "40000", "7", "1", "2000"), compared=r"^\[0\]crc[^\n]*$"
    ),
    LinuxWorkload("lua", "lua", ("programs.lua", "4"), ("programs.lua",), compared=r"^[a-z]+\t[^\n]*$"),
    LinuxWorkload("gzip", commands=_repeat(20, "gzip -c text.txt | md5sum")),
    LinuxWorkload("md5sum", commands=_repeat(40, "md5sum text.txt")),
    LinuxWorkload(
        "awk",
        commands=_repeat(4, "awk '{ for (i = 1; i <= NF; i++) seen[$i]++ } END { print seen[\"ba\"], NR }' text.txt"),
    ),
    LinuxWorkload("fork", commands=_repeat(1500, "/bin/busybox true") + "; echo $i"),
)
LINUX_WORKLOADS = {workload.name: workload for workload in _LINUX_WORKLOADS}

"""The programs: where their sources come from, how they are compiled, and what they are run with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Executable:
    """A program that is made from a package: a source package of Debian, unless ``origin`` says otherwise.

    ``origin`` is ``Debian``, ``PyPI``, or the address of a git repository. ``sources`` are patterns relative to the
    package's directory, of which those in ``without`` are left out. ``ours`` are files of tools/real_programs/guest;
    headers that only this package needs are in the directory there that has its name. ``options`` are the compiler's;
    ``-I`` is relative to the package's directory. ``prepare`` are commands that are run there before, which need
    ``needs``: programs, each with the package that has it.
    """

    name: str
    package: str
    sources: tuple[str, ...]
    without: tuple[str, ...] = ()
    ours: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ("-lm",)
    march: str = "armv7-a"
    origin: str = "Debian"
    prepare: tuple[tuple[str, ...], ...] = ()
    needs: tuple[tuple[str, str], ...] = ()


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
#: Modes that newlib has no names for. It rounds to nearest only.
_ROUNDING = ("-DFE_TONEAREST=0", "-DFE_UPWARD=1", "-DFE_DOWNWARD=2")
_JPEG_MODULES = (
    "capimin capistd ccoefct ccolor cdctmgr chuff cicc cinit cmainct cmarker cmaster comapi cparam cphuff "
    "cprepct csample ctrans dapimin dapistd datadst datasrc dcoefct dcolor ddctmgr dhuff dicc dinput "
    "dmainct dmarker dmaster dmerge dphuff dpostct dsample dtrans error fdctflt fdctfst fdctint idctflt "
    "idctfst idctint idctred quant1 quant2 utils memmgr memnobs simd_none "
)
_JPEG = (*(f"j{name}.c" for name in _JPEG_MODULES.split()), "cdjpeg.c", "rdswitch.c")

_EXECUTABLES = (
    Executable("lua", "lua5.4", ("src/*.c",), without=("src/luac.c",)),
    Executable(
        "coremark",
        "coremark",
        ("core_*.c", "posix/core_portme.c"),
        options=("-Iposix", "-DPERFORMANCE_RUN=1", "-DITERATIONS=0", "-DUSE_CLOCK=1", '-DFLAGS_STR="-O2"'),
        origin="https://github.com/eembc/coremark",
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
    Executable(
        "sqlite",
        "sqlite3",
        ("sqlite3.c",),
        ours=("sqlite_run.c",),
        options=("-DSQLITE_OS_OTHER=1", "-DSQLITE_THREADSAFE=0", "-DSQLITE_OMIT_LOAD_EXTENSION", "-DSQLITE_OMIT_WAL"),
        prepare=(("sh", "-c", "./configure --quiet --disable-tcl && make --silent sqlite3.c"),),
        needs=(("tclsh", "tcl"), ("make", "make"), ("gcc", "gcc")),
    ),
    Executable(
        "quickjs",
        "quickjs",
        tuple(f"upstream-quickjs/{name}.c" for name in ("cutils", "libregexp", "libunicode", "quickjs")),
        ours=("quickjs_run.c",),
        # The port to Emscripten has no threads. newlib's struct tm has no time zone, and time is UTC.
        options=(
            "-Iupstream-quickjs",
            '-DCONFIG_VERSION="0"',
            "-DEMSCRIPTEN",
            "-D_GNU_SOURCE",
            "-Dtm_gmtoff=tm_isdst",
            *_ROUNDING,
        ),
        origin="PyPI",
        march="armv5te",
    ),
    Executable(
        "xz",
        "xz-utils",
        tuple(f"src/liblzma/{folder}/*.c" for folder in ("check", "common", "lz", "lzma", "rangecoder")),
        without=("src/liblzma/*/*_small.c", "src/liblzma/*/*tablegen.c", "src/liblzma/*/*_mt.c"),
        ours=(_ROUNDTRIP, "codec_xz.c"),
        options=(
            "-DHAVE_CONFIG_H",
            "-Isrc/common",
            *(f"-Isrc/liblzma/{folder}" for folder in ("api", "check", "common", "delta", "lz", "lzma")),
            *(f"-Isrc/liblzma/{folder}" for folder in ("rangecoder", "simple")),
        ),
    ),
    Executable(
        "brotli",
        "brotli",
        ("c/common/*.c", "c/dec/*.c", "c/enc/*.c"),
        ours=(_ROUNDTRIP, "codec_brotli.c"),
        options=("-Ic/include",),
        march="armv5te",
    ),
    Executable("cjpeg", "libjpeg-turbo", (*_JPEG, "cjpeg.c", "rdppm.c", "rdgif.c")),
    Executable(
        "tinyscheme",
        "tinyscheme",
        ("scheme.c",),
        options=("-DUSE_DL=0", "-DSTANDALONE=1", "-DUSE_STRLWR=0"),
        march="armv5te",
    ),
    Executable("tcc", "tcc", ("tcc.c",), ours=("no_processes.c",)),
    Executable("cmark", "cmark", ("src/*.c",), options=("-Isrc",), march="armv5te"),
    Executable(
        "gsm",
        "libgsm",
        ("src/*.c",),
        without=("src/toast*.c",),
        ours=("gsm_codec.c",),
        options=("-Iinc", "-DSASR", "-DWAV49", "-DNeedFunctionPrototypes=1"),
    ),
    Executable(
        "minisat",
        "minisat2",
        ("minisat/core/Solver.cc", "minisat/utils/Options.cc"),
        ours=("minisat_run.cc",),
        options=("-D__STDC_LIMIT_MACROS", "-std=gnu++98", '-DPRIi64="lld"'),
        libraries=("-lstdc++", "-lm"),
    ),
    Executable("tommath", "libtommath", ("bn_*.c",), ours=("tommath_digits.c",), march="armv5te"),
    Executable("cjson", "cjson", ("cJSON.c",), ours=("cjson_run.c",)),
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
    Workload("sqlite", "sqlite", ("queries.sql",), ("queries.sql",)),
    Workload("quickjs", "quickjs", ("programs.js",), ("programs.js",)),
    Workload("xz", "xz", ("text.txt", "3"), ("text.txt",)),
    Workload("brotli", "brotli", ("text.txt", "5"), ("text.txt",)),
    Workload(
        "cjpeg", "cjpeg", ("-quality", "95", "-optimize", "-outfile", "picture.jpg", "picture.ppm"), ("picture.ppm",)
    ),
    Workload("tinyscheme", "tinyscheme", ("programs.scm",), ("programs.scm", "tinyscheme/init.scm")),
    Workload("tcc", "tcc", ("-nostdinc", "-c", "program.c", "-o", "program.o"), ("program.c",)),
    Workload("cmark", "cmark", ("text.md",) * 5, ("text.md",)),
    Workload("gsm", "gsm", ("60",)),
    Workload("minisat", "minisat", ("formula.cnf",), ("formula.cnf",)),
    Workload("tommath", "tommath", ("1200",)),
    Workload("cjson", "cjson", ("records.json", "5"), ("records.json",)),
)
WORKLOADS = {workload.name: workload for workload in _WORKLOADS}


@dataclass(frozen=True)
class LinuxWorkload:
    """Work inside Linux: an executable with arguments, or else ``commands`` for busybox's shell.

    An executable is also run by qemu-arm, QEMU's user mode. ``files`` and ``compared`` are as those of a
    :class:`Workload`.
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
    LinuxWorkload("gzip", files=("text.txt",), commands=_repeat(20, "gzip -c text.txt | md5sum")),
    LinuxWorkload("md5sum", files=("text.txt",), commands=_repeat(40, "md5sum text.txt")),
    LinuxWorkload(
        "awk",
        files=("text.txt",),
        commands=_repeat(4, "awk '{ for (i = 1; i <= NF; i++) seen[$i]++ } END { print seen[\"ba\"], NR }' text.txt"),
    ),
    LinuxWorkload("fork", commands=_repeat(1500, "/bin/busybox true") + "; echo $i"),
)
LINUX_WORKLOADS = {workload.name: workload for workload in _LINUX_WORKLOADS}

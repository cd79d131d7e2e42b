"""Builds that a real dockerd has done, too: contexts with their Dockerfiles, and options of the API."""

from __future__ import annotations

from typing import NamedTuple

BASE = "busybox:latest"


class Case(NamedTuple):
    """One or more builds after each other of the same context. ``files`` are its files; ``query`` are options."""

    dockerfile: str
    files: dict[str, str] = {}
    query: dict[str, str] = {}
    times: int = 1
    #: Whether it runs programs, for which the guest is needed.
    runs: bool = False
    #: Whether the files of the last image are compared, too.
    lists: bool = False


FILES = {"a.txt": "alpha\n", "b.txt": "beta\n", "dir/c.txt": "gamma\n", "dir/sub/d.txt": "delta\n", "e.md": "epsilon\n"}

CASES: dict[str, Case] = {
    "metadata": Case(
        "FROM busybox\nLABEL a=b c='d e' f=\"g h\"\nENV ONE=1 TWO=\"two words\"\nENV OLD old form\nEXPOSE 80 53/udp\n"
        'WORKDIR /srv\nWORKDIR rel\nUSER ann\nVOLUME /data "/more"\nSTOPSIGNAL SIGINT\nSHELL ["/bin/ash", "-c"]\n'
        'MAINTAINER Ann <a@b.c>\nENTRYPOINT ["/bin/echo"]\nCMD hello $ONE\n'
        "HEALTHCHECK --interval=5s --retries=2 CMD true\nONBUILD RUN echo later\nHEALTHCHECK NONE\nARG WHAT=ever\n",
        query={"t": "meta:1"},
    ),
    "cached": Case("FROM busybox\nENV A=1\nCOPY a.txt /x/\nCMD true\n", FILES, {"t": "cached"}, times=2),
    "copies": Case(
        "FROM busybox\nCOPY a.txt b.txt /one/\nCOPY dir /two\nCOPY dir/ /three/\nADD *.txt /four/\nCOPY a.txt /five\n"
        "COPY --chown=12:34 dir /six\nWORKDIR /w\nCOPY a.txt .\nCOPY . /all/\nCOPY a.txt /dev/../etc/link\n",
        FILES | {".dockerignore": "# comment\n*.md\n!e.md\ndir/sub\n"}, lists=True,
    ),
    "stages": Case(
        "ARG BASE=busybox\nFROM ${BASE} AS one\nCOPY a.txt /from-one\nFROM busybox\nCOPY --from=one /from-one /two\n"
        "COPY --from=0 /from-one /three\nFROM busybox\nCOPY --from=1 /two /\n", FILES, {"t": "stages"}, lists=True),
    "from-scratch": Case("FROM scratch\nCOPY a.txt /x/\nWORKDIR /y/z\nCOPY --from=0 dir /d/\n", FILES),
    "onto": Case(
        "FROM busybox\nCOPY dir /tmp\nCOPY a.txt /tmp\nCOPY a.txt b.txt /bin/deep/er/\n"
        "COPY a.txt /new\n"
        "COPY --chown=5 b.txt /made/for/it/\nCOPY --chown=root:7 dir/sub /owned\nCOPY dir dir/sub /both/\n"
        "COPY e.md ./rel\nFROM busybox\nCOPY --from=0 /owned /kept\nCOPY --from=0 /made /made\n"
        "COPY --chown=9:9 --from=0 /owned/d.txt /taken\nCOPY --from=busybox:latest /etc/group /groups/\n",
        FILES, lists=True),
    "target": Case("FROM busybox as one\nENV T=1\nFROM busybox as two\nENV B=2\n", query={"target": "one", "t": "t"}),
    "arguments": Case(
        "FROM busybox\nARG A=1\nARG B\nENV C=${A}-${B:-none}-${D:+x}-\\$A-'$A'\nLABEL l=\"$C ${A}\" k=$B\n",
        query={"buildargs": '{"B": "bee", "Z": "zed"}'}),
    "continued": Case(
        "# escape=`\n\n# a comment\nFROM busybox\nENV A=1 `\n  # inside\n  B=2 `\n\n  C=3\nLABEL x=y\n"),
    "quiet": Case("FROM busybox\nENV A=1\n", query={"q": "1"}),
    "run": Case(
        "FROM busybox\nRUN echo out; echo err >&2\nRUN [\"echo\", \"json\"]\nARG A=1\nENV E=env\n"
        "RUN echo $A $E > /file\nRUN cat /file && pwd && id -u\n", query={"t": "run"}, runs=True),
    "run-volume": Case(
        "FROM busybox\nVOLUME /new /etc /new/in:side\nRUN echo 1 > /new/file; echo 2 > /kept; rm /etc/group; "
        "chown 5 /etc; echo 3 > /new/in:side/x; ls /etc/passwd /new /new/in:side\n"
        "RUN ls /etc/group /new /kept; stat -c %u /etc\n", runs=True, lists=True),
    "run-cached": Case("FROM busybox\nARG X\nRUN echo $X\n", query={"buildargs": '{"X": "x"}'}, times=2, runs=True),
    "run-fails": Case("FROM busybox\nRUN echo before; exit 3\nRUN echo never\n", runs=True),
    "run-missing": Case('FROM busybox\nRUN ["/no/such"]\n', runs=True),
    "run-kept": Case("FROM busybox\nRUN true\n", query={"rm": "0"}, runs=True),
    "onbuild": Case("FROM busybox AS b\nONBUILD ENV X=1\nONBUILD COPY a.txt /onbuild\nFROM b\nENV Y=2\n", FILES),
    "no-such-file": Case("FROM busybox\nCOPY nope /\n"),
    "ignored-file": Case("FROM busybox\nCOPY a.txt /\n", FILES | {".dockerignore": "a.txt\n"}),
    "no-such-wildcard": Case("FROM busybox\nCOPY nope* /\n"),
    "outside": Case("FROM busybox\nCOPY ../x /\n"),
    "many-to-file": Case("FROM busybox\nCOPY a.txt b.txt /file\n", FILES),
    "no-such-user": Case("FROM busybox\nCOPY --chown=nobody:nosuch a.txt /\n", FILES),
    "no-such-stage": Case("FROM busybox\nCOPY --from=5 /a /\n"),
    "no-such-path-in-stage": Case("FROM busybox AS a\nFROM busybox\nCOPY --from=a /nope /\n"),
    "no-such-target": Case("FROM busybox AS a\n", query={"target": "b"}),
    "unknown": Case("FROM busybox\nFOO bar\n"),
    "empty": Case("# nothing\n"),
    "no-from": Case("RUN true\n"),
    "bad-flag": Case("FROM busybox\nCOPY --what=1 a /\n"),
    "no-arguments": Case("FROM busybox\nENV\n"),
    "odd-env": Case("FROM busybox\nENV a\n"),
    "odd-label": Case("FROM busybox\nLABEL a b=c d\n"),
    "no-source": Case("FROM busybox\nCOPY x\n"),
    "bad-expose": Case("FROM busybox\nEXPOSE 99999999\n"),
    "bad-signal": Case("FROM busybox\nSTOPSIGNAL NOSUCH\n"),
    "bad-substitution": Case("FROM busybox\nENV A=${B\n"),
    "bad-modifier": Case("FROM busybox\nENV A=${B:?no}\n"),
    "bad-from": Case("FROM busy box\n"),
    "bad-name": Case("FROM busybox AS 1x\n"),
    "bad-onbuild": Case("FROM busybox\nONBUILD FROM x\n"),
    "bad-health": Case("FROM busybox\nHEALTHCHECK WHAT\n"),
    "bad-interval": Case("FROM busybox\nHEALTHCHECK --interval=1 CMD x\n"),
    "bad-shell": Case("FROM busybox\nSHELL sh -c\n"),
    "heredoc": Case("FROM busybox\nRUN <<EOF\necho hi\nEOF\n"),
    "chmod": Case("FROM busybox\nCOPY --chmod=755 a /\n"),
    "mount": Case("FROM busybox\nRUN --mount=type=cache,target=/x true\n"),
    "empty-variable-from": Case("ARG X\nFROM $X\n"),
    "two-cmds": Case("FROM busybox\nCMD a\nCMD [\"b\", \"c\"]\nENTRYPOINT exec d\nCMD e\n"),
    "no-dockerfile": Case("", query={"dockerfile": "nope"}),
    "labels": Case("FROM busybox\nENV L=1\n", query={"labels": '{"z": "1", "y": "two"}', "t": "labels"}),
    "scratch": Case("FROM scratch\nLABEL a=b\n"),
    "scratch-only": Case("FROM scratch\n"),
    "archive": Case("FROM busybox\nADD dir/../packed.tar /unpacked/\nCOPY packed.tar /packed/\n", lists=True),
}  # fmt: skip

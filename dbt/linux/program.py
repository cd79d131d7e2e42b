"""How a program for Linux sees the host: which directories there are in the guest, who it is, and what it is given.

The root directory is ``--root``, read-only below a file system in memory, or an empty one. The working directory
and the program's are mounted where they are on the host.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from dbt.board.loader import LinuxExecutable, is_script
from dbt.linux.protocol import Request
from dbt.linux.template import FILES, PROGRAM_DIRECTORY, ROOT, WORK

#: Flags of mount(2).
_READ_ONLY, _NO_DEVICES, _BIND_ALL = 1, 4, 0x5000
#: Directories of the guest outside the program's root.
_NEW_ROOT, _LOWER, _UPPER = "/program", "/lower", "/upper"
#: Names in /dev that lead to a process's own files.
_DEVICE_LINKS = (
    ("/proc/self/fd", "fd"),
    *((f"/proc/self/fd/{n}", name) for n, name in enumerate(("stdin", "stdout", "stderr"))),
)
_9P: Final = "trans=virtio,version=9p2000.L,msize=262144,access=any,cache=mmap"


class ProgramError(Exception):
    """Raised if a program cannot be run. The text is one paragraph for the user."""


class Terminal(NamedTuple):
    """The size of a terminal, in characters."""

    rows: int
    columns: int


class Owner(NamedTuple):
    """Whom the program runs as."""

    user: int
    group: int
    groups: tuple[int, ...]
    mask: int


class Plan(NamedTuple):
    """A request to the agent, and the directory of the host for each tag that it mounts."""

    request: Request
    folders: dict[str, str]


def check_place(path: str, root: str | None) -> None:
    """Raise ProgramError if the program could not be found where it is."""
    if root is None and is_script(path):
        raise ProgramError(
            f"{path}: it is a script. Give the directory with an ARM system that has its interpreter: --root DIR"
        )
    real = os.path.realpath(path)
    if root is not None and os.path.dirname(real) == "/" and _inside(real, root) is None:
        raise ProgramError(
            f"{path}: the root directory is that of --root, and it is not below {root}. Move it elsewhere"
        )


def check(program: LinuxExecutable, path: str, root: str | None) -> None:
    """Raise ProgramError if it is certain that the program cannot run."""
    if program.is_hard_float:
        raise ProgramError(
            f"{path}: it is built for a processor with VFP (armhf), and this one has none. Build it for soft float, "
            "as Debian's armel: arm-linux-gnueabi-gcc"
        )
    if program.begins_in_thumb:
        raise ProgramError(f"{path}: it begins in Thumb state, and only A32 code can be run. Build it with -marm")
    if not program.interpreter:
        return
    if root is None:
        raise ProgramError(
            f"{path}: it is linked dynamically and needs {program.interpreter}. Give the directory with an ARM system "
            "with --root DIR (Debian's package libc6-armel-cross has one: --root /usr/arm-linux-gnueabi), or link it "
            "with -static"
        )
    if not os.path.lexists(os.path.join(root, program.interpreter.lstrip("/"))):
        raise ProgramError(
            f"{path}: it needs {program.interpreter}, and {root} has no such file. In Debian, the package libc6:armel "
            "has it, and libc6-armel-cross below /usr/arm-linux-gnueabi"
        )


def make_plan(
    path: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    root: str | None,
    files: str | None,
    owner: Owner,
    terminal: Terminal | None,
    now: int,
    entropy: bytes,
) -> Plan:
    """Return what is to be done before the program runs, and what is shared with it.

    ``arguments`` begin with the program's name. A program below ``root`` is given the name that it has there, by which
    it finds its files. ``root`` and ``files`` are directories. ``now`` is in seconds since 1970. Raise RequestError if
    there are too many arguments.
    """
    request = Request()
    work, real = os.path.realpath(os.curdir), os.path.realpath(path)
    mounts = {work: WORK}
    if files is not None:
        mounts.setdefault(os.path.realpath(files), FILES)
    if root is not None:
        mounts.pop("/", None)  # the root directory is another one
    inside = None if root is None else _inside(real, root)
    if inside is not None:
        real, arguments = inside, (inside, *arguments[1:])
    elif not any(_is_within(real, place) for place in mounts):
        mounts[os.path.dirname(real)] = PROGRAM_DIRECTORY
    if terminal is not None:
        request.use_terminal(*terminal)
    request.set_time(now)
    request.add_entropy(entropy)
    request.set_host_name(os.uname().nodename)
    folders = {tag: place for place, tag in mounts.items()}
    _mount_root(request, root, mounts.pop("/", None), owner)
    if root is not None:
        folders[ROOT] = root
    for place in sorted(mounts):  # what is above others comes before them
        request.make_directory(_NEW_ROOT + place)
        request.mount("9p", mounts[place], _NEW_ROOT + place, _NO_DEVICES, _9P)
    request.change_root(_NEW_ROOT)
    request.change_directory(work)
    request.become(owner.user, owner.group, list(owner.groups))
    request.set_mask(owner.mask)
    request.program(real, list(arguments), dict(environment))
    return Plan(request, folders)


def _inside(real: str, root: str) -> str | None:
    """Return what a file below ``root`` is called there, or None for another one."""
    root = os.path.realpath(root)
    return f"/{os.path.relpath(real, root)}" if _is_within(real, root) else None


def _is_within(inner: str, outer: str) -> bool:
    return os.path.commonpath((inner, outer)) == outer


def _mount_root(request: Request, root: str | None, shared: str | None, owner: Owner) -> None:
    """Make the program's root directory: of ``root``, or the share ``shared`` of the host's own, or an empty one."""
    request.make_directory(_NEW_ROOT)
    if root is not None:
        request.make_directory(_LOWER)
        request.mount("9p", ROOT, _LOWER, _READ_ONLY | _NO_DEVICES, _9P)
        request.make_directory(_UPPER)
        request.mount("tmpfs", "tmpfs", _UPPER)
        request.make_directory(f"{_UPPER}/files")
        request.make_directory(f"{_UPPER}/work")
        request.mount(
            "overlay", "root", _NEW_ROOT, 0, f"lowerdir={_LOWER},upperdir={_UPPER}/files,workdir={_UPPER}/work"
        )
    elif shared is not None:
        request.mount("9p", shared, _NEW_ROOT, _NO_DEVICES, _9P)
    else:
        request.mount("tmpfs", "tmpfs", _NEW_ROOT, 0, "mode=755")
    for kind, place, options in (("proc", "/proc", ""), ("sysfs", "/sys", ""), ("tmpfs", "/tmp", "mode=1777")):
        if kind == "tmpfs" and root is None and shared is not None:
            continue  # which is the host's
        request.make_directory(_NEW_ROOT + place)
        request.mount(kind, kind, _NEW_ROOT + place, 0, options)
    request.make_directory(f"{_NEW_ROOT}/dev")
    request.mount("", "/dev", f"{_NEW_ROOT}/dev", _BIND_ALL)
    for target, name in _DEVICE_LINKS:
        request.link(target, f"{_NEW_ROOT}/dev/{name}")
    if root is None and shared is None:
        _write_names(request, owner)


def _write_names(request: Request, owner: Owner) -> None:
    """Write the files by which programs look up the names of users and hosts."""
    users = {0: "root"}
    try:
        users.setdefault(owner.user, pwd.getpwuid(owner.user).pw_name)
    except KeyError:
        users.setdefault(owner.user, f"user{owner.user}")
    home = os.environ.get("HOME", "/")
    lines = [f"{name}:x:{number}:{owner.group if number else 0}::{home}:/bin/sh\n" for number, name in users.items()]
    request.make_directory(f"{_NEW_ROOT}/etc")
    request.write_file(f"{_NEW_ROOT}/etc/passwd", "".join(lines).encode("utf-8", "surrogateescape"))
    request.write_file(f"{_NEW_ROOT}/etc/group", b"root:x:0:\n")
    request.write_file(f"{_NEW_ROOT}/etc/hosts", b"127.0.0.1 localhost\n::1 localhost\n")

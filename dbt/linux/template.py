"""The Linux guest as it is when it has booted: it is made once, and kept in the cache directory as a snapshot.

The boot depends on nothing of the host, so the snapshot is the same wherever it is made.

A command that will run a program begins to read it (:func:`begin_reading_template`) before it imports what a machine
needs, so this module imports little by itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from blake3 import blake3

from dbt.codecache.handlers import image_key
from dbt.codecache.store import cache_directory, check_file, check_folder, make_cache_directory, not_written
from dbt.host.drive import Drive
from dbt.host.net_option import NOWHERE, Net
from dbt.host.ninep.share import Share
from dbt.linux.images import KERNEL, GuestFiles, LinuxGuestError, read_guest_files
from dbt.snapshot.errors import SnapshotError

if TYPE_CHECKING:
    from dbt.linux.console import ProgramConsole
    from dbt.vm.machine import Machine
    from dbt.vm.vm_state import VmState

#: RAM of the guest, in bytes, if nothing else is said.
DEFAULT_MEMORY: Final = 512 << 20
#: The directories that the guest can mount, by what they are for: the root directory, the working directory, the one
#: of the program, and one more. A template has no directory behind them.
ROOT, WORK, PROGRAM_DIRECTORY, FILES = "root", "work", "program", "files"
TAGS: Final = (ROOT, WORK, PROGRAM_DIRECTORY, FILES)
_READ_ONLY: Final = frozenset({ROOT, PROGRAM_DIRECTORY})
#: What a container's guest may have besides: so many directories that it can only read, and as many others; a disk that
#: it can only read and another one; and network cards. Its template has nothing behind them. Linux finds the last disk
#: and the last card first: they are vda and eth0.
DIRECTORIES: Final = 6
CARDS: Final = 4
NO_DISKS: Final = (Drive(""), Drive("", read_only=True))
NO_CARDS: Final = (Net(NOWHERE),) * CARDS
_CPU: Final = "cortex-a15"
_DEVICES: Final = ("port", "rng")
#: The shortest time of an instruction: so the time of a guest that computes is behind the host's clock, to which it is
#: raised all the time. With a longer one it would get ahead of it, as fast as compiled code is.
_INSN_NS: Final = 0.1
_APPEND: Final = "quiet console=ttyAMA0 rdinit=/agent dummy.numdummies=0"
#: Instructions that are executed between two looks at whether the guest is up, and how often it is looked at.
_STRIDE: Final = 1_000_000
_PATIENCE: Final = 500
#: Debian's kernel takes 2,300 of them, most of which unpack it.
_PATIENCE_WITH_MODULES: Final = 8000
#: RAM with which the guest comes up and has room for programs, in bytes.
LEAST_MEMORY: Final = 32 << 20
#: How many states are kept: of versions of dbt, and of sizes of memory.
_KEPT: Final = 4


class Hardware(NamedTuple):
    """What a guest has: ``memory`` bytes of RAM, and with ``for_container`` what a container may have and a program has
    not. A template of its own costs a boot more, and each program would take a third longer with the other one.
    """

    memory: int = DEFAULT_MEMORY
    for_container: bool = False


def shares(folders: dict[str, str]) -> tuple[Share, ...]:
    """Return the shares of a guest: ``folders`` has the directory for each tag that is used."""
    return tuple(Share(folders.get(tag), tag, tag in _READ_ONLY) for tag in TAGS)


def container_tag(number: int, read_only: bool) -> str:
    """Return the tag of a directory of a container, below :data:`DIRECTORIES`."""
    return f"{'read' if read_only else 'write'}-{number}"


def container_shares(folders: Mapping[str, str]) -> tuple[Share, ...]:
    """Return the shares of a container's guest: ``folders`` has the directory, or file, for each tag that is used."""
    places = [(number, read_only) for read_only in (True, False) for number in range(DIRECTORIES)]
    found = []
    for number, read_only in places:
        path = folders.get(tag := container_tag(number, read_only))
        found.append(Share(path, tag, read_only, path is not None and not os.path.isdir(path)))
    return tuple(found)


#: The names of the cache files that have been begun and not used yet. What they depend on was read for them.
_begun: dict[Hardware, str] = {}


def begin_reading_template(hardware: Hardware) -> None:
    """Let another process read the state that :func:`read_template` will return, if it is in the cache.

    There must be no other threads. What goes wrong here goes wrong there again, and is said there.
    """
    from dbt.snapshot.images import begin_reading

    try:
        name = _name(hardware, read_guest_files())
        check_file(name)
    except (OSError, LinuxGuestError):
        return
    _begun[hardware] = name
    begin_reading(os.path.join(cache_directory(), name))


def read_template(hardware: Hardware, say: Callable[[str], None]) -> VmState:
    """Return the state of a guest that waits for a program. It belongs to the caller, who may close it.

    If it is not in the cache, it is made, which takes some seconds, and ``say`` is told. Raise LinuxGuestError.
    """
    from dbt.snapshot.snapshots import read_snapshot, write_snapshot

    name = _begun.pop(hardware, None) or _name(hardware, read_guest_files())
    path = os.path.join(cache_directory(), name)
    try:
        check_file(name)
        return read_snapshot(path)
    except FileNotFoundError:
        pass
    except (OSError, SnapshotError) as error:
        say(f"the Linux guest in the cache cannot be used, and is made again: {error}")
    say("booting the Linux guest, once for many programs")
    state = boot(hardware, read_guest_files())
    try:
        make_cache_directory()
        check_folder()
        write_snapshot(state, path)
        _remove_older()
    except (OSError, SnapshotError) as error:
        why = not_written(error) if isinstance(error, OSError) else error
        say(f"the Linux guest cannot be kept, and boots for each program: {why}")
    return state


def _name(hardware: Hardware, files: GuestFiles) -> str:
    """Return the name of the cache file for a state: of all that it depends on."""
    hasher = blake3(repr((hardware, _CPU, _DEVICES, _INSN_NS, _APPEND, TAGS, NO_DISKS, NO_CARDS, DIRECTORIES)).encode())
    for content in files:
        hasher.update(blake3(content).digest())
    return f"linux-{image_key()}-{hasher.hexdigest(8)}.snapshot"


def _remove_older() -> None:
    """Keep the newest few of the states in the cache directory. Raise OSError."""
    from dbt.codecache.contents import Kind, entries, remove

    found = [entry for entry in entries() if entry.kind is Kind.LINUX]
    for entry in sorted(found, key=lambda entry: entry.used)[:-_KEPT]:
        remove(entry)


def boot(hardware: Hardware, files: GuestFiles) -> VmState:
    """Return the state of a guest that has booted and waits for a program. Raise LinuxGuestError if it does not."""
    import tempfile

    from dbt.host.console import CaptureConsole
    from dbt.linux.console import ProgramConsole
    from dbt.vm.vm_state import VmState

    console = ProgramConsole(CaptureConsole())
    with tempfile.TemporaryDirectory(prefix="dbt-linux-") as folder, _machine(hardware, console) as machine:
        for name, content in ((KERNEL, files.kernel), ("initrd", _disk(files))):
            with open(os.path.join(folder, name), "wb") as file:
                file.write(content)
        machine.load_kernel(os.path.join(folder, KERNEL), os.path.join(folder, "initrd"), append=_APPEND)
        for _ in range(
            _PATIENCE_WITH_MODULES if files.modules else _PATIENCE
        ):  # A kernel that panics begins again, and so does the count of instructions.
            result = machine.run(fuel=_STRIDE)
            if console.is_ready or result.exit_code is not None:
                break
        if not console.is_ready:
            raise LinuxGuestError(f"the Linux guest does not come up. Its last messages:\n{console.log}")
        machine.run(fuel=_STRIDE)  # to where it waits
        state = machine.save()
    guest: Any = state.values["guest"]
    values = {**state.values, "guest": {**guest, "path": KERNEL}}  # not that of a directory which is gone
    return VmState(values, state.ram)


def _machine(hardware: Hardware, console: ProgramConsole) -> Machine:
    from dbt.vm.machine import Machine

    # Its code is compiled by the stitcher alone, so that it does not depend on the compile worker's time.
    return Machine(
        memory=hardware.memory,
        cpu=_CPU,
        devices=_DEVICES,
        insn_ns=_INSN_NS,
        drives=NO_DISKS if hardware.for_container else (),
        nets=NO_CARDS if hardware.for_container else (),
        shares=container_shares({}) if hardware.for_container else shares({}),
        console=console,
        jit="off",
    )


def _disk(files: GuestFiles) -> bytes:
    """Return the initial RAM disk: agent, modules, and the device files that the kernel needs before the agent runs."""
    from dbt.linux.initramfs import DEVICE, DIRECTORY, PROGRAM, archive

    own = archive(
        [
            ("dev", DIRECTORY, b"", (0, 0)),
            ("dev/console", DEVICE, b"", (5, 1)),
            ("agent", PROGRAM, files.agent, (0, 0)),
        ]
    )
    return own + files.modules  # Linux takes several archives, one behind the other.

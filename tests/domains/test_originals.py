"""Memory that forked processes share again, because it is equal to what it was before the fork."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dbt.hypervisor import Clock, Host, ProcessCarrier
from dbt.hypervisor.process.process_vm import ProcessVm
from tests.domains.guests import boot
from tests.waiting import wait_until

_LINUX = tuple(int(part) for part in re.findall("[0-9]+", platform.release())[:2])
ROOT = Path(__file__).resolve().parents[2]
#: It moves its memory into a file, and a forked process of it uses objects, changes some, and gives memory back.
_SCRIPT = """
import gc, os, threading
from dbt.engine.native import NativeCode
from dbt.hypervisor.process.originals import Originals

texts = [str(number) * 20 for number in range(20000)]
changed = [bytearray(1000) for _ in range(1000)]
kept = hash(tuple(texts))
gc.collect()
gc.freeze()
originals = Originals(NativeCode.share(print))
originals_before = originals.drop_equal()  # this process has not kept open what it needs

def own_kb():
    with open("/proc/self/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Private_Dirty:"))

pid = os.fork()
if pid == 0:
    originals.keep_maps_open()
    others = list(texts)  # which writes to each of them
    del others
    for number, piece in enumerate(changed):
        piece[number] = 1
    before = own_kb()
    dropped = originals.drop_equal()
    print(originals_before, dropped >> 10, before, own_kb(), kept == hash(tuple(texts)),
          all(sum(piece) == piece[number] == 1 for number, piece in enumerate(changed)))
    thread = threading.Thread(target=threading.Event().wait)
    thread.start()
    print(originals.drop_equal(), flush=True)
    os._exit(0)
os.waitpid(pid, 0)
print(kept == hash(tuple(texts)), sum(map(sum, changed)))
"""

#: Two forked processes that do the same, of which one becomes the model, and one that does something else.
_WITH_MODEL = """
import gc, os, sys
from dbt.engine.native import NativeCode
from dbt.hypervisor.process.originals import Originals

pieces = [bytearray(4096) for _ in range(1000)]
gc.collect()
gc.freeze()
originals = Originals(NativeCode.share(print))

def forked(value, wants):
    pid = os.fork()
    if pid == 0:
        originals.keep_maps_open()
        for piece in pieces:
            piece[:] = bytes([value]) * 4096
        wants(value)
        sys.stdout.flush()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0

def gives(value):
    heap, at = originals.own_heap(), 0
    while piece := os.pread(heap, 1 << 20, at):
        at += os.pwrite(given, piece, at)

def drops(value):
    dropped, again = originals.drop_equal(), originals.drop_equal()
    right = all(piece == bytes([value]) * 4096 for piece in pieces)
    for piece in pieces:
        piece[0] = 9
    changed = all(piece[0] == 9 and piece[1] == value for piece in pieces)
    for piece in pieces:
        piece[0] = value
    print(dropped >> 10, again >> 10, originals.drop_equal() >> 10, right, changed)

def writes(value):
    for handle in (originals._model.handle, originals._model.writer()):
        try:
            os.pwrite(handle, b"x", 0)
            print("written")
        except OSError as error:
            print(error.strerror)

def refused(file):
    try:
        originals.take_model(file)
    except ValueError as error:
        print(error)

given = os.memfd_create("given")
refused(given)
forked(1, drops)
forked(1, gives)
originals.take_model(given)
refused(given)
forked(1, drops)
forked(2, drops)
forked(1, writes)
print(sum(map(sum, pieces)))
"""


#: A forked process says to which pages it has written, and another one has them for itself before it writes.
_AHEAD = """
import ctypes, gc, os
from array import array
from dbt.engine.native import NativeCode
from dbt.hypervisor.process.originals import Originals

pieces = [bytearray(8192) for _ in range(1000)]
gc.collect()
gc.freeze()
originals = Originals(NativeCode.share(print))

def own_kb():
    with open("/proc/self/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Private_Dirty:"))

def forked(act):
    pid = os.fork()
    if pid == 0:
        originals.keep_maps_open()
        act()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0

def notes():
    for piece in pieces:
        piece[4096] = 1
    os.sendfile(given, originals.written(), 0, 1 << 20)

def copies():
    before = own_kb()
    originals.copy_pages(copied)
    print(own_kb() - before, sum(map(sum, pieces)), flush=True)

given = os.memfd_create("given")
forked(notes)
copied = originals.copied_ahead(given)
runs = list(zip(copied[::2], copied[1::2]))
places = [ctypes.addressof(ctypes.c_char.from_buffer(piece, 4096)) for piece in pieces]
print(all(any(start <= place < start + size for start, size in runs) for place in places))
ordered = sorted(runs)
print(all(a + size <= b for (a, size), (b, _) in zip(ordered, ordered[1:])))
print(sum(size for _, size in runs) >> 10, flush=True)
forked(copies)
for words in ([0, 1 << 20], [0xFFFFFFFF, 0], [3, 3], [4, 8, 6, 9]):
    os.ftruncate(given, 0)
    os.pwrite(given, array("I", words).tobytes(), 0)
    try:
        originals.copied_ahead(given)
    except ValueError as error:
        print(error)
os.ftruncate(given, 0)
print(list(originals.copied_ahead(given)))
"""


def private_kb(pid: int) -> int:
    """Return what a process has of the host for itself (proc(5), smaps_rollup), in KiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty:"))


def test_what_is_equal_is_shared_again_and_nothing_else_changes() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT], cwd=ROOT, stdin=subprocess.PIPE, capture_output=True, text=True, check=True
    )
    said, threaded, parent = done.stdout.splitlines()
    without, dropped, before, after, texts_are_there, changes_are_there = said.split()
    assert without == "0"
    assert int(dropped) > 1000
    assert int(before) - int(after) > 0.7 * int(dropped)  # the comparison itself takes a few pages
    assert texts_are_there == changes_are_there == "True"
    assert threaded == "0"
    assert parent == "True 0"


@pytest.mark.skipif(_LINUX < (5, 14), reason="madvise(MADV_POPULATE_WRITE) needs Linux 5.14")
def test_what_a_process_will_write_to_can_be_copied_ahead() -> None:
    done = subprocess.run([sys.executable, "-c", _AHEAD], cwd=ROOT, capture_output=True, text=True, check=True)
    all_places, in_order, size, copied, *refused, empty = done.stdout.splitlines()
    assert all_places == in_order == "True"
    more, total = map(int, copied.split())
    assert int(size) >= 4000
    assert more >= 3600  # to some it had written before
    assert total == 0, "what is copied ahead is as it was"
    assert refused == 4 * ["pages that are none of the memory of this process"]
    assert empty == "[]"


def test_what_is_equal_to_a_model_is_shared_and_nothing_else_changes() -> None:
    done = subprocess.run([sys.executable, "-c", _WITH_MODEL], cwd=ROOT, capture_output=True, text=True, check=True)
    too_small, without, second, like_it, unlike_it, *written, parent = done.stdout.splitlines()
    assert too_small.startswith("a model of 0 bytes for memory of")
    assert second == "there is a model already"
    figures = [line.split() for line in (without, like_it, unlike_it)]
    before, alike, different = ([int(number) for number in line[:3]] for line in figures)
    assert [line[3:] for line in figures] == [["True", "True"]] * 3
    assert alike[0] > before[0] + 3000  # the 4000 KiB of the pieces, but for pages that have other things, too
    assert alike[2] > 3000  # pages of the model that were stored to, and are equal to it again
    assert max(different) < before[0] + 1000
    assert written == ["Bad file descriptor", "Operation not permitted"]
    assert parent == "0"


def test_a_machine_that_waits_has_at_most_5_mb_for_itself() -> None:
    with ProcessCarrier(modules=["tests.domains.guests"]) as carrier, Host(1, Clock.REAL, carrier=carrier) as host:
        sleepers = [host.define(name, boot("sleeper")) for name in ("one", "two")]
        for sleeper in sleepers:
            sleeper.start()
        host.run(timeout=0.5)
        pids = [one.vm.pid for one in sleepers if isinstance(one.vm, ProcessVm)]
        assert len(pids) == 2
        wait_until(lambda: max(map(private_kb, pids)) <= 5 << 10, "machines that rest")

"""Processes killed at any moment: what they leave is whole, and the next one finds it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dbt.codecache.contents import Kind, damage
from dbt.codecache.region_store import RegionStore
from tests.codecache.samples import HOT_GUEST, hot_output, kept, load, region, save
from tests.long import LONG

ROOT = Path(__file__).resolve().parents[2]
KILLS = 300 if LONG else 100
SIZE = 300_000


def test_a_process_killed_while_it_writes(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regions of up to four versions of 300 KB, in room for ten of them: it writes and evicts all the time."""
    monkeypatch.setenv("DBT_CACHE_SIZE", "10M")
    chance = random.Random(2026)
    for turn in range(KILLS):
        begun, begin = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                store = RegionStore("key")
                os.write(begin, b".")
                for number in range(1000):
                    save(store, (turn + number) % 25, SIZE, number % 5)
            finally:
                os._exit(0)
        assert os.read(begun, 1) == b"."
        time.sleep(chance.uniform(0, 0.004))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(begun)
        os.close(begin)
    assert [entry.name for entry in kept() if damage(entry)] == []
    store = RegionStore("key")
    found = 0
    for entry in range(25):
        regions = load(store, entry)
        assert all(some in [region(entry, SIZE, version) for version in range(5)] for some in regions)
        found += len(regions)
    assert found > 5
    leftovers = kept(Kind.LEFTOVER)
    assert leftovers, "no process was killed in the middle of a write: this test tests nothing"
    for leftover in leftovers:
        os.utime(empty_cache / leftover.name, (1000, 1000))
    save(store, 1000, SIZE)
    assert kept(Kind.LEFTOVER) == []
    assert load(store, 1000) == [region(1000, SIZE)]


def test_runs_killed_at_any_moment_leave_a_cache_that_is_good(only_handlers: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "dbt"]
    chance = random.Random(2026)
    for _ in range(12):
        process = subprocess.Popen(
            [*command, "run", "--tier", "auto", *HOT_GUEST],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment,
        )  # fmt: skip
        time.sleep(chance.uniform(0.1, 0.6))
        process.kill()
        process.wait()
    for jit in ("sync", "async"):
        run = [*command, "run", "--tier", "auto", "--jit", jit, *HOT_GUEST]
        done = subprocess.run(run, capture_output=True, env=environment, check=False)
        assert (done.stdout, done.returncode) == (hot_output(), 0), done.stderr
    done = subprocess.run([*command, "cache", "verify"], capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout
    assert len(kept()) > 1

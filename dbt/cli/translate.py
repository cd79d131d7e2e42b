"""``dbt translate``: compiles what was hot in a program's runs and had not been compiled when they ended."""

from __future__ import annotations

import os
import sys
import time

from dbt.cli.options import make_machine
from dbt.cli.report import say
from dbt.cli.run_options import RunOptions
from dbt.cli.status import CommandError, Status
from dbt.codecache.handlers import image_key
from dbt.codecache.hot_list_store import HotListStore
from dbt.codecache.region_store import RegionStore
from dbt.codecache.store import check_folder
from dbt.codecache.trust import UntrustedCacheError
from dbt.engine.ahead_translation import AheadTranslation, TranslationHalted
from dbt.engine.unfinished import load_hot_lists
from dbt.engine.worker import CompileWorker

#: The most compilers at a time. Each needs some 80 MB of memory.
_MOST_WORKERS = 8
#: Seconds between two looks for answers.
_LOOK_S = 0.005


def translate(options: RunOptions) -> int:
    """Compile what is left of the program or kernel of the options. What is not done at the end is written down."""
    name = options.program if options.kernel is None else options.kernel
    _check_cache()
    with make_machine(options) as machine:
        identity = machine.program_identity
    store, regions = HotListStore(image_key()), RegionStore(image_key())
    lists = load_hot_lists(store, identity)
    count = min(len(os.sched_getaffinity(0)), _MOST_WORKERS, sum(len(hot_list.requests) for hot_list in lists))
    work = AheadTranslation(lists, regions, [CompileWorker(yields=False) for _ in range(count)])
    if not work.total:
        store.save(identity, [])
        print(f"nothing is left to compile for {name}")
        say("what is hot when a run ends, and has not been compiled, is compiled by this command, or in the next run.")
        return Status.DONE
    started = time.monotonic()
    try:
        _finish(work)
    except TranslationHalted as error:
        message = f"{error}; {work.total - work.done} of {work.total} requests are left for another time."
        raise CommandError(message, Status.FAILURE) from None
    finally:
        store.save(identity, [hot_list.pack() for hot_list in work.left()])
        work.close()
    print(f"compiled {_regions(work.compiled)} for {name} in {time.monotonic() - started:.1f} s{_others(work)}")
    return Status.DONE


def _check_cache() -> None:
    """Raise CommandError if compiled regions could not be kept because others may write to the directory."""
    try:
        check_folder()
        check_folder(f"regions-{image_key()}")
    except UntrustedCacheError as error:
        raise CommandError(f"{error}.", Status.FAILURE) from None


def _finish(work: AheadTranslation) -> None:
    """Do all of the work, with a line that says how far it is if a person watches. Raise TranslationHalted."""
    watched = sys.stderr is not None and sys.stderr.isatty()
    shown = -1
    try:
        while work.step():
            if watched and shown != work.done:
                shown = work.done
                print(f"\r{shown} of {work.total} done", end="", file=sys.stderr, flush=True)
            time.sleep(_LOOK_S)
    finally:
        if watched:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _regions(count: int) -> str:
    return f"{count:,} region{'s' * (count != 1)}"


def _others(work: AheadTranslation) -> str:
    """Return what became of the requests of which no region was compiled."""
    covered = f"; {work.covered:,} more requests were for code that these have" if work.covered else ""
    refused = f"; {work.refused:,} could not be compiled" if work.refused else ""
    return covered + refused

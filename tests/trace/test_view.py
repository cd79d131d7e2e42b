"""The terminal program, by textual's pilot."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from dbt.trace.model import Trace
from dbt.trace.panes import PANES
from tests.codecache.samples import use_only_handlers
from tests.guests import GUESTS
from tests.trace.recordings import program, record

pytest.importorskip("textual", reason="no textual: pip install -e '.[trace]'")
from textual.widgets import DataTable, Input

from dbt.trace.view import Pane, TraceViewer


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    folder = tmp_path_factory.mktemp("view")
    with pytest.MonkeyPatch.context() as patch:
        use_only_handlers(folder / "cache", patch)
        return record(folder / "t", GUESTS / "bench" / "images" / "objects.elf", block_counters=True, fuel=10_000_000)[
            2
        ]


def play(trace: Trace, act: Callable[[TraceViewer, Any], Awaitable[None]], size: tuple[int, int] = (160, 50)) -> None:
    async def run() -> None:
        app = TraceViewer(trace)
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            await act(app, pilot)

    asyncio.run(run())


def rows(app: TraceViewer) -> list[list[str]]:
    table = app.query_one(DataTable)
    return [[str(cell) for cell in table.get_row_at(number)] for number in range(table.row_count)]


def pane(app: TraceViewer, name: str) -> Pane:
    return app.query_one(f"#pane-{name}", Pane)


def test_the_hottest_comes_first_and_its_panes_are_shown(trace: Trace) -> None:
    async def act(app: TraceViewer, pilot: Any) -> None:
        assert [row[2] for row in rows(app)] == [place.name for place in trace.hot_places]
        assert trace.hot_places[0].region is not None
        assert all(pane(app, name).rows for name in PANES)

    play(trace, act)


def test_stitched_code_is_shown_without_llvm(tmp_path: Path, only_handlers: Path) -> None:
    trace = record(tmp_path / "t", program(), tier="stitched")[2]

    async def act(app: TraceViewer, pilot: Any) -> None:
        at = next(number for number, place in enumerate(app.shown) if place.tier == "stitched")
        app.query_one(DataTable).move_cursor(row=at)
        await pilot.pause()
        shown = {name: bool(pane(app, name).rows) for name in PANES}
        assert shown == {"guest": True, "uops": True, "ir": False, "optimised": False, "host": True}

    play(trace, act)


def test_moving_in_a_pane_lights_the_others(trace: Trace) -> None:
    async def act(app: TraceViewer, pilot: Any) -> None:
        guest = pane(app, "guest")
        guest.focus()
        await pilot.press("down", "down")
        await pilot.pause()
        origin = guest.rows[guest.cursor].origin
        assert origin is not None and origin[1] >= 0
        for name in PANES:
            assert pane(app, name).lit == origin
        uops = pane(app, "uops")
        place = uops.rows[uops.cursor].origin
        assert place is not None and place[:2] == origin[:2]

    play(trace, act)


def test_filter_sort_and_why(trace: Trace) -> None:
    async def act(app: TraceViewer, pilot: Any) -> None:
        everything = len(rows(app))
        await pilot.press("slash")
        assert isinstance(app.focused, Input)
        name = trace.hot_places[0].name
        await pilot.press(*name[:4], "enter")
        await pilot.pause()
        assert 0 < len(rows(app)) <= everything
        assert all(name[:4].lower() in " ".join(row).lower() for row in rows(app))
        app.query_one(Input).value = ""
        await pilot.pause()
        for _ in range(7):
            await pilot.press("s")
        sizes = [int(row[7] or -1) for row in rows(app)]
        assert sizes == sorted(sizes, reverse=True)
        await pilot.press("w")
        assert len(rows(app)) == len(trace.reasons)
        await pilot.press("b")
        blocks = sum(len(trace.compile_record(region)["blocks"]) for region in trace.regions)
        assert len(rows(app)) == blocks
        insns = [int(row[0].replace(",", "")) for row in rows(app)]
        assert insns == sorted(insns, reverse=True) and insns[0] > 0
        await pilot.press("down")
        await pilot.pause()
        assert pane(app, "guest").rows
        await pilot.press("b", "q")

    play(trace, act)


def test_it_fits_a_small_terminal(trace: Trace) -> None:
    async def act(app: TraceViewer, pilot: Any) -> None:
        pane(app, "host").focus()
        await pilot.press("pagedown", "up", "down")

    play(trace, act, size=(80, 24))


def test_a_run_without_regions(tmp_path: Path) -> None:
    _, _, empty = record(tmp_path / "t", GUESTS / "images" / "hello-armv7-a-O2.elf", tier="threaded")

    async def act(app: TraceViewer, pilot: Any) -> None:
        assert not pane(app, "guest").rows
        pane(app, "guest").focus()
        await pilot.press("down", "s", "w", "w")

    play(empty, act)


def shown(app: TraceViewer) -> list[str]:
    return [name for name in PANES if pane(app, name).display and pane(app, name).size.width]


def cut_cells(app: TraceViewer) -> list[str]:
    """Cells that are longer than their column."""
    table = app.query_one(DataTable)
    widths = [column.get_render_width(table) - 2 * table.cell_padding for column in table.ordered_columns]
    return [cell for row in rows(app) for cell, width in zip(row, widths, strict=True) if len(cell) > width]


@pytest.mark.parametrize(("width", "count"), [(80, 1), (100, 1), (120, 2), (300, 5)])
def test_panes_are_wide_enough_to_be_read(trace: Trace, width: int, count: int) -> None:
    async def act(app: TraceViewer, pilot: Any) -> None:
        seen = []
        assert len(shown(app)) == count
        for number, name in enumerate(PANES, 1):
            await pilot.press(str(number))
            await pilot.pause()
            assert app.focused is pane(app, name) and name in shown(app)
            assert pane(app, name).size.width >= 50
            seen += shown(app)
        assert set(seen) == set(PANES)

    play(trace, act, size=(width, 40))


def test_a_pane_can_be_enlarged(trace: Trace) -> None:
    async def act(app: TraceViewer, pilot: Any) -> None:
        await pilot.press("3")
        await pilot.pause()
        small = pane(app, "ir").size
        await pilot.press("z")
        await pilot.pause()
        large = pane(app, "ir").size
        assert shown(app) == ["ir"] and large.height > 1.5 * small.height and large.width >= 94
        await pilot.press("tab")
        await pilot.pause()
        assert shown(app) == ["optimised"] and app.focused is pane(app, "optimised")
        await pilot.press("escape")
        await pilot.pause()
        assert app.query_one(DataTable).size.height > 5 and isinstance(app.focused, DataTable)

    play(trace, act, size=(100, 40))


def test_tab_goes_through_all_panes_and_back(trace: Trace) -> None:
    async def act(app: TraceViewer, pilot: Any) -> None:
        for name in PANES:
            await pilot.press("tab")
            await pilot.pause()
            assert app.focused is pane(app, name)
        await pilot.press("tab")
        assert app.focused is app.query_one("#table")
        await pilot.press("shift+tab")
        assert app.focused is pane(app, PANES[-1])

    play(trace, act, size=(100, 40))


def test_a_filter_cuts_no_number(trace: Trace) -> None:
    async def act(app: TraceViewer, pilot: Any) -> None:
        large = max((row for row in rows(app)), key=lambda row: len(row[1]))[1]
        for wanted in (large, large.replace(",", ""), "no such row", ""):
            app.query_one(Input).value = wanted
            await pilot.pause()
            assert cut_cells(app) == []
            assert (large in [row[1] for row in rows(app)]) == (wanted != "no such row")
        await pilot.press("escape", "w")
        app.query_one(Input).value = "exit"
        await pilot.pause()
        assert rows(app) and cut_cells(app) == []

    play(trace, act, size=(100, 40))


def test_names_are_no_markup(trace: Trace) -> None:
    hostile = Trace(trace.path)
    name = "[/red]\x1b[31m[@click=app.quit]x"
    hostile.header["symbols"] = [[0, name, 1 << 20]]
    hostile.header["command"]["program"] = name

    async def act(app: TraceViewer, pilot: Any) -> None:
        assert any("[@click=app.quit]x" in row[2] for row in rows(app))
        assert not any("\x1b" in cell for row in rows(app) for cell in row)
        await pilot.press("w", "b", "z", "escape")

    play(hostile, act)

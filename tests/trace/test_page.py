"""The page in a real Chromium: panes linked, search finds, the timeline zooms, nothing is complained about.

Debian's packages are chromium and chromium-driver. DBT_SCREENSHOTS names a directory for pictures of it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dbt.trace.control_flow import control_flow
from dbt.trace.html import report
from dbt.trace.model import Trace
from dbt.trace.moment import debugger_command
from tests.codecache.samples import use_only_handlers
from tests.guests import GUESTS
from tests.trace.browser import CHROMIUM, DRIVER, MISSING, browser_window, click, open_page, wait_for, write_large_page
from tests.trace.recordings import record

pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason=MISSING)
pytest.importorskip("selenium", reason="no selenium: pip install -e '.[test]'")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with browser_window() as window:
        yield window


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trace]:
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        use_only_handlers(folder / "cache", patch)
        _, _, program = record(
            folder / "a", GUESTS / "bench" / "images" / "objects.elf", block_counters=True, fuel=20_000_000
        )
        _, _, system = record(folder / "b", GUESTS / "images" / "minios-armv5te-O2.elf")
    return {"program": program, "system": system}


@pytest.fixture(scope="module")
def pages(traces: dict[str, Trace], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = {name: tmp_path_factory.mktemp(name) / "report.html" for name in traces}
    for name, path in found.items():
        path.write_text(report(traces[name], ["instructions  1"]), encoding="utf-8")
    return found


@pytest.fixture(params=["program", "system"])
def page(
    request: pytest.FixtureRequest, browser: Any, traces: dict[str, Trace], pages: dict[str, Path]
) -> Iterator[Any]:
    open_page(browser, pages[request.param])
    browser.trace = traces[request.param]
    yield browser
    pictures = os.environ.get("DBT_SCREENSHOTS")
    if pictures:
        browser.save_screenshot(os.path.join(pictures, f"{request.node.name}.png"))
    assert browser.get_log("browser") == []


def test_nothing_is_fetched(page: Any) -> None:
    source = page.page_source
    assert not re.findall(r'(?:src|href)="[^"]+"', source.partition("<script")[0])
    assert page.execute_script("return performance.getEntriesByType('resource').length") == 0


def test_the_table_has_every_place_and_can_be_sorted(page: Any) -> None:
    rows = page.execute_script("return table.shown.map((row) => row.name)")
    assert rows == [place.name for place in page.trace.hot_places]
    where = "#table .head span:nth-child(3)"
    click(page, where)
    names = page.execute_script("return table.shown.map((row) => row.name)")
    assert names == sorted(names)
    click(page, where)
    assert page.execute_script("return table.shown.map((row) => row.name)") == sorted(names, reverse=True)


def test_a_search_finds(page: Any) -> None:
    wanted = page.trace.hot_places[0].name
    page.find_element("id", "search").send_keys(wanted)
    shown = page.execute_script("return table.shown.map((row) => row.name)")
    assert shown and all(wanted.lower() in name.lower() for name in shown)
    insns = page.trace.hot_places[0].insns
    for number in (f"{insns:,}", str(insns)):
        page.find_element("id", "search").clear()
        page.find_element("id", "search").send_keys(number)
        assert insns in page.execute_script("return table.shown.map((row) => row.insns)")
    page.find_element("id", "search").clear()
    page.find_element("id", "search").send_keys("nothing has this name")
    assert page.execute_script("return table.shown.length") == 0


def test_panes_are_linked(page: Any) -> None:
    if not page.trace.regions:
        pytest.skip("this run made no region")
    wait_for(page, "return document.querySelectorAll('.pane').length === 5")
    # The row of a guest instruction that the host's code has something for.
    number = page.execute_script("""
        const rows = [...document.querySelectorAll('[data-pane=guest] div')];
        const host = [...document.querySelectorAll('[data-pane=host] div')];
        return rows.findIndex((row) => row.at && row.at[1] >= 0 &&
            host.some((other) => other.at && other.at[0] === row.at[0] && other.at[1] === row.at[1]));
    """)
    assert number >= 0
    page.execute_script("document.querySelectorAll('[data-pane=guest] div')[arguments[0]].click()", number)
    lit = {
        pane: page.execute_script(f"return document.querySelectorAll('[data-pane={pane}] .insn').length")
        for pane in ("guest", "uops", "ir", "host")
    }
    assert all(lit.values()), lit
    others = page.execute_script(
        """
        const chosen = document.querySelectorAll('[data-pane=guest] div')[arguments[0]].at;
        return [...document.querySelectorAll('.pane .insn')].filter((row) => row.at[0] !== chosen[0]).length;
    """,
        number,
    )
    assert others == 0
    # A uop lights what it became, and not its whole instruction.
    page.execute_script("""
        const rows = [...document.querySelectorAll('[data-pane=ir] div')];
        rows.find((row) => row.uop >= 0).dispatchEvent(new MouseEvent('mouseenter'));
    """)
    assert page.execute_script("return document.querySelectorAll('[data-pane=uops] .uop').length") == 1


def test_blocks_are_a_table_too(page: Any) -> None:
    click(page, "input[value=blocks]")
    expected = sum(len(page.trace.compile_record(region).get("blocks", ())) for region in page.trace.regions)
    assert page.execute_script("return table.shown.length") == expected
    if expected:
        click(page, "#table .row")
        wait_for(page, "return !document.getElementById('chosen').hidden")
        shown = page.find_element("css selector", "#chosen-command code").text
        path = os.path.abspath(page.trace.path)
        assert shown in {debugger_command(path, region.icount) for region in page.trace.regions}


def test_the_timeline_zooms(page: Any) -> None:
    click(page, "[data-tab=timeline]")
    everything = page.execute_script("return view[1] - view[0]")
    assert everything == page.trace.nanoseconds
    for _ in range(3):
        page.execute_script("""
            canvas.dispatchEvent(new WheelEvent('wheel', {deltaY: -100, clientX: 400, clientY: 300, cancelable: true}));
        """)
    assert page.execute_script("return view[1] - view[0]") == pytest.approx(everything * 0.8**3)
    painted = page.execute_script("""
        const pixels = pen.getImageData(0, 0, canvas.width, canvas.height).data;
        let count = 0;
        for (let at = 3; at < pixels.length; at += 4) count += pixels[at] !== 0;
        return count;
    """)
    assert painted > 1000
    page.execute_script("canvas.dispatchEvent(new MouseEvent('dblclick'))")
    assert page.execute_script("return view[1] - view[0]") == everything


def test_why_and_the_other_tabs(page: Any) -> None:
    click(page, "[data-tab=why]")
    assert page.execute_script("return why.shown.length") == len(page.trace.reasons)
    click(page, "[data-tab=graph]")
    assert page.find_elements("css selector", "#graph svg g.node") or not page.trace.regions
    click(page, "[data-tab=memory]")
    mapped = len(page.find_elements("css selector", "#memory tr td:first-child"))
    spaces = page.trace.memory["shadow"]
    assert mapped == len(page.trace.memory["guest"]) + sum(len(space["mappings"]) for space in spaces)
    click(page, "[data-tab=stats]")
    assert "instructions  1" in page.find_element("id", "stats").text


def test_it_is_light_or_dark(page: Any) -> None:
    def back() -> str:
        return str(page.execute_script("return getComputedStyle(document.body).backgroundColor"))

    first = back()
    click(page, "#theme")
    assert back() != first
    click(page, "#theme")
    assert back() == first


def test_of_a_hundred_thousand_blocks_few_are_rows(browser: Any, traces: dict[str, Trace], tmp_path: Path) -> None:
    """Those that can be seen. How long it takes is measured by ``make timing``."""
    path = tmp_path / "large.html"
    write_large_page(traces["program"], path)
    open_page(browser, path)
    click(browser, "input[value=blocks]")
    assert browser.execute_script("return table.shown.length") == 100_000
    assert len(browser.find_elements("css selector", "#table .row")) < 100
    assert browser.get_log("browser") == []


def test_stitched_code_is_shown_with_its_stencils(page: Any) -> None:
    place = page.execute_script("return data.places.find((row) => row.panes)")
    assert place["tier"] == "stitched"
    page.execute_script("hideRegion(arguments[0])", place)
    wait_for(page, "return [...document.querySelectorAll('[data-pane=guest] div')].some((row) => row.at[1] === 0)")
    wait_for(page, "return document.getElementById('chosen-about').textContent.startsWith('Stitched code')")
    page.execute_script("""
        const rows = [...document.querySelectorAll('[data-pane=guest] div')];
        rows.find((row) => row.at[1] === 0).click();
    """)
    lit = page.execute_script("return document.querySelectorAll('[data-pane=host] .insn').length")
    assert lit > 1


def test_a_region_without_panes_says_so(browser: Any, traces: dict[str, Trace], tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(report(traces["program"], [], paned=1), encoding="utf-8")
    open_page(browser, path)
    other = next(row.region.number for row in traces["program"].hot_places[1:] if row.region is not None)
    browser.execute_script("showRegion(arguments[0])", other)
    wait_for(browser, "return document.getElementById('panes').textContent.includes('--regions')")
    assert browser.get_log("browser") == []


def test_text_of_the_guest_is_text(browser: Any, traces: dict[str, Trace], tmp_path: Path) -> None:
    trace = Trace(traces["program"].path)
    trace.header["command"]["program"] = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"
    trace.header["symbols"] = [[0, "<!--<script></script><script>document.title='owned'</script>", 1 << 20]]
    path = tmp_path / "report.html"
    path.write_text(report(trace, ["<b>bold</b>"]), encoding="utf-8")
    open_page(browser, path)
    assert "owned" not in browser.title and browser.find_elements("css selector", "img, b.bold, #stats b") == []
    assert browser.get_log("browser") == []


@pytest.fixture(scope="module")
def dispatching(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    folder = tmp_path_factory.mktemp("dispatching")
    with pytest.MonkeyPatch.context() as patch:
        use_only_handlers(folder / "cache", patch)
        image = GUESTS / "slow" / "images" / "dispatching.elf"
        return record(folder / "t", image, block_counters=True, fuel=120_000_000)[2]


@pytest.fixture(params=[800, 1400])
def width(request: pytest.FixtureRequest, browser: Any) -> Iterator[int]:
    browser.set_window_size(request.param, 900)
    yield request.param
    browser.set_window_size(1600, 1000)


def test_every_column_can_be_seen(browser: Any, dispatching: Trace, width: int, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(report(dispatching, []), encoding="utf-8")
    open_page(browser, path)
    for tab, table, wanted in (("hot", "table", 3), ("why", "why", 3)):
        click(browser, f"[data-tab={tab}]")
        # The page itself does not scroll sideways; the table does where it has to, and its head goes along.
        assert browser.execute_script("const e = document.documentElement; return e.scrollWidth <= e.clientWidth")
        widths = """
            const root = document.getElementById(arguments[0]), box = root.getBoundingClientRect();
            const cells = [...root.querySelectorAll('.head span'), ...root.querySelectorAll('.row:first-child span')];
            return cells.map((cell) => cell.getBoundingClientRect()).map((cell) =>
                [cell.width, cell.right - box.left + root.scrollLeft <= root.scrollWidth + 1, cell.right <= box.right]);
        """
        found = browser.execute_script(widths, table)
        half = len(found) // 2
        assert all(size >= 50 and reachable for size, reachable, _ in found)
        assert found[wanted - 1][2] and found[half + wanted - 1][2], "where is in sight at once"
        assert [round(size) for size, *_ in found[:half]] == [round(size) for size, *_ in found[half:]]
    assert browser.get_log("browser") == []


def test_the_graph_shows_a_hub_and_its_handlers(browser: Any, dispatching: Trace, width: int, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(report(dispatching, []), encoding="utf-8")
    open_page(browser, path)
    click(browser, "[data-tab=graph]")
    flow = control_flow(dispatching, 150)
    assert len(browser.find_elements("css selector", "#graph g.node")) == len(flow.nodes)
    assert browser.find_elements("css selector", "#graph path.way") and browser.find_elements(
        "css selector", "#graph .box"
    )
    # No node lies over another.
    overlaps = browser.execute_script("""
        const boxes = [...document.querySelectorAll('#graph g.node rect')].map((rect) => rect.getBoundingClientRect());
        return boxes.filter((a, n) => boxes.some((b, m) => m > n && a.left < b.right - 1 && b.left < a.right - 1 &&
            a.top < b.bottom - 1 && b.top < a.bottom - 1)).length;
    """)
    assert overlaps == 0
    hub = max(flow.nodes, key=lambda key: sum(source == key for source, _ in flow.ways))
    number = list(flow.nodes).index(hub)
    browser.execute_script("graphState.drawn.get(arguments[0]).dispatchEvent(new MouseEvent('click'))", number)
    rows = browser.execute_script("""
        return [...document.querySelectorAll('#graph-chosen div:first-of-type tr')].map((row) =>
            [...row.children].map((cell) => cell.textContent));
    """)
    out = {flow.nodes[to].name for source, to in flow.ways if source == hub}
    assert {name for _, name, _ in rows} == out and len(out) >= 40
    numbers = [int(count.removeprefix("about ").replace(",", "")) for count, _, _ in rows]
    assert numbers == sorted(numbers, reverse=True) and numbers[0] > 1000
    far = browser.execute_script("return document.querySelectorAll('#graph .node.far').length")
    assert far == len(flow.nodes) - len({end for ends in flow.ways if hub in ends for end in ends})
    # From there to another node, and to the stages of its region.
    click(browser, "#graph-chosen td button")
    assert browser.find_element("css selector", "#graph-chosen h2").text == rows[0][1]
    click(browser, "#graph-chosen p button")
    wait_for(browser, "return !document.getElementById('tab-hot').hidden && linked.length > 0")
    assert browser.get_log("browser") == []


def test_a_small_graph_and_a_search(browser: Any, dispatching: Trace, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(report(dispatching, []), encoding="utf-8")
    open_page(browser, path)
    click(browser, "[data-tab=graph]")
    browser.execute_script("$('graph-size').value = '25'; $('graph-size').onchange()")
    assert len(browser.find_elements("css selector", "#graph g.node:not(.outside)")) == 25
    assert "regions are not shown" in browser.find_element("id", "graph-note").text
    browser.find_element("id", "search").send_keys("run_events")
    found = browser.execute_script(
        "return [...document.querySelectorAll('#graph .found text')].map((t) => t.textContent)"
    )
    assert found and all("run_events" in label for label in found)
    before = browser.execute_script("return graphState.scale")
    click(browser, "#graph-in")
    assert browser.execute_script("return graphState.scale") == pytest.approx(before * 1.25)

"""The trace in the terminal: a table of regions and of the code outside them, and the linked panes of one region.

As many panes are shown side by side as can be read in the terminal's width, and the others are a key away.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual import events
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widgets import DataTable, Footer, Header, Input, Static

from dbt.trace.model import HotPlace, Reason, Trace
from dbt.trace.panes import PANES, TITLES, Origin, Row, panes_of
from dbt.trace.stitched_panes import stitched_blocks, stitched_panes

_COLUMNS = ("share", "instructions", "where", "executions", "exits", "tier", "region", "size", "x", "ms")
_WORDS = ("where", "tier", "kind", "why")
#: Columns of the terminal that a pane needs to be read.
_PANE_WIDTH = 56
_CURSOR, _SAME_UOP = Style(reverse=True), Style(bgcolor="yellow", color="black")
_SAME_INSN, _PLAIN, _NOBODY = Style(bgcolor="grey37", color="white"), Style(), Style(dim=True)


class Pane(ScrollView, can_focus=True):
    """The rows of one stage. The cursor's row lights those of the other panes that are for the same instruction."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "move(-1)", show=False),
        Binding("down", "move(1)", show=False),
        Binding("pageup", "move(-20)", show=False),
        Binding("pagedown", "move(20)", show=False),
    ]

    class Moved(Message):
        """The message that the cursor has moved to a row with that origin."""

        def __init__(self, pane: Pane, origin: Origin | None) -> None:
            super().__init__()
            self.pane = pane
            self.origin = origin

    def __init__(self, name: str, title: str) -> None:
        super().__init__(id=f"pane-{name}")
        self.border_title = title
        self.rows: list[Row] = []
        self.heat: dict[str, float] = {}
        self.cursor = self.label_width = 0
        self.lit: Origin | None = None

    def fill(self, rows: list[Row], heat: dict[str, float]) -> None:
        self.rows, self.heat, self.cursor, self.lit = rows, heat, 0, None
        self.label_width = max((len(row.label) for row in rows), default=0)
        width = max((len(row.text) for row in rows), default=0) + self.label_width + 4
        self.virtual_size = Size(width, len(rows))
        self.scroll_to(0, 0, animate=False)
        self.refresh()

    def light(self, origin: Origin | None, follow: bool) -> None:
        """Mark the rows for an origin, and bring the first into sight."""
        self.lit = origin
        if follow and origin is not None:
            matches = [number for number, row in enumerate(self.rows) if _is_same(row.origin, origin)]
            exact = [number for number in matches if self.rows[number].origin == origin]
            if matches:
                self.cursor = (exact or matches)[0]
                self.scroll_to_region(Region(0, self.cursor, 1, 1), animate=False, center=True)
        self.refresh()

    def action_move(self, step: int) -> None:
        if not self.rows:
            return
        self.cursor = min(len(self.rows) - 1, max(0, self.cursor + step))
        self.scroll_to_region(Region(self.scroll_offset.x, self.cursor, 1, 1), animate=False)
        self.post_message(self.Moved(self, self.rows[self.cursor].origin))
        self.refresh()

    def render_line(self, y: int) -> Strip:
        number = y + self.scroll_offset.y
        if number >= len(self.rows):
            return Strip.blank(self.size.width)
        row = self.rows[number]
        share = self.heat.get(row.label, 0.0)
        mark = "█" if share > 0.2 else "▓" if share > 0.05 else "░" if share else " "
        label = f"{row.label:>{self.label_width}}  " if self.label_width else ""
        text = f"{mark}{label}{row.text}"
        if number == self.cursor and self.has_focus:
            style = _CURSOR
        elif self.lit is not None and row.origin == self.lit and self.lit[2] >= 0:
            style = _SAME_UOP
        elif self.lit is not None and _is_same(row.origin, self.lit):
            style = _SAME_INSN
        else:
            style = _PLAIN if row.origin is not None else _NOBODY
        strip = Strip([Segment(text, style)])
        return strip.crop_extend(self.scroll_offset.x, self.scroll_offset.x + self.size.width, style)


def _is_same(origin: Origin | None, other: Origin) -> bool:
    """Return True if a row is for the same instruction, or for the whole block of it."""
    return origin is not None and origin[0] == other[0] and (origin[1] == other[1] or -1 in (origin[1], other[1]))


class TraceViewer(App[None]):
    """The application behind ``dbt trace view``."""

    CSS = """
    #table { height: 40%; }
    #panes { height: 1fr; }
    #tabs { height: 1; background: $panel; }
    #about { height: auto; max-height: 2; }
    Pane { width: 1fr; border: solid $primary-darken-2; }
    Pane:focus { border: solid $accent; }
    #filter { height: 3; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "quit"),
        Binding("slash", "filter", "filter"),
        Binding("s", "sort", "sort"),
        Binding("b", "blocks", "blocks"),
        Binding("w", "why", "why"),
        Binding("1", "pane(0)", "pane", key_display="1-5"),
        Binding("z", "enlarge", "enlarge"),
        Binding("tab", "next(1)", "next", priority=True),
        Binding("shift+tab", "next(-1)", show=False, priority=True),
        Binding("escape", "table", show=False),
        *(Binding(str(number + 1), f"pane({number})", show=False) for number in range(1, len(PANES))),
    ]
    ENABLE_COMMAND_PALETTE = False

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self.trace = trace
        self.title = trace.title
        self.sub_title = f"{trace.icount:,} instructions, {len(trace.regions)} regions"
        self.order = 0
        self.wanted = ""
        self.shown: list[HotPlace] = []
        self.shows_why = False
        self.shows_blocks = False
        self.current = 0  # the pane that is shown if there is room for one only
        self.is_large = False

    def compose(self) -> ComposeResult:
        yield Header()
        yield Input(placeholder="symbol, region, tier, number", id="filter")
        yield DataTable(id="table", cursor_type="row")
        yield Static(id="about", markup=False)
        yield Static(id="tabs")
        with Horizontal(id="panes"):
            for number, (name, title) in enumerate(zip(PANES, TITLES, strict=True), 1):
                yield Pane(name, f"{number} {title}")
        yield Footer()

    def on_mount(self) -> None:
        self._fill_table()
        self._arrange()
        self.query_one(DataTable).focus()

    def on_resize(self, event: events.Resize) -> None:
        self._arrange(event.size.width)

    @property
    def panes(self) -> list[Pane]:
        return list(self.query(Pane))

    # -- which panes are shown -----------------------------------------------------------------

    def _arrange(self, width: int | None = None) -> None:
        """Show the current pane and as many beside it as can be read. If it is enlarged, show it alone, without the
        table.
        """
        width = self.size.width if width is None else width
        room = 1 if self.is_large else max(1, min(len(PANES), width // _PANE_WIDTH))
        first = min(max(0, self.current - room + 1), len(PANES) - room)
        shown = range(first, first + room)
        for number, pane in enumerate(self.panes):
            pane.display = number in shown
        for name in ("#filter", "#table", "#about"):
            self.query_one(name).display = not self.is_large
        tabs = Text()
        for number, title in enumerate(TITLES):
            tabs.append(f" {number + 1} {title} ", "reverse" if number in shown else "dim")
        self.query_one("#tabs", Static).update(tabs)

    def _show_pane(self, number: int) -> None:
        self.current = number
        self._arrange()
        self.panes[number].focus()

    def action_pane(self, number: int) -> None:
        self._show_pane(number)

    def action_enlarge(self) -> None:
        """Give the current pane the whole screen, or give the table its place back."""
        self.is_large = not self.is_large
        self._show_pane(self.current)

    def action_table(self) -> None:
        self.is_large = False
        self._arrange()
        self.query_one(DataTable).focus()

    def action_next(self, step: int) -> None:
        """Move the focus from the table to the first pane, from pane to pane, and from the last to the table."""
        at = self.panes.index(self.focused) + 1 if isinstance(self.focused, Pane) else 0
        to = (at + step) % (len(PANES) + 1)
        if to == 0 and self.is_large:
            to = 1 if step > 0 else len(PANES)
        if to:
            self._show_pane(to - 1)
        else:
            self.query_one(DataTable).focus()

    # -- the table -----------------------------------------------------------------------------

    def _fill_table(self) -> None:
        if self.shows_why:
            self.shown = []
            rows = [self._reason_cells(reason) for reason in self.trace.reasons]
            self._show_rows(("kind", "count", "where", "why"), (cells for cells in rows if self._is_wanted(cells)))
        elif self.shows_blocks:
            blocks = [(place, cells) for place, cells in self._blocks() if self._is_wanted(cells)]
            self.shown = [place for place, _ in blocks]
            names = ("instructions", "executions", "where", "region", "block", "size")
            self._show_rows(names, (cells for _, cells in blocks))
        else:
            places = [(place, self._cells(place)) for place in self.trace.hot_places]
            places = [(place, cells) for place, cells in places if self._is_wanted(cells)]
            is_word = _COLUMNS[self.order] in _WORDS
            places.sort(key=lambda pair: _sort_key(pair[1][self.order]), reverse=not is_word)
            self.shown = [place for place, _ in places]
            self._show_rows(_COLUMNS, (cells for _, cells in places), self.order)

    def _is_wanted(self, cells: Sequence[str]) -> bool:
        """Return True if a row has the filter's text. A number is found with and without its commas."""
        text = " ".join(cells).lower()
        return self.wanted in text or self.wanted in text.replace(",", "")

    def _show_rows(self, names: Sequence[str], rows: Iterable[Sequence[str]], order: int | None = None) -> None:
        """Fill the table anew. A column is as wide as its widest cell, whatever rows were there before."""
        table = self.query_one(DataTable)
        table.clear(columns=True)
        lines = list(rows)
        titles = [f"{name} ▾" if number == order else name for number, name in enumerate(names)]
        for number, title in enumerate(titles):
            width = max([cell_len(title), *(cell_len(cells[number]) for cells in lines)])
            table.add_column(Text(title), width=width)
        for cells in lines:
            # Text, because a plain string would be parsed as markup.
            pairs = zip(names, cells, strict=True)
            table.add_row(*(Text(cell, justify="left" if name in _WORDS else "right") for name, cell in pairs))

    def _reason_cells(self, reason: Reason) -> tuple[str, ...]:
        where = "" if reason.pc is None else self.trace.describe(reason.pc)
        return reason.kind, f"{reason.count:,}", where, reason.text

    def _blocks(self) -> list[tuple[HotPlace, tuple[str, ...]]]:
        """Return the blocks of all regions. If they were counted, those with the most instructions come first."""
        counts = self.trace.block_counters.get("block", {})
        rows = []
        for region in self.trace.regions:
            for number, block in enumerate(self.trace.compile_record(region).get("blocks", ())):
                executions = counts.get(region.to_gpa(block["pc"]), 0)
                rows.append((executions * len(block["insns"]), executions, region, number, block))
        rows.sort(key=lambda row: (-row[0], row[2].number, row[3]))
        found: list[tuple[HotPlace, tuple[str, ...]]] = []
        for insns, executions, region, number, block in rows:
            where = self.trace.describe_line(block["pc"])
            numbers = (f"{insns:,}", f"{executions:,}") if counts else ("-", "-")
            cells = (*numbers, where, f"#{region.number}", str(number), str(len(block["insns"])))
            found.append((HotPlace(where, region), cells))
        return found

    def _cells(self, place: HotPlace) -> tuple[str, ...]:
        share = f"{100 * place.share:.1f} %" if place.samples else "-"
        region = place.region
        if region is None:
            return share, f"{place.insns:,}", place.name, "-", "-", place.tier, "", "", "", ""
        block_counters = self.trace.block_counters
        executions = f"{block_counters['block'].get(region.entry, 0):,}" if block_counters else "-"
        exits = f"{self.trace.exits_of(region).total():,}" if block_counters else "-"
        seconds = sum(self.trace.compile_record(region).get("seconds", {}).values())
        name = place.name if region.dropped is None else f"{place.name} (dropped: {region.dropped['why']})"
        about = f"#{region.number}", str(region.insns), f"{region.expansion:.1f}", f"{1000 * seconds:.1f}"
        return share, f"{place.insns:,}", name, executions, exits, "region", *about

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        if self.shows_why or not 0 <= event.cursor_row < len(self.shown):
            return
        place = self.shown[event.cursor_row]
        about = self.query_one("#about", Static)
        if place.region is None:
            self._show_stitched(place, about)
            return
        panes = panes_of(self.trace, place.region)
        known = f"{panes.attributed} of {panes.host_insns} host instructions belong to a guest instruction"
        exits = "".join(f"; {n:,} x {reason}" for reason, n in self.trace.exits_of(place.region).most_common(3))
        about.update(f"#{place.region.number} {place.region.identity}: {known}{exits}")
        samples = self.trace.sampled_in(place.region)
        total = sum(samples.values()) or 1
        heat = {f"{pc:08x}": insns / total for pc, insns in samples.items()}
        for name, pane in zip(PANES, self.panes, strict=True):
            pane.fill(panes.rows[name], heat if name in ("guest", "uops") else {})

    def _show_stitched(self, place: HotPlace, about: Static) -> None:
        """Show the stitched code of a place outside regions, if it has any."""
        blocks = stitched_blocks(self.trace, place)
        rows = stitched_panes(self.trace, blocks).rows if blocks else {}
        have = f"{len(blocks)} stitched blocks have this code" if blocks else "no region has this code"
        about.update(f"{place.name}: {have}")
        for name, pane in zip(PANES, self.panes, strict=True):
            pane.fill(rows.get(name, []), {})

    def on_pane_moved(self, event: Pane.Moved) -> None:
        for pane in self.panes:
            pane.light(event.origin, follow=pane is not event.pane)

    # -- keys ----------------------------------------------------------------------------------

    def on_input_changed(self, event: Input.Changed) -> None:
        self.wanted = event.value.lower()
        self._fill_table()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self.query_one(DataTable).focus()

    def action_filter(self) -> None:
        self.action_table()
        self.query_one(Input).focus()

    def action_sort(self) -> None:
        self.order = (self.order + 1) % len(_COLUMNS)
        self._fill_table()

    def action_blocks(self) -> None:
        self.shows_blocks, self.shows_why = not self.shows_blocks, False
        self._fill_table()

    def action_why(self) -> None:
        self.shows_why, self.shows_blocks = not self.shows_why, False
        self._fill_table()


def _sort_key(cell: str) -> tuple[float, str]:
    """Return the key of a cell for sorting: its number, if it has one."""
    text = cell.lstrip("#").replace(",", "").removesuffix(" %")
    try:
        return float(text), ""
    except ValueError:
        return -1.0, cell

"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const number = (n) => n.toLocaleString("en-US");
const hex = (n) => "0x" + n.toString(16).padStart(8, "0");
const make = (tag, text, kind) => {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (kind) element.className = kind;
  return element;
};

// -- tables of any length: only the rows in sight are there ---------------------------------------

class VirtualTable {
  constructor(root, columns, choose) {
    this.columns = columns; this.choose = choose; this.rows = []; this.shown = []; this.query = ""; this.chosen = null;
    this.root = root;
    [this.head, this.space] = root.children;
    // In a narrow window the table scrolls sideways: no column vanishes.
    this.grid = columns.map((column) => (column.grow ? `minmax(${column.rem}rem, ${column.grow}fr)` : column.rem + "rem")).join(" ");
    const least = columns.reduce((sum, column) => sum + column.rem + .8, .4) + "rem";
    this.head.style.minWidth = this.space.style.minWidth = least;
    this.order = columns.findIndex((column) => column.first);
    this.down = true;
    root.addEventListener("scroll", () => this.draw());
    root.addEventListener("keydown", (event) => this.move(event));
    this.drawHead();
  }
  drawHead() {
    this.head.style.gridTemplateColumns = this.grid;
    this.head.replaceChildren(...this.columns.map((column, index) => {
      const mark = index === this.order ? (this.down ? " ▾" : " ▴") : "";
      const cell = make("span", column.title + mark, column.number ? "n" : "");
      cell.title = column.about || "";
      cell.onclick = () => {
        this.down = index === this.order ? !this.down : Boolean(column.number);
        this.order = index;
        this.update();
      };
      return cell;
    }));
  }
  fill(rows) { this.rows = rows; this.update(); }
  filter(query) { this.query = query.toLowerCase(); this.update(); }
  update() {
    this.drawHead();
    const value = this.columns[this.order].value, way = this.down ? -1 : 1;
    // A number is found with and without its commas.
    const has = (text) => text.includes(this.query) || text.replaceAll(",", "").includes(this.query);
    const wanted = (row) => !this.query || this.columns.some((column) => has(String(column.show(row)).toLowerCase()));
    this.shown = this.rows.filter(wanted);
    this.shown.sort((a, b) => { const x = value(a), y = value(b); return x < y ? -way : x > y ? way : 0; });
    this.space.style.height = this.shown.length * 20 + "px";
    this.root.scrollTop = 0;
    this.draw();
  }
  draw() {
    const first = Math.max(0, Math.floor(this.root.scrollTop / 20) - 5);
    const last = Math.min(this.shown.length, first + Math.ceil(this.root.clientHeight / 20) + 10);
    const rows = [];
    for (let at = first; at < last; at++) {
      const row = this.shown[at], line = make("div", undefined, "row" + (row === this.chosen ? " chosen" : ""));
      line.style.top = at * 20 + "px";
      line.style.gridTemplateColumns = this.grid;
      for (const column of this.columns) {
        const cell = make("span", column.show(row), column.number ? "n" : "");
        if (column.grow) cell.title = cell.textContent;
        if (column.heat) cell.style.background = `rgba(var(--hot), ${column.heat(row)})`;
        line.append(cell);
      }
      line.onclick = () => this.select(row);
      rows.push(line);
    }
    this.space.replaceChildren(...rows);
  }
  select(row) { this.chosen = row; this.draw(); this.choose(row); }
  move(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step || !this.shown.length) return;
    event.preventDefault();
    const at = Math.min(this.shown.length - 1, Math.max(0, this.shown.indexOf(this.chosen) + step));
    const { scrollTop, clientHeight } = this.root;
    if (at * 20 < scrollTop || (at + 1) * 20 > scrollTop + clientHeight - this.head.offsetHeight) this.root.scrollTop = at * 20 - 100;
    this.select(this.shown[at]);
  }
}

// -- where the instructions were executed ----------------------------------------------------------

const regions = new Map(data.regions.map((region) => [region.number, region]));
const share = (row) => (row.samples ? (100 * row.share).toFixed(1) + " %" : "-");
const exitsOf = (row) => (row.exits === undefined ? "" : number(row.exits));
const counted = (row) => (row.executions === undefined ? "-" : number(row.executions));
const placeColumns = [
  { title: "share", rem: 5, number: true, first: true, about: "of the instructions retired, by samples of the program counter", value: (row) => row.share, show: share, heat: (row) => Math.min(.8, row.share) },
  { title: "instructions", rem: 8.5, number: true, about: "retired there, by samples", value: (row) => row.insns, show: (row) => number(row.insns) },
  { title: "where", rem: 14, grow: 1, value: (row) => row.name, show: (row) => row.name + (row.dropped ? "  (dropped: " + row.dropped + ")" : "") },
  { title: "executions", rem: 7.5, number: true, about: "of the block at its entry, in any region, counted with --trace-counts", value: (row) => row.executions || 0, show: counted },
  { title: "exits", rem: 6, number: true, about: "side exits at its instructions, of any region, counted with --trace-counts", value: (row) => row.exits || 0, show: exitsOf },
  { title: "tier", rem: 5, value: (row) => row.tier, show: (row) => row.tier },
  { title: "region", rem: 4, number: true, value: (row) => row.region || 0, show: (row) => (row.region ? "#" + row.region : "") },
  { title: "size", rem: 4, number: true, about: "guest instructions compiled", value: (row) => row.size, show: (row) => row.size || "" },
  { title: "×", rem: 3.5, number: true, about: "bytes of host code for each of guest code", value: (row) => row.expansion, show: (row) => (row.expansion ? row.expansion.toFixed(1) : "") },
  { title: "compile", rem: 5, number: true, value: (row) => row.ms, show: (row) => (row.ms ? row.ms.toFixed(1) + " ms" : "") },
];
const blockColumns = [
  { title: "instructions", rem: 9, number: true, first: true, about: "retired in it, counted with --trace-counts", value: (row) => (row[4] || 0) * row[3], show: (row) => (row[4] === null ? "-" : number(row[4] * row[3])) },
  { title: "executions", rem: 9, number: true, value: (row) => row[4] || 0, show: (row) => (row[4] === null ? "-" : number(row[4])) },
  { title: "where", rem: 14, grow: 1, value: (row) => data.names[row[5]], show: (row) => data.names[row[5]] + (row[6] ? "+" + row[6].toString(16) : "") },
  { title: "address", rem: 7, value: (row) => row[2], show: (row) => hex(row[2]) },
  { title: "region", rem: 4, number: true, value: (row) => row[0], show: (row) => "#" + row[0] },
  { title: "block", rem: 4, number: true, value: (row) => row[1], show: (row) => row[1] },
  { title: "size", rem: 4, number: true, value: (row) => row[3], show: (row) => row[3] },
];
let table;
const fillTable = (kind) => {
  const fresh = $("table").cloneNode(true);
  $("table").replaceWith(fresh);
  table = kind === "blocks" ? new VirtualTable(fresh, blockColumns, (row) => showRegion(row[0], row[1])) : new VirtualTable(fresh, placeColumns, (row) => (row.region ? showRegion(row.region) : hideRegion(row)));
  table.fill(kind === "blocks" ? data.blocks : data.places);
  table.filter($("search").value);
  $("shown").textContent = number(table.shown.length) + " rows";
};
for (const radio of document.getElementsByName("rows")) radio.onchange = () => fillTable(radio.value);

// -- the linked panes --------------------------------------------------------------------------------

const unpack = async (text) => {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
};
let linked = [];
const hideRegion = (row) => {
  $("chosen").hidden = false;
  $("chosen-title").textContent = row.name;
  $("chosen-command").hidden = true;
  $("chosen-about").textContent = row.panes ? "Stitched code: each instruction is a stencil whose holes are filled." : "No region has this code: it ran in the " + row.tier + " tier.";
  linked = [];
  $("panes").replaceChildren();
  if (row.panes) showPanes(row.panes, {}).then(markFound);
};
const showRegion = async (name, block) => {
  const region = regions.get(name);
  $("chosen").hidden = false;
  $("chosen-title").textContent = `#${region.number} ${region.symbol} (${region.identity})`;
  $("chosen-about").textContent = region.about;
  $("chosen-command").hidden = false;
  $("chosen-command").querySelector("code").textContent = region.command;
  linked = [];
  if (!data.panes[name]) {
    $("panes").replaceChildren(make("p", "The panes of this region are not in the page, which has those of the hottest " + number(Object.keys(data.panes).length) + ": write it with more (dbt trace html --regions N), or see dbt trace block.", "hint"));
    return;
  }
  await showPanes(data.panes[name], region.heat);
  const first = linked.find((row) => block !== undefined && row.at && row.at[0] === block);
  if (first) link(first, true);
  markFound();
};
const showPanes = async (text, heats) => {
  const panes = await unpack(text);
  $("panes").replaceChildren(...panes.map((pane) => {
    const box = make("div", undefined, "pane");
    box.dataset.pane = pane.name;
    box.append(make("h3", pane.title));
    for (const [label, text, at, uop, line] of pane.rows) {
      const row = make("div");
      if (label) row.append(make("b", label + "  "));
      row.append(text);
      row.at = at; row.uop = uop; row.line = line;
      if (at === null) row.className = "none";
      const heat = pane.name === "guest" && heats[label];
      if (heat) { row.style.boxShadow = `inset 5px 0 rgba(var(--hot), ${Math.min(1, .15 + heat)})`; row.title = (100 * heat).toFixed(1) + " % of the samples in this region"; }
      row.onmouseenter = () => link(row, false);
      row.onclick = () => link(row, true);
      box.append(row);
      linked.push(row);
    }
    return box;
  }));
};
const link = (from, scroll) => {
  const [block, insn] = from.at || [-1, -1];
  for (const row of linked) {
    const same = from.at && row.at && row.at[0] === block && (insn < 0 || row.at[1] < 0 || row.at[1] === insn);
    row.classList.toggle("insn", Boolean(same));
    row.classList.toggle("uop", Boolean(same && from.uop >= 0 && row.uop === from.uop));
  }
  if (!scroll) return;
  for (const box of $("panes").children) {
    if (box.contains(from)) continue;
    const target = box.querySelector(".uop") || box.querySelector(".insn");
    if (target) box.scrollTop = target.offsetTop - box.offsetTop - box.clientHeight / 3;
  }
};
const markFound = () => {
  const query = $("search").value.toLowerCase();
  for (const row of linked) row.classList.toggle("found", query !== "" && row.textContent.toLowerCase().includes(query));
};

// -- why ------------------------------------------------------------------------------------------------

const why = new VirtualTable($("why"), [
  { title: "kind", rem: 9, value: (row) => row.kind, show: (row) => row.kind },
  { title: "count", rem: 8, number: true, first: true, value: (row) => row.count, show: (row) => number(row.count) },
  { title: "where", rem: 13, grow: 1, value: (row) => row.where, show: (row) => row.where },
  { title: "why", rem: 24, grow: 2, value: (row) => row.text, show: (row) => row.text },
], (row) => { if (row.region) { openTab("hot"); showRegion(row.region); } });

// -- the timeline ------------------------------------------------------------------------------------

const HEIGHT = 530;
const canvas = $("timeline"), pen = canvas.getContext("2d");
let view = [0, data.timeline.end];
const LANES = [["instructions by tier", 110], ["compiled by the worker", 60], ["regions", 34], ["exceptions and interrupts", 60], ["callouts", 60], ["exits of regions", 60], ["device accesses", 40]];
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
const x = (time) => ((time - view[0]) / (view[1] - view[0])) * canvas.clientWidth;
const drawTimeline = () => {
  const scale = window.devicePixelRatio || 1, width = canvas.clientWidth;
  if (!width) return;
  canvas.width = width * scale; canvas.height = HEIGHT * scale;
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, width, HEIGHT);
  pen.font = "11px system-ui";
  let top = 14;
  const lanes = LANES.map(([name, height]) => { const place = [top, height]; pen.fillStyle = color("dim"); pen.fillText(name, 4, top - 2); top += height + 18; return place; });
  const { times, tiers, exceptions, callouts, exits } = data.timeline;
  const step = Math.max(1, Math.floor(times.length / 4000));
  const rate = (series, from, to) => (series[to] - series[from]) / Math.max(1, times[to] - times[from]);
  const stacks = [["region", tiers.region], ["stitched", tiers.stitched], ["threaded", tiers.threaded], ["reference", tiers.reference], ["machine", tiers.machine]];
  const peak = { stack: 1e-9, exceptions: 1e-9, callouts: 1e-9, exits: 1e-9 };
  const spans = [];
  for (let at = 0; at + step < times.length; at += step) {
    if (times[at + step] < view[0] || times[at] > view[1]) continue;
    const values = stacks.map(([, series]) => rate(series, at, at + step));
    spans.push([at, values]);
    peak.stack = Math.max(peak.stack, values.reduce((a, b) => a + b, 0));
    for (const [name, series] of [["exceptions", exceptions], ["callouts", callouts], ["exits", exits]]) peak[name] = Math.max(peak[name], rate(series, at, at + step));
  }
  for (const [at, values] of spans) {
    const left = x(times[at]), right = Math.max(left + .7, x(times[at + step]));
    let base = lanes[0][0] + lanes[0][1];
    values.forEach((value, index) => {
      const height = (value / peak.stack) * lanes[0][1];
      pen.fillStyle = color(stacks[index][0]);
      pen.fillRect(left, base - height, right - left, height);
      base -= height;
    });
    [["exceptions", exceptions, 3], ["callouts", callouts, 4], ["exits", exits, 5]].forEach(([name, series, lane]) => {
      const height = (rate(series, at, at + step) / peak[name]) * lanes[lane][1];
      pen.fillStyle = color("accent");
      pen.fillRect(left, lanes[lane][0] + lanes[lane][1] - height, right - left, height);
    });
  }
  data.timeline.compiled.forEach(([asked, from, to, name], index) => {
    pen.fillStyle = color("region");
    const y = lanes[1][0] + (index % 5) * 12;
    pen.globalAlpha = .35; pen.fillRect(x(asked), y + 3, Math.max(1, x(from) - x(asked)), 4);
    pen.globalAlpha = 1; pen.fillRect(x(from), y, Math.max(1.5, x(to) - x(from)), 10);
  });
  const bins = new Float64Array(Math.ceil(width));
  for (const time of data.timeline.devices) if (time >= view[0] && time <= view[1]) bins[Math.min(bins.length - 1, Math.floor(x(time)))]++;
  const most = Math.max(1, ...bins);
  pen.fillStyle = color("accent");
  bins.forEach((count, at) => { if (count) { const height = Math.max(1, (count / most) * lanes[6][1]); pen.fillRect(at, lanes[6][0] + lanes[6][1] - height, 1, height); } });
  for (const [time, kind] of data.timeline.marks) {
    pen.fillStyle = color({ installed: "region", kept: "accent", dropped: "threaded" }[kind] || "machine");
    pen.fillRect(x(time), lanes[2][0], 1.5, lanes[2][1]);
  }
  pen.fillStyle = color("dim");
  pen.fillText((view[0] / 1e6).toFixed(2) + " ms", 4, HEIGHT - 4);
  const end = (view[1] / 1e6).toFixed(2) + " ms";
  pen.fillText(end, width - pen.measureText(end).width - 4, HEIGHT - 4);
  pen.fillText(number(Math.round(peak.stack * 1000)) + " M instructions/s", width - 190, lanes[0][0] + 10);
};
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  const at = view[0] + (event.offsetX / canvas.clientWidth) * (view[1] - view[0]), zoom = event.deltaY < 0 ? .8 : 1.25;
  view = [Math.max(0, at - (at - view[0]) * zoom), Math.min(data.timeline.end, at + (view[1] - at) * zoom)];
  drawTimeline();
}, { passive: false });
let dragged = null;
canvas.addEventListener("pointerdown", (event) => { dragged = [event.offsetX, ...view]; canvas.setPointerCapture(event.pointerId); });
canvas.addEventListener("pointerup", () => { dragged = null; });
canvas.addEventListener("pointermove", (event) => {
  const time = view[0] + (event.offsetX / canvas.clientWidth) * (view[1] - view[0]);
  const near = data.timeline.compiled.find(([asked, , to]) => asked <= time && time <= to);
  $("timeline-at").textContent = (time / 1e6).toFixed(3) + " ms" + (near ? ", compiling " + near[3] : "");
  if (!dragged) return;
  const shift = ((dragged[0] - event.offsetX) / canvas.clientWidth) * (dragged[2] - dragged[1]);
  const move = Math.min(Math.max(shift, -dragged[1]), data.timeline.end - dragged[2]);
  view = [dragged[1] + move, dragged[2] + move];
  drawTimeline();
});
canvas.addEventListener("dblclick", () => { view = [0, data.timeline.end]; drawTimeline(); });
window.addEventListener("resize", drawTimeline);

// -- memory -------------------------------------------------------------------------------------------

const mappings = (title, rows, host) => {
  const box = make("div"), table_ = make("table"), head = make("tr");
  for (const name of ["GVA", "size", "GPA", ...(host ? ["host"] : []), "rights"]) head.append(make("th", name));
  table_.append(head);
  for (const [gva, gpa, size, rights] of rows) {
    const row = make("tr"), inRam = gpa + size <= data.memory.ram;
    for (const text of [hex(gva), size >= 1048576 && size % 1048576 === 0 ? size / 1048576 + " MB" : size / 1024 + " KB", hex(gpa), ...(host ? [inRam ? "RAM + " + hex(gpa) : "device"] : []), rights]) row.append(make("td", text));
    table_.append(row);
  }
  box.append(make("h2", title), rows.length ? table_ : make("p", "Nothing.", "hint"));
  return box;
};
const drawMemory = () => {
  if ($("memory").firstChild) return;
  const { guest, shadow, registers } = data.memory;
  if (!registers) { $("memory").textContent = "The trace ends before the memory was written down."; return; }
  const guestBox = mappings("the guest's page tables", guest, false);
  guestBox.append(make("p", Object.entries(registers).map(([name, value]) => `${name} ${hex(value)}`).join("  "), "hint"));
  const box = make("div");
  for (const space of shadow) if (space.mappings.length) box.append(mappings(`shadow page tables, address space ${space.space}${space.current ? " (current)" : ""}`, space.mappings, true));
  if (!box.firstChild) box.append(make("p", guest.length ? "No shadow page table is filled." : "The MMU is off: addresses are physical.", "hint"));
  $("memory").append(guestBox, box);
};

// -- the page ----------------------------------------------------------------------------------------

const openTab = (name) => {
  for (const tab of document.querySelectorAll("nav button")) {
    tab.setAttribute("aria-selected", tab.dataset.tab === name);
    $("tab-" + tab.dataset.tab).hidden = tab.dataset.tab !== name;
  }
  ({ timeline: drawTimeline, graph: drawGraph, memory: drawMemory, why: () => why.draw(), hot: () => table.draw() }[name] || (() => {}))();
};
for (const tab of document.querySelectorAll("nav button")) tab.onclick = () => openTab(tab.dataset.tab);
$("search").addEventListener("input", () => {
  table.filter($("search").value);
  why.filter($("search").value);
  $("shown").textContent = number(table.shown.length) + " rows";
  markFound();
  markGraph();
});
$("theme").onclick = () => {
  const root = document.documentElement, dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  drawTimeline();
};
const begin = () => {
  why.fill(data.why);
  fillTable("places");
  openTab("hot");
  const first = data.places.find((place) => place.region);
  if (first) { table.chosen = first; table.draw(); showRegion(first.region); }
  document.documentElement.dataset.ready = "yes";
};

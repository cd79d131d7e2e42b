"use strict";
// The graph of regions: which are drawn, where, and what is told of the chosen one. A node is a region or a symbol outside;
// an edge is [source, target, count or null, whether that is exact, descriptions of its instructions], ends by number.

const CHARACTER = 7.3, CELL = 24, GAP = 8;
const svg = (tag, attributes = {}, ...children) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
};
const graphState = { scale: 0, chosen: null, root: null, drawn: new Map(), lines: [], natural: [0, 0] };

// Of the nodes that are shown the two-way edges worth drawing: those that carry a twentieth of what an end of them does.
const pairsOf = (shown) => {
  const pairs = new Map(), traffic = new Map();
  for (const [from, to, count] of data.graph.edges) {
    if (from === to || !shown.has(from) || !shown.has(to)) continue;
    const key = Math.min(from, to) + " " + Math.max(from, to);
    const pair = pairs.get(key) || { a: Math.min(from, to), b: Math.max(from, to), forth: false, back: false, weight: 0 };
    if (from === pair.a) pair.forth = true; else pair.back = true;
    pair.weight += count || 0;
    pairs.set(key, pair);
    for (const end of [from, to]) traffic.set(end, (traffic.get(end) || 0) + (count || 0));
  }
  const all = [...pairs.values()].sort((p, q) => q.weight - p.weight), connected = new Set();
  const kept = all.filter((pair) => {
    const much = pair.weight >= .05 * Math.min(traffic.get(pair.a), traffic.get(pair.b));
    const first = !connected.has(pair.a) || !connected.has(pair.b);
    pair.strong = much && (pair.weight > 0 || !data.graph.counted);
    if (!pair.strong && !first) return false;
    connected.add(pair.a); connected.add(pair.b);
    return true;
  });
  return [kept, all.length - kept.length];
};

// Nodes with the same strong ways are put into one box, and so are those without any way: a list of node numbers a box.
const boxesOf = (shown, pairs) => {
  const ways = new Map([...shown].map((node) => [node, []]));
  for (const { a, b, forth, back, strong } of pairs) {
    if (!strong) continue;
    ways.get(a).push(b + (forth ? ">" : "") + (back ? "<" : ""));
    ways.get(b).push(a + (back ? ">" : "") + (forth ? "<" : ""));
  }
  const alike = new Map();
  for (const [node, list] of ways) {
    const key = list.sort().join();
    if (!alike.has(key)) alike.set(key, []);
    alike.get(key).push(node);
  }
  const boxes = [];
  const connected = new Set(pairs.flatMap(({ a, b }) => [a, b])), alone = (alike.get("") || []).filter((node) => !connected.has(node));
  alike.set("", (alike.get("") || []).filter((node) => connected.has(node)));
  if (alone.length) boxes.push(alone);
  for (const [key, nodes] of alike) {
    if (nodes.length >= 4 && key) boxes.push(nodes); else nodes.forEach((node) => boxes.push([node]));
  }
  return boxes;
};

const sizeOf = (box, room) => {
  const widest = Math.max(...box.map((node) => 10 + CHARACTER * data.graph.nodes[node].label.length));
  if (box.length === 1) return { cell: widest, columns: 1, width: widest, height: CELL };
  const columns = Math.max(1, Math.min(Math.ceil(Math.sqrt(box.length * (CELL + GAP) / (widest + GAP))), Math.floor((room - GAP) / (widest + GAP))));
  const rows = Math.ceil(box.length / columns);
  return { cell: widest, columns, width: columns * (widest + GAP) + GAP, height: rows * (CELL + GAP) + GAP };
};

const curve = (points) => {
  const at = (point) => `${point.x.toFixed(1)},${point.y.toFixed(1)}`;
  let path = "M" + at(points[0]);
  for (let n = 1; n + 1 < points.length; n++) {
    const next = points[n + 1], end = n + 2 === points.length ? next : { x: (points[n].x + next.x) / 2, y: (points[n].y + next.y) / 2 };
    path += "Q" + at(points[n]) + " " + at(end);
  }
  return points.length > 2 ? path : path + "L" + at(points[1]);
};

const drawNode = (number, x, y, width) => {
  const node = data.graph.nodes[number];
  const group = svg("g", { class: "node" + (node.region === null ? " outside" : ""), tabindex: 0, role: "button" });
  const box = svg("rect", { x, y, width, height: CELL, rx: 4 }), text = svg("text", { x: x + width / 2, y: y + 16, "text-anchor": "middle" });
  if (node.share) box.style.fill = `rgba(var(--hot), ${Math.min(.8, node.share)})`;
  text.textContent = node.label;
  const title = svg("title");
  title.textContent = node.region === null ? "in no region" : (100 * node.share).toFixed(1) + " % of the instructions";
  group.append(box, text, title);
  group.addEventListener("click", (event) => { event.stopPropagation(); chooseNode(number); });
  group.addEventListener("dblclick", () => openRegion(node));
  group.addEventListener("keydown", (event) => { if (event.key === "Enter") chooseNode(number); });
  graphState.drawn.set(number, group);
  return group;
};

const layOutGraph = () => {
  const { nodes, left } = data.graph, most = Number($("graph-size").value);
  const inside = nodes.map((node, number) => number).filter((number) => nodes[number].region !== null).slice(0, most);
  const shown = new Set(inside);
  for (const [from, to] of data.graph.edges) {
    if (shown.has(from) && nodes[to].region === null) shown.add(to);
    if (shown.has(to) && nodes[from].region === null) shown.add(from);
  }
  const [pairs, faint] = pairsOf(shown), boxes = boxesOf(shown, pairs), room = Math.max(400, $("graph").clientWidth - 40);
  const regionsLeft = left + nodes.filter((node) => node.region !== null).length - inside.length;
  $("graph-note").textContent = [regionsLeft ? `${number(regionsLeft)} regions are not shown.` : "", faint ? `${number(faint)} faint ways are not drawn; the chosen node lists them.` : ""].join(" ");
  const graph = new dagre.graphlib.Graph().setGraph({ nodesep: 16, ranksep: 46, marginx: 10, marginy: 10 }).setDefaultEdgeLabel(() => ({}));
  const boxOf = new Map();
  boxes.forEach((box, at) => {
    graph.setNode(String(at), { ...sizeOf(box, room), box });
    box.forEach((node) => boxOf.set(node, at));
  });
  const lines = new Map();
  for (const pair of pairs) {
    const key = [boxOf.get(pair.a), boxOf.get(pair.b)].join(" ");
    if (boxOf.get(pair.a) === boxOf.get(pair.b)) continue;
    const line = lines.get(key) || { ends: [boxOf.get(pair.a), boxOf.get(pair.b)], pairs: [], weight: 0 };
    line.pairs.push(pair);
    line.weight += pair.weight;
    lines.set(key, line);
  }
  for (const line of lines.values()) graph.setEdge(String(line.ends[0]), String(line.ends[1]), { line });
  dagre.layout(graph);
  drawLayout(graph, Math.max(1, ...[...lines.values()].map((line) => line.weight)));
};

const drawLayout = (graph, heaviest) => {
  const { width, height } = graph.graph();
  graphState.natural = [width, height];
  graphState.drawn = new Map();
  graphState.lines = [];
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}` });
  const arrow = svg("marker", { id: "arrow", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 9, markerHeight: 9, markerUnits: "userSpaceOnUse", orient: "auto-start-reverse" }, svg("path", { d: "M0,0L8,4L0,8Z" }));
  root.append(svg("defs", {}, arrow));
  for (const edge of graph.edges()) {
    const { points, line } = graph.edge(edge), path = svg("path", { d: curve(points), class: "way" });
    path.style.strokeWidth = 1 + 3 * Math.sqrt(line.weight / heaviest);
    if (line.pairs.some((pair) => pair.forth)) path.setAttribute("marker-end", "url(#arrow)");
    if (line.pairs.some((pair) => pair.back)) path.setAttribute("marker-start", "url(#arrow)");
    graphState.lines.push([path, line]);
    root.append(path);
  }
  for (const id of graph.nodes()) {
    const { x, y, width: w, height: h, box, cell, columns } = graph.node(id), left = x - w / 2, top = y - h / 2;
    if (box.length === 1) { root.append(drawNode(box[0], left, top, w)); continue; }
    root.append(svg("rect", { class: "box", x: left, y: top, width: w, height: h, rx: 6 }));
    box.forEach((node, at) => root.append(drawNode(node, left + GAP + (at % columns) * (cell + GAP), top + GAP + Math.floor(at / columns) * (CELL + GAP), cell)));
  }
  root.addEventListener("click", () => chooseNode(null));
  graphState.root = root;
  $("graph").replaceChildren(root);
  zoomGraph(0);
  chooseNode(null);
  markGraph();
};

const zoomGraph = (factor) => {
  const [width, height] = graphState.natural, fit = Math.min(1, Math.max(.7, ($("graph").clientWidth - 4) / width));
  graphState.scale = factor ? Math.min(3, Math.max(.2, graphState.scale * factor)) : fit;
  graphState.root.setAttribute("width", width * graphState.scale);
  graphState.root.setAttribute("height", height * graphState.scale);
};

const openRegion = (node) => { if (node.region !== null) { openTab("hot"); showRegion(node.region); } };

const chooseNode = (chosen) => {
  graphState.chosen = chosen;
  const ways = chosen === null ? [] : data.graph.edges.filter(([from, to]) => from === chosen || to === chosen);
  const near = new Set(ways.flatMap(([from, to]) => [from, to]));
  for (const [number, group] of graphState.drawn) {
    group.classList.toggle("chosen", number === chosen);
    group.classList.toggle("far", chosen !== null && number !== chosen && !near.has(number));
  }
  for (const [path, line] of graphState.lines) path.classList.toggle("far", chosen !== null && !line.pairs.some((pair) => pair.a === chosen || pair.b === chosen));
  $("graph-chosen").replaceChildren(...(chosen === null ? [] : describeNode(chosen, ways)));
};

const describeNode = (chosen, ways) => {
  const node = data.graph.nodes[chosen], title = make("h2", node.label);
  const about = make("p", node.region === null ? "This code is in no region." : (100 * node.share).toFixed(1) + " % of the instructions. ", "hint");
  if (node.region !== null) {
    const button = make("button", "show its stages");
    button.onclick = () => openRegion(node);
    about.append(button);
  }
  return [title, about, wayTable("Control goes from here to", ways, chosen, 0), wayTable("Control comes here from", ways, chosen, 1)].filter(Boolean);
};

const wayTable = (heading, ways, chosen, end) => {
  const rows = ways.filter((way) => way[end] === chosen).sort((a, b) => (b[2] || 0) - (a[2] || 0));
  if (!rows.length) return null;
  const table = make("table"), box = make("div");
  for (const [from, to, count, exact, sites] of rows) {
    const other = end ? from : to, row = make("tr"), name = make("button", data.graph.nodes[other].label);
    name.onclick = () => { if (graphState.drawn.has(other)) chooseNode(other); };
    const cell = make("td");
    cell.append(name);
    row.append(make("td", count === null ? "?" : (exact ? "" : "about ") + number(count), "n"), cell, make("td", sites.join("; ")));
    table.append(row);
  }
  box.append(make("h3", `${heading} ${number(rows.length)} ${rows.length === 1 ? "place" : "places"}`), table);
  return box;
};

const markGraph = () => {
  const query = $("search").value.toLowerCase();
  for (const [number, group] of graphState.drawn) group.classList.toggle("found", query !== "" && data.graph.nodes[number].label.toLowerCase().includes(query));
};

const drawGraph = () => {
  if ($("graph").firstChild) return;
  if (!data.graph.nodes.length) { $("graph").textContent = "No region was made."; return; }
  layOutGraph();
};
$("graph-size").onchange = layOutGraph;
$("graph-in").onclick = () => zoomGraph(1.25);
$("graph-out").onclick = () => zoomGraph(.8);
$("graph-fit").onclick = () => zoomGraph(0);
begin();

// Who talks to whom: drawn, and as a table.

import { h, named, settle, svg, visible } from "./dom.js";
import { follow } from "./api.js";
import { bytes, count, plural } from "./format.js";
import { BOX, layout } from "./layout.js";
import { reporting } from "./lists.js";

const MARGIN = 18;

export function map(main) {
  const about = h("p", { class: "note-line", hidden: true });
  const picture = h("div", { class: "card mapbox", tabindex: "0", role: "region", "aria-label": "Map of who talks to whom; the table below says the same" });
  const rows = h("tbody");
  const hidden = h("p", { class: "note-line", hidden: true });
  main.append(
    h("div", { class: "head" }, h("h1", { tabindex: "-1" }, "Map")), about, hidden, picture,
    h("section", { class: "card", "aria-label": "Who talks to whom" }, h("h2", {}, "Who talks to whom"),
      h("table", { class: "plain" },
        h("thead", {}, h("tr", {}, ["From", "To", "Ports"].map((text) => h("th", { scope: "col" }, text)),
          ["Connections", "Traffic"].map((text) => h("th", { scope: "col", class: "num" }, text)))),
        rows)));
  let drawn = null;
  return follow("map", {}, show, () => {});

  function show(data) {
    const { groups, edges } = data.list;
    reporting(about, data.cluster);
    hidden.hidden = data.list.hidden === 0;
    hidden.textContent = `The busiest are drawn; ${plural(data.list.hidden, "other is", "others are")} taken together.`;
    const shape = JSON.stringify([groups.map((g) => [g.key, g.name]), edges.map((e) => [e.from, e.to])]);
    if (drawn?.shape !== shape) {
      drawn = draw(groups, edges);
      drawn.shape = shape;
      picture.replaceChildren(groups.length ? drawn.node : h("p", { class: "nothing" }, "Nobody talks to anybody that is known of."));
    }
    drawn.update(groups, edges);
    const names = new Map(groups.map((group) => [group.key, group]));
    const sorted = [...edges].sort((a, b) => (b.bytes ?? 0) - (a.bytes ?? 0) || b.flows - a.flows);
    settle(rows, sorted.map((edge) => h("tr", {},
      h("td", {}, linked(names.get(edge.from))), h("td", {}, linked(names.get(edge.to))),
      h("td", {}, edge.ports.join(", "), edge.more_ports ? ` and ${edge.more_ports} more` : ""),
      h("td", { class: "num" }, count(edge.flows)), h("td", { class: "num" }, bytes(edge.bytes)))));
    if (!edges.length) settle(rows, [h("tr", {}, h("td", { colspan: "5", class: "quiet-text" }, "No connections are known of."))]);
  }
}

const target = (group) =>
  group.kind === "service" ? `#/service/${encodeURIComponent(group.id)}`
    : group.kind === "task" ? `#/tasks?q=id:${encodeURIComponent(group.id)}` : null;

function linked(group) {
  const href = group && target(group);
  return href ? h("a", { href }, named(group.name)) : visible(group?.name ?? "");
}

const cut = (text, length) => (text.length > length ? `${text.slice(0, length - 1)}…` : text);

function draw(groups, edges) {
  const { width, height, boxes } = layout(groups, edges);
  const [w, t] = [width + 2 * MARGIN, height + 2 * MARGIN];
  const node = svg("svg", { width: w, height: t, viewBox: `${-MARGIN} ${-MARGIN} ${w} ${t}`, role: "group", "aria-label": "Services and their connections" });
  const lines = edges.map((edge) => {
    const path = svg("path", { class: "edge", d: curve(boxes.get(edge.from), boxes.get(edge.to)), "aria-hidden": "true" });
    const label = svg("text", { class: "rate", "aria-hidden": "true", ...middle(boxes.get(edge.from), boxes.get(edge.to)) });
    return { edge, path, label };
  });
  node.append(...lines.map((line) => line.path));
  const places = new Map();
  for (const group of groups) {
    const { x, y } = boxes.get(group.key);
    const small = svg("text", { class: "small", x: x + 12, y: y + 37 });
    const box = svg("g", {}, svg("rect", { x, y, width: BOX.width, height: BOX.height, rx: 7 }),
      svg("text", { x: x + 12, y: y + 20 }, svg("title", {}, visible(group.name)), cut(visible(group.name), 18)), small);
    const href = target(group);
    const whole = href ? svg("a", { href, "aria-label": visible(group.name) }, box) : box;
    const pick = (on) => () => {
      node.classList.toggle("picked", on);
      for (const { edge, path, label } of lines) {
        const mine = on && (edge.from === group.key || edge.to === group.key);
        path.classList.toggle("on", mine);
        label.classList.toggle("on", mine);
      }
    };
    for (const [event, on] of [["mouseenter", true], ["mouseleave", false], ["focusin", true], ["focusout", false]]) whole.addEventListener(event, pick(on));
    places.set(group.key, { box, small });
    node.append(whole);
  }
  node.append(...lines.map((line) => line.label));

  function update(groupsNow, edgesNow) {
    for (const group of groupsNow) {
      const { box, small } = places.get(group.key);
      box.setAttribute("class", `box ${group.kind} ${group.state}`);
      const text = group.kind === "service" ? `${plural(group.tasks, "task", "tasks")}${group.state && group.state !== "healthy" ? ` · ${group.state}` : ""}`
        : group.kind === "task" ? "task of its own" : group.kind === "outside" ? "not of the mesh" : "taken together";
      const shown = cut(text, 24);
      if (small.textContent !== shown) small.textContent = shown;
    }
    edgesNow.forEach((edge, at) => {
      const { path, label } = lines[at];
      path.style.strokeWidth = String(1.2 + Math.min(3.6, 0.6 * Math.log10(1 + (edge.bytes ?? 0) / 100)));
      path.classList.toggle("busy", (edge.bytes ?? 0) > 0);
      const text = edge.bytes ? bytes(edge.bytes) : plural(edge.flows, "flow", "flows");
      if (label.textContent !== text) label.textContent = text;
    });
  }
  return { node, update };
}

function curve(from, to) {
  if (from === to) {
    const [x, y] = [from.x + BOX.width / 2, from.y];
    return `M${x - 22} ${y}C${x - 34} ${y - 26} ${x + 34} ${y - 26} ${x + 22} ${y}`;
  }
  const [x, y] = [from.x + BOX.width, from.y + BOX.height / 2];
  const [u, v] = [to.x, to.y + BOX.height / 2];
  const bend = Math.max(46, Math.abs(u - x) / 2);
  return `M${x} ${y}C${x + bend} ${y} ${u - bend} ${v} ${u} ${v}`;
}

function middle(from, to) {
  if (from === to) return { x: from.x + BOX.width / 2, y: from.y - 10 };
  return { x: (from.x + BOX.width + to.x) / 2, y: (from.y + to.y + BOX.height) / 2 + 4 };
}

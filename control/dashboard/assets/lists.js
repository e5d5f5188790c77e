// The pages that are lists.

import { h, named, pill, tags, visible } from "./dom.js";
import { list } from "./list.js";
import { session } from "./api.js";
import { button, make } from "./changes.js";
import { clock, count, drops, millis, plural, traffic } from "./format.js";

const link = (path, words, text) => h("a", { href: `#/${path}?q=${encodeURIComponent(words)}` }, text);
const serviceLink = (id, name) => (id ? h("a", { href: `#/service/${encodeURIComponent(id)}` }, named(name)) : "–");

// Values of filters end at blanks.
export const word = (text) => text.split(/\s/)[0];

const rate = { key: "rate", title: "Traffic", sort: "rate", num: true, width: "110px", cell: (row) => traffic(row.rates) };
const dropped = { key: "drops", title: "Drops", sort: "drops", num: true, width: "90px", cell: (row) => drops(row.rates) };
const latency = { key: "latency", title: "Latency", sort: "latency", num: true, width: "95px", cell: (row) => millis(row.latency_ms) };

function page(title, options) {
  return (main, place) => {
    const about = h("p", { class: "note-line", hidden: true });
    const shown = list({ place, ...options(), data: (data) => reporting(about, data.cluster) });
    main.append(h("div", { class: "head" }, h("h1", { tabindex: "-1" }, title)), about, shown.node);
    return shown;
  };
}

// Says why there are no rates (yet).
export function reporting(line, cluster) {
  const missing = cluster.nodes - cluster.reporting;
  const text = missing > 0 && cluster.reporting > 0
    ? `${plural(missing, "node reports", "nodes report")} no rates.`
    : missing > 0 ? "No node has reported rates yet." : "";
  line.hidden = !text;
  if (line.textContent !== text) line.textContent = text;
}

export const nodes = page("Nodes", () => ({
  view: "nodes", what: "nodes", hint: "Filter: a name, status:down, role:manager …",
  columns: [
    { key: "name", title: "Name", sort: "name", cell: (row) => link("tasks", `node:${word(row.name)}`, named(row.name)) },
    { key: "status", title: "Status", sort: "status", width: "120px", cell: (row) => pill(row.status) },
    { key: "role", title: "Role", sort: "role", width: "95px", cell: (row) => row.role },
    { key: "availability", title: "Availability", sort: "availability", width: session.write ? "210px" : "120px", cell: availability },
    { key: "address", title: "Address", sort: "address", width: "150px", cell: (row) => named(row.address) },
    { key: "tasks", title: "Tasks", sort: "tasks", num: true, width: "80px", cell: (row) => count(row.tasks) },
    rate, dropped, latency,
  ],
}));

function availability(row) {
  if (!session.write) return pill(row.availability);
  const to = row.availability === "active" ? "drain" : "active";
  const name = visible(row.name);
  return h("span", { class: "inline" }, pill(row.availability),
    button(to === "drain" ? "Drain" : "Activate", {
      name: to === "drain" ? `Drain ${name}` : `Activate ${name}`,
      question: to === "drain" ? `Drain node ${name}? Its tasks get no new connections and end those that they have.` : null,
    }, { do: "availability", node: row.id, availability: to }));
}

export const networks = page("Networks", () => ({
  view: "networks", what: "networks", hint: "Filter: a name, a subnet, is:internal …",
  columns: [
    { key: "name", title: "Name", sort: "name", cell: (row) => link("tasks", `network:${word(row.name)}`, named(row.name)) },
    { key: "subnets", title: "Subnets", sort: "subnets", cell: (row) => row.subnets.map((each) => [named(each), " "]) },
    { key: "vni", title: "VNI", sort: "vni", num: true, width: "90px", cell: (row) => String(row.vni) },
    { key: "traits", title: "Kind", width: "180px", cell: (row) => tags(row.traits) },
    { key: "services", title: "Services", sort: "services", num: true, width: "90px", cell: (row) => link("services", `network:${word(row.name)}`, count(row.services)) },
    { key: "tasks", title: "Tasks", sort: "tasks", num: true, width: "80px", cell: (row) => count(row.tasks) },
    rate,
  ],
}));

export const services = page("Services", () => ({
  view: "services", what: "services", hint: "Filter: a name, state:degraded, port:8080 …",
  columns: [
    { key: "name", title: "Name", sort: "name", cell: (row) => serviceLink(row.id, row.name) },
    { key: "state", title: "Health", sort: "state", width: "120px", cell: (row) => pill(row.state) },
    { key: "tasks", title: "Tasks", sort: "tasks", num: true, width: "90px", cell: (row) => `${count(row.serving)} / ${count(row.tasks)}` },
    { key: "ports", title: "Ports", sort: "ports", width: "190px", cell: (row) => tags(row.ports.map((port) => port.text)) },
    { key: "networks", title: "Networks", width: "170px", cell: (row) => tags(row.networks) },
    rate, dropped, latency,
  ],
}));

const taskName = { key: "name", title: "Name", sort: "name", cell: (row) => named(row.name) };
const taskState = {
  key: "state", title: "Health", sort: "state", width: "120px",
  cell: (row) => pill(row.state === "ready" ? row.health || "ready" : row.state, row.note),
};
const taskNode = { key: "node", title: "Node", sort: "node", width: "130px", cell: (row) => link("nodes", `name:${word(row.node)}`, named(row.node)) };
const taskAddresses = { key: "addresses", title: "Addresses", sort: "addresses", width: "170px", cell: (row) => row.addresses.map((each) => [named(each), " "]) };

export const tasks = page("Tasks", () => ({
  view: "tasks", what: "tasks", hint: "Filter: a name, node:n1, health:unhealthy …",
  columns: [
    taskName, taskState,
    { key: "service", title: "Service", sort: "service", width: "150px", cell: (row) => serviceLink(row.service_id, row.service) },
    taskNode, taskAddresses,
    { key: "weight", title: "Weight", sort: "weight", num: true, width: "85px", cell: (row) => String(row.weight) },
    rate, dropped, latency,
  ],
}));

// The tasks of one service, with what can be done to each.
export function tasksOf(id, place, data, gone) {
  const columns = [
    taskName, taskState, taskNode, taskAddresses,
    { key: "weight", title: "Weight", sort: "weight", num: true, width: session.write ? "150px" : "85px", cell: weight },
    rate, dropped, latency,
  ];
  if (session.write) columns.push({ key: "do", title: "Actions", width: "95px", cell: drain });
  return list({
    view: `service/${encodeURIComponent(id)}`, place, what: "tasks", hint: "Filter: a name, node:n1 …",
    columns, pick: (all) => all.tasks, data, gone,
  });
}

function weight(row) {
  if (!session.write) return String(row.weight);
  const name = visible(row.name);
  const field = h("input", { type: "number", min: "1", max: "100", value: row.weight, "aria-label": `Weight of ${name}` });
  const set = async (event) => {
    event.preventDefault();
    if (field.reportValidity()) await make({ do: "weight", task: row.id, weight: Number(field.value) });
  };
  return h("form", { class: "inline", onsubmit: set }, field, h("button", { class: "quiet", "aria-label": `Set the weight of ${name}` }, "Set"));
}

function drain(row) {
  if (row.state !== "ready") return "";
  const name = visible(row.name);
  return button("Drain", {
    danger: true, name: `Drain ${name}`,
    question: `Drain task ${name}? It gets no new connections, and cannot be taken back: it ends as a backend.`,
  }, { do: "drain", task: row.id });
}

export const events = page("Events", () => ({
  view: "events", what: "events", hint: "Filter: a name, kind:service, action:remove …",
  columns: [
    { key: "name", title: "Name", sort: "name", cell: (row) => named(row.name) },
    { key: "time", title: "Time", sort: "time", width: "160px", cell: (row) => h("span", { class: "mono" }, clock(row.time)) },
    { key: "kind", title: "Kind", sort: "kind", width: "100px", cell: (row) => row.kind },
    { key: "action", title: "What", sort: "action", width: "100px", cell: (row) => row.action },
    { key: "detail", title: "Details", width: "46%", cell: (row) => named(row.detail) },
  ],
}));

// Rows of events in a small table.
export function eventRows(all) {
  return all.map((event) => h("tr", {},
    h("td", { class: "mono time" }, clock(event.time)),
    h("td", {}, `${event.kind} ${event.action}`),
    h("td", {}, named(event.name))));
}

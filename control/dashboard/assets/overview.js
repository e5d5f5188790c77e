// The first page: whether all is well, what passes, what is lost, what happened.

import { h, named, pill, settle } from "./dom.js";
import { follow } from "./api.js";
import { count, drops, perSecond, plural, traffic } from "./format.js";
import { eventRows, reporting } from "./lists.js";
import { Spark } from "./spark.js";

export function overview(main) {
  const about = h("p", { class: "note-line", hidden: true });
  const tiles = h("div", { class: "tiles" });
  const problems = h("ul", { class: "problems", "aria-label": "Problems" });
  const fine = h("p", { class: "fine", hidden: true }, "Everything is well.");
  const more = h("p", { class: "quiet-text", hidden: true });
  const spark = new Spark("Traffic of all tasks");
  const total = h("div", { class: "tile" });
  const busiest = h("tbody");
  const lost = h("tbody");
  const happened = h("tbody");
  main.append(
    h("div", { class: "head" }, h("h1", { tabindex: "-1" }, "Overview")), about, tiles,
    h("div", { class: "grid" },
      h("section", { class: "card", "aria-label": "Health" }, h("h2", {}, "Health"), problems, fine, more),
      h("section", { class: "card", "aria-label": "Traffic" }, h("h2", {}, "Traffic"), total, spark.node)),
    h("div", { class: "grid" },
      section("Busiest services", [["Service"], ["Health"], ["Traffic", "num"], ["Drops", "num"]], busiest),
      section("Dropped packets", [["Reason"], ["Rate", "num"], ["In all", "num"]], lost)),
    section("Last events", [["Time"], ["What"], ["Name"]], happened));

  return follow("overview", {}, show, () => {});

  function show(data) {
    const { cluster } = data;
    const all = Object.values(data.nodes).reduce((a, b) => a + b, 0);
    reporting(about, { nodes: all, reporting: cluster.reporting });
    settle(tiles, [
      tile("Nodes", "nodes", all, data.nodes, "ready", "status"),
      tile("Services", "services", sum(data.services), data.services, "healthy", "state"),
      tile("Tasks", "tasks", sum(data.tasks), data.tasks, "serving", "health"),
      h("a", { class: "card tile", href: "#/networks" },
        h("div", { class: "name" }, "Networks"), h("div", { class: "value" }, count(data.networks)), h("div", { class: "more" })),
      h("div", { class: "card tile" },
        h("div", { class: "name" }, "Leader"),
        h("div", { class: "value" }, cluster.leader ? named(cluster.leader) : "none"),
        h("div", { class: "more" }, "this page: ", named(cluster.manager))),
    ]);
    settle(problems, data.problems.map((problem) =>
      h("li", { class: problem.severity }, problem.link ? h("a", { href: problem.link }, named(problem.text)) : named(problem.text))));
    problems.hidden = data.problems.length === 0;
    fine.hidden = data.problems.length > 0;
    more.hidden = data.more_problems === 0;
    more.textContent = `and ${plural(data.more_problems, "more", "more")}`;
    const { rates } = data;
    settle(total, [
      h("div", { class: "value" }, traffic(rates)),
      h("div", { class: "more" }, rates
        ? `packets ${perSecond(rates.packets_in + rates.packets_out)}, new flows ${perSecond(rates.flows)}, drops ${drops(rates)}`
        : "no rates yet"),
    ]);
    if (rates) spark.add(rates.bytes_in, rates.bytes_out);
    settle(busiest, data.busiest.map((service) => h("tr", {},
      h("td", {}, h("a", { href: `#/service/${encodeURIComponent(service.id)}` }, named(service.name))),
      h("td", {}, pill(service.state)),
      h("td", { class: "num" }, traffic(service.rates)),
      h("td", { class: "num" }, drops(service.rates)))));
    if (!data.busiest.length) settle(busiest, [empty(4, "There are no services yet.")]);
    settle(lost, data.drops.map((drop) => h("tr", {},
      h("td", {}, drop.reason),
      h("td", { class: "num" }, perSecond(drop.rate)),
      h("td", { class: "num" }, count(drop.total)))));
    if (!data.drops.length) settle(lost, [empty(3, "None.")]);
    settle(happened, data.events.length ? eventRows(data.events) : [empty(3, "Nothing since this manager started.")]);
  }
}

const sum = (counts) => Object.values(counts).reduce((a, b) => a + b, 0);
const empty = (columns, text) => h("tr", {}, h("td", { colspan: columns, class: "quiet-text" }, text));

function section(title, heads, body) {
  return h("section", { class: "card", "aria-label": title }, h("h2", {}, title),
    h("table", { class: "plain" },
      h("thead", {}, h("tr", {}, heads.map(([text, kind]) => h("th", { scope: "col", class: kind }, text)))), body));
}

function tile(title, page, all, counts, well, field) {
  const others = Object.entries(counts).filter(([word]) => word !== well);
  const bad = others[0]?.[0];
  const path = bad && !(field === "health" && bad === "draining") ? `#/${page}?q=${field}:${bad}` : `#/${page}`;
  return h("a", { class: "card tile", href: path },
    h("div", { class: "name" }, title),
    h("div", { class: "value" }, count(all)),
    h("div", { class: "more" }, others.length ? others.map(([word, n]) => [h("span", { class: "many" }, `${count(n)} `, pill(word)), " "]) : all ? `all ${well}` : ""));
}

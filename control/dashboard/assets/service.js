// One service: what it is, its ports, what passes, its tasks.

import { h, named, pill, settle, tags, visible } from "./dom.js";
import { session } from "./api.js";
import { button, make } from "./changes.js";
import { drops, millis, perSecond, plural, traffic } from "./format.js";
import { reporting, tasksOf } from "./lists.js";
import { Spark } from "./spark.js";

export function service(main, place, id) {
  const about = h("p", { class: "note-line", hidden: true });
  const title = h("h1", { tabindex: "-1" }, "Service");
  const state = h("span");
  const facts = h("dl", { class: "facts" });
  const ports = h("ul", { class: "ports", "aria-label": "Published ports" });
  const none = h("p", { class: "quiet-text", hidden: true }, "No port is published.");
  const tiles = h("div", { class: "tiles" });
  const spark = new Spark("Traffic of this service");
  const shown = tasksOf(id, place, show, (why) => {
    main.replaceChildren(h("div", { class: "lone card" }, h("h1", { tabindex: "-1" }, "Gone"), h("p", {}, `${why[0].toUpperCase()}${why.slice(1)}.`), h("a", { href: "#/services" }, "All services")));
  });
  main.append(
    h("div", { class: "head" }, title, state, h("span", { class: "grow" }), h("a", { href: "#/services" }, "All services")),
    about, tiles,
    h("div", { class: "grid three" },
      h("section", { class: "card", "aria-label": "About" }, h("h2", {}, "About"), facts),
      h("section", { class: "card", "aria-label": "Published ports" }, h("h2", {}, "Published ports"), ports, none, session.write ? publishing(id) : null),
      h("section", { class: "card", "aria-label": "Traffic" }, h("h2", {}, "Traffic"), spark.node)),
    h("h2", {}, "Tasks"), shown.node);
  return shown;

  function show(data) {
    const { service: it } = data;
    reporting(about, data.cluster);
    settle(title, [named(it.name)]);
    document.title = `${visible(it.name)} · meshd`;
    settle(state, [pill(it.state)]);
    settle(tiles, [
      tile("Serving", `${it.serving} / ${it.tasks}`, plural(it.tasks, "task", "tasks")),
      tile("Traffic", traffic(it.rates), it.rates ? `packets ${perSecond(it.rates.packets_in + it.rates.packets_out)}` : ""),
      tile("New flows", perSecond(it.rates?.flows), ""),
      tile("Drops", drops(it.rates), ""),
      tile("Latency", millis(it.latency_ms), it.check ? "of its checks" : "no checks"),
    ]);
    settle(facts, [
      ["Networks", tags(it.networks)], ["Virtual addresses", it.vips.length ? it.vips.map((vip) => [named(vip), " "]) : "none"],
      ["Mode", it.mode], ["Checks", it.check ? h("code", {}, named(it.check)) : "none"], ["Id", h("code", {}, it.id)],
    ].flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
    settle(ports, it.ports.map((port) => h("li", {}, h("code", {}, named(port.text)), session.write ? unpublish(it, port) : null)));
    none.hidden = it.ports.length > 0;
    ports.hidden = it.ports.length === 0;
    if (it.rates) spark.add(it.rates.bytes_in, it.rates.bytes_out);
  }
}

function tile(name, value, more) {
  return h("div", { class: "card tile" }, h("div", { class: "name" }, name), h("div", { class: "value" }, value), h("div", { class: "more" }, more));
}

function unpublish(it, port) {
  return button("Unpublish", {
    danger: true, name: `Unpublish ${visible(port.text)}`,
    question: `Close port ${visible(port.text)} of ${visible(it.name)} on every node?`,
  }, { do: "unpublish", service: it.id, port: port.filter });
}

function publishing(id) {
  const field = h("input", { name: "port", required: true, placeholder: "8080:80/tcp", autocomplete: "off", spellcheck: "false", maxlength: "80" });
  const publish = async (event) => {
    event.preventDefault();
    if (await make({ do: "publish", service: id, port: field.value.trim() })) field.value = "";
  };
  return h("form", { class: "form", onsubmit: publish },
    h("label", {}, "Published port : target port", field), h("button", {}, "Publish"));
}

// A list of any length: the manager filters and orders it, and gives the rows that can be seen and some around them.

import { h, settle } from "./dom.js";
import { follow } from "./api.js";
import { count } from "./format.js";

const AROUND = 24;
const STEP = 12;
const SMALL = matchMedia("(max-width: 760px)");

// columns: [{ key, title, sort, num, width, cell(row) }], the first one names the row. place: { get, set } of the URL's words.
export function list({ view, place, what, hint, columns, pick = (data) => data.list, data: onData, gone }) {
  let { q = "", sort = "" } = place.get();
  let offset = 0;
  let rows = [];
  let matched = 0;
  let height = 0;
  let following = null;
  let timer = 0;
  const known = new Map();

  const input = h("input", {
    type: "search", value: q, id: `filter-${what}`, autocomplete: "off", spellcheck: "false", maxlength: "200",
    placeholder: hint, "aria-label": `Filter ${what}`, oninput: () => later(150, refilter),
  });
  const counted = h("span", { class: "count", role: "status" });
  const choice = h("select", { onchange: () => resort(choice.value) },
    columns.filter((column) => column.sort).map((column) => h("option", { value: column.sort }, column.title)));
  const heads = columns.map((column) =>
    h("th", { role: "columnheader", scope: "col", class: column.num ? "num" : null },
      column.sort ? h("button", { type: "button", onclick: () => resort(column.sort) }, column.title) : column.title));
  columns.forEach((column, at) => column.width && (heads[at].style.width = column.width));
  const above = spacer();
  const below = spacer();
  const body = h("tbody", { role: "rowgroup" }, above, below);
  const table = h("table", { class: "windowed", role: "table", "aria-label": what },
    h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, heads)), body);
  const nothing = h("p", { class: "nothing", hidden: true });
  const node = h("div", {},
    h("div", { class: "filter" }, input, counted, h("label", { class: "by" }, "Order by ", choice)),
    h("div", { class: "card tablebox" }, table, nothing));

  function spacer() {
    return h("tr", { class: "space", "aria-hidden": "true", hidden: true }, h("td", { colspan: columns.length }));
  }

  function later(time, act) {
    clearTimeout(timer);
    timer = setTimeout(act, time);
  }

  function refilter() {
    q = input.value.trim();
    offset = 0;
    place.set({ q, sort });
    scrollTo(0, Math.min(scrollY, top()));
    reopen();
  }

  // Once more on the same column turns it round; numbers begin with the largest.
  function resort(column) {
    const numeric = columns.find((each) => each.sort === column)?.num;
    const [first, second] = numeric ? [`-${column}`, column] : [column, `-${column}`];
    sort = sort === first ? second : first;
    offset = 0;
    place.set({ q, sort });
    reopen();
  }

  function reopen() {
    const column = sort.replace(/^-/, "") || columns[0].sort;
    const direction = sort.startsWith("-") ? "descending" : "ascending";
    columns.forEach((each, at) => each.sort && heads[at].setAttribute("aria-sort", each.sort === column ? direction : "none"));
    choice.value = column;
    const query = { offset, limit: span() };
    if (q) query.q = q;
    if (sort) query.sort = sort;
    following = follow(view, query, show, gone ?? ((why) => tell(why)));
  }

  function span() {
    return Math.min(200, Math.ceil(innerHeight / (height || 42)) + 2 * AROUND);
  }

  function tell(text) {
    nothing.textContent = text;
    nothing.hidden = false;
  }

  function show(data) {
    const page = pick(data);
    ({ matched, offset } = page);
    rows = page.rows;
    onData?.(data);
    const text = page.matched === page.total ? `${count(page.total)} ${what}` : `${count(matched)} of ${count(page.total)} ${what}`;
    if (counted.textContent !== text) counted.textContent = text;
    nothing.hidden = matched > 0;
    if (matched === 0) tell(page.total === 0 ? `There are no ${what} yet.` : `No ${what} fit this filter.`);
    table.setAttribute("aria-rowcount", matched + 1);
    draw();
  }

  function draw() {
    const wanted = new Set(rows.map(idOf));
    for (const [id, line] of known) {
      if (!wanted.has(id)) {
        line.remove();
        known.delete(id);
      }
    }
    let after = above;
    rows.forEach((row, at) => {
      const id = idOf(row);
      let line = known.get(id);
      if (!line) known.set(id, (line = h("tr", { role: "row" })));
      line.setAttribute("aria-rowindex", offset + at + 2);
      settle(line, columns.map((column) =>
        h("td", { role: "cell", class: column.num ? "num" : null, "data-label": column.title }, column.cell(row))));
      if (after.nextSibling !== line) after.after(line);
      after = line;
    });
    if (rows.length > 0) {
      const first = known.get(idOf(rows[0])).getBoundingClientRect();
      const last = known.get(idOf(rows.at(-1))).getBoundingClientRect();
      height = (last.bottom - first.top) / rows.length || height;
    }
    stretch(above, offset);
    stretch(below, matched - offset - rows.length);
  }

  function stretch(line, missing) {
    line.hidden = missing <= 0;
    line.firstChild.style.height = `${Math.max(0, missing) * height}px`;
  }

  // Where the first row begins, from the top of the page.
  function top() {
    return table.getBoundingClientRect().top + scrollY;
  }

  function look() {
    if (!height || matched <= rows.length) return;
    const first = Math.max(0, Math.floor((scrollY - top()) / height));
    const seen = Math.ceil(innerHeight / height);
    const last = Math.min(matched, first + seen);
    if (first >= offset && last <= offset + rows.length) return;
    offset = Math.max(0, Math.floor((first - AROUND) / STEP) * STEP);
    later(60, reopen);
  }

  const scrolled = () => requestAnimationFrame(look);
  addEventListener("scroll", scrolled, { passive: true });
  addEventListener("resize", scrolled, { passive: true });
  SMALL.addEventListener("change", draw);
  reopen();
  return {
    node,
    stop() {
      following?.stop();
      clearTimeout(timer);
      removeEventListener("scroll", scrolled);
      removeEventListener("resize", scrolled);
      SMALL.removeEventListener("change", draw);
    },
  };
}

const idOf = (row) => row.number ?? row.id;

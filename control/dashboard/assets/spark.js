// A small chart of the last two minutes: what comes in, and what goes out.

import { h, svg } from "./dom.js";

const POINTS = 120;

export class Spark {
  constructor(title) {
    this.points = [];
    this.into = svg("path", {});
    this.area = svg("path", { class: "area" });
    this.out = svg("path", { class: "out" });
    const chart = svg("svg", { class: "spark", viewBox: `0 0 ${POINTS - 1} 40`, preserveAspectRatio: "none", role: "img", "aria-label": `${title}, the last two minutes` },
      this.area, this.into, this.out);
    this.node = h("div", {}, chart,
      h("div", { class: "legend", "aria-hidden": "true" }, h("span", {}, "to tasks"), h("span", { class: "out" }, "from tasks")));
  }

  add(into, out) {
    this.points.push([into, out]);
    if (this.points.length > POINTS) this.points.shift();
    const most = Math.max(1, ...this.points.flat());
    const from = POINTS - this.points.length;
    const line = (side) => this.points.map((point, at) => `${at ? "L" : "M"}${from + at} ${(38 - (point[side] / most) * 35).toFixed(2)}`).join("");
    this.into.setAttribute("d", line(0));
    this.area.setAttribute("d", `${line(0)}L${POINTS - 1} 40L${from} 40Z`);
    this.out.setAttribute("d", line(1));
  }
}

// Where boxes and lines of the map go: who begins conversations stands left of whom he speaks to.

export const BOX = { width: 150, height: 46 };
const GAP = { across: 100, down: 20 };
const COLUMNS = 7;
const SWEEPS = 6;

// groups: [{ key }], edges: [{ from, to }]. Gives { width, height, boxes: Map(key -> { x, y }) }.
export function layout(groups, edges) {
  const next = new Map(groups.map((group) => [group.key, []]));
  const before = new Map(groups.map((group) => [group.key, []]));
  for (const { from, to } of edges) {
    if (from !== to && next.has(from) && next.has(to)) {
      next.get(from).push(to);
      before.get(to).push(from);
    }
  }
  const columns = arrange(columnsOf(groups, next), next, before);
  const tall = Math.max(1, ...columns.map((column) => column.length));
  const height = tall * (BOX.height + GAP.down) - GAP.down;
  const boxes = new Map();
  columns.forEach((column, at) => {
    const used = column.length * (BOX.height + GAP.down) - GAP.down;
    column.forEach((key, row) => {
      boxes.set(key, { x: at * (BOX.width + GAP.across), y: (height - used) / 2 + row * (BOX.height + GAP.down) });
    });
  });
  return { width: columns.length * (BOX.width + GAP.across) - GAP.across, height, boxes };
}

// Each one step right of the furthest that speaks to it; what leads back in a circle does not count.
function columnsOf(groups, next) {
  const order = [];
  const state = new Map();
  const back = new Set();
  const starts = [...groups].sort((a, b) => (b.key === "outside") - (a.key === "outside"));
  for (const { key } of starts) visit(key);

  function visit(start) {
    if (state.has(start)) return;
    const way = [[start, 0]];
    state.set(start, "open");
    while (way.length) {
      const top = way.at(-1);
      const to = next.get(top[0])[top[1]];
      top[1] += 1;
      if (to === undefined) {
        state.set(top[0], "done");
        order.push(top[0]);
        way.pop();
      } else if (state.get(to) === "open") {
        back.add(`${top[0]}\n${to}`);
      } else if (!state.has(to)) {
        state.set(to, "open");
        way.push([to, 0]);
      }
    }
  }

  const depth = new Map(order.map((key) => [key, 0]));
  for (const key of order.reverse()) {
    for (const to of next.get(key)) {
      if (!back.has(`${key}\n${to}`)) depth.set(to, Math.max(depth.get(to), depth.get(key) + 1));
    }
  }
  const columns = [];
  for (const [key, at] of depth) (columns[Math.min(at, COLUMNS - 1)] ??= []).push(key);
  // Those that speak to nobody stand below the others, a few in each column.
  return spread(columns.filter(Boolean), next);
}

function spread(columns, next) {
  const spoken = new Set([...next.values()].flat());
  const silent = columns[0]?.filter((key) => next.get(key).length === 0 && !spoken.has(key)) ?? [];
  if (!silent.length) return columns;
  columns[0] = columns[0].filter((key) => !silent.includes(key));
  const talking = columns.filter((column) => column.length);
  if (!talking.length) {
    const wide = Math.min(4, silent.length);
    return Array.from({ length: wide }, (_, at) => silent.filter((_, each) => each % wide === at));
  }
  for (const key of silent) talking.reduce((least, column) => (column.length < least.length ? column : least)).push(key);
  return talking;
}

// Fewer crossings: each goes to the middle of those that it has lines to.
function arrange(columns, next, before) {
  for (let sweep = 0; sweep < SWEEPS; sweep += 1) {
    const place = new Map();
    columns.forEach((column) => column.forEach((key, row) => place.set(key, (row + 0.5) / column.length)));
    const sides = sweep % 2 ? next : before;
    for (const column of columns) {
      const middle = (key) => {
        const there = sides.get(key);
        return there.length ? there.reduce((sum, each) => sum + place.get(each), 0) / there.length : place.get(key);
      };
      column.sort((a, b) => middle(a) - middle(b));
    }
  }
  return columns;
}

// Elements made of plain text: whatever a name says, it never becomes markup.

const SVG = "http://www.w3.org/2000/svg";

// h("a", { href: "#/tasks", class: "tile" }, "text", node, [nodes], null)
export function h(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(2).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

// What steers the direction of text, or cannot be seen, is shown as what it is.
const STEERS = /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

export function visible(text) {
  return String(text).replace(STEERS, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
}

// A name, apart from the direction of what is around it; its title has it whole where it is cut.
export function named(text) {
  const shown = visible(text);
  return h("bdi", { title: shown }, shown);
}

// Replaces what a node holds only where it is other than before, so that what has the focus keeps it.
export function settle(parent, children) {
  const wanted = children.flat(2).filter(Boolean);
  wanted.forEach((child, at) => {
    const there = parent.childNodes[at];
    if (!there) parent.append(child);
    else if (there !== child && !there.isEqualNode(child)) there.replaceWith(child);
  });
  while (parent.childNodes.length > wanted.length) parent.lastChild.remove();
}

export function note(text) {
  const line = h("p", {}, visible(text));
  const notes = document.getElementById("notes");
  notes.append(line);
  while (notes.childElementCount > 3) notes.firstChild.remove();
  setTimeout(() => line.remove(), 9000);
}

const WORDS = {
  good: ["ready", "healthy", "active", "serving", "attachable"],
  warn: ["unattended", "degraded", "starting", "draining", "pause", "drain", "unknown"],
  bad: ["down", "unhealthy", "left"],
};

// A state is told by its word; colour and shape only help.
export function pill(word, note) {
  const kind = Object.keys(WORDS).find((kind) => WORDS[kind].includes(word)) ?? "none";
  return h("span", { class: `pill ${kind}`, title: note ? visible(note) : null }, visible(word));
}

export function tags(words) {
  return words.map((word) => h("span", { class: "tag" }, named(word)));
}

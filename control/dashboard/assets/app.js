// Which page is shown, and the frame around it.

import { h, note, visible } from "./dom.js";
import * as api from "./api.js";
import { overview } from "./overview.js";
import { events, networks, nodes, services, tasks } from "./lists.js";
import { service } from "./service.js";
import { map } from "./map.js";

const PAGES = { overview, nodes, networks, services, tasks, events, map };
const main = document.getElementById("main");
const nav = document.getElementById("nav");
const live = document.getElementById("live");
const pause = document.getElementById("pause");
const theme = document.getElementById("theme");
const leave = document.getElementById("leave");

let shown = null;
let here = "";

// #/tasks?q=web -> ["tasks", "", { q: "web" }]
function route() {
  const [path, words = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [page, id = ""] = path.split("/").map((part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      return "";
    }
  });
  return [page || "overview", id, Object.fromEntries(new URLSearchParams(words))];
}

function show() {
  if (!api.session.there) return;
  // The part of the page that the skip link goes to is no page.
  if (location.hash === "#main") return;
  const [page, id] = route();
  shown?.stop();
  here = location.hash;
  main.replaceChildren();
  scrollTo(0, 0);
  for (const link of nav.querySelectorAll("a")) {
    const mine = link.getAttribute("href") === `#/${page === "service" ? "services" : page}`;
    if (mine) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const open = page === "service" ? service : Object.hasOwn(PAGES, page) ? PAGES[page] : null;
  shown = open ? open(main, place(page, id), id) : missing();
  const title = main.querySelector("h1");
  document.title = `${title?.textContent ?? ""} · meshd`;
  title?.focus({ preventScroll: true });
}

function missing() {
  main.append(h("div", { class: "lone card" }, h("h1", { tabindex: "-1" }, "No such page"), h("p", {}, h("a", { href: "#/overview" }, "Overview"))));
  return { stop() {} };
}

// A page's filter and order stand in its address, so that it can be kept and sent; typing makes no steps back.
function place(page, id) {
  const path = id ? `${page}/${encodeURIComponent(id)}` : page;
  return {
    get: () => route()[2],
    set(words) {
      const query = new URLSearchParams(Object.entries(words).filter(([, value]) => value)).toString();
      history.replaceState(null, "", `#/${path}${query ? `?${query}` : ""}`);
      here = location.hash;
    },
  };
}

function frame(there) {
  nav.hidden = pause.hidden = leave.hidden = !there;
  if (!there) live.textContent = "";
}

function signIn(why) {
  shown?.stop();
  shown = null;
  frame(false);
  document.title = "Sign in · meshd";
  const field = h("input", { name: "token", type: "password", required: true, autocomplete: "off", maxlength: "200" });
  const words = h("p", { role: "alert" }, visible(why));
  const submit = async (event) => {
    event.preventDefault();
    await enter(field.value.trim().replace(/^.*#login=/, ""), (text) => (words.textContent = visible(text)));
  };
  main.replaceChildren(h("div", { class: "lone card" },
    h("h1", { tabindex: "-1" }, "Sign in"), words,
    h("p", {}, "Run ", h("code", {}, "meshctl dashboard"), " on this manager and open the address that it prints, or paste it here. It works once and for two minutes."),
    h("form", { class: "form sign", onsubmit: submit }, h("label", {}, "Address or login", field), h("button", {}, "Sign in"))));
  main.querySelector("h1").focus({ preventScroll: true });
}

async function enter(token, failed) {
  try {
    await api.enter(token);
  } catch (error) {
    return failed(error.message);
  }
  begin();
}

function begin() {
  frame(true);
  if (api.session.write) note("This session may change things.");
  show();
}

const THEMES = ["auto", "light", "dark"];

function setTheme(name) {
  const [root, label] = [document.documentElement, { auto: "Auto", light: "Light", dark: "Dark" }[name]];
  if (name === "auto") delete root.dataset.theme;
  else root.dataset.theme = name;
  theme.querySelector("span").textContent = label;
  theme.setAttribute("aria-label", `Colours: ${label}`);
  try {
    localStorage.setItem("theme", name);
  } catch {
    // Where nothing may be kept it lasts as long as the page.
  }
}

function keptTheme() {
  try {
    const kept = localStorage.getItem("theme");
    return THEMES.includes(kept) ? kept : "auto";
  } catch {
    return "auto";
  }
}

const STATES = { live: "Live", lost: "Connecting again", paused: "Paused" };

theme.addEventListener("click", () => {
  const now = document.documentElement.dataset.theme ?? "auto";
  setTheme(THEMES[(THEMES.indexOf(now) + 1) % THEMES.length]);
});
pause.addEventListener("click", () => {
  const paused = !api.isPaused();
  api.setPaused(paused);
  pause.setAttribute("aria-pressed", String(paused));
  pause.textContent = paused ? "Go on" : "Pause";
});
leave.addEventListener("click", api.leave);
document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  (main.querySelector("h1") ?? main).focus();
});
addEventListener("hashchange", () => {
  const token = location.hash.match(/^#login=(.+)$/)?.[1];
  if (token) login(token);
  else if (location.hash !== here) show();
});
for (const event of ["pointerdown", "keydown"]) addEventListener(event, api.alive, { passive: true });

api.watch(signIn, (state) => {
  const text = STATES[state];
  live.dataset.state = state;
  if (live.textContent !== text) live.textContent = text;
});

// The login stays neither in the address nor in what the browser remembers of it.
async function login(token) {
  history.replaceState(null, "", "#/overview");
  await enter(token, signIn);
}

setTheme(keptTheme());
const token = location.hash.match(/^#login=(.+)$/)?.[1];
if (token) {
  await login(token);
} else {
  try {
    await api.resume();
    begin();
  } catch (error) {
    signIn(error.status === 401 ? "There is no session." : error.message);
  }
}

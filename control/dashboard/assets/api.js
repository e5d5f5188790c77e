// What is asked of the manager, and the session.

export const session = { there: false, write: false, csrf: "", manager: "", cluster: "", meshd: "" };

export class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

let onEnd = () => {};
let onState = () => {};
let paused = false;
let current = null;

// Whom to tell when the session ends, and how the connection stands: "live", "lost", "paused".
export function watch(end, state) {
  onEnd = end;
  onState = state;
}

async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(path, { credentials: "same-origin", cache: "no-store", ...options });
  } catch {
    throw new Refused(0, "the manager cannot be reached");
  }
  const said = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Refused(answer.status, said.error ?? `the manager answered ${answer.status}`);
  return said;
}

function post(call, body) {
  const headers = { "content-type": "application/json", "x-mesh-csrf": session.csrf };
  return ask(`/api/${call}`, { method: "POST", headers, body: JSON.stringify(body ?? {}) });
}

export async function enter(token) {
  Object.assign(session, await post("login", { token }), { there: true });
}

export async function resume() {
  Object.assign(session, await ask("/api/session"), { there: true });
}

export async function leave() {
  await post("logout").catch(() => {});
  end("You have signed out.");
}

export function end(why) {
  if (!session.there) return;
  session.there = false;
  session.csrf = "";
  current?.stop();
  onEnd(why);
}

// Has a change made; answers with what was done.
export async function change(what) {
  try {
    return (await post("change", what)).done;
  } catch (error) {
    if (error.status === 401) end("The session has ended.");
    throw error;
  }
}

let told = 0;
// Somebody is here: the session goes on. Said twice a minute at most.
export function alive() {
  const now = Date.now();
  if (!session.there || now - told < 30000) return;
  told = now;
  post("alive").catch((error) => error.status === 401 && end("The session has ended."));
}

// Follows a view: show(data) now and after every change, gone(why) when there is no such thing any more. One at a time.
export function follow(view, query, show, gone) {
  current?.stop();
  const words = new URLSearchParams(query).toString();
  const path = `/api/view/${view}?${words}`;
  let source = null;
  let timer = 0;
  let over = false;
  const following = {
    stop() {
      over = true;
      source?.close();
      clearTimeout(timer);
    },
    pause() {
      source?.close();
      source = null;
      clearTimeout(timer);
      onState("paused");
    },
    resume() {
      if (!over) open();
    },
  };

  // Where no stream is to be had, the view is asked for now and then.
  async function poll() {
    try {
      const data = await ask(path);
      if (over) return;
      onState("live");
      show(data);
    } catch (error) {
      if (over) return;
      if (error.status === 401) return end("The session has ended.");
      if (error.status === 404) return gone(error.message);
      onState("lost");
    }
    if (!paused) timer = setTimeout(open, 5000);
  }

  function open() {
    source?.close();
    const mine = (source = new EventSource(`${path}&stream=1`));
    mine.addEventListener("view", (event) => {
      if (over) return;
      onState("live");
      show(JSON.parse(event.data));
    });
    mine.addEventListener("gone", (event) => {
      following.stop();
      gone(JSON.parse(event.data));
    });
    mine.addEventListener("ended", () => end("The session has ended."));
    mine.addEventListener("error", () => {
      if (over || source !== mine) return;
      onState("lost");
      // A refusal ends it, a broken connection does not.
      if (mine.readyState === EventSource.CLOSED) poll();
    });
  }

  current = following;
  if (paused) poll().then(() => !over && onState("paused"));
  else open();
  return following;
}

export function setPaused(value) {
  paused = value;
  if (value) current?.pause();
  else current?.resume();
}

export const isPaused = () => paused;

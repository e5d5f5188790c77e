// What sessions that may write can do: each asks first where something could break.

import { h, note } from "./dom.js";
import { change } from "./api.js";

// Has a change made and says what came of it; whether it was.
export async function make(what) {
  try {
    note(await change(what));
    return true;
  } catch (error) {
    if (error.status !== 401) note(error.message);
    return false;
  }
}

// Asks; whether the answer is yes.
export function confirm(question, yes) {
  return new Promise((answer) => {
    const dialog = h("dialog", { "aria-label": yes },
      h("p", {}, question),
      h("div", { class: "form" },
        h("button", { type: "button", class: "quiet", autofocus: true, onclick: () => dialog.close("") }, "Cancel"),
        h("button", { type: "button", class: "danger", onclick: () => dialog.close("yes") }, yes)));
    dialog.addEventListener("close", () => {
      dialog.remove();
      answer(dialog.returnValue === "yes");
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

export function button(label, { question, danger, ...attributes }, what) {
  const act = async (event) => {
    const pressed = event.currentTarget;
    if (question && !(await confirm(question, attributes.yes ?? label))) return;
    pressed.disabled = true;
    await make(what);
    pressed.disabled = false;
  };
  return h("button", { type: "button", class: danger ? "danger" : "quiet", "aria-label": attributes.name, onclick: act }, label);
}

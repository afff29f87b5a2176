// Who the reader is: a key or token, kept by this tab until it is closed, and what it may do.
// It travels in one header and nowhere else: no address, cookie or log holds it.

import { button, byId, fill, h } from "./dom.js";
import { listen, Problem, read } from "./service.js";

const KEPT = "gsco-credential";
const WELL_FORMED = /^[\x21-\x7e]{1,16384}$/;

let credential = recalled();
let scopes = [];
let entered;

// Resolves once the service knows who asks: at once, or after the reader has signed in.
export const known = new Promise((resolve) => (entered = resolve));

export function begin() {
  listen({ headers, refused: askWho });
  return enter();
}

export const may = (scope) => scopes.includes(scope);

function headers() {
  return credential ? { Authorization: `Bearer ${credential}` } : {};
}

async function enter() {
  try {
    know(await read("v1/caller"));
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    if (error.status === 401) return; // asked who it is already
    if (credential) return askWho(error);
  }
  byId("sign-in").close();
  entered();
}

// What a caller may not do is not offered: the style sheet hides what needs another scope.
function know(caller) {
  scopes = caller.scopes;
  document.body.dataset.may = scopes.join(" ");
  fill(byId("caller"), credential && [
    h("span", { title: `May ${scopes.join(", ")}` }, caller.name), " ",
    button("Sign out", signOut, { class: "quiet" })]);
}

// Asks for another key or token; what is on the screen stays.
function askWho(problem) {
  const dialog = byId("sign-in");
  const hadOne = credential !== null;
  remember(null);
  const field = h("input", { type: "password", autocomplete: "off", required: true, maxlength: "16384", "aria-describedby": "sign-in-told" });
  const told = h("p", { id: "sign-in-told", role: "alert" }, hadOne && problem.message);
  fill(dialog, h("form", { onsubmit: (event) => {
    event.preventDefault();
    present(field.value.trim(), told);
  } },
  h("h2", { id: "sign-in-title" }, "Sign in"),
  h("label", { class: "block" }, "API key or token", field),
  told,
  h("p", { class: "muted" }, "Kept by this tab until it is closed. Whoever runs this service makes keys with gsco keys create."),
  h("div", { class: "row" }, h("button", { type: "submit", class: "primary" }, "Sign in"))));
  fill(byId("caller"), button("Sign in", () => dialog.showModal(), { class: "quiet" }));
  if (!dialog.open) dialog.showModal();
}

function present(text, told) {
  if (!WELL_FORMED.test(text)) {
    told.textContent = "A key or token is one word of letters, digits and signs.";
    return;
  }
  remember(text);
  enter();
}

// A new page knows nothing of the case that was on this one.
function signOut() {
  remember(null);
  location.hash = "";
  location.reload();
}

function recalled() {
  try {
    return sessionStorage.getItem(KEPT);
  } catch {
    return null;
  }
}

function remember(text) {
  credential = text;
  try {
    if (text) sessionStorage.setItem(KEPT, text);
    else sessionStorage.removeItem(KEPT);
  } catch {
    // A browser that keeps nothing asks again after a reload.
  }
}

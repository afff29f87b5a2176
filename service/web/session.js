// Who the reader is: a key or token, kept by this tab until it is closed, and what it may do.
// It travels in one header and nowhere else: no address, cookie or log holds it. A token comes from
// the reader, or from the issuer where people sign in at one.

import { button, byId, fill, h } from "./dom.js";
import * as issuer from "./issuer.js";
import { listen, Problem, read } from "./service.js";

const KEPT = "gsco-credential";
const WELL_FORMED = /^[\x21-\x7e]{1,16384}$/;

let credential = recalled();
let scopes = [];
let entered;
let failure = null; // of the sign-in that the reader comes back from

// Resolves once the service knows who asks: at once, or after the reader has signed in.
export const known = new Promise((resolve) => (entered = resolve));

export async function begin() {
  listen({ headers, refused: askWho });
  await comeBack();
  return enter();
}

// A sign-in that failed takes nothing from a reader who is signed in.
async function comeBack() {
  try {
    const token = await issuer.returned();
    if (token === null) return;
    if (!WELL_FORMED.test(token)) throw new Problem("The issuer gave this page no token: try again, or use a key.");
    remember(token);
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    failure = error;
  }
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
  failure = null;
  scopes = caller.scopes;
  document.body.dataset.may = scopes.join(" ");
  fill(byId("caller"), credential && [
    h("span", { title: `May ${scopes.join(", ")}` }, caller.name), " ",
    button("Sign out", signOut, { class: "quiet" })]);
}

// Asks for another key or token; what is on the screen stays.
function askWho(problem) {
  const dialog = byId("sign-in");
  const said = failure ?? (credential !== null && problem);
  failure = null;
  remember(null);
  const field = h("input", { type: "password", autocomplete: "off", required: true, maxlength: "16384", "aria-describedby": "sign-in-told" });
  const told = h("p", { id: "sign-in-told", role: "alert" }, said && said.message);
  const atIssuer = h("div", {});
  offerIssuer(atIssuer, told);
  fill(dialog, h("form", { onsubmit: (event) => {
    event.preventDefault();
    present(field.value.trim(), told);
  } },
  h("h2", { id: "sign-in-title" }, "Sign in"),
  atIssuer,
  h("label", { class: "block" }, "API key or token", field),
  told,
  h("p", { class: "muted" }, "Kept by this tab until it is closed. Whoever runs this service makes keys with gsco keys create."),
  h("div", { class: "row" }, h("button", { type: "submit", class: "primary" }, "Sign in"))));
  fill(byId("caller"), button("Sign in", () => dialog.showModal(), { class: "quiet" }));
  if (!dialog.open) dialog.showModal();
}

async function offerIssuer(place, told) {
  const offer = await issuer.offered();
  if (offer) fill(place, button("Use your hospital account", () => issuer.leave(offer).catch((error) => (told.textContent = error.message)), { class: "primary" }));
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

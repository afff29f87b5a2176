// Sign-in at the hospital's OpenID Connect issuer: an authorization code with PKCE (RFC 7636).
// The page leaves for the issuer and comes back with a code, which only this tab can exchange.

import { Problem, read } from "./service.js";

const PENDING = "gsco-sign-in";
const PATIENCE_MS = 15_000;
const ERROR_CODE = /^[a-z_]{1,60}$/;

// Where to sign in; null where there is no issuer, it is away, or the page came over plain HTTP.
export async function offered() {
  if (!window.isSecureContext) return null;
  try {
    return await read("v1/sign-in");
  } catch {
    return null;
  }
}

// Leaves the page. What is open comes back by the address after the #.
export async function leave(offer) {
  const begun = { state: random(), nonce: random(), verifier: random(), hash: location.hash };
  const challenge = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(begun.verifier)));
  keep(begun);
  const address = new URL(offer.authorization_endpoint);
  const asked = {
    response_type: "code", client_id: offer.client_id, redirect_uri: here(), scope: offer.scopes.join(" "),
    state: begun.state, nonce: begun.nonce, code_challenge: base64url(challenge), code_challenge_method: "S256",
  };
  for (const [name, value] of Object.entries(asked)) address.searchParams.set(name, value);
  location.assign(address);
}

// What the issuer gave as access token, where the page has come back from it; null elsewhere.
export async function returned() {
  const told = new URLSearchParams(location.search);
  if (!told.has("state") || !(told.has("code") || told.has("error"))) return null;
  const begun = taken();
  const isOurs = begun !== null && told.get("state") === begun.state;
  history.replaceState(null, "", location.pathname + (isOurs ? begun.hash : ""));
  if (!isOurs) throw new Problem("This sign-in was not begun in this tab: sign in again.");
  if (!told.has("code")) throw refused(told.get("error"));
  return exchanged(told.get("code"), begun);
}

async function exchanged(code, { nonce, verifier }) {
  const offer = await read("v1/sign-in");
  const tokens = await asked(offer.token_endpoint, new URLSearchParams({
    grant_type: "authorization_code", code, redirect_uri: here(), client_id: offer.client_id, code_verifier: verifier,
  }));
  if (tokens.id_token !== undefined && nonceOf(tokens.id_token) !== nonce) {
    throw new Problem("The issuer answered another sign-in than this one: sign in again.");
  }
  return String(tokens.access_token ?? "");
}

async function asked(address, body) {
  let response, document;
  try {
    response = await fetch(address, { method: "POST", body, credentials: "omit", redirect: "error", signal: AbortSignal.timeout(PATIENCE_MS) });
    document = Object(await response.json());
  } catch {
    throw new Problem("The issuer gave this page no token: try again, or use a key.");
  }
  if (!response.ok) throw refused(document.error);
  return document;
}

const refused = (code) =>
  new Problem(`The issuer refused the sign-in${ERROR_CODE.test(code ?? "") ? ` (${code})` : ""}: sign in again.`);

// Only looked at: the service checks the signature of what it is sent.
function nonceOf(token) {
  try {
    return JSON.parse(atob(token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/"))).nonce;
  } catch {
    return null;
  }
}

const here = () => location.origin + location.pathname;
const random = () => base64url(crypto.getRandomValues(new Uint8Array(32)));
const base64url = (bytes) =>
  btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");

function keep(begun) {
  try {
    sessionStorage.setItem(PENDING, JSON.stringify(begun));
  } catch {
    throw new Problem("This browser keeps nothing, so the issuer's answer could not be checked: use a key.");
  }
}

// What was begun, once: no answer holds twice.
function taken() {
  try {
    const begun = JSON.parse(sessionStorage.getItem(PENDING));
    sessionStorage.removeItem(PENDING);
    return begun;
  } catch {
    return null;
  }
}

// Elements from data. Texts become text nodes and attributes are set one by one: nothing that
// comes from a model or a person is ever read as markup.

export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) set(element, name, value);
  element.append(...children.flat(Infinity).filter((child) => child != null && child !== false));
  return element;
}

function set(element, name, value) {
  if (value == null || value === false) return;
  if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
  else if (name === "share") element.style.setProperty("--share", Math.min(Math.max(value, 0), 1));
  else if (name === "value" || name === "checked" || name === "selected") element[name] = value;
  else element.setAttribute(name, value === true ? "" : value);
}

export function fill(element, ...children) {
  element.replaceChildren(...h("div", {}, children).childNodes);
  return element;
}

export const byId = (id) => document.getElementById(id);

export function bar(share) {
  return h("span", { class: "bar", "aria-hidden": "true" }, h("span", { share }));
}

export function button(text, onclick, attributes = {}) {
  return h("button", { type: "button", onclick, ...attributes }, text);
}

export function options(select, entries, chosen) {
  fill(select, entries.map(([value, text]) =>
    h("option", { value, selected: value === chosen }, text)));
}

export function table(caption, heads, rows) {
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h("table", {},
      h("caption", { class: "unseen" }, caption),
      h("thead", {}, h("tr", {}, heads.map((head) => (head ? h("th", { scope: "col" }, head) : h("td", {}))))),
      h("tbody", {}, rows)));
}

export const percent = (share) => (share == null ? "–" : `${(100 * share).toFixed(0)} %`);
export const two = (number) => (number == null ? "–" : number.toFixed(number > 1 && Number.isInteger(number) ? 0 : 2));
export const seconds = (number) => (number == null ? "–" : `${number.toFixed(2)} s`);
export const moment = (text) => new Date(text).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
export const named = (labels) => labels.join(" and ") || "none of the labels";

export function download(name, blob) {
  const address = URL.createObjectURL(blob);
  h("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

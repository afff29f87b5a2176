// What this service runs: its tasks, specialists, reference cases and health.

import { button, fill, h, named, options, table, two } from "./dom.js";
import { thumbnail } from "./evidence.js";
import { Problem, read } from "./service.js";

const SHEETS = { tasks, specialists, cases, health };
const TITLES = { tasks: "Tasks", specialists: "Specialists", cases: "Reference cases", health: "Health" };

export async function open(root, [name]) {
  const shown = name in SHEETS ? name : "tasks";
  const sheet = h("div", {}, h("p", { class: "muted" }, "…"));
  fill(root, h("h1", {}, "Operations"),
    h("nav", { class: "row", "aria-label": "Operations" }, Object.entries(TITLES).map(([one, title]) =>
      h("a", { href: `#/operations/${one}`, "aria-current": one === shown && "page" }, title))),
    sheet);
  try {
    fill(sheet, await SHEETS[shown]());
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    fill(sheet, h("p", { class: "alert", role: "alert" }, error.message));
  }
}

async function tasks() {
  const { tasks: all } = await read("v1/tasks");
  return table("Tasks", ["Name", "Kind", "Modality", "Labels", "Consults"], all.map((task) =>
    h("tr", {}, h("th", { scope: "row" }, task.name), h("td", {}, task.kind),
      h("td", {}, `${task.modality}, ${task.body_part}`),
      h("td", {}, task.labels.map(({ name }) => name).join(", ") || "–"), h("td", {}, task.consults || "–"))));
}

async function specialists() {
  const { tasks: panels } = await read("v1/specialists");
  return panels.filter((panel) => panel.specialists.length + panel.missing.length).map((panel) => [
    h("h2", {}, panel.task, panel.loading && h("span", { class: "muted" }, " loading…")),
    table(`Specialists of ${panel.task}`, ["Specialist", "Scale", ...measures(panel), "Weights sha256"], [
      panel.specialists.map((one) => specialist(one, measures(panel))),
      panel.missing.map((one) => h("tr", { class: "missing" }, h("th", { scope: "row" }, one.specialist),
        h("td", { colspan: String(measures(panel).length + 2) }, `missing: ${one.reason}`))),
    ]),
  ]);
}

const measures = ({ specialists: all }) => [...new Set(all.flatMap(({ validation }) => Object.keys(validation)))];

function specialist({ specialist: name, scale, validation, weights_sha256: sha256 }, columns) {
  return h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, scale),
    columns.map((column) => h("td", { class: "number" }, two(validation[column]))),
    h("td", { class: "code" }, sha256));
}

async function cases() {
  const { tasks: all } = await read("v1/tasks");
  const list = h("div", {});
  const select = h("select", { onchange: () => page(list, select) });
  options(select, all.filter((task) => task.labels.length).map(({ name }) => [name, name]));
  if (select.value) await page(list, select);
  return [h("div", { class: "row" }, h("label", {}, "Task ", select)), list];
}

// One page of the chosen task's cases; `before` are the cursors of the pages before it.
async function page(list, select, before = []) {
  const task = select.value;
  const asked = new URLSearchParams({ task, ...(before.length && { cursor: before.at(-1) }) });
  const { cases: shown, next_cursor: next } = await read(`v1/cases?${asked}`);
  if (task !== select.value) return;
  fill(list,
    shown.length
      ? table("Reference cases", ["Picture", "Labels", "Report", "Source", "Licence", "Id"], shown.map(reference))
      : h("p", { class: "muted" }, "This task has none."),
    h("div", { class: "row" },
      before.length > 0 && button("← Back", () => page(list, select, before.slice(0, -1))),
      next && button("More →", () => page(list, select, [...before, next]))));
}

function reference(one) {
  const picture = h("img", { alt: "", width: "48", height: "48", loading: "lazy", src: thumbnail(one.case_id) });
  picture.addEventListener("error", () => picture.replaceWith("–"));
  return h("tr", {}, h("td", {}, picture), h("td", {}, named(one.labels)), h("td", { class: "why" }, one.report || "–"),
    h("td", {}, one.source || "–"), h("td", {}, one.licence || "–"), h("td", { class: "code" }, one.case_id));
}

async function health() {
  // A service that is not ready says so in a problem, with the same list of its parts.
  const { status, parts, detail } = await read("readyz").catch(({ document }) => document);
  if (!parts) throw new Problem(detail ?? "The service does not answer. Is it still running?");
  return [
    h("p", {}, detail ?? `The service is ${status}.`),
    table("Parts", ["Part", "Status", "Why"], parts.map((part) =>
      h("tr", {}, h("th", { scope: "row" }, part.part), h("td", {}, part.status), h("td", {}, part.reason ?? "–")))),
  ];
}

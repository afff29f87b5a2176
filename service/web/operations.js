// What this service runs: its tasks, specialists, reference cases, evaluations and health.

import { button, byId, fill, h, table, two } from "./dom.js";
import { evaluations } from "./evaluations.js";
import { cases } from "./references.js";
import { Problem, read } from "./service.js";

const SHEETS = { tasks, specialists, cases, evaluations, health };
const TITLES = { tasks: "Tasks", specialists: "Specialists", cases: "Reference cases", evaluations: "Evaluations", health: "Health" };

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
      panel.specialists.map((one) => specialist(panel.task, one, measures(panel))),
      panel.missing.map((one) => h("tr", { class: "missing" }, h("th", { scope: "row" }, one.specialist),
        h("td", { colspan: String(measures(panel).length + 2) }, `missing: ${one.reason}`))),
    ]),
  ]);
}

const measures = ({ specialists: all }) => [...new Set(all.flatMap(({ validation }) => Object.keys(validation)))];

function specialist(task, { specialist: name, scale, validation, weights_sha256: sha256, refused }, columns) {
  return h("tr", { title: refused },
    h("th", { scope: "row" }, button(name, () => showCard(task, name), { class: "link", "aria-haspopup": "dialog" }), refused && " ▲ a newer one was refused"), h("td", {}, scale),
    columns.map((column) => h("td", { class: "number" }, two(validation[column]))),
    h("td", { class: "code" }, sha256));
}

// What there is to know of one specialist, in a drawer.
async function showCard(task, name) {
  const drawer = byId("drawer");
  const body = h("div", {}, h("p", { class: "muted" }, "…"));
  fill(drawer,
    h("div", { class: "row" }, h("h2", { id: "drawer-title" }, `${name} for ${task}`), h("span", { class: "spacer" }),
      button("Close", () => drawer.close())), body);
  drawer.showModal();
  try {
    const { card, ...facts } = await read(`v1/specialists/${encodeURIComponent(task)}/${encodeURIComponent(name)}`);
    fill(body, h("pre", { class: "text", tabindex: "0", "aria-label": "Card" }, card), h("h3", {}, "Manifest"),
      h("dl", {}, Object.entries(facts).map(([key, value]) =>
        [h("dt", {}, key.replaceAll("_", " ")), h("dd", {}, typeof value === "object" ? JSON.stringify(value) : String(value))])));
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    fill(body, h("p", { class: "alert", role: "alert" }, error.message));
  }
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

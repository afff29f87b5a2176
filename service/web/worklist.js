// Diagnoses that wait for a reader, and how often readers agree.

import { bar, button, fill, h, moment, named, options, percent, table } from "./dom.js";
import { remember } from "./queue.js";
import { Problem, read } from "./service.js";

const FILTERS = {
  needs_review: [["true", "need review"], ["", "all"], ["false", "need none"]],
  reviewed: [["false", "not reviewed"], ["", "all"], ["true", "reviewed"]],
};

let controls;
let turn = 0; // of several questions only the last one's answer is shown

export async function open(root) {
  if (!controls) await prepare(root);
  await Promise.all([showPage(), showAgreement()]).catch((error) => failed(error));
}

async function prepare(root) {
  controls = { task: select("Task"), needs_review: select("Which"), reviewed: select("Reviewed") };
  controls.byModel = h("input", { type: "checkbox", onchange: () => showAgreement().catch(failed) });
  controls.list = h("div", {});
  controls.weeks = h("div", {});
  const { tasks } = await read("v1/tasks");
  const labelled = tasks.filter((task) => task.labels.length).map(({ name }) => [name, name]);
  options(controls.task.box, [["", "all"], ...labelled]);
  for (const [name, entries] of Object.entries(FILTERS)) options(controls[name].box, entries);
  fill(root, h("h1", {}, "Worklist"),
    h("div", { class: "row" }, controls.task.label, controls.needs_review.label, controls.reviewed.label),
    controls.list, h("h2", {}, "Agreement"),
    h("div", { class: "row" }, h("span", { class: "muted" }, "By week of the diagnosis; the last review of each counts."),
      h("label", { class: "check" }, controls.byModel, "Each generalist by itself")), controls.weeks);
}

function select(text) {
  const box = h("select", { onchange: () => open().catch(failed) });
  return { box, label: h("label", {}, `${text} `, box) };
}

const failed = (error) => {
  if (!(error instanceof Problem)) throw error;
  fill(controls.list, h("p", { class: "alert", role: "alert" }, error.message));
};

// One page of the list; `before` are the cursors of the pages before it.
async function showPage(before = []) {
  const asked = new URLSearchParams();
  for (const name of ["task", "needs_review", "reviewed"]) {
    if (controls[name].box.value) asked.set(name, controls[name].box.value);
  }
  if (before.length) asked.set("cursor", before.at(-1));
  const mine = ++turn;
  const { diagnoses, next_cursor: next } = await read(`v1/diagnoses?${asked}`);
  if (mine !== turn) return;
  remember(diagnoses.map(({ id }) => id));
  fill(controls.list,
    diagnoses.length
      ? table("Diagnoses", ["Made", "Task", "Answer", "Prob.", "Why", "Review"], diagnoses.map(row))
      : h("p", { class: "muted" }, "Nothing here."),
    h("div", { class: "row" },
      before.length > 0 && button("← Newer", () => showPage(before.slice(0, -1)).catch(failed)),
      next && button("Older →", () => showPage([...before, next]).catch(failed))));
}

function row(one) {
  const best = Math.max(...one.probabilities.filter(({ label }) => one.labels.includes(label)).map(({ probability }) => probability), 0);
  return h("tr", {},
    h("td", {}, h("a", { href: `#/case/${one.id}` }, moment(one.created_at))),
    h("td", {}, one.task),
    h("td", {}, h("b", {}, named(one.labels)), ` ${one.arbitration}`),
    h("td", { class: "number" }, percent(best)),
    h("td", { class: "why" }, one.needs_review ? `▲ ${one.review_reasons.join("; ")}` : "–"),
    h("td", {}, one.review ? reviewed(one.review) : "–"));
}

function reviewed({ decision, labels, comment }) {
  return [decision === "accept" ? "✓ accepted" : `✎ ${named(labels)}`, comment && h("span", { class: "muted" }, ` ${comment}`)];
}

async function showAgreement() {
  const task = controls.task.box.value;
  const byModel = controls.byModel.checked;
  const { weeks } = await read(`v1/agreement?${new URLSearchParams({ ...(task && { task }), ...(byModel && { by_model: true }) })}`);
  if (task !== controls.task.box.value || byModel !== controls.byModel.checked) return;
  const heads = ["Week of", "Task", byModel && "Generalist", "Diagnoses", "Need review", "Reviewed", "Accepted", "Overridden", "Agreement"].filter(Boolean);
  fill(controls.weeks, weeks.length
    ? table("Agreement by week", heads, weeks.toReversed().map(week))
    : h("p", { class: "muted" }, "No diagnoses in the last weeks."));
}

function week(one) {
  const numbers = [one.diagnoses, one.needing_review, one.reviewed, one.accepted, one.overridden];
  return h("tr", {}, h("td", {}, one.week), h("td", {}, one.task),
    one.model != null && h("td", { title: one.weights_sha256 }, one.model, h("span", { class: "code" }, ` ${one.weights_sha256?.slice(0, 7) ?? ""}`)),
    numbers.map((number) => h("td", { class: "number" }, String(number))),
    h("td", { class: "with-bar wide" }, one.agreement != null && bar(one.agreement), h("span", {}, percent(one.agreement))));
}

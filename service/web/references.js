// Reference cases: what retrieval can find, and how a curator adds to it and takes away.

import { button, fill, h, named, options, table } from "./dom.js";
import { thumbnail } from "./evidence.js";
import { ask, Problem, read, upload } from "./service.js";

export async function cases() {
  const tasks = (await read("v1/tasks")).tasks.filter((task) => task.labels.length);
  const list = h("div", {});
  const adding = h("div", { "data-needs": "curate" });
  const select = h("select", {});
  options(select, tasks.map(({ name }) => [name, name]));
  const turned = async () => {
    const task = tasks.find(({ name }) => name === select.value);
    fill(adding, task && form(task, () => page(list, select)));
    if (task) await page(list, select);
  };
  select.addEventListener("change", turned);
  await turned();
  return [h("div", { class: "row" }, h("label", {}, "Task ", select)), adding, list];
}

// One page of the chosen task's cases; `before` are the cursors of the pages before it.
async function page(list, select, before = []) {
  const task = select.value;
  const asked = new URLSearchParams({ task, ...(before.length && { cursor: before.at(-1) }) });
  const { cases: shown, next_cursor: next } = await read(`v1/cases?${asked}`);
  if (task !== select.value) return;
  const again = () => page(list, select, before);
  fill(list,
    shown.length
      ? table("Reference cases", ["Picture", "Labels", "Report", "Source", "Licence", "Id", ""], shown.map((one) => reference(one, again)))
      : h("p", { class: "muted" }, "This task has none."),
    h("div", { class: "row" },
      before.length > 0 && button("← Back", () => page(list, select, before.slice(0, -1))),
      next && button("More →", () => page(list, select, [...before, next]))));
}

function reference(one, changed) {
  return h("tr", {}, h("td", {}, thumbnail(one.case_id, 48)), h("td", {}, named(one.labels)), h("td", { class: "why" }, one.report || "–"),
    h("td", {}, one.source || "–"), h("td", {}, one.licence || "–"), h("td", { class: "code" }, one.case_id),
    h("td", {}, removal(one.case_id, changed)));
}

// Asks once more: what is removed is gone, vectors and all.
function removal(id, changed) {
  const told = h("span", { role: "alert" });
  const sure = button("Really delete", async () => {
    try {
      await ask(`v1/cases/${encodeURIComponent(id)}`, { method: "DELETE" });
      await changed();
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      told.textContent = error.message;
    }
  }, { class: "small", hidden: true });
  const first = button("Delete", () => {
    first.hidden = true;
    sure.hidden = false;
    sure.focus();
  }, { class: "small", "aria-label": `Delete ${id}` });
  return h("span", { "data-needs": "curate" }, first, sure, told);
}

function form(task, added) {
  const kind = task.kind === "single-label" ? "radio" : "checkbox";
  const text = (name, label, more = {}) => h("label", { class: "block" }, label, h("input", { type: "text", name, ...more }));
  const told = h("p", { role: "status" });
  return h("details", {}, h("summary", {}, "Add a reference case"),
    h("form", { onsubmit: (event) => {
      event.preventDefault();
      add(task, event.target, told, added);
    } },
    h("label", { class: "block" }, "Image", h("input", { type: "file", name: "file", required: true })),
    h("fieldset", {}, h("legend", {}, "What holds"), task.labels.map(({ name }) =>
      h("label", { class: "check" }, h("input", { type: kind, name: "labels", value: name }), name))),
    h("label", { class: "block" }, "Report (nothing that names the patient)", h("textarea", { name: "report", rows: "3", maxlength: "20000" })),
    text("source", "Source, such as a hospital", { maxlength: "500" }),
    text("licence", "Licence", { maxlength: "200" }),
    text("group", "Pseudonym of the patient or study, so that nobody is compared with themselves", { maxlength: "128", pattern: "[A-Za-z0-9._\\-]+" }),
    h("div", { class: "row" }, h("button", { type: "submit", class: "primary" }, "Add")), told));
}

async function add(task, element, told, added) {
  const given = new FormData(element);
  const fields = { task: task.name, labels: given.getAll("labels") };
  for (const name of ["file", "report", "source", "licence", "group"]) fields[name] = given.get(name);
  fill(told, "Adding…");
  try {
    const { case_id: id } = await (await upload("v1/cases", fields, "application/json")).json();
    element.reset();
    fill(told, `✓ Added as ${id}`);
    await added();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    fill(told, h("span", { class: "notice" }, error.message));
  }
}

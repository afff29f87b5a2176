// The reader's word: the answer is accepted, or overridden with what holds instead.

import { button, h, moment, named } from "./dom.js";
import { Problem, send } from "./service.js";
import { nextAfter } from "./queue.js";

// A form for one diagnosis; `task` is null where it no longer exists.
export function form(diagnosis, task, reviews) {
  const comment = h("input", { type: "text", maxlength: "2000", "aria-label": "Comment", placeholder: "Comment (nothing that names the patient)" });
  const state = h("div", { role: "status" }, reviews.length > 0 && told(reviews[0]));
  const override = overriding(diagnosis, task, (labels) => store("override", labels));

  async function store(decision, labels) {
    try {
      const review = await send(`v1/diagnoses/${diagnosis.id}/review`, { decision, labels, comment: comment.value });
      override.hidden = true;
      state.replaceChildren(told(review), ...onwards(diagnosis.id));
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      state.replaceChildren(h("p", { class: "notice" }, error.message));
    }
  }

  const toggle = button("Override…", () => {
    override.hidden = !override.hidden;
    toggle.setAttribute("aria-expanded", String(!override.hidden));
    override.querySelector("input:not(:disabled)")?.focus();
  }, { "aria-expanded": "false" });
  return h("div", { class: "review" },
    state,
    h("div", { "data-needs": "curate" }, comment,
      h("div", { class: "row" }, button("Accept", () => store("accept", []), { class: "primary" }), toggle),
      override));
}

function overriding(diagnosis, task, save) {
  const kind = task?.kind === "single-label" ? "radio" : "checkbox";
  const choices = diagnosis.probabilities.map(({ label }) =>
    h("label", { class: "check" }, h("input", { type: kind, name: "override", value: label }), label));
  const chosen = (box) => [...box.querySelectorAll("input:checked")].map((input) => input.value);
  const box = h("fieldset", { hidden: true }, h("legend", {}, "What holds instead"),
    choices, button("Save override", () => save(chosen(box))));
  return box;
}

function told({ decision, labels, comment, created_at: at }) {
  const what = decision === "accept" ? "✓ Accepted" : `✎ Overridden: ${named(labels)}`;
  return h("p", { class: "told" }, h("b", {}, what), h("span", { class: "muted" }, ` ${moment(at)} `), comment);
}

function onwards(id) {
  const next = nextAfter(id);
  return next ? [h("p", {}, h("a", { href: `#/case/${next}` }, "Next in the worklist →"))] : [];
}

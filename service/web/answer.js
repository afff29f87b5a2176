// The answer: how it came out of the first look and the evidence, and what to make of it.

import { bar, byId, fill, h, named, percent } from "./dom.js";

const ARBITRATION = {
  unanimous: "First look, specialists and answer agree.",
  upheld: "The first look stands, though most specialists say otherwise.",
  corrected: "The first look was changed to what most specialists name.",
  swayed: "The first look was changed to what most specialists do not name.",
  unaided: "No specialist answered.",
};

let reveal;

export function prepare(handlers) {
  reveal = handlers.reveal;
}

export function clear() {
  fill(byId("diagnosis"));
}

export function showInitial(initial, { isRevealed }) {
  if (!isRevealed) return;
  fill(byId("diagnosis"), h("p", { class: "muted" }, `First look, image only: ${said(initial)}`));
}

// `review` is the form for the reader's own word, shown beside the answer.
export function show({ diagnosis, isRevealed }, review) {
  if (!isRevealed) {
    fill(byId("diagnosis"), waiting());
    return;
  }
  fill(byId("diagnosis"),
    h("div", { class: "verdict" },
      h("div", {}, headline(diagnosis), probabilities(diagnosis)),
      h("div", {}, reasons(diagnosis), review)));
}

function waiting() {
  return h("div", { class: "hold" },
    h("p", {}, "The answer is ready. Read the image and the evidence first."),
    h("button", { type: "button", class: "primary", onclick: reveal }, "Show the answer"));
}

function headline(diagnosis) {
  const { initial, labels, arbitration, label_set: set, coverage } = diagnosis;
  return h("div", {},
    h("p", { id: "final", class: "final", tabindex: "-1" }, named(labels)),
    h("p", {},
      h("span", { class: "muted" }, "First look "), named(initial.labels),
      h("span", { "aria-hidden": "true" }, " → "), h("span", { class: "unseen" }, " then "),
      named(labels), h("span", { class: "badge", title: ARBITRATION[arbitration] }, arbitration)),
    h("p", { class: "muted" }, ARBITRATION[arbitration]),
    set && h("p", {}, `Holds the truth ${percent(coverage)} of the time: `, h("b", {}, `{ ${set.join(", ")} }`)));
}

function probabilities({ probabilities: final, initial, labels }) {
  return h("table", { class: "dense" },
    h("caption", { class: "unseen" }, "Probability of each label"),
    h("thead", {}, h("tr", {}, ["Label", "First", "Final", ""].map((head) =>
      head ? h("th", { scope: "col" }, head) : h("td", {})))),
    h("tbody", {}, final.map(({ label, probability }, place) =>
      h("tr", { class: labels.includes(label) && "chosen" },
        h("th", { scope: "row" }, label),
        h("td", { class: "number" }, percent(initial.probabilities[place].probability)),
        h("td", { class: "number" }, percent(probability)),
        h("td", { class: "with-bar wide" }, bar(probability))))));
}

function reasons({ needs_review: needed, review_reasons: texts, notes }) {
  return h("div", {},
    needed
      ? h("div", { class: "notice" }, h("b", {}, "▲ Needs review"), h("ul", {}, texts.map((text) => h("li", {}, text))))
      : h("p", { class: "muted" }, "● No reason for review was found."),
    notes.map((note) => h("p", { class: "muted" }, note)));
}

const said = ({ labels, probabilities }) => {
  const best = Math.max(...probabilities.map(({ probability }) => probability));
  return `${named(labels)} (${percent(best)})`;
};

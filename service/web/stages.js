// How far a case is, told as it happens.

import { byId, fill, h } from "./dom.js";

const STAGES = [
  ["initial", "First look"],
  ["specialists", "Specialists"],
  ["retrieval", "Similar cases"],
  ["final", "Answer"],
];

let started = 0;
let ended = {};

export function begin() {
  started = performance.now();
  ended = {};
  show();
}

export function done(stage) {
  if (!STAGES.some(([name]) => name === stage)) return;
  ended[stage] = (performance.now() - started) / 1000;
  show();
}

// Nothing more will come.
export function stop() {
  fill(byId("stages"));
}

function show() {
  fill(byId("stages"), h("ol", {}, STAGES.map(([name, text]) => stage(text, ended[name]))));
}

function stage(text, seconds) {
  const isDone = seconds !== undefined;
  return h("li", { class: isDone ? "done" : "waiting" },
    isDone ? "✓ " : "… ", text, isDone && h("span", { class: "muted" }, ` ${seconds.toFixed(1)} s`));
}

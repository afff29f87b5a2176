// What the generalist weighed: the panel's predictions and the cases that resemble this one.

import { bar, button, byId, fill, h, named, percent, seconds, two } from "./dom.js";
import { picture } from "./picture.js";

let heatOf;
let outlineOf;
let hot = null; // whose heat map is on the image

export function prepare(handlers) {
  heatOf = handlers.heatOf;
  outlineOf = handlers.outlineOf;
}

export function clear() {
  fill(byId("panel"), h("p", { class: "muted" }, "Ten specialists predict, each by itself."));
  fill(byId("similar"), h("p", { class: "muted" }, "Known cases that look like this one."));
}

export function showPanel({ moed, segmentations = [], hasImage, degraded = [], durations }) {
  const missing = degraded.filter(({ part }) => part.startsWith("specialist "));
  fill(byId("panel"),
    h("table", { class: "dense" },
      h("caption", { class: "unseen" }, "Calibrated prediction of each specialist"),
      h("thead", {}, h("tr", {}, ["Specialist", "Names", "Prob.", "Acc.", "Weights", "Heat"].map((head) =>
        h("th", { scope: "col", title: HEADS[head] }, head)))),
      h("tbody", {}, moed.map((one) => row(one, hasImage)), segmentations.map((one) => outlineRow(one, hasImage)), missing.map(absent))),
    durations?.specialists != null && h("p", { class: "muted foot" },
      `${moed.length} answered together in ${seconds(durations.specialists)}`));
}

const HEADS = {
  "Prob.": "Calibrated probability of what it names",
  "Acc.": "Accuracy on its validation data",
  Weights: "First digits of the weight file's sha256",
  Heat: "Show where it looked (Grad-CAM)",
};

// What a prediction stands for: the labels it names, and how probable the leading one is.
function row(one, hasImage) {
  const best = Math.max(...one.probabilities.map(({ probability }) => probability));
  const leading = one.probabilities.filter(({ label }) => one.labels?.includes(label));
  const share = leading.length ? Math.max(...leading.map(({ probability }) => probability)) : best;
  const all = one.probabilities.map(({ label, probability }) => `${label} ${percent(probability)}`).join(", ");
  return h("tr", { title: all },
    h("th", { scope: "row" }, one.specialist),
    h("td", { class: "with-bar" }, bar(share), h("span", {}, one.labels ? named(one.labels) : "task has changed")),
    h("td", { class: "number" }, two(share)),
    h("td", { class: "number" }, two(one.validation_accuracy)),
    h("td", { class: "code", title: `${one.weights_sha256}, computed in ${one.computed_in ?? "numbers that nobody told"}` }, one.weights_sha256.slice(0, 7)),
    h("td", {}, heatButton(one.specialist, hasImage)));
}

function heatButton(specialist, hasImage) {
  const isOn = specialist === hot;
  return h("button", {
    type: "button", class: "small", disabled: !hasImage, "data-heat": specialist, "data-needs": "submit",
    "aria-pressed": String(isOn), "aria-label": `Heat map of ${specialist}`, onclick: () => heatOf(specialist),
  }, isOn ? "Hide" : "Show");
}

// What a segmentation specialist outlines: where, how certain, and its Dice on validation data.
function outlineRow(one, hasImage) {
  const where = one.areas ? one.places.join(", ") : "none";
  return h("tr", { title: `Segmentation: ${percent(one.share)} of the image, certainty ${two(one.certainty)}` },
    h("th", { scope: "row" }, one.specialist),
    h("td", { class: "with-bar" }, h("span", {}, `${one.segment}: ${where}`)),
    h("td", { class: "number" }, two(one.certainty)),
    h("td", { class: "number" }, two(one.validation_dice)),
    h("td", { class: "code", title: one.weights_sha256 }, one.weights_sha256.slice(0, 7)),
    h("td", {}, h("button", {
      type: "button", class: "small", disabled: !hasImage, "data-outline": one.specialist, "data-needs": "submit", "aria-pressed": "false",
      "aria-label": `Outline of ${one.specialist}`, onclick: () => outlineOf(one.specialist),
    }, "Show")));
}

function absent({ part, reason }) {
  return h("tr", { class: "missing" },
    h("th", { scope: "row" }, part.replace("specialist ", "")),
    h("td", { colspan: "5" }, `missing: ${reason}`));
}

// Marks whose heat map is on the image, if anyone's.
export function pressed(specialist) {
  hot = specialist;
  mark("heat", specialist);
}

// Marks whose outline is on the image, if anyone's.
export function outlined(specialist) {
  mark("outline", specialist);
}

function mark(kind, specialist) {
  for (const one of document.querySelectorAll(`[data-${kind}]`)) {
    const isOn = one.dataset[kind] === specialist;
    one.setAttribute("aria-pressed", String(isOn));
    one.textContent = isOn ? "Hide" : "Show";
  }
}

export function showSimilar({ rad, typicality, degraded = [] }) {
  const lost = degraded.filter(({ part }) => !part.startsWith("specialist "));
  fill(byId("similar"),
    lost.map(({ part, reason }) => h("p", { class: "notice" }, `▲ ${part} missing: ${reason}`)),
    rad.length === 0 && h("p", { class: "muted" }, "None."),
    h("ul", { class: "thumbs" }, rad.map(neighbour)),
    h("div", { id: "neighbour", class: "detail", role: "group", "aria-label": "Similar case", hidden: true }),
    typicality != null && h("p", { class: "muted foot", title: "Share of the reference cases that are less like the others" },
      `Typicality ${percent(typicality)}`));
}

function neighbour(one) {
  const text = `${named(one.labels)} ${two(one.similarity)}`;
  return h("li", {}, h("button", {
    type: "button", class: "thumb", "aria-label": `Similar case, ${text}`, onclick: () => detail(one),
  }, thumbnail(one.case_id, 64), h("span", {}, named(one.labels)), h("span", { class: "number muted" }, two(one.similarity))));
}

export function thumbnail(id, side) {
  const none = h("span", { class: "no-picture" }, "no picture");
  return picture(`v1/cases/${encodeURIComponent(id)}/thumbnail`, { width: side, height: side }, none);
}

// Over the small pictures, until it is closed.
function detail(one) {
  const opener = document.activeElement;
  const box = fill(byId("neighbour"),
    h("div", { class: "row" }, h("b", {}, named(one.labels)), h("span", { class: "spacer" }), button("Close", () => {
        box.hidden = true;
        opener.focus();
      }, { class: "small" })),
    thumbnail(one.case_id),
    h("p", {}, `Similarity ${two(one.similarity)}`),
    one.report && h("p", {}, one.report),
    h("p", { class: "muted" }, `Found by ${one.retrievers.join(", ")}. ${one.source || "Source not stated"}, ${one.licence || "licence not stated"}.`));
  box.hidden = false;
  box.querySelector("button").focus();
}

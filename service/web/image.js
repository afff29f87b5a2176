// The image of a case: its viewer, the controls below it, and heat maps over it.

import { byId, options } from "./dom.js";
import * as frames from "./frame.js";
import { explain } from "./heat.js";
import { outlined, pressed } from "./evidence.js";
import { outlines } from "./outline.js";
import { Problem } from "./service.js";
import { Viewer } from "./viewer.js";

const MOST_KEPT = 64; // decoded frames of the file on the screen
const TURN_MILLISECONDS = 250;

let viewer;
let handlers;
let shown = null; // the case whose image is on the screen
let file = null;
let kept = new Map();
let heats = new Map();
let traced = null; // outlines of the frame on the screen, by specialist
let turning;

export function prepare(given) {
  handlers = given;
  viewer = new Viewer(byId("canvas"), { changed: readouts, turned: turn });
  prepareControls();
  prepareDropping();
}

// Shows the frame that `state.frame` names, or the one that the service chooses.
export async function show(state, signal) {
  if (state.file !== file) clear();
  const isTurn = file !== null;
  file = state.file;
  const frame = kept.get(state.frame) ?? await frames.load(file, state.frame, signal);
  if (signal?.aborted) return;
  state.frame = frame.count > 1 ? frame.number : null;
  remember(state.frame, frame);
  shown = state;
  viewer.show(frame, { keep: isTurn });
  traced = null;
  pressed(null);
  outlined(null);
  byId("empty").hidden = true;
  offer(frame);
}

export const isShown = () => viewer.frame !== null;

export function clear() {
  file = null;
  kept = new Map();
  heats = new Map();
  viewer.clear();
  byId("empty").hidden = false;
  byId("frames").hidden = byId("opacity-of").hidden = true;
}

// Whether a file is the one that a stored diagnosis was made of.
export async function belongsTo(given, diagnosis) {
  if (!diagnosis || !(given instanceof Blob) || !globalThis.crypto?.subtle) return false;
  const digest = await crypto.subtle.digest("SHA-256", await given.arrayBuffer());
  const sha256 = [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return sha256 === diagnosis.provenance.input_sha256;
}

// The heat map of a specialist, or none where it is shown already.
export async function toggleHeat(specialist, state) {
  if (viewer.specialist === specialist && viewer.heat) return hideHeat();
  if (!file) throw new Problem("The image is not here: drop its file first.");
  const key = `${state.task.name} ${specialist} ${state.frame}`;
  const asked = { file, task: state.task.name, specialist, frame: state.frame };
  const heat = heats.get(key) ?? await explain(asked);
  heats.set(key, heat);
  viewer.specialist = specialist;
  viewer.setHeat(heat.picture);
  pressed(specialist);
  byId("opacity-of").hidden = false;
}

// The outline of a segmentation specialist, or none where it is shown already.
export async function toggleOutline(specialist, state) {
  if (viewer.outline && viewer.outline === traced?.get(specialist)) {
    viewer.setOutline(null);
    return outlined(null);
  }
  traced ??= await outlines({ file, task: state.task.name, frame: state.frame });
  viewer.setOutline(traced.get(specialist) ?? null);
  return outlined(specialist);
}

export function hideHeat() {
  viewer.setHeat(null);
  pressed(null);
  byId("opacity-of").hidden = true;
}

function remember(number, frame) {
  kept.set(number, frame);
  if (kept.size > MOST_KEPT) kept.delete(kept.keys().next().value);
}

function offer(frame) {
  const choices = frames.presets(frame);
  options(byId("preset"), [["", "by hand"], ...choices.map(([name], place) => [String(place), name])], "0");
  byId("frames").hidden = frame.count <= 1;
  byId("frame").max = frame.count;
  byId("frame").value = frame.number;
  byId("about").textContent = [frame.modality, `${frame.columns} × ${frame.rows}`].filter(Boolean).join(" · ");
}

function readouts({ frame, window, zoom, isInverse }) {
  byId("controls").classList.toggle("off", !frame);
  for (const control of byId("controls").querySelectorAll("button, select, input")) control.disabled = !frame;
  if (!frame) return;
  const unit = frame.unit && ` ${frame.unit}`;
  byId("levels").textContent = `Level ${round(window.centre)} · Window ${round(window.width)}${unit}`;
  byId("zoom").textContent = `${Math.round(100 * zoom)} %`;
  byId("invert").setAttribute("aria-pressed", String(isInverse));
  byId("frame-number").textContent = `${byId("frame").value} of ${frame.count}`;
  const place = frames.presets(frame).findIndex(([, one]) => one.centre === window.centre && one.width === window.width);
  byId("preset").value = place < 0 ? "" : String(place);
}

const round = (number) => Number(number.toPrecision(4));

function prepareControls() {
  const onClick = { invert: () => viewer.invert(), fit: () => viewer.fit(), actual: () => viewer.actual(), reset: () => viewer.reset() };
  for (const [id, act] of Object.entries(onClick)) byId(id).addEventListener("click", act);
  byId("preset").addEventListener("change", (event) => {
    const chosen = frames.presets(viewer.frame)[event.target.value];
    if (chosen) viewer.setWindow(chosen[1]);
  });
  byId("opacity").addEventListener("input", (event) => viewer.setOpacity(event.target.value / 100));
  byId("frame").addEventListener("input", () => turn(0));
  readouts({ frame: null });
}

// Frames are decoded as the slider rests.
function turn(by) {
  const slider = byId("frame");
  slider.value = Number(slider.value) + by;
  byId("frame-number").textContent = `${slider.value} of ${slider.max}`;
  clearTimeout(turning);
  turning = setTimeout(() => turned(Number(slider.value)), TURN_MILLISECONDS);
}

async function turned(number) {
  if (shown.file !== file || shown.frame === number) return;
  shown.frame = number;
  try {
    await show(shown);
    handlers.turned(number);
  } catch (error) {
    handlers.failed(error);
  }
}

// Anywhere on the page.
function prepareDropping() {
  const screen = byId("screen");
  document.addEventListener("dragover", () => screen.classList.add("dropping"));
  document.addEventListener("dragleave", () => screen.classList.remove("dropping"));
  document.addEventListener("drop", (event) => {
    screen.classList.remove("dropping");
    const [dropped] = event.dataTransfer.files;
    if (dropped) handlers.opened(dropped);
  });
  byId("choose").addEventListener("click", () => byId("file").click());
  byId("file").addEventListener("change", (event) => {
    const [chosen] = event.target.files;
    event.target.value = "";
    if (chosen) handlers.opened(chosen);
  });
}

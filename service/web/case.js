// One case: the image, the evidence as it comes, then the answer.

import * as answer from "./answer.js";
import { byId, fill, h, options } from "./dom.js";
import * as evidence from "./evidence.js";
import * as image from "./image.js";
import * as preferences from "./preferences.js";
import * as provenance from "./provenance.js";
import * as review from "./review.js";
import { ask, Problem, read, stages } from "./service.js";
import { known, may } from "./session.js";
import * as stageList from "./stages.js";
import * as study from "./study.js";
import * as texts from "./texts.js";

const state = { file: null, frame: null, task: null, diagnosis: null, tasks: [], isRevealed: true };
let running = new AbortController();
let ready;

export async function open(_, [id]) {
  await load();
  if (id && id !== state.diagnosis?.id) await openStored(id);
}

// Before anything is known of the service: a file may be dropped at once.
export function prepare() {
  image.prepare({ opened: openFile, turned: offerFrame, failed: alarm });
  evidence.prepare({
    heatOf: (specialist) => image.toggleHeat(specialist, state).catch(alarm),
    outlineOf: (specialist) => image.toggleOutline(specialist, state).catch(alarm),
  });
  answer.prepare({ reveal });
  texts.prepare(state, alarm);
  evidence.clear();
  byId("task").addEventListener("change", chooseTask);
  byId("example").addEventListener("change", (event) => openExample(event.target.value));
  byId("provenance").addEventListener("click", () => {
    const { file, frame, diagnosis } = state;
    provenance.open(diagnosis, file && { file, frame }).catch(alarm);
  });
  byId("diagnose-frame").addEventListener("click", () => diagnose());
  prepareEvidenceFirst();
}

function load() {
  return ready ??= Promise.all([loadTasks(), loadExamples(), study.prepare(openFile)]).catch(alarm);
}

function prepareEvidenceFirst() {
  const box = byId("evidence-first");
  box.checked = preferences.kept("evidence-first", "no") === "yes";
  box.addEventListener("change", () => {
    preferences.keep("evidence-first", box.checked ? "yes" : "no");
    if (!box.checked) reveal();
  });
}

async function loadTasks() {
  state.tasks = (await read("v1/tasks")).tasks;
  const labelled = state.tasks.filter((task) => task.labels.length);
  options(byId("task"), labelled.map((task) => [task.name, task.name]), preferences.kept("task"));
  useTask(byId("task").value);
}

async function loadExamples() {
  const { examples } = await read("v1/examples");
  const address = ({ task, name }) => `${encodeURIComponent(task)}/${encodeURIComponent(name)}`;
  options(byId("example"), [["", "choose one"], ...examples.map((one) => [address(one), `${one.task} ${one.name}`])]);
  const first = examples.filter((one, place) => examples[place - 1]?.task !== one.task);
  fill(byId("examples"), first.map((one) =>
    h("li", {}, h("button", { type: "button", onclick: () => openExample(address(one)) }, one.task))));
}

async function openExample(address) {
  if (!address) return;
  byId("example").value = address;
  const [task, name] = address.split("/").map(decodeURIComponent);
  await load();  // examples may be known before tasks
  try {
    const response = await ask(`v1/examples/${address}`);
    if (state.tasks.some((one) => one.name === task)) useTask(task);
    openFile(new File([await response.blob()], name));
  } catch (error) {
    alarm(error);
  }
}

function useTask(name) {
  byId("task").value = name;
  state.task = state.tasks.find((task) => task.name === name) ?? null;
}

function chooseTask() {
  useTask(byId("task").value);
  preferences.keep("task", state.task.name);
  if (state.file) diagnose();
}

// A file that belongs to the stored diagnosis on the screen is shown beside it; any other is a
// new case. In place of a file there may be a reference to an instance of a PACS.
async function openFile(file) {
  await known;
  if (!may("submit")) return alarm(new Problem("Your key may read cases, not submit them: images need the scope submit."));
  const isKnown = !state.file && (await image.belongsTo(file, state.diagnosis));
  Object.assign(state, { file, frame: null });
  if (isKnown) return showBeside();
  if (!location.hash.startsWith("#/case")) location.hash = "#/case";
  return diagnose({ isNew: true });
}

async function showBeside() {
  try {
    await image.show(state);
    byId("subject").textContent = "";
    texts.clear();
    settle(state.diagnosis, state.reviews);
  } catch (error) {
    alarm(error);
  }
}

// Turning pages diagnoses nothing by itself: the reader asks for it.
function offerFrame(number) {
  byId("diagnose-frame").hidden = false;
  byId("diagnose-frame").textContent = `Diagnose frame ${number}`;
}

async function diagnose({ isNew = false } = {}) {
  running.abort();
  running = new AbortController();
  const { signal } = running;
  begin();
  try {
    await load();
    if (!state.task) throw new Problem("There is no task to diagnose for: add one with gsco tasks add.");
    await Promise.all([isNew && image.show(state, signal), collaborate(signal)]);
  } catch (error) {
    if (signal.aborted) return;
    running.abort();
    stageList.stop();
    if (isNew && !image.isShown()) state.file = null;
    alarm(error);
  }
}

async function collaborate(signal) {
  const fields = { file: state.file, task: state.task.name, frame: state.frame };
  for await (const [stage, value] of stages("v1/diagnoses", fields, signal)) {
    if (signal.aborted) return;
    stageList.done(stage);
    take[stage]?.(value);
  }
}

const take = {
  specialist: (prediction) => evidence.showPanel({ moed: state.heard = [...state.heard, prediction], hasImage: true }),
  specialists: (moed) => evidence.showPanel({ moed, hasImage: true }),
  retrieval: (rad) => evidence.showSimilar({ rad }),
  initial: (initial) => answer.showInitial(initial, state),
  final: (diagnosis) => {
    nameCase(diagnosis.id);
    settle(diagnosis);
  },
};

function begin() {
  byId("alert").hidden = true;
  state.diagnosis = null;
  state.heard = [];
  state.isRevealed = !byId("evidence-first").checked;
  byId("subject").textContent = "";
  byId("provenance").disabled = byId("diagnose-frame").hidden = true;
  nameCase("");
  evidence.clear();
  answer.clear();
  texts.clear();
  stageList.begin();
}

// The address of the case on the screen, as long as the reader is here.
function nameCase(id) {
  if (!byId("case").hidden) history.replaceState(null, "", id ? `#/case/${id}` : "#/case");
}

function settle(diagnosis, reviews = []) {
  state.diagnosis = diagnosis;
  byId("provenance").disabled = false;
  const { moed, segmentations, rad, typicality } = diagnosis.evidence;
  const hasImage = state.file != null;
  evidence.showPanel({ moed, segmentations, hasImage, degraded: diagnosis.degraded, durations: diagnosis.durations_seconds });
  evidence.showSimilar({ rad, typicality, degraded: diagnosis.degraded });
  state.reviews = reviews;
  showAnswer();
}

function showAnswer() {
  answer.show(state, state.isRevealed && review.form(state.diagnosis, state.task, state.reviews));
}

function reveal() {
  state.isRevealed = true;
  if (state.diagnosis) showAnswer();
  byId("final")?.focus();
}

async function openStored(id) {
  running.abort();
  running = new AbortController();
  const { signal } = running;
  image.clear();
  begin();
  stageList.stop();
  Object.assign(state, { file: null, frame: null });
  try {
    const address = `v1/diagnoses/${encodeURIComponent(id)}`;
    const [diagnosis, { reviews }] = await Promise.all([read(address), read(`${address}/review`)]);
    if (signal.aborted) return;
    if (state.tasks.some((task) => task.name === diagnosis.task)) useTask(diagnosis.task);
    else state.task = null;
    byId("subject").textContent = may("submit") ? "The image is not kept: drop its file to see it here." : "The image is not kept.";
    state.isRevealed = !byId("evidence-first").checked || reviews.length > 0;
    nameCase(id);
    settle(diagnosis, reviews);
  } catch (error) {
    alarm(error);
  }
}

function alarm(error) {
  if (error.name === "AbortError") return;
  const alert = byId("alert");
  alert.hidden = false;
  alert.textContent = error instanceof Problem ? error.message : "Something in this page failed. Reload it and try again.";
  if (!(error instanceof Problem)) console.error(error);
}

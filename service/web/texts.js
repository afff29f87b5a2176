// Draft reports and questions about the image on the screen.

import { button, byId, download, fill, h, options, percent } from "./dom.js";
import { stages } from "./service.js";

const TABS = ["diagnosis", "report", "question"];
let state;
let alarm;
let working = new AbortController();

export function prepare(given, failed) {
  state = given;
  alarm = failed;
  for (const name of TABS) {
    const tab = byId(`tab-${name}`);
    tab.addEventListener("click", () => choose(name));
    tab.addEventListener("keydown", (event) => step(event, name));
  }
}

export function clear() {
  working.abort();
  fill(byId("report"));
  fill(byId("question"));
  choose("diagnosis");
}

function choose(chosen) {
  for (const name of TABS) {
    const isChosen = name === chosen;
    byId(name).hidden = !isChosen;
    byId(`tab-${name}`).setAttribute("aria-selected", String(isChosen));
    byId(`tab-${name}`).tabIndex = isChosen ? 0 : -1;
  }
  if (chosen === "report" && !byId("report").hasChildNodes()) showReport();
  if (chosen === "question" && !byId("question").hasChildNodes()) showQuestion();
}

function step(event, name) {
  const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!by) return;
  const next = TABS[(TABS.indexOf(name) + by + TABS.length) % TABS.length];
  choose(next);
  byId(`tab-${next}`).focus();
}

// Tasks of a kind, those that consult the task on the screen first.
function tasksOf(kind) {
  const suits = (task) => Number(task.consults === state.task?.name) + Number(task.modality === state.task?.modality);
  return state.tasks.filter((task) => task.kind === kind).sort((one, other) => suits(other) - suits(one));
}

function asking(kind, missing, make) {
  const tasks = tasksOf(kind);
  if (!state.file) return h("p", { class: "muted" }, "Open an image first.");
  if (!tasks.length) return h("p", { class: "muted" }, missing);
  const select = h("select", {});
  options(select, tasks.map(({ name }) => [name, name]));
  return make(h("label", {}, "Task ", select), () => select.value);
}

async function ask(path, fields, on) {
  working.abort();
  working = new AbortController();
  const { signal } = working;
  try {
    for await (const [stage, value] of stages(path, { ...fields, file: state.file, frame: state.frame }, signal)) {
      on[stage]?.(value);
    }
  } catch (error) {
    on.failed?.();
    if (!signal.aborted) alarm(error);
  }
}

function showReport() {
  const body = h("div", { class: "draft", role: "status" });
  fill(byId("report"), asking("report", "There is no report task.", (select, task) => h("div", {},
    h("div", { class: "row" }, select, button("Draft a report", () => draft(task(), body), { class: "primary" })), body)));
}

function draft(task, body) {
  const written = h("p", {});
  fill(body, h("p", { class: "muted" }, "Writing…"), written);
  return ask("v1/reports", { task }, {
    text: ({ text }) => written.append(text),
    final: (report) => fill(body, edited(report)),
    failed: () => fill(body),
  });
}

function edited(report) {
  const findings = h("textarea", { rows: "4" });
  const impression = h("textarea", { rows: "2" });
  findings.value = report.findings;
  impression.value = report.impression;
  const text = () => `AI draft, to be read, corrected and signed by a person.\n\nFindings\n${findings.value}\n\nImpression\n${impression.value}\n`;
  return [
    h("p", { class: "notice" }, h("b", {}, "▲ AI draft. "), "Not a report until a person has read, corrected and signed it. Changes stay in this browser."),
    report.needs_review && h("ul", { class: "muted" }, report.review_reasons.map((reason) => h("li", {}, reason))),
    h("label", { class: "block" }, "Findings", findings),
    h("label", { class: "block" }, "Impression", impression),
    h("div", { class: "row" },
      button("Copy", () => navigator.clipboard.writeText(text())),
      button("Download text", () => download(`report-${report.id}.txt`, new Blob([text()], { type: "text/plain" })))),
  ];
}

function showQuestion() {
  const answers = h("div", { role: "log", "aria-label": "Answers" });
  const question = h("input", { type: "text", maxlength: "500", required: true });
  const choices = h("input", { type: "text", placeholder: "yes, no" });
  fill(byId("question"), asking("question", "There is no question task.", (select, task) =>
    h("form", { onsubmit: (event) => {
      event.preventDefault();
      put(task(), question.value, choices.value, answers);
    } },
    h("label", { class: "block" }, "Question", question),
    h("div", { class: "row" }, h("label", {}, "Permitted answers ", choices), select,
      h("button", { type: "submit", class: "primary" }, "Ask")),
    answers)));
}

function put(task, question, listed, answers) {
  const choices = listed.split(",").map((choice) => choice.trim()).filter(Boolean);
  const said = h("span", {}, "…");
  const entry = h("div", { class: "exchange" }, h("p", {}, h("b", {}, question)), h("p", {}, said));
  answers.prepend(entry);
  let text = "";
  return ask("v1/answers", { task, question, choices }, {
    text: (piece) => (said.textContent = text += piece.text),
    final: (answer) => fill(said, answer.answer, shares(answer)),
    failed: () => entry.remove(),
  });
}

function shares({ probabilities, initial_answer: initial, needs_review: needed }) {
  const listed = probabilities?.map(({ label, probability }) => `${label} ${percent(probability)}`).join(" · ");
  return h("span", { class: "muted" }, listed && ` (${listed})`, ` First look: ${initial}`, needed && " ▲ needs review");
}

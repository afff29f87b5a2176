// Everything that is needed to repeat an answer, and the answer in the forms others read.

import { button, byId, download, fill, h, moment, seconds } from "./dom.js";
import { ask, Problem, read, upload } from "./service.js";

const FORMS = {
  "application/json": ["JSON", "json"],
  "application/dicom": ["DICOM SR", "dcm"],
  "application/fhir+json": ["FHIR", "fhir.json"],
};

// `image` is {file, frame} where the file is at hand, else null.
export async function open(diagnosis, image) {
  const drawer = byId("drawer");
  fill(drawer,
    h("div", { class: "row" }, h("h2", { id: "drawer-title" }, "Provenance"), h("span", { class: "spacer" }),
      button("Close", () => drawer.close())),
    facts(diagnosis),
    h("h3", {}, "Downloads"),
    h("div", { class: "row", id: "downloads" }, downloadAs(diagnosis, "application/json"),
      image && downloadAll(diagnosis, image)),
    h("p", { id: "download-problem", role: "alert" }));
  drawer.showModal();
  for (const kind of await offered()) byId("downloads")?.append(downloadAs(diagnosis, kind));
}

function facts({ id, created_at: at, task, provenance, durations_seconds: durations }) {
  const { generalist, weights } = provenance;
  return h("dl", {},
    fact("Diagnosis", id), fact("Made", moment(at)), fact("Task", task), fact("Task sha256", provenance.task_sha256),
    fact("Input sha256", provenance.input_sha256),
    fact("Code", provenance.code_version), fact("Preprocessing", provenance.preprocessing_version),
    fact("Generalist", `${generalist.model}, ${generalist.engine}, ${generalist.sampling}`),
    fact("Generalist's weights", generalist.weights_sha256),
    fact("Prompt template", provenance.prompt_template),
    fact("First prompt sha256", provenance.initial_prompt_sha256),
    fact("Arbitration prompt sha256", provenance.arbitration_prompt_sha256),
    weights.map(({ specialist, weights_sha256: sha256 }) => fact(specialist, sha256)),
    provenance.index_ids.map((index, place) => fact(place ? "" : "Indexes", index)),
    Object.entries(durations).map(([stage, taken]) => fact(`Time, ${stage}`, seconds(taken))));
}

function fact(name, value) {
  return [h("dt", {}, name), h("dd", {}, value)];
}

// What else the service says it can give: its own description knows.
async function offered() {
  const { paths } = await read("openapi.json");
  const content = paths["/v1/diagnoses/{id}"].get.responses["200"].content;
  return Object.keys(content).filter((kind) => kind in FORMS && kind !== "application/json");
}

function downloadAs({ id }, kind) {
  const [text, ending] = FORMS[kind];
  return saving(text, `diagnosis-${id}.${ending}`, () => ask(`v1/diagnoses/${id}`, { headers: { Accept: kind } }));
}

function downloadAll({ id }, image) {
  const text = "SR, SC, FHIR beside the image (zip)";
  return saving(text, `diagnosis-${id}.zip`, () => upload(`v1/diagnoses/${id}/results`, image, "application/zip"));
}

function saving(text, name, fetched) {
  return button(text, async () => {
    const problem = byId("download-problem");
    problem.textContent = "";
    try {
      download(name, await (await fetched()).blob());
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      problem.textContent = error.message;
    }
  });
}

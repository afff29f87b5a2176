// An image of the configured PACS: which source, which study, and which of its instances.

import { button, byId, fill, h, options } from "./dom.js";
import { Problem, read, send } from "./service.js";

const UIDS = [
  ["study_instance_uid", "Study Instance UID"],
  ["series_instance_uid", "Series Instance UID, if one is meant"],
  ["sop_instance_uid", "SOP Instance UID, if one is meant"],
];
const IS_UID = "[0-9.]{1,64}";

let open; // called with a reference to the chosen instance, in place of a file

// Offers it where the settings name a source.
export async function prepare(chosen) {
  open = chosen;
  const { sources } = await read("v1/sources");
  byId("from-source").hidden = !sources.length;
  if (sources.length) draw(sources);
}

function draw(sources) {
  const dialog = byId("study");
  const source = h("select", {});
  options(source, sources.map((name) => [name, name]));
  const fields = UIDS.map(([name, text]) => [name, text, h("input", {
    type: "text", maxlength: "64", pattern: IS_UID, autocomplete: "off", spellcheck: "false", required: name === UIDS[0][0],
  })]);
  const found = h("div", { role: "status" });
  const asked = () => Object.fromEntries(fields.map(([name, , field]) => [name, field.value.trim() || null]));
  fill(dialog,
    h("div", { class: "row" }, h("h2", { id: "study-title" }, "From a PACS"), h("span", { class: "spacer" }),
      button("Close", () => dialog.close())),
    h("form", { onsubmit: (event) => {
      event.preventDefault();
      search(source.value, asked(), found);
    } },
    h("label", { class: "block" }, "Source ", source),
    fields.map(([, text, field]) => h("label", { class: "block" }, text, field)),
    h("div", { class: "row" }, h("button", { type: "submit", class: "primary" }, "Find"))),
    found);
  byId("from-source").addEventListener("click", () => dialog.showModal());
}

// A single instance is opened at once; of several the reader chooses.
async function search(source, asked, found) {
  fill(found, h("p", { class: "muted" }, "Asking…"));
  try {
    const { instances } = await send(`v1/sources/${encodeURIComponent(source)}/search`, asked);
    const references = instances.map((one) => ({ ...one, source, study_instance_uid: asked.study_instance_uid }));
    fill(found, listed(references));
    if (references.length === 1) choose(references[0]);
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    fill(found, h("p", { class: "notice" }, error.message));
  }
}

function listed(references) {
  if (!references.length) return h("p", { class: "muted" }, "Nothing of it holds an image.");
  return h("ol", { class: "instances", "aria-label": "Instances" }, references.map((one, place) =>
    h("li", {}, button(`${place + 1}. ${one.modality || "image"}`, () => choose(one)),
      h("span", { class: "code" }, ` ${one.sop_instance_uid}`))));
}

function choose({ modality: _, ...reference }) {
  byId("study").close();
  open(reference);
}

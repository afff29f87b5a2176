// What gsco evaluate measured: the tables and plots of each results folder.

import { fill, h, options, table } from "./dom.js";
import { picture } from "./picture.js";
import { ask, read } from "./service.js";

const CAPTIONS = {
  roc: "Sensitivity against specificity, per label.",
  calibration: "How often a label holds, against the probability said of it.",
  confusion: "What holds, against what is named; cases.",
  strata: "What each system gains over the generalist alone, by how divided the panel is.",
  arbitration: "What became of first answers, right and wrong.",
  selective: "Accuracy when the least sure cases are left to people.",
};

export async function evaluations() {
  const { evaluations: all } = await read("v1/evaluations");
  if (!all.length) return h("p", { class: "muted" }, "None yet. gsco evaluate --task T --data PATH measures every system on held-out images.");
  const shown = h("div", {});
  const select = h("select", { onchange: () => show(shown, all[select.selectedIndex]) });
  options(select, all.map(({ name }) => [name, name]));
  await show(shown, all[0]);
  return [h("div", { class: "row" }, h("label", {}, "Evaluation ", select)), shown];
}

async function show(shown, { name, files }) {
  const address = (file) => `v1/evaluations/${encodeURIComponent(name)}/${file}`;
  const text = files.includes("table.md") ? await (await ask(address("table.md"))).text() : "";
  const plots = files.filter((file) => file.endsWith(".svg"));
  fill(shown, blocks(text).map(block), h("div", { class: "plots" }, plots.map((file) => plot(address(file), file))));
}

function plot(path, file) {
  const kind = file.slice(file.lastIndexOf("/") + 1, -".svg".length);
  const caption = CAPTIONS[kind] ?? kind;
  return h("figure", {}, picture(path, { alt: caption }, h("p", { class: "muted" }, "This plot cannot be shown.")),
    h("figcaption", { class: "muted" }, caption));
}

// The Markdown that gsco evaluate writes: headings, paragraphs, quotations and tables.
function blocks(text) {
  const found = [];
  for (const line of text.split("\n")) {
    if (line.startsWith("|")) {
      if (found.at(-1)?.kind !== "table") found.push({ kind: "table", rows: [] });
      const cells = line.replace(/^\|\s*|\s*\|\s*$/g, "").split(/\s\|\s/);
      if (!cells[0].startsWith("---")) found.at(-1).rows.push(cells);
    } else {
      const [, sign, rest] = /^(#+ |> )?(.*)$/.exec(line);
      found.push({ kind: sign?.trim() ?? "", text: rest });
    }
  }
  return found.filter(({ text: said, rows }) => rows || said);
}

function block({ kind, text, rows }, place, all) {
  if (kind === "table") {
    const [heads, ...body] = rows;
    const title = all.slice(0, place).findLast(({ text: said }) => said)?.text ?? "Figures";
    return table(`${place}. ${title}`.slice(0, 100), heads, body.map((cells) => h("tr", {}, cells.map((cell) => h("td", {}, cell)))));
  }
  if (kind.startsWith("#")) return h("h2", {}, text);
  return h("p", { class: kind === ">" ? "notice" : null }, text);
}

// The page as a whole: which view is shown, light or dark, and whether the service is ready.

import * as caseView from "./case.js";
import { byId } from "./dom.js";
import * as preferences from "./preferences.js";
import { read } from "./service.js";
import * as session from "./session.js";

const VIEWS = {
  case: async () => caseView,
  worklist: () => import("./worklist.js"),
  operations: () => import("./operations.js"),
};
const TITLES = { case: "Case", worklist: "Worklist", operations: "Operations" };
const HEALTH_SECONDS = 30;

async function route() {
  const [name, ...rest] = location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
  const shown = name in VIEWS ? name : "case";
  for (const view of Object.keys(VIEWS)) byId(view).hidden = view !== shown;
  for (const link of document.querySelectorAll("nav a")) {
    const isHere = link.getAttribute("href").startsWith(`#/${shown}`);
    if (isHere) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${TITLES[shown]} – gsco`;
  (await VIEWS[shown]()).open(byId(shown), rest);
}

function useTheme(theme) {
  document.documentElement.dataset.theme = theme;
  byId("theme").textContent = theme === "dark" ? "Light" : "Dark";
  preferences.keep("theme", theme);
}

async function showHealth() {
  const health = byId("health");
  try {
    const { status } = await read("readyz");
    health.textContent = status === "ready" ? "● Ready" : "▲ Degraded";
    health.dataset.status = status;
  } catch {
    health.textContent = "■ Not ready";
    health.dataset.status = "unready";
  }
}

byId("theme").addEventListener("click", () =>
  useTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
// A browser would leave the page for a file that is dropped beside the image.
for (const kind of ["dragover", "drop"]) addEventListener(kind, (event) => event.preventDefault());
useTheme(preferences.kept("theme", "dark"));
caseView.prepare();
session.begin();
session.known.then(() => {
  addEventListener("hashchange", route);
  route();
});
showHealth();
setInterval(showHealth, 1000 * HEALTH_SECONDS);

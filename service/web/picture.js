// Pictures of the service. An <img> would ask for them without the reader's key.

import { h } from "./dom.js";
import { ask, Problem } from "./service.js";

// An image that fills itself; `none` takes its place where the service has no such picture.
export function picture(path, attributes, none) {
  const image = h("img", { alt: "", ...attributes });
  load(image, path).catch((error) => {
    if (!(error instanceof Problem)) console.error(error);
    image.replaceWith(none);
  });
  return image;
}

async function load(image, path) {
  const address = URL.createObjectURL(await (await ask(path)).blob());
  try {
    image.src = address;
    await image.decode();
  } catch {
    throw new Problem("This picture cannot be shown.");
  } finally {
    URL.revokeObjectURL(address);
  }
}

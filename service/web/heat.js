// Heat maps (Grad-CAM): where one specialist looked, as a picture to be laid over the frame.

import { upload } from "./service.js";

// From violet over red to yellow: brighter is hotter, also for eyes that confuse red and green.
const ANCHORS = [0, 0.25, 0.5, 0.75, 1];
const COLOURS = [[60, 0, 120], [170, 20, 110], [235, 80, 40], [250, 170, 20], [255, 255, 120]];

// {picture, label, probability}; the picture has one pixel per cell of the map.
export async function explain({ file, task, specialist, frame }, signal) {
  const fields = { file, task, specialist, frame };
  const response = await upload("v1/explanations", fields, "application/json", signal);
  const { heat, label, probability } = await response.json();
  return { picture: drawn(heat), label, probability };
}

function drawn(heat) {
  const canvas = document.createElement("canvas");
  canvas.width = heat[0].length;
  canvas.height = heat.length;
  const pixels = new ImageData(canvas.width, canvas.height);
  heat.flat().forEach((value, place) => pixels.data.set(colour(value), 4 * place));
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas;
}

// Cold places are clear: they show the image as it is.
function colour(value) {
  const place = Math.min(ANCHORS.findIndex((anchor) => value <= anchor) || 1, 4);
  const share = (value - ANCHORS[place - 1]) / (ANCHORS[place] - ANCHORS[place - 1]);
  const mixed = [0, 1, 2].map((band) =>
    COLOURS[place - 1][band] * (1 - share) + COLOURS[place][band] * share);
  return [...mixed, 255 * value];
}

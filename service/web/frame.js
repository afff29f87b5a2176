// A frame's pixels become grey levels through a window, as DICOM PS3.3 section C.11.2.1 says.

import { decode } from "./png.js";
import { upload } from "./service.js";

const PADDING = 65535;
const HOUNSFIELD = [
  ["Soft tissue", 40, 400],
  ["Lung", -600, 1500],
  ["Bone", 400, 1800],
  ["Brain", 40, 80],
  ["Mediastinum", 50, 350],
];

// Asks the service to decode one frame of a file; nothing of it is stored there.
export async function load(file, number, signal) {
  const response = await upload("v1/frames", { file, frame: number }, "image/png", signal);
  const png = await decode(await response.arrayBuffer());
  const frame = { ...JSON.parse(png.texts["gsco-frame"]), ...png };
  return { ...frame, highest: highest(frame), isGrey: png.channels === 1 };
}

// [name, window] pairs: the file's own first, then what suits the kind of image.
export function presets(frame) {
  const own = frame.windows.map((window, place) => [
    place ? `File ${place + 1}` : "As diagnosed", window,
  ]);
  const usual = frame.unit === "HU"
    ? HOUNSFIELD.map(([name, centre, width]) => [name, { centre, width, function: "LINEAR" }])
    : [];
  return [...own, ...usual, ["All values", everything(frame)]];
}

// What a window is changed by for one pixel of dragging.
export function dragStep(frame) {
  return (frame.highest - frame.lowest || 255) / 512;
}

// RGBA of every pixel.
export function paint(frame, window, isInverse, target) {
  const levels = table(frame, window, isInverse);
  const { samples, isGrey } = frame;
  if (isGrey) {
    for (let i = 0; i < samples.length; i++) target[i] = 0xff000000 | (levels[samples[i]] * 0x010101);
    return;
  }
  for (let i = 0, s = 0; i < target.length; i++, s += 3) {
    target[i] = 0xff000000 | (levels[samples[s + 2]] << 16) | (levels[samples[s + 1]] << 8) | levels[samples[s]];
  }
}

function table(frame, window, isInverse) {
  const levels = new Uint8Array(frame.isGrey ? PADDING + 1 : 256);
  for (let sample = 0; sample < levels.length; sample++) {
    const grey = Math.round(level(frame.lowest + frame.step * sample, window));
    levels[sample] = isInverse ? 255 - grey : grey;
  }
  if (frame.isGrey) levels[PADDING] = 0;
  return levels;
}

function level(value, { centre, width, function: name }) {
  if (name === "SIGMOID") return 255 / (1 + Math.exp((-4 * (value - centre)) / width));
  if (name === "LINEAR") return ramp(value, centre - 0.5, width - 1);
  return ramp(value, centre, width);
}

function ramp(value, centre, width) {
  if (width <= 0) return value > centre ? 255 : 0;
  return Math.min(Math.max(((value - centre) / width + 0.5) * 255, 0), 255);
}

function highest({ samples, lowest, step }) {
  let most = 0;
  for (const sample of samples) if (sample > most && sample !== PADDING) most = sample;
  return lowest + step * most;
}

function everything({ lowest, highest: most }) {
  return { centre: (lowest + most) / 2, width: most - lowest || 1, function: "LINEAR_EXACT" };
}

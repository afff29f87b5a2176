// One frame on a canvas: window/level, zoom, pan, invert, and a heat map over it.

import { dragStep, paint, presets } from "./frame.js";

const MOST_ZOOM = 40;
const KEY_STEPS = 16;

export class Viewer {
  // `changed` is called after anything that a readout may show has changed.
  constructor(canvas, { changed, turned }) {
    this.canvas = canvas;
    this.changed = changed;
    this.turned = turned;
    this.frame = null;
    this.picture = document.createElement("canvas");
    this.heat = this.outline = null;
    this.opacity = 0.6;
    this.pointers = new Map();
    new ResizeObserver(() => this.#resize()).observe(canvas);
    listen(this, canvas);
  }

  // A frame of the same image keeps window and place; another image starts anew.
  show(frame, { keep = false } = {}) {
    this.frame = frame;
    this.picture.width = frame.width;
    this.picture.height = frame.height;
    this.pixels = new ImageData(frame.width, frame.height);
    this.heat = this.outline = null;
    if (keep) this.#repaint();
    else this.reset();
  }

  clear() {
    this.frame = this.heat = this.outline = null;
    this.#draw();
  }

  reset() {
    if (!this.frame) return;
    this.window = presets(this.frame)[0][1];
    this.isInverse = this.frame.is_inverse;
    this.fit();
    this.#repaint();
  }

  setWindow(window) {
    this.window = { ...window, width: Math.max(window.width, least(window)) };
    this.#repaint();
  }

  changeWindow(byCentre, byWidth) {
    if (!this.frame) return;
    const { centre, width } = this.window;
    this.setWindow({ ...this.window, centre: centre + byCentre, width: width + byWidth });
  }

  invert() {
    this.isInverse = !this.isInverse;
    this.#repaint();
  }

  fit() {
    if (!this.frame) return;
    const { width, height } = this.#size();
    this.zoom = Math.min(width / this.frame.width, height / this.#height());
    this.x = this.y = 0;
    this.isFitted = true;
    this.#draw();
  }

  actual() {
    this.zoomBy(1 / this.zoom);
  }

  // `at` is a point of the canvas that stays where it is, by default the centre.
  zoomBy(factor, at = { x: 0, y: 0 }) {
    if (!this.frame) return;
    const zoom = Math.min(Math.max(this.zoom * factor, 0.05), MOST_ZOOM);
    this.x = at.x - (at.x - this.x) * (zoom / this.zoom);
    this.y = at.y - (at.y - this.y) * (zoom / this.zoom);
    this.zoom = zoom;
    this.isFitted = false;
    this.#draw();
  }

  panBy(x, y) {
    this.x += x;
    this.y += y;
    this.isFitted = false;
    this.#draw();
  }

  setHeat(heat) {
    this.heat = heat;
    this.#draw();
  }

  // A path over a square of one by one, or null.
  setOutline(path) {
    this.outline = path;
    this.#draw();
  }

  setOpacity(opacity) {
    this.opacity = opacity;
    this.#draw();
  }

  #repaint() {
    this.isStale = true;
    this.#draw();
  }

  #draw() {
    this.waiting ??= requestAnimationFrame(() => {
      this.waiting = null;
      this.#render();
      this.changed(this);
    });
  }

  #render() {
    const context = this.canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    if (!this.frame) return;
    if (this.isStale) this.#develop();
    const scale = devicePixelRatio * this.zoom;
    const { width } = this.frame;
    const height = this.#height();
    context.translate(this.canvas.width / 2 + this.x * devicePixelRatio, this.canvas.height / 2 + this.y * devicePixelRatio);
    context.scale(scale, scale);
    context.imageSmoothingEnabled = this.zoom < 8;
    context.drawImage(this.picture, -width / 2, -height / 2, width, height);
    if (this.heat) this.#cover(context, width, height);
    if (this.outline) this.#trace(context, width, height);
  }

  // Bright on a dark edge, so that it is seen on any ground; as thin on any zoom.
  #trace(context, width, height) {
    const path = new Path2D();
    path.addPath(this.outline, new DOMMatrix([width, 0, 0, height, -width / 2, -height / 2]));
    for (const [colour, thick] of [["#000", 3.5], ["#6ee7ff", 1.5]]) {
      context.strokeStyle = colour;
      context.lineWidth = thick / this.zoom;
      context.stroke(path);
    }
  }

  #cover(context, width, height) {
    context.imageSmoothingEnabled = true;
    context.globalAlpha = this.opacity;
    context.drawImage(this.heat, -width / 2, -height / 2, width, height);
    context.globalAlpha = 1;
  }

  #develop() {
    paint(this.frame, this.window, this.isInverse, new Uint32Array(this.pixels.data.buffer));
    this.picture.getContext("2d").putImageData(this.pixels, 0, 0);
    this.isStale = false;
  }

  // In units of a pixel's width: pixels need not be square.
  #height() {
    return this.frame.height * this.frame.height_to_width;
  }

  #size() {
    return this.canvas.getBoundingClientRect();
  }

  #resize() {
    const { width, height } = this.#size();
    this.canvas.width = Math.max(1, Math.round(width * devicePixelRatio));
    this.canvas.height = Math.max(1, Math.round(height * devicePixelRatio));
    if (this.isFitted) this.fit();
    this.#draw();
  }
}

function least({ function: name }) {
  return name === "LINEAR" ? 1 : 1e-6;
}

function listen(viewer, canvas) {
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    viewer.pointers.set(event.pointerId, event);
  });
  canvas.addEventListener("pointermove", (event) => move(viewer, event));
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, (event) => viewer.pointers.delete(event.pointerId));
  }
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("dblclick", () => viewer.reset());
  canvas.addEventListener("wheel", (event) => wheel(viewer, event), { passive: false });
  canvas.addEventListener("keydown", (event) => press(viewer, event));
}

function move(viewer, event) {
  const before = viewer.pointers.get(event.pointerId);
  if (!before || !viewer.frame) return;
  const x = event.clientX - before.clientX;
  const y = event.clientY - before.clientY;
  if (viewer.pointers.size === 2) pinch(viewer, event, x, y);
  else if (event.shiftKey || event.buttons & 6) viewer.panBy(x, y);
  else viewer.changeWindow(y * dragStep(viewer.frame), x * dragStep(viewer.frame));
  viewer.pointers.set(event.pointerId, event);
}

function pinch(viewer, event, x, y) {
  const [id] = [...viewer.pointers.keys()].filter((one) => one !== event.pointerId);
  const other = viewer.pointers.get(id);
  const distance = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
  viewer.zoomBy(distance(event) / (distance(viewer.pointers.get(event.pointerId)) || 1));
  viewer.panBy(x / 2, y / 2);
}

function wheel(viewer, event) {
  if (!viewer.frame) return;
  event.preventDefault();
  if (viewer.frame.count > 1 && !event.ctrlKey) return viewer.turned(Math.sign(event.deltaY));
  const { left, top, width, height } = viewer.canvas.getBoundingClientRect();
  const at = { x: event.clientX - left - width / 2, y: event.clientY - top - height / 2 };
  viewer.zoomBy(1.0015 ** -event.deltaY, at);
}

function press(viewer, event) {
  if (!viewer.frame || event.ctrlKey || event.metaKey || event.altKey) return;
  const act = (event.shiftKey ? pans(viewer) : windows(viewer))[event.key] ?? others(viewer)[event.key];
  if (!act) return;
  event.preventDefault();
  act();
}

const windows = (viewer) => {
  const step = KEY_STEPS * dragStep(viewer.frame);
  return {
    ArrowUp: () => viewer.changeWindow(-step, 0),
    ArrowDown: () => viewer.changeWindow(step, 0),
    ArrowLeft: () => viewer.changeWindow(0, -step),
    ArrowRight: () => viewer.changeWindow(0, step),
  };
};

const pans = (viewer) => ({
  ArrowUp: () => viewer.panBy(0, 40),
  ArrowDown: () => viewer.panBy(0, -40),
  ArrowLeft: () => viewer.panBy(40, 0),
  ArrowRight: () => viewer.panBy(-40, 0),
});

const others = (viewer) => ({
  "+": () => viewer.zoomBy(1.25),
  "=": () => viewer.zoomBy(1.25),
  "-": () => viewer.zoomBy(0.8),
  0: () => viewer.fit(),
  1: () => viewer.actual(),
  i: () => viewer.invert(),
  r: () => viewer.reset(),
  PageUp: () => viewer.turned(-1),
  PageDown: () => viewer.turned(1),
});

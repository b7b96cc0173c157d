/* As much of a browser as an explorable needs. It notes what is painted, in pixels; nothing moves by itself:
   `frames.run()` is the next frame, `timers.run()` a tick of every clock that runs. */

const SIZE = { width: 560, height: 350 }; // of every canvas

class Pen {
  constructor(canvas) {
    Object.assign(this, { canvas, kept: [], log: [], calls: 0, path: [], dash: [], clipped: null });
    Object.assign(this, { globalAlpha: 1, lineWidth: 1, matrix: [1, 0, 0, 1, 0, 0], imageSmoothingEnabled: true });
  }
  save() { this.kept.push({ ...this }); }
  restore() {
    const { kept, log, calls, path } = this;
    Object.assign(this, kept.pop(), { kept, log, calls, path });
  }
  setTransform(...matrix) { this.matrix = matrix; }
  translate(x, y) { this.matrix = [...this.matrix.slice(0, 4), ...this.point(x, y)]; }
  rotate(angle) {
    const [a, b, c, d, e, f] = this.matrix, [cos, sin] = [Math.cos(angle), Math.sin(angle)];
    this.matrix = [a * cos + c * sin, b * cos + d * sin, c * cos - a * sin, d * cos - b * sin, e, f];
  }
  point(x, y) {
    const [a, b, c, d, e, f] = this.matrix;
    return [a * x + c * y + e, b * x + d * y + f];
  }
  setLineDash(dash) { this.dash = dash; }
  beginPath() { this.path = []; }
  moveTo(x, y) { this.path.push({ points: [this.point(x, y)] }); }
  lineTo(x, y) { this.path.length ? this.path[this.path.length - 1].points.push(this.point(x, y)) : this.moveTo(x, y); }
  closePath() { this.path[this.path.length - 1].closed = true; }
  arc(x, y, radius, from, to) { this.path.push({ centre: this.point(x, y), radius, angle: to - from }); }
  rect(...box) { this.path.push({ box }); }
  clip() { this.clipped = this.path[0].box; }
  note(what, colour, more) {
    const { globalAlpha: alpha, lineWidth: width, dash, clipped } = this;
    this.calls++;
    this.log.push({ what, colour, alpha, width, dash, clipped, ...more });
  }
  stroke() { this.note("stroke", this.strokeStyle, { path: this.path, join: this.lineJoin }); }
  fill() { this.note("fill", this.fillStyle, { path: this.path }); }
  strokeRect(...box) { this.note("strokeRect", this.strokeStyle, { box }); }
  text(what, colour, words, x, y) {
    const { textAlign: align, textBaseline: baseline, font, matrix } = this;
    this.note(what, colour, { words, at: this.point(x, y), angle: Math.atan2(matrix[1], matrix[0]), align, baseline, font });
  }
  strokeText(...written) { this.text("strokeText", this.strokeStyle, ...written); }
  fillText(...written) { this.text("fillText", this.fillStyle, ...written); }
  measureText(words) { return { width: 7 * words.length }; }
  clearRect(...box) { this.log = [{ what: "clear", box, scale: this.matrix[0] }]; }
  putImageData(image) { this.image = image; }
  drawImage(sheet, ...box) {
    const pixels = Array.from(sheet.getContext("2d").image.data);
    this.note("image", null, { box, pixels, smooth: this.imageSmoothingEnabled });
  }
}

class Element {
  constructor(tag) {
    Object.assign(this, { tagName: tag.toUpperCase(), children: [], attributes: {}, dataset: {}, listeners: {}, words: "" });
    this.style = { setProperty(name, value) { this[name] = value; } };
    const names = this.names = new Set();
    this.classList = { toggle: (name, on) => (on ? names.add(name) : names.delete(name)), contains: name => names.has(name) };
  }
  get clientWidth() { return SIZE.width; }
  get clientHeight() { return SIZE.height; }
  getBoundingClientRect() { return { left: 100, top: 50, ...SIZE }; }
  setAttribute(name, value) { this.attributes[name] = String(value); }
  getAttribute(name) { return this.attributes[name] ?? null; }
  append(...children) { this.children.push(...children); }
  replaceChildren(...children) { this.children = children; }
  addEventListener(event, listener) { (this.listeners[event] ||= []).push(listener); }
  setPointerCapture() {}
  getContext() { return this.pen ||= new Pen(this); }
  get textContent() { return this.words || this.children.map(child => child.textContent ?? child).join(""); }
  set textContent(words) { [this.words, this.children] = [words, []]; }
  all() { return [this, ...this.children.flatMap(child => (child.all ? child.all() : []))]; }
  /* What the reader does: an event, which also reaches the elements around. */
  act(event, values = {}) {
    const sent = { target: this, preventDefault() { this.prevented = true; }, ...values };
    for (const place of [this, ...el.all().filter(around => around !== this && around.all().includes(this))]) {
      for (const listener of place.listeners[event] || []) listener(sent);
    }
    return Boolean(sent.prevented);
  }
}

const later = kind => ({
  add(job) { this.jobs.set(this.next, job); return this.next++; },
  remove(id) { this.jobs.delete(id); },
  run() {
    const jobs = [...this.jobs];
    if (kind === "once") this.jobs.clear();
    for (const [, job] of jobs) job();
  },
  jobs: new Map(), next: 1,
});
const frames = later("once"), timers = later("always");
const requestAnimationFrame = job => frames.add(job), cancelAnimationFrame = id => frames.remove(id);
const setInterval = (job, every) => timers.add(Object.assign(job, { every })), clearInterval = id => timers.remove(id);

const watching = []; // observers and media queries that have not been given up
class Observer {
  constructor(changed) { this.changed = changed; this.seen = []; }
  observe(place, options) {
    this.seen.push([place, options]);
    if (!watching.includes(this)) watching.push(this);
  }
  disconnect() { watching.splice(0, watching.length, ...watching.filter(other => other !== this)); }
}
class ResizeObserver extends Observer {}
class MutationObserver extends Observer {}
const prefers = {}; // {query: whether it matches}
const matchMedia = query => ({
  matches: Boolean(prefers[query]), query,
  addEventListener(event, changed) { watching.push(Object.assign(this, { changed })); },
  removeEventListener() { watching.splice(0, watching.length, ...watching.filter(other => other !== this)); },
});

class ImageData {
  constructor(width, height) { this.data = new Uint8ClampedArray(4 * width * height); }
}
let devicePixelRatio = 1;
const COLOUR = { color: "rgb(34, 40, 50)", backgroundColor: "rgb(255, 255, 255)", fontFamily: "sans" };
const getComputedStyle = () => COLOUR;
const document = {
  documentElement: new Element("html"), body: new Element("body"), head: new Element("head"),
  createElement: tag => new Element(tag),
};
const el = new Element("div"); // where the explorable is shown

/* A trained network infers in the page, under an adversary who changes activations: AROVR, eq. 8, or its
   constrained form, eq. 7. Its mathematics is in real_network.maths.js; the network itself is data,
   0.3 MB, which `setup` loads when the explorable comes into view. */

let host = null; // the model, for what is no control
let drawn = null; // the reader's own digit, as an image
const redraws = []; // one for each view of the model

const largest = z => z.indexOf(Math.max(...z));
/* By how much a class leads, or falls behind, the best of the others. */
const margin = (z, digit) => z[digit] - Math.max(...z.filter((_, other) => other !== digit));

/* What does not depend on the adversary, computed once per image. The target is the label; for a
   reader's own digit, which has none, it is what the forward pass reads. */
const cases = new WeakMap();
function caseOf(x, known = null) {
  if (!cases.has(x)) {
    const start = forwardPass(x), output = start.z[net.depth], read = largest(output), label = known ?? read;
    const y = Float64Array.from(output, (_, digit) => Number(digit === label)), lead = margin(output, read);
    const certified = lead ** 2 / (4 * net.kappa); // bounds.energy_budget
    cases.set(x, { start, y, label, read, lead, certified, border: border(start) });
  }
  return cases.get(x);
}
/* The largest β, up to 1/128 of the border, at which inference settles. */
function reach(image) {
  if (image.reach === undefined) {
    let low = 0, high = 128;
    while (high - low > 1) {
      const middle = (low + high) / 2;
      if (infer(image.start, image.y, middle / 128 * image.border).settled) low = middle;
      else high = middle;
    }
    image.reach = low / 128 * image.border;
  }
  return image.reach;
}

/* `stopped`: at this β inference does not settle, and a smaller one stands in for it. `arovr` is what the optimum that
   inference finds gains: AROVR is at least that. No picture tells whether AROVR is finite. With ReLUs that depends on the
   weights alone, and the optimum found is one near the forward pass. */
function solve(p, options = {}) {
  const at = net.names.indexOf(p.image), image = caseOf(at < 0 ? drawn : net.images[at], net.labels[at]);
  const { start, y } = image, top = net.depth, budget = p.adversary === "budget";
  let found = budget ? spend(start, y, p.delta, options) : infer(start, y, p.beta, options);
  const stopped = !budget && !found.settled;
  if (stopped) found = infer(start, y, Math.min(p.beta, reach(image)), options);
  const { z, e, beta, potential, loss, passes } = found, miss = minus(start.z[top], y);
  return {
    ...image, z, beta, potential, passes, stopped, forward: start.z, loss: [0.5 * dot(miss, miss), loss],
    arovr: budget || stopped ? NaN : beta > 0 ? loss - potential / beta : loss,
    attackedRead: largest(z[top]), remains: margin(z[top], image.read), signal: feedback(1, e[1]),
  };
}

/* What the reader sees: the image and the signal at it, the hidden layers, the outputs. */

const RISE = COLOURS.arovr, FALL = COLOURS.rovr;
const CAPTION = 24, GAP = 12;

/* Two squares with room for captions, side by side or one above the other, in pixels. */
function squares({ width, height }) {
  const wide = width > height;
  const room = wide ? [(width - GAP) / 2, height - CAPTION] : [width, (height - GAP) / 2 - CAPTION];
  const side = Math.floor(Math.min(...room)), left = (width - (wide ? 2 * side + GAP : side)) / 2;
  const top = CAPTION + (wide ? (height - CAPTION - side) / 2 : 0);
  return [0, 1].map(i => (wide ? { left: left + i * (side + GAP), top, side }
    : { left, top: top + i * (side + GAP + CAPTION), side }));
}
/* The plot's coordinates are pixels, downwards; grids have hard edges. */
function beginPixels(plot) {
  const { clientWidth: width, clientHeight: height } = plot.canvas;
  plot.begin({ x: [0, width], y: [height, 0], margins: [0, 0, 0, 0] });
  plot.pen.imageSmoothingEnabled = false;
}
/* Values as a square grid, in one or more colours on top of each other: [values, colour, opacity(value)]. */
function grid(plot, { left, top, side }, caption, sheets) {
  const window = { x: [left, left + side], y: [top + side, top] };
  for (const [values, colour, opacity] of sheets) {
    plot.shade(values, Math.sqrt(values.length), colour, opacity, { window });
  }
  plot.with({ alpha: 0.4, width: 1 }, pen => pen.strokeRect(left + 0.5, top + 0.5, side - 1, side - 1));
  plot.text(caption, [left, top - 0.45 * CAPTION]);
}
/* Orange where a value has risen, blue where it has fallen; `half` is half as opaque as can be. */
function changed(values, half) {
  const share = v => (v > 0 ? v * v / (v * v + half * half) : 0);
  return [[values, RISE, share], [values, FALL, v => share(-v)]];
}
function drawPicture(plot, p, s) {
  beginPixels(plot);
  const [pad, below] = squares(plot), mine = p.image === "drawn";
  grid(plot, pad, mine ? "x, your digit" : "x, image", [[s.forward[0], plot.ink, ink => ink]]);
  grid(plot, below, "W₀ᵀe₁, signal at the image",
    [[s.forward[0], plot.ink, ink => 0.3 * ink], ...changed(s.signal, 0.04)]);
  if (s.forward[0].some(ink => ink > 0)) return;
  plot.text("draw here", [pad.left + pad.side / 2, pad.top + pad.side / 2], { align: "center", alpha: 0.7 });
}
function drawHidden(plot, p, s) {
  beginPixels(plot);
  squares(plot).forEach((square, i) => {
    const k = i + 1, before = s.forward[k];
    grid(plot, square, `z${"₀₁₂"[k]}, ${before.length} units`,
      [[before, plot.ink, v => 0.6 * v], ...changed(minus(s.z[k], before), 0.12)]);
  });
}
function drawOutputs(plot, p, s) {
  const [top, bottom] = [-0.7, 9.7], last = net.depth, high = 0.32;
  plot.begin({ x: [-0.65, 1.65], y: [bottom, top], margins: [CAPTION, 8, 34, 20] });
  for (const x of [0, 1]) plot.vertical(x, { width: 1, alpha: 0.5, dash: x ? [5, 4] : [] });
  for (const [values, colour, from] of [[s.forward[last], plot.ink, -0.34], [s.z[last], RISE, 0.02]]) {
    values.forEach((v, digit) => {
      const upper = digit + from, lower = upper + high;
      plot.area([[0, upper], [v, upper], [v, lower], [0, lower]], { colour });
    });
  }
  range(10).forEach(digit => {
    plot.text(String(digit), [plot.x[0], digit], { shift: [-6, 0], align: "right", bold: digit === s.label });
  });
  plot.text("label", [plot.x[1], s.label], { shift: [-4, 0], align: "right", alpha: 0.85 });
  const below = { align: "center", alpha: 0.85 };
  for (const x of [-0.5, 0, 0.5, 1, 1.5]) plot.text(plot.tick(x), [x, bottom], { shift: [0, 10], ...below });
  plot.text("z₃, outputs", [0.5, bottom], { shift: [0, 25], ...below });
  plot.text("■ z* forward", [plot.x[0], top], { shift: [0, -0.45 * CAPTION] });
  plot.text("■ z attacked", [plot.x[1], top], { shift: [0, -0.45 * CAPTION], align: "right", colour: RISE });
  plot.with({ free: true, width: 1, alpha: 0.4 }, pen => {
    const { left, top: upper, right, bottom: lower } = plot.box;
    pen.strokeRect(left, upper, right - left, lower - upper);
  });
}

const subject = (p, s) => (p.image === "drawn" ? "Your digit" : `A ${s.label} (${p.image})`);
const strength = (v, digits = 3) => number(Math.sqrt(dot(v, v)), digits);
const describePicture = (p, s) => `${subject(p, s)}, and W₀ᵀe₁, the change of it that would help the ` +
  `adversary: of length ${strength(s.signal)}; orange asks for more ink, blue for less.`;
function describeHidden(p, s) {
  const words = [1, 2].map(k => `those of layer ${k}, of length ${strength(s.forward[k], 2)}, ` +
    `by ${strength(minus(s.z[k], s.forward[k]))}`);
  return `Activations as grids of units, and how the adversary changes them: ${words.join("; ")}.`;
}
function describeOutputs(p, s) {
  const list = values => Array.from(values, v => number(v)).join(", ");
  const [before, after] = [s.forward, s.z].map(z => list(z[net.depth]));
  return `Outputs for the digits 0 to 9: of the forward pass ${before}; attacked ${after}.`;
}

function status(p, s) {
  const turned = s.attackedRead !== s.read, below = p.adversary === "budget" && p.delta < s.certified;
  const reading = `${subject(p, s)}, read as ${s.read}; ` +
    (turned ? `under the adversary, as ${s.attackedRead}.` : "the adversary does not change that.");
  if (!s.stopped) return { text: reading + (below ? " Nothing within the certified budget could." : "") };
  return { lit: true, text: "Inference from the forward pass does not settle at this β: it finds no optimum nearby. " +
    "(Whether AROVR is finite depends on the weights alone, and this does not tell.) " +
    `The picture stays at β = ${number(s.beta, 3)}, the largest found at which it settles. ${reading}` };
}

/* A line of soft ink from one place to another, in pixels of the image. */
function stroke(bytes, [x0, y0], [x1, y1]) {
  const n = Math.sqrt(bytes.length), [dx, dy] = [x1 - x0, y1 - y0];
  return bytes.map((ink, i) => {
    const [x, y] = [i % n + 0.5 - x0, Math.floor(i / n) + 0.5 - y0];
    const t = clamp((x * dx + y * dy) / (dx * dx + dy * dy + 1e-9), 0, 1);
    return Math.max(ink, Math.round(255 * clamp(1.7 - Math.hypot(x - t * dx, y - t * dy), 0, 1)));
  });
}
/* The same ink around the middle of the image, which is where the training images have theirs. */
function centred(bytes) {
  const n = Math.sqrt(bytes.length), mass = bytes.reduce((sum, ink) => sum + ink, 0) || 1;
  const [right, down] = [i => i % n, i => Math.floor(i / n)]
    .map(place => Math.round((n - 1) / 2 - bytes.reduce((sum, ink, i) => sum + ink * place(i), 0) / mass));
  return bytes.map((_, i) => {
    const [x, y] = [i % n - right, Math.floor(i / n) - down];
    return x >= 0 && x < n && y >= 0 && y < n ? bytes[y * n + x] : 0;
  });
}
/* The bytes of the reader's digit; blank to begin with. */
function drawnBytes() {
  const bytes = Array.from(host.get("drawing"));
  return bytes.length ? bytes : range(net.sizes[0]).map(() => 0);
}
/* Strokes with mouse or finger; a finger scrolls the page where there is nothing to draw. */
function attachPad({ canvas, plot, redraw }) {
  let last = null;
  const where = event => {
    const { left, top, side } = squares(plot)[0], rect = canvas.getBoundingClientRect();
    const shift = [event.clientX - rect.left - left, event.clientY - rect.top - top];
    return shift.map(v => v / side * Math.sqrt(net.sizes[0]));
  };
  const onPad = event => host.get("image") === "drawn" && where(event).every(v => v >= 0 && v * v <= net.sizes[0]);
  const ink = event => {
    const at = where(event);
    host.set("drawing", stroke(drawnBytes(), last || at, at));
    last = at;
  };
  redraws.push(redraw);
  canvas.addEventListener("touchstart", event => {
    if (onPad(event.touches[0])) event.preventDefault();
  }, { passive: false });
  canvas.addEventListener("pointerdown", event => {
    if (!onPad(event)) return;
    canvas.setPointerCapture(event.pointerId);
    ink(event);
  });
  canvas.addEventListener("pointermove", event => { if (last) ink(event); });
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, () => {
      if (!last) return;
      last = null;
      host.set("drawing", centred(drawnBytes()));
      host.save_changes();
    });
  }
}

/* Getting the network: a kernel sends its bytes; a page loads them as a script, which also works from
   the file system, and only when the explorable is about to be seen. */
const DATA = "_static/real_network.data.js";

function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}
/* Settles when the element is on the screen, or nearly so. */
const seen = place => new Promise(done => {
  new IntersectionObserver((entries, observer) => {
    if (!entries.some(entry => entry.isIntersecting)) return;
    observer.disconnect();
    done();
  }, { rootMargin: "300px" }).observe(place);
});
async function bytesFromPage(place) {
  await seen(place);
  const tell = words => place.querySelector("p").replaceChildren(words);
  tell("Loading the network, 0.3 MB.");
  const src = (document.documentElement.dataset.content_root || "") + DATA;
  const script = element("script", { src });
  const loaded = new Promise((done, failed) => { [script.onload, script.onerror] = [done, failed]; });
  document.head.append(script);
  await loaded.catch(() => {
    tell(`The network could not be loaded: this page needs ${src} beside it.`);
    return new Promise(() => {}); // the still picture stays
  });
  script.remove();
  return Uint8Array.from(atob(script.packed), code => code.charCodeAt(0));
}
async function setup(model, place) {
  const sent = model.get("_packed");
  host = model;
  const packed = sent ? new Uint8Array(sent.buffer, sent.byteOffset, sent.byteLength)
    : await bytesFromPage(place);
  net = unpack(new Uint8Array(await inflate(packed)));
  const read = () => { drawn = inked(drawnBytes()); };
  read();
  model.on("change:drawing", () => {
    read();
    redraws.forEach(redraw => redraw());
  });
}

const nextImage = ({ image }) => ({ image: net.names[(net.names.indexOf(image) + 1) % net.names.length] });
function emptyPad() {
  host.set("drawing", []);
  return { image: "drawn" };
}

const explorable = {
  setup,
  solve,
  panels: [
    { shape: 0.5, draw: drawPicture, describe: describePicture, attach: attachPad },
    { shape: 0.5, draw: drawHidden, describe: describeHidden },
    { shape: 0.5, draw: drawOutputs, describe: describeOutputs },
  ],
  readouts: (p, s) => [
    { name: "loss", label: "ℓ(z*)", note: "forward pass", shape: "square", value: s.loss[0] }, "≤",
    { name: "arovr", label: "ℓ(z) − U/β", note: "AROVR, or less", shape: "circle", colour: RISE, value: s.arovr },
    { name: "attacked", label: "ℓ(z)", note: "attacked", value: s.loss[1] },
    { name: "energy", label: "U(z; x)", note: "spent", value: s.potential, digits: 4 },
    { name: "price", label: "β", note: "used", value: s.beta },
    { name: "lead", label: "margin", note: "of z*", value: s.lead }, "→",
    { name: "remains", label: "margin", note: "of z", value: s.remains },
  ],
  status,
  limits: (p, s) => ({
    beta: { at: s.border, label: "near border", lit: s.stopped },
    delta: { at: s.certified, label: "certified budget", lit: false },
  }),
  actions: [
    { name: "next", label: "Next image", run: nextImage },
    { name: "draw", label: "Draw a digit", run: emptyPad },
  ],
};

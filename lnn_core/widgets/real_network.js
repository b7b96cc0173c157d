/* A trained network infers in the page: layers z_k = max(a_k, 0) with a_k = W_k z_(k−1) + b_k and a
   linear output, under an adversary who may change every activation: AROVR, max ℓ(z) − U(z; x)/β.

   The first half is lnn_core's default solver (shooting.py) and its bounds, for one image. The
   network itself is data, 0.3 MB, which `setup` loads when the explorable comes into view. */

let net = null; // {sizes, depth, transposed, biases, images, names, labels, kappa}
let drawn = null; // the reader's own digit, as an image

/* The inverse of packed.py: a line of JSON, the integers n_ij of W_ij = scale_i·n_ij, the images. */
function unpack(bytes) {
  const end = bytes.indexOf(10), header = Array.from(bytes.subarray(0, end), code => String.fromCharCode(code));
  const { sizes, scales, ...rest } = JSON.parse(header.join(""));
  const signed = new Int8Array(bytes.buffer, bytes.byteOffset, bytes.length);
  let at = end + 1;
  const transposed = scales.map((scale, layer) => {
    const [columns, rows] = [sizes[layer], sizes[layer + 1]], weights = new Float64Array(columns * rows);
    for (let i = 0; i < rows; i++) {
      for (let j = 0; j < columns; j++) weights[j * rows + i] = scale[i] * signed[at++];
    }
    return weights;
  });
  const images = rest.names.map((_, i) => inked(bytes.subarray(at + i * sizes[0], at + (i + 1) * sizes[0])));
  return { sizes, depth: scales.length, transposed, images, ...rest };
}
const inked = bytes => Float64Array.from(bytes, ink => ink / 255);

function dot(u, v) {
  let sum = 0;
  for (let i = 0; i < u.length; i++) sum += u[i] * v[i];
  return sum;
}
const minus = (u, v) => u.map((value, i) => value - v[i]);
const times = (factor, v) => v.map(value => factor * value);

/* a_k from the activations of the layer below. Most of those are zero, and cost nothing. */
function preactivation(k, z) {
  const weights = net.transposed[k - 1], a = Float64Array.from(net.biases[k - 1]), rows = a.length;
  for (let j = 0; j < z.length; j++) {
    const active = z[j];
    if (active) for (let i = 0, at = j * rows; i < rows; i++, at++) a[i] += weights[at] * active;
  }
  return a;
}
/* W_kᵀe: what errors of layer k tell the layer below. */
function feedback(k, e) {
  const weights = net.transposed[k - 1], rows = e.length, signal = new Float64Array(net.sizes[k - 1]);
  for (let j = 0, at = 0; j < signal.length; j++) {
    let sum = 0;
    for (let i = 0; i < rows; i++, at++) sum += weights[at] * e[i];
    signal[j] = sum;
  }
  return signal;
}
const activation = (k, a) => (k < net.depth ? a.map(v => (v > 0 ? v : 0)) : a);
/* How a hidden layer answers a signal p: argmin over z ≥ 0 of D(z‖a) − pᵀz. */
const respond = (a, signal) => a.map((v, i) => (v + signal[i] > 0 ? v + signal[i] : 0));

/* The forward pass, as lists by layer; the image is z_0. */
function forwardPass(x) {
  const z = [x], a = [null];
  for (let k = 1; k <= net.depth; k++) {
    a.push(preactivation(k, z[k - 1]));
    z.push(activation(k, a[k]));
  }
  return { z, a };
}

/* Activations with their errors e_k = z_k − f_k(a_k), U = Σ D_k(z_k‖a_k) (eqs. 2, 3), ℓ = ½‖z_L − y‖². */
function pointAt(z, a, y) {
  const e = [null], miss = minus(z[net.depth], y);
  let potential = 0;
  for (let k = 1; k <= net.depth; k++) {
    const f = activation(k, a[k]);
    e.push(minus(z[k], f));
    potential += 0.5 * dot(e[k], e[k]) + dot(e[k], minus(f, a[k]));
  }
  return { z, a, e, potential, loss: 0.5 * dot(miss, miss) };
}

/* Signals from the error λ of the output layer down, the layers' answers, and the errors these would
   have. A step below 1 is the short sweep of eq. 17: it goes only part of the way to an answer. */
function down({ z, a }, lambda, step) {
  const signals = [], answers = [], errors = [];
  errors[net.depth] = lambda;
  for (let k = net.depth - 1; k > 0; k--) {
    signals[k] = feedback(k + 1, errors[k + 1]);
    answers[k] = respond(a[k], signals[k]).map((v, i) => z[k][i] + step * (v - z[k][i]));
    errors[k] = minus(answers[k], activation(k, a[k]));
  }
  return { signals, answers, errors };
}
/* The answers to these signals, fed forward; those of a short sweep stay as they are. */
function up(start, { signals, answers }, step, phi, y) {
  const z = [start.z[0]], a = [null], top = net.depth;
  for (let k = 1; k <= top; k++) {
    a[k] = k > 1 ? preactivation(k, z[k - 1]) : start.a[1];
    if (k < top) z[k] = step < 1 ? answers[k] : respond(a[k], signals[k]);
  }
  z[top] = phi(a[top]).map((v, i) => v + a[top][i]);
  return pointAt(z, a, y);
}

/* How far the errors are from those that caused them: Σ‖e_k − e_k′‖², zero at a stationary point. */
function mismatch({ e }, errors) {
  return range(net.depth).reduce((sum, k) => sum + dot(minus(e[k + 1], errors[k + 1]), minus(e[k + 1], errors[k + 1])), 0);
}

/* argmin U − βℓ by shooting. λ is the error that the output layer is assumed to have, φ(a_L) the one
   that it then has; λ moves by gain·(φ − λ). A pass by which the energy would rise is taken back, and
   short sweeps follow. Begins at the forward pass; where a λ is known, with that. */
function infer(start, y, beta, { tolerance = 1e-6, most = 60, lambda = null } = {}) {
  const top = net.depth, rate = beta / (1 - beta), phi = a => a.map((v, i) => rate * (v - y[i]));
  const energy = ({ potential, loss }) => potential - beta * loss;
  let here = pointAt(start.z, start.a, y), gain = lambda ? 1 : null, last = null, step = 1, passes = 0, off = Infinity;
  let aim = phi(start.a[top]);
  lambda ||= aim;
  do {
    const pass = down(here, lambda, step);
    if (gain === null) { // Newton's step in one dimension; κ = λᵀKλ/‖λ‖² costs nothing here
      const work = pass.signals.reduce((sum, p, k) => sum + dot(p, pass.errors[k]), 0);
      gain = 1 / Math.max(1 - rate * work / (dot(lambda, lambda) + 1e-30), 0.25);
      for (const list of [pass.signals, pass.errors]) list.forEach((v, k) => { list[k] = times(gain, v); });
    }
    const there = up(start, pass, step, phi, y), assumed = pass.errors[top], answer = there.e[top];
    if (last) { // the slope of φ between the last two passes
      const change = minus(assumed, last.assumed);
      const slope = dot(change, minus(answer, last.answer)) / (dot(change, change) + 1e-30);
      gain = 1 / Math.max(1 - slope, 0.25);
    }
    last = { assumed, answer };
    const rounding = 1e-14 * (Math.abs(energy(here)) + there.potential + beta * there.loss);
    if (energy(there) - energy(here) <= rounding) {
      off = mismatch(there, pass.errors);
      lambda = step < 1 ? answer : assumed.map((v, i) => v + gain * (answer[i] - v));
      [here, aim, step] = [there, answer, 1];
    } else {
      [lambda, gain, step] = [aim, 1, step / 2];
    }
    passes++;
  } while (off > tolerance ** 2 * dot(aim, aim) && passes < most && here.potential < 1e3);
  return { ...here, beta, passes, settled: off <= 1e-6 * dot(aim, aim) };
}

/* max ℓ(z) subject to U(z; x) ≤ δ, the constrained form, eq. 7. ℓ is convex, so that each step to the
   best z for its gradient z_L − y, which costs one pass with λ = β(z_L − y), lets ℓ grow; β, the inverse
   multiplier, is set anew by what the last pass spent. No border of stability stands in the way. */
function spend(start, y, delta, { tolerance = 1e-6, most = 60 } = {}) {
  let here = pointAt(start.z, start.a, y), beta = 0, passes = 0, off = 0, lambda = minus(start.z[net.depth], y);
  do {
    const pass = down(here, lambda, 1), there = up(start, pass, 1, () => lambda, y);
    const wanted = minus(there.z[net.depth], y), growth = Math.sqrt(delta / there.potential);
    beta = growth * Math.sqrt(dot(lambda, lambda) / dot(wanted, wanted));
    const next = times(beta, wanted), errors = pass.errors.with(net.depth, next);
    off = mismatch(there, errors);
    [here, lambda] = [there, next];
    passes++;
  } while (off > tolerance ** 2 * dot(lambda, lambda) && passes < most);
  return { ...here, beta, passes, settled: off <= 1e-6 * dot(lambda, lambda) };
}

/* 1/λ_max(K) with K = Σ J_k M_k J_kᵀ: the border of stability near the forward pass (bounds.py). */
function border({ a }) {
  const n = net.sizes[net.depth], pairs = range(n * n);
  let rows = range(n).map(i => Float64Array.from(range(n), j => Number(i === j)));
  let gram = pairs.map(at => rows[Math.floor(at / n)][at % n]);
  for (let k = net.depth; k > 1; k--) {
    rows = rows.map(row => feedback(k, row).map((v, i) => (a[k - 1][i] > 0 ? v : 0)));
    gram = gram.map((v, at) => v + dot(rows[Math.floor(at / n)], rows[at % n]));
  }
  let power = gram; // its squares, scaled to trace 1, tend to the projection on the largest eigenvector
  for (let squarings = 0; squarings < 24; squarings++) {
    const lines = range(n).map(i => power.slice(i * n, i * n + n));
    const trace = lines.reduce((sum, line) => sum + dot(line, line), 0);
    power = pairs.map(at => dot(lines[Math.floor(at / n)], lines[at % n]) / trace);
  }
  return 1 / dot(gram, power);
}

const largest = z => z.indexOf(Math.max(...z));
/* By how much a class leads, or falls behind, the best of the others. */
const margin = (z, digit) => z[digit] - Math.max(...z.filter((_, other) => other !== digit));

/* What does not depend on the adversary, computed once an image. The target is the label; for a
   reader's own digit, which has none, it is what the forward pass reads. */
const cases = new WeakMap();
function caseOf(x, known = null) {
  if (!cases.has(x)) {
    const start = forwardPass(x), output = start.z[net.depth], read = largest(output), label = known ?? read;
    const y = Float64Array.from(output, (_, digit) => Number(digit === label)), lead = margin(output, read);
    cases.set(x, { start, y, label, read, lead, border: border(start), certified: lead ** 2 / (4 * net.kappa) });
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

function solve(p, options = {}) {
  const at = net.names.indexOf(p.image), image = caseOf(at < 0 ? drawn : net.images[at], net.labels[at]);
  let found = p.adversary === "budget" ? spend(image.start, image.y, p.delta, options) : infer(image.start, image.y, p.beta, options);
  const stopped = !found.settled;
  if (stopped) found = infer(image.start, image.y, Math.min(p.beta, reach(image)), options);
  const { z, e, potential, loss, beta } = found, gap = minus(image.start.z[net.depth], image.y);
  return {
    ...image, z, stopped, beta, potential, forward: image.start.z, before: 0.5 * dot(gap, gap),
    value: beta > 0 ? loss - potential / beta : loss,
    after: largest(z[net.depth]), remains: margin(z[net.depth], image.read), signal: feedback(1, e[1]), passes: found.passes,
  };
}

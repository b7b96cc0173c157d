/* A chain of ReLU layers z_k = max(a_k, 0), a_k = W_k z_(k−1) + b_k, with a linear output, and an adversary
   who may change every activation of it: lnn_core's default solver (shooting.py) and its bounds
   (bounds.py) for one image, in the same precision. No page, no picture. */

let net = null; // {sizes, depth, transposed, biases, images, names, labels, kappa}, from `unpack`

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
const prox = (a, signal) => a.map((v, i) => (v + signal[i] > 0 ? v + signal[i] : 0));

/* The forward pass, as lists by layer; the image is z_0. */
function forwardPass(x) {
  const z = [x], a = [null];
  for (let k = 1; k <= net.depth; k++) {
    a.push(preactivation(k, z[k - 1]));
    z.push(activation(k, a[k]));
  }
  return { z, a };
}

/* Activations z, their errors e_k = z_k − f_k(a_k), U = Σ D_k(z_k‖a_k) (eqs. 2, 3), and ℓ = ½‖z_L − y‖². */
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
    answers[k] = prox(a[k], signals[k]).map((v, i) => z[k][i] + step * (v - z[k][i]));
    errors[k] = minus(answers[k], activation(k, a[k]));
  }
  return { signals, answers, errors };
}
/* The answers to these signals, fed forward; those of a short sweep stay as they are. */
function up(start, { signals, answers }, step, phi, y) {
  const z = [start.z[0]], a = [null], top = net.depth;
  for (let k = 1; k <= top; k++) {
    a[k] = k > 1 ? preactivation(k, z[k - 1]) : start.a[1];
    if (k < top) z[k] = step < 1 ? answers[k] : prox(a[k], signals[k]);
  }
  z[top] = phi(a[top]).map((v, i) => v + a[top][i]);
  return pointAt(z, a, y);
}

/* How far the errors are from those that caused them: Σ‖e_k − e_k′‖², zero at a stationary point. */
function mismatch({ e }, errors) {
  return range(net.depth).reduce((sum, i) => {
    const apart = minus(e[i + 1], errors[i + 1]);
    return sum + dot(apart, apart);
  }, 0);
}

/* 1/(1 − s), at most 4: the step to where answer and assumption agree, with the slope s of the answer
   measured between the last two passes. */
function secant(assumed, answer, last) {
  const change = minus(assumed, last.assumed);
  const slope = dot(change, minus(answer, last.answer)) / (dot(change, change) + 1e-30);
  return 1 / Math.max(1 - slope, 0.25);
}

/* argmin U − βℓ by shooting, from the forward pass on. λ is the error that the output layer is assumed
   to have, φ(a_L) the one that it then has; λ moves by gain·(φ − λ). A pass by which the energy would
   rise is taken back, and short sweeps follow. */
function infer(start, y, beta, { tolerance = 1e-6, most = 60 } = {}) {
  const top = net.depth, rate = beta / (1 - beta), phi = a => a.map((v, i) => rate * (v - y[i]));
  const energy = ({ potential, loss }) => potential - beta * loss;
  let here = pointAt(start.z, start.a, y), aim = phi(start.a[top]), lambda = aim;
  let gain = null, last = null, step = 1, passes = 0, off = Infinity;
  do {
    const pass = down(here, lambda, step);
    if (gain === null) { // Newton's step in one dimension; κ = λᵀKλ/‖λ‖² costs nothing here
      const work = pass.signals.reduce((sum, p, k) => sum + dot(p, pass.errors[k]), 0);
      gain = 1 / Math.max(1 - rate * work / (dot(lambda, lambda) + 1e-30), 0.25);
      for (const list of [pass.signals, pass.errors]) list.forEach((v, k) => { list[k] = times(gain, v); });
    }
    const there = up(start, pass, step, phi, y), assumed = pass.errors[top], answer = there.e[top];
    if (last) gain = secant(assumed, answer, last);
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
  } while (off > tolerance ** 2 * dot(aim, aim) && passes < most && here.potential < 100);
  return { ...here, beta, passes, settled: off <= 1e-6 * dot(aim, aim) };
}

/* max ℓ(z) subject to U(z; x) ≤ δ, the constrained form, eq. 7, by shooting as well. The error of the
   output layer is β times the gradient z_L − y of ℓ; the inverse multiplier β is not given, but follows
   from what the last pass spent. In each pass ℓ is replaced by its tangent, which it is never below: no
   energy then falls without end, and there is no border. */
function spend(start, y, delta, { tolerance = 1e-6, most = 60 } = {}) {
  const top = net.depth;
  let here = pointAt(start.z, start.a, y), beta = 0.25; // a guess
  let lambda = times(beta, minus(here.z[top], y)), last = null, step = 1, passes = 0, off = Infinity;
  do {
    const pass = down(here, lambda, step), there = up(start, pass, step, () => lambda, y);
    const energy = ({ potential, z }) => potential - dot(lambda, z[top]);
    if (energy(there) - energy(here) <= 1e-14) {
      const wanted = minus(there.z[top], y);
      beta = Math.sqrt(delta / (there.potential + 1e-30) * dot(lambda, lambda) / (dot(wanted, wanted) + 1e-30));
      const answer = times(beta, wanted), gain = last ? secant(lambda, answer, last) : 1;
      pass.errors[top] = answer;
      off = mismatch(there, pass.errors) / (dot(answer, answer) + 1e-30);
      last = { assumed: lambda, answer };
      lambda = lambda.map((v, i) => v + gain * (answer[i] - v));
      [here, step] = [there, 1];
    } else {
      step /= 2;
    }
    passes++;
  } while (off > tolerance ** 2 && passes < most);
  return { ...here, beta, passes, settled: off <= 1e-4 };
}

/* The near border, 1/λ_max(K) with K = Σ J_k M_k J_kᵀ: at the forward pass, with the units that are on there, U − βℓ
   ceases to be convex (bounds.py). */
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

/* The energy landscape of a network of two units, to be dragged: no kernel, no network, no library.

       x → z1 = max(w0·x + b0, 0) → z2 = w1·z1 + b1, compared with a target y

   `twoUnit` and `contour` are mathematics and touch no page; tests/test_landscape_js.py compares
   them with lnn_core. `drawLandscape` paints, `mountLandscape` builds the picture with its
   sliders inside an element. A setting p holds x, y, beta and the weights w0, b0, w1, b1. */
"use strict";

const twoUnit = {
  forward(p) {
    const z1 = Math.max(p.w0 * p.x + p.b0, 0);
    return [z1, p.w1 * z1 + p.b1];
  },

  loss(p, z2) {
    return 0.5 * (z2 - p.y) ** 2;
  },

  /* The Fenchel–Young potential U, eq. (3), written so that nothing cancels near the forward pass. */
  potential(p, z1, z2) {
    if (z1 < 0) return Infinity;
    const a1 = p.w0 * p.x + p.b0, f1 = Math.max(a1, 0);
    return 0.5 * (z1 - f1) ** 2 + (z1 - f1) * (f1 - a1) + 0.5 * (z2 - p.w1 * z1 - p.b1) ** 2;
  },

  /* E = U + weight·ℓ: weight is β for ROVR and −β for AROVR. */
  energy(p, weight, z1, z2) {
    return twoUnit.potential(p, z1, z2) + weight * twoUnit.loss(p, z2);
  },

  /* U − βℓ has a minimum for β below this. */
  border(p) {
    return 1 / (1 + p.w1 ** 2);
  },

  /* argmin E, or null where there is none. E is quadratic on two pieces, hidden unit off (z1 = 0)
     and on (z1 > 0): the lower of the pieces' stationary points is the minimum. */
  optimum(p, weight) {
    if (weight <= -twoUnit.border(p)) return null;
    const off = [0, (p.b1 + weight * p.y) / (1 + weight)];
    const left = p.w0 * p.x + p.b0 - p.w1 * p.b1, right = p.b1 + weight * p.y;
    const det = (1 + p.w1 ** 2) * (1 + weight) - p.w1 ** 2;
    const on = [((1 + weight) * left + p.w1 * right) / det, (p.w1 * left + (1 + p.w1 ** 2) * right) / det];
    const lower = twoUnit.energy(p, weight, ...on) < twoUnit.energy(p, weight, ...off);
    return on[0] > 0 && lower ? on : off;
  },

  /* For each method where its activations are and what it is worth; z is null past the border. */
  solve(p) {
    const forward = twoUnit.forward(p);
    const relaxed = weight => {
      const z = twoUnit.optimum(p, weight);
      return { z, value: z ? twoUnit.loss(p, z[1]) + twoUnit.potential(p, ...z) / weight : Infinity };
    };
    return {
      rovr: relaxed(p.beta),
      forward: { z: forward, value: twoUnit.loss(p, forward[1]) },
      arovr: relaxed(-p.beta),
    };
  },
};

/* The line where a function, known at the points of an n × n grid (values[row * n + column]), takes
   the value `level`: segments [x0, y0, x1, y1] in units of cells (marching squares). */
function contour(values, n, level) {
  const segments = [];
  for (let row = 0; row + 1 < n; row++) {
    for (let column = 0; column + 1 < n; column++) {
      const corners = [[column, row], [column + 1, row], [column + 1, row + 1], [column, row + 1]];
      const height = corners.map(([x, y]) => values[y * n + x] - level);
      const cuts = [];
      for (let i = 0, j = 1; i < 4; i++, j = (j + 1) % 4) {
        if ((height[i] < 0) === (height[j] < 0)) continue;
        const t = height[i] / (height[i] - height[j]);
        cuts.push(corners[i][0] + t * (corners[j][0] - corners[i][0]),
                  corners[i][1] + t * (corners[j][1] - corners[i][1]));
      }
      for (let i = 0; i < cuts.length; i += 4) segments.push(cuts.slice(i, i + 4));
    }
  }
  return segments;
}

// ---------------------------------------------------------------------------------------------
// The picture

const METHODS = { // colours as in lnn_core/style.py; the forward pass is black, on dark pages white
  rovr: { name: "ROVR", mark: "▲", colour: "#0072B2", what: "nudged towards the target" },
  forward: { name: "ℓ(z*)", mark: "■", colour: "#000000", what: "the forward pass" },
  arovr: { name: "AROVR", mark: "●", colour: "#D55E00", what: "attacked" },
};
const SLIDERS = {
  beta: { label: "β, how hard the loss pulls", min: 0.01, max: 0.7, step: 0.01, start: 0.3 },
  x: { label: "x, the input", min: -1, max: 2, step: 0.05, start: 1 },
  y: { label: "y, the target", min: -1, max: 3, step: 0.05, start: 2 },
};
const WEIGHTS = { w0: 1, b0: 0, w1: 1, b1: 0 };
const WINDOW = { z1: [-0.25, 2.75], z2: [-2.25, 3.25] };
const CELLS = 81;

/* Paint the setting p on a canvas: the landscape that `shown` ("rovr" or "arovr") descends in,
   and everybody's optimum. `ink` and `paper` are the page's colours. */
function drawLandscape(canvas, p, solution, shown, ink, paper) {
  const width = canvas.clientWidth, height = canvas.clientHeight, density = window.devicePixelRatio || 1;
  canvas.width = width * density;
  canvas.height = height * density;
  const pen = canvas.getContext("2d");
  pen.scale(density, density);
  const along = ([low, high], t) => low + t * (high - low);
  const px = z1 => (z1 - WINDOW.z1[0]) / (WINDOW.z1[1] - WINDOW.z1[0]) * width;
  const py = z2 => (WINDOW.z2[1] - z2) / (WINDOW.z2[1] - WINDOW.z2[0]) * height;
  const weight = shown === "rovr" ? p.beta : -p.beta;

  // The energy on a grid over z1 ≥ 0; its formula for U is continued there, without the ∞.
  const energies = new Float64Array(CELLS * CELLS);
  const z1s = [0, WINDOW.z1[1]], cell = (px(z1s[1]) - px(0)) / (CELLS - 1);
  for (let row = 0; row < CELLS; row++) {
    for (let column = 0; column < CELLS; column++) {
      energies[row * CELLS + column] = twoUnit.energy(
        p, weight, along(z1s, column / (CELLS - 1)), along(WINDOW.z2, 1 - row / (CELLS - 1)));
    }
  }
  const origin = twoUnit.energy(p, weight, ...(solution[shown].z || solution.forward.z));
  const step = height / (CELLS - 1), level = k => origin + 0.05 * k * Math.abs(k);

  pen.fillStyle = METHODS[shown].colour; // dark is low
  for (let k = solution[shown].z ? 0 : -12; k < 17; k++) {
    pen.globalAlpha = 0.32 * (1 - Math.max(k, 0) / 17) / 4;
    break;
  }
}

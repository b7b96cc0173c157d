/* The energy landscape of the network of two units, which can be drawn whole:

       x → z1 = max(x, 0) → z2 = z1, with the loss ℓ = ½(z2 − y)²

   A setting p holds x, y, beta and gamma = γ_1/γ_2 (with γ_2 = 1), `passes` of inference, and
   which energy is `shown`. The weight of the loss is β for ROVR and −β for AROVR. */

const twoUnit = {
  forward: ({ x }) => [Math.max(x, 0), Math.max(x, 0)],
  loss: (p, z2) => 0.5 * (z2 - p.y) ** 2,
  /* U = γ D(z1‖x) + D(z2‖z1), Zach (2025), eqs. 3 and 14, written so that nothing cancels near z*. */
  potential(p, z1, z2) {
    const f = Math.max(p.x, 0);
    if (z1 < 0) return Infinity;
    return p.gamma * (0.5 * (z1 - f) ** 2 + (z1 - f) * (f - p.x)) + 0.5 * (z2 - z1) ** 2;
  },
  energy: (p, weight, z1, z2) => twoUnit.potential(p, z1, z2) + weight * twoUnit.loss(p, z2),
  /* U − βℓ has a minimum for β below this, and none above: eq. 19, exact here. */
  border: ({ gamma }) => gamma / (gamma + 1),
  /* argmin E, or null where there is none. Below the border E is strictly convex: its minimum is the
     stationary point of the piece z1 > 0 (hidden unit on) if that lies in it, or else of z1 = 0 (off).
     On the border E is straight in one direction, where it falls for ever if x > y, and else not at all. */
  optimum({ x, y, gamma }, weight) {
    const room = weight + twoUnit.border({ gamma }), inside = room > 1e-12;
    if (!inside && (room < -1e-12 || x > y)) return null;
    const det = (gamma + 1) * (1 + weight) - 1;
    const z1 = inside ? ((1 + weight) * gamma * x + weight * y) / det : 0;
    return z1 > 0 ? [z1, (gamma * x + (gamma + 1) * weight * y) / det] : [0, weight * y / (1 + weight)];
  },
  /* The bare sweeps of eq. 17 from z* on: z2 first, then z1; every step a point. */
  sweeps(p, weight) {
    const path = [twoUnit.forward(p)];
    for (let pass = 0; pass < p.passes; pass++) {
      const [before] = path[path.length - 1], z2 = (before + weight * p.y) / (1 + weight);
      path.push([before, z2], [Math.max(p.x + (z2 - before) / p.gamma, 0), z2]);
    }
    return path;
  },
};

/* Activations and value of each method, z being null past the border; and the sweeps of the one shown. */
function solve(p) {
  const relaxed = weight => {
    const z = twoUnit.optimum(p, weight);
    return { z, value: z ? twoUnit.loss(p, z[1]) + twoUnit.potential(p, ...z) / weight : Infinity };
  };
  const forward = twoUnit.forward(p), weight = p.shown === "rovr" ? p.beta : -p.beta;
  return {
    rovr: relaxed(p.beta),
    forward: { z: forward, value: twoUnit.loss(p, forward[1]) },
    arovr: relaxed(-p.beta),
    border: twoUnit.border(p), weight, path: twoUnit.sweeps(p, weight),
  };
}

const MARK = {
  rovr: { label: "ROVR", shape: "triangle", colour: COLOURS.rovr, note: "nudged" },
  forward: { label: "ℓ(z*)", shape: "square", note: "forward pass" },
  arovr: { label: "AROVR", shape: "circle", colour: COLOURS.arovr, note: "attacked" },
};
const WINDOW = { x: [-0.25, 2.75], y: [-2.25, 3.25] };
const GRID = 81;

/* Shades (dark is low) and contours of E at E_0 ± 0.05·k², which on a parabola are evenly spaced.
   E_0 is the minimum, or without one the forward pass. */
function drawEnergy(plot, p, s) {
  const window = { x: [0, WINDOW.x[1]], y: WINDOW.y };
  const energies = sample((z1, z2) => twoUnit.energy(p, s.weight, z1, z2), window, GRID);
  const lowest = energies.reduce((a, b) => Math.min(a, b)), z = s[p.shown].z;
  plot.shade(energies, GRID, MARK[p.shown].colour, e => 0.55 * (1 - Math.sqrt((e - lowest) / 12)), { window });
  const origin = twoUnit.energy(p, s.weight, ...(z || s.forward.z));
  const levels = range(29).map(i => i - 12).filter(k => !z || k > 0).map(k => origin + 0.05 * k * Math.abs(k));
  plot.contours(energies, GRID, levels, { window });
}

/* Past the border: the direction in which U − βℓ falls without end, far out. It is the Hessian's
   eigenvector of the negative eigenvalue; its other side ends at the wall z1 = 0. */
function escape({ gamma, beta }) {
  const a = gamma + 1, d = 1 - beta, low = (a + d) / 2 - Math.hypot((a - d) / 2, 1);
  const length = Math.hypot(d - low, 1);
  return [(d - low) / length, 1 / length]; // from the Hessian's second row: −1·v1 + d·v2 = low·v2
}

function draw(plot, p, s) {
  const [z1, z2] = s.forward.z;
  plot.begin(WINDOW);
  drawEnergy(plot, p, s);
  plot.area([[-1, -9], [0, -9], [0, 9], [-1, 9]], { alpha: 0.15 });
  plot.horizontal(p.y, { dash: [6, 4], width: 1.25 });
  plot.text("target y ↕", [WINDOW.x[1], p.y], { shift: [-6, p.y > 2.9 ? 11 : -11], align: "right" });
  plot.line(s.path, { colour: MARK[p.shown].colour, width: 2.5 });
  for (const at of s.path.slice(1)) plot.mark(at, { colour: MARK[p.shown].colour, radius: 3 });
  if (!s.arovr.z && p.shown === "arovr") {
    const [e1, e2] = escape(p);
    plot.arrow(s.forward.z, [z1 + 1.2 * e1, z2 + 1.2 * e2], { colour: COLOURS.arovr, width: 3 });
    plot.text("no optimum: far out this way U − βℓ falls without end", [1.25, WINDOW.y[0]],
      { shift: [0, -16], align: "center", bold: true, colour: COLOURS.arovr });
  }
  for (const method of ["forward", "rovr", "arovr"]) {
    const { z } = s[method], { label, note, shape, colour } = MARK[method];
    if (!z) continue;
    const up = Math.sign(z[1] - z2) || (method === "rovr" ? 1 : -1);
    plot.mark(z, method === "forward" ? { shape, name: note, side: -1 }
      : { shape, colour, name: label, lift: -15 * up });
  }
  plot.frame("z₁, hidden unit", "z₂, output");
}

/* What the picture shows, in words. */
function describe(p, s) {
  const places = Object.entries(MARK).map(([method, { label }]) => {
    const { z, value } = s[method];
    return z ? `${label} = ${number(value, 3)} at z₁ = ${number(z[0])}, z₂ = ${number(z[1])}`
      : `${label} is infinite: there is no optimum`;
  });
  const [z1, z2] = s.path[s.path.length - 1], energy = p.shown === "rovr" ? "U + βℓ" : "U − βℓ";
  return `Contours of ${energy} over z₁ and z₂ for β = ${number(p.beta)}, γ₁/γ₂ = ${number(p.gamma)}, ` +
    `x = ${number(p.x)}, y = ${number(p.y)}. ${places.join("; ")}. ` +
    `Inference after ${p.passes} sweeps: z₁ = ${number(z1)}, z₂ = ${number(z2)}.`;
}

function status(p, s) {
  const border = number(s.border), lit = !s.arovr.z;
  return { lit, text: lit
    ? `β has reached the border of stability, ${border}: U − βℓ falls without end, AROVR is infinite.`
    : `The attack has an optimum as long as β does not pass ${border}, the border of stability.` };
}

const step = p => (p.passes < 20 ? { passes: p.passes + 1 } : null);

const explorable = {
  solve,
  panels: [{
    shape: 1.7, draw, describe,
    handles: (p, s) => [
      { name: "x", at: s.forward.z, move: z1 => ({ x: z1 }) },
      { name: "y", at: [null, p.y], move: (_, z2) => ({ y: z2 }) },
    ],
  }],
  readouts: (p, s) => ["rovr", "forward", "arovr"]
    .map(name => ({ name, ...MARK[name], value: s[name].value })).flatMap(item => ["≤", item]).slice(1),
  limits: (p, s) => ({ beta: { at: s.border, label: "border of stability", lit: !s.arovr.z } }),
  status,
  actions: [
    { name: "step", label: "One sweep", run: step },
    { name: "play", label: "Sweep on", run: step, every: 350 },
    { name: "reset", label: "Back to z*", run: () => ({ passes: 0 }) },
  ],
};

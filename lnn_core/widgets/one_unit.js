/* One unit: what it costs to have the activation z where the pre-activation is a.

   An activation function f = ∂G* has the inverse ∂G, and the Fenchel–Young divergence
   D(z‖a) = G(z) − z·a + G*(a) is the area between the vertical line at a and the graph of f,
   for heights between f(a) and z. */

/* G(z) = ½z² on [lower, upper], infinite outside: f projects onto the interval. As in lnn_core.Box the
   divergence is written so that nothing cancels. */
const box = (lower, upper, derivative) => ({
  lower, upper, derivative,
  activation: a => clamp(a, lower, upper),
  inverse: z => z,
  divergence(z, a) {
    const f = clamp(a, lower, upper);
    return z < lower || z > upper ? Infinity : 0.5 * (z - f) ** 2 + (z - f) * (f - a);
  },
});
const xlogx = x => (x > 0 ? x * Math.log(x) : 0);
const FUNCTIONS = {
  identity: box(-Infinity, Infinity, () => 1),
  relu: box(0, Infinity, a => Number(a > 0)),
  box: box(0, 1, a => Number(a >= 0 && a <= 1)),
  tanh: {
    lower: -1, upper: 1,
    activation: Math.tanh,
    derivative: a => 1 - Math.tanh(a) ** 2,
    inverse: Math.atanh,
    divergence(z, a) {
      if (Math.abs(z) > 1) return Infinity;
      const conjugate = Math.abs(a) + Math.log1p(Math.exp(-2 * Math.abs(a))) - Math.LN2;
      return 0.5 * (xlogx(1 + z) + xlogx(1 - z)) - z * a + conjugate;
    },
  },
};

const leastSquares = (f, z, a) => 0.5 * (z - f.activation(a)) ** 2;

/* Both prices and the errors −∂/∂a that they send down. Outside the range of f, where Fenchel–Young
   forbids z, it has no error. */
function solve({ a, z, activation }) {
  const f = FUNCTIONS[activation], fa = f.activation(a), allowed = z >= f.lower && z <= f.upper;
  return {
    fa, allowed,
    fenchelYoung: { price: f.divergence(z, a), error: allowed ? z - fa : NaN },
    leastSquares: { price: leastSquares(f, z, a), error: f.derivative(a) * (z - fa) },
  };
}

/* The corners of the area that is D(z‖a): along the graph of f from a to where it reaches z, and back
   at the height z. */
function areaUnderDivergence({ a, z, activation }, points = 60) {
  const f = FUNCTIONS[activation], end = clamp(f.inverse(z), -40, 40);
  const graph = range(points + 1).map(i => a + (end - a) * i / points).map(t => [t, f.activation(t)]);
  return [...graph, [a, z]];
}

const BLUE = COLOURS.rovr, RED = COLOURS.arovr; // as in the chapter on convex functions
const PRICES = { x: [-2.2, 3.2], y: [-0.3, 4.2] };
const GRAPH = { x: [-3.2, 3.2], y: [-2.2, 3.2] };

/* Grey where the activation z cannot be. */
function drawForbidden(plot, { activation }, vertical) {
  const { lower, upper } = FUNCTIONS[activation];
  for (const [from, to] of [[-9, lower], [upper, 9]]) {
    if (!finite(from, to)) continue;
    const corners = [[from, -9], [to, -9], [to, 9], [from, 9]];
    plot.area(vertical ? corners : corners.map(([x, y]) => [y, x]), { alpha: 0.12 });
  }
}

function drawPrices(plot, p, s) {
  const f = FUNCTIONS[p.activation], { lower, upper } = f;
  const over = [Math.max(lower, PRICES.x[0]), Math.min(upper, PRICES.x[1])];
  plot.begin(PRICES);
  drawForbidden(plot, p, true);
  plot.horizontal(0, { width: 1, alpha: 0.5 });
  plot.vertical(p.z, { dash: [2, 3], width: 1.25 });
  plot.text("z", [p.z, PRICES.y[1]], { shift: [8, 10] });
  plot.graph(z => leastSquares(f, z, p.a), { colour: RED, width: 2.5, dash: [7, 4] });
  plot.graph(z => f.divergence(z, p.a), { colour: BLUE, width: 2.5, over });
  plot.mark([s.fa, 0], { shape: "square", radius: 6, name: "f(a)", lift: -13 });
  plot.mark([p.a, 0], { shape: "diamond", radius: 6, name: "a", side: -1, lift: -13 });
  plot.mark([p.z, s.leastSquares.price], { colour: RED, radius: 6 });
  if (s.allowed) plot.mark([p.z, s.fenchelYoung.price], { colour: BLUE, radius: 6 });
  plot.frame("activation z", "price");
}

function drawGraph(plot, p, s) {
  plot.begin(GRAPH);
  drawForbidden(plot, p, false);
  if (s.allowed) plot.area(areaUnderDivergence(p), { colour: BLUE, alpha: 0.35 });
  plot.graph(FUNCTIONS[p.activation].activation, { width: 2 });
  plot.line([[p.a, s.fa], [p.a, p.z]], { dash: [2, 3], width: 1.25 });
  plot.mark([p.a, s.fa], { shape: "square", radius: 5 });
  plot.mark([p.a, p.z], { radius: 7, colour: s.allowed ? BLUE : RED, name: "(a, z)", side: p.a > 2 ? -1 : 1 });
  plot.text("graph of f", [-3.1, FUNCTIONS[p.activation].activation(-3.1)],
    { shift: [0, p.activation === "identity" ? 40 : -14] });
  plot.frame("pre-activation a", "activation z");
}

function describePrices(p, s) {
  const { fenchelYoung, leastSquares: squares } = s;
  return `Two prices of the activation z, for a = ${number(p.a)} and f(a) = ${number(s.fa)}. At z = ${number(p.z)} ` +
    `Fenchel–Young asks ${number(fenchelYoung.price, 3)}, least squares ${number(squares.price, 3)}.`;
}
function describeGraph(p, s) {
  return `Graph of the activation function ${p.activation}, with the point a = ${number(p.a)}, z = ${number(p.z)}. ` +
    (s.allowed ? `The area between it and the graph is ${number(s.fenchelYoung.price, 3)}.` : "It is out of reach.");
}

function status(p, s) {
  if (!s.allowed) {
    return { lit: true, text: "f never takes this value: Fenchel–Young forbids it, least squares does not." };
  }
  if (Math.abs(p.z - s.fa) < 1e-9) return { text: "z = f(a): both prices are zero, and no error is sent." };
  if (s.leastSquares.error === 0) {
    return { text: "f is flat at a: least squares sends no error down, and the unit cannot learn. " +
      "Fenchel–Young sends z − f(a)." };
  }
  return { text: "Fenchel–Young is never the cheaper one. Its price is the shaded area." };
}

const PAINT = { blue: { shape: "circle", colour: BLUE }, red: { shape: "circle", colour: RED } };

const explorable = {
  solve,
  panels: [
    {
      shape: 1.15, draw: drawPrices, describe: describePrices,
      handles: p => [
        { name: "a", at: [p.a, 0], move: a => ({ a }) },
        { name: "z", at: [p.z, null], move: z => ({ z }) },
      ],
    },
    {
      shape: 1.15, draw: drawGraph, describe: describeGraph,
      handles: p => [{ name: "az", at: [p.a, p.z], move: (a, z) => ({ a, z }) }],
    },
  ],
  readouts: (p, s) => [
    { name: "fa", label: "f(a)", shape: "square", value: s.fa, note: "forward pass" },
    { name: "fenchelYoung", label: "Fenchel–Young", value: s.fenchelYoung.price, note: "price", ...PAINT.blue },
    { name: "fenchelYoungError", label: "−∂/∂a", value: s.fenchelYoung.error, note: "error it sends" },
    { name: "leastSquares", label: "least squares", value: s.leastSquares.price, note: "price", ...PAINT.red },
    { name: "leastSquaresError", label: "−∂/∂a", value: s.leastSquares.error, note: "error it sends" },
  ],
  status,
};

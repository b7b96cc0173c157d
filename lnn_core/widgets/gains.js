/* Gains: how far a lifted regression/reconstruction network can stretch, whatever its weights.

   A direction that W stretches by σ, a layer with reconstruction stretches by f_β(σ). All L layers have the
   same symmetric W. Without constraints the network then falls apart into chains of scalars, one for each
   singular value, with the energy ½ Σ (z_k − σz_{k−1})² + β(σz_k − z_{k−1})². Where its derivative vanishes,

       (1 + σ²)z_k = σ(z_{k−1} + z_{k+1}) below the top,  (1 + βσ²)z_L = (1 + β)σz_{L−1},

   so that z_k = A(σ^k + βσ^{2L−k}), and z_L = f_β(σ^L)·z_0: the network is one layer with the weight W^L. */

const gain = ({ beta }, sigma) => (1 + beta) * sigma / (1 + beta * sigma ** 2); // f_β(σ)
const largestGain = ({ beta }) => (Math.sqrt(beta) + 1 / Math.sqrt(beta)) / 2; // at σ = 1/√β
const singularValues = (p, scale = p.scale) => [p.sigma1, p.sigma2, p.sigma3].map(sigma => scale * sigma);

/* The largest stretch of the network, of its layers without feedback from those above, of a plain network. */
function stretch(p, scale = p.scale) {
  const sigma = singularValues(p, scale);
  return {
    lrrn: Math.max(...sigma.map(value => gain(p, value ** p.depth))),
    layers: Math.max(...sigma.map(value => gain(p, value))) ** p.depth,
    plain: Math.max(...sigma) ** p.depth,
  };
}

function solve(p) {
  const sigma = singularValues(p), largest = largestGain(p);
  return { sigma, gains: sigma.map(value => gain(p, value)), largest, bound: largest ** p.depth, ...stretch(p) };
}

const BLUE = COLOURS.rovr, DOTS = { colour: COLOURS.bound, width: 2.5, dash: [2, 4] };
const log = Math.log10, power = exponent => 10 ** exponent;
/* Logarithmic axes: windows hold the exponents of ten. */
const LAYER = { x: [-1.85, 1.85], y: [-1.85, 1.85] };
const NETWORK = { x: [-1.05, 1.05], y: [-2.2, 2.8] };
const FLOOR = LAYER.y[0] + 0.1; // where the singular values lie
function frame(plot, xlabel, ylabel) {
  plot.tick = exponent => (Number.isInteger(exponent) ? String(power(exponent)) : "");
  plot.frame(xlabel, ylabel);
}

/* The bound and, shaded, where no weights lead. */
function drawBound(plot, bound, words) {
  const height = log(bound), [left, right] = plot.x, top = plot.y[1];
  plot.area([[left, height], [right, height], [right, top], [left, top]], { colour: COLOURS.bound, alpha: 0.12 });
  plot.horizontal(height, DOTS);
  plot.text(words, [left, height], { shift: [8, -13] });
}

function drawLayer(plot, p, s) {
  plot.begin(LAYER);
  drawBound(plot, s.largest, "½(√β + 1/√β)");
  plot.graph(x => x, { width: 2, dash: [7, 4], points: 1 });
  plot.graph(x => log(gain(p, power(x))), { colour: BLUE, width: 2.5 });
  plot.mark([-log(p.beta) / 2, log(s.largest)], { shape: "diamond", colour: COLOURS.bound, radius: 7 });
  s.sigma.forEach((sigma, i) => {
    const x = log(sigma), y = log(s.gains[i]);
    plot.line([[x, FLOOR], [x, Math.max(x, y)]], { width: 1.25, dash: [2, 3] });
    plot.mark([x, x], { shape: "square", radius: 5 });
    plot.mark([x, y], { colour: BLUE });
    plot.mark([x, FLOOR], { shape: "triangle", radius: 7, name: "σ" + "₁₂₃"[i], lift: -4 });
  });
  plot.text("plain", [LAYER.x[1], LAYER.y[1]], { shift: [-30, 14], align: "right", bold: true });
  plot.text("LRRN", [LAYER.x[1], log(gain(p, power(LAYER.x[1])))],
    { shift: [-8, -26], align: "right", bold: true, colour: BLUE });
  frame(plot, "sσ, singular value of a layer", "stretch of the layer");
}

function drawNetwork(plot, p, s) {
  const [low, high] = NETWORK.x, x = range(97).map(i => low + (high - low) * i / 96);
  const points = x.map(exponent => stretch(p, power(exponent))), now = log(p.scale);
  const curve = name => points.map((point, i) => [x[i], log(point[name])]);
  plot.begin(NETWORK);
  drawBound(plot, s.bound, "Theorem 1");
  plot.line(curve("plain"), { width: 2, dash: [7, 4] });
  plot.line(curve("layers"), { colour: BLUE, width: 1.25, dash: [3, 3] });
  plot.line(curve("lrrn"), { colour: BLUE, width: 2.5 });
  plot.vertical(now, { width: 1.25, dash: [2, 3] });
  plot.mark([now, log(s.bound)], { shape: "diamond", colour: COLOURS.bound, radius: 6 });
  plot.mark([now, log(s.plain)], { shape: "square", radius: 6 });
  plot.mark([now, log(s.lrrn)], { colour: BLUE });
  frame(plot, "s, scale of all weights", p.depth > 1 ? `stretch of ${p.depth} layers` : "stretch of the layer");
}

const words = value => number(value, value < 1000 ? 3 : 0);
function describeLayer(p, s) {
  const [from, to] = [s.sigma, s.gains].map(values => values.map(words).join(", "));
  return `The function f against the singular value, for β = ${number(p.beta)}: it rises to ${words(s.largest)} and ` +
    `falls again; a plain layer follows the diagonal. The singular values ${from} become ${to}.`;
}
function describeNetwork(p, s) {
  return `Stretch against the scale of all weights, for L = ${p.depth}. At s = ${number(p.scale)} the LRRN stretches ` +
    `by ${words(s.lrrn)}; Theorem 1 allows ${words(s.bound)} at any scale. The plain network stretches by ` +
    `${words(s.plain)}.`;
}

function status(p, s) {
  const reaches = value => value > s.bound * (1 - 1e-9), peak = 1 / Math.sqrt(p.beta), lowest = Math.min(...s.sigma);
  if (reaches(s.lrrn)) {
    return { text: "A singular value is at the peak, and Theorem 1 is an equality: no weights stretch further." };
  }
  if (reaches(s.layers)) {
    return { text: "A singular value is at the peak: without feedback the layers reach the bound. " +
      "With it, upper layers hold the lower ones back." };
  }
  if (Math.min(lowest, lowest ** p.depth) > peak) {
    return { text: "All singular values are past the peak: larger weights flatten the LRRN, steepen the plain one." };
  }
  if (s.lrrn > s.plain) {
    return { text: "Where σ is below 1, f is above the diagonal: the LRRN stretches further than the plain network." };
  }
  return { text: "f rises to its peak at 1/√β and falls again: no singular value gets above the dotted line." };
}

const explorable = {
  solve,
  panels: [
    {
      shape: 1.05, draw: drawLayer, describe: describeLayer,
      handles: (p, s) => [
        ...s.sigma.flatMap((sigma, i) => [FLOOR, log(s.gains[i])].map(y => ({
          name: `sigma${i + 1}`, at: [log(sigma), y], move: x => ({ [`sigma${i + 1}`]: power(x) / p.scale }),
        }))),
        { name: "beta", at: [-log(p.beta) / 2, log(s.largest)], move: x => ({ beta: power(-2 * x) }) },
      ],
    },
    {
      shape: 1.05, draw: drawNetwork, describe: describeNetwork,
      handles: p => [{ name: "scale", at: [log(p.scale), null], move: x => ({ scale: power(x) }) }],
    },
  ],
  readouts: (p, s) => [
    { name: "lrrn", label: "LRRN", value: s.lrrn, note: "stretch", shape: "circle", colour: BLUE },
    "≤",
    { name: "layers", label: "no feedback", value: s.layers, note: "highest dotᴸ" },
    "≤",
    { name: "bound", label: "bound", value: s.bound, note: "Theorem 1", shape: "diamond", colour: COLOURS.bound },
    { name: "plain", label: "plain", value: s.plain, digits: s.plain < 1000 ? 3 : 0, note: "stretch", shape: "square" },
  ],
  limits: () => ({ beta: { at: 1, label: "1: never expands" } }),
  status,
};

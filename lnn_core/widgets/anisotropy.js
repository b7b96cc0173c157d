/* What γ does: the region {U^⊙γ ≤ δ} of the network of two units, and what reaches each of them.

       x → z1 = max(x, 0) → z2 = w·z1, with U = γ D(z1‖x) + ½(z2 − w·z1)² and ℓ = ½(z2 − y)²

   where γ = γ_1/γ_2 (γ_2 = 1). The region is an ellipse in (z1, z2 − w·z1), cut at z1 = 0. Its worst point
   is found on one curve: where the output deviates by e, the hidden unit hears w·e and answers
   z1 = max(x + w·e/γ, 0), eq. 17, and no other z1 moves the output as far at the price. */

const forward = ({ x, w }) => [Math.max(x, 0), w * Math.max(x, 0)];
/* D(z1‖x) = ½(z1 − x)² − ½min(x, 0)², without cancellation. */
function divergence({ x }, z1) {
  const f = Math.max(x, 0);
  return z1 < 0 ? Infinity : 0.5 * (z1 - f) ** 2 + (z1 - f) * (f - x);
}

/* The border of the region, anticlockwise: the ellipse z1 = x + ϱ cos t, z2 − w·z1 = √γ ϱ sin t where z1 ≥ 0. */
function region({ gamma, delta, x, w }, points = 180) {
  const radius = Math.sqrt(2 * delta / gamma + Math.min(x, 0) ** 2);
  const last = x > radius ? Math.PI : Math.acos(clamp(-x / radius, -1, 1)); // z1 ≥ 0 for |t| ≤ last
  return range(points + 1).map(i => {
    const t = last * (2 * i / points - 1), z1 = Math.max(x + radius * Math.cos(t), 0);
    return [z1, w * z1 + Math.sqrt(gamma) * radius * Math.sin(t)];
  });
}

/* The point of the region that moves the output farthest up (sign 1) or down (−1). */
function farthest({ gamma, delta, x, w }, sign) {
  const on = sign * Math.sqrt((2 * delta + gamma * Math.min(x, 0) ** 2) / (1 + w ** 2 / gamma));
  const off = sign * Math.sqrt(Math.max(2 * delta - gamma * Math.max(x, 0) ** 2, 0));
  const e = x + w * on / gamma > 0 ? on : off, z1 = Math.max(x + w * e / gamma, 0);
  return [z1, w * z1 + e];
}

/* For each unit its deviation z − f(a), its error signal γ(z − f(a))/β, and its share of the energy δ. 1/β
   is what one more unit of energy is worth: the price at which AROVR stops at this point. */
function reach(p) {
  const [f1] = forward(p), loss = ([, z2]) => 0.5 * (z2 - p.y) ** 2;
  const [up, down] = [1, -1].map(sign => farthest(p, sign)), z = loss(up) >= loss(down) ? up : down;
  const deviation = [z[0] - f1, z[1] - p.w * z[0]], beta = deviation[1] / (z[1] - p.y);
  const energy = [p.gamma * divergence(p, z[0]), 0.5 * deviation[1] ** 2].map(part => part / p.delta);
  return { z, loss: loss(z), beta, deviation, energy, signal: [p.gamma * deviation[0] / beta, z[1] - p.y] };
}

function solve(p) {
  const z = forward(p), error = z[1] - p.y;
  return { forward: z, loss: 0.5 * error ** 2, worst: reach(p), backprop: [p.x > 0 ? p.w * error : 0, error] };
}

const LAYERS = [COLOURS.arovr_abg, COLOURS.arovr_ab]; // two colours that no method of this picture has
const NAMES = ["hidden unit", "output"];
const PLANE = { x: [-0.25, 2.75], y: [-1.25, 3.25] };
const QUANTITY = {
  deviation: { words: "deviation |z − f(a)|", y: [0, 1.4] },
  signal: { words: "error signal γ|z − f(a)|/β", y: [0, 3.5] },
  energy: { words: "share of the energy", y: [0, 1.25] },
};

function drawRegion(plot, p, s) {
  const [z1, z2] = s.forward, { z, deviation } = s.worst, corner = [z[0], z[1] - deviation[1]];
  plot.begin(PLANE);
  plot.area([[-1, -9], [0, -9], [0, 9], [-1, 9]], { alpha: 0.15 });
  plot.horizontal(p.y, { dash: [6, 4], width: 1.25 });
  plot.text("target y ↕", [PLANE.x[1], p.y], { shift: [-6, p.y > 2.9 ? 11 : -11], align: "right" });
  const border = region(p);
  plot.area(border, { colour: COLOURS.arovr, alpha: 0.2 });
  plot.line([...border, border[0]], { colour: COLOURS.arovr, width: 2.5 });
  const even = region({ ...p, gamma: 1 });
  plot.line([...even, even[0]], { width: 1.25, dash: [3, 3], alpha: 0.9 });
  plot.line([[z1, z2], [PLANE.x[1], z2 + p.w * (PLANE.x[1] - z1)]], { width: 1, alpha: 0.35 });
  plot.line([[0, z2 - p.w * z1], [z1, z2]], { width: 1, alpha: 0.35 });
  plot.horizontal(z[1], { colour: COLOURS.arovr, width: 1, dash: [2, 4] }); // a level line of the loss
  plot.arrow([z1, z2], corner, { colour: LAYERS[0], width: 3.5 });
  plot.arrow(corner, z, { colour: LAYERS[1], width: 3.5 });
  plot.mark([z1, z2], { shape: "square", radius: 6 });
  plot.mark(z, { colour: COLOURS.arovr, radius: 5.5, name: "worst", lift: z[1] < z2 ? 14 : -14 });
  plot.frame("z₁, hidden unit", "z₂, output");
}

/* The chosen quantity of either unit against log γ, which the hidden unit's weight moves from soft to stiff. */
function drawReach(plot, p, s) {
  const { words, y } = QUANTITY[p.shown], low = Math.log10(CONTROLS.find(({ name }) => name === "gamma").min);
  const exponents = range(97).map(i => low - 2 * low * i / 96), of = ({ [p.shown]: pair }) => pair.map(Math.abs);
  const curves = exponents.map(log => [log, of(reach({ ...p, gamma: 10 ** log }))]), now = Math.log10(p.gamma);
  plot.begin({ x: [low, -low], y });
  plot.vertical(0, { width: 1, alpha: 0.5 });
  plot.vertical(now, { width: 1.25, dash: [2, 3] });
  [0, 1].forEach(k => {
    const line = curves.map(([log, pair]) => [log, pair[k]]), colour = LAYERS[k];
    if (p.shown === "signal") plot.horizontal(Math.abs(s.backprop[k]), { colour, width: 1.5, dash: [7, 4] });
    plot.line(line, { colour, width: 2.5 });
    plot.mark([now, of(s.worst)[k]], { colour, radius: 6, shape: k ? "circle" : "triangle" });
  });
  NAMES.forEach((name, k) => plot.text(name, [-low, y[1]],
    { shift: [-8, 11 + 18 * k], align: "right", bold: true, colour: LAYERS[k] }));
  if (p.shown === "signal") plot.text("dashes: back-propagation", [-low, y[1]], { shift: [-8, 47], align: "right" });
  plot.frame("log₁₀ γ₁/γ₂ (soft ← hidden unit → stiff)", words);
}

const pair = values => values.map(value => number(Math.abs(value), 3)).join(" and ");
function describeRegion(p, s) {
  const { z, loss } = s.worst;
  return `The region of all z₁, z₂ of energy at most ${number(p.delta, 3)}, for γ₁/γ₂ = ${number(p.gamma)}, and ` +
    `dashed that for equal weights. Forward pass z₁ = ${number(s.forward[0])}, z₂ = ${number(s.forward[1])}, ` +
    `loss ${number(s.loss, 3)}; worst point z₁ = ${number(z[0])}, z₂ = ${number(z[1])}, loss ${number(loss, 3)}.`;
}
function describeReach(p, s) {
  const other = p.shown === "signal" ? `; back-propagation sends ${pair(s.backprop)}` : "";
  return `Against γ₁/γ₂: ${QUANTITY[p.shown].words} of the hidden unit and of the output. ` +
    `Now ${pair(s.worst[p.shown])}${other}.`;
}

function status(p, s) {
  const on = s.worst.z[0] > 0;
  if (p.x <= 0) {
    return { text: "The hidden unit is off and " +
      (on ? "has been woken: it passes a signal on, which back-propagation does not."
        : "stays off: like back-propagation, it passes no signal on.") };
  }
  if (!on) return { text: "The adversary has switched the hidden unit off: the region ends at z₁ = 0." };
  const soft = Math.abs(p.gamma - 1) < 1e-9 ? "The weights are equal."
    : p.gamma < 1 ? "The hidden unit is soft: the region is long where z₂ follows z₁."
      : "The hidden unit is stiff: the region is narrow in z₁.";
  return { text: `${soft} Deviations and energies follow γ; the ratio of the two error signals is w, whatever γ.` };
}

const explorable = {
  solve,
  panels: [
    {
      shape: 1.05, draw: drawRegion, describe: describeRegion,
      handles: (p, s) => [
        { name: "x", at: s.forward, move: x => ({ x }) },
        { name: "y", at: [null, p.y], move: (_, y) => ({ y }) },
      ],
    },
    { shape: 1.05, draw: drawReach, describe: describeReach },
  ],
  readouts: (p, s) => [
    { name: "loss", label: "ℓ(z*)", shape: "square", value: s.loss, note: "forward pass" }, "≤",
    {
      name: "worst", label: "worst ℓ", shape: "circle", colour: COLOURS.arovr,
      value: s.worst.loss, note: "in the region",
    },
    ...[0, 1].map(k => ({
      name: ["hidden", "output"][k], label: NAMES[k], shape: k ? "circle" : "triangle", colour: LAYERS[k],
      value: Math.abs(s.worst[p.shown][k]), note: ["z₁", "z₂"][k],
    })),
  ],
  status,
};

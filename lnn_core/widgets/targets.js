/* Targeted perturbations: what each subproblem of ROVR_{α,β} and AROVR_{α,β} pulls the output towards.

   A subproblem adds an output term h to U/β. With Euclidean ℓ, ℓ⁻ and ᾱ = 1 − α there are three,

       alone    ᾱℓ⁻         against  ᾱℓ⁻ − αℓ         along  ᾱℓ⁻ + αℓ

   and each has the form ½q‖z‖² − pullᵀz + constant: completing the square (eq. 27) gives the target
   pull/q. The network is one linear layer, U = ½‖z − z*‖², with its forward pass z* at the origin. */

const dot = (a, b) => a[0] * b[0] + a[1] * b[1];
const mix = (s, a, t, b) => [s * a[0] + t * b[0], s * a[1] + t * b[1]];
const euclidean = (z, target) => 0.5 * ((z[0] - target[0]) ** 2 + (z[1] - target[1]) ** 2);

const right = p => [p.y1, p.y2], wrong = p => [p.wrong1, p.wrong2];
/* Weights (before ℓ⁻, before ℓ) of each subproblem. */
const WEIGHTS = {
  alone: alpha => [1 - alpha, 0],
  against: alpha => [1 - alpha, -alpha],
  along: alpha => [1 - alpha, alpha],
};

/* The output term h, its target (∞ or none where q = 0), and the output z that minimises h + U/β. */
function subproblem(p, name, alpha = p.alpha) {
  const [s, t] = WEIGHTS[name](alpha), q = Math.abs(s + t) < 1e-9 ? 0 : s + t;
  const pull = mix(s, wrong(p), t, right(p)), stiff = 1 + p.beta * q;
  const h = z => s * euclidean(z, wrong(p)) + t * euclidean(z, right(p));
  const z = stiff > 1e-12 ? pull.map(x => p.beta * x / stiff) : null;
  return {
    q, pull, h, z, target: q ? pull.map(x => x / q) : null,
    least: z ? h(z) + dot(z, z) / (2 * p.beta) : -Infinity, // min h + U/β
  };
}
/* AROVR's border: past it the repelling target beats the potential. */
const border = ({ alpha }) => (alpha > 0.5 ? 1 / (2 * alpha - 1) : Infinity);

function solve(p) {
  const [alone, against, along] = Object.keys(WEIGHTS).map(name => subproblem(p, name));
  return {
    alone, against, along, border: border(p),
    loss: euclidean(alone.z, right(p)), forward: euclidean([0, 0], right(p)),
    rovr: (along.least - alone.least) / p.alpha, arovr: (alone.least - against.least) / p.alpha,
  };
}

const TERM = {
  alone: { words: "attack alone, ᾱℓ⁻", shape: "diamond" },
  against: { words: "against the loss, ᾱℓ⁻ − αℓ", shape: "circle", colour: COLOURS.arovr_ab },
  along: { words: "along with the loss, ᾱℓ⁻ + αℓ", shape: "triangle", colour: COLOURS.rovr_ab },
};
const PLANE = [-3, 3]; // the first output; the second as far as the canvas is high
const PROFILE = { x: [-2.5, 4], y: [-1, 2] };
const GRID = 51;

/* A window in which a circle is round. */
function roundWindow({ canvas }) {
  const wide = canvas.clientWidth - 56, high = canvas.clientHeight - 46; // inside the axes
  const half = PLANE[1] * high / Math.max(wide, 1);
  return { x: PLANE, y: [-half, half] };
}

function star(plot, at, name, side) {
  plot.with({ free: true }, pen => {
    range(10).forEach(i => {
      const radius = i % 2 ? 4 : 10, turn = Math.PI * i / 5;
      pen.lineTo(plot.px(at[0]) + radius * Math.sin(turn), plot.py(at[1]) - radius * Math.cos(turn));
    });
    pen.closePath();
    pen.strokeStyle = plot.paper;
    pen.fill();
    pen.stroke();
  });
  plot.text(name, at, { shift: [15 * side, -4], align: side > 0 ? "left" : "right", bold: true });
}

/* A target that attracts is a ring with a dot, one that repels a ring with a cross. */
function ring(plot, at, colour, q) {
  const [x, y] = [plot.px(at[0]), plot.py(at[1])];
  plot.with({ free: true, colour, width: 2.5 }, pen => {
    pen.arc(x, y, 9, 0, 2 * Math.PI);
    if (q < 0) for (const s of [-1, 1]) { pen.moveTo(x - 6, y - 6 * s); pen.lineTo(x + 6, y + 6 * s); }
    pen.stroke();
    if (q > 0) { pen.beginPath(); pen.arc(x, y, 3, 0, 2 * Math.PI); pen.fill(); }
  });
}
/* A subproblem's target, or an arrow at the edge of the window that points to it. */
function drawTarget(plot, p, { q, target }, colour, name, lift) {
  const ends = [plot.x[1], plot.y[1]];
  if (target && target.every((t, i) => Math.abs(t) < ends[i])) {
    ring(plot, target, colour, q);
    plot.text(name, target, { shift: [0, lift], align: "center" });
    return;
  }
  const [from, behind] = q < 0 ? [right(p), wrong(p)] : [wrong(p), right(p)];
  const length = Math.hypot(...mix(1, from, -1, behind));
  if (!length) return;
  const way = mix(1 / length, from, -1 / length, behind);
  const room = way.map((w, i) => (w ? (ends[i] - Math.sign(w) * from[i]) / Math.abs(w) : Infinity));
  const end = Math.min(...room) - 0.12, tip = mix(1, from, end, way);
  if (end < 0.55) return;
  plot.arrow(mix(1, from, end - 0.55, way), tip, { colour, width: 3 });
  const shift = [0, plot.py(tip[1]) > plot.box.bottom - 30 ? -18 : 18];
  plot.text(`${name} ${q ? "far off" : "at ∞"}`, tip, { shift, align: way[0] > 0 ? "right" : "left" });
}

function drawPlane(plot, p, s) {
  plot.begin(roundWindow(plot));
  const shown = s[p.shown], { colour } = TERM[p.shown], window = { x: plot.x, y: plot.y };
  const { q, pull: [pull1, pull2] } = shown; // h up to a constant
  const heights = sample((x, y) => 0.5 * q * (x * x + y * y) - pull1 * x - pull2 * y, window, GRID);
  const low = heights.reduce((a, b) => Math.min(a, b)), spread = heights.reduce((a, b) => Math.max(a, b)) - low || 1;
  plot.shade(heights, GRID, colour || "#808080", h => 0.4 * (1 - Math.sqrt((h - low) / spread)), { window });
  plot.contours(heights, GRID, range(18).map(i => low + spread * ((i + 0.5) / 18) ** 1.5), { window, alpha: 0.3 });
  const [a, b] = [right(p), wrong(p)];
  plot.line([mix(21, a, -20, b), mix(-20, a, 21, b)], { alpha: 0.5, width: 1 });
  const path = range(101).map(i => subproblem(p, p.shown, i / 100).z || [NaN, NaN]);
  plot.line(path, { colour, width: 2, dash: [2, 4] });
  for (const name of ["along", "alone", "against"]) {
    const style = { colour: TERM[name].colour, width: 2, alpha: name === p.shown ? 1 : 0.6 };
    if (s[name].z) plot.arrow([0, 0], s[name].z, style);
  }
  star(plot, a, "y", a[0] < b[0] ? -1 : 1);
  star(plot, b, "y⁻", a[0] < b[0] ? 1 : -1);
  drawTarget(plot, p, s.along, TERM.along.colour, "label", -20);
  drawTarget(plot, p, s.against, TERM.against.colour, s.against.q < 0 ? "repels" : "target", 20);
  plot.mark([0, 0], { shape: "square", radius: 6, name: "z*", side: -1 });
  for (const name of ["along", "alone", "against"]) {
    const { shape, colour: paint } = TERM[name];
    if (s[name].z) plot.mark(s[name].z, { shape, colour: paint, radius: 6 });
  }
  plot.frame("first output", "second output");
}

/* Along the line through y (at 0) and y⁻ (at 1), in units of ‖y − y⁻‖²: the same picture wherever they are. */
const profile = (alpha, name, t) => {
  const [s, r] = WEIGHTS[name](alpha);
  return 0.5 * (s * (t - 1) ** 2 + r * t ** 2);
};
function drawProfile(plot, p, s) {
  plot.begin(PROFILE);
  plot.horizontal(0, { width: 1, alpha: 0.5 });
  for (const t of [0, 1]) plot.vertical(t, { width: 1, alpha: 0.6, dash: [2, 3] });
  for (const name of ["alone", "along", "against"]) {
    const { colour } = TERM[name], { q } = s[name], height = t => profile(p.alpha, name, t);
    const strong = name === p.shown ? { width: 3.5 } : { width: 2, alpha: 0.75 };
    plot.graph(height, { colour, ...strong, points: 120 });
    const turn = (1 - p.alpha) / q; // where on the line the target is
    if (turn > PROFILE.x[0] && turn < PROFILE.x[1]) ring(plot, [turn, height(turn)], colour, q);
  }
  const [, last] = PROFILE.x, [bottom] = PROFILE.y;
  ["y", "y⁻"].forEach((name, t) => plot.text(name, [t, bottom], { shift: [0, -10], align: "center", bold: true }));
  ["along", "alone", "against"].forEach((name, i) => plot.text(TERM[name].words.split(", ")[1], [last, bottom],
    { shift: [-8, 18 * i - 48], align: "right", bold: true, colour: TERM[name].colour }));
  plot.frame("along the line through y and y⁻", "output term");
}

const pair = z => `(${number(z[0])}, ${number(z[1])})`;
function describePlane(p, s) {
  const { q, target } = s.against;
  const place = target ? `${pair(target)} and ${q > 0 ? "attracts" : "repels"}` : "at infinity";
  const outputs = Object.keys(TERM).map(name => `${s[name].z ? pair(s[name].z) : "none"} ${TERM[name].words}`);
  return `The plane of outputs with the forward pass at the origin, y = ${pair(right(p))} and ` +
    `y⁻ = ${pair(wrong(p))}, for α = ${number(p.alpha)} and β = ${number(p.beta)}. ` +
    `Against the loss the target is ${place}; along with the loss it is ${pair(s.along.target)}. ` +
    `Inferred outputs: ${outputs.join("; ")}.`;
}
function describeProfile(p, s) {
  const shape = s.against.q > 0 ? "a valley" : s.against.q < 0 ? "a hill" : "a straight slope";
  const turn = s.against.target ? `, its turning point at ${number((1 - p.alpha) / s.against.q)}` : "";
  return "The three output terms along the line through y (at 0) and y⁻ (at 1). Those of the attack alone and " +
    `along with the loss are valleys, lowest at 1 and at ${number(1 - p.alpha)}. ` +
    `That against the loss is ${shape}${turn}.`;
}

function status(p, s) {
  const { q, z } = s.against;
  if (!z) {
    return { lit: true, text: "β has reached the border: repulsion beats the potential, the output runs away, " +
      "and AROVR is infinite." };
  }
  if (q > 0) {
    return { text: "α is below ½: the attack has a target, on the line beyond y⁻. " +
      "For no β does the output go farther than that." };
  }
  if (!q) {
    return { text: "α = ½: the squares cancel. The attack is a constant force along the line, without a target. " +
      "Every β is still allowed." };
  }
  return { text: "α is above ½: the target has come back on the other side, beyond y, and repels. " +
    "The outputs hardly notice, but β has a border now." };
}

const explorable = {
  solve,
  panels: [
    {
      shape: 1.05, draw: drawPlane, describe: describePlane,
      handles: p => [
        { name: "y", at: right(p), move: (y1, y2) => ({ y1, y2 }) },
        { name: "wrong", at: wrong(p), move: (wrong1, wrong2) => ({ wrong1, wrong2 }) },
      ],
    },
    { shape: 1.05, draw: drawProfile, describe: describeProfile },
  ],
  readouts: (p, s) => [
    { name: "rovr", label: "ROVR/α", ...TERM.along, value: s.rovr, note: "along with the loss" }, "≤",
    { name: "loss", label: "ℓ(z⁺)", ...TERM.alone, value: s.loss, note: "loss under attack" }, "≤",
    { name: "arovr", label: "AROVR/α", ...TERM.against, value: s.arovr, note: "against the loss" },
    { name: "forward", label: "ℓ(z*)", shape: "square", value: s.forward, note: "forward pass" },
  ],
  limits: (p, s) => ({
    alpha: { at: 0.5, label: "½: no target", lit: false },
    beta: { at: s.border, label: finite(s.border) ? "border of stability" : "", lit: !s.against.z },
  }),
  status,
};

/* The sandwich: ROVR ≤ ℓ(z*) ≤ AROVR against β, and the bounds around it, for

       a network with two hidden units z_i = f(a_i) and the output z_1 + w·z_2,

   f being ReLU or the identity, a_1 = 1, a_2 = a. The output is too large by r = 1, so ℓ(z*) = ½. The
   hidden layer has weight γ in U, the output 1.

   All optima lie on one curve. Let e be the output's violation. Hidden unit i hears w_i·e from it and
   answers z_i = f(a_i + w_i·e/γ), eq. 17. Together they move the output by u, at the least price U of any
   such move. Between those e at which a unit switches, u is linear in e. */

const R = 1, LOSS = 0.5 * R ** 2;
const units = p => [{ a: 1, w: 1 }, { a: p.a, w: p.w }];
const activate = (p, a) => (p.activation === "relu" ? Math.max(a, 0) : a);

/* The move u of the output, its price U(e), and the slope du/de: κ counting only the units that are on. */
function answer(p, e) {
  let u = e, price = 0.5 * e ** 2, slope = 1;
  for (const { a, w } of units(p)) {
    const heard = a + w * e / p.gamma, f = activate(p, a), z = activate(p, heard);
    u += w * (z - f);
    price += p.gamma * (0.5 * (z - f) ** 2 + (z - f) * (f - a)); // D(z‖a)
    if (heard > 0 || p.activation === "identity") slope += w ** 2 / p.gamma;
  }
  return { u, price, slope };
}

/* The intervals of e in which no unit switches. */
function pieces(p) {
  const switches = p.activation === "relu" ? units(p).filter(({ w }) => w).map(({ a, w }) => -p.gamma * a / w) : [];
  const ends = [-Infinity, ...switches.sort((a, b) => a - b), Infinity];
  return ends.slice(1).map((end, i) => [ends[i], end]);
}

const kappa = p => 1 + units(p).reduce((sum, { w }) => sum + w ** 2, 0) / p.gamma;
/* The slope du/de far away on the side of `sign`, where units whose weight opposes the push are off. */
const far = (p, sign) => 1 + units(p).reduce((sum, { w }) => (
  sum + (p.activation === "relu" ? Math.max(sign * w, 0) : w) ** 2), 0) / p.gamma;
/* AROVR is finite for β below this, and infinite above. */
const border = p => 1 / Math.max(far(p, 1), far(p, -1));
/* On the border itself, loss and price grow alike far away, and what the output is off without the push decides. */
function infinite(p, beta) {
  const past = beta / border(p) - 1;
  if (Math.abs(past) > 1e-12) return past > 0;
  return [1, -1].filter(sign => far(p, sign) * beta > 1 - 1e-12).some(sign => {
    const e = 1e3 * sign; // no unit switches so far out
    return sign * (R + answer(p, e).u - far(p, sign) * e) > 1e-9;
  });
}

/* AROVR (sign 1) or ROVR (sign −1): the best of the stationary points e = ±β(r + u) of all pieces, each
   moved into its piece. */
function relaxed(p, sign, beta = p.beta) {
  if (sign > 0 && infinite(p, beta)) return { value: Infinity, u: NaN, e: NaN };
  const price = sign * beta, found = pieces(p).map(([low, high]) => {
    const near = clamp(0, low, high); // a finite point of the piece, and one inside it
    const { slope } = answer(p, clamp(near, low + 1e-9, high - 1e-9)), { u } = answer(p, near);
    const bend = 1 - price * slope; // 0 on the border, in the last piece, where no further e is better
    const e = Math.abs(bend) < 1e-12 ? near : clamp(price * (R + u - slope * near) / bend, low, high);
    const at = answer(p, e);
    return { e, u: at.u, value: 0.5 * (R + at.u) ** 2 - at.price / price };
  });
  return found.filter(({ value }) => finite(value)).reduce((a, b) => (sign * b.value > sign * a.value ? b : a));
}

function bound(p, sign, beta = p.beta) {
  const t = sign * beta * kappa(p);
  return t < 1 ? LOSS / (1 - t) : Infinity;
}
/* The reduced formula ½r²/(1 ∓ βK): no unit changes its state. */
function reduced(p, sign, beta = p.beta) {
  const t = sign * beta * answer(p, 0).slope;
  return t < 1 ? LOSS / (1 - t) : Infinity;
}
/* The numbers of the units that are on at z* but not at the optimum, or the other way round. */
function switched(p, { e }) {
  if (p.activation === "identity" || !finite(e)) return [];
  return units(p).map(({ a, w }, i) => ((a > 0) !== (a + w * e / p.gamma > 0) ? i + 1 : 0)).filter(Boolean);
}

function solve(p) {
  const arovr = relaxed(p, 1);
  return {
    rovr: relaxed(p, -1), arovr, lower: bound(p, -1), upper: bound(p, 1),
    reduced: { rovr: reduced(p, -1), arovr: reduced(p, 1) },
    kappa: kappa(p), safe: 1 / kappa(p), border: border(p), switched: switched(p, arovr),
  };
}

const MARK = {
  lower: { label: "ℓ/(1 + βκ)", shape: "diamond", colour: COLOURS.bound, note: "lower bound" },
  rovr: { label: "ROVR", shape: "triangle", colour: COLOURS.rovr, note: "nudged" },
  loss: { label: "ℓ(z*)", shape: "square", note: "forward pass" },
  arovr: { label: "AROVR", shape: "circle", colour: COLOURS.arovr, note: "attacked" },
  upper: { label: "ℓ/(1 − βκ)", shape: "diamond", colour: COLOURS.bound, note: "upper bound" },
};
const AGAINST_BETA = { x: [0, 1], y: [0, 2.25] };
const AGAINST_MOVE = { x: [-2.5, 3.5], y: AGAINST_BETA.y };
const DOTS = { colour: COLOURS.bound, width: 2.5, dash: [2, 4] };

function drawAgainstBeta(plot, p, s) {
  const up = [0, Math.min(1, 0.9999 * s.safe)], betas = range(101).map(i => up[1] * i / 100);
  const edge = sign => betas.map(beta => [beta, bound(p, sign, beta)]);
  plot.begin(AGAINST_BETA);
  plot.area([...edge(1), ...edge(-1).reverse()], { colour: COLOURS.bound, alpha: 0.12 });
  plot.vertical(s.safe, { ...DOTS, width: 1.5 });
  if (s.border > 1.001 * s.safe) plot.vertical(s.border, { colour: COLOURS.arovr, width: 1.5, dash: [2, 4] });
  plot.horizontal(LOSS, { width: 2, dash: [7, 4] });
  for (const sign of [1, -1]) plot.graph(beta => reduced(p, sign, beta), { width: 1.25, dash: [3, 3], alpha: 0.9 });
  for (const [sign, colour, end] of [[-1, COLOURS.rovr, 1], [1, COLOURS.arovr, 0.9999 * s.border]]) {
    plot.graph(beta => relaxed(p, sign, beta).value, { colour, width: 2.5, over: [0.001, end], points: 100 });
  }
  plot.graph(beta => bound(p, 1, beta), { ...DOTS, over: up, points: 100 });
  plot.graph(beta => bound(p, -1, beta), { ...DOTS, points: 100 });
  plot.vertical(p.beta, { width: 1.25, dash: [2, 3] });
  drawMarks(plot, s, () => p.beta);
  const one = plot.px(s.border) - plot.px(s.safe) < 3;
  plot.text(one ? "1/κ = border" : "1/κ", [s.safe, LOSS], { shift: [5, -12] });
  if (!one) plot.text("border", [s.border, LOSS], { shift: [5, -12], colour: COLOURS.arovr });
  plot.frame("β", "objective");
}

/* Marks at the heights of the objectives and their bounds; `across(name)` says where. */
function drawMarks(plot, s, across) {
  const values = { lower: s.lower, upper: s.upper, rovr: s.rovr.value, arovr: s.arovr.value, loss: LOSS };
  for (const [name, value] of Object.entries(values)) {
    const { shape, colour } = MARK[name];
    if (value <= plot.y[1]) plot.mark([across(name), value], { shape, colour, radius: 6 });
  }
}

/* Against the output's move u: the loss, and what its price leaves of it for either player. */
function drawAgainstMove(plot, p, s) {
  const [first, last] = AGAINST_MOVE.x, moves = range(161).map(i => answer(p, first + (last - first) * i / 160));
  const loss = u => 0.5 * (R + u) ** 2;
  plot.begin(AGAINST_MOVE);
  for (const price of [p.beta, -p.beta]) {
    plot.graph(u => loss(u) - u ** 2 / (2 * s.kappa * price), { ...DOTS, points: 120 });
  }
  plot.graph(loss, { width: 2, dash: [7, 4], points: 120 });
  const curve = sign => moves.map(({ u, price }) => [u, loss(u) - sign * price / p.beta]);
  plot.line(curve(-1), { colour: COLOURS.rovr, width: 2.5 });
  plot.line(curve(1), { colour: COLOURS.arovr, width: 2.5 });
  const best = price => price * s.kappa * R / (1 - price * s.kappa); // where a bound's curve turns
  const u = { rovr: s.rovr.u, arovr: s.arovr.u, loss: 0, lower: best(-p.beta), upper: best(p.beta) };
  drawMarks(plot, s, name => u[name]);
  const top = finite(s.arovr.value) ? "ℓ − U/β" : "ℓ − U/β has no maximum";
  [["ℓ + U/β", COLOURS.rovr], ["ℓ"], [top, COLOURS.arovr]].forEach(([words, colour], i) => plot.text(words, [last, 0],
    { shift: [-8, 18 * i - 48], align: "right", bold: true, colour }));
  plot.frame("u, move of the output", "");
}

const values = s => `ROVR is ${number(s.rovr.value, 3)}, the loss of the forward pass ${number(LOSS, 3)}, ` +
  `AROVR ${finite(s.arovr.value) ? number(s.arovr.value, 3) : "infinite"}`;
function describeAgainstBeta(p, s) {
  return `ROVR, the loss and AROVR against β, between the two bounds. At β = ${number(p.beta)}: ${values(s)}; ` +
    `the bounds are ${number(s.lower, 3)} and ${finite(s.upper) ? number(s.upper, 3) : "infinite"}. ` +
    `The upper bound ends at 1/κ = ${number(s.safe, 3)}, AROVR at its border ${number(s.border, 3)}.`;
}
function describeAgainstMove(p, s) {
  const top = finite(s.arovr.value) ? `its highest point, at u = ${number(s.arovr.u)}, is AROVR`
    : "it has no highest point: AROVR is infinite";
  return `Against the move u of the output: the loss ℓ, the curve ℓ + U/β, whose lowest point, at ` +
    `u = ${number(s.rovr.u)}, is ROVR, and the curve ℓ − U/β; ${top}.`;
}

function status(p, s) {
  if (infinite(p, p.beta)) {
    return { lit: true, text: "β has reached the border: a push pays for itself, and AROVR is infinite." };
  }
  if (p.beta >= s.safe) {
    return { text: "β is past 1/κ, where the upper bound ends. AROVR is still finite: " +
      "far out, the two units cannot both help the push." };
  }
  if (s.switched.length) {
    return { text: `At AROVR's optimum unit ${s.switched.join(" and unit ")} has switched: ` +
      "AROVR has left the reduced formula (thin dashes), but not the bound." };
  }
  return { text: p.activation === "identity"
    ? "A linear network: the bounds, the reduced formula and the objectives are the same."
    : "At AROVR's optimum no unit has switched: the reduced formula (thin dashes) is exact." };
}

const explorable = {
  solve,
  panels: [
    {
      shape: 1.05, draw: drawAgainstBeta, describe: describeAgainstBeta,
      handles: p => [{ name: "beta", at: [p.beta, null], move: beta => ({ beta }) }],
    },
    { shape: 1.05, draw: drawAgainstMove, describe: describeAgainstMove },
  ],
  readouts(p, s) {
    const shown = { lower: s.lower, rovr: s.rovr.value, loss: LOSS, arovr: s.arovr.value, upper: s.upper };
    return Object.entries(shown).flatMap(([name, value]) => ["≤", { name, ...MARK[name], value }]).slice(1);
  },
  limits: (p, s) => ({ beta: { at: s.border, label: "border of stability", lit: infinite(p, p.beta) } }),
  status,
};

/* The energy landscape of a network of two units, to be dragged: no kernel, no network, no library.

       x → z1 = max(w0·x + b0, 0) → z2 = w1·z1 + b1, compared with a target y

   `twoUnit` and `contour` are mathematics and touch no page; tests/test_landscape_js.py compares
   them with lnn_core. `mountLandscape` builds the picture and its sliders inside an element.
   A setting p holds x, y, beta and the weights w0, b0, w1, b1. */
"use strict";

const twoUnit = {
  forward(p) {
    const z1 = Math.max(p.w0 * p.x + p.b0, 0);
    return [z1, p.w1 * z1 + p.b1];
  },
  loss: (p, z2) => 0.5 * (z2 - p.y) ** 2,
  /* The Fenchel–Young potential U, eq. (3), written so that nothing cancels near the forward pass. */
  potential(p, z1, z2) {
    if (z1 < 0) return Infinity;
    const a1 = p.w0 * p.x + p.b0, f1 = Math.max(a1, 0);
    return 0.5 * (z1 - f1) ** 2 + (z1 - f1) * (f1 - a1) + 0.5 * (z2 - p.w1 * z1 - p.b1) ** 2;
  },
  /* E = U + weight·ℓ: weight is β for ROVR and −β for AROVR. */
  energy: (p, weight, z1, z2) => twoUnit.potential(p, z1, z2) + weight * twoUnit.loss(p, z2),
  /* U − βℓ has a minimum for β below this. */
  border: p => 1 / (1 + p.w1 ** 2),
  /* argmin E, or null where there is none. Below the border E is strictly convex: its minimum is the
     stationary point of the piece z1 > 0 (hidden unit on) if that lies in it, or else of z1 = 0 (off). */
  optimum(p, weight) {
    if (weight <= -twoUnit.border(p)) return null;
    const off = [0, (p.b1 + weight * p.y) / (1 + weight)];
    const left = p.w0 * p.x + p.b0 - p.w1 * p.b1, right = p.b1 + weight * p.y;
    const det = (1 + p.w1 ** 2) * (1 + weight) - p.w1 ** 2;
    const on = [((1 + weight) * left + p.w1 * right) / det, (p.w1 * left + (1 + p.w1 ** 2) * right) / det];
    return on[0] > 0 ? on : off;
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
  for (let i = 0; i < n * (n - 1); i++) {
    const x = i % n, y = (i - x) / n, height = [i, i + 1, i + n + 1, i + n].map(corner => values[corner] - level);
    if (x === n - 1 || height.every(h => h < 0) || height.every(h => h >= 0)) continue;
    const corners = [[x, y], [x + 1, y], [x + 1, y + 1], [x, y + 1]], cuts = [];
    for (let a = 0, b = 1; a < 4; a++, b = (a + 1) % 4) {
      if ((height[a] < 0) === (height[b] < 0)) continue;
      const t = height[a] / (height[a] - height[b]);
      cuts.push(...[0, 1].map(axis => corners[a][axis] + t * (corners[b][axis] - corners[a][axis])));
    }
    for (let cut = 0; cut < cuts.length; cut += 4) segments.push(cuts.slice(cut, cut + 4));
  }
  return segments;
}

// The picture

const METHODS = { // colours as in lnn_core/style.py; the forward pass takes the page's ink
  rovr: { name: "ROVR", mark: "▲", colour: "#0072B2", what: "nudged" },
  forward: { name: "ℓ(z*)", mark: "■", colour: "currentColor", what: "forward pass" },
  arovr: { name: "AROVR", mark: "●", colour: "#D55E00", what: "attacked" },
};
const SLIDERS = {
  beta: { label: "β, strength of the loss", min: 0.01, max: 0.7, step: 0.01, start: 0.25 },
  x: { label: "x, input", min: -1, max: 2, step: 0.05, start: 1 },
  y: { label: "y, target", min: -1, max: 3, step: 0.05, start: 2 },
};
const WEIGHTS = { w0: 1, b0: 0, w1: 1, b1: 0 };
const WINDOW = { z1: [-0.25, 2.75], z2: [-2.25, 3.25] };
const GRID = 81;

/* Everything a layer of paint needs: the pen, the size, and where activations lie on the canvas. */
function easel(canvas) {
  const width = canvas.clientWidth, height = canvas.clientHeight, density = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * density);
  canvas.height = Math.round(height * density);
  const pen = canvas.getContext("2d");
  pen.scale(density, density);
  pen.font = "13px sans-serif";
  return {
    pen, width, height, style: getComputedStyle(canvas),
    px: z1 => (z1 - WINDOW.z1[0]) / (WINDOW.z1[1] - WINDOW.z1[0]) * width,
    py: z2 => (WINDOW.z2[1] - z2) / (WINDOW.z2[1] - WINDOW.z2[0]) * height,
  };
}

/* The energy that `shown` ("rovr" or "arovr") minimises: shades (dark is low) and contours at
   E_0 ± 0.05·k², evenly spaced on a parabola. E_0 is the minimum, or without one the forward pass. */
function paintEnergy({ pen, width, height, px, style }, p, solution, shown) {
  const weight = shown === "rovr" ? p.beta : -p.beta, left = px(0), cells = GRID - 1;
  const energies = Array.from({ length: GRID * GRID }, (_, i) => twoUnit.energy(p, weight,
    (i % GRID) / cells * WINDOW.z1[1],
    WINDOW.z2[1] - Math.floor(i / GRID) / cells * (WINDOW.z2[1] - WINDOW.z2[0])));

  const lowest = Math.min(...energies), colour = METHODS[shown].colour;
  const rgb = [1, 3, 5].map(i => parseInt(colour.slice(i, i + 2), 16));
  const small = document.createElement("canvas"), shades = new ImageData(GRID, GRID);
  energies.forEach((e, i) => shades.data.set([...rgb, 150 * Math.max(0, 1 - Math.sqrt((e - lowest) / 12))], 4 * i));
  small.width = small.height = GRID;
  small.getContext("2d").putImageData(shades, 0, 0);
  pen.drawImage(small, left, 0, width - left, height);

  const { z } = solution[shown], origin = twoUnit.energy(p, weight, ...(z || solution.forward.z));
  pen.strokeStyle = style.color;
  pen.globalAlpha = 0.4;
  pen.lineWidth = 0.8;
  pen.beginPath();
  for (let k = z ? 1 : -12; k < 17; k++) {
    for (const [x0, y0, x1, y1] of contour(energies, GRID, origin + 0.05 * k * Math.abs(k))) {
      pen.moveTo(left + x0 / cells * (width - left), y0 / cells * height);
      pen.lineTo(left + x1 / cells * (width - left), y1 / cells * height);
    }
  }
  pen.stroke();
  pen.globalAlpha = 1;
}

/* Axes, the target, and the strip z1 < 0, where U is infinite. */
function paintFrame({ pen, width, height, px, py, style }, p) {
  pen.fillStyle = pen.strokeStyle = style.color;
  pen.globalAlpha = 0.15;
  pen.fillRect(0, 0, px(0), height);
  pen.globalAlpha = 0.9;
  for (const z1 of [0, 1, 2]) pen.fillText(z1, px(z1) - 4, height - 6);
  for (const z2 of [-1, 0, 1, 2]) pen.fillText(z2, z2 < 0 ? 2 : 7, py(z2) + 4);
  pen.fillText("z₁, hidden", px(2.15), height - 6);
  pen.fillText("z₂, output", 5, 16);
  pen.fillText("target y", width - 56, py(p.y) - 5);
  pen.setLineDash([6, 4]);
  pen.lineWidth = 1;
  pen.beginPath();
  pen.moveTo(px(0), py(p.y));
  pen.lineTo(width, py(p.y));
  pen.stroke();
  pen.setLineDash([]);
  pen.globalAlpha = 1;
}

/* A mark for each method's activations, hollow at the edge where they lie outside the window. */
function paintMarks({ pen, width, height, px, py, style }, solution) {
  const near = (value, end) => Math.min(Math.max(value, 9), end - 9);
  const level = near(py(solution.forward.z[1]), height); // names stand away from the forward pass's
  pen.textBaseline = "middle";
  pen.lineJoin = "round";
  Object.entries(solution).forEach(([method, { z }], order) => {
    if (!z) return;
    const x = near(px(z[0]), width), y = near(py(z[1]), height), r = 7, { name, what } = METHODS[method];
    const outside = x !== px(z[0]) || y !== py(z[1]);
    const colour = method === "forward" ? style.color : METHODS[method].colour;
    pen.beginPath();
    if (method === "rovr") [[0, -1.2], [1.1, 0.8], [-1.1, 0.8]].forEach(([a, b]) => pen.lineTo(x + r * a, y + r * b));
    else if (method === "forward") pen.rect(x - r + 1, y - r + 1, 2 * r - 2, 2 * r - 2);
    else pen.arc(x, y, r, 0, 2 * Math.PI);
    pen.closePath();
    pen.lineWidth = outside ? 2.5 : 1.5;
    pen.strokeStyle = outside ? colour : "white";
    pen.fillStyle = outside ? style.backgroundColor : colour;
    pen.fill();
    pen.stroke();
    const words = method === "forward" ? what : name, long = pen.measureText(words).width;
    const leftwards = method === "forward" ? x > long + 12 : x + 12 + long > width;
    const start = leftwards ? x - 12 - long : x + 12, line = y + 16 * (Math.sign(y - level) || order - 1);
    pen.lineWidth = 4;
    pen.strokeStyle = style.backgroundColor;
    pen.fillStyle = style.color;
    pen.strokeText(words, start, line);
    pen.fillText(words, start, line);
  });
}

const number = (value, digits) => Number.isFinite(value) ? (Number(value.toFixed(digits)) + 0).toFixed(digits) : "∞";

/* What the picture shows, in words. */
function describe(p, solution) {
  const places = Object.entries(solution).map(([method, { z, value }]) => `${METHODS[method].name} ` + (z
    ? `= ${number(value, 3)} at z₁ = ${number(z[0], 2)}, z₂ = ${number(z[1], 2)}` : "is infinite: no optimum"));
  return `Energy landscape over z₁ and z₂ for β = ${number(p.beta, 2)}, x = ${number(p.x, 2)}, ` +
    `y = ${number(p.y, 2)}. ${places.join("; ")}.`;
}

/* Build picture, sliders and legend inside an element, and keep them up to date. */
function mountLandscape(element) {
  element.innerHTML = `
    <canvas role="img"></canvas>
    <p class="sandwich">${Object.entries(METHODS).map(([method, { name, mark, colour, what }]) => `
      <span><b><i style="color: ${colour}" aria-hidden="true">${mark}</i> ${name}</b>
        <output data-value="${method}"></output><small>${what}</small></span>`).join("<span>≤</span>")}</p>
    <div class="sliders">${Object.entries(SLIDERS).map(([name, { label, min, max, step, start }]) => `
      <label>${label}: <output data-value="${name}"></output>
        <input type="range" name="${name}" min="${min}" max="${max}" step="${step}" value="${start}"></label>`).join("")}</div>
    <fieldset><legend>Landscape</legend>
      <label><input type="radio" name="shown" value="arovr" checked> U − βℓ, attacked</label>
      <label><input type="radio" name="shown" value="rovr"> U + βℓ, nudged</label></fieldset>
    <p class="remark" role="status"></p>`;
  const find = selector => element.querySelector(selector), canvas = find("canvas");

  function draw() {
    const p = { ...WEIGHTS };
    for (const [name, { min, max, start }] of Object.entries(SLIDERS)) {
      const value = parseFloat(find(`[name=${name}]`).value);
      p[name] = Number.isFinite(value) ? Math.min(Math.max(value, min), max) : start;
      find(`[data-value=${name}]`).textContent = number(p[name], 2);
    }
    const solution = twoUnit.solve(p), paint = easel(canvas);
    paintEnergy(paint, p, solution, find("[name=shown]:checked").value);
    paintFrame(paint, p);
    paintMarks(paint, solution);
    for (const method in METHODS) find(`[data-value=${method}]`).textContent = number(solution[method].value, 3);
    canvas.setAttribute("aria-label", describe(p, solution));
    const border = number(twoUnit.border(p), 2);
    const remark = solution.arovr.z ? `The attack has an optimum while β < ${border}, the border of stability.`
      : `β has reached ${border}, the border of stability: U − βℓ falls without end.`;
    if (find(".remark").textContent !== remark) find(".remark").textContent = remark;
  }

  /* Let β grow from nothing to where it starts, unless the reader is faster or wants no motion. */
  const slider = find("[name=beta]"), { min, start } = SLIDERS.beta;
  let still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  function grow(now, begun = now) {
    if (still) return;
    const t = Math.min((now - begun) / 2500, 1);
    slider.value = min + (start - min) * t * t * (3 - 2 * t);
    draw();
    if (t < 1) requestAnimationFrame(later => grow(later, begun));
  }

  for (const event of ["pointerdown", "keydown"]) element.addEventListener(event, () => { still = true; });
  element.addEventListener("input", draw);
  new ResizeObserver(draw).observe(canvas);
  new MutationObserver(draw).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  if (!still) slider.value = min;
  draw();
  requestAnimationFrame(now => grow(now));
}

if (typeof document !== "undefined") mountLandscape(document.getElementById("landscape"));

/* Plots on a canvas, in the coordinates of the data. Nothing here knows about networks.

   What stands before `Plot` is mathematics and touches no page. `Plot` paints. It leaves out what is not finite, so
   that no NaN reaches the canvas. */

const finite = (...values) => values.every(Number.isFinite);
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const range = n => Array.from({ length: n }, (_, i) => i);

/* A number as readers see it: "∞" and "–" where there is none, never "-0.00". */
function number(value, digits = 2) {
  if (Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  return (Number(value.toFixed(digits)) + 0).toFixed(digits).replace("-", "−");
}

/* Red, green and blue, from 0 to 255, of "#rrggbb" or of "rgb(…)", as a page gives its colours. */
const channels = colour => (colour.startsWith("#") ? [1, 3, 5].map(i => parseInt(colour.slice(i, i + 2), 16))
  : colour.match(/[\d.]+/g).slice(0, 3).map(Number));
/* How far two colours differ in brightness, from 1 to 21 (WCAG 2). */
function contrast(...colours) {
  const linear = share => (share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4);
  const [dark, light] = colours.map(channels).map(rgb => rgb.map(value => linear(value / 255)))
    .map(([r, g, b]) => 0.2126 * r + 0.7152 * g + 0.0722 * b).sort((a, b) => a - b);
  return (light + 0.05) / (dark + 0.05);
}
/* A colour for words on `paper`: with as much `ink` in it as they need to be legible. */
function legible(colour, ink, paper) {
  const [from, to] = [colour, ink].map(channels);
  const mixtures = range(11).map(i => `rgb(${from.map((v, k) => Math.round(v + (to[k] - v) * i / 10)).join(", ")})`);
  return mixtures.find(mixture => contrast(mixture, paper) >= 4.5) || ink;
}

/* About `count` round numbers in [low, high]: multiples of 1, 2 or 5 times a power of ten. */
function ticks(low, high, count) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find(m => m * power >= rough * 0.999);
  const first = Math.ceil(low / step - 1e-9), last = Math.floor(high / step + 1e-9);
  return range(last - first + 1).map(i => Number(((first + i) * step).toPrecision(12)));
}

/* f(x, y) at the points of an n × n grid over a window {x: [low, high], y: [low, high]}:
   values[row * n + column], the first row at the top. */
function sample(f, window, n) {
  const values = new Float64Array(n * n), [x0, x1] = window.x, [y0, y1] = window.y;
  for (let row = 0, i = 0; row < n; row++) {
    const y = y1 - (y1 - y0) * row / (n - 1);
    for (let column = 0; column < n; column++) values[i++] = f(x0 + (x1 - x0) * column / (n - 1), y);
  }
  return values;
}

/* The lines where a function, sampled on an n × n grid, takes each of the increasing `levels`:
   segments [x0, y0, x1, y1] in units of cells (marching squares). */
function contours(values, n, levels) {
  const segments = [];
  for (let row = 0; row < n - 1; row++) {
    for (let column = 0; column < n - 1; column++) {
      const i = row * n + column, height = [values[i], values[i + 1], values[i + n + 1], values[i + n]];
      const lowest = Math.min(...height), highest = Math.max(...height);
      if (!(highest - lowest < Infinity)) continue; // a corner outside the domain
      for (const level of levels) {
        if (level <= lowest) continue;
        if (level > highest) break;
        const cuts = [];
        for (let a = 0; a < 4; a++) {
          const b = (a + 1) % 4;
          if ((height[a] < level) === (height[b] < level)) continue;
          const t = (level - height[a]) / (height[b] - height[a]); // from corner a to corner b
          cuts.push(column + [t, 1, 1 - t, 0][a], row + [0, t, 1, 1 - t][a]);
        }
        for (let cut = 0; cut < cuts.length; cut += 4) segments.push(cuts.slice(cut, cut + 4));
      }
    }
  }
  return segments;
}

const MARKS = { // shapes of radius 1; the same words stand in the readouts
  circle: { sign: "●" },
  square: { sign: "■", corners: [[-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]] },
  triangle: { sign: "▲", corners: [[0, -1.2], [1.1, 0.8], [-1.1, 0.8]] },
  diamond: { sign: "◆", corners: [[0, -1.25], [1.1, 0], [0, 1.25], [-1.1, 0]] },
};

class Plot {
  /* canvas: its size on the page is its style's. After `begin`, `ink`, `paper` are the page's colours. */
  constructor(canvas) {
    this.canvas = canvas;
    this.pen = canvas.getContext("2d");
  }

  /* Empty the canvas and set the window {x: [low, high], y: [low, high]} that it shows. */
  begin({ x, y, margins = [10, 12, 36, 44] }) {
    const { canvas, pen } = this, density = devicePixelRatio, style = getComputedStyle(canvas);
    [this.width, this.height] = [canvas.clientWidth, canvas.clientHeight];
    const size = [this.width, this.height].map(length => Math.round(length * density));
    if (canvas.width !== size[0] || canvas.height !== size[1]) [canvas.width, canvas.height] = size;
    [this.ink, this.paper] = [style.color, style.backgroundColor];
    pen.setTransform(density, 0, 0, density, 0, 0);
    pen.clearRect(0, 0, this.width, this.height);
    pen.font = `13px ${style.fontFamily}`;
    pen.lineJoin = "round";
    [this.x, this.y] = [x, y];
    const [top, right, bottom, left] = margins;
    this.box = { left, top, right: this.width - right, bottom: this.height - bottom };
    this.unit = [(this.box.right - left) / (x[1] - x[0]), (this.box.bottom - top) / (y[1] - y[0])];
  }

  px(x) { return this.box.left + (x - this.x[0]) * this.unit[0]; }
  py(y) { return this.box.bottom - (y - this.y[0]) * this.unit[1]; }
  /* The data coordinates of a pointer event. */
  where(event) {
    const { left, top } = this.canvas.getBoundingClientRect();
    return [this.x[0] + (event.clientX - left - this.box.left) / this.unit[0],
      this.y[0] + (this.box.bottom - event.clientY + top) / this.unit[1]];
  }

  /* Paint with these settings, inside the axes unless `free`, and forget them. */
  with({ colour = this.ink, alpha = 1, width = 1.5, dash = [], free = false }, paint) {
    const { pen, box } = this;
    pen.save();
    if (!free) {
      pen.beginPath();
      pen.rect(box.left, box.top, box.right - box.left, box.bottom - box.top);
      pen.clip();
    }
    [pen.strokeStyle, pen.fillStyle, pen.globalAlpha, pen.lineWidth] = [colour, colour, alpha, width];
    pen.setLineDash(dash);
    pen.beginPath();
    paint(pen);
    pen.restore();
  }

  /* A line through points [x, y]; interrupted where a coordinate is not finite. */
  line(points, style = {}) {
    this.with(style, pen => {
      this.trace(points);
      pen.stroke();
    });
  }
  /* The area inside points [x, y], and its border if `width` is given. */
  area(points, style = {}) {
    this.with(style, pen => {
      this.trace(points);
      pen.fill();
    });
  }
  trace(points) {
    let drawing = false;
    for (const [x, y] of points) {
      if (finite(x, y)) {
        const at = [this.px(x), this.py(y)].map(length => clamp(length, -1e4, 1e4));
        drawing ? this.pen.lineTo(...at) : this.pen.moveTo(...at);
      }
      drawing = finite(x, y);
    }
  }
  /* The graph of f over the window, or over the interval `over`. */
  graph(f, { over = this.x, points = 240, ...style } = {}) {
    this.line(range(points + 1).map(i => {
      const x = over[0] + (over[1] - over[0]) * i / points;
      return [x, f(x)];
    }), style);
  }
  horizontal(y, style = {}) { this.line([[this.x[0], y], [this.x[1], y]], style); }
  vertical(x, style = {}) { this.line([[x, this.y[0]], [x, this.y[1]]], style); }
  /* A straight arrow between two points [x, y]. */
  arrow(from, to, style = {}) {
    if (!finite(...from, ...to)) return;
    const [x0, y0, x1, y1] = [this.px(from[0]), this.py(from[1]), this.px(to[0]), this.py(to[1])];
    const angle = Math.atan2(y1 - y0, x1 - x0), head = Math.min(10, 0.6 * Math.hypot(x1 - x0, y1 - y0));
    this.with(style, pen => {
      pen.moveTo(x0, y0);
      pen.lineTo(x1, y1);
      for (const turn of [-0.45, 0.45]) {
        pen.moveTo(x1, y1);
        pen.lineTo(x1 - head * Math.cos(angle + turn), y1 - head * Math.sin(angle + turn));
      }
      pen.stroke();
    });
  }

  /* Contour lines of values sampled on an n × n grid over `window`. */
  contours(values, n, levels, { window = this, ...style } = {}) {
    const [left, top] = [this.px(window.x[0]), this.py(window.y[1])];
    const wide = (this.px(window.x[1]) - left) / (n - 1), high = (this.py(window.y[0]) - top) / (n - 1);
    this.with({ width: 0.8, alpha: 0.4, ...style }, pen => {
      for (const [x0, y0, x1, y1] of contours(values, n, levels)) {
        pen.moveTo(left + x0 * wide, top + y0 * high);
        pen.lineTo(left + x1 * wide, top + y1 * high);
      }
      pen.stroke();
    });
  }
  /* A colour over `window`, as opaque as opacity(value) in [0, 1] says. */
  shade(values, n, colour, opacity, { window = this } = {}) {
    const rgb = channels(colour), pixels = new ImageData(n, n);
    values.forEach((value, i) => pixels.data.set([...rgb, 255 * clamp(opacity(value) || 0, 0, 1)], 4 * i));
    this.sheet ??= document.createElement("canvas");
    this.sheet.width = this.sheet.height = n;
    this.sheet.getContext("2d").putImageData(pixels, 0, 0);
    const [left, top] = [this.px(window.x[0]), this.py(window.y[1])];
    this.with({}, pen => pen.drawImage(this.sheet, left, top, this.px(window.x[1]) - left,
      this.py(window.y[0]) - top));
  }

  /* Words at [x, y], moved by `shift` pixels, on a halo of paper. */
  text(words, [x, y], { shift = [0, 0], align = "left", bold = false, colour = this.ink, alpha } = {}) {
    if (!finite(x, y)) return;
    this.with({ free: true, colour: legible(colour, this.ink, this.paper), alpha }, pen => {
      const at = [this.px(x) + shift[0], this.py(y) + shift[1]];
      [pen.textAlign, pen.textBaseline] = [align, "middle"];
      if (bold) pen.font = `bold ${pen.font}`;
      [pen.lineWidth, pen.strokeStyle] = [4, this.paper];
      pen.strokeText(words, ...at);
      pen.fillText(words, ...at);
    });
  }
  /* A mark at [x, y]: hollow at the edge where that lies outside the axes. `name` stands beside it. */
  mark([x, y], { shape = "circle", colour = this.ink, radius = 7, name = "", side = 1, lift = 0 } = {}) {
    if (!finite(x, y)) return;
    const { pen, box } = this, { corners } = MARKS[shape];
    const at = [clamp(this.px(x), box.left, box.right), clamp(this.py(y), box.top, box.bottom)];
    const outside = Math.hypot(at[0] - this.px(x), at[1] - this.py(y)) > 0.5;
    this.with({ free: true, colour }, () => {
      if (corners) corners.forEach(([a, b]) => pen.lineTo(at[0] + radius * a, at[1] + radius * b));
      else pen.arc(...at, radius, 0, 2 * Math.PI);
      pen.closePath();
      pen.fillStyle = outside ? this.paper : colour;
      pen.strokeStyle = outside ? colour : this.paper;
      pen.lineWidth = outside ? 2.5 : 1.5;
      pen.fill();
      pen.stroke();
    });
    if (!name) return;
    const room = this.pen.measureText(name).width + radius + 6;
    const right = side > 0 ? at[0] + room < box.right : at[0] - room < box.left;
    this.text(name, [this.x[0], this.y[1]], { align: right ? "left" : "right",
      shift: [at[0] - box.left + (right ? 1 : -1) * (radius + 6), at[1] - box.top + lift] });
  }

  /* The frame with its ticks and the axes' names; paint it last. */
  frame(xlabel, ylabel) {
    const { pen, box, width, height } = this;
    this.with({ free: true, width: 1, alpha: 0.55 }, () => {
      pen.strokeRect(box.left, box.top, box.right - box.left, box.bottom - box.top);
    });
    this.with({ free: true, alpha: 0.85 }, () => {
      pen.font = pen.font.replace("13px", "12px");
      [pen.textAlign, pen.textBaseline] = ["center", "top"];
      for (const x of ticks(...this.x, clamp(width / 90, 3, 8))) pen.fillText(this.tick(x), this.px(x), box.bottom + 4);
      [pen.textAlign, pen.textBaseline] = ["right", "middle"];
      for (const y of ticks(...this.y, clamp(height / 60, 3, 8))) pen.fillText(this.tick(y), box.left - 6, this.py(y));
      [pen.textAlign, pen.textBaseline] = ["center", "bottom"];
      pen.fillText(xlabel, (box.left + box.right) / 2, height - 2);
      pen.translate(12, (box.top + box.bottom) / 2);
      pen.rotate(-Math.PI / 2);
      pen.textBaseline = "middle";
      pen.fillText(ylabel, 0, 0);
    });
  }
  tick(value) { return String(value).replace("-", "−"); }
}

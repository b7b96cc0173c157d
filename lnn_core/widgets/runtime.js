/* What all explorables share: sliders, choices and buttons bound to a model's traits, panels that
   are redrawn when a trait changes, handles that can be dragged, numbers and a sentence below.

   An explorable is an object with

     solve(p)          → s, everything that is shown, from the parameters p; pure mathematics
     panels            a list of {shape, draw(plot, p, s), describe(p, s), handles(p, s)?, attach(tools)?}
     readouts(p, s)    → a list of {name, label, value, …} or words that stand between them
     status(p, s)      → {text, lit?}: a sentence, and whether to light the picture up
     limits(p, s)?     → {slider: {at, label, lit}}: a mark on a slider's track
     actions?          a list of buttons {name, label, run(p), every?}
     setup(model, el)? takes what else the model holds; a promise, if that takes time

   Python writes two constants before this text: COLOURS, those of the methods in lnn_core.style
   (null: the page's ink), and CONTROLS, one for each slider or choice. */

/* The nearest value a control allows, and what to tell whoever asked for another. */
function admit(control, wanted) {
  if (control.options) {
    const known = control.options.includes(wanted);
    return { value: known ? wanted : control.start, message: known ? "" : `${control.symbol} cannot be ${wanted}.` };
  }
  const value = Number.isFinite(wanted) ? clamp(wanted, control.min, control.max) : control.start;
  const message = value === wanted ? "" : `${control.symbol} goes from ${number(control.min, control.digits)} to ` +
    `${number(control.max, control.digits)}: set to ${number(value, control.digits)}.`;
  return { value, message };
}

/* Between a value and its place on the track, both ways; the place counts steps from the left end. */
const place = ({ min, max, step, log }, value) => (log
  ? Math.log(value / min) / Math.log(step) : (value - min) / step);
function valueAt({ min, max, step, log }, at) {
  return clamp(log ? min * step ** at : Number((min + at * step).toPrecision(12)), min, max);
}
const steps = control => Math.round(place(control, control.max));
const snap = (control, value) => valueAt(control, Math.round(place(control, clamp(value, control.min, control.max))));

/* The parameters that a model holds, each admitted. */
function parameters(model) {
  return Object.fromEntries(CONTROLS.map(control => [control.name, admit(control, model.get(control.name)).value]));
}

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/* A slider or a choice: {row, show(p), limit(mark)}. `change` receives what the reader sets. */
function controlElement(control, change) {
  return control.options ? choiceElement(control, change) : sliderElement(control, change);
}
function choiceElement({ name, label, options, labels }, change) {
  const select = element("select", { name }, ...options.map((value, i) => element("option", { value }, labels[i])));
  select.addEventListener("change", () => change({ [name]: select.value }));
  const row = element("label", { class: "control" }, element("span", {}, label), select);
  return { row, show: p => { select.value = p[name]; } };
}
function sliderElement(control, change) {
  const { name, label, digits } = control, readout = element("output", { "data-value": name });
  const input = element("input", { type: "range", name, min: 0, max: steps(control), step: 1, "aria-label": label });
  const tick = element("i", { class: "limit", hidden: "" }), words = element("small", { class: "limit-label" });
  input.addEventListener("input", () => change({ [name]: valueAt(control, Number(input.value)) }));
  const row = element("label", { class: "control" },
    element("span", {}, label, words), readout, element("span", { class: "track" }, input, tick));
  const share = value => place(control, clamp(value, control.min, control.max)) / steps(control);
  return {
    row,
    show(p) {
      input.value = Math.round(place(control, p[name]));
      readout.textContent = number(p[name], digits);
      input.setAttribute("aria-valuetext", number(p[name], digits));
    },
    limit({ at, label: text, lit }) { // 8px: half a thumb
      tick.hidden = !finite(at);
      tick.style.insetInlineStart = `calc(8px + ${share(at)} * (100% - 16px))`;
      words.textContent = text;
      row.classList.toggle("lit", Boolean(lit));
    },
  };
}

/* The row of numbers below the picture; its items keep their order and number. */
function readoutElement(items) {
  const outputs = [], row = element("div", { class: "readouts" }, ...items.map(item => {
    if (typeof item === "string") return element("span", { class: "between" }, item);
    const sign = element("i", { "aria-hidden": "true" }, item.shape ? MARKS[item.shape].sign + " " : "");
    sign.style.color = item.colour || "inherit";
    const output = element("output", { "data-value": item.name });
    outputs.push([output, items.indexOf(item)]);
    return element("div", {}, element("b", {}, sign, item.label), output, element("small", {}, item.note || ""));
  }));
  const show = now => outputs.forEach(([output, i]) => {
    output.textContent = number(now[i].value, now[i].digits ?? 3);
  });
  return { row, show };
}

/* Let pointers drag a panel's handles. On a touch screen only a finger on a handle stops scrolling. */
function dragHandles(plot, handles, change) {
  const { canvas } = plot;
  let held = null;
  const near = (event, reach) => handles().map(({ at: [x, y], move, name }) => {
    const rect = canvas.getBoundingClientRect();
    const apart = [x === null ? 0 : plot.px(x) - event.clientX + rect.left,
      y === null ? 0 : plot.py(y) - event.clientY + rect.top];
    return { name, move, far: Math.hypot(...apart) };
  }).filter(({ far }) => far <= reach).sort((a, b) => a.far - b.far)[0];
  canvas.addEventListener("touchstart", event => {
    if (near(event.touches[0], 26)) event.preventDefault();
  }, { passive: false });
  canvas.addEventListener("pointerdown", event => {
    held = near(event, event.pointerType === "mouse" ? 14 : 26);
    if (held) canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", event => {
    if (held) change(held.move(...plot.where(event)));
    else canvas.classList.toggle("grab", Boolean(near(event, 14)));
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { held = null; });
}

/* Buttons: an action's `run(p)` returns what to change, or null when there is nothing left to do.
   One with `every` (milliseconds) goes on by itself until then, or until the reader does anything. */
function actionElement(actions, model, change) {
  let timer = null;
  const stop = () => { clearInterval(timer); timer = null; };
  const row = element("div", { class: "actions" }, ...actions.map(({ name, label, run, every }) => {
    const button = element("button", { type: "button", name }, label);
    const act = () => {
      const wanted = run(parameters(model));
      if (wanted) change(wanted);
      else stop();
      return wanted;
    };
    button.addEventListener("click", () => {
      const running = timer !== null;
      stop();
      if (every && running) return;
      if (every && matchMedia("(prefers-reduced-motion: reduce)").matches) while (act());
      else if (act() && every) timer = setInterval(act, every);
    });
    return button;
  }));
  return { row, stop };
}

/* Show an explorable inside `el`, once it is set up. Returns a function that ends it. */
function mount(view, explorable) {
  let end = () => {}, over = false;
  const begin = () => { if (!over) end = build(view, explorable); };
  const ready = explorable.setup ? explorable.setup(view.model, view.el) : null;
  if (ready) ready.then(begin);
  else begin();
  return () => { over = true; end(); };
}

/* Build an explorable and keep it up to date. Returns a function that ends it. */
function build({ model, el }, explorable) {
  let message = "", pending = 0;
  function change(wanted) {
    const messages = [];
    for (const control of CONTROLS.filter(({ name }) => name in wanted)) {
      const admitted = admit(control, wanted[control.name]);
      model.set(control.name, control.options || admitted.message ? admitted.value : snap(control, admitted.value));
      if (admitted.message) messages.push(admitted.message);
    }
    message = messages.join(" ");
    model.save_changes();
    schedule();
  }
  const first = parameters(model), solution = explorable.solve(first);
  const controls = CONTROLS.map(control => [control.name, controlElement(control, change)]);
  const readouts = readoutElement(explorable.readouts(first, solution));
  const buttons = actionElement(explorable.actions || [], model, change);
  const status = element("p", { class: "status", role: "status" });
  const panels = explorable.panels.map(panel => {
    const canvas = element("canvas", { role: "img" });
    canvas.style.setProperty("--shape", panel.shape || 1.6);
    const plot = new Plot(canvas);
    if (panel.handles) {
      dragHandles(plot, () => {
        const p = parameters(model);
        return panel.handles(p, explorable.solve(p));
      }, change);
    }
    if (panel.attach) panel.attach({ canvas, plot, change, redraw: () => schedule() });
    return { ...panel, canvas, plot };
  });
  const root = element("div", { class: "lnn-explorable" },
    element("div", { class: "panels" }, ...panels.map(({ canvas }) => canvas)), readouts.row,
    element("div", { class: "controls" }, ...controls.map(([, { row }]) => row), buttons.row), status);
  el.replaceChildren(root);

  function redraw() {
    const p = parameters(model), s = explorable.solve(p);
    pending = 0;
    for (const { canvas, plot, draw, describe } of panels) {
      draw(plot, p, s);
      canvas.setAttribute("aria-label", describe(p, s));
    }
    const { text, lit = false } = explorable.status(p, s), limits = explorable.limits ? explorable.limits(p, s) : {};
    for (const [name, control] of controls) {
      control.show(p);
      if (limits[name]) control.limit(limits[name]);
    }
    readouts.show(explorable.readouts(p, s));
    const words = [message, text].filter(Boolean).join(" ");
    if (status.textContent !== words) status.textContent = words;
    root.classList.toggle("lit", lit);
  }
  /* At most one redraw a frame, however fast the changes come. */
  function schedule() { pending ||= requestAnimationFrame(redraw); }

  const events = CONTROLS.map(({ name }) => `change:${name}`);
  events.forEach(event => model.on(event, schedule));
  for (const event of ["pointerdown", "keydown"]) {
    root.addEventListener(event, ({ target }) => { if (target.tagName !== "BUTTON") buttons.stop(); });
  }
  const size = new ResizeObserver(schedule), theme = new MutationObserver(schedule);
  panels.forEach(({ canvas }) => size.observe(canvas));
  const themes = { attributeFilter: ["data-theme", "data-jp-theme-name"] };
  for (const page of [document.documentElement, document.body]) theme.observe(page, themes);
  const media = ["print", "(prefers-color-scheme: dark)"].map(query => matchMedia(query));
  media.forEach(query => query.addEventListener("change", redraw)); // at once: printing does not wait for a frame
  redraw();
  return () => {
    buttons.stop();
    events.forEach(event => model.off(event, schedule));
    size.disconnect();
    theme.disconnect();
    media.forEach(query => query.removeEventListener("change", redraw));
    cancelAnimationFrame(pending);
  };
}

/* Show an explorable in a page without a kernel: in the first place of that name where none is yet. A script does not
   know where it stands (`currentScript`) once a page has moved it or put it in anew. */
function showInPage(name, values, explorable) {
  const find = () => [...document.querySelectorAll(`[data-explorable="${name}"]`)].find(place => !place.taken);
  const begin = () => {
    const el = find();
    if (!el) return;
    el.taken = true;
    mount({ model: pageModel(values), el }, explorable);
  };
  if (!find() && document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin);
  else begin();
}

/* A model for pages without a kernel: the same four methods that Jupyter's has. */
function pageModel(values) {
  const listeners = {};
  return {
    get: name => values[name],
    set(name, value) {
      if (values[name] === value) return;
      values[name] = value;
      (listeners[`change:${name}`] || []).forEach(listener => listener());
    },
    on(event, listener) { (listeners[event] ||= []).push(listener); },
    off(event, listener) { listeners[event] = (listeners[event] || []).filter(other => other !== listener); },
    save_changes() {},
  };
}

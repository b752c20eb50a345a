// The page: sliders and boxes for numbers set one state, from which everything is shown anew.

const page = document.currentScript ? document.currentScript.closest(".kg-explorer") : document.querySelector(".kg-explorer");
const find = selector => page.querySelector(selector);

const nearly = x => Number(x.toPrecision(4));
const logarithmic = (low, high) => ({
  low: 10 ** low, high: 10 ** high, slider: {min: low, max: high, step: 0.005},
  toSlider: value => Math.log10(value), fromSlider: at => nearly(10 ** at),
});
const linear = (low, high, step) => ({
  low, high, slider: {min: low, max: high, step}, toSlider: value => value, fromSlider: at => nearly(at),
});
const whole = (low, high) => ({...linear(low, high, 1), whole: true});

// The boxes take every number of their range, the sliders a grid.
const CONTROLS = {
  depth: {...whole(2, 6), first: 3},
  sigma: {...linear(0.1, 3, 0.01), first: 1},
  feature: {...whole(1, constants.digits.length), first: 1},
  weight_decay: {...logarithmic(-5, 0.5), first: 0.25},
  lr_over_batch: {...logarithmic(-5, 0), first: 0.003},
  noise_std: {...logarithmic(-2, 1), first: 1},
};
const SOURCES = ["teacher", "digits"];

const state = {source: "teacher", zoom: false};
for (const [name, control] of Object.entries(CONTROLS)) state[name] = control.first;

const allowed = (name, value) => {
  const {low, high, whole: integer} = CONTROLS[name];
  return Number.isFinite(value) && value >= low * (1 - 1e-12) && value <= high * (1 + 1e-12) && (!integer || Number.isInteger(value));
};

// ---------------------------------------------------------------- what is shown

const show = (name, text) => { for (const output of page.querySelectorAll(`[data-number="${name}"]`)) output.textContent = text; };

const phaseOf = (p, found) => {
  if (p.D === 2) {
    return p.lambda < found.spinodal
      ? "One layer of hidden units: the transition is continuous. Below the onset 0 is unstable, and the feature is learned without a barrier: nothing is trapped."
      : "Above the onset 0 is the only state. At depth 2 the transition is continuous, there is no barrier and no hysteresis.";
  }
  if (found.atFold) return "At the spinodal, where saddle and learned state merge: the barrier out of the learned state vanishes within rounding.";
  if (found.learned === null) return "Above the spinodal: 0 is the only state. A learned feature is lost without noise, and nothing is trapped.";
  return p.lambda < found.binodal
    ? "Below the binodal: the learned state is the deeper one, the unlearned one is metastable. A network that starts there is trapped."
    : "Between binodal and spinodal: the unlearned state is the deeper one, and a learned feature is metastable. It will be forgotten.";
};

const validityOf = times => {
  if (times === null) return "";
  const T = formulas.temperature(state.lr_over_batch, state.noise_std), both = ["learning", "forgetting"];
  const low = both.filter(way => times[way].height / T < constants.validity);
  const rule = low.length
    ? `ΔF/T of ${low.join(" and ")} is below ${constants.validity}: Kramers' formula is the leading order for high barriers, and only a guide here. The exact time holds at any temperature.`
    : `Both barriers are at least ${constants.validity} temperatures high, where Kramers' formula is meant to hold.`;
  const missing = both.some(way => Number.isNaN(times[way].exact));
  return missing ? `${rule} It is so cold here that an exact time would take this page too long: ask the library.` : rule;
};

// Stable states of the whole network: none, the strongest feature, the two strongest, …
const statesOfNetwork = p => {
  const learnable = constants.digits.filter(q => p.lambda < formulas.spinodal(p.D, q, 1)).length;
  return p.D === 2 ? 1 : learnable + 1;
};

const showNumbers = (p, found, T, times) => {
  show("input_variance", plain(p.q));
  show("temperature", plain(T));
  show("spinodal", plain(found.spinodal));
  show("binodal", plain(found.binodal));
  show("jump", plain(p.D > 2 ? found.jump : 0));
  show("n_states", p.digits ? String(statesOfNetwork(p)) : "—");
  for (const name of ["unlearned", "saddle", "learned"]) {
    const point = found[name];
    for (const [column, value] of [["amplitude", "a"], ["order_parameter", "m"], ["energy", "energy"], ["curvature", "curvature"]])
      show(`${name}_${column}`, point === null ? "—" : plain(point[value]));
  }
  for (const way of ["learning", "forgetting"]) {
    const row = times === null ? null : times[way];
    show(`${way}_height`, row === null ? "—" : plain(row.height));
    show(`${way}_ratio`, row === null ? "—" : plain(row.height / T));
    for (const kind of ["exact", "kramers", "chain"]) show(`${way}_${kind}`, row === null ? "—" : plainLog(row[kind]));
    show(`${way}_samples`, row === null ? "—" : plainLog(row.exact - Math.log(state.lr_over_batch)));
  }
  find(".phase").textContent = phaseOf(p, found);
  find(".validity").textContent = validityOf(times);
};

const parameters = () => {
  const digits = state.source === "digits";
  return {
    D: state.depth, lambda: state.weight_decay, digits,
    q: digits ? constants.digits[state.feature - 1] : 1, sigma: digits ? 1 : state.sigma,
  };
};

const update = () => {
  for (const element of page.querySelectorAll("[data-source]")) element.hidden = element.dataset.source !== state.source;
  const p = parameters(), found = states(p), T = formulas.temperature(state.lr_over_batch, state.noise_std);
  const times = escapes(p, found, T);
  showNumbers(p, found, T, times);
  drawEnergy(find(".energy-figure"), p, found, T, state.zoom);
  drawPhases(find(".phase-figure"), p, found, p.digits ? constants.digits : null);
  drawLoop(find(".loop-figure"), p, found);
  drawTimes(find(".time-figure"), p, found, state.lr_over_batch, ratio => formulas.temperature(ratio, state.noise_std), times);
  remember();
};

// ---------------------------------------------------------------- sliders and boxes

// The text of a box is what the state holds, to the last digit.
const write = name => {
  const box = find(`input[type=number][name=${name}]`), slider = find(`input[type=range][name=${name}]`);
  box.value = String(state[name]);
  box.removeAttribute("aria-invalid");
  slider.value = String(CONTROLS[name].toSlider(state[name]));
  slider.setAttribute("aria-valuetext", String(state[name]));
  find(`[data-problem=${name}]`).textContent = "";
};

const refuse = (name, box) => {
  const {low, high, whole: integer} = CONTROLS[name];
  box.setAttribute("aria-invalid", "true");
  find(`[data-problem=${name}]`).textContent = `${integer ? "a whole number" : "a number"} from ${plain(low, 2)} to ${plain(high, 2)}`;
};

for (const [name, control] of Object.entries(CONTROLS)) {
  const box = find(`input[type=number][name=${name}]`), slider = find(`input[type=range][name=${name}]`);
  Object.assign(slider, control.slider);
  Object.assign(box, {min: control.low, max: control.high, step: control.whole ? 1 : "any"});
  slider.addEventListener("input", () => {
    state[name] = control.fromSlider(slider.valueAsNumber);
    write(name);
    update();
  });
  box.addEventListener("input", () => {
    const value = box.valueAsNumber;
    if (!allowed(name, value)) return refuse(name, box);
    state[name] = value;
    box.removeAttribute("aria-invalid");
    find(`[data-problem=${name}]`).textContent = "";
    slider.value = String(control.toSlider(value));
    slider.setAttribute("aria-valuetext", String(value));
    update();
  });
  box.addEventListener("change", () => write(name)); // what was refused gives way to what counts
}
for (const source of page.querySelectorAll("input[name=source]"))
  source.addEventListener("change", () => { state.source = source.value; update(); });
find("input[name=zoom]").addEventListener("change", event => { state.zoom = event.target.checked; update(); });
find("button.reset").addEventListener("click", () => {
  for (const [name, control] of Object.entries(CONTROLS)) state[name] = control.first;
  Object.assign(state, {source: "teacher", zoom: false});
  writeAll();
});

// ---------------------------------------------------------------- the address keeps the state, so that it can be shared

let pending = null;
let own = "";
const remember = () => {
  clearTimeout(pending); // browsers refuse hundreds of addresses a minute
  pending = setTimeout(() => {
    const parts = ["source", ...Object.keys(CONTROLS)].map(name => `${name}=${state[name]}`);
    own = `#${parts.join("&")}`;
    if (touched) history.replaceState(null, "", own);
  }, 400);
};

const recall = () => {
  if (location.hash === own || !location.hash.includes("=")) return;
  for (const [name, text] of new URLSearchParams(location.hash.slice(1))) {
    if (name in CONTROLS && allowed(name, Number(text))) state[name] = Number(text);
    if (name === "source" && SOURCES.includes(text)) state.source = text;
  }
};

const writeAll = () => {
  for (const name of Object.keys(CONTROLS)) write(name);
  for (const source of page.querySelectorAll("input[name=source]")) source.checked = source.value === state.source;
  find("input[name=zoom]").checked = state.zoom;
  update();
};

let touched = false; // a page that is only read keeps its address
page.addEventListener("input", () => { touched = true; }, true);
addEventListener("hashchange", () => { recall(); writeAll(); });
recall();
writeAll();
page.classList.add("ready");

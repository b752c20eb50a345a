// Figures as SVG, drawn anew at every change. Series differ in dashes and markers too, not in colour alone.

const SVG = "http://www.w3.org/2000/svg";
const draw = (parent, tag, attributes, text) => {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
};

const between = (low, high, n) => Array.from({length: n + 1}, (_, i) => low + (high - low) * i / n);

const tickText = value => {
  const size = Math.abs(value), sign = value < 0 ? "−" : "";
  if (size === 0 || (size >= 1e-3 && size < 1e5)) return sign + String(Number(size.toPrecision(6)));
  const exponent = Math.floor(Math.log10(size) + 1e-9);
  return `${sign}${Number((size / 10 ** exponent).toPrecision(4))}·${power(exponent)}`;
};

const niceTicks = (low, high, count = 5) => {
  const rough = (high - low) / count, scale = 10 ** Math.floor(Math.log10(rough));
  const step = scale * [1, 2, 5, 10].find(s => s * scale >= rough);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) ticks.push(i * step);
  return ticks.map(tick => [tick, tickText(Math.abs(tick) < 1e-9 * step ? 0 : tick)]);
};

const decadeTicks = (low, high) => {
  if (high - low < 2.5) // too few whole powers: 1, 2 and 5 of each
    return between(Math.floor(low), Math.ceil(high), Math.ceil(high) - Math.floor(low))
      .flatMap(n => [1, 2, 5].map(s => [n + Math.log10(s), s === 1 ? power(n) : tickText(s * 10 ** n)]))
      .filter(([value]) => value >= low && value <= high);
  const every = Math.max(1, Math.ceil((high - low) / 6)), ticks = [];
  for (let n = Math.ceil(low / every) * every; n <= high; n += every) ticks.push([n, power(n)]);
  return ticks;
};

const WIDTH = 460, HEIGHT = 300, LEFT = 74, RIGHT = 24, TOP = 12, BOTTOM = 44;
let clips = 0;

// Axes of a figure: `x` and `y` are {range: [low, high], label, ticks?}.
class Axes {
  constructor(figure, x, y) {
    this.x = x; this.y = y;
    const svg = figure.querySelector("svg");
    svg.replaceChildren();
    svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    const clip = `kg-clip-${clips++ % 64}`;
    draw(draw(svg, "clipPath", {id: clip}), "rect",
      {x: LEFT, y: TOP, width: WIDTH - LEFT - RIGHT, height: HEIGHT - TOP - BOTTOM});
    this.back = draw(svg, "g", {"clip-path": `url(#${clip})`});
    const frame = draw(svg, "g", {class: "frame"});
    draw(frame, "rect", {x: LEFT, y: TOP, width: WIDTH - LEFT - RIGHT, height: HEIGHT - TOP - BOTTOM});
    for (const [value, text] of x.ticks ?? niceTicks(...x.range)) {
      const at = this.px(value);
      draw(frame, "line", {x1: at, x2: at, y1: HEIGHT - BOTTOM, y2: HEIGHT - BOTTOM + 4});
      draw(frame, "text", {x: at, y: HEIGHT - BOTTOM + 17, "text-anchor": "middle", "data-axis": "x", "data-value": value}, text);
    }
    for (const [value, text] of y.ticks ?? niceTicks(...y.range)) {
      const at = this.py(value);
      draw(frame, "line", {x1: LEFT - 4, x2: LEFT, y1: at, y2: at});
      draw(frame, "text", {x: LEFT - 7, y: at + 4, "text-anchor": "end", "data-axis": "y", "data-value": value}, text);
    }
    draw(frame, "text", {x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 8, "text-anchor": "middle", class: "label"}, x.label);
    draw(frame, "text", {x: 0, y: 0, "text-anchor": "middle", class: "label",
      transform: `translate(11 ${(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)`}, y.label);
    this.front = draw(svg, "g", {"clip-path": `url(#${clip})`});
    this.over = draw(svg, "g", {});
  }

  px(value) { return LEFT + (value - this.x.range[0]) / (this.x.range[1] - this.x.range[0]) * (WIDTH - LEFT - RIGHT); }
  py(value) {
    return HEIGHT - BOTTOM - (value - this.y.range[0]) / (this.y.range[1] - this.y.range[0]) * (HEIGHT - TOP - BOTTOM);
  }

  // Far outside the frame browsers lose their footing: what is not seen is brought near.
  near(at, size) { return Math.max(-10 * size, Math.min(11 * size, at)).toFixed(2); }

  path(points) {
    return points.filter(([x, y]) => Number.isFinite(x) && Number.isFinite(y))
      .map(([x, y], i) => `${i ? "L" : "M"}${this.near(this.px(x), WIDTH)} ${this.near(this.py(y), HEIGHT)}`).join("");
  }

  line(points, name) { return draw(this.front, "path", {d: this.path(points), class: `curve ${name}`}); }
  area(points, name) { return draw(this.back, "path", {d: this.path(points) + "Z", class: `area ${name}`}); }
  vertical(x, name) { return this.line([[x, this.y.range[0]], [x, this.y.range[1]]], name); }
  horizontal(y, name) { return this.line([[this.x.range[0], y], [this.x.range[1], y]], name); }

  // A circle is the unlearned state, a cross the saddle, a square the learned state, a diamond the point itself.
  marker(x, y, name) {
    const [u, v] = [this.px(x), this.py(y)];
    if (u < LEFT - 1 || u > WIDTH - RIGHT + 1 || v < TOP - 1 || v > HEIGHT - BOTTOM + 1) return null;
    const shape = {
      unlearned: "M-5.5 0A5.5 5.5 0 1 1 5.5 0A5.5 5.5 0 1 1 -5.5 0Z",
      saddle: "M-5 -5L5 5M-5 5L5 -5",
      learned: "M-5 -5H5V5H-5Z",
    }[name.split(" ")[0]] ?? "M0 -7L6 0L0 7L-6 0Z";
    return draw(this.over, "path", {d: shape, class: `marker ${name}`, transform: `translate(${u.toFixed(3)} ${v.toFixed(3)})`});
  }

  text(x, y, content, name = "", anchor = "middle") {
    return draw(this.over, "text", {x: this.px(x), y: this.py(y), "text-anchor": anchor, class: `note ${name}`}, content);
  }
}

// ---------------------------------------------------------------- F(a)

const drawEnergy = (figure, p, found, T, zoom) => {
  const {unlearned, saddle, learned} = found;
  const close = zoom && saddle !== null;
  // Close by, the digits of F - F(0) matter.
  const F = a => (close ? formulas.energyAboveZero : formulas.freeEnergy)(a, p.D, p.q, p.sigma, p.lambda);
  const stationary = [unlearned, saddle, learned].filter(point => point !== null)
    .map(({name, a}) => ({name, a, energy: F(a)}));
  const edge = p.sigma ** (1 / p.D), even = p.D % 2 === 0;
  let right = 1.25 * (learned === null ? edge : learned.a), left = even ? -right : -0.4 * right, low, high;
  if (close) {
    // On the lower of the two barriers: the other may be a hundred times as high.
    const top = F(saddle.a), up = top - F(0), down = top - F(learned.a), height = Math.min(up, down);
    const gap = learned.a - saddle.a;
    if (up < down) [left, right] = [even ? -2 * saddle.a : -0.8 * saddle.a, 2 * saddle.a];
    else [left, right] = [saddle.a - 1.5 * gap, learned.a + 1.5 * gap];
    [low, high] = [top - 1.8 * height, top + 0.8 * height];
  } else {
    const energies = [...between(left, right, 400).map(F), ...stationary.map(point => point.energy)];
    low = Math.min(...energies);
    high = learned === null ? F(edge) : Math.max(...stationary.map(point => point.energy));
    const room = 0.35 * (high - low);
    [low, high] = [low - 0.3 * room, high + room];
  }
  const curve = between(left, right, 400).map(a => [a, F(a)]);
  const axes = new Axes(figure, {range: [left, right], label: "amplitude a of each layer [weight]"},
    {range: [low, high], label: close ? "F − F(0) [loss]" : "free energy F [loss]"});
  const thermal = F(0) + T;
  axes.horizontal(thermal, "thermal");
  const above = Math.min(thermal + 0.015 * (high - low), high - 0.06 * (high - low));
  if (thermal > low && thermal < high) axes.text(right - 0.02 * (right - left), above, "F(0) + T", "", "end");
  axes.line(curve, "energy");
  for (const point of stationary) {
    axes.marker(point.a, point.energy, point.name);
    if (even && point.a > 0) axes.marker(-point.a, point.energy, `${point.name} mirror`);
  }
};

// ---------------------------------------------------------------- phases

const roundUp = x => {
  const scale = 10 ** Math.floor(Math.log10(x));
  return scale * [1, 2, 3, 5, 7, 10].find(s => s * scale >= x * (1 - 1e-12));
};

// Along σ for a feature of its own, along the data's spectrum q for the digits.
const drawPhases = (figure, p, found, spectrum) => {
  const own = spectrum === null, here = own ? p.sigma : p.q, right = roundUp(1.25 * here);
  const at = (f, s) => own ? f(p.D, p.q, s) : f(p.D, s, p.sigma);
  const abscissa = between(right * 1e-6, right, 120);
  const spinodals = abscissa.map(s => [s, at(formulas.spinodal, s)]);
  const binodals = abscissa.map(s => [s, at(formulas.binodal, s)]);
  const high = 1.1 * Math.max(spinodals[120][1], p.lambda);
  const axes = new Axes(figure, {range: [0, right], label: own ? "singular value σ" : "eigenvalue q of the digits' covariance"},
    {range: [0, high], label: "weight decay λ [loss/weight²]"});
  axes.area([[0, 0], ...binodals, [right, 0]], "ground");
  if (p.D > 2) axes.area([...binodals, ...[...spinodals].reverse()], "metastable");
  axes.line(spinodals, "spinodal");
  if (p.D > 2) axes.line(binodals, "binodal");
  if (!own)
    for (const q of spectrum.filter(q => q <= right))
      draw(axes.over, "path", {d: `M${axes.px(q)} ${HEIGHT - BOTTOM}v-7`, class: "feature"});
  axes.marker(here, p.lambda, "point");
};

// ---------------------------------------------------------------- the loop in λ

const drawLoop = (figure, p, found) => {
  const fold = found.jump ** (1 / p.D), end = p.sigma ** (1 / p.D);
  const branch = (from, to) =>
    between(from, to, 160).map(a => [formulas.stationaryWeightDecay(a, p.D, p.q, p.sigma), a ** p.D]);
  const right = 1.2 * Math.max(found.spinodal, Math.min(p.lambda, 3 * found.spinodal));
  const axes = new Axes(figure, {range: [0, right], label: "weight decay λ [loss/weight²]"},
    {range: [-0.08 * p.sigma, 1.1 * p.sigma], label: "order parameter m = aᴰ"});
  if (p.D > 2) {
    axes.vertical(found.binodal, "binodal");
    axes.line([[found.spinodal, found.jump], [found.spinodal, 0]], "fall");
    axes.line(branch(0, fold), "unstable");
    axes.line([[0, 0], [right, 0]], "stable");
  } else {
    axes.line([[0, 0], [found.spinodal, 0]], "unstable");
    axes.line([[found.spinodal, 0], [right, 0]], "stable");
  }
  axes.line(branch(fold, end), "stable");
  axes.vertical(found.spinodal, "spinodal");
  axes.vertical(p.lambda, "here");
  for (const point of [found.unlearned, found.saddle, found.learned])
    if (point !== null) axes.marker(p.lambda, point.m, point.name);
};

// ---------------------------------------------------------------- escape times

const drawTimes = (figure, p, found, ratio, temperatureAt, now) => {
  const inverse = between(0.15 / ratio, 2 / ratio, 16);
  const rows = inverse.map(x => [x, escapes(p, found, temperatureAt(1 / x), 2000)]);
  const series = (direction, kind) =>
    rows.filter(row => row[1] !== null).map(([x, times]) => [x, times[direction][kind] / Math.LN10]);
  const curves = [["learning", "exact"], ["learning", "kramers"], ["forgetting", "exact"], ["forgetting", "kramers"]]
    .map(([direction, kind]) => [`${direction} ${kind}`, series(direction, kind)]);
  // The other direction may be longer by a hundred powers of ten: the frame is that of the metastable state.
  const leaving = p.lambda < found.binodal ? "learning" : "forgetting";
  const values = curves.filter(([name]) => name.startsWith(leaving)).flatMap(([, points]) => points.map(point => point[1]))
    .filter(Number.isFinite);
  const [low, high] = values.length ? [Math.min(...values), Math.max(...values)] : [0, 3];
  const room = 0.15 * Math.max(high - low, 1);
  const range = [low - room, high + room];
  const axes = new Axes(figure, {range: [0, 2.05 / ratio], label: "inverse of lr/batch, 1/ε"},
    {range, label: "escape time [time]", ticks: decadeTicks(...range)});
  for (const [name, points] of curves) if (points.length) axes.line(points, name);
  axes.vertical(1 / ratio, "here");
  if (now === null) {
    axes.text(1.02 / ratio, (low + high) / 2, "no barrier here, nothing to escape from");
    return;
  }
  for (const [way, state] of [["learning", "unlearned"], ["forgetting", "learned"]])
    if (Number.isFinite(now[way].exact)) axes.marker(1 / ratio, now[way].exact / Math.LN10, state);
};

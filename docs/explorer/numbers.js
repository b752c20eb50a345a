// Numbers of the page: states, transitions and escape times of one mode, from `formulas` and `constants`.

// Root of an increasing (sign = 1) or decreasing (-1) function between two points, to the last bit.
const root = (f, low, high, sign) => {
  for (;;) {
    const middle = 0.5 * (low + high);
    if (!(middle > low && middle < high)) return middle;
    if (sign * f(middle) < 0) low = middle; else high = middle;
  }
};

// A relative distance from the spinodal below which heights drown in rounding.
const FOLD = 1e-6;

const stationaryPoint = (name, a, p) => ({
  name, a,
  m: a ** p.D,
  energy: formulas.freeEnergy(a, p.D, p.q, p.sigma, p.lambda),
  curvature: formulas.curvature(a, p.D, p.q, p.sigma, p.lambda),
});

// States of the mode p = {D, q, sigma, lambda}: which exist, and where the transitions are.
const states = p => {
  const spinodal = formulas.spinodal(p.D, p.q, p.sigma), binodal = formulas.binodal(p.D, p.q, p.sigma);
  const found = {
    spinodal, binodal, jump: formulas.spinodalOrderParameter(p.D, p.sigma), learned: null, saddle: null,
    unlearned: stationaryPoint("unlearned", 0, p), atFold: p.D > 2 && Math.abs(p.lambda / spinodal - 1) < FOLD,
  };
  if (!(p.lambda < spinodal) || found.atFold) return found;
  const excess = a => formulas.stationaryWeightDecay(a, p.D, p.q, p.sigma) - p.lambda;
  const fold = found.jump ** (1 / p.D), end = p.sigma ** (1 / p.D);
  found.learned = stationaryPoint("learned", root(excess, fold, end, -1), p);
  if (p.D > 2) found.saddle = stationaryPoint("saddle", root(excess, 0, fold, 1), p);
  return found;
};

const addLogs = (x, y) => {
  const high = Math.max(x, y);
  return high === -Infinity ? high : high + Math.log1p(Math.exp(Math.min(x, y) - high));
};

// Panels on which f varies by 6 (which the rule's 16 nodes integrate to 1e-8), none where neither weight counts.
const VARIATION = 6, NEGLIGIBLE = 80, MOST_PANELS = 30000;
const panelsOf = (f, edges, start, saddle, most) => {
  const bottom = f(start), top = f(saddle), done = [];
  let waiting = edges.slice(1).map((right, i) => [edges[i], right]);
  while (waiting.length) {
    const next = [];
    for (const [left, right] of waiting) {
      const half = 0.5 * (right - left), middle = 0.5 * (right + left);
      const at = constants.nodes.map(x => f(middle + half * x));
      const ends = [f(left), f(right)], low = Math.min(...ends), high = Math.max(...ends);
      const noOuter = high < top - NEGLIGIBLE || right <= start, noInner = low > bottom + NEGLIGIBLE;
      const past = left >= saddle && top - bottom > NEGLIGIBLE && high < top - NEGLIGIBLE;
      if ((noOuter && noInner) || past) continue;
      let variation = Math.abs(at[0] - ends[0]) + Math.abs(ends[1] - at[at.length - 1]);
      for (let i = 1; i < at.length; i++) variation += Math.abs(at[i] - at[i - 1]);
      const pieces = Math.min(64, Math.ceil(variation / VARIATION));
      if (pieces <= 1) { done.push({left, half, at, outer: left >= start}); continue; }
      for (let i = 0; i < pieces; i++)
        next.push([left + 2 * half * i / pieces, i + 1 === pieces ? right : left + 2 * half * (i + 1) / pieces]);
    }
    waiting = next;
    if (done.length + waiting.length > most) return null;
  }
  return done.sort((x, y) => x.left - y.left);
};

// ln of the exact mean time from `start` up to `border`, in a coordinate u = ±a whose energy is F: with x = √D a,
//   τ = (D / T) ∫_start^border du e^(F(u)/T) ∫_wall^u dv e^(-F(v)/T).
// `wall` reflects; where it is null the energy itself confines. NaN where more than `most` panels would be needed.
const logMeanExit = (F, T, D, {start, saddle, border, wall}, most) => {
  const f = u => F(u) / T;
  let lowest = wall;
  if (wall === null) {
    let step = (border - start) / 8;
    for (lowest = start - step; f(lowest) < f(start) + NEGLIGIBLE; lowest -= step) step *= 1.5;
  }
  const cut = (from, to, n) => Array.from({length: to > from ? n : 0}, (_, i) => from + (to - from) * i / n);
  const edges = [...cut(lowest, start, 8), ...cut(start, saddle, 8), ...cut(saddle, border, 8), border];
  const panels = panelsOf(f, edges, start, saddle, most);
  if (panels === null) return NaN;
  let inner = -Infinity, total = -Infinity;
  for (const {half, at, outer} of panels) {
    const level = at[at.length >> 1], weight = at.map(value => Math.exp(level - value));
    if (outer) {
      let sum = 0;
      const before = inner + level; // ln of the inner integral so far, in units of e^(-level)
      const shift = Math.max(before, 0);
      for (let i = 0; i < at.length; i++) {
        let here = 0;
        for (let j = 0; j < at.length; j++) here += constants.matrix[i][j] * weight[j];
        sum += constants.weights[i] / weight[i] * (Math.exp(before - shift) + half * here * Math.exp(-shift));
      }
      total = addLogs(total, Math.log(half * sum) + shift);
    }
    const own = weight.reduce((sum, w, i) => sum + constants.weights[i] * w, 0);
    inner = addLogs(inner, Math.log(half * own) - level);
  }
  return total + Math.log(D / T);
};

// Logarithms of the escape times over the barrier, upwards (to learn) and downwards (to forget).
const escapes = (p, found, T, most = MOST_PANELS) => {
  const {unlearned, saddle, learned} = found;
  if (saddle === null) return null;
  const F = a => formulas.energyAboveZero(a, p.D, p.q, p.sigma, p.lambda);
  const height = formulas.heightAboveZero(saddle.a, p.D, p.q, p.sigma);
  const depth = formulas.heightAboveZero(learned.a, p.D, p.q, p.sigma);
  const mirrored = p.D % 2 === 0; // then two saddles, and 0 is a mirror
  // As `beyond(barrier)`: half way from the top to the state behind it.
  const up = {start: 0, saddle: saddle.a, border: 0.5 * (saddle.a + learned.a), wall: mirrored ? 0 : null};
  const down = {start: -learned.a, saddle: -saddle.a, border: -0.5 * saddle.a, wall: null};
  const kramers = (state, barrier, n) =>
    formulas.logKramersTime(state.curvature, -saddle.curvature, barrier, T, n);
  return {
    learning: {
      height,
      exact: logMeanExit(F, T, p.D, up, most),
      kramers: kramers(unlearned, height, mirrored ? 2 : 1),
      chain: formulas.logChainLearningTime(p.D, p.lambda, -saddle.curvature, height, T),
    },
    forgetting: {
      height: height - depth,
      exact: logMeanExit(u => F(-u), T, p.D, down, most),
      kramers: kramers(learned, height - depth, 1),
      chain: kramers(learned, height - depth, 1),
    },
  };
};

// ---------------------------------------------------------------- as text

const SUPERSCRIPTS = {"-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹"};
const power = n => "10" + [...String(n)].map(c => SUPERSCRIPTS[c]).join("");
const DIGITS = 8;

const plain = (x, digits = DIGITS) => {
  if (!Number.isFinite(x)) return "—";
  if (x === 0) return "0";
  const size = Math.abs(x);
  const sign = x < 0 ? "−" : "";
  if (size >= 1e-3 && size < 1e6) return sign + size.toPrecision(digits);
  const [mantissa, exponent] = size.toExponential(digits - 1).split("e");
  return `${sign}${mantissa} × ${power(Number(exponent))}`;
};

// A number of which only the logarithm fits into a double. A large logarithm leaves few digits to the number.
const plainLog = (log, digits = DIGITS) => {
  if (!Number.isFinite(log)) return "—";
  if (Math.abs(log) < 600) return plain(Math.exp(log), digits);
  const decades = log / Math.LN10, whole = Math.floor(decades);
  const known = Math.max(1, Math.min(digits, Math.floor(-Math.log10(Math.abs(log) * 2e-15))));
  return `${(10 ** (decades - whole)).toPrecision(known)} × ${power(whole)}`;
};

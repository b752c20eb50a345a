"""Laws of the escape time fitted to censored exit times of single replicas by maximum likelihood.

The laws and what they mean are those of `kramers_grok.analysis.law_forms`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.optimize
from numpy.typing import ArrayLike, NDArray

from kramers_grok.analysis.censored import ExitTimes
from kramers_grok.analysis.law_forms import LAWS, ArrheniusLaw, ConstantLaw, GrowthLaw, Law, PowerLaw, Saturated
from kramers_grok.analysis.scatter import LogNormalScatter, Scatter, WeibullScatter
from kramers_grok.core.exceptions import TooFewEscapesError

__all__ = [
    "LAWS",
    "ArrheniusLaw",
    "ConstantLaw",
    "ExitTimes",
    "GrowthLaw",
    "Law",
    "LawFit",
    "PowerLaw",
    "best_scatter",
    "fit_law",
    "fit_laws",
    "fitted",
    "saturated_fit",
]

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
SHAPES = (math.log(0.05), math.log(300.0))  # of ln k: replicas that leave at the very same step have no scatter
DRIFT = 3.0
HALF_CHI_SQUARE = 1.9207  # half of the 95 % point of χ² with one degree of freedom
FINITE_WITHOUT_NOISE = ("constant", "saturated")


@dataclass(frozen=True, eq=False)
class LawFit:
    """A law fitted by maximum likelihood.

    Attributes
    ----------
    law : Law
    scatter : Scatter
    log_likelihood : float
        −∞ where the law forbids what happened: an escape without noise.
    parameters, lower, upper : mapping of str to float
        By the law's names, with the ends of 95 % intervals from the curvature of the likelihood, scaled up by the
        misfit where `choose_law` found one. A threshold's are those of its profile likelihood: it has a kink wherever
        a strength of the noise comes to lie below it.
    u, covariance : array
        Parameters as fitted, the scatter's two last: ln k at the middle of ln x and its change over the range.
    exits : ExitTimes
    """

    law: Law
    scatter: Scatter
    log_likelihood: float
    u: Array
    covariance: Array
    exits: ExitTimes
    inflation: float = 1.0

    @property
    def name(self) -> str:
        """The law's name."""
        return self.law.name

    @property
    def n_parameters(self) -> int:
        """Parameters of law and scatter."""
        return self.u.size

    @property
    def aic(self) -> float:
        """Akaike's information criterion, 2 · parameters − 2 ln L."""
        return 2.0 * self.n_parameters - 2.0 * self.log_likelihood

    @property
    def _lowest(self) -> float:
        return _lowest(self.exits)

    @property
    def parameters(self) -> Mapping[str, float]:
        """Fitted parameters."""
        return self._named(0.0)

    @property
    def lower(self) -> Mapping[str, float]:
        """Lower ends of the 95 % intervals."""
        return {**self._named(-1.959964), **{name: ends[0] for name, ends in self._profiled.items()}}

    @property
    def upper(self) -> Mapping[str, float]:
        """Upper ends of the 95 % intervals."""
        return {**self._named(1.959964), **{name: ends[1] for name, ends in self._profiled.items()}}

    @cached_property
    def _profiled(self) -> Mapping[str, tuple[float, float]]:
        """Intervals that curvature cannot give."""
        return {"threshold": _threshold_interval(self, self.law)} if isinstance(self.law, GrowthLaw) else {}

    def _named(self, z: float) -> Mapping[str, float]:
        errors = np.sqrt(np.maximum(np.diag(self.covariance), 0.0) * self.inflation)
        count = len(self.law.parameters)
        # Beyond ±30 an exponential or logistic function of u is at its end
        u = np.clip((self.u + z * errors)[:count], -1e6, 1e6)
        if self.law.name == "growth":
            u = np.clip(u, -30.0, 60.0)
        values = self.law.natural(u, self._lowest)
        return dict(zip(self.law.parameters, map(float, values), strict=True))

    def shape(self, x: ArrayLike) -> Array:
        """Shape k of the scatter at a strength of the noise (the nearest fitted one's outside of the range)."""
        return np.asarray(np.exp(self.u[-2] + self.u[-1] * _place(np.asarray(x, dtype=np.float64), self.exits)))

    def predict(self, x: ArrayLike) -> Array:
        """Typical time τ [time]; infinite where the law lets nothing escape."""
        values = np.asarray(x, dtype=np.float64)
        mu, _ = self.law.log_time(np.atleast_1d(values), self.u[: len(self.u) - 2], self._lowest)
        return np.exp(mu).reshape(values.shape)

    def median(self, x: ArrayLike) -> Array:
        """Median exit time [time]."""
        values = np.asarray(x, dtype=np.float64)
        return np.asarray(self.predict(values) * np.exp(self.scatter.log_median(self.shape(values))))

    def simulate(self, rng: np.random.Generator) -> ExitTimes:
        """Draw data as the law would have given them, watched until the same horizons."""
        exits, index = self.exits, self.exits.index
        x = exits.conditions
        with np.errstate(over="ignore", invalid="ignore"):
            logs = np.log(self.predict(x))[index] + self.scatter.draw(rng, index.size) / self.shape(x)[index]
            times = np.exp(np.minimum(logs, 700.0))
        # Where all escaped no horizon is known; a law that never lets go must not make infinite data either.
        horizon = np.where(np.isfinite(exits.horizons), exits.horizons, 30.0 * exits.exit_time.max())[index]
        return ExitTimes(exits.x, np.minimum(times, horizon), times < horizon)


def _lowest(exits: ExitTimes) -> float:
    with_noise = exits.escaped & (exits.x > 0)
    return float(exits.x[with_noise].min()) if with_noise.any() else float(exits.x.max())


def _place(x: Array, exits: ExitTimes) -> Array:
    """Where ln x lies among the conditions that escaped, from −½ to ½; the control without noise at the lower end."""
    used = exits.x[exits.escaped & (exits.x > 0)]
    low, high = (math.log(used.min()), math.log(used.max())) if used.size else (0.0, 0.0)
    if high == low:
        return np.zeros_like(x)
    with np.errstate(divide="ignore"):
        return np.clip((np.log(x) - low) / (high - low), 0.0, 1.0) - 0.5


def _rough_times(exits: ExitTimes) -> tuple[Flags, Array]:
    """Which conditions with noise escaped, and ln of total time over escapes there."""
    total = np.bincount(exits.index, weights=exits.exit_time, minlength=exits.conditions.size)
    active = exits.n_escaped > 0
    return active, np.log(total[active] / exits.n_escaped[active])


class _Likelihood:
    """Minus the logarithm of the likelihood and its gradient."""

    def __init__(self, exits: ExitTimes, law: Law, scatter: Scatter) -> None:
        self.law, self.scatter, self.escaped = law, scatter, exits.escaped
        self.x, self.index = exits.conditions, exits.index
        self.log_t = np.log(exits.exit_time)
        self.place, self.lowest = _place(self.x, exits), _lowest(exits)
        self.counts = self.x.size

    def __call__(self, u: Array) -> tuple[float, Array]:
        mu, slopes = self.law.log_time(self.x, u[:-2], self.lowest)
        log_k = u[-2] + u[-1] * self.place
        k = np.exp(log_k)[self.index]
        w = k * (self.log_t - mu[self.index])
        stuck = np.isneginf(w)  # where τ is infinite
        w = np.where(stuck, -1e3, w)
        value = self.scatter.log_terms(w, self.escaped) + np.where(self.escaped, log_k[self.index], 0.0)
        slope = self.scatter.slope(w, self.escaped)
        value[stuck & ~self.escaped] = 0.0
        slope[stuck & ~self.escaped] = 0.0
        by_mu = np.bincount(self.index, weights=-k * slope, minlength=self.counts)
        by_k = np.bincount(self.index, weights=self.escaped + w * slope, minlength=self.counts)
        gradient = np.concatenate([by_mu @ slopes, [by_k.sum(), by_k @ self.place]])
        return -float(value.sum()), -gradient

    def bounds(self) -> list[tuple[float, float]]:
        """Keep logistic and exponential functions off their ends, and shapes finite."""
        own = [(-700.0, 700.0)] * (len(self.law.parameters))
        if self.law.name == "growth":
            times = self.log_t[self.escaped]
            own = [(times.min() - 15, times.max() + 15), (-6.0, 14.0), (times.min() - 7, times.max() + 3)]
        if self.law.name == "saturated":
            own = [(-700.0, 700.0)] * int(self.law.active.sum())  # type: ignore[attr-defined]
        return [*own, SHAPES, (-DRIFT, DRIFT)]


def fitted(exits: ExitTimes, law: Law, scatter: Scatter, *, covariance: bool, start: Array | None = None) -> LawFit:
    """Maximise the likelihood, from `start` or the law's own rough starts, with or without intervals."""
    objective = _Likelihood(exits, law, scatter)
    bounds = objective.bounds()
    low, high = np.array(bounds).T
    if start is None:
        active, rough = _rough_times(exits)
        x = exits.conditions[active]
        kept = np.ones(x.size, dtype=bool) if law.name in FINITE_WITHOUT_NOISE else x > 0
        own = law.starts(x[kept], rough[kept], objective.lowest)
        candidates = [np.clip(np.concatenate([u, [0.0, 0.0]]), low, high) for u in own]
        candidates = sorted(candidates, key=lambda u: objective(u)[0])[:2]
    else:
        candidates = [np.clip(start, low, high)]
    best = min(
        (
            scipy.optimize.minimize(objective, u, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 300})
            for u in candidates
        ),
        key=lambda found: float(found.fun),
    )
    u = np.asarray(best.x)
    matrix = _covariance(objective, u, low, high) if covariance else np.full((u.size, u.size), np.nan)
    return LawFit(law, scatter, -float(best.fun), u, matrix, exits)


def _covariance(objective: _Likelihood, u: Array, low: Array, high: Array) -> Array:
    """Inverse of the observed information, by differences of the gradient; parameters at a bound are taken as known."""
    free = (u > low + 1e-6) & (u < high - 1e-6)
    step, size = 1e-4, u.size
    information = np.zeros((size, size))
    for j in np.flatnonzero(free):
        shift = np.zeros(size)
        shift[j] = step
        information[:, j] = (objective(u + shift)[1] - objective(u - shift)[1]) / (2 * step)
    inside = 0.5 * (information + information.T)[np.ix_(free, free)]
    values, vectors = np.linalg.eigh(inside)
    # A direction that the data do not see has no information, not a negative one.
    inverse = (vectors / np.maximum(values, 1e-10)) @ vectors.T
    matrix = np.zeros((size, size))
    matrix[np.ix_(free, free)] = inverse
    return matrix


def _forbidden(exits: ExitTimes, law: Law) -> bool:
    """Whether a replica escaped without noise, which only a constant law allows."""
    return bool(exits.escaped[exits.x == 0].any()) and law.name not in FINITE_WITHOUT_NOISE


def fit_law(exits: ExitTimes, law: Law, *, scatter: Scatter, start: Array | None = None) -> LawFit:
    """Fit one law; see `fit_laws`."""
    if not exits.escaped.any():
        raise TooFewEscapesError(
            f"None of {exits.escaped.size} replicas escaped: no law of a time can be fitted.\n"
            "Use `choose_law`, which answers 'absorbing' with an upper limit on the rate."
        )
    if _forbidden(exits, law):
        size = len(law.parameters) + 2
        return LawFit(law, scatter, -math.inf, np.full(size, np.nan), np.full((size, size), np.nan), exits)
    return fitted(exits, law, scatter, covariance=True, start=start)


def _threshold_interval(fit: LawFit, law: GrowthLaw) -> tuple[float, float]:
    """95 % interval of a growth law's threshold by its profile likelihood."""
    objective = _Likelihood(fit.exits, law, fit.scatter)
    bounds, lowest = objective.bounds(), objective.lowest
    active, rough = _rough_times(fit.exits)

    def drop(logit: float) -> float:
        """How far the likelihood has fallen with the threshold held, less what the interval allows."""
        own = law.start_at(1 / (1 + math.exp(-logit)), fit.exits.conditions[active], rough, lowest)
        held = [bounds[0], (logit, logit), *bounds[2:]]
        low, high = np.array(held).T
        starts = (np.concatenate([own, fit.u[-2:]]), np.concatenate([fit.u[:1], [logit], fit.u[2:]]))
        best = min(
            scipy.optimize.minimize(objective, np.clip(u, low, high), jac=True, method="L-BFGS-B", bounds=held).fun
            for u in starts
        )
        return float(best) + fit.log_likelihood - HALF_CHI_SQUARE

    ends = []
    for bound in bounds[1]:
        open_end = abs(bound - fit.u[1]) < 1e-6 or drop(bound) < 0
        between = sorted((bound, float(fit.u[1])))
        logit = bound if open_end else float(scipy.optimize.brentq(drop, between[0], between[1], xtol=0.02))
        ends.append(lowest / (1 + math.exp(-logit)))
    return ends[0], ends[1]


def saturated_fit(exits: ExitTimes, scatter: Scatter, *, covariance: bool = True) -> LawFit:
    """Fit a time of its own to every condition that escaped: what no law can do better than."""
    return fitted(exits, Saturated(exits.n_escaped > 0), scatter, covariance=covariance)


def best_scatter(exits: ExitTimes) -> Scatter:
    """Return the family that suits the scatter within the conditions, whatever the law."""
    families: tuple[Scatter, ...] = (WeibullScatter(), LogNormalScatter())
    return max(families, key=lambda s: saturated_fit(exits, s, covariance=False).log_likelihood)


def fit_laws(exits: ExitTimes, *, laws: Sequence[Law] = LAWS, scatter: Scatter | None = None) -> Mapping[str, LawFit]:
    r"""Fit laws of the escape time to censored exit times by maximum likelihood.

    Parameters
    ----------
    exits : ExitTimes
    laws : sequence of Law
    scatter : Scatter, optional
        `WeibullScatter` or `LogNormalScatter`; the likelier of the two, with a free time for each condition, if not
        given: the same for all laws.

    Returns
    -------
    mapping of str to LawFit
        By the laws' names.

    Raises
    ------
    TooFewEscapesError
        If nothing escaped.

    Examples
    --------
    >>> x = np.array([0.5, 0.7, 1.0, 2.0])
    >>> quantiles = -np.log1p(-(np.arange(50) + 0.5) / 50)
    >>> times = np.exp(1.0 + 3.0 / x)[:, None] * quantiles
    >>> fits = fit_laws(ExitTimes.of(x, times, np.full(times.shape, True)))
    >>> fit = fits["arrhenius"]
    >>> round(fit.parameters["barrier"], 3), fit.lower["barrier"] < 3 < fit.upper["barrier"]
    (3.0, True)
    >>> fits["arrhenius"].aic < fits["power"].aic - 10
    True
    """
    if not exits.escaped.any():
        fit_law(exits, LAWS[0], scatter=WeibullScatter())  # raises
    chosen = scatter or best_scatter(exits)
    return {law.name: fit_law(exits, law, scatter=chosen) for law in laws}

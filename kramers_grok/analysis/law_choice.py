r"""Which law do escape times follow? A choice by likelihood that may also say that it cannot be made.

The best law by Akaike's criterion is believed against a rival only if data made by the rival would rarely favour it as
much. "Rarely" is measured by the parametric bootstrap: data are drawn from the fitted rival, with the replicas and
horizons of the measurement, and both laws are fitted to them. Where the likelihoods are far apart the bootstrap is
not needed: data of a law favour another by a factor :math:`e^D` with probability at most :math:`e^{-D}`.

All laws are wrong in some digit, and with many replicas every misfit becomes significant. Likelihood differences are
therefore divided by the best law's misfit to the free time of each condition, :math:`\hat c = \max(1, 2\Delta\ln L /
\text{degrees of freedom})`, as in quasi-likelihood; and a law is refused ("none") only if its misfit is significant
*and* larger than a tolerance.

References
----------
D. R. Cox, J. Roy. Stat. Soc. B 24, 406 (1962), tests of separate families.
K. P. Burnham and D. R. Anderson, Model Selection and Multimodel Inference, 2nd ed. (2002), §2.5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import scipy.stats
import xarray as xr

from kramers_grok.analysis.law_table import choice_table
from kramers_grok.analysis.laws import LAWS, ExitTimes, Law, LawFit, best_scatter, fit_laws, fitted, saturated_fit
from kramers_grok.analysis.scatter import Scatter
from kramers_grok.core import checks

__all__ = ["VERDICTS", "LawChoice", "Rivalry", "choose_law"]

VERDICTS = ("absorbing", "deterministic", "arrhenius", "power", "growth", "undecided", "none")
CLEAR = 12.0  # nats: e^−12 is far below any level asked for, maximised parameters included
FEWEST = 10  # escapes
FEWEST_CONDITIONS = 3


@dataclass(frozen=True)
class Rivalry:
    """The best law against one other.

    Attributes
    ----------
    rival : str
    log_likelihood_difference : float
        Best minus rival in nats, less the difference of their numbers of parameters, over the misfit ĉ.
    p_value : float
        Share of data made by the rival that favour the best law as much: the chance of a false alarm.
    power : float
        Share of data made by the best law that refuse the rival at the level; NaN where the difference was so
        large that nothing was simulated.
    """

    rival: str
    log_likelihood_difference: float
    p_value: float
    power: float


@dataclass(frozen=True, eq=False)
class LawChoice:
    """What the data say.

    Attributes
    ----------
    verdict : str
        One of `VERDICTS`: "absorbing" (nothing escaped), "deterministic" (no noise is needed), the name of a law,
        "undecided" (the data cannot tell), "none" (all laws misfit).
    reason : str
        Why, in words.
    best : str
        The likeliest law; empty where nothing was fitted.
    fits : mapping of str to LawFit
    rivalries : tuple of Rivalry
    level : float
        Chance of a false alarm that was accepted, for each rival.
    misfit : float
        Root mean square misfit of ln τ under the best law beyond what chance gives: 0.1 is 10 % in time.
    misfit_p_value : float
        Chance of so large a deviance if the best law were exact.
    inflation : float
        ĉ.
    escape_limit : float
        Upper 95 % limit on the escape rate at each strength of the noise by itself, the largest of them, where nothing
        escaped [1/time]; NaN otherwise.
    noise_free : float
        Share of the replicas without noise that escaped; NaN without a control.
    exits : ExitTimes
    """

    verdict: str
    reason: str
    exits: ExitTimes
    level: float
    best: str = ""
    fits: Mapping[str, LawFit] = field(default_factory=dict)
    rivalries: tuple[Rivalry, ...] = ()
    misfit: float = math.nan
    misfit_p_value: float = math.nan
    inflation: float = math.nan
    escape_limit: float = math.nan
    noise_free: float = math.nan

    @property
    def fit(self) -> LawFit:
        """Fit of the best law."""
        return self.fits[self.best]

    def akaike_weights(self) -> Mapping[str, float]:
        """Relative likelihoods of the laws given the misfit, summing to 1."""
        scores = {name: _score(fit) / self.inflation for name, fit in self.fits.items()}
        top = max(scores.values())
        weights = {name: math.exp(s - top) for name, s in scores.items()}
        return {name: w / sum(weights.values()) for name, w in weights.items()}

    def table(self) -> xr.Dataset:
        """Tabulate the choice, for figures and files.

        Returns
        -------
        xarray.Dataset
            Along ``law``: log likelihood, AIC, weight, p-value and power of the best law against it, and
            ``fitted_median`` (law, curve_noise) [time]. Along ``noise``: ``median_exit_time``, ``lower_limit`` (fewer
            than half had left: the time is how long they were watched), ``longest_time``, ``n_escaped``,
            ``n_replicas``. Verdict, reason and the best law in the attributes.
        """
        return choice_table(self)


def _score(fit: LawFit) -> float:
    """Log likelihood less the number of parameters: −AIC/2."""
    return -0.5 * fit.aic


def _absorbing(exits: ExitTimes, level: float, noise_free: float) -> LawChoice:
    noisy = exits.conditions > 0
    # Of each strength by itself: pooled, the rate at the strongest could hide behind the quiet ones.
    exposure = np.bincount(exits.index, weights=exits.exit_time)[noisy]
    limit = -math.log(0.05) / float(exposure.min())
    reason = (
        f"none of {int(exits.n[noisy].sum())} replicas escaped; the rate at each strength of the noise is below "
        f"{limit:.2g} (95 %, {exposure.min():.4g} replica times or more at each)"
    )
    return LawChoice("absorbing", reason, exits, level, escape_limit=limit, noise_free=noise_free)


def _noise_free(exits: ExitTimes) -> float:
    control = exits.x == 0
    return float(exits.escaped[control].mean()) if control.any() else math.nan


def _misfit(fit: LawFit, free: LawFit) -> tuple[float, float, float]:
    """R.m.s. excess misfit of ln τ, p-value of the deviance, ĉ."""
    x = fit.exits.conditions
    active = fit.exits.n_escaped > 0
    # Conditions where nothing escaped count too, if the law lets something escape there.
    degrees = int(active.sum()) - len(fit.law.parameters)
    degrees += int((np.isfinite(fit.predict(x[~active])) & (x[~active] > 0)).sum())
    deviance = max(2.0 * (free.log_likelihood - fit.log_likelihood), 0.0)
    if degrees <= 0:
        return 0.0, math.nan, 1.0
    residual = np.log(fit.predict(x[active])) - free.u[:-2]
    variance = np.diag(free.covariance)[:-2]
    excess = math.sqrt(max(float((residual**2 - variance).mean()), 0.0))
    return excess, float(scipy.stats.chi2.sf(deviance, degrees)), max(1.0, deviance / degrees)


def _difference(exits: ExitTimes, best: LawFit, rival: LawFit) -> float:
    """Score of the best law minus the rival's on other data; NaN where nothing escaped there."""
    if exits.n_escaped.sum() == 0:
        return math.nan
    # Two laws are lines in their parameters and have one optimum, which is near; the growth law looks around.
    fits = [
        fitted(exits, f.law, f.scatter, covariance=False, start=None if f.name == "growth" else f.u)
        for f in (best, rival)
    ]
    return _score(fits[0]) - _score(fits[1])


def _rivalry(
    best: LawFit, rival: LawFit, *, inflation: float, level: float, n_bootstrap: int, rng: np.random.Generator
) -> Rivalry:
    if math.isinf(rival.log_likelihood):
        return Rivalry(rival.name, math.inf, 0.0, math.nan)
    difference = (_score(best) - _score(rival)) / inflation
    if difference > CLEAR:
        return Rivalry(rival.name, difference, math.exp(-difference), math.nan)
    by_rival, by_best = (
        np.array([_difference(fit.simulate(rng), best, rival) for _ in range(n_bootstrap)]) for fit in (rival, best)
    )
    by_rival, by_best = by_rival[np.isfinite(by_rival)], by_best[np.isfinite(by_best)]
    p = (1.0 + float((by_rival >= difference).sum())) / (by_rival.size + 1.0)
    # The best law must also be ahead: a critical value below 0 would let the worse one win.
    critical = max(float(np.quantile(by_rival, 1.0 - level)), 0.0) if by_rival.size else math.nan
    return Rivalry(rival.name, difference, p, float((by_best > critical).mean()) if by_best.size else math.nan)


def _flat(fits: Mapping[str, LawFit], exits: ExitTimes, tolerance: float) -> tuple[bool, float]:
    """Whether the time changes by less than a tolerance over the range of the noise, by the power law's interval."""
    fit = fits.get("power")
    used = exits.x[(exits.x > 0) & exits.escaped]
    if fit is None or not np.isfinite(fit.log_likelihood) or not used.size:
        return False, math.nan
    span = math.log(used.max() / used.min())
    change = max(abs(fit.lower["exponent"]), abs(fit.upper["exponent"])) * span
    return change < tolerance, change


def choose_law(
    exits: ExitTimes,
    *,
    seed: int,
    laws: Sequence[Law] = LAWS,
    scatter: Scatter | None = None,
    level: float = 0.05,
    n_bootstrap: int = 99,
    tolerance: float = 0.25,
) -> LawChoice:
    r"""Choose the law that exit times follow at different strengths of the noise, or say that they cannot tell.

    Parameters
    ----------
    exits : ExitTimes
        Censored times of single replicas; x = 0 is a control without noise, which decides whether noise is needed.
    seed : int
        Of the bootstrap.
    laws : sequence of Law
        Candidates.
    scatter : Scatter, optional
        As in `fit_laws`.
    level : float
        Chance, for each rival, of choosing the best law on data that the rival made.
    n_bootstrap : int
        Data sets drawn from each law of a pair that is close. At least 1/level − 1 for a p-value that can reach it.
    tolerance : float
        Misfit of ln τ that a law may have: 0.25 is a factor of 1.28 in time.

    Returns
    -------
    LawChoice

    Raises
    ------
    InvalidParameterError
        A level outside (0, 1), or too few bootstrap samples for it.

    Notes
    -----
    False-alarm rate and power hold for the laws that are compared, not for laws that nobody thought of; `misfit`
    is the guard against these. Simulated with 100 planted data sets each of Arrhenius' law and of a power law (24
    replicas at 6 strengths of the noise, exponential scatter, level 0.05, 19 bootstrap samples): the other law was
    named in 2 and 4 of them over a factor of 2 in x, in 5 and 3 over a factor of 4, and the right one in 10 and 10,
    51 and 78; the rest was left undecided.

    Examples
    --------
    >>> x = np.array([0.5, 0.6, 0.8, 1.0, 2.0])
    >>> quantiles = -np.log1p(-(np.arange(60) + 0.5) / 60)
    >>> times = np.exp(6.0 / x)[:, None] * quantiles
    >>> exits = ExitTimes.of(x, np.minimum(times, 5e3), times < 5e3)
    >>> choose_law(exits, seed=0).verdict
    'arrhenius'
    >>> choose_law(ExitTimes.of(x, np.full(times.shape, 9.0), times < 0), seed=0).verdict
    'absorbing'
    """
    level = checks.fraction("level", level)
    tolerance = checks.positive("tolerance", tolerance)
    fewest = math.ceil(1.0 / level - 1e-9) - 1
    n_bootstrap = checks.positive_int(
        "n_bootstrap", n_bootstrap, fewest, f"with fewer no p-value reaches {level:g}", f"Use `n_bootstrap={fewest}`."
    )
    rng = np.random.default_rng(checks.seed(seed))
    noise_free = _noise_free(exits)
    if not exits.escaped.any():
        return _absorbing(exits, level, noise_free)
    few = _too_few(exits)
    if few and not noise_free >= 0.5:
        return LawChoice("undecided", few, exits, level, noise_free=noise_free)
    family = scatter or best_scatter(exits)
    fits = fit_laws(exits, laws=laws, scatter=family)
    best = max(fits.values(), key=_score)
    free = saturated_fit(exits, family)
    excess, p_misfit, inflation = _misfit(best, free)
    fits = {name: replace(fit, inflation=inflation) for name, fit in fits.items()}
    found = LawChoice(
        "undecided", "", exits, level, best.name, fits, (), excess, p_misfit, inflation, noise_free=noise_free
    )
    if noise_free >= 0.5:
        reason = f"{noise_free:.0%} of the replicas without noise escaped too: noise is not what frees them"
        return replace(found, verdict="deterministic", reason=reason)
    flat, change = _flat(fits, exits, tolerance)
    if flat:
        reason = f"the time changes by a factor of at most {math.exp(change):.3g} over the range of the noise"
        return replace(found, verdict="deterministic", reason=reason)
    if p_misfit < level and excess > tolerance:
        reason = f"the best law ({best.name}) misses the times by {excess:.2f} in ln τ, more than {tolerance:g}"
        return replace(found, verdict="none", reason=reason)
    rivalries = tuple(
        _rivalry(best, rival, inflation=inflation, level=level, n_bootstrap=n_bootstrap, rng=rng)
        for rival in fits.values()
        if rival.name != best.name
    )
    return _judged(replace(found, rivalries=rivalries))


def _too_few(exits: ExitTimes) -> str:
    noisy = exits.conditions > 0
    counts = exits.n_escaped[noisy]
    if counts.sum() < FEWEST:
        return f"{int(counts.sum())} escapes are too few to tell laws apart ({FEWEST} at least)"
    if (counts > 0).sum() < FEWEST_CONDITIONS:
        return (
            f"escapes at {int((counts > 0).sum())} strength(s) of the noise are too few for a law ({FEWEST_CONDITIONS} "
            "at least): run more of them between those that escape and those that do not"
        )
    return ""


def _judged(found: LawChoice) -> LawChoice:
    """Turn the rivalries into a verdict."""
    best, level = found.best, found.level
    open_rivals = [r for r in found.rivalries if not r.p_value <= level]
    if open_rivals or best == "constant":
        names = ", ".join(f"{r.rival} (p = {r.p_value:.2g}, power {r.power:.2g})" for r in open_rivals)
        reason = f"{best} fits best, but the data do not refuse {names or 'a slow change'}"
        return replace(found, verdict="undecided", reason=reason)
    nearest = min(found.rivalries, key=lambda r: r.log_likelihood_difference)
    reason = (
        f"{best} beats {nearest.rival} by {nearest.log_likelihood_difference:.3g} nats "
        f"(false alarm {nearest.p_value:.2g})"
    )
    return replace(found, verdict=best, reason=reason)

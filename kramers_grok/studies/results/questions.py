"""The questions that a study of escapes answers, each with the statistics of its answer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

from kramers_grok.analysis.arrhenius import arrhenius_fit, slope_difference
from kramers_grok.studies.results.points import (
    POWER,
    Points,
    column,
    detectable,
    holm,
    rounded,
    signed_root,
    two_sided,
    where,
)

__all__ = ["ENGINES", "Finding", "Question", "questions"]

ENGINES = {"langevin": "Langevin dynamics", "sgd": "SGD"}
LITTLE = 0.5
"""If only larger common deviations would be seen, there is too little to say."""


@dataclass(frozen=True)
class Finding:
    """One question and its answer.

    Attributes
    ----------
    topic : str
        What is compared.
    verdict : str
        "agree", "disagree", "too little to say" or "described" (where the prediction has an error of unknown size).
    text : str
        The answer in words, with its statistics.
    statistics : mapping of float
        The numbers in the text.
    engine : str
        The engine that is held against theory, "" for other questions.
    """

    topic: str
    verdict: str
    text: str
    statistics: Mapping[str, float] = field(default_factory=dict)
    engine: str = ""


class Question(Protocol):
    """Something that points can answer with a number of tests, each at a given level."""

    @property
    def tests(self) -> int:
        """How many tests it makes."""
        ...

    def answer(self, level: float) -> Finding:
        """Make them."""
        ...


@dataclass(frozen=True)
class _Agreement:
    """Does an engine's mean time agree with theory, over all its points?"""

    engine: str
    points: Points

    @property
    def _ks(self) -> NDArray[np.float64]:
        p = column(self.points.rows, "ks_p_value")
        return p[np.isfinite(p)]

    @property
    def tests(self) -> int:
        return 3 + bool(self._ks.size)

    def answer(self, level: float) -> Finding:
        points, z = self.points, self.points.z
        total = points.weight**-0.5
        p = {
            "common_p_value": float(two_sided(signed_root(points.factor, total))),
            "joint_chi2_p_value": float(chdtrc(points.n, z @ z)),
            "largest_p_value": float(holm(two_sided(z)).min()),
        }
        if self._ks.size:
            p["ks_p_value"] = float(holm(self._ks).min())
        low, high = (points.factor * math.exp(s * 1.96 * total) for s in (-1, 1))
        numbers = p | {
            "factor": points.factor,
            "lower": low,
            "upper": high,
            "n": float(points.n),
            "chi2": float(z @ z),
            "largest_z": float(z[np.argmax(np.abs(z))]),
            "detectable": math.expm1(detectable(level, total)),
            "detectable_once": math.expm1(detectable(level / points.n, float(np.median(points.error)))),
        }
        failed = [_TESTS[name] for name, value in p.items() if value < level]
        verdict = "disagree" if failed else "too little to say" if numbers["detectable"] > LITTLE else "agree"
        text = self._words(numbers, where(points.rows, int(np.argmax(np.abs(z)))))
        if failed:
            text += f" Below the level of {level:.2g} a test: {', '.join(failed)}."
        elif verdict != "agree":
            text += " There are too few escapes to say more."
        return Finding(f"Theory and {ENGINES[self.engine]}", verdict, text, numbers, self.engine)

    def _words(self, x: Mapping[str, float], worst: str) -> str:
        n = self.points.n
        text = (
            f"The mean escape times are {x['factor']:.3f} [{x['lower']:.3f}, {x['upper']:.3f}] of the predicted ones "
            f"over {_points(n)} (common factor with 95 % interval, {_p(x['common_p_value'])}; joint χ² = "
            f"{x['chi2']:.1f} for {n}, {_p(x['joint_chi2_p_value'])}). Largest deviation {x['largest_z']:+.1f} s.e. "
            f"at {worst}, {_p(x['largest_p_value'])} after Holm. "
        )
        if "ks_p_value" in x:
            text += (
                f"Survival curves against the predicted ones (count and Kolmogorov–Smirnov, {_points(self._ks.size)}): "
                f"smallest {_p(x['ks_p_value'])} after Holm. "
            )
        return text + (
            f"A common deviation of {_percent(x['detectable'])}, or one of {_percent(x['detectable_once'])} at a "
            f"single point, would have been seen with {100 * POWER:g} % probability."
        )


_TESTS = {
    "common_p_value": "common factor",
    "joint_chi2_p_value": "joint χ²",
    "largest_p_value": "largest deviation",
    "ks_p_value": "survival curves",
}


@dataclass(frozen=True)
class _Described:
    """An engine beside a prediction of leading order: there is no test, since its own error is not known."""

    engine: str
    points: Points
    tests: int = 0

    def answer(self, level: float) -> Finding:
        points = self.points
        low, high = float(points.ratio.min()), float(points.ratio.max())
        small = 1 / column(points.rows, "barrier_over_temperature")
        text = (
            f"Over {_points(points.n)} the mean escape times are {low:.3f} to {high:.3f} of the predicted ones, "
            f"{points.factor:.3f} in the mean. The prediction is the leading order in T/ΔF, so that deviations are "
            "expected and no test is made"
        )
        if np.isfinite(small).any():
            text += f"; T/ΔF is {np.nanmin(small):.2g} to {np.nanmax(small):.2g}"
        topic = f"Theory (leading order) and {ENGINES[self.engine]}"
        numbers = {"factor": points.factor, "lowest": low, "highest": high, "n": float(points.n)}
        return Finding(topic, "described", text + ".", numbers, self.engine)


@dataclass(frozen=True)
class _Engines:
    """Do Langevin and SGD leave alike at the same temperature, beyond what their steps and batches predict?"""

    pairs: tuple[tuple[Points, Points], ...]
    tests: int = 2

    def answer(self, level: float) -> Finding:
        differences = np.array([math.log(sgd.factor / langevin.factor) for langevin, sgd in self.pairs])
        errors = np.array([math.hypot(a.weight**-0.5, b.weight**-0.5) for a, b in self.pairs])
        z, n = differences / errors, len(self.pairs)
        mean, error = float((differences / errors**2).sum() / (errors**-2.0).sum()), float((errors**-2.0).sum() ** -0.5)
        p = {
            "common_p_value": float(two_sided(mean / error)),
            "joint_chi2_p_value": float(chdtrc(n, z @ z)),
        }
        raw = [_mean_time(b) / _mean_time(a) for a, b in self.pairs]
        expected = [r / math.exp(d) for r, d in zip(raw, differences, strict=True)]
        seen = math.expm1(detectable(level, error))
        wrong = min(p.values()) < level
        verdict = "disagree" if wrong else "too little to say" if seen > LITTLE else "agree"
        text = (
            f"At {n} equal temperature{'s' if n > 1 else ''} SGD takes {min(raw):.3f} to {max(raw):.3f} of Langevin's "
            f"mean time; steps and minibatches predict {min(expected):.3f} to {max(expected):.3f}. Beyond that, SGD "
            f"over Langevin is {math.exp(mean):.3f} [{math.exp(mean - 1.96 * error):.3f}, "
            f"{math.exp(mean + 1.96 * error):.3f}] ({_p(p['common_p_value'])}; joint χ² of {n}: "
            f"{_p(p['joint_chi2_p_value'])}). A factor of {1 + seen:.2f} would have been seen with {100 * POWER:g} % "
            "probability."
        )
        return Finding(
            "Langevin and SGD at the same temperature",
            verdict,
            text,
            p | {"factor": math.exp(mean), "detectable": seen},
        )


@dataclass(frozen=True)
class _Slopes:
    """Has ln τ against 1/T the predicted slope?"""

    engine: str
    lines: tuple[tuple[str, Points], ...]
    tests: int = 1

    def answer(self, level: float) -> Finding:
        texts, p_values, z_values, shares = [], [], [], []
        for name, points in self.lines:
            T, mean = (column(points.rows, n) for n in ("temperature", "mean_exit_time"))
            fit = arrhenius_fit(T, mean, points.error * mean)
            expected = fit.refit(column(points.rows, "predicted_mean"))
            slope = slope_difference(fit, expected)
            p_values.append(float(two_sided(slope.z, points.degrees)))
            z_values.append(slope.z)
            shares.append(fit.barrier_standard_error / expected.barrier)
            height = column(points.rows, "barrier")
            beside = f", ΔF = {height[0]:.4g}" if np.isfinite(height[:1]).any() else ""
            texts.append(
                f"{name}, {np.unique(T).size} temperatures: {fit.barrier:.5g} ± {fit.barrier_standard_error:.2g}, the "
                f"same fit to the prediction {expected.barrier:.5g}{beside} ({slope.z:+.1f} s.e., "
                f"R² = {fit.r_squared:.4f})"
            )
        smallest = float(holm(p_values).min())
        seen = detectable(level / len(shares), float(np.median(shares)))
        verdict = "disagree" if smallest < level else "too little to say" if seen > LITTLE else "agree"
        shown = "; ".join(texts[:4]) + (f"; and {len(texts) - 4} more lines" if len(texts) > 4 else "")
        text = (
            f"Slope of ln τ against 1/T [loss]: {shown}. {'Smallest p' if len(texts) > 1 else 'p'} = {smallest:.2g}"
            f"{' after Holm' if len(texts) > 1 else ''}; a slope off by {_percent(seen)} would have been seen with "
            f"{100 * POWER:g} % probability."
        )
        largest = float(z_values[int(np.argmax(np.abs(z_values)))])
        return Finding(
            f"Arrhenius law, {ENGINES[self.engine]}", verdict, text,
            {"slope_p_value": smallest, "largest_z": largest, "detectable": seen},
        )  # fmt: skip


def questions(points: Points) -> list[Question]:
    """The questions that the points can answer."""
    engine = points.rows["engine"].astype(str)
    found: list[Question] = []
    exact = points.exact
    for name in ENGINES:
        own = engine == name
        if (own & exact).any():
            found.append(_Agreement(name, points.take(own & exact)))
        if (own & ~exact).any():
            found.append(_Described(name, points.take(own & ~exact)))
    # Tests hold against exact predictions only: those of leading order have an error of their own.
    pairs = _pairs(points.take((engine == "langevin") & exact), points.take((engine == "sgd") & exact))
    if pairs:
        found.append(_Engines(pairs))
    for name in ENGINES:
        own = points.take((engine == name) & exact)
        lines = tuple(line for line in own.systems() if _temperatures(line[1]) >= 3)
        if lines:
            found.append(_Slopes(name, lines))
    return found


def _temperatures(points: Points) -> int:
    T = column(points.rows, "temperature")
    return int(np.unique(rounded(T[np.isfinite(T) & (T > 0)])).size) if np.isfinite(T).all() else 0


def _pairs(langevin: Points, sgd: Points) -> tuple[tuple[Points, Points], ...]:
    """Runs of both engines in the same system at the same temperature, pooled on either side."""

    def keyed(points: Points) -> dict[tuple[str, float], Points]:
        found = {}
        for name, own in points.systems():
            T = rounded(column(own.rows, "temperature"))
            for value in np.unique(T[np.isfinite(T)]):
                found[name, float(value)] = own.take(T == value)
        return found

    first, second = keyed(langevin), keyed(sgd)
    return tuple((first[key], second[key]) for key in first if key in second)


def _mean_time(points: Points) -> float:
    mean = column(points.rows, "mean_exit_time")
    return float((mean * points.worth).sum() / points.weight)


def _points(n: int) -> str:
    return f"{n} point{'s' if n != 1 else ''}"


def _p(value: float) -> str:
    return f"p = {value:.2g}"


def _percent(value: float) -> str:
    return f"{100 * value:.2g} %"

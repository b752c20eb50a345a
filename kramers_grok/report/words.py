"""Answers of the main job's arms in words: each is chosen by the numbers that it quotes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from scipy.special import chdtrc

from kramers_grok.studies.results.points import Points, holm, signed_root, two_sided

__all__ = ["LEVEL", "Answer", "Measured", "both", "measured", "never", "of_all", "power", "smallest_p", "span"]

LEVEL = 1e-3
"""Probability with which one comparison that is right is called wrong; an arm makes a few."""


@dataclass(frozen=True)
class Answer:
    """An arm's answer.

    Attributes
    ----------
    text : str
        In words, with the numbers that decide.
    holds : bool or None
        Whether what was predicted is what was measured; None where nothing was both.
    """

    text: str
    holds: bool | None

    @property
    def verdict(self) -> str:
        """The answer in a word or two."""
        return {True: "as predicted", False: "not as predicted", None: "described"}[self.holds]


class Measured:
    """Runs beside their predicted means.

    Attributes
    ----------
    factor, error : float
        Common factor of measured over predicted, and its relative standard error.
    p_value : float
        The smallest of: the common factor is 1, joint χ², largest deviation (Holm); times three (Bonferroni).
    agrees : bool
        Whether the p-value is above `LEVEL`.
    text : str
        The numbers in words.
    """

    def __init__(self, points: Points) -> None:
        if not points.n:
            self.factor = self.error = self.p_value = math.nan
            self.agrees, self.text, self.n = False, "no run has an answer", 0
            return
        z = points.z
        self.n, self.factor, self.error = points.n, points.factor, points.weight**-0.5
        p = (
            float(two_sided(signed_root(self.factor, self.error))),
            float(chdtrc(points.n, z @ z)),
            float(holm(two_sided(z)).min()),
        )
        self.p_value = min(3 * min(p), 1.0) if points.n > 1 else p[0]
        self.agrees = self.p_value >= LEVEL
        runs = f"{points.n} runs" if points.n > 1 else "one run"
        self.text = f"{self.factor:.3f} ± {self.factor * self.error:.3f} of the predicted over {runs}, "
        self.text += f"joint p = {self.p_value:.2g}"


def measured(data: xr.Dataset, dim: str = "run") -> Measured:
    """Put the runs of a table beside their predictions."""
    columns = ("mean_exit_time", "standard_error", "predicted_mean")
    if dim not in data.dims:
        data = data[list(columns)].reset_coords(drop=True).expand_dims(dim)
    return Measured(Points.of({name: np.asarray(data[name]) for name in columns}))


def smallest_p(p_values: Any) -> float:
    """Smallest of several p-values, after Holm."""
    p = np.asarray(p_values, dtype=np.float64).ravel()
    p = p[np.isfinite(p)]
    return float(holm(p).min()) if p.size else math.nan


def never(control: xr.Dataset, what: str) -> str:
    """Say how many of a control without noise escaped."""
    escaped, n = int(control["escaped"].sum()), int(control["escaped"].size)
    return f"{what} never leaves (0 of {n})" if not escaped else f"{what} leaves in {escaped} of {n}"


def of_all(flags: Any) -> tuple[int, int]:
    """How many of how many are true."""
    values = np.asarray(flags)
    return int(values.sum()), int(values.size)


def both(names: Sequence[str]) -> str:
    """Names in a sentence.

    Examples
    --------
    >>> both(["a", "b", "c"]), both(["a"]), both([])
    ('a, b and c', 'a', 'none')
    """
    if len(names) < 2:
        return names[0] if names else "none"
    return f"{', '.join(names[:-1])} and {names[-1]}"


def span(values: Any, form: str) -> str:
    """Smallest and largest of some values.

    Examples
    --------
    >>> span([0.5, 2.0, 1.0], ".1f"), span([1.0], ".1f"), span([], ".1f")
    ('0.5 to 2.0', '1.0', 'not known')
    """
    shown = [f"{value:{form}}" for value in sorted(np.asarray(values, dtype=np.float64).ravel().tolist())]
    if not shown:
        return "not known"
    return shown[0] if shown[0] == shown[-1] else f"{shown[0]} to {shown[-1]}"


_RAISED = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def power(value: float) -> str:
    """A number that may be very large or small.

    Examples
    --------
    >>> power(1.34e7), power(0.33), power(2e-20), power(0.0)
    ('1.3·10⁷', '0.33', '2·10⁻²⁰', '0')
    """
    plain = f"{value:.3g}"
    if "e" not in plain:
        return plain
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}·10{str(int(exponent)).translate(_RAISED)}"

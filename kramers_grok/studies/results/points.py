r"""Simulations beside their predictions, as points to be tested.

A simulation's mean exit time :math:`\hat\tau` is put beside its prediction τ as :math:`x = \hat\tau/\tau` with the
relative error c, of which R = 1/c² is the number of escapes that it is worth. The deviation in standard errors is the
signed root of the likelihood ratio of exponential times,

.. math:: z = \mathrm{sign}(x - 1)\,\sqrt{2R\,(x - 1 - \ln x)} ,

whose tails are normal already at tens of escapes, where those of (x − 1)/c are not. Of splitting, whose errors come
from few repeats, z is the normal deviate of equal probability as Student's (see `Points.z`). With lognormal repeats
that scatter by 50 % all tests together raise false alarms in 1 % of studies, as stated, by 80 % or more in up to 3 %;
points known to worse than `ROUGH` are left out. Points have the common factor
:math:`\sum R x / \sum R`, the likeliest one for exponential times.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtr

from kramers_grok.studies.results.grid import FINISHED

__all__ = [
    "POWER",
    "ROUGH",
    "Points",
    "Rows",
    "careful",
    "column",
    "columns",
    "detectable",
    "holm",
    "rough",
    "rounded",
    "signed_root",
    "system_of",
    "where",
]

POWER = 0.9
"""Probability with which a deviation that is called detectable would have been found."""

ROUGH = 0.2
"""Relative error beyond which few repeats of splitting carry the mean: its interval is then too short to test with."""

Rows = Mapping[str, NDArray[Any]]
"""Columns by name, one entry for each simulation."""

_SYSTEM = ("system", "depth", "singular_value", "weight_decay", "width")
_SYMBOLS = {"depth": "D = ", "singular_value": "σ = ", "weight_decay": "λ = ", "width": "h = "}


def signed_root(ratio: Any, relative_error: Any) -> NDArray[np.float64]:
    """Return the deviation of measured over predicted means from 1, in standard errors.

    Parameters
    ----------
    ratio : array
        Measured over predicted mean time.
    relative_error : array
        Standard error of the measured mean over the mean (1/√R for R escapes).

    Examples
    --------
    >>> signed_root([1.1, 0.9], [0.05, 0.05]).round(3).tolist()
    [1.937, -2.071]
    """
    x, c = np.asarray(ratio, dtype=np.float64), np.asarray(relative_error, dtype=np.float64)
    return np.asarray(np.sign(x - 1) * np.sqrt(2 * np.maximum(x - 1 - np.log(x), 0.0)) / c)


def holm(p_values: Any) -> NDArray[np.float64]:
    """Return Holm's adjusted p-values: those below α raise a false alarm in at most α of families.

    Examples
    --------
    >>> holm([0.01, 0.2, 0.03]).round(4).tolist()
    [0.03, 0.2, 0.06]
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * (p.size - np.arange(p.size)))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


@dataclass(frozen=True)
class Points:
    """Simulations with an answer and a prediction.

    Attributes
    ----------
    rows : mapping of array, shape (row,)
        Their rows of the comparison, by column.
    ratio, error : array, shape (row,)
        Measured over predicted mean time, and its relative standard error.
    """

    rows: Rows
    ratio: NDArray[np.float64]
    error: NDArray[np.float64]

    @classmethod
    def of(cls, table: Rows) -> Points:
        """Return the rows of a comparison that are finished, have a prediction and are not `rough`."""
        known, error = _known(table)
        known &= ~rough(table)
        ratio = column(table, "mean_exit_time") / column(table, "predicted_mean")
        return cls({k: v[known] for k, v in table.items()}, ratio[known], error[known])

    def take(self, chosen: NDArray[np.bool_]) -> Points:
        """Return some of the points."""
        return Points({k: v[chosen] for k, v in self.rows.items()}, self.ratio[chosen], self.error[chosen])

    @property
    def n(self) -> int:
        """Number of points."""
        return int(self.ratio.size)

    @property
    def z(self) -> NDArray[np.float64]:
        """Deviations in standard errors; those of few repeats of splitting as normal ones of equal probability."""
        z = signed_root(self.ratio, self.error)
        repeats = column(self.rows, "n_repeats")
        few = np.isfinite(repeats) & (repeats > 1)
        student = stdtr(repeats[few] - 1, -np.abs(np.log(self.ratio[few]) / self.error[few]))
        z[few] = np.sign(self.ratio[few] - 1) * -ndtri(np.clip(student, 1e-300, 0.5))
        return z

    @property
    def degrees(self) -> float:
        """Degrees of freedom of the least known error: those of the fewest repeats of splitting, otherwise infinite."""
        repeats = column(self.rows, "n_repeats")
        few = repeats[repeats > 1]
        return float(few.min() - 1) if few.size else math.inf

    @property
    def worth(self) -> NDArray[np.float64]:
        """Escapes that each point is worth: fewer where its error comes from few repeats (Student's variance)."""
        repeats = column(self.rows, "n_repeats")
        degrees = np.where(repeats > 1, np.maximum(repeats - 1, 3), np.inf)
        return np.asarray((1 - 2 / degrees) * self.error**-2.0)

    @property
    def weight(self) -> float:
        """Escapes that all points together are worth."""
        return float(self.worth.sum())

    @property
    def factor(self) -> float:
        """Common factor of measured over predicted."""
        return float((self.ratio * self.worth).sum() / self.weight)

    @property
    def exact(self) -> NDArray[np.bool_]:
        """Where the prediction is more than a leading order of unknown accuracy."""
        if "prediction" not in self.rows:
            return np.full(self.n, True)
        return np.asarray(self.rows["prediction"] == "exact")

    def systems(self) -> Iterator[tuple[str, Points]]:
        """Points of each system, with its name in words."""
        columns = [self.rows[name].astype(str) for name in _SYSTEM if name in self.rows]
        keys = np.array(["\n".join(key) for key in zip(*columns, strict=True)] if columns else [""] * self.n)
        _, first, member = np.unique(keys, return_index=True, return_inverse=True)
        for number in np.argsort(first):
            yield system_of(self.rows, int(first[number])), self.take(member == number)


def columns(table: xr.Dataset) -> Rows:
    """Columns of a comparison as plain arrays, texts as objects."""
    return {str(name): np.asarray(values) for name, values in table.data_vars.items()}


def column(rows: Rows, name: str) -> NDArray[np.float64]:
    """A column as floats; NaN where there is none."""
    if name in rows:
        return np.asarray(rows[name], dtype=np.float64)
    return np.full(next((values.size for values in rows.values()), 0), np.nan)


def careful(errors: NDArray[np.float64], barriers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return errors of splitting's points that are not below what all of the points say together.

    Repeats of splitting scatter with a tail: those whose mean is off have, more often than not, too small an error
    beside it. What all points say of the scatter does not know which of them is off. Errors grow with the number of
    levels, as the root of the barrier.

    Parameters
    ----------
    errors : array, shape (point,)
        Relative standard errors.
    barriers : array, shape (point,)
        ΔF/T.

    Examples
    --------
    >>> careful(np.array([0.03, 0.05]), np.array([20.0, 20.0])).round(4).tolist()
    [0.0412, 0.05]
    """
    scale = np.sqrt(np.where(barriers > 0, barriers, 1.0))
    return np.asarray(np.maximum(errors, scale * np.sqrt(np.square(errors / scale).mean())))


def _known(table: Rows) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Which rows are finished and have a prediction, and the relative errors of all rows."""
    mean, se, predicted, own = (
        column(table, n) for n in ("mean_exit_time", "standard_error", "predicted_mean", "predicted_relative_error")
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        known = np.isfinite(mean / predicted) & (mean > 0) & (predicted > 0) & np.isfinite(se) & (se > 0)
        error = se / mean
    if "status" in table:
        known &= table["status"] == FINISHED
    splits = known & (column(table, "n_repeats") > 1)
    engines = table["engine"].astype(str) if "engine" in table else np.full(known.size, "")
    for engine in np.unique(engines[splits]):
        mine = splits & (engines == engine)
        error[mine] = careful(error[mine], column(table, "barrier_over_temperature")[mine])
    return known, np.hypot(error, np.nan_to_num(own))


def rough(table: Rows) -> NDArray[np.bool_]:
    """Where a mean comes from repeats of splitting that scatter too much for its interval to be believed."""
    known, error = _known(table)
    with np.errstate(invalid="ignore"):
        return np.asarray(known & (column(table, "n_repeats") > 1) & (error > ROUGH))


def rounded(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values to nine digits: the same temperature comes out of η g²/(2B) in more ways than one."""
    return np.array([float(f"{v:.9g}") for v in values])


def two_sided(z: Any, degrees: float = math.inf) -> NDArray[np.float64]:
    """Probability of a deviation of z standard errors or more, in either direction.

    Examples
    --------
    >>> two_sided([1.96, 1.96]).round(3).tolist(), round(float(two_sided(1.96, 15)), 3)
    ([0.05, 0.05], 0.069)
    """
    tail = ndtr(-np.abs(z)) if math.isinf(degrees) else stdtr(degrees, -np.abs(z))
    return np.asarray(2 * tail)


def detectable(level: float, error: float) -> float:
    """Logarithm of the factor that a two-sided test of this level finds with probability `POWER`."""
    return float((ndtri(POWER) - ndtri(level / 2)) * error)


def system_of(rows: Rows, at: int) -> str:
    """A system in words."""
    words = []
    for name in _SYSTEM:
        value = rows[name][at] if name in rows else ""
        if isinstance(value, str):
            words.append(value)
        elif math.isfinite(value):
            words.append(f"{_SYMBOLS[name]}{value:g}")
    return " ".join(word for word in words if word) or "one system"


_SHOWN = {"barrier_over_temperature": "ΔF/T = ", "lr": "η = ", "batch_size": "B = ", "dt": "dt = "}


def where(rows: Rows, at: int) -> str:
    """Say at which point of the grid."""
    set_there = [f"{symbol}{rows[name][at]:.3g}" for name, symbol in _SHOWN.items()
                 if name in rows and math.isfinite(rows[name][at])]  # fmt: skip
    return ", ".join([system_of(rows, at), *set_there])

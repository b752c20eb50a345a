r"""The landscape as a graph: minima, the saddles between them, and escape through all of them.

Copies of a minimum by the model's symmetries are one state of the graph, copies of a saddle one edge. A symmetry takes
any copy of a state to any other together with all that surrounds it, so that jumps between the classes are again a
Markov chain, with the rates

.. math:: k_{ij} = \sum_{s:\,i\leftrightarrow j} \frac{|\mu_s|}{2\pi}\,
          \frac{\mathrm{Vol}_s}{\mathrm{Vol}_i}\sqrt{\frac{\det{}'H_i}{|\det{}'H_s|}}\;
          (2\pi T)^{-(n_s-n_i)/2}\;e^{-(F_s-F_i)/T},

volumes being numbers of copies where the symmetries are finite. A saddle between two copies of one state leads nowhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.region import Region
from kramers_grok.landscape.markov import ChainTime, MarkovChain
from kramers_grok.landscape.points import StationaryPoint
from kramers_grok.landscape.potential_theory.pseudo_orbit import SOFT_SHARE, soft_modes
from kramers_grok.landscape.surface import DENSE_LIMIT, Surface
from kramers_grok.landscape.symmetries.symmetry import Symmetry, symmetry_of
from kramers_grok.models.base import Model
from kramers_grok.theory.rates import VALIDITY_THRESHOLD

__all__ = ["LandscapeGraph", "Passage"]

Array = NDArray[np.float64]

_ROUNDING = 1e-4

_WORDS: Mapping[str, tuple[str, str]] = {
    "theta": ("weight", "parameters"),
    "energy": ("loss", "energy F"),
    "gradient_norm": ("loss/weight", "norm of the gradient"),
    "log_determinant": ("1", "logarithm of the Hessian's determinant without zero modes, modulus"),
    "trace": ("loss/weight²", "trace of the Hessian"),
    "n_zero_modes": ("1", "zero modes"),
    "softness": ("1/loss^½", "largest thermal turn along a broken rotation, over √T"),
    "log_volume": ("1", "logarithm of the number of copies, or of the orbit's volume"),
    "order_parameter": ("1", "order parameter m"),
    "negative_eigenvalue": ("loss/weight²", "the one negative eigenvalue of the Hessian"),
    "ends": ("1", "the two states that a saddle joins"),
}


@dataclass(frozen=True, eq=False)
class Passage:
    """A saddle and the numbers of the two states that it joins."""

    saddle: StationaryPoint
    ends: tuple[int, int]


@dataclass(frozen=True, eq=False)
class LandscapeGraph:
    """Minima and the saddles between them, as tables.

    Made by `kramers_grok.landscape.explore.explore`, or by `of` from points that are known.

    Parameters
    ----------
    minima : Dataset
        One row for each ``state``: ``theta`` (state, parameter), ``energy``, ``gradient_norm``, ``log_determinant``,
        ``trace``, ``n_zero_modes``, ``log_volume``, ``softness`` and ``order_parameter`` (state, feature).
    saddles : Dataset
        The same for each ``saddle``, with ``negative_eigenvalue`` and ``ends`` (saddle, end).
    failures : tuple of str
        Searches that did not arrive: where there are any, saddles may be missing.

    Examples
    --------
    >>> from kramers_grok.landscape.explore import explore
    >>> from kramers_grok.landscape.points import find_minima
    >>> from kramers_grok.models.deep_linear import DeepLinearNetwork
    >>> network = DeepLinearNetwork((2, 2, 2, 2), [1.2, 0.8], weight_decay=0.1)
    >>> graph = explore(network, find_minima(network, n_starts=8, seed=0))
    >>> graph.n_states, graph.ends.tolist()
    (3, [[0, 1], [1, 2]])
    >>> start = graph.states(Region(0.1, above=False))
    >>> graph.mean_time(0.005, start[0], 0).value > graph.mean_time(0.005, 1, 0).value
    True
    """

    minima: xr.Dataset
    saddles: xr.Dataset
    failures: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        model: Model,
        minima: Sequence[StationaryPoint],
        passages: Sequence[Passage],
        *,
        symmetry: Symmetry | None = None,
        failures: Sequence[str] = (),
    ) -> LandscapeGraph:
        """Make the graph of stationary points that are known.

        Parameters
        ----------
        model : Model
            Whose order parameters and symmetries they have.
        minima : sequence of StationaryPoint
            One of each class of copies; state number n is the n-th.
        passages : sequence of Passage
        symmetry : Symmetry, optional
            By default that of `symmetry_of`.
        failures : sequence of str
            What is known to be missing.

        Raises
        ------
        InvalidParameterError
            If a point is of the wrong kind.
        """
        if not minima:
            raise checks.invalid("minima", [], "at least one minimum", "nothing is trapped without")
        for name, points, index in (("minima", minima, 0), ("passages", [p.saddle for p in passages], 1)):
            for number, point in enumerate(points):
                if point.index != index or point.n_unexplained:
                    raise InvalidParameterError(
                        f"`{name}[{number}]` is a {point.kind} with {point.n_unexplained} unexplained zero modes, "
                        f"expected index {index} and none: no rate is made of it."
                    )
        known = symmetry_of(model) if symmetry is None else symmetry
        everything = [*minima, *(p.saddle for p in passages)]
        scale = max(float(np.abs([p.theta for p in everything]).max()), np.finfo(float).tiny)
        tables = [_table(model, points, dim, known, scale)
                  for points, dim in ((minima, "state"), ([p.saddle for p in passages], "saddle"))]  # fmt: skip
        ends = np.array([p.ends for p in passages], dtype=np.int64).reshape(-1, 2)
        lowest = np.array([p.saddle.spectrum[0] for p in passages], dtype=np.float64)
        more = {"negative_eigenvalue": ("saddle", lowest), "ends": (("saddle", "end"), ends)}
        return cls(tables[0], _worded(tables[1].assign(more)), tuple(failures))

    # ---------------------------------------------------------------- what it is

    @property
    def n_states(self) -> int:
        """Number of states."""
        return int(self.minima.sizes["state"])

    @property
    def n_saddles(self) -> int:
        """Number of saddles."""
        return int(self.saddles.sizes["saddle"])

    @property
    def ends(self) -> NDArray[np.int64]:
        """The two states that each saddle joins, shape (saddle, 2)."""
        return np.asarray(self.saddles["ends"].values, dtype=np.int64)

    @property
    def energies(self) -> Array:
        """Energy of each state, shape (state,) [loss]."""
        return np.asarray(self.minima["energy"].values, dtype=np.float64)

    def states(self, region: Region) -> list[int]:
        """Numbers of the states that lie in a region of an order parameter."""
        return np.flatnonzero(region.contains(self.minima["order_parameter"].values[:, region.feature])).tolist()

    def heights(self) -> Array:
        """Height of each saddle above its two ends, shape (saddle, 2) [loss]."""
        return np.asarray(self.saddles["energy"].values[:, None] - self.energies[self.ends])

    def to_datatree(self) -> xr.DataTree:
        """Return both tables as a tree with the groups ``minima`` and ``saddles``, to be written to a file."""
        tree = xr.DataTree.from_dict({"minima": self.minima, "saddles": self.saddles})
        tree.attrs = {"failures": list(self.failures)}
        return tree

    @classmethod
    def from_datatree(cls, tree: xr.DataTree) -> LandscapeGraph:
        """Return the graph that `to_datatree` made a tree of."""
        return cls(tree["minima"].to_dataset(), tree["saddles"].to_dataset(), tuple(tree.attrs.get("failures", ())))

    # ---------------------------------------------------------------- how it is left

    def markov_chain(
        self,
        temperature: float,
        *,
        friction: float | None = None,
        step: float = 0.0,
        log_factors: ArrayLike | None = None,
        errors: ArrayLike | None = None,
    ) -> MarkovChain:
        """Return the chain of Eyring–Kramers rates at a temperature.

        Parameters
        ----------
        temperature : float
            T > 0 [loss].
        friction : float, optional
            γ ≥ 0 at unit mass; None is the overdamped motion.
        step : float
            Time step of an overdamped Euler–Maruyama walk [time], to first order, as in
            `kramers_grok.theory.rates.eyring_kramers_rate`.
        log_factors : array_like, shape (saddle,) or (saddle, 2), optional
            ln of what the rates over each saddle have to be multiplied with, where more is known than the harmonic
            formula: one number for both directions, or one for leaving each of its ``ends``.
        errors : array_like, shape (saddle,) or (saddle, 2), optional
            Relative errors of these rates, of two the larger one counting. By default T over the saddle's height above
            its higher end, the size of the first term that the harmonic formula leaves out.

        Raises
        ------
        InvalidParameterError
            For numbers out of range, or a step with friction.
        """
        heat = checks.positive("temperature", temperature, "without noise nothing escapes, and no rate exists")
        h = checks.non_negative("step", step)
        if h > 0 and friction is not None:
            raise checks.invalid("step", h, "0 with friction", "the correction is that of the overdamped walk")
        weights = _log_gaussian(self.minima, heat) - 0.25 * h * self.minima["trace"].values
        slope = np.abs(self.saddles["negative_eigenvalue"].values)
        growth = slope if friction is None else _with_friction(slope, checks.non_negative("friction", friction))
        capacities = _log_gaussian(self.saddles, heat) + np.log(growth / (2 * math.pi))
        capacities -= h * (0.5 * slope + 0.25 * self.saddles["trace"].values)
        if log_factors is not None:
            above, below = self._corrections(self._per_saddle("log_factors", log_factors))
            capacities, weights = capacities + above, weights + below
        lowest = self.energies.min() / heat  # common to both: nothing depends on it, and exponents stay small
        least = self.heights().min(axis=1, initial=np.inf)
        expected = heat / np.maximum(least, np.finfo(float).tiny)
        if errors is not None:
            expected = self._per_saddle("errors", errors).max(axis=1, initial=0.0)
        return MarkovChain(
            self.ends, capacities + lowest, weights + lowest, expected, notes=self._notes(heat, errors is None)
        )

    def _per_saddle(self, name: str, values: ArrayLike) -> Array:
        """Numbers for each saddle and end, shape (saddle, 2)."""
        given = np.asarray(values, dtype=np.float64)
        if given.shape not in ((self.n_saddles,), (self.n_saddles, 2)) or np.isnan(given).any():
            raise checks.invalid(
                name, checks.Described(f"array of shape {given.shape}"),
                f"({self.n_saddles},) or ({self.n_saddles}, 2)",
                "one number for each saddle, or for each of its ends, none of them NaN",
            )  # fmt: skip
        return np.broadcast_to(given[:, None], (self.n_saddles, 2)) if given.ndim == 1 else given

    def _corrections(self, factors: Array) -> tuple[Array, Array]:
        """Corrections of capacities and weights that multiply rates by these factors, as far as a reversible chain can.

        On a tree of states they do exactly; around a loop detailed balance has to hold, and errors are shared out.
        """
        used = np.isfinite(factors).all(axis=1)
        rows = np.zeros((2 * self.n_saddles, self.n_saddles + self.n_states))
        for number, ends in enumerate(self.ends):
            for side, state in enumerate(ends):
                rows[2 * number + side, [number, self.n_saddles + state]] = 1.0, -1.0
        kept = np.repeat(used, 2)
        found: Array = np.asarray(np.linalg.lstsq(rows[kept], factors.ravel()[kept])[0], dtype=np.float64)
        return np.where(used, found[: self.n_saddles], -np.inf), found[self.n_saddles :]

    def _notes(self, heat: float, harmonic: bool) -> tuple[str, ...]:
        found = [f"{len(self.failures)} searches for saddles did not arrive"] if self.failures else []
        if harmonic:
            found += [
                *self._low_saddles(heat),
                *_soft("state", self.minima, heat),
                *_soft("saddle", self.saddles, heat),
            ]
        return tuple(found)

    def _low_saddles(self, heat: float) -> Iterator[str]:
        for number, (ends, sides) in enumerate(zip(self.ends, self.heights() / heat, strict=True)):
            low = float(sides.min())
            if ends[0] != ends[1] and low < VALIDITY_THRESHOLD:
                state = int(ends[np.argmin(sides)])
                yield f"saddle {number} is {low:.3g} T above state {state}, below {VALIDITY_THRESHOLD:g} T"

    def mean_time(self, temperature: float, start: int, targets: int | Sequence[int] | Region, **how: Any) -> ChainTime:
        """Mean time from one state to a set of others, through all that lies between.

        Parameters
        ----------
        temperature : float
            T > 0 [loss].
        start : int
            Number of a state.
        targets : int, sequence of int, or Region
            Numbers of states, or a region of an order parameter: all states in it.
        **how
            As in `markov_chain`.

        Raises
        ------
        InvalidParameterError
            If no state lies in the region, and as in `markov_chain`.
        """
        aims = self.states(targets) if isinstance(targets, Region) else targets
        if isinstance(targets, Region) and not aims:
            raise InvalidParameterError(
                f"No state lies in {targets}, expected at least one: order parameters of the states are "
                f"{self.minima['order_parameter'].values[:, targets.feature].round(6).tolist()}."
            )
        return self.markov_chain(temperature, **how).mean_time(start, aims)


def _table(model: Model, points: Sequence[StationaryPoint], dim: str, symmetry: Symmetry, scale: float) -> xr.Dataset:
    theta = np.array([p.theta for p in points], dtype=np.float64).reshape(len(points), model.n_parameters)
    columns: dict[str, Any] = {
        name: (dim, np.array([getattr(p, name) for p in points], dtype=np.float64))
        for name in ("energy", "gradient_norm", "log_determinant", "trace")
    }
    columns["n_zero_modes"] = (dim, np.array([p.n_zero_modes for p in points], dtype=np.int64))
    volumes = [symmetry.log_orbit_volume(p.theta, scale=scale) for p in points]
    columns["log_volume"] = (dim, np.array(volumes, dtype=np.float64))
    columns["softness"] = (
        dim,
        np.array([_softness(model, p.theta, symmetry, scale) for p in points], dtype=np.float64),
    )
    columns["theta"] = ((dim, "parameter"), theta)
    columns["order_parameter"] = ((dim, "feature"), _order_parameters(model, theta))
    return _worded(xr.Dataset(columns, coords={dim: np.arange(len(points))}))


def _softness(model: Model, theta: Array, symmetry: Symmetry, scale: float) -> float:
    """Largest √(1/κ)/radius of the directions along the pseudo-orbit of broken rotations; 0 where there is none."""
    layers = [replace(layer, rotates=True) for layer in symmetry.layers if not layer.rotates]
    if not layers or model.n_parameters > DENSE_LIMIT:
        return 0.0
    modes = soft_modes(Surface(model), layers, theta)
    # Weights that are 0 come out as rounding, whose orbit has no size.
    return max((mode.share(1.0) for mode in modes if mode.radius > _ROUNDING * scale), default=0.0)


def _soft(name: str, table: xr.Dataset, heat: float) -> Iterator[str]:
    for number, share in enumerate(math.sqrt(heat) * table["softness"].values):
        if share > SOFT_SHARE:
            yield (
                f"a soft mode of {name} {number} turns by {share:.2g} of its pseudo-orbit's radius, above "
                f"{SOFT_SHARE:g}: use `log_factors` from `capacity_rate`"
            )


def _order_parameters(model: Model, theta: Array) -> Array:
    try:
        with torch.no_grad():
            return np.asarray(model.order_parameters(torch.from_numpy(theta.copy())).numpy(), dtype=np.float64)
    except InvalidParameterError:  # a model with none: states are told apart without
        return np.zeros((len(theta), 0))


def _worded(table: xr.Dataset) -> xr.Dataset:
    for name in table.data_vars:
        units, long_name = _WORDS[str(name)]
        table[name].attrs = {"units": units, "long_name": long_name}
    return table


def _log_gaussian(points: xr.Dataset, heat: float) -> Array:
    """Logarithm of the Gaussian integral about each orbit, what all points have in common left out."""
    dimensions = -0.5 * points["n_zero_modes"].values * math.log(2 * math.pi * heat)
    volume = points["log_volume"].values - 0.5 * points["log_determinant"].values
    return np.asarray(dimensions + volume - points["energy"].values / heat, dtype=np.float64)


def _with_friction(curvature: Array, friction: float) -> Array:
    return np.asarray(curvature / (np.sqrt(friction**2 / 4 + curvature) + friction / 2))

r"""Saddles of index 1: refined from a path's top, and certified.

A point is the saddle between two states if (1) the gradient vanishes there, (2) exactly one eigenvalue of the Hessian
is negative, every zero mode being one of a known symmetry, and (3) the gradient flow leads down to the one state from
one side of the negative mode and to the other from the other. A path's top alone proves none of the three.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kramers_grok.core import checks
from kramers_grok.core.exceptions import UncertifiedError
from kramers_grok.landscape.flow import follow
from kramers_grok.landscape.krylov import lowest_modes
from kramers_grok.landscape.points import StationaryPoint, arrived, classify, same_state, slide
from kramers_grok.landscape.surface import DENSE_LIMIT, PointLike, Surface
from kramers_grok.landscape.symmetries.symmetry import Symmetry, symmetry_of
from kramers_grok.models.base import Model

__all__ = [
    "SaddleCertificate",
    "certify_saddle",
    "descend",
    "refine_saddle",
]

Array = NDArray[np.float64]

# How far from a saddle its descents start: the energy falls by this fraction of what the mode's curvature and the
# saddle's own length make of it, far above rounding and far below what bends the mode.
_OFF = 1e-3
_ASIDE = 1e-2  # of that, the displacement that tells whether the way down forks
_BRANCHES = 6


def _lowest(surface: Surface, theta: Array) -> Array:
    if surface.size > DENSE_LIMIT:
        return np.asarray(lowest_modes(surface, theta, 1, np.empty((0, surface.size)), 0.0, tolerance=1e-5)[1][0])
    return np.asarray(np.linalg.eigh(surface.hessian(theta))[1][:, 0])


def refine_saddle(
    model: Model,
    start: PointLike,
    direction: ArrayLike | None = None,
    *,
    tolerance: float = 1e-10,
    symmetry: Symmetry | None = None,
    max_steps: int = 300,
) -> StationaryPoint:
    """Climb from near a barrier's top to the saddle, by following one eigenvector.

    Parameters
    ----------
    model : Model
    start : array_like, shape (parameter,)
        Such as the highest image of a path.
    direction : array_like, shape (parameter,), optional
        Along which to climb, such as the path's tangent; by default the lowest eigenvector at `start`.
    tolerance : float
        ‖∇F‖ of the result [loss/weight].
    symmetry : Symmetry, optional
        As in `kramers_grok.landscape.points.classify`.
    max_steps : int
        Each costs a Hessian.

    Returns
    -------
    StationaryPoint
        Of index 1.

    Raises
    ------
    UncertifiedError
        If the search does not arrive, or arrives at a point of another index; it carries the point as `result`.

    Examples
    --------
    >>> from kramers_grok.models.deep_linear import DeepLinearNetwork
    >>> network = DeepLinearNetwork((1, 2, 2, 1), [1.0], weight_decay=0.25)
    >>> barrier = network.theory.barrier()
    >>> saddle = refine_saddle(network, 1.1 * barrier.saddle)
    >>> saddle.index, saddle.n_zero_modes, bool(abs(saddle.spectrum[0] / barrier.negative_eigenvalue - 1) < 1e-9)
    (1, 2, True)
    """
    surface = Surface(model)
    theta = surface.point("start", start)
    small = checks.positive("tolerance", tolerance)
    along = _lowest(surface, theta) if direction is None else surface.point("direction", direction)
    known = symmetry_of(model) if symmetry is None else symmetry
    path = follow(surface, theta, tolerance=small, max_steps=max_steps, uphill=along)
    point = arrived(surface, path, known, small, "saddle")
    if point.index != 1:
        raise wrong_index(point)
    return point


def wrong_index(point: StationaryPoint) -> UncertifiedError:
    """The error for a stationary point that is no saddle of index 1."""
    lowest = ", ".join(f"{mu:.3g}" for mu in point.spectrum[: max(point.index, 1) + 1])
    return UncertifiedError(
        f"The stationary point at energy {point.energy:.6g} has {point.index} negative eigenvalues (the lowest are "
        f"{lowest}), expected exactly 1: noise crosses a barrier at its lowest point, where every direction but one "
        "goes up.\nStart from a path that is not symmetric, such as `minimum_energy_path(…, initial=bent)`, or go on "
        "along the second negative mode.",
        result=point,
    )


def descend(
    model: Model,
    saddle: StationaryPoint,
    direction: Array,
    *,
    tolerance: float = 1e-10,
    symmetry: Symmetry | None = None,
    branch: int = 0,
    max_steps: int = 1000,
) -> tuple[StationaryPoint, Array]:
    """Follow the gradient flow down one side of a saddle, to a minimum.

    Parameters
    ----------
    model : Model
    saddle : StationaryPoint
        Of index 1.
    direction : ndarray, shape (parameter,)
        Which side: that to which the negative mode is turned to overlap with it.
    tolerance : float
        ‖∇F‖ at the end [loss/weight].
    symmetry : Symmetry, optional
        As in `kramers_grok.landscape.points.classify`.
    branch : int
        The start is displaced a little in a direction that depends on this number. Where the way down lies in a
        symmetric set, from which it forks, each number may choose another branch.
    max_steps : int

    Returns
    -------
    end : StationaryPoint
        A minimum; where the flow ends at a saddle further down, as in a symmetric set, it goes on from there.
    points : ndarray, shape (point, parameter)
        From the saddle to the end.
    """
    surface = Surface(model)
    known = symmetry_of(model) if symmetry is None else symmetry
    mode = saddle.modes[0] if saddle.modes[0] @ direction > 0 else -saddle.modes[0]
    step = _OFF * max(float(np.linalg.norm(saddle.theta)), 1e-3)
    start = saddle.theta + step * mode
    # Opposite directions, pair by pair, so that a fork in two is found by the first pair; fixed ones, so that no
    # result depends on a seed.
    aside = np.random.default_rng(branch // 2).normal(size=surface.size) * (-1) ** branch
    start = start + _ASIDE * step * aside / np.linalg.norm(aside)
    end, points = slide(surface, start, known, tolerance, max_steps)
    return end, np.concatenate([saddle.theta[None], points])


@dataclass(frozen=True, eq=False)
class SaddleCertificate:
    """A saddle of index 1 and the two minima that it joins.

    Attributes
    ----------
    saddle : StationaryPoint
        Gradient norm and index.
    minimum, destination : StationaryPoint
        Where the two descents end: the states themselves, or what a symmetry makes of them.
    path : ndarray, shape (point, parameter)
        Down from the saddle both ways, from the minimum to the destination; the saddle is number `top`.
    top : int
        Number of the saddle in `path`.
    forks : bool
        Whether a small displacement at the saddle leads to another destination, as where the way down lies in a
        symmetric set until that gets unstable: noise then decides between them, and the rate over the saddle leads to
        all of them together.
    """

    saddle: StationaryPoint
    minimum: StationaryPoint
    destination: StationaryPoint
    path: Array
    top: int
    forks: bool


def certify_saddle(
    model: Model,
    saddle: PointLike,
    minimum: PointLike,
    destination: PointLike,
    *,
    forth: Array | None = None,
    tolerance: float = 1e-10,
    symmetry: Symmetry | None = None,
) -> SaddleCertificate:
    """Certify that a point is the saddle between two minima, or say which of the conditions fails.

    Parameters
    ----------
    model : Model
    saddle : StationaryPoint or array_like of shape (parameter,)
    minimum, destination : StationaryPoint or array_like of shape (parameter,)
        The two states, up to symmetries.
    forth : ndarray, shape (parameter,), optional
        Direction from the minimum to the destination at the saddle, such as a path's tangent.
    tolerance : float
        ‖∇F‖ [loss/weight].
    symmetry : Symmetry, optional
        As in `kramers_grok.landscape.points.classify`.

    Raises
    ------
    UncertifiedError
        If the gradient is too large, the index is not 1 or a zero mode is unexplained; ``result`` then is the point.
        If the descents end elsewhere, it is the `SaddleCertificate` of the two minima that the saddle does join.
    """
    surface = Surface(model)
    known = symmetry_of(model) if symmetry is None else symmetry

    def classified(name: str, given: PointLike) -> StationaryPoint:
        if isinstance(given, StationaryPoint):
            return given
        return classify(model, surface.point(name, given), symmetry=known)

    point = classified("saddle", saddle)
    states = classified("minimum", minimum), classified("destination", destination)
    require_saddle(point, tolerance)
    along = states[1].theta - states[0].theta if forth is None else forth
    search = _Ways(model, point, known, tolerance)
    for signed in (along, -along):
        back, ahead = search.to(states[0], -signed), search.to(states[1], signed)
        if back and ahead:
            return _joined(point, back, ahead, forks=search.forks(signed))
    found = _joined(point, search.first(-along), search.first(along), forks=search.forks(along))
    raise UncertifiedError(
        f"The saddle at energy {point.energy:.6g} does not lie between the two states: its descents end at energies "
        f"{found.minimum.energy:.6g} and {found.destination.energy:.6g}, expected {states[0].energy:.6g} and "
        f"{states[1].energy:.6g}, up to symmetries.\nThe minima that it does join are in `result`: use "
        "`find_barrier` with a neighbour of `minimum`, or `escape_barrier(model, minimum, destination)`, which goes as "
        "far as the first state on the way.",
        result=found,
    )


_Way = tuple[StationaryPoint, Array]


class _Ways:
    """The ways down from a saddle, each followed once."""

    def __init__(self, model: Model, saddle: StationaryPoint, symmetry: Symmetry, tolerance: float) -> None:
        self.model, self.saddle, self.symmetry, self.tolerance = model, saddle, symmetry, tolerance
        self.length = float(np.linalg.norm(saddle.theta))
        self.known: dict[bool, list[_Way]] = {True: [], False: []}

    def branch(self, direction: Array, number: int) -> _Way:
        """Way down number `number` on the side of a direction."""
        ways = self.known[bool(self.saddle.modes[0] @ direction > 0)]
        while len(ways) <= number:
            ways.append(
                descend(
                    self.model, self.saddle, direction,
                    tolerance=self.tolerance, symmetry=self.symmetry, branch=len(ways),
                )
            )  # fmt: skip
        return ways[number]

    def first(self, direction: Array) -> _Way:
        """The undisturbed way down."""
        return self.branch(direction, 0)

    def forks(self, direction: Array) -> bool:
        """Whether a small displacement leads elsewhere."""
        first, second = (self.branch(direction, number)[0] for number in (0, 1))
        return not same_state(self.symmetry, first, second, self.length)

    def to(self, state: StationaryPoint, direction: Array) -> _Way | None:
        """A way down that ends in a state, if there is one on that side."""
        for number in range(_BRANCHES):
            if number == 2 and not self.forks(direction):
                return None
            way = self.branch(direction, number)
            if same_state(self.symmetry, way[0], state, self.length):
                return way
        return None


def _joined(saddle: StationaryPoint, back: _Way, ahead: _Way, *, forks: bool) -> SaddleCertificate:
    path = np.concatenate([back[1][::-1], ahead[1][1:]])
    return SaddleCertificate(saddle, back[0], ahead[0], path, len(back[1]) - 1, forks)


def require_saddle(point: StationaryPoint, tolerance: float) -> None:
    """Raise where a point is no certified stationary point of index 1."""
    if point.gradient_norm > tolerance:
        raise UncertifiedError(
            f"`saddle` has ‖∇F‖ = {point.gradient_norm:.3g}, expected at most {tolerance:g}: it is no stationary "
            "point.\nUse `refine_saddle(model, saddle)`.",
            result=point,
        )
    require_explained(point, "saddle")
    if point.index != 1:
        raise wrong_index(point)


def require_explained(point: StationaryPoint, name: str) -> None:
    """Raise where a zero mode belongs to no known symmetry."""
    if point.n_unexplained:
        raise UncertifiedError(
            f"The Hessian at the {name} (energy {point.energy:.6g}) has {point.n_zero_modes} zero modes, of which "
            f"{point.n_unexplained} belong to no known symmetry of the model: its determinant vanishes, and how much "
            "room the zero modes have, which the rate needs, is not known. A unit that nothing uses, a parameter that "
            "the loss does not see without weight decay, or a continuous symmetry makes such a mode.\n"
            "Use a weight decay > 0, fewer units, or `symmetry=` with the generators of the symmetry.",
            result=point,
        )

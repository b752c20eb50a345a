"""The barrier between two minima of any model: searched for along paths, and certified."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError, NoBarrierError, UncertifiedError
from kramers_grok.landscape.numerical_barrier import NumericalBarrier, barrier_over
from kramers_grok.landscape.points import StationaryPoint, classify, find_minimum, same_state
from kramers_grok.landscape.saddles import (
    SaddleCertificate,
    refine_saddle,
    require_explained,
)
from kramers_grok.landscape.string import Path, evenly, minimum_energy_path
from kramers_grok.landscape.surface import PointLike, Surface
from kramers_grok.landscape.symmetries.symmetry import Symmetry, symmetry_of
from kramers_grok.models.base import Model

__all__ = ["NumericalBarrier", "barrier_over", "escape_barrier", "find_barrier", "path_top"]

Array = NDArray[np.float64]

_STAGES = (200, 800, 4000)  # steps of a string between two looks at its top
_LEAST = 1e-3  # length of points that are not 0 [weight]
_ZOOMS = 8  # into the part of a string where its top is
_CLOSE = 65  # images of such a part
_BENDS = (0.03, 0.3)  # of initial strings, relative to their length


def find_barrier(
    model: Model,
    minimum: PointLike,
    destination: PointLike,
    *,
    saddle: PointLike | None = None,
    symmetry: Symmetry | None = None,
    n_images: int = 33,
    n_paths: int = 2,
    tolerance: float = 1e-10,
) -> NumericalBarrier:
    """Find the barrier over which one minimum is left for another, and certify it.

    Strings from the one to the other relax to minimum-energy paths; from the highest point of each a saddle is
    refined; the lowest saddle that passes `kramers_grok.landscape.saddles.certify_saddle` is the barrier.

    Parameters
    ----------
    model : Model
        Any replica-batched model.
    minimum, destination : array_like, shape (parameter,), or StationaryPoint
        Two minima, as from `kramers_grok.landscape.points.find_minimum`; they are converged further if necessary.
    saddle : array_like, shape (parameter,), optional
        Where the saddle is about, if that is known; no path is then searched.
    symmetry : Symmetry, optional
        What makes copies and zero modes; by default what `symmetry_of` finds for the model.
    n_images : int
        Of each string.
    n_paths : int
        Number of strings that start on different curves. No number of them proves that a lower saddle does not exist.
    tolerance : float
        ‖∇F‖ at minima and saddle [loss/weight].

    Returns
    -------
    NumericalBarrier

    Raises
    ------
    InvalidParameterError
        If one of the ends is no minimum, or both are one up to a symmetry.
    UncertifiedError
        If no saddle passes its certificate. Where other minima lie between the two, ``result`` is the
        `kramers_grok.landscape.saddles.SaddleCertificate` of the saddle that was found and the minima that it does
        join; `escape_barrier` goes as far as the first.
    NoBarrierError
        If the path goes downhill only.

    Examples
    --------
    >>> from kramers_grok.models.deep_linear import DeepLinearNetwork
    >>> network = DeepLinearNetwork((1, 2, 2, 1), [1.0], weight_decay=0.25)
    >>> learned = find_minimum(network, np.linspace(0.3, 1.0, 8))
    >>> barrier = find_barrier(network, np.zeros(8), learned)
    >>> exact = network.theory.barrier()
    >>> bool(abs(barrier.height / exact.height - 1) < 1e-9), barrier.saddle_zero_modes
    (True, 2)
    """
    surface = Surface(model)
    small = checks.positive("tolerance", tolerance)
    known = symmetry_of(model) if symmetry is None else symmetry
    ends = [
        _as_minimum(model, name, given, known, small)
        for name, given in (("minimum", minimum), ("destination", destination))
    ]
    if same_state(known, ends[0], ends[1], length=_LEAST):
        raise InvalidParameterError(
            f"`minimum` and `destination` are one state up to a symmetry of the model (energy {ends[0].energy:.6g}): a "
            "path between them leads from a state to its own copy, and no function is learned or lost on it.\n"
            "Use two different minima, as from `find_minima(model, n_starts=…, seed=…)`."
        )
    if saddle is not None:
        top = refine_saddle(model, surface.point("saddle", saddle), tolerance=small, symmetry=known)
        return barrier_over(model, top, *ends, symmetry=known, tolerance=small)
    return _over_lowest(surface, ends, known, n_images, checks.positive_int("n_paths", n_paths), small)


def _as_minimum(model: Model, name: str, given: PointLike, symmetry: Symmetry, tolerance: float) -> StationaryPoint:
    theta = Surface(model).point(name, given)
    point = classify(model, theta, symmetry=symmetry)
    if point.gradient_norm > tolerance:
        point = find_minimum(model, theta, tolerance=tolerance, symmetry=symmetry)
    require_explained(point, name)
    if point.index:
        raise InvalidParameterError(
            f"`{name}` has {point.index} negative curvature(s) (the lowest is {point.spectrum[0]:.3g}), expected a "
            "minimum: nothing is trapped there.\nUse `find_minimum(model, start)`."
        )
    return point


def _over_lowest(
    surface: Surface, ends: list[StationaryPoint], symmetry: Symmetry, n_images: int, n_paths: int, tolerance: float
) -> NumericalBarrier:
    """The lowest barrier over which one of several strings leads."""
    near = symmetry.closest(ends[1].theta, ends[0].theta)
    found: list[NumericalBarrier] = []
    failed: list[UncertifiedError | NoBarrierError] = []
    for initial in _strings(ends[0].theta, near, n_paths):
        try:
            found.append(_along(surface, ends, near, initial, symmetry, n_images, tolerance))
        except (UncertifiedError, NoBarrierError) as error:
            failed.append(error)
    if not found:
        raise failed[0]
    return min(found, key=lambda barrier: barrier.height)


def _strings(a: Array, b: Array, n: int) -> Iterator[Array]:
    """Initial strings: nearly straight, then bent; a straight one may lie in a symmetric set that no step leaves."""
    length = float(np.linalg.norm(b - a))
    share = np.linspace(0, 1, 21)[1:-1, None]
    for number in range(n):
        # To both sides, pair by pair, of fixed directions: the barrier must not depend on a seed
        side = np.random.default_rng(number // 2).normal(size=a.size) * (-1) ** number
        bend = _BENDS[min(number // 2, len(_BENDS) - 1)] * length / np.linalg.norm(side)
        yield a + share * (b - a) + bend * np.sin(np.pi * share) * side


def _along(
    surface: Surface,
    ends: list[StationaryPoint],
    near: Array,
    images: Array,
    symmetry: Symmetry,
    n_images: int,
    tolerance: float,
) -> NumericalBarrier:
    """The barrier on a string, which relaxes no further than it takes for the saddle at its top to be certified."""
    failed: UncertifiedError | NoBarrierError
    for steps in _STAGES:
        path = minimum_energy_path(
            surface.model, ends[0].theta, near, n_images=n_images, initial=images, max_steps=steps
        )
        try:
            return _over(surface, path, ends, symmetry, tolerance)
        except (UncertifiedError, NoBarrierError) as error:
            failed = error
        if path.converged:
            break
        images = path.images[1:-1]
    raise failed


def _over(
    surface: Surface, path: Path, ends: list[StationaryPoint], symmetry: Symmetry, tolerance: float
) -> NumericalBarrier:
    """The barrier at the top of a path."""
    start, tangent = path_top(surface, path)
    saddle = refine_saddle(surface.model, start, tangent, tolerance=tolerance, symmetry=symmetry)
    return barrier_over(surface.model, saddle, *ends, forth=tangent, symmetry=symmetry, tolerance=tolerance)


def path_top(surface: Surface, path: Path) -> tuple[Array, Array]:
    """Return the highest point between the ends of a path and the path's direction there, each of shape (parameter,).

    A barrier too narrow for the path's images is looked for beside the ends, with more images: every way out of a
    minimum goes up first.

    Parameters
    ----------
    surface : Surface
    path : Path
        Between two minima.

    Raises
    ------
    NoBarrierError
        If no point is higher than the higher end.
    """
    images, energies = path.images, path.energies
    for _ in range(_ZOOMS):
        top, last = 1 + int(np.argmax(energies[1:-1])), len(images) - 1
        ends = energies[[0, -1]]
        if energies[top] > ends.max() and 2 < top < last - 2:
            break
        # Every way out of a minimum goes up first. A barrier that no image shows, or those beside the minimum only, is
        # between it and its first neighbour that lies lower: looked at there with more images.
        after, before = np.flatnonzero(energies < ends[0]), np.flatnonzero(energies < ends[1])
        if len(after) and (energies[top] <= ends[0] or top <= 2):
            part = images[: after[0] + 1]
        elif len(before) and (energies[top] <= ends[1] or top >= last - 2):
            part = images[before[-1] :]
        else:
            break
        images = evenly(part, max(len(images), _CLOSE))
        energies = surface.energies(images)
    if energies[top] > ends.max():
        return images[top], images[top + 1] - images[top - 1]
    raise NoBarrierError(
        f"The energy along the path from `minimum` ({path.energies[0]:.6g}) to `destination` "
        f"({path.energies[-1]:.6g}) has no maximum in between: nothing is trapped.\nUse two minima."
    )


def escape_barrier(
    model: Model,
    minimum: PointLike,
    towards: PointLike,
    *,
    symmetry: Symmetry | None = None,
    n_images: int = 33,
    n_paths: int = 2,
    tolerance: float = 1e-10,
) -> NumericalBarrier:
    """Find the barrier over which a minimum is left on the way to another, whatever state lies behind it.

    As `find_barrier`, but where the way leads through other minima it stops at the first, which is the result's
    ``destination_point``. The rate over that barrier is one of the rates at which the minimum is left; others may lead
    to other neighbours.

    Parameters
    ----------
    model : Model
    minimum, towards : array_like, shape (parameter,), or StationaryPoint
        Two minima.
    symmetry, n_images, n_paths, tolerance
        As in `find_barrier`.

    Returns
    -------
    NumericalBarrier

    Raises
    ------
    InvalidParameterError, UncertifiedError, NoBarrierError
        As in `find_barrier`.
    """
    known = symmetry_of(model) if symmetry is None else symmetry
    start, goal = (
        _as_minimum(model, name, given, known, tolerance)
        for name, given in (("minimum", minimum), ("towards", towards))
    )
    tried = [start, goal]
    while True:
        try:
            return find_barrier(
                model, start, goal, symmetry=known, n_images=n_images, n_paths=n_paths, tolerance=tolerance
            )
        except UncertifiedError as error:
            if not isinstance(error.result, SaddleCertificate):
                raise
            found = error.result
        length = float(np.linalg.norm(found.saddle.theta))
        ends = (found.minimum, found.destination)
        for end, other in (ends, ends[::-1]):
            if same_state(known, end, start, length):
                return barrier_over(model, found.saddle, start, other, symmetry=known, tolerance=tolerance)
        fresh = [end for end in ends if not any(same_state(known, end, old, length) for old in tried)]
        if not fresh:
            raise UncertifiedError(
                f"No path from `minimum` towards {len(tried) - 1} other minima leads over a saddle beside `minimum`.\n"
                "Use `towards` nearer by, or more `n_paths`.",
                result=found,
            )
        goal = fresh[0]
        tried.append(goal)

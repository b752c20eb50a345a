r"""Minimum-energy paths by the string method.

A path is minimal if the gradient has no component across it, :math:`(\nabla F)^\perp = 0`: noise that is weak follows
it up to the saddle, and the gradient flow down. A string of images relaxes to such a path if each image moves down the
gradient and all are then set at equal distances along the string again (the simplified string method: E, Ren &
Vanden-Eijnden, J. Chem. Phys. 126, 164103 (2007)).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.landscape.surface import PointLike, Surface
from kramers_grok.models.base import Model

__all__ = ["Path", "evenly", "minimum_energy_path"]

Array = NDArray[np.float64]

_EVERY = 100  # steps between two looks at the string's largest curvature
_POWERS = 12  # of the Hessian, to find it
_DEPTH = 1e-6  # of the path's whole range of energies: less is rounding, no valley


@dataclass(frozen=True, eq=False)
class Path:
    """A path through weight space and the energy along it.

    Attributes
    ----------
    images : ndarray, shape (image, parameter)
        From one end to the other.
    energies : ndarray, shape (image,)
        F [loss].
    moved : float
        How fast the string still moved when it was left, relative to the largest gradient on it.
    n_steps : int
        Steps of the string.
    converged : bool
        Whether `moved` is within the tolerance.
    """

    images: Array
    energies: Array
    moved: float
    n_steps: int
    converged: bool

    @cached_property
    def arc_length(self) -> Array:
        """Length along the path up to each image [weight]."""
        return arc_length(self.images)

    @property
    def top(self) -> int:
        """Number of the highest image."""
        return int(np.argmax(self.energies))

    @cached_property
    def maxima(self) -> tuple[int, ...]:
        """Numbers of the images between the ends at which the energy has a maximum: near each lies a saddle."""
        return self._peaks(self.energies)

    @cached_property
    def minima(self) -> tuple[int, ...]:
        """Numbers of the images between the ends at which it has a minimum: near each lies an intermediate state."""
        return self._peaks(-self.energies)

    def _peaks(self, heights: Array) -> tuple[int, ...]:
        least = _DEPTH * float(np.ptp(heights))
        found = []
        for i in range(1, len(heights) - 1):
            if heights[i - 1] < heights[i] >= heights[i + 1]:
                # How far down one has to go on either side before it gets higher again
                sides = (_descent(heights[i::-1]), _descent(heights[i:]))
                if min(sides) > least:
                    found.append(i)
        return tuple(found)


def _descent(heights: Array) -> float:
    higher = np.flatnonzero(heights > heights[0])
    return float(heights[0] - heights[: higher[0] if len(higher) else None].min())


def arc_length(images: Array) -> Array:
    """Length along a path up to each image."""
    return np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(images, axis=0), axis=1))])


def evenly(images: Array, n_images: int) -> Array:
    """Set images at equal distances along the broken line through `images`."""
    s = arc_length(images)
    if s[-1] == 0:
        return np.repeat(images[:1], n_images, axis=0)
    where = np.linspace(0.0, s[-1], n_images)
    after = np.clip(np.searchsorted(s, where, side="left"), 1, len(s) - 1)
    gap = s[after] - s[after - 1]
    share = np.where(gap > 0, (where - s[after - 1]) / np.where(gap > 0, gap, 1.0), 0.0)[:, None]
    return np.asarray((1 - share) * images[after - 1] + share * images[after])


def minimum_energy_path(
    model: Model,
    a: PointLike,
    b: PointLike,
    *,
    n_images: int = 33,
    initial: ArrayLike | None = None,
    tolerance: float = 0.01,
    max_steps: int = 5000,
) -> Path:
    """Relax a string between two points, usually minima, to a minimum-energy path.

    Parameters
    ----------
    model : Model
    a, b : array_like, shape (parameter,)
        The ends, which stay where they are. A `StationaryPoint` will do.
    n_images : int
        At least 5, the ends included.
    initial : array_like, shape (image, parameter), optional
        Where the string starts, any number of images; by default the straight line. It is one of possibly many paths
        to which the string can relax, and from a symmetric line it cannot leave the symmetric set.
    tolerance : float
        Speed of the string, relative to the largest gradient on it, at which it is taken for relaxed.
    max_steps : int

    Returns
    -------
    Path
        ``converged`` says whether it is relaxed; its top is near a saddle in any case, which
        `kramers_grok.landscape.saddles.refine_saddle` finds.

    Raises
    ------
    InvalidParameterError
        For shapes that do not fit, or ends that are one point.

    Examples
    --------
    >>> from kramers_grok.models.deep_linear import DeepLinearNetwork
    >>> network = DeepLinearNetwork((1, 2, 2, 1), [1.0], weight_decay=0.25)
    >>> barrier = network.theory.barrier()
    >>> path = minimum_energy_path(network, barrier.minimum, barrier.destination)
    >>> path.converged, path.minima, bool(0.95 < (path.energies.max() - path.energies[0]) / barrier.height < 1.01)
    (True, (), True)
    """
    surface = Surface(model)
    ends = surface.point("a", a), surface.point("b", b)
    count = checks.positive_int("n_images", n_images, minimum=5)
    slow, most = checks.positive("tolerance", tolerance), checks.positive_int("max_steps", max_steps)
    images = evenly(_initial(surface, *ends, initial), count)
    moved, steps, time = np.inf, 0, 0.0
    while steps < most and moved > slow:
        if steps % _EVERY == 0:
            time = 1.0 / _largest_curvature(surface, images)
        gradients = surface.gradients(images)
        sizes = np.linalg.norm(gradients, axis=1, keepdims=True)
        # No image jumps past its neighbours, whatever the curvature has become since it was looked at.
        longest = np.linalg.norm(images[1] - images[0])
        down = images - gradients * np.minimum(time, longest / np.maximum(sizes, np.finfo(float).tiny))
        down[0], down[-1] = ends
        down = evenly(down, count)
        speed = np.linalg.norm(down - images, axis=1).max() / time
        moved = float(speed / sizes.max())
        images, steps = down, steps + 1
    return Path(images, surface.energies(images), moved, steps, moved <= slow)


def _initial(surface: Surface, a: Array, b: Array, initial: ArrayLike | None) -> Array:
    if np.array_equal(a, b):
        raise InvalidParameterError("`a` and `b` are one point, expected the two ends of a path.")
    if initial is None:
        return np.stack([a, b])
    images = checks.finite_array("initial", initial, ndim=2)
    if images.shape[1] != surface.size:
        raise checks.invalid(
            "initial", checks.Described(f"array of shape {images.shape}"), f"shape (image, {surface.size})"
        )
    return np.concatenate([a[None], images, b[None]])


def _largest_curvature(surface: Surface, images: Array) -> float:
    """Largest modulus of a curvature on the string, by the power method on all images at once."""
    size = images.shape[1]
    vectors = np.tile(np.cos(np.arange(size) ** 2.0), (len(images), 1))  # any fixed vector
    largest = np.zeros(len(images))
    for _ in range(_POWERS):
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-300)
        vectors = surface.curvatures(images, vectors)
        largest = np.maximum(largest, np.linalg.norm(vectors, axis=1))
    # The power method comes from below; the string's step is stable up to twice its inverse.
    return 1.2 * float(largest.max())

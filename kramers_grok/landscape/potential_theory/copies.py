r"""A trial committor over equivalent saddles close to each other.

Where the copies of a saddle around one trap (other hidden units, other signs) lie within thermal reach of each other,
a trial that knows one of them varies in the wells behind the others, where Boltzmann's weight is huge. The product

.. math:: q = 1 - \prod_c\,(1 - q_c), \qquad q_c(\theta) = q_0(g_c^{-1}\theta),

over the copies :math:`g_c\theta_s` is 0 in the trap and 1 behind every one, so a trial like any other, and Dirichlet's
principle holds. With :math:`a_c=\nabla q_c/(1-q_c)` and :math:`s=\prod_c(1-q_c)`

.. math:: \nabla q = s\sum_c a_c, \qquad
          \Delta q = s\Bigl[\sum_c \frac{\Delta q_c}{1-q_c} - \Bigl\|\sum_c a_c\Bigr\|^2 + \sum_c\|a_c\|^2\Bigr].

Where several units that are each half-way add up, the loss falls before any of them is over. The level sets of the
product then still fit, but not its values: the trial is :math:`\Phi((\ell-a)/w)` of its level
:math:`\ell=\Phi^{-1}(q)`, with the shift a and the width w of the lowest bound among a few.

Each integral of a symmetric function is the number of copies times the part :math:`\|a_0\|^2/\sum_c\|a_c\|^2` of it,
for which draws about one saddle are enough.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from kramers_grok.landscape.potential_theory.committor import BEND, TrialCommittor
from kramers_grok.landscape.potential_theory.wells import sampled_mean
from kramers_grok.landscape.symmetries.automorphisms import weight_labels
from kramers_grok.landscape.symmetries.listed_orbits import SignedMap
from kramers_grok.landscape.symmetries.symmetry_group import Symmetry

__all__ = ["END", "Copies", "Product", "Profile", "copies_within"]

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

_WITHIN = 6.5  # standard deviations of the draws within which the top of a copy counts
#: Thermal lengths behind its middle from which on a profile is 1: further off the loss falls faster than a parabola.
END = 2.0
_SHIFTS = (0.0, -0.25, -0.5, -0.75, -1.0, -1.25)
_WIDTHS = (1.0, 0.9, 0.8)
_EDGE = 1e-12  # of the trial: nearer to 0 or 1 it is constant
_LARGEST = 256  # copies
_SAME = 1e-6  # of the largest weight


@dataclass(frozen=True)
class Profile:
    """How a trial goes from 0 to 1 across its level sets: about `shift`, over `width`, in thermal lengths."""

    shift: float = 0.0
    width: float = 1.0


@dataclass(frozen=True, eq=False)
class Product:
    """What the product trial is at some points.

    Attributes
    ----------
    outside : ndarray, shape (draw,)
        s = 1 − q.
    gradient : ndarray, shape (draw, parameter)
        ∇q.
    share : ndarray, shape (draw,)
        Part that counts for the saddle itself; the copies have the rest.
    curved : ndarray, shape (draw,)
        Δq; zeros where it was not asked for.
    """

    outside: Array
    gradient: Array
    share: Array
    curved: Array

    @property
    def square(self) -> Array:
        """The saddle's share of ‖∇q‖², shape (draw,)."""
        return np.asarray(self.share * (self.gradient**2).sum(axis=1))

    def shaped(self, profile: Profile) -> Product:
        """The same level sets with the values of a profile."""
        between = (self.outside > _EDGE) & (self.outside < 1 - _EDGE)
        level = -ndtri(np.where(between, self.outside, 0.5))
        x = (level - profile.shift) / profile.width
        between &= x < END
        whole = float(ndtr(END))
        first = np.where(between, np.exp(0.5 * (level**2 - x**2)) / (profile.width * whole), 0.0)
        second = first * (level - x / profile.width) * np.exp(0.5 * level**2) * math.sqrt(2 * math.pi)
        return Product(
            outside=np.where(between, 1 - ndtr(x) / whole, np.where(self.outside >= 1 - _EDGE, 1.0, 0.0)),
            gradient=first[:, None] * self.gradient,
            share=self.share,
            curved=first * self.curved + second * (self.gradient**2).sum(axis=1),
        )


@dataclass(eq=False)
class Copies:
    """The trials of a saddle's copies, without that of the saddle itself.

    Parameters
    ----------
    trial : TrialCommittor
        Of the saddle, on the whole space.
    maps : sequence of (order, signs)
        Those that take the saddle to its copies.
    profile : Profile
    """

    trial: TrialCommittor
    maps: tuple[SignedMap, ...]
    profile: Profile = Profile()

    def choose_profile(self, products: list[Product], weights: list[Array]) -> None:
        """Take the profile of the lowest bound, from draws of some blocks and their weights.

        Two standard errors are added to each: the luck of few draws does not choose.
        """
        bounds = {}
        for profile in (Profile(shift, width) for shift in _SHIFTS for width in _WIDTHS):
            values = [w * p.shaped(profile).square for p, w in zip(products, weights, strict=True)]
            sampled = sampled_mean(0.0, values)
            bounds[profile] = sampled.log_value + math.log1p(2 * sampled.relative_error)
        self.profile = min(bounds, key=lambda profile: bounds[profile])

    def product(self, theta: Array, *, curved: bool = False) -> Product:
        """The trial, its gradient and, if asked for, its Laplacian at each row of `theta`."""
        n = len(theta)
        log_outside, total, squares, second = np.zeros(n), np.zeros_like(theta), np.zeros(n), np.zeros(n)
        own = np.zeros(n)
        unit = (np.arange(theta.shape[1]), np.ones(theta.shape[1]))
        for number, (order, signs) in enumerate((unit, *self.maps)):
            for rows, outside, slope, laplacian in self._one(theta, (order, signs), curved):
                log_outside[rows] += outside
                total[rows] += slope
                square = (slope**2).sum(axis=1)
                squares[rows] += square
                second[rows] += laplacian
                if number == 0:
                    own[rows] = square
        s = np.exp(log_outside)
        share = np.divide(own, squares, out=np.zeros(n), where=squares > 0)
        laplacian = s * (second - (total**2).sum(axis=1) + squares)
        return Product(s, s[:, None] * total, share, laplacian)

    def beside(self, theta: Array, within: float) -> Array:
        """At how many copies each row is less than so many thermal lengths from the top, the saddle's own not."""
        lengths = [np.abs(self._along(theta, one)) for one in self.maps]
        return np.asarray(np.sum([length < within for length in lengths], axis=0), dtype=np.float64)

    def _along(self, theta: Array, one: SignedMap) -> Array:
        """Distance behind the top of a copy, in thermal lengths."""
        order, signs = one
        across = np.linalg.inv(self.trial.frame)[0]
        start = across @ (self.trial.energy.orbit.point + self.trial.centre)
        return np.asarray(self.trial.scale * (theta @ (signs * across[order]) - start))

    def _one(self, theta: Array, one: SignedMap, curved: bool) -> Iterator[tuple[Integers, Array, Array, Array]]:
        """Rows where q_c is not 0, and there ln(1 − q_c), ∇q_c/(1 − q_c) and Δq_c/(1 − q_c)."""
        order, signs = one
        trial, reach = self.trial, self.trial.reach
        rows = np.flatnonzero(self._along(theta, one) > -reach - BEND)  # the bend adds at most this
        if not len(rows):
            return
        back = np.empty((len(rows), theta.shape[1]))
        back[:, order] = signs * theta[rows]
        c = trial.coordinates(back - trial.energy.orbit.point)
        level, tilt, bent = trial.level(c)
        seen = level > -reach
        rows, c, level, tilt, bent = rows[seen], c[seen], level[seen], tilt[seen], bent[seen]
        outside = np.maximum(ndtr(-level) - ndtr(-reach), 0.0) / (ndtr(reach) - ndtr(-reach))
        with np.errstate(divide="ignore"):
            value = np.log(outside)
        inside = np.flatnonzero(outside > 0)
        slope, second = np.zeros((len(rows), theta.shape[1])), np.zeros(len(rows))
        part = trial.density(level[inside]) / outside[inside]
        unit = part[:, None] * np.linalg.solve(trial.frame.T, tilt[inside].T).T
        slope[inside] = signs * unit[:, order]
        if curved:
            second[inside] = part * (bent[inside] - level[inside] * (tilt[inside] ** 2).sum(axis=1))
        yield rows, value, slope, second


def copies_within(trial: TrialCommittor, symmetry: Symmetry, minimum: Array, spread: Array) -> Copies | None:
    """Copies of a saddle whose tops are within the reach of draws about it; None where there are none.

    Exchanges of two units, changes of sign and the symmetry's `maps`, as far as they leave the minimum alone, lead from
    the saddle to its copies, and on from those that count; of `maps` all that lead to a copy close by have to be given,
    not generators alone. A copy counts if the mean distance of the draws from its top is less than `_WITHIN` of their
    standard deviations along its unstable direction. Those left out have a trial that is next to 0 at the draws: they
    change the bound by the share of the draws that they reach. Saddles of another kind are not among the copies: what
    lies behind one of those counts with the trial as it is there, which the bound allows and draws may show as uneven.

    Parameters
    ----------
    trial : TrialCommittor
    symmetry : Symmetry
    minimum : ndarray, shape (parameter,)
    spread : ndarray, shape (slice,)
        Standard deviations of the draws along the columns of the trial's frame.
    """
    saddle = trial.energy.orbit.point + trial.centre
    size = float(np.abs(saddle).max())
    generators = [(o, s) for o, s in _generators(symmetry) if np.abs(s * minimum[o] - minimum).max() <= _SAME * size]
    across, inverse = np.linalg.inv(trial.frame)[0], trial.frame * spread
    unit: SignedMap = (np.arange(len(saddle)), np.ones(len(saddle)))
    labels = weight_labels(saddle[None], _SAME * size)[0]
    seen, found = {labels.tobytes()}, [unit]
    for order, signs in found:  # which grows meanwhile
        for swap, turn in generators:
            one = (order[swap], turn * signs[swap])
            label = (one[1].astype(np.int64) * labels[one[0]]).tobytes()
            if label in seen:
                continue
            seen.add(label)
            direction = one[1] * across[one[0]]
            distance = direction @ (one[1] * saddle[one[0]] - saddle)
            if distance < _WITHIN * float(np.linalg.norm(direction @ inverse)):
                found.append(one)
        if len(found) > _LARGEST:
            break
    return Copies(trial, tuple(found[1 : _LARGEST + 1])) if len(found) > 1 else None


def _generators(symmetry: Symmetry) -> Iterator[SignedMap]:
    """Exchanges of two units, with and without a change of both signs, and changes of one sign."""
    yield from symmetry.maps
    places, ones = np.arange(symmetry.n_parameters), np.ones(symmetry.n_parameters)
    for layer in symmetry.layers:
        numbers, still = np.arange(layer.width), np.ones(layer.width)
        for pair in combinations(range(layer.width), 2):
            order = numbers.copy()
            order[list(pair)] = pair[::-1]
            swap = layer.moved(places.astype(np.float64), order, still).astype(np.int64)
            yield swap, ones
        if layer.flips is None:
            continue
        for unit in range(layer.width):
            turn = layer.moved(ones, numbers, np.where(numbers == unit, -1.0, 1.0))
            yield places, turn

r"""Which sets of features are stable, as closed sets of an implication.

A learned feature k destabilises an unlearned j when :math:`c_j^2 \ge c_k^2 + (q_j-q_k)\,m_k c_k`: then "k is
learned" implies "j is learned". The condition is pairwise, so the stable states are the sets closed under this
implication, and they are generated and counted without walking through all :math:`2^K` subsets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kramers_grok.theory import mode_states

__all__ = ["Phase", "Stability", "closed_sets", "closure", "count_closed_sets", "stability"]

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]

# Eigenvalues of a pair's block above this fraction of the largest count as zero modes (hidden rotations).
_ZERO_MODE = 1e-9


@dataclass(frozen=True)
class Phase:
    """A metastable state: the set of learned features.

    Attributes
    ----------
    learned : tuple of int
        Features that are learned, strongest first.
    energy : float
        Free energy relative to the state without any feature [loss].
    is_ground_state : bool
        Whether no other set of features is deeper (at a binodal two sets are).
    ordered : bool
        Whether the learned features are the strongest ones.
    next_feature : int or None
        Unlearned feature whose saddle has one unstable direction, the only kind with a Kramers rate: for
        white inputs and for autoencoders the strongest one that can be learned. None if there is none.
    barrier_height : float
        Height of the barrier to `next_feature` [loss], NaN if there is none.
    """

    learned: tuple[int, ...]
    energy: float
    is_ground_state: bool
    ordered: bool
    next_feature: int | None
    barrier_height: float


# ---------------------------------------------------------------- sets as bit masks


def _mask(features: Iterable[int]) -> int:
    mask = 0
    for k in features:
        mask |= 1 << int(k)
    return mask


def members(mask: int) -> Iterator[int]:
    """Generate the numbers of the bits that are set."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def closure(implied: Sequence[int]) -> tuple[int, ...]:
    """Close an implication transitively: ``result[k]`` is k with all that follows from it.

    Examples
    --------
    >>> closure([0b010, 0b100, 0b000])
    (7, 6, 4)
    """
    masks = [mask | 1 << k for k, mask in enumerate(implied)]
    for via in range(len(masks)):  # Warshall's algorithm, a row at a time
        masks = [mask | masks[via] if mask >> via & 1 else mask for mask in masks]
    return tuple(masks)


def _implying(closed: Sequence[int]) -> tuple[int, ...]:
    return tuple(sum(1 << j for j, mask in enumerate(closed) if mask >> k & 1) for k in range(len(closed)))


def _divider(free: int, closed: Sequence[int], implying: Sequence[int]) -> int:
    """Member whose choice settles most others either way: in an ordered set the middle, which halves it."""
    return max(members(free), key=lambda k: min((closed[k] & free).bit_count(), (implying[k] & free).bit_count()))


def closed_sets(closed: Sequence[int], allowed: int) -> Iterator[int]:
    """Generate the sets, as bit masks, that contain with k all of ``closed[k]`` and lie in `allowed`.

    Parameters
    ----------
    closed : sequence of int
        A transitively closed implication, see `closure`.
    allowed : int
        Members to choose from; it holds the closure of each of them.

    Examples
    --------
    >>> sorted(closed_sets(closure([0b00, 0b01]), 0b11))
    [0, 1, 3]
    """
    implying = _implying(closed)

    def branch(chosen: int, free: int) -> Iterator[int]:
        if not free:
            yield chosen
            return
        k = _divider(free, closed, implying)
        yield from branch(chosen, free & ~implying[k])
        yield from branch(chosen | (closed[k] & free), free & ~closed[k])

    return branch(0, allowed)


def count_closed_sets(closed: Sequence[int], allowed: int) -> int:
    """Count the closed sets without generating them where independent parts can be multiplied.

    Examples
    --------
    >>> count_closed_sets(closure([0] * 200), (1 << 200) - 1) == 2**200
    True
    """
    implying = _implying(closed)
    known: dict[int, int] = {0: 1}

    def count(free: int) -> int:
        if free not in known:
            part = _component(free, closed, implying)
            k = _divider(part, closed, implying)
            known[free] = (count(part & ~implying[k]) + count(part & ~closed[k])) * count(free & ~part)
        return known[free]

    return count(allowed)


def _component(free: int, closed: Sequence[int], implying: Sequence[int]) -> int:
    part = front = free & -free
    while front:
        reached = 0
        for k in members(front):
            reached |= (closed[k] | implying[k]) & free
        front = reached & ~part
        part |= reached
    return part


# ---------------------------------------------------------------- stability of pairs


def _forces(c: Array, q: Array, m: Array) -> Bools:
    """``[k, j]``: feature k at order parameter m_k has an unstable direction towards unlearned j."""
    with np.errstate(invalid="ignore"):
        forced = c[None, :] ** 2 >= c[:, None] ** 2 + (q[None, :] - q[:, None]) * (m * c)[:, None]
    # Equal features rotate into one another at no cost: the first one stands for the family.
    tied = (c[:, None] == c[None, :]) & (q[:, None] == q[None, :])
    later = np.arange(c.size)[:, None] > np.arange(c.size)[None, :]
    return np.asarray(np.where(tied, later, forced) & ~np.eye(c.size, dtype=bool))


def _mixing_is_stable(depth: int, decay: float, first: tuple[Array, Array], second: tuple[float, float]) -> bool:
    """Whether no pair of features has an unstable direction that mixes them, both at amplitudes a > 0.

    `first` holds the variances and amplitudes of some features, `second` those of one more. Perturb layer l by
    x_l from the second channel to the first and by y_l the other way; the second variation couples x_l to y_l'
    with −λ (a_2/a_1)^(|l−l'|−1) for l > l', with the inverse ratio for l < l', and the network's output adds
    a square for either direction. D−1 directions are hidden rotations and cost nothing.
    """
    (q1, a1), (q2, a2) = first, second
    layers = np.arange(depth, dtype=np.float64)
    gap = layers[:, None] - layers[None, :]
    ratio = (a2 / a1)[:, None, None]
    cross = -decay * np.where(gap == 0, 0.0, ratio ** (np.sign(gap) * (np.abs(gap) - 1.0)))
    into_first = a1[:, None] ** (depth - 1 - layers) * a2**layers
    into_second = a2 ** (depth - 1 - layers) * a1[:, None] ** layers
    upper = decay * np.eye(depth) + q2 * into_first[:, :, None] * into_first[:, None, :]
    lower = decay * np.eye(depth) + q1[:, None, None] * into_second[:, :, None] * into_second[:, None, :]
    spectrum = np.linalg.eigvalsh(np.block([[upper, cross], [np.swapaxes(cross, -1, -2), lower]]))
    return bool((spectrum[:, 0] > -_ZERO_MODE * spectrum[:, -1]).all())


@dataclass(frozen=True, eq=False)
class Stability:
    """What the features do to one another at one depth and weight decay; made by `stability`."""

    depth: int
    weight_decay: float
    variances: Array
    order: tuple[int, ...]  # all features, strongest first
    learnable: int  # sets of features are bit masks
    closed: tuple[int, ...]  # closed[k]: features that are learned wherever k is
    allowed: int  # learnable features that imply no unlearnable one
    at_saddle: tuple[int, ...]  # at_saddle[j]: features that must be learned for j's saddle to have index 1
    learned: Array  # amplitudes, NaN where there is none
    saddle: Array
    energies: Array  # of one learned feature, relative to unlearned
    heights: Array

    def is_stable(self, mask: int) -> bool:
        """Whether a set of features is a metastable state."""
        if self.depth == 2:  # the unlearned state of a learnable feature is itself unstable
            return mask == self.learnable
        return not mask & ~self.allowed and all(not self.closed[k] & ~mask for k in members(mask))

    def phases(self) -> Iterator[Phase]:
        """Generate the metastable states, ordered ones first."""
        learnable = [k for k in self.order if self.learnable >> k & 1]
        prefixes = [_mask(learnable[:n]) for n in range(len(learnable) + 1)]
        for mask in prefixes:
            if self.is_stable(mask):
                yield self._phase(mask, ordered=True)
        if self.depth > 2:
            others = set(prefixes)
            for mask in closed_sets(self.closed, self.allowed):
                if mask not in others:
                    yield self._phase(mask, ordered=False)

    def number_of_states(self) -> int:
        """Count the metastable states."""
        return 1 if self.depth == 2 else count_closed_sets(self.closed, self.allowed)

    def _phase(self, mask: int, ordered: bool) -> Phase:
        learned = tuple(k for k in self.order if mask >> k & 1)
        chosen = self.energies[list(learned)]
        # The features below their binodal: the deepest set, and always a stable one.
        ground = self.energies[self.energies < 0].sum()
        rounding = 1e-12 * np.abs(self.energies[np.isfinite(self.energies)]).sum()
        candidates = [k for k in self.order if self.learnable & ~mask & 1 << k and self._has_rate(k, mask)]
        following = min(candidates, key=lambda k: float(self.heights[k]), default=None)
        return Phase(
            learned=learned,
            energy=float(chosen.sum()),
            is_ground_state=bool(chosen.sum() <= ground + rounding),
            ordered=ordered,
            next_feature=following,
            barrier_height=float("nan") if following is None else float(self.heights[following]),
        )

    def _has_rate(self, feature: int, mask: int) -> bool:
        """Whether the saddle to `feature` from the state `mask` has one unstable direction."""
        if self.depth == 2 or self.at_saddle[feature] & ~mask & ~(1 << feature):
            return False
        learned = list(members(mask))
        return _mixing_is_stable(
            self.depth,
            self.weight_decay,
            (self.variances[learned], self.learned[learned]),
            (float(self.variances[feature]), float(self.saddle[feature])),
        )


def stability(depth: int, weight_decay: float, singular_values: Array, input_variances: Array) -> Stability:
    """Work out the stability of all sets of features; arrays of shape (feature,)."""
    arguments = (depth, singular_values, weight_decay, input_variances)
    c = input_variances * singular_values
    learned, saddle = mode_states.learned_amplitude(*arguments), mode_states.saddle_amplitude(*arguments)
    strength = input_variances * singular_values ** (2 - 2 / depth)
    learnable = _mask(np.flatnonzero(np.isfinite(learned)))
    closed = closure([_mask(np.flatnonzero(row)) for row in _forces(c, input_variances, learned**depth)])
    ratio = learned**depth / singular_values
    well = 0.5 * input_variances * singular_values**2 * ratio * ((depth - 2) - (depth - 1) * ratio)
    return Stability(
        depth=depth,
        weight_decay=weight_decay,
        variances=input_variances,
        order=tuple(np.argsort(-strength, kind="stable").tolist()),
        learnable=learnable,
        closed=closed,
        allowed=_mask(k for k in members(learnable) if not closed[k] & ~learnable),
        at_saddle=tuple(_mask(np.flatnonzero(r)) for r in _forces(c, input_variances, saddle**depth)),
        learned=learned,
        saddle=saddle,
        energies=well,
        heights=mode_states.barrier_height(*arguments),
    )

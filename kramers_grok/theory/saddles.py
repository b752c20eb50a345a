r"""Stationary points of the whole matrix network: spectra, orbits, and the barriers between them.

.. math:: F = \tfrac q2\|M-W_D\cdots W_1\|_F^2+\tfrac\lambda2\sum_l\|W_l\|_F^2

for white inputs, any depth D ≥ 3 and any widths. From the state with r learned features the network escapes
over the saddle at which the strongest unlearned one stands at its barrier's top. Both are orbits of the
rotations that leave the loss alone, so a rate needs their volumes as well as their spectra; see
`kramers_grok.theory.rates.eyring_kramers_rate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from kramers_grok.core import checks
from kramers_grok.core.barrier import OrbitBarrier
from kramers_grok.core.exceptions import NoBarrierError
from kramers_grok.theory import mode_states
from kramers_grok.theory.deep_linear import Mode
from kramers_grok.theory.orbits import log_orbit_volume, orbit_dimension
from kramers_grok.theory.saddle_blocks import Channel, pair_spectrum

__all__ = ["MatrixNetwork", "StationaryPoint"]

Array = NDArray[np.float64]

# Singular values closer than this, relative to the largest, coincide: an SVD gives equal ones apart by rounding.
_EQUAL = 1e-10


@dataclass(frozen=True, eq=False)
class StationaryPoint:
    """A stationary point of the matrix network, with its Hessian's spectrum and its orbit.

    Attributes
    ----------
    features : tuple of int
        Features of the used channels, strongest feature 0; a saddle's own feature comes last.
    amplitudes : tuple of float
        Amplitude of each channel, the same in all layers.
    spectrum : ndarray
        All eigenvalues of the Hessian but the zero modes, ascending, with repetition [loss / amplitude²].
    n_zero_modes : int
        Dimension of the orbit.
    index : int
        Number of negative eigenvalues.
    log_orbit_volume : float
        Logarithm of the orbit's volume [amplitude^n_zero_modes]; its discrete copies are counted in.
    theta : ndarray, shape (parameter,)
        The orbit's canonical point: W_1, …, W_D row by row for the teacher diag(singular values), channel i
        in unit i of every hidden layer.
    order_parameters : ndarray, shape (feature,)
        m_k, strongest feature first.
    """

    features: tuple[int, ...]
    amplitudes: tuple[float, ...]
    spectrum: Array
    n_zero_modes: int
    index: int
    log_orbit_volume: float
    theta: Array
    order_parameters: Array


@dataclass(frozen=True)
class MatrixNetwork:
    r"""Theory of the matrix network :math:`W_D\cdots W_1` with white inputs.

    Parameters
    ----------
    widths : tuple of int
        (d, h_1, …, h_{D−1}, o): inputs, hidden widths, outputs.
    singular_values : tuple of float
        The teacher's singular values > 0 in any order; kept strongest first.
    weight_decay : float
        λ > 0 [loss / amplitude²].
    input_variance : float
        q > 0.

    Raises
    ------
    InvalidParameterError
        For widths without a hidden layer, more singular values than min(d, o), or numbers out of range.

    Examples
    --------
    >>> network = MatrixNetwork((1, 2, 2, 1), (1.0,), weight_decay=0.25)
    >>> saddle = network.saddle(0)
    >>> saddle.index, saddle.n_zero_modes, saddle.spectrum.round(6).tolist()
    (1, 2, [-0.237479, 0.25, 0.5, 0.5, 0.5, 0.5])
    """

    widths: tuple[int, ...]
    singular_values: tuple[float, ...]
    weight_decay: float
    input_variance: float = 1.0

    def __post_init__(self) -> None:
        widths = tuple(checks.positive_int("widths", w) for w in self.widths)
        if len(widths) < 3:
            raise checks.invalid(
                "widths", widths, "(inputs, hidden widths …, outputs)", "a network has at least one hidden layer",
                "Use `widths=(d, h, h, o)` for three layers of weights.",
            )  # fmt: skip
        why, fix = mode_states.SIGMA_REASON, mode_states.SIGMA_FIX
        given = np.atleast_1d(self.singular_values).tolist()
        values = tuple(checks.positive("singular_values", s, why, fix) for s in given)
        if not 1 <= len(values) <= min(widths[0], widths[-1]):
            raise checks.invalid(
                "singular_values", values, f"1 to {min(widths[0], widths[-1])} numbers",
                f"a map from {widths[0]} inputs to {widths[-1]} outputs has no more of them",
                "Leave out zeros, or widen inputs and outputs.",
            )  # fmt: skip
        decay = checks.positive("weight_decay", self.weight_decay, mode_states.DECAY_REASON, mode_states.DECAY_FIX)
        variance = checks.positive(
            "input_variance", self.input_variance, mode_states.VARIANCE_REASON, mode_states.VARIANCE_FIX
        )
        object.__setattr__(self, "widths", widths)
        object.__setattr__(self, "singular_values", tuple(sorted(values, reverse=True)))
        object.__setattr__(self, "weight_decay", decay)
        object.__setattr__(self, "input_variance", variance)

    @property
    def depth(self) -> int:
        """Number of weight layers D."""
        return len(self.widths) - 1

    @property
    def hidden(self) -> tuple[int, ...]:
        """Hidden widths h_1 … h_{D−1}."""
        return self.widths[1:-1]

    @property
    def n_parameters(self) -> int:
        """Number of weights."""
        return sum(a * b for a, b in pairwise(self.widths))

    @cached_property
    def _labels(self) -> tuple[int, ...]:
        """Cluster of every feature."""
        labels = [0]
        for stronger, weaker in pairwise(self.singular_values):
            labels.append(labels[-1] + (stronger - weaker > _EQUAL * self.singular_values[0]))
        return tuple(labels)

    @cached_property
    def _values(self) -> Array:
        """Singular values, those of a cluster replaced by their mean: their amplitudes are then equal too."""
        labels, values = np.array(self._labels), np.array(self.singular_values)
        return np.array(
            [values[labels == c].mean() if (labels == c).sum() > 1 else s for c, s in zip(labels, values, strict=True)]
        )

    def mode(self, feature: int = 0) -> Mode:
        """Theory of one feature's balanced mode.

        Parameters
        ----------
        feature : int

        Returns
        -------
        Mode
        """
        return Mode(self.depth, float(self._values[self._feature(feature)]), self.weight_decay, self.input_variance)

    # ------------------------------------------------------------ points

    def state(self, rank: int) -> StationaryPoint:
        """State with the `rank` strongest features learned.

        Parameters
        ----------
        rank : int
            0 ≤ r ≤ number of features, and at most the smallest hidden width.

        Returns
        -------
        StationaryPoint

        Raises
        ------
        InvalidParameterError
            If `rank` is out of range.
        NoBarrierError
            If a feature's learned state does not exist at this weight decay, or D = 2.
        """
        r = self._rank(rank)
        return self._point([self._learned(i) for i in range(r)])

    def saddle(self, rank: int, feature: int | None = None) -> StationaryPoint:
        """Saddle with `rank` features learned and one more at the top of its barrier.

        Parameters
        ----------
        rank : int
            Number r of learned features, the strongest ones.
        feature : int, optional
            The unlearned feature j ≥ r that stands at its barrier's top; by default the strongest, r. The index
            is 1 + the number of unlearned features stronger than j.

        Returns
        -------
        StationaryPoint

        Raises
        ------
        InvalidParameterError
            If `rank` or `feature` is out of range.
        NoBarrierError
            If a hidden layer has fewer than r + 1 units, λ is at or above the spinodal, or D = 2.
        """
        r = self._rank(rank)
        j = self._unlearned(r, feature)
        if min(self.hidden) < r + 1:
            raise NoBarrierError(
                f"widths={self.widths}: the narrowest hidden layer has {min(self.hidden)} units, and rank={r} "
                f"learned features use {r}: there is no channel left for another feature.\n"
                f"Use hidden widths of at least {r + 1}."
            )
        return self._point([*(self._learned(i) for i in range(r)), self._at_saddle(j)])

    # ------------------------------------------------------------ barriers

    def barrier(self, rank: int = 0, feature: int | None = None) -> OrbitBarrier:
        """Barrier from the state with `rank` learned features to the next one.

        Parameters
        ----------
        rank, feature
            As in `saddle`.

        Returns
        -------
        OrbitBarrier

        Raises
        ------
        InvalidParameterError
            If `rank` or `feature` is out of range.
        NoBarrierError
            If the saddle's index is not 1 (the message names it), and as in `saddle`.

        Examples
        --------
        >>> barrier = MatrixNetwork((1, 2, 2, 1), (1.0,), weight_decay=0.25).barrier()
        >>> barrier.saddle_zero_modes, f"{barrier.height:.10f}"
        (2, '0.0079407147')
        """
        r = self._rank(rank)
        j = self._unlearned(r, feature)
        saddle = self.saddle(r, j)
        if saddle.index != 1:
            raise NoBarrierError(
                f"The saddle of feature {j} above the state of rank {r} has index {saddle.index}, expected 1: "
                f"{saddle.index - 1} stronger unlearned feature(s) make it unstable in more than one direction, "
                f"and noise leaves through the strongest one.\nUse `barrier({r})`, whose feature is {r}."
            )
        destination = self._point([*(self._learned(i) for i in range(r)), self._learned(j)])
        height = float(mode_states.barrier_height(*self._arguments(j)))
        return self._barrier(self.state(r), saddle, destination, height, j)

    def forgetting_barrier(self, rank: int) -> OrbitBarrier:
        """Barrier from `rank` to `rank` − 1 learned features, over the same saddle as ``barrier(rank - 1)``.

        Parameters
        ----------
        rank : int

        Returns
        -------
        OrbitBarrier

        Raises
        ------
        InvalidParameterError
            If `rank` is out of range or 0.
        NoBarrierError
            As in `saddle`.
        """
        r = self._rank(rank)
        if r == 0:
            raise checks.invalid("rank", r, "at least 1", "nothing is learned, so nothing can be forgotten")
        height = float(mode_states.forgetting_barrier_height(*self._arguments(r - 1)))
        return self._barrier(self.state(r), self.saddle(r - 1), self.state(r - 1), height, r - 1)

    def _barrier(
        self, minimum: StationaryPoint, saddle: StationaryPoint, destination: StationaryPoint, height: float, j: int
    ) -> OrbitBarrier:
        learned = min(len(minimum.features), len(destination.features))
        return OrbitBarrier(
            depth=self.depth,
            feature=j,
            minimum=minimum.theta,
            saddle=saddle.theta,
            destination=destination.theta,
            height=height,
            minimum_spectrum=minimum.spectrum,
            saddle_spectrum=saddle.spectrum,
            minimum_zero_modes=minimum.n_zero_modes,
            saddle_zero_modes=saddle.n_zero_modes,
            log_volume_ratio=saddle.log_orbit_volume - minimum.log_orbit_volume,
            minimum_order_parameters=minimum.order_parameters,
            saddle_order_parameters=saddle.order_parameters,
            destination_order_parameters=destination.order_parameters,
            degeneracy=self._labels.count(self._labels[j]),
            spare_units=tuple(h - learned - 1 for h in self.hidden),
            weight_decay=self.weight_decay,
            trap_widening=self._trap_widening(len(minimum.features)),
        )

    def _trap_widening(self, rank: int) -> float:
        """Second order of the cubic term q Σ σ_k u_kᵀW₃W₂W₁v_k of what is not learned, at D = 3."""
        if self.depth > 3:
            return 0.0
        first, second = (h - rank for h in self.hidden)
        strength = float((self.input_variance * self._values[rank:]) @ (self.input_variance * self._values[rank:]))
        return 0.5 * strength * first * second / self.weight_decay**3

    # ------------------------------------------------------------ inside

    def _rank(self, rank: int) -> int:
        most = min(len(self.singular_values), *self.hidden)
        r = checks.positive_int("rank", rank, minimum=0, why="it counts learned features")
        if r > most:
            raise checks.invalid(
                "rank", r, f"at most {most}",
                f"the teacher has {len(self.singular_values)} feature(s) and the narrowest hidden layer "
                f"{min(self.hidden)} unit(s)",
            )  # fmt: skip
        return r

    def _feature(self, feature: int) -> int:
        j = checks.positive_int("feature", feature, minimum=0)
        if j >= len(self.singular_values):
            raise checks.invalid("feature", j, f"below {len(self.singular_values)}, the number of features")
        return j

    def _unlearned(self, rank: int, feature: int | None) -> int:
        if rank == len(self.singular_values):
            raise NoBarrierError(
                f"All {rank} features of the teacher are learned at rank={rank}: there is no next one.\n"
                f"Use `forgetting_barrier({rank})` for the way back."
            )
        j = rank if feature is None else self._feature(feature)
        if j < rank:
            raise checks.invalid(
                "feature", j, f"at least rank = {rank}", f"the {rank} strongest features are learned already",
                f"Use `forgetting_barrier({rank})` to lose the weakest of them.",
            )  # fmt: skip
        return j

    def _arguments(self, feature: int) -> tuple[int, float, float, float]:
        return self.depth, float(self._values[feature]), self.weight_decay, self.input_variance

    def _learned(self, feature: int) -> Channel:
        mode = self.mode(feature)
        mode.saddle_amplitude()  # says why there is no barrier at D = 2 or above the spinodal
        curvature = float(mode_states.learned_curvature(*self._arguments(feature)))
        return self._channel(feature, mode.learned_amplitude(), curvature)

    def _at_saddle(self, feature: int) -> Channel:
        curvature = float(mode_states.saddle_curvature(*self._arguments(feature)))
        return self._channel(feature, self.mode(feature).saddle_amplitude(), curvature)

    def _channel(self, feature: int, amplitude: float, along: float) -> Channel:
        residual = self.weight_decay / (self.input_variance * amplitude ** (self.depth - 2))
        return Channel(feature, self._labels[feature], amplitude, residual, along)

    def _point(self, channels: Sequence[Channel]) -> StationaryPoint:
        if self.depth == 2:
            self.mode().saddle_amplitude()  # raises: a continuous transition
        amplitudes = tuple(c.amplitude for c in channels)
        features = tuple(c.feature for c in channels)
        others = [label for k, label in enumerate(self._labels) if k not in features]
        labels = [c.cluster for c in channels] + others
        spectrum = self._spectrum(channels)
        order_parameters = np.zeros(len(self.singular_values))
        order_parameters[list(features)] = np.array(amplitudes) ** self.depth
        return StationaryPoint(
            features=features,
            amplitudes=amplitudes,
            spectrum=spectrum,
            n_zero_modes=orbit_dimension(self.hidden, amplitudes, labels),
            index=int((spectrum < 0).sum()),
            log_orbit_volume=log_orbit_volume(self.hidden, amplitudes, labels),
            theta=self._theta(channels),
            order_parameters=order_parameters,
        )

    def _spectrum(self, channels: Sequence[Channel]) -> Array:
        """Nonzero eigenvalues, block by block; every weight belongs to exactly one block."""
        decay, q, depth = self.weight_decay, self.input_variance, self.depth
        features = {c.feature for c in channels}
        parts: list[Array] = []
        for c in channels:
            unused = sum(h - len(channels) for h in self.hidden)
            parts += [np.array([c.along]), np.full(depth - 1 + unused, 2 * decay)]
            sigma, scale = self._values[c.feature], q * c.amplitude ** (depth - 2)
            for j, label in enumerate(self._labels):
                if j not in features:
                    parts.append(np.array([scale * (sigma + self._values[j])]))
                    if label != c.cluster:
                        parts.append(np.array([scale * (sigma - self._values[j])]))
            spare = self.widths[0] + self.widths[-1] - 2 * len(self.singular_values)
            parts.append(np.full(spare, scale * sigma))
        parts += [pair_spectrum(depth, one, other, decay, q) for one, other in combinations(channels, 2)]
        spectrum = np.concatenate(parts) if parts else np.empty(0)
        return np.sort(np.append(spectrum, np.full(self._n_rest(len(channels)), decay)))

    def _n_rest(self, s: int) -> int:
        """Number of weights that no channel touches."""
        inner = sum((below - s) * (above - s) for below, above in pairwise(self.hidden))
        (d, *_, o), (first, *_, last) = self.widths, self.hidden
        return inner + (first - s) * (d - s) + (last - s) * (o - s)

    def _theta(self, channels: Sequence[Channel]) -> Array:
        layers = [np.zeros((above, below)) for below, above in pairwise(self.widths)]
        for unit, c in enumerate(channels):
            for l, layer in enumerate(layers):
                row = c.feature if l == self.depth - 1 else unit
                column = c.feature if l == 0 else unit
                layer[row, column] = c.amplitude
        return np.concatenate([layer.ravel() for layer in layers])

r"""Escape from a partly learned state of a matrix network whose inputs are not white.

The features decouple in the shared singular vectors of inputs and teacher, with input variances :math:`q_k` and
covariances :math:`c_k`. The way from the r strongest learned features to the next one is that of a chain of D weights,
at variance :math:`q_r`; the weights that join it to the learned channels change the rate in two ways.

1. *Determinants*: the Eyring–Kramers factor over the chain's, from the Hessians of the whole network at both points.
2. *Heating*: minibatches shake those weights, which the learned channels do not gate, harder than the injected noise
   does. Their fluctuations push back on the escaping amplitude,

   .. math:: \Delta\ln\tau = \frac{1}{T}\int_0^{s_*}\tfrac12\operatorname{tr}\big[\partial_sH\,\Sigma\big]\,ds,\qquad
       H\Sigma+\Sigma H = \varepsilon\, C,

   along the balanced path, H the Hessian across it, C the covariance of the per-sample gradients and Σ what they add
   to the weights' covariance. It is of first order in ε, and takes the weights across the path to be faster than the
   escape.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import solve_continuous_lyapunov

from kramers_grok.core import checks
from kramers_grok.core.barrier import OrbitBarrier
from kramers_grok.core.exceptions import InvalidParameterError, NoBarrierError
from kramers_grok.core.region import beyond
from kramers_grok.theory import mode_states
from kramers_grok.theory.deep_linear import DeepLinearChain, Mode
from kramers_grok.theory.exit_times import exit_time
from kramers_grok.theory.feature_weights import FeatureWeights, complement
from kramers_grok.theory.features import Features, features_of
from kramers_grok.theory.gradient_noise import EmpiricalResidualVariance
from kramers_grok.theory.minibatch import MinibatchNoise
from kramers_grok.theory.orbits import log_orbit_volume, orbit_dimension
from kramers_grok.theory.rates import eyring_kramers_rate

__all__ = ["FeatureNetwork", "LearningTime"]

Array = NDArray[np.float64]

_SHARED = 1e-6  # largest correlation of two features' inputs that counts as none
_EQUAL = 1e-10  # features closer than this, relative to the strongest, turn into one another at no cost
_DIFFERENCE = 1e-5  # relative to the saddle's amplitude
_NODES = 24
_ZERO = 1e-8  # eigenvalues below this fraction of the largest are zero modes


@dataclass(frozen=True)
class LearningTime:
    """Mean time of learning a feature, and what it is made of.

    Attributes
    ----------
    chain : float
        Exact mean time of the feature as a chain of its own, step and own minibatch noise included [time].
    slowing : float
        Factor of the weights that join it to the rest of the network.
    heating : float
        Factor of the minibatch noise on those weights.
    barrier_over_temperature : float
        ΔF/T.
    """

    chain: float
    slowing: float
    heating: float
    barrier_over_temperature: float

    @property
    def mean(self) -> float:
        """The product [time]."""
        return self.chain * self.slowing * self.heating

    @property
    def relative_uncertainty(self) -> float:
        """Size of what is left out: the next order of the heating, and of the determinants in T/ΔF."""
        return 0.5 * math.log(self.heating) ** 2 + abs(math.log(self.slowing)) / self.barrier_over_temperature


@dataclass(frozen=True, eq=False)
class FeatureNetwork:
    r"""Matrix network :math:`W_D\cdots W_1` on inputs that share singular vectors with the teacher.

    Parameters
    ----------
    input_covariance : array_like, shape (d, d)
        :math:`\Sigma_{xx}`.
    cross_covariance : array_like, shape (o, d)
        :math:`\Sigma_{yx}`.
    hidden : tuple of int
        Hidden widths.
    weight_decay : float
        λ > 0.

    Raises
    ------
    InvalidParameterError
        If features couple, or a parameter is out of range.

    Examples
    --------
    >>> network = FeatureNetwork(np.diag([1.0, 0.25]), np.diag([1.0, 0.25]), (2, 2), weight_decay=0.0625)
    >>> barrier = network.barrier(rank=1)
    >>> barrier.minimum_zero_modes, barrier.saddle_zero_modes, f"{barrier.height:.10f}"
    (2, 2, '0.0019851787')
    """

    input_covariance: ArrayLike
    cross_covariance: ArrayLike
    hidden: tuple[int, ...]
    weight_decay: float

    def __post_init__(self) -> None:
        xx = checks.finite_array("input_covariance", self.input_covariance, ndim=2)
        yx = checks.finite_array("cross_covariance", self.cross_covariance, ndim=2)
        if xx.shape != (yx.shape[1], yx.shape[1]):
            raise InvalidParameterError(
                f"`input_covariance` has shape {xx.shape} and `cross_covariance` {yx.shape}, expected (d, d) and "
                "(o, d).\nUse `data.input_covariance, data.cross_covariance`."
            )
        hidden = tuple(checks.positive_int("hidden", h) for h in self.hidden)
        if len(hidden) < 2:
            raise checks.invalid(
                "hidden", hidden, "at least two widths", "with two layers of weights the transition is continuous"
            )
        object.__setattr__(self, "input_covariance", xx)
        object.__setattr__(self, "cross_covariance", yx)
        object.__setattr__(self, "hidden", hidden)
        object.__setattr__(self, "weight_decay", checks.positive("weight_decay", self.weight_decay))
        self.features.require_shared(_SHARED)

    @property
    def depth(self) -> int:
        """Number of weight layers D."""
        return len(self.hidden) + 1

    @property
    def widths(self) -> tuple[int, ...]:
        """(d, h_1, …, h_{D−1}, o)."""
        outputs, inputs = np.shape(self.cross_covariance)
        return (inputs, *self.hidden, outputs)

    @cached_property
    def features(self) -> Features:
        """Singular vectors, strongest feature first."""
        found = features_of(np.asarray(self.input_covariance), np.asarray(self.cross_covariance))
        return found.by_strength(self.depth)

    @cached_property
    def _weights(self) -> FeatureWeights:
        found = self.features
        return FeatureWeights(self.widths, found.inputs, found.covariances, self.weight_decay)

    def mode(self, feature: int) -> Mode:
        """Theory of one feature's balanced mode."""
        sigma, q = self.features.singular_values[feature], self.features.input_variances[feature]
        return Mode(self.depth, float(sigma), self.weight_decay, float(q))

    def chain(self, feature: int) -> DeepLinearChain:
        """One feature as a chain of D scalar weights."""
        mode = self.mode(feature)
        return DeepLinearChain(mode.depth, mode.singular_value, mode.weight_decay, mode.input_variance)

    # ---------------------------------------------------------------- barrier

    def barrier(self, rank: int) -> OrbitBarrier:
        """Barrier from the `rank` strongest learned features to the next one.

        Raises
        ------
        InvalidParameterError
            For a rank out of range.
        NoBarrierError
            Above a spinodal, or if the saddle's index is not 1.
        """
        r = self._rank(rank)
        learned = [self.mode(k).learned_amplitude() for k in range(r)]
        mode = self.mode(r)
        top, bottom = mode.saddle_amplitude(), mode.learned_amplitude()
        minimum, n_min, v_min = self._stationary(learned)
        saddle, n_top, v_top = self._stationary([*learned, top])
        index = int((saddle < 0).sum())
        if index != 1:
            raise NoBarrierError(
                f"The saddle of feature {r} has index {index}, expected 1: from this state noise leaves in another "
                "direction.\nUse `FeatureSpectrum.phases`, which lists what each state leads to."
            )
        q, c, depth = self.features.input_variances, self.features.covariances, self.depth
        spare = tuple(h - r - 1 for h in self.hidden)
        widening = 0.5 * float(c[r:] @ c[r:]) * (spare[0] + 1) * (spare[1] + 1) / self.weight_decay**3
        return OrbitBarrier(
            depth=depth,
            feature=r,
            minimum=self._weights.point(learned),
            saddle=self._weights.point([*learned, top]),
            destination=self._weights.point([*learned, bottom]),
            height=float(mode_states.barrier_height(depth, c[r] / q[r], self.weight_decay, q[r])),
            minimum_spectrum=minimum,
            saddle_spectrum=saddle,
            minimum_zero_modes=n_min,
            saddle_zero_modes=n_top,
            log_volume_ratio=v_top - v_min,
            minimum_order_parameters=self._orders(learned),
            saddle_order_parameters=self._orders([*learned, top]),
            destination_order_parameters=self._orders([*learned, bottom]),
            degeneracy=self._labels().count(self._labels()[r]),
            spare_units=spare,
            weight_decay=self.weight_decay,
            trap_widening=widening if depth == 3 else 0.0,
        )

    def log_slowing(self, rank: int, *, temperature: float = 1.0, step: float = 0.0) -> float:
        """Logarithm of the network's Eyring–Kramers time over the chain's; no temperature in it where h = r + 1."""
        barrier, chain = self.barrier(rank), self.chain(rank).barrier()
        with np.errstate(over="ignore"):
            rates = [eyring_kramers_rate(b, temperature, step=step, warn=False) for b in (chain, barrier)]
        shift = rates[0].barrier_over_temperature
        if 0.0 in (rates[0].value, rates[1].value):  # underflow: both share the exponent, so ask at a milder one
            hot = temperature * shift
            extra = 0.5 * barrier.extra_zero_modes * np.log(temperature / hot)
            return self.log_slowing(rank, temperature=hot, step=step) + float(extra)
        return float(np.log(rates[0].value / rates[1].value))

    # ---------------------------------------------------------------- heating

    def heating(self, rank: int, x: ArrayLike, y: ArrayLike) -> float:
        r"""Heat of minibatches across the path, :math:`\int\frac12\operatorname{tr}[\partial_sH\,\Sigma]\,ds` at ε = 1.

        Times are longer by :math:`\exp(\varepsilon\,f\,\cdot/T)`, with f the sampler's factor (1 with replacement,
        (N−B)/(N−1) without) and T the injected temperature.

        Parameters
        ----------
        rank : int
        x, y : array_like, shape (sample, input), (sample, output)
            The data set, whose second moments are those of this network.

        Returns
        -------
        float
            [loss]
        """
        r = self._rank(rank)
        inputs = checks.finite_array("x", x, ndim=2) @ self.features.right.T
        outputs = checks.finite_array("y", y, ndim=2) @ self.features.left
        learned = [self.mode(k).learned_amplitude() for k in range(r)]
        top = self.mode(r).saddle_amplitude()
        nodes, weights = np.polynomial.legendre.leggauss(_NODES)
        path = self._weights.point([*learned, 1.0]) - self._weights.point([*learned, 0.0])
        total = 0.0
        for node, weight in zip(nodes, weights, strict=True):
            a = 0.5 * top * (node + 1)
            theta = self._weights.point([*learned, a])
            across = complement(np.vstack([*self._weights.rotations(theta), path]))
            low, high = (
                self._weights.hessian(self._weights.point([*learned, a + s * top * _DIFFERENCE])) for s in (-1, 1)
            )
            change = across.T @ (high - low) @ across / (2 * top * _DIFFERENCE)
            noise = across.T @ self._weights.gradient_covariance(theta, inputs, outputs) @ across
            sigma = solve_continuous_lyapunov(across.T @ self._weights.hessian(theta) @ across, noise)
            total += 0.25 * weight * top * float(np.trace(change @ sigma))
        return total

    def learning_time(
        self,
        rank: int,
        *,
        temperature: float,
        step: float = 0.0,
        data: tuple[ArrayLike, ArrayLike] | None = None,
        lr_over_batch: float = 0.0,
    ) -> LearningTime:
        """Mean time in which the next feature is learned, from the chain's exact time and the two corrections.

        Parameters
        ----------
        rank : int
            Number of learned features.
        temperature : float
            T > 0 of the injected noise [loss].
        step : float
            Learning rate of SGD, or step of Euler–Maruyama; the walk is watched at its steps [time].
        data : (x, y), optional
            The data set whose minibatches heat the network.
        lr_over_batch : float
            ε = η/B, times (N−B)/(N−1) for draws without replacement.

        Raises
        ------
        InvalidParameterError, NoBarrierError
            As in `barrier`, or for T ≤ 0.

        Notes
        -----
        The determinants take the saddle's orbit for a Gaussian ridge. That holds where no hidden unit is spare (widths
        of rank + 1); three spare units made it 2.5 times too fast on digits: use
        `kramers_grok.theory.feature_radial.feature_radial_rate` there.

        Depth 3 uses the exact time of the chain. Other depths, and barriers below T, take half the exact time of the
        mode, without the corrections: a rough guide, twice too long at hidden widths 4, where escape is no rare event.

        Examples
        --------
        >>> network = FeatureNetwork(np.diag([1.0, 0.25]), np.diag([1.0, 0.25]), (2, 2), weight_decay=0.0625)
        >>> found = network.learning_time(1, temperature=network.barrier(1).height / 6)
        >>> print(f"{found.mean:.3g} = {found.chain:.3g} x {found.slowing:.3f}")
        2.28e+04 = 2.22e+04 x 1.029
        """
        heat = checks.positive("temperature", temperature, "minibatch noise alone vanishes at the unlearned state")
        r = self._rank(rank)
        mode = self.mode(r)
        target = beyond(mode.barrier())
        ratio = mode.barrier().height / heat
        minibatch = None
        heating = 0.0
        activated = ratio >= 1
        if data is not None and lr_over_batch > 0 and activated:
            x = checks.finite_array("x", data[0], ndim=2) @ self.features.right[r]
            y = checks.finite_array("y", data[1], ndim=2) @ self.features.left[:, r]
            minibatch = MinibatchNoise(lr_over_batch, EmpiricalResidualVariance(x, y))
            heating = lr_over_batch * self.heating(r, *data) / heat
        options: dict[str, Any] = {
            "temperature": heat, "target": target, "step": step, "monitored": step > 0, "minibatch": minibatch,
        }  # fmt: skip
        time = math.nan
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # validity is judged here; low barriers leave the chain's grid
            if self.depth == 3 and activated:
                time = exit_time(self.chain(r), **options).mean
            if not math.isfinite(time):
                time = 0.5 * exit_time(mode, **options).mean
        return LearningTime(
            chain=time,
            slowing=math.exp(self.log_slowing(r, temperature=heat, step=step)) if activated else 1.0,
            heating=math.exp(heating) if activated else 1.0,
            barrier_over_temperature=ratio,
        )

    # ---------------------------------------------------------------- inside

    def _rank(self, rank: int) -> int:
        r = checks.positive_int("rank", rank, minimum=0, why="it counts learned features")
        if r >= self.features.rank or r >= min(self.hidden):
            raise NoBarrierError(
                f"`rank` = {r} with {self.features.rank} features and hidden widths {self.hidden}: there is no next "
                f"feature, or no unit left for it.\nUse a rank below {min(self.features.rank, *self.hidden)}."
            )
        return r

    def _labels(self) -> list[int]:
        """Cluster of every feature: equal variance and covariance."""
        q, c = self.features.input_variances, self.features.covariances
        labels = [0]
        for k in range(1, len(c)):
            same = max(abs(c[k] - c[k - 1]) / c[0], abs(q[k] - q[k - 1]) / q.max()) < _EQUAL
            labels.append(labels[-1] + (not same))
        return labels

    def _orders(self, amplitudes: list[float]) -> Array:
        m = np.zeros(self.features.rank)
        m[: len(amplitudes)] = np.array(amplitudes) ** self.depth
        return m

    def _stationary(self, amplitudes: list[float]) -> tuple[Array, int, float]:
        """Spectrum without zero modes, their number and the orbit's log volume."""
        spectrum = np.linalg.eigvalsh(self._weights.hessian(self._weights.point(amplitudes)))
        labels = self._labels()
        count = orbit_dimension(self.hidden, amplitudes, labels)
        order = np.argsort(np.abs(spectrum))
        kept = np.sort(spectrum[order[count:]])
        if count and np.abs(spectrum[order[:count]]).max() > _ZERO * np.abs(spectrum).max():
            raise InvalidParameterError(
                f"The Hessian has fewer zero modes than the {count} of its symmetries: the point is not stationary "
                "enough, or two features nearly coincide.\nUse features that differ by more than rounding."
            )
        return kept, count, log_orbit_volume(self.hidden, amplitudes, labels)

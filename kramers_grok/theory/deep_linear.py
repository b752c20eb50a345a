r"""One mode of a deep linear network: symbolic free energy, the mode and the chain of scalar weights.

.. math:: F(a) = \tfrac12 q(\sigma - a^D)^2 + \tfrac12 D\lambda a^2

for D aligned and balanced layers of singular value a (Ersoy & Wiesner, arXiv:2505.06597, arXiv:2606.17120;
derived in the chapter on the mode's free energy). The vectorised closed forms live in
`kramers_grok.theory.mode_states` and are exported here as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import numpy as np
import sympy
from numpy.typing import ArrayLike, NDArray

from kramers_grok.core import checks
from kramers_grok.core.barrier import Barrier
from kramers_grok.core.exceptions import InvalidParameterError, NoBarrierError
from kramers_grok.core.landscape import Landscape
from kramers_grok.theory import mode_states
from kramers_grok.theory.mode_states import (
    barrier_height,
    binodal,
    forgetting_barrier_height,
    learned_amplitude,
    learned_curvature,
    saddle_amplitude,
    saddle_curvature,
    spinodal,
)

__all__ = [
    "AMPLITUDE",
    "DEPTH",
    "INPUT_VARIANCE",
    "SINGULAR_VALUE",
    "WEIGHT_DECAY",
    "DeepLinearChain",
    "Mode",
    "barrier_height",
    "binodal",
    "binodal_expression",
    "forgetting_barrier_height",
    "free_energy_expression",
    "free_energy_latex",
    "learned_amplitude",
    "learned_curvature",
    "saddle_amplitude",
    "saddle_curvature",
    "spinodal",
    "spinodal_expression",
    "stationary_weight_decay_expression",
]

Array = NDArray[np.float64]

AMPLITUDE = sympy.Symbol("a", positive=True)
DEPTH = sympy.Symbol("D", positive=True)
SINGULAR_VALUE = sympy.Symbol("sigma", positive=True)
WEIGHT_DECAY = sympy.Symbol("lambda", positive=True)
INPUT_VARIANCE = sympy.Symbol("q", positive=True)


def free_energy_expression() -> sympy.Expr:
    r"""Free energy of one mode, :math:`F(a) = \frac12 q(\sigma-a^D)^2 + \frac12 D\lambda a^2` [loss].

    Returns
    -------
    sympy.Expr
        In the module's symbols `AMPLITUDE`, `DEPTH`, `SINGULAR_VALUE`, `WEIGHT_DECAY`, `INPUT_VARIANCE`.

    Examples
    --------
    >>> free_energy_expression().subs({DEPTH: 3, SINGULAR_VALUE: 1, INPUT_VARIANCE: 1})
    3*a**2*lambda/2 + (1 - a**3)**2/2
    """
    loss = INPUT_VARIANCE * (SINGULAR_VALUE - AMPLITUDE**DEPTH) ** 2 / 2
    return loss + DEPTH * WEIGHT_DECAY * AMPLITUDE**2 / 2


def stationary_weight_decay_expression() -> sympy.Expr:
    r"""Weight decay at which amplitude a > 0 is stationary: :math:`\lambda = q a^{D-2}(\sigma - a^D)`."""
    return INPUT_VARIANCE * AMPLITUDE ** (DEPTH - 2) * (SINGULAR_VALUE - AMPLITUDE**DEPTH)


def spinodal_expression() -> sympy.Expr:
    """Weight decay at which the learned state disappears, for symbolic depth D > 2."""
    a = (SINGULAR_VALUE * (DEPTH - 2) / (2 * (DEPTH - 1))) ** (1 / DEPTH)
    return stationary_weight_decay_expression().subs(AMPLITUDE, a)


def binodal_expression() -> sympy.Expr:
    """Weight decay at which learned and unlearned state are equally deep, for symbolic depth D > 2."""
    a = (SINGULAR_VALUE * (DEPTH - 2) / (DEPTH - 1)) ** (1 / DEPTH)
    return stationary_weight_decay_expression().subs(AMPLITUDE, a)


def free_energy_latex() -> str:
    r"""Free energy of one mode as LaTeX source.

    Examples
    --------
    >>> print(free_energy_latex())
    F(a) = \frac{D a^{2} \lambda}{2} + \frac{q \left(- a^{D} + \sigma\right)^{2}}{2}
    """
    return f"F(a) = {sympy.latex(free_energy_expression())}"


def _column(values: ArrayLike) -> ArrayLike:
    """A single column as a vector."""
    array = np.asarray(values)
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array


@dataclass(frozen=True)
class _Parameters:
    """Checked parameters that the mode and the chain share."""

    depth: int
    singular_value: float
    weight_decay: float
    input_variance: float = 1.0

    def __post_init__(self) -> None:
        clean = {
            "depth": checks.positive_int(
                "depth", self.depth, minimum=2, why=mode_states.DEPTH_REASON, fix=mode_states.DEPTH_FIX
            ),
            "singular_value": checks.positive(
                "singular_value", self.singular_value, mode_states.SIGMA_REASON, mode_states.SIGMA_FIX
            ),
            "weight_decay": checks.positive(
                "weight_decay", self.weight_decay, mode_states.DECAY_REASON, mode_states.DECAY_FIX
            ),
            "input_variance": checks.positive(
                "input_variance", self.input_variance, mode_states.VARIANCE_REASON, mode_states.VARIANCE_FIX
            ),
        }
        for name, value in clean.items():
            object.__setattr__(self, name, value)

    @classmethod
    def from_data(cls, x: ArrayLike, y: ArrayLike | None = None, *, depth: int, weight_decay: float) -> Self:
        r"""Take :math:`q = \overline{x^2}` and :math:`\sigma = \overline{xy}/q` from scalar data.

        Parameters
        ----------
        x : array_like, shape (sample,) or (sample, 1)
            Inputs, not centred here: centre them yourself where the model has no bias.
        y : array_like, shape (sample,), optional
            Targets; None autoencodes `x` (σ = 1).
        depth, weight_decay
            As in the class.

        Raises
        ------
        InvalidParameterError
            For shapes that differ, empty or non-finite data, inputs that are all zero, or σ ≤ 0.

        Examples
        --------
        >>> chain = DeepLinearChain.from_data([1.0, -1.0, 2.0], [0.5, -0.5, 1.0], depth=3, weight_decay=0.1)
        >>> chain.input_variance, chain.singular_value
        (2.0, 0.5)
        """
        fix = "Use `x @ v` with the mode's direction v."
        inputs = checks.finite_array("x", _column(x), ndim=1, why="one mode reads a scalar", fix=fix)
        targets = inputs if y is None else checks.finite_array("y", _column(y), ndim=1)
        if targets.shape != inputs.shape:
            raise InvalidParameterError(
                f"`y` has shape {targets.shape}, expected {inputs.shape}: one target for each input.\n"
                "Use `y[: len(x)]`, or `y=None` to autoencode `x`."
            )
        variance = float(np.mean(inputs**2))
        if variance == 0:
            raise checks.invalid("x", "all zeros", "an input that varies", mode_states.VARIANCE_REASON)
        covariance = float(np.mean(inputs * targets))
        if covariance <= 0:
            raise InvalidParameterError(
                f"The data have mean x·y = {covariance:.6g}, so σ = {covariance / variance:.6g}, "
                f"expected > 0: {mode_states.SIGMA_REASON}.\nUse `-y` for a negative correlation."
            )
        return cls(depth, covariance / variance, weight_decay, variance)

    def spinodal(self) -> float:
        """Weight decay above which the learned state does not exist [loss / amplitude²]."""
        return float(spinodal(self.depth, self.singular_value, self.input_variance))

    def binodal(self) -> float:
        """Weight decay below which the learned state is the deeper one [loss / amplitude²]."""
        return float(binodal(self.depth, self.singular_value, self.input_variance))

    def learned_amplitude(self) -> float:
        """Amplitude a of each layer in the learned state.

        Returns
        -------
        float
            [weight]

        Raises
        ------
        NoBarrierError
            If λ is at or above the spinodal, so that the state does not exist.
        """
        amplitude = float(learned_amplitude(*self._state))
        if np.isnan(amplitude):
            raise self._above_spinodal()
        return amplitude

    def saddle_amplitude(self) -> float:
        """Amplitude a of each layer at the barrier's top.

        Returns
        -------
        float
            [weight]

        Raises
        ------
        NoBarrierError
            If D = 2 or λ is at or above the spinodal.
        """
        if self.depth == 2:
            raise NoBarrierError(
                "depth=2 has no barrier: its transition is continuous. Below the onset weight_decay = qσ = "
                f"{self.spinodal():.6g} the state 0 is itself unstable, above it 0 is the only state.\n"
                "Use `depth=3` or more for a first-order transition."
            )
        amplitude = float(saddle_amplitude(*self._state))
        if np.isnan(amplitude):
            raise self._above_spinodal()
        return amplitude

    @property
    def _state(self) -> tuple[int, float, float, float]:
        return self.depth, self.singular_value, self.weight_decay, self.input_variance

    def _above_spinodal(self) -> NoBarrierError:
        return NoBarrierError(
            f"weight_decay={self.weight_decay!r} is not below λ_spinodal = {self.spinodal():.12g} "
            f"(depth={self.depth}, singular_value={self.singular_value:g}, "
            f"input_variance={self.input_variance:g}): 0 is the only state, so nothing is trapped.\n"
            f"Use a smaller `weight_decay`; below λ_binodal = {self.binodal():.12g} "
            "the learned state is the deeper one."
        )


@dataclass(frozen=True)
class Mode(_Parameters):
    r"""One mode on its balanced path, in arc length :math:`x = \sqrt{D}\,a`.

    .. math::
        F(x) = \tfrac12 q(\sigma - m)^2 + \tfrac12\lambda x^2, \qquad m = (x/\sqrt D)^D,

        dx = -F'(x)\,dt + \sqrt{2T}\,dW.

    Parameters
    ----------
    depth : int
        Number of weight layers D ≥ 2.
    singular_value : float
        σ > 0, the value of m that fits the data.
    weight_decay : float
        λ > 0 [loss / amplitude²].
    input_variance : float
        q > 0.

    Raises
    ------
    InvalidParameterError
        For D < 2, σ ≤ 0, λ ≤ 0, q ≤ 0, NaN.

    References
    ----------
    Ersoy & Wiesner, arXiv:2505.06597 and arXiv:2606.17120.

    Examples
    --------
    >>> mode = Mode(depth=3, singular_value=1.0, weight_decay=0.25)
    >>> print(f"{mode.spinodal():.12f} {mode.binodal():.12f} {mode.barrier().height:.10f}")
    0.472470393711 0.396850262992 0.0079407147
    """

    @property
    def landscape(self) -> Landscape:
        """Energy F(x) with its order parameter m(x)."""
        return _mode_landscape(self)

    def free_energy(self, a: ArrayLike) -> Array:
        r"""Free energy :math:`\frac12 q(\sigma-a^D)^2+\frac12 D\lambda a^2` [loss] at amplitudes `a`.

        Parameters
        ----------
        a : array_like

        Returns
        -------
        array, the shape of `a`
            [loss]
        """
        amplitude = np.asarray(a, dtype=np.float64)
        loss = 0.5 * self.input_variance * (self.singular_value - amplitude**self.depth) ** 2
        return np.asarray(loss + 0.5 * self.depth * self.weight_decay * amplitude**2)

    def coordinate(self, m: ArrayLike) -> Array:
        r"""Arc length :math:`x = \sqrt D\, m^{1/D}` at order parameter `m` (for odd D, m < 0 gives x < 0).

        Parameters
        ----------
        m : array_like

        Returns
        -------
        array, the shape of `m`

        Raises
        ------
        InvalidParameterError
            For m < 0 at even D, where m is never negative on the balanced path.
        """
        order = checks.finite_array("m", m)
        if self.depth % 2 == 0 and (order < 0).any():
            raise checks.invalid(
                "m", float(order.min()), "m >= 0", f"m = a^{self.depth} on the balanced path, never negative"
            )
        return np.asarray(np.sqrt(self.depth) * np.sign(order) * np.abs(order) ** (1 / self.depth))

    def barrier(self) -> Barrier:
        """Barrier from the unlearned state to the learned one.

        At even D the mode is symmetric in x, and a saddle stands on either side (multiplicity 2).

        Returns
        -------
        Barrier

        Raises
        ------
        NoBarrierError
            If D = 2 (continuous onset) or λ is at or above the spinodal.
        """
        saddle = self.saddle_amplitude()
        return Barrier(
            landscape=self.landscape,
            minimum=np.zeros(1),
            saddle=self._point(saddle),
            destination=self._point(self.learned_amplitude()),
            height=float(barrier_height(*self._state)),
            multiplicity=2 - self.depth % 2,
        )

    def forgetting_barrier(self) -> Barrier:
        """Barrier from the learned state to the unlearned one; errors as in `barrier`.

        Returns
        -------
        Barrier
        """
        saddle = self.saddle_amplitude()
        return Barrier(
            landscape=self.landscape,
            minimum=self._point(self.learned_amplitude()),
            saddle=self._point(saddle),
            destination=np.zeros(1),
            height=float(forgetting_barrier_height(*self._state)),
        )

    def _point(self, amplitude: float) -> Array:
        return np.array([np.sqrt(self.depth) * amplitude])


@dataclass(frozen=True)
class DeepLinearChain(_Parameters):
    r"""Chain of D scalar weights: the smallest network with a trapped state.

    .. math:: F(a_1,\dots,a_D) = \tfrac12 q\Big(\sigma-\prod_l a_l\Big)^2 + \tfrac12\lambda\sum_l a_l^2

    The Hessian of a balanced point is :math:`(q a^{2D-2}-\lambda)\,\mathbf 1\mathbf 1^T + 2\lambda I`: at 0
    it is λ, D times; elsewhere :math:`D q a^{2D-2}-(D-2)\lambda` along (1, …, 1) and 2λ, D−1 times.
    The signs of the weights make :math:`2^{D-1}` equivalent saddles.

    Parameters
    ----------
    depth, singular_value, weight_decay, input_variance
        As in `Mode`.

    Raises
    ------
    InvalidParameterError
        For D < 2, σ ≤ 0, λ ≤ 0, q ≤ 0, NaN.

    Examples
    --------
    >>> barrier = DeepLinearChain(depth=3, singular_value=1.0, weight_decay=0.25).barrier()
    >>> barrier.multiplicity, barrier.saddle_spectrum.round(6).tolist()
    (4, [-0.237479, 0.5, 0.5])
    """

    @property
    def mode(self) -> Mode:
        """The mode on the chain's balanced path."""
        return Mode(*self._state)

    @property
    def landscape(self) -> Landscape:
        """Energy F(a_1, …, a_D) with its order parameter, the product of the weights."""
        return _chain_landscape(self)

    def barrier(self) -> Barrier:
        """Barrier from the unlearned state to the learned one, over any of 2^(D−1) saddles.

        Returns
        -------
        Barrier

        Raises
        ------
        NoBarrierError
            If D = 2 (continuous onset) or λ is at or above the spinodal.
        """
        saddle = self.saddle_amplitude()
        return Barrier(
            landscape=self.landscape,
            minimum=np.zeros(self.depth),
            saddle=np.full(self.depth, saddle),
            destination=np.full(self.depth, self.learned_amplitude()),
            height=float(barrier_height(*self._state)),
            multiplicity=2 ** (self.depth - 1),
        )

    def forgetting_barrier(self) -> Barrier:
        """Barrier from one learned state to the unlearned one (one saddle); errors as in `barrier`.

        Returns
        -------
        Barrier
        """
        saddle = self.saddle_amplitude()
        return Barrier(
            landscape=self.landscape,
            minimum=np.full(self.depth, self.learned_amplitude()),
            saddle=np.full(self.depth, saddle),
            destination=np.zeros(self.depth),
            height=float(forgetting_barrier_height(*self._state)),
        )


# Cached outside the objects: compiled functions inside them could not travel to another process.
def _loss(p: _Parameters, m: sympy.Expr, norm: sympy.Expr) -> sympy.Expr:
    q, sigma, decay = (sympy.Float(v) for v in (p.input_variance, p.singular_value, p.weight_decay))
    return q * (sigma - m) ** 2 / 2 + decay * norm / 2


@lru_cache(maxsize=256)
def _mode_landscape(mode: Mode) -> Landscape:
    x = sympy.Symbol("x", real=True)
    m = x**mode.depth / sympy.sqrt(sympy.Integer(mode.depth) ** mode.depth)
    return Landscape(_loss(mode, m, x**2), (x,), (m,))


@lru_cache(maxsize=256)
def _chain_landscape(chain: DeepLinearChain) -> Landscape:
    weights = sympy.symbols(f"a_1:{chain.depth + 1}", real=True)
    m = sympy.prod(weights)
    norm = sum((w**2 for w in weights), sympy.Integer(0))
    return Landscape(_loss(chain, m, norm), tuple(weights), (m,))

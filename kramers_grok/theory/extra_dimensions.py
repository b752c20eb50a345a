r"""What inputs and outputs beside the learned feature do to forgetting: layers that lose their balance, faster escapes.

A network of d inputs and o outputs that has learned one feature moves, under minibatch noise, in more than the
feature's own amplitude: label noise times the other inputs shakes the first layer, the labels of the other outputs
shake the last. Two consequences, derived in the functions below:

- the outer layers grow heavier than the middle ones, by :math:`\varepsilon s^2a^{2D-2}q(d-1)/2\lambda`, which matters
  once :math:`\varepsilon s^2a^{2D-4}q\,d/2\lambda \gtrsim 1`;
- long before, the time to forget changes: every further input or output multiplies it by a number below 1 that does
  *not* depend on ε. A mode's exact time is that of a network with one input and one output.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from scipy.interpolate import CubicSpline

from kramers_grok.core import checks
from kramers_grok.theory.action_cumulants import GaussianCumulants
from kramers_grok.theory.action_line import ModeHamiltonian
from kramers_grok.theory.deep_linear import Mode
from kramers_grok.theory.large_deviations import momentum

__all__ = ["DimensionFactors", "LayerImbalance", "dimension_factors", "noise_imbalance"]

Array = NDArray[np.float64]

# Start and end of the path, as a share of its length: there it leaves a fixed point exponentially slowly
_ENDS = 1e-5
_NODES = 200


@dataclass(frozen=True)
class LayerImbalance:
    r"""Excess of the outer layers' squared norm over that of their neighbours.

    Attributes
    ----------
    first : float
        :math:`\|W_1\|^2 - \|W_2\|^2` [weight²].
    last : float
        :math:`\|W_D\|^2 - \|W_{D-1}\|^2` [weight²].
    relative : float
        The larger of the two over the squared norm :math:`a^2` of a balanced layer: the theory of one mode needs it
        to be small.
    """

    first: float
    last: float
    relative: float


def noise_imbalance(
    mode: Mode, *, label_noise: float, lr_over_batch: float, n_inputs: int, n_outputs: int = 1, lr: float = 0.0
) -> LayerImbalance:
    r"""Return the mean imbalance of layers in the learned state under minibatch noise, to first order in ε.

    For every sample :math:`W_1\nabla_1^T = \nabla_2^TW_2` (the loss does not change when layers trade a factor), so the
    difference of the squared norms feels the gradient to second order only:

    .. math:: \Delta' = (1-\eta\lambda)^2\Delta + \eta^2\big(\|\nabla_1\|^2 - \|\nabla_2\|^2\big),
              \qquad \Delta = \|W_1\|^2 - \|W_2\|^2,

    exactly, step by step, with the data's gradients of one batch. Its mean at the balanced learned state, where means
    cancel and variances are left, is

    .. math:: \Delta_1 = \frac{\varepsilon\,a^{2D-2}(d-1)\,q\,[s^2 + q(\sigma-m)^2]}{2\lambda(1-\eta\lambda/2)},\qquad
              \Delta_D = \frac{\varepsilon\,a^{2D-2}(o-1)\,q\,s^2}{2\lambda(1-\eta\lambda/2)} .

    Parameters
    ----------
    mode : Mode
        Of depth D ≥ 3, with λ below its spinodal.
    label_noise : float
        s ≥ 0.
    lr_over_batch : float
        ε = η/B.
    n_inputs, n_outputs : int
        d and o. Hidden widths do not matter: units that nothing uses stay unused.
    lr : float
        η of the steps; 0 is the diffusion limit.

    Returns
    -------
    LayerImbalance

    Raises
    ------
    NoBarrierError
        If there is no learned state.

    Examples
    --------
    >>> mode = Mode(depth=3, singular_value=1.0, weight_decay=0.2)
    >>> print(f"{noise_imbalance(mode, label_noise=1.0, lr_over_batch=0.01, n_inputs=33).relative:.3f}")
    0.712
    """
    noise = checks.non_negative("label_noise", label_noise)
    ratio, rate = checks.positive("lr_over_batch", lr_over_batch), checks.non_negative("lr", lr)
    inputs, outputs = checks.positive_int("n_inputs", n_inputs), checks.positive_int("n_outputs", n_outputs)
    a, q = mode.learned_amplitude(), mode.input_variance
    gap = mode.singular_value - a**mode.depth
    common = ratio * a ** (2 * mode.depth - 2) * q / (mode.weight_decay * (2 - rate * mode.weight_decay))
    first = common * (inputs - 1) * (noise**2 + q * gap**2)
    last = common * (outputs - 1) * noise**2
    return LayerImbalance(first=float(first), last=float(last), relative=float(max(first, last) / a**2))


@dataclass(frozen=True)
class DimensionFactors:
    """Factors of the mean time to forget, in the limit of small ε at a given network.

    Attributes
    ----------
    per_input : float
        For every input beyond the first.
    per_output : float
        For every output beyond the first.
    """

    per_input: float
    per_output: float

    def __call__(self, n_inputs: int, n_outputs: int = 1) -> float:
        """Mean time of the network over that of its one mode."""
        return float(self.per_input ** (n_inputs - 1) * self.per_output ** (n_outputs - 1))

    def inputs_until(self, tolerance: float = 0.1) -> float:
        """Inputs at which the one-dimensional time is too long by `tolerance` (with one output)."""
        return float(1 - np.log1p(checks.positive("tolerance", tolerance)) / np.log(self.per_input))


def dimension_factors(mode: Mode, *, label_noise: float) -> DimensionFactors:
    r"""Return how much faster each further input or output makes a network forget by minibatch noise alone.

    Beside the path of one mode, let w be the part of :math:`W_1` that reads one further input, or of :math:`W_D` that
    writes one further output, and π its momentum. To second order in both, with p the momentum of each layer's
    amplitude, SGD's Hamiltonian :math:`\log\mathbb E\,e^{-p\cdot g}` is that of the mode plus

    .. math:: \tfrac12\alpha\pi^2 + \beta\pi w + \tfrac12\gamma w^2 .

    The quasi-potential :math:`S(a) + \tfrac12Kw^2` then has, along the most probable path,
    :math:`\dot K = -\alpha K^2 - 2\beta K - \gamma`, and the prefactor of the density changes by
    :math:`\dot{\ln A} = -(\beta + \tfrac12\alpha K)`. From the learned state to the saddle the mean time gets a factor

    .. math:: \exp\Big[\int\big(\beta + \tfrac12\alpha K\big)dt\Big]\sqrt{K_s/K_0} .

    With :math:`w_a = a^{D-1}`, :math:`u = p(D-1)a^{D-2}`, :math:`P = Dp`, :math:`v = q(\sigma-m)^2 + s^2`,
    :math:`c = 1 - qPw_a(\sigma-m)` and :math:`\Delta = c^2 - q\,v\,P^2w_a^2`, a further input has

    .. math:: \alpha = \frac{qvw_a^2}\Delta,\quad \beta = -\lambda + q\frac{vw_au - cw_a^2}\Delta,\quad
              \gamma = q\frac{vu^2 - 2cw_au + qP^2w_a^4}\Delta,

    a further output

    .. math:: \alpha = \frac{qs^2w_a^2}\Delta,\quad \beta = -\lambda + q\frac{s^2w_au - w_a^2}\Delta,\quad
              \gamma = q\frac{s^2u^2 - 2w_au}\Delta .

    Parameters
    ----------
    mode : Mode
        Of depth D ≥ 3, with λ below its spinodal.
    label_noise : float
        s > 0 of every output.

    Returns
    -------
    DimensionFactors

    Raises
    ------
    NoBarrierError
        If there is no barrier.

    Notes
    -----
    Prefactors of this kind: Maier & Stein, *Limiting exit location distributions in the stochastic exit problem*,
    SIAM J. Appl. Math. 57, 752 (1997). Leading order in ε at a given network: the layers must stay nearly balanced, see
    `noise_imbalance`. At S/ε = 2.6 SGD with 4 and 8 inputs agrees; with 16 and 32 it forgets sooner than its mode, but
    not as much sooner as this says.

    Examples
    --------
    >>> factors = dimension_factors(Mode(depth=3, singular_value=1.0, weight_decay=0.44), label_noise=0.5)
    >>> print(f"{factors.per_input:.4f} {factors.per_output:.4f} {factors(16):.3f} {factors.inputs_until(0.1):.1f}")
    0.9598 0.9873 0.540 3.3
    """
    path = _Path(mode, checks.positive("label_noise", label_noise, "without it nothing shakes the layers"))
    return DimensionFactors(*(float(np.exp(_log_factor(path, of_input))) for of_input in (True, False)))


@dataclass(frozen=True)
class _Path:
    """The most probable path of one mode, and the quadratic Hamiltonian beside it."""

    mode: Mode
    label_noise: float

    def coefficients(self, a: Array, of_input: bool, at_rest: bool = False) -> Array:
        """Velocity da/dt on the path, α, β and γ; shape (4, point)."""
        mode, depth, q = self.mode, self.mode.depth, self.mode.input_variance
        root = np.sqrt(depth)
        hamiltonian = ModeHamiltonian(mode, GaussianCumulants.of(mode, label_noise=self.label_noise))
        in_arc = np.zeros_like(a) if at_rest else momentum(hamiltonian, root * a, -1.0)
        total = in_arc * root  # P = dS/da; p of each layer is a D-th of it
        weight, gap = a ** (depth - 1), mode.singular_value - a**depth
        beside = total / depth * (depth - 1) * a ** (depth - 2)
        v, c = q * gap**2 + self.label_noise**2, 1 - q * total * weight * gap
        size = c**2 - q * v * (total * weight) ** 2
        extra = q * (total * weight**2) ** 2
        if not of_input:
            v, c, extra = np.full_like(a, self.label_noise**2), np.ones_like(a), np.zeros_like(a)
        return np.stack([
            hamiltonian.jet(root * a, in_arc).p / root,
            q * v * weight**2 / size,
            q * (v * weight * beside - c * weight**2) / size - mode.weight_decay,
            q * (v * beside**2 - 2 * c * weight * beside + extra) / size,
        ])  # fmt: skip


def _log_factor(path: _Path, of_input: bool) -> float:
    ends = np.array([path.mode.saddle_amplitude(), path.mode.learned_amplitude()])
    rest = path.coefficients(ends, of_input, at_rest=True)
    stationary = -2 * rest[2] / rest[1]
    # Chebyshev points. The velocity vanishes at both ends, without that zero it is smooth there
    shares = 0.5 - 0.5 * np.cos(np.pi * (np.arange(_NODES) + 0.5) / _NODES)
    length = float(ends[1] - ends[0])
    values = path.coefficients(ends[0] + length * shares, of_input)
    values[0] /= shares * (1 - shares)
    smooth = CubicSpline(shares, values, axis=1)

    def slope(share: float, state: Array) -> list[float]:
        bare, alpha, beta, gamma = smooth(share)
        velocity, k = bare * share * (1 - share) / length, state[0]
        return [(-alpha * k**2 - 2 * beta * k - gamma) / velocity, (beta + 0.5 * alpha * k) / velocity]

    start = [float(stationary[1]), 0.0]
    solved = solve_ivp(slope, (1 - _ENDS, _ENDS), start, method="LSODA", rtol=1e-9, atol=1e-11)
    return float(solved.y[1, -1] + 0.5 * np.log(stationary[0] / stationary[1]))

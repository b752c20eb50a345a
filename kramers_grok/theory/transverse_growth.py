r"""Growth of unused directions beside a state of one feature, under minibatch noise: estimates in closed form.

The growth rate itself is measured, by `kramers_grok.dynamics.growth.growth_rate`. Here is what can be said without a
simulation, for white inputs of variance q, label noise s, :math:`\varepsilon = \eta/B`, D ≥ 3 layers with d inputs and
o outputs, and one learned feature σ. :math:`S_l` is the mean square of layer l's norm, :math:`S_2` that of all inner
layers, :math:`h^2 = S_2^{D-3} S_D` the gain above the second layer.

- `noisy_background`: noise unbalances the layers. Each inner layer is one number, an outer one has d or o of them that
  all feel noise.
- `transverse_growth_rate`: to second order in the noise the used channel cancels half of what the noise does to an
  unused unit, and its own disorder gives some of it back.
- `frozen_growth_rate`: what one would get with the background held at rest. A warning, wrong even in sign.
- `mean_square_factor`: when the used channel itself goes unstable, exactly.

References
----------
Z. Wang and A. Jacot, Implicit bias of SGD in L2-regularized linear DNNs: one-way jumps from high to low rank, ICLR 2024
(arXiv:2305.16038).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import integrate, optimize

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError, NoBarrierError
from kramers_grok.theory.deep_linear import Mode

__all__ = [
    "NoisyBackground",
    "frozen_growth_rate",
    "mean_square_factor",
    "noisy_background",
    "transverse_growth_rate",
]

Array = NDArray[np.float64]

STAGES = 40  # of the way from no noise to all of it; the branch that begins at the balanced state is the one meant


def mean_square_factor(
    lr: float, batch_size: int, weight_decay: float, gain: float, *, n_inputs: int, input_variance: float = 1.0
) -> float:
    r"""Factor by which one step changes the mean square of a deviation of the first layer, the layers above at rest.

    A deviation e with gain g (eigenvalue of :math:`(W_D\cdots W_2)^T W_D\cdots W_2`; :math:`a^{2D-2}` if balanced)
    takes the step :math:`e \leftarrow (1 - \eta\lambda - \eta g\hat\Sigma_{xx})\,e`. For Gaussian inputs
    :math:`E\,\hat\Sigma_{xx}^2 = q^2\,(d + B + 1)/B`, so exactly

    .. math:: E\|e'\|^2/\|e\|^2 = (1-\eta\lambda)^2 - 2(1-\eta\lambda)\,\eta g q
              + \eta^2 g^2 q^2\,\frac{d+B+1}{B} .

    Above 1 the used channel is unstable in mean square; for λ = 0 that is :math:`\varepsilon g q\,(d+B+1) > 2`.

    Parameters
    ----------
    lr : float
        η > 0 [time].
    batch_size : int
        B.
    weight_decay : float
        λ ≥ 0.
    gain : float
        g ≥ 0.
    n_inputs : int
        d.
    input_variance : float
        q.

    Examples
    --------
    >>> round(mean_square_factor(0.02, 2, 0.0, 1.0, n_inputs=97), 9)
    0.98
    >>> mean_square_factor(0.02, 2, 0.0, 2.0, n_inputs=100) > 1
    True
    """
    eta = checks.positive("lr", lr)
    size, d = checks.positive_int("batch_size", batch_size), checks.positive_int("n_inputs", n_inputs)
    kept = 1.0 - eta * checks.non_negative("weight_decay", weight_decay)
    moved = eta * checks.non_negative("gain", gain) * checks.positive("input_variance", input_variance)
    return kept**2 - 2.0 * kept * moved + moved**2 * (d + size + 1) / size


def frozen_growth_rate(noise: float, n: int, weight_decay: float) -> float:
    r"""Growth rate of an unused unit with the background held at rest: a toy, exact as that and wrong for the network.

    With :math:`p \in \mathbb R^n` and a number v that exchange through white noise alone,
    :math:`dp = -\lambda p\,dt + \gamma v\,dB`, :math:`dv = -\lambda v\,dt + \gamma\,p\cdot dB` (Itô), the ratio
    :math:`u = v/\|p\|` has the density :math:`\propto (1-u^2)^{-(n+1)/2}\,e^{-(n-1)/(2(1-u^2))}` and

    .. math:: \Lambda = \tfrac12(n-2)\,\gamma^2\,\langle u^2\rangle - \lambda
              \;\to\; \gamma^2\sqrt n\,\frac{\Gamma(3/4)}{\Gamma(1/4)} - \lambda \qquad (n \to \infty) .

    In a network n is the number of inputs and :math:`\gamma^2 = \varepsilon q s^2 h^2`. There the used unit answers the
    same noise, and :math:`(p, v)` along it neither grows nor decays: this number has no bearing on the network.

    Parameters
    ----------
    noise : float
        γ² ≥ 0 [1/time].
    n : int
        At least 2.
    weight_decay : float
        λ ≥ 0.

    Examples
    --------
    >>> frozen_growth_rate(0.5, 2, 0.1)
    -0.1
    >>> round(frozen_growth_rate(1.0, 10**8, 0.0) / 1e4, 4)  # Γ(3/4)/Γ(1/4) = 0.33799
    0.338
    """
    strength = checks.non_negative("noise", noise)
    decay = checks.non_negative("weight_decay", weight_decay)
    count = checks.positive_int("n", n, minimum=2, why="with one weight on either side the noise only turns them")
    # Scaled so that the density has its width at 1, and 1 − u² > 0 kept as it is.
    width = min(1.0, (4.0 / count) ** 0.25)

    def density(z: float) -> float:
        left = 1.0 - (width * z) ** 2
        if left <= 0:
            return 0.0
        # By logarithms: a large power times a small exponential.
        return float(np.exp(-0.5 * (count + 1) * np.log(left) - 0.5 * (count - 1) * (1.0 / left - 1.0)))

    end = min(1.0 / width, 12.0)
    total = integrate.quad(density, 0.0, end, epsrel=1e-11)[0]
    square = integrate.quad(lambda z: (width * z) ** 2 * density(z), 0.0, end, epsrel=1e-11)[0]
    return 0.5 * (count - 2) * strength * square / total - decay


@dataclass(frozen=True)
class NoisyBackground:
    r"""State of one learned feature as minibatch noise keeps it.

    Attributes
    ----------
    squares : tuple of float
        Mean square of every layer's norm, :math:`S_1 … S_D`.
    disorder : tuple of float
        Part of :math:`S_1` and of :math:`S_D` that lies across the feature.
    order_parameter : float
    factors : tuple of float
        `mean_square_factor` of the first and of the last layer, at these norms.
    """

    squares: tuple[float, ...]
    disorder: tuple[float, float]
    order_parameter: float
    factors: tuple[float, float]

    @property
    def norms(self) -> tuple[float, ...]:
        """Root-mean-square norm of every layer."""
        return tuple(square**0.5 for square in self.squares)


def noisy_background(
    mode: Mode, *, lr: float, batch_size: int, label_noise: float, n_inputs: int, n_outputs: int
) -> NoisyBackground:
    r"""Norms of the layers with one feature learned, from the balance between noise and weight decay.

    In the diffusion limit :math:`W_{l+1}^TW_{l+1} - W_lW_l^T` decays at 2λ, whatever the gradient, and noise feeds it:

    .. math:: 2\lambda(S_1 - S_2) &= \varepsilon q s^2\,(d\,P_1 - P_2), \qquad
              2\lambda(S_D - S_2) = \varepsilon q s^2\,(o\,P_D - P_2), \qquad P_l = \prod_{k\ne l} S_k \\
              \lambda S_2 &= q\,(m\sigma - S_1 P_1) + \tfrac12\varepsilon q s^2 P_2

    with :math:`m^2 = (S_1 - N_1)(S_D - N_D)\prod(S_2 - \tilde S_2)`: what lies along the feature. Across it the first
    layer has :math:`N_1 = (d-1)\,\eta\varepsilon q s^2 P_1/(1 - f_1)` with the factor f of `mean_square_factor` at the
    gain :math:`P_1`, which is exact with the other layers at rest; the last likewise, with one input in place of d;
    an inner weight fluctuates by :math:`\tilde S_2 = \varepsilon q s^2 P_2/(2\lambda + 2qP_2)`. Of the noise's
    covariance that of the labels is kept. Norms are taken as independent of each other.

    Parameters
    ----------
    mode : Mode
        The learned feature: depth D ≥ 3, σ, λ > 0, q.
    lr, batch_size, label_noise
        η, B and s.
    n_inputs, n_outputs : int
        d and o.

    Raises
    ------
    InvalidParameterError
        If D = 2.
    NoBarrierError
        If the feature is not learned without noise, or the noise is so strong that no such state is left.

    Examples
    --------
    >>> quiet = noisy_background(
    ...     Mode(3, 2.0, 0.1), lr=0.01, batch_size=1, label_noise=0.0, n_inputs=9, n_outputs=9
    ... )
    >>> bool(np.allclose(quiet.norms, Mode(3, 2.0, 0.1).learned_amplitude()))
    True
    >>> noisy = noisy_background(
    ...     Mode(3, 2.0, 0.02), lr=0.02, batch_size=8, label_noise=1.0, n_inputs=100, n_outputs=100
    ... )
    >>> [round(norm, 2) for norm in noisy.norms]
    [2.09, 0.44, 2.09]
    """
    if mode.depth < 3:
        raise InvalidParameterError(
            f"`mode` has depth {mode.depth}, expected at least 3: with two layers unused ones grow by themselves.\n"
            "Use `Mode(depth=3, …)`."
        )
    eta, size = checks.positive("lr", lr), checks.positive_int("batch_size", batch_size)
    heat = eta / size * mode.input_variance * checks.non_negative("label_noise", label_noise) ** 2
    widths = checks.positive_int("n_inputs", n_inputs), checks.positive_int("n_outputs", n_outputs)
    balance = _Balance(mode, eta, size, heat, widths)
    z = np.full(3, 2.0 * np.log(mode.learned_amplitude()))
    for share in np.linspace(0.0, 1.0, STAGES + 1)[1:]:
        found = optimize.root(balance.gaps, z, args=(share,), tol=1e-12)
        # At the end of the branch the solver stops somewhere beside it.
        if not found.success or np.abs(found.fun).max() > 1e-8:
            raise NoBarrierError(
                f"No state with a learned feature is left at {share:.0%} of the noise, lr / batch_size = "
                f"{eta / size:.3g}: its layers are unstable, or it is forgotten.\n"
                "Use a smaller lr / batch_size, fewer inputs or a smaller weight decay."
            )
        z = found.x
    return balance.state(z)


@dataclass(frozen=True)
class _Balance:
    """Balance equations for ln S_1, ln S_2, ln S_D."""

    mode: Mode
    lr: float
    batch_size: int
    heat: float  # ε q s²
    widths: tuple[int, int]

    def _parts(self, z: Array, share: float) -> tuple[Array, Array, Array, Array]:
        """Squares and products P of first, inner and last layer; disorder and factors of first and last."""
        # The step shrinks with the noise: balanced layers may be unstable at a step that unbalanced ones bear.
        inner, lr, heat = self.mode.depth - 2, self.lr * share, self.heat * share
        squares = np.exp(z)
        whole = squares[0] * squares[1] ** inner * squares[2]
        products = whole / squares
        decay, q = self.mode.weight_decay, self.mode.input_variance
        factors = np.array([
            mean_square_factor(lr, self.batch_size, decay, products[i], n_inputs=n, input_variance=q)
            for i, n in ((0, self.widths[0]), (2, 1))
        ])  # fmt: skip
        with np.errstate(divide="ignore", invalid="ignore"):
            disorder = (np.array(self.widths) - 1) * lr * heat * products[[0, 2]] / (1.0 - factors)
        return squares, products, np.where(factors < 1, disorder, np.inf), factors

    def _order_parameter(self, squares: Array, products: Array, disorder: Array, heat: float) -> float:
        decay, q = self.mode.weight_decay, self.mode.input_variance
        spread = heat * products[1] / (2 * decay + 2 * q * products[1])
        parts = np.array([squares[0] - disorder[0], squares[1] - spread, squares[2] - disorder[1]])
        if not (parts > 0).all():
            return float("nan")
        return float(np.sqrt(parts[0] * parts[1] ** (self.mode.depth - 2) * parts[2]))

    def gaps(self, z: Array, share: float) -> Array:
        """What is missing in each of the three equations."""
        heat = share * self.heat
        squares, products, disorder, _ = self._parts(z, share)
        m = self._order_parameter(squares, products, disorder, heat)
        if not np.isfinite(m):
            return np.full(3, 1e3)
        decay, q = self.mode.weight_decay, self.mode.input_variance
        d, o = self.widths
        whole = squares[0] * products[0]
        return np.array([
            2 * decay * (squares[0] - squares[1]) - heat * (d * products[0] - products[1]),
            2 * decay * (squares[2] - squares[1]) - heat * (o * products[2] - products[1]),
            2 * decay * squares[1] - 2 * q * (m * self.mode.singular_value - whole) - heat * products[1],
        ])  # fmt: skip

    def state(self, z: Array) -> NoisyBackground:
        """The solution with its names."""
        squares, products, disorder, factors = self._parts(z, 1.0)
        m = self._order_parameter(squares, products, disorder, self.heat)
        first, inner, last = squares.tolist()
        low, high = disorder.tolist()
        below, above = factors.tolist()
        return NoisyBackground((first, *(inner,) * (self.mode.depth - 2), last), (low, high), m, (below, above))


def transverse_growth_rate(
    background: NoisyBackground,
    *,
    weight_decay: float,
    lr_over_batch: float,
    label_noise: float,
    n_inputs: int,
    n_outputs: int,
    input_variance: float = 1.0,
) -> tuple[float, float]:
    r"""Growth rate of unused units of the first and of the last hidden layer, to second order in the noise.

    .. math:: \Lambda_1 = -\lambda - \tfrac12\,\varepsilon q s^2 h^2\,\Big[1 - \frac{d\,\varepsilon s^2}{2S_2}\Big],
              \qquad h^2 = P_1/S_2,

    and for the last hidden layer o in place of d and :math:`h^2 = P_D/S_2`. The noise
    :math:`\gamma^2 = \varepsilon q s^2h^2` shrinks an unused unit at the rate γ², and half of that comes back through
    the used channel; the disorder of the outer layer, :math:`N_1/S_2 \approx d\varepsilon s^2/(2S_2)`, drives it.
    Unused units of layers between have one weight on either side and decay at :math:`-2\lambda-\gamma^2`: they never
    lead.

    It holds for :math:`\gamma^2 \ll q h^2 S_2` and :math:`N_1 \ll S_2`, where the bracket is positive. Beyond, it is
    compared with measured rates on the page on absorbing states.

    Parameters
    ----------
    background : NoisyBackground
        From `noisy_background`, or with measured squares.
    weight_decay, lr_over_batch, label_noise : float
        λ, ε and s.
    n_inputs, n_outputs : int
        d and o.
    input_variance : float
        q.

    Examples
    --------
    >>> mode, task = Mode(3, 2.0, 0.01), {"label_noise": 1.0, "n_inputs": 33, "n_outputs": 33}
    >>> background = noisy_background(mode, lr=0.0328, batch_size=4, **task)
    >>> first, last = transverse_growth_rate(background, weight_decay=0.01, lr_over_batch=0.0082, **task)
    >>> round(first, 3)
    -0.016
    """
    decay = checks.positive("weight_decay", weight_decay)
    heat = checks.positive("lr_over_batch", lr_over_batch) * checks.non_negative("label_noise", label_noise) ** 2
    q = checks.positive("input_variance", input_variance)
    first, inner, last = background.squares[0], background.squares[1], background.squares[-1]
    between = inner ** (len(background.squares) - 3)
    rates = []
    for outer, n in ((last, n_inputs), (first, n_outputs)):
        noise = heat * q * outer * between
        rates.append(-decay - 0.5 * noise * (1.0 - checks.positive_int("n", n) * heat / (2.0 * inner)))
    return rates[0], rates[1]

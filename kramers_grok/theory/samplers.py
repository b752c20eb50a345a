r"""What the sampler makes of a temperature: shuffled epochs, draws with and without replacement, on a quadratic.

Per-sample gradients :math:`\lambda\theta + g_i` with covariance C over the N samples (normalised by 1/N) move a mode of
curvature λ by :math:`\theta \leftarrow \rho\theta - \eta\xi`, :math:`\rho = 1 - \eta\lambda`, ξ the mean of the
batch's :math:`g_i`. Independent batches of B samples drawn with replacement have the variance C/B, and the stationary
variance is

.. math:: v = \frac{\eta^2 C/B}{1 - \rho^2}, \qquad T = \lambda v = \frac{\eta C}{B(2 - \eta\lambda)} .

Without replacement the batch's variance, and T, has the factor (N − B)/(N − 1). The n = ⌊N/B⌋ batches of one shuffled
epoch have that variance too, and the covariance −C/(N − 1) with each other. The first of these is white noise of
strength N/(N − 1); the negative rest is the square of a sum, :math:`G_j = (1-\rho^j)/(1-\rho)`, and after the j-th
step of an epoch

.. math::
    \frac{v_j}{v} = \frac{1}{N-1}\Big\{N - B\,(1-\rho^2)\Big[\frac{\rho^{2j}G_n^2}{1-\rho^{2n}} + G_j^2\Big]\Big\} .

With :math:`\tau = \eta N/B`, the time of an epoch, λτ ≪ 1 and small ηλ, that is (λτ)²/12 at the ends of epochs, where
the noise has all but cancelled, and λτ/3 averaged over the steps: what is left is the way there and back within each
epoch. Only the first acts on what is slower than an epoch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kramers_grok.core import checks
from kramers_grok.core.samplers import FullBatch, Sampler, ShuffledEpochs, WithoutReplacement
from kramers_grok.theory.deep_linear import Mode
from kramers_grok.theory.gradient_noise import finite_population_factor
from kramers_grok.theory.minibatch import MinibatchNoise

__all__ = ["epoch_factors", "forgetting_epoch_exponent", "sampler_factor", "stationary_variance"]

Array = NDArray[np.float64]


def epoch_factors(n_samples: int, batch_size: int, *, lr: float, curvature: float) -> Array:
    r"""Stationary variance under shuffled epochs over that under draws with replacement, after each step of an epoch.

    Parameters
    ----------
    n_samples, batch_size : int
        N and B; the N mod B samples that are left over at the end of an epoch are dropped.
    lr : float
        η > 0 [time].
    curvature : float
        λ > 0 of the mode, ηλ < 2 [loss/weight²].

    Returns
    -------
    ndarray, shape (step of the epoch,)
        After steps 1 … n of the epoch; the last is the epoch's end.

    Raises
    ------
    InvalidParameterError
        For parameters out of range, or ηλ ≥ 2, where no stationary state exists.

    Notes
    -----
    Exact for per-sample losses that are quadratic with one curvature and differ by their slopes.

    Examples
    --------
    Two samples, one a step: the second step takes back most of what the first did.

    >>> epoch_factors(2, 1, lr=0.5, curvature=1.0).round(12).tolist()
    [0.8, 0.2]
    """
    b, n = _batches(n_samples, batch_size)
    rho = 1 - _step(lr, curvature)
    steps = np.arange(1, n + 1)
    powers = rho**steps
    sums = (1 - powers) / (1 - rho)
    # Of the epochs before, still remembered, and of this epoch so far
    remembered = powers**2 * sums[-1] ** 2 / (1 - powers[-1] ** 2)
    return np.asarray((n_samples - b * (1 - rho**2) * (remembered + sums**2)) / max(n_samples - 1, 1))


def sampler_factor(
    sampler: Sampler, *, n_samples: int, batch_size: int, lr: float, curvature: float, at_epoch_ends: bool = False
) -> float:
    r"""Stationary temperature of a quadratic mode relative to independent draws with replacement; exact.

    Parameters
    ----------
    sampler : Sampler
        `WithReplacement` 1, `WithoutReplacement` (N − B)/(N − 1), `ShuffledEpochs` about λτ/3, `FullBatch` 0; an
        online teacher's samplers 1.
    n_samples, batch_size : int
        N and B.
    lr : float
        η > 0 [time].
    curvature : float
        λ > 0 of the mode, ηλ < 2 [loss/weight²].
    at_epoch_ends : bool
        Seen at the ends of shuffled epochs only, where it is about (λτ)²/12: the temperature that motion slower than
        an epoch feels. Otherwise averaged over all steps.

    Returns
    -------
    float

    Raises
    ------
    InvalidParameterError
        As `epoch_factors`.

    Examples
    --------
    An epoch of λτ = 0.08 in 100 steps; averaged over it about λτ/3 = 0.0267, at its end about (λτ)²/12 = 0.00053.

    >>> case = {"n_samples": 1000, "batch_size": 10, "lr": 0.0016, "curvature": 0.5}
    >>> factors = [sampler_factor(ShuffledEpochs(), **case, at_epoch_ends=ends) for ends in (False, True)]
    >>> [round(f, 6) for f in factors]
    [0.026176, 0.000534]
    """
    b, _ = _batches(n_samples, batch_size)
    _step(lr, curvature)
    if isinstance(sampler, FullBatch):
        return 0.0
    if isinstance(sampler, WithoutReplacement):
        return finite_population_factor(n_samples, b)
    if isinstance(sampler, ShuffledEpochs):
        factors = epoch_factors(n_samples, b, lr=lr, curvature=curvature)
        return float(factors[-1] if at_epoch_ends else factors.mean())
    return 1.0


def stationary_variance(variance: float, *, lr: float, curvature: float) -> float:
    r"""Stationary variance :math:`\eta^2 V/(1 - (1-\eta\lambda)^2)` of a mode under independent noise of variance V.

    Parameters
    ----------
    variance : float
        V ≥ 0 of one step's gradient, for batches drawn with replacement C/B.
    lr, curvature : float
        As in `epoch_factors`.

    Returns
    -------
    float    [weight²]
        Times the curvature it is the temperature :math:`\eta V/(2-\eta\lambda)`.

    Raises
    ------
    InvalidParameterError
        As `epoch_factors`, or for a negative variance.

    Examples
    --------
    >>> round(stationary_variance(0.3, lr=0.1, curvature=2.0), 5)
    0.00833
    """
    noise, step = checks.non_negative("variance", variance), _step(lr, curvature)
    return lr * noise / (curvature * (2 - step))


def forgetting_epoch_exponent(mode: Mode, noise: MinibatchNoise, *, epoch: float) -> float:
    r"""Logarithm :math:`2L^2/\tau` of the factor by which shuffled epochs slow the loss of a learned feature.

    Parameters
    ----------
    mode : Mode
        The balanced mode, between whose learned state and saddle :math:`L = \int dx/\sqrt{2\mathcal D}` is taken in arc
        length, :math:`\mathcal D = \tfrac\varepsilon2 c(m)\,D\,a^{2D-2}`.
    noise : MinibatchNoise
        Of independent draws.
    epoch : float
        Its duration τ = ηN/B [time].

    Returns
    -------
    float
        First order in the way's duration over the epoch's: trust it where it is small against the exponent itself.
        Beyond that it says that the escape is rarer by far.

    Raises
    ------
    InvalidParameterError
        For an epoch ≤ 0, or noise that vanishes on the way.
    NoBarrierError
        If D = 2 or λ is at or above the spinodal.

    Examples
    --------
    >>> from kramers_grok.theory.gradient_noise import GaussianResidualVariance
    >>> mode = Mode(depth=3, singular_value=1.0, weight_decay=0.44)
    >>> noise = MinibatchNoise(0.1 / 16, GaussianResidualVariance(1.0, label_noise=0.5))
    >>> round(forgetting_epoch_exponent(mode, noise, epoch=25.6), 3)
    3.509
    """
    duration = checks.positive("epoch", epoch)
    bottom, top = mode.saddle_amplitude(), mode.learned_amplitude()
    nodes, weights = np.polynomial.legendre.leggauss(60)
    a = bottom + 0.5 * (top - bottom) * (nodes + 1)
    diffusion = noise.strength(a**mode.depth) * mode.depth * a ** (2 * mode.depth - 2)
    if diffusion.min() <= 0:
        raise checks.invalid("noise", noise, "positive on the way to the saddle", "without noise nothing escapes")
    length = 0.5 * (top - bottom) * mode.depth**0.5 * float(weights @ (2 * diffusion) ** -0.5)
    return float(2 * length**2 / duration)


def _batches(n_samples: int, batch_size: int) -> tuple[int, int]:
    """Batch size and number of batches of an epoch."""
    n, b = checks.positive_int("n_samples", n_samples), checks.positive_int("batch_size", batch_size)
    if b > n:
        raise checks.invalid(
            "batch_size", b, f"at most n_samples = {n}", "an epoch must hold a batch", "Use a smaller batch."
        )
    return b, n // b


def _step(lr: float, curvature: float) -> float:
    step = checks.positive("lr", lr) * checks.positive("curvature", curvature)
    if step >= 2:
        raise checks.invalid(
            "lr", lr, f"lr · curvature < 2, here {step:.3g}", "beyond that each step overshoots further",
            f"Use `lr={0.1 / curvature:.3g}`.",
        )  # fmt: skip
    return step

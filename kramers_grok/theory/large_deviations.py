r"""What the diffusion limit of SGD leaves out: all cumulants of the per-sample gradient beyond the second.

At fixed :math:`\varepsilon = \eta/B` SGD takes :math:`1/\varepsilon` samples per unit time, each a kick of size
:math:`\varepsilon`, whatever η is: shot noise. Rare events then cost :math:`e^{S/\varepsilon}` with
:math:`S = \int p\,da` along the solution :math:`p \ne 0` of

.. math:: H(a, p) = \log \mathbb E\, e^{-p\,g(a)} = 0,

g the gradient of one sample. The diffusion limit keeps H to second order in p, hence
:math:`p = 2\bar g/\operatorname{Var} g`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.polynomial.legendre import leggauss
from scipy.optimize import brentq

from kramers_grok.core import checks
from kramers_grok.theory.deep_linear import Mode

__all__ = ["ForgettingActions", "forgetting_actions"]


@dataclass(frozen=True)
class ForgettingActions:
    r"""Actions S of forgetting a learned feature, time ~ :math:`e^{S/\varepsilon}`.

    Attributes
    ----------
    sgd : float
        From all cumulants [loss · time].
    diffusion : float
        From the first two.
    """

    sgd: float
    diffusion: float

    def departure(self, lr_over_batch: float) -> float:
        """Factor by which the diffusion limit's time is too short, to exponential order."""
        ratio = checks.positive("lr_over_batch", lr_over_batch)
        return float(np.exp((self.sgd - self.diffusion) / ratio))


def forgetting_actions(mode: Mode, *, label_noise: float, n_nodes: int = 40) -> ForgettingActions:
    r"""Actions of leaving the learned state over the barrier by minibatch noise alone (balanced mode, Gaussian inputs).

    With :math:`w = a^{D-1}`, :math:`x \sim N(0, q)` and :math:`y = \sigma x + s n`:

    .. math:: H(a,p) = -p\lambda a - \tfrac12\log\!\big(1 - 2pwq(\sigma-m) - p^2w^2qs^2\big).

    Parameters
    ----------
    mode : Mode
    label_noise : float
        s > 0.
    n_nodes : int
        Gauss–Legendre nodes of the integral over a.

    Raises
    ------
    NoBarrierError
        If there is no barrier.

    Notes
    -----
    Source: quasi-potentials of Markov chains with small jumps, Freidlin & Wentzell, *Random Perturbations of
    Dynamical Systems*, chapter 5.

    Examples
    --------
    >>> actions = forgetting_actions(Mode(3, 1.0, 0.44), label_noise=0.5)
    >>> print(f"{actions.departure(0.1 / 16):.4f}")
    1.4082
    """
    s = checks.positive("label_noise", label_noise)
    saddle, learned = mode.saddle_amplitude(), mode.learned_amplitude()
    nodes, weights = leggauss(checks.positive_int("n_nodes", n_nodes))
    half = 0.5 * (learned - saddle)
    momenta = np.array([_momenta(mode, s, a) for a in saddle + half * (nodes + 1)])
    sgd, diffusion = half * weights @ momenta
    return ForgettingActions(sgd=float(sgd), diffusion=float(diffusion))


def _momenta(mode: Mode, s: float, a: float) -> tuple[float, float]:
    """−p of SGD and of its diffusion limit, positive between saddle and learned state."""
    q, m, w = mode.input_variance, a**mode.depth, a ** (mode.depth - 1)
    pull = q * (mode.singular_value - m) * w
    variance, decay = q * s**2 * w**2, mode.weight_decay * a

    def hamiltonian(t: float) -> float:
        return float(t * decay - 0.5 * np.log(1 + 2 * t * pull - t**2 * variance))

    diffusion = 2 * (pull - decay) / (variance + 2 * pull**2)
    end = (pull + np.sqrt(pull**2 + variance)) / variance  # H → ∞ there; H is convex, 0 at 0 and falls at first
    low = 1e-3 * min(diffusion, end)
    root: float = brentq(hamiltonian, low, end * (1 - 1e-12), xtol=1e-14, rtol=1e-14)
    return root, float(diffusion)

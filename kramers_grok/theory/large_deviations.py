r"""SGD's own quasi-potential: what the diffusion limit leaves out, all cumulants of the per-sample gradient.

At fixed :math:`\varepsilon = \eta/B` SGD takes :math:`1/\varepsilon` samples per unit time, each a kick of size
:math:`\varepsilon`, whatever η is: shot noise. Rare events then cost :math:`e^{S/\varepsilon}` with
:math:`S = \int p\,dx` along the solution :math:`p \ne 0` of

.. math:: H(x, p) = \log \mathbb E\, e^{-p\,g(x)} = 0,

g the gradient of one sample. The diffusion limit keeps H to second order in p, hence
:math:`p = 2\bar g/\operatorname{Var} g`. The prefactor follows from the next order in ε (`action_law`). Derived in the
chapter on large deviations; in more dimensions `kramers_grok.theory.minimum_action`.

Notes
-----
Freidlin & Wentzell, *Random Perturbations of Dynamical Systems*, chapter 5 (quasi-potentials of Markov chains with
small jumps).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.theory.action_cumulants import GaussianCumulants, SampleCumulants
from kramers_grok.theory.action_line import (
    HamiltonianJet,
    LineHamiltonian,
    ModeHamiltonian,
    QuasiPotential,
    momentum,
    quasi_potential,
)
from kramers_grok.theory.deep_linear import Mode

__all__ = [
    "ActionLaw",
    "ActionLaws",
    "ForgettingActions",
    "HamiltonianJet",
    "LineHamiltonian",
    "ModeHamiltonian",
    "QuasiPotential",
    "action_law",
    "forgetting_actions",
    "forgetting_laws",
    "learning_laws",
    "momentum",
    "quasi_potential",
]


@dataclass(frozen=True)
class ActionLaw:
    r"""Mean exit time of SGD at small ε, with its prefactor.

    .. math:: \tau = \tau_0\,e^{B\beta}\,e^{S/\varepsilon}\,[1 + O(\varepsilon)]

    to the far side of the barrier; to its top half of that.

    Attributes
    ----------
    action : float
        S [loss · time].
    prefactor : float
        :math:`\tau_0` [time], of samples that come one at a time in a stream without steps.
    batch_exponent : float
        β: at fixed ε = η/B the step η = Bε grows with B, and multiplies the time by :math:`e^{B\beta}`.

    Notes
    -----
    The correction O(ε) is 2 % for a feature forgotten in :math:`10^{10}`. Where rare large samples do the work, in
    learning against weak isotropic noise (λ = 0.44, s = 0.5, g² = 0.01), it is not small at any time that could be
    simulated: β is 0.55 there, the prefactor 1800, and at S/ε = 16 the exact time is 0.13 of the law. The action holds.
    """

    action: float
    prefactor: float
    batch_exponent: float

    def log_mean(self, lr_over_batch: float, batch_size: int | None = None) -> float:
        """Logarithm of `mean`, which overflows at S/ε beyond 700."""
        ratio = checks.positive("lr_over_batch", lr_over_batch)
        batch = 0 if batch_size is None else checks.positive_int("batch_size", batch_size)
        return float(self.action / ratio + np.log(self.prefactor) + batch * self.batch_exponent)

    def mean(self, lr_over_batch: float, batch_size: int | None = None) -> float:
        """Mean time to the far side [time]; without a batch size in the limit of small steps (a diffusion's)."""
        return float(np.exp(self.log_mean(lr_over_batch, batch_size)))


def action_law(
    hamiltonian: LineHamiltonian, minimum: float, saddle: float, *, n_saddles: int = 1, n_nodes: int = 40
) -> ActionLaw:
    r"""Action and prefactor of leaving a minimum over a saddle, for the chain of batches whose samples have H.

    The stationary density is :math:`A\,e^{-S/\varepsilon}`; the next order in ε of one step of B samples is the
    transport equation

    .. math:: A'H_p + A\big[H_{xp} + \tfrac12S''H_{pp} - \tfrac B2S''H_p^2\big] = 0, \qquad p = S'(x),

    and the layer at the saddle gives

    .. math:: \tau = \frac{2\pi}{\mu_s}\sqrt{\frac{|S''_s|}{S''_0}}\;\frac{A_0}{A_s}\;e^{S/\varepsilon},
              \qquad S'' = -2H_{xp}/H_{pp}\ \text{at both ends},

    :math:`\mu_s = H_{xp}(x_s,0)` the drift's slope there. For a diffusion A is 1/H_pp, and this is Kramers' formula.

    Parameters
    ----------
    hamiltonian : LineHamiltonian
    minimum, saddle : float
        Zeros of the drift, stable and unstable, and none in between.
    n_saddles : int
        Number of equivalent saddles.
    n_nodes : int
        Gauss–Legendre nodes.

    Returns
    -------
    ActionLaw

    Raises
    ------
    InvalidParameterError
        If the two points are no minimum and saddle, or the action is infinite.

    Notes
    -----
    Source: Matkowsky, Schuss, Knessl, Tier & Mangel, Phys. Rev. A 29, 3359 (1984), for Markov processes with small
    jumps; here for the chain of batches.
    """
    ends = hamiltonian.jet(np.array([minimum, saddle]), np.zeros(2))
    if not ends.xp[0] < 0 < ends.xp[1]:
        raise InvalidParameterError(
            f"The drift's slopes at minimum = {minimum:.6g} and saddle = {saddle:.6g} are {ends.xp[0]:.3g} and "
            f"{ends.xp[1]:.3g}, expected < 0 and > 0: a minimum is stable, a saddle is not.\n"
            "Swap them, or use `hamiltonian.forgetting()`."
        )
    path = quasi_potential(hamiltonian, minimum, saddle, n_nodes=n_nodes)
    jet = hamiltonian.jet(path.x, path.p)
    if np.abs(jet.value).max() > 1e-6:
        raise InvalidParameterError(
            "The momentum is within rounding of the limit beyond which E exp(−p g) is infinite: the action is known "
            "there, the prefactor is not.\nUse `quasi_potential(...)`, or a larger `noise_variance`."
        )
    bend = -jet.x / jet.p  # S'' along H(x, S'(x)) = 0
    log_amplitude = -float(path.weights @ ((jet.xp + 0.5 * bend * jet.pp) / jet.p))  # ln A_s/A_0 as B → 0
    step_term = 0.5 * float(path.weights @ (bend * jet.p))
    curvatures = 2 * np.abs(ends.xp) / ends.pp
    kramers = 2 * np.pi / float(ends.xp[1]) * float(np.sqrt(curvatures[1] / curvatures[0]))
    return ActionLaw(
        action=path.action,
        prefactor=kramers * float(np.exp(-log_amplitude)) / checks.positive_int("n_saddles", n_saddles),
        batch_exponent=-step_term,
    )


@dataclass(frozen=True)
class ActionLaws:
    """Small-noise laws of one escape: SGD's own and that of its diffusion limit.

    Attributes
    ----------
    sgd : ActionLaw
        From all cumulants.
    diffusion : ActionLaw
        From the first two.
    """

    sgd: ActionLaw
    diffusion: ActionLaw

    def departure(self, lr_over_batch: float, batch_size: int = 1) -> float:
        """Mean time of SGD over that of its diffusion limit in continuous time, prefactors included."""
        log_ratio = self.sgd.log_mean(lr_over_batch, batch_size) - self.diffusion.log_mean(lr_over_batch)
        return float(np.exp(log_ratio))


def forgetting_laws(mode: Mode, samples: SampleCumulants, *, noise_variance: float = 0.0) -> ActionLaws:
    """Small-noise laws of losing a learned feature, mean times to the far side of the barrier.

    Parameters
    ----------
    mode : Mode
    samples : SampleCumulants
    noise_variance : float
        g² of isotropic noise on every sample's gradient.

    Returns
    -------
    ActionLaws

    Raises
    ------
    NoBarrierError
        If there is no barrier.

    Examples
    --------
    At ε = 0.1/16 the exact chain takes 2640.6, the exact diffusion 1873.0, 1.41 times less:

    >>> laws = forgetting_laws(Mode(3, 1.0, 0.44), GaussianCumulants(1.0, label_noise=0.5))
    >>> print(f"{laws.sgd.mean(0.1 / 16, 16):.1f} {laws.diffusion.mean(0.1 / 16):.1f}")
    2348.6 1641.9
    """
    hamiltonian = ModeHamiltonian(mode, samples, noise_variance)
    ends = hamiltonian.forgetting()
    return ActionLaws(action_law(hamiltonian, *ends), action_law(hamiltonian.two(), *ends))


def learning_laws(mode: Mode, samples: SampleCumulants, *, noise_variance: float) -> ActionLaws:
    """Small-noise laws of learning a feature, mean times to the far side of the barrier.

    Parameters
    ----------
    mode : Mode
    samples : SampleCumulants
    noise_variance : float
        g² > 0: minibatch noise alone vanishes at the unlearned state, which is then absorbing.

    Returns
    -------
    ActionLaws

    Raises
    ------
    InvalidParameterError
        For g² ≤ 0.
    NoBarrierError
        If there is no barrier.
    """
    why = "minibatch noise alone vanishes at the unlearned state, which is absorbing without it"
    hamiltonian = ModeHamiltonian(mode, samples, checks.positive("noise_variance", noise_variance, why))
    ends, n_saddles = hamiltonian.learning(), mode.barrier().multiplicity
    return ActionLaws(
        action_law(hamiltonian, *ends, n_saddles=n_saddles), action_law(hamiltonian.two(), *ends, n_saddles=n_saddles)
    )


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

    Parameters
    ----------
    mode : Mode
    label_noise : float
        s > 0.
    n_nodes : int
        Gauss–Legendre nodes of the integral.

    Raises
    ------
    NoBarrierError
        If there is no barrier.

    Examples
    --------
    >>> actions = forgetting_actions(Mode(3, 1.0, 0.44), label_noise=0.5)
    >>> print(f"{actions.departure(0.1 / 16):.4f}")
    1.4082
    """
    label_noise = checks.positive("label_noise", label_noise)
    hamiltonian = ModeHamiltonian(mode, GaussianCumulants.of(mode, label_noise=label_noise))
    sgd, diffusion = (
        quasi_potential(h, *h.forgetting(), n_nodes=n_nodes).action for h in (hamiltonian, hamiltonian.two())
    )
    return ForgettingActions(sgd=sgd, diffusion=diffusion)

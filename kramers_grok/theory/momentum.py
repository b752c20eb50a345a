r"""SGD with momentum as Langevin dynamics with inertia: what its numbers mean.

Without its velocity the heavy ball (v ← βv + (1 − δ)g, θ ← θ − ηv) is a recursion of second order,

.. math:: \frac{\theta_{k+1} - 2\theta_k + \theta_{k-1}}{h^2} = -\nabla L(\theta_k) - \frac{1-\beta}{h}\,
          \frac{\theta_k - \theta_{k-1}}{h} + \text{noise}, \qquad h = \sqrt{\eta(1-\delta)},

a particle of unit mass whose clock advances by h at each step, with friction :math:`\gamma = (1-\beta)/h`. Gradient
noise of variance g²/B makes the temperature :math:`T = \eta(1-\delta)g^2/(2B(1-\beta))`. Overdamped, positions move by
gradient descent with the long-run learning rate :math:`\eta(1-\delta)/(1-\beta)`, that much time a step.
Temperature *and* diffusion of a free particle, T/γ, are exact at any β, though each step removes a finite share of
the velocity: the limit is that of small :math:`\eta U''` alone. In a quadratic well of curvature k the temperature is

.. math:: \frac{k\langle\theta^2\rangle}{T} = \Big[1 - \frac{\eta(1-\delta)\,k}{2(1+\beta)}\Big]^{-1},

exactly. Nesterov's version takes the gradient where the velocity leads. Its friction gains :math:`\eta\beta k/h`, and
steep directions are colder:

.. math:: \frac{k\langle\theta^2\rangle}{T} = \frac{2(1-\beta)\,[1+\beta+\eta\beta(1+2\beta)k]}
          {[1-\beta+\eta\beta k]\,[2(1+\beta)-\eta(1+2\beta)k]}.

References
----------
B. T. Polyak, USSR Comput. Math. Math. Phys. 4, 1 (1964); S. Mandt, M. D. Hoffman and D. M. Blei, J. Mach. Learn. Res.
18, 134 (2017) (arXiv:1704.04289), section 4.3; L. Liu et al., Noise and fluctuation of finite learning rate stochastic
gradient descent (arXiv:2012.03636).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import solve_discrete_lyapunov

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError

__all__ = ["HeavyBall", "heavy_ball"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class HeavyBall:
    r"""SGD with momentum, read as a particle with inertia.

    Parameters
    ----------
    lr : float
        η > 0.
    momentum : float
        β in [0, 1); 0 is plain gradient descent, whose friction 1/√η takes all velocity at each step.
    dampening : float
        δ in [0, 1).
    nesterov : bool
        As in `torch.optim.SGD`: moves by g + βv; needs δ = 0.

    Raises
    ------
    InvalidParameterError
        For numbers out of range.

    Examples
    --------
    >>> ball = HeavyBall(lr=0.01, momentum=0.9)
    >>> [round(v, 12) for v in (ball.step, ball.friction, ball.long_run_lr)]
    [0.1, 1.0, 0.1]
    >>> round(ball.temperature(0.4, batch_size=8), 12)
    0.0025
    """

    lr: float
    momentum: float
    dampening: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        checks.positive("lr", self.lr)
        for name in ("momentum", "dampening"):
            if not 0 <= checks.finite(name, getattr(self, name)) < 1:
                raise checks.invalid(name, getattr(self, name), "a number in [0, 1)", "it is the share that is kept")
        if self.nesterov and self.dampening:
            raise checks.invalid("dampening", self.dampening, "0 with `nesterov`", "it looks ahead along the velocity")

    @property
    def step(self) -> float:
        """Time of the particle with inertia in one step, h = √(η(1 − δ)) [time]."""
        return math.sqrt(self.lr * (1 - self.dampening))

    @property
    def friction(self) -> float:
        """Friction γ = (1 − β)/h at unit mass [1/time]."""
        return (1 - self.momentum) / self.step

    @property
    def long_run_lr(self) -> float:
        """Overdamped time in one step, h/γ = η(1 − δ)/(1 − β) [time]."""
        return self.step / self.friction

    def temperature(self, noise_variance: float, batch_size: float = 1) -> float:
        """Temperature η(1 − δ)g²/(2B(1 − β)) of gradient noise of variance g² in every sample [loss].

        Parameters
        ----------
        noise_variance : float
            g² [gradient²].
        batch_size : float

        Returns
        -------
        float
            [loss]
        """
        noise = checks.non_negative("noise_variance", noise_variance)
        return self.long_run_lr * noise / (2 * checks.positive("batch_size", batch_size))

    def noise_variance_for(self, temperature: float, batch_size: float = 1) -> float:
        """Variance g² of every sample's gradient noise that makes a temperature.

        Parameters
        ----------
        temperature : float
            [loss]
        batch_size : float

        Returns
        -------
        float
            [gradient²]
        """
        heat = checks.non_negative("temperature", temperature)
        return 2 * checks.positive("batch_size", batch_size) * heat / self.long_run_lr

    def temperature_factor(self, curvature: ArrayLike) -> Array:
        r"""Exact :math:`k\langle\theta^2\rangle/T` in quadratic wells of the given curvatures; 1 for small ηk.

        Parameters
        ----------
        curvature : array_like
            [loss/weight²]

        Returns
        -------
        array, the shape of `curvature`

        Examples
        --------
        >>> HeavyBall(0.1, 0.9).temperature_factor([1e-9, 1.9]).round(6).tolist()
        [1.0, 1.052632]
        """
        k = checks.finite_array("curvature", curvature)
        if not np.all((k > 0) & (k < self.stability_limit)):
            raise checks.invalid(
                "curvature", k.tolist(), f"numbers in (0, {self.stability_limit:.4g})", "no stationary state otherwise"
            )
        # An ARMA(2, 1) recursion; its variance in closed form.
        now, before = self._gains
        one, two = 1 + self.momentum - now * k, -self.momentum + before * k
        square = (1 - two) * (now**2 + before**2) - 2 * one * now * before
        variance = square / ((1 + two) * ((1 - two) ** 2 - one**2))
        return np.asarray(2 * k * variance / self.long_run_lr)

    @property
    def stability_limit(self) -> float:
        """Curvature at which a quadratic well becomes unstable: 2(1 + β)/(η(1 − δ)), for Nesterov 2(1+β)/(η(1+2β))."""
        now, before = self._gains
        return 2 * (1 + self.momentum) / (now + before)

    @property
    def _gains(self) -> tuple[float, float]:
        """What the gradients of this and of the last step do: θ'' = … − a g + b g_before."""
        if self.nesterov:
            return self.lr * (1 + self.momentum), self.lr * self.momentum
        return self.lr * (1 - self.dampening), 0.0

    def stationary_covariance(self, hessian: ArrayLike, noise_covariance: ArrayLike) -> Array:
        r"""Exact stationary covariance of the weights in a quadratic well, from the discrete Lyapunov equation.

        Parameters
        ----------
        hessian : array_like, shape (parameter, parameter)
            H, symmetric and positive definite.
        noise_covariance : array_like, shape (parameter, parameter)
            Covariance of the *batch's* gradient noise, C/B; it need not commute with H.

        Returns
        -------
        array, shape (parameter, parameter)

        Raises
        ------
        InvalidParameterError
            If the shapes differ or the recursion is unstable.

        Examples
        --------
        >>> HeavyBall(0.1, 0.5).stationary_covariance([[2.0]], [[1.0]]).round(9).tolist()
        [[0.053571429]]
        """
        h, c = (checks.finite_array(n, v, ndim=2) for n, v in (("hessian", hessian), ("noise", noise_covariance)))
        n = len(h)
        if h.shape != (n, n) or c.shape != (n, n):
            raise InvalidParameterError(
                f"`hessian` and `noise_covariance` have shapes {h.shape} and {c.shape}, expected two square ones alike."
            )
        # State (θ, v) before a step; v' = βv + (1−δ)(Hθ + ξ), θ' = θ − η(v' or Hθ + ξ + βv').
        share, eye = 1 - self.dampening, np.eye(n)
        direct, lead = (1.0, self.momentum) if self.nesterov else (0.0, 1.0)
        velocity = np.hstack([share * h, self.momentum * eye])
        position = np.hstack([eye - self.lr * direct * h, 0 * eye]) - self.lr * lead * velocity
        drive = np.vstack([-self.lr * (direct + lead * share) * eye, share * eye])
        matrix = np.vstack([position, velocity])
        radius = float(np.abs(np.linalg.eigvals(matrix)).max())
        if radius >= 1:
            raise InvalidParameterError(
                f"`hessian` reaches {np.linalg.eigvalsh(h).max():.4g}, expected less than {self.stability_limit:.4g} "
                f"and more than 0: the recursion is unstable.\nUse a smaller `lr` than {self.lr:g}."
            )
        return np.asarray(solve_discrete_lyapunov(matrix, drive @ c @ drive.T)[:n, :n])


def heavy_ball(optimizer: Any, lr: float) -> HeavyBall:
    """Read an optimizer object with momentum, `dynamics.optimizers.Momentum` or gradient descent, as a particle.

    Raises
    ------
    InvalidParameterError
        For decoupled weight decay, which acts on the weights and not through the velocity.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> heavy_ball(SimpleNamespace(momentum=0.75, dampening=0.0, nesterov=False), lr=0.04).friction
    1.25
    """
    if getattr(optimizer, "decoupled", False):
        raise InvalidParameterError(
            f"`optimizer` = {optimizer} decays weights beside the velocity, expected coupled decay: the loss is then "
            "one landscape.\nUse `decoupled=False`."
        )
    return HeavyBall(
        lr,
        float(getattr(optimizer, "momentum", 0.0)),
        float(getattr(optimizer, "dampening", 0.0)),
        bool(getattr(optimizer, "nesterov", False)),
    )

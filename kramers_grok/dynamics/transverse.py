r"""Growth rate of what minibatches do not shake, for any network: is a set that SGD cannot leave also approached?

In a set that is invariant under every minibatch (`kramers_grok.landscape.symmetries.invariant_sets`) training is caught
once it is there exactly. Whether it is caught *beside* it is decided by the transverse Lyapunov exponent

.. math:: \Lambda = \lim_{t\to\infty}\frac1t\,\ln\frac{\|P_\perp\theta'_t\|}{\|P_\perp\theta'_0\|}

of a second network θ′ that starts at an infinitesimal distance off the set and sees the *same batches* as the one in
it: below 0 the set absorbs, above 0 the smallest amplitude grows as :math:`e^{\Lambda t}`. Noise moves Λ both ways:
multiplicative noise makes directions decay that the full batch lets grow, and an unbalanced background the reverse.

The distance is a small finite one that is set back every few steps (Benettin's method). No derivative is needed, so
activation functions with a kink (ReLU at a dead unit: homogeneous, not linear) are followed as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.rng import Purpose
from kramers_grok.core.vocabulary import describe
from kramers_grok.dynamics import lyapunov, torch_noise
from kramers_grok.dynamics.lyapunov import BLOCKS, EVERY, BlockRates
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.landscape.symmetries.invariant_sets import InvariantSet

__all__ = ["transverse_growth"]

Array = NDArray[np.float64]

AMPLITUDE = 1e-6  # distance off the set, in units of the state's norm


def transverse_growth(
    process: SGD,
    around: InvariantSet,
    *,
    n_steps: int,
    n_replicas: int,
    seed: int,
    burn_in: int | None = None,
    n_exponents: int = 1,
    confidence: float = 0.99,
) -> xr.Dataset:
    r"""Measure how fast training leaves, or falls into, a set that minibatches cannot leave.

    Parameters
    ----------
    process : SGD
        Of any network: plain gradient descent, constant hyperparameters, minibatches as the only noise, float64.
    around : InvariantSet
        Found by `invariant_set` on the same network; backgrounds start at its point.
    n_steps : int
        Steps over which growth is measured; rounded up to a whole number of blocks.
    n_replicas : int
        Independent replicas, at least 8.
    seed : int
        Key of all noise.
    burn_in : int, optional
        Steps before. Default: 4/(ηλ).
    n_exponents : int
        How many exponents, fastest first. More than one make sense where networks are smooth across the set. Rotations
        of a used into an unused unit of a *linear* network neither grow nor decay: exponents 0 that mean nothing.
    confidence : float
        Of the intervals and the verdict, over the exponents together (Bonferroni).

    Returns
    -------
    Dataset
        Along `exponent`: `growth_rate` Λ [1/time], `growth_rate_error`, `growth_rate_lower`, `growth_rate_upper`;
        `block_growth_rate` (exponent, replica, block). `verdict`: "absorbing" if the fastest is below 0, "escapable" if
        it is above 0, "undecided" if its interval holds 0. `background_norm` (replica, block) is the norm of the
        background's weights over that of the state: where it falls the state does not last, and the rate is that of
        what it turned into. The standard error is the larger of that over replicas and that over blocks of time.
        Attributes: `codimension`, `order`, `n_diverged`, and the settings.

    Raises
    ------
    InvalidParameterError
        For another optimizer or other noise, changing hyperparameters, a set of another network, or one that is the
        whole space.
    DivergedError
        If more than a quarter of the backgrounds left the finite numbers: which, and by which step.

    Warns
    -----
    ValidityWarning
        If backgrounds left the finite numbers (they are left out), or growth in the first and in the second half
        differ: the background had not settled, or leaves its state.

    References
    ----------
    G. Benettin, L. Galgani, A. Giorgilli and J.-M. Strelcyn, Meccanica 15, 9 (1980). E. Ott and J. C. Sommerer,
    Blowout bifurcations, Phys. Lett. A 188, 39 (1994): the sign of this exponent.

    Examples
    --------
    >>> from kramers_grok.landscape.symmetries.invariant_sets import invariant_set
    >>> from kramers_grok.models.activations import Tanh
    >>> from kramers_grok.models.data import linear_teacher_data
    >>> from kramers_grok.models.mlp import MLP
    >>> data = linear_teacher_data([2.0, 1.0], n_samples=64, label_noise=0.5, seed=0)
    >>> network = MLP.from_data(data, (3, 3), Tanh(), weight_decay=0.1)
    >>> unlearned = invariant_set(network, np.zeros(network.n_parameters), seed=0)
    >>> sgd = SGD(network, data, lr=0.1, batch_size=2)
    >>> found = transverse_growth(sgd, unlearned, n_steps=256, n_replicas=8, seed=0)
    >>> str(found.verdict.item()), round(float(found.growth_rate[0]), 4)  # ln(1 − ηλ)/η, whatever the noise
    ('absorbing', -0.1005)
    """
    _check(process, around)
    count = checks.positive_int("n_exponents", n_exponents)
    if count > around.codimension:
        raise checks.invalid("n_exponents", count, f"at most {around.codimension}", "so many directions lie across it")
    level = checks.fraction("confidence", confidence)
    replicas = lyapunov.replicas(n_replicas)
    each = -(-checks.positive_int("n_steps", n_steps) // (BLOCKS * EVERY))
    settle = lyapunov.settling(process, burn_in)
    run = _Run(process, around, replicas, count, checks.seed(seed))
    run.advance(-(-settle // EVERY))
    blocks = [run.advance(each) for _ in range(BLOCKS)]
    kept = run.kept()
    growth = np.stack([block[0] for block in blocks], axis=-1)[:, kept] / (each * EVERY * float(process.lr))
    norms = np.stack([block[1] for block in blocks], axis=-1)[kept]
    dataset = _dataset(growth, norms, level)
    return dataset.assign_attrs(
        codimension=around.codimension, order=around.order, n_diverged=int((~kept).sum()), n_replicas=replicas,
        n_steps=each * EVERY * BLOCKS, burn_in=settle, confidence=level, seed=seed, lr=float(process.lr),
        batch_size=int(process.batch_size), weight_decay=float(process.weight_decay),
        sampler=type(process.sampler).__name__,
    )  # fmt: skip


def _check(process: SGD, around: InvariantSet) -> None:
    if process.model.n_parameters != around.n_parameters:
        raise InvalidParameterError(
            f"`around` has {around.n_parameters} parameters and the network {process.model.n_parameters}, expected a "
            "set of the same network.\nUse `invariant_set(process.model, point, data=process.data, seed=0)`."
        )
    if not around.codimension:
        raise InvalidParameterError(
            "`around` is the whole space, expected a set that minibatches cannot leave: they shake every direction at "
            "this state, and none is there to grow or decay by itself.\n"
            "The state is not absorbing; its escape is activated, or none is needed (`kg.first_passage`)."
        )
    lyapunov.check_training(process)
    if process.dtype != torch.float64:
        raise checks.invalid("dtype", process.dtype, "torch.float64", "a distance of 1e-6 has to stand above rounding")


class _Run:
    """Backgrounds in the set, and copies of each just off it that see the same batches."""

    def __init__(self, process: SGD, around: InvariantSet, n_replicas: int, count: int, seed: int) -> None:
        self.process, self.n, self.count = process, n_replicas, count
        point = torch.as_tensor(around.point).to(process.device)
        self.across = torch.as_tensor(around.transverse).to(process.device)
        self.scale = max(float(point.norm()), 1.0)
        self.amplitude = AMPLITUDE * self.scale
        streams = torch.arange(n_replicas, dtype=torch.int64, device=process.device)
        state = process.start(n_replicas * (count + 1), seed=seed, point=point.expand(n_replicas * (count + 1), -1))
        numbers = around.codimension * count
        draws = torch_noise.normals(seed, Purpose.INJECTED, streams, 0, max(numbers, 3), dtype=process.dtype)
        # Copy c of replica r is row (c + 1)·n + r: one stream of batches for all of them.
        self.state = replace(state, streams=streams.repeat(count + 1))
        self.background = point.expand(n_replicas, -1).clone()
        self._place(draws.narrow(1, 0, numbers).reshape(n_replicas, around.codimension, count))

    def _place(self, directions: Tensor) -> Tensor:
        """Put the copies off the backgrounds along directions (replica, across, copy); logarithms of their lengths."""
        whole, triangle = torch.linalg.qr(directions.nan_to_num(0.0, 0.0, 0.0))
        signs = triangle.diagonal(dim1=1, dim2=2)
        # QR leaves signs free; a direction keeps its own, for networks that are not smooth across the set.
        whole = whole * torch.where(signs < 0, -1.0, 1.0).unsqueeze(1)
        off = torch.matmul(whole.permute(2, 0, 1), self.across.T) * self.amplitude
        theta = torch.cat([self.background.unsqueeze(0), self.background.unsqueeze(0) + off]).flatten(0, 1)
        self.state = replace(self.state, theta=theta)
        logarithms: Tensor = signs.abs().log()
        return logarithms

    def advance(self, n_times: int) -> tuple[Array, Array]:
        """Take `EVERY` steps so many times; logarithms of the growth (exponent, replica), relative norms (replica,)."""
        growth = torch.zeros(self.n, self.count, dtype=torch.float64, device=self.across.device)
        norms = torch.zeros(self.n, dtype=torch.float64, device=self.across.device)
        for _ in range(n_times):
            self.state, _record = self.process.advance(self.state, EVERY)
            rows = self.state.theta.reshape(self.count + 1, self.n, -1)
            off = torch.matmul(rows[1:], self.across) / self.amplitude
            # Rounding alone is off the set: the background stays in it.
            self.background = rows[0] - torch.matmul(torch.matmul(rows[0], self.across), self.across.T)
            growth += self._place(off.permute(1, 2, 0))
            norms += self.background.norm(dim=1) / self.scale
        self._check()
        return growth.T.cpu().numpy(), (norms / max(n_times, 1)).cpu().numpy()

    def kept(self) -> NDArray[np.bool_]:
        """Which backgrounds are finite; warns where some are not."""
        finite: NDArray[np.bool_] = self.background.isfinite().all(dim=1).cpu().numpy()
        lyapunov.warn_left_out(~finite, "left the finite numbers", self.state.step)
        return finite

    def _check(self) -> None:
        lyapunov.check_finite(
            self.background.isfinite().all(dim=1).cpu().numpy(),
            self.state.step,
            meaning="growth beside them means nothing",
            fix="Use a smaller lr / batch_size.",
        )


def _dataset(growth: Array, norms: Array, level: float) -> xr.Dataset:
    """Rates and errors from growth (exponent, replica, block)."""
    rates = BlockRates.of(growth, level)
    fastest_low, fastest_high = rates.growth_rate_lower[0], rates.growth_rate_upper[0]
    verdict = "absorbing" if fastest_high < 0 else "escapable" if fastest_low > 0 else "undecided"
    values = rates.variables("exponent") | {"verdict": ((), verdict)}
    variables: dict[str, tuple[object, ...]] = {n: (d, value, describe(n)) for n, (d, value) in values.items()}
    variables |= {
        "background_norm": (
            ("replica", "block"),
            norms,
            {"units": "1", "long_name": "norm of the background over the state's"},
        ),
    }
    number: Mapping[str, str] = {"units": "1", "long_name": "number of the exponent, fastest first"}
    coords = {
        "exponent": ("exponent", 1 + np.arange(growth.shape[0]), number),
        "block": ("block", np.arange(growth.shape[2])),
    }
    return xr.Dataset(variables, coords=coords)

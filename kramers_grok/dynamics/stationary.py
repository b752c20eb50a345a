r"""Stationary temperature of SGD around a minimum: measured, and predicted for its sampler.

A run that stays near a minimum fills each eigendirection of the Hessian with a variance v; the mode's curvature λ times
it is a temperature,

.. math:: T = \lambda v = \frac{\eta}{B(2-\eta\lambda)}\big(f\,e^T C e + e^T C_h e + g^2\big)

for noise that does not change over the spread, with the per-sample covariances of
`kramers_grok.dynamics.noise_temperature` and the sampler's factor f of `kramers_grok.theory.samplers`. One batch cannot
tell f under shuffled epochs; only a run does.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from torch import Tensor

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.vocabulary import describe
from kramers_grok.dynamics.noise_temperature import gradient_variances, on_device, one_step
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.models.data import FiniteData
from kramers_grok.theory.samplers import sampler_factor, stationary_variance

__all__ = ["hessian_modes", "stationary_temperature"]

Array = NDArray[np.float64]
RELAXED = 4.0  # relaxation times before measuring: a variance that starts at 0 has then all but e⁻⁸ of its value
EIGEN = 1e-3  # largest share of H·e that may point elsewhere


def hessian_modes(process: SGD, point: ArrayLike) -> tuple[Array, Array]:
    """Curvatures and eigendirections of the mean loss at a point.

    Parameters
    ----------
    process : SGD
        Its weight decay counts, its optimizer does not.
    point : array_like, shape (parameter,)

    Returns
    -------
    curvatures : ndarray, shape (mode,)
        Ascending [loss/weight²]; 0 along rotations of hidden units.
    directions : ndarray, shape (mode, parameter)
        Unit vectors, one a row.

    Raises
    ------
    InvalidParameterError
        For points of another shape, and processes with activation noise or several learning rates.

    Examples
    --------
    >>> from kramers_grok.models.data import population
    >>> from kramers_grok.theory.deep_linear import DeepLinearChain
    >>> process = SGD(DeepLinearChain(3, 1.0, 0.25), population(), lr=0.1)
    >>> hessian_modes(process, [0.0, 0.0, 0.0])[0].tolist()
    [0.25, 0.25, 0.25]
    """
    theta, _ = on_device(process, point, np.eye(process.model.n_parameters)[:1])
    _refuse(process)

    def loss(row: Tensor) -> Tensor:
        return process.model.energy(row.unsqueeze(0)).squeeze(0)

    hessian = torch.autograd.functional.hessian(loss, theta)  # type: ignore[no-untyped-call]
    own = float(getattr(process.system, "weight_decay", 0.0))
    array = hessian.cpu().numpy() + (float(process.weight_decay) - own) * np.eye(len(theta))
    curvatures, vectors = np.linalg.eigh(0.5 * (array + array.T))
    return curvatures, np.ascontiguousarray(vectors.T)


def stationary_temperature(
    process: SGD,
    point: ArrayLike,
    directions: ArrayLike,
    *,
    n_steps: int,
    n_replicas: int,
    seed: int,
    burn_in: int | None = None,
    confidence: float = 0.95,
) -> xr.Dataset:
    r"""Measure the temperature of a run around a minimum, curvature times variance, beside its prediction.

    Parameters
    ----------
    process : SGD
        Plain gradient descent with one learning rate and batch size, without activation noise.
    point : array_like, shape (parameter,)
        The minimum; every replica begins there.
    directions : array_like, shape (direction, parameter) or (parameter,)
        Eigendirections of the Hessian with positive curvature, see `hessian_modes`.
    n_steps : int
        Steps to measure at, rounded up to whole epochs.
    n_replicas : int
        At least 4: the interval comes from their scatter, which no autocorrelation narrows.
    seed : int
    burn_in : int, optional
        Steps before; by default four relaxation times of the softest direction. Rounded up to whole epochs.
    confidence : float
        Of the intervals.

    Returns
    -------
    Dataset
        Along `seen` ("every step", "epoch end") and `direction`: `stationary_temperature` with its `_lower` and
        `_upper` end [loss], `predicted_stationary_temperature` [loss], and their ratio (NaN without noise); along
        `direction` `curvature` and `sampler_factor` (for every step). Independent batches have epochs of one step. The
        variance is about the mean over all steps and replicas, so a minimum that noise shifts is no temperature. Under
        shuffled epochs only what is seen at their ends acts on motion slower than an epoch.

    Raises
    ------
    InvalidParameterError
        If shapes do not fit, a direction is no eigendirection or not bound (curvature > 0), a step overshoots
        (lr · curvature ≥ 2), hyperparameters change or differ between replicas, the optimizer is not plain gradient
        descent, or activations are noisy.

    Examples
    --------
    >>> from kramers_grok.core.noise import per_sample
    >>> from kramers_grok.models.data import population
    >>> from kramers_grok.theory.deep_linear import DeepLinearChain
    >>> process = SGD(DeepLinearChain(3, 1.0, 0.25), population(), lr=0.1, noise=per_sample(variance=0.002))
    >>> found = stationary_temperature(process, [0, 0, 0], [1, 0, 0], n_steps=200, n_replicas=400, seed=0)
    >>> found.predicted_stationary_temperature[0].round(9).item()  # η g²/2 = 1e-4, and 1/(1 − ηλ/2) for the step
    0.000101266
    >>> bool(abs(found.stationary_temperature_ratio[0] - 1) < 0.1)
    True
    """
    lr, size, injected = one_step(process)
    theta, along = on_device(process, point, directions)
    curvatures = _curvatures(process, theta, along)
    if lr * curvatures.max() >= 2:
        raise checks.invalid(
            "lr", lr, f"lr · curvature < 2, here {lr * curvatures.max():.3g}", "beyond that no state is stationary",
            f"Use `process.replace(lr={0.1 / curvatures.max():.3g})`.",
        )  # fmt: skip
    epoch = process.period
    count = checks.positive_int("n_steps", n_steps)
    replicas = checks.positive_int("n_replicas", n_replicas, minimum=4, why="the interval comes from their scatter")
    level = checks.fraction("confidence", confidence)
    relax = math.ceil(RELAXED / (lr * curvatures.min()))
    before = relax if burn_in is None else checks.positive_int("burn_in", burn_in, minimum=0)
    start = process.start(replicas, seed=seed, point=theta.cpu().numpy())
    state, _ = process.advance(start, math.ceil(before / epoch) * epoch)
    sums = _Sums(theta, along)
    for _ in range(math.ceil(count / epoch)):
        for step in range(epoch):
            state, _ = process.advance(state, 1)
            sums.add(state.theta, at_end=step == epoch - 1)
    squares = sums.squares() * curvatures
    reach = stats.t.isf(0.5 * (1 - level), replicas - 1) / replicas**0.5
    measured, spread = squares.mean(axis=1), squares.std(axis=1, ddof=1)
    between, within = gradient_variances(process, theta, along)
    factors = _factors(process, size, lr, curvatures)
    unit = np.array([stationary_variance(1.0, lr=lr, curvature=c) * c for c in curvatures])
    predicted = unit * (factors * between + within + injected) / size
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(predicted > 0, measured / predicted, np.nan)
    values = {
        "stationary_temperature": measured,
        "stationary_temperature_lower": measured - reach * spread,
        "stationary_temperature_upper": measured + reach * spread,
        "predicted_stationary_temperature": predicted,
        "stationary_temperature_ratio": ratio,
    }
    single = {"curvature": curvatures, "sampler_factor": factors[0]}
    return xr.Dataset(
        {name: (("seen", "direction"), value, describe(name)) for name, value in values.items()}
        | {name: ("direction", value, describe(name)) for name, value in single.items()},
        coords={
            "seen": ("seen", ["every step", "epoch end"], describe("seen")),
            "direction": ("direction", np.arange(len(along)), describe("direction")),
            "lr": ((), lr, describe("lr")),
            "batch_size": ((), size, describe("batch_size")),
        },
        attrs={"n_replicas": replicas, "confidence": level, "sampler": type(process.sampler).__name__},
    )


class _Sums:
    """Projections of the replicas, summed up at every step and at the ends of epochs; no path is kept."""

    def __init__(self, point: Tensor, along: Tensor) -> None:
        self.point, self.along = point, along
        self.steps = [0, 0]
        self.first: list[Tensor | float] = [0.0, 0.0]
        self.second: list[Tensor | float] = [0.0, 0.0]

    def add(self, theta: Tensor, *, at_end: bool) -> None:
        projection = (theta - self.point) @ self.along.T
        for seen in range(1 + at_end):
            self.steps[seen] += 1
            self.first[seen] = self.first[seen] + projection
            self.second[seen] = self.second[seen] + projection**2

    def squares(self) -> Array:
        """Mean square distance from the mean of all replicas, (seen, replica, direction)."""
        rows = []
        for n, first, second in zip(self.steps, self.first, self.second, strict=True):
            assert isinstance(first, Tensor)
            assert isinstance(second, Tensor)
            mean = first.mean(dim=0) / n
            rows.append(second / n - 2 * mean * first / n + mean**2)
        return np.asarray(torch.stack(rows).cpu().numpy())


def _refuse(process: SGD) -> None:
    if process.activation_noise is not None:
        raise InvalidParameterError(
            "`activation_noise` is given, expected none: it changes the mean loss, whose minimum and curvatures are "
            "then not the model's.\nUse `gradient_noise_temperature` for its noise at a point."
        )


def _curvatures(process: SGD, theta: Tensor, along: Tensor) -> Array:
    """Curvatures along eigendirections, which `along` is checked to hold."""
    curvatures, modes = hessian_modes(process, theta.cpu().numpy())
    shares = along.cpu().numpy() @ modes.T
    moved = shares * curvatures
    own = (moved * shares).sum(axis=1)
    rest = np.linalg.norm(moved - own[:, None] * shares, axis=1)
    for index, (curvature, stray) in enumerate(zip(own, rest, strict=True)):
        if curvature <= 1e-9 * curvatures.max() or stray > EIGEN * curvature:
            raise checks.invalid(
                "directions", checks.Described(f"number {index} of curvature {curvature:.3g}, H·e off by {stray:.3g}"),
                "eigendirections of the Hessian with positive curvature",
                "others mix temperatures, and unbound ones never become stationary",
                "Use rows of `hessian_modes(process, point)[1]`, at the minimum itself.",
            )  # fmt: skip
    return np.asarray(own)


def _factors(process: SGD, size: int, lr: float, curvatures: Array) -> Array:
    """The sampler's factor seen at every step and at the ends of epochs, (seen, direction)."""
    if not isinstance(process.data, FiniteData):
        return np.ones((2, len(curvatures)))
    sampler = process.sampler
    n = process.data.n_samples
    rows = [
        [
            sampler_factor(sampler, n_samples=n, batch_size=size, lr=lr, curvature=c, at_epoch_ends=ends)
            for c in curvatures
        ]
        for ends in (False, True)
    ]
    return np.array(rows)

r"""Temperature of the gradient noise along chosen directions: measured from batches, and from per-sample gradients.

One step of SGD moves :math:`-\eta\hat g` in the time η, so along a unit vector e its noise diffuses like Langevin noise
of temperature

.. math:: T_e = \tfrac\eta2 \operatorname{Var}(e\cdot\hat g) = \frac{\eta}{2B}\big(f\, e^T C e + e^T C_h e + g^2\big)

with C the covariance of per-sample gradients between samples, C_h what activation noise adds within one, g² the
injected per-sample variance, and the sampler's factor f: 1 for independent samples, (N − B)/(N − 1) without
replacement, 0 for a full batch.
"""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from torch import Tensor

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.rng import Purpose
from kramers_grok.core.vocabulary import describe
from kramers_grok.dynamics import torch_noise
from kramers_grok.dynamics.activation import batches_and_gradient
from kramers_grok.dynamics.optimizers import GradientDescent
from kramers_grok.dynamics.sampling import FullBatch, ShuffledEpochs, WithoutReplacement
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.models.base import SampleModel
from kramers_grok.models.data import FiniteData, OnlineTeacher
from kramers_grok.models.layers import LinearModel, layers_of, product_of
from kramers_grok.theory.activation_noise import data_gradient_variance, gaussian_gradient_covariance
from kramers_grok.theory.gradient_noise import finite_population_factor

__all__ = ["gradient_noise_temperature", "gradient_variances", "on_device", "one_step", "per_sample_variance"]

Array = NDArray[np.float64]
CHUNK = 512  # batches or samples at once: their moments are d × d each


def gradient_noise_temperature(
    process: SGD, theta: ArrayLike, directions: ArrayLike, *, n_batches: int, seed: int, confidence: float = 0.95
) -> xr.Dataset:
    r"""Measure the temperature of SGD's gradient noise at a point, and compare it with η c/(2B).

    Parameters
    ----------
    process : SGD
        Plain gradient descent with one learning rate and batch size.
    theta : array_like, shape (parameter,)
        Where.
    directions : array_like, shape (direction, parameter) or (parameter,)
        Along what; of any length but 0.
    n_batches : int
        Batches to draw, at least 8; their own noise streams under `seed`.
    seed : int
        Not the seed of a run that is to be compared, or its first batches are drawn again.
    confidence : float
        Of the intervals.

    Returns
    -------
    Dataset
        Along `direction`: `noise_temperature` with `noise_temperature_lower` and `_upper` [loss],
        `predicted_noise_temperature` [loss], which uses no batch, and their ratio (NaN without noise). The interval is
        that of a χ² variance whose degrees of freedom, :math:`2n/(\kappa - 1)`, are taken from the measured kurtosis:
        gradients of small batches are not normal. It takes some hundred batches; a thousand if they hold one sample.

    Raises
    ------
    InvalidParameterError
        If shapes do not fit, a direction is 0, hyperparameters change or differ between replicas, the optimizer is not
        plain gradient descent, or batches are cut from shuffled epochs, which are anticorrelated.

    Examples
    --------
    >>> from kramers_grok.models.data import population
    >>> from kramers_grok.core.noise import per_sample
    >>> from kramers_grok.theory.deep_linear import DeepLinearChain
    >>> process = SGD(DeepLinearChain(3, 1.0, 0.25), population(), lr=0.1, batch_size=4, noise=per_sample(variance=0.8))
    >>> result = gradient_noise_temperature(process, [0.5, 0.5, 0.5], [1.0, 0.0, 0.0], n_batches=1000, seed=0)
    >>> result.predicted_noise_temperature.round(12).item(), bool(abs(result.noise_temperature_ratio - 1) < 0.2)
    (0.01, True)
    """
    if isinstance(process.sampler, ShuffledEpochs):
        raise InvalidParameterError(
            "`sampler` = ShuffledEpochs(), expected independent batches: those of an epoch are anticorrelated, and "
            "slow directions feel far less noise than one batch has.\nUse `sampler=WithoutReplacement()`, or measure "
            "what they make of it with `stationary_temperature`."
        )
    lr, size, variance = one_step(process)
    point, along = on_device(process, theta, directions)
    count = checks.positive_int("n_batches", n_batches, minimum=8, why="a variance is measured from them")
    level = checks.fraction("confidence", confidence)
    projections = _batches(process, point, along, size, variance, count, checks.seed(seed)).cpu().numpy()
    measured = projections.var(axis=0, ddof=1)
    lower, upper = _interval(projections, measured, level)
    between, within = gradient_variances(process, point, along)
    predicted = (_sampler_factor(process, size) * between + within + variance) / size
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(predicted > 0, measured / predicted, np.nan)
    values = {
        "noise_temperature": 0.5 * lr * measured,
        "noise_temperature_lower": 0.5 * lr * lower,
        "noise_temperature_upper": 0.5 * lr * upper,
        "predicted_noise_temperature": 0.5 * lr * predicted,
        "noise_temperature_ratio": ratio,
    }
    return xr.Dataset(
        {name: ("direction", value, describe(name)) for name, value in values.items()},
        coords={
            "direction": ("direction", np.arange(len(along)), describe("direction")),
            "lr": ((), lr, describe("lr")),
            "batch_size": ((), size, describe("batch_size")),
        },
        attrs={"n_batches": count, "confidence": level, "sampler": type(process.sampler).__name__},
    )


def one_step(process: SGD) -> tuple[float, int, float]:
    """Learning rate, batch size and injected per-sample variance, where each is one number."""
    if not isinstance(process.optimizer, GradientDescent):
        raise InvalidParameterError(
            f"`optimizer` = {process.optimizer}, expected GradientDescent: only there is the temperature η c/(2B).\n"
            "Use `process.replace(optimizer=GradientDescent())` to look at the gradients alone."
        )
    given = {"lr": process.lr, "batch_size": process.batch_size, "noise_variance": process.noise_variance}
    for name, value in given.items():
        if not isinstance(value, int | float):
            raise InvalidParameterError(
                f"`{name}` changes or differs between replicas, expected one number: a temperature is one point's.\n"
                "Use `process.replace(lr=0.1, batch_size=8)` for the step in question."
            )
    return float(process.lr), int(process.batch_size), float(process.noise_variance)


def on_device(process: SGD, theta: ArrayLike, directions: ArrayLike) -> tuple[Tensor, Tensor]:
    """The point (parameter,) and unit vectors (direction, parameter) on the device."""
    n = process.model.n_parameters
    arrays = {"theta": checks.finite_array("theta", theta, ndim=1)}
    arrays["directions"] = np.atleast_2d(checks.finite_array("directions", directions))
    for name, array in arrays.items():
        if array.ndim > 2 or array.shape[-1] != n:
            raise checks.invalid(
                name, checks.Described(f"array of shape {array.shape}"), f"{n} numbers in a row", "weights of the model"
            )
    lengths = np.linalg.norm(arrays["directions"], axis=1, keepdims=True)
    if not lengths.all():
        raise checks.invalid("directions", "a zero vector", "vectors of length > 0")
    unit = arrays["directions"] / lengths
    like = torch.empty(0, dtype=process.dtype, device=process.device)
    return torch.as_tensor(arrays["theta"]).to(like), torch.as_tensor(unit).to(like)


def _batches(process: SGD, point: Tensor, along: Tensor, size: int, variance: float, count: int, seed: int) -> Tensor:
    """Gradients of batches along directions, with the injected noise; (batch, direction)."""
    batches, model = batches_and_gradient(
        process.model, process.data, size, process.sampler, point, process.activation_noise
    )
    source = batches.of(size)
    rows = []
    for begin in range(0, count, CHUNK):
        streams = torch.arange(begin, min(begin + CHUNK, count), dtype=torch.int64, device=point.device)
        xx, yx, _ = source.moments(seed, streams, 0, source.buffers(len(streams)))
        gradient = model.data_gradient(point.expand(len(streams), -1), xx, yx)
        if variance:
            xi = torch_noise.normals(seed, Purpose.INJECTED, streams, 0, len(point), dtype=point.dtype)
            gradient = gradient + (variance / size) ** 0.5 * xi
        rows.append(gradient @ along.T)
    return torch.cat(rows)


def _interval(projections: Array, measured: Array, confidence: float) -> tuple[Array, Array]:
    """Confidence interval of variances: χ² with the degrees of freedom that the kurtosis leaves."""
    n = len(projections)
    gap = projections - projections.mean(axis=0)
    square = (gap**2).mean(axis=0)
    kurtosis = ((gap / np.sqrt(np.where(square > 0, square, 1.0))) ** 4).mean(axis=0)
    degrees = (n - 1) * np.clip(2 / np.maximum(kurtosis - 1, 1e-12), None, 1.0)
    tail = 0.5 * (1 - confidence)
    return measured * degrees / stats.chi2.isf(tail, degrees), measured * degrees / stats.chi2.ppf(tail, degrees)


def _sampler_factor(process: SGD, size: int) -> float:
    """Variance of a batch's mean relative to independent samples."""
    if isinstance(process.data, FiniteData):
        if isinstance(process.sampler, FullBatch):
            return 0.0
        if isinstance(process.sampler, WithoutReplacement):
            return finite_population_factor(process.data.n_samples, size)
    return 1.0


def per_sample_variance(process: SGD, point: Tensor, along: Tensor) -> Array:
    r"""Return :math:`e^T C e`, the variance of per-sample gradients without the injected noise, shape (direction,).

    Finite data: over the samples, normalised by 1/N. Online: with :math:`P = \partial W/\partial\theta \cdot e` and the
    symmetric part K of :math:`P^T(W - M)`, exactly

    .. math:: \operatorname{Var} = 2\operatorname{tr}(K\Sigma_{xx}K\Sigma_{xx}) + s^2\operatorname{tr}(P\Sigma_{xx}P^T).

    Activation noise is in it, see `kramers_grok.theory.activation_noise`.
    """
    between, within = gradient_variances(process, point, along)
    return between + within


def gradient_variances(process: SGD, point: Tensor, along: Tensor) -> tuple[Array, Array]:
    """Variance of per-sample gradients between samples, and of one sample's by activation noise, (direction,) each."""
    none = np.zeros(len(along))
    if process.activation_noise is not None:
        return _noisy(process, point, along)
    if isinstance(process.data, FiniteData):
        return _over_samples(process, process.data, point, along), none
    if not isinstance(process.data, OnlineTeacher):
        return none, none
    model = process.model
    if not isinstance(model, LinearModel):
        raise InvalidParameterError(
            f"A {type(model).__name__} has no end-to-end map known here, expected a network of the package.\n"
            "Use finite data, whose samples are counted one by one."
        )
    slopes = _slopes(model, point, along)
    xx = model.input_covariance
    gap = product_of(model, point.unsqueeze(0))[0].cpu().numpy() - model.teacher_matrix
    product = np.einsum("aod,oe->ade", slopes, gap)
    moved = 0.5 * (product + product.swapaxes(1, 2)) @ xx
    labels = np.einsum("aod,de,aoe->a", slopes, xx, slopes)
    return np.asarray(2 * np.einsum("ade,aed->a", moved, moved) + process.data.label_noise**2 * labels), none


def _noisy(process: SGD, point: Tensor, along: Tensor) -> tuple[Array, Array]:
    """`gradient_variances` with noisy activations; online samples are never drawn twice, and need no split."""
    model, noise = process.model, process.activation_noise
    assert isinstance(model, LinearModel)
    assert noise is not None
    layers = [w[0].cpu().numpy() for w in layers_of(model, point.unsqueeze(0))]
    directions = [w.cpu().numpy() for w in layers_of(model, along)]
    if isinstance(process.data, FiniteData):
        return data_gradient_variance(layers, directions, process.data.x, process.data.y, variance=noise.variance)
    assert isinstance(process.data, OnlineTeacher)
    covariance = gaussian_gradient_covariance(
        layers, directions, teacher_matrix=model.teacher_matrix, input_covariance=model.input_covariance,
        label_noise=process.data.label_noise, variance=noise.variance,
    )  # fmt: skip
    return np.diag(covariance).copy(), np.zeros(len(along))


def _slopes(model: LinearModel, point: Tensor, along: Tensor) -> Array:
    """∂W/∂θ · e of every direction, (direction, output, input): the gradient is linear in Σ̂_yx, with slope −P."""
    o, d = model.n_outputs, model.n_inputs
    basis = torch.eye(o * d, dtype=point.dtype, device=point.device).reshape(-1, o, d)
    rows = []
    for part in torch.split(basis, CHUNK):
        nothing = torch.zeros(len(part), d, d, dtype=point.dtype, device=point.device)
        rows.append(model.data_gradient(point.expand(len(part), -1), nothing, -part) @ along.T)
    return np.asarray(torch.cat(rows).T.reshape(-1, o, d).cpu().numpy(), dtype=np.float64)


def _over_samples(process: SGD, data: FiniteData, point: Tensor, along: Tensor) -> Array:
    """Variance over the samples of a data set, each a batch of its own."""
    model, rows = process.model, []
    x, y = (torch.as_tensor(a).to(point) for a in (data.x, data.y))
    for inputs, targets in zip(torch.split(x, CHUNK), torch.split(y, CHUNK), strict=True):
        points = point.expand(len(inputs), -1)
        if isinstance(model, SampleModel):
            gradient = model.sample_gradient(points, inputs.unsqueeze(1), targets.unsqueeze(1))
        else:
            xx, yx = inputs.unsqueeze(2) * inputs.unsqueeze(1), targets.unsqueeze(2) * inputs.unsqueeze(1)
            gradient = model.data_gradient(points, xx, yx)
        rows.append(gradient @ along.T)
    return np.asarray(torch.cat(rows).cpu().numpy().var(axis=0), dtype=np.float64)

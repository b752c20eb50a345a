r"""Minibatch noise as a stochastic differential equation: SGD in its diffusion limit.

.. math:: d\theta = -\nabla F\,dt + \sqrt{\varepsilon\,C(\theta)}\;dW + \sqrt{2T}\,dW', \qquad \varepsilon = \eta/B,

with C the covariance of the per-sample gradients at θ (Itô). No covariance matrix of gradients is ever formed: one
backward pass is one draw of the noise. On finite data it is :math:`N^{-1/2}\sum_i (v_i-\bar v)\,g_i` with v standard
normal, a backward pass in which sample i has the weight :math:`v_i-\bar v`; a nonlinear network does just that. The
gradient of a linear network is linear in the second moments of what it sees, and *fluctuations of the moments* do the
same:

- finite data: :math:`\delta_{xx} = N^{-1/2}\sum_i (v_i-\bar v)\,x_i x_i^T`, likewise
  :math:`\delta_{yx}` with :math:`y_i x_i^T`;
- an online Gaussian teacher, :math:`x\sim N(0,\Sigma)`, :math:`y = Mx + s\,n`: the Gaussian limit of the moments'
  fluctuations, :math:`\delta_{xx} = \Sigma^{1/2} S\,\Sigma^{1/2}` and
  :math:`\delta_{yx} = M\delta_{xx} + s\,G\,\Sigma^{1/2}`, with S symmetric of variance 2 on the diagonal and 1 beside
  it (as :math:`zz^T` of a standard normal z) and G standard normal.

One Euler–Maruyama step with dt = η has the mean and the covariance of one SGD step, to rounding: in it
:math:`\Sigma_{xx} + \sqrt{\varepsilon/dt}\,\delta_{xx}` takes the place of the batch's moment. What it does not have
are the batch's higher cumulants.

Li, Tai & E (2019), *Stochastic modified equations and dynamics of stochastic gradient algorithms*; Li, Malladi & Arora
(2021), *On the validity of modeling SGD with stochastic differential equations*.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.rng import Purpose
from kramers_grok.dynamics import torch_noise
from kramers_grok.dynamics.optimizers import GradientDescent
from kramers_grok.dynamics.sampling import FullBatch, ShuffledEpochs, WithoutReplacement, check_finite, teacher_of
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.models.base import BatchModel, SampleModel, WeightedModel
from kramers_grok.models.data import FiniteData, OnlineTeacher
from kramers_grok.theory.gradient_noise import finite_population_factor

__all__ = ["MinibatchSDE", "Minibatches", "MomentFluctuations", "NoisyGradient", "fluctuations", "noisy_gradient"]


@dataclass(frozen=True)
class Minibatches:
    r"""The minibatches whose noise `Langevin` is to have: covariance :math:`\varepsilon f\,C(\theta)` per unit time.

    Parameters
    ----------
    data : OnlineTeacher or FiniteData
        Where batches come from.
    lr_over_batch : float
        :math:`\varepsilon = \eta/B > 0` [time/sample].
    population_factor : float
        f ≥ 0, the variance of a batch's mean relative to independent samples: 1 with replacement or online,
        `finite_population_factor` for batches drawn without replacement.

    Raises
    ------
    InvalidParameterError
        For data that make no minibatch noise, or numbers out of range.

    Examples
    --------
    >>> from kramers_grok.models.data import teacher
    >>> Minibatches(teacher(label_noise=0.5), lr_over_batch=0.1 / 16)
    Minibatches(data=OnlineTeacher(label_noise=0.5), lr_over_batch=0.00625, population_factor=1.0)
    """

    data: OnlineTeacher | FiniteData
    lr_over_batch: float
    population_factor: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.data, OnlineTeacher | FiniteData):
            raise InvalidParameterError(
                f"`data` is a {type(self.data).__name__}, expected an online teacher or finite data: only they have "
                "minibatches, and so noise.\nUse `teacher(label_noise=0.1)`, or leave `minibatch` out."
            )
        for name, check in (("lr_over_batch", checks.positive), ("population_factor", checks.non_negative)):
            object.__setattr__(self, name, check(name, getattr(self, name)))

    @classmethod
    def of(cls, process: SGD) -> Minibatches:
        """Return the minibatches of a training process: its diffusion limit.

        Isotropic per-sample noise is not in them; it is the `temperature` of Langevin dynamics.

        Parameters
        ----------
        process : SGD

        Raises
        ------
        InvalidParameterError
            For a full batch, which has no minibatch noise; if a hyperparameter changes or differs between replicas, the
            optimizer is not plain gradient descent, activations are noisy, or batches are cut from shuffled epochs:
            those are anticorrelated, which no diffusion with this covariance is.

        Examples
        --------
        >>> from kramers_grok.models.data import teacher
        >>> from kramers_grok.theory.deep_linear import DeepLinearChain
        >>> sgd = SGD(DeepLinearChain(3, 1.0, 0.25), teacher(label_noise=0.5), lr=0.1, batch_size=8)
        >>> Minibatches.of(sgd).lr_over_batch
        0.0125
        """
        if not isinstance(process.optimizer, GradientDescent) or isinstance(process.sampler, ShuffledEpochs):
            raise InvalidParameterError(
                f"`process` has optimizer = {process.optimizer} and sampler = {process.sampler}, expected plain "
                "gradient descent on independent batches: others have another diffusion limit.\n"
                "Use `process.replace(optimizer=GradientDescent(), sampler=WithoutReplacement())`."
            )
        if isinstance(process.sampler, FullBatch):
            raise InvalidParameterError(
                "`process` sees the full batch at every step, expected minibatches: it has no noise of its own.\n"
                "Leave `minibatch` out, or use `process.replace(batch_size=8, sampler=WithReplacement())`."
            )
        if process.activation_noise is not None:
            raise InvalidParameterError(
                f"`activation_noise` = {process.activation_noise}, expected None: it belongs to the per-sample "
                "gradients, whose covariance is known here without it.\n"
                "Use `process.replace(activation_noise=None)`."
            )
        size = process.batch_size
        if not isinstance(size, int):
            raise checks.invalid("batch_size", checks.Described("a schedule"), "one number", "the noise is one point's")
        factor = 1.0
        if isinstance(process.data, FiniteData) and isinstance(process.sampler, WithoutReplacement):
            factor = finite_population_factor(process.data.n_samples, size)
        return cls(process.data, process.dt / size, factor)  # type: ignore[arg-type]  # population data: raises


class MomentFluctuations(Protocol):
    """Standard normal numbers → a fluctuation of the second moments with one sample's covariance."""

    @property
    def n_channels(self) -> int:
        """Number of normal numbers."""
        ...

    def __call__(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return δΣ_xx (replica, d, d) and δΣ_yx (replica, o, d) of `v` (replica, channel), linear in it."""
        ...


class TeacherFluctuations:
    """Of an online Gaussian teacher's samples: d(d+1)/2 channels for the inputs, o·d for the labels."""

    def __init__(self, model: BatchModel, label_noise: float, like: Tensor) -> None:
        self.teacher = teacher_of(model, like)
        self.label_noise = label_noise
        outputs, inputs = self.teacher.matrix.shape
        self.n_inputs = inputs * (inputs + 1) // 2
        self.n_channels = self.n_inputs + outputs * inputs
        # Where each entry of the symmetric matrix comes from, and its standard deviation
        source = np.zeros((inputs, inputs), dtype=np.int64)
        rows, columns = np.tril_indices(inputs)
        source[rows, columns] = source[columns, rows] = np.arange(self.n_inputs)
        self.source = torch.as_tensor(source.ravel()).to(like.device)
        self.scale = torch.as_tensor(1.0 + (2**0.5 - 1) * np.eye(inputs)).to(like)

    def __call__(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return the fluctuations; see `MomentFluctuations`."""
        (outputs, inputs), n = self.teacher.matrix.shape, len(v)
        root = self.teacher.root.expand(n, -1, -1)
        symmetric = v.index_select(1, self.source).reshape(n, inputs, inputs) * self.scale
        xx = torch.bmm(torch.bmm(root, symmetric), root)
        yx = torch.bmm(self.teacher.matrix.expand(n, -1, -1), xx)
        if self.label_noise:
            labels = v.narrow(1, self.n_inputs, outputs * inputs).reshape(n, outputs, inputs)
            yx = yx + self.label_noise * torch.bmm(labels, root)
        return xx, yx


class SampleFluctuations:
    """Of a finite data set's samples: one channel for each, the weight of its own gradient."""

    def __init__(self, data: FiniteData, like: Tensor) -> None:
        self.x, self.y = torch.as_tensor(data.x).to(like), torch.as_tensor(data.y).to(like)
        self.n_channels = data.n_samples

    def __call__(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return the fluctuations; see `MomentFluctuations`."""
        weights = (v - v.mean(dim=1, keepdim=True)) / self.n_channels**0.5
        weighted = self.x.unsqueeze(0) * weights.unsqueeze(2)
        x, y = (table.t().expand(len(v), -1, -1) for table in (self.x, self.y))
        return torch.bmm(x, weighted), torch.bmm(y, weighted)


class NoisyGradient(Protocol):
    """A model's gradient with the noise of one sample's worth of minibatches."""

    @property
    def n_channels(self) -> int:
        """Number of normal numbers."""
        ...

    def mean(self, theta: Tensor) -> Tensor:
        """Gradient with weight decay, shape (replica, parameter)."""
        ...

    def noise(self, theta: Tensor, v: Tensor) -> Tensor:
        """Fluctuation of the gradient that `v` (replica, channel) makes, with one sample's covariance; linear in it."""
        ...

    def both(self, theta: Tensor, v: Tensor, amplitude: float) -> Tensor:
        """Return mean + amplitude · noise, by one backward pass."""
        ...


class MomentGradient:
    """Of a linear network, by its batches' second moments."""

    def __init__(self, model: BatchModel, data: OnlineTeacher | FiniteData, like: Tensor) -> None:
        self.model, self.fluctuations = model, fluctuations(model, data, like)
        self.n_channels = self.fluctuations.n_channels
        self.xx = torch.as_tensor(model.input_covariance).to(like).unsqueeze(0)
        self.yx = torch.as_tensor(model.teacher_matrix @ model.input_covariance).to(like).unsqueeze(0)

    def mean(self, theta: Tensor) -> Tensor:
        """Gradient with weight decay."""
        return self.model.gradient(theta)

    def noise(self, theta: Tensor, v: Tensor) -> Tensor:
        """Return the gradient's fluctuation; see `NoisyGradient`."""
        return self.model.data_gradient(theta, *self.fluctuations(v))

    def both(self, theta: Tensor, v: Tensor, amplitude: float) -> Tensor:
        """Return mean + amplitude · noise."""
        xx, yx = self.fluctuations(v)
        return self.model.batch_gradient(theta, self.xx + amplitude * xx, self.yx + amplitude * yx)


class WeightedGradient:
    """Of a nonlinear model on a finite data set: one channel for each sample, the weight of its own gradient."""

    def __init__(self, model: WeightedModel, data: FiniteData, like: Tensor) -> None:
        self.model, self.n_channels = model, data.n_samples
        self.x, self.y = (torch.as_tensor(a).to(like).unsqueeze(0) for a in (data.x, data.y))

    def mean(self, theta: Tensor) -> Tensor:
        """Gradient with weight decay."""
        return self.model.sample_gradient(theta, self.x, self.y) + self.model.weight_decay * theta

    def noise(self, theta: Tensor, v: Tensor) -> Tensor:
        """Return the gradient's fluctuation; see `NoisyGradient`."""
        return self.model.weighted_gradient(theta, self.x, self.y, self._weights(v))

    def both(self, theta: Tensor, v: Tensor, amplitude: float) -> Tensor:
        """Return mean + amplitude · noise."""
        weights = amplitude * self._weights(v) + 1.0 / self.n_channels
        return self.model.weighted_gradient(theta, self.x, self.y, weights) + self.model.weight_decay * theta

    def _weights(self, v: Tensor) -> Tensor:
        return (v - v.mean(dim=1, keepdim=True)) * float(self.n_channels**-0.5)


def noisy_gradient(model: BatchModel | SampleModel, data: OnlineTeacher | FiniteData, like: Tensor) -> NoisyGradient:
    """Return the gradient with minibatch noise of any model; `like` gives dtype and device.

    Raises
    ------
    InvalidParameterError
        If the data do not fit the model, or a nonlinear model is given an online teacher.
    """
    if not isinstance(model, SampleModel):
        return MomentGradient(model, data, like)
    if not isinstance(model, WeightedModel):
        raise InvalidParameterError(
            f"Minibatch noise is asked for of a {type(model).__name__} without `weighted_gradient`, expected one: the "
            "noise is a backward pass in which every sample has a weight.\nUse an `MLP` or a `ModuleModel`."
        )
    if not isinstance(data, FiniteData):
        raise InvalidParameterError(
            f"The minibatches of a nonlinear model ({type(model).__name__}) are an online teacher's, expected a finite "
            "data set: through an activation function their covariance has no closed form.\n"
            "Use `Minibatches(linear_teacher_data(matrix, n_samples=4096, label_noise=0.1, seed=0), …)`."
        )
    check_finite(model, data, 1)
    return WeightedGradient(model, data, like)


def fluctuations(model: BatchModel, data: OnlineTeacher | FiniteData, like: Tensor) -> MomentFluctuations:
    """Return the fluctuations of a model's data; `like` gives dtype and device.

    Raises
    ------
    InvalidParameterError
        If the data do not fit the model.
    """
    if isinstance(data, FiniteData):
        check_finite(model, data, 1)
        return SampleFluctuations(data, like)
    return TeacherFluctuations(model, data.label_noise, like)


class MinibatchSDE:
    r"""Langevin dynamics with minibatch noise, as torchsde expects it: general noise, given by its products.

    ``torchsde.sdeint(sde, y0, ts, bm=bm, method="euler", dt=…)`` takes it as it is, with a Brownian motion of
    `n_channels` components: ``bm = torchsde.BrownianInterval(t0, t1, size=(len(y0), sde.n_channels), dtype=y0.dtype,
    entropy=seed)``. There is no `g`: it would be the root of the covariance matrix, so "milstein" and "srk" have
    nothing to work with, and torchsde cannot guess the number of channels. When torchsde checks `g_prod` it draws from
    torch's global generator; ``with torch.random.fork_rng():`` keeps that out.

    Parameters
    ----------
    model : BatchModel or SampleModel
        A nonlinear one on finite data.
    minibatch : Minibatches
    temperature : float
        T ≥ 0 of isotropic noise on top [loss]; it has channels of its own, after the minibatches'.
    like : Tensor
        Gives dtype and device.

    Examples
    --------
    >>> from kramers_grok.models.chain import ChainModel
    >>> from kramers_grok.models.data import teacher
    >>> from kramers_grok.theory.deep_linear import DeepLinearChain
    >>> model = ChainModel(DeepLinearChain(3, 1.0, 0.25))
    >>> like = torch.empty(0, dtype=torch.float64)
    >>> sde = MinibatchSDE(model, Minibatches(teacher(label_noise=0.5), 0.04), 0.0, like)
    >>> sde.n_channels
    2
    >>> at_rest = torch.zeros(1, 3, dtype=torch.float64)  # gated: no noise where nothing is learned
    >>> sde.g_prod(0.0, at_rest, torch.ones(1, 2, dtype=torch.float64)).abs().tolist()
    [[0.0, 0.0, 0.0]]
    """

    noise_type = "general"
    sde_type = "ito"

    def __init__(
        self, model: BatchModel | SampleModel, minibatch: Minibatches, temperature: float, like: Tensor
    ) -> None:
        self.model, self.minibatch = model, minibatch
        self.temperature = checks.non_negative("temperature", temperature)
        self.gradient = noisy_gradient(model, minibatch.data, like)
        self.variance = minibatch.lr_over_batch * minibatch.population_factor
        self._root, self._heat = float(self.variance**0.5), float((2 * self.temperature) ** 0.5)
        self.n_minibatch = self.gradient.n_channels
        self.dtype = like.dtype

    @property
    def n_channels(self) -> int:
        """Components of the Brownian motion: the minibatches', then one a parameter if T > 0."""
        return self.n_minibatch + (self.model.n_parameters if self.temperature else 0)

    def f(self, t: Any, y: Tensor) -> Tensor:
        """Drift −∇F(y), shape (replica, parameter)."""
        return -self.gradient.mean(y)

    def g_prod(self, t: Any, y: Tensor, v: Tensor) -> Tensor:
        """Root of the diffusion at y times `v` (replica, channel): one weighted backward pass, (replica, parameter)."""
        noise = self.gradient.noise(y, v.narrow(1, 0, self.n_minibatch)) * -self._root
        if not self.temperature:
            return noise
        return noise + self._heat * v.narrow(1, self.n_minibatch, self.model.n_parameters)

    def step(self, y: Tensor, dt: float, v: Tensor) -> Tensor:
        """One Euler–Maruyama step on `v` (replica, channel): drift and minibatch noise in one backward pass."""
        own = v.narrow(1, 0, self.n_minibatch)
        moved = y - dt * self.gradient.both(y, own, float(self._root / dt**0.5))
        if not self.temperature:
            return moved
        root = float(dt**0.5)
        return moved + self._heat * root * v.narrow(1, self.n_minibatch, self.model.n_parameters)

    def normals(self, seed: int, streams: Tensor, step: int) -> Tensor:
        """The channels' normal numbers at a step, (replica, channel); the isotropic ones are Langevin dynamics' own."""
        own = torch_noise.normals(seed, Purpose.MINIBATCH, streams, step, self.n_minibatch, dtype=self.dtype)
        if not self.temperature:
            return own
        n = self.model.n_parameters
        kick = torch_noise.normals(seed, Purpose.LANGEVIN, streams, step, n, dtype=self.dtype)
        return torch.cat([own, kick], dim=1)

"""Training on a sub-sample, measured and predicted: what the arm `subsampling` and its evidence share.

The task is the identity on white inputs (a linear autoencoder), of which the network sees N samples. It starts from
zero weights at one weight decay, with true minibatches drawn without replacement and Gaussian noise on every sample's
gradient: η/B alone changes the temperature.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from kramers_grok.core.exceptions import DivergedError, NoBarrierError
from kramers_grok.core.noise import per_sample
from kramers_grok.core.schema import describe
from kramers_grok.dynamics.observables import Loss, OrderParameters
from kramers_grok.dynamics.sampling import WithoutReplacement
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.dynamics.tracing import trace
from kramers_grok.models.data import FiniteData, finite
from kramers_grok.models.deep_linear import DeepLinearNetwork
from kramers_grok.theory.feature_network import FeatureNetwork, LearningTime
from kramers_grok.theory.subsampling import GrokkingCriterion, Subsample

__all__ = ["LR", "Autoencoding", "map_cell", "since_start", "where_it_exists"]

Array = NDArray[np.float64]

LR = 0.15
DEPTH = 3


@dataclass(frozen=True)
class Autoencoding:
    """N white samples of d inputs, to be reproduced by a network of three layers and hidden widths d.

    Attributes
    ----------
    n_inputs, n_samples, seed : int
        d, N and the draw.
    weight_decay : float
        λ.
    noise_variance : float
        g² of the per-sample noise.
    """

    n_inputs: int
    n_samples: int
    seed: int
    weight_decay: float
    noise_variance: float

    @cached_property
    def data(self) -> FiniteData:
        """The sub-sample; a smaller one is the beginning of a larger one."""
        x = np.random.default_rng(self.seed).normal(size=(self.n_samples, self.n_inputs))
        return finite(x, x)

    @cached_property
    def network(self) -> DeepLinearNetwork:
        """The network, whose landscape is that of the train loss."""
        return DeepLinearNetwork.from_data(self.data, (self.n_inputs,) * (DEPTH - 1), weight_decay=self.weight_decay)

    @cached_property
    def theory(self) -> FeatureNetwork:
        """Barriers of the train loss."""
        xx, yx = self.data.input_covariance, self.data.cross_covariance
        return FeatureNetwork(xx, yx, (self.n_inputs,) * (DEPTH - 1), self.weight_decay)

    @cached_property
    def subsample(self) -> Subsample:
        """Errors of every state in the sub-sample and in the population."""
        return Subsample.of(self.data.x, self.data.y, teacher=np.eye(self.n_inputs), depth=DEPTH)

    def temperature(self, batch_size: int) -> float:
        """T = η g²/(2B)."""
        return LR * self.noise_variance / (2 * batch_size)

    def process(self, batch_size: int, device: str = "cpu") -> SGD:
        """SGD with minibatches without replacement and per-sample noise."""
        return SGD(
            self.network,
            self.data,
            lr=LR,
            batch_size=batch_size,
            sampler=WithoutReplacement(),
            noise=per_sample(variance=self.noise_variance),
            device=device,
        )

    def losses(self) -> tuple[Loss, Loss]:
        """Train error, and the exact error over all white inputs: that of d inputs with covariance 1."""
        everything = self.n_inputs**0.5 * np.eye(self.n_inputs)
        return Loss(self.data, name="train_loss"), Loss(finite(everything, everything), name="test_loss")

    def learning_times(self, batch_size: int) -> list[LearningTime | None]:
        """Predicted time of every feature, strongest first; None where it is never learned."""
        factor = (self.n_samples - batch_size) / max(self.n_samples - 1, 1)
        found: list[LearningTime | None] = []
        for rank in range(self.theory.features.rank):
            try:
                time = self.theory.learning_time(
                    rank,
                    temperature=self.temperature(batch_size),
                    step=LR,
                    data=(self.data.x, self.data.y),
                    lr_over_batch=LR / batch_size * factor,
                )
            except NoBarrierError:
                break
            found.append(time)
        return found + [None] * (self.theory.features.rank - len(found))

    def predicted_curves(self, times: Array, learning_times: Sequence[LearningTime | None]) -> tuple[Array, Array]:
        """Mean train and test error against time."""
        rare = [t is None or t.barrier_over_temperature >= 1 for t in learning_times]
        return self.subsample.curves(times, since_start(learning_times), self.weight_decay, activated=rare)

    def run(
        self, process: SGD, steps: NDArray[np.int64], *, n_replicas: int, seed: int, start: Array | None = None
    ) -> xr.Dataset:
        """Trace errors and order parameters from zero weights, or from `start`."""
        state = process.start(n_replicas, seed=seed, point=start)
        _, run = trace(process, state, steps, [*self.losses(), OrderParameters()])
        return run


def since_start(learning_times: Sequence[LearningTime | None]) -> Array:
    """Mean times from the start of the run, shape (feature,).

    Over a barrier a feature waits for the slowest of the stronger ones, which must be learned before its saddle has one
    unstable direction; without a barrier to speak of features grow side by side.
    """
    own = np.array([np.inf if t is None else t.mean for t in learning_times])
    rare = np.array([t is not None and t.barrier_over_temperature >= 1 for t in learning_times])
    before = np.maximum.accumulate(np.concatenate([[0.0], np.where(np.isfinite(own), own, 0.0)]))[:-1]
    return np.asarray(own + np.where(rare, before, 0.0))


def map_cell(config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    """Mean curves of one sub-sample at one batch size, for several weight decays in one ensemble.

    Parameters
    ----------
    config : mapping
        ``n_inputs``, ``n_samples``, ``draw``, ``batch_size``, ``noise_variance``, ``weight_decays`` (a list),
        ``replicas`` for each of them, ``max_time`` and ``points``.
    seed : int

    Returns
    -------
    xarray.Dataset
        `train`, `test` and their predictions along (weight_decay, time), `learned` (weight_decay, feature):
        the share of replicas that have learned a feature at the end.

    Raises
    ------
    DivergedError
        If a replica leaves the finite numbers.
    """
    decays = [float(v) for v in config["weight_decays"]]
    tasks = [_task(config, decay) for decay in decays]
    batch, each = int(config["batch_size"]), int(config["replicas"])
    process = tasks[0].process(batch).replace(weight_decay=np.repeat(decays, each))
    last = int(float(config["max_time"]) / LR)
    steps = np.unique(np.geomspace(1, last, int(config["points"])).astype(np.int64))
    measured = tasks[0].run(process, steps, n_replicas=each * len(decays), seed=seed)
    _check_finite(measured, process)
    time = measured["time"].values
    columns: dict[str, list[Array]] = {n: [] for n in ("train", "test", "train_predicted", "test_predicted", "learned")}
    for number, task in enumerate(tasks):
        part = measured.isel(replica=slice(number * each, (number + 1) * each))
        columns["train"].append(part["train_loss"].mean("replica").values)
        columns["test"].append(part["test_loss"].mean("replica").values)
        sigma = task.subsample.singular_values
        share = (part["order_parameter"].isel(time=-1) > 0.3 * sigma).mean("replica").values
        columns["learned"].append(np.pad(share, (0, int(config["n_inputs"]) - len(share))))
        for name, curve in zip(
            ("train_predicted", "test_predicted"), task.predicted_curves(time, task.learning_times(batch)), strict=True
        ):
            columns[name].append(curve)
    names = {
        "train": ("train_loss", "mean train error"),
        "test": ("test_loss", "mean test error"),
        "train_predicted": ("train_loss", "predicted mean train error"),
        "test_predicted": ("test_loss", "predicted mean test error"),
    }
    data: dict[str, Any] = {
        name: (("weight_decay", "time"), np.array(columns[name]), describe(variable) | {"long_name": text})
        for name, (variable, text) in names.items()
    }
    data["learned"] = (
        ("weight_decay", "feature"),
        np.array(columns["learned"]),
        {"units": "1", "long_name": "share of replicas that have learned the feature"},
    )
    return xr.Dataset(
        data,
        coords={
            "weight_decay": ("weight_decay", decays, describe("weight_decay")),
            "time": ("time", time, describe("time")),
            "batch_size": ((), batch, describe("batch_size")),
            "lr": ((), LR, describe("lr")),
            "samples_per_input": (
                (), int(config["n_samples"]) / int(config["n_inputs"]), describe("samples_per_input"),
            ),
        },
    )  # fmt: skip


def _check_finite(run: xr.Dataset, process: SGD) -> None:
    """Raise if a replica has diverged: it must not enter a mean."""
    finite_losses = np.isfinite(run["test_loss"].values)
    lost = np.flatnonzero(~finite_losses.all(axis=1))
    if lost.size:
        step = int(run["step"].values[(~finite_losses).any(axis=0).argmax()])
        raise DivergedError(
            f"{lost.size} replica(s) diverged by step {step}: with lr = {LR:g} and batches of {process.batch_size} the "
            "steps are unstable in the mean square.\nUse a larger `batch_size` or a smaller `LR`.",
            replicas=lost.tolist(),
            step=step,
        )


def _task(config: Mapping[str, Any], decay: float) -> Autoencoding:
    n_inputs, n_samples, draw = (int(config[name]) for name in ("n_inputs", "n_samples", "draw"))
    return Autoencoding(n_inputs, n_samples, draw, decay, float(config["noise_variance"]))


def where_it_exists(cell: xr.Dataset, criterion: GrokkingCriterion) -> xr.Dataset:
    """Whether measured and predicted curves of a map's cell satisfy a criterion, along weight_decay."""
    time = cell["time"].values
    found = {
        name: [
            criterion.holds(time, cell[a].sel(weight_decay=w).values, cell[b].sel(weight_decay=w).values)
            for w in cell["weight_decay"].values
        ]
        for name, a, b in (("measured", "train", "test"), ("predicted", "train_predicted", "test_predicted"))
    }
    return xr.Dataset(
        {
            name: ("weight_decay", values, {"units": "1", "long_name": f"curve of grokking, {name}"})
            for name, values in found.items()
        },
        coords={n: cell.coords[n] for n in ("weight_decay", "batch_size", "lr", "samples_per_input")},
    )

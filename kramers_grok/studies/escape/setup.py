"""What an escape cell's configuration stands for: the system, its barrier, its process, its predicted exit time."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch

from kramers_grok.analysis.ladder import Ladder, Setting, ladder
from kramers_grok.analysis.radial_ladder import radial_ladder
from kramers_grok.core.barrier import Barrier, OrbitBarrier
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.noise import effective_temperature, per_sample
from kramers_grok.core.region import Region, beyond
from kramers_grok.core.schema import canonical_json
from kramers_grok.dynamics.langevin import Fused, Langevin, TorchSDE
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.models.data import teacher
from kramers_grok.models.deep_linear import DeepLinearNetwork
from kramers_grok.theory.deep_linear import DeepLinearChain, Mode
from kramers_grok.theory.gradient_noise import GaussianResidualVariance
from kramers_grok.theory.minibatch import MinibatchNoise

__all__ = ["Setup"]


@dataclass(frozen=True)
class Setup:
    """One cell of an escape study, as objects.

    Attributes
    ----------
    config : mapping
        The cell's configuration: ``engine``, ``system``, ``noise`` and the engine's own section.

    Examples
    --------
    >>> system = {"kind": "chain", "depth": 3, "singular_value": 1.0, "weight_decay": 0.25}
    >>> noise, langevin = {"barrier_over_temperature": 5.0}, {"dt": 0.1, "integrator": "fused"}
    >>> setup = Setup({"engine": "langevin", "system": system, "noise": noise, "langevin": langevin})
    >>> round(setup.temperature, 9), setup.step
    (0.001588143, 0.1)
    """

    config: Mapping[str, Any]

    @property
    def engine(self) -> str:
        """Return "theory", "langevin" or "sgd"."""
        return str(self.config["engine"])

    @cached_property
    def system(self) -> Mode | DeepLinearChain | DeepLinearNetwork:
        """What moves. A network has one feature: one input, one output, and hidden layers of one width."""
        given = self.config["system"]
        depth, sigma, decay = int(given["depth"]), float(given["singular_value"]), float(given["weight_decay"])
        if given["kind"] == "network":
            widths = (1, *[int(given["width"])] * (depth - 1), 1)
            return DeepLinearNetwork(widths, [sigma], weight_decay=decay)
        return (Mode if given["kind"] == "mode" else DeepLinearChain)(depth, sigma, decay)

    @cached_property
    def barrier(self) -> Barrier | OrbitBarrier:
        """The barrier out of the unlearned state; `NoBarrierError` where nothing is trapped."""
        system = self.system
        return system.theory.barrier(0) if isinstance(system, DeepLinearNetwork) else system.barrier()

    @cached_property
    def target(self) -> Region:
        """Where a replica counts as escaped."""
        return beyond(self.barrier)

    @property
    def step(self) -> float:
        """Time step or learning rate [time]; 0 for theory."""
        if self.engine == "theory":
            return 0.0
        return float(self.config["sgd"]["lr"] if self.engine == "sgd" else self.config["langevin"]["dt"])

    @cached_property
    def temperature(self) -> float:
        """Isotropic temperature T [loss]; 0 where the minibatches are the only noise."""
        ((name, value),) = self.config["noise"].items()
        if name == "temperature":
            return float(value)
        if name == "barrier_over_temperature":
            return self.barrier.height / float(value)
        sgd = self.config["sgd"]
        return effective_temperature(float(sgd["lr"]), int(sgd["batch_size"]), float(value) ** 2)

    @property
    def barrier_over_temperature(self) -> float:
        """ΔF/T, infinite without a temperature."""
        return self.barrier.height / self.temperature if self.temperature else math.inf

    @property
    def relaxation_time(self) -> float:
        """Time in which the unlearned state forgets where it was, 1/λ [time]."""
        return 1.0 / float(self.config["system"]["weight_decay"])

    @property
    def instability(self) -> str:
        """Why no step of this size stays finite, even at the unlearned state; empty where one may."""
        decay = float(self.config["system"]["weight_decay"])
        if self.step * decay < 2:
            return ""
        return (
            f"the step {self.step:g} times the weight decay {decay:g} is {self.step * decay:g}, expected less than 2: "
            f"every step throws the weights further from 0.\nUse a step of {0.1 / decay:.3g} or less."
        )

    @property
    def minibatch(self) -> MinibatchNoise | None:
        """Noise of the data: that of an online teacher's batches under SGD."""
        if self.engine != "sgd":
            return None
        sgd, sigma = self.config["sgd"], float(self.config["system"]["singular_value"])
        residual = GaussianResidualVariance(sigma, 1.0, float(sgd["label_noise"]))
        return MinibatchNoise(float(sgd["lr"]) / int(sgd["batch_size"]), residual)

    @property
    def bridged(self) -> bool:
        """Whether brute force counts crossings between two steps; torchsde would take twice as long with them."""
        return self.engine == "langevin" and self.config["langevin"]["integrator"] == "fused"

    @property
    def device(self) -> str:
        """Where replicas move: part of what a cell is, since devices round differently."""
        device = str(self.config.get("run", {}).get("device", "cpu"))
        if device == "cuda" and not torch.cuda.is_available():
            raise InvalidParameterError(
                '`run.device` = "cuda", and this worker sees no CUDA device.\n'
                'Run the cell where there is one, or declare `device = "cpu"`.'
            )
        return device

    def process(self) -> Langevin | SGD:
        """Return the process, in one thread: a cell is one worker's work."""
        device = self.device
        if self.engine == "langevin":
            langevin = self.config["langevin"]
            integrator = Fused() if langevin["integrator"] == "fused" else TorchSDE("euler")
            return Langevin(
                self.system, temperature=self.temperature, dt=self.step, integrator=integrator, device=device
            )
        sgd, noise = self.config["sgd"], self.config["noise"]
        given = {"std": float(noise["std"])} if "std" in noise else {"temperature": self.temperature}
        return SGD(
            self.system,
            teacher(label_noise=float(sgd["label_noise"])),
            lr=self.step,
            batch_size=int(sgd["batch_size"]),
            noise=per_sample(**given) if self.temperature else None,
            device=device,
        )

    def ladder(self, *, bridged: bool) -> Ladder:
        """Return the predicted mean exit times; where even theory has none, NaN and a note."""
        # Cells that differ in their seed, or in how they are run, share the prediction.
        shared = {key: part for key, part in self.config.items() if key not in ("seed", "run")}
        return _ladder(canonical_json(shared), bridged)

    def coordinates(self) -> dict[str, Any]:
        """Return what was set, by the names of the vocabulary."""
        system = dict(self.config["system"])
        coords: dict[str, Any] = {"engine": self.engine, **{k: v for k, v in system.items() if k != "kind"}}
        if self.engine == "sgd":
            coords |= dict(self.config["sgd"])
        elif self.engine == "langevin":
            coords["dt"] = self.step
        if "std" in self.config["noise"]:
            coords["noise_std"] = float(self.config["noise"]["std"])
        return coords


@lru_cache(maxsize=16)  # a law may hold the matrix of a discrete chain
def _ladder(config: str, bridged: bool) -> Ladder:
    """Ladder of a configuration, as JSON text so that equal ones are one."""
    setup = Setup(json.loads(config))
    setting = Setting(setup.temperature, setup.step, bridged, setup.minibatch)
    try:
        with np.errstate(all="ignore"):  # far beyond the range of the first order in the step it comes to NaN
            if isinstance(setup.system, DeepLinearNetwork):
                return radial_ladder(setup.system, setting, setup.target)
            return ladder(setup.system, setting, setup.target)
    except InvalidParameterError as error:
        nan = math.nan
        return Ladder(nan, nan, nan, nan, nan, nan, "none", (str(error).splitlines()[0],))

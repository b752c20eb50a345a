"""The Arrhenius figure: exact theory, Langevin and discrete SGD, with no fitted parameter.

What the arms share, so that their agreement is read rightly: Langevin and SGD use the same generator, the same
first-passage code and the same compiled step. SGD draws its minibatches (the exact law of their second moments), which
Langevin does not; theory shares nothing with either but the landscape. Theory for a run includes the run's step
(modified equation, targets seen at steps only) and, for SGD, the minibatches' own noise in the diffusion limit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from kramers_grok.analysis.arrhenius import compare_laws, slope_difference
from kramers_grok.analysis.hypotheses import chi_square_joint
from kramers_grok.core.barrier import Barrier
from kramers_grok.core.noise import per_sample
from kramers_grok.core.region import Region, beyond
from kramers_grok.core.schema import describe
from kramers_grok.dynamics.langevin import Fused, Integrator, Langevin, TorchSDE
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.escape.first_passage import first_passage
from kramers_grok.models.data import population, teacher
from kramers_grok.studies.reproduction.runs import measure, table
from kramers_grok.studies.reproduction.settings import Settings
from kramers_grok.studies.running.cells import Cell
from kramers_grok.theory.deep_linear import DeepLinearChain, Mode
from kramers_grok.theory.exit_times import exit_time
from kramers_grok.theory.gradient_noise import GaussianResidualVariance
from kramers_grok.theory.minibatch import MinibatchNoise
from kramers_grok.theory.rates import eyring_kramers_rate

__all__ = ["NAME", "cells", "gather"]

NAME = "arrhenius"
TORCHSDE_DT = 0.2  # a step costs it a hundred times what it costs the compiled kernel
BATCH_PER_RATIO = 8  # B = 8 ΔF/T at the middle learning rate


@dataclass(frozen=True)
class _Setup:
    """The chain, its target and its noise, from the settings; the functions of the cells are its methods."""

    settings: Settings
    device: str

    @property
    def chain(self) -> DeepLinearChain:
        s = self.settings
        return DeepLinearChain(s.depth, s.singular_value, s.weight_decay)

    @property
    def barrier(self) -> Barrier:
        return self.chain.barrier()

    @property
    def target(self) -> Region:
        return beyond(self.barrier)

    @property
    def noise_variance(self) -> float:
        """ΔF/T = B/8 at the middle lr: the noise's variance g² follows from T = lr g²/(2B)."""
        return 2 * BATCH_PER_RATIO * self.barrier.height / self.settings.lr

    @property
    def base(self) -> dict[str, Any]:
        """What every cell depends on."""
        s = self.settings
        return {
            "chain": [s.depth, s.singular_value, s.weight_decay],
            "threshold": self.target.threshold,
            "n_replicas": s.n_replicas,
        }

    def temperature(self, ratio: float) -> float:
        return self.barrier.height / ratio

    def minibatch(self, lr: float, batch_size: int) -> MinibatchNoise:
        residual = GaussianResidualVariance(self.settings.singular_value, 1.0, self.settings.label_noise)
        return MinibatchNoise(lr_over_batch=lr / batch_size, residual_variance=residual)

    def theory(self, config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
        """Exact and asymptotic times at one temperature, for continuous dynamics."""
        temperature = self.temperature(config["ratio"])
        mode = exit_time(self.chain.mode, temperature=temperature, target=self.target)
        chain = exit_time(self.chain, temperature=temperature, target=self.target)
        rate = eyring_kramers_rate(self.barrier, temperature, warn=False)
        times = {
            "mode_exact": ("exact mean exit time of the mode", mode.mean),
            "chain_exact": ("exact mean exit time of the chain", chain.mean),
            "chain_eyring_kramers": ("Eyring-Kramers time of the chain", 1 / rate.value),
        }
        data = {name: ((), value, {"units": "time", "long_name": label}) for name, (label, value) in times.items()}
        coords = {"temperature": ((), temperature, describe("temperature"))}
        return xr.Dataset(data, coords=coords).assign(
            chain_relative_error=((), chain.relative_error, describe("relative_error"))
        )

    def langevin_mode(self, config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
        return self._langevin(self.chain.mode, config, Fused(), seed)

    def langevin_chain(self, config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
        return self._langevin(self.chain, config, Fused(), seed)

    def torchsde(self, config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
        return self._langevin(self.chain.mode, config, TorchSDE("euler"), seed)

    def _langevin(
        self, system: Mode | DeepLinearChain, config: Mapping[str, Any], integrator: Integrator, seed: int
    ) -> xr.Dataset:
        temperature, dt = self.temperature(config["ratio"]), float(config["dt"])
        process = Langevin(system, temperature=temperature, dt=dt, integrator=integrator, device="cpu")
        # torchsde's point is watched at its steps only, and predicted so: a bridge would double the cost of a step.
        bridge = isinstance(integrator, Fused)
        predicted = exit_time(system, temperature=temperature, target=self.target, step=dt, monitored=not bridge)
        n = int(config["n_replicas"])
        return measure(process, predicted, target=self.target, n_replicas=n, seed=seed, bridge=bridge)

    def sgd(self, config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
        lr, batch_size = float(config["lr"]), int(config["batch_size"])
        process = SGD(
            self.chain,
            teacher(label_noise=self.settings.label_noise),
            lr=lr,
            batch_size=batch_size,
            noise=per_sample(variance=self.noise_variance),
            device=self.device,
        )
        predicted = exit_time(
            self.chain,
            temperature=process.temperature,
            target=self.target,
            step=lr,
            monitored=True,
            minibatch=self.minibatch(lr, batch_size),
        )
        return measure(process, predicted, target=self.target, n_replicas=self.settings.n_replicas, seed=seed)

    def control(self, config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
        """Full-batch descent (T = 0) from thermally spread starts: nothing may escape."""
        s = self.settings
        spread = np.sqrt(self.temperature(s.ratios[0]) / s.weight_decay)
        starts = np.random.default_rng(seed).normal(scale=spread, size=(s.n_control, s.depth))
        # Only what lies on the trap's side is trapped: keep starts below the barrier's energy.
        energy = self.chain.landscape.energy_at
        starts[energy(starts) >= energy(self.barrier.saddle)] *= 0.25
        return first_passage(
            SGD(self.chain, population(), lr=s.lr, device=self.device),
            target=self.target,
            n_replicas=s.n_control,
            max_time=s.control_time,
            seed=seed,
            start=starts,
        )


def _plan(settings: Settings, device: str) -> dict[str, list[Cell]]:
    """Cells by the group of the result that they belong to."""
    setup, s = _Setup(settings, device), settings
    base = setup.base
    ratios = [base | {"ratio": ratio} for ratio in s.ratios]
    steps = [base | {"ratio": ratio, "dt": s.lr} for ratio in s.ratios]
    noise = {"label_noise": s.label_noise, "noise_variance": setup.noise_variance}
    pairs = [(s.lr, round(BATCH_PER_RATIO * r)) for r in s.ratios] + list(s.pairs)
    single = base | {"ratio": s.ratios[0], "dt": TORCHSDE_DT, "n_replicas": s.n_control}
    idle = base | {"lr": s.lr, "n_control": s.n_control, "time": s.control_time}

    def cost(ratio: float, step: float, weight: float) -> float:
        return weight * float(np.exp(ratio)) / step

    return {
        "theory": [Cell("arrhenius-theory", key, setup.theory) for key in ratios],
        "langevin_mode": [
            Cell("arrhenius-langevin-mode", key, setup.langevin_mode, cost(key["ratio"], s.lr, 2)) for key in steps
        ],
        "langevin_mode_torchsde": [Cell("arrhenius-langevin-torchsde", single, setup.torchsde, 1e4)],
        "langevin_chain": [
            Cell("arrhenius-langevin-chain", key, setup.langevin_chain, cost(key["ratio"], s.lr, 1.5)) for key in steps
        ],
        "sgd": [
            Cell(
                "arrhenius-sgd",
                base | noise | {"lr": lr, "batch_size": batch},
                setup.sgd,
                cost(batch * s.lr / (BATCH_PER_RATIO * lr), lr, 3),
            )
            for lr, batch in pairs
        ],
        "control": [Cell("arrhenius-control", idle, setup.control, 100.0)],
    }


def cells(settings: Settings, device: str) -> list[Cell]:
    """Return all cells: theory, Langevin in mode and chain, torchsde, SGD, the control."""
    return [cell for group in _plan(settings, device).values() for cell in group]


def gather(settings: Settings, results: Sequence[xr.Dataset]) -> xr.DataTree:
    """Gather the runs of each engine in a table and fit the laws."""
    remaining = iter(results)
    runs = {name: [next(remaining) for _ in group] for name, group in _plan(settings, "cpu").items()}
    groups = {name: table(found) for name, found in runs.items() if name not in ("theory", "control")}
    groups["theory"] = xr.concat(runs["theory"], dim="run")
    groups["control"] = runs["control"][0]
    laws = _laws(groups, _Setup(settings, "cpu"))
    # Not at the root: groups inherit the root's coordinates, and `engine` means one run's engine there.
    tree = {"/": xr.Dataset(attrs=laws.attrs), "/laws": laws} | {f"/{k}": v for k, v in groups.items()}
    return xr.DataTree.from_dict(tree, name=NAME)


def _laws(groups: dict[str, xr.Dataset], setup: _Setup) -> xr.Dataset:
    """Fit the Arrhenius law to each engine and to its prediction; joint χ² of all points."""
    rows: dict[str, list[float]] = {}
    engines = ("langevin_mode", "langevin_chain", "sgd")
    for engine in engines:
        runs = groups[engine]
        temperature, mean, error = (runs[k].values for k in ("temperature", "mean_exit_time", "standard_error"))
        predicted = runs["predicted_mean"].values
        laws = compare_laws(temperature, mean, error)
        expected = laws.arrhenius.refit(predicted)
        slope = slope_difference(laws.arrhenius, expected)
        joint = chi_square_joint(mean, predicted, error)
        row = {
            "barrier_fitted": laws.arrhenius.barrier,
            "barrier_fitted_error": laws.arrhenius.barrier_standard_error,
            "barrier_predicted_fit": expected.barrier,
            "slope_difference_se": slope.z,
            "r_squared": laws.arrhenius.r_squared,
            "r_squared_power_law": laws.power_law.r_squared,
            "log_likelihood_difference": laws.log_likelihood_difference,
            "joint_chi2_p_value": joint.p_value,
        }
        for name, value in row.items():
            rows.setdefault(name, []).append(value)
    data = {
        name: ("engine", values, {"units": _UNITS.get(name, "1"), "long_name": name.replace("_", " ")})
        for name, values in rows.items()
    }
    return xr.Dataset(data, coords={"engine": list(engines)}).assign_attrs(
        barrier_height=setup.barrier.height,
        weight_decay=setup.chain.weight_decay,
        depth=setup.chain.depth,
        noise_variance=setup.noise_variance,
        paper_r_squared=0.991,
        paper="Ersoy & Wiesner, arXiv:2606.17120",
        shared=(
            "Langevin and SGD share the noise generator, the compiled step and the first-passage code; theory shares "
            "only the landscape with them."
        ),
    )


_UNITS = {"barrier_fitted": "loss", "barrier_fitted_error": "loss", "barrier_predicted_fit": "loss"}

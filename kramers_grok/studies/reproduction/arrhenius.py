"""The Arrhenius figure: exact theory, Langevin and discrete SGD, with no fitted parameter.

What the arms share, so that their agreement is read rightly: Langevin and SGD use the same generator, the same
first-passage code and the same compiled step. SGD draws its minibatches (the exact law of their second moments), which
Langevin does not; theory shares nothing with either but the landscape. Theory for a run includes the run's step
(modified equation, targets seen at steps only) and, for SGD, the minibatches' own noise in the diffusion limit.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from kramers_grok.analysis.arrhenius import compare_laws, slope_difference
from kramers_grok.analysis.hypotheses import chi_square_joint
from kramers_grok.core.noise import per_sample
from kramers_grok.core.region import beyond
from kramers_grok.core.schema import describe
from kramers_grok.dynamics.langevin import Fused, Langevin, TorchSDE
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.escape.first_passage import first_passage
from kramers_grok.models.data import population, teacher
from kramers_grok.studies.reproduction.runs import measure, table
from kramers_grok.theory.deep_linear import DeepLinearChain
from kramers_grok.theory.exit_times import exit_time
from kramers_grok.theory.gradient_noise import GaussianResidualVariance
from kramers_grok.theory.minibatch import MinibatchNoise
from kramers_grok.theory.rates import eyring_kramers_rate

if TYPE_CHECKING:
    from kramers_grok.studies.reproduction.job import Job
    from kramers_grok.studies.reproduction.settings import Settings

__all__ = ["NAME", "n_cells", "run"]

NAME = "arrhenius"
TORCHSDE_DT = 0.2  # a step costs it a hundred times what it costs the compiled kernel
BATCH_PER_RATIO = 8  # B = 8 ΔF/T at the middle learning rate


def n_cells(settings: Settings) -> int:
    """Return the number of cells."""
    return 4 * len(settings.ratios) + len(settings.pairs) + 2


class _Setup:
    """The chain, its target and its noise, from the settings."""

    def __init__(self, job: Job) -> None:
        s = self.settings = job.settings
        self.job = job
        self.chain = DeepLinearChain(s.depth, s.singular_value, s.weight_decay)
        self.barrier = self.chain.barrier()
        self.target = beyond(self.barrier)
        # ΔF/T = B/8 at the middle lr: the noise's variance g² follows from T = lr g²/(2B).
        self.noise_variance = 2 * BATCH_PER_RATIO * self.barrier.height / s.lr
        self.base = {
            "chain": [s.depth, s.singular_value, s.weight_decay],
            "threshold": self.target.threshold,
            "n_replicas": s.n_replicas,
        }
        residual = GaussianResidualVariance(s.singular_value, 1.0, s.label_noise)
        self.residual = residual

    def temperature(self, ratio: float) -> float:
        return self.barrier.height / ratio

    def noise(self, lr: float, batch_size: int) -> MinibatchNoise:
        return MinibatchNoise(lr_over_batch=lr / batch_size, residual_variance=self.residual)

    def theory(self, ratio: float, seed: int, progress: Any) -> xr.Dataset:
        """Exact and asymptotic times at one temperature, for continuous dynamics."""
        temperature = self.temperature(ratio)
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

    def langevin(self, system: Any, ratio: float, dt: float, integrator: Any, n: int, seed: int, progress: Any) -> Any:
        temperature = self.temperature(ratio)
        process = Langevin(system, temperature=temperature, dt=dt, integrator=integrator, device="cpu")
        # torchsde's point is watched at its steps only, and predicted so: a bridge would double the cost of a step.
        bridge = isinstance(integrator, Fused)
        predicted = exit_time(system, temperature=temperature, target=self.target, step=dt, monitored=not bridge)
        return measure(
            process, predicted, target=self.target, n_replicas=n, seed=seed, progress=progress, bridge=bridge
        )

    def sgd(self, lr: float, batch_size: int, seed: int, progress: Any) -> xr.Dataset:
        process = SGD(
            self.chain,
            teacher(label_noise=self.settings.label_noise),
            lr=lr,
            batch_size=batch_size,
            noise=per_sample(variance=self.noise_variance),
            n_threads=self.job.n_threads,
            device=self.job.device,
        )
        predicted = exit_time(
            self.chain,
            temperature=process.temperature,
            target=self.target,
            step=lr,
            monitored=True,
            minibatch=self.noise(lr, batch_size),
        )
        return measure(
            process, predicted, target=self.target, n_replicas=self.settings.n_replicas, seed=seed, progress=progress
        )

    def control(self, seed: int, progress: Any) -> xr.Dataset:
        """Full-batch descent (T = 0) from thermally spread starts: nothing may escape."""
        s = self.settings
        spread = np.sqrt(self.temperature(s.ratios[0]) / s.weight_decay)
        starts = np.random.default_rng(seed).normal(scale=spread, size=(s.n_control, s.depth))
        # Only what lies on the trap's side is trapped: keep starts below the barrier's energy.
        saddle_energy = self.chain.landscape.energy_at(self.barrier.saddle)
        below = self.chain.landscape.energy_at(starts) < saddle_energy
        starts[~below] *= 0.25
        process = SGD(self.chain, population(), lr=s.lr, n_threads=self.job.n_threads)
        return first_passage(
            process, target=self.target, n_replicas=s.n_control, max_time=s.control_time, seed=seed, start=starts
        )


def run(job: Job) -> xr.DataTree:
    """Compute all cells and gather them."""
    setup = _Setup(job)
    s, base, threads = job.settings, setup.base, job.n_threads
    theory: list[xr.Dataset] = []
    mode: list[xr.Dataset] = []
    chain: list[xr.Dataset] = []
    sgd: list[xr.Dataset] = []
    for ratio in s.ratios:
        key = base | {"ratio": ratio}
        theory.append(job.cell("arrhenius-theory", key, partial(setup.theory, ratio)))
    for ratio in s.ratios:
        key = base | {"ratio": ratio, "dt": s.lr}
        for name, system, found in (("mode", setup.chain.mode, mode), ("chain", setup.chain, chain)):
            found.append(
                job.cell(
                    f"arrhenius-langevin-{name}",
                    key,
                    partial(setup.langevin, system, ratio, s.lr, Fused(n_threads=threads), s.n_replicas),
                )
            )
    first = s.ratios[0]
    torchsde = job.cell(
        "arrhenius-langevin-torchsde",
        base | {"ratio": first, "dt": TORCHSDE_DT, "n_replicas": s.n_control},
        partial(setup.langevin, setup.chain.mode, first, TORCHSDE_DT, TorchSDE("euler"), s.n_control),
    )
    settings = [(s.lr, round(BATCH_PER_RATIO * r)) for r in s.ratios] + list(s.pairs)
    noise = {"label_noise": s.label_noise, "noise_variance": setup.noise_variance}
    for lr, batch_size in settings:
        key = base | noise | {"lr": lr, "batch_size": batch_size}
        sgd.append(job.cell("arrhenius-sgd", key, partial(setup.sgd, lr, batch_size)))
    control = job.cell(
        "arrhenius-control",
        base | {"lr": s.lr, "n_control": s.n_control, "time": s.control_time},
        setup.control,
    )
    groups = {
        "theory": xr.concat(theory, dim="run"),
        "langevin_mode": table(mode),
        "langevin_mode_torchsde": table([torchsde]),
        "langevin_chain": table(chain),
        "sgd": table(sgd),
        "control": control,
    }
    laws = _laws(groups, setup)
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

r"""A matrix network whose λ goes down in stairs, with noise: on which stair does each feature return?

Two tasks: a white teacher on the exact expected gradient, and the digits' first principal components (a linear
autoencoder on 1,797 real images) with true minibatches and per-sample noise. Only the strongest unlearned feature has a
saddle of index 1, so the order is strongest first, with probability → 1. Survival is the product over stairs of
:math:`e^{-k(\lambda_i)\tau}`, with rates of the radial free energy, which counts the entropy of the hidden units. The
prediction is an interval, from the rate times two factors; nothing in it is fitted:

- `RATE_INTERVAL`: simulated times are known to be up to 10 % shorter than the asymptotic formula, and some longer;
- the step's first order is in the value;
- downwards :math:`e^{-\delta}`, the trap's spread by other features that leading order leaves out;
- minibatches: their heat across the path is in the value, its second order in the lower end; the feature's own noise
  along the path, which the loss alone overestimates where entropy pushes too, is in the upper end;
- upwards those that come out of order, a feature before the next stronger one, to leading exponential order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from kramers_grok.core.exceptions import KramersGrokError
from kramers_grok.core.noise import per_sample
from kramers_grok.core.schedules import Piecewise
from kramers_grok.core.schema import describe
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.models.data import FiniteData, autoencoding, digits, population
from kramers_grok.models.deep_linear import DeepLinearNetwork
from kramers_grok.theory.feature_network import FeatureNetwork
from kramers_grok.theory.feature_radial import feature_radial_rate, left_out
from kramers_grok.theory.gradient_noise import EmpiricalResidualVariance
from kramers_grok.theory.minibatch import MinibatchNoise, minibatch_log_factor
from kramers_grok.theory.rates import eyring_kramers_rate

__all__ = ["RATE_INTERVAL", "Descent", "principal_components", "staircase_survival", "stairs"]

Array = NDArray[np.float64]

CHUNK = 50  # steps between two looks at the order parameters
#: Rates relative to the radial ones that the prediction's interval covers.
RATE_INTERVAL = (0.95, 1.15)
CERTAIN = 8.0  # expected returns after which later stairs no longer matter
HOPELESS = 1e-4  # expected returns by Eyring–Kramers, which is too fast, below which a stair counts as none
NEGLIGIBLE = 3e-3  # expected returns on a stair, for which what minibatches and spread change is left out
WITHOUT_NOISE = 0.1  # of the time, for the controls: many times 1/λ


def principal_components(dimension: int) -> FiniteData:
    """Return the digits' first principal components as an autoencoder's data, pixels scaled to [0, 1]."""
    x = autoencoding(digits() / 16).x
    _, _, axes = np.linalg.svd(x, full_matrices=False)
    return autoencoding(x @ axes[:dimension].T, center=False)


@dataclass(frozen=True)
class Descent:
    """What goes down: task, widths, stairs and noise.

    Attributes
    ----------
    config : mapping
        ``teacher`` (singular values; white inputs, exact expected gradient) or ``components`` (number of principal
        components of digits) with ``batch_size``; ``hidden``, ``stairs``, ``hold`` (time on each stair [time]),
        ``temperature`` [loss], ``lr`` [time], ``n_replicas``.
    """

    config: Mapping[str, Any]

    @cached_property
    def values(self) -> Array:
        """λ of every stair, falling."""
        return np.asarray(self.config["stairs"], dtype=np.float64)

    @property
    def hold(self) -> float:
        """Time on each stair."""
        return float(self.config["hold"])

    @property
    def temperature(self) -> float:
        """T of the injected noise."""
        return float(self.config["temperature"])

    @property
    def lr(self) -> float:
        """Learning rate."""
        return float(self.config["lr"])

    @property
    def hidden(self) -> tuple[int, int]:
        """Hidden widths."""
        return (int(self.config["hidden"]),) * 2

    @cached_property
    def data(self) -> FiniteData | None:
        """The digits, or None for a white teacher."""
        return principal_components(int(self.config["components"])) if "components" in self.config else None

    @cached_property
    def network(self) -> DeepLinearNetwork:
        """The network that is trained."""
        decay = float(self.values[-1])
        if self.data is not None:
            return DeepLinearNetwork.from_data(self.data, self.hidden, weight_decay=decay)
        teacher = np.asarray(self.config["teacher"])
        return DeepLinearNetwork((teacher.size, *self.hidden, teacher.size), np.diag(teacher), weight_decay=decay)

    def theory(self, decay: float) -> FeatureNetwork:
        """Its theory at one λ."""
        if self.data is not None:
            return FeatureNetwork(self.data.input_covariance, self.data.cross_covariance, self.hidden, decay)
        teacher = np.diag(np.asarray(self.config["teacher"], dtype=np.float64))
        return FeatureNetwork(np.eye(len(teacher)), teacher, self.hidden, decay)

    def process(self, device: str, *, fused: bool, injected: bool = True) -> SGD:
        """SGD with per-sample noise, and minibatches where there are data; the same without injected noise."""
        batch = int(self.config.get("batch_size", 1))
        noise = per_sample(variance=2 * self.temperature * batch / self.lr) if injected else None
        data = population() if self.data is None else self.data
        return SGD(self.network, data, lr=self.lr, batch_size=batch, noise=noise, device=device, fused=fused)

    def minibatch_logs(self, network: FeatureNetwork, rank: int) -> tuple[float, float]:
        """What minibatches add to ln k: lower and upper end."""
        if self.data is None:
            return 0.0, 0.0
        ratio = self.lr / int(self.config["batch_size"])
        heat = ratio * network.heating(rank, self.data.x, self.data.y) / self.temperature
        x, y = self.data.x @ network.features.right[rank], self.data.y @ network.features.left[:, rank]
        own = minibatch_log_factor(
            network.mode(rank), self.temperature, MinibatchNoise(ratio, EmpiricalResidualVariance(x, y))
        )
        return -heat - 0.5 * heat**2 + min(own, 0.0), -heat + max(own, 0.0)

    @cached_property
    def rates(self) -> Array:
        """Lower and upper rate of the return to rank r + 1 on each stair, shape (end, rank, stair) [1/time].

        Once nearly all have returned, later stairs repeat the last rate: where the trap has melted there is none.
        """
        n_features = self.network.n_features
        rates = np.zeros((2, n_features, self.values.size))
        for rank in range(n_features):
            for i, decay in enumerate(self.values.tolist()):
                if rates[0, rank, :i].sum() * self.hold > CERTAIN:
                    rates[:, rank, i] = rates[:, rank, i - 1]
                    continue
                network = self.theory(decay)
                if decay < network.mode(rank).spinodal():
                    rates[:, rank, i] = self._rates_on(network, rank, rates[:, rank, i - 1] if i else np.zeros(2))
        return rates

    def _rates_on(self, network: FeatureNetwork, rank: int, before: Array) -> Array:
        if eyring_kramers_rate(network.barrier(rank), self.temperature, warn=False).value * self.hold < HOPELESS:
            return np.zeros(2)
        try:
            rate = feature_radial_rate(network, self.temperature, rank, step=self.lr, warn=False).value
        except KramersGrokError:  # melted: all return at once
            return np.maximum(before, CERTAIN / self.hold) if before.any() else before
        slow, fast = 0.0, 0.0
        if rate * self.hold > NEGLIGIBLE:
            slow, fast = self.minibatch_logs(network, rank)
            slow -= left_out(network, self.temperature, rank)
        return rate * np.array([RATE_INTERVAL[0] * math.exp(slow), RATE_INTERVAL[1] * math.exp(fast)])

    @cached_property
    def disorder(self) -> Array:
        r"""Probability that feature r + 1 comes before feature r, by the stair, to leading exponential order.

        The saddle of the next but one feature has index 2 and is higher by the difference of the barriers:
        :math:`e^{-(\Delta F_{r+1}-\Delta F_r)/T}` on the stair on which feature r returns. Shape (rank, stair).
        """
        networks = [self.theory(v) for v in self.values.tolist()]
        modes = [[n.mode(k) for n in networks] for k in range(self.network.n_features)]
        heights = np.array(
            [[m.barrier().height if m.weight_decay < m.spinodal() else np.inf for m in row] for row in modes]
        )
        share = np.diff(1 - staircase_survival(self.rates.mean(axis=0), self.hold), axis=1, prepend=0.0)
        lower, higher = heights[:-1], heights[1:]
        gap = np.where(np.isfinite(lower), higher - np.nan_to_num(lower, posinf=0), np.inf)
        return np.asarray(np.cumsum(share[:-1] * np.exp(-gap / self.temperature), axis=1))

    def returned(self) -> Array:
        """Lower and upper end of the fraction that has returned by the end of each stair, (end, feature, stair)."""
        bounds = np.array([1 - staircase_survival(rate, self.hold) for rate in self.rates])
        bounds[1, 1:] = np.minimum(bounds[1, 1:] + self.disorder, 1.0)
        return bounds


def staircase_survival(rates: Array, hold: float) -> Array:
    """Survival after each stair, given the rate on it: shape (feature, stair)."""
    return np.asarray(np.exp(-np.cumsum(rates, axis=-1) * hold))


def stairs(device: str, fused: bool, config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    """Go down in λ by stairs, with noise and without: on which stair does each feature return?"""
    descent = Descent(config)
    values, hold, n = descent.values, descent.hold, int(config["n_replicas"])
    sigma, network = np.asarray(descent.network.singular_values), descent.network
    steps = round(hold / descent.lr)
    times = _return_times(descent.process(device, fused=fused), values, steps, n, seed, 0.5 * sigma)
    # Without noise, from amplitudes as large as the thermal ones.
    spread = (descent.temperature / values[0]) ** 0.5
    start = np.random.default_rng(seed).normal(0.0, spread, (n, network.n_parameters))
    quiet = {"without_noise": SGD(network, population(), lr=descent.lr, device=device, fused=False)}
    if descent.data is not None:
        quiet["without_injected_noise"] = descent.process(device, fused=False, injected=False)
    controls = {
        name: _return_times(process, values, round(WITHOUT_NOISE * steps), n, seed, 0.5 * sigma, start)
        for name, process in quiet.items()
    }
    returned = {f"n_returned_{name}": int(np.isfinite(c).any(axis=0).sum()) for name, c in controls.items()}
    return _table(descent, times).assign_attrs(returned)


def _table(descent: Descent, times: Array) -> xr.Dataset:
    """Fractions returned stair by stair, beside the predicted interval."""
    values, hold, n = descent.values, descent.hold, times.shape[1]
    stair = np.minimum(times / hold, values.size).astype(int)  # values.size: not at all
    measured = np.array([[(row <= i).mean() for i in range(values.size)] for row in stair])
    bounds = descent.returned()
    reached = {"units": "1", "long_name": "fraction that has returned by the end of the stair"}
    logs = np.array([_mean_log(b, values) for b in bounds]).T
    along = {"units": "1", "long_name": "mean of ln λ at the return"}
    swapped = {"units": "1", "long_name": "replicas in which the weaker of two neighbours returned first"}
    capped = np.minimum(times, 2 * hold * values.size)
    return xr.Dataset(
        {
            "returned": (("feature", "weight_decay"), measured, reached),
            "predicted_lower": (("feature", "weight_decay"), bounds[0], reached),
            "predicted_upper": (("feature", "weight_decay"), bounds[1], reached),
            "return_time": (("feature", "replica"), times, describe("time")),
            "mean_log": ("feature", _mean_log(measured, values), along),
            "predicted_log": (("feature", "end"), logs, along),
            "log_error": ("feature", _log_error(measured, values, n), {"units": "1", "long_name": "standard error"}),
            "n_swapped": ("pair", (np.diff(capped, axis=0) < 0).sum(axis=1), swapped),
            "expected_swapped": ("pair", n * descent.disorder[:, -1], swapped | {"long_name": "expected number"}),
        },
        coords={
            "feature": ("feature", np.arange(len(times)), describe("feature")),
            "weight_decay": ("weight_decay", values, describe("weight_decay")),
            "temperature": ((), descent.temperature, describe("temperature")),
            "lr": ((), descent.lr, describe("lr")),
            "singular_value": ("feature", descent.network.singular_values, describe("singular_value")),
        },
        attrs={
            "kind": "stairs" if descent.data is None else "digits",
            "n_replicas": n,
            "hold": hold,
            "widths": str(descent.network.widths),
            "n_ordered": int((np.diff(capped, axis=0) >= 0).all(axis=0).sum()),
            "expected_disordered": n * float(descent.disorder[:, -1].sum()),
            "rate_interval": list(RATE_INTERVAL),
        },
    )


def _return_times(
    process: SGD, stairs: Array, steps: int, n_replicas: int, seed: int, thresholds: Array, start: Array | None = None
) -> Array:
    """Time at which each feature is first seen beyond its threshold, infinite if never; shape (feature, replica)."""
    schedule = Piecewise(tuple(stairs.tolist()), (steps,) * stairs.size)
    scheduled = process.replace(weight_decay=schedule)
    state = scheduled.start(n_replicas, seed=seed, point=start)
    times = np.full((thresholds.size, n_replicas), np.inf)
    while state.step < steps * stairs.size and not np.isfinite(times).all():
        state, _ = scheduled.advance(state, min(CHUNK, steps * stairs.size - state.step))
        m = scheduled.order_parameters(state.theta).cpu().numpy().T
        times[(m >= thresholds[:, None]) & np.isinf(times)] = (state.step - 0.5) * process.dt
    return times


def _mean_log(returned: Array, stairs: Array) -> Array:
    """Mean of ln λ at the return, over those that return; NaN where none does."""
    share = _share(returned)
    return np.asarray(share @ np.log(stairs))


def _log_error(returned: Array, stairs: Array, n: int) -> Array:
    """Standard error of `_mean_log` from `n` replicas."""
    spread = (_share(returned) * (np.log(stairs) - _mean_log(returned, stairs)[:, None]) ** 2).sum(axis=1)
    return np.asarray(np.sqrt(spread / (n * np.maximum(returned[:, -1], 1 / n))))


def _share(returned: Array) -> Array:
    """Share of each stair among those that return."""
    steps, total = np.diff(returned, axis=1, prepend=0.0), returned[:, -1:]
    return np.divide(steps, total, out=np.full_like(steps, np.nan), where=total > 0)

r"""What the cells of a study have before them: barriers and mean exit times to leading order, thousands at once.

Closed forms only, for planning: modes and chains by Kramers' rate

.. math:: k = \nu\,\frac{\sqrt{\lambda|\mu_-|}}{2\pi}\,e^{-\Delta F/T}

with :math:`\nu = 2^{(D-1)/2}` in the chain of D weights (2^{D−1} saddles, D − 1 stiffer directions) and the number of
saddles, 2 or 1, in the mode; matrix networks by Eyring–Kramers with orbits at a few weight decays of each shape,
interpolated. SGD's own minibatch noise is added by its first-order factor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kramers_grok.theory import mode_states

__all__ = ["Outlook", "n_parameters", "outlook"]

Array = NDArray[np.float64]
Config = Mapping[str, Any]

_NODES = 24  # of the quadrature of the minibatch factor
_ANCHORS = 16  # weight decays at which the rate of a shape of networks is computed
_MOST_RADIAL = 300  # points whose radial free energy is asked for
_LARGEST_NETWORK = 200_000  # weights; beyond, the spectra take longer than a plan is worth


@dataclass(frozen=True)
class Outlook:
    """Expected fate of cells.

    Attributes
    ----------
    temperature : ndarray, shape (cell,)
        T [loss]; 0 where minibatches are the only noise, NaN without a barrier to measure it by.
    barrier_over_temperature : ndarray, shape (cell,)
        ΔF/T; NaN without a barrier.
    mean : ndarray, shape (cell,)
        Mean exit time [time]; NaN without a barrier, inf without a temperature.
    weight_decay, step : ndarray, shape (cell,)
        λ and the time step or learning rate [time]; NaN for theory.
    """

    temperature: Array
    barrier_over_temperature: Array
    mean: Array
    weight_decay: Array
    step: Array

    @property
    def status(self) -> list[str]:
        """What will become of each cell: "no barrier", "diverged", "not predicted" or "" if all is well."""
        bound = np.isnan(self.barrier_over_temperature)
        steep = self.step * self.weight_decay >= 2
        silent = self.temperature == 0
        words = np.select([bound, steep, silent], ["no barrier", "diverged", "not predicted"], "")
        return [str(word) for word in words]


def outlook(configs: Sequence[Config]) -> Outlook:
    """Return what cells have before them.

    Parameters
    ----------
    configs : sequence of mapping
        As in `kramers_grok.studies.schema.expansion.configurations`.

    Examples
    --------
    >>> system = {"kind": "chain", "depth": 3, "singular_value": 1.0, "weight_decay": 0.25}
    >>> ahead = outlook([{"engine": "theory", "system": system, "noise": {"barrier_over_temperature": 8.0}}])
    >>> print(f"{ahead.mean[0]:.0f} {ahead.status}")
    38435 ['']
    """
    kinds = [c["system"]["kind"] for c in configs]
    columns = np.array([[float(c["system"][name]) for name in _SYSTEM] for c in configs]).reshape(-1, len(_SYSTEM))
    depth, sigma, decay = columns.T
    width = np.array([float(c["system"].get("width", 0)) for c in configs])
    with np.errstate(all="ignore"):
        height, log_prefactor, zero_modes = _rates(np.array(kinds), depth, sigma, decay, width)
        temperature = _temperatures(configs, height)
        ratio = height / temperature
        # Each Goldstone mode of the saddle that the trap has not takes a factor sqrt(T) out of the rate's prefactor
        log_mean = ratio - log_prefactor + 0.5 * zero_modes * np.log(temperature)
        log_mean -= _minibatch(configs, depth, sigma, decay, temperature)
        log_mean += _widening(kinds, depth, sigma, decay, width, temperature)
        mean = np.where((temperature == 0) | np.isposinf(log_mean), np.inf, np.exp(np.minimum(log_mean, 700)))
    mean[np.isnan(height)] = np.nan
    return Outlook(temperature, ratio, mean, decay, np.array([_step(c) for c in configs]))


_SYSTEM = ("depth", "singular_value", "weight_decay")


def n_parameters(system: Mapping[str, Any]) -> int:
    """Number of parameters that move: 1 for a mode, D for a chain, all weights of a network."""
    if system["kind"] == "mode":
        return 1
    depth, width = int(system["depth"]), int(system.get("width", 0))
    return 2 * width + (depth - 2) * width**2 if system["kind"] == "network" else depth


def _step(config: Config) -> float:
    if "sgd" in config:
        return float(config["sgd"]["lr"])
    return float(config["langevin"]["dt"]) if "langevin" in config else np.nan


def _temperatures(configs: Sequence[Config], height: Array) -> Array:
    """Temperature of each cell [loss]."""
    heat = np.empty(len(configs))
    for i, config in enumerate(configs):
        ((name, value),) = config["noise"].items()
        if name == "std":
            heat[i] = config["sgd"]["lr"] * value**2 / (2 * config["sgd"]["batch_size"])
        else:
            heat[i] = value if name == "temperature" else height[i] / value
    return heat


def _rates(kinds: Any, depth: Array, sigma: Array, decay: Array, width: Array) -> tuple[Array, Array, Array]:
    """Barrier height [loss], log prefactor [log 1/time] and number of zero modes of each cell, systems once each."""
    keys = np.stack([kinds == "mode", depth, sigma, decay, width], axis=1)
    unique, index = np.unique(keys, axis=0, return_inverse=True)
    mode, d, s, lam, w = unique.T
    height = mode_states.barrier_height(d, s, lam)
    curvature = np.abs(mode_states.saddle_curvature(d, s, lam))
    ways = np.where(mode == 1, np.log(2 - d % 2), 0.5 * (d - 1) * np.log(2))
    prefactor = ways + 0.5 * np.log(lam * curvature) - np.log(2 * np.pi)
    zero_modes = np.zeros_like(prefactor)
    for shape in {(int(a), int(b)) for a, b in zip(d[w > 0], w[w > 0], strict=True)}:
        mine = (d == shape[0]) & (w == shape[1]) & np.isfinite(height)
        if mine.any():
            prefactor[mine], zero_modes[mine] = _network(*shape, s[mine], lam[mine], prefactor[mine])
    index = index.reshape(-1)  # numpy 2.0.0 gave it another shape
    return height[index], prefactor[index], zero_modes[index]


def _network(depth: int, width: int, sigma: Array, decay: Array, chain: Array) -> tuple[Array, float]:
    r"""Log prefactors of networks of one shape, and their number of zero modes.

    In units of :math:`\sigma^{1/D}` for weights the landscape depends on :math:`\lambda\sigma^{2/D-2}` alone, and time
    runs :math:`\sigma^{2-2/D}` times as fast.
    """
    if 2 * width + (depth - 2) * width**2 > _LARGEST_NETWORK:
        return chain, 0.0
    from kramers_grok.theory.rates import eyring_kramers_rate
    from kramers_grok.theory.saddles import MatrixNetwork

    speed = sigma ** (2 - 2 / depth)
    reduced = decay / speed
    anchors = np.unique(np.quantile(reduced, np.linspace(0, 1, min(_ANCHORS, len(reduced)))))
    values, zero_modes = [], 0
    for anchor in anchors:
        barrier = MatrixNetwork((1, *[width] * (depth - 1), 1), (1.0,), float(anchor)).barrier()
        zero_modes = barrier.saddle_zero_modes
        heat = barrier.height / 10
        rate = eyring_kramers_rate(barrier, heat, warn=False)
        values.append(np.log(rate.value) + 10 + 0.5 * zero_modes * np.log(heat))
    found = np.interp(np.log(reduced), np.log(anchors), values)
    # k(σ, λ, T) = speed · k(1, λ/speed, T/σ²)
    return found + np.log(speed) + zero_modes * np.log(sigma), float(zero_modes)


def _widening(kinds: Sequence[str], *columns: Array) -> Array:
    """Log of the factor by which the radial free energy corrects a network's time, +∞ where the trap has melted.

    A point takes some milliseconds: a grid of very many is planned without.
    """
    factor = np.zeros(len(kinds))
    rows: dict[tuple[float, ...], list[int]] = {}
    for i, (kind, row) in enumerate(zip(kinds, zip(*columns, strict=True), strict=True)):
        if kind == "network" and np.isfinite(row).all() and row[-1] > 0:
            rows.setdefault(tuple(map(float, row)), []).append(i)
    if len(rows) > _MOST_RADIAL:
        return factor
    for row, mine in rows.items():
        factor[mine] = _radial_factor(*row)
    return factor


def _radial_factor(depth: float, sigma: float, decay: float, width: float, temperature: float) -> float:
    from kramers_grok.core.exceptions import InvalidParameterError, NoBarrierError
    from kramers_grok.theory.radial import radial_rate
    from kramers_grok.theory.rates import eyring_kramers_rate
    from kramers_grok.theory.saddles import MatrixNetwork

    d, h = int(depth), int(width)
    if 2 * h + (d - 2) * h**2 > _LARGEST_NETWORK:
        return 0.0
    network = MatrixNetwork((1, *[h] * (d - 1), 1), (sigma,), decay)
    try:
        gaussian = eyring_kramers_rate(network.barrier(), temperature, warn=False)
        return math.log(gaussian.value / radial_rate(network, temperature, warn=False).value)
    except NoBarrierError:
        return math.inf
    except (InvalidParameterError, ValueError, ZeroDivisionError):  # out of range: planned without
        return 0.0


def _minibatch(configs: Sequence[Config], depth: Array, sigma: Array, decay: Array, temperature: Array) -> Array:
    """Log of the factor by which SGD's own noise quickens each cell's escape; see `minibatch_log_factor`."""
    factor = np.zeros(len(configs))
    mine = [i for i, config in enumerate(configs) if "sgd" in config]
    if not mine:
        return factor
    sgd = [configs[i]["sgd"] for i in mine]
    epsilon = np.array([s["lr"] / s["batch_size"] for s in sgd])[:, None]
    label = np.array([s["label_noise"] for s in sgd])[:, None]
    d, s, lam, heat = (x[mine][:, None] for x in (depth, sigma, decay, temperature))
    top = mode_states.saddle_amplitude(d, s, lam)
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)

    def diffusion(a: Array) -> Array:
        m = a**d
        return np.asarray(0.5 * epsilon * (2 * (s - m) ** 2 + label**2) * d * a ** (2 * d - 2))

    a = 0.5 * top * (nodes + 1)
    slope = d * a * (lam - a ** (d - 2) * (s - a**d))
    share = diffusion(a) / (heat * (heat + diffusion(a)))
    exponent = 0.5 * top[:, 0] * ((slope * share) @ weights)
    found = exponent - 0.5 * np.log1p(diffusion(top) / heat)[:, 0]
    factor[mine] = np.where(np.isfinite(found), found, 0.0)
    return factor

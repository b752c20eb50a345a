r"""Growth rate of unused directions under minibatch noise: is a low-rank state absorbing?

Next to a network that uses r units of every hidden layer the unused ones obey linear equations with random coefficients
(`kramers_grok.dynamics.unused`). Their largest Lyapunov exponent Λ, one for each hidden layer, decides: below 0
whatever is small dies out and SGD never learns another feature; above 0 the smallest amplitude grows as
:math:`e^{\Lambda t}`. The coefficients come from the background *as it fluctuates*: with the background held at rest
even the sign comes out wrong, because the used channel answers the same noise and because noise unbalances the layers.

r of the exponents are 0 by symmetry, those of the rotations of an unused into a used unit. They are taken out exactly:
growth is that of the part at right angles to the used units.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.vocabulary import describe
from kramers_grok.dynamics import lyapunov
from kramers_grok.dynamics.lyapunov import BLOCKS, EVERY, BlockRates
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.dynamics.unused import Background, Batches, Unused, used_network, used_units
from kramers_grok.models.data import OnlineTeacher
from kramers_grok.models.deep_linear import DeepLinearNetwork
from kramers_grok.theory.transverse_growth import mean_square_factor

__all__ = ["growth_rate"]

Array = NDArray[np.float64]

LOST = 0.1  # of the norms' product at the start: below, a background has lost its features


def growth_rate(
    process: SGD,
    *,
    rank: int = 1,
    n_steps: int,
    n_replicas: int,
    seed: int,
    burn_in: int | None = None,
    confidence: float = 0.99,
) -> xr.Dataset:
    r"""Measure the growth rate of the directions that a state of low rank does not use.

    Parameters
    ----------
    process : SGD
        Of a DeepLinearNetwork: plain gradient descent, constant hyperparameters, minibatches as the only noise. Hidden
        widths do not matter.
    rank : int
        Number r ≥ 1 of strongest features that are learned.
    n_steps : int
        Steps over which growth is measured; rounded up to a whole number of blocks.
    n_replicas : int
        Independent replicas, at least 8.
    seed : int
        Key of all noise.
    burn_in : int, optional
        Steps before, from the balanced state at rest. Default: 4/(ηλ), in which imbalance forgets its start to e^-8.
    confidence : float
        Of the intervals and the verdict; over the hidden layers together (Bonferroni).

    Returns
    -------
    Dataset
        Along `hidden_layer`, whose unused units grow independently of those of other layers: `growth_rate` Λ [1/time],
        `growth_rate_error`, `growth_rate_lower`, `growth_rate_upper`, `growth_spread` (half of the variance of the
        logarithm of the amplitude, for each unit of time) and `tail_exponent` −Λ/spread. `block_growth_rate`
        (hidden_layer, replica, block). `verdict`: absorbing if all hidden layers' rates are below 0, escapable if all
        are above 0: a map of higher rank must pass through every one of them. Otherwise undecided, for want of
        precision or because one layer leaves and another stays.

        Of the used channel: `gain` (largest eigenvalue of :math:`(W_D\cdots W_2)^T W_D\cdots W_2`, mean over replicas
        and time), `mean_square_factor` (exact for white Gaussian inputs at that gain, NaN otherwise) and
        `measured_mean_square_factor`: by how much a step changes the mean square of a deviation of the first layer, the
        layers above held; above 1 it grows. `layer_norm`, `imbalance` and `order_parameter` are means.

        The standard error is the larger of that over replicas and that over blocks of time.

    Raises
    ------
    InvalidParameterError
        For another model, optimizer or noise, changing hyperparameters, or a rank that the network cannot have.
    NoBarrierError
        If λ is not below the spinodal of a learned feature.
    DivergedError
        If more than a quarter of the backgrounds left the finite numbers: which, and by which step.

    Warns
    -----
    ValidityWarning
        If backgrounds have lost a feature or left the finite numbers (these are left out, and counted in the attributes
        `n_lost` and `n_diverged`), or growth in the first and in the second half differ: the burn-in was too short.

    References
    ----------
    Z. Wang and A. Jacot, Implicit bias of SGD in L2-regularized linear DNNs: one-way jumps from high to low rank, ICLR
    2024 (arXiv:2305.16038). F. Chen, D. Kunin, A. Yamamura and S. Ganguli, Stochastic collapse, NeurIPS 2023
    (arXiv:2306.04251).

    Examples
    --------
    >>> from kramers_grok.models.data import teacher
    >>> network = DeepLinearNetwork((4, 3, 3, 4), [2.0, 1.0], weight_decay=0.1)
    >>> sgd = SGD(network, teacher(label_noise=0.5), lr=0.05, batch_size=8)
    >>> result = growth_rate(sgd, n_steps=400, n_replicas=16, seed=0)
    >>> str(result.verdict.item()), bool((abs(result.growth_rate + 0.1) < 0.05).all())
    ('absorbing', True)
    """
    network = _network(process)
    rank = _rank(network, rank)
    level = checks.fraction("confidence", confidence)
    replicas = lyapunov.replicas(n_replicas)
    each = -(-checks.positive_int("n_steps", n_steps) // (BLOCKS * EVERY)) * EVERY
    settle = lyapunov.settling(process, burn_in)
    run = _Run(process, used_network(network, rank), replicas, checks.seed(seed))
    for _ in range(BLOCKS):  # finite or not is asked for block by block
        run.advance(-(-settle // (BLOCKS * EVERY)) * EVERY)
    blocks = [run.advance(each) for _ in range(BLOCKS)]
    kept = run.kept()
    measured = {name: np.stack([block[name] for block in blocks], axis=-1)[..., kept, :] for name in blocks[0]}
    dataset = _dataset(process, network, measured, each * float(process.lr), level)
    dataset.attrs |= {"rank": rank, "n_steps": each * BLOCKS, "burn_in": settle, "confidence": level, "seed": seed}
    return dataset.assign_attrs(
        n_replicas=replicas, n_lost=run.lost, n_diverged=run.gone, sampler=type(process.sampler).__name__
    )


def _network(process: SGD) -> DeepLinearNetwork:
    """The network of a process that this theory holds for."""
    if not isinstance(process.model, DeepLinearNetwork):
        raise InvalidParameterError(
            f"`process` trains a {type(process.system).__name__}, expected a DeepLinearNetwork: a chain or mode has no "
            "unused units.\nUse `DeepLinearNetwork((1, 2, 2, 1), [1.0], weight_decay=0.25)`."
        )
    lyapunov.check_training(process)
    return process.model


def _rank(network: DeepLinearNetwork, rank: int) -> int:
    most = min(network.n_features, *network.widths[1:-1])
    number = checks.positive_int("rank", rank, why="around rank 0 nothing moves, and Λ = ln(1 − ηλ)/η exactly")
    if number > most:
        raise checks.invalid("rank", number, f"at most {most}", "so many features the hidden layers can hold")
    return number


# ---------------------------------------------------------------- the run


class _Run:
    """Replicas of the background, each with an unused direction for every hidden layer."""

    def __init__(self, process: SGD, model: DeepLinearNetwork, n_replicas: int, seed: int) -> None:
        self.model, self.seed, self.step = model, seed, 0
        self.rule = Background(float(process.lr), float(process.weight_decay))
        self.batches = Batches(process, model)
        state = model if process.weight_decay == model.weight_decay else _at(model, float(process.weight_decay))
        start = state.ordered_state(range(model.widths[1])).to(process.device, process.dtype)
        self.streams = torch.arange(n_replicas, dtype=torch.int64, device=process.device)
        self.layers = [w.contiguous() for w in model.layers(start.expand(n_replicas, -1))]
        self.memory: Mapping[str, Tensor] = self.batches.source.buffers(n_replicas)
        self.unused = Unused.random(model.widths, seed, self.streams, process.dtype)
        self.probe = torch.ones_like(self.layers[0])
        self.size, self.lost, self.gone = self._size(), 0, 0

    def _size(self) -> Tensor:
        """Smallest singular value of the end-to-end map that is not 0, shape (replica,); NaN if diverged."""
        product = self.layers[0]
        for layer in self.layers[1:]:
            product = torch.bmm(layer, product)
        values = torch.linalg.svdvals(product.nan_to_num(0.0, 0.0, 0.0)).select(1, self.model.widths[1] - 1)
        return torch.where(product.isfinite().all(dim=2).all(dim=1), values, torch.nan)

    def kept(self) -> NDArray[np.bool_]:
        """Which replicas are finite and still use all their units; raises where too few are."""
        size = (self._size() / self.size).cpu().numpy()
        lost, gone = size <= LOST, np.isnan(size)
        kept: NDArray[np.bool_] = ~(lost | gone)
        if kept.sum() < 8:
            raise InvalidParameterError(
                f"{int(lost.sum())} of {len(kept)} backgrounds have lost a feature by step {self.step}, expected a "
                "state that lasts: there is nothing that growth could be measured beside.\n"
                "Use fewer `n_steps`, a lower `rank`, or weaker noise (smaller lr / batch_size)."
            )
        for which, what in ((lost, "have lost a feature"), (gone, "left the finite numbers")):
            lyapunov.warn_left_out(which, what, self.step)
        self.lost, self.gone = int(lost.sum()), int(gone.sum())
        return kept

    def advance(self, n_steps: int) -> dict[str, Array]:
        """Take steps; return means over them for each replica, shapes (…, replica)."""
        growth = [torch.zeros_like(p[:, 0]) for p in self.unused.incoming]
        square = torch.zeros_like(growth[0])
        seen: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        for number in range(n_steps):
            batch, self.memory = self.batches.draw(self.seed, self.streams, self.step, self.memory)
            passes = self.rule.passes(self.layers, batch)
            self.unused = self.rule.unused(self.unused, batch, passes)
            moved = self.rule.first_layer(self.probe, self.layers, batch)
            self.layers = self.rule.moved(self.layers, batch, passes)
            length = moved.square().sum(dim=(1, 2), keepdim=True)
            square += length.squeeze(2).squeeze(1)
            self.probe = moved / length.sqrt()
            self.step += 1
            if (number + 1) % EVERY == 0:
                for total, logarithm in zip(growth, self._project(), strict=True):
                    total += logarithm
                seen.append(self._look())
        self._check()
        if not seen:
            return {}
        means = [torch.stack(values).mean(dim=0).movedim(0, -1).cpu().numpy() for values in zip(*seen, strict=True)]
        return {
            "growth": torch.stack(growth).cpu().numpy(),
            "square": (square / n_steps).cpu().numpy(),
            **dict(zip(("norm", "imbalance", "order", "gain"), means, strict=True)),
        }

    def _project(self) -> list[Tensor]:
        """Take out what lies along the used units, scale to length 1, return the logarithms of the lengths."""
        logarithms = []
        for index, used in enumerate(used_units(self.layers)):
            p, v = self.unused.incoming[index], self.unused.outgoing[index]
            direction = torch.cat([p, v], dim=1)
            basis: list[Tensor] = []
            for unit in used.unbind(dim=1):
                basis.append(_across(unit, basis))
                basis[-1] = basis[-1] / basis[-1].norm(dim=1, keepdim=True)
            direction = _across(_across(direction, basis), basis)  # twice is enough
            length = direction.norm(dim=1, keepdim=True)
            direction = direction / length
            self.unused.incoming[index], self.unused.outgoing[index] = torch.split(
                direction, [p.shape[1], v.shape[1]], dim=1
            )
            logarithms.append(length.squeeze(1).log())
        return logarithms

    def _look(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Norms (replica, layer), imbalances (replica, hidden layer), order parameters, gain (replica,)."""
        layers = self.layers
        norms = torch.stack([w.square().sum(dim=(1, 2)).sqrt() for w in layers], dim=1)
        gaps = [torch.bmm(b.transpose(1, 2), b) - torch.bmm(a, a.transpose(1, 2)) for a, b in pairwise(layers)]
        imbalance = torch.stack([gap.square().sum(dim=(1, 2)).sqrt() for gap in gaps], dim=1)
        order = self.model.order_parameters(torch.cat([w.flatten(1) for w in layers], dim=1))
        above = layers[1]
        for layer in layers[2:]:
            above = torch.bmm(layer, above)
        gram = torch.bmm(above.transpose(1, 2), above)
        gain = gram.flatten() if gram.shape[1] == 1 else torch.linalg.eigvalsh(gram.nan_to_num(0.0)).select(1, -1)
        return norms, imbalance, order, gain

    def _check(self) -> None:
        """Raise if too many replicas left the finite numbers."""
        finite = torch.stack([w.isfinite().all(dim=2).all(dim=1) for w in self.layers]).all(dim=0).cpu().numpy()
        lyapunov.check_finite(
            finite,
            self.step,
            meaning="the used channel is unstable, and growth beside it means nothing",
            fix="Use a smaller lr / batch_size, or fewer inputs; see `mean_square_factor`.",
        )


def _at(model: DeepLinearNetwork, weight_decay: float) -> DeepLinearNetwork:
    """The same network at another weight decay."""
    return DeepLinearNetwork(
        model.widths, model.teacher_matrix, weight_decay=weight_decay, input_covariance=model.input_covariance
    )


def _across(vector: Tensor, basis: list[Tensor]) -> Tensor:
    """Part of a vector (replica, n) at right angles to orthonormal ones."""
    for unit in basis:
        vector = vector - (vector * unit).sum(dim=1, keepdim=True) * unit
    return vector


# ---------------------------------------------------------------- results


def _dataset(
    process: SGD, network: DeepLinearNetwork, measured: dict[str, Array], block_time: float, level: float
) -> xr.Dataset:
    """Rates and errors from means over blocks, each (…, replica, block)."""
    rates = BlockRates.of(measured["growth"] / block_time, level)
    duration = block_time * measured["growth"].shape[2]
    spread = 0.5 * rates.block_growth_rate.mean(axis=2).var(axis=1, ddof=1) * duration
    values: dict[str, tuple[str | tuple[str, ...], object]] = {
        **rates.variables("hidden_layer"),
        "growth_spread": ("hidden_layer", spread),
        "tail_exponent": ("hidden_layer", -rates.growth_rate / spread),
        "verdict": ((), _verdict(rates.growth_rate_lower, rates.growth_rate_upper)),
        "gain": ((), measured["gain"].mean()),
        "mean_square_factor": ((), _exact_factor(process, network, measured["gain"])),
        "measured_mean_square_factor": ((), measured["square"].mean()),
        "layer_norm": ("layer", measured["norm"].mean(axis=(1, 2))),
        "imbalance": ("hidden_layer", measured["imbalance"].mean(axis=(1, 2))),
        "order_parameter": ("feature", measured["order"].mean(axis=(1, 2))),
    }
    dataset = xr.Dataset({name: (dims, value, describe(name)) for name, (dims, value) in values.items()})
    for name in ("hidden_layer", "layer", "feature", "block"):
        first = 1 if name in ("hidden_layer", "layer") else 0
        dataset.coords[name] = (name, first + np.arange(dataset.sizes[name]), describe(name))
    lr, size = float(process.lr), int(process.batch_size)
    scalars = {"lr": lr, "batch_size": size, "lr_over_batch": lr / size, "weight_decay": float(process.weight_decay)}
    if isinstance(process.data, OnlineTeacher):
        scalars["label_noise"] = process.data.label_noise
    return dataset.assign_coords({name: ((), value, describe(name)) for name, value in scalars.items()})


def _verdict(lower: Array, upper: Array) -> str:
    if (upper < 0).all():
        return "absorbing"
    # A map of higher rank must pass through every hidden layer.
    return "escapable" if (lower > 0).all() else "undecided"


def _exact_factor(process: SGD, network: DeepLinearNetwork, gain: Array) -> float:
    """Mean-square factor of a first layer with Gaussian inputs, mean over replicas and blocks; NaN for others."""
    if not (isinstance(process.data, OnlineTeacher) and network.is_white):
        return float("nan")
    factors = [
        mean_square_factor(
            float(process.lr), int(process.batch_size), float(process.weight_decay), float(g),
            n_inputs=network.n_inputs, input_variance=network.input_variance,
        )
        for g in gain.ravel()
    ]  # fmt: skip
    return float(np.mean(factors))

"""Is a module a deterministic function of parameters and sample, and its loss a differentiable mean? Tried out."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError

__all__ = ["check_derivative", "is_mean_over_samples", "probed_outputs"]

Loss = Callable[[Tensor, Tensor], Tensor]


class _Heard:
    """What the submodules of a module did in one run, innermost first."""

    def __init__(self) -> None:
        self.outputs: dict[str, Tensor] = {}
        self.drew: list[str] = []  # those that moved torch's global generator

    @contextmanager
    def listening(self, module: nn.Module) -> Iterator[None]:
        handles = []
        for name, part in module.named_modules():
            before: list[Tensor] = []
            handles.append(part.register_forward_pre_hook(self._before(before)))
            handles.append(part.register_forward_hook(self._after(name, before)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _before(self, states: list[Tensor]) -> Callable[..., None]:
        def keep(_: nn.Module, __: Any) -> None:
            states.append(torch.random.get_rng_state())

        return keep

    def _after(self, name: str, states: list[Tensor]) -> Callable[..., None]:
        def keep(_: nn.Module, __: Any, output: Any) -> None:
            if not torch.equal(states.pop(), torch.random.get_rng_state()):
                self.drew.append(name)
            if isinstance(output, Tensor):
                self.outputs[name] = output.detach().clone()

        return keep


def probed_outputs(module: nn.Module, x: Tensor) -> Tensor:
    """Run a module on inputs (sample, input) and return its outputs, (sample, output).

    Randomness shows in torch's generator, in a second run, or in buffers that change; samples that see each other show
    in a part of the batch, in another order. Weights are shaken first: a layer that begins at 0 would hide what comes
    before it.

    Raises
    ------
    InvalidParameterError
        If it cannot be run, or is not a deterministic function of parameters and sample; names the submodule.
    """
    trial = copy.deepcopy(module).cpu().to(torch.float64)
    given = _run(trial, x)[0]
    _check_shape(given, x)
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for parameter in trial.parameters():
            parameter.add_(torch.from_numpy(0.3 * rng.standard_normal(parameter.shape)))
    buffers = {name: b.clone() for name, b in trial.named_buffers()}
    first, heard = _run(trial, x)
    changed = [n for n, b in trial.named_buffers() if not _same(b, buffers[n])]
    if changed:
        raise _not_a_function(f"changes its buffer `{changed[0]}` when it runs", changed[0].rpartition(".")[0])
    if heard.drew:
        raise _not_a_function("draws random numbers when it runs", heard.drew[0])
    second, again = _run(trial, x)
    differs = [name for name, output in heard.outputs.items() if not _same(output, again.outputs.get(name))]
    if differs or not _same(first, second):
        raise _not_a_function("gives another output when it is run again", differs[0] if differs else "")
    _check_samples(trial, x, first)
    return given


def _run(module: nn.Module, x: Tensor) -> tuple[Tensor, _Heard]:
    """The module's output and what its parts did; the global generator is left as it was."""
    heard, seen = _Heard(), x.clone()
    with torch.random.fork_rng(devices=[]), torch.no_grad(), heard.listening(module):
        try:
            output = module(seen)
        except Exception as error:  # whatever a user's forward may raise
            raise InvalidParameterError(
                f"`module` could not be run on inputs of shape {tuple(x.shape)} "
                f"({type(error).__name__}: {error}), expected one that takes (sample, input) in float64.\n"
                "Use `torch.nn.Sequential(torch.nn.Unflatten(1, …), module)` for inputs of another shape."
            ) from error
    if not torch.equal(seen, x):
        raise _not_a_function("writes into its inputs", "")
    return output, heard


def _check_shape(output: Any, x: Tensor) -> None:
    shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != len(x):
        raise checks.invalid(
            "module", checks.Described(f"one with outputs {shape}"), f"outputs of shape ({len(x)}, output)",
            "one row for each sample", "Flatten inside the module, e.g. by a last `torch.nn.Flatten()`.",
        )  # fmt: skip
    if output.dtype != torch.float64:
        raise checks.invalid(
            "module", checks.Described(f"one with outputs in {output.dtype}"), "float64 for inputs in float64",
            "minima and saddles are found to more digits than that", "Leave casts such as `.float()` out of `forward`.",
        )  # fmt: skip
    if not bool(torch.isfinite(output).all()):
        raise checks.invalid(
            "module", checks.Described("one with outputs that are not finite"), "finite outputs on the data",
            "nothing can move there",
        )  # fmt: skip


def _check_samples(module: nn.Module, x: Tensor, whole: Tensor) -> None:
    """Raise if a sample's output depends on its neighbours, or on its place among them."""
    part = torch.arange(len(x) - 1, -1, -1)[: max(1, len(x) // 2)]
    if not torch.allclose(_run(module, x[part])[0], whole[part], rtol=1e-9, atol=1e-12, equal_nan=True):
        raise _not_a_function("computes a sample's output from the other samples of its batch, or its place there", "")


def is_mean_over_samples(loss: Loss, outputs: Tensor, labels: Tensor) -> bool:
    """Whether a loss of (outputs, labels) is the mean of those of single samples; raise if it is no number.

    Raises
    ------
    InvalidParameterError
        If the loss cannot be computed, or is no scalar.
    """
    rows = torch.arange(8) % len(outputs)
    y = labels[rows]
    f = outputs[rows] + torch.from_numpy(0.3 * np.random.default_rng(1).standard_normal((8, outputs.shape[1])))
    try:
        whole: Any = loss(f, y)
        single = [loss(f[i : i + 1], y[i : i + 1]) for i in range(8)]
    except Exception as error:  # whatever a user's loss may raise
        raise InvalidParameterError(
            f"`loss` could not be computed of outputs {tuple(f.shape)} and labels {tuple(y.shape)} "
            f"({type(error).__name__}: {error}), expected a function of both.\n"
            "Labels are float64, as in `data.y`: use `lambda f, y: cross_entropy(f, y[:, 0].long())` for classes."
        ) from error
    if not isinstance(whole, Tensor) or whole.shape != ():
        shape = tuple(whole.shape) if isinstance(whole, Tensor) else type(whole).__name__
        raise checks.invalid(
            "loss", checks.Described(f"one with values {shape}"), "a scalar tensor", "it is the energy",
            "Use `.mean()` over the samples.",
        )  # fmt: skip
    return bool(torch.allclose(whole, torch.stack(single).mean(), rtol=1e-9, atol=1e-12))


def check_derivative(energy: Callable[[Tensor], Tensor], gradient: Callable[[Tensor], Tensor], point: Tensor) -> None:
    """Raise if automatic differentiation does not give the slope of an energy near a point (parameter,).

    Compared with a difference quotient at five points around it, of which one must agree: others may lie at a kink.

    Raises
    ------
    InvalidParameterError
        If none does, or the two cannot be computed for several replicas at once.
    """
    rng = np.random.default_rng(2)
    shifts, ways = (torch.from_numpy(rng.standard_normal((5, len(point)))) for _ in range(2))
    points, step = point + 0.3 * shifts, 1e-5
    try:
        slope = (gradient(points) * ways).sum(dim=1)
        ahead, behind, here = energy(points + step * ways), energy(points - step * ways), energy(points)
    except Exception as error:  # whatever the operations of a module may raise when they are batched
        raise InvalidParameterError(
            f"`module` and `loss` could not be differentiated for several replicas at once ({type(error).__name__}: "
            f"{error}), expected operations that `torch.func.grad` and `torch.func.vmap` know.\n"
            "Use operations on tensors in place of Python's `if`, `.item()` and assignments to entries."
        ) from error
    quotient = (ahead - behind) / (2 * step)
    near = (slope - quotient).abs() <= 1e-5 * (slope.abs() + quotient.abs()) + 1e-7 * (1.0 + here.abs())
    if not bool(near.any()):
        raise InvalidParameterError(
            f"The gradient of `module` and `loss` along a direction is {float(slope[0]):.4g}, that of the energy "
            f"{float(quotient[0]):.4g}, expected the same: something is cut off from differentiation, or "
            "differentiated as something else.\n"
            "Leave `.detach()`, `torch.no_grad()` and straight-through estimators out of `forward`."
        )


def _same(a: Tensor, b: Tensor | None) -> bool:
    return b is not None and a.shape == b.shape and bool(((a == b) | (a.isnan() & b.isnan())).all())


def _not_a_function(what: str, where: str) -> InvalidParameterError:
    place = f" (submodule `{where}`)" if where else ""
    return InvalidParameterError(
        f"`module` {what}{place}, expected a deterministic function of parameters and sample: barriers and escape "
        "times belong to one energy.\nUse `module.eval()` (dropout off, batch normalisation with fixed statistics), or "
        "leave that part out."
    )

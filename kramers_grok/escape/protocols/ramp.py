r"""Weight decay moved at a finite rate under noise: at which λ does each replica learn, or forget?

Without noise a learned feature disappears at its spinodal and nothing returns. With noise every replica leaves at a λ
of its own, whose distribution `kramers_grok.theory.ramps` predicts: the hysteresis loop has a width that depends on
the rate and on the temperature.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import xarray as xr
from numpy.typing import ArrayLike

from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.region import Region
from kramers_grok.core.schema import describe
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.escape.first_passage import first_passage
from kramers_grok.theory.deep_linear import DeepLinearChain, Mode
from kramers_grok.theory.ramps import Ramp, ramp_start, ramp_target

__all__ = ["ramp"]

# Relaxation times at the initial λ before the ramp begins
SETTLING = 5.0


def ramp(
    process: SGD,
    ramp: Ramp,
    *,
    n_replicas: int,
    seed: int,
    target: Region | None = None,
    start: ArrayLike | None = None,
    settling_time: float | None = None,
    extra: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    r"""Move the weight decay along a ramp and record at which λ every replica enters the target.

    Parameters
    ----------
    process : SGD
        Learning rate, batches and noise; its weight decay is replaced by the ramp's.
    ramp : Ramp
        Its time is learning rate times steps.
    n_replicas, seed
        As in `first_passage`.
    target : Region, optional
        One border in m for the whole ramp; by default that of `ramp_target`, for a mode or a chain: the order parameter
        of the spinodal on the way down, half way from the saddle to 0 at the ramp's start on the way up.
    start : array_like, optional
        Bottom of the well at the ramp's start; by default that of `ramp_start`.
    settling_time : float, optional
        Time at the initial λ before the clock starts, in which replicas fill the well [time]; 5/λ if not given.
    extra : mapping, optional
        Scalar coordinates of the result, by name.

    Returns
    -------
    xarray.Dataset
        That of `first_passage`, its time counted from the ramp's start, with ``weight_decay_at_exit`` (replica): the λ
        of the step that entered the target, the ramp's end for a replica that never did (``escaped`` False).

    Raises
    ------
    InvalidParameterError
        For a learning rate that is not one number, a model without default target or start, or replicas that leave
        while they settle: then the ramp begins where the state is not metastable.

    Examples
    --------
    >>> from kramers_grok.core.noise import per_sample
    >>> from kramers_grok.models.data import teacher
    >>> mode = Mode(3, 1.0, 0.25)
    >>> sgd = SGD(mode, teacher(label_noise=0.1), lr=0.1, batch_size=16, noise=per_sample(temperature=0.003))
    >>> found = ramp(sgd, Ramp(0.4, 0.02, rate=1e-3), n_replicas=8, seed=0)
    >>> bool(((found.weight_decay_at_exit > 0.02) == found.escaped).all())
    True
    """
    lr = _constant_lr(process)
    system = process.system
    if isinstance(system, Mode | DeepLinearChain):
        target = ramp_target(system, ramp) if target is None else target
        start = ramp_start(system, ramp) if start is None else start
    elif target is None or start is None:
        raise InvalidParameterError(
            f"`target` or `start` is missing for a {type(system).__name__}: only the mode and the chain of scalar "
            "weights have default ones.\n"
            "Give `target=Region(...)` beyond the barrier at every λ of the ramp, and the learned weights as `start`."
        )
    hold = SETTLING / ramp.start if settling_time is None else checks.non_negative("settling_time", settling_time)
    at_rest = process.replace(weight_decay=ramp.start)
    state = at_rest.start(n_replicas, seed=checks.seed(seed) ^ 1, point=start)
    state, _ = at_rest.advance(state, max(1, math.ceil(hold / lr)))
    settled = state.theta.cpu().numpy()
    inside = target.contains(at_rest.order_parameters(state.theta)[:, target.feature].cpu().numpy())
    if inside.any():
        raise InvalidParameterError(
            f"{int(inside.sum())} of {n_replicas} replicas left while they settled at λ = {ramp.start:g}: the ramp "
            f"begins where the state is left within {hold:.3g} [time].\n"
            "Begin further away from the transition, or lower the temperature."
        )
    moving = process.replace(weight_decay=ramp.schedule(lr))
    coordinates = {"ramp_start": ramp.start, "ramp_stop": ramp.stop, "ramp_rate": ramp.rate}
    run = first_passage(
        moving,
        target=target,
        n_replicas=n_replicas,
        max_time=ramp.duration,
        seed=seed,
        start=settled,
        extra=coordinates | dict(extra or {}),
    )
    # The step that enters the target at time t began at t − η
    at_exit = ramp.weight_decay(run["exit_time"].values - lr * run["escaped"].values)
    run["weight_decay_at_exit"] = ("replica", at_exit, describe("weight_decay_at_exit"))
    return run


def _constant_lr(process: SGD) -> float:
    if not isinstance(process.lr, float):
        raise InvalidParameterError(
            "`process` has a learning rate that is not one number, expected one: a ramp is a straight line in time.\n"
            "Use `process.replace(lr=0.1)`."
        )
    return process.lr

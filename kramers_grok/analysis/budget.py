r"""Where the difference between a simulation and the asymptotic formula comes from.

.. math:: \hat\tau - \tau_{\rm as} = \underbrace{\tau_0 - \tau_{\rm as}}_{\text{asymptotic}}
          + \underbrace{\tau_h - \tau_0}_{\text{time step}} + \underbrace{\tau_h^{\rm w} - \tau_h}_{\text{monitoring}}
          + \underbrace{\tau - \tau_h^{\rm w}}_{\text{minibatch}} + \underbrace{\hat\tau - \tau}_{\text{statistical}}

with the exact mean exit time in continuous time, :math:`\tau_0`; of the discrete chain watched continuously,
:math:`\tau_h`; as it was watched, :math:`\tau_h^{\rm w}`; and with the noise of its data, :math:`\tau`. The columns
sum to the whole because neighbours cancel.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from kramers_grok.analysis.ladder import ClosedForm, NetworkModel, System, feature_mode, is_numerical, ladder
from kramers_grok.analysis.rungs import Ladder, Setting
from kramers_grok.analysis.survival import Estimate, estimate
from kramers_grok.core import checks
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.region import Region
from kramers_grok.core.schema import describe, package_version, validate_run
from kramers_grok.theory.deep_linear import DeepLinearChain, Mode
from kramers_grok.theory.gradient_noise import GaussianResidualVariance, finite_population_factor
from kramers_grok.theory.minibatch import MinibatchNoise, PathNoise
from kramers_grok.theory.saddles import MatrixNetwork

if TYPE_CHECKING:
    from kramers_grok.landscape.numerical_barrier import NumericalBarrier

__all__ = ["BUDGET_COLUMNS", "budget_columns", "error_budget"]

BUDGET_COLUMNS = (
    "asymptotic_error",
    "time_step_error",
    "monitoring_error",
    "minibatch_error",
    "statistical_error",
    "unexplained_error",
)
"""Columns that sum to ``total_error``; NaN marks one that is not known by itself and lies in ``unexplained_error``."""

_TIMES = ("asymptotic_time", "predicted_time", "numerical_error")
_SHARED = ("depth", "singular_value", "weight_decay", "input_variance")


def error_budget(
    system: System,
    run: xr.Dataset,
    *,
    target: Region,
    start: ArrayLike | None = None,
    minibatch: MinibatchNoise | PathNoise | None = None,
    confidence: float = 0.95,
    burn_in: float = 0.0,
    min_escapes: int = 10,
) -> xr.Dataset:
    r"""Split the difference between a run and the asymptotic formula into its causes.

    Parameters
    ----------
    system : Mode, DeepLinearChain, MatrixNetwork, DeepLinearNetwork or NumericalBarrier
        What the run moved. The mode and the chain of three weights have exact solutions and a full budget, a numerical
        barrier one to the stated error of potential theory. For other systems only leading orders are known: what is
        left stays together in ``unexplained_error``.
    run : Dataset
        From `first_passage` or `splitting`. Its temperature, step, bridge and data are read from its coordinates
        and its configuration.
    target : Region
        As in the run.
    start : array_like, optional
        Where the run began, as in `exit_time`, if not in the minimum.
    minibatch : MinibatchNoise or PathNoise, optional
        Noise of the run's data. An online teacher's is known without, and that of independent batches of a numerical
        barrier's own data; any other has to be given.
    confidence, burn_in, min_escapes
        As in `mean_exit_time`.

    Returns
    -------
    xarray.Dataset
        Scalars [time]: ``total_error`` = ``mean_exit_time`` − ``asymptotic_time``, and the columns of `BUDGET_COLUMNS`,
        which sum to it:

        - ``asymptotic_error``: exact, in continuous time, minus asymptotic;
        - ``time_step_error``: the discrete chain, crossings between its steps counted, minus continuous time;
        - ``monitoring_error``: as watched, minus watched continuously (0 for a run with a bridge);
        - ``minibatch_error``: with the noise of the data, minus without. Where the data are the only noise (T = 0, a
          mode that forgets), the other columns are those of their diffusion limit and this one is the rest: shot noise;
        - ``statistical_error``: measured minus predicted, to be judged by ``standard_error``;
        - ``unexplained_error``: measured minus predicted, where the prediction is no exact one; otherwise 0.

        ``predicted_time`` is the prediction for the run as it was made and ``numerical_error`` the error of its
        computation. The attributes ``time_step_method`` and ``notes`` say what the columns rest on.

    Raises
    ------
    InvalidParameterError
        If the run lacks its temperature, step or bridge rule, or belongs to another system or target.
    NoBarrierError
        If nothing traps the system, so that there is no asymptotic formula.

    Notes
    -----
    The asymptotic time is 1/k, with k from `eyring_kramers_rate`, times the share of it that passes before the target's
    border is reached: 1 well beyond the barrier, ½ at its top.

    In the mode every column is exact: step and monitoring from the discrete chain's own equation, the data's noise from
    SGD's own with an online teacher, else from the diffusion limit. In the chain of three weights the step and the
    monitoring are taken to first order in the step and the data's noise in the diffusion limit. In other systems all
    are leading orders. At T = 0 without such a prediction all columns are NaN.

    Examples
    --------
    >>> from kramers_grok.core.region import beyond
    >>> from kramers_grok.core.schema import exit_dataset
    >>> mode = Mode(depth=3, singular_value=1.0, weight_decay=0.25)
    >>> barrier = mode.barrier()
    >>> coords = {"temperature": barrier.height / 6, "dt": 0.1, "weight_decay": 0.25}
    >>> times = 12000.0 * -np.log((np.arange(1000) + 0.5) / 1000)
    >>> run = exit_dataset(times, times < 1e6, horizon=1e6, coords=coords, seed=0, dtype="float64", device="cpu",
    ...                    configuration={"bridge": False})
    >>> budget = error_budget(mode, run, target=beyond(barrier))
    >>> print(f"{budget.total_error:.0f} = {' + '.join(f'{budget[name]:.0f}' for name in BUDGET_COLUMNS)}")
    1593 = 627 + -6 + 0 + 0 + 972 + 0
    """
    run = validate_run(run)
    setting = _setting(system, run, target, start, minibatch)
    measured = estimate(run, confidence, burn_in=burn_in, min_escapes=min_escapes)
    rungs = ladder(system, setting, target)
    values = budget_columns(rungs, measured)
    attrs = {
        "kramers_grok_version": package_version(),
        "time_step_method": rungs.time_step_method,
        "notes": "; ".join(rungs.notes),
    }
    coords = {str(name): c for name, c in run.coords.items() if c.ndim == 0}
    return xr.Dataset({name: ((), value, describe(name)) for name, value in values.items()}, coords, attrs)


def budget_columns(rungs: Ladder, measured: Estimate) -> dict[str, float]:
    """Return the scalars of `error_budget` [time] for a prediction and a measured mean.

    Differences of neighbouring rungs; a missing rung leaves its columns NaN and passes on to the remainder.
    """
    exact = not math.isnan(rungs.continuous)
    before_step = rungs.continuous if exact else rungs.asymptotic
    rest = measured.value - rungs.best if math.isfinite(measured.value) else math.nan
    complete = exact and not math.isnan(rungs.made)
    return {
        "mean_exit_time": measured.value,
        "standard_error": measured.standard_error,
        "asymptotic_time": rungs.asymptotic,
        "predicted_time": rungs.best,
        "numerical_error": rungs.relative_error * rungs.best,
        "total_error": rest + (rungs.best - rungs.asymptotic),
        "asymptotic_error": rungs.continuous - rungs.asymptotic,
        "time_step_error": rungs.stepped - before_step,
        "monitoring_error": rungs.watched - rungs.stepped,
        "minibatch_error": rungs.made - rungs.watched,
        "statistical_error": rest if complete else math.nan,
        "unexplained_error": 0.0 if complete else rest,
    }


def _setting(
    system: System,
    run: xr.Dataset,
    target: Region,
    start: ArrayLike | None,
    minibatch: MinibatchNoise | PathNoise | None,
) -> Setting:
    """Read from a run how it was made, and check that it belongs to the system and the target."""
    _check_system(system, run)
    _check_target(run, target)
    configuration: Mapping[str, Any] = json.loads(run.attrs.get("configuration", "{}"))
    minibatch = minibatch or _own_noise(system, run, target, configuration)
    return Setting(
        temperature=_coordinate(run, "temperature", "the rate depends on it"),
        step=_coordinate(run, "dt", "the time step changes the exit time"),
        bridged=_bridged(run, configuration),
        minibatch=minibatch,
        unknown_noise=minibatch is None and _has_data_noise(configuration),
        start=start,
    )


def _coordinate(run: xr.Dataset, name: str, why: str) -> float:
    if name not in run.coords:
        raise InvalidParameterError(
            f"the run has no coordinate `{name}`, it has {sorted(map(str, run.coords))}: {why}.\n"
            f"Use `run.assign_coords({name}=...)`."
        )
    return checks.non_negative(name, run[name].values.item())


def _bridged(run: xr.Dataset, configuration: Mapping[str, Any]) -> bool:
    if "bridge" in configuration:
        return bool(configuration["bridge"])
    if "exit_time" not in run.variables:  # splitting watches at the steps only
        return False
    raise InvalidParameterError(
        "the run's configuration does not say `bridge`: crossings between two steps change the exit time.\n"
        "Make runs with `first_passage`, or pass `configuration={'bridge': False, ...}` to `exit_dataset`."
    )


def _has_data_noise(configuration: Mapping[str, Any]) -> bool:
    """Whether batches of data made noise of their own."""
    return configuration.get("engine") == "sgd" and configuration.get("sampler") not in ("Population", "FullBatch")


def _own_noise(
    system: System, run: xr.Dataset, target: Region, configuration: Mapping[str, Any]
) -> MinibatchNoise | PathNoise | None:
    """Minibatch noise of an online teacher, which names its label noise, or of a numerical barrier's own data."""
    if is_numerical(system):
        return _path_noise(system, run, configuration)
    if not {"label_noise", "lr", "batch_size"} <= set(run.coords):
        return None
    mode = feature_mode(cast(ClosedForm, system), target)
    residual = GaussianResidualVariance(mode.singular_value, mode.input_variance, float(run["label_noise"]))
    return MinibatchNoise(float(run["lr"]) / float(run["batch_size"]), residual)


def _path_noise(barrier: NumericalBarrier, run: xr.Dataset, configuration: Mapping[str, Any]) -> PathNoise | None:
    """Noise of batches drawn independently from each other; shuffled epochs have another, which is not known here."""
    sampler, data = configuration.get("sampler"), getattr(barrier.model, "data", None)
    known = ("WithReplacement", "WithoutReplacement")
    if sampler not in known or data is None or not {"lr", "batch_size"} <= set(run.coords):
        return None
    size = float(run["batch_size"])
    factor = 1.0 if sampler == "WithReplacement" else float(finite_population_factor(data.n_samples, int(size)))
    return PathNoise(float(run["lr"]) / size * factor)


def _check_system(system: System, run: xr.Dataset) -> None:
    parameters: Any = system.theory if isinstance(system, NetworkModel) else system
    if is_numerical(system):
        parameters = system.model
    elif not isinstance(parameters, Mode | DeepLinearChain | MatrixNetwork):
        raise checks.invalid(
            "system", type(system).__name__,
            "a Mode, DeepLinearChain, MatrixNetwork, DeepLinearNetwork or NumericalBarrier",
            "only these have an asymptotic rate", "Use `find_barrier(model, minimum, destination)`.",
        )  # fmt: skip
    for name in _SHARED:
        own = getattr(parameters, name, None)
        if own is not None and name in run.coords and not math.isclose(own, float(run[name]), rel_tol=1e-9):
            raise InvalidParameterError(
                f"the run has {name} = {float(run[name]):g} and the system {own:g}: the budget would compare two "
                "different networks.\nPass the `system` that the run was made with."
            )


def _check_target(run: xr.Dataset, target: Region) -> None:
    if not isinstance(target, Region):
        raise checks.invalid(
            "target", target, "a Region", "every rate names its target", "Use `beyond(system.barrier())`."
        )
    name = "target_threshold"
    if name in run.coords and not np.isclose(float(run[name]), target.threshold, rtol=1e-9, atol=0.0):
        raise InvalidParameterError(
            f"the run's target lies at m = {float(run[name]):g} and `target` at {target.threshold:g}: the mean exit "
            "time depends on it.\nPass the `target` of the run."
        )

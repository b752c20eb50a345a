"""Learning faster by schedule: designed from the rates, and measured against constant, cosine and warm restarts.

All schedules have equal steps and, where they turn the same knob, equal peak and equal final setting. What is predicted
is written down before anything runs: the design uses the rates alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from kramers_grok.core.noise import per_sample
from kramers_grok.core.schedules import Constant, Cosine, WarmRestarts
from kramers_grok.core.schema import describe
from kramers_grok.dynamics.sgd import SGD
from kramers_grok.escape.protocols.control import control
from kramers_grok.models.data import teacher
from kramers_grok.studies.reproduction.settings import Settings
from kramers_grok.studies.running.cells import Cell
from kramers_grok.theory.control import (
    BatchSizeKnob,
    Knob,
    LearningRateKnob,
    Plan,
    PlanPrediction,
    Setting,
    TwoStateRates,
    WeightDecayKnob,
    design_schedule,
    predict_plan,
    two_state_rates,
)
from kramers_grok.theory.deep_linear import DeepLinearChain
from kramers_grok.theory.gradient_noise import GaussianResidualVariance

__all__ = ["NAME", "cells", "gather", "measure"]

NAME = "control"
FINAL_RATIO = 6.0  # ΔF/T of the final setting
PEAK = 2.4  # learning rate of the peak over the final one: ΔF/T = 2.5
FINAL_LR = 0.05
FINAL_BATCH = 90
LOWEST_DECAY = 0.2  # of the schedules that may turn the weight decay
N_STEPS = 4000
RESTARTS = 4
_NUMBERS = ("mean_steps", "learned_at_end", "final_loss", "learned_loss")


def cells(settings: Settings, device: str) -> list[Cell]:
    """Return the one cell: its schedules share their noise."""
    key = {
        "chain": [settings.depth, settings.singular_value, settings.weight_decay],
        "label_noise": settings.label_noise,
        "n_steps": N_STEPS,
        "n_replicas": 256 if settings.quick else 2048,
        "turn_weight_decay": not settings.quick,
        "peak": PEAK,
    }
    return [Cell("control", key, partial(measure, device), 150.0)]


def gather(settings: Settings, results: Sequence[xr.Dataset]) -> xr.DataTree:
    """Return the table of schedules."""
    return xr.DataTree.from_dict({"/": xr.Dataset(), "/schedules": results[0]}, name=NAME)


def measure(device: str, config: Mapping[str, Any], *, seed: int) -> xr.Dataset:
    """All schedules at once: predictions first, then the runs."""
    chain = DeepLinearChain(*config["chain"])
    heat = chain.barrier().height / FINAL_RATIO
    noise = 2 * FINAL_BATCH * heat / FINAL_LR
    final = Setting(FINAL_LR, FINAL_BATCH, chain.weight_decay)
    rates = two_state_rates(
        chain,
        noise_variance=noise,
        temperatures=(heat * (1 - 1e-9), config["peak"] * heat * 1.02),
        weight_decays=(LOWEST_DECAY, chain.weight_decay) if config["turn_weight_decay"] else None,
        step=FINAL_LR,
        residual_variance=GaussianResidualVariance(chain.singular_value, 1.0, config["label_noise"]),
    )
    n_steps = int(config["n_steps"])
    plans = usual_plans(final, float(config["peak"]), n_steps) | designed_plans(rates, final, config)
    predicted = {name: predict_plan(rates, plan, n_steps) for name, plan in plans.items()}
    process = SGD(
        chain,
        teacher(label_noise=config["label_noise"]),
        lr=FINAL_LR,
        batch_size=FINAL_BATCH,
        noise=per_sample(variance=noise),
        device=device,
    )
    table = control(
        process, plans, n_steps=n_steps, target=rates.target, n_replicas=int(config["n_replicas"]), seed=seed
    )
    return _beside(table, plans, predicted, noise).assign_attrs(
        barrier_over_temperature=FINAL_RATIO,
        peak=float(config["peak"]),
        floor=0.5 * (chain.singular_value - chain.learned_amplitude() ** chain.depth) ** 2,
        table_error=rates.forward.relative_error,
    )


def usual_plans(final: Setting, peak: float, n_steps: int) -> dict[str, Plan]:
    """Constant settings, cosine and warm restarts of the learning rate between its peak and its final value."""
    batch, decay = Constant(final.batch_size), Constant(final.weight_decay)
    high = peak * final.lr
    return {
        "constant, final": Plan.constant(final),
        "constant, peak": Plan(Constant(high), batch, decay),
        "cosine": Plan(Cosine(high, final.lr, n_steps), batch, decay),
        "warm restarts": Plan(WarmRestarts(high, final.lr, n_steps // RESTARTS), batch, decay),
    }


def designed_plans(rates: TwoStateRates, final: Setting, config: Mapping[str, Any]) -> dict[str, Plan]:
    """Schedules designed for each knob, and for two of them."""
    peak = float(config["peak"])
    rate: Knob = LearningRateKnob(peak * final.lr)
    choices: dict[str, list[Knob]] = {
        "designed: lr": [rate],
        "designed: batch": [BatchSizeKnob(int(np.ceil(final.batch_size / peak)))],
    }
    if config["turn_weight_decay"]:
        lower: Knob = WeightDecayKnob(LOWEST_DECAY)
        choices |= {"designed: decay": [lower], "designed: lr and decay": [rate, lower]}
    n_steps = int(config["n_steps"])
    return {name: design_schedule(rates, final, n_steps, knobs).plan for name, knobs in choices.items()}


def _beside(
    table: xr.Dataset, plans: Mapping[str, Plan], predicted: Mapping[str, PlanPrediction], noise: float
) -> xr.Dataset:
    """Put predictions and the schedules themselves beside what was measured."""
    n_steps = int(table.attrs["n_steps"])
    steps = np.unique(np.linspace(0, n_steps - 1, 201).astype(np.int64))
    rows = list(predicted.values())
    values = {
        "mean_steps": [p.mean_steps for p in rows],
        "learned_at_end": [p.learned_at_end for p in rows],
        "final_loss": [p.final_loss for p in rows],
        "learned_loss": [p.learned_loss for p in rows],
    }
    for name in _NUMBERS:
        label = describe(name)
        label["long_name"] += ", predicted"
        table[f"predicted_{name}"] = ("schedule", values[name], label)
    table["temperature"] = (
        ("schedule", "step"),
        np.array([plan.temperature(steps, noise) for plan in plans.values()]),
        describe("temperature"),
    )
    table["weight_decay"] = (
        ("schedule", "step"),
        np.array([plan.weight_decay(steps) for plan in plans.values()]),
        describe("weight_decay"),
    )
    table["predicted_survival"] = (
        ("schedule", "step"),
        np.array([np.interp(steps, p.steps, p.survival) for p in rows]),
        describe("survival"),
    )
    return table.assign_coords(step=("step", steps, describe("step")))

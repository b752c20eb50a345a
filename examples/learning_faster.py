"""
Learning faster by schedule
===========================

A trapped network learns at a rate that grows with the temperature lr/batch, and the loss that it ends with grows with
it as well. The escape rates say which schedule is best: hot until the final setting must take over. It is designed,
predicted, and measured beside constant settings, cosine and warm restarts with the same peak and the same steps.

``python examples/learning_faster.py --out learning_faster.png``
"""

from __future__ import annotations

import argparse
from pathlib import Path

import kramers_grok as kg
from kramers_grok import plots
from kramers_grok.core.schedules import Constant, Cosine, WarmRestarts
from kramers_grok.escape.protocols import control
from kramers_grok.theory.control import (
    LearningRateKnob,
    Plan,
    Setting,
    design_schedule,
    predict_plan,
    two_state_rates,
)

N_STEPS, PEAK = 4000, 0.12
mode = kg.Mode(depth=3, singular_value=1.0, weight_decay=0.25)
final = Setting(lr=0.05, batch_size=90, weight_decay=0.25)

# %%
# From rates to a schedule
# ------------------------
# At the end ΔF/T is to be 6, where the thermal loss is small and nobody learns within 4000 steps. The learning rate may
# rise to 0.12, ΔF/T = 2.5. The greedy schedule is optimal, and here bang-bang.

cold = mode.barrier().height / 6
VARIANCE = 2 * cold * final.batch_size / final.lr
rates = two_state_rates(mode, noise_variance=VARIANCE, temperatures=(0.999 * cold, 2.5 * cold), step=final.lr)
design = design_schedule(rates, final, N_STEPS, [LearningRateKnob(PEAK)])
batch, decay = Constant(final.batch_size), Constant(final.weight_decay)
PLANS = {
    "constant": Plan.constant(final),
    "cosine": Plan(Cosine(PEAK, final.lr, N_STEPS), batch, decay),
    "warm restarts": Plan(WarmRestarts(PEAK, final.lr, N_STEPS // 4), batch, decay),
    "designed": design.plan,
}

# %%
# What they were predicted to do, and did
# ---------------------------------------


def main(out: Path | None = None) -> dict[str, float]:
    """Run all schedules; return deviations in standard errors, and how many steps each takes to learn."""
    process = kg.SGD(
        mode, kg.teacher(label_noise=0.0), lr=final.lr, batch_size=final.batch_size,
        noise=kg.per_sample(variance=VARIANCE), device="cpu",
    )  # fmt: skip
    found = control(process, PLANS, n_steps=N_STEPS, target=rates.target, n_replicas=800, seed=5)
    numbers: dict[str, float] = {}
    curves = []
    for name, plan in PLANS.items():
        row, theory = found.sel(schedule=name), predict_plan(rates, plan, N_STEPS)
        numbers[f"deviation {name}"] = float((row.mean_steps - theory.mean_steps) / row.mean_steps_error)
        numbers[f"steps {name}"] = float(row.mean_steps)
        numbers[f"loss {name}"] = float(row.final_loss)
        curves.append(theory.survival)
        print(
            f"{name:13s}: {float(row.mean_steps):4.0f} ± {float(row.mean_steps_error):.0f} steps (predicted "
            f"{theory.mean_steps:.0f}), learned {float(row.learned_at_end):.3f} ({theory.learned_at_end:.3f}), "
            f"final loss {float(row.final_loss):.3f} ({theory.final_loss:.3f})"
        )
    if out is not None:
        found["predicted_survival"] = (("schedule", "step"), curves)
        found = found.assign_coords(step=theory.steps)
        ax = plots.learning_curves(found)
        ax.set_title("broad: measured; thin, with markers: predicted", fontsize="medium")
        ax.figure.savefig(out, dpi=150)
    return numbers


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=None)
    numbers = main(parser.parse_args().out)

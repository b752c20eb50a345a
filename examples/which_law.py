"""
Which law?
==========

Escape times that grow as the noise falls: a barrier, a threshold, or no need of noise at all? A straight line through
ln τ against B/η has a high R² for each. The likelihood of every replica, those included that did not escape, tells them
apart, and says so where it cannot.

``python examples/which_law.py --out laws.png``
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import kramers_grok as kg
from kramers_grok.analysis.law_choice import LawChoice, choose_law
from kramers_grok.analysis.laws import ExitTimes
from kramers_grok.plots.laws import arrhenius_trap, escape_laws, law_table

LR, N_REPLICAS, N_BOOTSTRAP = 0.1, 48, 19

# %%
# One trap, three ways of training
# --------------------------------
# Three scalar weights near 0, on batches of fresh samples with label noise. Their own noise vanishes with the weights:
# nothing ever leaves. Gaussian noise on every sample's gradient climbs the barrier. AdamW rescales the tiny gradient,
# on the exact gradient (batch size 0) as on batches.

chain = kg.DeepLinearChain(depth=3, singular_value=1.0, weight_decay=0.25)
target = kg.beyond(chain.barrier())
VARIANCE = 2 * 6 * chain.barrier().height / (3 * LR)  # ΔF/T = 3 at batch size 6


def exits(batches: tuple[int, ...], horizon: float, lr: float = LR, **options: object) -> ExitTimes:
    """Exit times of one way of training at several batch sizes."""
    runs = []
    for seed, batch in enumerate(batches):
        data = kg.teacher(label_noise=0.5) if batch else kg.population()
        process = kg.SGD(chain, data, lr=lr, batch_size=max(batch, 1), **options)
        start = np.full((N_REPLICAS, 3), 0.03)
        runs.append(
            kg.first_passage(process, target=target, start=start, n_replicas=N_REPLICAS, max_time=horizon, seed=seed)
        )
    return ExitTimes.of_runs(runs, x=[lr / b if b else 0.0 for b in batches])


# %%
# A threshold that looks like a barrier
# -------------------------------------
# Planted: ln τ = −ln(x − x_c) is the logit of x_c/x, nearly straight against 1/x from 0.1 to 0.9: two decades of time.


def threshold() -> ExitTimes:
    """Times that diverge at x = 1, scattered by a tenth or two."""
    x = 1 + np.geomspace(0.1, 10, 9)
    scatter = np.random.default_rng(0).weibull(6.0, size=(x.size, N_REPLICAS))
    return ExitTimes.of(x, scatter / (x - 1)[:, None], np.full(scatter.shape, True))


def main(out: Path | None = None) -> dict[str, float]:
    """Print the law table and draw it; return the likelihood that R² does not see, and the escapes."""
    choices: dict[str, LawChoice] = {
        "per-sample noise": choose_law(
            exits((6, 8, 10, 12, 15, 18), 1.5e4, noise=kg.per_sample(variance=VARIANCE)),
            seed=0,
            n_bootstrap=N_BOOTSTRAP,
        ),
        "minibatches only": choose_law(exits((1, 2, 4, 10), 200.0), seed=0),
        "AdamW": choose_law(exits((0, 2, 8, 20), 2.0, lr=0.005, optimizer=kg.AdamW()), seed=0),
    }
    planted = choose_law(threshold(), seed=0)
    print(law_table(choices | {"planted threshold": planted}))
    for name, choice in (choices | {"planted threshold": planted}).items():
        print(f"{name}: {choice.verdict}, {choice.reason}")
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.0, 4.0), layout="constrained")
    escape_laws(choices, left)
    arrhenius_trap(planted, right)
    if out is not None:
        figure.savefig(out, dpi=160)
    verdicts = {f"verdict, {name}": float(c.verdict == v) for (name, c), v in zip(
        choices.items(), ("arrhenius", "absorbing", "deterministic"), strict=True)}  # fmt: skip
    gap = planted.fits["growth"].log_likelihood - planted.fits["arrhenius"].log_likelihood
    return {**verdicts, "threshold beats Arrhenius by": gap}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="where to put the figure")
    numbers = main(parser.parse_args().out)

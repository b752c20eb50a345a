"""
Rare events by splitting
========================

How long is a network trapped that is trapped for 10¹⁵ steps? Nobody waits that long. Multilevel splitting climbs out
of the trap level by level, cloning whoever got higher, and gets the mean escape time from the probability of the climb
and the duration of a failed one. Nothing is fitted: the times are compared with exact ones of the same discrete chain.

``python examples/rare_events.py --out rare_events.png``
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import kramers_grok as kg
from kramers_grok.theory.quadrature import Diffusion, Interval
from kramers_grok.theory.time_step import discrete_mean_exit

RATIOS = (5.0, 10.0, 15.0, 20.0, 25.0, 30.0)  # barrier over temperature
STEP = 0.1
PATIENCE = 1e9  # steps of all replicas that brute force may take; at 10 % it needs 100 escapes

chain = kg.DeepLinearChain(depth=3, singular_value=1.0, weight_decay=0.25)
mode, barrier = chain.mode, chain.barrier()
target = kg.beyond(barrier)

# %%
# The exact time of a discrete chain
# ----------------------------------
# Splitting watches a process at its steps, so it is compared with the exact mean exit time of the steps themselves:
# (1 − P) τ = h with the transition kernel P. One dimension allows that at any barrier, three weights only at low ones.


def exact_time(name: str, temperature: float) -> float:
    """Exact mean exit time of the steps: the kernel's for the mode, to first order in the step for the chain."""
    if name == "chain":
        return kg.exit_time(chain, temperature=temperature, target=target, step=STEP, monitored=True).mean
    process = Diffusion(lambda x: -mode.landscape.gradient_at(np.asarray(x)[..., None])[..., 0], temperature)
    border = float(mode.coordinate(target.threshold))
    return discrete_mean_exit(process, Interval(start=0.0, upper=border), STEP).mean


# %%
# Both ends of one curve
# ----------------------
# The mode and the chain of three weights, from barriers that can be waited for to those that cannot. The cost grows
# with a power of the barrier, the waiting time exponentially.


def main(out: Path | None = None) -> dict[str, float]:
    """Print and draw the times; return how far they are from exact ones, in standard errors, and the costs."""
    numbers: dict[str, float] = {}
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.4, 4.2), layout="constrained")
    for marker, (name, system) in zip("os", (("mode", mode), ("chain", chain)), strict=True):
        for i, ratio in enumerate(RATIOS):
            process = kg.Langevin(system, temperature=barrier.height / ratio, dt=STEP)
            run = kg.splitting(process, target=target, n_replicas=256, seed=i)
            time, error = float(run.mean_exit_time), float(run.standard_error)
            cost = numbers[f"cost_{name}_{ratio:g}"] = float(run.replica_steps)
            print(f"{name}, ΔF/T = {ratio:g}: {time:.4g} ± {error / time:.0%}, {cost:.2g} steps", end="")
            if name == "mode" or ratio <= 10:
                exact = exact_time(name, process.temperature)
                z = numbers[f"z_{name}_{ratio:g}"] = np.log(time / exact) * time / error
                print(f", exact {exact:.4g}: {z:+.2f} errors", end="")
                left.plot(
                    ratio, exact, "_", color="0.3", ms=14, zorder=0, label="exact" if name + str(i) == "mode0" else None
                )
            print()
            bars = [[time - float(run.lower)], [float(run.upper) - time]]
            style = {"marker": marker, "ms": 5, "mfc": "white", "color": "C0" if name == "mode" else "C1"}
            left.errorbar(ratio, time, bars, capsize=2, label=name if i == 0 else None, **style)
            right.plot(ratio, cost * (error / time / 0.1) ** 2, label=name if i == 0 else None, ls="none", **style)
            if name == "mode":
                right.plot(ratio, 100 * time / STEP, "x", color="0.4", label="brute force" if i == 0 else None)
    left.axhspan(0, PATIENCE / 100 * STEP, color="0.92", label=f"brute force, {PATIENCE:.0e} steps")
    left.set(xlabel="ΔF/T", ylabel="mean exit time [time]", yscale="log", ylim=(1e2, None))
    right.set(xlabel="ΔF/T", ylabel="steps of all replicas for 10 % error", yscale="log")
    for ax in (left, right):
        ax.legend(frameon=False, fontsize="small")
    if out is not None:
        figure.savefig(out, dpi=160)
    return numbers


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="where to put the figure")
    numbers = main(parser.parse_args().out)

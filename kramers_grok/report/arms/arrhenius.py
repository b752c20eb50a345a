"""Figure and summary of the arm `arrhenius`."""

from __future__ import annotations

from typing import Any

import xarray as xr

from kramers_grok import plots
from kramers_grok.core.schema import describe
from kramers_grok.plots.style import looks
from kramers_grok.report.drawing import control_run, new_figure, run_table
from kramers_grok.report.words import Answer, both, measured, never

__all__ = ["answer", "figure", "summary"]


_MEASURED = {
    "sgd": "SGD, chain (true minibatches + per-sample noise)",
    "langevin_chain": "Langevin, chain",
    "langevin_mode": "Langevin, mode",
    "langevin_mode_torchsde": "Langevin, mode (torchsde)",
}


def figure(tree: xr.DataTree) -> Any:
    """Draw the arm's figure."""
    theory = tree["theory"].to_dataset()
    curves: dict[str, xr.Dataset] = {}
    names = {
        "chain_exact": "theory: chain, exact",
        "chain_eyring_kramers": "theory: chain, Eyring–Kramers",
        "mode_exact": "theory: mode, exact",
    }
    for variable, name in names.items():
        curves[name] = xr.Dataset(
            {"mean_exit_time": ("run", theory[variable].values, describe("mean_exit_time"))},
            coords={"temperature": ("run", theory["temperature"].values, describe("temperature"))},
        )
    curves |= {name: tree[engine].to_dataset() for engine, name in _MEASURED.items()}
    control = tree["control"].to_dataset()
    curves["full-batch descent"] = control_run(control)
    figure, (ax, below) = new_figure((7.2, 7.0), 2, height_ratios=(3, 1), sharex=True)
    plots.arrhenius(curves, ax, gradient_noise_variance=float(tree.attrs["noise_variance"]))
    depth, decay = tree.attrs["depth"], tree.attrs["weight_decay"]
    ax.set_title(f"Escape of a trapped chain, D = {depth}, λ = {decay}: no fitted parameter", fontsize="medium")
    ax.set_xlabel("")
    shown = looks(name for name in curves if name not in names.values())  # as above
    for engine, name in _MEASURED.items():
        rows = tree[engine].to_dataset()
        ratio = rows["mean_exit_time"] / rows["predicted_mean"]
        error = rows["standard_error"] / rows["predicted_mean"]
        below.errorbar(1 / rows["temperature"], ratio, yerr=2 * error, **shown[name].points(ms=4, capsize=2))
    below.axhline(1, color="black", lw=0.8)
    below.set_xlabel("1/T [1/loss]")
    below.set_ylabel("measured / predicted\n(prediction with the run's step)", fontsize="small")
    return figure


def summary(tree: xr.DataTree) -> str:
    """Return what was found, as Markdown."""
    laws = tree["laws"].to_dataset()
    lines = [
        f"## Arrhenius law, chain of depth {laws.attrs['depth']}, λ = {laws.attrs['weight_decay']}, "
        f"ΔF = {laws.attrs['barrier_height']:.6f}",
        "",
        "| engine | fitted barrier | predicted by the same fit | difference [s.e.] | R² (paper: 0.991) | R² of a "
        "power law | log-likelihood over the power law | joint χ² p |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for engine in laws["engine"].values.tolist():
        row = laws.sel(engine=engine)
        lines.append(
            f"| {engine} | {float(row.barrier_fitted):.6f} ± {float(row.barrier_fitted_error):.6f} "
            f"| {float(row.barrier_predicted_fit):.6f} | {float(row.slope_difference_se):+.2f} "
            f"| {float(row.r_squared):.5f} | {float(row.r_squared_power_law):.5f} "
            f"| {float(row.log_likelihood_difference):.1f} | {float(row.joint_chi2_p_value):.3f} |"
        )
    lines += ["", "### SGD: true minibatches, T through η and B only", "", run_table(tree["sgd"].to_dataset())]
    lines += ["", "### Langevin in the chain", "", run_table(tree["langevin_chain"].to_dataset())]
    lines += ["", "### Langevin in the mode", "", run_table(tree["langevin_mode"].to_dataset()), ""]
    control = tree["control"].to_dataset()
    lines.append(
        f"Full-batch descent (T = 0): {int(control.escaped.sum())} of {control.sizes['replica']} replicas escaped by "
        f"t = {float(control.horizon):g}.\n"
    )
    lines.append(str(laws.attrs["shared"]) + "\n")
    return "\n".join(lines)


_ENGINES = {"sgd": "SGD", "langevin_chain": "Langevin in the chain", "langevin_mode": "Langevin in the mode"}


def answer(tree: xr.DataTree) -> Answer:
    """Say whether theory, Langevin and SGD agree, with the numbers that decide."""
    found = {name: measured(tree[engine].to_dataset()) for engine, name in _ENGINES.items()}
    wrong = [name for name, each in found.items() if not each.agrees]
    numbers = "; ".join(f"{name} {each.text}" for name, each in found.items())
    law = tree["laws"].to_dataset().sel(engine="sgd")
    slope = float(law["slope_difference_se"])
    verdict = (
        f"Theory disagrees with {both(wrong)}" if wrong else "Theory, Langevin and SGD agree without a fitted number"
    )
    text = (
        f"{verdict}: mean escape times are {numbers}. SGD's Arrhenius slope is {slope:+.1f} s.e. from the predicted "
        f"one (R² = {float(law['r_squared']):.4f}); {never(tree['control'].to_dataset(), 'full-batch descent')}."
    )
    return Answer(text, not wrong and not bool(tree["control"].to_dataset()["escaped"].any()))

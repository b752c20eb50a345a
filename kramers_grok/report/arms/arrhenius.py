"""Figure and summary of the arm `arrhenius`."""

from __future__ import annotations

from typing import Any

import xarray as xr

from kramers_grok import plots
from kramers_grok.core.schema import describe
from kramers_grok.report.drawing import control_run, new_figure, run_table

__all__ = ["figure", "summary"]


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
    curves["SGD, chain (true minibatches + per-sample noise)"] = tree["sgd"].to_dataset()
    curves["Langevin, chain"] = tree["langevin_chain"].to_dataset()
    curves["Langevin, mode"] = tree["langevin_mode"].to_dataset()
    curves["Langevin, mode (torchsde)"] = tree["langevin_mode_torchsde"].to_dataset()
    control = tree["control"].to_dataset()
    curves["full-batch descent"] = control_run(control)
    figure, (ax, below) = new_figure((7.2, 7.0), 2, height_ratios=(3, 1), sharex=True)
    plots.arrhenius(curves, ax, gradient_noise_variance=float(tree.attrs["noise_variance"]))
    depth, decay = tree.attrs["depth"], tree.attrs["weight_decay"]
    ax.set_title(f"Escape of a trapped chain, D = {depth}, λ = {decay}: no fitted parameter", fontsize="medium")
    ax.set_xlabel("")
    for engine, marker in (("langevin_mode", "o"), ("langevin_chain", "s"), ("sgd", "D")):
        rows = tree[engine].to_dataset()
        ratio = rows["mean_exit_time"] / rows["predicted_mean"]
        error = rows["standard_error"] / rows["predicted_mean"]
        below.errorbar(
            1 / rows["temperature"], ratio, yerr=2 * error, fmt=marker, ms=4, capsize=2, label=engine.replace("_", ", ")
        )
    below.axhline(1, color="black", lw=0.8)
    below.set_xlabel("1/T [1/loss]")
    below.set_ylabel("measured / predicted\n(prediction with the run's step)", fontsize="small")
    below.legend(frameon=False, fontsize="small", ncols=3)
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

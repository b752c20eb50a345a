"""Figure and summary of the arm `wide`."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from kramers_grok import plots
from kramers_grok.core.schema import describe
from kramers_grok.plots.style import MARKERS, colour_of
from kramers_grok.report.drawing import control_run, new_figure
from kramers_grok.report.words import Answer, power, span

__all__ = ["answer", "figure", "summary"]

_GROUPS = {"line": "SGD, η = {lr:g}", "pairs": "SGD, other η, equal η/B", "matrix": "SGD, 4 inputs and outputs"}
_CURVES = {
    "predicted_mean": "radial free energy (prediction)",
    "eyring_kramers": "Eyring–Kramers with the orbit of saddles",
}
# What is known of the radial rate: simulated times are up to 10 % shorter where the trap is shallow
_KNOWN = (0.9, 1.0)


def _label(name: str, rows: xr.Dataset) -> str:
    return _GROUPS[name].format(lr=float(rows["lr"][0]))


def figure(tree: xr.DataTree) -> Any:
    """Draw measured and predicted times against 1/T, and their ratio."""
    theory = tree["theory"].to_dataset()
    curves: dict[str, xr.Dataset] = {}
    for variable, name in _CURVES.items():
        curves[name] = xr.Dataset(
            {"mean_exit_time": ("run", theory[variable].values, describe("mean_exit_time"))},
            coords={"temperature": ("run", theory["temperature"].values, describe("temperature"))},
        )
    measured = {name: tree[name].to_dataset() for name in _GROUPS if name in tree.children}
    curves |= {_label(name, rows): rows for name, rows in measured.items()}
    control = tree["control"].to_dataset()
    curves["full-batch descent"] = control_run(control)
    figure, (ax, below) = new_figure((7.2, 7.2), 2, height_ratios=(3, 1.2), sharex=True)
    plots.arrhenius(curves, ax, gradient_noise_variance=float(tree.attrs["noise_variance"]))
    _slopes(ax, tree)
    ax.set_title(f"Escape in wide layers, widths {tree.attrs['widths']}, λ = {tree.attrs['weight_decay']}: no fit",
                 fontsize="medium")  # fmt: skip
    ax.set_xlabel("")
    _ratios(below, measured, float(tree.attrs["entropic_spinodal"]))
    return figure


def _slopes(ax: Any, tree: xr.DataTree) -> None:
    """Draw the straight line of slope ΔF through the hottest run: what the barrier alone would say."""
    line, laws = tree["line"].to_dataset(), tree["laws"].to_dataset()
    x = 1 / line["temperature"].values
    height, first = float(tree.attrs["barrier_height"]), int(np.argmin(x))
    steep = float(line["mean_exit_time"][first]) * np.exp(height * (x - x[first]))
    top = ax.get_ylim()[1]
    order = np.argsort(x)
    ax.plot(x[order], steep[order], ":", color="tab:red", lw=1.2, label="slope ΔF, through the hottest run")
    bottom = ax.get_ylim()[0]
    ax.set_ylim(bottom / 6, 8 * top)
    share = laws["slope_over_barrier"]
    names = {"measured": "measured", "predicted_mean": "predicted", "chain": "three scalar weights"}
    text = ", ".join(f"{label} {float(share.sel(curve=curve)):.2f}" for curve, label in names.items())
    ax.text(0.985, 0.11, f"straight-line slope over ΔF: {text}", transform=ax.transAxes, ha="right", fontsize="small")
    ax.legend(frameon=False, fontsize="small", loc="upper left")


def _ratios(ax: Any, measured: dict[str, xr.Dataset], spinodal: float) -> None:
    for number, (name, rows) in enumerate(measured.items()):
        marker, colour = MARKERS[number], colour_of(_label(name, rows), number)
        ratio = rows["mean_exit_time"] / rows["predicted_mean"]
        error = rows["standard_error"] / rows["predicted_mean"]
        filled = np.where(rows["valid"].values > 0, 1.0, 0.0)
        ax.errorbar(1 / rows["temperature"], ratio, yerr=2 * error, fmt="none", ecolor=colour, capsize=2, lw=1)
        shades = ["white" if f == 0 else colour for f in filled]
        ax.scatter(
            1 / rows["temperature"], ratio, marker=marker, s=22, c=shades, edgecolors=[colour], zorder=3,
            label=_label(name, rows),
        )  # fmt: skip
    ax.axhspan(*_KNOWN, color="0.9", zorder=0, label="known of the radial rate")
    ax.axhline(1, color="black", lw=0.8)
    ax.set_xlabel(f"1/T [1/loss]   (the trap has a radial barrier above {1 / spinodal:.0f})")
    ax.set_ylabel("measured / predicted\n(open: barrier below 2 T)", fontsize="small")
    ax.legend(frameon=False, fontsize="x-small", ncols=2, loc="upper left")
    low, high = ax.get_ylim()
    ax.set_ylim(low, high + 0.45 * (high - low))


def _rows(rows: xr.Dataset) -> list[str]:
    lines = []
    for run in range(rows.sizes["run"]):
        r = rows.isel(run=run)
        h, d = int(r.width), int(r.n_inputs)
        ratio, error = float(r.mean_exit_time / r.predicted_mean), float(r.standard_error / r.predicted_mean)
        lines.append(
            f"| {d}, {h}, {h}, {d} | {float(r.barrier_over_temperature):.2f} "
            f"| {float(r.radial_barrier_over_temperature):.2f}{'' if float(r.valid) else ' (low)'} | {float(r.lr):g} "
            f"| {float(r.batch_size):g} | {float(r.mean_exit_time):.0f} [{float(r.lower):.0f}, {float(r.upper):.0f}] "
            f"| {float(r.predicted_mean):.0f} | {ratio:.3f} ± {error:.3f} | {float(r.eyring_kramers):.0f} "
            f"| {float(r.chain):.1e} | {int(r.n_escaped)}/{int(r.n_replicas)} |"
        )
    return lines


def summary(tree: xr.DataTree) -> str:
    """Return what was found, as Markdown."""
    attrs = tree.attrs
    height = float(attrs["barrier_height"])
    lines = [
        f"## Wide layers: widths {attrs['widths']}, λ = {attrs['weight_decay']}, ΔF = {height:.6f}",
        "",
        "SGD with true minibatches and per-sample noise; η and B are all that changes T. The trap has a radial barrier "
        f"for ΔF/T above {height / float(attrs['entropic_spinodal']):.2f}. The prediction is the radial free energy's "
        "rate with the step's and the minibatches' first order.",
        "",
        "| widths | ΔF/T | radial barrier/T | η | B | mean time [95 %] | predicted | ratio | Eyring–Kramers, orbit "
        "| three scalar weights | escaped |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in _GROUPS:
        if name in tree.children:
            lines += _rows(tree[name].to_dataset())
    laws = tree["laws"].to_dataset()
    lines += [
        "",
        "Straight lines ln τ against 1/T at the same temperatures: width's entropy pulls the slope below the barrier. "
        "The radial rate is up to a tenth off where its barrier is low, at the hottest runs, and its slope a little.",
        "",
        "| curve | slope over ΔF | measured minus this [s.e.] | R² |",
        "|---|---|---|---|",
    ]
    for curve in laws["curve"].values.tolist():
        row = laws.sel(curve=curve)
        error = f" ± {float(row.slope_error) / height:.3f}" if curve == "measured" else ""
        lines.append(
            f"| {curve.replace('_', ' ')} | {float(row.slope_over_barrier):.3f}{error} "
            f"| {float(row.slope_difference_se):+.1f} | {float(row.r_squared):.4f} |"
        )
    pairs = tree["equal_lr_over_batch"].to_dataset()
    lines += ["", "Equal η/B at different η: ratios of mean times.", ""]
    lines += ["| T | η | other η | ratio | predicted | difference [s.e.] |", "|---|---|---|---|---|---|"]
    for pair in range(pairs.sizes["pair"]):
        row = pairs.isel(pair=pair)
        lines.append(
            f"| {float(row.temperature):.6f} | {float(row.lr):g} | {float(row.other_lr):g} "
            f"| {float(row.ratio):.3f} ± {float(row.ratio_error):.3f} | {float(row.predicted_ratio):.3f} "
            f"| {float(row.difference_se):+.2f} |"
        )
    control = tree["control"].to_dataset()
    lines += [
        "",
        f"Full-batch descent (T = 0) from thermally spread starts: {int(control.escaped.sum())} of "
        f"{control.sizes['replica']} escaped by t = {float(control.horizon):g}.",
        "",
    ]
    return "\n".join(lines)


def answer(tree: xr.DataTree) -> Answer:
    """Say whether SGD in wide layers follows the radial free energy, and how far off three scalar weights are."""
    line, laws = tree["line"].to_dataset(), tree["laws"].to_dataset()
    deep = line.isel(run=np.flatnonzero(line["valid"].values > 0))
    ratio = (deep["mean_exit_time"] / deep["predicted_mean"]).values
    error = (deep["standard_error"] / deep["predicted_mean"]).values
    low, high = _KNOWN
    outside = int(((ratio < low - 3 * error) | (ratio > high + 3 * error)).sum())
    verdict = "SGD in wide layers follows" if ratio.size and not outside else "SGD in wide layers does not follow"
    if not ratio.size:
        verdict = "No run has a radial barrier that is high enough to say whether SGD follows"
    share = laws["slope_over_barrier"]
    scalar = (line["chain"] / line["mean_exit_time"]).values
    text = (
        f"{verdict} the radial free energy within what is known of its rate ({low:g} to {high:g}): measured over "
        f"predicted mean time is {span(ratio, '.3f')} in {ratio.size} run{'s' * (ratio.size != 1)} with a radial "
        f"barrier, {outside} outside by more than 3 s.e. Width's entropy makes the Arrhenius slope "
        f"{float(share.sel(curve='measured')):.2f} of ΔF (predicted {float(share.sel(curve='predicted_mean')):.2f}); "
        f"three scalar weights would take {power(scalar.min())} to {power(scalar.max())} times as long."
    )
    return Answer(text, None if not ratio.size else not outside)

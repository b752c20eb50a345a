"""Figures and the summary of the main job; every number comes from the files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from kramers_grok import plots
from kramers_grok.core.schema import describe
from kramers_grok.studies.reproduction import ARMS
from kramers_grok.studies.store import read_netcdf

__all__ = ["FIGURES", "draw", "load", "summary"]


def load(out: str | Path) -> dict[str, xr.DataTree]:
    """Read the arms' trees of a results directory."""
    return {name: _load(Path(out), name) for name in ARMS}


def _load(out: Path, name: str) -> xr.DataTree:
    data = read_netcdf(out / f"{name}.nc")
    return data if isinstance(data, xr.DataTree) else xr.DataTree(data, name=name)


def draw(out: str | Path, executor: Executor | None = None) -> list[Path]:
    """Draw all figures of a results directory as PNG and SVG; return their paths.

    Parameters
    ----------
    out : path
    executor : Executor, optional
        Draw in its workers, one figure a task.
    """
    mapped = (executor.map if executor is not None else map)(_draw, [Path(out)] * len(FIGURES), FIGURES)
    return [path for paths in mapped for path in paths]


def _draw(out: Path, name: str) -> list[Path]:
    import matplotlib.pyplot as plt

    figure = FIGURES[name](_load(out, name))
    paths = [out / f"{name}.png", out / f"{name}.svg"]
    # Without the date and with fixed ids the same numbers give the same file.
    with plt.rc_context({"svg.hashsalt": "kramers_grok"}):
        figure.savefig(paths[0], dpi=150)
        figure.savefig(paths[1], metadata={"Date": None})
    plt.close(figure)
    return paths


def _phases(tree: xr.DataTree) -> Any:
    figure, ax = _figure((6.4, 4.4))
    plots.phases(tree.to_dataset(), ax)
    ax.set_title(f"Digits as a deep linear autoencoder, D = {tree.attrs['depth']}", fontsize="medium")
    return figure


def _arrhenius(tree: xr.DataTree) -> Any:
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
    curves["full-batch descent"] = xr.Dataset(
        {
            "mean_exit_time": ("run", [np.nan]),
            "lower": ("run", [float(control["horizon"])]),
            "upper": ("run", [np.inf]),
            "n_escaped": ("run", [int(control["escaped"].sum())]),
            "n_replicas": ("run", [control.sizes["replica"]]),
            "horizon": ("run", [float(control["horizon"])]),
        },
        coords={"temperature": ("run", [0.0])},
    )
    figure, (ax, below) = _figure((7.2, 7.0), 2, height_ratios=(3, 1), sharex=True)
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


def _minibatch(tree: xr.DataTree) -> Any:
    data = tree["sgd"].to_dataset()
    figure, (ax, below) = _figure((6.4, 6.0), 2, sharex=True)
    for batch in data["batch_size"].values.tolist():
        rows = data.sel(batch_size=batch)
        label = f"B = {batch:g}, η/B = {data.attrs['lr'] / batch:.3g}"
        (points,) = ax.plot(rows["amplitude"], rows["escaped_fraction"], "o", ms=5, label=label)
        ax.plot(rows["start_amplitude"], rows["predicted_fraction"], "--", lw=1, color=points.get_color())
        below.semilogy(rows["amplitude"], rows["amplitude_left"], "o-", ms=4, label=label)
    for axes in (ax, below):
        axes.axvline(data.attrs["saddle_amplitude"], color="grey", ls=":", lw=1)
    ax.annotate(
        "barrier", (data.attrs["saddle_amplitude"], 0.5), rotation=90, ha="right", color="grey", fontsize="small"
    )
    ax.plot([], [], "k--", lw=1, label="predicted: splitting probability")
    ax.set_ylabel("fraction escaped")
    ax.set_title(f"Minibatch noise only (s = {data.attrs['label_noise']:g}): the trap absorbs", fontsize="medium")
    ax.legend(frameon=False, fontsize="small")
    below.set_ylabel(f"median amplitude of the censored\nat t = {data.attrs['horizon']:g}")
    below.set_xlabel("amplitude at the start, all layers [weight]")
    return figure


def _forgetting(tree: xr.DataTree) -> Any:
    rows = tree["sgd"].to_dataset()
    figure, ax = _figure((6.0, 4.0))
    ax.errorbar(
        rows["batch_size"],
        rows["ratio"],
        yerr=2 * rows["ratio_error"],
        fmt="o",
        capsize=3,
        label="SGD, true minibatches (±2 s.e.)",
    )
    ax.axhline(1, color="black", lw=1, label="diffusion limit, exact multiplicative time")
    ratio = float(rows.attrs["quasi_potential_ratio"])
    label = f"SGD's quasi-potential (shot noise, all cumulants): {ratio:.3f}"
    ax.axhline(ratio, color="tab:red", ls="--", lw=1, label=label)
    ax.set_xscale("log", base=2)
    ax.set_xlabel(f"batch size B at η/B = {rows.attrs['lr_over_batch']:g} [samples]")
    ax.set_ylabel("mean time to forget / diffusion limit")
    ax.set_ylim(0.8, 1.8)
    ax.legend(frameon=False, fontsize="small", loc="upper right")
    ax.set_title(
        "Learned → forgotten by minibatch noise alone:\nthe diffusion limit is known to depart", fontsize="medium"
    )
    return figure


def _real_feature(tree: xr.DataTree) -> Any:
    rows = tree["sgd"].to_dataset()
    figure, ax = _figure((6.0, 4.2))
    order = np.argsort(rows["temperature"].values)
    inverse = 1 / rows["temperature"].values[order]
    ax.semilogy(
        inverse, rows["predicted_mean"].values[order], "k--", label="theory: exact chain with minibatch noise and step"
    )
    error = [rows["mean_exit_time"] - rows["lower"], rows["upper"] - rows["mean_exit_time"]]
    ax.errorbar(
        1 / rows["temperature"],
        rows["mean_exit_time"],
        yerr=error,
        fmt="D",
        mfc="white",
        capsize=3,
        label="SGD on the digits' first principal component",
    )
    for x, y, batch in zip(
        1 / rows["temperature"].values, rows["mean_exit_time"].values, rows["batch_size"].values, strict=True
    ):
        ax.annotate(f"B = {batch:g}", (x, y), (8, -8), textcoords="offset points", fontsize="small")
    ax.margins(x=0.14)
    ax.set_xlabel("1/T [1/loss]")
    ax.set_ylabel("mean exit time [time]")
    share = float(rows["share_saddle"].max())
    ax.set_title(f"A real feature; minibatch share of the noise at the saddle ≤ {share:.1%}", fontsize="medium")
    ax.legend(frameon=False, fontsize="small")
    return figure


def _grokking(tree: xr.DataTree) -> Any:
    figure, (ax, below) = _figure((6.6, 6.2), 2, sharex=True)
    nodes = [node.to_dataset() for node in tree.children.values()]
    curves = {f"B/η = {float(d['batch_size'] / d['lr']):.0f}": d["loss"] for d in nodes}
    plots.grokking(curves, ax)
    ax.set_xlabel("")
    trap, decay = tree.attrs["trap_weight_decay"], tree.attrs["weight_decay"]
    ax.set_title(f"Trapped at λ = {trap:g}, released at λ = {decay:g}: the loss drops late", fontsize="medium")
    for number, (name, data) in enumerate(zip(curves, nodes, strict=True)):
        colour = f"C{number}"
        below.semilogx(data["time"], data["learned_fraction"], ".", color=colour, ms=3, label=f"{name}, measured")
        below.semilogx(data["time"], data["predicted_learned"], "-", color=colour, lw=1)
        below.axvline(float(data["predicted_mean"]), color=colour, ls=":", lw=1)
    below.set_ylabel("fraction that has learned")
    below.set_xlabel("time since the release, η · step [time]")
    below.annotate("lines: predicted; dotted: predicted mean", (0.02, 0.9), xycoords="axes fraction", fontsize="small")
    return figure


FIGURES: Mapping[str, Callable[[xr.DataTree], Any]] = {
    "phases": _phases,
    "arrhenius": _arrhenius,
    "minibatch": _minibatch,
    "forgetting": _forgetting,
    "real_feature": _real_feature,
    "grokking": _grokking,
}


def _figure(size: tuple[float, float], rows: int = 1, *, height_ratios: Any = None, sharex: bool = False) -> Any:
    import matplotlib.pyplot as plt

    return plt.subplots(rows, 1, figsize=size, layout="constrained", height_ratios=height_ratios, sharex=sharex)


def summary(out: str | Path) -> str:
    """Return the summary of a results directory as Markdown, numbers read from its files."""
    trees = load(out)
    parts = [
        "# What the main job found",
        "",
        _summary_arrhenius(trees["arrhenius"]),
        _summary_rest(trees),
    ]
    return "\n".join(parts)


def _summary_arrhenius(tree: xr.DataTree) -> str:
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
    lines += ["", "### SGD: true minibatches, T through η and B only", "", _rows(tree["sgd"].to_dataset())]
    lines += ["", "### Langevin in the chain", "", _rows(tree["langevin_chain"].to_dataset())]
    lines += ["", "### Langevin in the mode", "", _rows(tree["langevin_mode"].to_dataset()), ""]
    control = tree["control"].to_dataset()
    lines.append(
        f"Full-batch descent (T = 0): {int(control.escaped.sum())} of {control.sizes['replica']} replicas escaped by "
        f"t = {float(control.horizon):g}.\n"
    )
    lines.append(str(laws.attrs["shared"]) + "\n")
    return "\n".join(lines)


def _rows(rows: xr.Dataset) -> str:
    step = "lr" if "lr" in rows else "dt"
    lines = [
        f"| T | {step} | B | mean time [95 %] | predicted | difference [s.e.] | KS p | escaped |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for run in range(rows.sizes["run"]):
        r = rows.isel(run=run)
        batch = f"{float(r.batch_size):g}" if "batch_size" in r else "–"
        lines.append(
            f"| {float(r.temperature):.6f} | {float(r[step]):g} | {batch} "
            f"| {float(r.mean_exit_time):.1f} [{float(r.lower):.1f}, {float(r.upper):.1f}] "
            f"| {float(r.predicted_mean):.1f} | {float(r.difference_se):+.2f} | {float(r.ks_p_value):.3f} "
            f"| {int(r.n_escaped)}/{int(r.n_replicas)} |"
        )
    return "\n".join(lines)


def _summary_rest(trees: Mapping[str, xr.DataTree]) -> str:
    lines = ["## Learned → forgotten under minibatch noise alone", ""]
    rows = trees["forgetting"]["sgd"].to_dataset()
    for run in range(rows.sizes["run"]):
        r = rows.isel(run=run)
        lines.append(
            f"- B = {int(r.batch_size)}: SGD {float(r.mean_exit_time):.0f}, diffusion limit "
            f"{float(r.predicted_mean):.0f}, ratio {float(r.ratio):.3f} ± {float(r.ratio_error):.3f}"
        )
    lines.append(f"- predicted by SGD's quasi-potential: {float(rows.attrs['quasi_potential_ratio']):.3f}")
    lines += ["", f"Why it departs: {rows.attrs['departure']}.", "", "## Minibatch noise only, from the trap", ""]
    data = trees["minibatch"]["sgd"].to_dataset()
    for batch in data["batch_size"].values.tolist():
        fractions = ", ".join(
            f"{float(f):.3f} (predicted {float(p):.3f}) from a = {float(a):g}"
            for a, f, p in zip(
                data["amplitude"],
                data["escaped_fraction"].sel(batch_size=batch),
                data["predicted_fraction"].sel(batch_size=batch, start_amplitude=data["amplitude"]),
                strict=True,
            )
        )
        lines.append(f"- B = {batch}: escaped {fractions}")
    lines += ["", "## Digits' first principal component", "", _rows(trees["real_feature"]["sgd"].to_dataset()), ""]
    shares = trees["real_feature"]["sgd"].to_dataset()
    lines.append(
        f"Minibatch share of the gradient noise: {float(shares.share_minimum.max()):.2%} at the minimum, up to "
        f"{float(shares.share_saddle.max()):.2%} along the unstable direction at the saddle; "
        "it is part of the prediction."
    )
    lines += ["", "## Phases of the digits", ""]
    phases = trees["phases"].to_dataset()
    lines.append(
        f"{phases.sizes['feature']} features; spinodals from {float(phases.spinodal.min()):.3g} to "
        f"{float(phases.spinodal.max()):.4g}; up to {int(phases.n_states.max())} metastable states."
    )
    lines += ["", "## Grokking curves", ""]
    for node in trees["grokking"].children.values():
        d = node.to_dataset()
        lines.append(
            f"- B/η = {float(d.batch_size / d.lr):.0f}: predicted mean escape time {float(d.predicted_mean):.0f}; "
            f"{float(d.learned_fraction[-1]):.3f} have learned by t = {float(d.time[-1]):.0f}"
        )
    return "\n".join(lines) + "\n"

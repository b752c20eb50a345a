"""Figure and summary of the arm `subsampling`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import xarray as xr

from kramers_grok import plots
from kramers_grok.plots.style import CYCLE, label
from kramers_grok.report.words import Answer, never, of_all, span

__all__ = ["answer", "figure", "summary"]


def _gain(tree: xr.DataTree) -> list[xr.Dataset]:
    return [node.to_dataset() for node in tree["gain"].children.values()]


def figure(tree: xr.DataTree) -> Any:
    """Draw the arm's figure: one curve with its parts, all η/B, many samples, and the spurious feature."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(10.4, 7.4), layout="constrained")
    runs = _gain(tree)
    n, d = tree.attrs["n_samples"], tree.attrs["n_inputs"]
    last = runs[-1]
    ax = plots.train_and_test(last, axes[0, 0])
    ax.axvline(float(last["predicted_mean"]), color="grey", ls=":", lw=1)
    ax.set_title(f"N = {n} samples of d = {d} inputs, η/B = {float(last.lr / last.batch_size):.3g}", fontsize="medium")

    ax = axes[0, 1]
    for number, run in enumerate(runs):
        colour = CYCLE[number % len(CYCLE)]
        time = run["time"].values
        ax.semilogx(time, run["test_loss"].mean("replica"), color=colour, lw=1.4,
                    label=f"η/B = {float(run.lr / run.batch_size):.3g}")  # fmt: skip
        ax.semilogx(time, run["test_predicted"], "--", color=colour, lw=1)
        ax.semilogx(time, run["train_loss"].mean("replica"), color=colour, lw=0.8, alpha=0.6)
    ax.set_title("all η/B: test error thick, train error thin, dashed: predicted", fontsize="medium")
    ax.set_xlabel(label("time"))
    ax.set_ylabel("mean error [loss]")
    ax.legend(frameon=False, fontsize="small")

    many = tree["many"].to_dataset()
    ax = plots.train_and_test(many, axes[1, 0])
    ax.set_title(f"N = {int(many.n_samples)}: no direction is hidden", fontsize="medium")

    forget = tree["forget"].to_dataset()
    ax = plots.train_and_test(forget, axes[1, 1], legend=False)
    still = forget["full_batch_test"]
    ax.semilogx(still["still_time"], still, ":", color="black", lw=1.2, label="test, full batch")
    ax.axvline(float(forget["predicted_mean"]), color="grey", ls=":", lw=1)
    ax.set_title("label noise: a spurious feature is dropped\n(dotted line: Eyring–Kramers time)", fontsize="medium")
    ax.legend(frameon=False, fontsize="small", loc="center left")
    return figure


def summary(tree: xr.DataTree) -> str:
    """Return what was found, as Markdown."""
    q = ", ".join(f"{v:.3g}" for v in np.atleast_1d(tree.attrs["input_variances"]))
    lines = [
        "## Sub-sampling",
        "",
        f"An autoencoder of three layers on {tree.attrs['n_samples']} samples of {tree.attrs['n_inputs']} white "
        f"inputs, λ = {tree.attrs['weight_decay']:.4f}. Input variances in the sample: {q}. The last is learned late.",
        "",
        "| η/B | ΔF/T | predicted mean (± left out) | chain × slowing × heating | measured mean [95 %] |",
        "|---|---|---|---|---|",
    ]
    runs = _gain(tree)
    for r in runs:
        lines.append(
            f"| {float(r.lr / r.batch_size):.3g} | {float(r.barrier_over_temperature):.2f} "
            f"| {float(r.predicted_mean):.0f} (± {float(r.predicted_uncertainty):.0%}) "
            f"| {float(r.predicted_chain):.0f} × {float(r.predicted_slowing):.3f} × {float(r.predicted_heating):.3f} "
            f"| {float(r.mean_exit_time):.0f} [{float(r.lower):.0f}, {float(r.upper):.0f}] |"
        )
    lines += [
        "",
        "| η/B | state | rank | train error (at rest) | test error (at rest) | gap |",
        "|---|---|---|---|---|---|",
    ]
    for r in runs:
        for state in ("trap", "after"):
            v = {k: float(r[f"{state}_{k}"]) for k in ("rank", "train", "test", "train_predicted", "test_predicted")}
            lines.append(
                f"| {float(r.lr / r.batch_size):.3g} | {state} | {v['rank']:.2f} | {v['train']:.3f} "
                f"({v['train_predicted']:.3f}) | {v['test']:.3f} ({v['test_predicted']:.3f}) "
                f"| {v['test'] - v['train']:.3f} |"
            )
    control, many, forget, cells = (tree[k].to_dataset() for k in ("control", "many", "forget", "map"))
    gap = (many["test_loss"] - many["train_loss"]).mean("replica") / float(many["test_loss"].isel(time=0).mean())
    lines += [
        "",
        f"Full-batch descent from the trap: {int(control.escaped.sum())} of {control.sizes['replica']} escaped by "
        f"t = {float(control.horizon):g} (features learned in the trap: {int(control.trap_learned.sum())}).",
        f"With N = {int(many.n_samples)} the gap never exceeds {float(gap.max()):.3f} of the first error.",
        f"In the map's {cells.sizes['cell'] * cells.sizes['weight_decay']} points the curve is measured in "
        f"{int(cells.measured.sum())} and predicted in {int(cells.predicted.sum())}; they agree in "
        f"{int((cells.measured == cells.predicted).sum())}.",
        "",
        f"Label noise: the spurious feature (σ = {float(forget.singular_value):.3g}) is dropped after "
        f"{float(forget.mean_exit_time):.0f}, Eyring–Kramers {float(forget.predicted_mean):.0f} at ΔF/T = "
        f"{float(forget.barrier_over_temperature):g}; mean errors before → after (at rest): "
        + ", ".join(_before_and_after(forget, kind) for kind in ("train", "test"))
        + ".",
    ]
    return "\n".join(lines)


def _before_and_after(forget: xr.Dataset, kind: str) -> str:
    """Mean error while the spurious feature is held and once it is gone, each a few relaxation times 1/λ later."""
    settling = 5 / float(forget["weight_decay"])
    loss, time, exit_time = forget[f"{kind}_loss"], forget["time"], forget["exit_time"]
    before = float(loss.where((time > settling) & (time < exit_time)).mean())
    after = float(loss.where(time > exit_time + settling).mean())
    rest = f"({float(forget[f'{kind}_memorised']):.3f} → {float(forget[f'{kind}_generalised']):.3f})"
    return f"{kind} {before:.3f} → {after:.3f} {rest}"


def answer(tree: xr.DataTree) -> Answer:
    """Say whether a small sample delays generalisation as predicted."""
    runs = _gain(tree)
    # What the prediction leaves out counts as an error of its own
    z = [
        (float(r["mean_exit_time"]) / float(r["predicted_mean"]) - 1)
        / math.hypot(float(r["standard_error"]) / float(r["predicted_mean"]), float(r["predicted_uncertainty"]))
        for r in runs
    ]
    ratio = [float(r["mean_exit_time"] / r["predicted_mean"]) for r in runs]
    cells = tree["map"].to_dataset()
    same, n = of_all(cells["measured"].values == cells["predicted"].values)
    verdict = "as predicted" if max(map(abs, z)) < LIMIT else "not as predicted"
    text = (
        f"On a small sample the test error falls late, {verdict}: the mean delay is {span(ratio, '.2f')} of the "
        f"predicted one, at most {max(map(abs, z)):.1f} times the error of measurement and prediction; "
        f"{never(tree['control'].to_dataset(), 'the full batch')}; the map of when it happens agrees in {same} of {n} "
        "points."
    )
    return Answer(text, max(map(abs, z)) < LIMIT and same == n)


LIMIT = 3.0

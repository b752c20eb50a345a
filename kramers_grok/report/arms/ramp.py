"""Figure and summary of the arm `ramp`."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from kramers_grok import plots
from kramers_grok.report.drawing import new_figure
from kramers_grok.report.words import LEVEL, Answer, of_all, smallest_p

__all__ = ["answer", "figure", "summary"]


def figure(tree: xr.DataTree) -> Any:
    """Draw the arm's figure: escapes on the way down and up at the highest temperature, and the loops' widths."""
    figure, (down, up, width) = new_figure((7.2, 9.6), 3)
    for ax, name, title in ((down, "down", "down: the feature is learned"), (up, "up", "up: the feature is lost")):
        runs = tree[name].to_dataset().isel(temperature=-1)
        plots.ramp_escapes(runs, ax)
        ax.set_title(f"{title}, T = {float(runs.temperature):g}", fontsize="medium")
    down.legend(frameon=False, fontsize="small", loc="upper left", title="ramp rate")
    control = tree["control"].to_dataset()
    for number, decay in enumerate(control["weight_decay_at_exit"].sel(direction="up").values):
        up.axvline(decay, color=f"C{number}", ls=":", lw=0.8, label="descent without noise" if number == 0 else None)
    up.axvline(float(tree.attrs["spinodal"]), color="black", lw=0.8, label="spinodal")
    up.legend(frameon=False, fontsize="small", loc="upper left")
    # The part of the ramp in which something happens
    last = tree["up"].to_dataset()["weight_decay_at_exit"]
    up.set_xlim(float(last.min()) - 0.01, float(max(last.max(), control["weight_decay_at_exit"].max())) + 0.01)
    plots.loop_width(tree["loops"].to_dataset(), width)
    width.set_title("width of the loop (bars: two standard errors)", fontsize="medium")
    text = "pale: SGD with minibatches · line: prediction with lag · dashed: adiabatic"
    figure.suptitle(f"Weight decay moved at a finite rate\n{text}", fontsize="medium")
    return figure


def summary(tree: xr.DataTree) -> str:
    """Return what was found, as Markdown."""
    lines = [
        f"## Ramps of the weight decay, chain, true minibatches of {tree.attrs['batch_size']}, lr = {tree.attrs['lr']}",
        "",
        "| direction | T | rate | mean λ | with lag | adiabatic | spread | with lag | KS p | p if T were "
        f"{100 * (float(tree.attrs['wrong']) - 1):.0f} % higher | slow enough for the adiabatic one |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for direction in ("down", "up"):
        runs = tree[direction].to_dataset()
        for i in range(runs.sizes["temperature"]):
            for j in range(runs.sizes["ramp_rate"]):
                r = runs.isel(temperature=i, ramp_rate=j)
                at = r["weight_decay_at_exit"].values
                lines.append(
                    f"| {direction} | {float(r.temperature):g} | {float(r.ramp_rate):g} "
                    f"| {at.mean():.4f} ± {at.std(ddof=1) / at.size**0.5:.4f} | {float(r.driven_mean):.4f} "
                    f"| {float(r.adiabatic_mean):.4f} | {at.std(ddof=1):.4f} | {float(r.driven_std):.4f} "
                    f"| {float(r.driven_p_value):.3g} | {float(r.wrong_p_value):.1e} "
                    f"| {'yes' if bool(r.adiabatic_valid) else 'no'} |"
                )
    lines += ["", "| T | rate | loop width | with lag | adiabatic |", "|---|---|---|---|---|"]
    loops = tree["loops"].to_dataset()
    for i in range(loops.sizes["temperature"]):
        for j in range(loops.sizes["ramp_rate"]):
            r = loops.isel(temperature=i, ramp_rate=j)
            lines.append(
                f"| {float(r.temperature):g} | {float(r.ramp_rate):g} | {float(r.width):.4f} ± "
                f"{float(r.width_error):.4f} | {float(r.driven_width):.4f} | {float(r.adiabatic_width):.4f} |"
            )
    control = tree["control"].to_dataset()
    up = control.sel(direction="up")["weight_decay_at_exit"].values
    gained = int(control.sel(direction="down")["escaped"].sum())
    lines += [
        "",
        f"Without noise the feature disappears at λ = {up.min():.4f} to {up.max():.4f} (spinodal "
        f"{float(tree.attrs['spinodal']):.4f}, later on a faster ramp); "
        f"{gained} of {up.size} ramps down learn it.",
        f"Minibatch noise over T at the barrier's top: {float(tree['up']['minibatch_share'].max()):.1%} at most; "
        "the prediction has it.",
    ]
    return "\n".join(lines) + "\n"


def answer(tree: xr.DataTree) -> Answer:
    """Say whether escapes under a moving weight decay follow the theory with lag."""
    runs = [tree[name].to_dataset() for name in ("down", "up")]
    p = smallest_p(np.concatenate([r["driven_p_value"].values.ravel() for r in runs]))
    n = sum(r["driven_p_value"].size for r in runs)
    wrong, wrong_n = of_all(np.concatenate([r["wrong_p_value"].values.ravel() for r in runs]) < LEVEL)
    slow = np.concatenate([r["adiabatic_valid"].values.ravel() for r in runs]).astype(bool)
    loops = tree["loops"].to_dataset()
    z = ((loops["width"] - loops["driven_width"]) / loops["width_error"]).values
    verdict = "follow" if p >= LEVEL else "do not follow"
    text = (
        f"Escapes under a moving weight decay {verdict} the theory with lag: smallest KS p = {p:.2g} of {n} after "
        f"Holm (a temperature off by {100 * abs(float(tree.attrs['wrong']) - 1):.2g} % would be seen in {wrong} of "
        f"{wrong_n}); {int(slow.sum())} of {slow.size} ramps are slow enough for the adiabatic formula; loop widths "
        f"are within {float(np.abs(z).max()):.1f} s.e. of the predicted ones."
    )
    return Answer(text, p >= LEVEL)

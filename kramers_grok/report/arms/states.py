"""Figure and summary of the arm `states`."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from kramers_grok.plots.style import CYCLE, MARKERS
from kramers_grok.report.words import Answer, of_all

__all__ = ["answer", "figure", "summary"]

_NAMES = {
    "white": "white inputs",
    "autoencoder": "autoencoder",
    "diagonal": "diagonal network",
    "other": "neither white nor autoencoder",
}


def figure(tree: xr.DataTree) -> Any:
    """Draw counts of states against the number of features, and measured against predicted indices."""
    import matplotlib.pyplot as plt

    figure, (ax, beside) = plt.subplots(1, 2, figsize=(10.5, 4.2), layout="constrained")
    table = tree["table"].to_dataset()
    most = int(table.n_features.max())
    x = np.arange(1, most + 1)
    ax.plot(x, x + 1, "k-", lw=1.0, label="K + 1")
    ax.plot(x, 2.0**x, "k--", lw=1.0, label="2^K")
    # Marks at the same place stay visible: larger ones lie behind.
    sizes = {"white": 12, "autoencoder": 6, "diagonal": 8, "other": 8}
    for number, (family, name) in enumerate(_NAMES.items()):
        rows = table.where(table.family == family, drop=True)
        filled = {} if family != "white" else {"mfc": "none", "mew": 1.6}
        ax.plot(
            rows.n_features, rows.n_states, MARKERS[number], color=CYCLE[number], ms=sizes[family], label=name, **filled
        )
    ax.set_yscale("log", base=2)
    ax.set_xticks(x)
    ax.set_yticks([2, 3, 4, 5, 8, 16], labels=["2", "3", "4", "5", "8", "16"])
    ax.set_ylim(1.7, 22)
    ax.set_xlabel("features K that can be learned")
    ax.set_ylabel("metastable states found")
    ax.legend(frameon=False, fontsize="small", loc="upper left")
    ax.set_title("Search from many starts (lines: predicted)", fontsize="medium")
    nodes = [tree[name].to_dataset() for name in tree.children if name != "table" and not name.startswith("diagonal")]
    predicted = np.concatenate([d.predicted_index.values for d in nodes])
    measured = np.concatenate([d["index"].values for d in nodes])
    pairs, counts = np.unique(np.stack([predicted, measured], axis=1), axis=0, return_counts=True)
    top = int(max(pairs.max(), 1))
    beside.plot([0, top], [0, top], color="black", lw=1.0)
    beside.scatter(pairs[:, 0], pairs[:, 1], s=60 + 12 * counts, color=CYCLE[0], zorder=3)
    for (a, b), count in zip(pairs, counts, strict=True):
        beside.annotate(f"{count} sets", (a, b), (12, -4), textcoords="offset points", fontsize="small")
    beside.set_xticks(range(top + 1))
    beside.set_yticks(range(top + 1))
    beside.set_xlim(-0.5, top + 1)
    beside.set_ylim(-0.5, top + 0.6)
    beside.set_xlabel("pairs in which an unlearned feature is the stronger (predicted)")
    beside.set_ylabel("negative curvatures (Hessian)")
    beside.set_title("All sets of features: index = number of inversions", fontsize="medium")
    return figure


def summary(tree: xr.DataTree) -> str:
    """Return what was found, as Markdown."""
    table = tree["table"].to_dataset()
    lines = [
        "## Number of metastable states",
        "",
        "| data | K | states found | predicted | starts | ends that are no minimum | sets with the predicted index |",
        "|---|---|---|---|---|---|---|",
    ]
    for i in range(table.sizes["search"]):
        r = table.isel(search=i)
        lines.append(
            f"| {_NAMES[str(r.family.values)]} | {int(r.n_features)} | {int(r.n_states)} | {int(r.predicted_states)} "
            f"| {int(r.n_starts)} | {int(r.n_uncertified)} | {int(r.n_index_agree)} of {int(r.n_sets)} |"
        )
    return "\n".join(lines)


def answer(tree: xr.DataTree) -> Answer:
    """Say whether the metastable states that were found are those predicted."""
    table = tree["table"].to_dataset()
    same, n = of_all(table["n_states"].values == table["predicted_states"].values)
    agree, sets = int(table["n_index_agree"].sum()), int(table["n_sets"].sum())
    verdict = (
        "as many metastable states as predicted" if same == n else "other numbers of metastable states than predicted"
    )
    text = (
        f"Searches from {int(table['n_starts'].sum())} random starts find {verdict} ({same} of {n} networks, up to "
        f"{int(table['n_states'].max())} states), and {agree} of {sets} sets of features have the predicted number of "
        f"unstable directions; {int(table['n_uncertified'].sum())} ends are no minimum."
    )
    return Answer(text, same == n and agree == sets)

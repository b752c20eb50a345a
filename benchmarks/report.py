"""Tables and the figure out of a result file; no number is typed by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Floor", "ahead", "as_text", "drawing", "figure", "headlines", "load", "setting", "table"]

RESULTS = Path(__file__).parent / "results.json"
Record = Mapping[str, Any]

# Parts of the figure: panel by panel, two in a row.
SHOWN = ("escape-mode", "escape-chain", "escape-network", "sgd-linear", "sgd-tanh")


def load(path: str | Path = RESULTS) -> dict[str, Any]:
    """Read a result file."""
    loaded: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    return loaded


def table(results: Record, name: str) -> str:
    """Return one part as a Markdown table: speed and, in brackets, time over the reference's in the same rounds.

    Parameters
    ----------
    results : mapping
        From `load`.
    name : str
        Part.
    """
    part = results["parts"][name]
    groups = part["groups"]
    if name == "memory":
        rows = [row for group in groups for row in group["rows"]]
        return _markdown(["", "peak memory over the state"], [[r["name"], f"{r['value']:.2f}"] for r in rows])
    seconds = part["unit"] == "s"
    scale, word = (1.0, "") if seconds else _scale(groups)
    header = ["seconds" if seconds else f"{word}{part['unit']}s per second", *[group["label"] for group in groups]]
    cells = []
    for contestant in _names(groups):
        row = [contestant]
        for group in groups:
            found = [c for c in group["contestants"] if c["name"] == contestant]
            row.append(_cell(found[0], seconds, scale) if found else "")
        cells.append(row)
    return _markdown(header, cells) + _notes(part)


def _scale(groups: Sequence[Record]) -> tuple[float, str]:
    """Return a factor and its word that leave a reader few digits."""
    fastest = min((c["median"] for group in groups for c in group["contestants"]), default=1.0)
    return (1e-6, "million ") if 1 / fastest > 1e7 else (1e-3, "thousand ")


def _notes(part: Record) -> str:
    """What a reader must know, once for all contestants of whom it is true."""
    whose: dict[str, list[str]] = {}
    for group in part["groups"]:
        for c in group["contestants"]:
            if c["note"]:
                where = f" ({group['label']})" if len(part["groups"]) > 1 else ""
                whose.setdefault(f"{c['note']}{where}", []).append(c["name"])
    notes = [f"{', '.join(names)}: {note}" for note, names in whose.items()]
    notes += [f"{group['label']}: {group['note']}" for group in part["groups"] if "note" in group]
    notes += [f"{left['name']}: left out, {left['why']}" for left in part["left_out"]]
    return "\n" + "; ".join(notes) + ".\n" if notes else ""


def _names(groups: Sequence[Record]) -> list[str]:
    return list(dict.fromkeys(c["name"] for group in groups for c in group["contestants"]))


def _cell(row: Record, seconds: bool, scale: float) -> str:
    value = row["median"] if seconds else scale / row["median"]
    return f"{_number(value)} (× {_number(row['ratio'])})"


def _number(value: float) -> str:
    """Three digits, without exponents where a reader can do without."""
    if 0.01 <= value < 1e6:
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return f"{value:.2g}"


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]], numbers: int | None = None) -> str:
    """Return a table whose last columns, so many, hold numbers; all but the first if not said."""
    numbers = len(header) - 1 if numbers is None else numbers
    rule = ["---"] * (len(header) - numbers) + ["---:"] * numbers
    lines = [" | ".join(cells) for cells in (header, rule, *rows)]
    return "".join(f"| {line} |\n" for line in lines)


def setting(results: Record) -> str:
    """Machine, versions and date of every part; one line where all are alike."""
    lines: dict[str, list[str]] = {}
    for name, part in results["parts"].items():
        s = part["setting"]
        versions = ", ".join(f"{k} {v}" for k, v in s["versions"].items())
        quick = "**A smoke test: these numbers mean nothing.** " if s["quick"] else ""
        line = f"{quick}{s['processor']}, {s['cores']} cores, {s['threads']} threads, {s['system']}; {versions}"
        lines.setdefault(f"{line}; commit {s['commit']}; {s['date'][:10]}", []).append(name)
    if len(lines) == 1:
        return f"{next(iter(lines))}.\n"
    return "".join(f"- {line} ({', '.join(names)}).\n" for line, names in lines.items())


# ------------------------------------------------------------------ ahead by how much


def headlines(results: Record) -> str:
    """Return the library against the fastest peer of each race, as a Markdown table.

    Where contestants make their normal numbers in different precisions: among those that make them in double
    precision, and among all. Ratios are medians over rounds; above 1 the library is faster.
    """
    rows = []
    for part in results["parts"].values():
        for group in part["groups"]:
            for precision, word in _precisions(group):
                if (found := ahead(group, precision)) is not None:
                    ours, peer, factor = found
                    rows.append([part["title"], group["label"], word, ours, peer, f"× {_number(factor)}"])
    return _markdown(["", "", "noise", "the library", "fastest peer", "ahead by"], rows, numbers=1)


def _precisions(group: Record) -> list[tuple[str | None, str]]:
    kinds = {c["noise"] for c in group["contestants"]}
    return [("double", "double"), (None, "any")] if len(kinds) > 1 else [(None, "")]


class Floor(NamedTuple):
    """Steps of one coordinate, in units of the time that the fastest generator takes for a normal number."""

    label: str
    noise: str
    ours: float
    peer: float  # the fastest; so far ahead could an engine be at most that spends no time on anything but its noise

    def __str__(self) -> str:
        """A line for a list."""
        return (
            f"{self.label}, {self.noise} precision: {self.ours:.2g}; the fastest peer of any precision {self.peer:.2g}"
        )


def drawing(results: Record) -> list[Floor]:
    """Steps of one coordinate against drawing the normal number that each needs.

    The generators are all that were measured, the library's own among them, in the step's precision.
    """
    parts = results["parts"]
    if "normals" not in parts or "escape-mode" not in parts:
        return []
    normals = parts["normals"]["groups"][0]["contestants"]
    found = []
    for group in parts["escape-mode"]["groups"]:
        peers = [c["median"] for c in group["contestants"] if not c["ours"]]
        for noise in ("double", "single"):
            drawn = [c["median"] for c in normals if c["noise"] == noise]
            steps = [c["median"] for c in group["contestants"] if c["ours"] and c["noise"] == noise]
            if drawn and steps and peers:
                found.append(Floor(group["label"], noise, min(steps) / min(drawn), min(peers) / min(drawn)))
    return found


def ahead(group: Record, noise: str | None = None) -> tuple[str, str, float] | None:
    """Return the fastest of ours, the fastest peer and the ratio of their times, None where a side is missing.

    Parameters
    ----------
    group : mapping
    noise : str, optional
        Only contestants whose normal numbers are made in this precision.
    """
    racing = [c for c in group["contestants"] if noise is None or c["noise"] == noise]
    ours, peers = ([c for c in racing if c["ours"] is side] for side in (True, False))
    if not ours or not peers:
        return None
    best, peer = (min(side, key=lambda c: c["median"]) for side in (ours, peers))
    return best["name"], peer["name"], _paired(peer, best)


def _paired(slow: Record, fast: Record) -> float:
    """Median over rounds of the ratio of two times."""
    ratios = sorted(a / b for a, b in zip(slow["seconds"], fast["seconds"], strict=True))
    middle = len(ratios) // 2
    return ratios[middle] if len(ratios) % 2 else 0.5 * (ratios[middle - 1] + ratios[middle])


def as_text(results: Record) -> str:
    """Everything, for a terminal."""
    parts = [f"{part['title']}\n\n{table(results, name)}" for name, part in results["parts"].items()]
    floor = ["A step, in units of a normal number's time:", *(f"  {line}" for line in drawing(results))]
    return "\n".join([*parts, *floor, "", headlines(results), setting(results)])


# ------------------------------------------------------------------ the figure


def _shown(results: Record) -> Iterator[tuple[str, Record]]:
    for name in SHOWN:
        if name in results["parts"]:
            yield name, results["parts"][name]


def figure(results: Record) -> Any:
    """Draw the speed of every contestant, a panel for each part and a marker for each number of replicas.

    Returns
    -------
    matplotlib.figure.Figure
    """
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullFormatter

    from kramers_grok.plots.style import CYCLE, MARKERS

    panels = list(_shown(results))
    heights = [len(_names(part["groups"])) for _, part in panels]
    fig, axes = plt.subplots(
        len(panels), 1, figsize=(7.2, 0.75 * len(panels) + 0.24 * sum(heights)), layout="constrained",
        height_ratios=heights, squeeze=False,
    )  # fmt: skip
    for ax, (_, part) in zip(axes[:, 0], panels, strict=True):
        names = _names(part["groups"])[::-1]
        for number, group in enumerate(part["groups"]):
            for c in group["contestants"]:
                # Ours filled, peers open: told apart in grey as well.
                colour = CYCLE[0] if c["ours"] else "0.25"
                ax.plot(
                    1 / c["median"], names.index(c["name"]), marker=MARKERS[number % len(MARKERS)], ms=5.5, ls="none",
                    color=colour, mfc=colour if c["ours"] else "white",
                )  # fmt: skip
        ax.set_xscale("log")
        ax.set_yticks(range(len(names)), names, fontsize="small")
        ax.set_ylim(-0.6, len(names) - 0.4)
        ax.grid(axis="both", color="0.9", lw=0.6)
        ax.set_axisbelow(True)
        ax.set_title(part["title"], fontsize="small", loc="left", pad=20)
        ax.xaxis.set_minor_formatter(NullFormatter())
        handles = [
            ax.plot([], [], marker=MARKERS[k % len(MARKERS)], ls="none", color="0.25", mfc="white", ms=5.5)[0]
            for k in range(len(part["groups"]))
        ]
        labels = [group["label"] for group in part["groups"]]
        place = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "borderpad": 0.0, "handletextpad": 0.1}
        ax.legend(handles, labels, fontsize="x-small", frameon=False, ncols=len(labels), **place)
    axes[-1, 0].set_xlabel("replica-steps per second")
    return fig

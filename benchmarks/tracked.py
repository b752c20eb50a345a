"""The library against plain numpy, as ratios: ``python -m benchmarks.tracked NEW [--against OLD]``.

NEW is what pytest-benchmark wrote for ``tests/test_against_numpy.py``. Ratios of one run survive a change of machine
far better than times do. With --against, a ratio that fell by more than a third is named and the exit status is 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FALLEN = 1.5  # a noisy neighbour does not do that to the smallest of many times


def ratios(record: Mapping[str, Any]) -> dict[str, float]:
    """Smallest time of plain numpy over the library's, for every pair of tests that share a group.

    Examples
    --------
    >>> def entry(name, least):
    ...     return {"group": "sum", "name": name, "stats": {"min": least}}
    >>> ratios({"benchmarks": [entry("test_numpy", 3.0), entry("test_library", 1.5)]})
    {'sum': 2.0}
    """
    least: dict[str, dict[str, float]] = {}
    for one in record["benchmarks"]:
        side = "numpy" if "numpy" in one["name"] else "library"
        least.setdefault(one["group"], {})[side] = float(one["stats"]["min"])
    return {group: sides["numpy"] / sides["library"] for group, sides in least.items() if len(sides) == 2}


def fallen(new: Mapping[str, float], old: Mapping[str, float]) -> list[str]:
    """Groups whose ratio fell by more than a third."""
    return [group for group in new if group in old and new[group] * FALLEN < old[group]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the ratios, and keep them where asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tracked", description=__doc__)
    parser.add_argument("new", type=Path, help="what pytest-benchmark wrote")
    parser.add_argument("--against", type=Path, help="ratios that were kept")
    parser.add_argument("--keep", type=Path, help="write the ratios here")
    options = parser.parse_args(arguments)
    new = ratios(json.loads(options.new.read_text(encoding="utf-8")))
    old: dict[str, float] = {}
    if options.against is not None and options.against.exists():
        old = json.loads(options.against.read_text(encoding="utf-8"))
    for group, value in new.items():
        before = f", was {old[group]:.3g}" if group in old else ""
        print(f"{group:32s} {value:8.3g} times as fast as plain numpy{before}")
    if options.keep is not None:
        kept = {group: float(f"{value:.3g}") for group, value in new.items()}
        options.keep.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    slower = fallen(new, old)
    if slower:
        print(f"slower than before, relative to numpy: {', '.join(slower)}")
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())

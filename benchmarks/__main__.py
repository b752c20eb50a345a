"""Measure all parts or some, and keep the results: ``python -m benchmarks [--quick] [--only PART ...]``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import settings

RESULTS = Path(__file__).parent / "results.json"
DEFAULT_THREADS = 2


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    made.add_argument("--only", nargs="+", metavar="PART", help="parts to measure, or beginnings of their names")
    made.add_argument("--missing", action="store_true", help="measure only parts that the results lack")
    made.add_argument("--contestants", nargs="+", metavar="NAME", help="only those whose names begin so")
    made.add_argument("--threads", type=int, default=DEFAULT_THREADS, help="cores that each contestant may use")
    made.add_argument("--quick", action="store_true", help="a smoke test: few replicas, few rounds, no meaning")
    made.add_argument("--rounds", type=int, default=None, help="interleaved rounds of each race, 9 if not given")
    made.add_argument("--out", type=Path, default=None, help="result file; not kept under --quick unless given")
    made.add_argument("--list", action="store_true", help="name the parts and leave")
    made.add_argument("--figure", type=Path, default=None, help="draw the figure into this file")
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, keep and print."""
    options = parser().parse_args(arguments)
    if arguments is None:
        settings.limit_threads(min(options.threads, settings.cores()))
    # Only now: whatever counts cores does so when it is imported.
    from benchmarks import run

    threads = min(options.threads, settings.cores())
    if options.list:
        print("\n".join(f"{name:18s} {title}" for name, (title, _, _) in run.parts(threads).items()))
        return
    out = options.out or (None if options.quick else RESULTS)
    began = time.perf_counter()
    run.measure(
        threads,
        plan=run.plan(quick=options.quick, rounds=options.rounds),
        only=options.only,
        missing=options.missing,
        chosen=_chosen(options.contestants),
        out=out,
        say=_say,
    )
    _say(f"{time.perf_counter() - began:.0f} s")
    if out is not None:
        from benchmarks import report

        results = report.load(out)
        print(report.as_text(results))
        if options.figure is not None:
            report.figure(results).savefig(options.figure, dpi=150)


def _chosen(names: Sequence[str] | None) -> Callable[[str], bool]:
    return lambda name: names is None or any(name.lower().startswith(n.lower()) for n in names)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

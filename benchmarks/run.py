"""Measure parts one by one; each is written as soon as it is done, so that a run can be broken off and resumed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import escape, footprint, settings, studies, training
from benchmarks.timing import QUICK, Part, Plan, Say

PartMaker = tuple[str, str, Callable[..., None]]


def parts(threads: int) -> dict[str, PartMaker]:
    """Title, unit and function of each part by its name, in the order of the table."""
    return escape.parts(threads) | training.parts(threads) | footprint.parts(threads) | studies.parts(threads)


def plan(*, quick: bool, rounds: int | None) -> Plan:
    """How much is run."""
    usual = QUICK if quick else Plan()
    return usual if rounds is None else replace(usual, rounds=rounds)


def measure(
    threads: int,
    *,
    plan: Plan,
    only: Sequence[str] | None,
    missing: bool,
    chosen: Callable[[str], bool],
    out: Path | None,
    say: Say,
) -> dict[str, Any]:
    """Measure the parts that are asked for and return their records.

    Raises
    ------
    SystemExit
        If no part has such a name.
    """
    torch.set_num_threads(threads)
    everything = parts(threads)
    names = [name for name in everything if only is None or any(name.startswith(o) for o in only)]
    unknown = [o for o in only or () if not any(name.startswith(o) for name in everything)]
    if unknown:
        raise SystemExit(f"no part is called {unknown[0]}; there are {', '.join(everything)}")
    known = json.loads(out.read_text(encoding="utf-8")) if out is not None and out.exists() else {"parts": {}}
    if missing:
        names = [name for name in names if name not in known["parts"]]
    done: dict[str, Any] = {}
    for number, name in enumerate(names, start=1):
        title, unit, function = everything[name]
        say(f"[{number}/{len(names)}] {name}: {title}")
        part, setting, began = Part(name, title, unit), settings.described(threads), time.perf_counter()
        function(part, plan, chosen, say)
        took = round(time.perf_counter() - began, 1)
        done[name] = {"setting": setting | {"quick": plan.quick}, "took": took, **part.as_record()}
        say(f"  {took:g} s")
        if out is not None:
            known["parts"] = {n: (known["parts"] | done)[n] for n in everything if n in known["parts"] or n in done}
            _write(out, known)
    return done


def _write(path: Path, results: dict[str, Any]) -> None:
    """Replace the file at once: a run broken off leaves the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(f".{os.getpid()}.tmp")
    aside.write_text(_dumped(results), encoding="utf-8")
    aside.replace(path)


def _dumped(results: dict[str, Any]) -> str:
    """JSON with lists of numbers in one line each."""
    text = json.dumps(results, indent=1, ensure_ascii=False)
    lines: list[str] = []
    inside = False
    for line in text.split("\n"):
        if inside:
            lines[-1] += line.strip() if line.strip().startswith("]") else line.strip().replace(",", ", ")
            inside = not line.strip().startswith("]")
        else:
            lines.append(line)
            inside = line.rstrip().endswith('"seconds": [')
    return "\n".join(lines) + "\n"

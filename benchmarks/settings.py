"""What has to be set before numpy, torch or JAX are imported, and what a result must say of its machine."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("kramers-grok", "numpy", "numba", "torch", "torchsde", "jax", "diffrax")


def limit_threads(threads: int) -> None:
    """Give every contestant the same cores: whatever counts them finds `threads`.

    Raises
    ------
    RuntimeError
        If numpy, torch or JAX is imported already: they count cores once.
    """
    early = {"numpy", "torch", "jax", "numba"} & sys.modules.keys()
    if early:
        raise RuntimeError(f"{', '.join(sorted(early))} imported before the threads were counted")
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = str(threads)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    # XLA takes loops of small arrays on one core. A device for each core, and replicas dealt out to them, use all.
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={threads}".strip()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def described(threads: int) -> dict[str, object]:
    """Machine, versions and date of a measurement."""
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": _processor(),
        "cores": cores(),
        "threads": threads,
        "system": f"{platform.system()} {platform.machine()}",
        "load_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "commit": _commit(),
        "versions": {"python": platform.python_version()} | _versions(),
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _processor() -> str:
    """Name of the processor, and how wide its vectors are."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return platform.processor() or "unknown"
    lines = path.read_text(encoding="utf-8").splitlines()
    fields = dict(reversed([[part.strip() for part in line.split(":", 1)] for line in lines if ":" in line]))
    flags = fields.get("flags", "").split()
    widest = next((name for name in ("avx512f", "avx2", "avx") if name in flags), "")
    model = fields.get("model name", "unknown")
    detail = ", ".join(f"{k} {fields[k]}" for k in ("model", "stepping") if k in fields)
    return f"{model} ({detail})" + (f", {widest.upper()}" if widest else "")


def _commit() -> str:
    """Commit of the working tree, marked where files of the package differ from it."""
    try:
        head = subprocess.run(
            ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        )
        changed = subprocess.run(
            ["git", "-C", str(ROOT), "status", "--porcelain", "kramers_grok", "benchmarks/*.py"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")

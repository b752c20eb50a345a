"""The memory of an ensemble stays within three times its state: parameters and noise streams of all replicas."""

import subprocess
import sys
from pathlib import Path

import pytest

# In a process of its own: the peak is that of everything that lives there, torch's and numba's memory included. A small
# run first: code, compiled kernels and thread pools are no part of an ensemble.
PROGRAM = """
import gc, sys
import kramers_grok as kg

def resident(name):
    lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return 1024 * int(lines[name].split()[0])

def ratio(process, target, n_replicas, n_steps, **options):
    def run(n):
        return kg.first_passage(process, target=target, n_replicas=n, max_time=n_steps * process.dt, seed=0, **options)
    run(64)
    gc.collect()
    open("/proc/self/clear_refs", "w").write("5")  # the peak starts anew
    before = resident("VmRSS")
    run(n_replicas)
    return (resident("VmHWM") - before) / (8 * n_replicas * (process.model.n_parameters + 1))

chain = kg.DeepLinearChain(depth=3, singular_value=1.0, weight_decay=0.25)
network = kg.DeepLinearNetwork((8, 16, 16, 8), [1.0, 0.5], weight_decay=0.25)
temperature = chain.barrier().height / 3
mode = kg.Langevin(chain.mode, temperature=temperature, dt=0.1, device="cpu")
target = kg.beyond(chain.barrier())
print(ratio(mode, target, 1_000_000, 12))
for integrator in (kg.Fused(), kg.Fused(compiled=False)):
    wide = kg.Langevin(network, temperature=temperature, dt=0.1, device="cpu", integrator=integrator)
    print(ratio(wide, kg.Region(0.9), 6000, 4))
print(ratio(wide, kg.Region(0.9), 6000, 4, replica_batch=6000))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak is read from Linux's /proc")
def test_memory_of_large_ensembles() -> None:
    output = subprocess.run(
        [sys.executable, "-c", PROGRAM], check=True, timeout=300, capture_output=True, text=True
    ).stdout
    mode, compiled, loop, at_once = (float(line) for line in output.split())
    assert mode < 3
    assert compiled < 3
    assert loop < 3
    # Negative control: all replicas in one batch
    assert at_once > 3.5

"""One compiled kernel serves every value of the parameters."""

from pathlib import Path

import numpy as np
import pytest
import sympy
import torch

from kramers_grok.core.landscape import Landscape
from kramers_grok.core.region import Region
from kramers_grok.dynamics import blocks, kernel_source, kernels
from kramers_grok.dynamics.langevin import Fused, Langevin
from kramers_grok.dynamics.process import Watch
from kramers_grok.models.deep_linear import DeepLinearNetwork
from kramers_grok.theory.deep_linear import DeepLinearChain, Mode

# (σ, λ, q); equal and special numbers (1, ½) must not change the text either
VALUES = [(1.3, 0.25, 0.8), (0.7, 0.31, 1.9), (2.0, 0.5, 3.0), (1.1, 0.1, 0.6)]


def text_of(spec: kernel_source.KernelSpec, kind: int = blocks.NONE, feature: int = 0) -> tuple[str, tuple[float, ...]]:
    return kernel_source.source(spec, feature, kind)


@pytest.mark.parametrize("make", [Mode, DeepLinearChain])
def test_langevin_kernels_hold_no_parameters(make: type[Mode] | type[DeepLinearChain]) -> None:
    sources = [text_of(kernels.landscape_spec(make(3, *values).landscape)) for values in VALUES]
    assert len({text for text, _ in sources}) == 1
    assert len({constants for _, constants in sources}) == len(VALUES)


@pytest.mark.parametrize("kind", [blocks.CONSTANT, blocks.ONLINE, blocks.EPOCHS])
def test_sgd_kernels_hold_no_parameters(kind: int) -> None:
    sources = [text_of(kernels.scalar_spec(DeepLinearChain(3, *values)), kind) for values in VALUES]
    assert len({text for text, _ in sources}) == 1
    assert len({constants for _, constants in sources}) == len(VALUES)


@pytest.mark.parametrize("widths", [(1, 2, 2, 1), (2, 2, 3)])
def test_network_kernels_hold_no_parameters(widths: tuple[int, ...]) -> None:
    networks = [DeepLinearNetwork(widths, [s], weight_decay=d, input_variance=q) for s, d, q in VALUES]
    sources = [text_of(kernels.network_spec(network)) for network in networks]
    assert len({text for text, _ in sources}) == 1
    assert len({constants for _, constants in sources}) == len(VALUES)
    mixed = DeepLinearNetwork((2, 2, 2), [[1.0, 0.5], [-0.5, 1.0]], weight_decay=0.2)
    other = DeepLinearNetwork((2, 2, 2), [1.0, 0.5], weight_decay=0.2)
    assert text_of(kernels.network_spec(mixed))[0] != text_of(kernels.network_spec(other))[0]


def test_scores_of_another_shape_are_other_kernels_and_of_other_numbers_are_not() -> None:
    spec = kernels.scalar_spec(DeepLinearChain(3, *VALUES[0]))
    a, b, c = spec.landscape.coordinates
    texts = [
        kernel_source.source(spec, 0, blocks.CONSTANT, score)[0]
        for score in (a * 1.7 + b, a * 0.9 + b, a * 0.9 + c, None)
    ]
    assert texts[0] == texts[1]
    assert len(set(texts)) == 3


def test_other_depths_features_and_steps_taken_together_are_other_kernels() -> None:
    """Negative control of the comparison of texts."""
    spec, mode = (kernels.scalar_spec(system(3, *VALUES[0])) for system in (DeepLinearChain, Mode))
    deeper = kernels.scalar_spec(DeepLinearChain(4, *VALUES[0]))
    texts = {text_of(spec, blocks.ONLINE)[0], text_of(deeper, blocks.ONLINE)[0]}
    texts |= {text_of(mode, kind)[0] for kind in (blocks.CONSTANT, blocks.ONLINE, blocks.EPOCHS)}
    assert len(texts) == 5
    assert text_of(spec, blocks.ONLINE) == text_of(spec, blocks.EPOCHS) == text_of(spec, blocks.CONSTANT)
    x = sympy.Symbol("x", real=True)
    landscape = kernels.landscape_spec(Landscape(x**2, (x,), (x, x**3)))
    assert text_of(landscape, feature=0)[0] != text_of(landscape, feature=1)[0]


@pytest.mark.parametrize("values", [(1.0, 0.25, 1.0), (0.25, 0.25, 0.25), (0.5, 0.125, 0.5), (1.0, 1.0, 1.0)])
def test_parameters_that_coincide_are_told_apart_in_the_paths(values: tuple[float, float, float]) -> None:
    """Equal numbers become one argument: the text may differ, the forces must not."""
    text, constants = text_of(kernels.landscape_spec(DeepLinearChain(3, *values).landscape))
    names = {f"k{j}": value for j, value in enumerate(constants)}
    body = text.split("def move")[1].split("@njit")[0]
    lines = [
        line.strip() for line in body.splitlines() if line.strip()[:2] in {"c0", "c1", "c2", "c3", "g0", "g1", "g2"}
    ]
    x = np.array([0.4, -0.7, 1.1])
    scope: dict[str, float] = names | {f"x{j}": float(v) for j, v in enumerate(x)}
    for line in lines:
        exec(line, {}, scope)
    expected = DeepLinearChain(3, *values).landscape.gradient_at(x)
    np.testing.assert_allclose([scope[f"g{j}"] for j in range(3)], expected, rtol=1e-13)


def test_irrational_constants_and_functions_compile() -> None:
    x, y = sympy.symbols("u v", real=True)
    energy = sympy.sqrt(3) * x**2 / 2 + sympy.cos(sympy.pi * y) / 9 + sympy.Max(x, y) ** 2 / 2 + y**4
    landscape = Landscape(energy, (x, y), (sympy.Abs(x) + sympy.exp(y) / 7,))
    watch = Watch(Region(0.6), bridge=True)
    ends = []
    for integrator in (Fused(), Fused(compiled=False)):
        process = Langevin(landscape, temperature=0.1, dt=0.02, integrator=integrator)
        ends.append(process.advance(process.start(40, seed=1, point=[0.1, -0.2]), 60, watch))
    assert torch.equal(ends[0][1].hit_step, ends[1][1].hit_step)
    assert 0 < int((ends[0][1].hit_step >= 0).sum()) < 40
    torch.testing.assert_close(ends[0][0].theta, ends[1][0].theta, rtol=1e-10, atol=1e-12)


def test_kernels_are_kept_on_disk_by_their_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KRAMERS_GROK_CACHE", str(tmp_path))
    text = 'def leap():\n    """A stand-in."""\n    return 7\n'
    assert kernel_source.imported(text).leap() == 7
    (path,) = (tmp_path / "kramers_grok" / "kernels").glob("kernel_*.py")
    assert path.read_text() == text
    written = path.stat().st_mtime_ns
    kernel_source.imported(text)
    assert path.stat().st_mtime_ns == written
    assert kernel_source.imported(text.replace("7", "8")).leap() == 8


def test_a_home_that_cannot_be_written_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    monkeypatch.setenv("KRAMERS_GROK_CACHE", str(blocked))
    assert kernel_source.imported("def leap():\n    return 9\n").leap() == 9

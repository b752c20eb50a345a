"""The torch twin draws what the compiled functions draw."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from kramers_grok.core import rng
from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.rng import Purpose
from kramers_grok.dynamics import torch_noise

SEED = 0xFEDCBA9876543210
STREAMS = torch.tensor([0, 3, 1, 2**31, 2**32 - 1, 77])

KNOWN_ANSWERS = [
    (13, [0] * 4, [0] * 4, "531c7e4f 39491ee5 2c855a92 3d6abf9a"),
    (13, [0xFFFFFFFF] * 4, [0xFFFFFFFF] * 4, "c4189358 1c9cc83a d5881c67 6a0a89e0"),
    (20, [0xFFFFFFFF] * 4, [0xFFFFFFFF] * 4, "2a881696 57012287 f6c7446e a16a6732"),
    (
        13,
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0, 0x082EFA98, 0xEC4E6C89],
        "4aa71d8f 734738c2 431fc6a8 ae6debf1",
    ),
    (
        72,
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0, 0x082EFA98, 0xEC4E6C89],
        "09930adf 7f27bd55 9ed68ce1 97f803f6",
    ),
]


@pytest.mark.parametrize(("rounds", "counter", "key", "expected"), KNOWN_ANSWERS)
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_known_answers(rounds: int, counter: list[int], key: list[int], expected: str, dtype: torch.dtype) -> None:
    words = torch_noise.threefry4x32(torch.tensor(counter).to(dtype), key, rounds)
    assert [f"{word:08x}" for word in words.tolist()] == expected.split()


Draw = Callable[[Tensor, int], Tensor]
INTEGER_DRAWS: dict[str, Draw] = {
    "words 1": lambda s, step: torch_noise.words(SEED, Purpose.DATA, s, step, 1),
    "words 2": lambda s, step: torch_noise.words(SEED, Purpose.DATA, s, step, 2),
    "words 9": lambda s, step: torch_noise.words(SEED, Purpose.DATA, s, step, 9),
    "integers": lambda s, step: torch_noise.integers(SEED, Purpose.DATA, s, step, 1000, 6),
    "subset": lambda s, step: torch_noise.sample_without_replacement(SEED, Purpose.DATA, s, step, 12, 9),
    "permutation": lambda s, step: torch_noise.permutation(SEED, Purpose.SHUFFLE, s, step, 13),
}
REAL_DRAWS: dict[str, Draw] = {
    "uniforms": lambda s, step: torch_noise.uniforms(SEED, Purpose.BRIDGE, s, step, 1),
    "normals 1": lambda s, step: torch_noise.normals(SEED, Purpose.DATA, s, step, 1),
    "normals 2": lambda s, step: torch_noise.normals(SEED, Purpose.DATA, s, step, 2),
    "normals 7": lambda s, step: torch_noise.normals(SEED, Purpose.DATA, s, step, 7),
    "normals in float32": lambda s, step: torch_noise.normals(SEED, Purpose.DATA, s, step, 3, dtype=torch.float32),
    "chi_square 1": lambda s, step: torch_noise.chi_square(1, SEED, Purpose.DATA, s, step),
    "chi_square 2": lambda s, step: torch_noise.chi_square(2, SEED, Purpose.DATA, s, step, index=3),
    "chi_square 33": lambda s, step: torch_noise.chi_square(33, SEED, Purpose.DATA, s, step),
    "chi_squares 5 to 1": lambda s, step: torch_noise.chi_squares(5, 5, SEED, Purpose.DATA, s, step),
}
DRAWS = INTEGER_DRAWS | REAL_DRAWS
MANY = torch.arange(4000)


@pytest.fixture
def without_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the road of other devices: torch operations."""
    monkeypatch.setattr(torch_noise, "_compiled", lambda streams: False)


@pytest.mark.parametrize("step", [0, 5, 2**32 - 1])
@pytest.mark.parametrize("name", DRAWS)
def test_torch_operations_draw_what_compiled_functions_draw(
    name: str, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = DRAWS[name]
    streams = torch.cat([STREAMS, MANY])
    compiled = draw(streams, step)
    monkeypatch.setattr(torch_noise, "_compiled", lambda streams: False)
    operations = draw(streams, step)
    assert operations.dtype == compiled.dtype
    assert operations.shape == compiled.shape
    if name in INTEGER_DRAWS:
        assert torch.equal(operations, compiled)
    else:
        tolerance = 1e-6 if compiled.dtype == torch.float32 else 1e-14
        assert torch.allclose(operations, compiled, rtol=tolerance, atol=tolerance)


def test_ordinary_tensors_get_the_numbers_of_the_numpy_face() -> None:
    streams = STREAMS.numpy()
    for n in (1, 2, 5):
        drawn = torch_noise.normals(SEED, Purpose.LANGEVIN, STREAMS, 6, n)
        assert (drawn.numpy() == rng.normals(SEED, Purpose.LANGEVIN, streams, 6, n)).all()
        assert drawn.is_contiguous()
    drawn = torch_noise.integers(SEED, Purpose.DATA, STREAMS, 6, 50, 3)
    assert (drawn.numpy() == rng.integers(SEED, Purpose.DATA, streams, 6, 50, 3)).all()


def test_randint_of_words_is_the_rule_of_integers() -> None:
    words = torch.tensor([0, 1, 2**31, 2**32 - 1])
    assert torch_noise.randint(words, 2**30).tolist() == [rng.draw_index(int(w), 2**30) for w in words]


@pytest.mark.parametrize("name", DRAWS)
def test_rows_do_not_depend_on_the_batch(name: str) -> None:
    whole = DRAWS[name](MANY[:300], 4)
    for part in (MANY[:1], MANY[1:8], MANY[40:297], MANY[7:300:13]):
        assert torch.equal(DRAWS[name](part, 4), whole[part])


@pytest.mark.usefixtures("without_compiled")
@pytest.mark.parametrize("name", INTEGER_DRAWS)
def test_rows_do_not_depend_on_the_batch_with_torch_operations(name: str) -> None:
    whole = DRAWS[name](MANY[:300], 4)
    for part in (MANY[:1], MANY[1:8], MANY[40:297], MANY[7:300:13]):
        assert torch.equal(DRAWS[name](part, 4), whole[part])


@pytest.mark.parametrize("name", DRAWS)
def test_no_value_is_read_back_to_the_host(name: str) -> None:
    """Under FakeTensorMode a host read raises, and so does a CPU tensor that strays among CUDA tensors."""
    expected = DRAWS[name](MANY[:5], 3)
    with FakeTensorMode():
        streams = torch.arange(5, device="cuda")
        drawn = DRAWS[name](streams, 3)
        assert drawn.device.type == "cuda"
        assert drawn.shape == expected.shape
        assert drawn.dtype == expected.dtype


def test_a_host_read_would_be_noticed() -> None:
    with FakeTensorMode():
        drawn = torch_noise.normals(0, Purpose.DATA, torch.arange(5, device="cuda"), 3, 2)
        with pytest.raises(RuntimeError, match=r"not linked with support for cuda|_local_scalar_dense"):
            drawn.sum().item()
        with pytest.raises(RuntimeError, match="device"):
            drawn + torch.zeros(5, 2)


@pytest.mark.usefixtures("without_compiled")
def test_the_global_generator_is_not_touched() -> None:
    before = torch.get_rng_state()
    for draw in DRAWS.values():
        draw(STREAMS, 0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("step", [0, 5, 2**32 - 1])
@pytest.mark.parametrize("n", [1, 2, 7])
def test_single_precision_makes_the_same_numbers_to_its_rounding(
    n: int, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = torch.cat([STREAMS, MANY])
    wide = torch_noise.normals(SEED, Purpose.DATA, streams, step, n)
    narrow = torch_noise.normals(SEED, Purpose.DATA, streams, step, n, dtype=torch.float32)
    assert narrow.dtype == torch.float32
    torch.testing.assert_close(narrow.double(), wide, rtol=5e-7, atol=0)
    assert not torch.equal(narrow, wide.float())
    monkeypatch.setattr(torch_noise, "_compiled", lambda streams: False)
    operations = torch_noise.normals(SEED, Purpose.DATA, streams, step, n, dtype=torch.float32)
    assert operations.dtype == torch.float32
    torch.testing.assert_close(operations, narrow, rtol=1e-6, atol=1e-7)


def test_torch_operations_in_single_precision_keep_the_tails() -> None:
    """Words at the ends, at quarter turns and where the logarithm changes its form."""
    ends = [0, 1, 2, 2**29, 2**30 - 1, 2**30, 2**31 - 1, 2**31, 3037000499, 3037000500, 2**32 - 2, 2**32 - 1]
    words = torch.tensor(ends, dtype=torch.int64).to(torch.int32)
    word0, word1 = (w.flatten() for w in torch.meshgrid(words, words, indexing="ij"))
    wide = torch.stack(torch_noise._box_muller(word0, word1))
    narrow = torch.stack(torch_noise._box_muller_single(word0, word1))
    torch.testing.assert_close(narrow.double(), wide, rtol=1e-6, atol=1e-13)
    assert float(narrow.max()) > 6.7


def test_other_dtypes_are_rounded() -> None:
    single = torch_noise.normals(1, Purpose.DATA, MANY, 0, 3, dtype=torch.float32)
    half = torch_noise.normals(1, Purpose.DATA, MANY, 0, 3, dtype=torch.float16)
    assert torch.equal(half, single.to(torch.float16))


def test_several_chi_square_numbers_are_single_ones() -> None:
    several = torch_noise.chi_squares(6, 4, SEED, Purpose.DATA, MANY, 3)
    for i in range(4):
        assert torch.equal(several[:, i], torch_noise.chi_square(6 - i, SEED, Purpose.DATA, MANY, 3, index=i))


def test_bad_input() -> None:
    with pytest.raises(InvalidParameterError, match=r"size.*at most n = 3"):
        torch_noise.sample_without_replacement(0, 0, STREAMS, 0, 3, 4)
    with pytest.raises(InvalidParameterError, match="step"):
        torch_noise.normals(0, 0, STREAMS, -1, 3)
    with pytest.raises(InvalidParameterError, match="dof"):
        torch_noise.chi_square(0, 0, 0, STREAMS, 1)


@pytest.mark.cuda
@pytest.mark.parametrize("name", DRAWS)
def test_cuda_draws_what_the_cpu_draws(name: str) -> None:
    on_device, on_host = DRAWS[name](MANY.cuda(), 4).cpu(), DRAWS[name](MANY, 4)
    if name in INTEGER_DRAWS:
        assert torch.equal(on_device, on_host)
    else:
        tolerance = 1e-6 if on_host.dtype == torch.float32 else 1e-14
        np.testing.assert_allclose(on_device, on_host, rtol=tolerance, atol=tolerance)

"""How many states a search finds, and which sets of features are saddles."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kramers_grok.dynamics.sgd import SGD
from kramers_grok.escape.protocols import (
    certify,
    find_states,
    full_gradient,
    predicted_index,
    random_starts,
)
from kramers_grok.models.data import population
from kramers_grok.models.deep_linear import DeepLinearNetwork
from kramers_grok.models.diagonal import DiagonalNetwork
from kramers_grok.studies.reproduction.states import network, subsets

N_STARTS = 160


def search(model: DeepLinearNetwork | DiagonalNetwork) -> list[list[int]]:
    descent = SGD(model, population(), lr=0.1, fused=False)
    found = find_states(descent, starts=random_starts(model, N_STARTS, seed=3), seed=3)
    assert found.attrs["n_uncertified"] == 0
    assert int(found.n_starts.sum()) == N_STARTS
    assert (found.curvature > 0).all()
    return sorted(found.learned.values.astype(int).tolist())


@pytest.mark.parametrize("family", ["white", "autoencoder"])
def test_a_matrix_network_has_the_ordered_states_only(family: str) -> None:
    assert search(network(family, 2)) == [[0, 0], [1, 0], [1, 1]]


def test_a_diagonal_network_has_all_sets() -> None:
    assert search(network("diagonal", 2)) == [[0, 0], [0, 1], [1, 0], [1, 1]]


def test_inputs_of_another_kind_have_another_count_as_the_criterion_says() -> None:
    model = network("other", 2)
    assert isinstance(model, DeepLinearNetwork)
    assert model.spectrum.number_of_states(3, model.weight_decay) == 4
    assert search(model) == [[0, 0], [0, 1], [1, 0], [1, 1]]


def test_control_two_layers_have_one_state() -> None:
    """D = 2: no barrier, so all starts that are not saddles end with everything learned."""
    assert search(DeepLinearNetwork((2, 2, 2), [1.4, 1.0], weight_decay=0.15)) == [[1, 1]]


@pytest.mark.parametrize("family", ["white", "autoencoder", "other"])
def test_the_index_of_every_set_is_the_number_of_unstable_pairs(family: str) -> None:
    """Index from automatic differentiation, pairs from the closed criterion; shared: the constructed point."""
    k = 2 if family == "other" else 4
    model = network(family, k)
    assert isinstance(model, DeepLinearNetwork)
    points = torch.stack([model.ordered_state(s) for s in subsets(k)])
    found = certify(full_gradient(SGD(model, population(), lr=0.1, fused=False)), model, points)
    predicted = [predicted_index(model.spectrum, 3, model.weight_decay, s) for s in subsets(k)]
    assert found.index.tolist() == predicted
    assert np.max(found.gradient_norm) < 1e-10
    if family != "other":
        inversions = [sum(j < i and j not in s for i in s for j in range(k)) for s in subsets(k)]
        assert predicted == inversions
        assert sum(i == 0 for i in predicted) == k + 1


def test_starts_are_reproducible_and_of_all_sizes() -> None:
    model = network("white", 2)
    one, two = (random_starts(model, 50, seed=5) for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.equal(one, random_starts(model, 50, seed=6))
    norms = one.norm(dim=1)
    assert norms.max() / norms.min() > 5

import numpy as np
import pytest

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.landscape.string import evenly, minimum_energy_path
from kramers_grok.landscape.surface import Surface
from kramers_grok.models.base import SymbolicModel
from kramers_grok.models.deep_linear import DeepLinearNetwork


def test_images_are_even_on_the_same_line() -> None:
    line = np.array([[0.0, 0.0], [3.0, 0.0], [3.0, 1.0]])
    images = evenly(line, 9)
    np.testing.assert_allclose(np.linalg.norm(np.diff(images, axis=0), axis=1)[:6], 0.5)
    np.testing.assert_allclose(images[[0, 6, 8]], line)


def test_a_relaxed_string_is_a_path_of_steepest_descent() -> None:
    network = DeepLinearNetwork((1, 1, 1, 1), [1.0], weight_decay=0.25)  # with one end that is a point, not an orbit
    barrier = network.theory.barrier()
    bent = np.linspace(barrier.minimum, barrier.destination, 9)[1:-1] + 0.1 * np.cos(np.arange(3.0) ** 2)
    path = minimum_energy_path(network, barrier.minimum, barrier.destination, initial=bent, tolerance=1e-4)
    assert path.converged
    gradients = Surface(network).gradients(path.images[1:-1])
    tangents = path.images[2:] - path.images[:-2]
    tangents /= np.linalg.norm(tangents, axis=1, keepdims=True)
    along = (gradients * tangents).sum(axis=1, keepdims=True) * tangents
    assert np.linalg.norm(gradients - along, axis=1).max() < 0.01 * np.linalg.norm(gradients, axis=1).max()
    assert path.energies.max() - path.energies[0] == pytest.approx(barrier.height, rel=0.02)
    assert path.maxima == (path.top,)
    assert path.minima == ()
    np.testing.assert_allclose(np.diff(path.arc_length), path.arc_length[-1] / 32, rtol=1e-2)


def test_a_string_that_was_stopped_says_so(two_channels: SymbolicModel) -> None:
    path = minimum_energy_path(two_channels, [-1.0, 0.0], [1.0, 0.0], initial=[[0.0, 2.0]], max_steps=2)
    assert not path.converged
    assert path.n_steps == 2
    assert path.moved > 0.01


def test_steep_walls_do_not_throw_images_out(two_channels: SymbolicModel) -> None:
    path = minimum_energy_path(two_channels, [-1.0, 0.0], [1.0, 0.0], initial=[[0.0, 40.0]])
    assert path.converged
    assert path.energies.max() == pytest.approx(0.75, rel=0.02)


def test_arguments(two_channels: SymbolicModel) -> None:
    with pytest.raises(InvalidParameterError, match="`a` and `b` are one point"):
        minimum_energy_path(two_channels, [1.0, 0.0], [1.0, 0.0])
    with pytest.raises(
        InvalidParameterError, match=r"`initial` = array of shape \(1, 3\), expected shape \(image, 2\)"
    ):
        minimum_energy_path(two_channels, [-1.0, 0.0], [1.0, 0.0], initial=[[0.0, 0.0, 0.0]])

"""The symmetries of a model: known for the package's own networks, proposed and probed for others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.landscape.symmetries.listed_orbits import SignedMap
from kramers_grok.landscape.symmetries.proposals import close, coordinate_maps, parity, proposed, random_points
from kramers_grok.landscape.symmetries.symmetry_group import Symmetry
from kramers_grok.landscape.symmetries.units import UnitLayer, hidden_layers
from kramers_grok.models.base import Model, SymbolicModel
from kramers_grok.models.deep_linear import DeepLinearNetwork
from kramers_grok.models.mlp import MLP
from kramers_grok.models.module import ModuleModel

__all__ = ["Symmetry", "symmetry_of"]

Array = NDArray[np.float64]
Outputs = Callable[[Tensor], Tensor]

_FEW_COORDINATES = 12
# What a module was probed for; it is asked again by every step of a search.
_PROPOSED: WeakKeyDictionary[ModuleModel, tuple[tuple[UnitLayer, ...], tuple[SignedMap, ...]]] = WeakKeyDictionary()


def symmetry_of(model: Model, *, maps: Sequence[SignedMap] = ()) -> Symmetry:
    """Return the symmetries of a model's energy.

    Deep linear networks have rotations of the hidden layers; networks with an activation function permutations of
    hidden units, and changes of sign where the function is odd or even. For a torch module they are proposed from the
    shapes of its parameters and kept if they leave the outputs at random parameters alone. A symbolic landscape of few
    coordinates has the permutations and changes of sign of coordinates that change neither energy nor order parameters.

    Parameters
    ----------
    model : Model
        Any; one that is none of these has no symmetries that are known.
    maps : sequence of (order, signs)
        More of them, with images ``signs * theta[order]``; probed as well.

    Returns
    -------
    Symmetry

    Raises
    ------
    InvalidParameterError
        If one of `maps` changes the energy.

    Examples
    --------
    >>> from kramers_grok.models.activations import Tanh
    >>> from kramers_grok.models.data import finite
    >>> symmetry_of(MLP((2, 3, 1), Tanh(), weight_decay=0.1, data=finite([[1.0, 0.0], [0.0, 1.0]], [1.0, -1.0])))
    Symmetry(9 parameters: 3 units (signs))
    >>> symmetry_of(DeepLinearNetwork((1, 2, 2, 1), [1.0], weight_decay=0.25))
    Symmetry(8 parameters: 2 units (rotations), 2 units (rotations))
    """
    found = _own_symmetry(model)
    if not maps:
        return found
    more = Symmetry(found.n_parameters, found.layers, (*found.maps, *maps), found.fingerprint)
    points = random_points(model.n_parameters)
    with torch.no_grad():
        before = model.energy(points)
        for number, (order, signs) in enumerate(more.maps):
            after = model.energy(torch.as_tensor(signs) * points[:, torch.as_tensor(order)])
            if not close(after, before):
                raise InvalidParameterError(
                    f"`maps[{number}]` changes the energy at random parameters by up to "
                    f"{float((after - before).abs().max()):.3g}, expected no change: it is no symmetry."
                )
    return more


def _own_symmetry(model: Model) -> Symmetry:
    size = model.n_parameters
    if isinstance(model, DeepLinearNetwork):
        return Symmetry(size, hidden_layers(model.widths, rotates=True), fingerprint=_fingerprint(model.product))
    if isinstance(model, MLP):
        flips, linear = parity(model.activation)
        layers = hidden_layers(model.widths, biases=model.biases, flips=flips, rotates=linear)
        data = model.data
        return Symmetry(size, layers, fingerprint=None if data is None else _fingerprint(_on_data(model)))
    if isinstance(model, ModuleModel):
        return Symmetry(size, *_proposed(model), fingerprint=_fingerprint(model.outputs))
    if isinstance(model, SymbolicModel) and size <= _FEW_COORDINATES:
        return Symmetry(size, maps=coordinate_maps(model))
    return Symmetry(size)


def _proposed(model: ModuleModel) -> tuple[tuple[UnitLayer, ...], tuple[SignedMap, ...]]:
    if model not in _PROPOSED:
        shapes = [tuple(p.shape) for p in model.module.parameters() if p.requires_grad]
        _PROPOSED[model] = proposed(shapes, model.outputs)
    return _PROPOSED[model]


def _on_data(model: MLP) -> Outputs:
    x = torch.as_tensor(model.required_data().x)[None]

    def outputs(theta: Tensor) -> Tensor:
        return model.forward(theta, x.to(theta))

    return outputs


def _fingerprint(outputs: Outputs) -> Callable[[Array], Array]:
    def numbers(points: Array) -> Array:
        with torch.no_grad():
            return np.asarray(outputs(torch.from_numpy(np.array(points))).flatten(1).numpy())

    return numbers

"""Layers of any network of the package, and the end-to-end map of linear ones."""

from __future__ import annotations

import torch
from torch import Tensor

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.models.base import BatchModel, SampleModel
from kramers_grok.models.chain import ChainModel
from kramers_grok.models.deep_linear import DeepLinearNetwork
from kramers_grok.models.diagonal import DiagonalNetwork
from kramers_grok.models.mlp import MLP
from kramers_grok.models.mode import ModeModel
from kramers_grok.theory.deep_linear import DeepLinearChain, Mode

__all__ = ["LayeredModel", "LinearModel", "batch_model", "layers_of", "learning_model", "product_of"]

LinearModel = ChainModel | ModeModel | DiagonalNetwork | DeepLinearNetwork
LayeredModel = LinearModel | MLP


def learning_model(system: object) -> BatchModel | SampleModel:
    """Return the torch model of anything that learns: from second moments of its samples, or from samples.

    Raises
    ------
    InvalidParameterError
        If it does not, as a symbolic landscape.
    """
    return system if isinstance(system, SampleModel) else batch_model(system)


def batch_model(system: object) -> BatchModel:
    """Return the torch model of anything that learns from second moments of its samples.

    Raises
    ------
    InvalidParameterError
        If it does not, as a symbolic landscape or a nonlinear network.

    Examples
    --------
    >>> from kramers_grok.theory.deep_linear import DeepLinearChain
    >>> batch_model(DeepLinearChain(3, 1.0, 0.25)).n_parameters
    3
    """
    if isinstance(system, Mode):
        return ModeModel(system)
    if isinstance(system, DeepLinearChain):
        return ChainModel(system)
    if isinstance(system, SampleModel):
        raise InvalidParameterError(
            f"`system` is a {type(system).__name__}, expected a linear network: a batch reaches a nonlinear one by its "
            "samples, not by their second moments.\nUse `SGD(model, data, …)` for minibatch noise as it is."
        )
    if not isinstance(system, BatchModel):
        raise InvalidParameterError(
            f"`system` is a {type(system).__name__}, expected a Mode, DeepLinearChain or network: only these learn "
            "from samples.\nUse `DeepLinearChain(depth=3, singular_value=1.0, weight_decay=0.25)`."
        )
    return system


def layers_of(model: LayeredModel, theta: Tensor) -> list[Tensor]:
    """Weights W_1 … W_D as matrices, each of shape (replica, h_l, h_{l−1}).

    A chain's are 1 × 1, a mode's x/√D in every layer, a diagonal network's diagonal matrices.

    Examples
    --------
    >>> from kramers_grok.theory.deep_linear import DeepLinearChain
    >>> chain = ChainModel(DeepLinearChain(3, 1.0, 0.25))
    >>> [w.tolist() for w in layers_of(chain, torch.tensor([[1.0, 2.0, 3.0]]))]
    [[[[1.0]]], [[[2.0]]], [[[3.0]]]]
    """
    if isinstance(model, DeepLinearNetwork | MLP):
        return model.layers(theta)
    if isinstance(model, DiagonalNetwork):
        return list(torch.diag_embed(theta.reshape(-1, model.n_features, model.depth).transpose(1, 2)).unbind(1))
    if isinstance(model, ModeModel):
        depth = model.mode.depth
        return [(theta / depth**0.5).unsqueeze(-1)] * depth
    return list(theta.reshape(len(theta), -1, 1, 1).unbind(1))


def product_of(model: LinearModel, theta: Tensor) -> Tensor:
    """End-to-end map W_D … W_1, shape (replica, output, input)."""
    if isinstance(model, DeepLinearNetwork):
        return model.product(theta)
    m = model.order_parameters(theta)
    return torch.diag_embed(m) if isinstance(model, DiagonalNetwork) else m.unsqueeze(-1)

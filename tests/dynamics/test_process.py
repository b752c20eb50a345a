"""What can be watched, and what cannot."""

import pytest
import sympy
import torch

from kramers_grok.core.exceptions import InvalidParameterError
from kramers_grok.core.landscape import Landscape
from kramers_grok.core.region import Region
from kramers_grok.dynamics.process import OrderParameter, Watch
from kramers_grok.models.base import SymbolicModel

X = sympy.Symbol("x", real=True)
LANDSCAPE = Landscape(X**4, (X,), (X, X**3))


def test_levels_by_default() -> None:
    assert Watch(Region(0.3)).hit_level == 0.3
    assert Watch(Region(0.3, above=False)).hit_level == -0.3
    assert Watch(Region(0.3), level=0.1).hit_level == 0.1
    assert Watch(Region(0.3), score=OrderParameter()).hit_level == float("inf")
    assert Watch(Region(0.3), score=OrderParameter(), level=5.0).hit_level == 5.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"level": 0.4}, r"`level` = 0.4, expected at most the region's border 0.3"),
        ({"level": float("nan")}, r"`level` = nan"),
        ({"floor": 0.3}, r"`floor` = 0.3, expected below the level 0.3"),
        ({"floor": 0.2, "level": 0.1}, r"`floor` = 0.2, expected below the level 0.1"),
        ({"score": OrderParameter(), "level": 1.0, "floor": 1.0}, r"`floor` = 1.0"),
        ({"bridge": True, "level": 0.1}, r"`bridge` = True with a score or a level"),
        ({"bridge": True, "score": OrderParameter()}, r"`bridge` = True with a score or a level"),
    ],
)
def test_bad_watches(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        Watch(Region(0.3), **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("feature", [0, 1])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_order_parameter_as_a_score(feature: int, sign: float) -> None:
    score, theta = OrderParameter(feature, sign), torch.tensor([[0.5], [-2.0]], dtype=torch.float64)
    values = score.values(SymbolicModel(LANDSCAPE), theta)
    expression = score.expression(LANDSCAPE)
    assert expression is not None
    assert values.tolist() == [float(expression.subs(X, x)) for x in (0.5, -2.0)]
    assert values.tolist() == [sign * x ** (1 + 2 * feature) for x in (0.5, -2.0)]

"""Formulas of the explorer: the package's symbolic expressions, and what sympy derives from them, as JavaScript."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import sympy
from sympy import Eq, Expr, Symbol

from kramers_grok.theory.deep_linear import (
    AMPLITUDE,
    DEPTH,
    INPUT_VARIANCE,
    SINGULAR_VALUE,
    WEIGHT_DECAY,
    binodal_expression,
    free_energy_expression,
    spinodal_expression,
    stationary_weight_decay_expression,
)

__all__ = ["Formula", "formulas", "mathematics"]

LR_OVER_BATCH, NOISE_STD, TEMPERATURE = sympy.symbols("epsilon g T", positive=True)
HEIGHT = Symbol("DeltaF", positive=True)
MINIMUM, SADDLE, MULTIPLICITY = sympy.symbols("kappa_min kappa_s n", positive=True)  # moduli of curvatures

_MODE = (DEPTH, INPUT_VARIANCE, SINGULAR_VALUE)


@dataclass(frozen=True)
class Formula:
    """An expression and the order of its arguments."""

    expression: Expr
    arguments: tuple[Symbol, ...]

    def javascript(self) -> str:
        """An arrow function.

        Examples
        --------
        >>> Formula(Symbol("x") ** 2, (Symbol("x"),)).javascript()
        '(x) => Math.pow(x, 2)'
        """
        names = ", ".join(str(symbol) for symbol in self.arguments)
        return f"({names}) => {sympy.jscode(self.expression)}"


def _tidy(expression: Expr) -> Expr:
    """Join powers of a: `a**D/a` has no value at a = 0, `a**(D - 1)` has."""
    return sympy.powsimp(sympy.powdenest(sympy.expand(expression), force=True))


def _mode_formulas() -> dict[str, Formula]:
    energy, decay = free_energy_expression(), stationary_weight_decay_expression()
    # The arc length of the balanced path is x = √D a.
    curvature = _tidy(sympy.diff(energy, AMPLITUDE, 2) / DEPTH)
    # D > 2: the energy at a = 0 is that of m = 0.
    at_zero = energy.subs(AMPLITUDE, 0).subs(sympy.Pow(0, DEPTH), 0)
    (fold,) = sympy.solve(
        sympy.expand(_tidy(sympy.diff(decay, AMPLITUDE) * AMPLITUDE ** (3 - DEPTH))), AMPLITUDE**DEPTH
    )
    return {
        "freeEnergy": Formula(energy, (AMPLITUDE, *_MODE, WEIGHT_DECAY)),
        # Expanded: at low temperature the digits of F - F(0) matter, those of F do not.
        "energyAboveZero": Formula(_tidy(energy - at_zero), (AMPLITUDE, *_MODE, WEIGHT_DECAY)),
        "curvature": Formula(curvature, (AMPLITUDE, *_MODE, WEIGHT_DECAY)),
        "stationaryWeightDecay": Formula(decay, (AMPLITUDE, *_MODE)),
        # At a stationary point λ is known, and without it nothing cancels.
        "heightAboveZero": Formula(
            sympy.factor(_tidy(energy.subs(WEIGHT_DECAY, decay) - at_zero)), (AMPLITUDE, *_MODE)
        ),
        "spinodal": Formula(spinodal_expression(), _MODE),
        "binodal": Formula(binodal_expression(), _MODE),
        "spinodalOrderParameter": Formula(sympy.factor(fold), (DEPTH, SINGULAR_VALUE)),
    }


def _rate_formulas() -> dict[str, Formula]:
    """Temperature of per-sample noise, and logarithms of escape times, which do not overflow."""
    kramers = sympy.log(2 * sympy.pi) - sympy.log(MINIMUM * SADDLE) / 2 - sympy.log(MULTIPLICITY) + HEIGHT / TEMPERATURE
    # The signs of the chain's D weights make 2^(D-1) saddles, whose D - 1 transverse curvatures are 2λ where 0 has λ.
    learning = (
        sympy.log(2 * sympy.pi) - sympy.log(WEIGHT_DECAY * SADDLE) / 2 - (DEPTH - 1) * sympy.log(2) / 2
        + HEIGHT / TEMPERATURE
    )  # fmt: skip
    return {
        "temperature": Formula(LR_OVER_BATCH * NOISE_STD**2 / 2, (LR_OVER_BATCH, NOISE_STD)),
        "logKramersTime": Formula(kramers, (MINIMUM, SADDLE, HEIGHT, TEMPERATURE, MULTIPLICITY)),
        "logChainLearningTime": Formula(learning, (DEPTH, WEIGHT_DECAY, SADDLE, HEIGHT, TEMPERATURE)),
    }


@cache
def formulas() -> dict[str, Formula]:
    """All formulas of the page by their names in its script."""
    return _mode_formulas() | _rate_formulas()


def mathematics() -> list[str]:
    """The page's main formulas as MathML, which browsers show without a library."""
    F, m, tau = Symbol("F"), Symbol("m"), Symbol("tau_K")
    known = formulas()
    shown = [
        ("Free energy of the balanced mode", Eq(F, known["freeEnergy"].expression, evaluate=False)),
        ("Order parameter", Eq(m, AMPLITUDE**DEPTH, evaluate=False)),
        ("Stationary points a > 0", Eq(WEIGHT_DECAY, known["stationaryWeightDecay"].expression, evaluate=False)),
        ("Temperature of per-sample noise", Eq(TEMPERATURE, known["temperature"].expression, evaluate=False)),
        ("Kramers", Eq(sympy.log(tau), known["logKramersTime"].expression, evaluate=False)),
    ]
    printed = [(what, sympy.mathml(equation, printer="presentation")) for what, equation in shown]
    return [f'<span class="what">{what}</span> <math display="block">{text}</math>' for what, text in printed]

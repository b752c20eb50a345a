"""What escape times mean: censored estimates, tests, Arrhenius fits, comparisons."""

from kramers_grok.analysis.arrhenius import (
    ArrheniusFit,
    LawComparison,
    PowerLawFit,
    SlopeDifference,
    arrhenius_fit,
    compare_laws,
    power_law_fit,
    slope_difference,
)
from kramers_grok.analysis.budget import BUDGET_COLUMNS, error_budget
from kramers_grok.analysis.compare import compare, exit_time_table, summary
from kramers_grok.analysis.cost import CostFit, cost_exponent, splitting_cost
from kramers_grok.analysis.extrapolation import RatioFit, extrapolated_ratio
from kramers_grok.analysis.hypotheses import (
    TestResult,
    chi_square_joint,
    exponentiality_test,
    ks_test,
    logrank,
    logrank_test,
)
from kramers_grok.analysis.predicted import predicted_dataset, predicted_survival
from kramers_grok.analysis.prefactors import (
    FreePowerFit,
    Misreading,
    PrefactorComparison,
    compare_prefactors,
    free_power_fit,
    prefactor_power,
    straight_line_misreading,
)
from kramers_grok.analysis.survival import (
    Estimate,
    PredictedExit,
    escape_rate,
    estimate,
    mean_exit_time,
    survival_curve,
)

__all__ = [
    "BUDGET_COLUMNS",
    "ArrheniusFit",
    "CostFit",
    "Estimate",
    "FreePowerFit",
    "LawComparison",
    "Misreading",
    "PowerLawFit",
    "PredictedExit",
    "PrefactorComparison",
    "RatioFit",
    "SlopeDifference",
    "TestResult",
    "arrhenius_fit",
    "chi_square_joint",
    "compare",
    "compare_laws",
    "compare_prefactors",
    "cost_exponent",
    "error_budget",
    "escape_rate",
    "estimate",
    "exit_time_table",
    "exponentiality_test",
    "extrapolated_ratio",
    "free_power_fit",
    "ks_test",
    "logrank",
    "logrank_test",
    "mean_exit_time",
    "power_law_fit",
    "predicted_dataset",
    "predicted_survival",
    "prefactor_power",
    "slope_difference",
    "splitting_cost",
    "straight_line_misreading",
    "summary",
    "survival_curve",
]

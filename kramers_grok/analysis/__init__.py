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
from kramers_grok.analysis.compare import (
    compare,
    exit_time_table,
    predicted_dataset,
    predicted_survival,
    summary,
)
from kramers_grok.analysis.hypotheses import (
    TestResult,
    chi_square_joint,
    exponentiality_test,
    ks_test,
    logrank,
    logrank_test,
)
from kramers_grok.analysis.survival import (
    Estimate,
    PredictedExit,
    escape_rate,
    mean_exit_time,
    survival_curve,
)

__all__ = [
    "ArrheniusFit",
    "Estimate",
    "LawComparison",
    "PowerLawFit",
    "PredictedExit",
    "SlopeDifference",
    "TestResult",
    "arrhenius_fit",
    "chi_square_joint",
    "compare",
    "compare_laws",
    "escape_rate",
    "exit_time_table",
    "exponentiality_test",
    "ks_test",
    "logrank",
    "logrank_test",
    "mean_exit_time",
    "power_law_fit",
    "predicted_dataset",
    "predicted_survival",
    "slope_difference",
    "summary",
    "survival_curve",
]

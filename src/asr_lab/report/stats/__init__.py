"""Error rates, their intervals and tests of their differences: pure functions, vectorised, seeded, without torch.

Shapes: N utterances (or blocks of them), K cells, S seeds of one configuration, R resamples. Rates are shares
(0.123 is 12.3 %).
"""

from asr_lab.report.stats.compare import Comparison, compare, tied_with_best
from asr_lab.report.stats.correction import benjamini_hochberg, holm
from asr_lab.report.stats.levels import Levels
from asr_lab.report.stats.paired import bca, delta_interval, paired_bootstrap, permutation, rate_interval
from asr_lab.report.stats.rates import (
    LEVEL,
    N_RESAMPLES,
    Array,
    Interval,
    TestResult,
    accuracy,
    error_rate,
    sum_blocks,
)
from asr_lab.report.stats.resample import bootstrap, interval, mean_over_seeds

__all__ = [
    "LEVEL",
    "N_RESAMPLES",
    "Array",
    "Comparison",
    "Interval",
    "Levels",
    "TestResult",
    "accuracy",
    "bca",
    "benjamini_hochberg",
    "bootstrap",
    "compare",
    "delta_interval",
    "error_rate",
    "holm",
    "interval",
    "mean_over_seeds",
    "paired_bootstrap",
    "permutation",
    "rate_interval",
    "sum_blocks",
    "tied_with_best",
]

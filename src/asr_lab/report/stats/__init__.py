"""Error rates, their intervals and tests of their differences: pure functions, vectorised, seeded, without torch.

Shapes: N utterances (or blocks of them), K cells, S seeds of one configuration, R resamples. Rates are shares
(0.123 is 12.3 %).
"""

from asr_lab.report.stats.compare import Comparison, compare, tied_with_best
from asr_lab.report.stats.correction import benjamini_hochberg, holm
from asr_lab.report.stats.factorial import Effect, Factorial, Term, factorial
from asr_lab.report.stats.levels import Levels
from asr_lab.report.stats.mixed import Component, Mixed, mixed
from asr_lab.report.stats.nist import mapsswe, mcnemar, segments, sign_test, wilcoxon
from asr_lab.report.stats.paired import bca, delta_interval, paired_bootstrap, permutation, rate_interval
from asr_lab.report.stats.power import Needed, minimum_detectable_effect, needed
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
from asr_lab.report.stats.resample import bootstrap, interval

__all__ = [
    "LEVEL",
    "N_RESAMPLES",
    "Array",
    "Comparison",
    "Component",
    "Effect",
    "Factorial",
    "Interval",
    "Levels",
    "Mixed",
    "Needed",
    "Term",
    "TestResult",
    "accuracy",
    "bca",
    "benjamini_hochberg",
    "bootstrap",
    "compare",
    "delta_interval",
    "error_rate",
    "factorial",
    "holm",
    "interval",
    "mapsswe",
    "mcnemar",
    "minimum_detectable_effect",
    "mixed",
    "needed",
    "paired_bootstrap",
    "permutation",
    "rate_interval",
    "segments",
    "sign_test",
    "sum_blocks",
    "tied_with_best",
    "wilcoxon",
]

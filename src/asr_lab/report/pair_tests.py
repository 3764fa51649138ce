"""Every test of "no difference" that two sides allow, by name."""

from collections.abc import Sequence

from asr_lab.report import stats
from asr_lab.report.sides import Member
from asr_lab.report.stats import Array, TestResult

ONE_RUN = "compares the words of two runs; here are several"


def pair_tests(
    errors: tuple[Array, Array],
    n: Array,
    members: tuple[Sequence[Member], Sequence[Member]],
    score: str,
    blocks: Sequence[str] | None,
) -> tuple[dict[str, TestResult], dict[str, str]]:
    """(tests by name, those that cannot be made and why).

    Args:
        errors: edits (S, N) of the seeds of both.
        n: reference words or characters (N,).
    """
    found = [stats.paired_bootstrap(*errors, n, blocks=blocks), stats.permutation(*errors, n, blocks=blocks)]
    return {test.test: test for test in found}, {}

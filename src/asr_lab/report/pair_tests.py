"""Every test of "no difference" that two sides allow, by name."""

from collections.abc import Iterator, Sequence

from asr_lab.report import stats
from asr_lab.report.alignment import aligned
from asr_lab.report.sides import Member
from asr_lab.report.stats import Array, TestResult, nist
from asr_lab.report.words import Pair

MIN_RANKED = 8  # speakers that the normal approximation of Wilcoxon's test needs
SEVERAL = "compares what two runs said, and here are more"
NO_SPEAKERS = "compares speakers, and the hypotheses do not name them"


def pair_tests(
    errors: tuple[Array, Array], n: Array, members: tuple[Sequence[Member], Sequence[Member]], score: str
) -> tuple[list[TestResult], dict[str, str]]:
    """(NIST's four tests, as far as they can be made; the names of the others, and why not).

    Args:
        errors: edits (S, N) of the seeds of both sides; those of speakers are compared as means over seeds.
        n: reference words or characters (N,).
    """
    found: list[TestResult] = []
    skipped: dict[str, str] = {}
    if all(len(side) == 1 for side in members):
        (a,), (b,) = members
        found.append(nist.mapsswe(_alignments(a, score), _alignments(b, score)))
        found.append(nist.mcnemar(errors[0][0] == 0, errors[1][0] == 0))
    else:
        skipped |= dict.fromkeys(("MAPSSWE", "McNemar"), SEVERAL)
    speakers = members[0][0].scores.speakers
    if speakers is None:
        return found, skipped | dict.fromkeys(("sign", "Wilcoxon"), NO_SPEAKERS)
    words = stats.sum_blocks(n, speakers)
    d = stats.sum_blocks(errors[0].mean(0) - errors[1].mean(0), speakers)[words > 0] / words[words > 0]
    found.append(nist.sign_test(d))
    if len(d) < MIN_RANKED:
        skipped["Wilcoxon"] = f"needs {MIN_RANKED} speakers, and here are {len(d)}"
    else:
        found.append(nist.wilcoxon(d))
    return found, skipped


def _alignments(m: Member, score: str) -> Iterator[list[Pair]]:
    rows = [{"ref": ref, "hyp": hyp} for ref, hyp in zip(m.scores.refs, m.scores.hyps, strict=True)]
    return (u.pairs for u in aligned(rows, score))

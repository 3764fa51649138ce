"""The main table for a paper: LaTeX with booktabs."""

import math
import re
from collections.abc import Iterable

from asr_lab.report.configurations import Configuration
from asr_lab.report.formats import level, percent
from asr_lab.report.stats import Interval
from asr_lab.report.summary import Summary

_PAGE = 40  # rows
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "–": "--",
    "−": "$-$",
    "·": r"\textperiodcentered{}",
    "‖": r"$\|$",
}
_ANY = re.compile("|".join(map(re.escape, _SPECIAL)))


def escape_tex(text: str) -> str:
    """Text that LaTeX sets as it stands; line breaks and control characters become spaces."""
    return _ANY.sub(lambda found: _SPECIAL[found[0]], re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", text))


def table_tex(summary: Summary) -> str:
    """One row per configuration: its choices, rate with interval, difference to the best one, the other rate, seeds.

    Needs booktabs alone; a table longer than a page, longtable too.
    """
    rate, other = summary.score.upper(), "CER" if summary.score == "wer" else "WER"
    factors = list(summary.swept) or ["configuration"]
    heads = [
        *factors,
        f"{rate} (%)",
        f"{level(summary.level)} interval",
        "to best",
        "interval",
        f"{other} (%)",
        "seeds",
    ]
    columns = f"{'l' * len(factors)}rcrcrr"
    caption = f"\\caption{{{_caption(summary, rate)}}}"
    label = f"\\label{{tab:{re.sub('[^A-Za-z0-9]+', '-', summary.experiment.name).strip('-')}}}"
    top = ["\\toprule", _line(map(escape_tex, heads)), "\\midrule"]
    rows = [_line(_row(row)) for row in summary.configurations]
    if len(rows) > _PAGE:
        needs, start = "{booktabs,longtable}", [f"\\begin{{longtable}}{{{columns}}}", caption, label, "\\\\"]
        lines = [*start, *top, "\\endfirsthead", *top, "\\endhead", *rows, "\\bottomrule", "\\end{longtable}"]
    else:
        needs, start = (
            "{booktabs}",
            ["\\begin{table}", "\\centering\\small\\setlength{\\tabcolsep}{3pt}", caption, label],
        )
        tabular = [f"\\begin{{tabular}}{{{columns}}}", *top, *rows, "\\bottomrule", "\\end{tabular}"]
        lines = [*start, *tabular, "\\end{table}"]
    return "\n".join([f"% Made by asr_lab; needs \\usepackage{needs}.", *lines]) + "\n"


def _row(row: Configuration) -> list[str]:
    names = [escape_tex(v) for v in row.factors.values()] or ["all"]
    seeds = f"{len(row.done)}/{len(row.cells)}"
    if not row.done:
        return [*names, "\\multicolumn{5}{c}{no result}", seeds]
    own = [_number(row.rate.value), _between(row.rate)]
    delta = ["best", ""] if row.best else [_number(row.delta.value, True), _between(row.delta, True)]
    if row.tied:
        delta[0] += "$^{\\dagger}$"
    cells = [*names, *own, *delta, _number(row.other.value), seeds]
    return [f"\\textbf{{{cell}}}" if cell else "" for cell in cells] if row.best else cells


def _line(cells: Iterable[str]) -> str:
    return " & ".join(cells) + " \\\\"


def _caption(summary: Summary, rate: str) -> str:
    n = max((len(row.cells) for row in summary.configurations), default=0)
    text = f"Test {rate} on {summary.experiment.name}, mean over seeds, with {level(summary.level)} intervals"
    text += " over utterances alone (one seed each)" if n == 1 else ""
    caption = escape_tex(text) + ". Differences are to the best configuration, paired."
    return caption + (" $^{\\dagger}$ Tied with it." if any(row.tied for row in summary.configurations) else "")


def _number(share: float, signed: bool = False) -> str:
    return escape_tex(percent(share, signed))


def _between(interval: Interval, signed: bool = False) -> str:
    if math.isnan(interval.low):
        return "--"
    return f"[{_number(interval.low, signed)}, {_number(interval.high, signed)}]"

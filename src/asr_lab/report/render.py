"""From conclusions to pages: `report.md`, `results.csv`, a self-contained `report.html`, and a table for the terminal.

The same folder gives the same bytes: nothing on the pages depends on when or where they were made.
"""

import csv
import io
import math
import re
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from asr_lab import __version__
from asr_lab.files import write_text
from asr_lab.report import curves, gap, perplexity
from asr_lab.report.collect import GAP, PERPLEXITY, Cell, collect
from asr_lab.report.configurations import Configuration, cell_rate
from asr_lab.report.formats import HEADINGS, between, level, percent, seconds, short, span
from asr_lab.report.responses import response_chart, responses
from asr_lab.report.stats import error_rate
from asr_lab.report.summary import Summary, summarise
from asr_lab.report.svg import MAX_LINES, interval_chart, line_chart, style
from asr_lab.report.words import align, columns, confusions, units

WORST = 10
CONFUSIONS = 12
# Scores without intervals over utterances: the module that makes their table, and its template.
PLAIN = {PERPLEXITY: (perplexity, "perplexity.md.j2"), GAP: (gap, "gap.md.j2")}


def render(folder: Path) -> dict[str, Path]:
    """Write the report of `outputs/<experiment>/` into that folder, each file atomically.

    Returns:
        The files written: keys `md`, `csv` and `html`; no `html` of language models and toy landscapes.

    Raises:
        AsrLabError: the folder does not exist, or holds no finished cell.
    """
    folder = Path(folder)
    summary = summarise(collect(folder))
    pages = {"csv": ("results.csv", results_csv(summary))}
    if summary.score in PLAIN:
        module, template = PLAIN[summary.score]
        context = {**module.context(summary), "version": __version__}
        pages["md"] = ("report.md", _markdown().get_template(template).render(context))
    else:
        context = _context(summary)
        pages["md"] = ("report.md", _markdown().get_template("report.md.j2").render(context))
        pages["html"] = ("report.html", _html().get_template("report.html.j2").render(context))
    # A lone surrogate, which JSON can carry, has no UTF-8 form.
    return {k: write_text(folder / name, text.encode(errors="replace").decode()) for k, (name, text) in pages.items()}


def table(folder: Path) -> Table:
    """The main table for the terminal; raises as `render` does."""
    summary = summarise(collect(Path(folder)))
    if summary.score in PLAIN:
        return PLAIN[summary.score][0].table(summary)
    notes = [
        f"{gap.partition(':')[0]}: {_short(gap.partition(':')[2])}" for c in summary.configurations for gap in c.gaps
    ]
    caption = "\n".join([summary.answer, *dict.fromkeys(notes)])
    out = Table(
        title=Text(summary.experiment.name),
        caption=Text(caption),
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    rate = f"test {summary.score.upper()} % ({level(summary.level)})"
    for name in [*(summary.swept or ["configuration"]), rate, "to best", "seeds", ""]:
        out.add_column(Text(name), justify="right" if name in (rate, "seeds", "to best") else "left", no_wrap=True)
    for row in summary.configurations:
        mark = "best" if row.best else "tied" if row.tied else ""
        cells = [
            *(row.factors.values() or ["all"]),
            percent(row.rate.value) + (f" ({between(row.rate)})" if row.done else ""),
            between(row.delta, signed=True) if row.comparable and not row.best else "",
            f"{len(row.done)}/{len(row.cells)}",
            mark or ("" if row.done else "no result"),
        ]
        out.add_row(*map(Text, cells), style="bold" if row.best else "" if row.done else "dim")
    return out


def _short(text: str, width: int = 160) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def results_csv(summary: Summary) -> str:
    """One row per cell, whatever its status; rates are shares, times seconds, empty where nothing was recorded."""
    cells = summary.experiment.cells
    factors, metrics, numbers = (
        list(dict.fromkeys(k for c in cells for k in getattr(c, part))) for part in ("factors", "metrics", "numbers")
    )
    fixed = ["cell", "planned", "status", "reason", "fingerprint", "commit", "test_digest", "score"]
    counted = [f"counted/{k}" for k in ("words", "sub", "del", "ins", "wer", "chars", "char_errors", "cer")]
    names = [*fixed, *counted, *metrics, *numbers]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(_safe, [*fixed, *(f"factor.{k}" if k in names else k for k in factors), *names[len(fixed) :]]))
    for c in cells:
        head = [c.name, c.planned, c.status, c.reason, c.fingerprint, c.git.get("commit"), c.digest.get("test")]
        head.append(c.score if c.done else None)
        values = [c.metrics.get(k) for k in metrics] + [c.numbers.get(k) for k in numbers]
        writer.writerow(map(_safe, [*head, *(c.factors.get(k) for k in factors), *_counted(c), *values]))
    return out.getvalue()


def _counted(cell: Cell) -> list[float | None]:
    """The sums behind the rates of a cell, in the order of the columns `counted/...`."""
    if cell.scores is None:
        return [None] * 8
    s, chars = cell.scores, cell.scores.counts("cer")
    by_word = [int(s.words.sum()), *map(int, s.edits.sum(0)), cell_rate(cell, "wer")]
    return by_word + ([int(chars[1].sum()), int(chars[0].sum()), cell_rate(cell, "cer")] if chars else [None] * 3)


def _safe(value: object) -> object:
    """Text that a spreadsheet would run as a formula gets a leading quote (OWASP, "CSV Injection"); numbers stay."""
    if not isinstance(value, str):
        return value
    try:
        float(value)
    except ValueError:
        return "'" + value if value.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else value
    return value


def _context(summary: Summary) -> dict:
    rows, score = [r for r in summary.configurations if r.done], summary.score
    rate = score.upper()
    headings = {
        k: (heading.format(score=rate), show, why.format(score=rate)) for k, (heading, show, why) in HEADINGS.items()
    }
    lines = {name: [line for r in rows if (line := make(r))] for name, make in _CURVES.items()}
    return {
        "s": summary,
        "e": summary.experiment,
        "rows": summary.configurations,
        "rate": rate,
        "other": "CER" if score == "wer" else "WER",
        "units": "words" if score == "wer" else "characters",
        "columns": {k: v for k, v in headings.items() if any(math.isfinite(r.columns[k].mean) for r in rows)},
        "styles": [style(i) for i in range(len(rows))],  # finished rows come first
        "intervals": interval_chart(
            [(r.short, r.rate, [cell_rate(c, score) for c in r.done]) for r in rows],
            f"Test {rate} of {len(rows)} configurations with {level(summary.level)} intervals",
        ),
        "curves": [line_chart(some, f"Validation {rate} against {x}", x, f"val {rate} %") for x, some in lines.items()],
        "responses": [response_chart(r, rate) for r in responses(rows, summary.swept)],
        "undrawn": max(0, len(rows) - MAX_LINES),
        "worst": _worst(summary.best_cell, score),
        "confusions": _confusions(summary.best, score),
        "environment": _environment([c for r in rows for c in r.done]),
        "version": __version__,
    }


_CURVES = {"epoch": curves.by_epoch, "seconds of training": curves.by_seconds}


def _worst(cell: Cell | None, score: str) -> list[dict]:
    """The utterances that cost the cell most edits, the shorter first among equals."""
    counts = cell.scores.counts(score) if cell and cell.scores else None
    if cell is None or cell.scores is None or counts is None:
        return []
    s, (errors, lengths) = cell.scores, counts
    order = sorted(range(len(s.ids)), key=lambda i: (-errors[i], lengths[i], s.ids[i]))[:WORST]
    found = []
    for i in (i for i in order if errors[i]):
        pairs = align(units(s.refs[i], score), units(s.hyps[i], score))
        edits = s.edits[i] if score == "wer" else [sum(p.mark == mark for p in pairs) for mark in "SDI"]
        found.append(
            {
                "id": s.ids[i],
                "speaker": s.speakers[i] if s.speakers else "",
                "edits": dict(zip("SDI", map(int, edits), strict=True)),
                "length": int(lengths[i]),
                "pairs": pairs,
                "columns": columns(pairs),
            }
        )
    return found


def _confusions(row: Configuration | None, score: str) -> list:
    cells = [c.scores for c in row.done if c.scores] if row else []
    wrong = ((r, h) for s in cells for r, h in zip(s.refs, s.hyps, strict=True) if r != h)
    return confusions(((units(r, score), units(h, score)) for r, h in wrong), CONFUSIONS)


def _environment(cells: list[Cell]) -> dict[str, list[str]]:
    """Every recorded fact of where and from what the finished cells ran, with all its values."""
    facts: dict[str, dict[str, None]] = {}
    for cell in cells:
        for k, v in [*cell.environment.items(), *((f"git {k}", v) for k, v in cell.git.items())]:
            facts.setdefault(k, {})[v] = None
    return {k: list(v) for k, v in facts.items()}


def _kinds(cell: Cell, score: str) -> list[float]:
    """Substitutions, deletions and insertions, each over the reference words (or characters)."""
    s, counts = cell.scores, cell.scores.counts(score) if cell.scores else None
    if s is None or counts is None:
        return []
    if score == "wer":
        return [float(error_rate(kind, s.words)) for kind in s.edits.T]
    pairs = zip(s.refs, s.hyps, strict=True)
    marks = [p.mark for r, h in pairs if r != h for p in align(units(r, score), units(h, score))]
    return [float(error_rate([marks.count(kind)], [counts[1].sum()])) for kind in "SDI"]


def _environment_of(**options) -> Environment:
    env = Environment(
        loader=PackageLoader("asr_lab.report", "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        **options,
    )
    env.filters.update(percent=percent, between=between, seconds=seconds, short=short, level=level)
    env.filters.update(kinds=_kinds, rate=cell_rate)
    env.globals.update(span=span, percent=percent)
    return env


def _html() -> Environment:
    env = _environment_of(autoescape=True)
    env.globals["html"] = True
    return env


def _markdown() -> Environment:
    """Every value is escaped on its way out, as `autoescape` does for HTML."""
    env = _environment_of(autoescape=False, finalize=_in_markdown)
    env.globals["html"] = False
    env.filters["code"] = lambda text: Markup("\n".join("    " + line for line in str(text).splitlines()))
    return env


def _in_markdown(value: object) -> str:
    if isinstance(value, Markup) or not isinstance(value, str):
        return str(value)
    one_line = re.sub(r"\s*[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]\s*", " ", value)
    return re.sub(r"([\\`*\[\]<>|&#~])", r"\\\1", one_line)

"""From conclusions to pages: a self-contained `report.html`, `report.md`, `results.csv`, and for a paper `table.tex`,
`methods.tex` and `references.bib`.

The same folder gives the same bytes: nothing on the pages depends on when or where they were made.
"""

import re
from collections.abc import Callable
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from rich.table import Table

from asr_lab import __version__
from asr_lab.files import write_text
from asr_lab.report.collect import collect
from asr_lab.report.configurations import cell_rate
from asr_lab.report.context import context, kinds
from asr_lab.report.formats import between, enough, level, p_value, percent, seconds, short, span
from asr_lab.report.main_table import main_table
from asr_lab.report.paper import bibtex, methods, methods_tex
from asr_lab.report.plain import PLAIN
from asr_lab.report.results import results_csv
from asr_lab.report.script import SCRIPT, SCRIPT_HASH
from asr_lab.report.summary import Summary, summarise
from asr_lab.report.tex import table_tex


def render(folder: Path, audio: int = 0) -> dict[str, Path]:
    """Write the report of `outputs/<experiment>/` into that folder; see `write`.

    Raises:
        AsrLabError: the folder does not exist, or holds no finished cell.
    """
    return write(summarise(collect(Path(folder))), audio)


def table(folder: Path) -> Table:
    """The main table for the terminal; raises as `render` does."""
    return main_table(summarise(collect(Path(folder))))


def write(summary: Summary, audio: int = 0) -> dict[str, Path]:
    """Write all files, each atomically; so many of the worst utterances are heard in report.html.

    Returns:
        The files written: keys `html`, `md`, `csv`, `tex`, `methods` and `bib`; only `md` and `csv` of language models
        and toy landscapes.

    Raises:
        DataError: recordings are wanted, and the corpus is not here.
    """
    pages = {"csv": ("results.csv", results_csv(summary))}
    if summary.score in PLAIN:
        module, template = PLAIN[summary.score]
        values = {**module.context(summary), "version": __version__}
        pages["md"] = ("report.md", _markdown().get_template(template).render(values))
    else:
        values = context(summary, audio) | {"script": Markup(SCRIPT), "script_hash": SCRIPT_HASH}
        values |= {"paragraph": methods(summary), "bibtex": bibtex(summary), "version": __version__}
        pages |= {
            "html": ("report.html", _html().get_template("report.html.j2").render(values)),
            "md": ("report.md", _markdown().get_template("report.md.j2").render(values)),
            "tex": ("table.tex", table_tex(summary)),
            "methods": ("methods.tex", methods_tex(summary)),
            "bib": ("references.bib", values["bibtex"]),
        }
    folder = summary.experiment.folder
    # A lone surrogate, which JSON can carry, has no UTF-8 form.
    return {k: write_text(folder / name, text.encode(errors="replace").decode()) for k, (name, text) in pages.items()}


def _environment_of(finalize: Callable[[object], object] | None = None, autoescape: bool = False) -> Environment:
    env = Environment(
        loader=PackageLoader("asr_lab.report", "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=autoescape,
        finalize=finalize,
    )
    env.filters.update(
        percent=percent, between=between, seconds=seconds, short=short, level=level, p=p_value, enough=enough
    )
    env.filters.update(kinds=kinds, rate=cell_rate)
    env.globals.update(span=span, percent=percent)
    return env


def _html() -> Environment:
    env = _environment_of(autoescape=True)
    env.globals["html"] = True
    return env


def _markdown() -> Environment:
    """Every value is escaped on its way out, as `autoescape` does for HTML."""
    env = _environment_of(finalize=_in_markdown)
    env.globals["html"] = False
    env.filters["code"] = lambda text: Markup("\n".join("    " + line for line in str(text).splitlines()))
    return env


def _in_markdown(value: object) -> str:
    if isinstance(value, Markup) or not isinstance(value, str):
        return str(value)
    one_line = re.sub(r"\s*[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]\s*", " ", value)
    return re.sub(r"([\\`*\[\]<>|&#~])", r"\\\1", one_line)

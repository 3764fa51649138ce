"""`asr-lab errors RUN`: what a run gets wrong, and where."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from asr_lab.run import Run


def add(app: typer.Typer) -> None:
    app.command()(errors)


def errors(
    run: str = typer.Argument(help="A run's folder, or the beginning of its cell name or fingerprint."),
    split: str = typer.Option("test", help="val or test, or what `asr-lab evaluate` scored."),
    hyps: Path | None = typer.Option(None, help="Instead: a file of hypotheses, such as evaluate/*/hyps.test.jsonl."),
    page: Path | None = typer.Option(None, help="Also write this HTML file: tables, charts, the worst utterances."),
    listing: Path | None = typer.Option(None, help="Also write every utterance aligned, the worst first; - prints it."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
    outputs: Path = typer.Option(Path("outputs"), help="Where runs are kept."),
) -> None:
    """Show errors by kind, word, length, speaker, speech rate, and frequency in training, with intervals."""
    import json

    from rich.console import Console

    from asr_lab.errors import DataError
    from asr_lab.report.alignment import aligned
    from asr_lab.report.alignment import listing as lines
    from asr_lab.report.corpus_table import printable
    from asr_lab.report.errors import analyse
    from asr_lab.report.errors_table import print_tables
    from asr_lab.report.rows import read_rows
    from asr_lab.run import find_run

    for option, path in (("--page", page), ("--listing", listing)):
        if path and path.is_dir():
            raise DataError(f"{option}: {path} is a folder; give the name of a file")
    found = find_run(run, outputs)
    file = hyps or _hyps(found, split)
    rows = read_rows(file)
    train, note = _facts(found, rows)
    utterances = aligned(rows, found.score)
    answer: dict[str, Any] = {"run": found.name, "hypotheses": str(file), "without_training": note}
    answer |= analyse(utterances, found.score, train)
    if listing:
        text = printable("\n".join(lines(utterances)))
        print(text) if str(listing) == "-" else _write("--listing", listing, text)
    if page:
        from asr_lab.report.errors_page import write_page

        _written("--page", lambda: write_page(page, found.name, answer, utterances), page)
    if as_json:
        print(printable(json.dumps(answer, indent=1, ensure_ascii=False)))
    elif str(listing) != "-":
        print_tables(answer, Console())


def _hyps(run: "Run", split: str) -> Path:
    """The run's own file, or that of `asr-lab evaluate` for another split."""
    from asr_lab.errors import RunError, nearest
    from asr_lab.report.records import hypotheses_of

    files = hypotheses_of(run.folder)
    if split not in files:
        hint = nearest(split, files) or "; the run has none"
        raise RunError(f"{run.folder}: no hypotheses of '{split}'{hint}; `asr-lab evaluate --split` makes them")
    return files[split]


def _facts(run: "Run", rows: list[dict[str, Any]]) -> tuple[Counter[str] | None, str]:
    """(words of the training transcripts, or None and why). Speakers and durations that rows lack are added to them."""
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate  # not build.make, which imports PyTorch and Lightning: seconds

    from asr_lab.errors import AsrLabError
    from asr_lab.report.words import units

    try:
        corpus = instantiate(run.config["data"], _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        if not isinstance(cause, AsrLabError):
            raise
        return None, f"the corpus is not here ({cause})"
    known = {u.id: u for utterances in corpus.splits.values() for u in utterances}
    for row in rows:
        if u := known.get(row["id"]):
            row.update((k, v) for k, v in (("speaker", u.speaker), ("duration", u.duration)) if row.get(k) is None)
    return Counter(w for u in corpus.splits["train"] for w in units(u.text, run.score).split()), ""


def _write(option: str, path: Path, text: str) -> None:
    from asr_lab.files import write_text

    _written(option, lambda: write_text(path, text), path)


def _written(option: str, write: Any, path: Path) -> None:
    import sys

    from asr_lab.errors import DataError

    try:
        write()
    except OSError as error:
        raise DataError(f"{option}: {path} cannot be written ({error.strerror}); choose another file") from None
    print(f"wrote {path}", file=sys.stderr)

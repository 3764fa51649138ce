"""`asr-lab data check`: everything that is wrong with a manifest."""

import json
from itertools import pairwise
from pathlib import Path

import typer


def check(
    manifest: Path = typer.Argument(help="A manifest: JSON lines with audio_filepath, duration, text."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
    sample_rate: int = typer.Option(0, help="Wanted rate in Hz; 0 holds each file against its line's sample_rate."),
    alphabet: str = typer.Option("abcdefghijklmnopqrstuvwxyz' ", help="Characters that transcripts may have."),
    frame_ms: float = typer.Option(40.0, help="Milliseconds of one encoder frame (10 ms hop, subsampled by 4)."),
    min_duration_s: float = typer.Option(0.0, help="Shorter audio is padded to this in training."),
    headers_only: bool = typer.Option(False, help="Do not decode the files (quick; misses some truncations)."),
) -> None:
    """List everything that is wrong with a corpus, with counts; exit status 2 when there is anything."""
    from asr_lab.data import check as checks
    from asr_lab.text.normalize import basic

    problems, utterances = [], []
    problems += checks.manifest_problems(manifest, utterances)
    problems += checks.text_problems(utterances, basic, lambda text: sorted(set(text) - set(alphabet)))
    broken = list(checks.audio_problems(utterances, sample_rate or None, decode=not headers_only))
    problems += broken
    silent = {p.where for p in broken}
    for u in utterances:
        text, seconds = basic(u.text), max(u.duration, min_duration_s)
        needed = len(text) + sum(a == b for a, b in pairwise(text))
        problem = checks.frame_problem(u, int(seconds * 1000 / frame_ms) + 1, needed)
        if problem and u.id not in silent:
            problems.append(problem)
    if utterances:
        problems += checks.split_problems(utterances, ("train", "test"))
    answer = checks.summary(manifest, utterances, problems)
    if as_json:
        print(json.dumps(answer, indent=1, ensure_ascii=False))
    else:
        _print(answer)
    if problems:
        raise typer.Exit(2)


def _print(answer: dict) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    console.print(
        f"{answer['manifest']}: {answer['utterances']} utterances, {answer['hours']:.2f} h, "
        f"{answer['speakers']} speakers",
        highlight=False,
    )
    for split, numbers in answer["splits"].items():
        console.print(f"  {split}: {numbers['utterances']} utterances, {numbers['seconds']:.1f} s", highlight=False)
    if answer["ok"]:
        console.print("no problems found")
        return
    table = Table("problem", "count", "first", title=f"{answer['problems']} problems", title_justify="left")
    for kind, count in answer["counts"].items():
        first = next(item for item in answer["items"] if item["kind"] == kind)
        table.add_row(kind, str(count), escape(f"{first['where']}: {first['detail']}"))
    console.print(table)
    for item in answer["items"]:
        console.print(escape(f"{item['where']}: {item['kind']}: {item['detail']}"), highlight=False, soft_wrap=True)

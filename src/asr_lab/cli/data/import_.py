"""`asr-lab data import`: a corpus in another toolkit's format becomes a manifest."""

import sys
from pathlib import Path

import typer

from asr_lab.errors import ConfigError


def import_(
    format: str = typer.Argument(help="nemo, kaldi, lhotse, huggingface, audiofolder, table or webdataset."),
    sources: list[str] = typer.Argument(help="Files or folders; SPLIT=PATH puts all of one into a split."),
    to: Path = typer.Option(help="Manifest to write (.jsonl), or a folder for manifest.jsonl; must be new."),
    split: str = typer.Option("", help="Put everything into this split, whatever the lines say."),
    root: Path | None = typer.Option(None, help="Folder of relative audio paths; else that of the file with the path."),
    column: list[str] = typer.Option(
        [], help="FIELD=NAME: where a table, JSON or data set has audio, text, id, duration, speaker, split, ..."
    ),
    quotes: bool = typer.Option(True, help="In tables, quotes quote; --no-quotes takes them as letters."),
    sample_rate: int = typer.Option(0, help="Refuse files of another rate, in Hz; 0 holds each against its own line."),
    decode: bool = typer.Option(
        False, "--decode", help="Decode every file (slow; finds compressed files that break off)."
    ),
    skip_bad: bool = typer.Option(False, "--skip-bad", help="List what is wrong, and import the rest."),
) -> None:
    """Check a corpus and write its manifest; durations are measured where the format has none."""
    from asr_lab.data.formats import Source
    from asr_lab.data.formats._gather import Wanted, import_corpus
    from asr_lab.data.formats._reading import FIELDS

    columns = dict(_pair(c, "--column", list(FIELDS)) for c in column)
    places = []
    for source in sources:
        name, found, path = source.partition("=")
        named = bool(found) and not Path(source).exists()  # a path may have the sign too
        at = Path(path if named else source).expanduser()
        places.append((Source(at, root, columns, quotes, Path()), split or (name if named else None)))
    done = import_corpus(format, places, to, Wanted(sample_rate or None, decode, skip_bad))
    for problem in done.problems:
        print(f"left out: {problem}", file=sys.stderr)
    print(done.manifest)
    by_split: dict[str, list[float]] = {}
    for u in done.utterances:
        by_split.setdefault(u.split or "(none)", []).append(u.duration)
    for name, durations in by_split.items():
        print(f"{name:6} {len(durations):7} utterances {sum(durations) / 60:8.1f} min")


def _pair(text: str, option: str, names: list[str]) -> tuple[str, str]:
    field, found, name = text.partition("=")
    if not found or field not in names:
        raise ConfigError(f"{option} {text}: FIELD=NAME is wanted, with a field of: {', '.join(names)}")
    return field, name

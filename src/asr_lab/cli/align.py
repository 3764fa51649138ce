"""`asr-lab align RUN`: when each word is said."""

from pathlib import Path

import typer

FORMATS = ("ctm", "textgrid", "json")


def add(app: typer.Typer) -> None:
    app.command()(align)


def align(
    run: str = typer.Argument(help="A run's folder, or the beginning of its cell name or fingerprint."),
    manifest: Path | None = typer.Argument(None, help="A manifest; without one, a split.", show_default=False),
    split: str = typer.Option("test", help="Split of the run's corpus."),
    form: str = typer.Option("ctm", "--format", help="ctm, textgrid (one file an utterance) or json (JSON lines)."),
    out: Path | None = typer.Option(None, help="Folder for the files.  [default: align/ of the run]"),
    checkpoint: str = typer.Option("best", help="best or last."),
    outputs: Path = typer.Option(Path("outputs"), help="Where runs are kept."),
) -> None:
    """Align the reference texts with the audio: words with times in seconds, as CTM, TextGrid or JSON."""
    import sys

    from asr_lab.errors import ConfigError, DataError, nearest
    from asr_lab.run import find_run

    if form not in FORMATS:
        raise ConfigError(f"--format {form}: no such format{nearest(form, FORMATS)}")
    found = find_run(run, outputs)
    folder = out or found.folder / "align"
    if folder.exists() and not folder.is_dir():
        raise DataError(f"--out: {folder} is a file; give the name of a folder")
    import torch

    from asr_lab.align import align as aligned
    from asr_lab.align import write
    from asr_lab.data.manifest import Problem
    from asr_lab.process import keep_freed_memory, n_threads

    keep_freed_memory()
    torch.set_num_threads(n_threads(found.config["runtime"]["n_threads"]))
    alignments, n_problems = [], 0
    for item in aligned(found, split, manifest, checkpoint):
        if isinstance(item, Problem):
            n_problems += 1
            print(f"asr-lab: {item}", file=sys.stderr)
        else:
            alignments.append(item)
    if alignments:
        name = manifest.stem if manifest else split
        paths = write(folder, name, form, sorted(alignments, key=lambda a: a.id))
        n_words = sum(len(a.words) for a in alignments)
        print(f"{len(alignments)} utterances, {n_words} words")
        print(paths[0] if len(paths) == 1 else f"{folder} ({len(paths)} files)")
    if n_problems:
        raise typer.Exit(2)

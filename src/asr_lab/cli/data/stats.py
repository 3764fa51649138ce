"""`asr-lab data stats`: what a corpus is like, before anything is trained on it."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

if TYPE_CHECKING:
    from asr_lab.data.manifest import Problem
    from asr_lab.data.stats import Splits


class Source(NamedTuple):
    """A corpus, from a choice of conf/data or from a bare manifest."""

    manifest: Path
    splits: "Splits"
    spaced: bool
    sample_rate: int | None
    channel: int | str
    problems: "list[Problem]"


def stats(
    source: str = typer.Argument(help="A corpus of conf/data, such as an4, or else the path of a manifest."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
    page: Path | None = typer.Option(None, help="Also write this HTML file: charts, tables, and examples to hear."),
    audio: bool = typer.Option(True, help="Decode and measure the recordings, or read only the manifest (quick)."),
    max_utterances: int | None = typer.Option(None, min=1, help="Measure only so many recordings, drawn at random."),
    seed: int = typer.Option(0, help="Of that draw, and of the random examples."),
    workers: int = typer.Option(
        os.cpu_count() or 1, min=1, help="Processes that decode.", show_default="number of cores"
    ),
) -> None:
    """Show durations, transcripts, speakers, levels, silence, and recordings that do not fit their transcripts."""
    import json

    from rich.console import Console
    from rich.progress import Progress

    from asr_lab.data.stats import analyse
    from asr_lab.errors import DataError
    from asr_lab.report.corpus_table import print_tables, printable

    if page and page.is_dir():
        raise DataError(f"--page: {page} is a folder; give the name of an HTML file")
    corpus = _open(source)
    n = sum(map(len, corpus.splits.values()))
    err = Console(stderr=True)
    with Progress(console=err, transient=True, disable=not (audio and err.is_terminal)) as bar:
        task = bar.add_task("measuring", total=min(n, max_utterances or n))
        answer: dict[str, Any] = {"corpus": source, "manifest": str(corpus.manifest)} | analyse(
            corpus.splits,
            spaced=corpus.spaced,
            audio=audio,
            sample_rate=corpus.sample_rate,
            channel=corpus.channel,
            max_utterances=max_utterances,
            seed=seed,
            n_workers=workers,
            advance=lambda: bar.advance(task),
            problems=corpus.problems,
        )
    if page:
        from asr_lab.report.corpus_page import write_page

        everyone = {u.id: u for us in corpus.splits.values() for u in us}
        try:
            write_page(page, answer, everyone, corpus.channel)
        except OSError as error:
            raise DataError(f"--page: {page} cannot be written ({error.strerror}); choose another file") from None
        err.print(f"wrote {page}", highlight=False, markup=False, soft_wrap=True)
    if as_json:
        print(printable(json.dumps(answer, indent=1, ensure_ascii=False)))
    else:
        print_tables(answer, Console())
    if audio and not answer["audio"]["measured"]:
        raise typer.Exit(2)


def _open(source: str) -> Source:
    """
    Raises:
        DataError: neither a corpus nor a manifest, or none that can be read.
        ConfigError: the corpus's configuration is wrong.
    """
    from asr_lab.errors import DataError, nearest
    from asr_lab.paths import conf_dir, user_conf_dir

    folders = [folder / "data" for folder in (conf_dir(), user_conf_dir()) if folder]
    names = {p.stem for folder in folders for p in folder.glob("*.yaml") if not p.stem.startswith("_")} - {"manifest"}
    if source in names:
        return _named(source)
    path = Path(source)
    if (path / "manifest.jsonl").is_file():
        path = path / "manifest.jsonl"
    if not path.is_file():
        raise DataError(f"{source}: neither a manifest nor a corpus{nearest(source, names)}")
    return _manifest(path)


def _named(name: str) -> Source:
    """As training would see it: its normaliser, its splits (a carved one too), its rate and channel."""
    from hydra import compose, initialize_config_dir
    from hydra.utils import instantiate  # not build.make, which imports PyTorch and Lightning: seconds

    from asr_lab import schema
    from asr_lab.paths import conf_dir
    from asr_lab.sweep.cell import register_resolvers, resolved

    schema.register()
    register_resolvers()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = resolved(compose("config", overrides=[f"data={name}"]))
    corpus = instantiate(config["data"], _convert_="all")
    rate = None if corpus.resample else corpus.sample_rate
    return Source(corpus.manifest, corpus.splits, corpus.score == "wer", rate, corpus.channel, [])


def _manifest(path: Path) -> Source:
    """A bare manifest: transcripts in lower case, splits as its lines say, unreadable lines counted as problems."""
    from asr_lab.data.audio import MIX
    from asr_lab.data.check import manifest_problems, split_name
    from asr_lab.errors import DataError
    from asr_lab.text.normalize import basic

    utterances, splits = [], {"train": [], "val": [], "test": []}
    problems = list(manifest_problems(path, utterances))
    if not utterances:
        raise DataError(f"{path}: {problems[0]}")
    for u in utterances:
        splits.setdefault(split_name(u.split) or "(none)", []).append(u._replace(text=basic(u.text)))
    return Source(path, {name: us for name, us in splits.items() if us}, True, None, MIX, problems)

"""`asr-lab data export`: a corpus in another toolkit's format, or in tar shards."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from asr_lab.errors import ConfigError, DataError, nearest

if TYPE_CHECKING:
    from asr_lab.data.manifest import Utterance


def export(
    source: str = typer.Argument(help="A manifest, its folder, or a corpus of conf/data."),
    format: str = typer.Argument(help="nemo, kaldi, lhotse, huggingface, audiofolder, table or webdataset."),
    target: Path = typer.Argument(help="File or folder to write; must be new."),
    split: list[str] = typer.Option([], help="Only this split; may be repeated."),
    shard_mb: float = typer.Option(256.0, help="Size of a tar, in MiB."),
    seed: int = typer.Option(0, help="Order of training utterances in tars."),
) -> None:
    """Check a corpus and write it, with its manifest's texts; where audio is copied, segments become files."""
    from asr_lab.data.check import checked_once, raise_first, text_problems
    from asr_lab.data.formats import Target, load
    from asr_lab.data.formats._writing import refuse_existing

    writer = load(format)
    if not shard_mb > 0:
        raise ConfigError(f"--shard-mb {shard_mb}: a positive number is wanted")
    refuse_existing(target)
    manifest, utterances = _utterances(source)
    if split:
        known = {u.split for u in utterances if u.split}
        for name in split:
            if name not in known:
                raise DataError(f"{manifest}: no utterance in split '{name}'{nearest(name, known)}")
        utterances = [u for u in utterances if u.split in split]
    hint = f"`asr-lab data check {manifest}` lists all"
    raise_first(text_problems(utterances, str.strip, lambda _: []), str(manifest), hint)
    checked_once(utterances, str(manifest), hint, None)
    writer.write(utterances, Target(target, max(1, int(shard_mb * 2**20)), seed))
    minutes = sum(u.duration for u in utterances) / 60
    print(target)
    print(f"{len(utterances)} utterances, {minutes:.1f} min")


def _utterances(source: str) -> "tuple[Path, list[Utterance]]":
    """Of a manifest as it is; of a corpus with its splits, a carved one too, and the manifest's texts."""
    from asr_lab.data.manifest import read_manifest

    path = Path(source).expanduser().absolute()
    if path.is_dir():
        path /= "manifest.jsonl"
    if path.exists() or path.suffix in (".json", ".jsonl"):
        return path, read_manifest(path)
    corpus = _corpus(source)
    texts = {u.id: u.text for u in read_manifest(corpus.manifest)}
    return corpus.manifest, [
        u._replace(split=split, text=texts.get(u.id, u.text)) for split, us in corpus.splits.items() for u in us
    ]


def _corpus(name: str):
    from hydra import compose, initialize_config_dir

    from asr_lab import schema
    from asr_lab.paths import conf_dir
    from asr_lab.sweep.cell import register_resolvers, resolved

    schema.register()
    register_resolvers()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = resolved(compose("config", overrides=[f"data={name}"]))
    from asr_lab.build import make  # slow to import: not before the name is known to be one

    return make(config, "data")

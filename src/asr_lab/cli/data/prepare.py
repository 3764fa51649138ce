"""`asr-lab data prepare`: make, fetch or find a corpus."""

from pathlib import Path
from typing import Any

import typer


def prepare(
    name: str = typer.Argument(help="A corpus of conf/data, such as spoken_numbers or an4."),
    sources: list[Path] = typer.Option(
        [],
        "--from",
        metavar="FOLDER|ARCHIVE",
        help="An archive of it, or a folder of archives or of what they unpack to; may be repeated.",
    ),
    to: Path | None = typer.Option(
        None, metavar="FOLDER", help="Folder of corpora; otherwise ASR_LAB_DATA, otherwise the cache."
    ),
    workers: int | None = typer.Option(
        None, min=1, metavar="N", help="Processes that unpack, look and write; otherwise one a core."
    ),
) -> None:
    """Fetch or make a corpus unless it is there, and print its manifest and splits."""
    from hydra import compose, initialize_config_dir

    from asr_lab import schema
    from asr_lab.build import check, make
    from asr_lab.data.processes import available
    from asr_lab.paths import conf_dir
    from asr_lab.sweep.cell import register_resolvers, resolved

    schema.register()
    register_resolvers()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = resolved(compose("config", overrides=[f"data={name}"]))
    check({"data": config["data"]})
    if "prepare" in config["data"]:
        _prepare(config["data"], sources, to, workers or available())
    else:
        _make_in_cache(config["data"], sources, to, workers)
    corpus = make(config, "data")
    corpus.check_audio()
    print(corpus.manifest)
    for split, utterances in corpus.splits.items():
        speakers = len({u.speaker for u in utterances})
        minutes = sum(u.duration for u in utterances) / 60
        print(f"{split:10} {len(utterances):7} utterances {minutes:8.1f} min {speakers:5} speakers")


def _prepare(data: dict[str, Any], sources: list[Path], to: Path | None, n_workers: int) -> None:
    """Set `data["root"]` to where the corpus is, or to where it has been put."""
    import sys

    from asr_lab.build import make
    from asr_lab.data.corpus import corpora_dirs, locate
    from asr_lab.data.prepare import Given
    from asr_lab.errors import DataError

    roots = [to.expanduser().absolute()] if to else corpora_dirs(data["root"])
    try:
        there = locate(data["name"], data["manifest"], roots)
    except DataError:
        given = Given(data["name"], roots[0], data["manifest"], tuple(sources), n_workers, progress=True)
        make({"data.prepare": data["prepare"]}, "data.prepare")(given)
        if to and str(to) != data["root"]:
            print(f"set ASR_LAB_DATA={roots[0]} to train on it", file=sys.stderr)
    else:
        print(f"{data['name']} is there already; remove {there} to prepare it again", file=sys.stderr)
    data["root"] = str(roots[0]) if to else data["root"]


def _make_in_cache(data: dict[str, Any], sources: list[Path], to: Path | None, n_workers: int | None) -> None:
    """A corpus that is made at its first use, which is what comes next."""
    from asr_lab.errors import ConfigError

    name = data["name"]
    if data["_target_"] == "asr_lab.data.corpus.Corpus":
        raise ConfigError(f"data={name}: there is nothing to prepare; `asr-lab data check` looks at a manifest")
    if sources or to:
        wanted = "; prepare fsdd, from which it is made, with --from" if name == "fsdd_strings" else ""
        raise ConfigError(f"data={name}: is made in the cache (ASR_LAB_CACHE): no --from or --to{wanted}")
    data["n_workers"] = n_workers

"""`asr-lab lm`: n-gram language models, as ARPA files."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import typer


def add(app: typer.Typer) -> None:
    lm = typer.Typer(
        help="Language models: estimate one from text, measure one.", no_args_is_help=True, rich_markup_mode=None
    )
    for command in (estimate, perplexity):
        lm.command()(command)
    app.add_typer(lm, name="lm")


def estimate(
    texts: list[Path] = typer.Argument(None, help="Text files, one sentence a line, .gz too.", show_default=False),
    out: Path = typer.Option(help="The ARPA file to write; gzipped where the name ends with .gz."),
    order: int = typer.Option(3, help="n of the longest n-grams."),
    unit: str = typer.Option("word", help="label or word. Labels are a run's, or else characters."),
    min_count: list[int] = typer.Option(
        [1], help="Drop rarer n-grams; repeated: of order 1 (must be 1), 2, ..., the last for all higher orders."
    ),
    data: str | None = typer.Option(
        None, help="A corpus of conf/data, or a manifest: its normaliser for the files; without files, its transcripts."
    ),
    run: str | None = typer.Option(None, help="A run: the same of its corpus, and its tokenizer's labels."),
    outputs: Path = typer.Option(Path("outputs"), help="Where runs are kept."),
) -> None:
    """Estimate an n-gram model with modified Kneser-Ney smoothing and write it as an ARPA file.

    asr-lab lm estimate --data an4 --order 6 --unit label --out an4.arpa
    """
    from asr_lab.errors import AsrLabError, ConfigError

    source = _source(texts or [], data, run, outputs, "train")
    _check_unit(unit)
    if out.is_dir():
        raise ConfigError(f"--out: {out} is a folder; give the name of a file")
    from asr_lab.lm import ngram
    from asr_lab.lm.arpa import write_arpa

    try:
        if unit == "word":
            model, discounts = ngram.of_words(source.sentences(), order, min_count)
        else:
            sentences = list(source.sentences())
            tokenizer = source.tokenizer or _Characters(sentences)
            model, discounts = ngram.of_labels(
                tokenizer, sentences, order, min_count, has_unknown=source.tokenizer is None
            )
        write_arpa(out, model)
    except AsrLabError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from None
    for n, found in enumerate(discounts, 1):
        note = "  (fall-back: the counts give none)" if found.fallback else ""
        values = ", ".join(f"{d:.3f}" for d in found.values)
        print(f"{n}-grams: {len(model.grams(n).words)}, discounts {values}{note}")
    print(f"wrote {out}")


def perplexity(
    arpa: Path = typer.Argument(help="An ARPA file."),
    texts: list[Path] = typer.Argument(None, help="Text files, one sentence a line, .gz too.", show_default=False),
    unit: str | None = typer.Option(
        None, help="label or word.", show_default="label for a model with <space> among its words"
    ),
    data: str | None = typer.Option(
        None, help="A corpus of conf/data, or a manifest: its normaliser for the files; without files, its transcripts."
    ),
    run: str | None = typer.Option(None, help="A run: the same of its corpus, and its tokenizer's labels."),
    split: str = typer.Option("test", help="Which transcripts of the corpus, where no files are given."),
    outputs: Path = typer.Option(Path("outputs"), help="Where runs are kept."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Show a model's perplexity on texts, unknown words, and how long the n-grams were that it found."""
    source = _source(texts or [], data, run, outputs, split)
    from asr_lab.errors import ConfigError
    from asr_lab.lm.arpa import SPACE, read_arpa
    from asr_lab.lm.ngram import fit
    from asr_lab.lm.units import named

    model = read_arpa(arpa)
    unit = unit or ("label" if SPACE in model.words else "word")
    _check_unit(unit)
    if unit == "word":
        sentences: Iterator[list[str]] = (text.split() for text in source.sentences())
    elif tokenizer := source.tokenizer:
        sentences = ([named(tokenizer.symbols[i]) for i in tokenizer.encode(text)] for text in source.sentences())
    else:
        sentences = ([named(character) for character in text] for text in source.sentences())
    try:
        found = fit(model, sentences)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    answer = {
        **found._asdict(),
        "unit": unit,
        "perplexity": found.perplexity,
        "perplexity_with_unknown": found.perplexity_with_unknown,
    }
    if as_json:
        import json

        print(json.dumps(answer, indent=1))
    else:
        _show(answer)


def _show(found: dict[str, Any]) -> None:
    n_known = found["n_words"] - found["n_unknown"]
    print(f"{found['n_sentences']} sentences, {found['n_words']} {found['unit']}s with the ends of sentences")
    print(f"unknown: {found['n_unknown']} ({100 * found['n_unknown'] / found['n_words']:.2f} %)")
    both = found["perplexity_with_unknown"]
    more = f" ({both:.2f} with the unknown ones)" if both is not None and found["n_unknown"] else ""
    print(f"perplexity: {found['perplexity']:.2f}{more}")
    hits = [f"{n}-grams {100 * hits / max(1, n_known):.1f} %" for n, hits in enumerate(found["hits"], 1)]
    print(f"found in: {', '.join(hits)}")


class _Source(NamedTuple):
    """Where sentences come from."""

    sentences: Callable[[], Iterator[str]]
    tokenizer: Any  # a run's, or None


class _Characters:
    """The characters of texts as labels."""

    def __init__(self, texts: list[str]):
        self.symbols = sorted({c for text in texts for c in text})
        self._ids = {c: i for i, c in enumerate(self.symbols)}

    def encode(self, text: str) -> list[int]:
        return [self._ids[c] for c in text]


def _source(texts: list[Path], data: str | None, run: str | None, outputs: Path, split: str) -> _Source:
    """
    Raises:
        ConfigError: nothing to read, or two corpora.
        DataError: a file or the corpus cannot be read.
    """
    from asr_lab.errors import ConfigError, DataError, nearest

    if data and run:
        raise ConfigError(f"--data {data} and --run: a run has its own corpus; give one of them")
    if not texts and not data and not run:
        raise ConfigError("nothing to read; give text files, or --data or --run")
    tokenizer, config = None, None
    if run:
        config, tokenizer = _of_run(run, outputs)
    elif data:
        config = _of_corpus(data)
    if texts:
        normalize = _bare if config is None else _normalizer(config)
        return _Source(lambda: (normalize(line) for path in texts for line in _lines(path)), tokenizer)
    from hydra.utils import instantiate  # not build.make, which imports PyTorch and Lightning: seconds

    assert config is not None
    splits = instantiate(config, _convert_="all").splits
    if split not in splits:
        raise DataError(f"--split {split}: the corpus has no such split{nearest(split, splits)}")
    return _Source(lambda: (u.text for u in splits[split]), tokenizer)


def _bare(text: str) -> str:
    return " ".join(text.split())


def _normalizer(config: dict[str, Any]) -> Callable[[str], str]:
    from hydra.utils import instantiate

    return instantiate(config["normalizer"], _convert_="all")


def _of_corpus(name: str) -> dict[str, Any]:
    from hydra import compose, initialize_config_dir

    from asr_lab import schema
    from asr_lab.paths import conf_dir
    from asr_lab.sweep.cell import register_resolvers, resolved

    schema.register()
    register_resolvers()
    path = Path(name)
    path = path / "manifest.jsonl" if path.is_dir() else path
    overrides = ["data=manifest", f"data.manifest='{path}'"] if path.is_file() else [f"data={name}"]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return resolved(compose("config", overrides=overrides))["data"]


def _of_run(name: str, outputs: Path) -> tuple[dict[str, Any], Any]:
    """The configuration of a run's corpus, and its tokenizer."""
    from asr_lab.errors import RunError
    from asr_lab.run import find_run

    found = find_run(name, outputs)
    import torch

    try:
        saved = torch.load(found.best_checkpoint, map_location="cpu", weights_only=False)
        return found.config["data"], saved["belongings"]["tokenizer"]
    except (OSError, RuntimeError, KeyError) as error:
        why = getattr(error, "strerror", None) or str(error).strip().splitlines()[-1]
        raise RunError(f"{found.best_checkpoint}: cannot be loaded ({why}); train the run first") from None


def _lines(path: Path) -> Iterator[str]:
    """The lines of a text file that are not empty."""
    from asr_lab.errors import DataError
    from asr_lab.lm.arpa import unzipped

    number = 0
    try:
        with open(path, "rb") as raw:
            for number, line in enumerate(unzipped(raw), 1):
                if text := line.decode("utf-8-sig" if number == 1 else "utf-8").strip():
                    yield text
    except UnicodeDecodeError:
        raise DataError(f"{path}:{number}: it is not UTF-8; convert it") from None
    except (OSError, EOFError) as error:
        raise DataError(f"{path}: the text cannot be read ({getattr(error, 'strerror', None) or error})") from None


def _check_unit(unit: str) -> None:
    from asr_lab.errors import ConfigError

    if unit not in ("label", "word"):
        raise ConfigError(f"--unit {unit}; choose from: label, word")

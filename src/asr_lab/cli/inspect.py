"""`asr-lab inspect`: look into the network of a configuration or of a trained run."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from asr_lab.inspect.features import Features
    from asr_lab.inspect.network import Subject

TABLE_DEPTH, MODULE_DEPTH, GRAPH_DEPTH = 3, 1, 3


def add(app: typer.Typer) -> None:
    app.command()(inspect)


def inspect(
    overrides: list[str] = typer.Argument(None, help="Hydra overrides, as of train.", show_default=False),
    run: str | None = typer.Option(
        None, help="Instead: a run's best checkpoint; its folder or the beginning of its name."
    ),
    module: str | None = typer.Option(None, help="Show this module's inputs, parameters and every step inside."),
    depth: int | None = typer.Option(
        None, help="Levels shown (table and --graph: 3, --module: 1).", show_default=False
    ),
    seconds: float = typer.Option(4.0, help="Length of the random features."),
    split: str | None = typer.Option(None, help="Real features: of this split's first utterance."),
    utterance: str | None = typer.Option(None, help="Real features: of this utterance of the corpus."),
    audio: Path | None = typer.Option(None, help="Real features: of this audio file."),
    attention: Path | None = typer.Option(None, help="Draw attention weights: into a folder, or one picture."),
    saliency: Path | None = typer.Option(None, help="Draw which features matter, into this picture."),
    graph: Path | None = typer.Option(None, help="Draw the network, or --module, as a diagram: an SVG file."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Show a network layer by layer: shapes, parameters, arithmetic, values; draw attention, saliency, a diagram.

    asr-lab inspect encoder=conformer size=tiny --module encoder.layers.0.self_attn
    """
    from asr_lab.errors import ConfigError
    from asr_lab.inspect.pictures import check_targets

    if audio and (split or utterance):
        raise ConfigError("--audio and --split or --utterance: features come from one of them; leave the other out")
    if depth is not None and depth < 1:
        raise ConfigError(f"--depth {depth}: at least 1 level is wanted")
    check_targets(attention, saliency, graph)
    found = _subject(overrides or [], run, bool(split or utterance), audio is not None)

    from asr_lab.inspect import features as f
    from asr_lab.inspect.network import mistakes_of_forward
    from asr_lab.inspect.walk import find

    if module is not None:
        find(found.network, module)
    if audio is not None:
        features = f.file_features(found, audio)
    elif split or utterance:
        features = f.corpus_features(found, split, utterance)
    else:
        features = f.random_features(found, seconds)
    # Drawn first: what cannot be drawn is said before pages of numbers.
    with mistakes_of_forward():
        _draw(found, features, module, depth, attention, saliency, graph)
        _show(found, features, module, depth, as_json)


def _subject(overrides: list[str], run: str | None, needs_corpus: bool, is_file: bool) -> "Subject":
    from asr_lab.errors import ConfigError

    if run is None:
        from asr_lab.cli.compose import composed

        config = composed(overrides)
    elif overrides:
        raise ConfigError(f"--run and {overrides[0]}: a run has its own configuration; give one of them")
    else:
        from asr_lab.run import find_run

        frozen = find_run(run)
        config = frozen.config
    import torch

    from asr_lab.inspect.network import subject, trained_subject
    from asr_lab.process import n_threads

    torch.set_num_threads(n_threads(config["runtime"]["n_threads"]))
    # Global CMVN is measured on the training split.
    needs_corpus = needs_corpus or (is_file and config["frontend"]["cmvn"].get("scope") == "global")
    if run is None:
        return subject(config, needs_corpus)
    found, note = trained_subject(frozen, needs_corpus)
    if note:
        print(f"asr-lab: {note}", file=sys.stderr)
    return found


def _show(found: "Subject", features: "Features", module: str | None, depth: int | None, as_json: bool) -> None:
    from rich.console import Console

    from asr_lab.inspect import table, walk
    from asr_lab.inspect.trace import traced

    calls = traced(found.network, features.feats, features.lens)
    if module is not None:
        answer = walk.walk(found.network, calls, module, depth or MODULE_DEPTH)
    else:
        answer = table.as_json(found.network, calls, features, depth or TABLE_DEPTH)
    if as_json:
        import json

        print(json.dumps(answer, indent=1))
    elif module is not None:
        walk.print_walk(answer, features.source, Console())
    else:
        table.print_table(answer, Console())


def _draw(
    found: "Subject",
    features: "Features",
    module: str | None,
    depth: int | None,
    attention: Path | None,
    saliency: Path | None,
    graph: Path | None,
) -> None:
    """Says on stderr what was written: stdout may be JSON."""
    from asr_lab.inspect import pictures

    written: list[Path] = []
    if attention:
        from asr_lab.inspect.attention import attention_maps

        maps = attention_maps(found.network, features.feats, features.lens)
        written += pictures.draw_attention(attention, maps, features.seconds, features.source)
    if saliency:
        from asr_lab.inspect.saliency import saliency as explain

        written.append(pictures.draw_saliency(saliency, explain(found, features), features.seconds, features.source))
    if graph:
        from asr_lab.inspect.dataflow import dataflow, find_block
        from asr_lab.inspect.diagram import draw

        flow = find_block(dataflow(found.network, features.feats, features.lens), module or "")
        written.append(pictures.write_file(graph, draw(flow, depth or GRAPH_DEPTH).encode()))
    for path in written:
        print(f"wrote {path}", file=sys.stderr)

"""`asr-lab evaluate RUN`: score a finished run's checkpoint."""

from pathlib import Path

import typer


def add(app: typer.Typer) -> None:
    app.command()(evaluate)


def evaluate(
    run: str = typer.Argument(help="A run's folder, or the beginning of its cell name or fingerprint."),
    split: list[str] = typer.Option(["test"], help="Split to score; may be repeated."),
    checkpoint: str = typer.Option("best", help="best or last."),
    outputs: Path = typer.Option(Path("outputs"), help="Where runs are kept."),
) -> None:
    """Score a run's checkpoint on splits; hypotheses go to evaluate/ in its folder, result.json stays as it is."""
    from asr_lab.run import find_run

    found = find_run(run, outputs)
    import torch

    from asr_lab.evaluate import evaluate as score
    from asr_lab.process import keep_freed_memory, n_threads

    keep_freed_memory()
    torch.set_num_threads(n_threads(found.config["runtime"]["n_threads"]))
    for name, scores in score(found, split, checkpoint).items():
        values = "  ".join(
            f"{k} {100 * scores[k]:.2f} %" for k in sorted(("wer", "cer"), key=lambda k: k != found.score)
        )
        print(f"{name}  {values}  loss {scores['loss']:.4f}  ({scores['utterances']:.0f} utterances, {checkpoint})")
    print(found.folder / "evaluate")

"""`asr-lab export RUN`: a trained network as ONNX, TorchScript or int8."""

from pathlib import Path

import typer


def add(app: typer.Typer) -> None:
    app.command()(export)


def export(
    run: str = typer.Argument(help="A run's folder, or the beginning of its cell name or fingerprint."),
    format: str = typer.Option("onnx", help="onnx, torchscript or int8."),
    out: Path | None = typer.Option(None, help="Folder to write to; export/FORMAT in the run's folder without it."),
    check: int = typer.Option(32, help="Validation utterances whose hypotheses must be equal."),
    checkpoint: str = typer.Option("best", help="best or last."),
    outputs: Path = typer.Option(Path("outputs"), help="Where runs are kept."),
) -> None:
    """Write a run's network to one file, after a check that it gives what the run gives; int8 with a table of costs."""
    from asr_lab.run import find_run

    found = find_run(run, outputs)
    import torch

    from asr_lab.export import export as write
    from asr_lab.process import keep_freed_memory, n_threads

    keep_freed_memory()
    torch.set_num_threads(n_threads(found.config["runtime"]["n_threads"]))
    about = write(found, format, out, check, checkpoint)
    checked = about["check"]
    for name, n_bytes in about["files"].items():
        print(f"{Path(about['folder']) / name}  {n_bytes / 1e6:.2f} MB")
    print(f"{', '.join(about['inputs'])} -> {', '.join(about['outputs'])}")
    of = " to those of the 8-bit network in memory; the table compares with float32" if format == "int8" else ""
    if checked["utterances"]:
        print(f"checked: {checked['equal_hypotheses']} of {checked['utterances']} hypotheses are equal{of}")
    else:
        print(f"checked on random features only ({checked['why']})")
    if "table" in about:
        from asr_lab.export.table import markdown

        print(markdown(about["table"]), end="")

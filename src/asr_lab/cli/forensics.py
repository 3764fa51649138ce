"""`asr-lab forensics RUN`: what the detectors found in a run, and the verdict on steps that were not finite."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from asr_lab.run import Run


def add(app: typer.Typer) -> None:
    app.command()(forensics)


def forensics(
    run: str = typer.Argument(help="A run's folder, or the beginning of its cell name or fingerprint."),
    again: bool = typer.Option(False, "--replay", help="Take the kept steps again, here and now, on the CPU."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
    outputs: Path = typer.Option(Path("outputs"), help="Where runs are kept."),
) -> None:
    """Show what went wrong in a training: findings of the detectors, and where NaN or infinity came from."""
    import json

    from asr_lab.errors import RunError
    from asr_lab.files import read_jsonl
    from asr_lab.run import Run, find_run

    found = Run.open(Path(run)) if (Path(run) / "result.json").exists() else find_run(run, outputs)
    result: dict[str, Any] = found.result() or {}
    if "findings" not in result:
        raise RunError(f"{found.folder}: was trained without detectors; train it with detectors=standard")
    folders = sorted(found.folder.glob("forensics/step_*"), key=lambda p: (len(p.name), p.name))
    incidents = [json.loads((folder / "report.json").read_text()) | {"folder": str(folder)} for folder in folders]
    if again:
        for folder, incident in zip(folders, incidents, strict=True):
            incident["verdict_again"] = _again(found, folder, incident)
    file = found.folder / "findings.jsonl"
    rows = read_jsonl(file) if file.exists() else []
    answer = {"run": found.name, "findings": result["findings"], "rows": rows, "incidents": incidents}
    if as_json:
        print(json.dumps(answer, indent=1))
    else:
        _show(answer)


def _again(run: "Run", folder: Path, incident: dict[str, Any]) -> str:
    import torch

    from asr_lab.gradients.forensics import judge, read_incident

    micros, saved = read_incident(folder)
    task = _task(run, saved["belongings"])
    task.load_state_dict(saved["state_dict"])
    dtypes = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}
    dtype = dtypes.get(incident["precision"])
    judged = judge(
        task.train(),
        micros,
        incident["precision"],
        lambda: torch.autocast("cpu", dtype, enabled=dtype is not None),
        incident["loss_scale"],
    )
    return judged.text


def _task(run: "Run", belongings: dict[str, Any]) -> Any:
    """A run's task as it was built for training."""
    from asr_lab.build import build_task, make
    from asr_lab.build_lm import build_model
    from asr_lab.errors import RunError
    from asr_lab.lm_task import LmTask

    config = run.config
    if run.kind == "lm":
        return LmTask(
            model=build_model(config, belongings["tokenizer"]),
            tokenizer=belongings["tokenizer"],
            optimizer=make(config, "optimizer"),
            weight_decay=0.0,
            schedule=make(config, "schedule"),
            clipper=make(config, "clipping"),
            max_nonfinite_steps=config["max_nonfinite_steps"],
        )
    if "teacher" in config["distill"]:
        raise RunError(f"{run.folder}: a step that learnt from a teacher cannot be taken again without it")
    return build_task(config, belongings["tokenizer"], _train_texts(config))[1]


def _train_texts(config: dict[str, Any]) -> Iterator[str]:
    """Read only by a search or a language model that is made of them; the corpus must be there then."""
    from asr_lab.build import make

    for u in make(config, "data").splits["train"]:
        yield u.text


def _show(answer: dict[str, Any]) -> None:
    if not answer["findings"] and not answer["incidents"]:
        print("nothing found: no detector spoke, every step was finite")
    for row in answer["findings"]:
        times = "once" if row["count"] == 1 else f"{row['count']} times"
        where = f" in {row['layer']}" if row["layer"] else ""
        print(f"{row['kind']}{where}: {times}, steps {row['first_step']} to {row['last_step']}")
    for row in answer["rows"][-10:]:
        of = f" ({', '.join(row['ids'][:5])})" if row["ids"] else ""
        print(f"  step {row['step']}: {row['text']}{of}")
    for incident in answer["incidents"]:
        ids = [i for batch in incident["ids"] for i in batch]
        print(f"step {incident['step']} is not finite: loss {incident['loss']}, norm {incident['norm_before']}")
        print(f"  {incident['verdict']}")
        if "verdict_again" in incident:
            print(f"  taken again here: {incident['verdict_again']}")
        if ids:  # a language model's sentences have none
            print(f"  utterances: {', '.join(ids[:8])}{' ...' if len(ids) > 8 else ''}")
        print(f"  evidence: {incident['folder']}")

"""A trained run's network as one file that needs neither the run nor asr_lab.

What is exported is all between normalised features and what a search reads: head, encoder, and for a frame-wise
decoder with a blank its log-probabilities. Searches and language models stay outside.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch

from asr_lab.build import Parts, build, build_task
from asr_lab.environment import environment
from asr_lab.errors import ConfigError, DataError, nearest
from asr_lab.evaluate import checkpoint_path, read_checkpoint, restore
from asr_lab.export.check import check_lengths, check_speech
from asr_lab.export.formats import FORMATS
from asr_lab.export.network import Network
from asr_lab.export.table import markdown, measure
from asr_lab.files import write_atomic, write_json, write_text
from asr_lab.frontend import Frontend
from asr_lab.run import Run, now
from asr_lab.task import SpeechTask


class Loaded(NamedTuple):
    """A run's weights, with its corpus where that is there."""

    task: SpeechTask
    frontend: Frontend
    parts: Parts | None
    missing: str  # why there is no corpus


def export(run: Run, format: str, out: Path | None, n_checked: int, checkpoint: str = "best") -> dict[str, Any]:
    """Write a run's network to `out` (None: export/<format> in the run's folder) and return what export.json says.

    The file is read back before it is written, and must give what the network here gives: on random features of other
    lengths and batch sizes, and as hypotheses on `n_checked` utterances of the validation split. int8 also writes a
    table of size, speed and error rates (int8.md, int8.json), which takes the corpus.

    Raises:
        RunError: no such checkpoint; or the exported network does not give the same, and nothing was written.
        ConfigError: no such format, a package for it is missing, the encoder cannot be exported so, or `out` is a file.
        DataError: int8 without the corpus.
        DiskFullError: there is no room.
    """
    if format not in FORMATS:
        raise ConfigError(f"--format {format}: no such format{nearest(format, FORMATS)}")
    if n_checked < 1:
        raise ConfigError(f"--check {n_checked}: at least 1 utterance is compared")
    folder = out or run.folder / "export" / format
    if next(p for p in (folder, *folder.absolute().parents) if p.exists()).is_file():
        raise ConfigError(f"--out {folder}: a file is in the way; name a folder")
    writer = FORMATS[format]
    writer.require()
    loaded = load(run, checkpoint)
    if format == "int8" and loaded.parts is None:
        raise DataError(
            f"{loaded.missing}; --format int8 measures error rates on the test split, which takes the corpus"
        )
    network = Network(loaded.task, loaded.frontend.out_dim).eval()
    prepared = writer.prepare(network)
    with torch.no_grad():
        content = writer.write(prepared)
        exported = writer.read(content)
        check = check_lengths(prepared, exported)
        if loaded.parts is not None:
            check |= check_speech(prepared, exported, loaded.parts, n_checked)
    about = {
        "format": format,
        "checkpoint": checkpoint,
        "files": {writer.file: len(content)},
        **network.about,
        "check": check if loaded.parts else check | {"utterances": 0, "why": loaded.missing},
        "opset": writer.opset,
        "versions": {k: v for k, v in environment().items() if k in ("python", "asr-lab", "torch")} | writer.versions(),
        "time": now(),
    }
    if format == "int8":
        assert loaded.parts is not None
        rows = measure(network, exported, len(content), loaded.parts)
        write_json(folder / "int8.json", rows)
        write_text(folder / "int8.md", markdown(rows))
        about["table"] = rows
    write_atomic(folder / writer.file, lambda f: f.write(content))
    write_json(folder / "export.json", about)
    return about | {"folder": str(folder)}


def load(run: Run, checkpoint: str) -> Loaded:
    """A run's task with the weights of a checkpoint, and its corpus if it can be read.

    Raises:
        RunError: there is no such checkpoint, or it does not fit.
    """
    path = checkpoint_path(run, checkpoint)
    saved = read_checkpoint(path)
    # No language model is exported, and making one may take the training transcripts.
    config = run.config | {"lm": {"_target_": "asr_lab.lm.NoFusion"}}
    try:
        parts, missing = build(config), ""
        frontend, task = parts.data.pipeline.frontend, parts.task
    except DataError as error:
        parts, missing = None, " ".join(str(error).split())
        frontend, task = build_task(config, saved["belongings"]["tokenizer"], train_texts=[])
    restore(task, saved, path)
    return Loaded(task, frontend, parts, missing)


__all__ = ["FORMATS", "Loaded", "export", "load"]

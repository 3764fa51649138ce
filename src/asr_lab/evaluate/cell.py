"""One way of decoding a finished run: its folder, and its scores on one split after the other."""

import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch

from asr_lab.build import Parts, build_search
from asr_lab.environment import peak_memory_mb
from asr_lab.evaluate import check_splits, checkpoint_path, opened, with_speakers
from asr_lab.evaluate.frames import Frames
from asr_lab.evaluate.overrides import overridden
from asr_lab.files import read_jsonl, write_json, write_jsonl
from asr_lab.metrics.wer import ErrorRates
from asr_lab.run import Run, fingerprint, now


class Opened:
    """A run whose data and weights are read when they are first asked for; frames of the last split asked for stay."""

    def __init__(self, run: Run, checkpoint: str):
        self.run, self.checkpoint = run, checkpoint
        status = checkpoint_path(run, checkpoint).stat()
        # What tells a checkpoint that was written anew from the one that a cell was scored with.
        self.stamp = f"{checkpoint} {status.st_size} {status.st_mtime_ns}"
        self._parts: Parts | None = None
        self._frames: tuple[str, Frames] | None = None

    @property
    def parts(self) -> Parts:
        if self._parts is None:
            self._parts, _ = opened(self.run, self.checkpoint)
        return self._parts

    def frames(self, split: str) -> Frames:
        check_splits(self.run, self.parts, [split])
        if self._frames is None or self._frames[0] != split:
            self._frames = None  # freed before others are made
            self._frames = split, Frames(self.parts, split, self.run.folder / "evaluate")
        return self._frames[1]


class Cell(NamedTuple):
    """A run with other values of decoding and lm; kept in `evaluate/<overrides>-<fingerprint>/` of the run."""

    overrides: list[str]
    config: dict[str, Any]
    folder: Path
    source: Opened

    @classmethod
    def of(cls, source: Opened, overrides: list[str]) -> "Cell":
        """
        Raises:
            ConfigError: an override that does not fit.
        """
        config = overridden(source.run, overrides)
        identity = fingerprint({**config, "checkpoint": source.checkpoint})[:8]
        return cls(overrides, config, source.run.folder / "evaluate" / f"{readable(overrides)}-{identity}", source)

    def rows(self, split: str) -> list[dict[str, Any]]:
        return read_jsonl(self.folder / f"hyps.{split}.jsonl")

    def scores(self, split: str) -> dict[str, Any]:
        """What result.json says of a split, which is searched unless it was; its hypotheses lie beside it then.

        `wer` and `cer` are shares; `real_time_factor` is the seconds of searching, language model and all but without
        the encoder, for a second of audio; `peak_memory_mb` is of the whole process while it searched.
        """
        done = self._done()
        if split not in done or not (self.folder / f"hyps.{split}.jsonl").exists():
            done[split], rows = self._searched(split)
            write_jsonl(self.folder / f"hyps.{split}.jsonl", rows)
            about = {"overrides": self.overrides, "checkpoint": self.source.stamp}
            write_json(self.folder / "result.json", {**about, "splits": done})
        return done[split]

    def _done(self) -> dict[str, Any]:
        try:
            result = json.loads((self.folder / "result.json").read_text())
            return result["splits"] if result["checkpoint"] == self.source.stamp else {}
        except (OSError, ValueError, KeyError):
            return {}

    @torch.inference_mode()
    def _searched(self, split: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        frames, (data, task) = self.source.frames(split), self.source.parts
        texts = (u.text for u in data.corpus.splits["train"])
        task.search, task.lm = build_search(self.config, task.decoder, data.tokenizer, texts)
        peak_memory_mb(reset=True)
        rates, rows, seconds, audio_seconds = ErrorRates(), [], 0.0, 0.0
        for batch, hidden, lens in frames:
            start = time.perf_counter()
            decoded = task.decode(hidden, lens)
            seconds += time.perf_counter() - start
            audio_seconds += batch.seconds
            rows += task.as_rows(batch, decoded)
        rates.update(rows)
        scores = {k: float(v) for k, v in rates.compute().items()} | {
            "utterances": len(rows),
            "audio_seconds": round(audio_seconds, 3),
            "search_seconds": round(seconds, 3),
            "real_time_factor": seconds / audio_seconds,
            "peak_memory_mb": round(peak_memory_mb(), 1),
            "threads": torch.get_num_threads(),
            "device": str(task.device),
            "time": now(),
        }
        return scores, with_speakers(rows, data.corpus.splits[split])


def readable(overrides: list[str]) -> str:
    """Overrides as a file's name."""
    return "".join(c if c.isalnum() or c in "=,.+-_" else "_" for c in ",".join(overrides))[:120]

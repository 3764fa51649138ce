"""Successive halving: its rungs, who goes on, what becomes of the others."""

import math

from asr_lab.sweep.halving import best, halve, rungs


def test_rungs():
    assert rungs(27, 3, 3) == [3, 9, 27]
    assert rungs(30, 3, 3) == [3, 9, 27, 30]
    assert rungs(2, 3, 3) == [2]


def test_best():
    scores = {"a": 0.3, "b": 0.1, "c": math.nan, "d": 0.2}
    assert best(scores, 2) == ["b", "d"]
    assert best(scores, 9) == ["b"]
    assert best({"a": math.nan, "b": math.nan}, 2) == ["a"]


class Cell:
    """A run whose score at an epoch is `score / epoch`"""

    def __init__(self, folder, name, score):
        from asr_lab.files import write_jsonl

        self.name, self.final, self.folder, self.score = name, score, folder / name, "wer"
        self.metrics_file, self.written, self.epochs, self.write = self.folder / "metrics.jsonl", {}, 0, write_jsonl

    def train(self, epochs):
        self.epochs = epochs
        self.write(self.metrics_file, [{"epoch": e, "step": e, "val/wer": self.final / (e + 1)} for e in range(epochs)])

    def is_done(self):
        return self.epochs == 9

    def write_result(self, **changes):
        self.written = changes


def test_the_better_part_goes_on_from_where_it_is(tmp_path):
    cells = [Cell(tmp_path, name, score) for name, score in zip("abcdefghi", range(1, 10), strict=True)]
    asked = []

    def train(runs, env):
        until = int(env.get("ASR_LAB_PAUSE_AFTER_EPOCHS", 9))
        asked.append(("".join(r.name for r in runs), until))
        for run in runs:
            run.train(until)

    halve(cells, 9, 1, 3, train)
    assert asked == [("abcdefghi", 1), ("abc", 3), ("a", 9)]
    assert [c.name for c in cells if not c.written] == ["a"]
    assert cells[5].written == {"status": "cancelled", "reason": "halved at epoch 1: val/wer 6 is not among the best"}
    asked.clear()
    halve(cells, 9, 1, 3, train)  # again: what is known is not trained a second time
    assert asked == [("", 1), ("", 3), ("", 9)]

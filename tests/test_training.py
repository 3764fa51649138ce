"""What training promises: it can learn by heart, repeat itself, be interrupted, and tell the truth about its score."""

import json
import multiprocessing
import os
import signal

import pytest
import torch

from asr_lab.build import build
from asr_lab.evaluate import evaluate, score
from asr_lab.files import read_jsonl
from asr_lab.run import Run
from asr_lab.sweep.pool import line
from asr_lab.train import train

from .conftest import choices, make_run, tiny

QUICK = ("bilstm", "conformer")


def pairs() -> list:
    """Every encoder with CTC, and every decoder with a recurrent and an attention encoder."""
    quick = [(e, "ctc") for e in QUICK] + [("bilstm", d) for d in ("attention", "joint", "transducer", "hmm")]
    rest = [(encoder, "ctc") for encoder in choices("encoder")] + [(e, d) for e in QUICK for d in choices("decoder")]
    slow = [pytest.param(*pair, marks=pytest.mark.slow) for pair in dict.fromkeys(rest) if pair not in quick]
    return [*dict.fromkeys(quick), *slow]


@pytest.mark.parametrize(("encoder", "decoder"), pairs())
@pytest.mark.quick(3)
def test_one_batch_is_learnt_by_heart(encoder, decoder, tones, tmp_path):
    from .conftest import single_words

    overrides = [f"encoder={encoder}", f"decoder={decoder}"]
    if decoder == "keyword":
        tones, overrides = single_words(tones, tmp_path), [*overrides, "tokenizer=words"]
    if decoder == "ctc_inter":
        overrides.append("encoder.n_layers=2")  # a layer inside
    learnt_by_heart(tiny(tones, *overrides))


def learnt_by_heart(overrides: list[str]) -> None:
    from asr_lab.sweep.cell import resolved

    from .conftest import composed

    torch.manual_seed(0)
    parts = build(resolved(composed(*overrides)))
    for layer in parts.task.modules():
        if hasattr(layer, "p"):  # dropout of any kind
            layer.p = 0.0
        if hasattr(layer, "label_smoothing"):  # has a loss of its own that no learning ends
            layer.label_smoothing = 0.0
    batch = next(iter(parts.data.loader("train")))
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(parts.task.parameters(), lr=1e-2)
    parts.task.log_dict = lambda *a, **k: None  # no trainer here
    # A transducer may still spread a label over frames, in none of which greedy search says it.
    enough = 0.002 if any("decoder=transducer" in o for o in overrides) else 0.02
    for step in range(400):
        optimizer.zero_grad()
        loss = parts.task.step(batch, "train")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parts.task.parameters(), 1.0)
        optimizer.step()
        # Not before batch norm's running statistics, which evaluation goes by, have forgotten where they began.
        if step % 20 == 19 and step > 50 and loss < enough:
            break
    parts.task.eval()
    rows = parts.task.transcribe(batch, *parts.task.encoder(batch.feats, batch.feat_lens))
    assert [r["hyp"] for r in rows] == [r["ref"] for r in rows]


def test_same_seed_same_numbers(trained):
    overrides = ["augment=specaugment_speed"]
    first, a = trained(*overrides, name="a")
    second, b = trained(*overrides, name="b")
    _, c = trained(*overrides, "seed=2", name="c")
    assert a["metrics"] == b["metrics"]
    assert a["metrics"]["test/loss"] != c["metrics"]["test/loss"]
    assert first.hyps_file("test").read_bytes() == second.hyps_file("test").read_bytes()


@pytest.mark.parametrize("encoder", QUICK)
def test_resumed_equals_uninterrupted(encoder, trained, tones, tmp_path):
    """Killed in the middle of the third of four epochs."""
    overrides = [f"encoder={encoder}", "augment=specaugment_speed", "trainer.max_epochs=4"]
    whole_run, whole = trained(*overrides, name="whole")
    half = whole["steps"] // 2
    compare_with_resumed(whole_run, whole, tmp_path / "cut", tiny(tones, *overrides), stop=half + 2, resumed=half)


@pytest.mark.parametrize("step", ["within an epoch", "at its end"])
@pytest.mark.parametrize(
    "changes", [[], ["runtime.n_workers=1", "cache=none"], ["trainer.accumulate_grad_batches=2"]], ids=str
)
@pytest.mark.quick(1)
def test_stopped_by_a_scheduler_it_saves_after_the_step(changes, step, trained, tones, tmp_path):
    overrides = ["encoder=bilstm", "augment=specaugment_speed", "trainer.max_epochs=3", *changes]
    whole_run, whole = trained(*overrides, name="whole")
    n = whole["steps"] // 3
    stop = n if step == "within an epoch" else 2 * n - 1
    cut, by = tmp_path / "cut", signal.SIGTERM
    compare_with_resumed(whole_run, whole, cut, tiny(tones, *overrides), stop=stop, resumed=stop + 1, by=by)


def compare_with_resumed(
    whole_run, whole, folder, overrides, stop: int, resumed: int, config: str = "config", by: int = signal.SIGKILL
) -> None:
    """A run stopped at step `stop` that goes on from step `resumed` ends with the numbers of an uninterrupted one."""
    make_run(folder, overrides, config)
    killed = by == signal.SIGKILL
    assert interrupted_at(folder, stop, by) == (-by if killed else 128 + by)
    cut = Run.open(folder)
    assert cut.result()["status"] == ("running" if killed else "preempted")
    result = train(cut)
    assert result["status"] == "done"
    assert result["resumed_at_step"] == resumed
    assert result["metrics"] == whole["metrics"]
    assert result["steps"] == whole["steps"]
    assert cut.rows_file("test").read_bytes() == whole_run.rows_file("test").read_bytes()

    def curve(run):
        return [{k: v for k, v in row.items() if k != "seconds"} for row in read_jsonl(run.metrics_file)]

    assert curve(cut) == curve(whole_run)
    weights = [torch.load(r.last_checkpoint, weights_only=False)["state_dict"] for r in (whole_run, cut)]
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])


def interrupted_at(folder, step: int, by: int = signal.SIGTERM) -> int:
    """Exit status of a cell's process that gets a signal while it makes the step after so many.

    A child of a process that has imported everything and trained nothing: no imports to wait for, and none of the
    threads that a backward pass may have left here, with which a child could not train.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["asr_lab.train", "asr_lab.build", "pytorch_lightning"])
    child = context.Process(target=_interrupted, args=(str(folder), step, by))
    child.start()
    child.join()
    assert child.exitcode is not None
    return child.exitcode


def _interrupted(folder: str, step: int, by: int) -> None:
    from asr_lab.base_task import Task
    from asr_lab.train import main

    torch.set_num_threads(1)
    real = Task.training_step

    sent = []

    def training_step(self, batch, batch_idx):
        if self.trainer.global_step == step and not sent:  # once: a second signal would end it at once
            sent.append(by)
            os.kill(os.getpid(), by)
        return real(self, batch, batch_idx)

    Task.training_step = training_step
    code = 1
    try:
        code = main(folder)
    except SystemExit as stop:
        code = stop.code
    finally:
        os._exit(code)


def test_score_equals_a_fresh_evaluation(trained):
    """Trap: metrics that carry over from epoch to epoch or from val to test."""
    run, result = trained("encoder=bilstm", "trainer.max_epochs=5")
    answers = evaluate(Run.open(run.folder), ["val", "test"])
    for split in ("val", "test"):
        for name in ("wer", "cer", "loss"):
            assert answers[split][name] == pytest.approx(result["metrics"][f"{split}/{name}"], rel=1e-5)
    fresh = read_jsonl(run.folder / "evaluate" / "best.test.jsonl")
    assert [r["hyp"] for r in fresh] == [r["hyp"] for r in read_jsonl(run.hyps_file("test"))]


@pytest.mark.parametrize("kind", ["wer", "cer"])
def test_the_best_checkpoint_is_tested_not_the_last(kind, trained, monkeypatch, capsys):
    from asr_lab.metrics.wer import ErrorRates

    real, calls = ErrorRates.compute, []

    def compute(self):
        calls.append(1)
        rates = real(self)
        # The first validation of three looks best, whatever the model says.
        if len(calls) <= 3:
            rates[kind] = torch.tensor([0.1, 0.5, 0.9][len(calls) - 1])
            rates["cer" if kind == "wer" else "wer"] = torch.tensor([0.9, 0.5, 0.1][len(calls) - 1])
        return rates

    monkeypatch.setattr(ErrorRates, "compute", compute)
    run, result = trained("encoder=bilstm", "trainer.max_epochs=3", f"data.score={kind}")
    assert result["best"]["epoch"] == 0
    assert result["score"] == kind
    assert {"test/wer", "test/cer"} <= result["metrics"].keys()
    assert f"val/{kind} 10.0 %" in capsys.readouterr().err
    assert f"test/{kind} {100 * result['metrics'][f'test/{kind}']:.1f} %" in line(run)
    monkeypatch.undo()
    again = {name: evaluate(run, ["test"], name)["test"]["loss"] for name in ("best", "last")}
    assert result["metrics"]["test/loss"] == pytest.approx(again["best"], rel=1e-5)
    assert again["best"] != pytest.approx(again["last"], rel=1e-3)


@pytest.mark.parametrize("kind", ["wer", "cer"])
def test_stop_inside_an_epoch_is_validated(kind, trained):
    run, result = trained("encoder=bilstm", "trainer.max_steps=2", f"data.score={kind}")
    saved = torch.load(run.best_checkpoint, weights_only=False)
    assert saved["global_step"] == 2
    assert result["metrics"][f"val/{kind}"] >= 0


def test_nonfinite_gradient_is_skipped_and_counted(trained, monkeypatch):
    """Trap: clipping before looking for NaN poisons every weight."""
    from asr_lab.task import SpeechTask

    real, seen = SpeechTask.training_step, []

    def training_step(self, batch, batch_idx):
        seen.append(1)
        loss = real(self, batch, batch_idx)
        return loss * float("inf") if len(seen) == 2 else loss

    monkeypatch.setattr(SpeechTask, "training_step", training_step)
    run, result = trained("encoder=bilstm")
    assert result["status"] == "done"
    assert result["metrics"]["train/nonfinite"] == 1
    weights = torch.load(run.last_checkpoint, weights_only=False)["state_dict"]
    assert all(torch.isfinite(w).all() for w in weights.values())


def test_bf16_trains_and_scores(trained):
    _, result = trained("encoder=conformer", "trainer.precision=bf16-mixed")
    assert result["status"] == "done"
    assert result["metrics"]["test/loss"] < 10


def test_accumulated_batches_take_fewer_steps(trained):
    _, one = trained("encoder=bilstm", name="one")
    _, two = trained("encoder=bilstm", "trainer.accumulate_grad_batches=2", name="two")
    assert two["steps"] < one["steps"]


def test_scoring_leaves_no_trace(trained):
    run, _ = trained("encoder=bilstm")
    before = run.result_file.read_bytes()
    parts = build(json.loads(json.dumps(run.config)))
    assert score(parts, "val")[0]["utterances"] == 6
    assert run.result_file.read_bytes() == before

"""Distillation: the divergence by hand, a student that gets there, and teachers that cannot teach."""

import math

import pytest
import torch

from asr_lab.build import build
from asr_lab.distill.teacher import Teacher
from asr_lab.errors import ConfigError
from asr_lab.evaluate import evaluate
from asr_lab.run import Run
from asr_lab.sweep.cell import resolved

from .conftest import composed, make_run, only_line, tiny


@pytest.fixture(scope="module")
def teacher(tones, tmp_path_factory) -> Run:
    """A small CTC run."""
    from asr_lab.train import train

    run = make_run(tmp_path_factory.mktemp("teacher") / "run", tiny(tones, "encoder=bilstm", "trainer.max_epochs=1"))
    train(run)
    return run


def student_of(teacher, tones, *overrides: str):
    """(parts, Teacher) of a configuration with the teacher, prepared"""
    given = ["distill=teacher", f"distill.teacher={teacher.folder}", "encoder=bilstm", *overrides]
    config = resolved(composed(*tiny(tones, *given)))
    parts = build(config)
    parts.task.belongings["moments"] = parts.data.moments()
    parts.task.distill.prepare(config, parts)
    return parts, parts.task.distill


def batch_of(parts):
    return next(iter(parts.data.loader("train")))


def distilled(parts, batch) -> tuple[torch.Tensor, dict]:
    hidden, lens = parts.task.encode(batch)
    losses = parts.task.decoder.loss(hidden, lens, batch.labels, batch.label_lens)
    return parts.task.distill(losses, parts.task.decoder, batch, hidden, lens)


def with_weights_of(parts, teacher: Run):
    saved = torch.load(teacher.best_checkpoint, weights_only=False)
    parts.task.load_state_dict(saved["state_dict"])
    return parts


def test_the_divergence_by_hand():
    part = Teacher("run", "0", weight=0.25, temperature=3.0)
    p, q = ([0.7, 0.2, 0.1], [0.3, 0.3, 0.4])
    part._posteriors = lambda *batch: (torch.tensor([[p, q]]).log(), None)

    class Student:
        def posteriors(self, *batch):
            return torch.tensor([[q, p]]).log(), torch.tensor([[True, False]])  # the second is padding

    class Batch:
        feats = feat_lens = labels = label_lens = None

    def softened(probs):
        powers = [x ** (1 / 3) for x in probs]
        return [x / sum(powers) for x in powers]

    divergence = sum(a * math.log(a / b) for a, b in zip(softened(p), softened(q), strict=True))
    total, terms = part(torch.tensor([5.0]), Student(), Batch, None, None)
    assert terms["distill"].item() == pytest.approx(9 * divergence, rel=1e-5)
    assert terms["labels"].item() == 5.0
    assert total.item() == pytest.approx(0.75 * 5 + 0.25 * 9 * divergence, rel=1e-5)


def test_a_run_cannot_learn_from_itself(teacher, tones):
    parts, _ = student_of(teacher, tones)
    batch = batch_of(parts)
    _, terms = distilled(with_weights_of(parts, teacher).task.eval() and parts, batch)
    torch.testing.assert_close(terms["distill"], torch.zeros(len(batch.ids)), atol=1e-4, rtol=0)


def test_the_student_reaches_the_teacher_on_a_batch(teacher, tones):
    """From the posteriors alone."""
    parts, part = student_of(teacher, tones, "distill.weight=1.0", "distill.temperature=1.0")
    batch = batch_of(parts)
    for layer in parts.task.modules():
        if hasattr(layer, "p"):
            layer.p = 0.0
    before = {k: v.clone() for k, v in part.model.state_dict().items()}
    optimizer = torch.optim.Adam(parts.task.parameters(), lr=1e-2)
    divergences = []
    for _ in range(60):
        optimizer.zero_grad()
        loss, terms = distilled(parts, batch)
        loss.sum().backward()
        optimizer.step()
        divergences.append(terms["distill"].sum().item())
    assert divergences[-1] < 0.05 * divergences[0]
    after = part.model.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert not any(m.training for m in part.model.modules())


def test_the_teacher_is_no_part_of_the_student(teacher, tones):
    parts, part = student_of(teacher, tones)
    plain = build(resolved(composed(*tiny(tones, "encoder=bilstm")))).task
    assert parts.task.state_dict().keys() == plain.state_dict().keys()
    own = {id(p) for p in parts.task.parameters()}
    assert not own & {id(p) for p in part.model.parameters()}
    assert not any(p.requires_grad for p in part.model.parameters())
    assert parts.task.training and not part.model.training


@pytest.mark.parametrize("decoder", ["ctc", "transformer"])
@pytest.mark.quick(1)
def test_a_run_with_a_teacher_trains_and_is_scored_without_it(decoder, teacher, tones, trained):
    if decoder != "ctc":
        teacher, _ = trained("encoder=bilstm", f"decoder={decoder}", "trainer.max_steps=1", name="teacher")
    overrides = ["encoder=bilstm", f"decoder={decoder}", "distill=teacher", f"distill.teacher={teacher.folder}"]
    run, result = trained(*overrides, "trainer.max_epochs=1", "trainer.log_every_n_steps=1")
    assert result["status"] == "done"
    assert result["factors"]["distill.teacher"] == teacher.fingerprint
    logged = run.metrics_file.read_text()
    assert "train/loss_distill" in logged and "train/loss_labels" in logged and "val/loss_distill" not in logged
    # The validation loss is that of the labels, and nobody asks for the teacher again.
    teacher.folder.rename(teacher.folder.with_name("gone"))
    try:
        assert evaluate(run, ["test"])["test"]["loss"] == pytest.approx(result["metrics"]["test/loss"], rel=1e-5)
    finally:
        teacher.folder.with_name("gone").rename(teacher.folder)


def test_identity_is_the_teachers_and_not_its_folders(teacher, tones, tmp_path):
    import shutil

    copy = tmp_path / "elsewhere"
    shutil.copytree(teacher.folder, copy)
    student = ["encoder=bilstm", "distill=teacher"]
    runs = [make_run(tmp_path / f"{i}", tiny(tones, *student, f"distill.teacher={folder}"))
            for i, folder in enumerate((teacher.folder, copy))]  # fmt: skip
    assert runs[0].fingerprint == runs[1].fingerprint
    plain = make_run(tmp_path / "plain", tiny(tones, "encoder=bilstm"))
    assert plain.fingerprint != runs[0].fingerprint
    assert "distill.teacher" not in plain.factors


class TestTeachersThatCannot:
    def test_be_found(self, asr_lab, tones, tmp_path):
        done = asr_lab("train", *tiny(tones, "distill=teacher", "distill.teacher=nobody"), cwd=tmp_path)
        assert "distill.teacher: no run 'nobody'" in only_line(done)

    def test_be_left_out(self, asr_lab, tones, tmp_path):
        done = asr_lab("train", *tiny(tones, "distill=teacher"), cwd=tmp_path)
        assert "distill.teacher is missing" in only_line(done)

    def test_be_unfinished(self, asr_lab, tones, tmp_path):
        run = make_run(tmp_path / "planned", tiny(tones, "encoder=bilstm"))
        done = asr_lab("train", *tiny(tones, "distill=teacher", f"distill.teacher={run.folder}"), cwd=tmp_path)
        assert "this run is not done; train it first" in only_line(done)

    def test_be_another_than_it_was(self, teacher, tones, tmp_path):
        run = make_run(
            tmp_path / "run", tiny(tones, "encoder=bilstm", "distill=teacher", f"distill.teacher={teacher.folder}")
        )
        run.config["distill"]["fingerprint"] = "0123456789abcdef"
        parts = build(run.config)
        with pytest.raises(ConfigError, match="is another run now"):
            parts.task.distill.prepare(run.config, parts)

    @pytest.mark.parametrize(
        ("override", "says"),
        [
            ("tokenizer=char_train", "its tokenizer has other labels"),
            ("decoder=transformer", "decoder is CtcDecoder there, TransformerDecoder here"),
            ("frontend.n_mels=20", "frontend.n_mels is 24 there, 20 here"),
            ("frontend/cmvn=none", "frontend.cmvn"),
            ("preprocess=preemphasis", "preprocess"),
            ("encoder.subsampling.stride=2", "choose the same subsampling"),
        ],
    )
    @pytest.mark.quick(2)
    def test_fit(self, override, says, teacher, tones):
        with pytest.raises(ConfigError, match=says) as error:
            student_of(teacher, tones, override)
        assert str(error.value).startswith("distill.teacher=") and "\n" not in str(error.value)

    @pytest.mark.parametrize(("key", "value"), [("weight", 0), ("weight", 1.5), ("temperature", 0)])
    def test_have_such_numbers(self, key, value, teacher, tones):
        with pytest.raises(ConfigError, match=f"distill.{key}"):
            student_of(teacher, tones, f"distill.{key}={value}")

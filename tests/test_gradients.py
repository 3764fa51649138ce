"""The record of gradients, what is read from it, and `asr-lab clip-advice`."""

import errno
import json
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from asr_lab.clipping.agc import AdaptiveClipping
from asr_lab.clipping.history import MedianClipping
from asr_lab.clipping.norm import NormClipping
from asr_lab.clipping.separate import PerLayerClipping, PerParameterClipping
from asr_lab.clipping.sequence import SequenceClipping
from asr_lab.clipping.shear import ShearClipping
from asr_lab.clipping.value import ValueClipping
from asr_lab.errors import DataError, DiskFullError
from asr_lab.gradients import record as record_module
from asr_lab.gradients.advice import role, suggested, summary, thresholds
from asr_lab.gradients.look import Looker
from asr_lab.gradients.record import LOOK, STEP_COLUMNS, Record, read_record
from asr_lab.gradients.sample import draw, layer_of
from asr_lab.gradients.what_if import ESTIMATED, EVERY_STEP, LOOKED, by_norm, replay

from .conftest import choices, make_run, only_line, tiny

N = len(STEP_COLUMNS)
SHAPES = {"a.weight": (6, 4), "b.0.weight": (3, 5), "b.0.bias": (3,)}


def record(n: int, max_rows: int = 1000, max_looks: int = 100, shapes=SHAPES) -> Record:
    sample, _, _ = draw(shapes, 10, 5)
    made = Record(sample, max_rows, max_looks)
    width = sum(len(getattr(sample, of)) for of in LOOK.values())
    for step in range(n):
        made.add([step], np.full((1, N), step))
        if step % 10 == 0:
            made.look(step, np.arange(width) + step)
    return made


def of_norms(norms, after=None) -> Record:
    """A record of steps alone."""
    made = record(0)
    values = np.zeros((len(norms), N))
    values[:, 1], values[:, 2] = norms, norms if after is None else after
    values[:, 3] = values[:, 2] < values[:, 1]
    made.add(list(range(len(norms))), values)
    return made


class TestSample:
    def test_every_parameter_and_unit_gives_some(self):
        sample, elements, units = draw({"w": (100, 300), "k": (8, 2, 3), "b": (300,), "s": ()}, 200, 20)
        assert sample.sizes.tolist() == [30_000, 48, 300, 1] and sample.n_units.tolist() == [100, 8, 1, 1]
        counts = np.bincount(sample.element_of, minlength=4)
        assert (counts >= 1).all() and abs(counts.sum() - 200) <= 4
        assert counts[0] / counts[2] == pytest.approx(10, rel=0.2)  # the root of their sizes
        assert set(units) == {0, 1} and len(sample.unit_of) == pytest.approx(20, abs=2)
        for i, places in elements.items():
            assert len(set(places.tolist())) == len(places) == counts[i] and places.max() < sample.sizes[i]

    def test_more_than_there_are_is_all(self):
        _, elements, units = draw({"w": (3, 5)}, 1000, 1000)
        assert elements[0].tolist() == list(range(15)) and units[0].tolist() == [0, 1, 2]

    def test_the_same_in_every_process(self):
        first, second = draw(SHAPES, 10, 5), draw(SHAPES, 10, 5)
        assert all(np.array_equal(first[i][k], second[i][k]) for i in (1, 2) for k in first[i])

    def test_layers(self):
        names = ["encoder.layers.3.ff.0.weight", "encoder.subsampling.conv.weight", "decoder.weight", "w"]
        assert [layer_of(n) for n in names] == ["encoder.layers.3", "encoder.subsampling", "decoder", "w"]


class TestRecord:
    def test_what_is_written_is_read(self, tmp_path):
        made = record(35)
        made.write(tmp_path / "gradients.npz")
        again = read_record(tmp_path / "gradients.npz")
        assert again.sample.parameters == tuple(SHAPES) and again.steps.tolist() == list(range(35))
        assert again.column("norm_before").tolist() == list(range(35)) and again.looked.tolist() == [0, 10, 20, 30]
        assert again.looks.keys() == LOOK.keys() and again.has(*LOOK)
        assert all(np.array_equal(again.looks[key], made.looks[key]) for key in LOOK)

    def test_layers_are_parameters_together(self):
        made = record(11)
        layers = made.layers()
        assert layers.names == ["a", "b.0"]
        for looks, norms, ratios in zip(
            zip(*(made.looks[k] for k in ("norms", "weights", "moves")), strict=True),
            layers.norms,
            layers.ratios,
            strict=True,
        ):
            g, w, m = looks
            assert norms == pytest.approx([g[0], np.hypot(g[1], g[2])])
            assert ratios == pytest.approx([m[0] / w[0], np.hypot(m[1], m[2]) / np.hypot(w[1], w[2])])

    def test_an_infinite_layer_leaves_the_others_alone(self):
        made = record(1)
        made.looks["norms"][0] = [np.inf, 3.0, 4.0]
        assert made.layers().norms[0].tolist() == [np.inf, 5.0]

    def test_a_resumed_training_takes_its_steps_again(self):
        made = record(35)
        made.cut(21)
        assert made.steps.tolist() == list(range(21)) and made.looked.tolist() == [0, 10, 20]
        assert len(made.values) == 21 and all(len(rows) == 3 for rows in made.looks.values())

    def test_its_size_is_bounded_and_the_end_is_whole(self):
        made = record(5000, max_rows=200, max_looks=20)
        assert len(made.steps) <= 200 and (np.diff(made.steps) > 0).all()
        assert made.steps[-80:].tolist() == list(range(4920, 5000)) and made.steps[0] == 0
        assert (made.column("loss") == made.steps).all()
        assert len(made.looked) <= 20 and made.looked[0] == 0 and made.looked[-8:].tolist() == [*range(4920, 5000, 10)]
        assert (made.looks["norms"][:, 0] == made.looked).all()

    def test_many_steps_at_once(self):
        made = record(0, max_rows=100)
        made.add(list(range(450)), np.zeros((450, N)))
        assert 50 <= len(made.steps) <= 100 and made.steps[-1] == 449

    def test_nothing_recorded_is_a_file_too(self, tmp_path):
        record(0).write(tmp_path / "gradients.npz")
        again = read_record(tmp_path / "gradients.npz")
        assert again.values.shape == (0, N) and not again.has("norms") and again.layers().norms.shape == (0, 2)

    def test_the_first_layout_is_still_read(self, tmp_path):
        old = {
            "layers": np.array(["encoder.layers.0", "decoder.output"]),
            "columns": np.array(STEP_COLUMNS),
            "steps": np.arange(3),
            "values": np.ones((3, N), np.float32),
            "looked": np.array([0]),
            "norms": np.array([[1.0, 2.0]], np.float32),
            "updates": np.array([[0.1, 0.2]], np.float32),
        }
        np.savez(tmp_path / "gradients.npz", **old)
        again = read_record(tmp_path / "gradients.npz")
        layers = again.layers()
        assert layers.names == ["encoder.layers.0", "decoder.output"]
        assert layers.norms.tolist() == [[1.0, 2.0]] and layers.ratios[0] == pytest.approx([0.1, 0.2])
        assert replay("norm", NormClipping(0.5, 2), again).clipped == 1.0
        for clipper in (ValueClipping(0.1), AdaptiveClipping(0.1, 1e-3, []), PerLayerClipping(0.1)):
            assert replay("x", clipper, again) is None  # what was not recorded is not guessed

    @pytest.mark.parametrize("content", [b"", b"text", None])
    def test_what_is_no_record_is_one_line(self, tmp_path, content):
        file = tmp_path / "gradients.npz"
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(DataError, match=r"gradients\.npz: no") as error:
            read_record(file)
        assert "\n" not in str(error.value)

    def test_a_full_disk_leaves_the_old_file(self, tmp_path, monkeypatch):
        file = tmp_path / "gradients.npz"
        record(10).write(file)
        before = file.read_bytes()

        def full(f, **arrays):
            f.write(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(record_module.np, "savez", full)
        with pytest.raises(DiskFullError, match=r"gradients\.npz"):
            record(20).write(file)
        assert file.read_bytes() == before and list(tmp_path.iterdir()) == [file]


class TestAdvice:
    norms = np.array([1.0, 2.0, 3.0, 4.0, 50.0])

    def test_roles(self):
        assert [role(x) for x in (0.0, 0.001, 0.05, 0.3, 0.5, 0.51, 1.0)] == [
            "inert", "safety net", "in between", "in between", "in between", "limiter", "limiter",
        ]  # fmt: skip

    def test_thresholds_by_hand(self):
        low, high = thresholds(self.norms, [2.0, 60.0])
        assert (low.clipped, low.role) == (0.6, "limiter")
        assert low.kept == pytest.approx((1 + 1 + 2 / 3 + 0.5 + 0.04) / 5)
        assert (high.clipped, high.kept, high.role) == (0.0, 1.0, "inert")

    def test_a_grid_at_percentiles(self):
        norms = np.exp(np.random.default_rng(0).normal(size=10_000))
        grid = suggested(norms, [50, 90, 99])
        shares = [t.clipped for t in thresholds(norms, grid)]
        assert grid == sorted(grid) and shares == pytest.approx([0.5, 0.1, 0.01], abs=0.03)
        assert suggested(np.ones(10), [10, 50, 90]) == [1.0]

    def test_summary_by_hand(self):
        made = of_norms([1.0, 2.0, 4.0, np.inf], after=[1.0, 1.0, 1.0, np.nan])
        found = summary(made, {"steps": 4, "clipped": 2, "skipped": 0, "nonfinite": 1})
        assert found["norm"]["50"] == 2.0 and found["kept"] == pytest.approx((1 + 0.5 + 0.25) / 3)
        assert (found["clipped"], found["skipped"], found["role"]) == (0.5, 0.25, "in between")
        json.dumps(found, allow_nan=False)
        nothing = summary(record(0), {"steps": 0, "clipped": 0, "skipped": 0, "nonfinite": 0})
        assert nothing["kept"] is None and nothing["norm"] == {}


class Net(nn.Module):
    """Parameters of all kinds: a matrix, a kernel, biases, one that is never used."""

    def __init__(self):
        super().__init__()
        self.first, self.conv = nn.Linear(6, 4), nn.Conv1d(4, 3, 2)
        self.unused = nn.Parameter(torch.zeros(5))


def gradient_steps(net: Net, n: int, heavy: float = 1.0) -> Record:
    """Random gradients, looked at whole at every step."""
    generator = torch.Generator().manual_seed(0)
    looker = Looker(dict(net.named_parameters()), 10_000, 10_000)
    made = Record(looker.sample, 1000, 1000)
    for step in range(n):
        looker.before()
        for p in net.parameters():
            scale = torch.rand((), generator=generator) * heavy
            p.grad = scale * torch.randn(p.shape, generator=generator)
        net.unused.grad = None
        looker.gradients()
        made.look(step, looker.after().numpy())
        norm = torch.nn.utils.get_total_norm([p.grad for p in net.parameters() if p.grad is not None]).item()
        made.add([step], np.array([[0, norm, norm, 0, 0, 1, 1]]))
    return made


def themselves(net: Net, n: int, clipper, heavy: float = 1.0):
    """The same gradients, clipped by the choice itself."""
    generator = torch.Generator().manual_seed(0)
    if hasattr(clipper, "attach"):
        clipper.attach(net)
    reports = []
    for _ in range(n):
        for p in net.parameters():
            scale = torch.rand((), generator=generator) * heavy
            p.grad = scale * torch.randn(p.shape, generator=generator)
        net.unused.grad = None
        reports.append(clipper(list(net.parameters())))
    before, after, clipped = (np.array([float(getattr(r, k)) for r in reports]) for k in reports[0]._fields[:3])
    return clipped.mean(), (after / before).mean(), after.max()


class TestReplay:
    norms = np.array([1.0, 2.0, 3.0, 4.0, 50.0])

    def test_of_the_global_norm_is_the_choice_itself(self):
        found = replay("norm", NormClipping(2.5, 2), of_norms(self.norms))
        [known] = thresholds(self.norms, [2.5])
        assert (found.clipped, found.role, found.how) == (known.clipped, known.role, EVERY_STEP)
        assert found.kept == pytest.approx(known.kept, rel=1e-5) and found.longest == pytest.approx(2.5, rel=1e-5)
        median = replay("median", MedianClipping(2.1, 10, 2), of_norms([*self.norms[:2], np.nan, *self.norms[2:]]))
        assert median.clipped == pytest.approx(0.2) and median.longest == pytest.approx(5.25, rel=1e-5)
        assert torch.is_grad_enabled()

    @pytest.mark.parametrize(
        ("make", "how"),
        [
            (lambda: PerLayerClipping(0.8), LOOKED),
            (lambda: PerParameterClipping(0.7), LOOKED),
            (lambda: NormClipping(0.5, float("inf")), LOOKED),
            (lambda: NormClipping(9.0, 1), ESTIMATED),
            (lambda: ValueClipping(0.6), ESTIMATED),
            (lambda: SequenceClipping(ValueClipping(0.6), NormClipping(1.0, 2)), ESTIMATED),
            (lambda: AdaptiveClipping(0.5, 1e-3, []), ESTIMATED),
            (lambda: AdaptiveClipping(0.5, 1e-3, ["conv"]), ESTIMATED),
            (lambda: ShearClipping(None, 0.3, False, 1000), ESTIMATED),
            (lambda: ShearClipping(0.2, None, False, 1000), ESTIMATED),
        ],
    )
    def test_with_everything_sampled_it_is_the_choice_itself(self, make, how):
        torch.manual_seed(0)
        net = Net()
        made = gradient_steps(net, 12)
        found = replay("x", make(), made)
        assert found.how == how
        clipped, kept, longest = themselves(net, 12, make())
        assert 0 < found.clipped <= 1 and found.kept < 0.999  # something happened
        # Shear's limit is at the nearest element: 0.2 of 55 that have a gradient, or of 60 with those that have none.
        close = 0.06 if isinstance(make(), ShearClipping) and make().keep else 1e-4
        assert found.clipped == pytest.approx(clipped, abs=1e-9)
        assert found.kept == pytest.approx(kept, rel=close) and found.longest == pytest.approx(longest, rel=close)

    def test_an_estimate_is_near_the_truth(self):
        """With a twentieth of the elements and a fifth of the units of a larger network."""
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(100, 200), nn.Linear(200, 100), nn.LayerNorm(100))
        looker = Looker(dict(net.named_parameters()), 2000, 60)
        made = Record(looker.sample, 100, 100)
        for step in range(10):
            looker.before()
            for p in net.parameters():
                p.grad = torch.distributions.StudentT(3.0).sample(p.shape) * 0.01
            looker.gradients()
            made.look(step, looker.after().numpy())
        made.skip(9)
        last = [p.grad.clone() for p in net.parameters()]
        for clipper in (ValueClipping(0.02), ShearClipping(0.3, None, False, 10**6), AdaptiveClipping(0.1, 1e-3, [])):
            for p, g in zip(net.parameters(), last, strict=True):
                p.grad = g.clone()
            truth = clipper(list(net.parameters()))
            kept = float(truth.norm_after / truth.norm_before)
            assert kept < 0.95 and replay("x", clipper, made).kept == pytest.approx(kept, rel=0.06)

    def test_what_is_not_finite_is_left_out(self):
        made = gradient_steps(Net(), 3)
        made.looks["norms"][1, 0] = np.inf
        made.looks["elements"][1, 0] = np.nan
        for clipper in (ValueClipping(0.1), PerLayerClipping(0.1), AdaptiveClipping(0.01, 1e-3, [])):
            assert np.isfinite(replay("x", clipper, made).kept)
        assert replay("x", NormClipping(1.0, 2), of_norms([np.inf, np.nan, 0.0])) is None

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.floats(0.0078125, 1e6, width=32), min_size=1, max_size=20), st.floats(0.01, 1e5))
    def test_never_longer_than_the_threshold(self, norms, threshold):
        norms = np.array(norms)
        _, after, clipped = by_norm(NormClipping(threshold, 2), norms)
        assert (after <= np.minimum(norms, threshold) * (1 + 1e-5)).all()
        assert clipped[norms > threshold * 1.001].all() and not clipped[norms < threshold * 0.999].any()


@pytest.fixture(scope="module")
def experiment(tones, tmp_path_factory):
    """`outputs/` with an experiment of four runs: norms of `rnn` are ten times those of `bilstm`."""
    outputs = tmp_path_factory.mktemp("advice") / "outputs"
    for encoder, size in (("bilstm", 1.0), ("rnn", 10.0)):
        for clipping in ("none", "norm"):
            overrides = tiny(tones, f"encoder={encoder}", f"clipping={clipping}")
            run = make_run(outputs / "both" / f"{clipping}-{encoder}", overrides)
            norms = size * np.exp(np.random.default_rng(0).normal(size=120))
            of_norms(norms, np.minimum(norms, 1.0) if clipping == "norm" else norms).write(run.folder / "gradients.npz")
    return outputs


class TestClipAdvice:
    def test_of_a_run(self, asr_lab, experiment):
        cwd = experiment.parent
        done = asr_lab("clip-advice", "outputs/both/norm-rnn", "--threshold", "7", "--json", cwd=cwd)
        answer = json.loads(done.stdout)
        [group] = answer["groups"]
        norms = 10 * np.exp(np.random.default_rng(0).normal(size=120)).astype(np.float32)
        assert answer["by"] is None and group["steps"] == 120 and len(group["runs"]) == 1
        assert group["runs"][0]["role"] == "limiter" and group["runs"][0]["clipped"] == pytest.approx(
            (norms > 1).mean()
        )
        assert group["percentiles"]["50"] == pytest.approx(np.percentile(norms, 50), rel=1e-5)
        seven = next(t for t in group["thresholds"] if t["value"] == 7)
        assert seven["clipped"] == pytest.approx((norms > 7).mean())
        replayed = {r["name"] for r in group["replay"]}
        # Each choice of the folder is replayed, or it is said that it cannot be.
        assert replayed | set(group["not_recorded"]) == set(choices("clipping")) - {"none"}
        assert {"norm", "autoclip", "zclip", "median", "soft", "skip"} <= replayed
        text = asr_lab("clip-advice", "norm-rnn", cwd=cwd).stdout
        assert "clipping=norm was a limiter" in text and "as a grid: clipping.threshold=" in text

    def test_of_an_experiment_encoder_by_encoder(self, asr_lab, experiment):
        done = asr_lab("clip-advice", "both", "--json", cwd=experiment.parent)
        bilstm, rnn = json.loads(done.stdout)["groups"]
        assert (bilstm["name"], rnn["name"], rnn["steps"]) == ("bilstm", "rnn", 240)
        assert rnn["percentiles"]["90"] == pytest.approx(10 * bilstm["percentiles"]["90"], rel=1e-5)
        assert bilstm["replay_of"] == "none-bilstm"  # not the one that was clipped
        text = asr_lab("clip-advice", "both", cwd=experiment.parent).stdout
        assert "bilstm, as a grid" in text and "rnn, as a grid" in text

    def test_by_another_factor(self, asr_lab, experiment):
        done = asr_lab("clip-advice", "both", "--by", "clipping", "--json", cwd=experiment.parent)
        assert [g["name"] for g in json.loads(done.stdout)["groups"]] == ["none", "norm"]

    def test_later_steps_alone(self, asr_lab, experiment):
        done = asr_lab("clip-advice", "none-rnn", "--skip-first", "20", "--json", cwd=experiment.parent)
        assert json.loads(done.stdout)["groups"][0]["steps"] == 100

    @pytest.mark.parametrize("ending", ["png", "svg"])
    def test_picture(self, asr_lab, experiment, tmp_path, ending):
        pytest.importorskip("matplotlib")
        file = tmp_path / f"norms.{ending}"
        done = asr_lab("clip-advice", "both", "--plot", str(file), cwd=experiment.parent)
        assert done.returncode == 0 and file.stat().st_size > 10_000 and f"wrote {file}" in done.stderr

    @pytest.mark.parametrize(
        ("arguments", "line"),
        [
            (["both", "--threshold", "0"], "--threshold 0.0: a threshold is positive"),
            (["both", "--threshold", "nan"], "--threshold nan"),
            (["both", "--percentiles", "50,101"], "--percentiles 50,101: wanted are numbers between 0 and 100"),
            (["both", "--percentiles", "nan"], "--percentiles nan"),
            (["both", "--percentiles", "many"], "--percentiles many"),
            (["both", "--skip-first", "-1"], "--skip-first -1"),
            (["both", "--skip-first", "120"], "no finite gradient norm was recorded from step 120 on"),
            (["both", "--by", "encodr"], "--by encodr: no run has such a factor; did you mean 'encoder'?"),
            (["both", "--plot", "norms.txt"], "--plot norms.txt: wanted is a file ending in .png"),
            (["nowhere"], "no run 'nowhere'"),
            ([""], "no run in it has recorded its gradients"),
        ],
        ids=str,
    )
    def test_a_mistake_is_one_line(self, asr_lab, experiment, arguments, line):
        assert line in only_line(asr_lab("clip-advice", *arguments, cwd=experiment.parent))

    def test_what_was_not_recorded_is_one_line(self, asr_lab, experiment, tmp_path):
        copy = tmp_path / "outputs"
        shutil.copytree(experiment, copy)
        run = copy / "both" / "none-rnn"
        (run / "gradients.npz").write_bytes(b"torn")
        assert "not a record of gradients" in only_line(asr_lab("clip-advice", str(run), cwd=tmp_path))
        (run / "gradients.npz").unlink()
        line = only_line(asr_lab("clip-advice", str(run), cwd=tmp_path))
        assert "no record of gradients; train with gradients=record" in line

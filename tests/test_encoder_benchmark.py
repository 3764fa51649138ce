"""What benchmarks/encoders.py computes from its measurements and writes; the measuring itself is not timed here."""

import itertools
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import torch
from torch import nn

from asr_lab.errors import DataError

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import cpu_levers  # noqa: E402
from encoder_speed import page, peers, picture, scaling, stepping, utilisation  # noqa: E402
from encoder_speed.models import CONFORMERS, LSTM_WIDTH, LSTMS, WIDTH  # noqa: E402


def turn(step_s: float) -> dict[str, float]:
    return {"step_s": step_s, "wall_s": 2 * step_s, "cpu_s": step_s}


def scaling_rows() -> list[dict]:
    kinds = {"lstm": "recurrent", "tds": "convolution, state space", "conformer": "self-attention"}
    return [
        {"encoder": name, "kind": kind, "seconds": s, "batch": 60 // s, "step_s": 0.06 * s, "memory_mib": 100.0 * s}
        for name, kind in kinds.items()
        for s in (2, 10, 60)
    ]


RESULTS = {
    "about": {"device": "a machine", "cores": 2, "versions": {"PyTorch": "2.11"}},
    "scaling": [*scaling_rows(), {"encoder": "lstm", "kind": "recurrent", "seconds": 30}],
}


class TestSteps:
    def test_a_step_gives_every_parameter_and_the_input_a_gradient(self):
        class Scaled(nn.Module):
            def __init__(self):
                super().__init__()
                self.scale = nn.Parameter(torch.ones(4))

            def forward(self, x, lens):
                return nn.functional.layer_norm(x, (4,)) * self.scale

        x, lens = stepping.batch(20, 4, "cpu")
        step = stepping.TrainingStep(Scaled(), x.requires_grad_(), lens, "float32")
        timing = stepping.timed(step, 0)
        assert timing.n_steps == 1 and timing.step_s > 0
        assert step.model.scale.grad.abs().min() > 0 and x.grad.abs().mean() > 1e-3  # a sum would give zero
        first = step.model.scale.grad.clone()
        step()
        torch.testing.assert_close(step.model.scale.grad, first)  # not added up

    def test_lengths_of_a_batch_differ_within_what_sorting_leaves(self):
        _, lens = stepping.batch(100, 4, "cpu")
        assert len(lens) == 8 and lens.max() == 100 and lens.min() == 80 and len(set(lens.tolist())) == 8
        assert set(stepping.batch(100, 4, "cpu", same_length=True)[1].tolist()) == {100}

    @pytest.mark.parametrize("name", ["asr_lab", "asr_lab, sinusoidal", "torchaudio", *LSTMS])
    def test_what_is_compared_gives_a_frame_for_a_frame(self, name):
        if name.startswith("asr_lab ") and name.split()[1] not in scaling.choices():
            pytest.skip(f"there is no encoder {name.split()[1]}")
        torch.manual_seed(0)
        model = (CONFORMERS | LSTMS)[name]().eval()
        x, lens = stepping.batch(12, WIDTH if name in CONFORMERS else LSTM_WIDTH, "cpu", n=2)
        with torch.no_grad():
            hidden = model(x, lens)
        assert hidden.shape[:2] == (2, 12) and hidden.isfinite().all()

    @pytest.mark.parametrize("lever", ["packed_lstm", "own_lstm"])
    def test_levers_are_built_of_today_s_parts(self, lever):
        getattr(cpu_levers, lever)()()

    def test_the_conformer_of_the_levers_is_built_of_today_s_parts(self, monkeypatch):
        monkeypatch.setattr(cpu_levers, "BATCH", 1)
        monkeypatch.setattr(cpu_levers, "FRAMES", 20)
        cpu_levers.conformer(True)()


class TestRatios:
    def test_are_taken_within_a_round(self):
        # The machine is ten times slower in the second round: nothing of that is left in the ratio.
        found = peers._summary([turn(1.0), turn(10.0), turn(1.0)], [turn(1.5), turn(15.0), turn(1.5)])
        assert found["ratio"] == 1.5 and found["ratio_quartiles"] == [1.5, 1.5]
        assert found["step_s"] == 1.5 and found["wall_s"] == 3.0 and found["n_rounds"] == 3

    def test_rows_have_threads_and_malloc_only_where_there_are_such(self):
        def seen(*values):
            return {(c["n_threads"], c["precision"]) for c in peers._conditions(*values)}

        assert seen("conformer", "kept", "cpu") == {(1, "float32"), (2, "float32"), (1, "bfloat16")}
        assert seen("conformer", "kept", "cuda") == {(1, "float32"), (1, "bfloat16")}
        assert seen("conformer", "default", "cpu") == {(1, "float32")} and not seen("bilstm", "default", "cpu")

    def test_every_package_has_a_named_version(self):
        assert all("==" in package for packages in [peers.TORCH, *peers.PACKAGES.values()] for package in packages)


def test_a_child_that_dies_leaves_its_cell_empty(monkeypatch):
    monkeypatch.setattr(scaling, "START", "fork")  # no library has to be loaded again
    assert scaling.in_child(sys.exit, 1) == {}
    assert scaling.in_child(dict, [("step_s", 1.0)]) == {"step_s": 1.0}


def test_a_preset_is_told_by_its_parameters(monkeypatch):
    monkeypatch.setattr(
        utilisation, "encoder", lambda *o: nn.Linear(3, 4 if "medium" in o[1] and "sized" in o[0] else 2)
    )
    assert utilisation.ignores_size("preset") and not utilisation.ignores_size("sized")


class TestPage:
    def test_tables_go_between_their_markers_and_again(self, tmp_path):
        file, svg = tmp_path / "page.md", tmp_path / "images" / "a.svg"
        names = ("machine", "time", "memory", "picture")
        file.write_text("Before\n" + "".join(f"<!-- {n} -->\nold\n<!-- /{n} -->\n" for n in names) + "After\n")
        page.write_page(file, svg, RESULTS)
        once = file.read_text()
        assert "| lstm | 60.0 | 60.0 | failed | 60.0 |" not in once  # 60 ms x s over 60 s of speech
        assert "| lstm | 2.0 | 10.0 | failed | 60.0 |" in once and "| tds | 200 | 1000 |  | 6000 |" in once
        assert "old" not in once and "(images/a.svg)" in once and once.startswith("Before") and once.endswith("After\n")
        page.write_page(file, svg, RESULTS)
        assert file.read_text() == once and svg.exists()

    def test_a_missing_marker_is_named(self, tmp_path):
        with pytest.raises(DataError, match="<!-- time -->"):
            page.between("nothing", "time", "", tmp_path)

    def test_the_committed_page_has_all_markers(self):
        text = (ROOT / "docs" / "encoders_speed.md").read_text()
        for name in ("machine", "peers", "lstm", "utilisation", "operations", "time", "memory", "picture"):
            page.between(text, name, "", Path("page"))

    def test_the_picture_has_a_curve_for_each_encoder_in_both_rows(self):
        svg = ET.fromstring(picture.scaling_chart(scaling_rows()))
        curves = [e for e in svg.iter("{http://www.w3.org/2000/svg}polyline") if "curve" in e.get("class", "")]
        assert len(curves) == 6
        memory = [[float(v) for v in point.split(",")] for point in curves[3].get("points", "").split()]
        # Proportional to the length: a straight line on logarithmic axes, from left to right and upwards.
        slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in itertools.pairwise(memory)]
        assert memory[0][0] == 0 and memory[-1][0] == picture.PLOT_W
        assert slopes[0] < 0 and slopes == pytest.approx([slopes[0]] * 2, rel=0.02)

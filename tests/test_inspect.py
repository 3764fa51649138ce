"""`asr-lab inspect`: the table's numbers, the walk through a module, the pictures, and every mistake as one line."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import soundfile
import torch
from torch import nn

from asr_lab.build import build
from asr_lab.cost import macs, n_parameters
from asr_lab.errors import ConfigError, RunError
from asr_lab.inspect import features as f
from asr_lab.inspect.attention import Map, attention_maps
from asr_lab.inspect.dataflow import INPUT, OUTPUT, Block, Edge, Join, dataflow
from asr_lab.inspect.diagram import folded
from asr_lab.inspect.network import Subject, subject, trained_subject
from asr_lab.inspect.numbers import amount, number, shape
from asr_lab.inspect.pictures import draw_attention
from asr_lab.inspect.saliency import _jacobian_norm, saliency
from asr_lab.inspect.table import rows
from asr_lab.inspect.trace import traced
from asr_lab.inspect.walk import about, find, walk
from asr_lab.sweep.cell import resolved

from .conftest import composed, families, only_line, tiny


def small(tones: Path, *overrides: str, with_corpus: bool = False) -> Subject:
    return subject(resolved(composed(*tiny(tones, *overrides))), with_corpus)


class Residual(nn.Module):
    """Twice the input through a linear layer, plus the input."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([1.0, float("nan")]))
        self.twice = nn.Linear(2, 2, bias=False)
        self.unused = nn.Linear(2, 3)
        self.twice.weight.data = 2 * torch.eye(2)

    def forward(self, x: torch.Tensor, lens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x + self.twice(x), lens


X, LENS = torch.tensor([[[1.0, 3.0], [5.0, 7.0]]]), torch.tensor([2])


# The table


def test_a_pass_is_summarised_by_hand_computable_numbers():
    network = Residual()
    calls = traced(network, X, LENS)
    assert [call.path for call in calls] == ["", "twice"]
    assert [v.name for v in calls[0].inputs] == ["x", "lens"]
    went_in, came_out = calls[1].inputs[0], calls[1].outputs[0]
    assert went_in[:7] == ("input", (1, 2, 2), "float32", 4.0, 5**0.5, 1.0, 7.0)
    assert came_out.corner == [[2.0, 6.0], [10.0, 14.0]] and calls[0].outputs[0].mean == 12.0
    assert calls[1].macs == calls[0].macs == 2 * 2 * 2
    twice, unused = rows(network, calls, depth=1)
    assert (twice.path, twice.n_calls, twice.parameters, twice.input) == ("twice", 1, 4, (1, 2, 2))
    assert (unused.path, unused.n_calls, unused.parameters, unused.output) == ("unused", 0, 9, None)


@pytest.mark.parametrize("encoder", families("bilstm", "conformer", "cnn", "mamba"))
def test_every_encoder_has_a_table_that_adds_up(encoder, tones):
    found = small(tones, f"encoder={encoder}")
    features = f.random_features(found, 0.6)
    calls = traced(found.network, features.feats, features.lens)
    table = {row.path: row for row in rows(found.network, calls, depth=9)}
    n_frames, in_dim = features.feats.shape[1:]
    assert table["encoder"].macs == macs(found.network.encoder, in_dim, n_frames)
    assert table["encoder"].parameters == n_parameters(found.network.encoder)
    leaves = sum(row.parameters for p, row in table.items() if not any(q.startswith(f"{p}.") for q in table))
    own = sum(p.numel() for m in found.network.modules() if list(m.children()) for p in m.parameters(recurse=False))
    assert leaves + own >= table["encoder"].parameters  # more where two modules share a parameter
    hidden, _ = found.network(features.feats, features.lens)
    assert table["encoder"].output == tuple(hidden.shape)
    assert table["encoder"].mean == pytest.approx(hidden.mean().item(), abs=1e-5)
    assert table["encoder"].std == pytest.approx(hidden.std(correction=0).item(), rel=1e-3)


def test_weights_are_those_that_training_begins_with(tones):
    config = resolved(composed(*tiny(tones, "encoder=conformer")))
    found = subject(config, with_corpus=True)
    torch.manual_seed(config["seed"])
    task = build(config).task
    for name, value in found.network.state_dict().items():
        assert torch.equal(task.state_dict()[name], value), name


def test_looking_leaves_nothing_behind(tones):
    found = small(tones, "encoder=conformer")
    features = f.random_features(found, 0.5)
    before = {name: p.clone() for name, p in found.network.state_dict().items()}
    traced(found.network, features.feats, features.lens)
    attention_maps(found.network, features.feats, features.lens)
    dataflow(found.network, features.feats, features.lens)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in found.network.modules())
    assert all(torch.equal(before[name], p) for name, p in found.network.state_dict().items())
    assert all(p.grad is None for p in found.network.parameters())


# One module


def test_a_walk_shows_the_steps_in_order():
    network = Residual()
    answer = walk(network, traced(network, X, LENS), "twice", depth=1)
    assert (answer["n_calls"], answer["parameters"], answer["steps"]) == (1, 4, [])
    assert answer["own"][0]["name"] == "weight" and answer["own"][0]["corner"] == [[2.0, 0.0], [0.0, 2.0]]
    assert walk(network, traced(network, X, LENS), "unused", depth=1)["n_calls"] == 0


def test_a_walk_through_attention(tones):
    found = small(tones, "encoder=conformer")
    features = f.random_features(found, 0.6)
    calls = traced(found.network, features.feats, features.lens)
    answer = walk(found.network, calls, "encoder.layers.0.self_attn", depth=1)
    names = [step["name"] for step in answer["steps"]]
    assert names[:3] == ["linear_q", "linear_k", "linear_v"] and names[-2:] == ["weights", "linear_out"]
    assert [v["name"] for v in answer["own"]] == ["pos_bias_u", "pos_bias_v"]
    assert "score(i, j)" in answer["about"] and "->" in answer["shapes"]
    assert answer["inputs"][0]["shape"] == answer["outputs"][0]["shape"]
    assert not any(step["steps"] for step in answer["steps"])
    block = walk(found.network, calls, "encoder.layers.0", depth=2)
    assert [s["name"] for s in block["steps"] if s["path"].endswith("self_attn")] == ["self_attn"]
    assert any(step["steps"] for step in block["steps"])
    layers = walk(found.network, calls, "encoder.layers", depth=1)  # a ModuleList is never called
    assert layers["n_calls"] == 0 and [s["name"] for s in layers["steps"]] == ["0"]
    assert layers["macs"] == layers["steps"][0]["macs"] > 0


def test_what_is_not_a_number_is_counted():
    network = Residual()
    answer = walk(network, traced(network, X * float("nan"), LENS), "twice", depth=1)
    assert answer["inputs"][0]["n_nonfinite"] == 4 and answer["inputs"][0]["mean"] is None


def test_a_docstring_becomes_one_plain_sentence():
    assert about(nn.Linear(1, 1)) == "Applies an affine linear transformation to the incoming data: y = xA^T + b."
    assert about(Residual()) == "Twice the input through a linear layer, plus the input."


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("encoder.layers.0.selfattn", "did you mean 'encoder.layers.0.self_attn'"),
        ("encoder.layers.7", "'encoder.layers.0"),
        ("head.x.y.z.w", "head has: no modules inside"),
        ("", "has: head, encoder"),
    ],
)
def test_a_module_that_is_not_there(path, hint, tones):
    with pytest.raises(ConfigError, match="no such module") as error:
        find(small(tones, "encoder=conformer").network, path)
    assert hint in str(error.value)


# Attention, saliency


def test_attention_maps_are_distributions(tones):
    found = small(tones, "encoder=conformer", "encoder.n_layers=2")
    features = f.random_features(found, 0.6)
    maps = attention_maps(found.network, features.feats, features.lens)
    assert [m.path for m in maps] == ["encoder.layers.0.self_attn", "encoder.layers.1.self_attn"]
    n = found.network.encoder.output_lengths(features.lens)[0]
    for m in maps:
        assert m.weights.shape == (2, n, n)
        torch.testing.assert_close(m.weights.sum(dim=-1), torch.ones(2, n))


def test_the_norm_of_a_jacobian():
    """Of a linear map it is the norm of its columns, here with 16 random directions."""
    x = torch.ones(3, requires_grad=True)
    weights = torch.randn(400, 3, generator=torch.Generator().manual_seed(1)) * torch.tensor([1.0, 0.0, 5.0])
    norms = _jacobian_norm(weights @ x, x, seed=1)
    assert norms[1] == 0
    torch.testing.assert_close(norms, weights.norm(dim=0), rtol=0.5, atol=0)


def test_a_frame_depends_most_on_its_own_time(tones):
    found = small(tones, "encoder=conformer")
    features = f.random_features(found, 2.0)
    of_frame = saliency(found, features)
    assert of_frame.gradient.shape == features.feats.shape[1:] and of_frame.gradient.max() > 1e-4
    assert of_frame.explained.startswith("hidden frame") and of_frame.at == pytest.approx(0.5, abs=0.05)
    by_time = of_frame.gradient.sum(dim=1)
    assert (by_time.argmax() + 0.5) / len(by_time) == pytest.approx(of_frame.at, abs=0.05)


def test_a_trained_run_is_explained_by_its_best_path(trained, tones):
    run, _ = trained("encoder=conformer", "trainer.max_epochs=1")
    found, note = trained_subject(run, needs_corpus=False)
    saved = torch.load(run.best_checkpoint, weights_only=False)["state_dict"]
    assert not note and all(torch.equal(saved[k], v) for k, v in found.network.state_dict().items())
    features = f.corpus_features(found, "val", None)
    dataset = found.data.plain("val")  # pyright: ignore
    assert torch.equal(features.feats[0], dataset.features(0, 0)) and "val0" in features.source
    of_path = saliency(found, features)
    feats = features.feats.clone().requires_grad_()
    found.network(feats, features.lens)[0].max(dim=-1).values.sum().backward()
    torch.testing.assert_close(of_path.gradient, feats.grad[0].abs())  # pyright: ignore
    # Without its corpus the run can still be looked at, up to the encoder.
    moved = tones.with_name("moved.jsonl")
    tones.rename(moved)
    try:
        bare, note = trained_subject(run, needs_corpus=False)
    finally:
        moved.rename(tones)
    assert bare.network.decoder is None and "without the decoder" in note
    run.best_checkpoint.write_bytes(b"PK no checkpoint")
    with pytest.raises(RunError, match="cannot be loaded"):
        trained_subject(run, needs_corpus=False)
    run.best_checkpoint.unlink()
    with pytest.raises(RunError, match="no checkpoint 'best'"):
        trained_subject(run, needs_corpus=False)


@pytest.mark.parametrize("scope", ["utterance", "speaker", "global", "none"])
def test_a_file_gives_the_features_of_the_utterance_that_it_is(scope, tones):
    found = small(tones, "encoder=bilstm", f"frontend/cmvn={scope}", with_corpus=True)
    of_file = f.file_features(found, tones.parent / "val0.wav")
    if scope != "speaker":  # the corpus's speaker has more utterances
        assert torch.equal(of_file.feats, f.corpus_features(found, "val", None).feats)
    else:
        assert of_file.feats.mean().abs() < 1e-4


# The diagram


def test_dataflow_finds_the_residual():
    flow = dataflow(Residual(), X, LENS)
    twice, join = flow.items
    assert isinstance(twice, Block) and twice.path == "twice" and twice.output_shape == (1, 2, 2)
    assert isinstance(join, Join) and join.operations == ["+"]
    assert set(flow.edges) == {Edge(INPUT, 0), Edge(INPUT, 1), Edge(0, 1), Edge(1, OUTPUT)}


@pytest.mark.parametrize("encoder", families("bilstm", "conformer", "cnn", "mamba"))
def test_every_encoder_flows_from_input_to_output(encoder, tones):
    found = small(tones, f"encoder={encoder}")
    features = f.random_features(found, 0.6)
    todo = [dataflow(found.network, features.feats, features.lens)]
    assert todo[0].output_shape == tuple(found.network(features.feats, features.lens)[0].shape)
    while todo:
        block = todo.pop()
        inside = [item for item in block.items if isinstance(item, Block)]
        todo += inside
        if inside:
            assert any(edge.target == OUTPUT for edge in block.edges), block.path
            assert {edge.target for edge in block.edges} >= set(range(len(block.items))), block.path


def test_equal_layers_are_folded(tones):
    found = small(tones, "encoder=conformer", "encoder.n_layers=4")
    features = f.random_features(found, 0.5)
    encoder = dataflow(found.network, features.feats, features.lens).items[1]
    assert isinstance(encoder, Block)
    items, edges = folded(encoder)
    layers = [i for i in items if isinstance(i, Block) and ".layers." in i.path]
    assert [i.path for i in layers] == ["encoder.layers.0", "encoder.layers.1 … 3"]
    assert layers[1].parameters == 3 * layers[0].parameters
    at = items.index(layers[1])
    assert Edge(at - 1, at) in edges and all(e.source != e.target for e in edges)


def test_numbers_are_short():
    assert [amount(n) for n in (0, 999, 1234, 1_234_567, 2.5e9)] == ["", "999", "1.23 k", "1.23 M", "2.5 G"]
    assert [number(x, rough=True) for x in (None, -0.001, 12.345, 12345.0)] == ["", "0.00", "12.35", "1.23e+04"]
    assert [shape(s) for s in (None, (), (1, 20))] == ["", "()", "1×20"]


# The command


def test_the_command_prints_and_draws(asr_lab, tones, tmp_path):
    common = ["inspect", *tiny(tones, "encoder=conformer", "encoder.n_layers=2"), "--seconds", "0.5"]
    done = asr_lab(*common, cwd=tmp_path, COLUMNS="80")
    assert done.returncode == 0 and max(map(len, done.stdout.splitlines())) <= 80
    assert "MACs a second of audio" in done.stdout and "ConvSubsampling" in done.stdout
    pictures = ["--attention", "maps", "--saliency", "s.png", "--graph", "g.svg"]
    done = asr_lab(*common, *pictures, "--json", "--module", "encoder.layers.0", cwd=tmp_path)
    assert json.loads(done.stdout)["path"] == "encoder.layers.0"
    wrote = ["maps/1.encoder.layers.0.self_attn.png", "maps/2.encoder.layers.1.self_attn.png", "s.png", "g.svg"]
    assert done.stderr.splitlines() == [f"wrote {name}" for name in wrote]
    assert all((tmp_path / name).read_bytes()[:4] == b"\x89PNG" for name in wrote[:3])
    texts = [t.text for t in ET.parse(tmp_path / "g.svg").iter("{http://www.w3.org/2000/svg}text")]
    assert {"encoder.layers.0", "self_attn", "1×13×32"} <= set(texts)
    done = asr_lab(*common, "--module", "encoder.layers.0.self_attn", cwd=tmp_path)
    assert "steps inside" in done.stdout and "pos_bias_u" in done.stdout


def test_the_same_picture_is_the_same_file(tmp_path):
    maps = [Map("encoder.layers.0.self_attn", torch.eye(3).expand(5, 3, 3))]
    first, second = (draw_attention(tmp_path / name, maps, 1.0, "a $b_{$ & <d> 你")[0] for name in ("1.svg", "2.svg"))
    assert first.read_bytes() == second.read_bytes()
    ET.parse(first)


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (["--module", "encoder.layers.0.self_atn"], "did you mean 'encoder.layers.0.self_attn'"),
        (["--seconds", "0"], "--seconds 0: wanted is a time above 0"),
        pytest.param(["--seconds", "nan"], "--seconds nan", marks=pytest.mark.slow),
        pytest.param(["--seconds", "1e9"], "at most 120 s", marks=pytest.mark.slow),
        pytest.param(["--depth", "0"], "--depth 0", marks=pytest.mark.slow),
        (["--utterance", "val99"], "no such utterance in the corpus; did you mean 'val"),
        (["--split", "vla"], "did you mean 'val'"),
        (["--audio", "nowhere.wav"], "missing file: nowhere.wav"),
        (["--audio", "text.txt"], "not audio: text.txt"),
        (["--audio", "wide.wav"], "16000 Hz"),
        (["--audio", "text.txt", "--split", "val"], "features come from one of them"),
        (["--attention", "a.doc"], "--attention a.doc: wanted is a file ending in .png"),
        pytest.param(["--saliency", "folder"], "--saliency folder: wanted", marks=pytest.mark.slow),
        (["--graph", "g.png"], "ending in .svg"),
        pytest.param(["--graph", "folder.svg"], "folder.svg: is a folder", marks=pytest.mark.slow),
        pytest.param(["--attention", "text"], "text is a file, no folder", marks=pytest.mark.slow),
        pytest.param(["--graph", "text.txt/g.svg"], "text.txt is a file, no folder", marks=pytest.mark.slow),
        pytest.param(["--saliency", "text.txt/g.png"], "text.txt is a file, no folder", marks=pytest.mark.slow),
        (["--module", "encoder.layers", "--graph", "g.svg"], "is not called itself"),
        (["encoder=bilstm", "--attention", "a.png"], "RecurrentEncoder has no attention weights"),
        pytest.param(["encoder.n_heads=3"], "encoder.n_heads: no such key", marks=pytest.mark.slow),
        pytest.param(["encoder=confromer"], "did you mean 'conformer'", marks=pytest.mark.slow),
        (["encoder/subsampling=conv2d4", "encoder.subsampling.padding=valid", "--seconds", "0.01"], "conf/encoder: "),
    ],
)
@pytest.mark.quick(4)
def test_mistakes_are_one_line(args, hint, asr_lab, tones, tmp_path):
    for name in ("text", "text.txt"):
        (tmp_path / name).write_text("no sound")
    (tmp_path / "folder.svg").mkdir()
    soundfile.write(tmp_path / "wide.wav", torch.zeros(1600).numpy(), 16000)
    bilstm = ["encoder=bilstm"] if "encoder=bilstm" in args else []
    base = tiny(tones, *bilstm)
    short = [] if "--seconds" in args else ["--seconds", "0.5"]
    done = asr_lab("inspect", *base, *args, *short, cwd=tmp_path)
    assert hint in only_line(done) and not done.stdout
    assert not list(tmp_path.rglob("*.png")) and not (tmp_path / "g.svg").exists()


def test_a_run_is_opened_by_its_name_and_has_no_overrides(asr_lab, trained, tmp_path):
    run, _ = trained("encoder=bilstm", "trainer.max_epochs=1", name="outputs/e/cell")
    done = asr_lab("inspect", "--run", "cell", "--split", "val", "--saliency", "s.svg", cwd=tmp_path)
    assert done.returncode == 0 and "decoder" in done.stdout and (tmp_path / "s.svg").exists()
    assert "give one of them" in only_line(asr_lab("inspect", "seed=2", "--run", "cell", cwd=tmp_path))
    assert "no run 'nowhere'" in only_line(asr_lab("inspect", "--run", "nowhere", cwd=tmp_path))
    for part in run.checkpoints.glob("*"):
        part.unlink()
    assert "no checkpoint 'best'" in only_line(asr_lab("inspect", "--run", "cell", cwd=tmp_path))

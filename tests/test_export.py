"""An exported network gives what the run gives, at any length, or nothing is written."""

import json
import sys

import pytest
import torch

from asr_lab.build import build
from asr_lab.errors import ConfigError, DataError, RunError
from asr_lab.export import FORMATS, export, load
from asr_lab.export.check import check_lengths, check_speech
from asr_lab.export.formats import TorchScript
from asr_lab.export.network import Network
from asr_lab.layers.stacking import FrameStacking

from .conftest import choices, families, make_run, only_line, tiny

# A trace has no loop over frames, and this has one.
LOOPS = {"ligru"}


@pytest.fixture(scope="module")
def run_of(tones, tmp_path_factory):
    """`run_of(encoder) -> Run` with a checkpoint of first weights: its hypotheses are long, and change with little."""
    made = {}

    def go(encoder: str, *overrides: str):
        if (encoder, *overrides) not in made:
            run = make_run(tmp_path_factory.mktemp(encoder), tiny(tones, f"encoder={encoder}", *overrides))
            torch.manual_seed(3)
            task = build(run.config).task
            run.checkpoints.mkdir()
            torch.save(
                {"state_dict": task.state_dict(), "belongings": task.belongings, "global_step": 0}, run.best_checkpoint
            )
            made[encoder, *overrides] = run
        return made[encoder, *overrides]

    return go


def speech(n_features: int, *lens: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(len(lens))
    return torch.randn(len(lens), max(lens), n_features, generator=generator), torch.tensor(lens)


def compare(run, format: str, folder) -> dict:
    """Exported by the command's function, read back from the disk, at lengths that no check has seen."""
    about = export(run, format, folder, n_checked=4)
    exported = FORMATS[format].read((folder / FORMATS[format].file).read_bytes())
    loaded = load(run, "best")
    network = Network(loaded.task, loaded.frontend.out_dim).eval()
    with torch.no_grad():
        for lens in ([23], [131, 8, 64, 77], [512, 511]):
            batch = speech(network.n_features, *lens)
            (want, want_lens), (got, got_lens) = network(*batch), exported(*batch)
            assert torch.equal(got_lens, want_lens)
            for a, b, n in zip(got, want, want_lens.tolist(), strict=True):
                torch.testing.assert_close(a[:n], b[:n], rtol=1e-4, atol=1e-4)
            assert network.hypotheses(got, got_lens) == network.hypotheses(want, want_lens)
            assert any(network.hypotheses(got, got_lens))
    return about


@pytest.mark.parametrize("encoder", families("bilstm", "conformer"))
def test_torchscript_equals_the_run(encoder, run_of, tmp_path):
    if encoder in LOOPS:
        for format in ("torchscript", "int8"):
            with pytest.raises(ConfigError, match=r"RecurrentEncoder cannot be traced .*; choose onnx"):
                export(run_of(encoder), format, tmp_path, n_checked=4)
        assert not list(tmp_path.iterdir())
        return
    about = compare(run_of(encoder), "torchscript", tmp_path)
    assert json.loads((tmp_path / "export.json").read_text())["check"] == about["check"]
    assert about["check"]["utterances"] == about["check"]["equal_hypotheses"] == 4
    assert about["files"] == {"model.torchscript.pt": (tmp_path / "model.torchscript.pt").stat().st_size}
    assert (about["labels"][0], about["outputs"]) == ("<blank>", ["log_probs", "lens"])


@pytest.mark.slow
@pytest.mark.parametrize("encoder", choices("encoder"))
def test_onnx_equals_the_run_or_is_refused(encoder, run_of, tmp_path):
    pytest.importorskip("onnxruntime", reason="pip install 'asr-lab[export]'")
    if encoder == "zipformer":
        with pytest.raises(ConfigError, match=r"cannot follow ZipformerEncoder .* out of: .*bilstm, .*conformer, "):
            export(run_of(encoder), "onnx", tmp_path, n_checked=4)
    elif encoder in ("mamba", "mamba_streaming"):
        with pytest.raises((ConfigError, RunError), match=r"cannot follow MambaEncoder|the export is refused"):
            export(run_of(encoder), "onnx", tmp_path, n_checked=4)
    else:
        about = compare(run_of(encoder), "onnx", tmp_path)
        assert about["opset"] == 18 and about["versions"]["onnxruntime"]
        return
    assert not load(run_of(encoder), "best").task.encoder.exports
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("encoder", families("bilstm", "conformer"))
def test_int8_is_smaller_and_decodes(encoder, run_of, tmp_path):
    if encoder in LOOPS:
        pytest.skip("no trace of it")
    about = export(run_of(encoder), "int8", tmp_path, n_checked=4)
    float32, int8 = about["table"]
    assert (float32["weights"], int8["weights"], int8["utterances"]) == ("float32", "int8", 6)
    assert int8["bytes"] == (tmp_path / "model.int8.pt").stat().st_size
    for row in (float32, int8):
        rate, low, high = row["wer"]
        assert low <= rate <= high and row["real_time"] > 0
    table = (tmp_path / "int8.md").read_text().splitlines()
    assert table[2].startswith("| float32 | ") and table[3].startswith("| int8 | ")
    assert f"| {100 * int8['wer'][0]:.2f} (" in table[3]
    assert json.loads((tmp_path / "int8.json").read_text())[1]["bytes"] == int8["bytes"]
    exported = torch.jit.load(tmp_path / "model.int8.pt")
    with torch.no_grad():
        log_probs, _ = exported(*speech(about["n_features"], 90, 45))
    assert log_probs.shape[2] == len(about["labels"]) and log_probs.exp().sum(-1)[0, 0] == pytest.approx(1, abs=1e-4)
    kinds = {type(m).__module__ for m in FORMATS["int8"].prepare(network_of(run_of(encoder))).modules()}
    assert any("quantized" in kind for kind in kinds)


def test_of_another_decoder_the_encoder_is_exported_and_its_own_search_checks(run_of, tmp_path):
    about = compare(run_of("bilstm", "decoder=attention"), "torchscript", tmp_path)
    assert (about["outputs"], about["blank"], about["labels"]) == (["hidden", "lens"], None, None)
    assert about["check"]["equal_hypotheses"] == 4


def test_of_a_joint_decoder_the_ctc_layer_is_exported(run_of, tmp_path):
    about = compare(run_of("conformer", "decoder=joint"), "torchscript", tmp_path)
    assert about["outputs"] == ["log_probs", "lens"] and about["labels"][about["blank"]] == "<blank>"


def network_of(run) -> Network:
    loaded = load(run, "best")
    return Network(loaded.task, loaded.frontend.out_dim).eval()


@torch.no_grad()
def test_int8_weights_take_a_quarter(run_of):
    """Of a linear layer of 256 x 256, in which little else is stored."""
    network = network_of(run_of("conformer", "encoder.d_model=256"))
    sizes = [len(FORMATS[f].write(FORMATS[f].prepare(network))) for f in ("torchscript", "int8")]
    assert sizes[1] < 0.4 * sizes[0]


class TestTheCheck:
    """A broken export never passes."""

    @pytest.fixture
    def network(self, run_of):
        return network_of(run_of("bilstm"))

    @pytest.fixture(autouse=True)
    def _no_grad(self):
        with torch.no_grad():
            yield

    def test_passes_the_network_itself(self, network):
        assert check_lengths(network, network) == {"difference": 0.0}

    @pytest.mark.parametrize(
        ("broken", "says"),
        [
            (lambda frames, lens: (frames + 0.01, lens), "differs by 0.01 from the run's network"),
            (lambda frames, lens: (frames * float("nan"), lens), "differs by nan"),
            (lambda frames, lens: (frames[:, :-1], lens), "it gives "),
            (lambda frames, lens: (frames, lens - 1), "it gives "),
            (lambda frames, lens: frames[9], "fails where the run's network does not .*IndexError"),
        ],
        ids=["shifted", "nan", "shorter", "lengths", "fails"],
    )
    def test_refuses_other_numbers(self, broken, says, network):
        with pytest.raises(RunError, match=says):
            check_lengths(network, lambda *batch: broken(*network(*batch)))

    def test_refuses_what_holds_for_one_length_only(self, network):
        def padded(feats, lens):
            frames, out_lens = network(feats, lens)
            return frames + 0.1 * (feats.shape[1] == 301), out_lens

        with pytest.raises(RunError, match="5 x 301"):
            check_lengths(network, padded)

    def test_refuses_another_hypothesis_and_names_the_utterance(self, network, run_of):
        parts = load(run_of("bilstm"), "best").parts
        want = check_speech(network, network, parts, 5)
        assert want == {"difference_on_speech": 0.0, "utterances": 5, "equal_hypotheses": 5}
        # All labels are neck and neck: rounding is within the tolerance, and yet gives another hypothesis.
        network.decoder.output.weight.zero_()
        network.decoder.output.bias.copy_(torch.arange(len(network.decoder.output.bias)) * 1e-5)
        with pytest.raises(RunError, match=r"for val\d it gives '.*', the run '.+'"):
            check_speech(network, lambda *b: (network(*b)[0].round(decimals=3), network(*b)[1]), parts, 5)

    def test_leaves_no_file(self, run_of, tmp_path, monkeypatch):
        read = TorchScript.read
        monkeypatch.setattr(TorchScript, "read", lambda self, content: _louder(read(self, content)))
        with pytest.raises(RunError, match="nothing was written"):
            export(run_of("bilstm"), "torchscript", tmp_path / "out", n_checked=2)
        assert not (tmp_path / "out").exists()


def _louder(exported):
    return lambda *batch: (1.1 * exported(*batch)[0], exported(*batch)[1])


def test_without_the_corpus_random_features_are_compared(run_of, tones, tmp_path):
    run = run_of("bilstm")
    here = run.config["data"]["manifest"]
    run.config["data"]["manifest"] = str(tmp_path / "gone.jsonl")
    try:
        about = export(run, "torchscript", tmp_path / "out", n_checked=4)
        assert about["check"]["utterances"] == 0 and "gone.jsonl" in about["check"]["why"]
        with pytest.raises(DataError, match=r"gone.jsonl.*--format int8 measures error rates"):
            export(run, "int8", tmp_path / "int8", n_checked=4)
    finally:
        run.config["data"]["manifest"] = here
    assert not (tmp_path / "int8").exists()


def test_blanks_and_repeats_of_a_path(run_of):
    network = network_of(run_of("bilstm"))
    symbols = network._tokenizer.symbols
    a, b = symbols.index("a") + 1, symbols.index("b") + 1
    path = torch.tensor([[0, a, a, 0, a, b, b, 0, b, 0], [b, 0, a, a, a, a, a, a, a, a]])
    frames = torch.nn.functional.one_hot(path, len(symbols) + 1).float()
    assert network.hypotheses(frames, torch.tensor([10, 2])) == ["aabb", "b"]


@pytest.mark.parametrize("n_frames", [1, 2, 5, 6, 7, 29, 30])
def test_stacking_pads_to_a_whole_stack(n_frames):
    feats, lens = speech(4, n_frames)
    stacked, out_lens = FrameStacking(n_stacked=5, stride=3)(feats, lens)
    n_out = -(-n_frames // 3)
    assert stacked.shape == (1, n_out, 20) and out_lens.tolist() == [n_out]
    padded = torch.cat([feats[0], torch.zeros(6, 4)])
    for u in range(n_out):
        assert torch.equal(stacked[0, u], padded[3 * u : 3 * u + 5].flatten())


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--format", "onx"], "--format onx: no such format; did you mean 'onnx'?"),
        (["--format", "int8", "--check", "0"], "--check 0: at least 1 utterance"),
        (["--format", "int8", "--out", __file__], "test_export.py: a file is in the way; name a folder"),
        (["--format", "int8", "--checkpoint", "bset"], "no checkpoint 'bset'; did you mean 'best'?"),
    ],
)
def test_mistakes_are_one_line(args, says, run_of, asr_lab, tmp_path):
    assert says in only_line(asr_lab("export", str(run_of("bilstm").folder), *args, cwd=tmp_path))


def test_a_missing_package_and_a_run_without_checkpoint(run_of, tones, asr_lab, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    line = only_line(asr_lab("export", str(run_of("bilstm").folder), cwd=tmp_path))
    assert "is not installed; pip install 'asr-lab[export]'" in line
    bare = make_run(tmp_path / "bare", tiny(tones, "encoder=bilstm"))
    line = only_line(asr_lab("export", str(bare.folder), "--format", "torchscript", cwd=tmp_path))
    assert "no checkpoint 'best'; none was saved" in line


def test_the_command_writes_into_the_run(run_of, asr_lab, tmp_path):
    run = run_of("bilstm")
    done = asr_lab("export", str(run.folder), "--format", "torchscript", "--check", "3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "feats, feat_lens -> log_probs, lens" in done.stdout
    assert "checked: 3 of 3 hypotheses are equal" in done.stdout
    assert sorted(p.name for p in (run.folder / "export" / "torchscript").iterdir()) == [
        "export.json",
        "model.torchscript.pt",
    ]

"""What encoders cost, against sums done by hand, and sizes that are found for a cost that is wished."""

import json

import pytest
import torch
import yaml
from torch import nn

from asr_lab import match
from asr_lab.build import call, make
from asr_lab.cost import cost, frames_per_second, macs, n_parameters
from asr_lab.errors import ConfigError
from asr_lab.report.collect import collect
from asr_lab.run import fingerprint
from asr_lab.step_time import step_times
from asr_lab.sweep.cell import factors, resolved

from .conftest import composed, families, only_line, tiny

PLAIN = ["data=manifest", "data.manifest=x.jsonl"]


def config_of(*overrides: str) -> dict:
    return resolved(composed(*PLAIN, *overrides))


def encoder_of(config: dict, in_dim: int = 80):
    with torch.device("meta"):
        return call(config, "encoder", in_dim=in_dim)


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch, tmp_path):
    """Nothing that another test found is known."""
    monkeypatch.setattr(match, "_kept", {})
    monkeypatch.setenv("ASR_LAB_CACHE", str(tmp_path / "cache"))


# Costs


class Wrapped(nn.Module):
    """A user's own encoder of one layer, without anything that it need not have."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, feats, lens):
        out = self.layer(feats)
        return (out[0] if isinstance(out, tuple) else out), lens


class ReadsValues(Wrapped):
    """It cannot run on the meta device."""

    def forward(self, feats, lens):
        n = int(lens.max())
        packed = nn.utils.rnn.pack_padded_sequence(feats[:, :n], lens, batch_first=True)
        return nn.utils.rnn.pad_packed_sequence(self.layer(packed)[0], batch_first=True)


@pytest.mark.parametrize(
    ("encoder", "by_hand"),
    [
        (Wrapped(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))), 50 * (8 * 16 + 16 * 4)),
        (Wrapped(nn.RNN(8, 5, batch_first=True)), 50 * 5 * (8 + 5)),
        (Wrapped(nn.GRU(8, 5, num_layers=2, batch_first=True)), 50 * 3 * 5 * ((8 + 5) + (5 + 5))),
        (Wrapped(nn.LSTM(8, 6, proj_size=3, batch_first=True)), 50 * (4 * 6 * (8 + 3) + 6 * 3)),
        (ReadsValues(nn.LSTM(8, 5, bidirectional=True, batch_first=True)), 50 * 2 * 4 * 5 * (8 + 5)),
    ],
    ids=["linear", "rnn", "gru", "lstmp", "packed"],
)
def test_macs_of_a_layer(encoder, by_hand):
    assert macs(encoder, in_dim=8, n_frames=50) == by_hand


def test_macs_of_bilstm():
    encoder = encoder_of(config_of("encoder=bilstm", "encoder.d_hidden=20", "encoder.n_layers=2"))
    per_frame = sum(2 * 4 * 20 * (width + 20) for width in (3 * 80, 2 * 20))  # 3 frames are stacked
    assert macs(encoder, 80, 100) == 34 * per_frame


def test_macs_of_conformer():
    sizes = {"d_model": 32, "n_layers": 2, "kernel_size": 7, "attention.n_heads": 2, "subsampling.channels": 8}
    overrides = [f"encoder.{k}={v}" for k, v in sizes.items()]
    encoder = encoder_of(config_of("encoder=conformer", "encoder/attention=sinusoidal", *overrides))
    u, d = 25, 32  # of 100 frames of 80 bands: (50, 40), then (25, 20)
    front = 9 * 8 * 50 * 40 + (9 * 8 + 8 * 8) * 25 * 20 + u * (8 * 20) * d
    feed_forward, attention, convolution = 2 * 4 * d * d, 4 * d * d + 2 * u * d, 2 * d * d + 7 * d + d * d
    assert macs(encoder, 80, 100) == front + 2 * u * (2 * feed_forward + attention + convolution)


def test_counting_leaves_the_encoder_and_the_draws_alone():
    encoder = Wrapped(nn.Sequential(nn.BatchNorm1d(50), nn.Linear(8, 4), nn.Dropout(0.5))).train()
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    draws = torch.random.get_rng_state()
    cost(encoder, in_dim=8, rate=5.0)
    assert encoder.training
    assert all(torch.equal(v, before[k]) for k, v in encoder.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), draws)


def test_cost_of_what_says_little():
    """A user's own encoder without a receptive field, and one that cannot be counted: no training ends for that."""
    assert cost(Wrapped(nn.Linear(8, 4)), 8, 100.0) == {"parameters": 36, "macs_per_audio_second": 3200}
    assert cost(Wrapped(nn.Bilinear(2, 2, 2)), 8, 100.0) == {"parameters": 10, "macs_per_audio_second": None}


def test_receptive_field_in_seconds():
    config = config_of("encoder=conformer", "encoder/subsampling=conv2d4")
    encoder = encoder_of(config)
    assert cost(encoder, 80, 100.0)["receptive_field_s"] == [None, None]
    assert cost(encoder.subsampling, 80, 50.0)["receptive_field_s"] == [0.06, 0.06]


@pytest.mark.parametrize(
    ("overrides", "rate", "width"),
    [
        (["frontend=logmel"], 100, 80),
        (["frontend=logmel", "frontend.hop_ms=20"], 50, 80),
        (["frontend=logmel", "frontend/head=stacking"], 50, 160),
        (["frontend=waveform"], 100, 40),
    ],
)
def test_frame_rate_and_width_are_those_behind_the_head(overrides, rate, width):
    config = config_of("data.sample_rate=16000", *overrides)
    frontend = make(config, "frontend")
    head = frontend.head(in_dim=frontend.out_dim)
    assert frames_per_second(frontend, head, 16000) == rate
    assert head.out_dim == width


# Sizes


def ignores_size(name: str) -> bool:
    small, large = (config_of(f"encoder={name}", f"size={s}")["encoder"] for s in ("small", "large"))
    return small == large


@pytest.mark.parametrize("by", ["parameters", pytest.param("macs", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", families("bilstm", "conformer", "quartznet"))
@pytest.mark.quick(1)
def test_every_family_is_matched(name, by):
    if ignores_size(name):
        pytest.skip("a preset of one size")
    target = {"parameters": 1.5e6, "macs": 5e7}[by]
    config = config_of(f"encoder={name}", "size=tiny", f"match.by={by}", f"match.target={target}")
    found = cost(encoder_of(config), 80, 100.0)
    value = found["parameters" if by == "parameters" else "macs_per_audio_second"]
    assert value == pytest.approx(target, rel=0.03)
    match._kept.clear()
    assert match.matched(config) == config  # nothing is left to be done


def test_the_encoder_behind_the_head_is_what_is_matched():
    wish = ["encoder=bilstm", "match.by=parameters", "match.target=4e5"]
    config = config_of(*wish, "frontend/head=stacking")
    assert n_parameters(encoder_of(config, in_dim=160)) == pytest.approx(4e5, rel=0.03)
    assert n_parameters(encoder_of(config, in_dim=80)) < 0.97 * 4e5


def test_depth_changes_as_little_as_widths_allow():
    """Widths that 48 heads divide are coarse; every smaller change of depth is tried here and misses."""
    overrides = ["encoder=conformer", "encoder.attention.n_heads=48", "encoder.subsampling.channels=8"]
    preset = config_of(*overrides, "encoder.d_model=96")["encoder"]
    target = 1.15e6
    found = config_of(*overrides, "match.by=parameters", f"match.target={target}")["encoder"]
    assert found["d_model"] % 48 == 0
    assert n_parameters(encoder_of({"encoder": found})) == pytest.approx(target, rel=0.03)
    change = abs(found["n_layers"] - preset["n_layers"])
    assert change > 0
    for depth in range(preset["n_layers"] - change + 1, preset["n_layers"] + change):
        for width in (48, 96, 144, 192, 240):
            sizes = {"d_model": width, "n_layers": depth}
            assert abs(n_parameters(encoder_of({"encoder": preset | sizes})) / target - 1) > 0.03


def test_what_was_found_is_what_counts():
    wish = composed(*PLAIN, "encoder=bilstm", "match.by=parameters", "match.target=1e6")
    found = resolved(wish)
    sizes = {k: found["encoder"][k] for k in ("d_hidden", "n_layers")}
    by_hand = config_of("encoder=bilstm", *(f"encoder.{k}={v}" for k, v in sizes.items()))
    assert fingerprint(found) == fingerprint(by_hand) != fingerprint(config_of("encoder=bilstm"))
    chosen = factors(wish.hydra, found)
    assert chosen["match.found"] == f"d_hidden {sizes['d_hidden']}, n_layers {sizes['n_layers']}"
    assert (chosen["match.by"], chosen["match.target"]) == ("parameters", 1e6)


def test_keys_that_follow_the_width_follow_the_one_that_is_found():
    tied = ["encoder=conformer", "encoder.subsampling.channels=${encoder.d_model}"]
    node = config_of(*tied, "match.by=parameters", "match.target=1e6")["encoder"]
    assert node["subsampling"]["channels"] == node["d_model"] != 144
    assert n_parameters(encoder_of({"encoder": node})) == pytest.approx(1e6, rel=0.03)


class Widthless(Wrapped):
    """A user's own encoder that has no sizes."""

    def __init__(self, in_dim: int):
        super().__init__(nn.Linear(in_dim, 4))


class Fives(Wrapped):
    """A user's own encoder: no depth, and widths that 5 divides."""

    def __init__(self, in_dim: int, d_model: int):
        if d_model % 5:
            raise ValueError("d_model wants to be divided by 5")
        super().__init__(nn.Linear(in_dim, d_model, bias=False))
        self.out_dim = d_model


def test_a_users_own_encoder():
    own = {"_target_": f"{__name__}.Fives", "_partial_": True, "d_model": 20}
    config = config_of() | {"encoder": own, "match": {"by": "parameters", "target": 80 * 1003}}
    assert match.matched(config)["encoder"]["d_model"] == 1000  # a multiple of 40, which is near enough
    config["match"] = {"by": "parameters", "target": 80 * 26}
    with pytest.raises(
        ConfigError, match=r"no width of Fives has so many parameters; the nearest is 2,000, with d_mod"
    ):
        match.matched(config)
    config["encoder"] = own | {"d_model": 21}
    config["match"] = {"by": "parameters", "target": 80 * 25}
    assert match.matched(config)["encoder"]["d_model"] == 25


def test_step_time_is_as_near_as_measured_and_kept_for_the_next_process(monkeypatch):
    monkeypatch.setattr(match, "step_times", lambda encoders, *_: [1e-7 * n_parameters(e) for e in encoders])
    wish = ["encoder=bilstm", "size=tiny", "match.by=step_time", "match.target=0.05"]
    config = config_of(*wish)
    assert n_parameters(encoder_of(config)) == pytest.approx(5e5, rel=0.1)
    assert config["encoder"]["d_hidden"] % 8 == 0
    match._kept.clear()
    monkeypatch.setattr(match, "step_times", None)
    assert config_of(*wish) == config == match.matched(config)


def test_step_times_are_of_training_steps():
    encoders = [Wrapped(nn.Linear(8, n)) for n in (4, 64)]
    threads, draws = torch.get_num_threads(), torch.random.get_rng_state()
    times = step_times(encoders, in_dim=8, rate=100.0, rounds=2)
    assert len(times) == 2
    assert min(times) > 0
    assert all(p.grad is not None for e in encoders for p in e.parameters())
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), draws)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["match.by=parameter"], "match.by: there is no 'parameter'; did you mean 'parameters'"),
        (["match.by=parameters"], r"match.target: a positive number of parameters is wanted .*, 'none' came"),
        (["match.by=macs", "match.target=-3"], "a positive number of multiply-accumulate operations .*, -3 came"),
        (["match.by=macs", "match.target=3M"], "'3M' came"),
        (["match.target=3e6"], "match.target=3000000.0 says nothing without match.by=parameters"),
        (
            ["match.by=parameters", "match.target=100"],
            "no width of Recurrent.* has so many parameters; the nearest is .* d_h",
        ),
        (["match.by=parameters", "match.target=1e6", "encoder.dropout=2"], "conf/encoder: dropout is a probability"),
        (["match.by=parameters", "match.target=1e6", "+encoder.d_modl=2"], "unexpected 'd_modl'"),
    ],
)
def test_wishes_that_cannot_be_met(overrides, says):
    with pytest.raises(ConfigError, match=says):
        config_of("encoder=bilstm", "size=tiny", *overrides)


def test_an_encoder_without_a_width_cannot_be_matched():
    config = config_of() | {"match": {"by": "parameters", "target": 1e6}}
    config["encoder"] = {"_target_": f"{__name__}.Widthless", "_partial_": True}
    with pytest.raises(ConfigError, match="Widthless has neither d_model nor d_hidden"):
        match.matched(config)


@pytest.mark.slow
def test_on_the_command_line(tones, tmp_path, asr_lab):
    run = [o for o in tiny(tones, "encoder=bilstm") if not o.startswith("encoder.")]
    args = ["train", *run, "trainer.max_steps=1", "match.by=parameters"]
    done = asr_lab(*args, "match.target=2e4", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    [folder] = (tmp_path / "outputs" / "adhoc").iterdir()
    result = json.loads((folder / "result.json").read_text())
    assert result["encoder"]["parameters"] == pytest.approx(2e4, rel=0.03)
    assert result["encoder"]["macs_per_audio_second"] > 1e4
    assert result["encoder"]["receptive_field_s"] == [None, None]
    frozen = yaml.safe_load((folder / "config.yaml").read_text())
    assert fingerprint(frozen) == result["fingerprint"]
    assert folder.name.endswith(result["fingerprint"][:8])
    assert f"d_hidden {frozen['encoder']['d_hidden']}," in result["factors"]["match.found"]
    [cell] = collect(folder.parent).cells
    assert cell.numbers["encoder/macs_per_audio_second"] == result["encoder"]["macs_per_audio_second"]
    assert cell.numbers["encoder/sees_before_s"] == float("inf")
    assert asr_lab(*args, "match.target=2e4", cwd=tmp_path).returncode == 0
    assert json.loads((folder / "result.json").read_text()) == result  # it was done already
    assert "match.target=1: no width of" in only_line(asr_lab(*args, "match.target=1", cwd=tmp_path))

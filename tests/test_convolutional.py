"""Convolutional encoders: published sizes, known answers, exact receptive fields, pieces of any length, bad values."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_lab.build import call
from asr_lab.cost import n_parameters
from asr_lab.encoders.cnn import CnnEncoder
from asr_lab.encoders.contextnet import ContextNetEncoder
from asr_lab.encoders.quartznet import QuartzNetEncoder
from asr_lab.encoders.tds import TdsEncoder
from asr_lab.errors import ConfigError
from asr_lab.layers.conv import Past, SqueezeExcitation, TimeConv
from asr_lab.layers.masks import valid_frames
from asr_lab.layers.stages import spread
from asr_lab.sweep.cell import resolved

from .conftest import composed, tiny

WIDTH = 8
COMPOSED: dict[str, dict] = {}
SMALL_QUARTZNET = {
    "d_model": 16,
    "n_layers": 2,
    "n_repeats": 2,
    "prologue": [5, 0.5, 3],
    "blocks": [[3, 0.5], [7, 1]],
    "epilogue": [[5, 1, 2], [1, 2, 1]],
    "norm": "batch",
    "dropout": 0.0,
}
SMALL_TDS = {
    "d_model": 16,
    "n_layers": 3,
    "n_stacked": 2,
    "stages": [[1, 0.5], [2, 1]],
    "strides": [2, 3],
    "kernel_size": 6,
    "dropout": 0.0,
}


def quartznet(causal: bool, **changes) -> QuartzNetEncoder:
    torch.manual_seed(0)
    return QuartzNetEncoder(WIDTH, causal=causal, **{**SMALL_QUARTZNET, **changes}).eval()


def tds(lookahead: float, **changes) -> TdsEncoder:
    torch.manual_seed(0)
    return TdsEncoder(WIDTH, lookahead=lookahead, **{**SMALL_TDS, **changes}).eval()


def cnn(**changes) -> CnnEncoder:
    torch.manual_seed(0)
    values = {"d_model": 16, "n_layers": 2, "kernel_size": 3, "norm": "batch", "dropout": 0.0}
    stages = [[0.25, 2, 2], [0.5, 3, 2], [1, 1, 2]]
    return CnnEncoder(WIDTH, **{**values, "stages": stages, **changes}).eval()


def contextnet(**changes) -> ContextNetEncoder:
    torch.manual_seed(0)
    values = {
        "d_model": 16,
        "n_layers": 4,
        "n_repeats": 2,
        "kernel_size": 5,
        "stages": [[1, 0.5], [1, 0.5], [3, 1], [1, 1.25]],
        "strides": [1, 2, 2, 1],
        "reduction": 4,
        "norm": "batch",
        "dropout": 0.0,
    }
    return ContextNetEncoder(WIDTH, **{**values, **changes}).eval()


def on_meta(*overrides: str):
    with torch.device("meta"):
        return call(resolved(composed(*overrides)), "encoder", in_dim=80)


@pytest.mark.parametrize(("n_layers", "millions"), [(5, 6.7), (10, 12.8), (15, 18.9)])
def test_quartznet_has_the_published_number_of_parameters(n_layers, millions):
    """Table 2 of Kriman et al. 2019; 64 mel bands and a last layer of 29 labels go into it."""
    encoder = QuartzNetEncoder(
        64, **{**resolved_encoder("quartznet"), "d_model": 512, "n_layers": n_layers, "n_repeats": 5}
    )
    decoder = (encoder.out_dim + 1) * 29
    assert round((n_parameters(encoder) + decoder) / 1e6, 1) == millions


def resolved_encoder(name: str) -> dict:
    node = resolved(composed(f"encoder={name}"))["encoder"]
    return {k: v for k, v in node.items() if not k.startswith("_")}


def test_contextnet_has_the_published_blocks():
    """Table 1 of Han et al. 2020: where the strides and the widths change, with alpha = 1 and all strides."""
    encoder = on_meta(
        "encoder=contextnet", "encoder.d_model=512", "encoder.n_layers=21", "encoder.strides=[1,2,2,1,2,1,1]"
    )
    assert len(encoder.layers) == 23
    assert [i for i, layer in enumerate(encoder.layers) if layer.stride == 2] == [3, 7, 14]
    assert [layer.out_dim for layer in encoder.layers] == [256] * 11 + [512] * 11 + [640]
    assert [len(layer.convs) for layer in encoder.layers] == [1, *[5] * 21, 1]
    assert [layer.around is not None for layer in encoder.layers] == [False, *[True] * 21, False]
    assert int(encoder.output_lengths(torch.tensor(81))) == 11


def test_tds_has_the_published_shapes():
    """Figure 2 of Hannun et al. 2019: 2, 3 and 6 blocks on 80 bands of 10, 14 and 18 channels; a frame in eight."""
    encoder = on_meta(
        "encoder=tds", "encoder.d_model=1440", "encoder.n_layers=11", "encoder.n_stacked=1", "encoder.strides=[2,2,2]"
    )
    channels = [layer.conv.out_channels for layer in encoder.layers]
    assert channels == [10] * 3 + [14] * 4 + [18] * 7
    assert encoder.out_dim == 1440
    assert encoder.output_lengths(torch.tensor([1, 8, 9])).tolist() == [1, 1, 2]


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (3, 2)])
def test_time_conv_is_conv1d(groups, stride, dilation):
    """Against `nn.Conv1d` on the transposed input, gradients too."""
    torch.manual_seed(0)
    conv = TimeConv(4, 4, 5, n_right=2 * dilation, stride=stride, dilation=dilation, groups=groups)
    plain = torch.nn.Conv1d(4, 4, 5, stride, 2 * dilation, dilation, groups)
    plain.load_state_dict({k: v.squeeze(-1) if k == "weight" else v for k, v in conv.state_dict().items()})
    x = torch.randn(2, 17, 4, requires_grad=True)
    ours, theirs = conv(x, torch.ones(2, 17, dtype=torch.bool)), plain(x.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(ours, theirs)
    weights = torch.randn_like(ours)
    for a, b in zip(*(torch.autograd.grad((y * weights).sum(), x) for y in (ours, theirs)), strict=True):
        torch.testing.assert_close(a, b)


def test_bands_share_weights():
    """Two bands side by side give what each gives alone."""
    torch.manual_seed(0)
    conv = TimeConv(3, 5, 3, n_right=1, n_bands=2)
    x, mask = torch.randn(1, 9, 6), torch.ones(1, 9, dtype=torch.bool)
    both = conv(x, mask)
    conv.n_bands = 1
    torch.testing.assert_close(both, torch.cat([conv(x[:, :, :3], mask), conv(x[:, :, 3:], mask)], dim=2))


def test_squeeze_excitation_knows_the_valid_mean():
    """By hand: one channel that is squeezed and excited by 1, no bias."""
    layer = SqueezeExcitation(1, reduction=1)
    with torch.no_grad():
        for p in layer.parameters():
            p.fill_(1.0 if p.ndim == 2 else 0.0)
    x = torch.tensor([[[1.0], [3.0], [float("nan")]]])
    y = layer(x, valid_frames(torch.tensor([2]), 3))
    mean = torch.tensor(2.0)
    want = torch.sigmoid(mean * torch.sigmoid(mean))
    torch.testing.assert_close(y[0, :2, 0], torch.tensor([1.0, 3.0]) * want)


@pytest.mark.parametrize("seen", [True, False])
def test_contextnet_hears_the_end_at_the_beginning(seen):
    """Squeeze-excitation does, and nothing else: with its gates held still the last frame is not heard."""
    encoder = contextnet()
    if not seen:
        for layer in encoder.layers:
            torch.nn.init.zeros_(layer.gate.excite.weight)
    feats = torch.randn(1, 400, WIDTH, requires_grad=True)
    hidden, _ = encoder(feats, torch.tensor([400]))
    hidden[0, 0].square().sum().backward()
    assert bool(feats.grad[0, -1].abs().sum() > 0) == seen


@pytest.mark.parametrize(
    "make",
    [
        lambda: quartznet(False),
        lambda: quartznet(True),
        lambda: tds(0.5),
        lambda: tds(0.2),
        lambda: tds(0.0),
        cnn,
        lambda: cnn(n_layers=1, kernel_size=5),
    ],
    ids=["quartznet", "quartznet causal", "tds", "tds little ahead", "tds causal", "cnn", "cnn wide"],
)
def test_receptive_field_is_exact(make):
    """In the middle, where no edge cuts it: the first and the last frame with a gradient, and not one more."""
    encoder = make()
    field = encoder.receptive_field
    n = 3 * int(field.left + field.right + field.stride)
    feats = torch.randn(1, n, WIDTH, generator=torch.Generator().manual_seed(1)).requires_grad_()
    hidden, _ = encoder(feats, torch.tensor([n]))
    first, last = set(), set()
    middle = hidden.shape[1] // 2
    for u in range(middle - 3, middle + 3):
        weights = torch.randn(encoder.out_dim, generator=torch.Generator().manual_seed(u))
        [gradient] = torch.autograd.grad((hidden[0, u] * weights).sum(), feats, retain_graph=True)
        heard = (gradient[0].abs().sum(dim=-1) > 0).nonzero().flatten().tolist()
        first.add(u * field.stride - heard[0])
        last.add(heard[-1] - u * field.stride)
    assert max(first) == field.left
    assert max(last) == field.right


def test_receptive_field_of_the_published_quartznet():
    """5x5 by hand: half of the first kernel, then 5 times half of each block's and the dilated one, in steps of 2."""
    field = on_meta("encoder=quartznet", "encoder.n_layers=5").receptive_field
    assert field == (16 + 2 * (5 * (16 + 19 + 25 + 31 + 37) + 86),) * 2 + (2,)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=6), st.integers(0, 5), st.booleans())
def test_pieces_of_any_length_give_the_whole(pieces, rest, is_tds):
    """Every piece whole strides long but the last, of different lengths, shorter than a kernel or longer."""
    encoder = tds(0.0) if is_tds else quartznet(True)
    torch.manual_seed(sum(pieces))
    for name, value in encoder.named_buffers():  # a norm that has seen something
        if "running" in name:
            value.uniform_(0.5, 1.5)
    lengths = [n * encoder.stream_frames for n in pieces] + ([rest] if rest else [])
    feats = torch.randn(2, sum(lengths), WIDTH)
    with torch.no_grad():
        whole, _ = encoder(feats, torch.tensor([sum(lengths)] * 2))
        outs, state = [], None
        for piece in feats.split(lengths, dim=1):
            before = copy.deepcopy(state)
            hidden, after = encoder.stream(piece, state)
            if before is not None:
                assert all(torch.equal(a, b) for a, b in zip(before, state, strict=True))  # it may be used again
            outs.append(hidden)
            state = after
    torch.testing.assert_close(torch.cat(outs, dim=1), whole, rtol=1e-4, atol=1e-5)


def test_causal_hears_nothing_beyond_its_stride():
    encoder = quartznet(True)
    assert encoder.receptive_field.right == encoder.stream_frames - 1 == 2
    feats = torch.randn(1, 60, WIDTH)
    late = feats.clone()
    late[:, 30:] = 9.0
    a, b = (encoder(x, torch.tensor([60]))[0] for x in (feats, late))
    assert torch.equal(a[:, :10], b[:, :10])
    assert not torch.allclose(a[:, 10], b[:, 10])
    assert quartznet(False).stream_frames is tds(0.5).stream_frames is None


def test_past_begins_with_silence_and_keeps_the_last_frames():
    past = Past(None)
    x = torch.arange(1.0, 4.0)[None, :, None]
    assert past.extend(x, 2).flatten().tolist() == [0, 0, 1, 2, 3]
    past = Past(past.state)
    assert past.extend(x[:, :1], 2).flatten().tolist() == [2, 3, 1]
    assert past.state[0].flatten().tolist() == [3, 1]


@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
def test_pooling_honours_lengths(norm):
    """An utterance whose length no window divides, beside a longer one whose frames would win every maximum."""
    encoder = cnn(norm=norm)
    feats = torch.randn(2, 36, WIDTH)
    dirty = feats.clone()
    dirty[0, 7:] = 1e3
    lens = torch.tensor([7, 36])
    want, want_lens = encoder(feats[:1, :7], lens[:1])
    hidden, out_lens = encoder(dirty, lens)
    assert out_lens.tolist() == [2, 6]  # ceil(7 / 6), 36 / 6
    torch.testing.assert_close(hidden[0, :2], want[0])
    assert want_lens.tolist() == [2]
    assert (hidden[0, 2:] == 0).all()


@pytest.mark.parametrize("norm", ["batch", "layer"])
@pytest.mark.parametrize("make", [quartznet, contextnet], ids=["quartznet", "contextnet"])
def test_layer_norm_knows_no_neighbour_and_batch_norm_does(make, norm):
    """In training: the same utterance beside two others."""
    encoder = (make(False, norm=norm) if make is quartznet else make(norm=norm)).train()
    feats = torch.randn(2, 30, WIDTH)
    other = torch.cat([feats[:1], 5 * torch.randn(1, 30, WIDTH)])
    lens = torch.tensor([30, 30])
    a, b = encoder(feats, lens)[0][0], encoder(other, lens)[0][0]
    assert torch.allclose(a, b, atol=1e-5) == (norm == "layer")


@given(st.integers(1, 60), st.lists(st.integers(1, 9), min_size=1, max_size=7))
def test_layers_are_spread_whole_and_in_proportion(n_layers, shares):
    found = spread(n_layers, shares)
    assert sum(found) == n_layers
    assert min(found) >= 0
    assert all(abs(n - n_layers * s / sum(shares)) <= 1 for n, s in zip(found, shares, strict=True))
    assert spread(sum(shares), shares) == shares


def test_a_stage_without_blocks_hands_its_stride_on():
    for n_layers in (1, 2, 3, 8):
        encoder = contextnet(n_layers=n_layers)
        hidden, lens = encoder(torch.randn(1, 13, WIDTH), torch.tensor([13]))
        assert hidden.shape[1] == int(lens) == 4
        assert len(encoder.layers) == n_layers + 2


def test_bands_that_no_stack_divides_are_all_heard():
    encoder = tds(0.5, n_stacked=3)
    feats = torch.randn(1, 24, WIDTH, requires_grad=True)
    encoder(feats, torch.tensor([24]))[0].square().sum().backward()
    assert (feats.grad.abs().sum(dim=(0, 1)) > 0).all()
    assert encoder.out_dim == 3 * 5  # 8 bands in 3 stacks; 16 wanted


@pytest.mark.parametrize(
    ("name", "key", "value", "says"),
    [
        ("cnn", "kernel_size", 4, r"kernel_size must be odd \(the window is centred\), 4 came"),
        ("cnn", "stages", [], "stages wants rows of .*at least one"),
        ("cnn", "stages", [[0.5, 2]], r"stages wants rows of .*; \[0.5, 2\] came"),
        ("cnn", "stages", [[0.5, 0, 2]], "positive numbers"),
        ("cnn", "stages", [[0.5, 1.5, 2]], "pooling_in_time is a whole number of at least 1, 1.5 came"),
        ("cnn", "stages", [[0.001, 2, 2]], "width is a whole number of at least 1, 0 came"),
        ("cnn", "norm", "group", "norm is batch, layer or none, 'group' came"),
        ("cnn", "n_layers", 0, "n_layers is a whole number"),
        ("quartznet", "blocks", [[8, 1]], "kernel_size must be odd"),
        ("quartznet", "blocks", [], "blocks wants rows"),
        ("quartznet", "blocks", [8], "blocks wants rows of .*; 8 came"),
        ("quartznet", "n_layers", 0, "n_layers is a whole number of at least 1, 0 came"),
        ("quartznet", "n_repeats", 0, "n_repeats is a whole number of at least 1, 0 came"),
        ("quartznet", "prologue", [9, 0.5, 0], "prologue wants rows"),
        ("quartznet", "prologue", [9, 0.5, -2], "prologue wants rows"),
        ("quartznet", "prologue", [3, 0.5, 4], "a stride of 4 leaves frames out that kernel_size=3"),
        ("quartznet_streaming", "prologue", [3, 0.5, 4], "a stride of 4 leaves frames out"),
        ("contextnet", "strides", [2, 2], "strides one number for each, 7 rows"),
        ("contextnet", "strides", [1, 2, 0, 1, 1, 1, 1], "strides is a whole number of at least 1, 0 came"),
        ("contextnet", "reduction", 0, "reduction is between 1 and the 16 channels"),
        ("contextnet", "kernel_size", 6, "kernel_size must be odd"),
        ("tds", "lookahead", 1.5, "lookahead is a share of the kernel between 0 and 1, 1.5 came"),
        ("tds", "strides", [2, 2], "strides wants one number for each of the 3 stages"),
        ("tds", "strides", [2, 2, -1], "strides is a whole number of at least 1, -1 came"),
        ("tds", "n_stacked", 0, "n_stacked is a whole number of at least 1, 0 came"),
    ],
)
def test_values_that_cannot_be(name, key, value, says, tones):
    if name not in COMPOSED:
        COMPOSED[name] = resolved(composed(*tiny(tones, f"encoder={name}")))
    assert key in COMPOSED[name]["encoder"]
    config = {"encoder": {**COMPOSED[name]["encoder"], key: value}}
    with pytest.raises(ConfigError, match=f"conf/encoder: .*{says}") as caught:
        call(config, "encoder", in_dim=24)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make", [cnn, contextnet, lambda: quartznet(True), lambda: tds(0.5)])
def test_an_utterance_without_frames_is_said(make):
    with pytest.raises(ValueError, match="an utterance of 0 feature frames"):
        make()(torch.zeros(1, 0, WIDTH), torch.tensor([0]))

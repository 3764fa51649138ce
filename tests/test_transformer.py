"""Transformer and Conformer against the published equations, step by step in double precision, and streamed."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_lab.build import call
from asr_lab.encoders.conformer import ConformerBlock, ConvolutionModule, U2Encoder
from asr_lab.encoders.transformer import TransformerBlock
from asr_lab.encoders.wenet import load, our_name
from asr_lab.errors import ConfigError, DataError
from asr_lab.layers.context import ChunkContext, DynamicChunkContext, FullContext
from asr_lab.layers.positions import AbsolutePositions, PlacedInput, RelativePositions
from asr_lab.layers.self_attention import (
    DistanceScores,
    DotSelfAttention,
    KeyPositionMultiHeadedAttention,
    RelPositionMultiHeadedAttention,
    RotarySelfAttention,
    relative_shift,
)
from asr_lab.layers.stochastic_depth import StochasticDepth
from asr_lab.layers.subsampling import ConvSubsampling
from asr_lab.sweep.cell import resolved

from .conftest import composed, tiny

D, H, U = 12, 2, 9
DH = D // H


# The equations, in NumPy and double precision. `w` maps names to arrays; nothing here calls the code under test.


def numbers(module) -> dict[str, np.ndarray]:
    return {name: value.detach().double().numpy() for name, value in module.state_dict().items()}


def under(w, prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): value for name, value in w.items() if name.startswith(prefix)}


def linear(w, name, x):
    y = x @ w[f"{name}.weight"].reshape(len(w[f"{name}.weight"]), -1).T
    return y + w[f"{name}.bias"] if f"{name}.bias" in w else y


def layer_norm(w, name, x, eps=1e-5):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * w[f"{name}.weight"] + w[f"{name}.bias"]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def silu(x):
    return x * sigmoid(x)


def sinusoid(position: float, d: int) -> np.ndarray:
    angles = [position / 10_000 ** (2 * (f // 2) / d) for f in range(d)]
    return np.array([math.cos(a) if f % 2 else math.sin(a) for f, a in enumerate(angles)])


def attention(w, x, score, n_heads=H):
    """`score(h, i, j, q_i, k_j)` before the division by sqrt(d_head)."""
    d_head = x.shape[1] // n_heads
    q, k, v = (linear(w, f"linear_{n}", x) for n in "qkv")
    out = np.zeros_like(x)
    for h in range(n_heads):
        part = slice(h * d_head, (h + 1) * d_head)
        for i in range(len(x)):
            scores = np.array([score(h, i, j, q[i, part], k[j, part]) for j in range(len(x))]) / math.sqrt(d_head)
            weights = np.exp(scores - scores.max())
            out[i, part] = (weights / weights.sum()) @ v[:, part]
    return linear(w, "linear_out", out)


def positional(w, distance, n_heads=H):
    """Transformer-XL: p of the distance i - j; WeNet: p of j."""
    d = w["linear_pos.weight"].shape[0]
    d_head = d // n_heads

    def score(h, i, j, q, k):
        p = (w["linear_pos.weight"] @ sinusoid(distance(i, j), d))[h * d_head : (h + 1) * d_head]
        return (q + w["pos_bias_u"][h]) @ k + (q + w["pos_bias_v"][h]) @ p

    return score


def rotary_score(h, i, j, q, k):
    """RoFormer in the plane of complex numbers: Re[(q e^{i m theta}) (k e^{i n theta})*]."""
    theta = 10_000.0 ** (-np.arange(0, len(q), 2) / len(q))
    q, k = q[::2] + 1j * q[1::2], k[::2] + 1j * k[1::2]
    return ((q * np.exp(1j * i * theta)) * np.conj(k * np.exp(1j * j * theta))).real.sum()


def gated(w, name, x):
    a, b = np.split(linear(w, name, x), 2, axis=-1)
    return a * sigmoid(b)


def depthwise(weight, bias, x, before):
    """`before`: the frames (K-1, D) in front when causal; None: zeros on both sides."""
    size = weight.shape[-1]
    half = size // 2
    padded = np.concatenate([before, x] if before is not None else [np.zeros((half, x.shape[1])), x])
    padded = np.concatenate([padded, np.zeros((half, x.shape[1]))])
    return np.stack([sum(weight[:, 0, t] * padded[u + t] for t in range(size)) + bias for u in range(len(x))])


def convolution(w, x, causal, batch_norm, names=("pointwise_in", "depthwise", "norm", "pointwise_out")):
    """After the norm of its input."""
    first, middle, norm, last = names
    size = w[f"{middle}.weight"].shape[-1]
    before = np.repeat(gated(w, first, np.zeros((1, x.shape[1]))), size - 1, axis=0) if causal else None
    x = depthwise(w[f"{middle}.weight"], w[f"{middle}.bias"], gated(w, first, x), before)
    if batch_norm:
        x = (x - w[f"{norm}.running_mean"]) / np.sqrt(w[f"{norm}.running_var"] + 1e-5)
        x = x * w[f"{norm}.weight"] + w[f"{norm}.bias"]
    else:
        x = layer_norm(w, norm, x)
    return linear(w, last, silu(x))


def conv2d(weight, bias, x):
    """(C,T,F) -> (C',T',F'), kernel 3, stride 2, no padding, ReLU."""
    t, f = (x.shape[1] - 3) // 2 + 1, (x.shape[2] - 3) // 2 + 1
    y = np.zeros((len(weight), t, f))
    for a in range(t):
        for b in range(f):
            y[:, a, b] = np.einsum("octf,ctf->o", weight, x[:, 2 * a : 2 * a + 3, 2 * b : 2 * b + 3]) + bias
    return np.maximum(y, 0)


def u2(w, feats, n_layers, n_heads, causal, batch_norm, eps=1e-5):
    """The U2 encoder on a state dict of WeNet's names, one utterance (T,F) -> (U,D)."""
    x = conv2d(w["embed.conv.0.weight"], w["embed.conv.0.bias"], feats[None])
    x = conv2d(w["embed.conv.2.weight"], w["embed.conv.2.bias"], x)
    x = linear(w, "embed.out.0", x.transpose(1, 0, 2).reshape(x.shape[1], -1))
    x = x * math.sqrt(x.shape[1])
    for n in range(n_layers):
        b = under(w, f"encoders.{n}.")
        norm = partial(layer_norm, b, eps=eps)
        hidden = silu(linear(b, "feed_forward_macaron.w_1", norm("norm_ff_macaron", x)))
        x = x + 0.5 * linear(b, "feed_forward_macaron.w_2", hidden)
        attn = under(b, "self_attn.")
        x = x + attention(attn, norm("norm_mha", x), positional(attn, lambda i, j: j, n_heads), n_heads)
        names = ("pointwise_conv1", "depthwise_conv", "norm", "pointwise_conv2")
        x = x + convolution(under(b, "conv_module."), norm("norm_conv", x), causal, batch_norm, names)
        x = x + 0.5 * linear(b, "feed_forward.w_2", silu(linear(b, "feed_forward.w_1", norm("norm_ff", x))))
        x = norm("norm_final", x)
    return layer_norm(w, "after_norm", x, eps)


def frames(n=U, d=D, rows=2, seed=0):
    return torch.randn(rows, n, d, generator=torch.Generator().manual_seed(seed))


def shaken(module, seed=0):
    """Every parameter and statistic away from 0 and 1, so that none can be forgotten."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                noise = torch.randn(value.shape, generator=generator) * 0.3
                value.copy_(noise.abs() + 0.5 if "running_var" in name else value + noise)
    return module.eval()


def close(got, want, tol=1e-5):
    np.testing.assert_allclose(got.detach().numpy(), np.asarray(want), rtol=tol, atol=tol)


class TestEquations:
    @pytest.mark.parametrize(
        ("kind", "score"),
        [
            (DotSelfAttention, lambda w: lambda h, i, j, q, k: q @ k),
            (RelPositionMultiHeadedAttention, lambda w: positional(w, lambda i, j: i - j)),
            (KeyPositionMultiHeadedAttention, lambda w: positional(w, lambda i, j: j)),
            (RotarySelfAttention, lambda w: rotary_score),
        ],
    )
    @pytest.mark.parametrize("training", [False, True])  # without dropout both are the same, by different code
    def test_attention(self, kind, score, training):
        layer = shaken(kind(D, H, dropout=0.0)).train(training)
        x, w = frames(), numbers(layer)
        for row, got in zip(x.double().numpy(), layer(x, None), strict=True):
            close(got, attention(w, row, score(w)))

    @pytest.mark.parametrize("kind", [RelPositionMultiHeadedAttention, RotarySelfAttention, DotSelfAttention])
    def test_masked_keys_are_not_there(self, kind):
        layer = shaken(kind(D, H, dropout=0.0))
        x = frames()
        mask = torch.ones(2, U, U, dtype=torch.bool)
        mask[1, :, 5:] = False
        mask[0, 3] = False  # a frame that sees nothing (padding) must still be finite
        got = layer(x, mask)
        torch.testing.assert_close(got[1, :5], layer(x[1:, :5], None)[0], rtol=1e-5, atol=1e-5)
        assert torch.isfinite(got).all()

    @pytest.mark.parametrize("causal", [False, True])
    @pytest.mark.parametrize("norm", ["layer", "batch"])
    def test_convolution_module(self, causal, norm):
        layer = shaken(ConvolutionModule(D, 5, causal, norm))
        x, w = frames(), numbers(layer)
        mask = torch.ones(2, U, dtype=torch.bool)
        for row, got in zip(x.double().numpy(), layer(x, mask), strict=True):
            close(got, convolution(w, layer_norm(w, "norm_in", row), causal, norm == "batch"))

    def test_conformer_block(self):
        attn = RelPositionMultiHeadedAttention(D, H, dropout=0.1)
        block = shaken(ConformerBlock(D, attn, ConvolutionModule(D, 7, False, "layer"), 4, dropout=0.1))
        w, x = numbers(block), frames()
        attn, conv = under(w, "self_attn."), under(w, "convolution.")
        y = x[0].double().numpy()

        def feed_forward(name, y):
            return linear(w, f"{name}.4", silu(linear(w, f"{name}.1", layer_norm(w, f"{name}.0", y))))

        y = y + 0.5 * feed_forward("feed_forward_in", y)
        y = y + attention(attn, layer_norm(w, "norm_attention", y), positional(attn, lambda i, j: i - j))
        y = y + convolution(conv, layer_norm(conv, "norm_in", y), False, False)
        y = layer_norm(w, "norm_out", y + 0.5 * feed_forward("feed_forward_out", y))
        mask = torch.ones(2, U, dtype=torch.bool)
        close(block(x, mask, mask[:, None])[0], y)

    @pytest.mark.parametrize("pre", [True, False])
    def test_transformer_block_is_pytorchs(self, pre):
        block = TransformerBlock(D, DotSelfAttention(D, H, 0.0), 3, pre, 0.0, torch.nn.Identity())
        block = shaken(block)
        theirs = torch.nn.TransformerEncoderLayer(D, H, 3 * D, 0.0, batch_first=True, norm_first=pre).eval()
        w = block.state_dict()
        projections = [w[f"self_attn.linear_{x}.{p}"] for p in ("weight", "bias") for x in "qkv"]
        names = {
            "self_attn.in_proj_weight": torch.cat(projections[:3]),
            "self_attn.in_proj_bias": torch.cat(projections[3:]),
        }
        for mine, other in {
            "self_attn.linear_out": "self_attn.out_proj",
            "feed_forward.0": "linear1",
            "feed_forward.3": "linear2",
            "norm_attention": "norm1",
            "norm_feed_forward": "norm2",
        }.items():
            names |= {f"{other}.{p}": w[f"{mine}.{p}"] for p in ("weight", "bias")}
        theirs.load_state_dict(names)
        mask = torch.arange(U)[None, None] < torch.tensor([U, 6])[:, None, None]
        x = frames()
        with torch.no_grad():
            want = theirs(x, src_key_padding_mask=~mask[:, 0])
            got = block(x, mask)
        torch.testing.assert_close(got[0], want[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(got[1, :6], want[1, :6], rtol=1e-5, atol=1e-5)

    def test_the_input_is_scaled_and_placed(self):
        x = frames()
        want = np.stack([sinusoid(u + 4, D) for u in range(U)])
        close(PlacedInput(D, True, True)(x, first=4)[0], math.sqrt(D) * x[0].double().numpy() + want)
        assert torch.equal(PlacedInput(D, False, False)(x), x)

    @pytest.mark.parametrize("context", [FullContext(), ChunkContext(3, 1)])
    def test_attention_weights_pass_where_a_hook_sees_them(self, context):
        layer = RelPositionMultiHeadedAttention(D, H, dropout=0.1).eval()
        seen = []
        layer.weights.register_forward_hook(lambda module, args, out: seen.append(out))
        allowed = context.mask(U, torch.device("cpu"))
        layer(frames(), None if allowed is None else allowed[None])
        assert seen[0].shape == (2, H, U, U)
        torch.testing.assert_close(seen[0].sum(-1), torch.ones(2, H, U))
        assert allowed is None or (seen[0][:, :, ~allowed] == 0).all()


class TestPositions:
    @pytest.mark.parametrize(("n_keys", "n_queries"), [(5, 5), (7, 3), (4, 1), (1, 1)])
    def test_relative_shift_picks_the_distance(self, n_keys, n_queries):
        distances = torch.arange(n_keys - 1, -n_queries - 1, -1.0).expand(2, 3, n_queries, -1).contiguous()
        got = relative_shift(distances, n_keys)
        query = torch.arange(n_keys - n_queries, n_keys)
        assert torch.equal(got[1, 2], (query[:, None] - torch.arange(n_keys)).float())

    @pytest.mark.parametrize("n", [1, 2, 64, 65, 150])
    def test_blocks_of_rows_give_scores_and_gradients_of_the_whole(self, n):
        q = frames(n, 6 * 3, seed=1).double().unflatten(-1, (3, 6)).transpose(0, 2).transpose(1, 2).contiguous()
        p = torch.randn(3, 6, 2 * n, dtype=torch.double, generator=torch.Generator().manual_seed(2))
        outputs = []
        for by_blocks in (True, False):
            a, b = q.clone().requires_grad_(), p.clone().requires_grad_()
            scores = DistanceScores.apply(a, b) if by_blocks else relative_shift(a @ b[:, None], n).flatten(0, 1)
            weights = torch.randn(scores.shape, dtype=torch.double, generator=torch.Generator().manual_seed(3))
            (scores * weights).sum().backward()
            outputs.append((scores, a.grad, b.grad))
        for got, want in zip(*outputs, strict=True):
            torch.testing.assert_close(got, want)

    @pytest.mark.parametrize("sizes", [[(4, 4), (9, 9), (3, 3)], [(9, 3), (2, 1), (12, 4)]])
    def test_a_grown_table_gives_the_same(self, sizes):
        positions, like = RelativePositions(D), torch.zeros(1)
        for n_keys, n_queries in sizes:
            want = np.stack([sinusoid(d, D) for d in range(n_keys - 1, -n_queries - 1, -1)])
            close(positions(n_keys, n_queries, like), want)

    @pytest.mark.parametrize("attention", ["relative", "key_position", "sinusoidal", "rotary"])
    def test_a_table_of_inference_mode_serves_training(self, attention, encoder):
        model = encoder("conformer", f"encoder/attention={attention}").train()
        with torch.inference_mode():
            model(frames(80, 24), torch.tensor([80, 60]))
        model(frames(40, 24), torch.tensor([40, 30]))[0].sum().backward()

    def test_no_table_is_saved(self, encoder):
        model = encoder("conformer", "encoder/attention=key_position")
        before = set(model.state_dict())
        model(frames(40, 24), torch.tensor([40, 30]))
        assert set(model.state_dict()) == before
        assert not any("positions" in name for name in before)
        assert AbsolutePositions(D).table.shape == (0, D)


@pytest.fixture
def encoder(tones):
    def go(name: str, *overrides: str, seed: int = 0):
        torch.manual_seed(seed)
        config = resolved(composed(*tiny(tones, f"encoder={name}", *overrides)))
        return call(config, "encoder", in_dim=24).eval()

    return go


def piecewise(model, feats):
    pieces, state = [], None
    for piece in feats.split(model.stream_frames, dim=1):
        hidden, state = model.stream(piece, state)
        pieces.append(hidden)
    return torch.cat(pieces, dim=1)


class TestStreaming:
    @pytest.mark.parametrize("attention", ["relative", "key_position", "sinusoidal", "rotary"])
    @pytest.mark.parametrize("name", ["transformer_streaming", "conformer_streaming"])
    def test_pieces_equal_the_whole(self, name, attention, encoder):
        model = shaken(encoder(name, f"encoder/attention={attention}", "encoder.n_layers=2"))
        assert model.stream_frames == 16
        for n in (1, 16, 75, 112):
            feats = frames(n, 24)
            with torch.no_grad():
                whole = model(feats, torch.tensor([n, n]))[0]
                torch.testing.assert_close(piecewise(model, feats), whole, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize(
        "overrides",
        [
            ["encoder/context=causal", "encoder.context.chunk_size=1"],
            ["encoder/context=dynamic_chunk", "encoder.norm=batch"],
            ["encoder.context.n_left_chunks=0"],
            ["encoder/subsampling=stack"],
            ["encoder/subsampling=none"],
            ["encoder/subsampling=conv2d6", "encoder.subsampling.padding=causal"],  # the key in the refusal
        ],
    )
    def test_other_choices_that_stream(self, overrides, encoder):
        model = shaken(encoder("conformer_streaming", *overrides))
        feats = frames(5 * model.stream_frames + 1, 24)
        with torch.no_grad():
            whole = model(feats, torch.tensor([feats.shape[1]] * 2))[0]
            torch.testing.assert_close(piecewise(model, feats), whole, rtol=1e-5, atol=1e-5)

    def test_post_norm_streams(self, encoder):
        model = shaken(encoder("transformer_streaming", "encoder.norm=post"))
        feats = frames(50, 24)
        with torch.no_grad():
            torch.testing.assert_close(piecewise(model, feats), model(feats, torch.tensor([50, 50]))[0])

    def test_memory_of_a_stream_does_not_grow(self, encoder):
        model = encoder("conformer_streaming")
        state, sizes = None, []
        for _ in range(5):
            _, state = model.stream(frames(16, 24), state)
            sizes.append(state.blocks[0].keys.k.shape[1])
        assert sizes == [4, 8, 8, 8, 8]  # two chunks of four

    @pytest.mark.parametrize(
        ("name", "overrides", "says"),
        [
            ("transformer", [], "set encoder/context=chunk .*encoder.subsampling.padding=causal"),
            ("transformer_streaming", ["encoder.subsampling.padding=centred"], "encoder.subsampling.padding=causal"),
            ("conformer_streaming", ["encoder.causal=false"], "set encoder.causal=true .the convolution modules"),
            ("conformer_streaming", ["encoder/context=full"], "set encoder/context=chunk .a frame sees the whole"),
            ("conformer_u2", ["encoder/context=chunk"], "encoder.causal=true .*encoder.subsampling.padding=causal"),
        ],
    )
    def test_what_cannot_stream_says_which_keys(self, name, overrides, says, encoder):
        model = encoder(name, *overrides)
        assert model.stream_frames is None
        with pytest.raises(ConfigError, match=says):
            model.stream(frames(16, 24), None)

    @pytest.mark.parametrize("n", [0, 17, 32])
    def test_a_piece_of_another_length(self, n, encoder):
        with pytest.raises(ConfigError, match=f"a piece of {n} feature frames came to stream, which takes 16"):
            encoder("conformer_streaming").stream(frames(n, 24), None)

    def test_a_piece_after_the_last(self, encoder):
        model = encoder("transformer_streaming")
        _, state = model.stream(frames(10, 24), None)
        with pytest.raises(ConfigError, match="a piece after a shorter one"):
            model.stream(frames(16, 24), state)


class TestContext:
    @settings(max_examples=40, deadline=None)
    @given(st.integers(1, 6), st.integers(0, 3), st.integers(1, 3), st.integers(0, 4), st.integers(0, 3))
    def test_reach_is_what_the_masks_allow(self, size, n_left, n_layers, left, right):
        context = ChunkContext(size, n_left)
        n = 200
        mask = context.mask(n, torch.device("cpu")).float()
        offset = torch.arange(n)[None] - torch.arange(n)[:, None]
        conv = ((offset >= -left) & (offset <= right)).float()
        heard = torch.eye(n)
        for _ in range(n_layers):
            heard = ((heard @ conv @ mask) > 0).float()
        want = [0, 0]
        for u in range(90, 110):  # away from the ends, every place in a chunk
            seen = heard[u].nonzero().flatten()
            want = [max(want[0], u - int(seen[0])), max(want[1], int(seen[-1]) - u)]
        assert list(context.reach(n_layers, left, right)) == want

    def test_dynamic_chunks(self):
        context = DynamicChunkContext(4, 1, 5)
        n, device = 40, torch.device("cpu")
        torch.manual_seed(0)
        sizes = []
        for _ in range(300):
            mask = context.mask(n, device)
            width = int(mask[0].sum())  # of the first chunk
            chunk = torch.arange(n) // width
            assert torch.equal(mask, chunk[:, None] >= chunk)
            sizes.append(width)
        assert set(sizes) == {1, 2, 3, 4, 5, n}
        assert 100 < sizes.count(n) < 200
        context.eval()
        assert torch.equal(context.mask(n, device), ChunkContext(4, 1).mask(n, device))
        assert context.train().mask(1, device).tolist() == [[True]]

    def test_dynamic_chunks_follow_the_encoder_and_the_seed(self, encoder):
        model = encoder("conformer", "encoder/context=dynamic_chunk", "encoder.causal=true")
        assert not model.context.training
        assert model.train().context.training
        draws = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            draws.append([int(model.context.mask(50, torch.device("cpu")).sum()) for _ in range(5)])
        assert draws[0] == draws[1] != draws[2]
        assert model.to("meta")(torch.zeros(2, 40, 24, device="meta"), torch.full((2,), 40, device="meta"))[0].is_meta


class TestStochasticDepth:
    def test_drops_whole_utterances_and_keeps_the_mean(self):
        torch.manual_seed(0)
        layer = StochasticDepth(0.25).train()
        kept = layer(torch.ones(4000, 2, 3))
        assert torch.equal(kept, kept[:, :1, :1].expand_as(kept))
        assert sorted(set(kept.flatten().tolist())) == pytest.approx([0, 1 / 0.75])
        assert kept.mean() == pytest.approx(1, abs=0.05)
        x = frames()
        assert layer.eval()(x) is x

    def test_grows_with_depth(self, encoder):
        model = encoder("transformer", "encoder.n_layers=4", "encoder.stochastic_depth=0.2")
        assert [block.branch[1].p for block in model.layers] == pytest.approx([0.05, 0.1, 0.15, 0.2])


class TestPreset:
    def test_u2_as_published(self):
        config = resolved(composed("encoder=conformer_u2"))
        model = call(config, "encoder", in_dim=80).eval()
        n = 363  # ((363 - 1) // 2 - 1) // 2 = 90
        with torch.no_grad():
            hidden, lens = model(torch.randn(1, n, 80), torch.tensor([n]))
        assert hidden.shape == (1, 90, 512)
        assert lens.tolist() == [90]
        assert len(model.layers) == 12
        assert model.layers[0].self_attn.n_heads == 8
        assert model.layers[0].feed_forward_in[1].out_features == 2048
        assert model.subsampling.convs[0].out_channels == 512

    def test_u2_of_streaming(self, encoder):
        model = encoder("conformer_u2", "encoder/context=dynamic_chunk", "encoder.causal=true")
        assert model.context.chunk_size == 4
        assert torch.isfinite(model(frames(40, 24), torch.tensor([40, 30]))[0]).all()


N_MELS = 14


def small_u2(causal=False, norm="batch", context=None):
    model = U2Encoder(
        in_dim=N_MELS,
        d_model=D,
        n_layers=2,
        ff_expansion=3,
        kernel_size=5,
        causal=causal,
        norm=norm,
        dropout=0.1,
        subsampling=partial(
            ConvSubsampling, channels=6, stages=[[3, 2], [3, 2]], separable=False, padding="valid", dropout=0.1
        ),
        attention=partial(KeyPositionMultiHeadedAttention, n_heads=H, dropout=0.1),
        context=context or FullContext(),
    )
    return model.eval()


def wenet_layout(d=D, c=6, hidden=3 * D, kernel=5, batch_norm=True, seed=3) -> dict[str, torch.Tensor]:
    """A state dict with the names and shapes of WeNet's encoder, filled at random."""
    generator = torch.Generator().manual_seed(seed)
    bands = ((N_MELS - 1) // 2 - 1) // 2
    shapes = {"embed.conv.0": (c, 1, 3, 3), "embed.conv.2": (c, c, 3, 3), "embed.out.0": (d, c * bands)}
    shapes["after_norm"] = (d,)
    for n in range(2):
        block = {
            "norm_ff_macaron": (d,),
            "feed_forward_macaron.w_1": (hidden, d),
            "feed_forward_macaron.w_2": (d, hidden),
            "norm_mha": (d,),
            **{f"self_attn.linear_{x}": (d, d) for x in ("q", "k", "v", "out")},
            "norm_conv": (d,),
            "conv_module.pointwise_conv1": (2 * d, d, 1),
            "conv_module.depthwise_conv": (d, 1, kernel),
            "conv_module.norm": (d,),
            "conv_module.pointwise_conv2": (d, d, 1),
            "norm_ff": (d,),
            "feed_forward.w_1": (hidden, d),
            "feed_forward.w_2": (d, hidden),
            "norm_final": (d,),
        }
        shapes |= {f"encoders.{n}.{name}": shape for name, shape in block.items()}
    full = {f"{name}.weight": shape for name, shape in shapes.items()}
    full |= {f"{name}.bias": shape[:1] for name, shape in shapes.items()}
    for n in range(2):
        full[f"encoders.{n}.self_attn.linear_pos.weight"] = (d, d)
        full |= {f"encoders.{n}.self_attn.pos_bias_{x}": (H, d // H) for x in "uv"}
        if batch_norm:
            full |= {f"encoders.{n}.conv_module.norm.running_{x}": (d,) for x in ("mean", "var")}
    state = {name: torch.randn(shape, generator=generator) * 0.4 for name, shape in full.items()}
    return {name: value.abs() + 0.5 if "running_var" in name else value for name, value in state.items()}


class TestWenet:
    @pytest.mark.parametrize(("causal", "norm"), [(False, "batch"), (True, "layer")])
    def test_u2_computes_what_the_equations_say(self, causal, norm):
        theirs = wenet_layout(batch_norm=norm == "batch")
        model = small_u2(causal, norm)
        assert load(model, theirs) == []
        feats = frames(43, N_MELS, rows=1)
        w = {name: value.double().numpy() for name, value in theirs.items()}
        want = u2(w, feats[0].double().numpy(), 2, H, causal, norm == "batch")
        close(model(feats, torch.tensor([43]))[0][0], want)
        # The same utterance in a batch with a longer one.
        both = torch.cat([feats, frames(43, N_MELS, rows=1, seed=5)])
        both = torch.nn.functional.pad(both, (0, 0, 0, 20), value=3.0)
        close(model(both, torch.tensor([43, 63]))[0][0, : len(want)], want)

    def test_paddle_layout_is_seen_and_turned(self):
        theirs, one, other = wenet_layout(), small_u2(), small_u2()
        load(one, theirs)
        paddle = {}
        for name, value in theirs.items():
            new = name.replace("norm.running_mean", "norm._mean").replace("norm.running_var", "norm._variance")
            paddle[f"encoder.{new}"] = (value.T if value.dim() == 2 and "pos_bias" not in name else value).numpy()
        extra = {"encoder.encoders.0.concat_linear.weight": np.zeros((2 * D, D)), "ctc.ctc_lo.weight": np.zeros((D, 5))}
        assert sorted(load(other, paddle | extra)) == sorted(extra)
        for name, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name

    def test_a_whole_model(self):
        theirs = {f"encoder.{name}": value for name, value in wenet_layout().items()}
        others = {"encoder.global_cmvn.mean": torch.zeros(N_MELS), "decoder.embed.0.weight": torch.zeros(4, D)}
        assert load(small_u2(), theirs | others) == list(others)

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            (lambda s: s.pop("after_norm.bias"), "nothing came for norm_out.bias"),
            (
                lambda s: s.update({"encoders.0.conv_module.se.weight": torch.zeros(2)}),
                "conv_module.se.weight is not known",
            ),
            (
                lambda s: s.update({"encoders.1.norm_ff.weight": torch.zeros(7)}),
                r"encoders.1.norm_ff.weight has shape \[7\] where \[12\] is wanted",
            ),
            (lambda s: [s.pop(k) for k in list(s) if k.startswith("encoders.1.")], "and 3. more"),
        ],
    )
    def test_what_does_not_fit_is_named_and_nothing_is_loaded(self, change, says):
        theirs, model = wenet_layout(), small_u2()
        change(theirs)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        with pytest.raises(DataError, match=says) as error:
            load(model, theirs)
        assert "\n" not in str(error.value)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    def test_map_meets_every_name_of_the_preset(self):
        with torch.device("meta"):
            names = set(small_u2().state_dict())
        ours = {our_name(name) for name in wenet_layout()}
        assert names - ours == {f"layers.{n}.convolution.norm.num_batches_tracked" for n in range(2)}
        assert ours <= names


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (
            ["encoder=conformer", "encoder.norm=instance"],
            "norm .of the convolution modules. is layer or batch, 'instance'",
        ),
        (["encoder=transformer", "encoder.norm=both"], "norm is pre or post, 'both' came"),
        (["encoder=transformer", "encoder.stochastic_depth=1.0"], "stochastic_depth is a probability"),
        (
            ["encoder=transformer", "encoder/attention=rotary", "encoder.d_model=30", "encoder.attention.n_heads=2"],
            "rotary positions turn pairs of features: d_model / n_heads must be even, 30 / 2 came",
        ),
        (["encoder=conformer", "encoder/context=dynamic_chunk", "encoder.context.max_chunk_size=0"], "max_chunk_size"),
    ],
)
def test_values_that_cannot_be(overrides, says, tones):
    with pytest.raises(ConfigError, match=f"conf/encoder: .*{says}"):
        call(resolved(composed(*tiny(tones, *overrides))), "encoder", in_dim=24)

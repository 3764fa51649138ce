"""The central pieces of E-Branchformer, Squeezeformer, Zipformer and Mamba against plain loops over frames."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import gelu, layer_norm, silu, softplus

from asr_lab.build import call
from asr_lab.encoders.e_branchformer import EBranchformerBlock, EBranchformerEncoder
from asr_lab.encoders.mamba import MambaEncoder, SelectiveStateSpace, selective_scan
from asr_lab.encoders.squeezeformer import SqueezeformerBlock, SqueezeformerEncoder
from asr_lab.encoders.zipformer import (
    BiasNorm,
    ZipformerEncoder,
    ZipformerLayer,
    ZipformerStack,
)
from asr_lab.errors import ConfigError
from asr_lab.layers.context import ChunkContext, FullContext
from asr_lab.layers.masks import attention_mask, valid_frames
from asr_lab.layers.positions import sinusoids
from asr_lab.layers.resampling import LearnedDownsample
from asr_lab.layers.self_attention import DotSelfAttention, RelPositionMultiHeadedAttention
from asr_lab.layers.subsampling import Stacking
from asr_lab.layers.swoosh import SwooshL, SwooshR
from asr_lab.sweep.cell import resolved

from .conftest import composed, tiny

D, U, N = 8, 7, 5  # width, frames, valid frames of the second utterance
ATTENTION = partial(RelPositionMultiHeadedAttention, n_heads=2, dropout=0.0)
EVERY_FRAME = partial(Stacking, n_stacked=1, stride=1)


@pytest.fixture(autouse=True)
def _double():
    """Everything in float64, so that a tolerance of 1e-5 leaves no room for a wrong term."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def shaken(module):
    """Every parameter random: none that begins at zero or one hides."""
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return module.eval()


def frames(n: int = U) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(2, n, D), valid_frames(torch.tensor([n, n - U + N]), n)


def linear(layer, v):
    return layer.weight @ v + (0 if layer.bias is None else layer.bias)


def norm(layer, v):
    return layer_norm(v, v.shape, layer.weight, layer.bias)


def convolved(conv, rows, u: int, stride: int = 1):
    """Frame u of a centred depthwise convolution over a list of valid frames."""
    half = conv.kernel_size[1] // 2
    out = conv.bias.clone()
    for k in range(conv.kernel_size[1]):
        if 0 <= u * stride + k - half < len(rows):
            out = out + conv.weight[:, 0, 0, k] * rows[u * stride + k - half]
    return out


def same_on_valid(got, want: list[list[torch.Tensor]]):
    for row, rows in zip(got, want, strict=True):
        torch.testing.assert_close(row[: len(rows)], torch.stack(rows), rtol=1e-5, atol=1e-5)


def made(family: str, **changed):
    """A small encoder of a family, some of its values changed."""
    common = {"in_dim": D, "d_model": D, "n_layers": 2, "kernel_size": 3, "dropout": 0.0, "subsampling": EVERY_FRAME}
    cls, own = {
        "e_branchformer": (
            EBranchformerEncoder,
            {"ff_expansion": 2, "gating_expansion": 6, "attention": ATTENTION, "context": FullContext()},
        ),
        "squeezeformer": (
            SqueezeformerEncoder,
            {"ff_expansion": 2, "reduction_kernel_size": 5, "attention": ATTENTION},
        ),
        "zipformer": (
            ZipformerEncoder,
            {"factors": [1, 8], "n_heads": 2, "d_head": [4, 3, 5], "ff_expansion": 4},
        ),
        "mamba": (MambaEncoder, {"expansion": 2, "n_heads": 4, "d_state": 3, "bidirectional": True}),
    }[family]
    return shaken(cls(**(common | own | changed)))


class TestEBranchformer:
    def test_block_is_the_paper_s_equations_frame_by_frame(self):
        block = shaken(EBranchformerBlock(D, ATTENTION(d_model=D), 2, 6, 3, 0.0))
        x, mask = frames()
        got = block(x, mask, attention_mask(mask, None))
        y = x + 0.5 * block.feed_forward_in(x)
        attended = block.global_branch(block.norm_global(y), attention_mask(mask, None))
        want = []
        for b, n in enumerate((U, N)):
            local, merge = block.local_branch, block.merge
            z = [gelu(linear(local.linear_in, norm(block.norm_local, y[b, u]))) for u in range(n)]
            content, gates = [v[: 3 * D] for v in z], [norm(local.norm, v[3 * D :]) for v in z]
            near = [linear(local.linear_out, content[u] * convolved(local.depthwise.conv, gates, u)) for u in range(n)]
            both = [torch.cat([attended[b, u], near[u]]) for u in range(n)]
            rows = []
            for u in range(n):
                v = y[b, u] + linear(merge.linear, both[u] + convolved(merge.depthwise.conv, both, u))
                rows.append(norm(block.norm_out, v + 0.5 * block.feed_forward_out(v)))
            want.append(rows)
        same_on_valid(got, want)

    def test_gate_begins_at_one(self):
        block = EBranchformerBlock(D, ATTENTION(d_model=D), 2, 6, 3, 0.0).eval()
        x, mask = frames()
        local = block.local_branch
        content = gelu(local.linear_in(x)).chunk(2, dim=-1)[0]
        torch.testing.assert_close(local(x, mask), local.linear_out(content), rtol=1e-3, atol=1e-4)

    def test_limited_context_stays_within_the_stated_field(self):
        encoder = made("e_branchformer", context=ChunkContext(4, 1))
        left, right, _ = encoder.receptive_field
        assert (left, right) == (2 * (4 + 3 + 1), 2 * (3 + 1))
        feats = torch.randn(1, 60, D, requires_grad=True)
        hidden = encoder(feats, torch.tensor([60]))[0]
        for u in (24, 29, 31):
            [gradient] = torch.autograd.grad(hidden[0, u, 0], feats, retain_graph=True)
            heard = gradient[0].abs().sum(-1).nonzero().flatten().tolist()
            assert u - left <= heard[0] < u < heard[-1] <= u + right

    def test_sinusoids_are_added_where_attention_wants_them(self):
        encoder = made("e_branchformer", attention=partial(DotSelfAttention, n_heads=2, dropout=0.0))
        seen = []
        encoder.layers[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        x, _ = frames()
        encoder(x, torch.tensor([U, N]))
        torch.testing.assert_close(seen[0][0], x[0] + sinusoids(torch.arange(U) * 1.0, D), rtol=0, atol=1e-6)


class TestSqueezeformer:
    def test_block_is_the_paper_s_order_frame_by_frame(self):
        block = shaken(SqueezeformerBlock(D, ATTENTION(d_model=D), 2, 3, 0.0))
        x, mask = frames()
        got = block(x, mask)

        def scaled(i, v):
            return block.scales[i].scale * v + block.scales[i].bias

        def fed(layers, v):
            return linear(layers[3], silu(linear(layers[0], v)))

        attended = block.attention(scaled(0, x), attention_mask(mask, None))
        want = []
        for b, n in enumerate((U, N)):
            rows = [norm(block.norms[0], x[b, u] + attended[b, u]) for u in range(n)]
            rows = [norm(block.norms[1], v + fed(block.feed_forward_mid, scaled(1, v))) for v in rows]
            conv = block.convolution
            wide = [silu(linear(conv.pointwise_in, scaled(2, v))) for v in rows]
            local = [silu(norm(conv.norm, convolved(conv.depthwise.conv, wide, u))) for u in range(n)]
            rows = [norm(block.norms[2], rows[u] + linear(conv.pointwise_out, local[u])) for u in range(n)]
            want.append([norm(block.norms[3], v + fed(block.feed_forward_out, scaled(3, v))) for v in rows])
        same_on_valid(got, want)

    @pytest.mark.parametrize("n", [1, 2, 7, 8])
    def test_u_net_halves_and_doubles_back(self, n):
        """With layers that do nothing: x + restore(halve(x)), frame u from frame u // 2, at odd lengths too."""
        encoder = made("squeezeformer", n_layers=4)
        for layer in encoder.layers:
            layer.forward = lambda x, mask: x
        feats = torch.randn(2, n + 2, D)
        got, _ = encoder(feats, torch.tensor([n + 2, n]))
        want = []
        for b, n_valid in enumerate((n + 2, n)):
            rows = [norm(encoder.norm_in, v) for v in feats[b, :n_valid]]
            half = [
                linear(encoder.halve.pointwise, convolved(encoder.halve.depthwise.conv, rows, u, stride=2))
                for u in range(math.ceil(n_valid / 2))
            ]
            want.append([v + linear(encoder.restore, half[u // 2]) for u, v in enumerate(rows)])
        same_on_valid(got, want)

    @pytest.mark.parametrize(("n_layers", "lengths"), [(1, "h"), (2, "hf"), (4, "fhhf"), (16, "f" * 7 + "h" * 8 + "f")])
    def test_layers_in_the_middle_run_at_half_the_rate(self, n_layers, lengths):
        encoder, seen = made("squeezeformer", n_layers=n_layers), []
        for layer in encoder.layers:
            layer.register_forward_pre_hook(lambda _, args: seen.append((args[0].shape[1], args[1].sum().item())))
        encoder(torch.randn(2, U, D), torch.tensor([U, N]))
        assert seen == [{"f": (7, 12), "h": (4, 7)}[kind] for kind in lengths]


class TestZipformer:
    SIZES = (D, 2, [4, 3, 5], 4, 3, 0.0)  # width, heads, widths of a head, expansion, kernel, dropout

    def weights(self, module, x, n: int):
        """[head][query] -> probabilities of the n valid keys, of one utterance."""
        out = []
        for h in range(module.n_heads):
            parts = [linear(module.linear_in, v)[11 * h : 11 * h + 11].split([4, 4, 3]) for v in x]
            r = {
                d: linear(module.linear_pos, sinusoids(torch.tensor([float(d)]), D)[0])[3 * h : 3 * h + 3]
                for d in range(1 - len(x), len(x))
            }
            scores = [
                torch.stack([parts[i][0] @ parts[j][1] + parts[i][2] @ r[i - j] for j in range(n)])
                for i in range(len(x))
            ]
            out.append([s.softmax(dim=0) for s in scores])
        return out

    def values(self, module, rows, weights):
        """Attention with given weights, frame by frame."""
        v = [linear(module.linear_v, row) for row in rows]
        heads = [
            [sum(w * v[j][5 * h : 5 * h + 5] for j, w in enumerate(weights[h][i])) for h in range(2)]
            for i in range(len(rows))
        ]
        return [linear(module.linear_out, torch.cat(of_heads)) for of_heads in heads]

    def test_layer_is_figure_2_frame_by_frame(self):
        layer = shaken(ZipformerLayer(*self.SIZES))
        x, mask = frames()
        want = []
        for b, n in enumerate((U, N)):
            rows = list(x[b, :n])
            weights = self.weights(layer.attention_weights, rows, n)
            first = [v + layer.feed_forwards[0](v) for v in rows]
            gate = [linear(layer.nonlinear_attention.linear_in, v).split(6) for v in first]
            mixed = [sum(w * gate[j][0].tanh() * gate[j][1] for j, w in enumerate(weights[0][i])) for i in range(n)]
            y = [v + linear(layer.nonlinear_attention.linear_out, gate[i][2] * mixed[i]) for i, v in enumerate(first)]
            for k in range(2):
                y = [v + a for v, a in zip(y, self.values(layer.attentions[k], y, weights), strict=True)]
                conv = layer.convolutions[k]
                glu = [linear(conv.pointwise_in, v) for v in y]
                glu = [v[:D] * v[D:].sigmoid() for v in glu]
                local = [convolved(conv.depthwise.conv, glu, u) for u in range(n)]
                y = [v + linear(conv.pointwise_out, swoosh(c, 1, 0.313261687)) for v, c in zip(y, local, strict=True)]
                ff = layer.feed_forwards[k + 1]
                y = [v + linear(ff[3], swoosh(linear(ff[0], v), 4, 0.035)) for v in y]
                if k == 0:
                    y = [v + (a - v) * layer.bypasses[0].scale for v, a in zip(rows, y, strict=True)]
            bias, scale = layer.norm.bias, layer.norm.log_scale.exp()
            y = [v * scale / (v - bias).square().mean().sqrt() for v in y]
            want.append([v + (a - v) * layer.bypasses[1].scale for v, a in zip(rows, y, strict=True)])
        same_on_valid(layer(x, mask), want)

    def test_swoosh_at_known_points(self):
        """Both pass through (or near) zero at zero, with slopes of -0.08 far below and 0.92 far above."""
        left, right = SwooshL(), SwooshR()
        assert abs(float(right(torch.zeros(())))) < 1e-9
        assert abs(float(left(torch.zeros(()))) - (math.log1p(math.exp(-4)) - 0.035)) < 1e-12
        for f in (left, right):
            x = torch.tensor([-200.0, -100.0, 100.0, 200.0])
            y = f(x)
            assert (y[1] - y[0]) / 100 == pytest.approx(-0.08)
            assert (y[3] - y[2]) / 100 == pytest.approx(0.92)

    def test_bias_norm_keeps_the_length_when_the_bias_is_large(self):
        layer = BiasNorm(D)
        x = torch.randn(3, D)
        torch.testing.assert_close(layer(x).square().mean(-1), torch.ones(3))
        assert torch.isfinite(layer(torch.zeros(1, D))).all()
        with torch.no_grad():
            layer.bias[0] = 1e4
        ratio = layer(2 * x)[:, 1] / layer(x)[:, 1]
        torch.testing.assert_close(ratio, torch.full((3,), 2.0), rtol=1e-2, atol=0)

    def test_downsampling_weighs_valid_frames_only(self):
        layer = LearnedDownsample(4)
        with torch.no_grad():
            layer.logits.copy_(torch.tensor([0.2, 0.3, 0.5, 1.0]).log())
        x = torch.tensor([[1.0, 2, 3, 4, 5, 6, 99, 99, 99, 99]])[:, :, None]
        y, mask = layer(x, valid_frames(torch.tensor([6]), 10))
        want = [(0.2 * 1 + 0.3 * 2 + 0.5 * 3 + 1.0 * 4) / 2.0, (0.2 * 5 + 0.3 * 6) / 0.5, 0.0]
        torch.testing.assert_close(y[0, :, 0], torch.tensor(want))
        assert mask.tolist() == [[True, True, False]]

    def test_stack_goes_around_itself_by_the_learnt_scale(self):
        class Doubling(torch.nn.Module):
            def forward(self, x, mask):
                assert x.shape[1] == 2
                return 2 * x

        stack = ZipformerStack(1, 4, [Doubling()])
        with torch.no_grad():
            stack.bypass.scale.fill_(0.25)
        x = torch.tensor([[1.0, 2, 3, 6, 5]])[:, :, None]
        y = stack(x, valid_frames(torch.tensor([5]), 5))
        torch.testing.assert_close(y[0, :, 0], 0.75 * x[0, :, 0] + 0.25 * 2 * torch.tensor([3.0, 3, 3, 3, 5]))

    def test_three_modules_use_the_same_weights(self):
        layer = shaken(ZipformerLayer(*self.SIZES))
        calls = []
        layer.attention_weights.register_forward_hook(lambda *_: calls.append(1))
        layer(*frames())
        assert len(calls) == 1


def swoosh(x, offset: float, shift: float):
    return (1 + (x - offset).exp()).log() - 0.08 * x - shift


def recurrence(x, step, decay, b, c, hidden=None):
    """The definition, one frame after the other."""
    batch, n, heads, width = x.shape
    h = torch.zeros(batch, heads, width, b.shape[-1], dtype=x.dtype) if hidden is None else hidden
    ys = []
    for t in range(n):
        added = step[:, t, :, None, None] * x[:, t, :, :, None] * b[:, t, None, None, :]
        h = (step[:, t] * decay).exp()[..., None, None] * h + added
        ys.append((h * c[:, t, None, None, :]).sum(-1))
    return torch.stack(ys, dim=1), h


def scanned(n: int, scale: float = 1.0, seed: int = 0) -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(seed)
    draw = partial(torch.randn, generator=g, dtype=torch.float64)
    step, decay = scale * draw(2, n, 3).exp(), -draw(3).exp()
    return draw(2, n, 3, 4), step, decay, draw(2, n, 5), draw(2, n, 5)


class TestMamba:
    @settings(deadline=None, max_examples=25)
    @given(n=st.integers(1, 80), cut=st.integers(0, 79), seed=st.integers(0, 99))
    def test_scan_is_the_recurrence(self, n, cut, seed):
        """At any length, from any state, and cut anywhere."""
        x, step, decay, b, c = scanned(n, seed=seed)
        want, last = recurrence(x, step, decay, b, c)
        got, hidden = selective_scan(x, step, decay, b, c, None)
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(hidden, last, rtol=1e-9, atol=1e-9)
        if 0 < cut < n:
            _, middle = selective_scan(x[:, :cut], step[:, :cut], decay, b[:, :cut], c[:, :cut], None)
            rest, hidden = selective_scan(x[:, cut:], step[:, cut:], decay, b[:, cut:], c[:, cut:], middle)
            torch.testing.assert_close(rest, want[:, cut:], rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(hidden, last, rtol=1e-9, atol=1e-9)

    @pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
    def test_scan_is_safe_in_float32(self, scale):
        """Steps so long that exp(-sum) is 0 in float32, or so short that nothing is forgotten; gradients too."""
        exact = scanned(70, scale)
        args = [t.float().requires_grad_() for t in exact]
        got, _ = selective_scan(*args, None)
        want, _ = recurrence(*exact)
        size = want.abs().max()
        torch.testing.assert_close(got.double() / size, want / size, rtol=1e-4, atol=1e-5)
        got.sum().backward()
        assert all(torch.isfinite(t.grad).all() for t in args)

    def test_gradients_of_the_scan_are_those_of_the_recurrence(self):
        args = [t.requires_grad_() for t in scanned(31)]
        weights = torch.randn(2, 31, 3, 4)
        got = torch.autograd.grad((selective_scan(*args, None)[0] * weights).sum(), args)
        want = torch.autograd.grad((recurrence(*args)[0] * weights).sum(), args)
        torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-8)

    def test_state_space_is_mamba_s_equations(self):
        """Convolution, SiLU, then B, C and the step from what comes out, the recurrence, and the skip."""
        layer = shaken(SelectiveStateSpace(d_inner=6, n_heads=3, d_state=4, kernel_size=3))
        u = torch.randn(2, U, 6)
        got, _ = layer(u, torch.ones(2, U, 1, dtype=torch.bool), None)
        x = torch.empty(2, U, 6)
        for t in range(U):
            x[:, t] = layer.conv.bias + sum(
                layer.conv.weight[:, 0, k] * u[:, t + k - 2] for k in range(3) if t + k >= 2
            )
        x = silu(x)
        b, c, step = (x @ layer.select.weight.T).split([4, 4, 3], dim=-1)
        step = softplus(step + layer.step_bias)
        heads = x.reshape(2, U, 3, 2)
        y, _ = recurrence(heads, step, -layer.log_decay.exp(), b, c)
        torch.testing.assert_close(got, (y + layer.skip[:, None] * heads).flatten(2), rtol=1e-5, atol=1e-5)

    def test_first_steps_lie_in_the_published_range(self):
        layer = SelectiveStateSpace(d_inner=256, n_heads=256, d_state=2, kernel_size=3)
        steps = softplus(layer.step_bias)
        assert 1e-3 <= steps.min() < 2e-3
        assert 5e-2 < steps.max() <= 1e-1
        decays = layer.log_decay.exp()
        assert 1 <= decays.min() < 2
        assert 15 < decays.max() <= 16

    def test_backwards_is_forwards_on_the_reversed_utterance(self):
        """Reversed within its own length: what stands in the padding is no beginning."""
        encoder = made("mamba", n_layers=1)
        block = encoder.layers[0]
        x, mask = torch.randn(2, U, 2 * D), frames()[1]
        got, _ = block.backwards(x.flip(1), mask.flip(1)[:, :, None], None)
        for i, n in enumerate((U, N)):
            alone, _ = block.backwards(x[i : i + 1, :n].flip(1), torch.ones(1, n, 1, dtype=torch.bool), None)
            torch.testing.assert_close(got.flip(1)[i, :n], alone.flip(1)[0])

    def test_only_bidirectional_sees_later_frames(self):
        for both in (True, False):
            encoder = made("mamba", bidirectional=both)
            feats = torch.randn(1, 30, D, requires_grad=True)
            [gradient] = torch.autograd.grad(encoder(feats, torch.tensor([30]))[0][0, 9].sum(), feats)
            assert bool(gradient[0, 10:].abs().sum() > 0) is both
            assert encoder.receptive_field[:2] == (math.inf, math.inf if both else 0)
            assert encoder.stream_frames == (None if both else 1)


@pytest.mark.parametrize(
    ("family", "changed", "says"),
    [
        ("e_branchformer", {"attention": partial(ATTENTION, n_heads=3)}, "n_heads=3 does not divide d_model=8"),
        ("e_branchformer", {"kernel_size": 4}, "odd and positive .*, 4 came"),
        ("e_branchformer", {"d_model": 10, "gating_expansion": 0}, "gating_expansion=0 .* even and positive"),
        ("e_branchformer", {"n_layers": 0}, "n_layers must be at least 1, 0 came"),
        ("squeezeformer", {"reduction_kernel_size": 2}, "odd and positive .*, 2 came"),
        ("squeezeformer", {"n_layers": -1}, "n_layers must be at least 1, -1 came"),
        ("zipformer", {"factors": [1, 3]}, r"powers of 2 .*\[1, 3\] came"),
        ("zipformer", {"factors": [1, -2]}, "powers of 2"),
        ("zipformer", {"factors": []}, "one for each stack"),
        ("zipformer", {"d_head": [32, 4]}, "d_head wants 3 positive widths"),
        ("zipformer", {"kernel_size": 0}, "odd and positive .*, 0 came"),
        ("mamba", {"n_heads": 5}, r"n_heads=5 does not divide expansion \* d_model = 16"),
        ("mamba", {"d_state": 0}, "d_state=0 and kernel_size=3 came"),
    ],
)
def test_sizes_that_cannot_be(family, changed, says):
    with pytest.raises(ValueError, match=says):
        made(family, **changed)


def test_a_wrong_size_is_said_with_its_group(tones):
    config = resolved(composed(*tiny(tones, "encoder=zipformer", "encoder.factors=[1,3]")))
    with pytest.raises(ConfigError, match=r"conf/encoder: .*powers of 2"):
        call(config, "encoder", in_dim=24)


def test_zipformer_halves_what_the_first_stack_has():
    hidden, lens = made("zipformer")(torch.randn(3, 9, D), torch.tensor([9, 8, 1]))
    assert hidden.shape == (3, 5, D)
    assert lens.tolist() == [5, 4, 1]

"""Attention rules against plain loops over the published formulas, their masks, and their use in encoders."""

import math

import pytest
import torch
from torch import Tensor

from asr_lab.build import call
from asr_lab.layers.attention_rules import (
    BLOCK,
    AdditiveAttention,
    ConcatAttention,
    DotAttention,
    LocationAwareAttention,
    MultiHeadAttention,
    SelfAttention,
    masked_softmax,
)
from asr_lab.sweep.cell import resolved

from .conftest import composed, tiny

B, Q, K, DQ, DK, A = 2, 3, 5, 4, 6, 8
RULES = {
    "concat": lambda: ConcatAttention(DQ, DK, dropout=0.0),
    "additive": lambda: AdditiveAttention(DQ, DK, A, dropout=0.0),
    "location": lambda: LocationAwareAttention(DQ, DK, A, n_filters=3, kernel_size=3, dropout=0.0),
    "dot": lambda: DotAttention(DQ, DK, A, dropout=0.0),
    "multi_head": lambda: MultiHeadAttention(DQ, DK, A, n_heads=2, dropout=0.0),
}
AT_ONCE = [name for name in RULES if name != "location"]


def made(name: str, seed: int = 0, n_queries: int | None = None):
    torch.manual_seed(seed)
    rule = RULES[name]().double()
    n_queries = n_queries or (1 if name == "location" else Q)
    mask = torch.rand(B, n_queries, K) > 0.3
    mask[..., 0] = True
    return rule, torch.randn(B, n_queries, DQ).double(), torch.randn(B, K, DK).double(), mask


def plain_scores(name: str, rule, q: Tensor, keys: Tensor, previous: list[float]) -> list[list[float]]:
    """(Dq,), (K,Dk) of one query -> one list of scores for each head, by the formula and with loops."""
    w = {n: p.detach() for n, p in rule.named_parameters()}
    heads = []
    if name == "concat":
        joint = torch.cat([w["linear_q.weight"], w["linear_k.weight"]], dim=1)[0]  # one layer on [q; k]
        heads.append([float(joint @ torch.cat([q, k]) + w["linear_k.bias"]) for k in keys])
    elif name in ("additive", "location"):
        scores = []
        for j, k in enumerate(keys):
            inner = w["linear_q.weight"] @ q + w["linear_q.bias"] + w["linear_k.weight"] @ k
            if name == "location":
                f = [
                    sum(
                        float(w["filters.weight"][c, 0, o]) * previous[j + o - 1]
                        for o in range(3)
                        if 0 <= j + o - 1 < K
                    )
                    for c in range(3)
                ]
                inner = inner + w["linear_f.weight"] @ torch.tensor(f).double()
            scores.append(sum(float(v) * math.tanh(x) for v, x in zip(w["linear_v.weight"][0], inner, strict=True)))
        heads.append(scores)
    else:
        n = 2 if name == "multi_head" else 1
        size = A // n
        for h in range(n):
            rows = slice(h * size, (h + 1) * size)
            a = w["linear_q.weight"][rows] @ q + w["linear_q.bias"][rows]
            heads.append(
                [float(a @ (w["linear_k.weight"][rows] @ k + w["linear_k.bias"][rows])) / math.sqrt(size) for k in keys]
            )
    return heads


def plain_softmax(scores: list[float], seen: list[bool]) -> list[float]:
    e = [math.exp(s) if ok else 0.0 for s, ok in zip(scores, seen, strict=True)]
    return [x / sum(e) for x in e]


@pytest.mark.parametrize("name", RULES)
def test_weights_and_context_are_the_formula(name):
    rule, query, keys, mask = made(name)
    previous = torch.rand(B, 1, 1, K).double() if name == "location" else None
    context, weights = rule(query, keys, mask, previous)
    for b in range(B):
        for i in range(query.shape[1]):
            before = previous[b, 0, 0].tolist() if previous is not None else []
            heads = plain_scores(name, rule, query[b, i], keys[b], before)
            want = torch.tensor([plain_softmax(s, mask[b, i].tolist()) for s in heads]).double()  # (H, K)
            torch.testing.assert_close(weights[b, :, i], want)
            if name == "multi_head":
                values = (keys[b] @ rule.linear_v.weight.T + rule.linear_v.bias).unflatten(-1, (2, A // 2))
                summed = torch.cat([want[h] @ values[:, h] for h in range(2)])
                summed = rule.linear_out.weight @ summed + rule.linear_out.bias
            else:
                summed = want[0] @ keys[b]
            torch.testing.assert_close(context[b, i], summed)


@pytest.mark.parametrize("name", RULES)
def test_keys_out_of_sight_change_nothing_and_get_no_gradient(name):
    rule, query, keys, mask = made(name)
    mask[:] = torch.tensor([True, True, True, False, False])
    keys.requires_grad_()
    context, weights = rule(query, keys, mask)
    (context.sum() + weights.square().sum()).backward()
    assert (weights[..., 3:] == 0).all()
    assert (keys.grad[:, 3:] == 0).all()
    assert keys.grad[:, :3].abs().sum() > 0
    other = keys.detach().clone()
    other[:, 3:] = 1e3
    torch.testing.assert_close(rule(query, other, mask)[0], context)


@pytest.mark.parametrize("name", RULES)
def test_a_query_that_sees_nothing_gets_zeros(name):
    rule, query, keys, mask = made(name)
    mask[1] = False
    keys.requires_grad_()
    context, weights = rule(query, keys, mask)
    context.sum().backward()
    assert (weights[1] == 0).all()
    if name != "multi_head":  # whose last layer has a bias
        assert (context[1] == 0).all()
    assert torch.isfinite(keys.grad).all()
    assert all(torch.isfinite(p.grad).all() for p in rule.parameters())


@pytest.mark.parametrize("name", AT_ONCE)
def test_one_query_at_a_time_equals_all_at_once(name):
    rule, query, keys, mask = made(name)
    context, weights = rule(query, keys, mask)
    known = rule.project(keys)
    for i in range(Q):
        c, w = rule(query[:, i : i + 1], known, mask[:, i : i + 1])
        torch.testing.assert_close(c, context[:, i : i + 1])
        torch.testing.assert_close(w, weights[:, :, i : i + 1])


@pytest.mark.parametrize("name", RULES)
def test_gradients_are_those_of_differences(name):
    rule, query, keys, mask = made(name)
    inputs = (query.requires_grad_(), keys.requires_grad_(), *rule.parameters())
    assert torch.autograd.gradcheck(lambda q, k, *_: rule(q, k, mask), inputs)


def test_the_softmax_of_concat_cancels_the_query():
    rule, query, keys, _ = made("concat")
    weights = rule(query, keys, None)[1]
    torch.testing.assert_close(weights[:, :, 1:], weights[:, :, :1].expand(-1, -1, Q - 1, -1))


def test_blocks_of_queries_change_nothing():
    """Values and gradients of more queries than one block, against each query alone."""
    rule, query, keys, mask = made("additive", n_queries=2 * BLOCK + 5)
    grads = []
    for pieces in ([slice(None)], [slice(i, i + 1) for i in range(query.shape[1])]):
        rule.zero_grad()
        context = torch.cat([rule(query[:, p], keys, mask[:, p])[0] for p in pieces], dim=1)
        (context * torch.arange(context.numel()).view_as(context)).sum().backward()
        grads.append([context.detach(), *(p.grad.clone() for p in rule.parameters())])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


def test_additive_keeps_one_block_for_the_backward_step():
    rule, query, keys, mask = made("additive", n_queries=4 * BLOCK)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        rule(query, keys, mask)
    assert max(kept) < B * 4 * BLOCK * K * A


def test_location_aware_follows_its_previous_weights():
    rule, query, keys, mask = made("location")
    equal = mask[:, None] / mask[:, None].sum(dim=-1, keepdim=True)
    torch.testing.assert_close(rule(query, keys, mask)[1], rule(query, keys, mask, equal.double())[1])
    _, first = rule(query, keys, mask)
    assert not torch.allclose(rule(query, keys, mask, first)[1], first)
    with pytest.raises(ValueError, match="one query at a time, 2 came"):
        rule(query.expand(B, 2, DQ), keys, None)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_masked_softmax_is_finite_in_any_precision(dtype):
    largest = torch.finfo(dtype).max / 2
    scores = torch.tensor([[largest, -largest, 3.0], [-largest, -largest, largest]], dtype=dtype, requires_grad=True)
    mask = torch.tensor([[True, True, False], [True, True, False]])
    weights = masked_softmax(scores, mask)
    weights[:, 0].sum().backward()
    assert weights.dtype == dtype
    assert weights.tolist() == [[1, 0, 0], [0.5, 0.5, 0]]
    assert torch.isfinite(scores.grad).all()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: MultiHeadAttention(4, 4, 6, n_heads=4, dropout=0.0), "n_heads=4 does not divide d_attention=6"),
        (lambda: LocationAwareAttention(4, 4, 6, 2, kernel_size=4, dropout=0.0), "kernel_size must be odd"),
        (lambda: RULES["dot"]()(torch.zeros(B, Q, DQ), torch.zeros(B, K, DK), torch.ones(B, K) > 0), r"shape \(2, 5\)"),
    ],
)
def test_what_cannot_be(make, says):
    with pytest.raises(ValueError, match=says):
        make()


@pytest.mark.parametrize("choice", ["additive", "concat", "dot"])
def test_a_rule_as_self_attention_of_an_encoder(choice, tones):
    """Padding changes nothing, and a gradient reaches everything that can have one."""
    config = resolved(composed(*tiny(tones, "encoder=conformer", f"encoder/attention={choice}")))
    encoder = call(config, "encoder", in_dim=24)
    for layer in encoder.modules():
        if hasattr(layer, "p"):
            layer.p = 0.0
    feats, lens = torch.randn(2, 40, 24), torch.tensor([40, 23])
    hidden, _ = encoder(feats, lens)
    feats[1, 23:] = float("nan")
    torch.testing.assert_close(encoder(feats, lens)[0], hidden)
    (hidden * torch.randn_like(hidden)).sum().backward()
    dead = {n.rpartition(".rule.")[2] for n, p in encoder.named_parameters() if not p.grad.abs().sum() > 1e-5}
    assert dead <= {"linear_k.bias", *(["linear_q.weight"] if choice == "concat" else [])}  # the softmax cancels them


def test_self_attention_streams():
    attention = SelfAttention(8, lambda query_dim, key_dim: AdditiveAttention(query_dim, key_dim, 4, 0.0))
    x = torch.randn(2, 6, 8)
    lower = torch.ones(6, 6).tril().bool()[None]
    pieces, cache = [], None
    for frame in x.split(1, dim=1):
        y, cache = attention.stream(frame, cache, n_kept=100)
        pieces.append(y)
    torch.testing.assert_close(torch.cat(pieces, 1), attention(x, lower))

"""Signs that a training goes wrong, found in what was seen of its last steps: pure functions of numbers.

A look is a step that was watched closely. Shapes: N steps, M looks, L layers, D units of a layer; older ones first.
Why each limit is what it is, docs/diagnostics.md says.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

# A median of fewer steps says too little to call the next one unusual.
FEWEST = 20
# So many steps in a row say that gradients grow; a single one is a spike.
RECENT = 10
# Standard deviation of a normal distribution in units of its median absolute deviation.
MAD_TO_SIGMA = 1.4826
# A loss that hardly moves has no deviation to speak of: at least this share of it.
LEAST_SIGMA = 0.01


class Finding(NamedTuple):
    """One sign of trouble: what, when, where, in which utterances, and the value beside the limit that it passed."""

    kind: str  # vanishing, exploding, dead, saturated, stalled or loss_spike
    step: int
    layer: str | None  # None: the whole model
    ids: tuple[str, ...]  # of the step's utterances where they matter
    value: float
    limit: float
    text: str


class Limits:
    """
    Args:
        vanishing: a layer's gradient norm over the largest layer's.
        exploding: recent gradient norms over those before.
        spike: deviations of a loss above the losses before.
        window: steps that count as "before".
        stalled: change of a layer's weights in a step over the weights.
        dead_peak: a unit that never goes beyond this, either way, is dead.
        dead_share: of a layer's units.
        saturated_at: share of the range of an activation, as 0.99.
        saturated_frames: share of the frames in which a unit is there.
        saturated_share: of a layer's units.
    """

    def __init__(
        self,
        vanishing: float,
        exploding: float,
        spike: float,
        window: int,
        stalled: float,
        dead_peak: float,
        dead_share: float,
        saturated_at: float,
        saturated_frames: float,
        saturated_share: float,
    ):
        given = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        for name in ("vanishing", "exploding", "spike", "stalled"):
            if not given[name] > 0:
                raise ValueError(f"limits.{name} must be positive, {given[name]} came")
        if window < FEWEST:
            raise ValueError(f"limits.window must be at least {FEWEST} steps, {window} came")
        if not dead_peak >= 0:
            raise ValueError(f"limits.dead_peak must be 0 or more, {dead_peak} came")
        if not 0.5 < saturated_at < 1:
            raise ValueError(f"limits.saturated_at must be above 0.5 and below 1, {saturated_at} came")
        for name in ("dead_share", "saturated_frames", "saturated_share"):
            if not 0 < given[name] <= 1:
                raise ValueError(f"limits.{name} must be above 0 and at most 1, {given[name]} came")
        self.vanishing, self.exploding, self.spike, self.window = vanishing, exploding, spike, window
        self.stalled, self.dead_peak, self.dead_share = stalled, dead_peak, dead_share
        self.saturated_at, self.saturated_frames = saturated_at, saturated_frames
        self.saturated_share = saturated_share


def vanishing(step: int, layers: Sequence[str], norms: np.ndarray, below: float) -> list[Finding]:
    """Layers whose gradient norm is under `below` of the largest layer's in all looks. `norms` (M,L); NaN: no gradient
    came there at all, which is a choice and no fault."""
    top = np.nanmax(norms, axis=1, keepdims=True, initial=0.0)
    ratios = np.divide(norms, top, out=np.full(norms.shape, np.nan), where=np.isfinite(top) & (top > 0))
    found = []
    for i, layer in enumerate(layers):
        if (ratios[:, i] < below).all():
            value = float(np.median(ratios[:, i]))
            text = f"the gradient of {layer} is {value:.1e} of the largest layer's (limit {below:g})"
            found.append(Finding("vanishing", step, layer, (), value, below, text))
    return found


def exploding(
    step: int, norms: np.ndarray, layers: Sequence[str], of_layers: np.ndarray, window: int, times: float
) -> list[Finding]:
    """The median of the last `RECENT` gradient norms against that of up to `window` before them. `norms` (N,);
    `of_layers` (K,L), of the last K steps, names the layer that grew most."""
    recent, before = norms[-RECENT:], norms[-RECENT - window : -RECENT]
    before = before[np.isfinite(before) & (before > 0)]
    if len(recent) < RECENT or len(before) < FEWEST:
        return []
    value = float(np.median(np.where(np.isfinite(recent), recent, np.inf)) / np.median(before))
    if not value > times:
        return []
    layer = None
    if len(of_layers) > 2 * RECENT:
        # Gradients that grow by a factor a step have no limit: their logarithms say who leads.
        with np.errstate(divide="ignore", invalid="ignore"):
            growth = np.median(np.log(of_layers[-RECENT:]), axis=0) - np.median(np.log(of_layers[:-RECENT]), axis=0)
        layer = layers[int(np.nanargmax(growth))] if np.isfinite(growth).any() else None
    at = f", most of all in {layer}" if layer else ""
    text = f"gradient norms of the last {RECENT} steps are {value:.3g} times those before (limit {times:g}){at}"
    return [Finding("exploding", step, layer, (), value, times, text)]


def loss_spikes(
    steps: np.ndarray,
    losses: np.ndarray,
    since: int,
    ids: Mapping[int, tuple[str, ...]],
    window: int,
    limit: float,
) -> list[Finding]:
    """Steps from `since` on whose loss is more than `limit` robust deviations above the median of up to `window` losses
    before it: (loss - median) / (1.4826 MAD), the modified z-score (Iglewicz & Hoaglin 1993). (N,), (N,)"""
    found = []
    for i in np.flatnonzero(steps >= since):
        before = losses[max(0, i - window) : i]
        before = before[np.isfinite(before)]
        if len(before) < FEWEST or not np.isfinite(losses[i]):
            continue
        median = np.median(before)
        sigma = max(MAD_TO_SIGMA * np.median(np.abs(before - median)), LEAST_SIGMA * abs(median), 1e-12)
        z, step = float((losses[i] - median) / sigma), int(steps[i])
        if z > limit:
            text = f"loss {losses[i]:.4g}, {z:.1f} deviations above the median {median:.4g} (limit {limit:g})"
            found.append(Finding("loss_spike", step, None, ids.get(step, ()), z, limit, text))
    return found


def stalled(step: int, layers: Sequence[str], updates: np.ndarray, below: float) -> list[Finding]:
    """Layers that moved less than `below` of their own length in all looks. `updates` (M,L)"""
    found = []
    for i, layer in enumerate(layers):
        if (updates[:, i] < below).all():
            value = float(np.median(updates[:, i]))
            text = f"a step changes the weights of {layer} by {value:.1e} of their length (limit {below:g})"
            found.append(Finding("stalled", step, layer, (), value, below, text))
    return found


def dead(step: int, layer: str, peaks: np.ndarray, grads: np.ndarray, at_most: float, share: float) -> list[Finding]:
    """A layer with at least `share` of its units dead: in all looks over all frames no activation beyond `at_most`, or
    no gradient. (M,D) the largest magnitudes of each look."""
    gone = (peaks <= at_most).all(axis=0) | (grads == 0).all(axis=0)
    value = float(gone.mean())
    if value < share:
        return []
    text = f"{gone.sum()} of {gone.size} units of {layer} are dead (limit {share:.0%})"
    return [Finding("dead", step, layer, (), value, share, text)]


def saturated(step: int, layer: str, frames: np.ndarray, often: float, share: float) -> list[Finding]:
    """A layer with at least `share` of its units at the end of their range in at least `often` of the frames of every
    look. `frames` (M,D) the share of frames in which a unit is there."""
    stuck = (frames >= often).all(axis=0)
    value = float(stuck.mean())
    if value < share:
        return []
    text = f"{stuck.sum()} of {stuck.size} units of {layer} are saturated in {often:.0%} of frames (limit {share:.0%})"
    return [Finding("saturated", step, layer, (), value, share, text)]

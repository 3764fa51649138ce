"""Does an exported network give what the network here gives?"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from asr_lab.build import Parts
from asr_lab.errors import RunError
from asr_lab.export.network import Network
from asr_lab.layers.masks import valid_frames
from asr_lab.types import Batch

Exported = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # (B,T,F), (B,) -> frames (B,U,K), lengths (B,)

TOLERANCE = 1e-3  # largest difference of a log-probability or of an encoder's output; float32 rounds far below it
# Batches unlike the one that the export saw: odd and even lengths, longer and shorter ones, one utterance alone.
LENGTHS = ([97, 50, 80], [33], [301, 40, 77, 300, 255], [640, 512])


def check_lengths(network: Network, exported: Exported) -> dict[str, Any]:
    """The largest difference on random features.

    Raises:
        RunError: it is too large, or the exported network fails.
    """
    generator, largest = torch.Generator().manual_seed(0), 0.0
    for lens in LENGTHS:
        feats = torch.randn(len(lens), max(lens), network.n_features, generator=generator)
        largest = max(largest, difference(network, exported, feats, torch.tensor(lens), f"{len(lens)} x {max(lens)}"))
    return {"difference": largest}


def check_speech(network: Network, exported: Exported, parts: Parts, n_checked: int) -> dict[str, Any]:
    """Hypotheses of the first utterances of the validation split, which all must be equal.

    Raises:
        RunError: one is not.
    """
    n_done, largest = 0, 0.0
    for batch in batches(parts, "val", n_checked):
        largest = max(largest, difference(network, exported, batch.feats, batch.feat_lens, batch.ids[0]))
        want = network.hypotheses(*network(batch.feats, batch.feat_lens))
        got = network.hypotheses(*exported(batch.feats, batch.feat_lens))
        for name, a, b in zip(batch.ids, want, got, strict=True):
            if a != b:
                raise RunError(f"the export is refused: for {name} it gives {b!r}, the run {a!r}; nothing was written")
        n_done += len(want)
    return {"difference_on_speech": largest, "utterances": n_done, "equal_hypotheses": n_done}


def difference(network: Network, exported: Exported, feats: Tensor, lens: Tensor, where: str) -> float:
    """Largest absolute difference of a valid frame."""
    want, want_lens = network(feats, lens)
    try:
        got, got_lens = exported(feats, lens)
    except Exception as error:  # each runtime has its own kinds
        reason = " ".join(str(error).split())[-200:]
        raise RunError(
            f"the export is refused: it fails where the run's network does not ({where}: {type(error).__name__}: "
            f"{reason}); nothing was written"
        ) from error
    if not torch.equal(got_lens.long(), want_lens.long()) or got.shape != want.shape:
        raise RunError(
            f"the export is refused: it gives {tuple(got.shape)} for {where}, the run's network {tuple(want.shape)}; "
            "nothing was written"
        )
    apart = (got - want).masked_fill(~valid_frames(want_lens, want.shape[1])[:, :, None], 0).abs().max().item()
    if not apart <= TOLERANCE:  # NaN is no number to pass with
        raise RunError(
            f"the export is refused: it differs by {apart:.2g} from the run's network ({where}; {TOLERANCE:g} is "
            "allowed); nothing was written"
        )
    return apart


def batches(parts: Parts, split: str, n_utterances: int | None = None) -> Iterator[Batch]:
    """Padded batches of a split without augmentation; of its first utterances only, if a number is given."""
    dataset = parts.data.plain(split)
    left = len(dataset) if n_utterances is None else min(n_utterances, len(dataset))
    for epoch, indices in parts.data.sampler(dataset, shuffle=False):
        if left <= 0:
            return
        yield dataset[epoch, indices[:left]]
        left -= len(indices)

"""From encoder frames to seconds of audio."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Timeline(NamedTuple):
    """Encoder frame u stands for the audio from `seconds(u)` to `seconds(u + 1)`.

    That stretch is as long as the step from frame to frame and lies around the middle of what the front-end, its head
    and the encoder's subsampling look at for frame u. What attention, recurrence and wide convolutions see beyond that
    does not count: a network is free to say a label earlier or later than it is spoken.
    """

    step_s: float  # seconds between two encoder frames
    first_s: float  # where the stretch of frame 0 begins; below 0 where frames are centred on its first sample

    def seconds(self, frame: float) -> float:
        return self.first_s + frame * self.step_s

    @classmethod
    def of(cls, frontend: Any, head: Any, encoder: Any, sample_rate: int) -> "Timeline":
        """Measured on the front-end and the head, which clicks are sent through; read off the encoder's lengths."""
        head.eval()
        head_s = _step(lambda n: head.output_lengths(torch.tensor(frontend.n_frames(n))), sample_rate)
        step_s = _step(
            lambda n: encoder.output_lengths(head.output_lengths(torch.tensor(frontend.n_frames(n)))), sample_rate
        )
        centre_s = _centre(lambda audio: _frames(frontend, head, audio), sample_rate, head_s)
        return cls(step_s, centre_s + _middle(encoder) * head_s - step_s / 2)


@torch.no_grad()
def _frames(frontend: Any, head: Any, audio: Tensor) -> Tensor:
    """(S,) -> (T, F) of the head"""
    feats = frontend(audio)
    return head(feats[None], torch.tensor([len(feats)]))[0][0]


def _step(n_frames: Any, sample_rate: int) -> float:
    """Seconds a frame, counted over a thousand of them: the ends of an utterance do not matter."""
    first, last = (int(n_frames(n * sample_rate)) for n in (1, 1001))
    return 1000 / (last - first)


def _centre(frames_of: Any, sample_rate: int, step_s: float, n_clicks: int = 8) -> float:
    """Seconds at which the middle of what frame 0 looks at lies, if frames were not cut off at the beginning.

    A click at a known sample changes the frames that look at it. Their middle is compared with the click, for clicks
    spread over one step: so the answer is finer than a step.
    """
    silence = torch.zeros(2 * sample_rate)
    plain, centres = frames_of(silence), []
    for k in range(n_clicks):
        at = sample_rate + round((k + 0.5) * step_s * sample_rate / n_clicks)
        audio = silence.clone()
        audio[at] = 0.5
        changed = torch.nonzero((frames_of(audio) != plain).any(dim=1))[:, 0]
        centres.append((at + 0.5) / sample_rate - float(changed[0] + changed[-1]) / 2 * step_s)
    return sum(centres) / n_clicks


def _middle(encoder: Any) -> float:
    """The middle of what the subsampling looks at for frame 0, in frames of the head."""
    whole = encoder.receptive_field
    near = getattr(encoder, "subsampling", encoder).receptive_field
    if not math.isfinite(near.left + near.right) or abs(near.right - near.left) >= near.stride:
        near = near._replace(left=0, right=0)  # not symmetrical because it looks far: a frame is where its stride is
    # Frames that are taken together above the subsampling.
    return (near.right - near.left) / 2 + (whole.stride - near.stride) / 2

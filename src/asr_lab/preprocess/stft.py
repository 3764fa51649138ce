"""Analysis and synthesis for noise reduction, and the noise floor that it starts from."""

import torch
from torch import Tensor


class Stft:
    """Hann windows of `window_ms` with three quarters of overlap; the inverse is exact."""

    def __init__(self, sample_rate: int, window_ms: float):
        if not 8 <= sample_rate * window_ms / 1000 < 1e6:
            raise ValueError(f"window_ms={window_ms} is not a window of at least 8 samples at {sample_rate} Hz")
        self.hop = round(sample_rate * window_ms / 4000)
        self.n_fft = 4 * self.hop
        self.window = torch.hann_window(self.n_fft)

    def __call__(self, audio: Tensor) -> Tensor:
        """(S,), S > n_fft, -> (F, T) complex; frame t is centred on sample t * hop, beyond the ends mirrored"""
        return torch.stft(audio, self.n_fft, self.hop, window=self.window, return_complex=True)

    def inverse(self, spectrum: Tensor, n_samples: int) -> Tensor:
        """(F, T) -> (S,)"""
        return torch.istft(spectrum, self.n_fft, self.hop, window=self.window, length=n_samples)

    def noise_power(self, audio: Tensor, power: Tensor, share: float) -> Tensor | None:
        """Mean power (F, 1) over the quietest `share` of the frames, or None where there are too few to tell.

        Frames in which nothing was recorded (runs of zeros: padding, or a gate of the recorder) tell no noise floor.
        """
        n_blocks = power.shape[1] - 1
        recorded = audio[: n_blocks * self.hop].view(n_blocks, self.hop).abs().amax(dim=1) > 0
        recorded = torch.nn.functional.pad(recorded, (2, 2), value=True).unfold(0, 4, 1).all(dim=1)  # (T,)
        heard = power[:, recorded]
        n_quiet = int(share * heard.shape[1])
        if n_quiet == 0:
            return None
        quietest = heard.sum(dim=0).topk(n_quiet, largest=False).indices
        return heard[:, quietest].mean(dim=1, keepdim=True).clamp(min=1e-12)


def check_share(noise_share: float, reduction_db: float) -> None:
    """
    Raises:
        ValueError: one of these is out of its range.
    """
    if not 0 < noise_share <= 1 or not reduction_db > 0:
        raise ValueError(
            f"noise_share is in (0, 1] and reduction_db is positive, {noise_share} and {reduction_db} came"
        )

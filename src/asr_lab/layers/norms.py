"""Normalisation that knows which frames are speech."""

import torch
from torch import Tensor, nn


class MaskedBatchNorm(nn.BatchNorm1d):
    """Batch normalisation (Ioffe & Szegedy 2015) over the valid frames of a batch; padding enters no statistic.

    The parameters and buffers are those of `nn.BatchNorm1d`. In training an output depends on the rest of the batch,
    as in any batch normalisation; in evaluation it does not.
    """

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """(B,U,D), (B,U) bool -> (B,U,D)"""
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        if self.training:
            weights = mask[:, :, None].to(torch.float32)
            n = weights.sum().clamp(min=1.0)
            x32 = x.float()
            mean = (x32 * weights).sum(dim=(0, 1)) / n
            var = ((x32 - mean).square() * weights).sum(dim=(0, 1)) / n
            with torch.no_grad():
                momentum = self.momentum if self.momentum is not None else 1 / (float(self.num_batches_tracked) + 1)
                unbiased = var * (n / (n - 1).clamp(min=1.0))
                self.running_mean.lerp_(mean.to(self.running_mean), momentum)
                self.running_var.lerp_(unbiased.to(self.running_var), momentum)
                self.num_batches_tracked += 1
        else:
            mean, var = self.running_mean, self.running_var
        scale = (var + self.eps).rsqrt() * self.weight
        return (x * scale + (self.bias - mean * scale)).to(x.dtype)

"""Bidirectional LSTM encoder (Graves & Schmidhuber 2005) on stacked frames."""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from asr_lab.encoders.subsampling import FrameStacking


class BiLstmEncoder(nn.Module):
    """Frame stacking, then `n_layers` of [bidirectional LSTM -> layer norm -> dropout] of `2 * d_hidden` outputs.

    Sequences are packed: the backward direction starts at the last valid frame, so padding never enters a state.
    """

    def __init__(self, in_dim: int, d_hidden: int, n_layers: int, stacking: int, dropout: float):
        super().__init__()
        if d_hidden < 1 or n_layers < 1:
            raise ValueError(f"conf/encoder: d_hidden and n_layers must be positive, {d_hidden} and {n_layers} came")
        self.out_dim = 2 * d_hidden
        self.stack = FrameStacking(stacking)
        widths = [in_dim * stacking] + [self.out_dim] * (n_layers - 1)
        self.layers = nn.ModuleList(nn.LSTM(w, d_hidden, batch_first=True, bidirectional=True) for w in widths)
        self.norms = nn.ModuleList(nn.LayerNorm(self.out_dim) for _ in widths)
        self.dropout = nn.Dropout(dropout)
        for lstm in self.layers:
            for name, weight in lstm.named_parameters():
                if "bias_hh" in name:
                    nn.init.zeros_(weight)
                elif "bias_ih" in name:
                    nn.init.zeros_(weight)
                    # Forget gates start open (Jozefowicz et al. 2015); PyTorch's gate order is i, f, g, o.
                    nn.init.ones_(weight[d_hidden : 2 * d_hidden])
                elif "weight_hh" in name:
                    nn.init.orthogonal_(weight)

    def output_lengths(self, lens: Tensor) -> Tensor:
        return self.stack.output_lengths(lens)

    def forward(self, feats: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """(B,T,F), (B,) -> (B,U,D), (B,)"""
        x, lens = self.stack(feats, lens)
        n_frames = x.shape[1]
        cpu_lens = lens.cpu()  # packing wants lengths on the host
        for lstm, norm in zip(self.layers, self.norms, strict=True):
            packed = pack_padded_sequence(x, cpu_lens, batch_first=True, enforce_sorted=False)
            x, _ = pad_packed_sequence(lstm(packed)[0], batch_first=True, total_length=n_frames)
            x = self.dropout(norm(x))
        mask = torch.arange(n_frames, device=lens.device) < lens[:, None]
        return x * mask[:, :, None], lens

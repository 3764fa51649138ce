"""The compared models, each built in the process of its own library: `model(x (B,U,D), lens (B,)) -> (B,U,D)`."""

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

WIDTH, HEADS, HIDDEN, LAYERS, KERNEL, DROPOUT = 144, 4, 576, 4, 15, 0.1  # the Conformer
LSTM_WIDTH, LSTM_HIDDEN, LSTM_LAYERS, LSTM_DROPOUT = 240, 224, 3, 0.2  # 3 stacked frames of 80 features in


class Torchaudio(nn.Module):
    """Plain dot-product attention, no positions; batch norm over padding too."""

    def __init__(self):
        super().__init__()
        from torchaudio.models import Conformer

        self.conformer = Conformer(WIDTH, HEADS, HIDDEN, LAYERS, KERNEL, DROPOUT)

    def forward(self, x, lens):
        return self.conformer(x, lens)[0]


class SpeechBrain(nn.Module):
    """Relative positions; layer norm."""

    def __init__(self):
        super().__init__()
        from speechbrain.lobes.models.transformer.Conformer import ConformerEncoder
        from speechbrain.nnet.attention import RelPosEncXL

        self.positions = RelPosEncXL(WIDTH)
        self.conformer = ConformerEncoder(
            LAYERS, WIDTH, HIDDEN, HEADS, kernel_size=KERNEL, dropout=DROPOUT, attention_type="RelPosMHAXL"
        )

    def forward(self, x, lens):
        padding = torch.arange(x.shape[1], device=x.device) >= lens[:, None]
        return self.conformer(x, src_key_padding_mask=padding, pos_embs=self.positions(x))[0]


class Espnet(nn.Module):
    """Relative positions; batch norm over padding too."""

    def __init__(self):
        super().__init__()
        from espnet2.asr.encoder.conformer_encoder import ConformerEncoder

        self.conformer = ConformerEncoder(
            input_size=WIDTH, output_size=WIDTH, attention_heads=HEADS, linear_units=HIDDEN, num_blocks=LAYERS,
            dropout_rate=DROPOUT, positional_dropout_rate=DROPOUT, attention_dropout_rate=DROPOUT, input_layer=None,
            macaron_style=True, rel_pos_type="latest", pos_enc_layer_type="rel_pos", activation_type="swish",
            selfattention_layer_type="rel_selfattn", use_cnn_module=True, cnn_module_kernel=KERNEL,
        )  # fmt: skip

    def forward(self, x, lens):
        return self.conformer(x, lens)[0]


class PackedLstm(nn.Module):
    """torch.nn.LSTM on packed sequences, as recipes have it."""

    def __init__(self, bidirectional: bool):
        super().__init__()
        self.lstm = nn.LSTM(
            LSTM_WIDTH, LSTM_HIDDEN, LSTM_LAYERS, batch_first=True, dropout=LSTM_DROPOUT, bidirectional=bidirectional
        )

    def forward(self, x, lens):
        packed = pack_padded_sequence(x, lens.cpu(), batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=x.shape[1])[0]


def own_conformer(attention: str) -> nn.Module:
    from encoder_speed.built import Hidden, encoder

    values = {"d_model": WIDTH, "n_layers": LAYERS, "ff_expansion": HIDDEN // WIDTH, "kernel_size": KERNEL}
    values |= {"dropout": DROPOUT, "attention.n_heads": HEADS, "attention.dropout": DROPOUT}
    overrides = ["encoder=conformer", "encoder/subsampling=none", f"encoder/attention={attention}"]
    return Hidden(encoder(*overrides, *(f"encoder.{k}={v}" for k, v in values.items()), in_dim=WIDTH))


def own_lstm(name: str) -> nn.Module:
    from encoder_speed.built import Hidden, encoder

    values = {"d_hidden": LSTM_HIDDEN, "n_layers": LSTM_LAYERS, "dropout": LSTM_DROPOUT}
    overrides = [f"encoder={name}", "encoder/subsampling=none", *(f"encoder.{k}={v}" for k, v in values.items())]
    return Hidden(encoder(*overrides, in_dim=LSTM_WIDTH))


CONFORMERS = {
    "asr_lab": lambda: own_conformer("relative"),
    "asr_lab, sinusoidal": lambda: own_conformer("sinusoidal"),
    "torchaudio": Torchaudio,
    "SpeechBrain": SpeechBrain,
    "ESPnet": Espnet,
}
LSTMS = {
    "asr_lab bilstm": lambda: own_lstm("bilstm"),
    "torch.nn.LSTM, both directions": lambda: PackedLstm(True),
    "asr_lab lstm": lambda: own_lstm("lstm"),
    "torch.nn.LSTM": lambda: PackedLstm(False),
}

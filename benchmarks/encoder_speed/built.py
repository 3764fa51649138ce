"""Encoders as a run builds them, from conf/ and overrides."""

from functools import cache
from typing import Any

from hydra import compose, initialize_config_dir
from torch import nn

from asr_lab import schema
from asr_lab.build import call
from asr_lab.paths import conf_dir
from asr_lab.sweep.cell import register_resolvers, resolved

N_MELS = 80
FRAMES_PER_S = 100


def choices() -> list[str]:
    """Every encoder of conf/encoder, from the folder."""
    return sorted(p.stem for p in (conf_dir() / "encoder").glob("*.yaml") if not p.stem.startswith("_"))


@cache
def config_of(*overrides: str) -> dict[str, Any]:
    schema.register()
    register_resolvers()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return resolved(compose("config", overrides=list(overrides)))


def encoder(*overrides: str, in_dim: int = N_MELS) -> Any:
    """The encoder of a configuration."""
    return call(config_of(*overrides), "encoder", in_dim=in_dim)


class Hidden(nn.Module):
    """An encoder without the lengths that it gives."""

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder = encoder

    def forward(self, x, lens):
        return self.encoder(x, lens)[0]

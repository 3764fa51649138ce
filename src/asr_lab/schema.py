"""The typed root of every configuration: a key that is not here, or of another type, fails when it is composed."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


@dataclass
class Runtime:
    """How a run is carried out. Nothing here can change a number, so nothing here is part of a run's identity."""

    n_threads: Any = MISSING  # "auto" (all cores of this process) or a count
    n_workers: int = MISSING  # data-loading processes; 0 loads in the training process
    quiet: bool = MISSING  # one line an epoch instead of a progress bar
    rerun: bool = MISSING  # train again although this run is done; the old folder is kept beside the new one
    checkpoint_minutes: float = MISSING  # how often a run saves within an epoch
    fast_malloc: bool = MISSING  # keep freed memory in the process (glibc only)


@dataclass
class Match:
    """Sizes of the encoder that are found instead of written (match.py); what was found is what counts."""

    by: str = MISSING  # "none" (sizes as written), "parameters", "macs" or "step_time"
    target: Any = MISSING  # a number; "none" with by="none"


@dataclass
class Config:
    """One run. Each `Any` is a group: one folder of conf/, one YAML a choice, built by build.py."""

    experiment: str = MISSING
    question: str = MISSING
    seed: int = MISSING
    size: str = MISSING  # picks among the sizes written in a YAML as ${by_size:...}; what was picked is what counts
    max_nonfinite_steps: int = MISSING
    data: Any = MISSING
    preprocess: Any = MISSING
    cache: Any = MISSING
    batching: Any = MISSING
    frontend: Any = MISSING
    augment: Any = MISSING
    tokenizer: Any = MISSING
    encoder: Any = MISSING
    decoder: Any = MISSING
    decoding: Any = MISSING  # chosen by the decoder's YAML unless it is given
    lm: Any = MISSING
    distill: Any = MISSING
    optimizer: Any = MISSING
    schedule: Any = MISSING
    clipping: Any = MISSING
    averaging: Any = MISSING
    gradients: Any = MISSING
    through_time: Any = MISSING
    detectors: Any = MISSING
    trainer: Any = MISSING
    logger: Any = MISSING
    runtime: Runtime = field(default_factory=Runtime)
    match: Match = field(default_factory=Match)
    grid: dict[str, Any] = field(default_factory=dict)


@dataclass
class LmConfig:
    """One run of a language model; its groups are those of `Config`, but for two."""

    experiment: str = MISSING
    question: str = MISSING
    seed: int = MISSING
    max_nonfinite_steps: int = MISSING
    data: Any = MISSING
    text: Any = MISSING
    tokenizer: Any = MISSING
    model: Any = MISSING
    optimizer: Any = MISSING
    schedule: Any = MISSING
    clipping: Any = MISSING
    averaging: Any = MISSING
    gradients: Any = MISSING
    detectors: Any = MISSING
    trainer: Any = MISSING
    logger: Any = MISSING
    runtime: Runtime = field(default_factory=Runtime)
    grid: dict[str, Any] = field(default_factory=dict)


@dataclass
class ToyConfig:
    """One run on a toy landscape; its groups are those of `Config`, but for one."""

    experiment: str = MISSING
    question: str = MISSING
    seed: int = MISSING  # of the problem, of where training begins and of the noise
    max_nonfinite_steps: int = MISSING
    landscape: Any = MISSING
    optimizer: Any = MISSING
    schedule: Any = MISSING
    clipping: Any = MISSING
    averaging: Any = MISSING
    gradients: Any = MISSING
    detectors: Any = MISSING
    trainer: Any = MISSING
    logger: Any = MISSING
    runtime: Runtime = field(default_factory=Runtime)
    grid: dict[str, Any] = field(default_factory=dict)


def register() -> None:
    """Make the schemas known to Hydra as the configs `schema`, `lm_schema` and `toy_schema`."""
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    store.store(name="schema", node=Config, provider="asr_lab")
    store.store(name="lm_schema", node=LmConfig, provider="asr_lab")
    store.store(name="toy_schema", node=ToyConfig, provider="asr_lab")

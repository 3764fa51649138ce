"""A configuration as `asr-lab train` composes it, for commands that train nothing or leave nothing."""

from typing import Any


def composed(overrides: list[str], name: str = "config") -> dict[str, Any]:
    """Of Hydra overrides: plain values, nothing frozen. `name` is config or lm."""
    from hydra import compose, initialize_config_dir

    from asr_lab import schema
    from asr_lab.paths import conf_dir
    from asr_lab.sweep.cell import register_resolvers, resolved

    schema.register()
    register_resolvers()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return resolved(compose(name, overrides=overrides))

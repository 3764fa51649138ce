"""An experiment's plan for commands that launch nothing: composed as `asr-lab sweep` composes it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from omegaconf import DictConfig

from asr_lab.sweep.plan import Plan, make_plan

HYDRA = ("hydra/launcher=", "hydra/sweeper=", "hydra.launcher.", "hydra.sweeper.")


def plan_of(flags: Sequence[str], arguments: Sequence[str]) -> Plan:
    """`flags`: Hydra's own, as `cli.sweep.location` gives them; `arguments`: overrides. Raises as `make_plan`."""
    with _opened(flags, arguments) as (hydra, master):
        return make_plan(hydra.config_loader, master, [a for a in arguments if not a.startswith(HYDRA)])


def launcher_of(flags: Sequence[str], arguments: Sequence[str]) -> Any:
    """The launcher that the arguments choose"""
    from hydra.utils import instantiate

    with _opened(flags, arguments) as (_, master):
        return instantiate(master.hydra.launcher)


@contextmanager
def _opened(flags: Sequence[str], arguments: Sequence[str]) -> Iterator[tuple[Any, DictConfig]]:
    """(Hydra, the experiment composed without overrides of its own keys)"""
    from hydra._internal.hydra import Hydra
    from hydra._internal.utils import create_automatic_config_search_path
    from hydra.core.global_hydra import GlobalHydra
    from hydra.types import RunMode

    from asr_lab import schema
    from asr_lab.paths import conf_dir
    from asr_lab.sweep.cell import register_resolvers

    schema.register()
    register_resolvers()
    GlobalHydra.instance().clear()
    options = dict(zip(flags[::2], flags[1::2], strict=True))
    search_path = create_automatic_config_search_path(None, None, str(conf_dir()))
    if "--config-dir" in options:
        search_path.prepend(provider="command-line", path=f"file://{options['--config-dir']}")
    hydra = Hydra.create_main_hydra2(task_name="asr_lab", config_search_path=search_path)
    try:
        given = [a for a in arguments if a.startswith(HYDRA)]
        defaults = [f"hydra/{part}={ours}" for part, ours in (("launcher", "local"), ("sweeper", "grid"))]
        ours = [d for d in defaults if not any(g.startswith(d.partition("=")[0] + "=") for g in given)] + given
        yield hydra, hydra.compose_config(options["--config-name"], ours, RunMode.MULTIRUN, False)
    finally:
        GlobalHydra.instance().clear()

"""An experiment's plan for commands that launch nothing: composed as `asr-lab sweep` composes it."""

from collections.abc import Sequence

from asr_lab.sweep.plan import Plan, make_plan


def plan_of(flags: Sequence[str], arguments: Sequence[str]) -> Plan:
    """`flags`: Hydra's own, as `cli.sweep.location` gives them; `arguments`: overrides. Raises as `make_plan`."""
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
        ours = ["hydra/launcher=local", "hydra/sweeper=grid"]
        given = [
            a for a in arguments if not a.startswith(("hydra/launcher=", "hydra/sweeper=", "hydra.l", "hydra.sweeper"))
        ]
        master = hydra.compose_config(options["--config-name"], ours, RunMode.MULTIRUN, with_log_configuration=False)
        return make_plan(hydra.config_loader, master, given)
    finally:
        GlobalHydra.instance().clear()

"""Hydra finds its plugins in this namespace package by itself; what they do is in asr_lab.sweep."""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

from asr_lab import paths
from asr_lab.sweep.grid import GridSweeper as _GridSweeper
from asr_lab.sweep.halving import HalvingSweeper as _HalvingSweeper
from asr_lab.sweep.local import LocalLauncher as _LocalLauncher
from asr_lab.sweep.search import OptunaSweeper as _OptunaSweeper
from asr_lab.sweep.slurm import SlurmLauncher as _SlurmLauncher


class GridSweeper(_GridSweeper):
    """hydra/sweeper=grid"""


class HalvingSweeper(_HalvingSweeper):
    """hydra/sweeper=halving"""


class LocalLauncher(_LocalLauncher):
    """hydra/launcher=local"""


class OptunaSweeper(_OptunaSweeper):
    """hydra/sweeper=optuna"""


class SlurmLauncher(_SlurmLauncher):
    """hydra/launcher=slurm"""


class AsrLabSearchPath(SearchPathPlugin):
    """Experiments are primary configs of their own; ./conf adds a user's choices. Other Hydra programs see neither."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        ours = str(paths.conf_dir())
        if not any(item.path and item.path.removeprefix("file://") == ours for item in search_path.get_path()):
            return
        if own := paths.user_conf_dir():
            search_path.prepend("asr_lab-user", f"file://{own.resolve()}", anchor="main")
        for folder in paths.experiment_dirs():
            search_path.append("asr_lab-experiments", f"file://{folder.resolve()}")

"""Processes of ours start without what torchmetrics imports for uses that nothing here makes of it.

Lightning imports torchmetrics; that imports scipy.signal (to patch an old name for another package) and matplotlib (for
the plots of its metrics): a third of the processor time that importing Lightning takes (benchmarks/cpu_levers.py).
"""

import sys
from collections.abc import Callable
from functools import partial
from importlib.abc import MetaPathFinder
from importlib.util import find_spec
from types import ModuleType
from typing import Any


def import_leanly() -> None:
    """From now on, in this process; a torchmetrics that is imported already, or asks in another way, stays as it is.

    Its metrics then have no `plot`; asr_lab's own pictures import matplotlib themselves.
    """
    if "torchmetrics" not in sys.modules and not any(isinstance(f, _Finder) for f in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    def find_spec(self, fullname: str, path: Any = None, target: ModuleType | None = None) -> Any:
        if fullname != "torchmetrics":
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec and spec.loader:
            spec.loader.exec_module = partial(_execute, spec.loader.exec_module)
        return spec


def _execute(exec_module: Callable[[ModuleType], None], module: ModuleType) -> None:
    """torchmetrics asks lightning_utilities what is installed; until it is imported the answer is: not these."""
    from lightning_utilities.core import imports

    try:
        is_available, cache = imports.package_available, imports.RequirementCache
    except AttributeError:  # another version, which is imported as it is
        exec_module(module)
        return

    hidden = {"scipy", "matplotlib"}

    class Cache(cache):
        def _check_requirement(self) -> None:
            if self.requirement in hidden:
                self.available, self.message = False, f"asr_lab imports torchmetrics without {self.requirement}"
            else:
                super()._check_requirement()

    imports.package_available = lambda name: name not in hidden and is_available(name)
    imports.RequirementCache = Cache
    try:
        exec_module(module)
    finally:
        imports.package_available, imports.RequirementCache = is_available, cache
        hidden.clear()  # what needs them later finds them

"""A call that waits for somebody's import of a module, so that the caller need not load it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


def after_import(name: str, call: Callable[[], None]) -> None:
    """Call ``call`` when the top-level module ``name`` has been imported: now, where it has been already."""
    if name in sys.modules:
        call()
    else:
        sys.meta_path.insert(0, _Finder(name, call))


class _Finder(MetaPathFinder):
    """Stands first among the finders, and finds the module of one name by the others."""

    def __init__(self, name: str, call: Callable[[], None]) -> None:
        self.name, self.call, self.searching = name, call, False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.name or self.searching:
            return None
        self.searching = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self.searching = False
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                if self in sys.meta_path:  # a search alone, without an import, leaves it there
                    sys.meta_path.remove(self)
                    self.call()

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec

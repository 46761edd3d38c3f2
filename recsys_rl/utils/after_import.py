"""A call that runs when another module is imported, so that the caller need not import it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


def after_import(name: str, call: Callable[[], None]) -> None:
    """Call ``call`` after the import of the top-level module ``name``; at once if it is already imported."""
    if name in sys.modules:
        call()
    else:
        sys.meta_path.insert(0, _Finder(name, call))


class _Finder(MetaPathFinder):
    """The first entry of ``sys.meta_path``. It finds one module through the others, and adds the call."""

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
                if self in sys.meta_path:  # it stays after a search without an import
                    sys.meta_path.remove(self)
                    self.call()

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec

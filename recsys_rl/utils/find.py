"""Find an object by its name module:NAME."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from recsys_rl.errors import UserError


def find(spec: str, option: str, *, typed: bool = False) -> Any:
    """The object NAME of the module, for ``spec`` = "module:NAME". Only that module is imported.

    ``typed``: a person typed ``spec``. Then the current folder is searched first, as ``python -m`` does;
    otherwise it is not searched. ``option`` is the option with this value, for errors. Never pass a spec
    from a file, as the import executes the module. Raises UserError.
    """
    module_name, colon, name = spec.partition(":")
    words = module_name.split(".")
    if not colon or not name.isidentifier() or not all(word.isidentifier() for word in words):
        raise UserError(f"{option} {spec} is not of the form module:NAME, as in my_module:NAME.")
    if typed and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # a script may end the program when it is imported
        raise _not_imported(spec, option, words, error) from error
    if not hasattr(module, name):
        raise UserError(f"{option} {spec}: the module {module_name} has no {name}.")
    return getattr(module, name)


def _not_imported(spec: str, option: str, words: list[str], error: BaseException) -> UserError:
    """The refusal of a module, ``words`` of its name, whose import ended in ``error``."""
    parents = [".".join(words[: i + 1]) for i in range(len(words))]
    if isinstance(error, ModuleNotFoundError) and error.name in parents:
        where = "in this folder or among the installed packages"
        return UserError(f"{option} {spec}: there is no module {error.name} {where}.")
    return UserError(f"{option} {spec} can't be imported ({reason(error)}).")


def reason(error: BaseException) -> str:
    """Type, text and place of an error on one line."""
    text = " ".join(str(error).split())[:200]
    frames = traceback.extract_tb(error.__traceback__)
    where = f", {os.path.basename(frames[-1].filename)} line {frames[-1].lineno}" if len(frames) > 1 else ""
    return f"{type(error).__name__}: {text}{where}"

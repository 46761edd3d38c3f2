"""The fields of a dataclass, read from the source of its module without importing it.

Importing a platform or an algorithm imports torch, which takes two seconds. The names of its settings are
needed earlier, to refuse a misspelt option at once. They stand in the source as ``name: annotation``.
"""

from __future__ import annotations

import ast
import importlib.util
from functools import cache
from pathlib import Path


class Unreadable(Exception):
    """The source of a module, or a class in it, is not found."""


def fields_of(spec: str) -> dict[str, str]:
    """The annotation, as text, of each field of the dataclass "module:Class": those of its bases first.

    Raises Unreadable.
    """
    module, _, name = spec.partition(":")
    tree = _tree(module)
    found: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            for base in reversed(node.bases):  # the order of a dataclass, by its method resolution
                found |= fields_of(_home(tree, module, ast.unparse(base)))
            return found | {
                line.target.id: ast.unparse(line.annotation)
                for line in node.body
                if isinstance(line, ast.AnnAssign)
                and isinstance(line.target, ast.Name)
                and not ast.unparse(line.annotation).startswith("ClassVar")
            }
    raise Unreadable(spec)


def settings_of(spec: str) -> dict[str, str]:
    """``fields_of`` the settings of a platform, an algorithm or a source, "module:NAME".

    Their class is the first argument of the record: ``PLATFORM = Platform(Settings, ...)``.
    """
    module, _, name = spec.partition(":")
    tree = _tree(module)
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            named = [target.id for target in node.targets if isinstance(target, ast.Name)]
            if name in named and node.value.args:
                return fields_of(_home(tree, module, ast.unparse(node.value.args[0])))
    raise Unreadable(spec)


def _home(tree: ast.Module, module: str, name: str) -> str:
    """The class ``name`` of a module as "module:Class" of the module that defines it."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and any(alias.name == name for alias in node.names):
            return f"{node.module}:{name}"
    return f"{module}:{name}"


@cache
def _tree(module: str) -> ast.Module:
    try:
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None:
            raise Unreadable(module)
        return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    except (ImportError, OSError, SyntaxError, ValueError) as error:
        raise Unreadable(module) from error

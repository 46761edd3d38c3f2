"""The settings of a record as a table: name, default, allowed values, text."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Collection, Mapping
from itertools import pairwise
from typing import Any

from benchmarks.harness.newest import table
from recsys_rl.settings.fields import allowed, hints


def texts(cls: type) -> dict[str, str]:
    """The text below each field of a dataclass and of the classes that it extends."""
    found: dict[str, str] = {}
    for base in reversed([base for base in cls.__mro__ if dataclasses.is_dataclass(base)]):
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0].body  # type: ignore[attr-defined]
        for field, below in pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                value = getattr(below, "value", None)
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    found[field.target.id] = inspect.cleandoc(value.value)
    return found


def settings(cls: type) -> str:
    """All settings of a section, as a Markdown table in the order of the class."""
    said, allows = texts(cls), hints(cls)
    rows = [
        [
            f"`{field.name}`",
            f"`{field.default}`",
            cell(allowed(allows[field.name])),
            cell(said.get(field.name, "")),
        ]
        for field in dataclasses.fields(cls)
    ]
    return table(["setting", "default", "allowed", "what it does"], rows, words=True)


def presets(records: Mapping[str, Any], name: str, known: Collection[str]) -> list[list[str]]:
    """[platform, fields] of each platform whose preset sets ``known`` fields of the algorithm ``name``."""
    found = []
    for platform, record in records.items():
        fields = {**record.presets.get("*", {}).get("agent_config", {})}
        fields |= record.presets.get(name, {}).get("agent_config", {})
        fields = {field: value for field, value in fields.items() if field in known}
        if fields:
            found.append(
                [f"`{platform}`", ", ".join(f"`{field}` {value}" for field, value in fields.items())]
            )
    return found


def cell(text: str) -> str:
    """Text on one line of a table."""
    return " ".join(text.replace("``", "`").replace("|", "\\|").split())

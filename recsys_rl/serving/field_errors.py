"""A sentence for a body that is not what its struct says: the field, its value, and what it must be."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import inspect

from recsys_rl.errors import amount, one_line
from recsys_rl.settings.fields import shown

_WORDS = {
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
_BOUNDS = {">=": "at least ", "<=": "at most ", ">": "above ", "<": "below ", "==": ""}
NOTHING = object()
"""In place of a value that is not known."""


def field_error(error: msgspec.ValidationError, given: object, kind: Any, top: str = "The body") -> str:
    """The sentence of an ``error`` in making a ``kind`` of what was ``given``.

    ``given``: values of JSON's types, or NOTHING; ``top``: the name of all that was given, in words.
    """
    said, _, path = str(error).partition(" - at ")
    key = path.startswith("`key` in ")
    steps = re.findall(r"\[\.\.\.\]|[^.\[\]`$]+", path.removeprefix("`key` in "))
    if found := re.fullmatch(r"Object missing required field `(.*)`", said):
        steps.append(found[1])
        return f"{_name(steps, top)} is missing."
    if found := re.fullmatch(r"Object contains unknown field `(.*)`", said):
        known = ", ".join(_fields(kind, steps))
        return f"{_name(steps, top)} has no field {shown(found[1])}: its fields are {known}."
    found = re.fullmatch(r"Expected `([^`]*)`(?:, got `([^`]*)`)?(.*)", said)
    if found is None:
        return f"{_name(steps, top)}: {one_line(said)}."
    kinds = [_WORDS.get(name, name) for name in found[1].split(" | ")]
    wanted = " or ".join(filter(None, [", ".join(kinds[:-1]), kinds[-1]]))
    wanted += _limit(found[3], "character" if found[1] == "str" else "element")
    if key:
        return f"{_name(steps, top)}: each name in it must be {wanted}."
    steps, value = _value(given, steps, found[2])
    is_ = "" if value is NOTHING else f" is {_json(value)}, and"
    return f"{_name(steps, top)}{is_} must be {wanted}."


def _name(steps: Sequence[str], top: str) -> str:
    """The field at these steps, as ``events[0].value``."""
    name = "".join(f"[{step}]" if step.isdecimal() else f".{step}" for step in steps if step != "[...]")
    return name.removeprefix(".") or top


def _json(value: object) -> str:
    """The value as the caller wrote it, cut to 60 characters."""
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 60 else f"{text[:57]}..."


def _limit(text: str, unit: str) -> str:
    """A limit of msgspec in words, with a space before it; "" without one."""
    found = re.fullmatch(r" (of length )?([<>=]=?) (\S+)", text)
    if found is None:
        return re.sub(r" matching regex '(.*)'", r" that matches \1", text)
    bound, of = _BOUNDS[found[2]], "of " * found[2].endswith("=")
    return f" of {bound}{amount(int(found[3]), unit)}" if found[1] else f" {of}{bound}{float(found[3]):g}"


def _value(given: object, steps: Sequence[str], got: str | None) -> tuple[list[str], object]:
    """The steps with the names that msgspec leaves out, and the value there; NOTHING if it is not found.

    ``got``: msgspec's name of its type, by which the first wrong value of a mapping is found.
    """
    for at, step in enumerate(steps):
        if step == "[...]":
            for name, one in given.items() if isinstance(given, dict) else ():
                more, value = _value(one, steps[at + 1 :], got)
                if value is not NOTHING and _type(value) == got:
                    return [*steps[:at], name, *more], value
            return [*steps], NOTHING
        if isinstance(given, list) and step.isdecimal() and int(step) < len(given):
            given = given[int(step)]
        elif isinstance(given, dict) and step in given:
            given = given[step]
        else:
            return [*steps], NOTHING
    return [*steps], given


def _type(value: object) -> str:
    names = {list: "array", dict: "object", type(None): "null"}
    return names.get(type(value), type(value).__name__)


def _fields(kind: Any, steps: Sequence[str]) -> list[str]:
    """The fields of the struct at these steps of a ``kind``."""
    of = inspect.type_info(kind)
    for step in steps:
        if isinstance(of, inspect.StructType):
            of = next(field.type for field in of.fields if field.encode_name == step)
        elif isinstance(of, inspect.ListType):
            of = of.item_type
    assert isinstance(of, inspect.StructType)
    return [field.encode_name for field in of.fields]

"""Check the fields of a dataclass of settings by their annotations, and read them from mappings.

The annotation gives the allowed values: ``Annotated[int, Range(1, 9)]``, ``Literal["a", "b"]``,
``str | None``, ``tuple[..., ...]``, ``bool``. Every error is a UserError that names section.field, the given
value and the allowed values.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, TypeVar, Union

from recsys_rl.errors import FieldError, UserError

T = TypeVar("T")


@dataclass(frozen=True)
class Range:
    """The numbers from ``low`` to ``high``; the bounds ``above`` and ``below`` are themselves excluded."""

    low: float = -math.inf
    high: float = math.inf
    above: float = -math.inf
    below: float = math.inf

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high and self.above < value < self.below

    def __str__(self) -> str:
        bounds = (
            (f"at least {self.low}", self.low > -math.inf),
            (f"above {self.above}", self.above > -math.inf),
            (f"at most {self.high}", self.high < math.inf),
            (f"below {self.below}", self.below < math.inf),
        )
        return " and ".join(text for text, bounded in bounds if bounded) or "finite"


Count = Annotated[int, Range(1, 10**9)]
Size = Annotated[int, Range(1, 100_000)]  # of a layer, an embedding or a session: memory grows with it
CountOrZero = Annotated[int, Range(0, 10**9)]
Share = Annotated[float, Range(0, 1)]
Positive = Annotated[float, Range(above=0)]
NonNegative = Annotated[float, Range(0)]
Finite = Annotated[float, Range()]


_HINTS: dict[Any, dict[str, Any]] = {}  # by class, because resolving them takes a millisecond


def hints(cls: type) -> dict[str, Any]:
    """The annotation of each field, ranges included."""
    if cls not in _HINTS:
        resolved = typing.get_type_hints(cls, include_extras=True)
        _HINTS[cls] = {field.name: resolved[field.name] for field in dataclasses.fields(cls)}
    return _HINTS[cls]


def sections(cls: type) -> dict[str, list[Any]]:
    """The fields whose values are dataclasses, each with its allowed classes."""
    by_name = {}
    for name, hint in hints(cls).items():
        classes = [option for option in _options(hint) if dataclasses.is_dataclass(option)]
        if classes:
            by_name[name] = classes
    return by_name


def check_fields(settings: Any, section: str = "") -> None:
    """Raise FieldError for the first field, in sections too, with a value that its annotation forbids.

    A Path where the annotation allows a text becomes that text, so that all readers see one type.
    """
    nested = sections(type(settings))
    for name, hint in hints(type(settings)).items():
        value = _convert(hint, getattr(settings, name))
        object.__setattr__(settings, name, value)  # the settings are frozen
        path = f"{section}.{name}" if section else name
        if name in nested and isinstance(value, tuple(nested[name])):
            check_fields(value, path)
        elif not _fits(hint, value):
            near = did_you_mean(value, _choices(hint))
            raise FieldError(path, f"is {shown(value)}{near}: it must be {allowed(hint)}.")


def build(cls: type[T], mapping: Mapping[str, Any], section: str = "") -> T:
    """Make one dataclass. Lists become tuples, whole numbers floats and paths texts, as the annotation needs.

    A field of an earlier version that is a constant of the module of ``cls`` by now is left out if it has
    the constant's value. Raises UserError if ``mapping`` is not a mapping or has another field that ``cls``
    lacks.
    """
    fields = hints(cls)
    if not isinstance(mapping, Mapping):
        raise UserError(
            f"{section} is {shown(mapping)}: it must be a section of fields ({', '.join(fields)})."
        )
    mapping = {x: value for x, value in mapping.items() if x in fields or not _is_constant(cls, x, value)}
    for name in mapping:
        if name not in fields:
            raise _unknown(f"{section}.{name}" if section else str(name), name, fields)
    return cls(**{name: _convert(fields[name], value) for name, value in mapping.items()})


def _is_constant(cls: type[T], name: str, value: object) -> bool:
    """True for a number of the module of ``cls`` that was a field in an earlier version."""
    constant = getattr(sys.modules[cls.__module__], str(name).upper(), None)
    return isinstance(constant, float) and constant == value


def _unknown(path: str, name: str, names: Iterable[str]) -> UserError:
    """The refusal of a field that is none of the ``names``."""
    if not path.isprintable() or not path.strip() or len(path) > 60:  # in a file from elsewhere
        path = shown(path)
    near = did_you_mean(name, names)
    return UserError(f"There is no field {path}{near}: choose from {', '.join(names)}.")


def check_used(*fields: tuple[str, bool, str]) -> None:
    """Raise UserError with all options that this run can't use, in one sentence.

    ``fields``: the name of each, True if it is given without an effect, and the reason.
    """
    unused = [f"--{name.replace('_', '-')} ({reason})" for name, is_unused, reason in fields if is_unused]
    if unused:
        them = "it" if len(unused) == 1 else "them"
        raise UserError(f"This run can't use {', '.join(unused)}: leave {them} out.")


def did_you_mean(given: object, names: Iterable[str]) -> str:
    """' (did you mean ...?)' if one of the names is similar; else ''."""
    near = difflib.get_close_matches(str(given), list(names), 1, cutoff=0.7)
    return f" (did you mean {near[0]}?)" if near else ""


def shown(value: object) -> str:
    """The value on one line, cut to 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _options(hint: Any) -> tuple[Any, ...]:
    is_union = typing.get_origin(hint) in (Union, types.UnionType)
    return typing.get_args(hint) if is_union else (hint,)


def _choices(hint: Any) -> tuple[str, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) is Literal else ()


def _fits(hint: Any, value: Any) -> bool:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if len(_options(hint)) > 1:
        return any(_fits(option, value) for option in args)
    if origin is Annotated:
        return _fits(args[0], value) and all(value in entry for entry in args[1:] if isinstance(entry, Range))
    if origin is Literal:
        return value in args
    if origin is tuple:  # a list of layers needs at least one; a list of files may be empty
        filled = isinstance(value, tuple) and (len(value) > 0 or str in _options(args[0]))
        return filled and all(_fits(args[0], entry) for entry in value)
    if hint is float:
        return _is_exact(value) or (type(value) is float and math.isfinite(value))
    if hint is str:  # reject a NUL byte now: as part of a path it would fail later
        return isinstance(value, str) and value.strip() != "" and "\0" not in value
    return type(value) is hint


def allowed(hint: Any) -> str:
    """The allowed values of a field, from its annotation, in words."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if len(_options(hint)) > 1:
        return " or ".join(allowed(option) for option in args)
    if origin is Annotated:
        return ", ".join([allowed(args[0]), *(str(entry) for entry in args[1:] if isinstance(entry, Range))])
    if origin is Literal:
        return "one of " + ", ".join(args)
    if origin is tuple:
        some = "" if str in _options(args[0]) else "one or more "
        return f"a list of {some}values, each {allowed(args[0])}"
    names = {
        int: "a whole number",
        float: "a number",
        str: "a text that is not empty",
        bool: "true or false",
        Path: "a path",
    }
    return names.get(hint, "none" if hint is type(None) else f"a section of {hint.__name__}")


def _convert(hint: Any, value: Any) -> Any:
    options = _options(hint)
    if isinstance(value, PurePath) and str in options:
        return str(value)
    lists = [option for option in options if typing.get_origin(option) is tuple]
    if lists and isinstance(value, tuple | list):
        return tuple(_convert(typing.get_args(lists[0])[0], entry) for entry in value)
    bases = [
        typing.get_args(option)[0] if typing.get_origin(option) is Annotated else option for option in options
    ]
    if float in bases and _is_exact(value):
        return float(value)
    return value


def _is_exact(value: Any) -> bool:
    """True for a whole number that a float holds exactly."""
    return type(value) is int and abs(value) <= 2**53

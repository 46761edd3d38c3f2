"""The parsers of commands, each made once for all tests of a process.

tyro reads the types, defaults and texts of all options of a command before it parses a line. That takes
70 ms, a third of a tiny training. A user's process does it once. The tests give thousands of lines, most of
which differ in their words alone. Equal classes with equal defaults have equal parsers.
"""

from __future__ import annotations

import dataclasses
from typing import Any, get_args

from tyro._parsers import ParserSpecification

MADE: dict[Any, ParserSpecification] = {}
MOST = 200
"""Parsers that are kept."""
CLASS = ParserSpecification
make = CLASS.from_callable_or_type


def made_once(f: Any, **given: Any) -> ParserSpecification:
    """In place of ``ParserSpecification.from_callable_or_type``."""
    default, (cls, *markers) = given["default_instance"], get_args(f) or (f,)
    if given["intern_prefix"] or given["parent_classes"] or not dataclasses.is_dataclass(default):
        return make(f, **given)  # a part of a parser
    fields = [
        (field.name, str(field.type), field.kw_only, str(dict(field.metadata)), str(field.default))
        for field in dataclasses.fields(default)
    ]
    # Two classes may have one name: those of the sections are kept, so that none has the place of another.
    sections = tuple(type(getattr(default, field.name)) for field in dataclasses.fields(default))
    of_class = (cls.__module__, cls.__qualname__, cls.__doc__, str(markers), str(fields), sections)
    key = (*of_class, repr(default), str(given["description"]))
    if key not in MADE:
        if len(MADE) == MOST:
            MADE.clear()
        MADE[key] = make(f, **given)
    return MADE[key]

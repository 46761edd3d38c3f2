"""Parse options with tyro, which prints its own errors and ends with code 2."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Container, Mapping, Sequence
from typing import Any, TypeVar

import tyro

from recsys_rl.agents import AGENTS
from recsys_rl.errors import UserError
from recsys_rl.settings.fields import did_you_mean
from recsys_rl.settings.names import names_an_algorithm
from recsys_rl.training import folder as folders

T = TypeVar("T")


def parse(
    cls: type[T], default: T, argv: list[str], prog: str, description: str, main: Container[str] | None = None
) -> T:
    """The options of ``cls``. ``--help`` raises SystemExit(0), and a wrong option SystemExit(2).

    ``--help`` lists the fields in ``main`` and the settings of a person's own module, ``--help-all`` all
    fields. If ``main`` is None, both list all.
    """
    if not HELP.isdisjoint(argv):
        default, argv, description = _for_help(default, argv, description, main)
    return tyro.cli(
        type(default),
        prog=prog,
        description=description,
        args=argv,
        default=default,
        # All texts are given in the fields: tyro's search of the sources for comments takes half of its time.
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.AvoidSubcommands, tyro.conf.HelptextFromCommentsOff),
    )


HELP = frozenset(("-h", "--help", "--help-all"))


def _for_help(
    default: T, argv: list[str], description: str, main: Container[str] | None
) -> tuple[T, list[str], str]:
    """Options, words and description for the help of all fields, or of the ``main`` ones."""
    if "--help-all" in argv or main is None:
        return _listed(default, None), ["--help"], description
    return _listed(default, main), ["--help"], f"{description} --help-all lists all options."


def _listed(options: T, main: Container[str] | None) -> T:
    """The options as an instance of a subclass that has the fields of a help text alone, in their order.

    Inherited options of files (data/tables/columns.py), which are keywords, come after the others.
    """
    cls, parts, shown = type(options), dict[str, Any](), dict[str, Any]()
    own = cls.__module__.partition(".")[0] not in ("recsys_rl", "types")
    for field in sorted(dataclasses.fields(cls), key=lambda field: field.kw_only is True):  # type: ignore[arg-type]
        value = getattr(options, field.name)
        if dataclasses.is_dataclass(value):
            parts[field.name] = part = _listed(value, main)
            if dataclasses.fields(part):
                shown[field.name] = field
        elif own or main is None or field.name in main:
            shown[field.name] = field
    kinds = {name: type(part) for name, part in parts.items()}
    facts = {"__annotations__": kinds, "__doc__": cls.__doc__, "__module__": cls.__module__}
    new = type(cls.__name__, (cls,), {**facts, "__dataclass_fields__": shown})
    listed: T = object.__new__(new)
    vars(listed).update({**vars(options), **parts})
    return listed


def subcommand(command: str, name: str, kinds: Mapping[str, T]) -> T:
    """The entry of ``name`` among the commands of ``command``. Raises UserError if there is none."""
    if name not in kinds:
        hint = f"{did_you_mean(name, kinds)}: choose from {', '.join(kinds)}"
        raise UserError(f"There is no command {command} {name!r}{hint}.")
    return kinds[name]


LISTS = ("log", "weights")
"""Options of several values that ``peek`` reads; the others have one."""


def peek(argv: Sequence[str], *names: str) -> Any:
    """The options that decide the defaults of all others; None for an absent option."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in names:
        parser.add_argument(f"--{name}", nargs="*" if name in LISTS else "?")
    return parser.parse_known_args(argv)[0]


def joined(argv: Sequence[str], name: str) -> list[str]:
    """The options with one --NAME A B in place of --NAME A --NAME B."""
    option, values, others, taking = f"--{name}", list[str](), list[str](), False
    for word in argv:
        first, equals, value = word.partition("=")
        if word.startswith("--"):
            taking = first == option
        if not taking:
            others.append(word)
        elif word != option:
            values.append(value if equals and first == option else word)
    return [*others, option, *values] if values else list(argv)


def checked(config: type[T], options: Any) -> T:
    """The settings ``config``, which check their values, from ``options``, a subclass that does not.

    The command line has positional and repeated options, which are types of the subclass alone.
    """
    return config(**{f.name: getattr(options, f.name) for f in dataclasses.fields(config)})  # type: ignore[arg-type]


def latest_checkpoint(argv: list[str]) -> str:
    """The checkpoint of the latest run, or of the latest one of ``--algo``."""
    algo = peek(argv, "algo").algo
    known = algo is not None and (algo in AGENTS or names_an_algorithm(algo))
    return str(folders.latest_checkpoint(algo if known else None))

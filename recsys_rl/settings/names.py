"""The record of a platform, an algorithm or a source by its name.

This module imports no torch; the functions that return records do.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TypeVar

from recsys_rl.agents import AGENTS
from recsys_rl.data import SOURCES
from recsys_rl.env import OF_TABLES as OF_TABLES  # for modules that may not import env
from recsys_rl.env import OF_USERS as OF_USERS
from recsys_rl.env import PLATFORMS, WITH_OWN_WORLD
from recsys_rl.errors import FieldError, UserError, one_line
from recsys_rl.settings.fields import did_you_mean, shown
from recsys_rl.utils.find import find

if TYPE_CHECKING:
    from recsys_rl.records import Algorithm, Platform, Source

R = TypeVar("R")

DEFAULT_ENV, DEFAULT_ALGO = next(iter(PLATFORMS)), next(iter(AGENTS))


def platform_of(env: str) -> Platform:
    """The platform of ``env``: a name in PLATFORMS, <platform>:<name>, or any module:PLATFORM.

    Raises UserError if there is none.
    """
    from recsys_rl.records import Platform

    spec = spec_of_platform(env)
    if spec is None:
        return _own(env, "--env", Platform, typed=True)
    platform: Platform = find(spec, "--env")
    key, colon, name = env.partition(":")
    if platform.check is not None:
        platform.check(env)
    elif colon:
        raise FieldError("env", f"is {shown(env)}: give {key} without {shown(colon + name)}.")
    return platform


def spec_of_platform(env: str) -> str | None:
    """The entry of PLATFORMS for ``env``; None for module:PLATFORM. Raises FieldError if it is neither."""
    key, colon, _ = env.partition(":")
    if key in PLATFORMS:
        return PLATFORMS[key]
    if colon:
        return None
    raise FieldError(
        "env",
        f"is {shown(env)}{did_you_mean(key, PLATFORMS)}: it must be one of {', '.join(PLATFORMS)} "
        "(gym:Id for one of Gymnasium's, as in gym:CartPole-v1), or module:PLATFORM.",
    )


def has_own_world(env: str) -> bool:
    """True for a platform that takes no users and items of data."""
    key = env.partition(":")[0]
    return key in WITH_OWN_WORLD if key in PLATFORMS else platform_of(env).users is None


def names_a_module(env: str) -> bool:
    """True if ``env`` holds a module to import. Such a name must be typed; a file may not decide it."""
    key, _, name = env.partition(":")
    return ":" in name if key in PLATFORMS else ":" in env


def algorithm_of(algo: str, *, typed: bool = False) -> Algorithm:
    """The algorithm of ``algo``: a name in AGENTS, or any module:ALGORITHM.

    ``typed``: as of ``source_of``. Raises UserError if there is no such algorithm.
    """
    from recsys_rl.records import Algorithm

    if names_an_algorithm(algo):
        return _own(algo, "--algo", Algorithm, typed=typed)
    known: Algorithm = find(spec_of_algorithm(algo), "--algo")
    return known


def names_an_algorithm(algo: str) -> bool:
    """True if ``algo`` is of the form module:ALGORITHM, and so no name in AGENTS."""
    return algo not in AGENTS and ":" in algo


def is_unknown_algorithm(algo: str) -> bool:
    """True for module:ALGORITHM of a module that this program has not imported."""
    return names_an_algorithm(algo) and not _is_imported(algo)


def checkpoint_name(algo: str) -> str:
    """The name of the file of this algorithm's checkpoint in the folder of a run, and of the link to it."""
    return f"{algo.replace(':', '-')}.pt"


def learners_from_logs() -> dict[str, Algorithm]:
    """The algorithms that learn from a log of decisions, by their names."""
    every = {name: algorithm_of(name) for name in AGENTS}
    return {name: algorithm for name, algorithm in every.items() if algorithm.experience.from_log}


def spec_of_algorithm(algo: str) -> str:
    """The entry of AGENTS. Raises FieldError if there is none."""
    if algo not in AGENTS:
        names = f"{', '.join(AGENTS)}, or module:ALGORITHM"
        raise FieldError("algo", f"is {shown(algo)}{did_you_mean(algo, AGENTS)}: it must be one of {names}.")
    return AGENTS[algo]


def source_of(data: str, *, typed: bool = False) -> Source:
    """The source of a name in SOURCES, of a file with an ending there, or of any module:SOURCE.

    ``typed``: a person typed ``data``. Only then is a module imported that this program does not have yet.
    Raises UserError if there is no such source.
    """
    from recsys_rl.records import Source

    if names_a_source(data):
        return _own(data, "--data", Source, typed=typed)
    known: Source = find(spec_of_source(data), "--data")
    return known


def _own(spec: str, option: str, kind: type[R], *, typed: bool) -> R:
    """The record ``spec``, module:NAME, of a person's own file.

    Raises UserError if nobody typed ``spec`` and its module is not imported yet, and for another type.
    """
    if not typed and not _is_imported(spec):
        raise UserError(
            f"The settings name {option} {one_line(spec)}, and a file may not import a module: type this "
            "option, or import the module first."
        )
    record = find(spec, option, typed=typed)
    if not isinstance(record, kind):
        raise UserError(f"{option} {spec} is of type {type(record).__name__}: it must be of {kind.__name__}.")
    return record


def names_a_source(data: object) -> bool:
    """True if ``data`` is of the form module:SOURCE, and so neither a name nor a file."""
    return source_key(data) is None and ":" in str(data)


def is_strange(data: object) -> bool:
    """True for module:SOURCE of a module that this program has not imported."""
    return names_a_source(data) and not _is_imported(str(data))


def _is_imported(spec: str) -> bool:
    """True if this program has imported the module of module:NAME."""
    return spec.partition(":")[0] in sys.modules


def spec_of_source(data: str) -> str:
    """The entry of SOURCES for a name or a path. Raises UserError if there is none."""
    key = source_key(data)
    if key is None:
        names = ", ".join(name for name in SOURCES if not name.startswith("."))
        endings = ", ".join(name for name in SOURCES if name.startswith("."))
        raise UserError(
            f"There is no data named {shown(data)}{did_you_mean(data, SOURCES)}: choose {names}, or the path "
            f"of a file that ends in {endings}, or module:SOURCE."
        )
    return SOURCES[key]


def source_key(data: object) -> str | None:
    """The key of SOURCES for a name or a path; None if there is none."""
    text = str(data)
    if text in SOURCES and not text.startswith("."):
        return text
    return next((key for key in SOURCES if key.startswith(".") and text.lower().endswith(key)), None)

"""The record of a platform, an algorithm or a source by its name."""

from __future__ import annotations

from recsys_rl.agents import AGENTS
from recsys_rl.data import SOURCES
from recsys_rl.env import PLATFORMS
from recsys_rl.errors import FieldError, UserError
from recsys_rl.protocols import Algorithm, Platform, Source
from recsys_rl.schema import did_you_mean, hints, shown
from recsys_rl.utils.find import find

DEFAULT_ENV, DEFAULT_ALGO = next(iter(PLATFORMS)), next(iter(AGENTS))


def platform_of(env: str) -> Platform:
    """The platform of ``env``: a name in PLATFORMS, <platform>:<name>, or any module:PLATFORM.

    Raises UserError if there is none.
    """
    key, colon, name = env.partition(":")
    if key not in PLATFORMS and colon:
        found = find(env, "--env", typed=True)
        if not isinstance(found, Platform):
            raise UserError(f"--env {env} is of type {type(found).__name__}: it must be a Platform.")
        return found
    if key not in PLATFORMS:
        raise FieldError(
            "env",
            f"is {shown(env)}{did_you_mean(key, PLATFORMS)}: it must be one of {', '.join(PLATFORMS)} "
            "(gym:Id for one of Gymnasium's, as in gym:CartPole-v1), or module:PLATFORM.",
        )
    platform: Platform = find(PLATFORMS[key], "--env")
    if platform.check is not None:
        platform.check(env)
    elif colon:
        raise FieldError("env", f"is {shown(env)}: give {key} without {shown(colon + name)}.")
    return platform


def names_a_module(env: str) -> bool:
    """True if ``env`` holds a module to import. Such a name must be typed; a file may not decide it."""
    key, _, name = env.partition(":")
    return ":" in name if key in PLATFORMS else ":" in env


def algorithm_of(algo: str) -> Algorithm:
    """The algorithm of that name. Raises FieldError if there is none."""
    if algo not in AGENTS:
        raise FieldError(
            "algo", f"is {shown(algo)}{did_you_mean(algo, AGENTS)}: it must be one of {', '.join(AGENTS)}."
        )
    found: Algorithm = find(AGENTS[algo], "--algo")
    return found


def source_of(data: str) -> Source:
    """The source of that name, or for a file with that ending. Raises UserError if there is none."""
    key = source_key(data)
    if key is None:
        names = ", ".join(name for name in SOURCES if not name.startswith("."))
        endings = ", ".join(name for name in SOURCES if name.startswith("."))
        raise UserError(
            f"There is no data named {shown(data)}{did_you_mean(data, SOURCES)}: choose {names}, or the path "
            f"of a file that ends in {endings}."
        )
    found: Source = find(SOURCES[key], "--data")
    return found


def source_key(data: object) -> str | None:
    """The key of SOURCES for a name or a path; None if there is none."""
    text = str(data)
    if text in SOURCES and not text.startswith("."):
        return text
    return next((key for key in SOURCES if key.startswith(".") and text.lower().endswith(key)), None)


def owners(section: str, field: str) -> list[str]:
    """The names of the platforms, algorithms or sources with ``field`` in their ``section``."""
    tables = {"env_config": PLATFORMS, "agent_config": AGENTS, "data_config": SOURCES}
    found: dict[str, str] = {}  # one name for each record
    for name, spec in tables.get(section, {}).items():
        try:
            record = find(spec, name)
        except UserError:  # a package that it needs is not installed
            continue
        if field in hints(record.config):
            found.setdefault(spec, name)
    return list(found.values())

"""Check the names of options before torch is imported, which takes two seconds.

The names come from the source of the settings' dataclasses (utils/fields.py). This finds unknown options,
unknown names of algorithms, platforms and data, and missing values. The classes themselves check the rest
(parse.py): values, the options of a platform that is named in a file, and those of a platform of your own.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from recsys_rl.agents import AGENTS
from recsys_rl.data import SOURCES
from recsys_rl.dials import DataConfig
from recsys_rl.env import PLATFORMS
from recsys_rl.errors import UserError
from recsys_rl.lookup import (
    DEFAULT_ALGO,
    DEFAULT_ENV,
    has_own_world,
    no_setting,
    spec_of_algorithm,
    spec_of_platform,
    spec_of_source,
)
from recsys_rl.schema import did_you_mean
from recsys_rl.utils.fields import Unreadable, fields_of, settings_of

CLASSES = {
    "evaluate": "recsys_rl.cli.evaluate:EvaluateOptions",
    "recommend": "recsys_rl.cli.recommend:RecommendOptions",
    "serve": "recsys_rl.serve.server:ServeConfig",
    "visitors": "recsys_rl.workflows.visitors:VisitorsConfig",
    "log check": "recsys_rl.cli.log:CheckOptions",
    "log export": "recsys_rl.cli.log:ExportOptions",
    "log forget": "recsys_rl.cli.log:ForgetOptions",
    "export": "recsys_rl.workflows.export:ExportConfig",
    "record": "recsys_rl.cli.record:RecordOptions",
    "ope": "recsys_rl.cli.ope:OpeOptions",
    "fit-users": "recsys_rl.cli.fit_users:FitUsersOptions",
    "ranking": "recsys_rl.cli.ranking:RankingOptions",
    "data describe": "recsys_rl.cli.data:DescribeOptions",
    "data split": "recsys_rl.cli.data:SplitOptions",
}
OF_TRAIN = {"algo": "str", "env": "str", "config": "str", "run": "str", "seeds": "str", "resume": "bool"}
"""Options of `train` beside those of its sections, with their types."""
SHARED = ("recsys_rl.dials:ModelConfig", "recsys_rl.dials:TrainConfig")


def check_names(command: str, argv: Sequence[str]) -> None:
    """Raise UserError for an option that ``command`` does not have, or for one without its value."""
    if command in ("data", "log") and argv:
        command, argv = f"{command} {argv[0]}", argv[1:]
    if {"-h", "--help"} & {*argv} or (command != "train" and command not in CLASSES):
        return
    try:
        if command == "train":
            _check_train(argv)
        else:
            _check(argv, fields_of(CLASSES[command]), f"recsys-rl {command} --help")
    except Unreadable:  # the full check comes later
        return


def _check_train(argv: Sequence[str]) -> None:
    given = peek(argv, "algo", "env", "data", "config", "run")
    algo, env, data = given.algo or DEFAULT_ALGO, given.env or DEFAULT_ENV, given.data or DataConfig.data
    platform, algorithm = spec_of_platform(env), spec_of_algorithm(algo)
    options = dict(OF_TRAIN)
    for spec in SHARED:
        options |= fields_of(spec)
    if platform is None:  # a module of the user
        return
    if given.config is not None or given.run is not None or "--resume" in argv:  # a file may choose others
        for spec in {*PLATFORMS.values(), *AGENTS.values(), *SOURCES.values()}:
            options |= settings_of(spec)
        _check(argv, options, "recsys-rl train --help")
        return
    options |= settings_of(platform) | settings_of(algorithm)
    if not has_own_world(env):
        options |= settings_of(spec_of_source(data))
    see = f"recsys-rl train --algo {algo} --env {env} --help"
    _check(argv, options, see, lambda option: elsewhere(option, algo, env, data))


def _check(
    argv: Sequence[str],
    options: dict[str, str],
    see: str,
    whose: Callable[[str], str | None] = lambda option: None,
) -> None:
    """``options`` has the annotation of each option as text."""
    known = {
        name: kind for name, kind in options.items() if "Positional[" not in kind and "ClassVar" not in kind
    }
    for place, word in enumerate(argv):
        option, equals, _ = word.partition("=")
        if not option.startswith("--") or option == "--":
            continue
        name = option.removeprefix("--").replace("-", "_")
        flag = name.removeprefix("no_")
        if name not in known and "bool" not in known.get(flag, ""):
            refuse(option, [f"--{x.replace('_', '-')}" for x in known], see, whose)
        if _needs_value(known.get(name, "bool")) and not equals and _is_last(argv, place):
            raise UserError(f"{option} has no value: give one; see {see}.")


def _needs_value(annotation: str) -> bool:
    """True unless the option may stand alone: a switch, or a list that may be empty."""
    lists = "tuple[" in annotation and "UseAppendAction[" not in annotation
    return "bool" not in annotation and not lists


def _is_last(argv: Sequence[str], place: int) -> bool:
    """True if no value follows the word at ``place``."""
    return place + 1 == len(argv) or argv[place + 1].startswith("--")


def elsewhere(option: str, algo: str, env: str, data: str) -> str | None:
    """The rest of a sentence about an option that another platform, algorithm or source has; else None."""
    field = option.removeprefix("--").removeprefix("no-").replace("-", "_")
    sections = ("env_config", "agent_config", "data_config")
    return next(filter(None, (no_setting(section, field, algo, env, data) for section in sections)), None)


def refuse(option: str, known: Iterable[str], see: str, whose: Callable[[str], str | None]) -> NoReturn:
    """Raise UserError for an unknown option, with the nearest of the ``known`` ones.

    ``whose`` returns the rest of the sentence if the option belongs to something else.
    """
    hyphened = option.replace("_", "-")
    if hyphened in ("--log-dir", "--checkpoint-dir"):
        raise UserError(
            f"{option} is an option of an earlier version: each run now has its own folder in --runs-dir."
        )
    complaint = whose(hyphened)
    if complaint is not None:
        raise UserError(f"{option} {complaint}")
    raise UserError(f"There is no option {option}{did_you_mean(option, known)}: see {see}.")


def peek(argv: Sequence[str], *names: str) -> Any:
    """The options that decide the defaults of all others; None for an absent option."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in names:
        parser.add_argument(f"--{name}", nargs="?")
    return parser.parse_known_args(argv)[0]

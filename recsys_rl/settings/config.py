"""Config, all settings of one run, and its conversion from and to dicts and TOML.

Options replace settings of a file, and these replace the preset; the Config is built once. The platform, the
algorithm and the source define the classes of the sections env_config, agent_config and data_config. Three
dicts list them, and ``find`` imports only the file of the chosen one.
"""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from recsys_rl.agents import AGENTS
from recsys_rl.errors import FieldError, UserError
from recsys_rl.objective.objectives import check_objectives, unused_objectives
from recsys_rl.records import Algorithm, Platform
from recsys_rl.settings.fields import build, check_fields, check_used, did_you_mean, hints, shown
from recsys_rl.settings.names import (
    DEFAULT_ALGO,
    DEFAULT_ENV,
    algorithm_of,
    has_own_world,
    is_strange,
    names_a_source,
    platform_of,
    source_key,
    source_of,
)
from recsys_rl.settings.shared import (
    AgentConfig,
    DataConfig,
    ModelConfig,
    NoConfig,
    OnPolicyConfig,
    ReplayConfig,
)
from recsys_rl.settings.shared import EnvConfig as EnvConfig
from recsys_rl.settings.shared import TrainConfig as TrainConfig
from recsys_rl.utils.find import find

T = TypeVar("T")


@dataclass(frozen=True, init=False)
class Config:
    """All settings of one run.

        Config(algo="a2c", lr=1e-3, seed=1)
        Config(algo="a2c", agent_config={"lr": 1e-3}, train_config={"seed": 1})

    A setting is given by its own name, which is the option's on the command line, or in a dict of its
    section. All others come from the preset of ``algo`` on ``env``. A section that is given as an object is
    used as it is, with the defaults of its class (the shared settings of an EnvConfig fit every platform with
    a catalogue). Paths may be texts or ``Path``.
    """

    algo: str = DEFAULT_ALGO
    """The algorithm: a name in AGENTS, or module:ALGORITHM."""
    env: str = DEFAULT_ENV
    """The platform: a name in PLATFORMS, gym:Id, gym:module:Id, or module:PLATFORM."""
    data_config: Any = None
    env_config: Any = None
    model_config: ModelConfig = None  # type: ignore[assignment]  # __init__ fills it in
    agent_config: Any = None  # the algorithm's: PPOConfig, DQNConfig ...
    train_config: TrainConfig = None  # type: ignore[assignment]

    def __init__(
        self,
        algo: str = DEFAULT_ALGO,
        env: str = DEFAULT_ENV,
        data_config: DataConfig | NoConfig | Mapping[str, Any] | None = None,
        env_config: Any = None,
        model_config: ModelConfig | Mapping[str, Any] | None = None,
        agent_config: AgentConfig | Mapping[str, Any] | None = None,
        train_config: TrainConfig | Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        """Raise UserError for unknown names, values out of range, and values that exclude each other."""
        sections = {
            "data_config": data_config,
            "env_config": env_config,
            "model_config": model_config,
            "agent_config": agent_config,
            "train_config": train_config,
        }
        given = {name: section for name, section in sections.items() if section is not None}
        if isinstance(algo, str):
            algorithm_of(algo, typed=True)
        built = sections_from({"algo": algo, "env": env, **given}, settings)
        for name, value in {"algo": algo, "env": env, **built}.items():
            object.__setattr__(self, name, value)
        for name, section in built.items():
            check_fields(section, name)
        _check_together(self)

    @property
    def platform(self) -> Platform:
        return platform_of(self.env)

    @property
    def algorithm(self) -> Algorithm:
        return algorithm_of(self.algo, typed=True)  # __init__ or from_dict has checked the name


def _check_together(config: Config) -> None:
    """Raise UserError for values that exclude each other, in one section or in several."""
    agent, model, env = config.agent_config, config.model_config, config.env_config
    agent.check(config.train_config.total_timesteps)
    if config.train_config.num_processes > 1:
        _check_processes(config)
    check_objectives(config.train_config)
    _check_used(config)
    name = config.train_config.name
    if name is not None and not re.fullmatch(r"\w[\w.-]{0,99}", name):
        raise FieldError(
            "train_config.name",
            f"is {shown(name)}: it becomes the name of a folder, so give at most 100 letters, digits and "
            "'.', '_' or '-', with a letter or digit first.",
        )
    if model.head == "gated" and config.algorithm.network is not None:
        raise FieldError(
            "model_config.head",
            f"is gated: it draws the kind of an item before the item, but the network of {config.algo} has "
            "one choice among all items; give another head, or --algo ppo or a2c.",
        )
    if not config.platform.repeats(env) and env.max_episode_steps > env.num_items:
        raise FieldError(
            "env_config.max_episode_steps",
            f"is {env.max_episode_steps}: it must be at most num_items = {env.num_items}, as {config.env} "
            "shows no item twice in a session.",
        )


def _check_used(config: Config) -> None:
    """Raise UserError for options of networks and objectives that have no effect with the others."""
    model, rollouts = config.model_config, config.algorithm.experience.rollouts
    changed = {name for name, value in vars(model).items() if value != getattr(ModelConfig, name)}
    history = config.platform.has_history(config.env_config)
    idle = not (rollouts and model.encoder == "transformer")
    check_used(
        ("candidates", model.head == "dense" and model.candidates > 0, "the dense head scores all items"),
        ("encoder", "encoder" in changed and not history, f"{config.env} has no history"),
        ("signal_coef", "signal_coef" in changed and idle, "only for a transformer of ppo or a2c"),
        ("explore_rate", "explore_rate" in changed and not model.candidates, "only with --candidates"),
        ("index", "index" in changed and not model.candidates, "only with --candidates"),
        *unused_objectives(config.train_config, rollouts),
    )


def _check_processes(config: Config) -> None:
    """Raise UserError for settings that a run of several processes can't have."""
    size, agent = config.train_config.num_processes, config.agent_config
    check_used(("record", config.train_config.record is not None, "it needs a single process"))
    for name in ("num_envs", "batch_size"):
        value = getattr(agent, name, size)  # some learners have no minibatches
        if value % size:
            raise FieldError(
                f"agent_config.{name}",
                f"is {value}: it must be a multiple of num_processes = {size}, as it is divided among them.",
            )
    flags = [
        name for name in ("normalize_obs", "normalize_reward") if getattr(config.env_config, name, False)
    ]
    if flags:
        raise UserError(
            f"{' and '.join(flags)} need a single process, but num_processes is {size}: give "
            f"{' '.join('--no-' + name.replace('_', '-') for name in flags)}, or one process."
        )


def preset_of(algo: str, env: str) -> dict[str, Any]:
    """The fields of the platform's preset for this algorithm, by section."""
    presets = platform_of(env).presets
    return overlay(presets.get("*", {}), presets.get(algo, {}))


def _preset_for(algo: str, env: str, classes: Mapping[str, type[Any]]) -> dict[str, Any]:
    """The preset without the settings that the chosen source or algorithm does not have."""
    preset = dict(preset_of(algo, env))
    for section in {"data_config", "agent_config"} & preset.keys():
        fields = hints(classes[section])
        preset[section] = {name: value for name, value in preset[section].items() if name in fields}
    return preset


def section_classes(algo: str, env: str, data: object) -> dict[str, type[Any]]:
    """The class of each section. ``data`` is the source's name, unused if the platform has its own world.

    Of module:SOURCE of a module that is not imported, only the shared settings of data are known.
    """
    platform = platform_of(env)
    source: type[Any] = platform.data_config or DataConfig
    if has_own_world(env):
        source = NoConfig
    elif source is DataConfig and not is_strange(data):
        source = source_of(str(data)).config
    return {
        "data_config": source,
        "env_config": platform.config,
        "model_config": ModelConfig,
        "agent_config": algorithm_of(algo).config,
        "train_config": TrainConfig,
    }


def brought_settings(env: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The sections that come with the file of a platform: its items and sizes; {} if no file is given.

    ``given``: settings by their own names. Raises UserError if the file can't be used.
    """
    file = platform_of(env).file if isinstance(env, str) else None
    path = None if file is None else given.get(file.fields[0])
    if file is None or not path or not isinstance(path, str | tuple | list):  # refused with the field
        return {}
    return {**file.load(given).settings}


def to_dict(config: Any) -> dict[str, Any]:
    """Sections and fields as nested dicts of primitives; tuples become lists."""
    return {
        name: to_dict(value)
        if dataclasses.is_dataclass(value)
        else list(value)
        if isinstance(value, tuple)
        else value
        for name, value in ((f.name, getattr(config, f.name)) for f in dataclasses.fields(config))
    }


def from_dict(cls: type[T], mapping: Mapping[str, Any]) -> T:
    """The inverse of ``to_dict``. Missing fields come from the preset of ``algo``, ``env`` and ``data``.

    Raises UserError for an unknown section or field, a wrong type, or a value out of its range.
    """
    if not isinstance(mapping, Mapping):
        raise UserError(f"The settings are {shown(mapping)}: they must be sections of fields.")
    if cls is not Config:
        return build(cls, mapping)
    return cls(**{**mapping, **sections_from(mapping)})


def with_settings(config: Config | None, settings: Mapping[str, Any]) -> Config:
    """``config``, or the default one, with these settings in place of its own. Raises UserError."""
    if config is not None and not settings:
        return config
    return Config(**{**({} if config is None else vars(config)), **settings})


def sections_from(mapping: Mapping[str, Any], settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The sections of a run: the preset, the mapping over it, and the settings over both, built once.

    The Config made from them checks each field.

    Args:
        mapping: ``algo``, ``env``, and sections as mappings of fields or as objects, which are whole.
        settings: fields by their own names, without sections.

    Raises UserError as ``from_dict`` does.
    """
    settings = settings or {}
    for name in ("algo", "env"):
        if name in mapping and not isinstance(mapping[name], str):
            raise FieldError(name, f"is {shown(mapping[name])}: it must be a text.")
    algo, env = mapping.get("algo", DEFAULT_ALGO), mapping.get("env", DEFAULT_ENV)
    data = settings.get("data", data_name(mapping))
    if "data" in settings and names_a_source(data):
        source_of(str(data), typed=True)
    classes = section_classes(algo, env, data)
    homes = {name: section for section, first in classes.items() for name in hints(first)}
    _check_names(mapping)
    _check_settings(settings, homes, algo, env)
    preset = _preset_for(algo, env, classes)
    sections = {}
    for section, cls in classes.items():
        own = {name: value for name, value in settings.items() if homes[name] == section}
        fields = mapping.get(section, {})
        if dataclasses.is_dataclass(fields):
            whose = {"agent_config": f"algo {algo}", "data_config": f"data {data}"}.get(section)
            whose = f"env {env}" if whose is None or cls is NoConfig else whose
            fields = vars(_of_class(fields, cls, section, whose))
        elif isinstance(fields, Mapping):
            fields = {**preset.get(section, {}), **fields}
        sections[section] = build(cls, {**fields, **own} if isinstance(fields, Mapping) else fields, section)
    return sections


def _of_class(given: Any, cls: type[Any], section: str, whose: str) -> Any:
    """The section as ``cls``; one of the shared settings alone gets the defaults of ``cls`` beside them."""
    if type(given) is cls:
        return given
    shared = (AgentConfig, OnPolicyConfig, ReplayConfig, DataConfig, EnvConfig)
    if type(given) in shared and issubclass(cls, type(given)):
        return cls(**vars(given))
    raise UserError(f"{section} is of type {type(given).__name__}: {whose} takes {cls.__name__}.")


def _check_settings(settings: Mapping[str, Any], homes: Mapping[str, str], algo: str, env: str) -> None:
    """Raise UserError for a name that is not a setting of the run."""
    for name in settings:
        if name not in homes:
            names = [*(field.name for field in dataclasses.fields(Config)), *homes]
            raise UserError(
                f"There is no setting {name}{did_you_mean(name, names)} of {algo} on {env}: recsys-rl train "
                f"--algo {algo} --env {env} --help-all lists all."
            )


def data_name(mapping: Mapping[str, Any]) -> Any:
    """The source that the settings name in data_config, unchecked; else that of the platform's preset."""
    section, env = mapping.get("data_config"), mapping.get("env", DEFAULT_ENV)
    presets = platform_of(env).presets if isinstance(env, str) else {}
    default = presets.get("*", {}).get("data_config", {}).get("data", DataConfig.data)
    return section.get("data", default) if isinstance(section, Mapping) else getattr(section, "data", default)


def without_source(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings in a file; of a source whose module is not imported, with the shared settings of data alone.

    A file may not import a module, and who reads such a file finds the world in it.
    """
    section = settings.get("data_config")
    if not isinstance(section, Mapping) or not is_strange(section.get("data", "")):
        return dict(settings)
    shared = {name: value for name, value in section.items() if name in hints(DataConfig)}
    return {**settings, "data_config": shared}


def _check_names(mapping: Mapping[str, Any]) -> None:
    """Raise UserError for a name that is not a section."""
    names = [field.name for field in dataclasses.fields(Config)]
    for name in mapping:
        if name not in names:
            raise UserError(
                f"There is no field {name if str(name).isidentifier() else shown(name)}"
                f"{did_you_mean(name, names)}: choose from {', '.join(names)}."
            )


def overlay(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping ``under`` with its fields replaced by those of ``over``, section by section."""
    merged = dict(under)
    for name, value in over.items():
        both = isinstance(merged.get(name), Mapping) and isinstance(value, Mapping)
        merged[name] = {**merged[name], **value} if both else value
    return merged


def to_toml(config: Config) -> str:
    """The config as TOML text, without fields that are None, as TOML has no such value."""
    top, tables = [], []
    for name, value in to_dict(config).items():
        if isinstance(value, dict):
            lines = [f"{key} = {_literal(entry)}" for key, entry in value.items() if entry is not None]
            tables.append("\n".join([f"[{name}]", *lines]))
        else:
            top.append(f"{name} = {_literal(value)}")
    return "\n\n".join(["\n".join(top), *tables]) + "\n"


_OF_RUN = ("init_from", "log", "checkpoint", "record", "user_model", "judge_log")
PATHS = ("data", "data_dir", "cache_dir", "items", *_OF_RUN)
"""Fields with the path of something that a run reads; ``data`` may also be a name."""


def with_whole_paths(config: Config) -> Config:
    """The config with absolute paths of what the run reads, so that it can be used from another folder."""
    sections: dict[str, Any] = {}
    for name, section in vars(config).items():
        paths = {field: getattr(section, field, None) for field in PATHS}
        if not str(source_key(paths["data"])).startswith("."):  # the name of a source, not of a file
            del paths["data"]
        absolute = {field: _absolute(path) for field, path in paths.items() if path is not None}
        sections[name] = dataclasses.replace(section, **absolute) if absolute else section
    return Config(**sections)


def _absolute(path: str | tuple[str, ...]) -> str | tuple[str, ...]:
    return (
        str(Path(path).absolute())
        if isinstance(path, str)
        else tuple(str(Path(file).absolute()) for file in path)
    )


def read_toml(text: str, source: str = "the TOML text") -> dict[str, Any]:
    """Sections and fields of a TOML text, unchecked. Raises UserError if ``text`` is not TOML."""
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        mend = "mend that place, or give a file like the config.toml of a run"
        raise UserError(f"{source} is not TOML ({error}): {mend}.") from error


def _literal(value: Any) -> str:
    # JSON's strings, numbers, booleans and lists of numbers are also TOML, except for the DEL character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


if TYPE_CHECKING:
    from recsys_rl.agents.a2c import A2CConfig as A2CConfig
    from recsys_rl.agents.ppo import PPOConfig as PPOConfig
else:

    def __getattr__(name: str) -> Any:
        """The settings class of an algorithm, PPOConfig for example, imported from its file."""
        for spec in AGENTS.values() if name.endswith("Config") else ():
            cls = find(spec, name).config
            if cls.__name__ == name:
                return cls
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""The settings: their ranges, the errors of invalid values, and the conversion to dicts and TOML and back."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import typing
from typing import Annotated, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_rl.agents import AGENTS
from recsys_rl.agents.a2c import A2CConfig
from recsys_rl.agents.ppo import PPOConfig
from recsys_rl.data.catalogue import DatasetConfig, MadeUpConfig
from recsys_rl.data.log import LogConfig
from recsys_rl.env.drift import DriftConfig
from recsys_rl.env.satiation import SatiationConfig
from recsys_rl.errors import FieldError
from recsys_rl.evaluation.options import EvaluateConfig
from recsys_rl.foreign.gym import GymConfig
from recsys_rl.objective.objectives import CONTROLLER
from recsys_rl.settings.config import (
    Config,
    from_dict,
    overlay,
    preset_of,
    read_toml,
    to_dict,
    to_toml,
)
from recsys_rl.settings.fields import Range, hints
from recsys_rl.settings.shared import AgentConfig, DataConfig, EnvConfig, ModelConfig, NoConfig, TrainConfig
from recsys_rl.types import UserError

SECTIONS = [
    ("data_config", DatasetConfig),
    ("data_config", MadeUpConfig),
    ("data_config", LogConfig),
    ("env_config", DriftConfig),
    ("env_config", SatiationConfig),
    ("env_config", GymConfig),
    ("model_config", ModelConfig),
    ("agent_config", PPOConfig),
    ("agent_config", A2CConfig),
    ("train_config", TrainConfig),
]
CHOSEN: dict[type, dict[str, Any]] = {  # the choice that brings a section of that class
    MadeUpConfig: {"data_config": {"data": "synthetic"}},
    LogConfig: {"data_config": {"data": "log.csv"}},
    SatiationConfig: {"env": "satiation"},
    GymConfig: {"env": "gym:CartPole-v1"},
    A2CConfig: {"algo": "a2c"},
}
DATA = {"movielens": DatasetConfig, "kuairec": DatasetConfig, "synthetic": MadeUpConfig, "a.csv": LogConfig}
ENVS = {
    "drift": DriftConfig,
    "satiation": SatiationConfig,
    "gym:CartPole-v1": GymConfig,
    "gym:some.module:ALE/Pong-v5": GymConfig,
}


def numeric_fields() -> list[tuple[str, type, str, type, Range]]:
    """Section, its class, field, int or float, and range of each numeric field."""
    found = []
    for section, cls in SECTIONS:
        for name, hint in hints(cls).items():
            bare = next(
                (part for part in typing.get_args(hint) if typing.get_origin(part) is Annotated), hint
            )
            if typing.get_origin(bare) is Annotated:
                found.append((section, cls, name, *typing.get_args(bare)))
    return found


def from_section(section: str, cls: type, **fields: Any) -> Config:
    return from_dict(Config, overlay(CHOSEN.get(cls, {}), {section: fields}))


# ---- strategies: any config that the annotations allow


def numbers(base: type, limits: Range) -> st.SearchStrategy[Any]:
    if base is int:
        return st.integers(int(limits.low), int(limits.high))
    low, high = max(limits.low, limits.above), min(limits.high, limits.below)
    return st.floats(
        None if low == -math.inf else low,
        None if high == math.inf else high,
        allow_nan=False,
        allow_infinity=False,
    ).filter(limits.__contains__)


def values(hint: Any) -> st.SearchStrategy[Any]:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return numbers(*args)
    if origin is typing.Literal:
        return st.sampled_from(args)
    if origin is tuple:
        return st.lists(values(args[0]), min_size=1, max_size=4).map(tuple)
    if args:
        return st.one_of([values(part) for part in args])
    if hint is str:
        letters = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
        return st.text(letters, min_size=1).filter(str.strip)
    return st.none() if hint is type(None) else st.booleans()


def section_values(cls: type, **fixed: Any) -> st.SearchStrategy[Any]:
    free = {name: values(hint) for name, hint in hints(cls).items() if name not in fixed}
    return st.builds(cls, **free, **{name: st.just(value) for name, value in fixed.items()})


@st.composite
def configs(draw: st.DrawFn) -> Config:
    agent = draw(st.one_of(section_values(PPOConfig), section_values(A2CConfig)))
    env, data = draw(st.sampled_from(list(ENVS))), draw(st.sampled_from(list(DATA)))
    env_config = draw(section_values(ENVS[env]))
    if isinstance(agent, PPOConfig):
        agent = dataclasses.replace(agent, batch_size=min(agent.batch_size, agent.n_steps * agent.num_envs))
    weights = draw(st.sampled_from([(), ("watch=0.5", "revenue=-1")]))
    limit = draw(st.sampled_from([(), ("watch>=0.5", "revenue<=1")]))
    # The settings of the multiplier are refused without a limit.
    controller = {} if limit else {name: getattr(TrainConfig, name) for name in CONTROLLER}
    train_config = draw(section_values(TrainConfig, weights=weights, limit=limit, **controller))
    num_processes = math.gcd(train_config.num_processes, agent.num_envs, getattr(agent, "batch_size", 0))
    if isinstance(env_config, EnvConfig):
        steps = min(env_config.max_episode_steps, env_config.num_items)
        env_config = dataclasses.replace(env_config, max_episode_steps=steps)
    elif num_processes > 1:
        env_config = dataclasses.replace(env_config, normalize_obs=False, normalize_reward=False)
    record = None if num_processes > 1 else train_config.record
    model_config = draw(section_values(ModelConfig))
    if env != "satiation":  # the others show no history to read
        model_config = dataclasses.replace(model_config, encoder="mlp")
    if model_config.encoder != "transformer":
        model_config = dataclasses.replace(model_config, signal_coef=ModelConfig.signal_coef)
    if model_config.head == "dense" or not model_config.candidates:
        model_config = dataclasses.replace(model_config, candidates=0, explore_rate=0.25, index="auto")
    return Config(
        "ppo" if isinstance(agent, PPOConfig) else "a2c",
        env,
        NoConfig() if env.startswith("gym:") else draw(section_values(DATA[data], data=data)),
        env_config,
        model_config,
        agent,
        dataclasses.replace(
            train_config,
            num_processes=num_processes,
            record=record,
            name=draw(st.sampled_from([None, "a", "é-1.2_x"])),
        ),
    )


@given(configs())
@settings(max_examples=25, deadline=None)
def test_round_trip(config: Config) -> None:
    assert from_dict(Config, to_dict(config)) == config
    assert from_dict(Config, json.loads(json.dumps(to_dict(config)))) == config
    assert from_dict(Config, read_toml(to_toml(config))) == config


def test_toml_is_literal() -> None:
    config = Config(
        env="satiation", model_config=ModelConfig(hidden_dims=(8, 4)), agent_config=PPOConfig(lr=1e-05)
    )
    lines = to_toml(config).splitlines()
    assert lines[:4] == ['algo = "ppo"', 'env = "satiation"', "", "[data_config]"]
    assert "hidden_dims = [8, 4]" in lines and "lr = 1e-05" in lines and "tensorboard = false" in lines
    assert not any(line.startswith(("data_dir", "name")) for line in lines)


def test_values_of_a_file_get_the_type_of_the_field() -> None:
    config = from_dict(
        Config, read_toml("algo = 'a2c'\n[agent_config]\nlr = 1\n[model_config]\nhidden_dims = [7]\n")
    )
    assert config.agent_config == A2CConfig(lr=1.0) and type(config.agent_config.lr) is float
    assert config.model_config.hidden_dims == (7,)
    assert from_dict(Config, {}) == Config()


def test_overlay_changes_only_given_fields() -> None:
    base = Config()
    over = overlay(to_dict(base), {"agent_config": {"lr": 0.5}})
    agent = dataclasses.replace(base.agent_config, lr=0.5)
    assert from_dict(Config, over) == dataclasses.replace(base, agent_config=agent)


@pytest.mark.parametrize("algo", ["ppo", "a2c"])
@pytest.mark.parametrize("env", ["drift", "satiation", "gym:CartPole-v1"])
def test_missing_sections_are_the_preset(algo: Any, env: str) -> None:
    """From Python, from a dict and from TOML, as for the command."""
    preset = Config(algo=algo, env=env)
    assert Config(algo, env) == from_dict(Config, {"algo": algo, "env": env}) == preset
    assert from_dict(Config, read_toml(f"algo = '{algo}'\nenv = '{env}'")) == preset
    for section, fields in preset_of(algo, env).items():
        found = to_dict(getattr(preset, section))
        assert {name: found[name] for name in fields} == {
            name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()
        }


def test_preset_of_satiation_fills_incomplete_sections() -> None:
    assert Config(env="satiation").agent_config.gamma == 0.99
    some = from_dict(Config, {"env": "satiation", "agent_config": {"lr": 0.5}})
    assert (some.agent_config.gamma, some.agent_config.lr) == (0.99, 0.5)
    # A section that is given whole stands as it is.
    assert Config(env="satiation", agent_config=PPOConfig()).agent_config == PPOConfig()


@pytest.mark.parametrize(
    ("env", "field", "value"),
    [("shop", "video_base", -0.6), ("short-video", "like_cost", 2.5), ("tutor", "prior", 0.2)],
)
def test_fields_of_earlier_files_that_are_constants_now(env: str, field: str, value: float) -> None:
    """A checkpoint of then is read if its value is the constant's: another one made other users."""
    config = Config(env=env)
    before = to_dict(config)
    before["env_config"][field] = value
    assert from_dict(Config, before) == config
    before["env_config"][field] = value + 0.5
    with pytest.raises(UserError, match=field):
        from_dict(Config, before)


def test_names_of_the_settings_can_be_imported_from_one_module() -> None:
    from recsys_rl.settings import config
    from recsys_rl.settings.config import A2CConfig as A2C
    from recsys_rl.settings.config import EnvConfig as Env
    from recsys_rl.settings.config import PPOConfig as PPO
    from recsys_rl.settings.config import TrainConfig as Train

    assert (Env, PPO, A2C, Train) == (EnvConfig, PPOConfig, A2CConfig, TrainConfig)
    assert issubclass(DriftConfig, Env) and Env(embedding_dim=8).state_dim == 16
    with pytest.raises(AttributeError, match=r"'recsys_rl\.settings\.config' has no attribute 'SACConfig'"):
        _ = getattr(config, "SAC" + "Config")


@pytest.mark.parametrize(
    "name", ["a/b", "..", ".", ".hidden", "-x", "a\\b", "a b", "x\x1b[31m", "a" * 101, "a\n"]
)
def test_invalid_run_name(name: str) -> None:
    with pytest.raises(UserError):
        from_dict(Config, {"train_config": {"name": name}})


# ---- every field has a range, and the range holds


def test_numeric_fields_have_ranges() -> None:
    for _, cls in SECTIONS:
        for name, hint in hints(cls).items():
            parts = [*typing.get_args(hint), hint]
            assert not {int, float} & {p for p in parts if isinstance(p, type)} or any(
                typing.get_origin(p) is Annotated for p in parts
            ), f"{cls.__name__}.{name}"
    assert len(numeric_fields()) > 35


@pytest.mark.parametrize(("section", "cls", "name", "base", "limits"), numeric_fields())
def test_numbers_out_of_range(section: str, cls: type, name: str, base: type, limits: Range) -> None:
    listed = name == "hidden_dims"
    outside: list[Any] = [True, "1", math.nan, math.inf, [[1]]]
    outside += [bound - 1 for bound in (limits.low,) if bound > -math.inf]
    outside += [bound + 1 for bound in (limits.high,) if bound < math.inf]
    outside += [bound for bound in (limits.above, limits.below) if abs(bound) < math.inf]
    outside += [1.5] if base is int else [10**400]
    for value in outside:
        with pytest.raises(UserError):
            from_section(section, cls, **{name: [value] if listed else value})


NAMES_OF_SETTINGS = (
    "algo",
    "env",
    "data_config",
    "env_config",
    "model_config",
    "agent_config",
    "train_config",
)
OF_MODEL = (
    "encoder",
    "signal_coef",
    "head",
    "hidden_dims",
    "activation",
    "candidates",
    "explore_rate",
    "index",
)
OF_DRIFT = ("num_items", "embedding_dim", "max_episode_steps", "reward_decay", "user_drift", "history_length")


@pytest.mark.parametrize(
    "mapping",
    [
        {"algo": "pppo"},
        {"env": "drfit"},
        {"env_confg": {}},
        {"model_config": {"hidden_dim": [3]}},
        {"model_config": {"lr": 0.1}},
        {"lr": 0.1},
        {"env": "gym:CartPole-v1", "model_config": {"encoder": "transformer"}},
        {"env_config": {"num_items": True}},
        {"env": "satiation", "env_config": {"satiation_recovery": 1.0}},
        {"model_config": {"head": "densee"}},
        {"model_config": {"hidden_dims": []}},
        {"train_config": {"tensorboard": 1}},
        {"data_config": {"data_dir": ""}},
        {"train_config": {"runs_dir": "a\0b"}},
        {"agent_config": {"batch_size": 2049}},
        {"env": "satiation", "env_config": {"num_items": 19}},
        {"model_config": 3},
        {"env": "drift", "model_config": {"signal_coef": 1.0}},
        {"env": "satiation", "model_config": {"signal_coef": 1.0}},
        [1],
        {"\n": 1},
        {"env": ["drift"]},
        {"algo": None},
        {"env_config": {"noise": 0.1}},
        {"env_config": {"num_users": 2000}},
    ],
)
def test_wrong_settings_are_refused(mapping: Any) -> None:
    with pytest.raises(UserError):
        from_dict(Config, mapping)


def test_section_of_another_algorithm_platform_or_source() -> None:
    assert isinstance(from_dict(Config, {"agent_config": {"clip_eps": 0.1}}).agent_config, PPOConfig)
    with pytest.raises(UserError):
        Config(algo="a2c", agent_config=PPOConfig())
    with pytest.raises(UserError):
        Config(env="satiation", env_config=DriftConfig())
    with pytest.raises(UserError):
        Config(data_config=MadeUpConfig(data="log.csv"))
    with pytest.raises(UserError):
        Config(env="gym:X-v0", env_config=EnvConfig())
    with pytest.raises(UserError):
        Config(env="gym:X-v0", data_config=DatasetConfig())


def test_shared_settings_serve_every_platform_and_source() -> None:
    config = Config(
        env="satiation",
        env_config=EnvConfig(num_items=50),
        data_config=DataConfig(data="log.csv", heldout_fraction=0.5),
    )
    assert config.env_config == SatiationConfig(num_items=50)
    assert config.data_config == LogConfig(data="log.csv", heldout_fraction=0.5)
    assert Config(env_config=EnvConfig()).env_config == DriftConfig()
    assert Config(agent_config=AgentConfig(lr=0.5)).agent_config == PPOConfig(lr=0.5)


def test_config_made_in_code_is_checked() -> None:
    with pytest.raises(UserError):
        Config(agent_config=PPOConfig(gamma=1.5))
    with pytest.raises(UserError):
        EvaluateConfig(seed=-1)
    with pytest.raises(UserError):
        EvaluateConfig(env="cartpole")
    assert EvaluateConfig().threads == TrainConfig().threads == 1


def test_values_are_shown_on_one_short_line() -> None:
    with pytest.raises(UserError) as caught:
        from_dict(Config, {"model_config": {"activation": "x\n" * 1000}})
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 150


@pytest.mark.parametrize(
    "env", ["", "gym:", "gym", "gym:a b", "gym:1:X", "gym::X", "gym:a:b:c", "Drift", "gym:m:"]
)
def test_invalid_environment_names(env: str) -> None:
    with pytest.raises(UserError):
        from_dict(Config, {"env": env})


@pytest.mark.parametrize(
    "text", ["lr = ", "[a]\n[a]", "a = 1\na = 2", "\0", "x = " + "[" * 5000, "x = " + "9" * 9999]
)
def test_text_that_is_not_toml(text: str) -> None:
    with pytest.raises(UserError):
        read_toml(text)


# ---- presets


@pytest.mark.parametrize("algo", AGENTS)
@pytest.mark.parametrize("env", ["drift", "satiation", "gym:CartPole-v1", "gym:some.module:Id-v0"])
def test_presets_of_algorithms_on_environments(algo: str, env: str) -> None:
    config = Config(algo=algo, env=env)
    assert (config.algo, config.env) == (algo, env) and type(config.agent_config) is config.algorithm.config
    own = preset_of(algo, env)
    known = {
        name: value
        for name, value in own.get("agent_config", {}).items()
        if hasattr(config.agent_config, name)
    }
    if "agent_config" in own:  # that of all algorithms may hold settings which this one lacks
        own = {**own, "agent_config": known}
    assert to_dict(config) == overlay(to_dict(config), own)


def test_preset_of_an_algorithm_refines_that_of_all() -> None:
    assert preset_of("ppo", "satiation") == {
        "data_config": {"profile_fraction": 0.9},
        "agent_config": {"gamma": 0.99, "gae_lambda": 0.95, "bootstrap_time_limit": False, "lr": 1e-3},
        "model_config": {"encoder": "deep-sets"},
        "train_config": {"total_timesteps": 800_000},
    }
    assert preset_of("a2c", "satiation")["agent_config"] == {
        "gamma": 0.99,
        "gae_lambda": 0.95,
        "bootstrap_time_limit": False,
    }


def test_preset_of_data_is_for_sources_that_have_the_setting() -> None:
    assert vars(Config(env="satiation").data_config)["profile_fraction"] == 0.9
    assert vars(Config(env="drift").data_config)["profile_fraction"] == 0.8
    made_up = from_dict(Config, {"env": "satiation", "data_config": {"data": "synthetic"}})
    assert "profile_fraction" not in vars(made_up.data_config)
    with pytest.raises(UserError):
        from_dict(Config, {"env": "satiation", "data_config": {"data": "synthetic", "profile_fraction": 0.9}})


def test_presets_set_no_optional_fields() -> None:
    """A file can't hold None, so it could not reset an optional field that a preset sets."""
    for algo in AGENTS:
        for env in ENVS:
            for section, fields in preset_of(algo, env).items():
                blank = type(getattr(Config(algo=algo, env=env), section))()
                own = [name for name in fields if hasattr(blank, name)]
                assert all(getattr(blank, name) is not None for name in own), f"{env}: {section}"


def test_field_error_can_be_copied() -> None:
    error = FieldError("agent_config.lr", "is -1: it must be above 0.")
    copied = copy.copy(error)  # as pickling does
    assert str(copied) == str(error) == "agent_config.lr is -1: it must be above 0."
    assert (copied.option, copied.complaint) == ("--lr", "is -1: it must be above 0.")

"""The package from Python: settings by their own names, partial sections, paths, policies as objects."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from recsys_rl import Action, Catalogue, Config, EvaluateConfig, Obs, evaluate, load, train, updates
from recsys_rl.agents.ppo import PPOConfig
from recsys_rl.data.log import LogConfig
from recsys_rl.evaluation.custom import named
from recsys_rl.logs.record import RecordConfig
from recsys_rl.settings.config import from_dict, with_settings
from recsys_rl.settings.shared import EnvConfig, TrainConfig
from recsys_rl.types import UserError

SMALL: dict[str, Any] = {
    "env": "satiation",
    "data": "synthetic",
    "num_users": 60,
    "num_items": 30,
    "embedding_dim": 8,
    "hidden_dims": [16],
    "num_envs": 8,
    "n_steps": 8,
    "batch_size": 64,
    "total_timesteps": 128,
    "eval_interval": 0,
}


def last_item(num_items: int) -> Any:
    class Last:
        def act(self, obs: Obs, greedy: bool = False) -> Action:
            allowed = obs.allowed(num_items)  # (N, I)
            items = allowed.long().mul(torch.arange(1, num_items + 1)).argmax(1, keepdim=True)  # (N, 1)
            return Action(items, torch.zeros(len(items)))

    return Last()


class Popular:
    """The most popular item that was not shown."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.popularity = catalogue.popularity  # (I,)

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        scores = self.popularity.where(obs.allowed(len(self.popularity)), -1.0)  # (N, I)
        return Action(scores.argmax(1, keepdim=True), torch.zeros(len(scores)))


# ---- Config


def test_settings_by_their_own_names_and_in_sections_are_the_same() -> None:
    flat = Config(env="satiation", lr=0.25, seed=1, hidden_dims=[8, 4], data="synthetic", noise=1)
    sections = Config(
        env="satiation",
        agent_config={"lr": 0.25},
        train_config={"seed": 1},
        model_config={"hidden_dims": (8, 4)},
        data_config={"data": "synthetic"},
        env_config={"noise": 1.0},
    )
    assert flat == sections
    assert type(flat.agent_config) is PPOConfig
    assert (flat.agent_config.gamma, flat.agent_config.lr) == (0.99, 0.25)  # gamma of the preset
    assert type(flat.env_config.noise) is float and flat.model_config.hidden_dims == (8, 4)
    assert flat == from_dict(
        Config, {"env": "satiation", **{f.name: vars(getattr(flat, f.name)) for f in SECTIONS}}
    )


SECTIONS = [field for field in dataclasses.fields(Config) if field.name.endswith("_config")]


def test_own_names_replace_fields_of_a_section() -> None:
    config = Config(agent_config={"lr": 0.5, "gamma": 0.25}, lr=0.125)
    assert (config.agent_config.lr, config.agent_config.gamma) == (0.125, 0.25)
    whole = Config(
        env="satiation", agent_config=PPOConfig(gamma=0.25), env_config=EnvConfig(num_items=50), lr=0.5
    )
    assert whole.agent_config == PPOConfig(gamma=0.25, lr=0.5)  # without the preset
    assert whole.env_config.num_items == 50


def test_settings_over_a_config() -> None:
    config = Config(env="satiation", lr=0.5)
    assert with_settings(config, {}) is config
    changed = with_settings(config, {"seed": 3})
    assert changed == dataclasses.replace(config, train_config=TrainConfig(total_timesteps=800_000, seed=3))
    assert with_settings(None, {"algo": "a2c"}) == Config(algo="a2c")


def test_paths_are_texts_or_paths() -> None:
    log = Path("some") / "log.csv"
    config = Config(data=log, items=Path("items.csv"), train_config={"runs_dir": Path("elsewhere")})
    assert config.data_config == LogConfig(data=str(log), items="items.csv")
    assert config.train_config.runs_dir == "elsewhere"
    assert EvaluateConfig(checkpoint=Path("x.pt"), files=(Path("a.pt"), "b.pt")) == EvaluateConfig(
        checkpoint="x.pt", files=("a.pt", "b.pt")
    )
    assert RecordConfig(checkpoint=Path("x.pt"), out=Path("y.parquet")).out == "y.parquet"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "settings",
    [
        {"lrr": 1},
        {"env_confg": {}},
        {"algorithm": "a2c"},
        {"noise": 0.1},
        {"algo": "a2c", "clip_eps": 0.1},
        {"lr": "fast"},
        {"seed": -1},
        {"agent_config": {"learning_rate": 1}},
        {"agent_config": 3},
        {"data": "log.csv", "data_config": {"data_dir": "x"}},
    ],
)
def test_wrong_settings_give_one_sentence(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        Config(**settings)


# ---- train, evaluate, updates


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("front") / "run"
    return train(**SMALL, lr=0.01, seed=4, folder=folder, quiet=True)


def test_train_takes_settings_by_their_own_names(trained: Path) -> None:
    config = load(trained).checkpoint.config
    assert (config.env, config.agent_config.lr, config.train_config.seed) == ("satiation", 0.01, 4)
    assert config.agent_config.gamma == 0.99  # the preset of satiation


def test_updates_take_settings_over_a_config(tmp_path: Path) -> None:
    config = Config(**SMALL)
    steps = [update.step for update in updates(config, total_timesteps=64, folder=tmp_path / "run")]
    assert steps == [64]


def test_evaluate_takes_a_path_and_policies_as_objects(trained: Path, tmp_path: Path) -> None:
    mine = {"last": last_item(30), "popular": Popular}
    found = evaluate(trained, policies=mine, max_users=6, cache_dir=tmp_path, json=tmp_path / "table.json")
    rows = {row["policy"]: row for row in found["rows"]}
    assert {"ppo", "ppo-greedy", "last", "popular", "rule"} <= set(rows)
    assert rows["popular"]["return_mean"] == pytest.approx(rows["popularity"]["return_mean"])
    assert {"last", "popular"} <= {row["policy"] for row in found["paired"]}
    assert (tmp_path / "table.json").exists()


def test_evaluate_takes_several_paths(trained: Path, tmp_path: Path) -> None:
    other = train(**SMALL, seed=4, folder=tmp_path / "other", quiet=True)
    found = evaluate([trained, str(other)], max_users=3, cache_dir=tmp_path)
    assert {"ppo (run)", "ppo (other)"} <= {row["policy"] for row in found["rows"]}


@pytest.mark.parametrize(
    ("checkpoints", "settings"),
    [
        ("x.pt", {"checkpont": 1}),
        ("x.pt", {"max_users": -1}),
        ([], {}),
        (3, {}),
        ([3], {}),
        (Path("no/such.pt"), {}),
    ],
)
def test_wrong_arguments_of_evaluate(checkpoints: Any, settings: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        evaluate(checkpoints, **settings)


def test_names_of_policies() -> None:
    one, two = Popular, last_item(3)
    assert named([one, two, two]) == {"Popular": one, "Last": two, "Last (2)": two}
    assert named(two) == {"Last": two} and named({"mine": two}) == {"mine": two} and named(()) == {}

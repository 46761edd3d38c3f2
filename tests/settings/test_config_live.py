"""Each field of the settings has an effect: another value changes the result of a tiny run."""

from __future__ import annotations

import csv
import dataclasses
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recsys_rl.agents import AGENTS
from recsys_rl.checkpoint import load
from recsys_rl.data import SOURCES
from recsys_rl.env import PLATFORMS
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.evaluation.evaluate import evaluate
from recsys_rl.evaluation.options import EvaluateConfig
from recsys_rl.logs.record import RecordConfig, record
from recsys_rl.make import make_env, make_world
from recsys_rl.models.retrieval import Retriever
from recsys_rl.settings.config import Config, from_dict, overlay, to_dict
from recsys_rl.settings.shared import ModelConfig, TrainConfig
from recsys_rl.testing.envs import walk
from recsys_rl.training.run import choose_device
from recsys_rl.training.train import train
from recsys_rl.types import UserError
from recsys_rl.utils.find import find
from tests.tiny_world import with_genres

TINY: dict[str, dict[str, Any]] = {
    "data_config": {"data": "synthetic", "cache_dir": "cache", "num_users": 30},
    "env_config": {"num_items": 24, "embedding_dim": 4, "max_episode_steps": 5},
    "model_config": {"hidden_dims": [6]},
    "agent_config": {"lr": 0.05, "ent_coef": 0.01, "n_steps": 6, "num_envs": 4},
    "train_config": {
        "total_timesteps": 96,
        "threads": 1,
        "save_interval": 2,
        "eval_interval": 2,
        "device": "cpu",
    },
}

SCENARIOS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "drift": ("ppo", "drift", {}),
    "satiation": ("ppo", "satiation", {}),
    "short-video": ("ppo", "short-video", {}),
    "short-video-lives": ("ppo", "short-video", {}),
    "gym": ("ppo", "gym:CartPole-v1", {}),
    "a2c": ("a2c", "drift", {}),
    "dqn": ("dqn", "drift", {}),
    "long-video": ("ppo", "long-video", {}),
    "long-video-lives": ("ppo", "long-video", {}),
    "social-feed": ("ppo", "social-feed", {}),
    "shop": ("ppo", "shop", {}),
    "tutor": ("ppo", "tutor", {}),
    "learned": ("ppo", "learned", {}),
    "own-log": ("bc", "own-log", {}),
    "two-stage": ("ppo", "drift", {}),
    "transformer": ("ppo", "satiation", {}),
    "limits": ("ppo", "drift", {}),
    "csv": ("ppo", "drift", {"data": "log.csv"}),
    "gaps": ("ppo", "drift", {"data": "gaps.csv"}),
    "kinds": ("ppo", "drift", {"data": "kinds.csv"}),
    "files": ("ppo", "drift", {"data": "ml-100k", "data_dir": "one"}),
}

# How a run is looked at: the weights it ends with, its log, its files, or what it refuses.
View = Callable[[Config], Any]


def settings_of(scenario: str, **changes: dict[str, Any]) -> Config:
    """A tiny run of that name, with ``changes``."""
    algo, env, data_config = SCENARIOS[scenario]
    tiny = {name: dict(part) for name, part in TINY.items()}
    if env.startswith("gym:"):  # a world of its own
        del tiny["data_config"], tiny["env_config"]
    elif data_config:
        tiny["data_config"] = {"cache_dir": "cache", **data_config}
    if env == "own-log":
        tiny = {"env_config": tiny["env_config"]}
    base: dict[str, Any] = {"algo": algo, "env": env, **tiny}
    if scenario == "two-stage":
        base = overlay(base, {"model_config": {"candidates": 8}})
    if scenario == "limits":
        base = overlay(base, {"train_config": {"limit": ["match>=2"]}})
    if scenario == "transformer":
        base = overlay(base, {"model_config": {"encoder": "transformer"}})
    if scenario.startswith("long-video"):
        base = overlay(base, {"env_config": {"num_items": 60, "suggestions": 3, "max_episode_steps": 12}})
    if scenario == "long-video-lives":
        base = overlay(base, {"env_config": {"visits": 35, "idle_limit": 1}})
    if scenario == "short-video-lives":
        lives = {"visits": 35, "max_episode_steps": 3, "visit_gain": 50.0, "habit_base": 1.0}
        base = overlay(base, {"env_config": lives, "train_config": {"total_timesteps": 480}})
    if scenario == "social-feed":
        few = {"num_items": 60, "max_episode_steps": 8, "visits": 9, "habit_base": 9.0, "ad_drain": 0.3}
        few["place_cost"] = 1.5  # people leave within these steps
        base = overlay(base, {"env_config": few})
    if scenario == "shop":  # people buy, and come back each day
        often = {"num_items": 60, "max_episode_steps": 2, "visits": 35, "habit_base": 9.0}
        often |= {"cart_cost": -2.0, "buy_cost": 0.0, "arrival_patience": 0.4, "discounts": True}
        base = overlay(base, {"env_config": often})
    if scenario == "tutor":
        base = overlay(base, {"env_config": {"num_items": 60, "max_episode_steps": 12, "items_per_day": 4}})
    if algo == "ppo":
        base = overlay(base, {"agent_config": {"batch_size": 12, "target_kl": 0.0}})
    if algo == "dqn":
        base["agent_config"] = {
            "lr": 0.05,
            "num_envs": 4,
            "train_freq": 6,
            "batch_size": 12,
            "learning_starts": 9,
            "gradient_steps": 1,
        }
    return from_dict(Config, overlay(base, changes))


def complaint(config: Config) -> str:
    """The error of making the environment; "" without one."""
    try:
        make_env(config, make_world(config))
    except UserError as error:
        return str(error)
    return ""


def log_signals(config: Config) -> tuple[str, ...]:
    """The signals of a log that settings describe."""
    found: tuple[str, ...] = config.env_config.log_shape.signals
    return found


def weights(config: Config) -> dict[str, Any]:
    agent = load(train(config)).agent
    return {name: (tensor.shape, tensor.numpy().tobytes()) for name, tensor in agent.items()}


def log_rows(name: str) -> View:
    def view(config: Config) -> list[str]:
        train(config)
        (path,) = Path(config.train_config.runs_dir).rglob("log.csv")
        with path.open(newline="") as file:
            return [row["step"] for row in csv.DictReader(file) if row["name"] == name]

    return view


def files(config: Config) -> set[str]:
    train(config)
    return {str(path) for path in Path().rglob("*") if path.is_file()}


def event_files(config: Config) -> bool:
    pytest.importorskip("tensorboard")
    return any("tfevents" in name for name in files(config))


def saved_steps(config: Config) -> list[int]:
    steps: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "recsys_rl.training.observers.save", lambda path, checkpoint: steps.append(checkpoint.step)
        )
        train(config)
    return steps


def threads(config: Config) -> int:
    before = torch.get_num_threads()
    train(config)
    used = torch.get_num_threads()
    torch.set_num_threads(before)
    return used


def device(config: Config) -> str:
    try:
        return str(choose_device(config.train_config.device))
    except UserError as error:
        return str(error)


def watching(config: Config, number: int = 12) -> list[Any]:
    """What 30 users of three categories see and earn in so many steps."""
    catalogue, population = make_world(config)
    genres = torch.nn.functional.one_hot(torch.arange(catalogue.num_items) % 3).float()
    catalogue = with_genres(catalogue, genres)
    users = config.platform.users(catalogue, population, config.env_config)
    people, rng = torch.arange(30), torch.Generator().manual_seed(0)
    env = RecEnv(users, catalogue, config.env_config, people, 30, rng)
    steps = walk(env, env.reset(people), number)
    seen = ((step.reward, *vars(step.obs).values()) for step in steps)
    return [x.tolist() for row in seen for x in row if x is not None]


def visiting(config: Config) -> list[Any]:
    """The same for long enough that people come back."""
    return watching(config, 60)


def earning(config: Config) -> list[Any]:
    """The reward streams of 30 users for long enough that they come back after weeks."""
    return streams(config, 60)


def streams(config: Config, number: int = 12) -> list[Any]:
    """The reward streams of 30 users in so many steps."""
    users, people = config.platform.users(*make_world(config), config.env_config), torch.arange(30)
    rng = torch.Generator().manual_seed(0)
    env = RecEnv(users, users.catalogue, config.env_config, people, 30, rng)
    return [step.streams.tolist() for step in walk(env, env.reset(people), number)]


def index(config: Config) -> set[str]:
    """The index of the first stage."""
    pytest.importorskip("faiss")
    kinds: set[str] = set()
    search = Retriever.search

    def noted(self: Retriever, query: torch.Tensor, k: int) -> torch.Tensor:
        kinds.add(self.kind)
        return search(self, query, k)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Retriever, "search", noted)
        train(config)
    return kinds


def refusal(config: Config) -> str:
    try:
        train(config)
    except UserError as error:
        return str(error)
    return "none"


# Section and field -> scenario, another value, how the difference shows.
CHANGES: dict[tuple[str, str], tuple[str, Any, View]] = {
    ("data_config", "data"): ("drift", "clustered", weights),
    ("data_config", "num_users"): ("drift", 31, weights),
    ("data_config", "data_dir"): ("files", "two", refusal),
    ("data_config", "cache_dir"): ("csv", "elsewhere", files),
    ("data_config", "user_column"): ("csv", "user2", weights),
    ("data_config", "item_column"): ("csv", "item2", weights),
    ("data_config", "time_column"): ("csv", "timestamp2", weights),
    ("data_config", "rating_column"): ("csv", "rating2", weights),
    ("data_config", "weight_column"): ("csv", "rating2", weights),
    ("data_config", "event_column"): ("kinds", "kind", refusal),
    ("data_config", "event_weights"): ("kinds", "view=0,buy=1", refusal),
    ("data_config", "separator"): ("gaps", ";", refusal),
    ("data_config", "missing"): ("gaps", "drop", refusal),
    ("data_config", "duplicates"): ("gaps", "sum", refusal),
    ("data_config", "items"): ("csv", "items.csv", weights),
    ("data_config", "like_threshold"): ("csv", 3.0, weights),
    ("data_config", "min_item_likes"): ("csv", 12, weights),
    ("data_config", "heldout_fraction"): ("csv", 0.5, weights),
    ("data_config", "profile_fraction"): ("csv", 0.3, weights),
    ("data_config", "popularity_share"): ("csv", 0.5, weights),
    ("data_config", "stranger_share"): ("satiation", 0.5, weights),
    ("env_config", "num_items"): ("drift", 25, watching),
    ("env_config", "embedding_dim"): ("drift", 5, watching),
    ("env_config", "max_episode_steps"): ("drift", 4, watching),
    ("env_config", "reward_decay"): ("drift", 0.5, watching),
    ("env_config", "user_drift"): ("drift", 0.5, watching),
    ("env_config", "history_length"): ("drift", 3, watching),
    ("env_config", "affinity_gain"): ("satiation", 1.0, watching),
    ("env_config", "affinity_midpoint"): ("satiation", 0.0, watching),
    ("env_config", "satiation_strength"): ("satiation", 3.0, watching),
    ("env_config", "satiation_recovery"): ("satiation", 0.1, watching),
    ("env_config", "catchiness_gain"): ("satiation", 0.1, watching),
    ("env_config", "patience_cost"): ("satiation", 50.0, watching),
    ("env_config", "patience_start"): ("satiation", 0.9, watching),
    ("env_config", "patience_gain"): ("satiation", 20.0, watching),
    ("env_config", "noise"): ("satiation", 0.5, watching),
    ("env_config", "appeal_base"): ("short-video", -3.0, watching),
    ("env_config", "pull_gain"): ("short-video", 5.0, watching),
    ("env_config", "ease_deviation"): ("short-video", 5.0, watching),
    ("env_config", "mood_deviation"): ("short-video", 5.0, watching),
    ("env_config", "ratio_base"): ("short-video", 1.0, watching),
    ("env_config", "ratio_noise"): ("short-video", 1.0, watching),
    ("env_config", "loop_deviation"): ("short-video", 1.0, watching),
    ("env_config", "loop_spread"): ("short-video", 1.0, watching),
    ("env_config", "leave_seconds"): ("short-video", 1.0, watching),
    ("env_config", "hook_spread"): ("short-video", 2.0, watching),
    ("env_config", "leave_noise"): ("short-video", 1.0, watching),
    ("env_config", "shape"): ("own-log", '{"signals": ["bought"]}', log_signals),
    ("env_config", "user_model"): ("learned", "none.pt", complaint),
    ("env_config", "first_patience"): ("short-video", 0.5, watching),
    ("env_config", "after_gain"): ("short-video", 3.0, watching),
    ("env_config", "visits"): ("short-video", 3, watching),
    ("env_config", "habit_base"): ("short-video-lives", -9.0, visiting),
    ("env_config", "habit_deviation"): ("short-video-lives", 50.0, visiting),
    ("env_config", "habit_fade"): ("short-video-lives", 50.0, visiting),
    ("env_config", "visit_gain"): ("short-video-lives", 1e4, visiting),
    ("env_config", "usual_rate"): ("short-video-lives", 1.0, visiting),
    ("env_config", "overnight"): ("short-video-lives", 0.99, visiting),
    ("env_config", "day_discount"): ("short-video-lives", 1.0, weights),
    ("env_config", "first_usual"): ("long-video-lives", 1.0, watching),
    ("env_config", "suggestions"): ("long-video", 2, watching),
    ("env_config", "watched_window"): ("long-video", 3, watching),
    ("env_config", "seeing_exponent"): ("long-video", 0.1, watching),
    ("env_config", "fit_midpoint"): ("long-video", -0.5, watching),
    ("env_config", "want_gain"): ("long-video", 9.0, watching),
    ("env_config", "lure_gain"): ("long-video", 9.0, watching),
    ("env_config", "wear_gain"): ("long-video", 9.0, watching),
    ("env_config", "trust_gain"): ("long-video", 50.0, watching),
    ("env_config", "trust_start"): ("long-video", 1.0, watching),
    ("env_config", "hold_bias"): ("long-video", 3.0, watching),
    ("env_config", "hold_gain"): ("long-video", 9.0, watching),
    ("env_config", "length_cost"): ("long-video", 9.0, watching),
    ("env_config", "go_on_bias"): ("long-video", 9.0, watching),
    ("env_config", "idle_limit"): ("long-video", 1, watching),
    ("env_config", "dwell_noise"): ("social-feed", 0.0, watching),
    ("env_config", "ad_cost"): ("social-feed", 3.0, watching),
    ("env_config", "tolerance_cost"): ("social-feed", 2.0, watching),
    ("env_config", "ad_drain"): ("social-feed", 0.0, watching),
    ("env_config", "tolerance_kept"): ("social-feed", 0.1, watching),
    ("env_config", "place_cost"): ("social-feed", 2.0, watching),
    ("env_config", "discounts"): ("shop", False, watching),
    ("env_config", "cart_cost"): ("shop", 9.0, earning),
    ("env_config", "buy_cost"): ("shop", 9.0, earning),
    ("env_config", "elasticity"): ("shop", 30.0, earning),
    ("env_config", "need_cost"): ("shop", 30.0, earning),
    ("env_config", "need_kept"): ("shop", 0.0, earning),
    ("env_config", "reference_rate"): ("shop", 0.9, watching),
    ("env_config", "budget"): ("shop", 0.01, earning),
    ("env_config", "return_share"): ("shop", 0.9, earning),
    ("env_config", "cart_kept"): ("shop", 1.0, earning),
    ("env_config", "arrival_patience"): ("shop", 9.0, earning),
    ("env_config", "student"): ("tutor", "irt", watching),
    ("env_config", "prerequisites"): ("tutor", "none", watching),
    ("env_config", "items_per_day"): ("tutor", 3, watching),
    ("env_config", "test_delay"): ("tutor", 70, streams),
    ("env_config", "ability_deviation"): ("tutor", 5.0, watching),
    ("env_config", "candidate_features"): ("gym", "doc", complaint),
    ("env_config", "normalize_obs"): ("gym", False, weights),
    ("env_config", "normalize_reward"): ("gym", False, weights),
    ("model_config", "encoder"): ("satiation", "transformer", weights),
    ("model_config", "signal_coef"): ("transformer", 0.0, weights),
    ("model_config", "head"): ("drift", "dense", weights),
    ("model_config", "hidden_dims"): ("drift", [6, 5], weights),
    ("model_config", "activation"): ("drift", "elu", weights),
    ("model_config", "candidates"): ("drift", 8, weights),
    ("model_config", "explore_rate"): ("two-stage", 0.75, weights),
    ("model_config", "index"): ("two-stage", "ivf", index),
    ("train_config", "total_timesteps"): ("drift", 48, weights),
    ("train_config", "record"): ("drift", "decisions", files),
    ("train_config", "log_interval"): ("drift", 2, log_rows("reward_mean")),
    ("train_config", "eval_interval"): ("drift", 0, log_rows("eval_return_mean")),
    ("train_config", "save_interval"): ("drift", 1, saved_steps),
    ("train_config", "runs_dir"): ("drift", "other", files),
    ("train_config", "name"): ("drift", "other", files),
    ("train_config", "seed"): ("drift", 1, weights),
    ("train_config", "device"): ("drift", "cuda", device),
    ("train_config", "threads"): ("drift", 2, threads),
    ("train_config", "init_from"): ("drift", "absent.pt", refusal),
    ("train_config", "weights"): ("drift", ["match=2"], weights),
    ("train_config", "limit"): ("drift", ["match>=2"], weights),
    ("train_config", "limit_kp"): ("limits", 3.0, weights),
    ("train_config", "limit_ki"): ("limits", 3.0, weights),
    ("train_config", "limit_most"): ("limits", 0.1, weights),
    ("train_config", "novelty"): ("drift", 0.5, weights),
    ("train_config", "num_processes"): ("drift", 2, refusal),
    ("train_config", "tensorboard"): ("drift", True, event_files),
    ("train_config", "judge_log"): ("drift", "absent.parquet", refusal),
    ("train_config", "world"): ("drift", "drift", log_rows("world_return_mean")),
}
DIALS: dict[str, Any] = {
    "lr": 0.01,
    "gamma": 0.8,
    "gae_lambda": 0.5,
    "bootstrap_time_limit": False,
    "clip_eps": 0.01,
    "ent_coef": 0.1,
    "vf_coef": 0.05,
    "max_grad_norm": 1e-4,
    "update_epochs": 2,
    "batch_size": 8,
    "n_steps": 12,
    "num_envs": 3,
    "target_kl": 1e-9,
    "clip_vloss": True,
    "anneal_ent": False,
    "ent_fraction": 0.5,
    "anneal_lr": False,
    "normalize_advantage": None,  # the opposite of the default
    "train_freq": 3,
    "gradient_steps": 2,
    "buffer_size": 16,
    "learning_starts": 40,
    "return_steps": 3,
    "tau": 0.5,
    "exploration_initial_eps": 0.2,
    "exploration_final_eps": 0.9,
    "exploration_fraction": 1.0,
    "temperature": 5.0,
    "log": "other.parquet",
    "checkpoint": None,  # tests/logs/experience/test_logged.py
    # Of learners from a log alone.
    "best_sessions": 0.3,
    "weighted": True,
    "alpha": 5.0,
    "threshold": 0.9,
    "expectile": 0.9,
    "beta": 0.5,
    "largest_weight": 1.1,
    "weight_cap": 0.5,
    "top_k": 3,
    "kl_coef": 5.0,
    "quantile": 0.2,
}
FROM_LOGS = ("bc", "cql", "bcq", "iql", "reinforce", "dt", "direct")


@pytest.fixture(scope="module")
def log_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic log with two columns of each kind."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("log") / "log.csv"
    odds = 1 / np.arange(2, 32)
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow([name + end for end in ("", "2") for name in ("user", "item", "timestamp", "rating")])
        for user in range(60):
            for item in rng.choice(30, 20, replace=False, p=odds / odds.sum()):
                times, ratings = rng.integers(10**6, size=2), rng.integers(3, 6, size=2)
                rows.writerow(
                    [user, item, times[0], ratings[0], rng.integers(60), 29 - item, times[1], ratings[1]]
                )
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_csv: Path) -> Iterator[Callable[[str], None]]:
    """Enter a new folder with nothing but log.csv; every run writes below it."""
    threads_before = torch.get_num_threads()

    def enter(name: str) -> None:
        (tmp_path / name).mkdir()
        (tmp_path / name / "log.csv").write_bytes(log_csv.read_bytes())
        (tmp_path / name / "gaps.csv").write_text("user,item\n1,2\n,3\n1,2\n")
        (tmp_path / name / "kinds.csv").write_text("user,item,event,kind\n1,2,view,a\n1,3,buy,b\n")
        (tmp_path / name / "items.csv").write_text(
            "item,genres\n" + "".join(f"{i},{'odd' * (i % 2)}\n" for i in range(30))
        )
        monkeypatch.chdir(tmp_path / name)

    yield enter
    torch.set_num_threads(threads_before)


def look(folder: Callable[[str], None], name: str, view: View, config: Config) -> Any:
    folder(name)
    return view(config)


def test_all_fields_are_covered() -> None:
    """The fields of all platforms, algorithms and sources are covered."""
    records = {"env_config": PLATFORMS, "agent_config": AGENTS, "data_config": SOURCES}
    classes = [
        (section, find(spec, name).config) for section, x in records.items() for name, spec in x.items()
    ]
    for section, cls in [*classes, ("model_config", ModelConfig), ("train_config", TrainConfig)]:
        for field in dataclasses.fields(cls):
            assert field.name in DIALS if section == "agent_config" else (section, field.name) in CHANGES


@pytest.mark.parametrize("scenario", ["drift", "satiation", "csv", "gym", "a2c"])
def test_same_settings_give_same_weights(scenario: str, folder: Callable[[str], None]) -> None:
    """Without this property, a difference between runs would prove nothing."""
    config = settings_of(scenario)
    assert look(folder, "one", weights, config) == look(folder, "two", weights, config)


@pytest.fixture(scope="module")
def seen() -> dict[tuple[str, View], Any]:
    """What the runs without a change look like: each is made once."""
    return {}


def differs(
    scenario: str, view: View, changes: dict[str, Any], folder: Callable[[str], None], seen: dict[Any, Any]
) -> bool:
    """Do these changes show?"""
    if (scenario, view) not in seen:
        seen[scenario, view] = look(folder, "before", view, settings_of(scenario))
    return bool(look(folder, "after", view, settings_of(scenario, **changes)) != seen[scenario, view])


@pytest.mark.parametrize(("section", "name"), CHANGES)
def test_field(section: str, name: str, folder: Callable[[str], None], seen: dict[Any, Any]) -> None:
    scenario, value, view = CHANGES[section, name]
    assert differs(scenario, view, {section: {name: value}}, folder, seen)


@pytest.mark.parametrize(
    ("scenario", "name"),
    [(s, name) for s in ("drift", "a2c", "dqn") for name in to_dict(settings_of(s).agent_config)],
)
def test_setting_of_algorithm(
    name: str, scenario: str, folder: Callable[[str], None], seen: dict[Any, Any]
) -> None:
    if name == "temperature":
        pytest.skip("of the trained policy: tests/agents/test_dqn.py")
    before = settings_of(scenario).agent_config
    value = not before.normalize_advantage if name == "normalize_advantage" else DIALS[name]
    assert differs(scenario, weights, {"agent_config": {name: value}}, folder, seen)


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two logs of decisions on `drift`."""
    place = tmp_path_factory.mktemp("logs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        train(settings_of("drift"))
        for seed, name in enumerate(("log.parquet", "other.parquet")):
            record(RecordConfig(sessions=60, users="all", seed=seed, out=name, quiet=True))
    return place


@pytest.mark.parametrize("algo", FROM_LOGS)
def test_setting_of_learner_from_a_log(algo: str, logs: Path, folder: Callable[[str], None]) -> None:
    own = {field.name for field in dataclasses.fields(find(AGENTS[algo], algo).config)}
    tiny: dict[str, Any] = {"lr": 0.05, "batch_size": 16, "gradient_steps": 1}

    def trained(name: str, **changes: Any) -> Any:
        settings = {**tiny, **changes}
        settings["log"] = str(logs / settings.get("log", "log.parquet"))
        sections = {**TINY, "agent_config": settings}
        return look(folder, name, weights, from_dict(Config, {"algo": algo, "env": "drift", **sections}))

    before = trained("before")
    assert trained("again") == before
    # The temperature is of the trained policy, and the checkpoint stands for an environment. A weighted clone
    # refuses the rewards here, some of which are negative (tests/agents/test_offline.py).
    for name in sorted(own - {"checkpoint", "temperature", "weighted"}):
        assert trained(name, **{name: DIALS[name]}) != before, name


def test_algo_and_env(folder: Callable[[str], None]) -> None:
    seen = [look(folder, name, weights, settings_of(name)) for name in ("drift", "satiation", "gym", "a2c")]
    assert all(a != b for i, a in enumerate(seen) for b in seen[:i])


BASE = EvaluateConfig(threads=1, device="cpu")


def of_evaluation(options: EvaluateConfig) -> str:
    """The values, files, errors and threads of an evaluation."""
    try:
        result = evaluate(options)
    except UserError as error:
        return str(error)
    finally:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
    return repr((result["rows"], sorted(str(path) for path in Path().rglob("*")), threads))


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with two runs, and how an evaluation without a change looks."""
    place = tmp_path_factory.mktemp("evaluated")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        train(settings_of("a2c"))
        train(settings_of("drift"))
        before = of_evaluation(BASE)
        assert of_evaluation(BASE) == before
    return place, before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("checkpoint", "checkpoints/a2c.pt"),
        ("algo", "a2c"),
        ("env", "satiation"),
        ("seed", 1),
        ("max_users", 3),
        ("json", "table.json"),
        ("report", "report.html"),
        ("report", True),
        ("device", "cuda"),
        ("threads", 2),
        ("files", ("checkpoints/a2c.pt",)),
        ("policy", ("tests.tiny_world:tiny_catalogue",)),
    ],
)
def test_field_of_evaluate(
    name: str, value: Any, evaluated: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, before = evaluated
    shutil.copytree(place, tmp_path / "run", symlinks=True)
    monkeypatch.chdir(tmp_path / "run")
    assert of_evaluation(dataclasses.replace(BASE, **{name: value})) != before

"""Learned users as an environment: the batteries, what stays hidden, and their noise."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import gymnasium
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import recsys_rl
from recsys_rl.env import PLATFORMS
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.evaluation.rivals import baselines
from recsys_rl.logs.users import platform as learned
from recsys_rl.logs.users.file import LearnedFile, load_users
from recsys_rl.logs.users.platform import LearnedUsers
from recsys_rl.make import make_env, make_user_model, make_world
from recsys_rl.protocols import UserModel
from recsys_rl.settings.config import Config, from_dict
from recsys_rl.testing import check_env, check_user_model
from recsys_rl.types import Catalogue, UserError
from tests.doors import DRIFT, VIDEOS
from tests.learned_world import make_users


@pytest.fixture(scope="module")
def users_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_users(tmp_path_factory.mktemp("users"))


def config_of(path: Path) -> Config:
    settings = load_users(path).settings
    env = {**settings["env_config"], "user_model": str(path)}
    return from_dict(Config, {"env": "learned", **settings, "env_config": env})


def users_of(path: Path) -> tuple[LearnedUsers, LearnedFile]:
    config, file = config_of(path), load_users(path)
    made = make_user_model(config, file.world)
    assert isinstance(made, LearnedUsers)
    return made, file


@pytest.fixture
def env(users_file: Path) -> RecEnv:
    config = config_of(users_file)
    made = make_env(config, make_world(config), 6, torch.Generator().manual_seed(0))
    assert isinstance(made, RecEnv)
    return made


def test_static_list_is_searched_for_fewer_users_the_more_networks_score_an_item(
    users_file: Path, env: RecEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The largest product allows 24 users with equations of a simulator, 24 / 8 with networks of cost 8."""
    model, _ = users_of(users_file)
    monkeypatch.setattr(learned, "SCORE_COST", 4)
    assert model.network.num_members == 2 and model.score_cost == 8
    scores = model.catalogue.num_items * env.interface.session_length
    monkeypatch.setattr(baselines, "MIN_USERS", 1)
    monkeypatch.setattr(baselines, "MAX_SCORES", 24 * scores)
    seen: list[int] = []
    search = baselines.static_list

    def searched(model: UserModel, catalogue: Catalogue, users: Tensor, length: int) -> Tensor:
        seen.append(len(users))
        return search(model, catalogue, users, length)

    monkeypatch.setattr(baselines, "static_list", searched)
    users = torch.arange(12)
    baselines.baseline_makers(env, users, torch.Generator())["static-list"]()
    monkeypatch.setattr(LearnedUsers, "score_cost", 1)
    baselines.baseline_makers(env, users, torch.Generator())["static-list"]()
    assert seen == [3, 12]


def test_battery_of_user_models(users_file: Path) -> None:
    users, file = users_of(users_file)
    model: UserModel = users
    check_user_model(model, file.world.catalogue, torch.arange(12))


def test_battery_of_environments(users_file: Path) -> None:
    config = config_of(users_file)
    world = make_world(config)

    def make(seed: int) -> RecEnv:
        made = make_env(config, world, 5, torch.Generator().manual_seed(seed))
        assert isinstance(made, RecEnv)
        return made

    check_env(make, config.env_config.max_episode_steps)


def test_short_videos_are_learned_by_the_same_code(tmp_path: Path) -> None:
    path = make_users(tmp_path, *VIDEOS, "--env", "short-video")
    users, file = users_of(path)
    check_user_model(users, file.world.catalogue, torch.arange(6), num_steps=3)
    names = [signal.name for signal in users.signals]
    visible = ["watch_ratio", "liked", "shared", "followed"]
    assert names[:7] == [*visible, "skip", "watch", "seconds"]
    assert not any(signal.visible for signal in users.signals[4:])
    assert [stream.name for stream in users.streams][:6] == [
        "skip",
        "watch",
        "like",
        "share",
        "follow",
        "seconds",
    ]
    # The streams sum the signals of their own names, as in the platform.
    sums = users.facts.of_signals.T[:6] @ torch.arange(1.0, 8.0)
    assert sums.tolist() == [5.0, 6.0, 2.0, 3.0, 4.0, 7.0]


def test_users_of_a_platform_without_a_profile_are_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The context of this game is made of the session alone, so that the log gives no pieces."""
    monkeypatch.setitem(PLATFORMS, "matrix-game", "benchmarks.coat.matrix_users:PLATFORM")
    relative = ["--relative", "--repeats", "--history-length", "5"]
    path = make_users(tmp_path, *DRIFT, "--env", "matrix-game", *relative)
    users, file = users_of(path)
    assert not users.facts.given and not file.members[0].context.user
    check_user_model(users, file.world.catalogue, torch.arange(12))
    made = make_env(config_of(path), file.world, 6, torch.Generator().manual_seed(0))
    assert isinstance(made, RecEnv) and made.interface == users.facts.interface
    assert made.interface.relative and made.interface.repeats and not made.interface.profile


def test_network_of_a_session_is_drawn_once_and_hidden(env: RecEnv) -> None:
    obs = env.reset()
    assert (env.user_state.member == -1).all()
    assert env.interface.signals == ("engagement",) and obs.signals is not None
    assert obs.signals.shape == (6, 5, 1)
    first = env.step_without_reset(torch.zeros(6, 1, dtype=torch.int64))
    drawn = env.user_state.member.clone()
    assert set(drawn.tolist()) <= {0, 1} and first.obs.signals is not None
    env.step_without_reset(torch.ones(6, 1, dtype=torch.int64))
    assert torch.equal(env.user_state.member, drawn)


def test_observation_does_not_depend_on_the_hidden_state(env: RecEnv) -> None:
    env.reset()
    env.step_without_reset(torch.zeros(6, 1, dtype=torch.int64))
    before = env.observe()
    other = {name: torch.randn_like(x) for name, x in env.user_state.memory.items()}
    env.user_state = dataclasses.replace(env.user_state, memory=other, member=1 - env.user_state.member)
    after = env.observe()
    for name, x in vars(before).items():
        assert x is None or torch.equal(x, getattr(after, name)), name


def test_users_leave_with_the_probability_of_their_network(users_file: Path) -> None:
    users, file = users_of(users_file)
    state = users.sample(torch.arange(4))
    items, shown = torch.arange(4).unsqueeze(1), torch.ones(4, 1, dtype=torch.bool)
    feedback = users.respond(state, items, shown, torch.Generator().manual_seed(0))
    everybody = torch.full((4,), -1)
    _, leaves = file.network.after(
        state.memory, items, shown, feedback.signals[..., : len(users.facts.signals)], everybody
    )
    own = leaves.gather(1, feedback.signals[:, 0, -2:-1].long() - 1).squeeze(1)
    for chance, expected in ((own - 0.01, True), (own + 0.01, False)):
        signals = feedback.signals.clone()
        signals[:, 0, -1] = 1 - chance.clamp(0, 1)
        _, left = users.advance(state, items, dataclasses.replace(feedback, signals=signals))
        assert (left == expected).all()


def test_rewards_are_those_of_the_platform(env: RecEnv) -> None:
    env.reset()
    step = env.step(torch.zeros(6, 1, dtype=torch.int64))
    assert step.feedback is not None
    assert_close(step.reward, step.feedback.signals[:, 0, 0])


def test_items_of_another_catalogue_are_refused(users_file: Path) -> None:
    config = config_of(users_file)
    world = make_world(config)
    other = dataclasses.replace(world.catalogue, quality=world.catalogue.quality + 1)
    with pytest.raises(UserError):
        make_user_model(config, world._replace(catalogue=other))


def test_people_whom_the_file_does_not_know_keep_their_profiles(users_file: Path) -> None:
    users, file = users_of(users_file)
    profile: Tensor = torch.nn.functional.normalize(torch.randn(2, users.population.profile.shape[1]), dim=1)
    people = dataclasses.replace(
        file.world.population, profile=profile, taste=profile, user_ids=torch.tensor([10_001, 10_002])
    )
    strangers = dataclasses.replace(users, population=people)
    assert_close(strangers.visible(strangers.sample(torch.arange(2)))["profile"], profile)


def test_gymnasium_id(users_file: Path) -> None:
    made = gymnasium.make(recsys_rl.gymnasium_id("learned"), user_model=str(users_file))
    obs, _ = made.reset(seed=0)
    assert obs["history"].shape == (5,) and made.unwrapped.sessions.config.max_episode_steps == 5  # type: ignore[attr-defined]
    _, reward, *_ = made.step(3)
    assert 0 <= float(reward) <= 1


def test_file_of_users_that_is_no_text_is_refused_as_any_other_field(users_file: Path) -> None:
    with pytest.raises(UserError, match="user_model"):
        from_dict(Config, {"env": "learned", "env_config": {"user_model": 5}})

"""The game of a rating matrix: its rules by hand, and the batteries of user models and environments."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from benchmarks.coat.matrix_users import PLATFORM, MatrixConfig, MatrixUsers, add_matrix
from benchmarks.coat.rating_matrix import matrix_world
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.evaluation.rivals.baselines import FixedList, greedy_list, mean_return, static_list
from recsys_rl.experience.rollout import play
from recsys_rl.make import make_agent, make_env, make_user_model, make_world
from recsys_rl.settings.config import Config
from recsys_rl.testing.envs import check_env
from recsys_rl.testing.user_models import check_user_model
from recsys_rl.types import UserError, World

NAME = "benchmarks.coat.matrix_users:PLATFORM"
# Columns of two users: the distances are |(a - b)|. Items 0 and 1 are 1 apart, 2 is 3 from 0, 3 is 5 from 0.
RATINGS = torch.tensor([[1.0, 2.0, 4.0, 1.0], [1.0, 1.0, 1.0, 6.0]])


def hand_world(true: Tensor | None = None, **more: Any) -> World:
    settings = {"source": "by hand", "heldout_fraction": 0.5, "everyone": True, "seed": 0, "num_items": 9}
    return matrix_world(RATINGS, torch.eye(4), torch.eye(2, 4), true=true, **{**settings, **more})


def hand_env(world: World | None = None, users: tuple[int, ...] = (0, 1), **settings: Any) -> RecEnv:
    config = MatrixConfig(
        num_items=4, embedding_dim=4, **{"max_episode_steps": 5, "threshold": 2.0, "window": 2, **settings}
    )
    world = world or hand_world()
    env = RecEnv(
        MatrixUsers(*world, config),
        world.catalogue,
        config,
        torch.tensor(users),
        len(users),
        torch.Generator().manual_seed(0),
    )
    env.reset(torch.tensor(users))
    return env


def show(env: RecEnv, *items: int) -> Any:
    return env.step_without_reset(torch.tensor(items).unsqueeze(1))


def random_world(users: int = 12, items: int = 20, seed: int = 0) -> World:
    rng = torch.Generator().manual_seed(seed)
    ratings = 1 + 4 * torch.rand(users, items, generator=rng)
    embedding, taste = (torch.randn(count, 4, generator=rng) for count in (items, users))
    tags = torch.randint(2, (items, 3), generator=rng).float()
    return matrix_world(
        ratings,
        embedding,
        taste,
        source="made up",
        heldout_fraction=0.25,
        everyone=False,
        seed=seed,
        num_items=items,
        true=(ratings + 0.5 * torch.randn(users, items, generator=rng)).clamp(1, 5),
        tags=(("a", "b", "c"), tags),
    )


def test_rewards_and_distances_by_hand() -> None:
    world = hand_world()
    assert world.catalogue.attributes["distance"][0].tolist() == pytest.approx([0, 1, 3, 5])
    env = hand_env(world)
    step = show(env, 2, 3)
    assert step.reward.tolist() == [4.0, 6.0] and not step.terminated.any()
    step = show(env, 3, 2)
    assert step.reward.tolist() == [1.0, 1.0] and not step.terminated.any()
    assert_close(env.user_model.expected_reward(env.user_state), RATINGS)


def test_session_ends_with_a_close_item_whose_reward_counts() -> None:
    env = hand_env()
    show(env, 1, 3)
    step = show(env, 0, 2)  # item 0 is 1 from item 1; item 2 is sqrt(9 + 25) from item 3
    assert step.terminated.tolist() == [True, False] and step.reward.tolist() == [1.0, 1.0]


def test_window_forgets() -> None:
    """With a window of two, an item may be shown again after two others."""
    env = hand_env(users=(0,))
    assert not any(bool(show(env, item).terminated) for item in (0, 2, 3, 0))
    assert bool(show(env, 3).terminated)  # 3 was shown two steps ago
    env = hand_env(users=(0,), window=3)
    assert [bool(show(env, item).terminated) for item in (0, 2, 3, 0)] == [False, False, False, True]


def test_noise_stays_on_the_scale() -> None:
    env = hand_env(users=(0,), threshold=0.0, rating_noise=3.0, max_episode_steps=200, history_length=1)
    ratings = torch.cat([show(env, 2).reward for _ in range(150)])
    assert float(ratings.min()) == 1.0 and float(ratings.max()) == 6.0 and 3.0 < float(ratings.mean()) < 4.5
    assert env.user_model.expected_reward(env.user_state)[0].tolist() == RATINGS[0].tolist()


def test_threshold_is_exclusive_and_zero_never_ends() -> None:
    env = hand_env(users=(0,), threshold=1.0)  # items 0 and 1 are 1 apart
    assert not any(bool(show(env, item).terminated) for item in (0, 1))
    env = hand_env(users=(0,), threshold=0.0)
    steps = [show(env, 0) for _ in range(5)]
    assert not any(bool(step.terminated) for step in steps) and bool(steps[-1].truncated)


def test_items_repeat_or_not() -> None:
    env = hand_env(users=(0,), threshold=0.0)
    assert show(env, 2).obs.exclude is None and show(env, 2).reward.item() == 4.0
    env = hand_env(users=(0,), threshold=0.0, repeats=False, max_episode_steps=3)
    assert show(env, 2).obs.exclude.tolist() == [[-1, -1, 2]]
    assert show(env, 2).reward.item() == 0.0  # the place stays empty, and nothing is compared
    assert not bool(show(env, 1).terminated)


def test_tags_as_distance() -> None:
    tags = torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 1, 1], [1, 0, 0]])
    world = hand_world(tags=(("a", "b", "c"), tags))
    env = hand_env(world, users=(0,), distance="tags", threshold=1.5)  # differing in at most two tags
    close = env.user_model.close  # type: ignore[attr-defined]
    assert close.int().tolist() == [[1, 1, 0, 1], [1, 1, 1, 1], [0, 1, 1, 0], [1, 1, 0, 1]]


def test_true_ratings_have_the_same_interface_and_distances() -> None:
    true = torch.tensor([[5.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
    world = hand_world(true)
    assert world.catalogue.attributes["distance"][0].tolist() == pytest.approx([0, 4, 4, 4])
    estimated, real = hand_env(world), hand_env(world, ratings="true")
    assert estimated.interface == real.interface
    assert estimated.signals == real.signals and real.signals[0].high == 6.0
    assert show(estimated, 0, 3).reward.tolist() == [1.0, 6.0]
    assert show(real, 0, 3).reward.tolist() == [5.0, 1.0]


def test_relative_ratings_by_hand() -> None:
    """Each rating minus the mean of the session so far, in the history and in the context."""
    env = hand_env(users=(0,), relative=True, threshold=0.0)
    assert env.interface.relative and not env.interface.profile
    last = env.interface.place_of("relative_signals")
    first = show(env, 2).obs
    assert first.signals[0, :, 0].tolist() == [0, 0, 0, 0, 0] and first.context[0, last].tolist() == [0]
    show(env, 3)
    obs = show(env, 0).obs  # ratings 4, 1, 1 with mean 2
    assert obs.signals[0, :, 0].tolist() == [0, 0, 2, -1, -1]
    assert obs.context[0, last].tolist() == [-1]
    step = env.step(torch.tensor([[1]]))  # 4, 1, 1, 2
    assert step.obs.signals is not None
    assert step.obs.signals[0, :, 0].tolist() == [0, 2, -1, -1, 0]
    step = env.step(torch.tensor([[1]]))
    assert step.obs.signals is not None
    assert bool(step.truncated) and not step.obs.signals.any()  # a new session


def test_relative_ratings_need_the_whole_session() -> None:
    with pytest.raises(UserError):
        hand_env(relative=True, history_length=3)


def test_context_without_clock_and_a_short_history() -> None:
    env = hand_env(clock=False, history_length=3)
    assert env.interface.context == (("last_item", 4), ("last_signals", 1))
    assert env.interface.embeddings == (slice(0, 4),) and env.interface.history_length == 3


ENDS = {"distance": "tags", "threshold": 0.5}


@pytest.mark.parametrize("repeats", [True, False])
@pytest.mark.parametrize("more", [{}, {"relative": True, "ratings": "true"}, ENDS])
def test_batteries(repeats: bool, more: dict[str, Any]) -> None:
    world = random_world()
    settings: Any = {
        "num_items": 20,
        "embedding_dim": 4,
        "max_episode_steps": 6,
        "threshold": 1.5,
        "window": 3,
    }
    config = MatrixConfig(**{**settings, "repeats": repeats, **more})
    model = MatrixUsers(*world, config)
    check_user_model(model, world.catalogue, world.population.train[:5])

    def made(seed: int) -> RecEnv:
        rng = torch.Generator().manual_seed(seed)
        return RecEnv(model, world.catalogue, config, world.population.train, 8, rng)

    check_env(made, 6)


def test_user_is_hidden() -> None:
    """Two users with the same answers have the same observation; others differ by their ratings alone."""
    world = random_world()
    env = hand_env(world, users=(0, 1), threshold=0.0)
    obs = env.observe()
    assert torch.equal(obs.context[0], obs.context[1]) and not obs.context.any()
    obs = show(env, 3, 3).obs
    last = env.interface.place_of("last_signals")
    kept = [k for k in range(obs.context.shape[1]) if not last.start <= k < last.stop]
    assert torch.equal(obs.context[0, kept], obs.context[1, kept])
    assert torch.equal(obs.history[0], obs.history[1]) and not torch.equal(obs.signals[0], obs.signals[1])


def brute_force_list(world: World, config: MatrixConfig, users: Tensor) -> list[int]:
    """The greedy list of the mean rating that never ends a session, written anew."""
    mean, distance = (
        world.population.attributes["ratings"][users].mean(0),
        world.catalogue.attributes["distance"],
    )
    found: list[int] = []
    for _ in range(config.max_episode_steps):
        for item in mean.argsort(descending=True).tolist():
            recent = found[-config.window :]
            if not config.repeats and item in found:
                continue
            if all(distance[item, other] >= config.threshold for other in recent):
                found.append(item)
                break
    return found


@pytest.mark.parametrize("repeats", [True, False])
def test_static_list_respects_the_end_of_sessions(repeats: bool) -> None:
    world = random_world()
    config = MatrixConfig(
        num_items=20, embedding_dim=4, max_episode_steps=8, threshold=4.2, window=3, repeats=repeats
    )
    model, users = MatrixUsers(*world, config), world.population.train
    assert greedy_list(model, world.catalogue, users, 8, 16.0).tolist() == brute_force_list(
        world, config, users
    )
    found = static_list(model, world.catalogue, users, 8)
    short_sighted = greedy_list(model, world.catalogue, users, 8, 0.0)
    assert mean_return(model, users, found) > 1.2 * mean_return(model, users, short_sighted)


@pytest.mark.parametrize(("history", "clock"), [(3, True), (8, True), (3, False)])
def test_list_goes_on_where_items_repeat(history: int, clock: bool) -> None:
    """By the history, or where it is shorter than the session by the clock, or else by its own count."""
    world = random_world()
    config = MatrixConfig(
        num_items=20,
        embedding_dim=4,
        max_episode_steps=8,
        threshold=0.0,
        history_length=history,
        clock=clock,
    )
    env = RecEnv(MatrixUsers(*world, config), world.catalogue, config, torch.arange(2), 2, torch.Generator())
    wanted = torch.tensor([4, 9, 4, 2, 2, 11, 0, 7])
    policy = FixedList(wanted, 1, env.interface)
    for _ in range(2):  # the second session begins anew
        played = play(env, policy, torch.arange(2))
        assert played.items[:, :, 0].T.tolist() == [wanted.tolist()] * 2


def test_mean_user_is_what_a_planner_without_the_user_knows() -> None:
    world = random_world()
    model = MatrixUsers(*world, MatrixConfig(num_items=20, embedding_dim=4))
    known = model.as_known(model.sample(torch.tensor([0, 5])))
    mean = world.population.attributes["ratings"][world.population.train].mean(0)
    assert_close(model.expected_reward(known), mean.expand(2, -1))


def test_prospects_by_hand() -> None:
    env = hand_env(users=(0,))
    show(env, 1)
    rating, change = env.user_model.prospects(env.user_state)  # type: ignore[attr-defined]
    assert rating.tolist() == [[1, 2, 4, 1]] and change.tolist() == [[-1, -1, 0, 0]]


def test_data_without_a_matrix_get_one_from_affinity() -> None:
    config = Config(env=NAME, data="synthetic", num_users=10, num_items=40, embedding_dim=4)
    world = make_world(config)
    cosine = world.population.taste[3] @ world.catalogue.embedding[7]
    wanted = 1 + 4 / (1 + (-4 * (cosine - 0.25)).exp())
    assert_close(world.population.attributes["ratings"][3, 7], wanted)
    assert make_user_model(config, world).assumptions.startswith("the data hold no matrix")
    again = add_matrix(world, 0)
    assert again.population is world.population and again.catalogue is world.catalogue


def test_errors_of_data_that_lack_something() -> None:
    world = hand_world()
    bare = dataclasses.replace(world.population, attributes={})
    config = MatrixConfig(num_items=4, embedding_dim=4)
    for catalogue, population, settings in (
        (world.catalogue, bare, config),
        (*world, dataclasses.replace(config, ratings="true")),
        (*world, dataclasses.replace(config, distance="tags")),
    ):
        with pytest.raises(UserError):
            MatrixUsers(catalogue, population, settings)


def test_strangers_need_a_profile_and_other_people_have_no_ratings() -> None:
    world = random_world()
    settings: Any = {"num_items": 20, "embedding_dim": 4}
    with pytest.raises(UserError):
        make_env(Config(env=NAME, data="synthetic", **settings), world, 2, strangers=True)
    with pytest.raises(UserError):
        make_env(Config(env=NAME, data="synthetic", stranger_share=0.5, **settings), world, 2)
    people = dataclasses.replace(world.population, attributes={}, source="people.csv")
    with pytest.raises(UserError):
        add_matrix(World(world.catalogue, people), 0)


def test_transformer_needs_a_history_and_not_items_that_never_repeat() -> None:
    for repeats in (True, False):
        assert PLATFORM.has_history(MatrixConfig(repeats=repeats))
        config = Config(env=NAME, data="synthetic", encoder="transformer", repeats=repeats, num_items=40)
        assert config.platform.repeats(config.env_config) == repeats
    with pytest.raises(UserError):
        Config(env="drift", encoder="transformer")
    assert Config(env="drift", encoder="transformer", history_length=5).model_config.encoder == "transformer"
    with pytest.raises(UserError):
        Config(env=NAME, repeats=False, num_items=20)
    assert Config(env=NAME, num_items=20).env_config.max_episode_steps == 30


@pytest.mark.parametrize("head", ["two-tower", "dense"])
@pytest.mark.parametrize("encoder", ["mlp", "transformer", "deep-sets"])
def test_networks_without_a_profile(head: str, encoder: str) -> None:
    config = Config(
        env=NAME, data="synthetic", num_users=10, num_items=40, embedding_dim=4, head=head, encoder=encoder
    )
    world = make_world(config)
    env = make_env(config, world, 3)
    agent = make_agent(config, env.interface, world.catalogue)
    obs = env.reset()
    action = agent.act(obs)
    assert action.items.shape == (3, 1) and bool(action.logprob.isfinite().all())
    assert_close(agent.logprob(obs, action.items), action.logprob, check_dtype=False)


def test_scorer_needs_a_profile() -> None:
    config = Config(env=NAME, data="synthetic", num_users=10, num_items=40, embedding_dim=4, head="scorer")
    world = make_world(config)
    env = make_env(config, world, 3)
    with pytest.raises(UserError):
        make_agent(config, env.interface, world.catalogue)

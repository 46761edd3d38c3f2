"""The users of short videos: each equation by hand, what is drawn, and what an observation may hold."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from recsys_rl.checkpoint import load
from recsys_rl.env import short_video
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.env.short_video import (
    ShortVideo,
    ShortVideoConfig,
    ShortVideoState,
    add_attributes,
)
from recsys_rl.env.visits import OPENED_AT, opening_hours
from recsys_rl.evaluation.rivals.references import (
    LONG_PRICES,
    PATIENCE_PRICES,
    WEARINESS_PRICES,
    Myopic,
    Planner,
    Search,
    rest_of_session,
)
from recsys_rl.experience.rollout import play
from recsys_rl.make import make_env, make_user_model, make_world
from recsys_rl.settings.config import Config, from_dict
from recsys_rl.testing import check_env, check_user_model
from recsys_rl.testing.envs import require_same_obs
from recsys_rl.types import Catalogue, Population, UserError, World, genres_and_year, tree_map
from tests.doors import steps, train_in
from tests.env.hand import by_hand

SHOWN = torch.ones(1, 1, dtype=torch.bool)
CONFIG = ShortVideoConfig(
    num_items=4,
    embedding_dim=2,
    max_episode_steps=4,
    appeal_base=0.1,
    pull_gain=1.0,
    ease_deviation=0.2,
    ratio_base=-0.11,
    ratio_noise=1e-3,
    loop_deviation=0.2,
    loop_spread=0.5,
    leave_seconds=4.6,
    hook_spread=0.6,
    leave_noise=1e-3,
    first_patience=5.0,
    after_gain=0.2,
)
hand = by_hand(
    short_video,
    taste_gain=2.0,
    creator_wear=1.0,
    tag_wear=0.4,
    weariness_kept=0.5,
    ratio_slope=0.15,
    patience_drain=0.3,
    patience_feed=0.2,
    patience_pull=0.1,
)


def tiny(config: ShortVideoConfig = CONFIG) -> ShortVideo:
    """Four videos on the axes, whose standard deviations are 1 / sqrt(2) and 1 / (2 sqrt(2)), and one user.

    The z-scores of log popularity are 1, 1, -1, -1, and quality is constant, so that these are the pulls.
    """
    popular, rare = 1 - 1e-3, math.exp(-2) - 1e-3
    catalogue = Catalogue(
        embedding=torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.5], [0.0, -0.5]]),
        item_ids=torch.arange(4),
        titles=("east", "west", "north", "south"),
        popularity=torch.tensor([popular, popular, rare, rare]),
        quality=torch.full((4,), 0.7),
        available=torch.ones(4, dtype=torch.bool),
        source="made up",
        attributes={
            "genres": torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, 0.0]]),
            "year": torch.full((4,), torch.nan),
            "duration": torch.tensor([10.0, 120.0, 5.0, 60.0]),
            "creator": torch.tensor([0, 0, 1, 2]),
            "hook": torch.tensor([0.0, 1.0, 0.0, -1.0]),
        },
        features=genres_and_year(("a", "b")),
    )
    row, taste = torch.tensor([0]), torch.tensor([[0.6, 0.8]])
    habits = {"ease": 0.5, "loop_habit": 1.0, "loop_noise": 0.0, "opened": 30.0}
    population = Population(
        taste=taste,
        profile=torch.tensor([[1.0, 0.0]]),
        user_ids=row,
        train=row,
        heldout=row,
        attributes={name: torch.tensor([value]) for name, value in habits.items()},
    )
    return ShortVideo(catalogue, population, config)


def show(
    model: ShortVideo, state: ShortVideoState, item: int
) -> tuple[ShortVideoState, dict[str, float], bool]:
    """Show one video without noise: next state, signals by name, and True if the user leaves."""
    items = torch.tensor([[item]])
    feedback = model.respond(state, items, SHOWN, None)
    after, leaves = model.advance(state, items, feedback)
    names = [signal.name for signal in model.signals]
    return after, dict(zip(names, feedback.signals[0, 0].tolist(), strict=True)), bool(leaves)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def small_env(seed: int = 0, num_envs: int = 6, **dials: float) -> RecEnv:
    """Six sessions on synthetic items, in which most users leave."""
    sizes = {"num_items": 40, "embedding_dim": 4, "max_episode_steps": 12, **dials}
    data = {"data": "synthetic", "num_users": 30}
    config = from_dict(Config, {"env": "short-video", "env_config": sizes, "data_config": data})
    env = make_env(config, make_world(config), num_envs, torch.Generator().manual_seed(seed))
    assert isinstance(env, RecEnv)
    return env


# ---- the equations


def test_coordinates_pull_and_after_effect_by_hand() -> None:
    model = tiny()
    assert_close(model.axes, torch.eye(2))
    root = 2**0.5
    assert_close(model.coordinates, torch.tensor([[root, 0.0], [-root, 0.0], [0.0, root], [0.0, -root]]))
    assert_close(model.facts[:, 0], torch.tensor([1.1, 1.1, -0.9, -0.9]), atol=1e-4, rtol=0)
    # q is (-0.8, 0.6), at a right angle to the taste (0.6, 0.8)
    _, patience = model.prospects(model.sample(torch.tensor([0])))
    after = [-0.8 * root, 0.8 * root, 0.6 * root, -0.6 * root]
    stays = [sigmoid(x) for x in (2.4, 0.0, 0.0, -1.6)]
    wanted = [0.2 * p - 0.3 + 0.2 * a for p, a in zip(stays, after, strict=True)]
    assert_close(patience, torch.tensor([wanted]), atol=1e-4, rtol=0)


def test_response_by_hand() -> None:
    model = tiny()
    state = model.sample(torch.tensor([0]))
    _, seen, leaves = show(model, state, 0)
    # appeal 0.1 + 1 + 0.2 * 0.5 + 2 * 0.6; log ratio -0.11 + 0.15 * (2.4 - 1) + 0.2
    stays = sigmoid(2.4)
    ratio = stays * math.exp(0.3) + (1 - stays) * 0.46  # 4.6 of 10 seconds
    liked = stays * sigmoid(-0.1)
    assert not leaves
    assert seen["watch_ratio"] == seen["watch"] == pytest.approx(ratio, abs=1e-4)
    assert seen["seconds"] == pytest.approx(10 * ratio, abs=1e-3)
    assert seen["satisfaction"] == pytest.approx(stays, abs=1e-5) and seen["skip"] == 0
    assert seen["liked"] == pytest.approx(liked, abs=1e-5)
    assert seen["shared"] == pytest.approx(0.006 * liked, abs=1e-6)
    assert seen["followed"] == pytest.approx(0.009 * liked, abs=1e-6)
    assert seen["commented"] == pytest.approx(0.036 * liked, abs=1e-6)
    reward = 0.4 * ratio + liked * (0.3 + 0.2 * 0.006 + 0.1 * 0.009)
    assert model.expected_reward(state)[0, 0].item() == pytest.approx(reward, abs=1e-4)


def test_long_video_and_skip_by_hand() -> None:
    model = tiny()
    state = model.sample(torch.tensor([0]))
    _, long, _ = show(model, state, 1)
    # appeal 0; log ratio -0.11 + 0.15 * (0 - 1) + 0.2 - ln(120 / 60); left after 4.6 e^0.6 s
    left = 4.6 * math.exp(0.6) / 120
    assert long["watch_ratio"] == pytest.approx(0.5 * math.exp(-0.06) / 2 + 0.5 * left, abs=1e-4)
    _, rare, _ = show(model, state, 2)
    # appeal 0; log ratio -0.11 + 0.15 * (0 + 1) + 0.2; left after 4.6 of 5 s
    assert rare["watch_ratio"] == pytest.approx(0.5 * math.exp(0.24) + 0.5 * 0.92, abs=1e-4)
    _, skipped, _ = show(model, state, 3)
    # appeal -1.6; left after 4.6 e^-0.6 = 2.52 s, which is a skip
    leaves = 1 - sigmoid(-1.6)
    assert skipped["skip"] == pytest.approx(leaves, abs=1e-5)
    assert skipped["watch_ratio"] - skipped["watch"] == pytest.approx(leaves * 2.5245 / 60, abs=1e-4)


def test_state_after_a_video_by_hand() -> None:
    model = tiny()
    state, seen, _ = show(model, model.sample(torch.tensor([0])), 0)
    patience = 5 - 0.3 + 0.2 * sigmoid(2.4) + 0.2 * -0.8 * 2**0.5
    assert state.patience.item() == pytest.approx(patience, abs=1e-4)
    assert state.recent[0, -2:].tolist() == [-1, 0]
    assert state.weary_of_tags.tolist() == [[0.5, 0.0]]
    assert state.hour.item() == pytest.approx(30 + seen["seconds"] / 3600, abs=1e-5)
    # the second video has the same creator and half of its tags in common: 1 * 0.5 + 0.4 * 0.5 / sqrt(2)
    _, seen, _ = show(model, state, 1)
    appeal = 0.1 * (patience - 5) - 0.5 - 0.2 / 2**0.5
    assert seen["satisfaction"] == pytest.approx(sigmoid(appeal), abs=1e-4)


def test_mood_moves_the_appeal_along_the_axes() -> None:
    model = tiny()
    state = replace(model.sample(torch.tensor([0])), mood=torch.tensor([[0.5, -1.0]]))
    _, seen, _ = show(model, state, 0)
    assert seen["satisfaction"] == pytest.approx(sigmoid(2.4 + 0.5 * 2**0.5), abs=1e-5)
    after, seen, _ = show(model, state, 3)
    assert seen["satisfaction"] == pytest.approx(sigmoid(-1.6 + 2**0.5), abs=1e-5)
    assert_close(after.mood, 0.98 * state.mood)  # without noise


def test_user_leaves_without_patience_and_patience_has_a_limit() -> None:
    model = tiny()
    state = model.sample(torch.tensor([0]))
    tired = replace(state, patience=torch.tensor([0.3]))  # video 0 costs about 0.34
    assert show(model, tired, 0)[2] and not show(model, tired, 1)[2]
    restoring = replace(CONFIG, after_gain=3.0)
    after, *_ = show(tiny(restoring), replace(state, patience=torch.tensor([9.5])), 1)
    assert after.patience.item() == 10.0


def test_place_that_is_not_shown_changes_only_patience_and_memory() -> None:
    model = tiny()
    state, *_ = show(model, model.sample(torch.tensor([0])), 0)
    items = torch.tensor([[1]])
    feedback = model.respond(state, items, ~SHOWN, torch.Generator().manual_seed(0))
    assert not feedback.signals.any()
    after, _ = model.advance(state, items, feedback)
    assert after.patience.item() == pytest.approx(state.patience.item() - 0.3, abs=1e-5)
    assert torch.equal(after.recent, state.recent) and after.hour.item() == state.hour.item()
    assert_close(after.weary_of_tags, 0.5 * state.weary_of_tags)


def test_drawn_responses_have_the_expected_means(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, rate in {"SHARE_RATE": 0.3, "FOLLOW_RATE": 0.6, "COMMENT_RATE": 0.4}.items():
        monkeypatch.setattr(short_video, name, rate)
    model = tiny(replace(CONFIG, ratio_noise=0.6, leave_noise=0.5))
    one, count = model.sample(torch.tensor([0])), 200_000
    state = tree_map(lambda x: x.expand(count, *x.shape[1:]).contiguous(), one)
    for item in range(4):
        items = torch.full((count, 1), item)
        expected = model.respond(one, items[:1], SHOWN, None).signals[0, 0]
        shown = torch.ones_like(items, dtype=torch.bool)
        drawn = model.respond(state, items, shown, torch.Generator().manual_seed(item)).signals[:, 0]
        error = 5 * drawn.std(0) / count**0.5 + 1e-6
        assert bool(((drawn.mean(0) - expected).abs() < error).all()), item
        assert drawn[:, 0].max() <= 5
        ends = drawn[:, 4].bool()
        # Comments and follows after a like are independent.
        likers = drawn[:, 1].bool()
        together = (drawn[likers, 3] * drawn[likers, 10]).mean()
        assert together.item() == pytest.approx(0.24, abs=0.02) and not drawn[~likers, 10].any()
        assert not drawn[ends, 5].any() and torch.equal(drawn[~ends, 5], drawn[~ends, 0])


@pytest.mark.parametrize("dial", ["ratio_noise", "ratio_base", "loop_spread"])
def test_expected_reward_is_finite_with_extreme_dials(dial: str) -> None:
    """The mean of exp(N) overflows, and the watch ratio is still cut at 5."""
    extreme: dict[str, float] = {"ratio_noise": 50.0, "ratio_base": 1e4, "loop_spread": 10.0}
    users = tiny_of_users(8).population
    noise = {"loop_noise": torch.linspace(-3, 3, 8)}
    users = replace(users, attributes={**users.attributes, **noise})
    config = ShortVideoConfig(**{**vars(CONFIG), dial: extreme[dial]})
    model = replace(tiny(config), population=users)
    expected = model.expected_reward(model.sample(torch.arange(8)))
    assert bool((expected.isfinite() & (expected <= 0.4 * 5 + 0.6)).all())


def test_steps_of_the_mood() -> None:
    """The first step has the deviation of the walk, and later steps keep it there."""
    model = tiny()
    one, count = model.sample(torch.tensor([0])), 50_000
    state = tree_map(lambda x: x.expand(count, *x.shape[1:]).contiguous(), one)
    generator = torch.Generator().manual_seed(0)
    items, shown = torch.zeros(count, 1, dtype=torch.int64), torch.ones(count, 1, dtype=torch.bool)
    moods = []
    for _ in range(3):
        state, _ = model.advance(state, items, model.respond(state, items, shown, generator))
        moods.append(state.mood)
    for mood in moods:
        assert_close(mood.std(0), torch.full((2,), 1.5), atol=0.02, rtol=0)
    correlation = (moods[0] * moods[1]).mean(0) / 2.25
    assert_close(correlation, torch.full((2,), 0.98), atol=0.03, rtol=0)


def test_prospects_equal_the_simulated_step() -> None:
    model = tiny()
    state, *_ = show(model, model.sample(torch.tensor([0])), 0)
    reward, patience = model.prospects(state)
    weights = torch.tensor([stream.weight for stream in model.streams])
    for item in range(4):
        items = torch.tensor([[item]])
        feedback = model.respond(state, items, SHOWN, None)
        after, _ = model.advance(state, items, feedback)
        earned = (model.rewards(feedback) @ weights).item()
        assert reward[0, item].item() == pytest.approx(earned, abs=1e-5)
        assert patience[0, item].item() == pytest.approx((after.patience - state.patience).item(), abs=1e-5)


def test_tiresomeness_by_hand() -> None:
    """All four videos are favourites: mean weariness of their creators and tags."""
    found = tiny().tiresomeness(tiny().sample(torch.tensor([0])))
    half = 2**-0.5
    tags = [(1 + half) / 4, 2 * (1 + half) * half / 4, (1 + half) / 4, 0.0]
    wanted = [share + 0.4 * tag for share, tag in zip((0.5, 0.5, 0.25, 0.25), tags, strict=True)]
    assert_close(found, torch.tensor([wanted]))


def test_known_state_has_the_profile_and_no_hidden_habits() -> None:
    model = tiny()
    state = replace(model.sample(torch.tensor([0])), mood=torch.tensor([[0.5, -1.0]]))
    known = model.as_known(state)
    assert torch.equal(known.taste, state.profile) and not known.mood.any() and not known.ease.any()
    assert known.spread.item() == pytest.approx(1e-3) and known.patience.item() == 5


def test_rest_of_a_long_session_by_hand() -> None:
    """10 rewards in 20 steps; 4 of 6 units of patience in 20 steps leave enough for 10 more."""
    total, before = torch.full((4,), 10.0), torch.full((4,), 6.0)
    after = torch.tensor([6.0, 2.0, 7.0, 2.0])
    rest = rest_of_session(total, before, after, torch.tensor([50, 50, 25, 20]), 20)
    assert_close(rest, torch.tensor([15.0, 0.5 * 10, 0.5 * 5, 0.0]))


@pytest.mark.proof
def test_planner_keeps_users_longer_than_myopic() -> None:
    """In sessions of more than LONG_SESSION steps, over four worlds."""
    returns = {Myopic: 0.0, Planner: 0.0}
    for kind in returns:
        for seed in range(4):
            env = small_env(seed, num_envs=4, num_items=120, max_episode_steps=60, after_gain=0.8)
            with torch.inference_mode():
                returns[kind] += play(env, kind(env), env.users[:4]).returns.mean().item()
    assert returns[Planner] > 1.5 * returns[Myopic]


# ---- the world


def test_user_model_and_environment_keep_their_contracts() -> None:
    env = small_env()
    check_user_model(env.user_model, env.catalogue, env.users[:8], num_steps=8)
    check_user_model(tiny_of_users(8), tiny().catalogue, torch.arange(8), num_steps=3)
    check_env(lambda seed: small_env(seed), max_episode_steps=12)


def tiny_of_users(count: int) -> ShortVideo:
    """The tiny videos, which have tags, and users of all tastes."""
    model = tiny()
    angle = torch.linspace(0, 6, count)
    taste = torch.stack([angle.cos(), angle.sin()], 1)
    rows = torch.arange(count)
    attributes = {name: x.expand(count).clone() for name, x in model.population.attributes.items()}
    return replace(model, population=Population(taste, taste, rows, rows, rows, attributes=attributes))


def test_hidden_state_does_not_reach_the_observation() -> None:
    env = small_env()
    env.reset()
    for item in range(3):
        env.step(torch.full((6, 1), item))
    before, state = env.observe(), env.user_state
    env.user_state = replace(
        state,
        taste=-state.taste,
        ease=state.ease + 1,
        habit=state.habit + 1,
        spread=2 * state.spread,
        mood=state.mood + 1,
        recent=state.recent.roll(1, 1),
        weary_of_tags=state.weary_of_tags + 1,
        patience=state.patience / 2,
        begun=~state.begun,
    )
    require_same_obs(env.observe(), before, "hidden state")
    env.user_state = replace(state, hour=state.hour + 6)
    assert not torch.equal(env.observe().context, before.context)


def test_pieces_of_the_context() -> None:
    env = small_env(max_episode_steps=30)
    sizes = {"profile": 4, "last_item": 4, "last_signals": 4, "time_of_week": 4, "streak": 1}
    assert dict(env.interface.context) == sizes
    assert env.interface.signals == ("watch_ratio", "liked", "shared", "followed")
    model = tiny()
    time = model.visible(model.sample(torch.tensor([0])))["time_of_week"]  # Tuesday, 6 in the morning
    turn = 2 * math.pi * 30 / 168
    assert_close(time, torch.tensor([[1.0, math.sin(turn), 0.0, math.cos(turn)]]), atol=1e-6, rtol=0)


def test_sessions_go_on_after_save_and_load() -> None:
    one, two = small_env(0), small_env(0)
    one.reset()
    for item in range(5):
        one.step(torch.full((6, 1), item))
    two.reset()
    two.load_state_dict(one.state_dict())
    two.generator.set_state(one.generator.get_state())
    require_same_obs(one.observe(), two.observe(), "after loading")
    for item in range(5, 20):
        first, second = one.step(torch.full((6, 1), item)), two.step(torch.full((6, 1), item))
        require_same_obs(first.obs, second.obs, f"item {item}")
        assert torch.equal(first.reward, second.reward)


@pytest.mark.parametrize(
    ("field", "value"), [("patience", 0.0), ("patience", 10.5), ("recent", 999), ("hour", 168.0)]
)
def test_impossible_sessions_are_refused(field: str, value: float) -> None:
    env = small_env()
    env.reset()
    state = env.state_dict()
    state[f"user_state.{field}"] = torch.full_like(state[f"user_state.{field}"], value)
    with pytest.raises(UserError):
        env.load_state_dict(state)


def test_world_without_the_attributes_is_refused() -> None:
    model = tiny()
    fewer = {name: x for name, x in model.catalogue.attributes.items() if name != "duration"}
    with pytest.raises(UserError):
        replace(model, catalogue=replace(model.catalogue, attributes=fewer))
    with pytest.raises(UserError):
        replace(model, population=replace(model.population, attributes={}))


@pytest.mark.parametrize(
    "duration",
    [torch.tensor([9.0, 0.0, 5.0, 7.0]), torch.tensor([9.0, torch.nan, 5.0, 7.0]), torch.arange(1, 5)],
    ids=["zero", "nan", "texts"],
)
def test_durations_that_are_no_seconds_are_refused(duration: torch.Tensor) -> None:
    """A file about items may have any values in its column; texts come as numbers of classes."""
    model = tiny()
    attributes = {**model.catalogue.attributes, "duration": duration}
    with pytest.raises(UserError):
        replace(model, catalogue=replace(model.catalogue, attributes=attributes))


def test_attributes_of_the_data_are_kept_and_others_are_drawn() -> None:
    model = tiny()
    known = {"duration": model.catalogue.attributes["duration"]}
    bare = World(replace(model.catalogue, attributes=known), replace(model.population, attributes={}))
    world = add_attributes(bare, 3)
    assert torch.equal(world.catalogue.attributes["duration"], known["duration"])
    assert world.catalogue.drawn == ("creator", "hook")
    again = add_attributes(World(replace(bare.catalogue, attributes={}), bare.population), 3)
    for name in ("creator", "hook"):  # the same, although durations were drawn too
        assert torch.equal(world.catalogue.attributes[name], again.catalogue.attributes[name]), name
    assert again.catalogue.drawn[0] == "duration"
    assert not torch.equal(
        add_attributes(bare, 4).catalogue.attributes["hook"], world.catalogue.attributes["hook"]
    )
    said = ShortVideo(*world, CONFIG).assumptions
    assert said.startswith("durations come from the data; the data lack creators (one for three videos, by a")
    assert "durations (log-normal" in ShortVideo(*again, CONFIG).assumptions
    assert model.assumptions.startswith("durations and creators come from the data; hooks of videos")


def test_opening_hours_follow_their_shares() -> None:
    hours = opening_hours(20_000, torch.Generator().manual_seed(0))
    assert hours.min() >= 0 and hours.max() < 168
    counts = torch.bincount(hours.long() % 24, minlength=24) / len(hours)
    assert_close(counts, torch.tensor(OPENED_AT) / sum(OPENED_AT), atol=2e-3, rtol=0)
    days = torch.bincount(hours.long() // 24, minlength=7) / len(hours)
    assert_close(days, torch.full((7,), 1 / 7), atol=0.015, rtol=0)


def test_checkpoint_keeps_the_drawn_items(tmp_path: Path) -> None:
    small = ["--data", "synthetic", "--num-items", "40", "--embedding-dim", "4", "--num-users", "30"]
    options = ["--env", "short-video", *small, "--max-episode-steps", "12", "--num-envs", "4"]
    path = train_in(tmp_path / "run", *options, "--n-steps", "6", "--batch-size", "12", *steps(1))
    saved = load(path)
    world = make_world(saved.config)
    assert saved.catalogue.drawn == world.catalogue.drawn
    for name, values in world.catalogue.attributes.items():
        assert_close(saved.catalogue.attributes[name], values, rtol=0, atol=0, equal_nan=True)
    make_user_model(saved.config, saved.world)


def test_streams_and_their_sums() -> None:
    model = tiny()
    assert [stream.name for stream in model.streams] == [
        "skip",
        "watch",
        "like",
        "share",
        "follow",
        "seconds",
    ]
    feedback = model.respond(model.sample(torch.tensor([0])), torch.tensor([[3]]), SHOWN, None)
    skip, watch, *_, seconds = model.rewards(feedback)[0].tolist()
    assert skip > 0.8 and 0 < watch < 0.2 and seconds > 60 * watch


def test_search_of_the_planner_is_narrower_in_long_sessions() -> None:
    model = tiny()
    assert Search.of(model, 51) == Search(LONG_PRICES, 2, 10) and Search.of(model, 51).chunk == 42
    assert Search.of(model, 50) == Search((PATIENCE_PRICES, WEARINESS_PRICES), 3, 40)

"""The platform of long videos: each equation by hand, the contracts, and what a recommender can see of it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from gymnasium.utils.env_checker import check_env as gymnasium_check
from torch import Tensor
from torch.testing import assert_close

from recsys_rl.cli import main
from recsys_rl.env import long_video
from recsys_rl.env.long_video import (
    LongVideo,
    LongVideoConfig,
    LongVideoState,
    add_attributes,
    as_uniform,
    expected_completion,
)
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.evaluation.rivals import references
from recsys_rl.evaluation.rivals.baselines import simple_baselines
from recsys_rl.evaluation.rivals.best_slate import BestSlate
from recsys_rl.evaluation.rivals.rankers import Rule, RuleWeights
from recsys_rl.evaluation.rivals.references import upper_bounds
from recsys_rl.experience.rollout import play
from recsys_rl.foreign.ids import RecSysEnv
from recsys_rl.make import make_env, make_world
from recsys_rl.protocols import EventUsers, PatientUsers, UncertainUsers
from recsys_rl.settings.config import Config, from_dict
from recsys_rl.testing import check_env, check_user_model
from recsys_rl.types import Feedback, UserError, World, tree_map
from tests.env.hand import by_hand
from tests.tiny_world import population, tiny_catalogue, with_genres

TINY = LongVideoConfig(
    num_items=3,
    embedding_dim=2,
    max_episode_steps=6,
    suggestions=2,
    watched_window=4,
    seeing_exponent=1.0,
    fit_midpoint=0.5,
    want_gain=4.0,
    lure_gain=1.0,
    wear_gain=1.0,
    trust_gain=2.0,
    trust_start=0.5,
    hold_bias=1.0,
    hold_gain=2.0,
    length_cost=0.5,
    go_on_bias=0.25,
    idle_limit=2,
)
hand = by_hand(
    long_video,
    wear_recovery=0.5,
    trust_rate=0.4,
    trust_midpoint=0.5,
    subscribe_bias=-1.0,
    subscribe_gain=2.0,
    sameness_cost=0.1,
    ad_share=0.5,
    ad_click_rate=0.5,
)
SURE, NEVER = 1 - 1e-6, 0.0
SHOWN = torch.ones(1, 2, dtype=torch.bool)
EAST_NORTH = torch.tensor([[0, 1]])


def tiny(config: LongVideoConfig = TINY) -> LongVideo:
    """East is catchy by sqrt(3), 10 minutes long; north lasts 10 e^2 minutes, between 10 minutes."""
    duration = torch.tensor([600.0, 600 * math.e**2, 600.0])
    plain = tiny_catalogue()
    named = {"duration": duration, "creator": torch.tensor([0, 1, 1])}
    items = replace(plain, attributes={**plain.attributes, **named})
    return LongVideo(items, population([[1.0, 0.0]]), config)


def begin(model: LongVideo, pick: float = NEVER, go_on: float = NEVER) -> LongVideoState:
    """A fresh user; ``pick`` and ``go_on`` are the numbers in place of the two draws."""
    return numbers(model.sample(torch.tensor([0])), pick, go_on)


def step(
    model: LongVideo, state: LongVideoState, items: Tensor = EAST_NORTH, shown: Tensor = SHOWN
) -> tuple[LongVideoState, Feedback, dict[str, float], bool]:
    feedback = model.respond(state, items, shown, None)
    after, leaves = model.advance(state, items, feedback)
    names = [stream.name for stream in model.streams]
    return after, feedback, dict(zip(names, model.rewards(feedback)[0].tolist(), strict=True)), bool(leaves)


def numbers(state: LongVideoState, pick: float, go_on: float) -> LongVideoState:
    return replace(state, luck=torch.tensor([[int(pick * 2**32), int(go_on * 2**32)]]))


def test_choice_at_home_by_hand() -> None:
    """want = 4 (1 - 1/2) + sqrt(3) of east, 4 (0 - 1/2) of north; none 0; half of the users see north."""
    model = tiny()
    state = begin(model, pick=SURE)
    east, north = math.exp(2 + 3**0.5), math.exp(-2)
    alone, both = 1 + east, 1 + east + north
    expected = [east / 2 * (1 / alone + 1 / both), north / 2 / both]
    after, feedback, paid, leaves = step(model, state)
    assert_close(feedback.signals[0, :, 6], torch.tensor(expected), atol=1e-6, rtol=0)  # chance
    assert paid == {"completion": 0, "clicked": 0, "subscribed": 0, "sameness": 0, "ad_clicks": 0}
    assert after.current.item() == -1 and after.idle.item() == 1 and not leaves
    *_, leaves = step(model, numbers(after, SURE, NEVER))
    assert leaves  # after two idle requests


def test_pick_and_four_quarters_by_hand() -> None:
    model = tiny()
    state, feedback, paid, _ = step(model, begin(model))  # picks east
    assert feedback.signals[0, :, 1].tolist() == [1, 0] and feedback.signals[0, :, 4].tolist() == [1, 0]
    assert paid == {"completion": 0, "clicked": 1, "subscribed": 0, "sameness": 0, "ad_clicks": 0.25}
    assert (state.current.item(), state.quarters.item(), state.clicked.item()) == (0, 0, 1)
    assert_close(state.wear, torch.tensor([[1.0, 0.0]]))
    assert_close(model.visible(state)["progress"], torch.tensor([[0.0, 1.0, 0.0, 0.0, 0.0]]))
    # hold of east: 1 + 2 (1 - 1/2) - sqrt(3) = 0.267949, sigmoid 0.566589
    for quarter in (1, 2, 3):
        state, _, paid, _ = step(model, numbers(state, SURE, 0.566))
        assert (state.current.item(), state.quarters.item(), state.idle.item()) == (0, quarter, 0)
        assert not any(paid.values())
    assert_close(state.wear, torch.tensor([[0.125, 0.0]]))
    assert_close(model.visible(state)["current_item"], torch.tensor([[1.0, 0.0]]))
    items = torch.tensor([[2, 1]])
    state, feedback, paid, _ = step(
        model, numbers(state, SURE, 0.566), items
    )  # ends; between starts by itself
    assert feedback.events is not None and feedback.events.items.tolist() == [[0]]
    # subscribes with sigmoid(-1 + 2 (1 - 1/2)) = 1/2; sameness of between and east is 0.6
    assert paid == pytest.approx(
        {"completion": 1, "clicked": 0, "subscribed": 0.5, "sameness": 0.6, "ad_clicks": 0.25}
    )
    assert_close(feedback.events.signals[0, 0, :4], torch.tensor([1.0, 1.0, 0.5, 0.25]))
    assert (state.current.item(), state.quarters.item(), state.clicked.item()) == (2, 0, 0)
    assert state.trust.item() == pytest.approx(0.5 + 0.4 * 0.5)
    assert_close(state.wear, torch.tensor([[0.0625 + 0.5**0.5, 0.5**0.5]]))
    assert_close(state.watched, torch.tensor([[1.6, 0.8]]))


def test_wear_without_a_memory_is_that_of_the_video_just_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_video, "WEAR_RECOVERY", 0.0)
    model = tiny()
    state, *_ = step(model, begin(model))  # picks east
    assert_close(state.wear, torch.tensor([[1.0, 0.0]]))
    state, *_ = step(model, numbers(state, SURE, NEVER))  # a quarter of it
    assert not state.wear.any()


def test_quarter_is_left_beyond_its_probability() -> None:
    model = tiny()
    state, *_ = step(model, begin(model))
    state, feedback, paid, _ = step(model, numbers(state, SURE, 0.567))  # just above 0.566589
    assert feedback.events is not None and feedback.events.signals[0, 0, 0] == 0
    assert state.current.item() == -1 and state.idle.item() == 1 and paid["completion"] == 0
    assert state.trust.item() == pytest.approx(0.5 - 0.4 * 0.5)
    # less trust: want falls by 2 * 0.2, and by the wear 1/2 of east, for which w = 1 was halved
    *_, feedback = step(model, state)[:2]
    wear = float(state.wear[0, 0])
    east, north = math.exp(2 + 3**0.5 - 0.4 - wear), math.exp(-2 - 0.4)
    expected = [east / 2 * (1 / (1 + east) + 1 / (1 + east + north)), north / 2 / (1 + east + north)]
    assert wear == 0.5
    assert_close(feedback.signals[0, :, 6], torch.tensor(expected), atol=1e-6, rtol=0)


def test_pick_from_the_sidebar_leaves_the_video() -> None:
    model = tiny()
    state, *_ = step(model, begin(model))
    state, *_ = step(model, numbers(state, SURE, NEVER))  # one quarter
    items = torch.tensor([[2, 1]])
    _, none = model._hold(state, model._affinity_of_current(state))
    assert none.item() == pytest.approx(0.25 + 2 - 3**0.5)  # go_on_bias + hold
    state, feedback, paid, _ = step(model, numbers(state, NEVER, NEVER), items)
    assert paid["completion"] == 0.25 and paid["clicked"] == 1 and paid["sameness"] == pytest.approx(0.6)
    assert paid["subscribed"] == pytest.approx(0.25 * 0.5)
    assert (state.current.item(), state.quarters.item(), state.clicked.item()) == (2, 0, 1)
    assert state.trust.item() == pytest.approx(0.5 - 0.4 * 0.25)
    assert feedback.events is not None and feedback.events.items.item() == 0


def test_autoplay_needs_a_first_place() -> None:
    """With an empty first place the user is at home after the end."""
    model = tiny()
    state = replace(begin(model, SURE, NEVER), current=torch.tensor([2]), quarters=torch.tensor([3]))
    after, feedback, paid, _ = step(model, state, torch.tensor([[0, 1]]), torch.tensor([[False, True]]))
    assert paid["completion"] == 1 and after.current.item() == -1
    assert not feedback.signals[0, 0].any()


def test_hold_falls_with_duration() -> None:
    """North lasts e^2 times 10 minutes: 1 + 2 (0 - 1/2) - 0.5 * 2."""
    model = tiny()
    state = replace(begin(model), current=torch.tensor([1]))
    assert model._hold(state, model._affinity_of_current(state))[0].item() == pytest.approx(-1.0)


def test_creator_is_subscribed_to_once() -> None:
    model = tiny()
    state = replace(begin(model), current=torch.tensor([1]))
    # sigmoid(-1 + 2 (0 - 1/2))
    assert model._subscribes(state, model._affinity_of_current(state)).item() == pytest.approx(0.119203)
    known = replace(state, subscribed=state.subscribed.index_fill(1, torch.tensor([3]), 1))
    assert model._subscribes(known, model._affinity_of_current(known)).item() == 0
    feedback = model.respond(numbers(state, SURE, SURE), EAST_NORTH, SHOWN, None)
    assert feedback.events is not None
    feedback.events.signals[0, 0, 2] = 1.0
    after, _ = model.advance(state, EAST_NORTH, feedback)
    assert after.subscribed[0, -1].item() == 1 and after.subscribed[0, :-1].eq(-1).all()


def test_expected_completion_by_hand() -> None:
    p = torch.tensor([0.5, 0.5, 1.0])
    expected = torch.tensor([(0.5 + 0.25 + 0.125 + 0.0625) / 4, (2 + 0.5 + 0.25) / 4, 1.0])
    assert_close(expected_completion(p, torch.tensor([0, 2, 3])), expected)
    assert_close(expected_completion(p[:1]), expected[:1])


def test_prospects_equal_the_mean_of_simulated_steps() -> None:
    """Each item alone, in many futures: the announced reward is the mean reward of the next step."""
    model = tiny()
    base = replace(
        begin(model),
        wear=torch.tensor([[0.3, 0.1]]),
        watched=torch.tensor([[0.6, 0.8]]),
        num_watched=torch.ones(1),
        trust=torch.tensor([0.6]),
    )
    weights = torch.tensor([stream.weight for stream in model.streams])
    n = 200_000
    for current, quarters in ((-1, 0), (0, 1), (0, 3)):
        state = replace(base, current=torch.tensor([current]), quarters=torch.tensor([quarters]))
        reward, _ = model.prospects(state)
        many: LongVideoState = tree_map(lambda x: x.expand(n, *x.shape[1:]), state)
        for item in range(3):
            items = torch.tensor([[item, (item + 1) % 3]]).expand(n, -1)
            shown = torch.tensor([[True, False]]).expand(n, -1)
            feedback = model.respond(many, items, shown, torch.Generator().manual_seed(item))
            mean = (model.rewards(feedback) @ weights).mean().item()
            assert reward[0, item].item() == pytest.approx(mean, abs=5e-3)


@pytest.mark.parametrize("item", [0, 1])
def test_credited_reward_equals_the_mean_of_whole_videos(item: int) -> None:
    """One suggestion at home, then empty slates until the video is left."""
    model, n = tiny(replace(TINY, idle_limit=10)), 40_000
    generator = torch.Generator().manual_seed(0)
    state = model.sample(torch.zeros(n, dtype=torch.int64))
    expected = model.credited_reward(state)[0, item].item()
    assert expected > model.expected_reward(state)[0, item].item()
    items, empty = torch.tensor([[item, 0]]).expand(n, 2), torch.zeros(n, 2, dtype=torch.bool)
    shown, total = torch.tensor([[True, False]]).expand(n, 2), torch.zeros(n)
    weights = torch.tensor([stream.weight for stream in model.streams])
    for _ in range(6):
        feedback = model.respond(state, items, shown, generator)
        state, _ = model.advance(state, items, feedback)
        total += model.rewards(feedback) @ weights
        shown = empty
    assert bool((state.current < 0).all())
    assert abs(total.mean().item() - expected) < 3.5 * total.std().item() / n**0.5


def test_prospects_of_trust_by_hand() -> None:
    """At home: P(pick) 0.4 (expected completion - 1/2). Between: want 0.4, hold 1 + 2 * 0.1 = 1.2."""
    model = tiny()
    _, trust = model.prospects(begin(model))
    p = 1 / (1 + math.exp(-1.2))
    completion = (p + p**2 + p**3 + p**4) / 4
    assert trust[0, 2].item() == pytest.approx(0.4 / (1 + math.exp(-0.4)) * (completion - 0.5), abs=1e-6)


def test_futures_share_nothing_but_the_state() -> None:
    """The mean over evenly spread futures approaches the probability of a pick."""
    model = tiny()
    state = model.sample(torch.tensor([0]))
    assert isinstance(model, UncertainUsers) and isinstance(model, EventUsers)
    futures = [model.scenario(state, torch.tensor([k / 50])) for k in range(50)]
    assert torch.equal(futures[0].luck, state.luck)
    picks = [model.respond(x, EAST_NORTH, SHOWN, None).signals[0, :, 1].sum().item() for x in futures]
    chance = model.respond(state, EAST_NORTH, SHOWN, None).signals[0, :, 6].sum().item()
    assert sum(picks) / 50 == pytest.approx(chance, abs=0.02)


# ---- drawn attributes


def test_attributes_that_the_data_lack_are_drawn_and_named() -> None:
    model = tiny()
    assert model.assumptions == "durations and creators come from the data"
    plain = tiny_catalogue()
    bare = replace(plain, attributes={**plain.attributes, "duration": torch.full((3,), 60.0)})
    with pytest.raises(UserError):
        replace(model, catalogue=bare)
    items = add_attributes(World(bare, model.population), 0).catalogue
    assert torch.equal(items.attributes["duration"], bare.attributes["duration"])
    drawn = (
        "durations come from the data; the data lack creators (one for three videos, by a power law with "
        "exponent 0.7), drawn from the seed"
    )
    assert replace(model, catalogue=items).assumptions == drawn
    plain = replace(with_genres(items, torch.zeros(3, 0)), quality=torch.ones(3))
    assert replace(model, catalogue=plain).assumptions == (
        f"{drawn}; the data hold no ratings that differ, so no video is catchy; the data hold no categories, "
        "so no user tires of a category"
    )


# ---- contracts


def settings(**env_config: object) -> Config:
    small = {"num_items": 120, "embedding_dim": 4, "max_episode_steps": 8, "watched_window": 6}
    return from_dict(
        Config,
        {
            "env": "long-video",
            "data_config": {"data": "synthetic", "num_users": 60},
            "env_config": small | env_config,
        },
    )


def small_env(num_envs: int = 5, seed: int = 0, **env_config: object) -> RecEnv:
    config = settings(**env_config)
    env = make_env(config, make_world(config), num_envs, torch.Generator().manual_seed(seed))
    assert isinstance(env, RecEnv)
    return env


def test_users_keep_the_contract() -> None:
    env = small_env()
    check_user_model(env.user_model, env.catalogue, env.users[:12], 8)


def test_environment_keeps_the_contract() -> None:
    """Also save and load in mid-session, bit for bit."""
    check_env(lambda seed: small_env(8, seed), max_episode_steps=8)


def test_gymnasium_checker() -> None:
    size = LongVideoConfig(num_items=100, embedding_dim=4, max_episode_steps=8)
    env = RecSysEnv("long-video", data="synthetic", num_users=40, env_config=size)
    gymnasium_check(env, skip_render_check=True)


def test_hidden_state_never_reaches_the_observation() -> None:
    """Two sessions with another taste, wear, trust and memory, but the same answers, have the same Obs."""
    env, other = small_env(40), small_env(40)
    env.reset(), other.reset()
    items = torch.arange(240).view(40, 6) % 120
    env.step(items), other.step(items)
    state: LongVideoState = other.user_state
    other.user_state = replace(
        state,
        taste=-state.taste,
        wear=state.wear + 1,
        trust=1 - state.trust,
        watched=-state.watched,
        num_watched=state.num_watched + 1,
        luck=state.luck + 1,
        subscribed=state.subscribed + 1,
        clicked=1 - state.clicked,
        ad_clicked=1 - state.ad_clicked,
    )
    for name, x in vars(env.observe()).items():
        assert x is None or torch.equal(x, getattr(other.observe(), name)), name


def test_history_holds_the_videos_left_with_their_completion() -> None:
    env = small_env(1)
    obs, left, shown = env.reset(), [], []
    for number in range(6):
        items = torch.arange(6).unsqueeze(0) + 6 * number
        step = env.step(items)
        if bool(step.terminated):
            break
        assert step.feedback is not None and step.feedback.events is not None
        shown += items[0].tolist()
        event = step.feedback.events
        left += [(i, s[0]) for i, s in zip(event.items[0].tolist(), event.signals[0].tolist(), strict=True)]
        obs = step.obs
        found = [pair for pair in left if pair[0] >= 0]
        assert obs.history is not None and obs.signals is not None and obs.exclude is not None
        kept = [(i, s[0]) for i, s in zip(obs.history[0].tolist(), obs.signals[0].tolist(), strict=True)]
        assert [pair for pair in kept if pair[0] >= 0] == found[-6:]
        assert sorted(x for x in obs.exclude[0].tolist() if x >= 0) == sorted(shown)
    assert left


SATURATED = {"trust": 1.5, "current": 120, "quarters": 4, "idle": 5, "luck": -1, "num_watched": -1.0}


@pytest.mark.parametrize("name", SATURATED)
def test_saved_sessions_out_of_range(name: str) -> None:
    env = small_env(3)
    env.reset()
    saved = env.state_dict()
    key = f"user_state.{name}"
    with pytest.raises(UserError):
        env.load_state_dict(saved | {key: torch.full_like(saved[key], SATURATED[name])})


def test_all_players_play_slates() -> None:
    env = small_env(4)
    zeros = RuleWeights.zeros()
    players = {
        **simple_baselines(env, env.users, torch.Generator().manual_seed(0)),
        "mf": Rule(env.catalogue, zeros, BestSlate(6)),
        **upper_bounds(env),
    }
    assert list(players)[-3:] == ["credited", "informed", "planner"]
    for name, agent in players.items():
        sessions = play(env, agent, env.users[:4])
        assert sessions.items.shape[1:] == (4, 6) and bool(sessions.returns.isfinite().all()), name
        assert list(sessions.streams) == ["completion", "clicked", "subscribed", "sameness", "ad_clicks"]


def test_commands_from_training_to_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """CSV log, table and report carry each reward stream, and the output names what was drawn."""
    monkeypatch.chdir(tmp_path)
    world = "--data synthetic --num-items 60 --num-users 30 --embedding-dim 4 --max-episode-steps 6"
    small = "--suggestions 3 --n-steps 6 --num-envs 4 --batch-size 12 --hidden-dims 6 --total-timesteps 96"
    where = ["--cache-dir", str(tmp_path)]
    assert main(["train", "--env", "long-video", *world.split(), *small.split(), *where]) == 0
    drawn = "the data lack durations (log-normal with median 10 min"
    assert drawn in capsys.readouterr().err
    (log,) = tmp_path.rglob("log.csv")
    names = ["completion", "clicked", "subscribed", "sameness", "ad_clicks"]
    assert all(f"stream_{name}_mean" in log.read_text() for name in names)
    assert main(["evaluate", "--json", "table.json", "--report", "report.html"]) == 0
    table = capsys.readouterr().out
    result = json.loads(Path("table.json").read_text())
    rows = {row["policy"]: row for row in result["rows"]}
    assert {
        "mf",
        "mmr",
        "trade-up-next",
        "rule",
        "searched",
        "myopic",
        "credited",
        "informed",
        "planner",
        "ppo-greedy",
    } <= set(rows)
    for row in rows.values():
        assert list(row["streams"]) == names
        weights = dict(zip(names, (0.6, 0.2, 0.2, -0.1, 0.0), strict=True))
        total = sum(weights[name] * row["streams"][name] for name in names)
        assert row["return_mean"] == pytest.approx(total, abs=1e-4)
    head = next(line for line in table.splitlines() if line.startswith("policy"))
    page = Path("report.html").read_text()
    assert head.split()[-5:] == names and drawn in page
    assert all(f">{name}</th>" in page for name in names)


def test_slate_larger_than_the_catalogue_allows() -> None:
    with pytest.raises(UserError):
        small_env(num_items=30)


class Astray(LongVideo):
    """Its events hold an item that does not exist."""

    def respond(self, *arguments: Any) -> Feedback:
        feedback = super().respond(*arguments)
        assert feedback.events is not None
        return replace(feedback, events=replace(feedback.events, items=feedback.events.items + 1000))


def test_events_outside_the_catalogue_are_named() -> None:
    env = small_env()
    model = env.user_model
    assert isinstance(model, LongVideo)
    wrong = Astray(model.catalogue, model.population, model.config)
    with pytest.raises(AssertionError, match="events hold an item outside the catalogue"):
        check_user_model(wrong, env.catalogue, env.users[:6], 8)


def test_planner_compares_the_better_branches_in_more_futures(monkeypatch: pytest.MonkeyPatch) -> None:
    """All eight pairs of prices in 4 futures, the better four in 4 more, the better two in 8 more."""
    env = small_env(4)
    rounds: list[dict[str, torch.Tensor]] = []
    good = {(8.0, 0.5): 5.0, (2.0, 0.0): 4.0, (32.0, 0.5): 3.0, (0.0, 0.5): 2.0}  # return by prices

    def simulate(_: object, state: LongVideoState, *others: Any) -> torch.Tensor:
        slates, prices = others[3], others[5]
        rounds.append({"draws": as_uniform(state.luck), "slates": slates, "prices": prices})
        return torch.tensor([good.get((x, y), 0.0) for x, y in prices.tolist()])

    monkeypatch.setattr(references, "simulate", simulate)
    chosen = references.Planner(env).act(env.reset(env.users[:4])).items
    shapes = [(4, 8, 4), (4, 4, 4), (4, 2, 8)]  # users, branches, futures
    seen = [
        {name: x.view(*shape, -1) for name, x in each.items()}
        for each, shape in zip(rounds, shapes, strict=True)
    ]
    for each, (_, b, f) in zip(seen, shapes, strict=True):  # one future is the same for all branches
        assert_close(each["draws"], each["draws"][:, :1].expand(-1, b, -1, -1))
        assert_close(each["prices"], each["prices"][:, :, :1].expand(-1, -1, f, -1))
        assert_close(each["slates"], each["slates"][:, :, :1].expand(-1, -1, f, -1))
    draws = torch.cat([each["draws"][:, 0] for each in seen], 1)  # (4, 16, 2)
    assert_close(draws.sort(1).values.diff(dim=1), torch.full((4, 15, 2), 1 / 16))  # evenly spread
    for each, kept in zip(seen[1:], (4, 2), strict=True):
        for user in range(4):
            assert [tuple(x) for x in each["prices"][user, :, 0].tolist()] == list(good)[:kept]
    assert torch.equal(chosen, seen[2]["slates"][:, 0, 0])


@pytest.mark.parametrize("lookahead", [4, 40])
@pytest.mark.parametrize("env_id", ["long-video", "satiation"])
def test_simulation_drops_the_branches_that_ended(
    env_id: str, lookahead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The returns are the same if they are dropped at once or never."""
    config = from_dict(Config, {"env": env_id, "data_config": {"data": "synthetic", "num_users": 60}})
    world = make_world(config)
    env = make_env(config, world, 32, torch.Generator().manual_seed(0))
    assert isinstance(env, RecEnv)
    model, users = env.user_model, world.population.train[:32]
    assert isinstance(model, PatientUsers)
    state, left = model.sample(users), torch.arange(len(users)) % 8 + 1  # steps
    mask = torch.ones(len(users), env.catalogue.num_items, dtype=torch.bool)
    slates = torch.arange(model.slate_size).expand(len(users), -1)
    tiresome, prices = model.tiresomeness(state), torch.tensor([[2.0, 0.5]]).expand(len(users), -1)
    numbers_of_rows: list[int] = []
    respond = type(model).respond

    def counted(self: Any, state: Any, items: torch.Tensor, *others: Any) -> Feedback:
        numbers_of_rows.append(len(items))
        return respond(self, state, items, *others)

    monkeypatch.setattr(type(model), "respond", counted)
    found = []
    for share in (0.0, 1.0):
        monkeypatch.setattr(references, "PRESENT_SHARE", share)
        given = (model, state, mask, left, 8, slates, tiresome, prices, lookahead)
        found.append(references.simulate(*given))
    assert_close(found[1], found[0])
    steps = min(8, lookahead)
    assert numbers_of_rows[:steps] == [32] * steps
    assert numbers_of_rows[steps] == 32 and numbers_of_rows[-1] <= 32 * (9 - steps) / 8
    assert len(set(found[0].tolist())) > 10


def test_simulated_slate_with_an_empty_place_shows_no_item_again() -> None:
    """Of seven allowed items two are shown beside four empty places, then the other five, then none."""
    env = small_env(1, max_episode_steps=3)
    model = env.user_model
    assert isinstance(model, LongVideo)
    slates: list[list[int]] = []
    respond = model.respond

    class Recorded(LongVideo):
        def respond(self, state: Any, items: torch.Tensor, shown: torch.Tensor, _: Any) -> Feedback:
            slates.append(items[shown].tolist())
            return respond(state, items, shown, None)

    recorded = Recorded(model.catalogue, model.population, model.config)
    state = recorded.sample(env.users[:1])
    mask, left = torch.arange(env.catalogue.num_items).unsqueeze(0) < 7, torch.tensor([3])
    slate = torch.tensor([[0, 1, -1, -1, -1, -1]])
    prices, tiresome = torch.zeros(1, 2), recorded.tiresomeness(state)
    references.simulate(recorded, state, mask, left, 3, slate, tiresome, prices, 40)
    assert [sorted(x) for x in slates] == [[0, 1], [2, 3, 4, 5, 6], []]

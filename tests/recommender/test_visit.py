"""A recommender that is given a visitor's events makes the observations of the environment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from recsys_rl.checkpoint import Checkpoint
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.make import make_env
from recsys_rl.recommender import Event, Recommender, Request, Visit, load
from recsys_rl.types import Events, Feedback, Obs, UserError
from tests.doors import SERVED, VIDEOS, train_in

RUNS = {
    **SERVED,
    "lives": [*VIDEOS, "--env", "short-video", "--visits", "3", "--max-episode-steps", "6"],
    "long-lives": [*VIDEOS, "--env", "long-video", "--visits", "3", "--max-episode-steps", "6"],
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Recommender]:
    made: dict[str, Recommender] = {}

    def get(name: str) -> Recommender:
        if name not in made:
            folder = tmp_path_factory.mktemp("visits") / name
            made[name] = load(train_in(folder, *RUNS[name], "--total-timesteps", "48"))
        return made[name]

    return get


def environment(checkpoint: Checkpoint, number: int) -> RecEnv:
    generator = torch.Generator().manual_seed(3)
    env = make_env(checkpoint.config, checkpoint.world, number, generator, training=False)
    assert isinstance(env, RecEnv)
    return env


def hours_of(env: RecEnv) -> Tensor:
    """(N,): the hour of the week, or 12 on a platform without a clock."""
    hours: Tensor = getattr(env.user_state, "hour", torch.full((env.num_envs,), 12.0))
    return hours


def seen_by(env: RecEnv, feedback: Feedback) -> tuple[Tensor, Events | None]:
    """The visible signals of a step, and its events with theirs."""
    visible = [place for place, signal in enumerate(env.signals) if signal.visible]
    events = feedback.events
    if events is not None:
        events = Events(events.items, events.signals[..., visible])
    return feedback.signals[..., visible], events


def random_slates(obs: Obs, env: RecEnv, generator: torch.Generator, empty: float = 0.1) -> Tensor:
    """(N, K) different items that may be shown, at random; on a slate a share of the places is empty."""
    n, places = len(obs.context), env.interface.slate_size
    chance = torch.rand(n, env.catalogue.num_items, generator=generator)
    if obs.mask is not None:
        chance[~obs.mask] = -1.0
    if obs.exclude is not None:
        for row, items in enumerate(obs.exclude):
            chance[row, items[items >= 0]] = -1.0
    found = chance.topk(places).indices
    if places > 1:
        found = found.masked_fill(torch.rand(found.shape, generator=generator) < empty, -1)
    return found


def assert_same(one: Obs, two: Obs, rows: Tensor) -> None:
    for name in ("context", "history", "signals", "exclude", "mask"):
        first, second = getattr(one, name), getattr(two, name)
        assert (first is None) == (second is None), name
        if first is not None:
            assert_close(first[rows], second[rows], msg=name)


@pytest.mark.parametrize("name", SERVED)
def test_whole_sessions_give_the_observations_of_the_environment(
    trained: Callable[[str], Recommender], name: str
) -> None:
    recommender = trained(name)
    env, generator = environment(recommender.checkpoint, 16), torch.Generator().manual_seed(1)
    users = torch.arange(16) % len(recommender.population.user_ids)
    obs = env.reset(users)
    profiles = recommender.population.profile[users]
    visits = Visit.begin(recommender.checkpoint, profiles, hours_of(env), users)
    alive, steps = torch.ones(16, dtype=torch.bool), 0
    while bool(alive.any()):
        assert_same(visits.observe(), obs, alive)
        items = random_slates(obs, env, generator)
        step = env.step_without_reset(items)
        assert step.feedback is not None
        signals, events = seen_by(env, step.feedback)
        visits = visits.record(items.clamp_min(0), signals, step.feedback.shown, events)
        alive, obs, steps = alive & ~(step.terminated | step.truncated), step.obs, steps + 1
    assert steps > 3


@pytest.mark.parametrize("name", SERVED)
def test_one_visitors_events_by_name_give_the_same(trained: Callable[[str], Recommender], name: str) -> None:
    recommender = trained(name)
    env, generator = environment(recommender.checkpoint, 1), torch.Generator().manual_seed(2)
    obs, history = env.reset(torch.tensor([3])), list[Event | Request]()
    profile, began = recommender.population.profile[3:4], hours_of(env).item()
    user = [recommender.population.id_of(3)]

    def event(item: Tensor, values: Tensor) -> Event:
        signals = dict(zip(env.interface.signals, values.tolist(), strict=True))
        return Event(recommender.catalogue.id_of(int(item)), signals)

    for _ in range(12):
        visit = recommender.visit(profile, history, began=began, users=user)
        assert_same(visit.observe(), obs, torch.tensor([True]))
        items = random_slates(obs, env, generator, empty=0.0)
        step = env.step_without_reset(items)
        assert step.feedback is not None
        signals, events = seen_by(env, step.feedback)
        shown = [event(*pair) for pair in zip(items[0], signals[0], strict=True)]
        left: list[Event] = []
        if events is not None:
            left = [event(*x) for x in zip(events.items[0], events.signals[0], strict=True) if x[0] >= 0]
        history.append(Request(shown, left) if len(shown) > 1 else shown[0])
        obs = step.obs
        if bool(step.terminated | step.truncated):
            break
    assert len(history) > 2


@pytest.mark.parametrize("name", ["satiation", "long-video"])
def test_visitors_are_observed_together_as_alone(trained: Callable[[str], Recommender], name: str) -> None:
    recommender = trained(name)
    ids = [recommender.catalogue.id_of(row) for row in range(8)]
    visits = [
        recommender.visit(recommender.population.profile[user : user + 1], ids[user : 2 * user])
        for user in range(4)
    ]
    whole = Visit.together(visits).observe()
    for row, visit in enumerate(visits):
        assert_same(whole.rows(torch.tensor([row])), visit.observe(), torch.tensor([True]))


@pytest.mark.parametrize("name", ["lives", "long-lives"])
def test_later_visits_of_a_person_begin_as_in_the_environment(
    trained: Callable[[str], Recommender], name: str
) -> None:
    recommender = trained(name)
    env, generator = environment(recommender.checkpoint, 1), torch.Generator().manual_seed(4)
    later = 0
    for user in range(8):
        obs = env.reset(torch.tensor([user]))
        profile = recommender.population.profile[user : user + 1]
        visit = Visit.begin(recommender.checkpoint, profile, hours_of(env))
        for _ in range(18):
            assert_same(visit.observe(), obs, torch.tensor([True]))
            before = env.session
            items = random_slates(obs, env, generator)
            step = env.step_without_reset(items)
            assert step.feedback is not None
            if bool(step.terminated | step.truncated):
                break
            signals, events = seen_by(env, step.feedback)
            visit = visit.record(items.clamp_min(0), signals, step.feedback.shown, events)
            assert before.day is not None and env.session.day is not None
            if not torch.equal(env.session.day, before.day):
                visit = visit.next_visit(profile, env.session.day - before.day, hours_of(env))
                later += 1
            obs = step.obs
    assert later > 2


def test_true_signals_change_the_policy(
    trained: Callable[[str], Recommender],
) -> None:
    recommender = trained("satiation")
    bored = recommender.recommend(user=0, history=[Event(5, {"engagement": 0.0})], k=3)
    keen = recommender.recommend(user=0, history=[Event(5, {"engagement": 1.0})], k=3)
    consumed = recommender.recommend(user=0, history=[5], k=3)
    assert keen == consumed and bored[0].probability != pytest.approx(keen[0].probability, rel=1e-9)


@pytest.mark.parametrize(
    "history",
    [
        *([("item 5", 0.2)], [{"engagement": 0.2}], [Event(5, 0.2)], [0.2], [Event(("item 5",))], [None]),  # type: ignore[arg-type]
        [Event(5, {"likes": 1.0})],  # no signal of the platform
        [Event(5, {"engagement": float("nan")})],
        [Request([Event(5), Event(6)])],  # two items in one place
        [Request([Event(5)], [Event(6)])],  # nothing is left later on this platform
        [Event(99)],
    ],
)
def test_invalid_step_of_a_session_is_refused(
    trained: Callable[[str], Recommender], history: list[Any]
) -> None:
    with pytest.raises(UserError):
        trained("satiation").recommend(user=0, history=history, k=3)


def test_the_clock_goes_on_while_videos_are_watched(trained: Callable[[str], Recommender]) -> None:
    recommender = trained("short-video")
    profile = recommender.population.profile[:1]
    duration = float(recommender.catalogue.attributes["duration"][4])
    item = recommender.catalogue.id_of(4)
    watched = recommender.visit(profile, [Event(item, {"watch_ratio": 2.0})], began=167.999)
    expected = (167.999 + 2 * duration / 3600) % 168
    assert watched.known["hour"].item() == pytest.approx(expected, abs=1e-3)
    assert recommender.visit(profile, [item], hour=20.0).known["hour"].item() == 20.0


def test_users_of_drift_move_towards_what_they_are_shown(trained: Callable[[str], Recommender]) -> None:
    recommender = trained("drift")
    profile = recommender.population.profile[:1]
    moved = recommender.visit(profile, [Event(recommender.catalogue.id_of(4), {"match": 0.3})]).known["user"]
    drift = recommender.checkpoint.config.env_config.user_drift
    assert_close(moved, profile + drift * recommender.catalogue.embedding[4])

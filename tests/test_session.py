"""Session: equal observations for environment, log and server, and pieces of the context by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from recsys_rl.env.rec_env import RecEnv
from recsys_rl.experience.rollout import collect
from recsys_rl.make import make_env
from recsys_rl.session import Session, make_interface
from recsys_rl.testing.envs import check_env, random_items, require_same_obs
from recsys_rl.types import Action, Events, Interface, Obs, Rollout, UserError
from tests.feed import FeedConfig, feed_env
from tests.small_runs import settings, world
from tests.tiny_world import tiny_catalogue

PATIENT = FeedConfig(num_items=30, embedding_dim=4, max_episode_steps=4, fatigue=0.0)


def platform_env(platform: str, num_envs: int = 5, history_length: int | None = None) -> RecEnv:
    sizes: dict[str, float] = {"num_items": 20, "embedding_dim": 4, "max_episode_steps": 5}
    if platform == "satiation":
        sizes["patience_cost"] = 0.0  # nobody leaves
    if platform == "long-video":
        sizes |= {"num_items": 60, "max_episode_steps": 6}
    config = settings("ppo", platform, env_config=sizes, data_config={"num_users": 30})
    home = world(config)
    env = make_env(config, home, num_envs, torch.Generator().manual_seed(0))
    assert isinstance(env, RecEnv)
    if history_length is None:
        return env
    return RecEnv(
        env.user_model, home.catalogue, config.env_config, env.users, num_envs, env.generator, history_length
    )


ENVS: dict[str, Callable[[], RecEnv]] = {
    "drift": lambda: platform_env("drift"),
    "satiation": lambda: platform_env("satiation"),
    "satiation, window": lambda: platform_env("satiation", history_length=2),
    "short-video": lambda: platform_env("short-video", 8),
    "long-video": lambda: platform_env("long-video", 8),
    "feed": lambda: feed_env(config=PATIENT),
    "feed, window": lambda: feed_env(history_length=5, config=PATIENT),
}


@pytest.mark.parametrize("name", ENVS)
def test_session_replayed_from_a_log_gives_the_observations_of_the_environment(name: str) -> None:
    """Bit for bit, from items and visible signals; some items are chosen again, and so are not shown.

    The sessions of users who left are compared no more.
    """
    env = ENVS[name]()
    obs = env.reset()
    replayed = Session.begin(env.interface, env.catalogue, env.session.users)
    visible = [place for place, signal in enumerate(env.signals) if signal.visible]
    given = env.user_model.visible(env.user_state)
    require_same_obs(replayed.request(given), obs, "replayed")
    rng, again = torch.Generator().manual_seed(1), random_items(env, obs, torch.Generator())
    refused, stay = 0, torch.ones(len(again), dtype=torch.bool)
    for step in range(env.interface.session_length - 1):
        items = again if step == 2 else random_items(env, obs, rng)
        again = items if step == 0 else again
        result = env.step(items)
        assert result.feedback is not None
        refused += int((~result.feedback.shown).sum())
        signals, events = result.feedback.signals[:, :, visible], result.feedback.events
        if events is not None:
            events = Events(events.items, events.signals[:, :, visible])
        replayed = replayed.record(items, signals, result.feedback.shown, events)
        stay &= ~(result.terminated | result.truncated)
        rows = stay.nonzero().squeeze(1)
        request = replayed.request(env.user_model.visible(env.user_state))
        require_same_obs(request.rows(rows), result.obs.rows(rows), "replayed")
        obs = result.obs
    assert stay.sum() >= 3 and (refused > 0 or env.interface.repeats)


@pytest.mark.parametrize(
    "make", [lambda: platform_env("satiation", 3, 2), lambda: feed_env(3, 0, 30, 4, PATIENT)]
)
def test_window_shorter_than_the_session_excludes_everything_shown(make: Callable[[], RecEnv]) -> None:
    env = make()
    obs, rng = env.reset(), torch.Generator().manual_seed(0)
    places, shown = env.interface.slate_size, torch.zeros(3, 0, dtype=torch.int64)
    for _ in range(env.interface.session_length - 1):
        items = random_items(env, obs, rng)
        step = env.step(items)
        obs, shown = step.obs, torch.cat([shown, items], 1)
        assert obs.history is not None and obs.exclude is not None
        length = env.interface.history_length
        recent = shown[:, -length:]
        assert torch.equal(obs.history[:, length - recent.shape[1] :], recent)
        allowed = obs.allowed(env.catalogue.num_items)
        assert not bool(allowed.gather(1, shown).any())
        assert bool((allowed.sum(1) == env.catalogue.num_items - shown.shape[1]).all())
    assert shown.shape[1] > length >= places


def test_environment_with_a_window_keeps_the_contract() -> None:
    def make(seed: int) -> RecEnv:
        env = platform_env("satiation", history_length=2)
        env.generator.manual_seed(seed)
        return env

    check_env(make, max_episode_steps=5)


class Chooser:
    """Draws among the allowed items."""

    def __init__(self, env: RecEnv) -> None:
        self.env, self.rng = env, torch.Generator().manual_seed(0)

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        n = obs.num_rows
        return Action(random_items(self.env, obs, self.rng), torch.zeros(n), torch.zeros(n))

    def value(self, obs: Obs) -> Tensor:
        return torch.zeros(obs.num_rows)

    def update(self, rollout: Rollout) -> dict[str, float]:
        return {}

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: Any) -> None: ...


def test_rollout_stores_the_history_once() -> None:
    whole, window = platform_env("satiation"), platform_env("satiation", history_length=2)
    for env in (whole, window):
        obs = env.reset()
        assert (obs.exclude is obs.history) == (env is whole)
        rollout, after = collect(env, Chooser(env), obs, 12)
        kept = rollout.obs
        assert (kept.exclude is kept.history) == (env is whole) == (after.exclude is after.history)
        assert kept.exclude is not None and kept.exclude.shape == (12, 5, 5)
        for t in range(1, 12):  # what was shown is excluded from then on, until the session ends
            goes_on = ~(rollout.terminated | rollout.truncated)[t - 1]
            assert torch.equal(kept.exclude[t, goes_on, -1], rollout.items[t - 1, goes_on, 0])


def sessions(slate_size: int = 1, **settings: Any) -> tuple[Interface, Session]:
    """Two sessions over the tiny catalogue (creators 7, 7, 8), with every piece and one signal."""
    plain = tiny_catalogue()
    catalogue = replace(plain, attributes={**plain.attributes, "creator": torch.tensor([7, 7, 8])})
    interface = make_interface(
        catalogue,
        context=["mood", "last_item", "last_signals", "clock", "streak"],
        given={"mood": 1},
        signals=["liked"],
        session_length=4,
        slate_size=slate_size,
        repeats=True,
        **settings,
    )
    return interface, Session.begin(interface, catalogue, torch.tensor([3, 5]))


def test_pieces_of_the_context_by_hand() -> None:
    interface, session = sessions(history_length=3)
    assert interface.context == (
        ("mood", 1),
        ("last_item", 2),
        ("last_signals", 1),
        ("clock", 1),
        ("streak", 1),
    )
    assert interface.context_size == 6
    mood = {"mood": torch.tensor([[0.5], [0.6]])}
    assert_close(session.request(mood).context, torch.tensor([[0.5, 0, 0, 0, 0, 0], [0.6, 0, 0, 0, 0, 0]]))
    liked = torch.tensor([[[0.3]], [[0.4]]])
    session = session.record(torch.tensor([[1], [2]]), liked)
    session = session.record(torch.tensor([[0], [1]]), 2 * liked)
    found = session.request(mood).context
    # (1, 0) is item 0 and the second of creator 7 in a row; item 1 comes after one of creator 8
    assert_close(found, torch.tensor([[0.5, 1, 0, 0.6, 0.5, 2], [0.6, 0, 1, 0.8, 0.5, 1]]))
    session = session.record(torch.tensor([[2], [0]]), liked, torch.tensor([[False], [True]]))
    found = session.request(mood).context  # the first was not shown: only the clock moves
    assert_close(found, torch.tensor([[0.5, 1, 0, 0.6, 0.75, 2], [0.6, 1, 0, 0.4, 0.75, 2]]))


def test_history_of_a_slate_excludes_places_that_were_not_shown() -> None:
    _, session = sessions(slate_size=2, history_length=3)
    items, liked = torch.tensor([[0, 1], [2, 0]]), torch.tensor([[[0.1], [0.2]], [[0.3], [0.4]]])
    shown = torch.tensor([[True, True], [False, True]])
    session = session.record(items, liked, shown)
    assert session.history.tolist() == [[-1, 0, 1], [-1, -1, 0]]
    assert_close(session.signals.squeeze(-1), torch.tensor([[0, 0.1, 0.2], [0, 0, 0.4]]))
    context = session.request({"mood": torch.zeros(2, 1)}).context
    assert_close(
        context[:, 1:3], torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    )  # mean of (1, 0) and (0, 1), or (1, 0)
    assert_close(context[:, 3:5], torch.tensor([[0.1, 0.2], [0.0, 0.4]]))
    session = session.record(torch.tensor([[2, 0], [1, 2]]), liked)
    assert session.history.tolist() == [[1, 2, 0], [0, 1, 2]]


@pytest.mark.parametrize(
    "settings",
    [
        {"context": ["weather"]},
        {"context": ["streak"]},
        {"slate_size": 4},
        {"slate_size": 2, "history_length": 1},
        {"history_length": 0},
    ],
)
def test_invalid_interface(settings: dict[str, Any]) -> None:
    given: dict[str, Any] = {"context": ["clock"], "given": {}, "signals": [], "session_length": 3}
    with pytest.raises(UserError):
        make_interface(tiny_catalogue(), **(given | settings))
    with pytest.raises(UserError):
        sessions()


def test_record_without_a_mask_remembers_all_items() -> None:
    """With a window of one step, as a log's reader or a server may have it."""
    catalogue = tiny_catalogue()
    interface = make_interface(
        catalogue,
        context=("profile", "last_item"),
        given={"profile": 2},
        signals=["watched"],
        session_length=4,
        history_length=1,
    )
    session = Session.begin(interface, catalogue, torch.tensor([0]))
    for item in (0, 1, 2):
        session = session.record(torch.tensor([[item]]), torch.ones(1, 1, 1))
    assert session.history.tolist() == [[2]] and session.excluded is not None
    assert session.excluded.tolist() == [[-1, 0, 1, 2]]


@pytest.mark.parametrize("events", [False, True])
def test_places_that_were_not_shown_are_not_consumed(events: bool) -> None:
    interface = Interface(
        context=(),
        action_sizes=(3,),
        slate_size=2,
        history_length=3,
        signals=("liked", "left"),
        session_length=3,
        events=events,
    )
    session = Session.begin(interface, tiny_catalogue(), torch.arange(2))
    items, shown = torch.tensor([[2, 1], [0, 1]]), torch.tensor([[True, False], [True, True]])
    after = session.consumed(items, torch.tensor([1.0, 0.5]), shown)
    assert after.history.tolist() == [[-1, -1, 2], [-1, 0, 1]]
    assert after.signals.tolist() == [[[0, 0], [0, 0], [1, 0.5]], [[0, 0], [1, 0.5], [1, 0.5]]]


def test_history_of_events_is_apart_from_the_items_shown() -> None:
    """Two steps of two places: the history holds the events, and everything shown is excluded."""
    catalogue = replace(tiny_catalogue(), available=torch.ones(3, dtype=torch.bool))
    interface = make_interface(
        catalogue,
        context=["user"],
        given={"user": 2},
        signals=["liked"],
        session_length=3,
        slate_size=2,
        history_length=2,
        events=True,
    )
    session = Session.begin(interface, catalogue, torch.tensor([7, 8]))
    items, signals = torch.tensor([[0, 1], [2, 0]]), torch.ones(2, 2, 1)
    event = Events(torch.tensor([[1], [-1]]), torch.tensor([[[0.25]], [[0.0]]]))
    session = session.record(items, signals, torch.tensor([[True, True], [True, False]]), event)
    obs = session.request({"user": torch.zeros(2, 2)})
    assert obs.history is not None and obs.signals is not None and obs.exclude is not None
    assert obs.history.tolist() == [[-1, 1], [-1, -1]]
    assert obs.signals.flatten(1).tolist() == [[0, 0.25], [0, 0]]
    assert obs.exclude.tolist() == [[-1, -1, -1, -1, 0, 1], [-1, -1, -1, -1, 2, -1]]
    assert session.record(items, signals, None, event).steps.tolist() == [2, 2]


def test_slates_are_recorded_in_one_pass_as_place_by_place() -> None:
    """A row in which a place is not shown makes the session record place by place, for other rows too."""
    interface, session = sessions(slate_size=2, history_length=3)
    items = torch.tensor([[0, 1], [1, 2]])
    signals = torch.rand(2, 2, len(interface.signals))
    shown = torch.tensor([[True, True], [False, True]])
    one = session.record(items, signals, torch.ones_like(shown))
    other = session.record(items, signals, shown)
    for name in ("history", "signals"):
        assert torch.equal(getattr(one, name)[0], getattr(other, name)[0])
    assert other.history[1, -2:].tolist() == [-1, 2] and one.history[1, -2:].tolist() == [1, 2]

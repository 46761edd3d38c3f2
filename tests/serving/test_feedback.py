"""Events beside the decisions of their session: while one is drawn, after a later one, in one post."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
import pytest
import torch

from recsys_rl.agents.ppo import PPO
from recsys_rl.serving.messages import FeedbackAnswer, FeedbackEvent, Recommendation, RecommendRequest
from recsys_rl.serving.options import ServeConfig
from recsys_rl.serving.server import application
from recsys_rl.serving.work.feedback import take_feedback
from recsys_rl.serving.work.jobs import Call, Recommend
from recsys_rl.types import Obs
from tests.serving.servers import SLOW, event, recommend, send, serving

At = Callable[[str], Path]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[list[float]]:
    """The engagements that the policy saw at each draw, the latest item last."""
    own, found = PPO.scores, list[list[float]]()

    def scores(self: PPO, obs: Obs) -> torch.Tensor:
        assert obs.history is not None and obs.signals is not None
        found.append(obs.signals[0, obs.history[0] >= 0, 0].tolist())
        return own(self, obs)

    monkeypatch.setattr(PPO, "scores", scores)
    return found


def test_feedback_after_the_next_decision_reaches_the_later_draws(
    checkpoint: At, tmp_path: Path, seen: list[list[float]]
) -> None:
    with serving(checkpoint("satiation"), tmp_path / "r.sqlite") as client:
        one, two = recommend(client, "3"), recommend(client, "3")
        assert send(client, event(one, "engagement", 0.5)) == ["accepted"]
        recommend(client, "3")
        assert send(client, event(two, "engagement", 0.25)) == ["accepted"]
        recommend(client, "3")
    assert seen[-4:] == [[], [0.0], [0.5, 0.0], [0.5, 0.25, 0.0]]


def test_feedback_while_a_decision_is_drawn_reaches_the_later_draws_and_nobody_leaves_then(
    checkpoint: At, tmp_path: Path, seen: list[list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The decision that is drawn shows that the user stayed."""
    options = ServeConfig(str(checkpoint("satiation")), db=str(tmp_path / "r.sqlite"), deadline_ms=SLOW)
    worker = application(options).worker
    own, go = PPO.scores, threading.Event()

    def held(self: PPO, obs: Obs) -> torch.Tensor:
        scores = own(self, obs)
        go.wait(20)
        return scores

    monkeypatch.setattr(PPO, "scores", held)

    async def play() -> FeedbackAnswer:
        def ask() -> asyncio.Future[bytes]:
            return worker.submit(Recommend(RecommendRequest("3"), ""))

        go.set()
        one = msgspec.json.decode(await ask(), type=Recommendation).decision_id
        go.clear()
        second = ask()
        events = [FeedbackEvent(one, "leave"), FeedbackEvent(one, "engagement", 0.5)]
        answer: FeedbackAnswer = await worker.submit(Call(partial(take_feedback, events=events)))
        go.set()
        await second
        await ask()
        return answer

    try:
        leave, engagement = asyncio.run(play()).results
    finally:
        go.set()
        worker.close()
    assert (leave.code, engagement.status) == ("not-the-last", "accepted")
    assert seen[-3:] == [[], [0.0], [0.5, 0.0]]


def test_one_event_id_of_two_users_in_one_post_is_a_conflict(checkpoint: At, tmp_path: Path) -> None:
    with serving(checkpoint("satiation"), tmp_path / "r.sqlite") as client:
        one, two = recommend(client, "3"), recommend(client, "4")
        events = [event(x, "engagement", 0.5, event_id="a") for x in (one, two, one)]
        assert send(client, *events) == ["accepted", "conflict", "duplicate"]
        assert send(client, events[1], events[0]) == ["conflict", "duplicate"]

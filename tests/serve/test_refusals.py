"""What is refused leaves the server as it was: it goes on for all others, and after a start."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from recsys_rl.agents.ppo import PPO
from recsys_rl.serve.jobs import Recommend
from recsys_rl.serve.problems import Problem
from recsys_rl.serve.server import ServeConfig, application
from recsys_rl.serve.wire import RecommendRequest
from recsys_rl.types import Obs
from tests.serve.servers import SLOW

At = Callable[[str], Path]


def test_all_requests_that_wait_for_one_person_are_answered(
    checkpoint: At, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ServeConfig(str(checkpoint("satiation")), db=str(tmp_path / "r.sqlite"), deadline_ms=SLOW)
    desk = application(options).desk
    own, go = PPO.scores, threading.Event()

    def scores(self: PPO, obs: Obs) -> torch.Tensor:
        go.wait(20)
        return own(self, obs)

    async def ask() -> list[object]:
        # The second and the third are refused at once when their turn comes: a session has five steps.
        asked = [Recommend(RecommendRequest("3", n=n), str(n)) for n in (1, 50, 50, 1)]
        replies = [desk.submit(x) for x in asked]
        go.set()
        done, _ = await asyncio.wait(replies, timeout=10)
        return [x.exception() if x in done else "no answer" for x in replies]

    monkeypatch.setattr(PPO, "scores", scores)
    try:
        found = asyncio.run(ask())
    finally:
        desk.close()
    assert [x.code if isinstance(x, Problem) else x for x in found] == [None, "wrong-n", "wrong-n", None]

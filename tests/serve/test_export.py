"""The exported log against the record: the same policy gives the probabilities with which it drew."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from recsys_rl.decisions.parts import read_decisions
from recsys_rl.decisions.transitions import observe
from recsys_rl.recommender import load
from recsys_rl.serve.export import export
from recsys_rl.serve.reading import Record
from tests.serve.servers import RUNS, event, recommend, send, serving

At = Callable[[str], Path]
LATER = 6000.0  # seconds after which sessions that have ended are mature


@pytest.mark.parametrize("platform", RUNS)
def test_a_policy_gives_the_logged_probabilities_on_every_platform(
    checkpoint: At, tmp_path: Path, platform: str
) -> None:
    db, out, path = tmp_path / "r.sqlite", tmp_path / "log.parquet", checkpoint(platform)
    with serving(path, db) as client:
        by_hour = client.get("/v1/platform").json()["by_hour"]
        for user in range(6):
            for step in range(4):
                hour = {"context": {"hour": 12 + step / 10}} if by_hour else {}
                answer = recommend(client, str(user), **hour)
                if platform == "social-feed":
                    send(client, event(answer, "followed"))
            assert send(client, event(answer, "leave")) == ["accepted"]
    export(Record(db), out, now=time.time() + LATER)
    log, recommender = read_decisions(out), load(path)
    assert log.num_rows == 24
    again = recommender.agent.place_logprobs(observe(log, recommender.catalogue), log.items).sum(1)
    torch.testing.assert_close(again, log.logprobs, atol=1e-4, rtol=0)

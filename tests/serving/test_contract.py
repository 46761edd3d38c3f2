"""Sessions over HTTP give the observations and the log-probabilities of the environment."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient
from torch.testing import assert_close

from recsys_rl.env.rec_env import RecEnv
from recsys_rl.make import make_env
from recsys_rl.recommender import Recommender, load
from recsys_rl.serving.loop.visitors import events_of
from recsys_rl.types import Obs
from tests.doors import SERVED
from tests.serving.servers import recommend, send, serving


def environment(recommender: Recommender) -> RecEnv:
    checkpoint = recommender.checkpoint
    generator = torch.Generator().manual_seed(3)
    env = make_env(checkpoint.config, checkpoint.world, 1, generator, training=False)
    assert isinstance(env, RecEnv)
    return env


def assert_seen(client: TestClient, env: RecEnv, obs: Obs, decision: dict[str, Any]) -> None:
    """The report of a decision tells the observation of the environment."""
    report = client.get(f"/v1/decisions/{decision['decision_id']}").json()
    seen = report["seen"]
    for name, _ in env.interface.context:
        expected = obs.context[0, env.interface.place_of(name)]
        assert_close(torch.tensor(seen["context"][name]), expected, msg=name)
    if obs.history is not None and obs.signals is not None:
        there = obs.history[0] >= 0
        assert seen["history"] == [str(env.catalogue.id_of(x)) for x in obs.history[0, there].tolist()]
        values = [[x[name] for name in env.interface.signals] for x in seen["signals"]]
        expected = obs.signals[0, there]
        assert_close(torch.tensor(values).view_as(expected), expected)
    excluded = 0 if obs.exclude is None else int((obs.exclude >= 0).sum())
    assert seen["excluded"] == excluded
    assert report["replayed"] is True


@pytest.mark.proof_of("tutor")
@pytest.mark.parametrize("name", SERVED)
def test_whole_sessions_give_observations_and_logprobs_of_the_environment(
    checkpoint: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    recommender = load(checkpoint(name))
    env, agent = environment(recommender), recommender.agent
    by_name, steps = recommender.row_of_item, 0
    with serving(checkpoint(name), tmp_path / "record.sqlite") as client:
        for user in (0, 7, 11):
            obs, over = begun(env, user), False
            while not over:
                hour = getattr(env.user_state, "hour", None)
                more = {} if hour is None else {"context": {"hour": hour.item()}}
                answer = recommend(client, str(env_user(recommender, user)), **more)
                assert answer["session"]["step"] == int(env.session.steps)
                assert_seen(client, env, obs, answer)
                items = torch.tensor([[by_name[int(x["item_id"])] for x in answer["items"]]])
                expected = float(agent.place_logprobs(obs, items).sum())
                assert math.log(answer["propensity"]) == pytest.approx(expected, abs=1e-5)
                step = env.step_without_reset(items)
                assert step.feedback is not None
                events = events_of(
                    step.feedback, 0, answer["decision_id"], env.interface, env.signals, env.catalogue
                )
                over = bool(step.terminated | step.truncated)
                if bool(step.terminated):
                    events.append({"decision_id": answer["decision_id"], "signal": "leave"})
                if events:
                    assert set(send(client, *events)) == {"accepted"}
                obs, steps = step.obs, steps + 1
            after = recommend(client, str(env_user(recommender, user)))
            assert after["session"]["id"] != answer["session"]["id"] and after["session"]["step"] == 0
            send(client, {"decision_id": after["decision_id"], "signal": "leave"})
    assert steps > 9


def begun(env: RecEnv, user: int) -> Obs:
    """The first observation of a user."""
    return env.reset(torch.tensor([user]))


def env_user(recommender: Recommender, row: int) -> int | str:
    return recommender.population.id_of(row)

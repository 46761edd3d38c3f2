"""Tables that acting keeps: they follow the weights and the items."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor
from torch.testing import assert_close

from recsys_rl.experience.rollout import collect
from recsys_rl.models.fast.kept import Kept
from recsys_rl.models.heads import TwoTowerHead
from tests.small_runs import begin, settings


class Counting:
    """Twice a tensor, and how often it was made."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self, given: Tensor) -> Tensor:
        self.number += 1
        return 2 * given


def test_a_result_is_made_anew_after_a_write_and_for_another_tensor() -> None:
    kept, twice = Kept(), Counting()
    given, other = torch.ones(2), torch.full((2,), 5.0)
    with torch.no_grad():
        assert kept.of(twice, given) is kept.of(twice, given) and twice.number == 1
        given.add_(1)
        assert kept.of(twice, given).tolist() == [4, 4] and twice.number == 2
        assert kept.of(twice, other).tolist() == [10, 10]
        given.data = torch.full((2,), 7.0)  # other memory, without a write
        assert kept.of(twice, given).tolist() == [14, 14]
        assert copy.deepcopy(kept).of(twice, given).tolist() == [14, 14] and twice.number == 5


def test_nothing_is_kept_of_what_has_a_gradient_or_uncounted_writes() -> None:
    kept, twice = Kept(), Counting()
    given = torch.ones(2, requires_grad=True)
    kept.of(twice, given)
    assert kept.of(twice, given).requires_grad and twice.number == 2
    with torch.inference_mode():
        uncounted = torch.ones(2)
        kept.of(twice, uncounted)
        uncounted.add_(1)
        assert kept.of(twice, uncounted).tolist() == [4, 4]


def made() -> tuple[Any, Any]:
    """A small world, and a new agent for it."""
    sizes = {"env_config": {"num_items": 30}, "data_config": {"num_users": 40}}
    return begin(
        settings("ppo", "satiation", agent_config={"num_envs": 8, "n_steps": 4, "batch_size": 16}, **sizes)
    )


def test_acting_follows_updates_and_loaded_weights() -> None:
    """An agent that acted before has the scores of one that has the same weights and never acted."""
    env, agent = made()
    obs = env.reset()
    states, scores = [agent.state_dict()], [agent.scores(obs)]
    for _ in range(2):
        rollout, _ = collect(env, agent, obs, 4)
        agent.update(rollout)
        states.append(agent.state_dict())
        scores.append(agent.scores(obs))
        assert not torch.equal(scores[-1], scores[-2])
    for state, wanted in zip(states, scores, strict=True):
        agent.load_state_dict(state)
        fresh = made()[1]
        fresh.load_state_dict(state)
        assert torch.equal(agent.scores(obs), wanted) and torch.equal(fresh.scores(obs), wanted)
        with torch.enable_grad():  # as learning scores, which keeps nothing
            assert_close(agent.model(obs)[0].logits[:, 0].detach(), wanted, rtol=1e-5, atol=1e-5)


def test_acting_follows_other_items_and_candidates() -> None:
    env, agent = made()
    obs = env.reset()
    agent.scores(obs)
    model = agent.model
    assert isinstance(model.head, TwoTowerHead)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    before = agent.scores(obs)
    model.items = model.items[order].contiguous()
    assert_close(agent.scores(obs), before[:, order], rtol=1e-5, atol=1e-5)
    candidates = torch.tensor([[4, 2, 17]]).expand(8, -1)
    few = agent.scores(obs.among(candidates))
    assert_close(few, before[:, order].gather(1, candidates), rtol=1e-5, atol=1e-5)


def test_threads_share_it() -> None:
    """Eight threads score while the weights stay, then after an update: each has the same scores."""
    env, agent = made()
    obs = env.reset()
    with ThreadPoolExecutor(8) as pool:
        for _ in range(2):
            every = list(pool.map(lambda _: agent.scores(obs), range(40)))
            assert all(torch.equal(scores, every[0]) for scores in every)
            agent.update(collect(env, agent, obs, 4)[0])
        assert not torch.equal(agent.scores(obs), every[0])

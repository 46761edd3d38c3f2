"""A two-tower policy in a context of more pieces than the user and the last item, on the toy platform."""

from __future__ import annotations

from typing import cast

import pytest
import torch
from torch import Tensor

from recsys_rl.agents.ppo import PPO
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.errors import FieldError
from recsys_rl.experience.rollout import collect
from recsys_rl.make import make_agent
from recsys_rl.models.retrieval import check_candidates
from recsys_rl.settings.config import Config, from_dict
from recsys_rl.settings.shared import ModelConfig
from recsys_rl.types import Obs
from tests.feed import FeedConfig, feed_env


def feed_agent(embedding_dim: int) -> tuple[RecEnv, PPO]:
    """Five sessions, and PPO with the two-tower head."""
    sizes = FeedConfig(num_items=30, embedding_dim=embedding_dim, max_episode_steps=4)
    env = feed_env(config=sizes)
    settings = {
        "agent_config": {"n_steps": 6, "num_envs": 5, "batch_size": 10},
        "model_config": {"head": "two-tower", "hidden_dims": [8]},
    }
    return env, cast(PPO, make_agent(from_dict(Config, settings), env.interface, env.catalogue))


def seen_obs(env: RecEnv) -> Obs:
    """The observation after one step, in which no piece of the context is zero."""
    env.reset()
    obs = env.step(torch.arange(15).view(5, 3)).obs
    at = 0
    for name, size in env.interface.context:
        assert obs.context[:, at : at + size].any(), name
        at += size
    return obs


def test_policy_acts_values_and_updates() -> None:
    env, agent = feed_agent(embedding_dim=4)
    assert [name for name, _ in env.interface.context][2:] == ["last_signals", "clock", "streak"]
    action = agent.act(env.reset())
    assert action.items.shape == (5, 3) and bool((action.logprob < 0).all())
    before = {name: x.clone() for name, x in agent.model.named_parameters()}
    rollout, obs = collect(env, agent, env.observe(), 6)
    metrics = agent.update(rollout)
    assert all(torch.tensor(value).isfinite() for value in metrics.values())
    assert agent.value(obs).shape == (5,)
    for name, x in agent.model.named_parameters():
        assert bool(x.isfinite().all()) and not torch.equal(x, before[name]), name


def test_loss_backward_reaches_every_weight() -> None:
    env, agent = feed_agent(embedding_dim=4)
    torch.manual_seed(0)
    with torch.no_grad():
        for x in agent.model.parameters():  # units that are 0 at first have no slope
            x.add_(0.1 * torch.randn(x.shape))
    distribution, value = agent.model(seen_obs(env))
    (distribution.logprob(torch.arange(15, 30).view(5, 3)).sum() + value.sum()).backward()
    for name, x in agent.model.named_parameters():
        if ".expected." in name:  # it learns by a loss of its own alone
            continue
        assert x.grad is not None and bool(x.grad.isfinite().all()) and bool(x.grad.any()), name


@pytest.mark.parametrize("embedding_dim", [4, 6, 1])
def test_votes_see_only_the_embeddings_of_the_context(embedding_dim: int) -> None:
    """Also if the last signals (6 numbers), or clock and streak (1 each), have the size of an embedding."""
    env, agent = feed_agent(embedding_dim)
    size = embedding_dim
    assert env.interface.context[2] == ("last_signals", 6)
    assert agent.model.embeddings == (slice(0, size), slice(size, 2 * size))
    obs = seen_obs(env)
    first, last = env.catalogue.embedding[torch.arange(15).view(5, 3)].mean(1), obs.context[:, :size]
    embeddings, sums = votes(agent, obs)  # (5, 2, D), (5, B - 2, F_i)
    torch.testing.assert_close(embeddings, torch.stack([last, first], 1))
    other = obs.context.clone()
    other[:, 2 * size :] += 1
    changed = Obs(other, obs.history, obs.signals, obs.exclude)
    assert all(map(torch.equal, votes(agent, changed), (embeddings, sums)))
    assert not torch.equal(agent.value(changed), agent.value(obs))  # the hidden layers see all pieces


def votes(agent: PPO, obs: Obs) -> list[Tensor]:
    """The inputs of the head in the space of item features: embeddings and sums."""
    return agent.model._blocks(obs, agent.model._read(obs)[1])


def test_candidates_suffice_for_all_slates_of_a_session() -> None:
    check_candidates(ModelConfig(candidates=12, explore_rate=0.0), 30, most_shown=12, slate_size=3)
    check_candidates(ModelConfig(candidates=3, explore_rate=0.0), 30, most_shown=0, slate_size=3)
    with pytest.raises(FieldError):
        check_candidates(ModelConfig(candidates=4, explore_rate=0.5), 30, most_shown=0, slate_size=3)

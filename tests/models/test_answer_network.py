"""The network of expected rewards: the scores of items that have weights of their own."""

from __future__ import annotations

import torch

from recsys_rl.make import make_agent
from recsys_rl.types import Interface, Obs
from recsys_rl.utils.seeding import generators
from tests.agents.offline_toys import learner
from tests.small_runs import CPU, settings, world


@torch.no_grad()
def test_own_scores_are_the_logits_without_the_value() -> None:
    """Of all items, also of those that may not be shown."""
    model = learner("direct", 5, states=3).model
    obs = Obs(torch.eye(3), mask=torch.tensor([True, False, True, True, True]).expand(3, 5))
    logits, scores = model.logits_and_own(obs)
    assert scores is not None and torch.equal(logits, model.logits(obs))
    value = model.value_head(model.hidden.one(1, obs.context))
    assert torch.isfinite(scores).all() and (logits[:, 1] == -torch.inf).all()
    assert torch.allclose((scores + value)[obs.mask], logits[obs.mask], atol=1e-6)


def test_items_that_share_their_weights_have_no_scores_of_their_own() -> None:
    config = settings("direct", "satiation", env_config={"num_items": 20, "embedding_dim": 4})
    interface = Interface((("profile", 4),), (20,))
    streams = generators(0, "model", "policy", "shuffle")
    agent = make_agent(config, interface, world(config).catalogue, 1, streams, CPU)
    assert agent.model.logits_and_own(Obs(torch.zeros(2, 4)))[1] is None

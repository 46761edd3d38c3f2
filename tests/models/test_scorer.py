"""The head that scores visible features with gates from the state."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from recsys_rl.evaluation.rivals.best_slate import BestSlate
from recsys_rl.evaluation.rivals.rankers import Rule, RuleWeights
from recsys_rl.experience.rollout import collect
from recsys_rl.models.scorer import ScorerHead
from recsys_rl.models.towers import LOGIT_SCALE, RATE
from tests.small_runs import begin, settings


def test_scores_by_hand() -> None:
    """Two blocks over two dimensions, one genre and four numbers; gates set by hand."""
    head = ScorerHead(3, 2, 7, 2, torch.Generator().manual_seed(0), num_numbers=3)
    hidden = torch.tensor([[1.0, 0.0, 2.0]])
    with torch.no_grad():
        head.log_temperature.zero_()
        head.gates.bias.copy_(torch.tensor([1.0, -0.5, 0.0, 2.0, 0.1, 0.0, 0.0]) / RATE)
        head.gates.weight[2, 0] = 0.25 / RATE  # the third hidden feature opens the first gate: 1 + 0.5
    blocks = torch.tensor([[[1.0, 0.0, 9.0, 9.0, 9.0, 9.0, 9.0], [0.0, 2.0, 0.5, 9.0, 9.0, 9.0, 9.0]]])
    items = torch.tensor([[0.6, 0.8, 1.0, 3.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, -1.0, 0.0, 0.0, 1.0]])
    # 1.5 * 0.6 - 0.5 * 2 * 0.8 + 2 * 0.5 * 1 + 0.1 * 3, and 1.5 - 0.1
    expected = torch.tensor([[[1.4, 1.4]]])
    parts = [items[:, :2].unsqueeze(0), items[:, 2:].unsqueeze(0)]
    # together, or the first as a bare embedding
    for given in ([blocks], [blocks[:, :1, :2], blocks[:, 1:]]):
        assert_close(head(head.gates(hidden), given, items), expected)
        assert_close(head.among(head.gates(hidden), given, parts), expected)


@pytest.mark.parametrize("platform", ["satiation", "drift", "long-video"])
def test_untrained_policy_ranks_by_profile(platform: str) -> None:
    config = settings(
        "ppo",
        platform,
        model_config={"head": "scorer", "hidden_dims": [8]},
        env_config={"num_items": 60, "embedding_dim": 4, "max_episode_steps": 4},
    )
    env, agent = begin(config)
    obs = env.reset()
    catalogue = env.catalogue  # type: ignore[attr-defined]
    ranking = Rule(catalogue, RuleWeights.zeros(), BestSlate(env.interface.slate_size))
    shown = agent.act(obs, greedy=True).items
    assert torch.equal(shown, ranking.act(obs).items)
    obs = env.step(shown).obs
    assert torch.equal(agent.act(obs, greedy=True).items, ranking.act(obs).items)
    logits = agent.model(obs)[0].logits.flatten(1)
    fits = LOGIT_SCALE * obs.context[:, :4] @ catalogue.embedding.T
    allowed = logits > -torch.inf
    assert_close(logits[allowed], fits[allowed])


def test_every_product_learns() -> None:
    config = settings("ppo", "satiation", model_config={"head": "scorer", "hidden_dims": [8]})
    env, agent = begin(config)
    head = agent.model.head
    assert isinstance(head, ScorerHead)
    before = head.gates.bias.detach().clone()
    rollout, _ = collect(env, agent, env.reset(), 6)
    metrics = agent.update(rollout)
    assert all(math.isfinite(x) for x in metrics.values())
    moved = head.gates.bias.detach() != before
    assert bool(moved[: head.num_blocks].all()) and bool(head.gates.weight.any())
    assert bool(moved[-3:-1].all())  # popularity and quality; these items have no year


def test_mean_gates_have_names() -> None:
    """An untrained policy ranks by profile, so this gate is 1 and all others are 0; then two are set."""
    config = settings(
        "ppo",
        "long-video",
        model_config={"head": "scorer", "hidden_dims": [8]},
        env_config={"num_items": 60, "embedding_dim": 4, "max_episode_steps": 4},
    )
    env, agent = begin(config)
    obs = env.reset()
    model, head = agent.model, agent.model.head
    assert isinstance(head, ScorerHead)
    gates = model.mean_gates(obs, env.interface)
    assert [name for name, gate in gates.items() if gate != 0] == ["profile"]
    assert gates["profile"] == pytest.approx(1)
    # Inputs: profile, current item, four sums of the videos left, and four of each of the four signals.
    assert len(gates) == 2 + 2 * 4 * (1 + 4) + 3
    assert list(gates)[1:3] == ["current_item", "shown, the last"] and list(gates)[-1] == "year"
    with torch.no_grad():
        head.gates.bias[2 + 4 + 3] = -0.5 / RATE  # the last sum of the first signal, completion
        head.gates.bias[-3] = 0.25 / RATE
    gates = model.mean_gates(obs, env.interface)
    assert gates["completion, all"] == pytest.approx(-0.5) and gates["popularity"] == pytest.approx(0.25)


def test_gates_of_another_head_are_empty() -> None:
    env, agent = begin(settings("ppo", "drift", env_config={"num_items": 60, "embedding_dim": 4}))
    assert agent.model.mean_gates(env.reset(), env.interface) == {}

"""Columns of the items for each user: by hand, and in rankings, networks, reward models and propensities."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from recsys_rl.evaluation.rivals import rankers
from recsys_rl.evaluation.rivals.forms import Factors, Form, Searched
from recsys_rl.evaluation.rivals.rankers import Rule, RuleWeights, scored_names
from recsys_rl.logs.decision_log import DecisionHeader, DecisionLog
from recsys_rl.logs.ope.features import Features
from recsys_rl.logs.ope.propensities import with_propensities
from recsys_rl.make import make_agent
from recsys_rl.models.heads import TwoTowerHead
from recsys_rl.types import Catalogue, Interface, Obs, UserError
from recsys_rl.user_columns import UserColumns
from tests.small_runs import settings
from tests.tiny_world import tiny_catalogue

PIECE = "owns[brand]"
INTERFACE = Interface(
    (("profile", 2), (PIECE, 2), ("last_item", 2)), (3,), history_length=2, session_length=2
)


def catalogue() -> Catalogue:
    """East is of brand 1, north of none, and between of a brand that no user's piece has."""
    made = tiny_catalogue()
    return replace(made, attributes={**made.attributes, "brand": torch.tensor([1, -1, 2])})


def obs(owns: list[list[float]], **parts: Tensor) -> Obs:
    """Users (0.6, 0.8) who own the brands ``owns``, before their first step."""
    n = len(owns)
    profile = torch.tensor([[0.6, 0.8]]).expand(n, -1)
    context = torch.cat([profile, torch.tensor(owns), torch.zeros(n, 2)], 1)
    return Obs(context, torch.full((n, 2), -1), torch.zeros(n, 2, 0), **parts)


def test_columns_by_hand() -> None:
    assert INTERFACE.user_columns == {PIECE: ("owns", "brand")} and INTERFACE.inputs == (0, 1, 4, 5)
    found = UserColumns.of(INTERFACE, catalogue())
    context = obs([[0.5, 1.0], [0.25, -2.0]]).context
    [column] = found.of_items(context)
    assert found.names == ("owns",) and column.tolist() == [[1, 0, 0], [-2, 0, 0]]
    among = torch.tensor([[2, 0], [0, -1]])
    assert found.of_items(context, among)[0].tolist() == [[0, 1], [-2, -2]]
    assert found.of_items(context, slice(0, 2))[0].tolist() == [[1, 0], [-2, 0]]
    assert found.scores(context, torch.tensor([[3.0], [1.0]]), among).tolist() == [[0, 3], [-2, -2]]
    plain = replace(INTERFACE, context=(("profile", 2), ("a]", 1), ("b[", 1)))
    assert UserColumns.of(plain, catalogue()).names == () and plain.inputs == (0, 1, 2, 3)


def test_items_without_the_attribute_are_refused() -> None:
    for attributes in ({}, {"brand": torch.zeros(3)}):
        with pytest.raises(UserError):
            UserColumns.of(INTERFACE, replace(catalogue(), attributes=attributes))


def test_rule_and_searched_weigh_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores of east, north and between are 0.6, 0.8 and 1; a brand that is owned adds its weight."""
    items, both = catalogue(), obs([[0.0, 1.0], [1.0, 0.0]])
    assert scored_names(items, INTERFACE) == ("owns",)
    columns = UserColumns.of(INTERFACE, items)
    for weight, best in ((0.3, [2, 2]), (0.5, [0, 2])):
        weights = replace(RuleWeights.zeros(), features={"owns": torch.tensor(weight)})
        rule = Rule(items, weights, user_columns=columns)
        assert rule.act(both).items[:, 0].tolist() == best
        among = both.among(torch.tensor([[1, 0, 2], [2, 1, 0]]))
        assert rule.act(among).items[:, 0].tolist() == best
        each = replace(RuleWeights.zeros(), features={"owns": torch.tensor([weight, 9.0])})
        assert Rule(items, each, user_columns=columns).act(both).items[:, 0].tolist() == best
        form = Form(features=("owns",))
        numbers = torch.tensor([weight if name == "owns.0" else 0.0 for name in form.names])
        searched = Searched(items, INTERFACE, form, numbers, Factors.of(items, items.embedding))
        assert searched.act(both).items[:, 0].tolist() == best
    monkeypatch.setattr(rankers, "SHORTLIST", 2)
    assert Rule(items, weights, rerank=True, user_columns=columns).act(both).items[:, 0].tolist() == [2, 2]


@pytest.mark.parametrize("head", ["dense", "two-tower", "scorer", "gated"])
def test_networks_read_the_column_and_not_the_piece(head: str) -> None:
    """A user's own brand moves the score of its items alone; among candidates alike, with a gradient."""
    items = replace(catalogue(), attributes={**catalogue().attributes, "kind": torch.tensor([0, 1, 0])})
    sizes = {"num_items": 3, "embedding_dim": 2, "max_episode_steps": 2}
    config = settings("ppo", "satiation", env_config=sizes, model_config={"head": head})
    model = make_agent(config, INTERFACE, items).model
    with torch.no_grad():
        after = model.head.curves.num_gates if isinstance(model.head, TwoTowerHead) else 0
        model.head.last.bias[-1 - after] = 0.1
    two = obs([[0.0, 0.0], [0.0, 1.0]])

    def logits(of: Obs) -> Tensor:
        found: Tensor = model(of)[0].logits.flatten(1)
        return found.log_softmax(1) if head == "gated" else found

    first, second = logits(two).unbind()
    moved = second - first
    if head == "gated":  # a probability within the kind of east and between
        assert moved[0] > 0.01 and moved[2] < -0.01 and abs(moved[1]) < 1e-6
    else:
        assert moved[0] > 0.01 and bool((moved[1:] == 0).all())
    assert_close(*model.value(two))
    among = torch.tensor([[2, 0, 1], [0, 2, 1]])
    assert_close(logits(two.among(among)), logits(two).gather(1, among))
    model(two)[0].logprob(torch.tensor([[0], [0]])).sum().backward()
    assert bool(model.head.last.weight.grad[:, -1 - after].any())


def test_reward_models_read_the_mean_of_a_slate() -> None:
    features = Features(catalogue(), INTERFACE)
    one, two = features(obs([[0.5, 3.0]] * 2), torch.tensor([[0, 1], [1, 2]]))
    whole = torch.cat([one, two])
    assert bool((whole == 1.5).any()) and not bool((whole == 3.0).any() or (whole == 0.5).sum() > 4)


def test_estimated_propensities_find_a_logger_that_reads_them() -> None:
    """Its users see east if they own brand 1, else north: the fit learns that."""
    n = 300
    owns = (torch.arange(n) % 2).float()
    header: dict[str, Any] = {
        "loggers": ("a",),
        "interface": replace(INTERFACE, history_length=0, repeats=True),
    }
    log = DecisionLog(
        header=DecisionHeader(**header, signals=()),
        users=torch.arange(n),
        sessions=torch.arange(n),
        steps=torch.zeros(n, dtype=torch.int64),
        times=torch.arange(n),
        items=torch.where(owns > 0, 0, 1).unsqueeze(1),
        logprobs=torch.full((n,), math.nan, dtype=torch.float64),
        signals=torch.zeros(n, 1, 0),
        terminated=torch.ones(n, dtype=torch.bool),
        truncated=torch.zeros(n, dtype=torch.bool),
        loggers=torch.zeros(n, dtype=torch.int64),
        given={"profile": torch.zeros(n, 2), PIECE: torch.stack([torch.zeros(n), owns], 1)},
    )
    blind = replace(log, given={**log.given, PIECE: torch.zeros(n, 2)})
    found, without = (
        with_propensities(x, catalogue(), torch.Generator().manual_seed(0))[0].logprobs.mean()
        for x in (log, blind)
    )
    assert found > without + 0.1

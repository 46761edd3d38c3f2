"""The search of `searched`: never worse than `rule` for the users to choose with, and within its budget."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from recsys_rl.evaluation.rivals import form_search, rule_search
from recsys_rl.evaluation.rivals.form_search import Make, SearchedForm, Trials, grow, or_rule
from recsys_rl.evaluation.rivals.forms import Form, of_rule
from recsys_rl.settings.config import Config
from recsys_rl.types import World
from tests.evaluation.rivals.test_tuning import trainees
from tests.small_runs import settings, world

Small = tuple[Config, World]


@pytest.fixture(scope="module")
def small() -> Small:
    sizes = {"num_items": 60, "embedding_dim": 8}
    config = settings("ppo", "satiation", env_config=sizes, data_config={"num_users": 200})
    return config, world(config)


@pytest.fixture(scope="module")
def rule(small: Small) -> rule_search.SearchedRule:
    return rule_search.search_rule(trainees(*small), 20_000)


class Watched(Trials):
    """Keeps the mean return of each candidate that plays alone: those to choose among."""

    chosen: list[float] = []  # noqa: RUF012

    def play(self, make: Make, drawn: Tensor, users: Tensor) -> Tensor:
        returns = super().play(make, drawn, users)
        if len(drawn) == 1:
            self.chosen.append(returns.mean().item())
        return returns


def searched(
    small: Small, rule: rule_search.SearchedRule, monkeypatch: pytest.MonkeyPatch, budget: int = 20_000
) -> tuple[SearchedForm, list[float]]:
    """The result, and the returns of the forms to choose among: the smallest first, and `rule` last."""
    monkeypatch.setattr(form_search, "Trials", Watched)
    monkeypatch.setattr(Watched, "chosen", [])
    config, _ = small
    users = trainees(*small)
    return or_rule(users, grow(users, config.platform.split, budget), rule), Watched.chosen


def away(trials: Trials, make: Make, first: Tensor, spread: Tensor, budget: int) -> Tensor:
    """A search that leads to useless numbers."""
    return first - 5 * torch.ones_like(first)


def test_a_larger_form_is_taken_where_it_earns_more(
    small: Small, rule: rule_search.SearchedRule, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, chosen = searched(small, rule, monkeypatch)
    assert len(chosen) == 6  # rule's form, with sets, hinges, product, the rest of the budget; and `rule`
    assert 14_000 < found.steps <= 20_000
    assert max(chosen) > chosen[-1] and found.form != Form()
    assert len(found.numbers) == len(found.form.names)


def test_useless_numbers_leave_the_rule(
    small: Small, rule: rule_search.SearchedRule, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every search leads away, so that the result is `rule` or its form, whichever earns more."""

    monkeypatch.setattr(form_search, "search_numbers", away)
    found, chosen = searched(small, rule, monkeypatch)
    assert found.form == Form()
    if chosen[-1] > chosen[0]:
        assert torch.equal(found.numbers, of_rule(rule.weights))
        assert torch.equal(found.leave_rates, rule.leave_rates)


def test_the_rule_wins_against_a_worse_form(
    small: Small, rule: rule_search.SearchedRule, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the smallest budget, whose few sessions find nothing, and a rule found with much more."""
    better = rule_search.search_rule(trainees(*small), 200_000)

    def poor(trainees: object, budget: int) -> rule_search.SearchedRule:
        zeros = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
        return rule_search.SearchedRule(rule_search.as_weights(zeros), better.leave_rates, 10)

    monkeypatch.setattr(form_search, "search_numbers", away)
    monkeypatch.setattr(rule_search, "search_rule", poor)
    found, chosen = searched(small, better, monkeypatch)
    assert max(chosen) == chosen[-1]
    assert torch.equal(found.numbers, of_rule(better.weights))


def test_a_tiny_budget_is_enough(
    small: Small, rule: rule_search.SearchedRule, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, _ = searched(small, rule, monkeypatch, 0)
    assert found.steps > 0 and bool(found.numbers.isfinite().all())

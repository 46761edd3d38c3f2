"""The search of the weights of `rule`: its result, its budget, and leave rates by hand."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from recsys_rl.evaluation.rivals import rankers, rule_search
from recsys_rl.evaluation.rivals.best_slate import SINGLE
from recsys_rl.evaluation.rivals.rankers import Rule, RuleWeights
from recsys_rl.evaluation.rivals.rule_search import Trials, as_weights, leave_rates, rule_note, search_rule
from recsys_rl.experience.rollout import Sessions, play
from recsys_rl.make import make_env
from recsys_rl.types import Obs, tensors_of
from tests.evaluation.rivals.test_tuning import Small, trainees
from tests.small_runs import settings, world
from tests.tiny_world import tiny_catalogue, with_genres


@pytest.fixture(scope="module")
def small() -> Small:
    sizes = {"num_items": 60, "embedding_dim": 8}
    config = settings("ppo", "satiation", env_config=sizes, data_config={"num_users": 200})
    return config, world(config)


def test_search_beats_its_starts_and_keeps_its_budget(small: Small) -> None:
    config, place = small
    catalogue, population = place
    found = search_rule(trainees(config, place), 20_000)
    assert 12_000 < found.steps <= 20_000
    strangers = population.heldout

    def earned(weights: RuleWeights) -> float:
        env = make_env(
            config, place, len(strangers), torch.Generator().manual_seed(1), heldout=True, training=False
        )
        return play(env, Rule(catalogue, weights, SINGLE, found.leave_rates), strangers).returns.mean().item()

    starts = [earned(as_weights(torch.tensor(start))) for start in rule_search.STARTS]
    assert earned(found.weights) > 0.98 * max(starts)
    assert earned(found.weights) > 1.05 * earned(RuleWeights.zeros())


def test_a_large_catalogue_gets_the_same_budget(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step scores the shortlist alone, however many items there are."""
    monkeypatch.setattr(rankers, "SHORTLIST", 20)
    scored: list[int] = []
    follow = rankers.Shortlist.follow

    def counted(self: rankers.Shortlist, obs: Obs, ended: Tensor | None = None) -> Obs:
        found = follow(self, obs, ended)
        assert found.candidates is not None
        scored.append(found.candidates.shape[1])
        return found

    monkeypatch.setattr(rankers.Shortlist, "follow", counted)
    found = search_rule(trainees(*small), 20_000)
    assert 12_000 < found.steps <= 20_000 and set(scored) == {20}


def test_search_with_a_tiny_budget_takes_one_round(small: Small) -> None:
    found = search_rule(trainees(*small), 0)
    assert 0 < found.steps <= (rule_search.CANDIDATES + 2 * len(rule_search.STARTS)) * 20
    assert 0 <= found.weights.decay < 1 and found.weights.fold_in >= 0


def test_rounds_end_when_longer_sessions_have_used_their_budget(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sessions of one step with the starts, of 20 steps afterwards: the first round takes it all."""
    played: list[int] = []

    class Lengthening(Trials):
        def play(self, drawn: Tensor, count: int) -> Tensor:
            number = len(drawn) * max(1, count)
            self.steps += number * (20 if played else 1)
            self.sessions += number
            played.append(len(drawn))
            return torch.arange(float(len(drawn)))

    monkeypatch.setattr(rule_search, "Trials", Lengthening)
    search_rule(trainees(*small), 5000)
    assert played.count(rule_search.CANDIDATES) == 1


def test_noisy_rounds_do_not_lose_the_best_start(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds with the opposite of the returns lead away; the last comparison still takes the best start."""

    class Misled(Trials):
        def play(self, drawn: Tensor, count: int) -> Tensor:
            returns = super().play(drawn, count)
            return -returns if len(drawn) == rule_search.CANDIDATES else returns

    monkeypatch.setattr(rule_search, "Trials", Misled)
    weights = search_rule(trainees(*small), 40_000).weights
    starts = [as_weights(torch.tensor(start)) for start in rule_search.STARTS]
    assert any(
        all(
            torch.equal(x, y)
            for x, y in zip(*map(dict.values, map(tensors_of, (weights, start))), strict=True)
        )
        for start in starts
    )


def test_leave_rates_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """East is of tag 0, north of tag 1, between of both; 40 sessions end among 200 views: 0.2 of all."""
    catalogue = with_genres(tiny_catalogue(), torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
    monkeypatch.setattr(rule_search, "SHRINKAGE", 50.0)
    shown, last = torch.tensor([100.0, 60.0, 40.0]), torch.tensor([30.0, 6.0, 4.0])
    first, second = (34 + 10) / 190, (10 + 10) / 150  # of the tags, with 50 views at 0.2 each
    expected = [
        (30 + 50 * first) / 150,
        (6 + 50 * second) / 110,
        (4 + 50 * (first + second) / 2) / 90,
    ]
    torch.testing.assert_close(leave_rates(catalogue, shown, last), torch.tensor(expected))
    without = with_genres(catalogue, torch.zeros(3, 2))
    torch.testing.assert_close(leave_rates(without, shown, last)[0], torch.tensor((30 + 10) / 150))


def test_leave_counts_take_the_last_slate_of_users_who_left(small: Small) -> None:
    trials = Trials(trainees(*small))
    items = torch.tensor([[[1], [2]], [[3], [4]], [[-1], [5]]])  # (T, N, K): sessions of 2 and 3 steps
    trials._count(Sessions(items, torch.zeros(3, 2), torch.tensor([True, False])))
    assert trials.shown.nonzero().flatten().tolist() == [1, 2, 3, 4, 5]
    assert trials.last.nonzero().flatten().tolist() == [3]
    assert trials.steps == 5 and trials.length == 2.5


def test_note_of_the_rule() -> None:
    values = (0.124, -0.001, 0.2, 0.0, 0.5)
    off = RuleWeights(*(torch.tensor(x) for x in (*values, 0.0, 0.3)))
    assert rule_note(off, 98_304) == (
        "popularity 0.12, quality 0.00, similarity 0.20, overlap 0.00, decay 0.50, leaving 0.30, fold-in "
        "off; searched with 98,304 steps of training users"
    )
    assert "fold-in on (0.25)" in rule_note(dataclasses.replace(off, fold_in=torch.tensor(0.25)), 1)

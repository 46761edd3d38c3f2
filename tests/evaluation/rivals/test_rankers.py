"""`mf`, `mmr` and `rule` by hand, over three items in the plane, and over a catalogue too large to sort."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from recsys_rl.evaluation.rivals import rankers
from recsys_rl.evaluation.rivals.best_slate import SINGLE
from recsys_rl.evaluation.rivals.rankers import MaximalMarginalRelevance, Rule, RuleWeights, fold_in
from recsys_rl.experience.rollout import Sessions, play
from recsys_rl.make import make_env
from recsys_rl.settings.config import Config
from recsys_rl.types import Catalogue, Obs, World
from tests.small_runs import settings, world
from tests.tiny_world import tiny_catalogue


def obs(profile: list[list[float]], shown: list[list[int]], signals: list[list[float]] | None = None) -> Obs:
    """An observation of users with these profiles, after the items ``shown`` (N, L), which are excluded."""
    history = torch.tensor(shown)
    context = torch.cat([torch.tensor(profile), torch.zeros(len(profile), 2)], 1)
    signal = torch.zeros(history.shape) if signals is None else torch.tensor(signals)
    return Obs(context, history, signal.unsqueeze(-1), exclude=history)


def weights(**dials: float) -> RuleWeights:
    values: dict[str, Any] = {name: torch.tensor(x) for name, x in dials.items()}
    return dataclasses.replace(RuleWeights.zeros(), **values)


def shown_by(agent: Rule | MaximalMarginalRelevance, request: Obs) -> list[int]:
    return agent.act(request).items[:, 0].tolist()


def test_mf_is_the_ranking_by_profile() -> None:
    """East, north and between have the products 0.6, 0.8 and 1 with (0.6, 0.8)."""
    mf = Rule(tiny_catalogue(), RuleWeights.zeros())
    for shown, best in (([-1, -1], 2), ([-1, 2], 1), ([2, 1], 0)):
        assert shown_by(mf, obs([[0.6, 0.8]], [shown])) == [best]


def test_mf_equals_a_sorted_list() -> None:
    sizes = {"num_items": 40, "embedding_dim": 4}
    config = settings("ppo", "satiation", env_config=sizes, data_config={"num_users": 20})
    catalogue, population = world(config)
    ranking = (population.profile @ catalogue.embedding.T).argsort(1, descending=True)  # (U, I)
    mf, zeros = Rule(catalogue, RuleWeights.zeros()), torch.zeros(len(ranking), 4)
    for t in range(10):
        history = torch.full((len(ranking), 10), -1)
        history[:, 10 - t :] = ranking[:, :t]
        request = Obs(torch.cat([population.profile, zeros], 1), history, exclude=history)
        assert torch.equal(mf.act(request).items[:, 0], ranking[:, t])


def test_similarity_of_the_rule_decays() -> None:
    """After north, the user (0.6, 0.8) has 0.6 for east, and 1 - 0.8 x similarity for between."""
    catalogue = tiny_catalogue()
    request = obs([[0.6, 0.8]], [[-1, 1]])
    assert shown_by(Rule(catalogue, weights(similarity=0.4)), request) == [2]  # 1 - 0.32 > 0.6
    assert shown_by(Rule(catalogue, weights(similarity=0.6)), request) == [0]  # 1 - 0.48 < 0.6
    user = [[0.0, 1.0], [0.0, 1.0]]  # 0 for east, 1 for north
    older = obs(user, [[2, -1, -1], [-1, -1, 2]])  # shown two steps ago, and just now
    half = weights(similarity=6.0, decay=0.5)  # north - east: 1 - 6 (0.8 - 0.6) x 0.25, or x 1
    assert shown_by(Rule(catalogue, half), older) == [1, 0]


def test_rule_avoids_items_after_which_users_leave() -> None:
    """The user (0.6, 0.8) has 1 for between and 0.8 for north; the leave rates are 1 and -1."""
    for leaving, best in ((0.09, 2), (0.11, 1)):
        rule = Rule(tiny_catalogue(), weights(leaving=leaving), SINGLE, torch.tensor([0.0, -1.0, 1.0]))
        assert shown_by(rule, obs([[0.6, 0.8]], [[-1, -1]])) == [best]


def test_fold_in_moves_towards_items_above_the_average_of_the_session() -> None:
    """East 1, north 0: average 1/2, so that (0.6, 0.8) + rate (1/2, -1/2) is of direction (1.1, 0.3)."""
    request = obs([[0.6, 0.8]], [[0, 1]], [[1.0, 0.0]])
    moved = fold_in(request, tiny_catalogue().embedding, torch.tensor(1.0))
    torch.testing.assert_close(moved, torch.tensor([[1.1, 0.3]]) / (1.1**2 + 0.3**2) ** 0.5)
    torch.testing.assert_close(
        fold_in(request, tiny_catalogue().embedding, torch.tensor(0.0)), torch.tensor([[0.6, 0.8]])
    )


def test_mmr_by_hand() -> None:
    """After north, east has 0.6 (1 - w) and between 1 - w - 0.8 w: equal at w = 1/3."""
    catalogue, request = tiny_catalogue(), obs([[0.6, 0.8]], [[-1, 1]])
    assert shown_by(MaximalMarginalRelevance(catalogue, 0.3, 5, 0.0), request) == [2]
    assert shown_by(MaximalMarginalRelevance(catalogue, 0.4, 5, 0.0), request) == [0]
    forgotten = obs([[0.6, 0.8]], [[1, -1]])  # outside of a window of one item
    assert shown_by(MaximalMarginalRelevance(catalogue, 0.4, 1, 0.0), forgotten) == [2]


@pytest.mark.parametrize("available", [True, False])
def test_shortlist_of_a_large_catalogue_gives_the_same_items(
    available: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {"num_items": 50, "embedding_dim": 4}
    config = settings("ppo", "satiation", env_config=sizes, data_config={"num_users": 30})
    catalogue, population = world(config)
    history = torch.randint(50, (30, 6), generator=torch.Generator().manual_seed(0))
    history[:10] = -1
    mask = None if available else (torch.arange(50) % 2 == 0).expand(30, -1)
    context = torch.cat([population.profile, torch.zeros(30, 4)], 1)
    request = Obs(context, history, torch.rand(30, 6, 1), exclude=history, mask=mask)

    def chosen(catalogue: Catalogue) -> torch.Tensor:
        return MaximalMarginalRelevance(catalogue, 0.3, 4, 0.2).act(request).items

    every = chosen(catalogue)
    monkeypatch.setattr(rankers, "SHORTLIST", 49)
    assert torch.equal(chosen(catalogue), every)
    assert available or bool((every % 2 == 0).all())
    assert not bool((history == every).any())


@pytest.fixture
def many() -> tuple[Config, World]:
    sizes = {"num_items": 50, "embedding_dim": 4, "max_episode_steps": 12}
    config = settings("ppo", "satiation", env_config=sizes, data_config={"num_users": 30})
    return config, world(config)


def session(place: tuple[Config, World], agent: Rule) -> Sessions:
    config, (_, population) = place
    env = make_env(config, place[1], 30, torch.Generator().manual_seed(0), training=False)
    return play(env, agent, torch.arange(len(population.profile)))


SOME = weights(popularity=3.0, quality=1.0, similarity=0.5, overlap=0.2, decay=0.8, fold_in=0.2, leaving=0.5)


def test_rule_ranks_a_small_catalogue_as_a_whole(many: tuple[Config, World]) -> None:
    catalogue, _ = many[1]
    rates = torch.linspace(-1, 1, 50)
    whole, agent = Rule(catalogue, SOME, SINGLE, rates), Rule(catalogue, SOME, SINGLE, rates, rerank=True)
    assert agent.reader() is None
    assert torch.equal(session(many, agent).items, session(many, whole).items)


def test_rule_ranks_the_best_of_mf_again(many: tuple[Config, World], monkeypatch: pytest.MonkeyPatch) -> None:
    """The first item is the best by the scores of the whole catalogue among the 20 nearest to the profile."""
    catalogue, population = many[1]
    rates = torch.linspace(-1, 1, 50)
    whole = session(many, Rule(catalogue, SOME, SINGLE, rates))
    monkeypatch.setattr(rankers, "SHORTLIST", 20)
    monkeypatch.setattr(rankers, "SCANNED_ROWS", 7)
    found = session(many, Rule(catalogue, SOME, SINGLE, rates, rerank=True))
    nearest = (population.profile @ catalogue.embedding.T).topk(20).indices  # (U, 20)
    far = torch.ones(30, 50, dtype=torch.bool).scatter_(1, nearest, False)  # (U, I)
    columns = Rule(catalogue, SOME, SINGLE, rates).columns
    first = population.profile @ catalogue.embedding.T + 3 * columns[:, -3] + columns[:, -2] - 0.5 * rates
    assert torch.equal(found.items[0, :, 0], first.masked_fill(far, -torch.inf).argmax(1))
    shown = found.items[:, :, 0].T  # (U, T)
    assert not bool(far.gather(1, shown.clamp_min(0))[shown >= 0].any())
    assert bool(far.gather(1, whole.items[0]).any())  # the whole catalogue has others


def test_all_items_as_the_shortlist_give_the_same_session(
    many: tuple[Config, World], monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue, mild = many[1].catalogue, weights(popularity=0.05, similarity=0.5, decay=0.8, fold_in=0.2)
    whole = session(many, Rule(catalogue, mild))
    monkeypatch.setattr(rankers, "SHORTLIST", 49)  # without the item farthest from the profile
    assert torch.equal(session(many, Rule(catalogue, mild, rerank=True)).items, whole.items)


def test_a_used_up_shortlist_is_made_again(
    many: tuple[Config, World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """5 of 50 items in sessions of 12 steps without repetition."""
    monkeypatch.setattr(rankers, "SHORTLIST", 5)
    found = session(many, Rule(many[1].catalogue, SOME, rerank=True))
    assert int(found.lengths.max()) > 3
    for row in found.items[:, :, 0].T:
        shown = row[row >= 0].tolist()
        assert len(shown) == len(set(shown))


def test_ended_sessions_get_a_new_shortlist(
    many: tuple[Config, World], monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue, population = many[1]
    monkeypatch.setattr(rankers, "SHORTLIST", 5)
    nearest = (population.profile @ catalogue.embedding.T).topk(5).indices  # (U, 5)
    reader = Rule(catalogue, SOME, rerank=True).reader()
    assert reader is not None

    def candidates(users: list[int], ended: torch.Tensor | None) -> torch.Tensor:
        found = reader.follow(Obs(population.profile[users]), ended).candidates
        assert found is not None
        return found

    assert torch.equal(candidates([0, 1, 0], None), nearest[[0, 1, 0]])
    nobody, second = torch.zeros(3, dtype=torch.bool), torch.tensor([False, True, False])
    assert torch.equal(candidates([0, 1, 0], nobody), nearest[[0, 1, 0]])
    assert torch.equal(candidates([0, 2, 0], second), nearest[[0, 2, 0]])
    mask = torch.ones(3, 50, dtype=torch.bool).index_fill_(1, nearest[0, :2], False)
    found = Rule(catalogue, SOME, rerank=True).act(Obs(population.profile[[0, 0, 0]], mask=mask)).items
    assert not bool(torch.isin(found, nearest[0, :2]).any())


@pytest.mark.parametrize("by_mask", [True, False])
def test_rule_shows_a_row_the_same_items_whatever_rows_are_beside_it(
    many: tuple[Config, World], monkeypatch: pytest.MonkeyPatch, by_mask: bool
) -> None:
    """Two rows of one user; items near the profile may not be shown in the second."""
    catalogue, population = many[1]
    monkeypatch.setattr(rankers, "SHORTLIST", 5)
    nearest = (population.profile @ catalogue.embedding.T).topk(4).indices[0]
    mask = torch.ones(2, 50, dtype=torch.bool)
    mask[1, nearest[:3]] = False
    exclude = torch.stack([torch.full((3,), -1), nearest[:3]])
    profile = population.profile[[0, 0]]
    obs = Obs(profile, mask=mask) if by_mask else Obs(profile, exclude=exclude)
    agent = Rule(catalogue, RuleWeights.zeros(), rerank=True)
    assert agent.act(obs).items.tolist() == [[nearest[0]], [nearest[3]]]


def test_shortlists_hold_available_items_alone(
    many: tuple[Config, World], monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue, population = many[1]
    monkeypatch.setattr(rankers, "SHORTLIST", 5)
    available = torch.arange(50) % 2 == 0
    reader = Rule(catalogue, SOME, rerank=True).reader()
    assert reader is not None
    scores = (population.profile @ catalogue.embedding.T).masked_fill(~available, -torch.inf)
    users = [3, 1, 3, 0]
    found = reader.follow(Obs(population.profile[users], mask=available.expand(4, -1))).candidates
    assert found is not None and torch.equal(found, scores.topk(5).indices[users])

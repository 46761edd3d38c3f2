"""Requests to a policy whose slates have kinds of places: limits, lists, and too few items."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from recsys_rl.functional.patterns import Layout, Patterns
from recsys_rl.models.sampled import shown_among
from recsys_rl.recommender import Visit
from recsys_rl.recommender.lists import play_on
from recsys_rl.serving.draw.draw_request import TOO_FEW, DrawRequest, draw
from recsys_rl.serving.draw.rule import choose
from recsys_rl.serving.draw.session_state import SessionState, Step
from recsys_rl.serving.draw.versions import Version, open_version
from recsys_rl.serving.record.record_schema import Session
from recsys_rl.types import Obs
from tests.doors import SERVED, steps, train_in

VIDEO, PRODUCT, EMPTY, COUPON = range(4)


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Version:
    folder = tmp_path_factory.mktemp("pairs") / "run"
    return open_version(train_in(folder, *SERVED["shop-coupons"], *steps(2)), 1)


def kinds(version: Version) -> torch.Tensor:
    return version.checkpoint.catalogue.attributes["kind"]


def of_kind(version: Version, number: int) -> tuple[int, ...]:
    return tuple((kinds(version) == number).nonzero().squeeze(1).tolist())


def ask(version: Version, **fields: Any) -> DrawRequest:
    return replace(DrawRequest(1, version, 3, (), 12.0, None, [], 12.0, (0.3, 0.6, 0.2)), **fields)


def observed(version: Version, number: int = 2) -> Obs:
    visits = Visit.begin(version.of_visits, version.checkpoint.population.profile[:number])
    return visits.observe()


def shuffled(version: Version) -> torch.Tensor:
    items = version.checkpoint.catalogue.num_items
    return torch.randperm(items, generator=torch.Generator().manual_seed(0))


def test_candidates_in_any_order_limit_the_slates_and_change_nothing_else(version: Version) -> None:
    every = tuple(shuffled(version).tolist())
    free, same = draw([ask(version), ask(version, candidates=every)])
    assert same.degraded == "" and same.items == free.items
    assert same.logprobs == pytest.approx(free.logprobs, abs=1e-5)
    few = (*of_kind(version, VIDEO)[:3], *of_kind(version, PRODUCT)[:4])
    few = (*reversed(few), *of_kind(version, EMPTY), *of_kind(version, COUPON)[1:])
    total = 0.0
    for first, below, coupon in (
        *((p, e, c) for p in few[:4] for e in of_kind(version, EMPTY) for c in of_kind(version, COUPON)[1:]),
        *((v, b, c) for v in few[4:7] for b in (*few[:4], few[7]) for c in of_kind(version, COUPON)[1:]),
    ):
        found = draw([ask(version, candidates=few, items=(first, below, coupon))])[0]
        assert found.degraded == "" and found.items == [first, below, coupon]
        total += torch.tensor(found.logprobs).sum().exp().item()
    assert total == pytest.approx(1, abs=1e-5)
    drawn = draw([ask(version, candidates=few, uniforms=(at / 9, 0.4, 0.7)) for at in range(9)])
    patterns = {tuple(pattern) for pattern in version.checkpoint.interface.patterns}
    for result in drawn:
        assert result.degraded == "" and {*result.items} <= {*few}
        assert tuple(kinds(version)[result.items].tolist()) in patterns


def test_a_log_with_candidates_has_the_probabilities_of_the_catalogue(version: Version) -> None:
    agent, obs = version.agent, observed(version)
    items = agent.act(obs, True).items
    among = obs.among(torch.where(obs.allowed(300)[:, shuffled(version)], shuffled(version), -1))
    assert agent.act(among, True).items.tolist() == items.tolist()
    assert_close(agent.logprob(among, items), agent.logprob(obs, items))
    assert_close(agent.place_logprobs(among, items), agent.place_logprobs(obs, items))
    learned, weights = shown_among(agent.model, among, items, torch.Generator())
    assert weights is None
    assert_close(agent.model(learned)[0].logprob(learned.places_of(items)), agent.logprob(obs, items))
    listed = among.candidates
    assert listed is not None
    others = obs.among(listed.masked_fill(listed == items[:, :1], -1))
    assert bool((agent.logprob(others, items) == -torch.inf).all())
    with pytest.raises(ValueError, match="mask"):
        agent.model(among)


@pytest.mark.parametrize("gone", [(COUPON,), (PRODUCT, EMPTY), (VIDEO, EMPTY)])
def test_too_few_items_are_no_fault_of_the_policy(version: Version, gone: tuple[int, ...]) -> None:
    exclude = tuple(item for kind in gone for item in of_kind(version, kind))
    empty, full = draw([ask(version, exclude=exclude), ask(version)])
    assert (empty.error, empty.degraded) == (TOO_FEW, "")
    assert (full.error, full.degraded) == ("", "")


@pytest.mark.parametrize("drawn", [False, True])
def test_a_list_longer_than_a_slate_is_of_slates(version: Version, drawn: bool) -> None:
    """Coupons and the empty place come again; no video and no product does."""
    visits = Visit.begin(version.of_visits, version.checkpoint.population.profile[:5])
    everything = torch.ones(5, 300, dtype=torch.bool)
    generator = torch.Generator().manual_seed(0) if drawn else None
    items, chances, expected = play_on(version.agent, visits, everything, 14, generator=generator)
    assert items.shape == chances.shape == (5, 14)
    assert expected is not None and expected.shape == (5, 14)
    first = version.agent.expected_rewards(visits.observe(everything))
    assert first is not None and torch.equal(expected[:, :3], first.gather(1, items[:, :3]))
    assert bool(((chances > 0) & (chances <= 1)).all())
    patterns = {tuple(pattern) for pattern in version.checkpoint.interface.patterns}
    for row in items.tolist():
        slates = [tuple(kinds(version)[row[at : at + 3]].tolist()) for at in range(0, 12, 3)]
        assert {*slates} <= patterns
        once = [item for item in row if kinds(version)[item] in (VIDEO, PRODUCT)]
        assert len({*once}) == len(once)
    if not drawn:
        assert items[:, :3].tolist() == version.agent.act(visits.observe(), True).items.tolist()


def test_bought_products_and_watched_videos_are_the_likes_of_the_next_session(version: Version) -> None:
    session = SessionState(Session(1, 1, 0, 0.0, -1, (), 1.0, 1.0), version.checkpoint.interface)
    signals = version.checkpoint.interface.signals

    def seen(**values: float) -> list[float]:
        return [values.get(name, 0.0) for name in signals]

    session.steps = [
        Step((1, 2, 9), [seen(watched=0.6), seen(carted=1, purchased=1), seen()], {}, 12.0),
        Step((3, 8, 9), [seen(watched=0.4, liked=1), seen(), seen()], {}, 12.0),
        Step((4, 8, 9), [seen(carted=1, saved=1), seen(), seen()], {}, 12.0),
    ]
    assert session.consumed(version.full_signals, version.taken) == [1, 2]


def test_popularity_shows_slates_with_the_probabilities_that_it_states(version: Version) -> None:
    """Each of the three patterns has a third of the slates; explored places are of the kinds, too."""
    patterns, popular = [(PRODUCT, EMPTY, COUPON), (VIDEO, EMPTY, COUPON), (VIDEO, PRODUCT, COUPON)], []
    obs, weight = observed(version, 1), version.checkpoint.catalogue.popularity + 1e-3
    for at in range(60):
        uniform = [[(at + 0.5) / 60, (7 * at % 60 + 0.5) / 60, 0.5]]
        for explore in (0.0, 0.5):
            choice = choose([version], obs, uniform, [explore], [0.0], popular=True)[0]
            assert tuple(kinds(version)[choice.items].tolist()) in patterns
            again = choose([version], obs, uniform, [explore], [0.0], [choice.items], popular=True)[0]
            assert again.logprobs == choice.logprobs
            if not explore:
                popular.append(choice)
    assert sum(kinds(version)[choice.items[0]].item() == PRODUCT for choice in popular) == 20
    first, below, coupon = (weight * (kinds(version) == kind) for kind in (VIDEO, PRODUCT, COUPON))
    pair = next(choice for choice in popular if kinds(version)[choice.items[1]] == PRODUCT)
    video, product, reduced = pair.items
    chances = (
        2 / 3 * first[video] / first.sum(),
        1 / 2 * below[product] / below.sum(),
        coupon[reduced] / coupon.sum(),
    )
    assert pair.logprobs == pytest.approx([x.log().item() for x in chances], abs=1e-5)


class OfGates:
    """A policy with given gates; the items of a kind are alike but for a dominant one."""

    first_stage = None

    def slates(self, obs: Obs) -> Patterns:
        of_kinds = torch.tensor([VIDEO, VIDEO, PRODUCT, PRODUCT, EMPTY])
        layout = Layout(((PRODUCT, EMPTY), (VIDEO, EMPTY), (VIDEO, PRODUCT)), of_kinds, torch.full((5,), -1))
        gates, items = torch.tensor([[0.4, 0.3, 0.3]]).log(), torch.tensor([[9.0, 0, 9, 0, 0]])
        return Patterns(gates, items, torch.tensor(0.0), layout)


def test_a_list_is_the_most_probable_slate_and_not_that_by_place(version: Version) -> None:
    """A video has 0.6 of the first place, and the product alone 0.4 of the slates."""
    visits = Visit.begin(version.of_visits, version.checkpoint.population.profile[:1])
    items, chances, expected = play_on(OfGates(), visits, torch.ones(1, 300, dtype=torch.bool), 2)
    assert items.tolist() == [[2, 4]] and expected is None
    assert chances[0].tolist() == pytest.approx([0.4, 1], abs=1e-3)

"""Draws follow their recorded propensities, and are the same in any batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import chisquare

from recsys_rl.agents.ppo import PPO
from recsys_rl.serving.draw.draw_request import DrawRequest, draw
from recsys_rl.serving.draw.session_state import Step
from recsys_rl.serving.draw.versions import Version, open_version
from recsys_rl.serving.record.facts import facts_of
from recsys_rl.serving.releases.active_version import PolicyFiles
from recsys_rl.types import Obs
from recsys_rl.utils.files import sha256_of
from tests.doors import DQN, train_in


@pytest.fixture(scope="module")
def version(checkpoint: Callable[[str], Path]) -> Version:
    return open_version(checkpoint("satiation"), 1)


def ask(version: Version, uniform: float, user: int = 3, steps: int = 2, **fields: Any) -> DrawRequest:
    shown = fields.pop("shown", [Step((item,), [[item / 10]], {}, 12.0) for item in range(steps)])
    base = DrawRequest(1, version, user, (), 12.0, None, shown, 12.0, (uniform,))
    return replace(base, **fields)


@pytest.mark.parametrize(
    "fields", [{}, {"explore": 0.3}, {"candidates": (4, 7, 9, 20)}, {"degraded": "raised"}]
)
def test_items_come_as_often_as_their_propensities_say(version: Version, fields: dict[str, Any]) -> None:
    uniforms = torch.rand(8192, generator=torch.Generator().manual_seed(0)).tolist()
    found = draw([ask(version, x, **fields) for x in uniforms])
    chances = {drawn.items[0]: drawn.logprobs[0] for drawn in found}
    items = [drawn.items[0] for drawn in found]
    assert not {0, 1} & {*items}  # they were shown in the first steps
    expected = torch.tensor([*chances.values()], dtype=torch.float64).exp()
    assert float(expected.sum()) == pytest.approx(1, abs=0.01)  # all items that may be shown were drawn
    observed = [items.count(item) for item in chances]
    assert chisquare(observed, (expected / expected.sum() * len(items)).numpy()).pvalue > 1e-3


def test_exploration_has_its_share_of_each_choice(version: Version) -> None:
    """(1 - share) p + share / number of items that may be shown."""

    def chances(explore: float) -> torch.Tensor:
        found = draw([ask(version, 0.5, items=(item,), explore=explore) for item in range(24)])
        return torch.tensor([x.logprobs[0] for x in found], dtype=torch.float64).exp()

    own = chances(0.0)
    allowed = own > 0
    assert allowed.tolist() == [False] * 2 + [True] * 22  # two were shown before
    torch.testing.assert_close(chances(0.3), 0.7 * own + 0.3 * allowed / 22, atol=1e-6, rtol=0)


def test_given_items_outside_of_the_candidates_have_no_probability(version: Version) -> None:
    found = draw([ask(version, 0.5, items=(item,), candidates=(4, 7, 9, 20)) for item in range(24)])
    chances = {item: math.exp(drawn.logprobs[0]) for item, drawn in enumerate(found)}
    assert [item for item, chance in chances.items() if chance > 0] == [4, 7, 9, 20]
    assert sum(chances.values()) == pytest.approx(1)


def test_popularity_of_a_large_catalogue_chooses_among_its_most_popular_items(
    version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsys_rl.serving.draw.versions.MOST_POPULAR", 8)
    large, popularity = replace(version), version.checkpoint.catalogue.popularity + 1e-3
    most = popularity.topk(8).indices.tolist()
    shown, hidden = most[2], most[5]
    steps = [Step((shown,), [[0.5]], {}, 12.0)]
    uniforms = torch.rand(2048, generator=torch.Generator().manual_seed(2)).tolist()
    found = draw([ask(large, x, degraded="raised", shown=steps, exclude=(hidden,)) for x in uniforms])
    left = [x for x in most if x not in (shown, hidden)]
    assert {x.items[0] for x in found} == {*left} and not any(x.candidates for x in found)
    total = float(popularity[left].sum())
    for x in found[:50]:
        assert x.logprobs[0] == pytest.approx(math.log(popularity[x.items[0]] / total), abs=1e-5)
    rare = popularity.topk(24).indices.tolist()[-3:]
    among = draw([ask(large, x, degraded="raised", candidates=tuple(rare)) for x in uniforms])
    assert {x.items[0] for x in among} == {*rare} - {0, 1}


def test_of_equally_popular_items_the_first_are_chosen(
    version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsys_rl.serving.draw.versions.MOST_POPULAR", 5)
    known = version.checkpoint.catalogue
    popularity = torch.zeros(known.num_items).index_fill(0, torch.tensor([7, 11]), 3.0)
    catalogue = replace(known, popularity=popularity, available=torch.ones_like(known.available))
    checkpoint, recommender = version.checkpoint, copy(version.recommender)
    recommender.checkpoint = replace(checkpoint, world=checkpoint.world._replace(catalogue=catalogue))
    assert Version(version.row, recommender).most_popular.tolist() == [0, 1, 2, 7, 11]


def test_a_policy_that_fails_in_a_list_gives_all_of_it_to_popularity(
    version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record names one rule for a decision, by which it is repeated."""
    own, calls = PPO.scores, list[int]()

    def scores(self: PPO, obs: Obs) -> torch.Tensor:
        calls.append(obs.num_rows)
        found = own(self, obs)
        return found if len(calls) == 1 else found * torch.nan

    one = ask(version, 0.3, uniforms=(0.1, 0.6, 0.9))
    monkeypatch.setattr(PPO, "scores", scores)
    [found], [again] = draw([one]), draw([replace(one, degraded="not-finite")])
    assert (found.degraded, len(found.items), len(calls)) == ("not-finite", 3, 3)
    assert found.items == again.items and found.logprobs == pytest.approx(again.logprobs, abs=1e-6)


def test_a_draw_alone_is_that_in_a_batch(version: Version) -> None:
    generator = torch.Generator().manual_seed(1)
    asks = [
        ask(version, float(torch.rand(1, generator=generator)), user=at % 30, steps=at % 4)
        for at in range(300)
    ]
    together = draw(asks)
    for one, many in zip((draw([x])[0] for x in asks), together, strict=True):
        assert one.items == many.items
        assert one.logprobs == pytest.approx(many.logprobs, abs=1e-6)


def of_two(two: Path) -> tuple[Version, Version]:
    """The versions of a folder as a server opens them: they see people alike."""
    policies = PolicyFiles(two, facts_of(open_version(two / "a.pt", 0).checkpoint))
    first, second = (policies.version(sha256_of(two / name)) for name in ("a.pt", "b.pt"))
    assert first.of_visits is second.of_visits and first.agent is not second.agent
    return first, second


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"explore": 0.3, "exclude": (5, 7)},
        {"candidates": (4, 7, 9, 20)},
        {"items": (9,)},
        {"degraded": "raised"},
        {"uniforms": (0.2, 0.7, 0.4)},
    ],
)
def test_people_of_two_versions_in_one_batch_get_what_each_version_alone_would_give(
    two: Path, fields: dict[str, Any]
) -> None:
    first, second = of_two(two)
    generator = torch.Generator().manual_seed(1)
    asks = [
        ask(
            second if at % 3 == 0 else first,
            float(torch.rand(1, generator=generator)),
            user=at % 30 - 1,
            steps=at % 4,
            **fields,
        )
        for at in range(41)
    ]
    alone = [draw([x for x in asks if x.version is version]) for version in (first, second)]
    for x, mixed in zip(asks, draw(asks), strict=True):
        one = alone[x.version is second].pop(0)
        assert (mixed.items, mixed.logprobs, mixed.degraded) == (one.items, one.logprobs, one.degraded)
        assert mixed.packed is not None and one.packed is not None
        assert mixed.packed.row[8:] == one.packed.row[8:]  # before it stands the place in the batch


@pytest.mark.parametrize("fault", ["raised", "not-finite"])
def test_a_version_that_fails_leaves_the_other_one_of_its_batch_alone(
    two: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    first, second = of_two(two)
    own = PPO.scores

    def scores(self: PPO, obs: Obs) -> torch.Tensor:
        found = own(self, obs)
        return found if self is first.agent else found * torch.nan if fault == "not-finite" else found[:, :3]

    asks = [ask(second if at % 2 else first, 0.4, user=at) for at in range(10)]
    sound = draw(asks)
    monkeypatch.setattr(PPO, "scores", scores)
    for at, (before, now) in enumerate(zip(sound, draw(asks), strict=True)):
        assert now.degraded == (fault if at % 2 else "")
        if not at % 2:
            assert (now.items, now.logprobs) == (before.items, before.logprobs)


def test_only_versions_with_the_same_people_items_and_settings_share_a_batch(two: Path) -> None:
    first, second = of_two(two)
    checkpoint = second.checkpoint
    population = replace(checkpoint.population, profile=checkpoint.population.profile * 2)
    others = [
        replace(checkpoint, world=checkpoint.world._replace(population=population)),
        replace(checkpoint, interface=replace(checkpoint.interface, session_length=4)),
        replace(
            checkpoint,
            config=replace(checkpoint.config, env_config=replace(checkpoint.config.env_config, noise=0.9)),
        ),
    ]
    for other in others:
        recommender = copy(second.recommender)
        recommender.checkpoint = other
        assert Version(second.row, recommender).sight != first.sight


def test_a_visit_that_is_kept_goes_on_as_one_that_is_made_again(version: Version) -> None:
    first = ask(version, 0.4, steps=1)
    kept = draw([first])[0].packed
    more = [*first.steps, Step((7,), [[0.5]], {}, 12.0)]
    again, goes_on = draw([replace(first, steps=more), replace(first, packed=kept, steps=more[1:])])
    assert again.items == goes_on.items and again.logprobs == pytest.approx(goes_on.logprobs, abs=1e-6)


def test_a_value_based_version_draws_at_the_temperature_of_its_checkpoint(tmp_path: Path) -> None:
    world = ["--env", "satiation", "--temperature", "0.1", "--total-timesteps", "96"]
    version = open_version(train_in(tmp_path / "run", *DQN, *world), 1)
    request = ask(version, 0.5, steps=0)
    [result] = draw([request], report=True)
    with torch.inference_mode():
        q = version.agent.model.q(result.rounds[0].obs)[0].double()  # (I,)
    assert float(q.max() - q.min()) > 1e-3  # values that differ
    each = draw([replace(request, items=(item,)) for item in range(24)])
    chances = torch.tensor([drawn.logprobs[0] for drawn in each], dtype=torch.float64).exp()
    torch.testing.assert_close(chances, (q / 0.1).softmax(0), atol=1e-6, rtol=0)

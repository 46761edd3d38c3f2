"""The nested forms of `searched`: each holds the smaller one, and its terms by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from recsys_rl.evaluation.rivals import rankers
from recsys_rl.evaluation.rivals.best_slate import BestSlate
from recsys_rl.evaluation.rivals.forms import HINGES, Factors, Form, Searched, form_note, hinges, of_rule
from recsys_rl.evaluation.rivals.rankers import Rule, RuleWeights
from recsys_rl.experience.rollout import Sessions, play
from recsys_rl.make import make_env
from recsys_rl.records import Split
from recsys_rl.settings.config import Config
from recsys_rl.types import Interface, Obs, World
from tests.small_runs import settings, world
from tests.tiny_world import tiny_catalogue

Z = math.sqrt(
    1.5
)  # the z-scores of the tiny catalogue's popularity are Z, 0, -Z, and of its quality -Z, 0, Z
TINY = Interface((("profile", 2),), (3,), history_length=4, session_length=4)
NO_FACTORS = Factors(torch.zeros(3, 2), torch.zeros(2, 2), torch.ones(2))


def share_over(obs: Obs, interface: Interface) -> Tensor:
    assert obs.history is not None
    return (obs.history >= 0).sum(1) / interface.session_length


CLOCK = Split(share_over, searched=True)
SURFACE = Split(lambda obs, interface: obs.context[:, -1], num_sets=3)


def numbers_of(form: Form, given: Mapping[str, float]) -> Tensor:
    """Numbers of the form: those given, and 0 for all others."""
    assert not given.keys() - set(form.names)
    return torch.tensor([given.get(name, 0.0) for name in form.names])


def policy(
    form: Form, numbers: Tensor, interface: Interface = TINY, factors: Factors = NO_FACTORS
) -> Searched:
    return Searched(tiny_catalogue(), interface, form, numbers, factors)


def asked(profile: list[list[float]], history: list[list[int]] | None = None) -> Obs:
    n = len(profile)
    return Obs(
        torch.tensor(profile),
        torch.full((n, 4), -1) if history is None else torch.tensor(history),
        torch.zeros(n, 4, 1),
    )


def shown(agent: Searched, obs: Obs) -> list[list[int]]:
    found: list[list[int]] = agent.act(obs).items.tolist()
    return found


@pytest.fixture(scope="module", params=["satiation", "long-video", "short-video", "drift"])
def place(request: pytest.FixtureRequest) -> tuple[Config, World]:
    sizes = {"num_items": 50, "embedding_dim": 4, "max_episode_steps": 6}
    config = settings("ppo", request.param, env_config=sizes, data_config={"num_users": 30})
    return config, world(config)


def session(place: tuple[Config, World], agent: Rule) -> Sessions:
    env = make_env(place[0], place[1], 30, torch.Generator().manual_seed(0), training=False)
    return play(env, agent, torch.arange(30))


def same(one: Sessions, other: Sessions) -> bool:
    """True if nearly all items are: scores that differ by rounding can lead two sessions apart."""
    return one.items.shape == other.items.shape and bool((one.items == other.items).float().mean() > 0.9)


def test_each_form_with_new_numbers_of_zero_shows_what_the_rule_shows(place: tuple[Config, World]) -> None:
    config, (catalogue, population) = place
    interface = make_env(config, place[1], 1, torch.Generator()).interface
    weights = RuleWeights(*torch.tensor([0.3, 0.2, 0.3, 0.2, 0.8, 0.2, 0.1]))
    rates = torch.linspace(-1, 1, 50)
    expected = session(place, Rule(catalogue, weights, BestSlate(interface.slate_size), rates))
    factors, split = Factors.of(catalogue, population.profile), config.platform.split
    form, numbers = Form(), of_rule(weights)
    for larger in (Form(), Form(split), Form(split, hinges=True), Form(split, hinges=True, product=True)):
        numbers, form = larger.grown_from(form, numbers), larger
        assert len(numbers) == len(form.names)
        agent = Searched(catalogue, interface, form, numbers, factors, rates)
        assert same(session(place, agent), expected)
        rows = Searched(catalogue, interface, form, numbers.expand(30, -1), factors, rates)
        assert same(session(place, rows), expected)  # as the search plays candidates


def test_hinges_by_hand() -> None:
    numbers = torch.tensor([[Z, -Z], [0.0, 0.0], [-Z, Z]])
    assert HINGES == (("popularity", "quality"), ("quality", "popularity"))
    torch.testing.assert_close(hinges(numbers), torch.tensor([[2 * Z, 0.0], [0.0, 0.0], [0.0, 2 * Z]]))


def test_a_hinge_takes_from_the_popular_item_alone() -> None:
    """The user (0.9, 0.5) has 0.9 for east, 0.5 for north and 0.94 for between."""
    form, user = Form(hinges=True), asked([[0.9, 0.5]])
    dear = numbers_of(form, {"popularity.0": 0.1})  # 0.9 + 0.122, 0.5, 0.94 - 0.122
    assert shown(policy(form, dear), user) == [[0]]
    for weight, best in ((-0.08, 0), (-0.09, 2)):  # 1.022 + 2 Z weight: 0.826, 0.802; between has 0.818
        catchy = numbers_of(form, {"popularity.0": 0.1, "popularity - quality.0": weight})
        assert shown(policy(form, catchy), user) == [[best]]


def test_the_second_set_begins_at_its_share_of_the_session() -> None:
    """With 0.5, two of four steps: popularity counts against an item before, and for it afterwards."""
    form = Form(CLOCK)
    numbers = numbers_of(
        form, {"popularity.0": -1.0, "popularity.1": 1.0, "second set begins at": 0.5, "profile.1": 1.0}
    )
    history = [[-1, -1, -1, -1], [-1, -1, -1, 1], [-1, -1, 1, 1], [1, 1, 1, 1]]
    assert shown(policy(form, numbers), asked([[0.6, 0.6]] * 4, history)) == [[2], [2], [0], [0]]


def test_a_surface_has_its_own_weights() -> None:
    form = Form(SURFACE)
    numbers = numbers_of(form, {"quality.1": -1.0, "quality.2": 1.0, "profile.1": 1.0, "profile.2": 1.0})
    interface = replace(TINY, context=(("profile", 2), ("surface", 1)))
    user = asked([[0.0, 1.0, 0.0], [0.0, 1.0, 1.0], [0.0, 1.0, 2.0]])
    assert shown(policy(form, numbers, interface), user) == [[1], [0], [2]]


def test_the_profile_has_a_weight_in_later_sets() -> None:
    """Beside a video, items unlike the profile can be wanted: east has the product 0 with north."""
    form = Form(SURFACE)
    interface = replace(TINY, context=(("profile", 2), ("surface", 1)))
    user = asked([[0.0, 1.0, 0.0], [0.0, 1.0, 1.0]])
    assert shown(policy(form, numbers_of(form, {"profile.1": -0.5}), interface), user) == [[1], [0]]


def test_the_product_by_hand() -> None:
    """z of the three items (1, 0), (0, 1), (0, -1) and q = 2 u: w_01 = 1 pays z_i0 q_1 = 2 u_1 for east."""
    factors = Factors(
        torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]), torch.eye(2), torch.tensor([2.0, 2.0])
    )
    form, user = Form(product=True), asked([[0.6, 0.8]])
    for name, value, best in (
        ("product 01", 0.2, 2),  # 0.6 + 0.32 for east, 1 for between
        ("product 01", 0.3, 0),  # 0.6 + 0.48
        ("product 10", 0.2, 1),  # z_i1 q_0: 0.8 + 0.24 for north, 1 - 0.24 for between
        ("product 11", -0.1, 2),  # 0.8 - 0.16, 1 + 0.16
    ):
        assert shown(policy(form, numbers_of(form, {name: value}), factors=factors), user) == [[best]]


def test_factors_are_the_principal_axes() -> None:
    """Four items on two axes: the leading one is that of the larger spread; coordinates have variance 1."""
    embedding = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.5], [0.0, -0.5]])
    found = Factors.of(replace(tiny_catalogue(), embedding=embedding), torch.tensor([[2.0, 0.0], [0.0, 1.0]]))
    torch.testing.assert_close(found.axes, torch.eye(2))
    root = 2**0.5
    torch.testing.assert_close(
        found.of_items, root * torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    )
    # Mean squares 2 and 1/2 of the users' coordinates.
    torch.testing.assert_close(found.of_users(torch.tensor([[1.0, 1.0]])), torch.tensor([[1 / root, root]]))


def test_a_slate_holds_the_best_items_in_order() -> None:
    form = Form(hinges=True)
    pair = replace(TINY, slate_size=2)
    numbers = numbers_of(form, {"quality.0": 0.5})  # 0.9 - 0.61, 0.5, 0.94 + 0.61
    assert shown(policy(form, numbers, pair), asked([[0.9, 0.5]])) == [[2, 1]]


def test_a_large_catalogue_is_ranked_within_the_shortlist(
    place: tuple[Config, World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """49 of 50 items are the whole catalogue, but for the one farthest from the profile; 20 are nearest."""
    config, (catalogue, population) = place
    interface = make_env(config, place[1], 1, torch.Generator()).interface
    form = Form(config.platform.split, hinges=True, product=True)
    numbers = 0.02 * torch.randn(len(form.names), generator=torch.Generator().manual_seed(0))
    agent = Searched(catalogue, interface, form, numbers, Factors.of(catalogue, population.profile))
    whole = session(place, agent)
    assert agent.reader() is None

    def among(count: int) -> Sessions:
        monkeypatch.setattr(rankers, "SHORTLIST", count)
        return session(
            place, Searched(catalogue, interface, form, numbers, Factors.of(catalogue, population.profile))
        )

    assert bool((among(49).items[0] == whole.items[0]).float().mean() > 0.9)
    nearest = (population.profile @ catalogue.embedding.T).topk(20).indices  # (U, 20)
    first = among(20).items[0]  # (U, K)
    assert bool((first.unsqueeze(2) == nearest.unsqueeze(1)).any(2).all())


def test_the_note_has_the_numbers_of_all_sets_beside_each_other() -> None:
    form = Form(CLOCK, hinges=True)
    numbers = numbers_of(form, {"fold_in": -0.1, "popularity.0": -0.12, "popularity.1": 0.3})
    note = form_note(form, numbers, 1234)
    assert note.startswith("decay 0.50, fold-in off, profile 1.00 / 0.00, second set begins at 0.00, ")
    assert ", popularity -0.12 / 0.30, quality 0.00 / 0.00, " in note
    assert note.endswith("quality - popularity 0.00 / 0.00; searched with 1,234 steps of training users")

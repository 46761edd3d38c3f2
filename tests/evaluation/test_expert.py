"""The row `expert`: the form of each platform's equations by hand, and the policy of the best items."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from recsys_rl.agents import rankers
from recsys_rl.config import Config
from recsys_rl.env import long_video as long
from recsys_rl.env import satiation as sated
from recsys_rl.env import short_video as short
from recsys_rl.evaluation.expert import ByEquations, expert_note, search_expert
from recsys_rl.experience.rollout import Sessions, play
from recsys_rl.lookup import platform_of
from recsys_rl.make import make_env, make_user_model
from recsys_rl.protocols import Expert
from recsys_rl.types import Interface, Obs, World
from tests.env.test_long_video import tiny as tiny_long_video
from tests.env.test_short_video import tiny as tiny_short_video
from tests.evaluation.test_tuning import trainees
from tests.small_runs import settings, world
from tests.tiny_world import tiny_satiation

ROOT = 2**0.5
CANDIDATES = torch.tensor([[2, 0, -1]])


def of(**values: float) -> dict[str, Tensor]:
    return {name: torch.tensor(value) for name, value in values.items()}


def check(scores: Tensor, expected: list[float], among: Tensor) -> None:
    """``scores`` of all items as expected, and ``among`` those of CANDIDATES, but for the padding."""
    assert_close(scores, torch.tensor([expected]), atol=1e-5, rtol=0)
    assert_close(among[:, :2], torch.tensor([[expected[2], expected[0]]]), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("turn", "price"), [(0.3, 0.2), (0.4, -0.1)])
def test_scores_of_satiation(turn: float, price: float) -> None:
    """One of three steps is over, and it showed east: m = w = (1/2, 0) with 1/2 kept. Only east is catchy."""
    model = tiny_satiation([[0.6, 0.8]])
    interface = Interface((("profile", 2), ("last_item", 2)), (3,), history_length=3, session_length=3)
    obs = Obs(torch.tensor([[0.6, 0.8, 1.0, 0.0]]), torch.tensor([[-1, -1, 0]]))
    numbers = of(wear=0.5, wear_of_tags=0.25, kept=0.5, early=-0.1, late=0.2, turn=turn)
    scores, among = (sated.expert_scores(model, interface, obs, numbers, x) for x in (None, CANDIDATES))
    expected = [0.6 - 0.25 - 0.125 + price * 3**0.5, 0.8, 1 - 0.5 * 0.3 - 0.25 * 0.5 / ROOT]
    check(scores, expected, among)


def test_weariness_of_satiation_counts_likeness_alone() -> None:
    """After west, east is not more wanted: m . e = -1/2 counts as 0."""
    model = tiny_satiation([[0.6, 0.8]])
    west = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.6, 0.8]])
    model = dataclasses.replace(model, catalogue=dataclasses.replace(model.catalogue, embedding=west))
    interface = Interface((("profile", 2), ("last_item", 2)), (3,), history_length=3, session_length=3)
    obs = Obs(torch.tensor([[0.6, 0.8, -1.0, 0.0]]), torch.tensor([[-1, -1, 1]]))
    numbers = of(wear=1.0, wear_of_tags=0.0, kept=0.5, early=0.0, late=0.0, turn=0.5)
    scores = sated.expert_scores(model, interface, obs, numbers, None)
    assert_close(scores, torch.tensor([[0.6, -0.6 - 0.5, 1.0]]))


def test_scores_of_short_video() -> None:
    """After east with ratio 1 and north with 1/2, the mood is (0.98 / 4, -1/4) times sqrt(2)."""
    model = tiny_short_video()
    interface = Interface((("profile", 2),), (4,), history_length=3, signals=("watch_ratio",))
    obs = Obs(torch.tensor([[1.0, 0.0]]), torch.tensor([[-1, 0, 2]]), torch.tensor([[[0.0], [1.0], [0.5]]]))
    numbers = of(pull=1.0, wear=1.0, mood=1.0, after=0.1)
    scores, among = (short.expert_scores(model, interface, obs, numbers, x) for x in (None, CANDIDATES))
    # Pull 1.1 and -0.9, taste 2 u . e, mood, creators (0, 0, 1, 2) and tags, and the after-effect of (0, 1).
    wear = [0.25 + 0.4 * 0.25, 0.25 + 0.4 * 0.75 / ROOT, 0.5 + 0.4 * 0.5, 0.0]
    check(
        scores,
        [
            1.1 + 2 + 0.49 - wear[0],
            1.1 - 2 - 0.49 - wear[1],
            -0.9 - 0.5 - wear[2] + 0.1 * ROOT,
            -0.9 + 0.5 - wear[3] - 0.1 * ROOT,
        ],
        among,
    )


@pytest.mark.parametrize(
    ("progress", "surface"), [(0, "home"), (1, "beside"), (3, "beside"), (4, "last_quarter")]
)
def test_scores_of_long_video(progress: int, surface: str) -> None:
    """North was watched, and east plays but at home. Only the surface's weights count."""
    model = tiny_long_video()
    context = (("profile", 2), ("current_item", 2), ("progress", 5), ("idle", 1), ("clock", 1))
    interface = Interface(context, (3,), slate_size=2, history_length=4)
    playing = [1.0, 0.0] if progress else [0.0, 0.0]
    place = [float(progress == k) for k in range(5)]
    obs = Obs(torch.tensor([[0.6, 0.8, *playing, *place, 0.0, 0.5]]), torch.tensor([[-1, -1, -1, 1]]))
    weights = {"fit": 2.0, "catch": 0.5, "length": 0.1, "wear": 0.2, "like": 0.3}
    numbers = {
        f"{name}.{each}": torch.tensor(value if each == surface else 99.0)
        for each in long.SURFACES
        for name, value in weights.items()
    }
    scores, among = (long.expert_scores(model, interface, obs, numbers, x) for x in (None, CANDIDATES))
    seen = [0.5, 0.5, 0.7] if progress else [0.0, 1.0, 0.8]  # mean of north and east, or north, times e_i
    expected = [
        1.2 + 0.5 * 3**0.5 - 0.3 * seen[0],
        1.6 - 0.1 * 2 - 0.2 - 0.3 * seen[1],  # north's category was just watched, and it lasts e^2 as long
        2.0 - 0.2 / ROOT - 0.3 * seen[2],
    ]
    check(scores, expected, among)


def names_of(expert: Expert) -> dict[str, Tensor]:
    return {name: torch.tensor(first) for name, (first, _) in expert.numbers.items()}


@pytest.fixture(params=["satiation", "long-video", "short-video"])
def place(request: pytest.FixtureRequest) -> tuple[Config, World, Expert, Interface]:
    sizes = {"num_items": 50, "embedding_dim": 4, "max_episode_steps": 6}
    config = settings("ppo", request.param, env_config=sizes, data_config={"num_users": 30})
    expert = config.platform.expert
    assert expert is not None
    made = world(config)
    return config, made, expert, make_env(config, made, 1, torch.Generator()).interface


def session(
    place: tuple[Config, World, Expert, Interface], numbers: Mapping[str, Tensor]
) -> tuple[ByEquations, Sessions]:
    config, made, expert, interface = place
    agent = ByEquations(expert, make_user_model(config, made), made.catalogue, interface, numbers)
    env = make_env(config, made, 30, torch.Generator().manual_seed(0), training=False)
    return agent, play(env, agent, torch.arange(30))


def test_expert_repeats_no_item_and_rows_have_their_own_numbers(
    place: tuple[Config, World, Expert, Interface],
) -> None:
    _, _, expert, interface = place
    numbers = names_of(expert)
    _, found = session(place, numbers)
    for row in found.items.flatten(2).transpose(0, 1).flatten(1):  # (T K,) of each user
        shown = row[row >= 0].tolist()
        assert len(shown) == len(set(shown)) >= interface.slate_size
    _, others = session(place, {name: x.expand(30) for name, x in numbers.items()})
    assert bool((others.items == found.items).float().mean() > 0.9)  # equal but for rounding


def test_a_large_catalogue_is_ranked_within_the_shortlist(
    place: tuple[Config, World, Expert, Interface], monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = names_of(place[2])
    whole = session(place, numbers)[1]
    monkeypatch.setattr(rankers, "SHORTLIST", 49)
    agent, found = session(place, numbers)
    assert agent.reader() is not None
    assert bool((found.items[0] == whole.items[0]).float().mean() > 0.9)
    monkeypatch.setattr(rankers, "SHORTLIST", 20)
    catalogue, population = place[1]
    nearest = (population.profile @ catalogue.embedding.T).topk(20).indices  # (U, 20)
    first = session(place, numbers)[1].items[0]  # (U, K)
    assert bool((first.unsqueeze(2) == nearest.unsqueeze(1)).any(2).all())


def test_places_without_an_allowed_item_stay_empty() -> None:
    model = tiny_satiation([[0.6, 0.8]])
    interface = Interface(
        (("profile", 2), ("last_item", 2)), (3,), slate_size=2, history_length=3, session_length=3
    )
    agent = ByEquations(sated.EXPERT, model, model.catalogue, interface, names_of(sated.EXPERT))
    obs = Obs(torch.tensor([[0.6, 0.8, 0.0, 0.0]]), torch.tensor([[-1, 0, 1]]))
    none = dataclasses.replace(obs, exclude=obs.history)
    assert agent.act(none).items.tolist() == [[2, -1]]
    assert agent.act(none.among(torch.tensor([[2, -1, -1]]))).items.tolist() == [[2, -1]]


def test_search_earns_more_than_the_first_numbers() -> None:
    sizes = {"num_items": 60, "embedding_dim": 8}
    config = settings("ppo", "satiation", env_config=sizes, data_config={"num_users": 200})
    made = world(config)
    found, steps = search_expert(trainees(config, made), sated.EXPERT, make_user_model(config, made), 40_000)
    assert 30_000 < steps <= 40_000
    interface = make_env(config, made, 1, torch.Generator()).interface
    everyone = config, made, sated.EXPERT, interface
    first = {name: torch.tensor(x) for name, (x, _) in sated.EXPERT.numbers.items()}
    numbers = dict(zip(first, found.unbind(), strict=True))
    before, after = (session(everyone, x)[1].returns.mean() for x in (first, numbers))
    assert after > before
    note = expert_note(sated.EXPERT, numbers, steps)
    assert f"searched with {steps:,} steps" in note
    assert "knows the equations" not in note  # the row's mark says it


def test_platforms_without_equations_of_items_have_no_expert() -> None:
    for name in ("drift", "gym:CartPole-v1"):
        platform = platform_of(name)
        assert platform.expert is None and platform.split is None

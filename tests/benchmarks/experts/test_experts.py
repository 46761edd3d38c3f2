"""The row `expert`: the form of each platform's equations by hand, and the policy of the best items."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from benchmarks.experts import long_video as long
from benchmarks.experts import policy
from benchmarks.experts import satiation as sated
from benchmarks.experts.form import Expert, FollowedObs
from benchmarks.experts.policy import EXPERTS, ByEquations, Following, expert_note, search_expert
from benchmarks.experts.walker import Walker
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.env.satiation import Satiation
from recsys_rl.env.short_video import ShortVideo
from recsys_rl.evaluation.rivals import rankers
from recsys_rl.experience.rollout import Sessions, play
from recsys_rl.make import make_env, make_user_model
from recsys_rl.settings.config import Config
from recsys_rl.types import Interface, Obs, UserError, World
from tests.evaluation.rivals.test_tuning import trainees
from tests.small_runs import settings, world
from tests.tiny_world import SATIATION, tiny_satiation

CANDIDATES = torch.tensor([[2, 0, -1]])


def of(**values: float) -> dict[str, Tensor]:
    return {name: torch.tensor(value) for name, value in values.items()}


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def followed(
    obs: Obs, interface: Interface, model: Satiation, expert: Expert, **numbers: float
) -> FollowedObs:
    agent = ByEquations(expert, model, model.catalogue, interface, of(**numbers))
    found = agent.reader().follow(obs)
    assert isinstance(found, FollowedObs)
    return found


def test_scores_of_satiation() -> None:
    """One of three steps is over: east, which is catchy by sqrt(3) and is answered by 0.1 too little.

    The taste (0.6, 0.8) moves by -0.1 * 2 along east, to (0.4, 0.8).
    """
    users = tiny_satiation([[0.6, 0.8]], replace(SATIATION, patience_start=0.5, patience_gain=2.0))
    interface = Interface((("profile", 2), ("last_item", 2)), (3,), history_length=3, session_length=3)
    expected = sigmoid(4 * (0.6 - 0.5) + 3**0.5)
    answers = torch.tensor([[[0.0], [0.0], [expected - 0.1]]])
    obs = Obs(torch.tensor([[0.6, 0.8, 1.0, 0.0]]), torch.tensor([[-1, -1, 0]]), answers)
    numbers = {"learned": 2.0, "patience": 0.3, "ahead": 2.0, "last": 0.1, "near": 0.0}
    obs = followed(obs, interface, users, sated.EXPERT, **numbers)
    patience = 0.5 - 0.5 * (0.5 - sigmoid(4 * (0.6 - 0.5) - 3**0.5))
    assert obs.known["patience"].item() == pytest.approx(patience)
    assert_close(obs.known["taste"], torch.tensor([[0.4, 0.8]]))
    price = 0.3 + 2.0 * 2 / 10 + 0.1  # two steps are left
    wear = [0.5 + 0.5, 0.0, 0.3 + 0.5 / 2**0.5]  # of east's embedding and genre, half of which are left
    base = [
        4 * (fit - 0.5) + 2 * (patience - 0.5) - worn
        for fit, worn in zip([0.4, 0.8, 0.88], wear, strict=True)
    ]
    lure = [3**0.5, 0.0, 0.0]
    wanted = [
        sigmoid(x + c) + price * min(0.5 * (sigmoid(x - c) - 0.5), 1 - patience)
        for x, c in zip(base, lure, strict=True)
    ]
    scores, among = (
        sated.scores(users, interface, obs, of(**numbers), items) for items in (None, CANDIDATES)
    )
    assert_close(scores, torch.tensor([wanted]))
    assert_close(among[:, :2], torch.tensor([[wanted[2], wanted[0]]]))


def test_price_of_items_near_the_favourites() -> None:
    """All three items are favourites: their mean is (1.6, 1.8) / 3, of genres (1 + 1 / sqrt(2)) / 3 each."""
    users = tiny_satiation([[0.6, 0.8]])
    genre = (1 + 0.5**0.5) / 3
    tires = [1.6 / 3 + genre, 1.8 / 3 + genre, (0.96 + 1.44) / 3 + genre * 2**0.5]
    state = users.sample(torch.tensor([0]))
    assert_close(sated.tiresomeness(users, state, None), torch.tensor([tires]))
    found = sated.tiresomeness(users, state, CANDIDATES)[:, :2]
    assert_close(found, torch.tensor([[tires[2], tires[0]]]))


def test_completion_that_is_paid_in_time() -> None:
    """Each quarter is watched with probability 1/2. Leaving takes a request, and so does the last quarter."""
    half = torch.full((4,), 0.5)
    paid, taken = long.paid_within(half, torch.tensor([0, 1, 2, 9]))
    whole = (0.5 + 0.25 + 0.125 + 0.0625) / 4
    assert_close(paid, torch.tensor([0.0, 0.0, 0.25 / 4, whole]))
    assert_close(taken, torch.tensor([0.0, 1.0, 1.5, 1.875]))
    paid, taken = long.paid_within(half[:2], torch.tensor([1, 9]), torch.tensor([3, 2]))
    assert_close(paid, torch.tensor([0.5 * 0.75 + 0.5, 0.5 * 0.5 + 0.25 * 0.75 + 0.25]))
    assert_close(taken, torch.tensor([1.0, 1.5]))
    assert_close(long.paid_within(half, torch.full((4,), 4))[0], torch.full((4,), whole))


QUIET = {  # what a profile and the answers tell is then all that there is
    "satiation": {"noise": 0.0},
    "short-video": {"mood_deviation": 0.0, "ease_deviation": 0.0, "loop_deviation": 0.0},
    "long-video": {},
}


@pytest.mark.parametrize("name", QUIET)
def test_the_walk_follows_the_true_stock(name: str) -> None:
    """It does so exactly where the profile is the taste, and the trust for any taste.

    It is the same one entry at a time as from the start, also in the sessions that begin on the way.
    """
    sizes = {"num_items": 90, "embedding_dim": 4, "max_episode_steps": 8, **QUIET[name]}
    config = settings("ppo", name, env_config=sizes, data_config={"num_users": 30})
    made, expert = world(config), EXPERTS[config.platform.users]
    assert expert is not None and expert.walk is not None
    env = make_env(config, made, 30, torch.Generator().manual_seed(0), training=False)
    assert isinstance(env, RecEnv)
    numbers = {**names_of(expert), "learned": torch.tensor(0.0)}
    agent = ByEquations(expert, env.user_model, made.catalogue, env.interface, numbers)
    obs, reader, moved = env.reset(torch.arange(30)), agent.reader(), torch.zeros(30)
    start = getattr(env.user_state, expert.walk.stock)
    for _ in range(12):
        found = reader.follow(obs)
        assert isinstance(found, FollowedObs)
        known, fresh = found.known, agent.reader().follow(obs)
        assert isinstance(fresh, FollowedObs)
        for entry, x in known.items():
            assert_close(x, fresh.known[entry], atol=1e-5, rtol=1e-5)
        true = getattr(env.user_state, expert.walk.stock)
        assert_close(known[expert.walk.stock], true, atol=1e-4, rtol=0)
        moved = torch.maximum(moved, (true - start).abs())
        obs = env.step(agent.act(found).items).obs
    assert bool((moved > 0.02).float().mean() > 0.5)


@pytest.mark.parametrize("name", QUIET)
def test_a_held_walk_keeps_the_stock_of_the_start_alone(name: str) -> None:
    sizes = {"num_items": 90, "embedding_dim": 4, "max_episode_steps": 8}
    config = settings("ppo", name, env_config=sizes, data_config={"num_users": 30})
    expert = EXPERTS[config.platform.users]
    assert expert is not None and expert.walk is not None
    made = world(config)
    env = make_env(config, made, 30, torch.Generator().manual_seed(0), training=False)
    assert isinstance(env, RecEnv)
    walks = expert.walk, expert.walk.held()
    as_it_is, held = (
        ByEquations(form, env.user_model, made.catalogue, env.interface, names_of(expert))
        for form in (replace(expert, walk=walk) for walk in walks)
    )
    obs = env.reset(torch.arange(30))
    for _ in range(6):
        obs = env.step(as_it_is.act(obs).items).obs
    known, kept = (agent.reader().follow(obs) for agent in (as_it_is, held))
    assert isinstance(known, FollowedObs) and isinstance(kept, FollowedObs)
    stock = expert.walk.stock
    assert len(kept.known[stock].unique()) == 1 and len(known.known[stock].unique()) > 1
    assert bool((kept.known["taste"] != kept.known["taste"][0]).any())


def walker_of(users: Satiation, interface: Interface) -> Walker:
    assert sated.EXPERT.walk is not None
    return Walker(sated.EXPERT.walk, users, interface, names_of(sated.EXPERT))


def request(profile: list[float], history: list[int]) -> Obs:
    answers = torch.full((1, len(history), 1), 0.5)
    return Obs(torch.tensor([[*profile, 0.0, 0.0]]), torch.tensor([history]), answers)


@pytest.mark.parametrize("ended", [None, torch.tensor([True])])
def test_a_new_user_without_a_history_has_their_own_profile(ended: Tensor | None) -> None:
    """Also after a user whose history was empty, or of the same one item."""
    interface = Interface((("profile", 2), ("last_item", 2)), (3,), history_length=3, session_length=3)
    for history in ([-1, -1, -1], [-1, -1, 0]):
        walker = walker_of(tiny_satiation([[0.6, 0.8]]), interface)
        walker.follow(request([0.6, 0.8], history))
        known = walker.follow(request([1.0, 0.0], history), ended)
        fresh = walker_of(tiny_satiation([[0.6, 0.8]]), interface).follow(request([1.0, 0.0], history))
        assert all(torch.equal(known[name], x) for name, x in fresh.items())


def test_an_unchanged_history_of_one_item_is_no_new_entry() -> None:
    interface = Interface((("profile", 2), ("last_item", 2)), (3,), history_length=1, session_length=3)
    walker = walker_of(tiny_satiation([[0.6, 0.8]]), interface)
    before = walker.follow(request([0.6, 0.8], [0]))["patience"]
    assert torch.equal(walker.follow(request([0.6, 0.8], [0]))["patience"], before)
    assert not torch.equal(walker.follow(request([0.6, 0.8], [1]))["patience"], before)


def names_of(expert: Expert) -> dict[str, Tensor]:
    return {name: torch.tensor(first) for name, (first, _) in expert.numbers.items()}


@pytest.fixture(params=["satiation", "long-video", "short-video"])
def place(request: pytest.FixtureRequest) -> tuple[Config, World, Expert, Interface]:
    sizes = {"num_items": 50, "embedding_dim": 4, "max_episode_steps": 6}
    config = settings("ppo", request.param, env_config=sizes, data_config={"num_users": 30})
    expert = EXPERTS[config.platform.users]
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
    assert agent.reader().shortlist is not None
    assert bool((found.items[0] == whole.items[0]).float().mean() > 0.9)
    monkeypatch.setattr(rankers, "SHORTLIST", 20)
    catalogue, population = place[1]
    nearest = (population.profile @ catalogue.embedding.T).topk(20).indices  # (U, 20)
    first = session(place, numbers)[1].items[0]  # (U, K)
    assert bool((first.unsqueeze(2) == nearest.unsqueeze(1)).any(2).all())


@pytest.mark.parametrize("shortlist", [1000, 20])
def test_the_table_plays_what_the_search_played(
    place: tuple[Config, World, Expert, Interface], shortlist: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By observations alone, one table after another, also of fewer or other users."""
    monkeypatch.setattr(rankers, "SHORTLIST", shortlist)
    config, made, expert, interface = place
    agent = ByEquations(expert, make_user_model(config, made), made.catalogue, interface, names_of(expert))
    following = Following(agent)
    for users in (torch.arange(30), torch.arange(12), torch.arange(12, 24), torch.arange(12, 24)):
        ours, theirs = (
            play(make_env(config, made, 1, torch.Generator().manual_seed(0), training=False), policy, users)
            for policy in (following, agent)
        )
        assert torch.equal(ours.items, theirs.items) and torch.equal(ours.rewards, theirs.rewards)


def test_the_table_follows_sessions_that_are_longer_than_the_history() -> None:
    """A session of short-video has 60 videos here, of which an observation holds 50."""
    sizes = {"num_items": 90, "embedding_dim": 4, "max_episode_steps": 60}
    config = settings("ppo", "short-video", env_config=sizes, data_config={"num_users": 12})
    made, form = world(config), EXPERTS[ShortVideo]
    env = make_env(config, made, 1, torch.Generator(), training=False)
    agent = ByEquations(form, make_user_model(config, made), made.catalogue, env.interface, names_of(form))
    assert env.interface.history_length == 50

    following = Following(agent)
    ours, theirs = (
        play(
            make_env(config, made, 1, torch.Generator().manual_seed(0), training=False), one, torch.arange(8)
        )
        for one in (following, agent)
    )
    assert torch.equal(ours.items, theirs.items)
    assert following.follower is not None and following.follower.walker is not None
    assert int(following.follower.walker.known["steps"].max()) > 50


def test_users_without_an_expert_are_refused() -> None:
    config = settings("ppo", "drift", env_config={"num_items": 24}, data_config={"num_users": 30})
    made = world(config)
    with pytest.raises(UserError):
        policy.expert(made.catalogue, trainees(config, made), 100)


def test_places_without_an_allowed_item_stay_empty() -> None:
    model = tiny_satiation([[0.6, 0.8]])
    interface = Interface(
        (("profile", 2), ("last_item", 2)), (3,), slate_size=2, history_length=3, session_length=3
    )
    agent = ByEquations(sated.EXPERT, model, model.catalogue, interface, names_of(sated.EXPERT))
    obs = Obs(torch.tensor([[0.6, 0.8, 0.0, 0.0]]), torch.tensor([[-1, 0, 1]]), torch.zeros(1, 3, 1))
    none = dataclasses.replace(obs, exclude=obs.history)
    assert agent.act(none).items.tolist() == [[2, -1]]
    assert agent.act(none.among(torch.tensor([[2, -1, -1]]))).items.tolist() == [[2, -1]]


def test_candidates_may_come_with_the_observation(place: tuple[Config, World, Expert, Interface]) -> None:
    """Among all items that were not shown, the choice is that of the whole catalogue."""
    config, made, expert, _ = place
    agent, _ = session(place, names_of(expert))
    env = make_env(config, made, 30, torch.Generator().manual_seed(0), training=False)
    obs = env.reset(torch.arange(30))
    for _ in range(4):
        whole = agent.act(obs)
        allowed = obs.allowed(made.catalogue.num_items)
        among = torch.where(allowed, torch.arange(made.catalogue.num_items), -1)
        assert bool(
            (agent.act(obs.among(among)).items == whole.items).float().mean() > 0.9
        )  # but for rounding
        obs = env.step(whole.items).obs


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

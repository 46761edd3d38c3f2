"""The users of a feed: each equation by hand, what a step forbids, and what an observation may hold."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from recsys_rl.cli import main
from recsys_rl.env import social_feed
from recsys_rl.env.heuristics import LOADS, WithAds, fixed_load
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.env.social_feed import (
    AD,
    AD_GAP,
    ITEMS,
    KINDS,
    MOST_PATIENCE,
    MOST_PLACES,
    POST,
    STORY,
    SUGGESTION,
    VISIT_PIECES,
    SocialFeed,
    SocialFeedConfig,
    SocialFeedState,
    add_attributes,
    kinds,
)
from recsys_rl.evaluation.rivals.baselines import simple_baselines
from recsys_rl.evaluation.rivals.rankers import Rule, RuleWeights
from recsys_rl.evaluation.rivals.references import Myopic, Planner
from recsys_rl.experience.rollout import play
from recsys_rl.make import make_env, make_user_model
from recsys_rl.protocols import Policy
from recsys_rl.records import Known
from recsys_rl.settings.config import Config, from_dict
from recsys_rl.testing import check_env, check_user_model
from recsys_rl.types import Catalogue, Feedback, Obs, Population, UserError, World
from recsys_rl.user_columns import UserColumns
from tests.doors import DRIFT, steps
from tests.env.hand import by_hand
from tests.small_runs import settings, world

SHOWN = torch.ones(1, 1, dtype=torch.bool)
CONFIG = SocialFeedConfig(
    num_items=5,
    embedding_dim=2,
    max_episode_steps=2,
    dwell_noise=0.1,
    place_cost=0.4,
    ad_cost=0.3,
    tolerance_cost=0.2,
    ad_drain=0.1,
    tolerance_kept=0.9,
)
hand = by_hand(
    social_feed,
    post_base=0.1,
    story_base=0.2,
    suggestion_base=-0.3,
    ad_base=-0.4,
    fit_gain=2.0,
    interest_deviation=0.5,
    post_pull=0.0,
    stranger_cost=0.7,
    likeness_cost=1.5,
    likeness_kept=0.8,
    click_cost=1.0,
    liking_cost=2.0,
    sharing_rate=0.1,
    reply_rate=0.2,
    follow_cost=0.5,
    ad_click_cost=0.6,
    start_patience=5.0,
    satisfaction_gain=0.5,
    misfit_drain=2.0,
    ad_weariness=1.2,
)
FRIEND, OTHER, ADVERT, CARD, NEWS = range(5)  # the items: two posts, an ad, a suggestion of 1, a story


def tiny(config: SocialFeedConfig = CONFIG, visits: int = 1) -> SocialFeed:
    """Five items and one user, who likes the first axis and follows creator 0 alone."""
    catalogue = Catalogue(
        embedding=torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [0.8, -0.6], [-1.0, 0.0]]),
        item_ids=torch.arange(5),
        titles=(),
        popularity=torch.full((5,), 0.5),
        quality=torch.full((5,), 0.5),
        available=torch.ones(5, dtype=torch.bool),
        source="made up",
        attributes={
            "kind": torch.tensor([POST, POST, AD, SUGGESTION, STORY]),
            "creator": torch.tensor([0, 1, 2, 1, 0]),
            "author": torch.tensor([0, 1, -1, -1, 0]),
            "bid": torch.tensor([0.0, 0.0, 4.0, 0.0, 0.0]),
            "born": torch.tensor([0.0, 0.0, 0.0, 0.0, 160.0]),
            "expires": torch.tensor([168.0, 168.0, 168.0, 168.0, 184.0]),
        },
    )
    user = torch.tensor([[1.0, 0.0]])
    one = torch.tensor([0])
    population = Population(
        *(user, 0.5 * user, one, one, one[:0]),
        attributes={
            "ease": torch.tensor([0.4]),
            "habit": torch.tensor([1.0]),
            "opened": torch.tensor([20.0]),
            "follows": torch.tensor([[0]]),
        },
    )
    return SocialFeed(catalogue, population, replace(config, visits=visits))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def show(model: SocialFeed, state: SocialFeedState, item: int) -> tuple[list[float], SocialFeedState]:
    """The signals without noise, and the next state."""
    items = torch.tensor([[item]])
    feedback = model.respond(state, items, SHOWN, None)
    return feedback.signals[0, 0].tolist(), model.advance(state, items, feedback)[0]


def test_responses_by_hand() -> None:
    model = tiny()
    state = model.sample(torch.tensor([0]))
    ease = 0.2
    for item, appeal in (
        (FRIEND, 0.1 + 2 * 1.0 + ease),
        (OTHER, 0.1 + 2 * 0.0 + ease - 0.7),
        (NEWS, 0.2 - 2 * 1.0 + ease),
    ):
        engaged = sigmoid(appeal - 1) + 1.3 * sigmoid(appeal - 2)
        signals, _ = show(model, state, item)
        assert_close(signals, [sigmoid(appeal), engaged, 0.0, 0.0, sigmoid(appeal)], rtol=1e-5, atol=1e-6)
    appeal = -0.3 + 2 * 0.8 + ease
    follow = sigmoid(appeal - 0.5)
    signals, after = show(model, state, CARD)
    assert_close(signals, [sigmoid(appeal), follow, follow, 0.0, sigmoid(appeal)], rtol=1e-5, atol=1e-6)
    assert_close(after.follows, torch.tensor([[1.0, follow, 0.0]]))  # of creator 1, from now on
    assert_close(show(model, after, OTHER)[0][0], sigmoid(0.1 + ease - 0.7 * (1 - follow)))
    appeal = -0.4 + 2 * 0.6 + ease - 1.2 * 0.25
    signals, _ = show(model, replace(state, tolerance=torch.tensor([0.75])), ADVERT)
    revenue = 4 * sigmoid(appeal - 0.6)
    assert_close(signals, [sigmoid(appeal), 0.0, 0.0, revenue, sigmoid(appeal)], rtol=1e-5, atol=1e-6)


def test_rewards_are_the_weighted_streams() -> None:
    model = tiny()
    feedback = Feedback(torch.tensor([[[0.5, 2.0, 0.0, 3.0, 0.9]]]), SHOWN)
    assert model.rewards(feedback).tolist() == [[2.0, 0.5, 3.0]]
    assert [(stream.name, stream.weight) for stream in model.streams] == [
        ("engagement", 0.3),
        ("dwell", 0.3),
        ("revenue", 0.4),
    ]


def test_stocks_by_hand() -> None:
    """Patience, tolerance, sameness and the places since the last ad."""
    model = tiny()
    state = replace(model.sample(torch.tensor([0])), tolerance=torch.tensor([0.75]))
    signals, after = show(model, state, FRIEND)
    assert_close(after.patience.item(), 5 + 0.5 * signals[4] - 0.4 - 0.2 * 0.25)
    assert_close(after.same, torch.tensor([[0.2, 0.0]]))
    assert after.tolerance.item() == 0.75 and after.since_ad.item() == MOST_PLACES
    _, again = show(model, after, OTHER)
    assert_close(again.same, torch.tensor([[0.16, 0.2]]))
    wear = 1.5 * 0.16
    assert_close(show(model, again, FRIEND)[0][0], sigmoid(0.1 + 2 + 0.2 - wear))
    _, ad = show(model, again, ADVERT)
    assert_close(ad.tolerance.item(), 0.75 - 0.1 * (1 + 2 * (1 - 0.6) / 2))
    assert_close(ad.patience.item(), again.patience.item() - 0.3 - 0.2 * 0.25)
    assert ad.since_ad.item() == 0 and ad.last_kind.item() == AD and torch.equal(ad.same, again.same)
    seconds = 30 * (ad.hour.item() - again.hour.item()) * 120
    assert_close(seconds, 30 * show(model, again, ADVERT)[0][0], rtol=1e-2, atol=1e-2)


def test_place_that_shows_nothing_costs_patience_alone() -> None:
    model = tiny()
    state = model.sample(torch.tensor([0]))
    for item in range(5):
        items = torch.tensor([[item]])
        feedback = model.respond(state, items, ~SHOWN, None)
        after, _ = model.advance(state, items, feedback)
        assert not feedback.signals.any()
        assert_close(after.patience.item(), 4.6)
        for name in ("tolerance", "since_ad", "last_kind", "same", "follows", "hour"):
            assert torch.equal(getattr(after, name), getattr(state, name))


def test_ads_stories_and_suggestions_that_a_step_forbids() -> None:
    model = tiny()
    state = model.sample(torch.tensor([0]))
    assert model.permits(state).tolist() == [[True, True, True, True, False]]  # it is over at 16
    assert model.permits(replace(state, hour=torch.tensor([161.0])))[0, NEWS]
    assert model.permits(replace(state, hour=torch.tensor([7.9])))[0, NEWS]  # of the next week
    for since in range(MOST_PLACES + 1):
        allowed = model.permits(replace(state, since_ad=torch.tensor([float(since)])))[0, ADVERT]
        assert bool(allowed) == (since >= AD_GAP)
    followed = replace(state, follows=torch.tensor([[1.0, 1.0, 0.0]]))
    assert model.permits(followed).tolist() == [[True, True, True, False, False]]


def test_time_away_restores_tolerance() -> None:
    model = tiny(visits=3)
    state = model.sample(torch.tensor([0]))
    state = replace(
        state,
        tolerance=torch.tensor([0.5]),
        patience=torch.tensor([1.0]),
        same=torch.tensor([[0.4, 0.0]]),
        since_ad=torch.tensor([0.0]),
    )
    usual = 0.5 * sigmoid(0.1 + 0.2) - 0.4
    assert_close(state.life["usual"].item(), usual)
    assert_close(state.life["habit"].item(), CONFIG.habit_base + CONFIG.habit_deviation)
    later, gap = model.come_back(state, torch.tensor([0.2]))
    days = gap.item()
    assert_close(later.tolerance.item(), 1 - 0.5 * 0.9**days)
    assert_close(later.patience.item(), 5 - 4 * CONFIG.overnight**days)
    assert_close(later.same, 0.4 * CONFIG.overnight**days * torch.tensor([[1.0, 0.0]]))
    assert later.since_ad.item() == MOST_PLACES and later.last_kind.item() == -1
    assert torch.equal(later.follows, state.follows)


def test_drawn_responses_have_the_expected_rates() -> None:
    """Within five standard errors of 20,000 draws."""
    model = tiny(replace(CONFIG, dwell_noise=0.0))
    number = 20_000
    state = model.sample(torch.zeros(number, dtype=torch.int64))
    shown = torch.ones(number, 1, dtype=torch.bool)
    for item in range(5):
        items = torch.full((number, 1), item)
        expected = model.respond(state, items, shown, None).signals[0, 0]
        drawn = model.respond(state, items, shown, torch.Generator().manual_seed(item)).signals[:, 0]
        error = drawn.std(0) / number**0.5
        assert bool(((drawn.mean(0) - expected).abs() <= 5 * error + 1e-5).all())


def made(**env_config: float) -> tuple[Config, World, RecEnv]:
    sizes = {"num_items": 80, "embedding_dim": 4, "max_episode_steps": 12, **env_config}
    config = settings("ppo", "social-feed", env_config=sizes, data_config={"num_users": 40})
    home = world(config)
    env = make_env(config, home, 16, torch.Generator().manual_seed(0))
    assert isinstance(env, RecEnv)
    return config, home, env


@pytest.mark.parametrize("visits", [1, 4])
def test_contracts(visits: int) -> None:
    config, home, env = made(visits=visits)
    check_user_model(env.user_model, home.catalogue, home.population.train[:12], num_steps=8)

    def make(seed: int) -> RecEnv:
        found = make_env(config, home, 8, torch.Generator().manual_seed(seed))
        assert isinstance(found, RecEnv)
        return found

    check_env(make, 12)


def test_every_policy_honours_the_mask_and_the_gap_of_ads() -> None:
    _, home, env = made(tolerance_cost=0.0, place_cost=0.2)  # long visits
    catalogue, interface, model = home.catalogue, env.interface, env.user_model
    assert isinstance(model, SocialFeed)
    features = {"kind ad": torch.tensor(9.0), "kind story": torch.tensor(8.0)}
    policies: dict[str, Policy] = {
        **simple_baselines(env, home.population.train, torch.Generator().manual_seed(0)),
        "mf": Rule(catalogue, RuleWeights.zeros()),
        "rule": Rule(catalogue, replace(RuleWeights.zeros(), features=features)),
        "always": WithAds(catalogue, interface, threshold=-1.0),
        "myopic": Myopic(env),
        "planner": Planner(env),
    }
    ads = {}
    for name, policy in policies.items():
        sessions = play(env, policy, home.population.train[:16])
        items = sessions.items[..., 0].T  # (N, T)
        before = items >= 0
        lengths = sessions.lengths
        assert torch.equal(before.sum(1), lengths), name  # no place was empty
        ad = before & (model.kind[items.clamp_min(0)] == AD)
        for gap in range(1, AD_GAP + 1):
            assert not bool((ad[:, gap:] & ad[:, :-gap]).any()), name
        ads[name] = float(ad.sum() / before.sum())
    assert ads["rule"] > 0.15 and ads["always"] > 0.15


def test_fixed_loads_show_so_many_ads() -> None:
    _, home, env = made(place_cost=0.0, tolerance_cost=0.0, ad_cost=0.0, max_episode_steps=20)
    model = env.user_model
    assert isinstance(model, SocialFeed)
    policies = fixed_load(home.catalogue, env.interface)
    for load, policy in zip(LOADS, policies.values(), strict=True):
        items = play(env, policy, home.population.train[:8]).items[..., 0].T
        counts = ((model.kind[items.clamp_min(0)] == AD) & (items >= 0)).sum(1)
        assert counts.tolist() == [min(round(20 * load), 4)] * 8


def test_hidden_stock_stays_hidden() -> None:
    """Tolerance, ease and taste change nothing in the first observation."""
    _, home, env = made()
    model = env.user_model
    assert isinstance(model, SocialFeed)
    state = model.sample(home.population.train[:5])
    other = replace(
        state, tolerance=torch.zeros(5), ease=state.ease + 1, taste=-state.taste, patience=state.patience / 2
    )
    for name, piece in model.visible(state).items():
        assert torch.equal(piece, model.visible(other)[name])
    assert torch.equal(model.permits(state), model.permits(other))
    assert [signal.name for signal in model.signals if not signal.visible] == ["satisfaction"]


def begun(home: World, people: Tensor, likes: Sequence[Sequence[int]], hours: Tensor) -> Known:
    """What is known at the start of visits of these rows of the population, -1 for strangers."""
    assert VISIT_PIECES.of_people is not None
    profiles = home.population.profile[people]
    known = VISIT_PIECES.begin(SocialFeedConfig(), home.catalogue, profiles, hours)
    return {**known, **VISIT_PIECES.of_people(home, people, likes)}


def test_server_makes_the_pieces_of_the_simulator() -> None:
    """From the visible signals alone, and from the population."""
    _, home, env = made()
    model = env.user_model
    assert isinstance(model, SocialFeed)
    people = home.population.train[:6]
    state = model.sample(people)
    known = begun(home, people, [()] * 6, state.hour)
    rng = torch.Generator().manual_seed(0)
    assert VISIT_PIECES.permits is not None
    for _ in range(9):
        pieces = VISIT_PIECES.pieces(model.config, home.catalogue, known)
        for name, piece in model.visible(state).items():
            assert_close(pieces[name], piece)
        permitted = VISIT_PIECES.permits(model.config, home.catalogue, known)
        wanted = model.permits(state)
        assert torch.equal(permitted, wanted)
        items = torch.multinomial(wanted.float(), 1, generator=rng)
        shown = torch.ones_like(items, dtype=torch.bool)
        feedback = model.respond(state, items, shown, rng)
        visible = Feedback(feedback.signals[..., :4], shown)
        known = VISIT_PIECES.after(model.config, home.catalogue, known, items, visible)
        state = model.advance(state, items, feedback)[0]


def test_server_counts_a_creator_once() -> None:
    """Two follows of one creator, the second of 5, are one; his suggestions are not shown any more."""
    _, home, env = made()
    model = env.user_model
    assert isinstance(model, SocialFeed) and VISIT_PIECES.permits is not None
    suggestions = model.places[SUGGESTION]
    creator = model.creator[suggestions[0]]
    config, catalogue = model.config, home.catalogue
    known = begun(home, torch.tensor([-1]), [()], torch.tensor([12.0]))
    for value in (1.0, 5.0):
        signals, shown = torch.tensor([[[0.5, 1.0, value, 0.0]]]), torch.ones(1, 1, dtype=torch.bool)
        known = VISIT_PIECES.after(
            config, catalogue, known, suggestions[:1].view(1, 1), Feedback(signals, shown)
        )
        assert float(known["followed"]) == 1.0
        pieces = VISIT_PIECES.pieces(config, catalogue, known)
        assert_close(pieces["followed_items"], model.of_creators[creator].view(1, -1))
    permitted = VISIT_PIECES.permits(config, catalogue, known)[0, suggestions]
    assert torch.equal(permitted, model.creator[suggestions] != creator)


def test_column_says_who_follows_the_author() -> None:
    """Of posts and stories; an ad and a suggestion have no author."""
    _, home, env = made()
    model, obs = env.user_model, env.reset(home.population.train[:6])
    assert isinstance(model, SocialFeed)
    columns = UserColumns.of(env.interface, home.catalogue)
    [column] = columns.of_items(obs.context)
    assert columns.names == ("follows",)
    organic = (model.kind == POST) | (model.kind == STORY)
    for row, user in enumerate(home.population.train[:6]):
        followed = torch.isin(model.creator, home.population.attributes["follows"][user])
        assert torch.equal(column[row].bool(), followed & organic)
    assert 0 < column.mean() < 1


def test_strangers_follow_the_creators_whose_suggestions_they_like() -> None:
    _, home, env = made()
    model = env.user_model
    assert isinstance(model, SocialFeed)
    card, post = int(model.places[SUGGESTION][0]), int(model.places[POST][0])
    people = torch.tensor([-1, 3, -1])
    known = begun(home, people, [(card, post), (card,), ()], torch.full((3,), 12.0))
    alone = torch.nn.functional.one_hot(model.creator[card], model.num_creators).float()
    graph = model.sample(people[1:2]).follows[0]
    assert_close(known["follows"], torch.stack([alone, graph, torch.zeros_like(alone)]))
    assert known["followed"].tolist() == [1, graph.sum(), 0]


def walked(number: int, monkeypatch: pytest.MonkeyPatch) -> tuple[RecEnv, Obs]:
    """Some steps of random items that may be shown."""
    monkeypatch.setattr(social_feed, "SATISFACTION_GAIN", 1.5)  # the patience reaches its most
    _, home, env = made(place_cost=0.2, ad_drain=0.1)
    obs, rng = env.reset(home.population.train[:16]), torch.Generator().manual_seed(7)
    for _ in range(number):
        allowed = obs.allowed(home.catalogue.num_items).float()
        obs = env.step_without_reset(torch.multinomial(allowed, 1, generator=rng)).obs
    return env, obs


def test_informed_knows_what_the_dwells_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither tolerance nor patience, but those that follow from the profile and the dwells."""
    env, _ = walked(8, monkeypatch)
    state, model = env.user_state, env.user_model
    assert isinstance(model, SocialFeed)
    other = replace(
        state,
        taste=-state.taste,
        ease=state.ease + 1,
        tolerance=torch.zeros(16),
        patience=state.patience / 2,
    )
    for one, two in zip(
        vars(model.as_known(state)).values(), vars(model.as_known(other)).values(), strict=True
    ):
        assert one is two or torch.equal(one, two)
    exact = replace(model, config=replace(model.config, dwell_noise=0.0))
    feedback = exact.respond(
        state, torch.zeros(16, 1, dtype=torch.int64), torch.ones(16, 1, dtype=torch.bool), None
    )
    same = replace(state, supposed=torch.stack([state.tolerance, state.patience], 1), profile=state.taste)
    later = exact.advance(same, torch.zeros(16, 1, dtype=torch.int64), feedback)[0]
    assert_close(later.supposed, torch.stack([later.tolerance, later.patience], 1))


def test_kinds_and_graph_of_a_world() -> None:
    counts = torch.bincount(kinds(1000, torch.Generator().manual_seed(0)))
    assert counts.tolist() == [700, 100, 100, 100]
    assert torch.bincount(kinds(6, torch.Generator().manual_seed(0))).tolist() == [3, 1, 1, 1]
    _, home, env = made()
    catalogue, model = home.catalogue, env.user_model
    assert isinstance(model, SocialFeed)
    assert catalogue.classes("kind") == KINDS and set(ITEMS) <= set(catalogue.attributes)
    assert bool(((catalogue.attributes["bid"] > 0) == (model.kind == AD)).all())
    follows = home.population.attributes["follows"]
    assert all(len(set(row)) == len(row) for row in follows.tolist())
    likeness = home.population.taste @ model.of_creators.T  # (U, C)
    assert float(likeness.gather(1, follows).mean()) > float(likeness.mean()) + 0.1
    assert float(model.sample(home.population.train).patience.max()) <= MOST_PATIENCE


def edited(name: str, values: Tensor) -> World:
    _, home, _ = made()
    attributes = {**home.catalogue.attributes, name: values}
    return World(replace(home.catalogue, attributes=attributes), home.population)


def test_impossible_items_and_graphs_are_one_sentence() -> None:
    config, home, _ = made()
    story = home.catalogue.attributes["kind"] == STORY
    born = home.catalogue.attributes["born"]
    with pytest.raises(UserError):
        make_user_model(config, edited("expires", torch.where(story, born - 1, 168.0)))
    with pytest.raises(UserError):
        make_user_model(config, edited("bid", torch.full((80,), -1.0)))
    with pytest.raises(UserError):
        make_user_model(config, edited("kind", torch.full((80,), AD)))
    follows = home.population.attributes["follows"]
    strangers = replace(
        home.population, attributes={**home.population.attributes, "follows": follows + 10_000}
    )
    with pytest.raises(UserError):
        make_user_model(config, World(home.catalogue, strangers))
    # whole numbers stand for texts: "post" is no kind, and "abc" no bid
    for given in (
        {"kind": torch.full((80,), 7.0)},
        {"kind": torch.zeros(80, dtype=torch.int64)},
        {"bid": torch.zeros(80, dtype=torch.int64)},
    ):
        with pytest.raises(UserError):
            add_attributes(World(replace(home.catalogue, attributes=given, drawn=()), home.population), 0)


def test_attributes_of_a_file_are_kept() -> None:
    """Numbers of a file are float32; what it lacks is drawn."""
    _, home, _ = made()
    given = {"kind": torch.arange(80.0) % 4, "bid": torch.full((80,), 2.5)}
    bare = replace(home.catalogue, attributes=given, drawn=(), features=())
    found = add_attributes(World(bare, home.population), 0).catalogue
    assert torch.equal(found.attributes["kind"], torch.arange(80) % 4)
    assert torch.equal(found.attributes["bid"], 2.5 * (torch.arange(80) % 4 == AD))
    assert set(found.drawn) == {"creator", "born", "expires"}
    lives = found.attributes["expires"] - found.attributes["born"]
    assert_close(lives, torch.where(torch.arange(80) % 4 == STORY, 24.0, 168.0))


def test_only_its_own_file_and_the_dict_name_the_platform() -> None:
    package = Path(__file__).parents[2] / "recsys_rl"
    found = [
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if any(name in path.read_text() for name in ("social_feed", "social-feed", "SocialFeed"))
    ]
    assert sorted(found) == ["env/__init__.py", "env/social_feed.py"]


def test_settings_of_the_platform() -> None:
    config = from_dict(Config, {"env": "social-feed"})
    assert config.env_config.max_episode_steps == 40 and config.env_config.visits == 1


@pytest.mark.proof
def test_whole_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Train, evaluate, record, judge and recommend."""
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--env", "social-feed", *DRIFT, *steps(4), "--name", "a"]) == 0
    assert main(["evaluate", "--max-users", "6", "--json", "t.json"]) == 0
    rows = {row["policy"]: row for row in json.loads(Path("t.json").read_text())["rows"]}
    wanted = {"trade-fixed-load", "trade-ad-threshold", "mf", "mmr", "rule", "searched", "planner"}
    assert wanted <= rows.keys()
    assert set(rows["ppo"]["streams"]) == {"engagement", "dwell", "revenue"}
    assert main(["record", "--policy", "random", "--out", "log.parquet", "--sessions", "30"]) == 0
    assert main(["ope", "--log", "log.parquet", "--policy", "ppo", "--policy", "popularity"]) == 0
    capsys.readouterr()
    assert main(["recommend", "--user", "3", "--k", "4"]) == 0
    assert len(capsys.readouterr().out.splitlines()) >= 4
    lives = ["--env", "social-feed", *DRIFT, *steps(4), "--visits", "4", "--day-discount", "0.9"]
    assert main(["train", *lives, "--name", "b"]) == 0
    assert main(["evaluate", "--max-users", "6"]) == 0

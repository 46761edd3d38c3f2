"""Lives of several visits: days of return by hand, state across visits, tables, and whole commands."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import gymnasium
import pytest
import torch
from gymnasium.utils.env_checker import check_env as gymnasium_check
from torch import Tensor
from torch.testing import assert_close

import recsys_rl  # registers the ids
from recsys_rl.checkpoint import load
from recsys_rl.cli import main
from recsys_rl.env import visits
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.env.short_video import ShortVideo
from recsys_rl.evaluation.columns import active_days, numbers_of, retained
from recsys_rl.evaluation.printing import print_table
from recsys_rl.evaluation.rivals.baselines import RandomPolicy
from recsys_rl.evaluation.table import Played, mean_rows, summarise
from recsys_rl.experience.rollout import Sessions, collect, play
from recsys_rl.make import make_agent, make_env, make_world
from recsys_rl.protocols import ReturningUsers
from recsys_rl.settings.config import Config, from_dict
from recsys_rl.settings.shared import EnvConfig
from recsys_rl.testing import check_env, check_user_model
from recsys_rl.testing.envs import require_same_steps, walk
from recsys_rl.types import UserError, empty_world
from recsys_rl.utils.seeding import generators
from tests.env.test_short_video import CONFIG, tiny, tiny_of_users
from tests.env.test_short_video import hand as hand

ALWAYS: dict[str, Any] = {"habit_base": 50.0, "habit_deviation": 0.0, "habit_fade": 0.0, "visit_gain": 0.0}
NEVER: dict[str, Any] = {**ALWAYS, "habit_base": -50.0}
SMALL = ["--data", "synthetic", "--num-items", "30", "--embedding-dim", "4", "--num-users", "40"]
LIVES = [
    *("--env", "short-video", *SMALL, "--visits", "35", "--max-episode-steps", "2", "--hidden-dims", "6"),
    *("--n-steps", "16", "--num-envs", "4", "--batch-size", "32", "--threads", "1", "--eval-interval", "2"),
]


def small_env(seed: int = 0, num_envs: int = 6, visits: int = 3, **dials: float) -> RecEnv:
    sizes = {"num_items": 40, "embedding_dim": 4, "max_episode_steps": 5, "visits": visits, **dials}
    data = {"data": "synthetic", "num_users": 30}
    config = from_dict(Config, {"env": "short-video", "env_config": sizes, "data_config": data})
    env = make_env(config, make_world(config), num_envs, torch.Generator().manual_seed(seed))
    assert isinstance(env, RecEnv)
    return env


def lasting(model: ShortVideo) -> ShortVideo:
    """The model with lives of 35 visits; its users have the standard normal number 0.5 for a habit."""
    habit = torch.full((len(model.population.user_ids),), 0.5)
    attributes = {**model.population.attributes, "habit": habit}
    config = replace(
        CONFIG,
        visits=35,
        habit_base=0.4,
        habit_deviation=1.2,
        habit_fade=0.5,
        visit_gain=10.0,
        usual_rate=0.2,
        overnight=0.4,
    )
    return replace(model, population=replace(model.population, attributes=attributes), config=config)


# ---- the days


def test_gap_inverts_the_days_that_a_user_stays_away() -> None:
    """With one half on each day, P(gap > k) is 2^-k."""
    chance = torch.tensor([0.7, 0.51, 0.49, 0.3, 0.2, 0.0])
    gap = visits.gap_days(torch.zeros(6), 0.0, chance)
    assert gap.tolist() == [1, 1, 2, 2, 3, 31]
    assert visits.gap_days(torch.tensor([50.0, -50.0]), 0.5, torch.full((2,), 0.5)).tolist() == [1, 31]


def test_gaps_have_the_frequencies_of_days_drawn_one_by_one() -> None:
    logit, fade, count = 0.4, 0.3, 200_000
    chance = torch.rand(count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = torch.bincount(visits.gap_days(torch.full((count,), logit), fade, chance), minlength=32) / count
    away = 1.0
    for day in range(1, 31):
        returns = 1 / (1 + math.exp(fade * (day - 1) - logit))
        wanted = away * returns
        assert found[day].item() == pytest.approx(wanted, abs=4 * math.sqrt(wanted / count) + 1e-9), day
        away *= 1 - returns
    assert found[31].item() == pytest.approx(away, abs=4 * math.sqrt(away / count))


def test_life_after_a_visit_by_hand() -> None:
    life = visits.begin(torch.tensor([1.0]), torch.tensor([-0.1]), torch.tensor([150.0]))
    assert visits.went(life).item() == pytest.approx(-0.1)  # no item yet
    for feeling in (0.1, -0.3, 0.1, -0.1):
        life = visits.feel(life, torch.tensor([feeling]))
    assert visits.went(life).item() == pytest.approx(-0.05)
    config = visits.VisitsConfig(visit_gain=10.0, habit_fade=0.5, usual_rate=0.2)
    # z = 1 + 10 * 0.05 = 1.5; P(gap > 1) = 1 - sigmoid(1.5) = 0.18243; on the second day sigmoid(1)
    away = 0.18243
    assert visits.gap_days(torch.tensor([1.5]), 0.5, torch.tensor([away + 1e-4])).item() == 1
    for chance, gap in ((away - 1e-4, 2), (away * 0.26894 + 1e-4, 2), (away * 0.26894 - 1e-4, 3)):
        after, found = visits.next_visit(life, torch.tensor([chance]), config)
        assert found.item() == gap
        assert after["usual"].item() == pytest.approx(-0.09) and after["habit"].item() == 1
        assert after["opened"].item() == (150 + 24 * gap) % 168
        assert after["felt"].item() == after["items"].item() == 0


def test_state_at_the_next_visit_by_hand() -> None:
    model = lasting(tiny())
    state = model.sample(torch.tensor([0]))
    assert state.life["habit"].item() == pytest.approx(0.4 + 1.2 * 0.5)
    usual = 0.2 / (1 + math.exp(-0.2)) - 0.3  # appeal_base 0.1 and ease 0.2 * 0.5
    assert state.life["usual"].item() == pytest.approx(usual, abs=1e-6)
    items, shown = torch.tensor([[0]]), torch.ones(1, 1, dtype=torch.bool)
    after, _ = model.advance(state, items, model.respond(state, items, shown, None))
    fed = after.patience.item() - 5
    assert after.life["felt"].item() == pytest.approx(fed, abs=1e-5) and after.life["items"].item() == 1
    tired = replace(after, patience=torch.tensor([-0.2]), mood=torch.ones(1, 2))
    later, gap = model.come_back(tired, torch.tensor([0.5]))
    days, left = int(gap), 0.4 ** int(gap)
    assert later.patience.item() == pytest.approx(5 - 5 * left)  # a debt is forgiven
    assert_close(later.weary_of_tags, left * after.weary_of_tags)
    shift = round(math.log(left) / math.log(0.5))  # the share 0.5 remains after each video
    assert later.recent[0, -1 - shift].item() == 0 and (later.recent >= 0).sum() == 1
    assert not later.mood.any() and not later.begun.any()
    assert later.hour.item() == later.life["opened"].item() == (30 + 24 * days) % 168
    assert torch.equal(later.taste, state.taste) and torch.equal(later.habit, state.habit)


def test_good_visits_bring_users_back_sooner() -> None:
    model = lasting(tiny())
    state = model.sample(torch.tensor([0]))
    chance, gaps = torch.tensor([0.1]), []
    for felt in (0.2, -0.2, -1.0):
        life = {**state.life, "felt": torch.tensor([felt]), "items": torch.ones(1)}
        gaps.append(int(model.come_back(replace(state, life=life), chance)[1]))
    assert gaps[0] == 1 < gaps[1] < gaps[2] == 31


# ---- the environment


def test_one_visit_has_no_life() -> None:
    env = small_env(visits=1)
    env.reset()
    assert env.interface.visits == 1 and env.session.visit is None
    assert not [name for name in env.state_dict() if "life" in name or "visit" in name or "day" in name]
    assert env.step(torch.zeros(6, 1, dtype=torch.int64)).day is None


def test_next_visit_begins_in_the_same_row() -> None:
    """Each user comes back on each day: three visits of five steps, then the life is cut."""
    env = small_env(**ALWAYS)
    env.reset()
    users, hour = env.session.users.clone(), env.user_state.life["opened"].clone()
    for number in range(15):
        step = env.step(torch.full((6, 1), number % 5))
        assert step.day is not None and step.day.tolist() == [number // 5] * 6
        assert step.truncated.tolist() == [number == 14] * 6 and not step.terminated.any()
        if number == 4:
            assert torch.equal(env.session.users, users)
            assert env.session.steps.tolist() == [0] * 6
            assert step.obs.exclude is not None and bool((step.obs.exclude == -1).all())
            assert step.obs.history is not None and step.obs.signals is not None
            assert bool((step.obs.history == -1).all()) and not step.obs.signals.any()
            assert_close(env.user_state.hour, (hour + 24) % 168)
            names = [name for name, _ in env.interface.context]
            assert names[-1] == "streak" and not step.obs.context[:, -1].any()
    assert step.final_obs.exclude is not None and bool((step.final_obs.exclude == -1).all())
    assert step.obs.history is not None and bool((step.obs.history == -1).all())
    # the weekday of the visit that was cut off, three days after the first
    turn = 2 * math.pi * ((hour + 72) % 168) / 168
    assert_close(step.final_obs.context[:, -4], turn.sin(), atol=1e-5, rtol=0)


def test_days_away_discount_what_follows() -> None:
    """Gaps of 1 to 31 days, each at the end of a visit of five steps."""
    env = small_env(num_envs=32, visits=35, **{**ALWAYS, "habit_base": 0.0}, day_discount=0.5)
    env.reset()
    day = torch.zeros(32, dtype=torch.int64)
    for number in range(15):
        step = env.step(torch.full((32, 1), number % 5))
        assert step.discount is not None and env.session.day is not None
        later = env.session.day - day  # 0 within a visit
        lasts = ~(step.terminated | step.truncated)
        assert_close(step.discount[lasts], 0.5 ** later[lasts])
        assert bool((later[lasts] > 0).all()) == (number % 5 == 4)
        day = env.session.day.clone()
    one = small_env(visits=1)
    one.reset()
    assert one.step(torch.zeros(6, 1, dtype=torch.int64)).discount is None


def test_learner_sees_the_discounts() -> None:
    config = from_dict(Config, {"env": "short-video", "agent_config": {"num_envs": 6, "batch_size": 64}})
    env = small_env(**ALWAYS, day_discount=0.25)
    agent = make_agent(config, env.interface, env.catalogue, 1, generators(0, "model", "policy", "shuffle"))
    rollout, _ = collect(env, agent, env.reset(), 12)
    assert rollout.discounts is not None
    assert rollout.discounts[:, 0].tolist() == [1, 1, 1, 1, 0.25] * 2 + [1, 1]


def test_user_who_never_returns_is_terminated() -> None:
    env = small_env(**NEVER)
    env.reset()
    for number in range(5):
        step = env.step(torch.full((6, 1), number))
    assert step.terminated.all() and not step.truncated.any()
    assert step.left_early.all()  # of lives churn counts, at whatever step of the visit
    assert step.final_obs.history is not None  # of the last visit
    assert step.final_obs.history[:, -5:].tolist() == [[0, 1, 2, 3, 4]] * 6


def test_life_ends_after_35_days() -> None:
    """Gaps of about 10 days: a life has several visits, and none after day 34."""
    env = small_env(num_envs=64, visits=35, **{**ALWAYS, "habit_base": -2.2})
    sessions = play(env, RandomPolicy((40,), torch.Generator().manual_seed(0), 1))
    assert sessions.days is not None and sessions.days.max() <= 34
    assert 2 < active_days(sessions.days).double().mean() < 6
    assert 0 < sessions.left.double().mean() < 0.5


def test_batteries_cover_lives() -> None:
    env = small_env(visits=4)
    assert isinstance(env.user_model, ReturningUsers)
    check_user_model(env.user_model, env.catalogue, env.users[:8], num_steps=8)
    check_user_model(lasting(tiny_of_users(8)), tiny().catalogue, torch.arange(8), num_steps=3)
    check_env(lambda seed: small_env(seed, habit_base=2.0), max_episode_steps=5)
    with pytest.raises(AssertionError, match="no session reached the time limit"):
        check_env(lambda seed: small_env(seed, num_envs=2, habit_base=-9.0), max_episode_steps=5)


class _Impure(ShortVideo):
    def come_back(self, user_state: Any, chance: Tensor) -> tuple[Any, Tensor]:
        later, gap = super().come_back(user_state, chance)
        return later, gap + int(chance[0] > 0.5)


def test_user_model_whose_returns_mix_rows_is_refused() -> None:
    env = small_env()
    model = env.user_model
    assert isinstance(model, ShortVideo)
    impure = _Impure(model.catalogue, model.population, model.config)
    with pytest.raises(AssertionError, match="come_back mixes rows"):
        check_user_model(impure, env.catalogue, env.users[:8], num_steps=8)


def test_user_model_without_its_day_discount_is_refused() -> None:
    """RecEnv would take its users for users of a single visit."""

    class Incomplete:
        visits = 3

        def __getattr__(self, name: str) -> Any:
            if name == "day_discount":
                raise AttributeError(name)
            return getattr(env.user_model, name)

    env, incomplete = small_env(), cast("Any", Incomplete())
    with pytest.raises(AssertionError, match="visits and day_discount"):
        check_user_model(incomplete, env.catalogue, env.users[:8], num_steps=8)


def test_lives_go_on_after_save_and_load() -> None:
    one, two = small_env(0), small_env(0)
    walk(one, one.reset(), 8)
    assert one.session.visit is not None and one.session.visit.any()
    two.reset()
    two.load_state_dict({name: x.clone() for name, x in one.state_dict().items()})
    two.generator.set_state(one.generator.get_state())
    require_same_steps(walk(one, one.observe(), 20, 1), walk(two, two.observe(), 20, 1), "after loading")


@pytest.mark.parametrize(
    ("name", "value"),
    [("session.visit", 3), ("session.day", 35), ("session.visit", -1), ("user_state.life.opened", 168.0)],
)
def test_impossible_lives_are_refused(name: str, value: float) -> None:
    env = small_env()
    env.reset()
    state = env.state_dict()
    with pytest.raises(UserError):
        env.load_state_dict({**state, name: torch.full_like(state[name], value)})
    with pytest.raises(UserError):
        small_env(visits=1).load_state_dict(state)


def test_gymnasium_id_takes_visits() -> None:
    assert recsys_rl.gymnasium_id("short-video") == "recsys_rl/ShortVideo-v0"
    small = {"data": "synthetic", "num_users": 40}
    sizes = {"visits": 3, "habit_base": 2.0, "env_config": EnvConfig(20, 4, 5)}
    env = gymnasium.make(
        "recsys_rl/ShortVideo-v0", max_episode_steps=None, disable_env_checker=True, **small, **sizes
    )  # fmt: skip
    inner: Any = env.unwrapped
    assert inner.sessions.interface.visits == 3
    gymnasium_check(inner, skip_render_check=True)


# ---- the tables


def life_columns(sessions: Sessions) -> dict[str, Any]:
    numbers = numbers_of(sessions, empty_world().catalogue)
    return {key: numbers[key] for key in ("active_days", "d1", "d7", "d30", "churn") if key in numbers}


def days_of(*users: list[int]) -> Sessions:
    """Sessions with one step on each of these days, the last user's life cut after their last visit."""
    most = max(map(len, users))
    days = torch.tensor([days + [-1] * (most - len(days)) for days in users]).T  # (T, N)
    left = torch.tensor([True] * (len(users) - 1) + [False])
    return Sessions(
        torch.where(days < 0, -1, 0).unsqueeze(2), torch.ones(days.shape), left, days=days, visits=35
    )


def test_columns_of_lives_by_hand() -> None:
    """Two steps on one day count once; D7 counts day 7 alone."""
    sessions = days_of([0, 0, 1], [0, 7, 7, 8], [0], [0, 1, 7, 30])
    assert sessions.days is not None
    assert active_days(sessions.days).tolist() == [2, 3, 1, 4]
    assert life_columns(sessions) == {"active_days": 2.5, "d1": 0.5, "d7": 0.5, "d30": 0.25, "churn": 0.75}
    assert life_columns(replace(sessions, days=None)) == {}


def test_retention_is_unknown_after_the_largest_number_of_visits() -> None:
    """The last user's fourth visit is on day 7 and may be followed by one on day 30."""
    sessions = replace(days_of([0, 30], [0, 1, 5, 7]), visits=4)
    first, second, third = (retained(sessions, day) for day in (1, 7, 30))
    assert first is not None and first.tolist() == [False, True]
    assert second is not None and second.tolist() == [False, True] and third is None
    assert math.isnan(life_columns(sessions)["d30"])
    assert retained(replace(sessions, visits=5), 30) is not None


def test_table_prints_lives_and_seeds_are_averaged(capsys: pytest.CaptureFixture[str]) -> None:
    sessions = replace(days_of([0, 30], [0, 1, 5, 7]), visits=4)
    played = {name: Played(sessions, torch.arange(2)) for name in ("ppo", "ppo-greedy", "random")}
    found = summarise("short-video", played, ["ppo"])
    print_table(found, "heading", 2)
    text = capsys.readouterr().out
    assert "2 held-out users, one life each" in text
    head, first = (line.split() for line in text.splitlines()[3:5])
    assert head[-8:] == ["length", "distinct", "coverage", "days", "D1", "D7", "D30", "churn"]
    assert first[-4:] == ["3.0", "50.0%", "50.0%", "50.0%"]  # D30 is left out
    other = [{**row, "d1": 1.0, "churn": 0.0} for row in found["rows"]]
    (mean, *_) = mean_rows([found["rows"], other])
    assert (mean["d1"], mean["churn"], mean["active_days"]) == (0.75, 0.25, 3.0) and math.isnan(mean["d30"])


def test_summed_sessions_keep_the_numbers_of_the_table() -> None:
    env = small_env(visits=35)
    sessions = play(env, RandomPolicy((40,), torch.Generator().manual_seed(0), 1))
    brief = sessions.summed()
    names = ("skip", "watch", "like")
    for name in names:
        assert_close(brief.streams[name].sum(0), sessions.streams[name].sum(0))
    assert life_columns(brief) == life_columns(sessions)


# ---- whole commands


def test_commands_with_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Train on lives, and evaluate with JSON and page."""
    monkeypatch.chdir(tmp_path)
    assert main(["train", *LIVES, "--total-timesteps", "256", "--name", "whole"]) == 0
    whole = load(Path("runs/whole/ppo.pt"))
    assert whole.interface.visits == 35 and whole.interface.episode_length == 70
    assert (
        main(["evaluate", "--checkpoint", "runs/whole/ppo.pt", "--json", "t.json", "--report", "r.html"]) == 0
    )
    table = json.loads(Path("t.json").read_text())
    for row in table["rows"]:
        assert 1 <= row["active_days"] <= 35 and 0 <= row["d7"] <= 1 and 0 <= row["churn"] <= 1
        assert row["length_mean"] > 2  # of a visit at most
    page = Path("r.html").read_text()
    for text in (
        "Active days",
        "D30",
        "Churn",
        "per life from",
        "life of several visits each",
        "on day 7 after",
    ):
        assert text in page

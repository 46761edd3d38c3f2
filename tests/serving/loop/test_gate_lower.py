"""The lower bound of the gate, from a log of single decisions to its answer."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from recsys_rl.checkpoint import Checkpoint, load
from recsys_rl.logs.decision_log import DecisionLog, concatenate
from recsys_rl.logs.ope.lower import LOWER, lower_terms, too_large
from recsys_rl.logs.ope.policies import logged_places
from recsys_rl.logs.ope.replay import ReplayedLog
from recsys_rl.logs.ope.reward_bounds import reward_bounds
from recsys_rl.logs.parts import PART
from recsys_rl.logs.source import open_log
from recsys_rl.make import agent_of, make_user_model, make_world
from recsys_rl.objective.weighted import weights_of
from recsys_rl.protocols import Behaviour
from recsys_rl.serving.loop.gate_compare import bench, compare
from recsys_rl.serving.loop.gate_rule import Compared, GateVerdict, decide
from recsys_rl.settings.config import Config, from_dict
from recsys_rl.types import Feedback
from tests.own_logs import policy, write_csv

OLD, NEW = (0.33, 0.33, 0.33, 0.01), (0.001, 0.001, 0.001, 0.997)
"""Probabilities of four items under the champion, and under a challenger that shows the last one."""
CLICKS = (0.97, 0.97, 0.97, 0.0)


def logged(
    path: Path, rows: int, seed: int, pay: str = "watched", factor: float = 1.0, whole: bool = False
) -> Path:
    """Decisions of the champion. The last item pays 0, the others 0.60 to 0.62, or 1 in 97 %.

    ``factor``: of the recorded probabilities; ``whole``: each item is shown at least once.
    """
    drawn, lines = random.Random(seed), []
    for at in range(rows):
        item = at if whole and at < len(OLD) else drawn.choices(range(len(OLD)), OLD)[0]
        paid = float(drawn.random() < CLICKS[item])
        if pay == "watched":
            paid = 0.0 if item == len(OLD) - 1 else round(0.6 + 0.02 * drawn.random(), 4)
        lines.append([f"{seed}-{at}", f"i{item}", paid, OLD[item] * factor, round(drawn.random(), 3)])
    return write_csv(path, ["user", "item", "reward", "propensity", "context.x"], lines)


def drawing(made: Checkpoint, chances: tuple[float, ...]) -> Checkpoint:
    """The policy with these probabilities, whatever the context."""
    agent = {**made.agent, "model.head.logits.bias": torch.tensor(chances).log()}
    agent["model.head.logits.weight"] = torch.zeros_like(made.agent["model.head.logits.weight"])
    return replace(made, agent=agent)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, Checkpoint]:
    """Challenger and champion, which know nothing of the ranges of signals."""
    folder = tmp_path_factory.mktemp("policies")
    made = load(policy(folder / "p.pt", logged(folder / "all.csv", 200, 0, whole=True)))
    env = made.config.env_config
    shape = json.dumps({**json.loads(env.shape), "ranges": {}})  # as of earlier versions
    config = replace(made.config, env_config=replace(env, shape=shape))
    return drawing(replace(made, config=config), NEW), drawing(replace(made, config=config), OLD)


def judged(two: tuple[Checkpoint, Checkpoint], path: Path) -> tuple[Compared, GateVerdict]:
    new, old = two
    on = bench(path, concatenate([*open_log((str(path),), old).parts(PART)]), old)
    of = compare(on, agent_of(new))
    return of, decide(of, "a" * 64, "b" * 64, (0, on.of.log.num_rows), 1)


@pytest.mark.parametrize("pay", ["watched", "clicked"])
@pytest.mark.parametrize("seed", range(1, 7))
def test_an_item_that_the_log_lacks_may_pay_less_than_all_that_was_logged(
    two: tuple[Checkpoint, Checkpoint], tmp_path: Path, pay: str, seed: int
) -> None:
    """The challenger earns nothing. Half of these logs of 60 decisions do not show its item."""
    of, verdict = judged(two, logged(tmp_path / "log.csv", 60, seed, pay))
    assert verdict.answer == "can't tell"
    if pay == "watched":
        assert of.by != LOWER and "lowest" in of.doubt


def test_a_signal_of_zeros_and_ones_has_a_lower_bound(
    two: tuple[Checkpoint, Checkpoint], tmp_path: Path
) -> None:
    of, verdict = judged(two, logged(tmp_path / "log.csv", 400, 1, "clicked"))
    assert of.by == LOWER and verdict.low < -0.5 and verdict.values()["high"] is None


def test_chi2_and_the_lower_bound_share_a_pass_of_each_network(
    two: tuple[Checkpoint, Checkpoint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = list[Behaviour]()

    def counted(of: ReplayedLog, policy: Behaviour) -> Tensor:
        passes.append(policy)
        return logged_places(of, policy)

    monkeypatch.setattr("recsys_rl.serving.loop.gate_compare.logged_places", counted)
    path = logged(tmp_path / "log.csv", 400, 1, "clicked")
    new, on = (
        agent_of(two[0]),
        bench(path, concatenate([*open_log((str(path),), two[1]).parts(PART)]), two[1]),
    )
    of = compare(on, new)
    assert of.by == LOWER and len(passes) == 2 and passes[0] is new
    # By hand: each row's ratio is that of the two tables of probabilities.
    ratios = (torch.tensor(NEW) / torch.tensor(OLD))[on.of.log.items[:, 0]].double()
    assert of.chi2 == pytest.approx(float(ratios.square().mean() / ratios.mean() ** 2 - 1), rel=1e-4)
    terms = lower_terms(ratios, torch.ones(400), on.of.rewards, 0.0, 1.0)
    assert all(torch.allclose(a, b.double(), atol=1e-4) for a, b in zip((of.new, of.old), terms, strict=True))
    compare(on, agent_of(two[1]))  # another candidate needs no more of the champion
    assert len(passes) == 3


@pytest.mark.parametrize("factor", [1 / 3, 1 / 1.5])
def test_too_small_probabilities_have_no_lower_bound(
    two: tuple[Checkpoint, Checkpoint], tmp_path: Path, factor: float
) -> None:
    of, verdict = judged(two, logged(tmp_path / "log.csv", 150, 2, "clicked", factor))
    assert of.by != LOWER and verdict.answer == "can't tell" and "too small" in of.doubt


@pytest.mark.parametrize(("factor", "passes"), [(1.0, 0), (1.5, 13), (3.0, 20)])
def test_weights_that_are_too_large_are_found(factor: float, passes: int) -> None:
    """A challenger of 0.245 beside a champion of 0.425, with weights that are ``factor`` too large.

    The terms alone would let it through on many of 20 logs; none of right probabilities is refused.
    """
    random, pays = torch.Generator().manual_seed(0), torch.tensor([0.5, 0.5, 0.5, 0.2])
    drawn = torch.randint(4, (20, 150), generator=random)
    rewards = (torch.rand(20, 150, generator=random) < pays[drawn]).double()
    new = factor * torch.tensor([0.2, 0.2, 0.2, 3.4], dtype=torch.float64)[drawn]
    old, users = torch.full_like(new, factor), torch.arange(150)
    passed, refused = 0, 0
    for row in range(20):
        terms = lower_terms(new[row], old[row], rewards[row], 0.0, 1.0)
        of = Compared(LOWER, *terms, users, 0.4, 1.0, 1.0, heavy="a few large weights decide")
        passed += decide(of, "a" * 64, "b" * 64, (0, 150), 1).answer == "no harm seen"
        refused += too_large(new[row], users) is not None or too_large(old[row], users) is not None
    assert passed == passes
    assert refused == (0 if factor == 1 else 20)


def test_heavy_right_weights_are_not_too_large_and_their_cut_mean_is_given() -> None:
    weights = torch.cat([torch.zeros(99), torch.tensor([100.0])]).double()
    assert too_large(weights, torch.arange(100)) is None
    assert too_large(torch.full((100,), 2.0), torch.arange(100)) == pytest.approx(2.0)
    # 25 weights of 50 are cut at 10, and 75 of them are 1.
    mixed = torch.tensor([50.0, 1.0, 1.0, 1.0]).repeat(25).double()
    assert too_large(mixed, torch.arange(100)) == pytest.approx((25 * 10 + 75) / 100)


def of_values(made: Checkpoint, path: Path, *values: float) -> DecisionLog:
    """A log whose rewards are these values, in turn."""
    rows = concatenate([*open_log((str(logged(path, 60, 3)),), made).parts(PART)])
    given: Tensor = torch.tensor(values).repeat(60 // len(values)).view(-1, 1, 1)
    return replace(rows, signals=given)


@pytest.mark.parametrize(
    ("values", "weight", "bounds"),
    [
        ((0.0, 1.0), 1.0, (0.0, 1.0)),
        ((0.0, 1.0), -2.0, (-2.0, 0.0)),
        ((1.0, 1.0), 1.0, None),  # the lowest one is unknown
        ((0.0, 0.0), 1.0, None),
        ((0.0, 1.0, 0.5), 1.0, None),
        ((0.0, 1.0, 3.0), 1.0, None),
    ],
)
def test_bounds_of_a_log_of_ones_own(
    two: tuple[Checkpoint, Checkpoint],
    tmp_path: Path,
    values: tuple[float, ...],
    weight: float,
    bounds: tuple[float, float] | None,
) -> None:
    made = two[1]
    rows = of_values(made, tmp_path / "log.csv", *values)
    users = make_user_model(made.config, made.world)
    assert reward_bounds(rows, made.config, users, torch.tensor([weight])) == bounds


@pytest.mark.parametrize(("known", "bounds"), [([-20.0, 1.0, False], None), ([0.0, 1.0, True], (0.0, 1.0))])
def test_a_signal_with_other_values_in_the_training_has_no_bounds(
    two: tuple[Checkpoint, Checkpoint],
    tmp_path: Path,
    known: list[object],
    bounds: tuple[float, float] | None,
) -> None:
    """The rows that are judged hold 0 and 1 alone; a returned article cost 20 in the training."""
    made = two[1]
    shape = json.dumps({**json.loads(made.config.env_config.shape), "ranges": {"reward": known}})
    env = replace(made.config.env_config, shape=shape)
    config = replace(made.config, env_config=env)
    users = make_user_model(config, made.world)
    rows = of_values(made, tmp_path / "log.csv", 0.0, 1.0)
    assert reward_bounds(rows, config, users, torch.ones(1)) == bounds


def test_bounds_of_a_platform_are_the_ranges_of_its_signals_times_their_weights() -> None:
    """Whatever the log holds: completion counts 2, a right answer -1, and both are from 0 to 1."""
    weights = ("completion=2", "correctness=-1", "frustration=0")
    config = from_dict(Config, {"env": "tutor", "train_config": {"weights": weights}})
    users = make_user_model(config, make_world(config))
    by = weights_of(config.train_config, users.streams)
    interface = SimpleNamespace(slate_size=1, events=())
    every = tuple(signal.name for signal in users.signals)
    header, shown = SimpleNamespace(interface=interface, signals=every), torch.ones(3, 1, dtype=torch.bool)

    def bounds(signal: float) -> tuple[float, float] | None:
        feedback = Feedback(torch.full((3, 1, len(every)), signal), shown)
        log: Any = SimpleNamespace(header=header, feedback=feedback)
        return reward_bounds(log, config, users, by)

    assert bounds(0.0) == bounds(0.25) == (-1.0, 2.0)
    assert bounds(5.0) is None  # a reward of 5 is outside

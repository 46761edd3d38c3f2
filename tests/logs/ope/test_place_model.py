"""The model of places for `cascade-dr`: what it learns of a log with known rewards, and of whom it asks."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from recsys_rl.evaluation.mixture import Fixed
from recsys_rl.evaluation.rivals.baselines import RandomPolicy
from recsys_rl.logs.decision_table import read_table
from recsys_rl.logs.judges.best_item import BestItems
from recsys_rl.logs.ope.place_model import place_probabilities, place_values, why_no_place_model
from recsys_rl.logs.ope.replay import ReplayedLog, replay
from recsys_rl.protocols import Behaviour
from recsys_rl.types import Obs

ROWS, ITEMS = 3_000, 4
PAYS = np.array([0.2, 0.6, 1.0, 0.4])


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> ReplayedLog:
    """Uniform lists of two of four items: PAYS at place 1, and half of it, times x, at place 2."""
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("log") / "lists.parquet"
    lists = rng.permuted(np.tile(np.arange(ITEMS), (ROWS, 1)), axis=1)[:, :2]
    x = rng.integers(0, 2, ROWS).astype(float)
    table = {
        "items": lists.tolist(),
        "propensity": np.full(ROWS, 1 / 12),
        "place_logprobs": np.log(np.tile([1 / 4, 1 / 3], (ROWS, 1))).tolist(),
        "signal.paid": (PAYS[lists] * np.stack([np.ones(ROWS), x / 2], 1)).tolist(),
        "context.x": x,
    }
    pl.DataFrame(table).write_parquet(path)
    found = read_table(path)
    rewards = found.log.signals[..., 0].sum(1)
    return replay(found.log, found.catalogue, rewards, 1.0, torch.Generator().manual_seed(0))


def places_of(log: ReplayedLog) -> Tensor:
    return log.log.signals[..., 0].double()


def test_values_of_places_where_the_rewards_are_known(log: ReplayedLog) -> None:
    """The policy shows 2 and then 1: V_1 = 1 + x 0.6 / 2; below 0, place 2 has V_2 = x 0.6 / 2."""
    policy = Fixed(BestItems(torch.tensor([0.0, 2.0, 3.0, 1.0]), 2))
    q, v = place_values(log, policy, True, places_of(log))
    x, items = log.log.given["x"][:, 0].double(), log.log.items
    pays = torch.from_numpy(PAYS)[items]  # (E, 2)
    assert float((q[:, 1] - x * pays[:, 1] / 2).abs().max()) < 0.02
    assert float((v[:, 1] - x * 0.6 / 2).abs().max()) < 0.02
    assert float((q[:, 0] - pays[:, 0] - x * 0.6 / 2).abs().max()) < 0.02
    assert float((v[:, 0] - 1 - x * 0.6 / 2).abs().max()) < 0.02


def test_values_of_a_random_policy_are_means_of_what_is_left(log: ReplayedLog) -> None:
    policy = RandomPolicy((ITEMS,), torch.Generator().manual_seed(0), 2)
    _, v = place_values(log, policy, False, places_of(log))
    x, first = log.log.given["x"][:, 0].double(), log.log.items[:, 0]
    left = (PAYS.sum() - torch.from_numpy(PAYS)[first]) / 3  # of the three other items
    assert float((v[:, 1] - x * left / 2).abs().max()) < 0.02
    assert float((v[:, 0] - PAYS.mean() * (1 + x / 2)).abs().max()) < 0.03


class Asked:
    """A policy of which only the probabilities of places are known."""

    def __init__(self, policy: Behaviour) -> None:
        self.act, self.place_logprobs = policy.act, policy.place_logprobs


def test_probabilities_at_a_place_below_the_logged_items(log: ReplayedLog) -> None:
    random: Behaviour = RandomPolicy((ITEMS,), torch.Generator().manual_seed(0), 2)
    (at, obs), *_ = log.observations()
    slates = log.log.items[at]

    def chances(policy: object, certain: bool, place: int) -> Tensor:
        return place_probabilities(log, policy, certain, obs, slates, place)  # type: ignore[arg-type]

    assert torch.allclose(chances(random, False, 0), torch.full((len(at), ITEMS), 1 / 4, dtype=torch.float64))
    second = chances(random, False, 1)
    assert bool((second.gather(1, slates[:, :1]) == 0).all())
    assert torch.allclose(second.sum(1), torch.ones(len(at), dtype=torch.float64))
    best = Fixed(BestItems(torch.tensor([0.0, 2.0, 3.0, 1.0]), 2))
    assert chances(best, True, 1).argmax(1).unique().tolist() == [1]
    assert torch.equal(chances(best, True, 1), chances(Asked(best), False, 1))


def test_a_part_of_a_log_has_no_model_of_places(log: ReplayedLog) -> None:
    assert not why_no_place_model(log)
    part = replay(log.log.rows(torch.arange(50)), log.catalogue, log.rewards[:50], 1.0, log.totals)
    assert str(ROWS) in why_no_place_model(part).replace(",", "")


def test_a_network_is_asked_once_and_gives_the_same(log: ReplayedLog) -> None:
    """The probabilities by its scores are those of each item put at the place."""
    from recsys_rl.make import make_agent
    from recsys_rl.settings.config import Config
    from recsys_rl.utils.seeding import generators
    from tests.small_runs import CPU

    config = Config(algo="bc", head="dense", hidden_dims=(8,))
    streams = generators(0, "model", "policy", "shuffle")
    agent = make_agent(config, log.log.header.interface, log.catalogue, 1, streams, CPU)
    agent.keep_chance()
    (at, obs), *_ = log.observations()
    slates = log.log.items[at]
    for place in (0, 1):
        one, each = (
            place_probabilities(log, policy, False, Obs(obs.context), slates, place)  # type: ignore[arg-type]
            for policy in (agent, Asked(agent))
        )
        assert torch.allclose(one, each, atol=1e-6)

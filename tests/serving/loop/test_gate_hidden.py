"""The gate on a platform whose reward has a part that no server sees: it weighs as the canary does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from recsys_rl.checkpoint import Checkpoint, load
from recsys_rl.errors import UserError
from recsys_rl.logs.decision_log import DecisionLog
from recsys_rl.logs.parts import read_decisions
from recsys_rl.logs.record import RecordConfig, record
from recsys_rl.make import agent_of, make_user_model
from recsys_rl.objective.weighted import weighted_known, weights_of
from recsys_rl.serving.loop.gate_compare import bench, compare, hidden_part
from tests.doors import WORLD, steps, train_in


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, DecisionLog]:
    """A policy of `tutor` with sessions of one step, and its log as a server writes it: visible signals."""
    folder = tmp_path_factory.mktemp("tutor")
    file = train_in(folder / "run", "--env", "tutor", *WORLD, *steps(1), "--max-episode-steps", "1")
    record(RecordConfig(str(file), sessions=60, users="all", out=str(folder / "log.parquet"), quiet=True))
    log = read_decisions(folder / "log.parquet")
    names = log.header.interface.signals
    return load(file), replace(
        log, header=replace(log.header, signals=names), signals=log.signals[:, :, log.visible]
    )


def trained_for(made: Checkpoint, *weights: str) -> Checkpoint:
    config = replace(made.config, train_config=replace(made.config.train_config, weights=weights))
    return replace(made, config=config)


def test_a_stream_of_hidden_signals_is_left_out_as_by_the_canary(
    served: tuple[Checkpoint, DecisionLog],
) -> None:
    made, log = served
    on = bench(Path("log"), log, made)
    right, completed = log.signals[:, 0].unbind(1)
    assert log.header.signals == ("right", "completed")
    torch.testing.assert_close(on.of.rewards, (completed + 0.05 * right).double())
    users = make_user_model(made.config, made.world)
    unseen = torch.full_like(right, torch.nan)
    streams = torch.stack([completed, right, unseen, unseen], 1)
    by = weights_of(made.config.train_config, users.streams)
    torch.testing.assert_close(weighted_known(streams, by).double(), on.of.rewards)  # the canary's sum
    assert on.hidden == ("frustration",) and on.bounds == pytest.approx((0.0, 1.05))
    assert "--weights frustration=0" in hidden_part(on)
    assert compare(on, agent_of(made)).logged == pytest.approx(float(on.of.rewards.mean()))


def test_a_champion_trained_without_it_is_judged_without_a_word(
    served: tuple[Checkpoint, DecisionLog],
) -> None:
    made, log = served
    assert hidden_part(bench(Path("log"), log, trained_for(made, "frustration=0"))) == ""


def test_a_reward_of_which_nothing_is_seen_is_refused(served: tuple[Checkpoint, DecisionLog]) -> None:
    made, log = served
    with pytest.raises(UserError):
        bench(Path("log"), log, trained_for(made, "completion=0", "correctness=0"))

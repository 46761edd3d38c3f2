"""Several processes learn from one log: each has its own parts, and all keep the same weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from recsys_rl.checkpoint import load
from recsys_rl.cli.train import train_options
from recsys_rl.errors import UserError
from recsys_rl.experience.logged import Logged, make_logged
from recsys_rl.workflows.record import RecordConfig, record
from recsys_rl.workflows.train import train
from tests.distributed.test_distributed import together
from tests.doors import SATIATION, assert_same_weights, steps, train_in


@pytest.fixture(scope="module")
def logger(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint of PPO on a tiny `satiation`, and a folder with the log of its decisions."""
    folder = tmp_path_factory.mktemp("logger")
    checkpoint, log = train_in(folder / "run", *SATIATION, *steps(3)), folder / "log"
    record(RecordConfig(str(checkpoint), sessions=80, users="all", out=str(log), parts=40, quiet=True))
    return checkpoint, log


def cloning(logger: tuple[Path, Path], *words: str) -> list[str]:
    sizes = ("--batch-size", "8", "--gradient-steps", "3", "--total-timesteps", "96")
    return ["--algo", "bc", "--checkpoint", str(logger[0]), "--log", str(logger[1]), *sizes, *words]


def held(logger: tuple[Path, Path], *process: int) -> Logged:
    config, world = train_options(cloning(logger)).config, load(logger[0]).world
    return make_logged(config, world, {}, torch.Generator().manual_seed(0), (process[0], process[1]))


def test_each_rank_holds_its_own_sessions_and_all_of_them_the_log(logger: tuple[Path, Path]) -> None:
    whole, parts = held(logger, 0, 1), [held(logger, rank, 3) for rank in range(3)]
    rows = [part.table.num_rows for part in parts]
    assert sum(rows) == whole.table.num_rows and max(rows) < 0.6 * sum(rows)
    items = torch.cat([part.table.items for part in parts]).flatten()
    assert torch.equal(items.bincount(), whole.table.items.flatten().bincount())
    everything = parts[1].of_all_sessions()  # for the rivals of the policy
    assert sum(table.num_rows for table in everything.tables()) == whole.table.num_rows
    with pytest.raises(UserError):
        held(logger, 0, 500)


@pytest.mark.parametrize("algo", ["bc", "cql"])
def test_ranks_keep_the_same_weights_and_halve_each_minibatch(
    algo: str, logger: tuple[Path, Path], tmp_path: Path
) -> None:
    config = train_options(cloning(logger, "--num-processes", "2", "--algo", algo)).config
    paths = together(2, lambda ranks: train(config, ranks=ranks, folder=tmp_path / "two", quiet=True))
    assert paths == [tmp_path / "two" / f"{algo}.pt"] * 2  # each save compares the weights of the ranks
    found = load(paths[0])
    assert found.updates == 4 and found.step == 96
    alone = train_options(cloning(logger, "--algo", algo)).config
    one = load(train(alone, folder=tmp_path / "one", quiet=True))
    assert one.agent.keys() == found.agent.keys() and one.step == found.step
    with pytest.raises(AssertionError):  # it drew other minibatches
        assert_same_weights(paths[0], tmp_path / "one" / f"{algo}.pt")

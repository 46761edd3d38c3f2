"""Several processes learn from one log: each has its own sessions, and all keep the same weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from recsys_rl.checkpoint import load
from recsys_rl.cli.train import train_options
from recsys_rl.errors import UserError
from recsys_rl.logs.experience import logged
from recsys_rl.logs.experience.dealt import Decisions, dealt
from recsys_rl.logs.experience.logged import Logged, make_logged
from recsys_rl.logs.parts import read_decisions
from recsys_rl.logs.record import RecordConfig, record
from recsys_rl.logs.writer import write_decisions
from recsys_rl.training.train import train
from tests.distributed.test_distributed import of_two, together
from tests.doors import SATIATION, assert_same_weights, steps, train_in
from tests.log_in_parts import cut, log_of


@pytest.fixture(scope="module")
def logger(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint of PPO on a tiny `satiation`, and a folder with the log of its decisions."""
    folder = tmp_path_factory.mktemp("logger")
    checkpoint, log = train_in(folder / "run", *SATIATION, *steps(3)), folder / "log"
    record(RecordConfig(str(checkpoint), sessions=80, users="all", out=str(log), parts=40, quiet=True))
    return checkpoint, log


@pytest.fixture(scope="module")
def uneven(logger: tuple[Path, Path]) -> tuple[Path, Path]:
    """The same log in three files, of 40, 1 and 39 sessions."""
    folder = logger[1].with_name("uneven")
    for number, part in enumerate(cut(read_decisions(logger[1]), 40, 41)):
        write_decisions(folder / f"{number}.parquet", part)
    return logger[0], folder


def cloning(logger: tuple[Path, Path], *words: str) -> list[str]:
    sizes = ("--batch-size", "8", "--gradient-steps", "3", "--total-timesteps", "96")
    return ["--algo", "bc", "--checkpoint", str(logger[0]), "--log", str(logger[1]), *sizes, *words]


def held(logger: tuple[Path, Path], *process: int, words: tuple[str, ...] = ()) -> Logged:
    config, world = train_options(cloning(logger, *words)).config, load(logger[0]).world
    return make_logged(config, world, torch.Generator().manual_seed(0), (process[0], process[1]))


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


@pytest.mark.parametrize("words", [(), ("--best-sessions", "0.3")], ids=["all", "best"])
@pytest.mark.parametrize("most", [logged.MOST_ROWS, 60], ids=["held", "in parts"])
def test_ranks_hold_equally_many_decisions_of_uneven_files(
    words: tuple[str, ...], most: int, uneven: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same share of each minibatch is drawn from each, so a decision weighs as much as any other."""
    monkeypatch.setattr(logged, "MOST_ROWS", most)
    whole = [*held(uneven, 0, 1, words=words).tables()]
    ranks = [[*held(uneven, rank, 3, words=words).tables()] for rank in range(3)]
    rows = [sum(table.num_rows for table in tables) for tables in ranks]
    assert sum(rows) == sum(table.num_rows for table in whole) > 60
    longest = max(int(table.steps.max()) + 1 for table in whole)
    assert max(rows) - min(rows) <= longest < 10
    items = torch.cat([table.items for tables in ranks for table in tables]).flatten()
    assert torch.equal(items.bincount(), torch.cat([table.items for table in whole]).flatten().bincount())


def test_sessions_are_dealt_to_the_process_that_holds_the_fewest() -> None:
    """By hand: 5, 1, 1, 1, 4 decisions, of which the second has an empty place, to two processes."""
    log = log_of(5, 1)
    log = log.rows(torch.arange(5).repeat_interleave(torch.tensor([5, 1, 1, 1, 4])))
    log.items[5] = -1
    parts = [Decisions(log.rows(rows), rows[rows].float()) for rows in (log.sessions < 3, log.sessions >= 3)]
    given = [torch.cat([part.log.sessions.unique() for part in dealt(parts, rank, 2)]) for rank in range(2)]
    assert [sessions.tolist() for sessions in given] == [[0], [1, 2, 3, 4]]


@pytest.mark.parametrize("algo", ["bc", "cql"])
def test_ranks_keep_the_same_weights_and_halve_each_minibatch(
    algo: str, logger: tuple[Path, Path], tmp_path: Path
) -> None:
    config = of_two(cloning(logger, "--algo", algo))
    paths = together(2, lambda ranks: train(config, ranks=ranks, folder=tmp_path / "two", quiet=True))
    assert paths == [tmp_path / "two" / f"{algo}.pt"] * 2  # each save compares the weights of the ranks
    found = load(paths[0])
    assert found.updates == 4 and found.step == 96
    alone = train_options(cloning(logger, "--algo", algo)).config
    one = load(train(alone, folder=tmp_path / "one", quiet=True))
    assert one.agent.keys() == found.agent.keys() and one.step == found.step
    with pytest.raises(AssertionError):  # it drew other minibatches
        assert_same_weights(paths[0], tmp_path / "one" / f"{algo}.pt")

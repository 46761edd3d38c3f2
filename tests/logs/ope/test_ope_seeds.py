"""`ope` of several policies of one log of a team's own, which were trained with different seeds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from recsys_rl.checkpoint import load
from recsys_rl.logs.ope import read_log as ope_log
from recsys_rl.logs.ope.config import OpeConfig
from recsys_rl.logs.ope.ope import ope, replayed
from recsys_rl.logs.ope.playable import policies_of
from recsys_rl.logs.ope.policies import logged_places
from recsys_rl.logs.ope.read_log import read_log
from recsys_rl.logs.source import heldout_strangers, open_log
from recsys_rl.make import agent_of
from recsys_rl.utils.user_hashes import number_of
from tests.own_logs import policy
from tests.own_tables import decisions, table


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, str]:
    """A log and two policies of it, of seeds 0 and 1."""
    folder = tmp_path_factory.mktemp("seeds")
    log = table(folder / "log.csv", decisions(400, users=60))
    files = [str(policy(folder / f"{seed}.pt", Path(log), "reinforce", seed=seed)) for seed in (0, 1)]
    return log, *files  # type: ignore[return-value]


def heldout_by_both(log: str) -> torch.Tensor:
    users = torch.tensor([number_of(name) for name in decisions(400, users=60)["user"]])
    return heldout_strangers(users, 0.2, 0) & heldout_strangers(users, 0.2, 1)


def test_each_policy_reads_contexts_in_its_own_encoding(made: tuple[str, str, str]) -> None:
    """Judged on rows that both held out; each as it would be judged alone."""
    log, first, second = made
    shapes = [load(file).config.env_config for file in (first, second)]
    assert shapes[0] != shapes[1]  # other means and deviations
    options = OpeConfig(log=(log,), compare=(first, second), world=False)
    read, rows = read_log(options), heldout_by_both(log)
    assert read.log.num_rows == int(rows.sum()) > 5
    of, _, _ = replayed(options, read)
    for file, judged in zip((first, second), policies_of(options, read), strict=True):
        checkpoint = load(file)
        own = open_log((log,), checkpoint)
        (every,) = own.parts(1000)
        alone = OpeConfig(log=(log,), checkpoint=file, world=False)
        in_own, _, _ = replayed(alone, replace(read_log(alone), log=every.rows(rows)))
        expected = logged_places(in_own, agent_of(checkpoint))
        torch.testing.assert_close(logged_places(of, judged.policy), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("names", ["policy", "compare", "verdict"])
def test_rows_that_another_policy_learned_from_are_left_out(
    made: tuple[str, str, str], names: str, capsys: pytest.CaptureFixture[str]
) -> None:
    log, first, second = made
    options: dict[str, dict[str, Any]] = {
        "policy": {"policy": (second,)},
        "compare": {"compare": (second, "logged")},
        "verdict": {"verdict": second},
    }
    found = ope(OpeConfig(log=(log,), checkpoint=first, world=False, **options[names]))
    rows = int(heldout_by_both(log).sum())
    assert found.about.decisions == rows
    assert f"judging on {rows} decisions" in capsys.readouterr().err


def test_a_bound_that_one_of_them_knows_to_be_wrong_is_none(
    made: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log, first, second = made
    assert read_log(OpeConfig(log=(log,), compare=(first, second))).bounds == (0, 1)
    ends = iter([(0.0, 1.0), None])
    monkeypatch.setattr(ope_log, "reward_bounds", lambda *_: next(ends))
    assert read_log(OpeConfig(log=(log,), compare=(first, second))).bounds is None

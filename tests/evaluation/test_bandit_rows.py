"""The rows `linucb` and `lints`: in the table, in logs, and in what `ope` says of such logs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from recsys_rl.cli import main
from recsys_rl.evaluation.rivals import tuning
from recsys_rl.evaluation.rivals.linear_bandit import DRAWS, BanditSettings, LinUCB
from recsys_rl.logs.parts import read_decisions
from tests.doors import SATIATION, steps, train_in
from tests.evaluation.rivals.test_tuning import trainees
from tests.small_runs import settings, world


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(train_in(tmp_path_factory.mktemp("bandits") / "run", *SATIATION, *steps(1)))


def test_rows_of_the_table(checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "table.json"
    command = ["evaluate", checkpoint, "--no-planner", "--json", str(out)]
    assert main([*command, "--policy", "linucb", "--policy", "lints"]) == 0
    table = json.loads(out.read_text())
    names = [row["policy"] for row in table["rows"]]
    assert names.index("lints") == names.index("linucb") + 1 == names.index("rule") - 1
    assert all("explore" in table["notes"][name] for name in ("linucb", "lints"))
    assert main(command) == 0  # they are further rows
    assert "linucb" not in [row["policy"] for row in json.loads(out.read_text())["rows"]]
    capsys.readouterr()


def test_tuned_bandit_earns_no_less_than_the_ranking_by_profile() -> None:
    sizes = {"num_items": 40, "embedding_dim": 6}
    config = settings("ppo", "satiation", env_config=sizes, data_config={"num_users": 100})
    part = trainees(config, world(config))
    weights, start = torch.tensor([1.0]), torch.zeros(6)

    def make(own: BanditSettings) -> LinUCB:
        return LinUCB(part.catalogue, own, weights, start)

    found, note = tuning.tune_bandit(part, weights, start, make)
    assert 0 < found.level < 1 and f"explore {found.explore:g}" in note
    users = part.draw(80)
    tuned = part.play(make(found), users).returns.mean()
    never_learns = part.play(make(BanditSettings(0.0, 1.0, 1e6)), users).returns.mean()
    assert float(tuned) > float(never_learns) * 0.97


def test_log_of_lints_is_marked_and_that_of_linucb_is_refused(
    checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exact, marked, certain = (str(tmp_path / f"{name}.parquet") for name in ("random", "lints", "linucb"))
    for out in (exact, marked, certain):
        command = ["record", "--checkpoint", checkpoint, "--policy", Path(out).stem, "--out", out]
        assert main([*command, "--sessions", "12", "--quiet"]) == 0
    assert read_decisions(Path(exact)).header.estimated == 0
    log = read_decisions(Path(marked))
    assert log.header.estimated == DRAWS
    hits = log.logprobs.exp() * (DRAWS + 1)  # one of DRAWS + 1 at least, the choice itself
    torch.testing.assert_close(hits, hits.round())
    assert float(hits.min()) >= 1 - 1e-6
    capsys.readouterr()
    words = ["--checkpoint", checkpoint, "--policy", "random", "--no-world"]
    assert main(["ope", "--log", marked, *words]) == 0
    assert "1,000 draws" in capsys.readouterr().out
    assert main(["ope", "--log", certain, "--checkpoint", checkpoint, "--policy", "random"]) == 2
    assert "linucb" in capsys.readouterr().err

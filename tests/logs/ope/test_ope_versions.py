"""`ope` on two checkpoints, held-out users and later sessions, with verdicts for scripts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from recsys_rl.checkpoint import load
from recsys_rl.cli import main
from recsys_rl.errors import UserError
from recsys_rl.logs.decision_log import DecisionLog, concatenate
from recsys_rl.logs.ope.part import start_of
from recsys_rl.logs.ope.parts import survey
from recsys_rl.logs.parts import read_decisions
from recsys_rl.logs.source import heldout_rows
from recsys_rl.logs.users import fit as user_fit
from recsys_rl.logs.writer import write_decisions
from tests.doors import PPO, SATIATION, steps, train_in


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two checkpoints of the same world, a log of the older one, and half of it."""
    root = tmp_path_factory.mktemp("versions")
    for name, seed_steps in (("old", 6), ("new", 10)):
        train_in(root / name, *SATIATION, *steps(seed_steps)).rename(root / f"{name}.pt")
    words = ["--policy", "ppo", "--sessions", "600", "--users", "all", "--quiet"]
    out = ["--out", str(root / "log.parquet")]
    assert main(["record", "--checkpoint", str(root / "old.pt"), *words, *out]) == 0
    log = read_decisions(root / "log.parquet")
    write_decisions(root / "few.parquet", log.rows(log.sessions < 150))
    return root


@pytest.fixture(autouse=True)
def short_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_fit, "LEAST_STEPS", 5)
    monkeypatch.setattr("recsys_rl.logs.ope.world.EPOCHS", 2)


def judged(folder: Path, *words: str, log: str = "log.parquet", code: int = 0) -> dict[str, Any]:
    out = folder / "out.json"
    assert main(["ope", "--log", str(folder / log), "--json", str(out), *words]) == code
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def test_checkpoints_are_compared_with_each_other(folder: Path) -> None:
    """With 600 sessions the weights are enough; of 150, at most 150 are effective, and the model answers."""
    new, old = str(folder / "new.pt"), str(folder / "old.pt")
    found = judged(folder, "--compare", new, old)
    rows = {(row["policy"], row["estimator"]): row for row in found["rows"]}
    assert {name for name, _ in rows} == {new, old}
    assert rows[old, "wdr"]["ess"] == pytest.approx(600, rel=1e-5)  # it logged
    paired = rows[new, "wdr"]["value"] - rows[old, "wdr"]["value"]
    assert found["compare"]["value"] == pytest.approx(paired) and not found["compare"]["model"]
    assert found["about"]["checkpoint"] == new and found["verdict"] is None
    few = judged(folder, "--checkpoint", old, "--compare", new, old, log="few.parquet")
    by_model = {row["policy"]: row["value"] for row in few["rows"] if row["estimator"] == "world"}
    assert few["about"]["checkpoint"] == old and few["compare"]["estimator"] == "world"
    assert few["compare"]["value"] == pytest.approx(by_model[new] - by_model[old])
    assert "a model that was NOT checked" in few["compare"]["model"]


def test_two_checkpoints_have_a_verdict(folder: Path) -> None:
    new, old = str(folder / "new.pt"), str(folder / "old.pt")
    verdict = judged(folder, "--compare", old, new, "--verdict", new, "--no-world")["verdict"]
    assert (verdict["answer"], verdict["against"], verdict["estimator"]) == ("better", old, "wdr")
    worse = judged(folder, "--compare", old, new, "--verdict", old, "--no-world", code=3)["verdict"]
    assert worse["difference"] == pytest.approx([-x for x in np.array(verdict["difference"])[[0, 2, 1]]])


def test_a_verdict_on_dead_weights_is_that_nobody_can_tell(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new, old = str(folder / "new.pt"), str(folder / "old.pt")
    words = ("--users", "heldout", "--compare", new, old, "--verdict", new)
    verdict = judged(folder, *words, log="few.parquet", code=4)["verdict"]
    assert (verdict["answer"], verdict["against"], verdict["exit_code"]) == ("can't tell", old, 4)
    assert verdict["estimator"] == "world" and not verdict["promise"]
    assert verdict["text"] in capsys.readouterr().out


def test_held_out_users_are_those_of_the_training(folder: Path) -> None:
    checkpoint, log = load(folder / "old.pt"), read_decisions(folder / "log.parquet")
    settings = checkpoint.config
    share, seed = settings.data_config.heldout_fraction, settings.train_config.seed
    rows = heldout_rows(log, checkpoint.population, share, seed)
    words = ("--checkpoint", str(folder / "old.pt"), "--no-world")
    found = judged(folder, "--users", "heldout", *words)
    assert found["about"]["users"] == len(log.users[rows].unique()) < len(log.users.unique())
    assert found["about"]["decisions"] == int(rows.sum())
    assert judged(folder, *words)["about"]["decisions"] == log.num_rows


def test_later_sessions_alone_are_judged(folder: Path) -> None:
    """Times as a server writes them, milliseconds; half of the sessions are of 2026-11-29."""
    log = read_decisions(folder / "log.parquet")
    begin = 1_795_910_400_000  # 2026-11-29 00:00 UTC
    times = begin + 600_000 * log.sessions + 1_000 * log.steps
    write_decisions(folder / "served.parquet", replace(log, times=times))
    words = ("--checkpoint", str(folder / "old.pt"), "--no-world")
    late = int((log.sessions[log.steps == 0] >= 144).sum())  # 144 sessions of ten minutes are a day
    for since in ("2026-11-30", "2026-11-30T00:00:00Z", "1795996800", "1795996800000"):
        found = judged(folder, *words, "--since", since, log="served.parquet")
        assert found["about"]["sessions"] == late < log.num_sessions
    with_numbers = judged(folder, *words, "--since", str(int(log.times[log.sessions >= 144].min())))
    assert with_numbers["about"]["sessions"] == late


@pytest.mark.parametrize(
    "words",
    [
        ("--since", "yesterday"),
        ("--since", "2026-11-30"),  # the times of a recorded log are no dates
        ("--since", "99999999"),
        ("--verdict", "logged"),
        ("--verdict", "target"),
        ("--verdict", "nobody"),
        ("--users", "new"),
        ("--compare", "new.pt", "nowhere.pt"),
    ],
)
def test_mistakes_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    command = ["ope", "--log", str(folder / "log.parquet"), "--checkpoint", str(folder / "old.pt")]
    assert main([*command, *words]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_checkpoint_of_another_catalogue_is_refused(folder: Path, tmp_path: Path) -> None:
    other = train_in(tmp_path / "run", *PPO, "--env", "satiation", "--num-items", "77", *steps(6))
    words = ("--compare", str(other), str(folder / "old.pt"))
    command = ["ope", "--log", str(folder / "log.parquet"), "--checkpoint", str(folder / "old.pt")]
    assert main([*command, *words]) == 2


def clicks(folder: Path, rate: float, propensity: float = 0.5, copies: int = 0) -> tuple[str, ...]:
    """4,000 rows of two items drawn equally; tea is clicked at .5, coffee at ``rate``."""
    drawn = torch.rand(2, 4_000, generator=torch.Generator().manual_seed(1))
    coffee = drawn[0] < 0.5
    rows = {
        "user": [f"u{k}" for k in range(4_000)],
        "time": list(range(1_700_000_000, 1_700_004_000)),
        "item": ["coffee" if x else "tea" for x in coffee.tolist()],
        "click": (drawn[1] < torch.where(coffee, rate, 0.5)).int().tolist(),
        "propensity": [propensity] * 4_000,
    }
    frame = pl.DataFrame(rows)
    pl.concat([frame, frame.head(copies)]).write_csv(folder / "clicks.csv")
    every = {"probability.coffee": [0.9] * 4_000, "probability.tea": [0.1] * 4_000}
    chosen = [0.9 if x else 0.1 for x in coffee.tolist()]
    target = pl.DataFrame({"propensity": chosen} | every)
    pl.concat([target, target.head(copies)]).write_csv(folder / "mine.csv")
    return ("--log", str(folder / "clicks.csv"), "--target", str(folder / "mine.csv"), "--no-world")


@pytest.mark.parametrize(
    ("rate", "propensity", "copies", "code", "answer"),
    [
        (0.8, 0.5, 0, 0, "better"),
        (0.2, 0.5, 0, 3, "worse"),
        (0.49, 0.5, 0, 4, "can't tell"),
        (0.8, 0.4, 0, 5, "the log is broken"),  # the mean weight is .5 / .4
        (0.8, 0.5, 400, 5, "the log is broken"),  # 400 of 4,400 rows are there twice
    ],
)
def test_four_verdicts_have_exit_codes(
    tmp_path: Path, rate: float, propensity: float, copies: int, code: int, answer: str
) -> None:
    words, out = clicks(tmp_path, rate, propensity, copies), tmp_path / "out.json"
    assert main(["ope", *words, "--json", str(out)]) == 0  # as ever without --verdict
    assert main(["ope", *words, "--verdict", "target", "--json", str(out)]) == code
    verdict = json.loads(out.read_text())["verdict"]
    assert (verdict["answer"], verdict["exit_code"], verdict["against"]) == (answer, code, "logged")
    if answer == "better":  # .9 * .8 + .1 * .5 - (.8 + .5) / 2 = .12
        assert verdict["difference"][0] == pytest.approx(0.12, abs=0.03)
    if answer == "can't tell":
        assert "more decisions would settle it" in verdict["reason"]


def test_later_rows_of_peoples_own_table(tmp_path: Path) -> None:
    """The second half of 4,000 rows, a second apart from 1,700,000,000."""
    words, out = clicks(tmp_path, 0.8)[:2], tmp_path / "out.json"
    more = ("--policy", "random", "--no-world", "--json", str(out))
    for since in ("1700002000", "2023-11-14T22:46:40Z"):
        assert main(["ope", *words, *more, "--since", since]) == 0
        assert json.loads(out.read_text())["about"]["decisions"] == 2_000
    assert main(["ope", *words, *more, "--since", "2024-01-01"]) == 2
    assert main(["ope", *words, *more, "--users", "heldout"]) == 2


def test_times_of_since() -> None:
    assert start_of("2026-11-30") == start_of("1795996800000") == 1_795_996_800
    assert start_of("17") == 17
    with pytest.raises(UserError):
        start_of("soon")


def test_copies_are_whole_sessions_at_the_same_time(folder: Path) -> None:
    log = read_decisions(folder / "log.parquet")

    def copies(*parts: DecisionLog) -> int:
        rewards = ((part, part.signals[:, 0, 0]) for part in parts)
        return survey(rewards, torch.Generator().manual_seed(0)).copies

    twice = log.rows(log.sessions < 7)
    renamed = replace(twice, sessions=twice.sessions + 1_000)
    assert copies(log) == 0
    assert copies(log, renamed) == twice.num_sessions == 7
    assert copies(concatenate([log, renamed])) == 7
    assert copies(log, replace(renamed, times=renamed.times + 1)) == 0
    assert copies(log, replace(renamed, signals=renamed.signals + 1)) == 0

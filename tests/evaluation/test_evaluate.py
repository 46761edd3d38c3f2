"""Evaluation: the policies in the table, and that it needs only the checkpoint."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from recsys_rl.checkpoint import Checkpoint, load, save
from recsys_rl.cli import main
from recsys_rl.evaluation import play as playing
from recsys_rl.evaluation.checkpoints import Entry
from recsys_rl.evaluation.evaluate import evaluate
from recsys_rl.evaluation.options import EvaluateConfig
from recsys_rl.evaluation.play import play_all
from recsys_rl.evaluation.players import heldout_users
from recsys_rl.evaluation.table import Played, summarise
from recsys_rl.experience import rollout
from recsys_rl.types import UserError, World
from tests.doors import A2C, CARTPOLE, DRIFT, SATIATION, finish, start, steps

CPU = torch.device("cpu")
SIMPLE = ["random", "popularity", "one-item", "static-list", "mf", "mmr", "rule", "searched"]
ROWS = {
    "drift": ["ppo", "ppo-greedy", "untrained", "expected", *SIMPLE, "myopic", "oracle"],
    "satiation": ["ppo", "ppo-greedy", "untrained", "expected", *SIMPLE, "myopic", "informed", "planner"],
    "a2c": ["a2c", "a2c-greedy", "untrained", "expected", *SIMPLE, "myopic", "oracle"],
    "gym": ["ppo", "ppo-greedy", "untrained", "random"],
}
OPTIONS = {"drift": DRIFT, "satiation": SATIATION, "a2c": A2C, "gym": CARTPOLE}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint of each kind, trained enough to differ from the untrained policy."""
    folder, found = tmp_path_factory.mktemp("trained"), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, options in OPTIONS.items():
            assert main(["train", *options, *steps(40), "--name", name, "--lr", "0.05"]) == 0
            found[name] = folder / "runs" / name / ("a2c.pt" if name == "a2c" else "ppo.pt")
    return found


def table(path: Path, tmp_path: Path, *options: str) -> dict[str, Any]:
    file = tmp_path / "new" / "table.json"
    assert main(["evaluate", "--checkpoint", str(path), "--json", str(file), *options]) == 0
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def play(checkpoint: Checkpoint, max_users: int = 0) -> dict[str, Played]:
    """All rows of the table of one checkpoint."""
    entry = Entry(Path("x.pt"), checkpoint, checkpoint.config.algo)
    return play_all([entry], heldout_users(checkpoint.world, max_users, 0), EvaluateConfig(), CPU)


def by_name(found: dict[str, Any]) -> dict[str, dict[str, float]]:
    return {row.pop("policy"): row for row in found["rows"]}


@pytest.mark.parametrize("name", ROWS)
def test_rows_and_numbers(name: str, trained: dict[str, Path], tmp_path: Path) -> None:
    found = table(trained[name], tmp_path)
    if name in ("satiation", "gym"):  # of all rows, and of another environment
        assert found == table(trained[name], tmp_path)  # the same numbers twice
        assert found["rows"] != table(trained[name], tmp_path, "--seed", "1")["rows"]
    assert found["env"] == load(trained[name]).config.env
    rows = by_name(found)
    assert list(rows) == ROWS[name]
    for row in rows.values():
        assert row["return_low"] <= row["return_mean"] <= row["return_high"]
        assert 0 < row["distinct_mean"] <= row["length_mean"]
        if name == "gym":
            assert row["coverage"] is None
        else:
            assert 1 / 24 <= row["coverage"] <= 1 and row["length_mean"] <= 5
    policy = ROWS[name][0]
    assert rows[policy]["return_mean"] != rows["untrained"]["return_mean"]
    if name in ("drift", "a2c"):
        assert all(row["length_mean"] == 5 for row in rows.values())
        assert rows["one-item"]["distinct_mean"] == 1 and rows["one-item"]["coverage"] == 1 / 24
        # Items have unit norm: to repeat the best one is both myopic and optimal.
        best = max(row["return_mean"] for row in rows.values())
        assert rows["oracle"]["return_mean"] == pytest.approx(best)
        assert rows["mf"]["return_mean"] == pytest.approx(best)  # the profile is the taste
    if name == "satiation":  # nothing is shown twice in a session, even if a policy chooses it again
        assert rows.pop("one-item")["distinct_mean"] == 1
        assert all(row["distinct_mean"] == row["length_mean"] for row in rows.values())
    if name == "gym":  # 100 episodes; CartPole pays 1 a step
        assert found["sessions"] == 100
        assert all(row["length_mean"] == row["return_mean"] for row in rows.values())


def test_untrained_policy_equals_the_start_of_the_run(
    trained: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", *DRIFT, *steps(40), "--save-interval", "40"]) == 0
    rows = by_name(table(Path("runs/drift-synthetic-ppo-0/ppo.prev.pt"), tmp_path))  # of step 0
    assert rows["ppo"] == rows["untrained"]


@pytest.mark.parametrize("name", ROWS)
def test_paired_differences(name: str, trained: dict[str, Path]) -> None:
    """Differences to the best simple row for each user: their mean is the difference of the means."""
    checkpoint = load(trained[name])
    played = play(checkpoint)
    found = summarise(checkpoint.config.env, played, [checkpoint.config.algo])
    means = {row["policy"]: row["return_mean"] for row in found["rows"]}
    best = max((p for p in means if p in SIMPLE), key=lambda p: means[p])
    assert [row["policy"] for row in found["paired"]] == ROWS[name][:2] == found["learned"]
    if name in ("drift", "a2c"):  # where `mf`, `mmr`, `rule` and `searched` show the same items
        best = "mf"
    assert found["yardstick"] == best
    for row in found["paired"]:
        assert row["versus"] == best
        difference = (played[row["policy"]].sessions.returns - played[best].sessions.returns).double()
        assert row["mean"] == pytest.approx(means[row["policy"]] - means[best], abs=1e-5)
        half = (row["high"] - row["low"]) / 2
        # Student's t of 97.5 %: 2.571 with the 6 held-out users, 1.984 with 100 episodes.
        t, n = (1.984, 100) if name == "gym" else (2.571, 6)
        assert half == pytest.approx(t * difference.std().item() / math.sqrt(n), rel=1e-3)


@pytest.mark.parametrize("name", ["drift", "satiation"])
def test_one_session_for_each_held_out_user(name: str, trained: dict[str, Path]) -> None:
    checkpoint = load(trained[name])
    users = heldout_users(checkpoint.world, 0, 0)
    assert users.tolist() == checkpoint.population.heldout.tolist()
    assert not set(users.tolist()) & set(checkpoint.population.train.tolist())
    for one in play(checkpoint).values():
        sessions = one.sessions
        assert one.places.tolist() == list(range(6))
        assert sessions.items.shape[1] == len(users) == 6
        gone = (sessions.items[:, :, 0] < 0).long()
        assert bool((gone.diff(dim=0) >= 0).all())  # who has left does not come back
        assert bool((sessions.rewards[gone.bool()] == 0).all())


def test_rows_are_independent_of_other_users(trained: dict[str, Path]) -> None:
    """Without noise (greedy policy and oracle on drift), a user's result doesn't depend on other users."""
    checkpoint = load(trained["drift"])
    whole, some = play(checkpoint), play(checkpoint, 3)
    for policy in ("ppo-greedy", "oracle", "one-item"):
        few, all_of_them = some[policy].sessions, whole[policy].sessions
        assert torch.equal(few.items, all_of_them.items[:, [0, 2, 4]])
        torch.testing.assert_close(few.returns, all_of_them.returns[[0, 2, 4]])


def test_max_users_is_stated_in_the_table(
    trained: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert table(trained["drift"], tmp_path, "--max-users", "4")["sessions"] == 4
    assert "\n4 of 6 held-out users, one session each (--max-users 0 plays all)\n" in capsys.readouterr().out
    assert table(trained["drift"], tmp_path)["sessions"] == 6
    assert "\n6 held-out users, one session each\n" in capsys.readouterr().out
    checkpoint = load(trained["drift"])
    assert len(heldout_users(load(trained["gym"]).world, 4, 0)) == 100  # seeds of episodes
    for most, places in ((0, [0, 1, 2, 3, 4, 5]), (6, [0, 1, 2, 3, 4, 5]), (4, [0, 1, 3, 4]), (1, [0])):
        users = heldout_users(checkpoint.world, most, 0)
        assert users.tolist() == checkpoint.population.heldout[places].tolist()


def test_unavailable_items_are_never_shown(trained: dict[str, Path]) -> None:
    checkpoint = load(trained["satiation"])
    even = dataclasses.replace(checkpoint.catalogue, available=torch.arange(24) % 2 == 0)
    halved = dataclasses.replace(checkpoint, world=World(even, checkpoint.population))
    for policy, one in play(halved).items():
        items = one.sessions.items
        assert bool((items[items >= 0] % 2 == 0).all()), policy


@pytest.mark.proof
def test_evaluation_needs_only_the_checkpoint(trained: dict[str, Path], tmp_path: Path) -> None:
    """In another folder and another process, without data, without a cache and with an empty home."""
    here = table(trained["satiation"], tmp_path, "--threads", "1")
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    shutil.copy(trained["satiation"], folder / "moved.pt")
    options = ("--checkpoint", "moved.pt", "--json", "t.json", "--threads", "1", "--report", "r.html")
    code, out, err = finish(start(folder, "evaluate", *options))
    policies = ROWS["satiation"]
    playing = [f"playing {name} ({place} of {len(policies)})" for place, name in enumerate(policies, 1)]
    assert code == 0
    lines = err.splitlines()
    made = [line for line in lines if not line.startswith("playing")]
    assert [line for line in lines if line.startswith("playing")] == playing
    assert made.pop(0) == "data: synthetic: 24 unit-norm Gaussian items, seed 0"
    assert made.pop(0) == "searching `static-list` on training users"
    assert made[:2] == ["tuning mf on training users", "tuning mmr on training users"]
    searches = made[2:6]
    for name, said, kept in zip(("rule", "searched"), searches[::2], searches[1::2], strict=True):
        assert said == f"searching `{name}` with at most 960 steps of training users"
        assert kept.startswith(f"kept for the next evaluation: {folder}/.cache/recsys_rl/{name}-")
    assert made[6:] == ["table: t.json", "report: r.html"]
    assert lines.index(made[0]) == lines.index(playing[policies.index("mf")]) - 1  # made just before it plays
    assert json.loads((folder / "t.json").read_text()) == here
    header, users, *_ = out.splitlines()
    assert header == "satiation, ppo after 960 steps; synthetic"
    assert users == "6 held-out users, one session each"
    assert [line.split()[0] for line in out.split("\n\n")[1].splitlines()] == ["policy", *ROWS["satiation"]]
    assert {path.name for path in folder.iterdir()} == {"moved.pt", "t.json", "r.html", ".cache"}
    page = (folder / "r.html").read_text()
    assert page.startswith("<!DOCTYPE html>") and page.endswith("</html>\n")
    assert all(f">{name}<" in page for name in ROWS["satiation"])


def test_report_of_a_gym_environment(trained: dict[str, Path], tmp_path: Path) -> None:
    page = tmp_path / "r.html"
    assert main(["evaluate", "--checkpoint", str(trained["gym"]), "--max-users", "9"]) == 2
    assert main(["evaluate", "--checkpoint", str(trained["gym"]), "--report", str(page)]) == 0
    assert "gym:CartPole-v1" in page.read_text()


def test_typed_module_is_imported(
    trained: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    env = "gym:gymnasium.envs.classic_control:CartPole-v1"
    checkpoint = load(trained["gym"])
    path = tmp_path / "ppo.pt"
    save(path, dataclasses.replace(checkpoint, config=dataclasses.replace(checkpoint.config, env=env)))
    assert main(["evaluate", "--checkpoint", str(path)]) == 2
    assert f"type --env {env} to allow it." in capsys.readouterr().err
    found = table(path, tmp_path, "--env", env)
    assert (found["env"], found["rows"]) == (env, table(trained["gym"], tmp_path)["rows"])


# ---- a table that is cut short


def interrupted(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Ctrl-C in the row that is played after this number of rows."""
    count = 0

    def play(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        if count > after:
            raise KeyboardInterrupt
        return rollout.play(*arguments)

    monkeypatch.setattr(playing, "play", play)


@pytest.mark.parametrize("after", [2, 4, 5, 13])
def test_ctrl_c_prints_the_rows_so_far(
    after: int,
    trained: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    interrupted(monkeypatch, after)
    words = ["--checkpoint", str(trained["satiation"]), "--max-users", "4"]
    report = tmp_path / "report.html"
    file = tmp_path / "table.json"
    assert main(["evaluate", *words, "--json", str(file), "--report", str(report)]) == 130
    out, err = capsys.readouterr()
    lines = out.partition("95 % interval")[2].partition("\n\n")[0].splitlines()[1:]
    assert [line.split()[0] for line in lines] == ROWS["satiation"][:after]  # the planners come last
    assert err.splitlines()[-1].startswith("stopped: the table has the rows that were finished")
    assert ("yardstick" in out) == (after > 4)  # the first four rows have none
    assert not file.exists() and not report.exists()


def test_ctrl_c_in_the_first_row_prints_no_table(
    trained: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted(monkeypatch, 0)
    assert main(["evaluate", "--checkpoint", str(trained["satiation"])]) == 130
    assert capsys.readouterr().out == ""


def test_no_planner(trained: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "report.html"
    found = table(trained["satiation"], tmp_path, "--no-planner", "--max-users", "4", "--report", str(page))
    assert list(by_name(found)) == ROWS["satiation"][:-2]
    assert found["shares"] == [] and found["yardstick"] in SIMPLE
    assert "planner" not in page.read_text(encoding="utf-8").replace("planner_steps", "")
    assert main(["evaluate", "--checkpoint", "x.pt", "--no-planner", "--full"]) == 2
    assert "--full (--no-planner leaves the planners out)" in capsys.readouterr().err


def test_own_policy_may_not_have_the_name_of_a_row(trained: dict[str, Path]) -> None:
    for name in ("ppo", "rule"):
        with pytest.raises(UserError):
            evaluate(trained["satiation"], policies={name: object()})

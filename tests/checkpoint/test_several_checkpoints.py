"""Several checkpoints in one table, means over seeds, and errors."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from recsys_rl.checkpoint import Checkpoint, load, save
from recsys_rl.cli import main
from recsys_rl.evaluation.checkpoints import Entry, tables
from recsys_rl.evaluation.table import mean_over_seeds
from recsys_rl.types import UserError, World
from tests.doors import CARTPOLE, DRIFT, SATIATION, assert_names, steps, train_in

RUNS = {
    "ppo": [*SATIATION],
    "ranker": [*SATIATION, "--gamma", "0"],
    "ppo-1": [*SATIATION, "--seed", "1"],
    "ranker-1": [*SATIATION, "--gamma", "0", "--seed", "1"],
    "again": [*SATIATION],
    "long-1": [*SATIATION, "--seed", "1", "--total-timesteps", "96"],
    "lr": [*SATIATION, "--lr", "0.01"],
    "lr-1": [*SATIATION, "--lr", "0.01", "--seed", "1"],
    "drift": [*DRIFT],
    "tired": [*SATIATION, "--satiation-strength", "2"],
    "gym": [*CARTPOLE],
    "gym-1": [*CARTPOLE, "--seed", "1"],
    "gym-raw": [*CARTPOLE, "--no-normalize-obs"],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A small run of each kind: the paths of their checkpoints, ``<name>/ppo.pt``."""
    home, found = tmp_path_factory.mktemp("runs"), {}
    for name, options in RUNS.items():
        found[name] = str(train_in(home / name, *steps(3), *options))
    return found


def table(folder: Path, *words: str) -> dict[str, Any]:
    file = folder / "table.json"
    assert main(["evaluate", *words, "--json", str(file)]) == 0
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def entry(path: str) -> Entry:
    return Entry(Path(path), load(Path(path)))


def rows(found: dict[str, Any]) -> dict[str, dict[str, float]]:
    return {row["policy"]: row for row in found["rows"]}


def test_two_checkpoints_of_one_world_share_a_table(runs: dict[str, str], tmp_path: Path) -> None:
    both = table(tmp_path, runs["ppo"], runs["ranker"])
    assert list(rows(both))[:5] == ["ppo", "ppo-greedy", "ranker", "ranker-greedy", "untrained"]
    alone = {name: rows(table(tmp_path, runs[name])) for name in ("ppo", "ranker")}
    for name, its in alone.items():  # each row is as it is alone
        for row in (name, f"{name}-greedy", "random", "planner"):
            assert rows(both)[row] == its[row]
    pairs = {(row["policy"], row["versus"]): row["mean"] for row in both["paired"]}
    assert list(pairs)[-2:] == [("ppo", "ranker"), ("ppo-greedy", "ranker-greedy")]
    difference = rows(both)["ppo"]["return_mean"] - rows(both)["ranker"]["return_mean"]
    assert pairs["ppo", "ranker"] == pytest.approx(difference, abs=1e-5)


def test_files_before_and_after_other_options(runs: dict[str, str], tmp_path: Path) -> None:
    first = table(tmp_path, runs["ppo"], "--algo", "ppo")
    assert (
        first == table(tmp_path, "--checkpoint", runs["ppo"]) == table(tmp_path, "--seed", "0", runs["ppo"])
    )


def test_rows_of_one_algorithm_have_file_or_folder_names(runs: dict[str, str]) -> None:
    ((a, b),) = tables([entry(runs["ppo"]), entry(runs["lr"])])
    assert (a.name, b.name) == ("ppo (ppo)", "ppo (lr)")  # the folders, as both files are ppo.pt
    other = dataclasses.replace(b, path=Path("runs/lr/better.pt"))
    ((a, b),) = tables([a, other])
    assert (a.name, b.name) == ("ppo (ppo)", "ppo (better)")
    ((a, b, c),) = tables([entry(runs["ppo"]), entry(runs["ranker"]), entry(runs["lr"])])
    assert (a.name, b.name, c.name) == ("ppo (ppo)", "ranker", "ppo (lr)")


def test_runs_that_differ_in_their_seed_give_a_mean_over_seeds(
    runs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [runs[name] for name in ("ppo", "ranker", "ranker-1", "ppo-1")]
    found = table(tmp_path, *files)
    out = capsys.readouterr().out
    assert out.startswith(
        "satiation, ppo after 72 steps, ranker after 72 steps; seeds 0, 1\nmeans over 2 seeds "
    )
    alone = [table(tmp_path, runs["ppo"], runs["ranker"]), table(tmp_path, runs["ppo-1"], runs["ranker-1"])]
    mean = mean_over_seeds(alone)
    assert rows(found).keys() == rows(mean).keys()
    for name, row in rows(found).items():
        both = [rows(one)[name]["return_mean"] for one in alone]
        assert row["return_mean"] == pytest.approx(sum(both) / 2) and row["worst"] == min(both)
        assert row["users"] == 12
    for place in ([str(tmp_path / "r.html")], []):
        capsys.readouterr()
        assert main(["evaluate", *files, "--report", *place]) == 2
        assert capsys.readouterr().err.startswith("error: This run can't use --report (only of one seed")
    assert not (tmp_path / "r.html").exists()


def test_a_report_without_a_file_lands_in_the_folder_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("first", "second"):
        assert main(["train", *SATIATION, *steps(3), "--name", name]) == 0
    home, other = Path("runs/second"), Path("runs/first")
    before = {path.name for path in home.iterdir()}
    for words in (["--report"], ["--report", "--max-users", "3"], [str(home / "ppo.pt"), "--report"]):
        capsys.readouterr()
        assert main(["evaluate", "--cache-dir", "cache", *words]) == 0  # checkpoints/ppo.pt is a link
        assert capsys.readouterr().err.splitlines()[-1] == f"report: {home / 'report.html'}"
        assert {path.name for path in home.iterdir()} == {*before, "report.html"}
        page = (home / "report.html").read_text(encoding="utf-8")
        assert page.startswith("<!DOCTYPE html>") and ">ppo-greedy<" in page
        (home / "report.html").unlink()
    shutil.copy(other / "ppo.pt", other / "again.pt")
    assert (
        main(["evaluate", "--cache-dir", "cache", str(other / "ppo.pt"), str(other / "again.pt"), "--report"])
        == 0
    )
    assert (other / "report.html").is_file()
    capsys.readouterr()
    assert main(["evaluate", str(home / "ppo.pt"), str(other / "ppo.pt"), "--report"]) == 2
    said = capsys.readouterr().err
    assert_names(said, "--report", "2 folders", "--report report.html")
    assert said.startswith("error: ")
    assert not (home / "report.html").exists() and not Path("report.html").exists()


def test_seeds_of_a_gym_environment(runs: dict[str, str], tmp_path: Path) -> None:
    found = table(tmp_path, runs["gym"], runs["gym-1"])
    assert (found["seeds"], found["sessions"]) == (2, 200) and found["shares"] == []
    assert list(rows(found)) == ["ppo", "ppo-greedy", "untrained", "random"]


def test_checkpoints_keep_their_own_normalisation(runs: dict[str, str], tmp_path: Path) -> None:
    both = rows(table(tmp_path, runs["gym"], runs["gym-raw"]))
    for name in ("gym", "gym-raw"):
        alone = rows(table(tmp_path, runs[name]))
        assert both[f"ppo ({name})-greedy"]["return_mean"] == alone["ppo-greedy"]["return_mean"]


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        ("ppo drift", "one was trained on satiation and the other on drift: evaluate them one by one."),
        ("ppo tired", "--satiation-strength is 0.5 in one and 2.0 in the other"),
        ("ppo lr-1", "lr-1/ppo.pt, not 0.001): a mean over seeds needs the same settings on"),
        (
            "ppo ppo-1 lr",
            "lr/ppo.pt is of seed 0, and no checkpoint of seed 1 has its settings (--lr is 0.001 in ",
        ),
        (
            "ppo ppo-1 long-1",
            "of seed 1, and no checkpoint of seed 0 has its settings (--total-timesteps is 72 in ",
        ),
        ("ppo ppo-1 long-1", "ppo/ppo.pt, not 96): a mean over seeds needs"),
        ("ppo again ppo-1", "again/ppo.pt are two runs of seed 0 with the same settings, and a"),
        ("ppo-1 lr again ppo", "give one of them, or the checkpoints of seed 0 alone."),
        ("ppo ppo", "ppo.pt is given twice: name each checkpoint once."),
        ("ppo gym", "on satiation and the other on gym:CartPole-v1"),
    ],
)
def test_checkpoints_that_share_no_table(
    names: str, complaint: str, runs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [runs[name] for name in names.split()]
    before = {path: path.read_bytes() for path in map(Path, files)}
    assert main(["evaluate", *files, "--json", str(tmp_path / "t.json")]) == 2
    err = capsys.readouterr().err
    assert complaint in err and err.startswith("error: ") and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == [] and before == {path: path.read_bytes() for path in before}


def test_run_from_other_weights_has_no_mean_with_one_from_scratch(runs: dict[str, str]) -> None:
    ours, other = entry(runs["ppo"]), entry(runs["ppo-1"])
    config = other.checkpoint.config
    begun = dataclasses.replace(config.train_config, init_from="x.pt")
    changed = dataclasses.replace(other.checkpoint, config=dataclasses.replace(config, train_config=begun))
    with pytest.raises(UserError):
        tables([ours, dataclasses.replace(other, checkpoint=changed)])


def test_whole_number_is_the_same_setting_as_its_float(runs: dict[str, str]) -> None:
    ours, other = entry(runs["ppo"]), entry(runs["ppo-1"])

    def with_gamma(e: Entry, gamma: float) -> Entry:
        config = e.checkpoint.config
        agent_config = dataclasses.replace(config.agent_config, gamma=gamma)
        changed = dataclasses.replace(config, agent_config=agent_config)
        return dataclasses.replace(e, checkpoint=dataclasses.replace(e.checkpoint, config=changed))

    assert [len(group) for group in tables([with_gamma(ours, 1), with_gamma(other, 1.0)])] == [1, 1]


def test_runs_with_other_weights_of_the_streams_give_no_mean(runs: dict[str, str]) -> None:
    one, two = entry(runs["ppo"]), entry(runs["ppo-1"])
    weighted = dataclasses.replace(one.checkpoint.config.train_config, weights=("watch=2",))
    config = dataclasses.replace(one.checkpoint.config, train_config=weighted)
    other = Entry(one.path, dataclasses.replace(one.checkpoint, config=config))
    assert len(tables([one, two])) == 2
    with pytest.raises(UserError):
        tables([other, two])


def test_mix_of_environments_is_refused_before_an_option(
    runs: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", runs["ppo"], runs["gym"], "--max-users", "5"]) == 2
    assert "on satiation and the other on gym:CartPole-v1" in capsys.readouterr().err
    assert main(["evaluate", runs["gym"], "--max-users", "5"]) == 2
    assert "--max-users (gym:CartPole-v1 has no users" in capsys.readouterr().err


def test_other_catalogue_of_the_same_size_and_seed(runs: dict[str, str], tmp_path: Path) -> None:
    one = load(Path(runs["ppo"]))
    available = one.catalogue.available.clone()
    available[3] = False
    catalogue = dataclasses.replace(one.catalogue, available=available)
    other = dataclasses.replace(one, world=World(catalogue, one.population))
    assert main(["evaluate", runs["ppo"], saved(tmp_path / "a.pt", other)]) == 2
    population = dataclasses.replace(one.population, heldout=one.population.heldout[:-1])
    fewer = dataclasses.replace(one, world=World(one.catalogue, population))
    assert main(["evaluate", runs["ppo"], saved(tmp_path / "b.pt", fewer)]) == 2
    assert main(["evaluate", runs["ppo"], str(shutil.copy(runs["ppo"], tmp_path / "c.pt"))]) == 0


def saved(path: Path, checkpoint: Checkpoint) -> str:
    save(path, checkpoint)
    return str(path)


def test_two_ways_to_name_files(runs: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", runs["ppo"], "--checkpoint", "x.pt"]) == 2
    assert "in one way" in capsys.readouterr().err
    assert main(["evaluate", "no/such.pt"]) == 2
    assert "no/such.pt" in capsys.readouterr().err
    assert main(["evaluate", runs["ppo"], runs["gym"], "--algo", "a2c"]) == 2
    assert "is a checkpoint of ppo, not of a2c" in capsys.readouterr().err


@pytest.mark.proof
def test_planner_plays_64_users_or_all(tmp_path: Path) -> None:
    world = ["--data", "synthetic", "--num-items", "24", "--num-users", "400", "--embedding-dim", "4"]
    options = ["--env", "satiation", *world, "--max-episode-steps", "8", "--hidden-dims", "4"]
    path = str(train_in(tmp_path / "run", *options, "--total-timesteps", "1"))
    some, every = table(tmp_path, path), table(tmp_path, path, "--full")
    assert {row["policy"]: row["users"] for row in some["rows"] if row["users"] != 80} == {
        "informed": 64,
        "planner": 64,
    }
    assert all(row["users"] == 80 for row in every["rows"])
    assert {row["policy"]: row for row in some["rows"]}["ppo"] == rows(every)["ppo"]
    few = table(tmp_path, path, "--max-users", "5")
    assert all(row["users"] == 5 for row in few["rows"])
    assert all(row["share"] is not None for row in some["shares"])

"""`recsys-rl ope` on public logs: made-up folders of their layouts, and real data where it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from recsys_rl.cli import main
from recsys_rl.data import coat, kuairand
from recsys_rl.data.open_bandit import open_bandit_decisions
from recsys_rl.errors import UserError
from tests.data.test_open_bandit import change, folder_of
from tests.data.test_random_exposures import HEAD, write_views
from tests.worlds import shared_data


def judged(folder: Path, name: str, data: Path, *words: str) -> dict[str, Any]:
    out = folder / "out.json"
    options = ["--data-dir", str(data), "--no-world", "--json", str(out), *words]
    assert main(["ope", "--log", name, *options]) == 0
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def write_coat(folder: Path) -> Path:
    """Three people and four coats, with features."""
    features = folder / "user_item_features"
    features.mkdir(parents=True)
    (folder / "train.ascii").write_text("0 5 1 0\n3 0 0 0\n0 0 2 0\n")
    (folder / "test.ascii").write_text("2 0 0 1\n0 0 4 5\n0 3 0 1\n")
    (features / "user_features.ascii").write_text("1 0\n0 1\n0 1\n")
    (features / "item_features.ascii").write_text("1 0\n0 1\n0 0\n1 1\n")
    (features / "item_features_map.txt").write_text("colour:red\ntype:parka")
    return folder


def test_random_coats_are_decisions_with_the_propensity_of_the_design(tmp_path: Path) -> None:
    own = coat.random_decisions(write_coat(tmp_path))
    log = own.log
    assert log.users.tolist() == [0, 0, 1, 1, 2, 2] and log.items[:, 0].tolist() == [0, 3, 2, 3, 1, 3]
    assert log.signals[:, 0, 0].tolist() == [2, 1, 4, 5, 3, 1] and log.header.signals == ("rating",)
    assert log.logprobs.exp().tolist() == pytest.approx([0.25] * 6)  # coats of the own choice could be shown
    assert log.header.loggers == ("a uniform draw from 4 coats (propensity 1/4, known by design)",)
    assert log.given["user"].tolist() == [[1, 0], [1, 0], [0, 1], [0, 1], [0, 1], [0, 1]]
    assert own.catalogue.genre_names == ("colour:red", "type:parka")
    assert own.catalogue.genres.tolist() == [[1, 0], [0, 1], [0, 0], [1, 1]]
    assert own.items == ("0", "1", "2", "3") and own.sessions is None


def test_coat_without_features_and_with_those_of_other_people(tmp_path: Path) -> None:
    place = write_coat(tmp_path)
    (place / "user_item_features" / "user_features.ascii").write_text("1 0\n")
    with pytest.raises(UserError, match="has not the features of 3 people and 4 coats"):
        coat.random_decisions(place)
    (place / "user_item_features" / "user_features.ascii").unlink()
    assert coat.random_decisions(place).log.given == {}


def test_a_target_is_judged_on_random_coats_by_hand(tmp_path: Path) -> None:
    place = write_coat(tmp_path / "coat")
    policy = [0.1, 0.2, 0.3, 0.4]
    rows = [0, 3, 2, 3, 1, 3]
    pl.DataFrame({"propensity": [policy[item] for item in rows]}).write_csv(tmp_path / "mine.csv")
    found = judged(tmp_path, "coat-random", place, "--target", str(tmp_path / "mine.csv"))
    ips = next(row for row in found["rows"] if row["estimator"] == "ips")
    # 4 / 6 of 0.1 * 2 + 0.4 * 1 + 0.3 * 4 + 0.4 * 5 + 0.2 * 3 + 0.4 * 1
    assert ips["value"] == pytest.approx(4 / 6 * 4.8)
    assert found["about"]["users"] == 3 and "known by design" in found["about"]["loggers"][0]


def test_random_videos_have_one_chance_in_the_number_of_videos(tmp_path: Path) -> None:
    write_views(tmp_path, [3, 4, 8], users=2)
    views = "6,4,20220422,1,8000,1,0,10,9000,1\n6,9,20220422,1,7000,0,0,10,9000,1\n"
    views += "2,4,20220422,1,8000,0,0,10,9000,1\n2,5,20220422,1,9000,1,0,10,9000,1\n" * 2  # repeated rows
    (tmp_path / "log_random_4_22_to_5_08_pure.csv").write_text(HEAD + views)
    own = kuairand.random_decisions(tmp_path)
    assert own.items == ("4", "5", "9")  # the other videos are of the standard log
    assert own.log.users.tolist() == [0, 0, 1, 1] and own.log.items[:, 0].tolist() == [0, 1, 2, 0]
    assert own.log.logprobs.exp().tolist() == pytest.approx([1 / 3] * 4)
    assert own.log.signals[:, 0, 0].tolist() == [0, 1, 0, 1] and own.log.times.tolist() == [8, 9, 7, 8]
    assert own.log.header.loggers == ("a uniform draw from 3 videos (propensity 1/3, known by design)",)


def test_kuairand_random_is_judged(tmp_path: Path) -> None:
    write_views(tmp_path, [3, 4], users=2)
    views = [f"{k % 7},{k % 3},20220422,1,{k},{int(k % 4 == 0)},0,10,9000,1\n" for k in range(60)]
    (tmp_path / "log_random_4_22_to_5_08_pure.csv").write_text(HEAD + "".join(views))
    found = judged(tmp_path, "kuairand-random", tmp_path, "--policy", "random")
    rows = {row["estimator"]: row for row in found["rows"]}
    assert rows["ips"]["value"] == pytest.approx(0.25) and rows["ips"]["ess"] == pytest.approx(60)
    assert found["about"]["users"] == 7 and found["about"]["decisions"] == 60


def test_open_bandit_has_the_place_as_context_and_a_request_as_user(tmp_path: Path) -> None:
    own = open_bandit_decisions(folder_of(tmp_path))
    log = own.log
    assert log.given["place"].argmax(1)[:4].tolist() == [2, 1, 0, 2] and log.items.shape == (60, 1)
    assert log.given["user"].shape == (60, 8) and log.signals.sum() == 15
    assert log.logprobs.exp().tolist() == pytest.approx([0.2] * 60)
    name = "a uniform draw from 5 items at each place (propensity 1/5, known by design)"
    assert log.header.loggers == (name,)
    assert log.users.tolist() == list(range(60))  # each row has its own minute
    assert set(own.catalogue.item_ids.tolist()) == set(range(5))
    one = open_bandit_decisions(tmp_path / "bts" / "all").log
    assert one.header.loggers == ("bts (propensities of the file)",)
    assert not torch.equal(one.items, log.items)
    change(tmp_path, ",0.2,", ",0.1,")  # no uniform draw, whatever the folder is called
    assert open_bandit_decisions(tmp_path).log.header.loggers == ("random (propensities of the file)",)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--log", "open-bandit"], "give its folder with --data-dir"),
        (["--log", "open-bandits"], "open-bandits was not found (did you mean open-bandit?): choose open-"),
        (["--log", "coat-random", "--data-dir", "absent"], "absent holds no Coat data"),
        (
            ["--log", "coat-random", "--item-column", "x"],
            "--item-column is for your own log, and coat-random",
        ),
        (["--log", "coat-random", "--items", "x.csv"], "--items is for your own log"),
        (["--log", "coat-random", "--checkpoint", "x.pt"], "leave --checkpoint out"),
        (
            ["--log", "mine.csv", "--data-dir", "coat"],
            "--data-dir is for a public log (open-bandit, kuairand",
        ),
    ],
)
def test_options_that_do_not_fit_are_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    complaint: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["ope", *words, "--policy", "random"]) == 2
    error = capsys.readouterr().err
    assert complaint in error and error.count("error: ") == 1


def test_a_public_log_needs_a_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_coat(tmp_path)
    assert main(["ope", "--log", "coat-random", "--data-dir", str(tmp_path)]) == 2
    assert "give --target FILE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "folder", "items", "mean", "logger"),
    [
        ("open-bandit", "open-bandit-small", 80, 0.0038, "1/80, known by design"),
        ("open-bandit", "open-bandit-small/random/men", 34, 0.0046, "1/34, known by design"),
        ("open-bandit", "open-bandit-small/bts/women", 46, 0.0046, "bts (propensities of the file)"),
        ("coat-random", "coat", 300, 2.228879, "1/300, known by design"),
    ],
)
def test_random_policy_on_real_logs(
    tmp_path: Path, name: str, folder: str, items: int, mean: float, logger: str
) -> None:
    data, *rest = folder.split("/", 1)
    found = judged(tmp_path, name, shared_data(data).joinpath(*rest), "--policy", "random")
    rows = {(row["policy"], row["estimator"]): row for row in found["rows"]}
    assert found["about"]["items"] == items and logger in found["about"]["loggers"][0]
    assert rows["logged", "mean"]["value"] == pytest.approx(mean, abs=5e-5)
    if "design" in logger:  # the policy is the logger's, so each weight is 1
        assert rows["random", "ips"]["value"] == pytest.approx(mean, abs=5e-5)
        assert rows["random", "ips"]["ess"] == pytest.approx(found["about"]["decisions"], rel=1e-4)
    else:
        assert rows["random", "ips"]["ess"] < 200 and "Do not trust this" in rows["random", "ips"]["warning"]

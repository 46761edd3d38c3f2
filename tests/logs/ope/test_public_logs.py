"""`recsys-rl ope` on public logs: made-up folders of their layouts, and real data where it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from recsys_rl.cli import main
from recsys_rl.logs.public import kuairand
from recsys_rl.logs.public.open_bandit import open_bandit_decisions
from tests.data.test_random_exposures import HEAD, write_views
from tests.logs.public.test_open_bandit import change, folder_of
from tests.worlds import shared_data


def judged(folder: Path, name: str, data: Path, *words: str) -> dict[str, Any]:
    out = folder / "out.json"
    options = ["--data-dir", str(data), "--no-world", "--json", str(out), *words]
    assert main(["ope", "--log", name, *options]) == 0
    found: dict[str, Any] = json.loads(out.read_text())
    return found


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
    ("name", "folder", "items", "mean", "logger"),
    [
        ("open-bandit", "open-bandit-small", 80, 0.0038, "1/80, known by design"),
        ("open-bandit", "open-bandit-small/random/men", 34, 0.0046, "1/34, known by design"),
        ("open-bandit", "open-bandit-small/bts/women", 46, 0.0046, "bts (propensities of the file)"),
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

"""The loader of Open Bandit on a made-up folder, and the published table on the real one where it is."""

from __future__ import annotations

import gzip
import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import open_bandit as benchmark
from recsys_rl.errors import UserError
from recsys_rl.logs.ope.reward_model import logistic
from recsys_rl.logs.public.open_bandit import load_open_bandit

SHARED = Path(__file__).parents[4] / "shared" / "data" / "open-bandit-small"
ITEMS = 5


def folder_of(root: Path, rows: int = 60) -> Path:
    """A folder with the dataset's layout and ``rows`` made-up rows for each logger."""
    rng = np.random.default_rng(0)
    for logger in ("random", "bts"):
        place = root / logger / "all"
        place.mkdir(parents=True)
        lines = [
            ",timestamp,item_id,position,click,propensity_score,user_feature_0,user_feature_1,"
            "user_feature_2,user_feature_3,user-item_affinity_0"
        ]
        for k in range(rows):  # the latest first, so that the loader must sort
            users = ",".join("abc"[x] for x in rng.integers(3, size=4))
            time = f"2019-11-24 00:{59 - k % 60:02d}:05.004680+00:00"
            lines.append(f"{k},{time},{rng.integers(ITEMS)},{k % 3 + 1},{int(k % 4 == 0)},0.2,{users},0.0")
        (place / "all.csv.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
        items = [",item_id,item_feature_0,item_feature_1,item_feature_2,item_feature_3"]
        items += [f"{k},{k},{k / 10},x{k % 2},y,z{k}" for k in range(ITEMS)]
        (place / "item_context.csv").write_text("\n".join(items))
    prior = ["campaign,item_id,alpha,beta", *(f"all,{k},{k + 1}.0,4.0" for k in range(ITEMS))]
    (root / "prior_bts.csv").write_text("\n".join(prior))
    return root


def change(root: Path, old: str, new: str) -> None:
    path = root / "random/all/all.csv.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()).decode().replace(old, new, 1).encode()))


def test_loader_sorts_by_time_and_codes_the_features(tmp_path: Path) -> None:
    log = load_open_bandit(folder_of(tmp_path))
    assert (log.times.diff() >= 0).all() and log.times[0] == 1574553605004680
    assert log.positions[:4].tolist() == [2, 1, 0, 2]  # row 59 has place 3, row 58 place 2 ...
    assert log.clicks.sum() == 15 and (log.propensities == 0.2).all()
    assert log.user_features.shape == (60, 8)  # three values of four features, without the first of each
    assert log.item_features[3].tolist() == pytest.approx([1, 0, 3, 0.3])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (",0.2,", ",0.0,"),
        (",0.2,", ",-1.6,"),
        (",0.2,", ",NaN,"),
        ("1,1,0.2", "1,2,0.2"),
        ("1,1,0.2", "1,,0.2"),
        ("1,1,0.2", ",1,0.2"),
        (",0.2,", ",,"),
        (",click,", ",clack,"),
        ("2019-11-24 00:59", "yesterday"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, old: str, new: str) -> None:
    change(folder_of(tmp_path), old, new)
    with pytest.raises(UserError):
        load_open_bandit(tmp_path)


def test_missing_folders_and_unknown_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        load_open_bandit(tmp_path)
    with pytest.raises(UserError):
        load_open_bandit(tmp_path, "ucb")


def test_thompson_policy_counts_the_best_items_of_each_draw(tmp_path: Path) -> None:
    prior = benchmark.load_prior(folder_of(tmp_path))
    found = benchmark.thompson_policy(prior, 400, 3, np.random.RandomState(1))
    rng, count = np.random.RandomState(1), torch.zeros(3, ITEMS).double()
    for _ in range(400):
        best = rng.beta(prior[:, 0].numpy(), prior[:, 1].numpy()).argsort()[::-1]
        for place in range(3):
            count[place, int(best[place])] += 1 / 400
    assert torch.allclose(found, count)


def test_predictions_for_every_item_agree_with_one_row_at_a_time() -> None:
    rng = torch.Generator().manual_seed(0)
    users, items = torch.randn(4, 3, generator=rng).double(), torch.randn(6, 2, generator=rng).double()
    model = logistic()(torch.randn(50, 5, generator=rng), torch.randint(2, (50,), generator=rng))
    found = benchmark.for_every_item(model, users, items)
    for row, item in itertools.product(range(4), range(6)):
        both = torch.cat([users[row], items[item]]).unsqueeze(0)
        assert found[row, item].item() == pytest.approx(model(both).item(), rel=1e-10)


def test_benchmark_runs_on_a_made_up_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder_of(tmp_path / "data")
    out = tmp_path / "out.json"
    words = ["open_bandit", "--smoke", "--data-dir", str(tmp_path / "data"), "--json", str(out)]
    monkeypatch.setattr(sys, "argv", words)
    benchmark.main()
    rows = {row["estimator"]: row for row in json.loads(out.read_text())["rows"]}
    assert set(rows) == {"dm", "ips", "snips", "dr", "sndr", "clipped-ips", "dros"}
    assert "15 clicks in 60 rows decide it all" in capsys.readouterr().out


@pytest.mark.proof
def test_published_relative_errors_of_open_bandit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not SHARED.is_dir():
        pytest.skip("../shared/data/open-bandit-small is not here")
    out = tmp_path / "out.json"
    monkeypatch.setattr(
        sys,
        "argv",
        ["x", "--data-dir", str(SHARED), "--json", str(out), "--csv", str(tmp_path / "out.csv")],
    )
    benchmark.main()
    found = {row["estimator"]: row["relative_error"] for row in json.loads(out.read_text())["rows"]}
    assert found["ips"] == pytest.approx(0.311082, abs=5e-7)
    assert found["snips"] == pytest.approx(0.311795, abs=5e-7)
    for name in ("dm", "dr", "sndr"):
        assert found[name] == pytest.approx(benchmark.PUBLISHED[name], rel=0.05)
    assert found["dros"] == pytest.approx(0.160, abs=0.11)


def test_folds_of_rows_have_equal_sizes() -> None:
    folds = benchmark.folds_of_rows(10_000)
    assert folds.bincount().tolist() == [3334, 3333, 3333]

"""Kinds of items from a log's file about items, over the whole command; titles of kinds that are drawn."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from recsys_rl.checkpoint import load
from recsys_rl.cli import main
from tests.doors import steps
from tests.small_runs import settings, world

SMALL = ("--num-items", "60", "--min-item-likes", "1", "--max-episode-steps", "4", *steps(1))


def files(folder: Path, price: float = 2.0) -> tuple[str, ...]:
    """60 items that 30 users played: 20 videos, 36 products, the empty place, coupons; kinds of a course."""
    plays = [f"{user},{(7 * user + step) % 60},3" for user in range(30) for step in range(20)]
    (folder / "plays.csv").write_text("\n".join(["user_id,item_id,plays", *plays]))
    of_kind = ["video"] * 20 + ["product"] * 36 + ["empty"] + ["coupon"] * 3
    shop = [f"{at},thing {at},{kind},{price},{0.1 * (at - 57)}" for at, kind in enumerate(of_kind)]
    (folder / "shop.csv").write_text("\n".join(["id,title,kind,price,discount", *shop]))
    course = [f"{at},{('review', 'lesson', 'practice')[at % 3]},skill {at % 4},0.5" for at in range(60)]
    (folder / "tutor.csv").write_text("\n".join(["id,kind,skill,difficulty", *course]))
    return "--data", str(folder / "plays.csv"), "--items"


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines()[1:]


@pytest.mark.parametrize(
    ("env", "options", "counts"),
    [
        ("shop", ["--discounts"], {0: 20, 1: 36, 2: 1, 3: 3}),
        ("tutor", ["--items-per-day", "2"], {0: 20, 1: 20, 2: 20}),
    ],
)
def test_kinds_of_a_file(
    env: str, options: list[str], counts: dict[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["train", "--env", env, *files(tmp_path), str(tmp_path / f"{env}.csv"), *SMALL, *options]
    assert main([*words, "--name", "run"]) == 0
    catalogue = load(Path("runs/run/ppo.pt")).catalogue
    kind = catalogue.attributes["kind"].tolist()
    assert Counter(kind) == counts
    texts = dict(
        line.split(",")[:: 2 if env == "shop" else 1][:2] for line in lines_of(tmp_path / f"{env}.csv")
    )
    names = [catalogue.classes("kind")[number] for number in kind]
    assert names == [texts[str(id_)] for id_ in catalogue.item_ids.tolist()]
    features = [feature.name for feature in catalogue.features]
    assert len({*features}) == len(features)


def test_a_price_of_0_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["train", "--env", "shop", *files(tmp_path, price=0.0), str(tmp_path / "shop.csv"), *SMALL]
    assert main(words) == 2
    assert "price" in capsys.readouterr().err
    assert not Path("runs").exists()


def test_drawn_places_have_titles_of_their_own() -> None:
    config = settings("ppo", "shop", env_config={"num_items": 60, "max_episode_steps": 4})
    catalogue = world(config).catalogue
    kind = catalogue.attributes["kind"].tolist()
    titles = [catalogue.title(row) for row, number in enumerate(kind) if number >= 2]
    assert sorted(titles) == ["(nothing)", "coupon of 0 %", "coupon of 10 %", "coupon of 25 %"]


def test_a_column_without_values_is_as_one_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = files(tmp_path)
    path = tmp_path / "shop.csv"
    rows = [line.rpartition(",")[0] + "," for line in lines_of(path)]
    path.write_text("\n".join(["id,title,kind,price,discount", *rows]))
    assert main(["train", "--env", "shop", *data, str(path), *SMALL, "--name", "run"]) == 0
    catalogue = load(Path("runs/run/ppo.pt")).catalogue
    assert "discount" in catalogue.drawn and "kind" not in catalogue.drawn

"""The picture of the categories: shares by hand, coordinates, words, lives, data without categories."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

from benchmarks import categories as benchmark
from recsys_rl.cli import main as cli
from recsys_rl.evaluation.report.categories import categories, categories_svg
from recsys_rl.experience.rollout import Sessions
from recsys_rl.types import Catalogue, ItemFeature, UserError, empty_world, genres_and_year
from tests.evaluation.report.test_report import SVG, parsed, words, written
from tests.tiny_world import with_genres


def catalogue(genres: list[list[float]]) -> Catalogue:
    names = tuple("ABCDEFGH"[: len(genres[0])])
    return with_genres(empty_world().catalogue, torch.tensor(genres), names)


def sessions(steps: list[list[list[int]]], days: list[list[int]] | None = None) -> Sessions:
    """``steps`` (T, N, K) of items."""
    items = torch.tensor(steps)
    given = None if days is None else torch.tensor(days)
    nobody = torch.zeros(items.shape[1], dtype=torch.bool)
    return Sessions(items, torch.zeros(items.shape[:2]), nobody, days=given)


TWO = catalogue([[1, 0], [0, 1], [1, 1], [0, 0]])  # A, B, both, none


def test_shares_by_hand() -> None:
    """Two users, two places. The second user leaves after the first step; one place is empty."""
    played = sessions([[[0, 1], [2, 3]], [[0, -1], [-1, -1]]])
    found = categories(TWO, {"ppo": played}, 2)
    assert found is not None and found["names"] == ["A", "B", "others"] and found["parts"] == [[1, 1], [2, 2]]
    (row,) = found["policies"]
    assert row["shares"] == {"A": [0.375, 1.0], "B": [0.375, 0.0], "others": [0.25, 0.0]}
    assert row["mean"] == pytest.approx({"A": 0.5, "B": 0.3, "others": 0.2})
    assert row["present"] == [1.0, 0.5] and (row["users"], row["length_mean"]) == (2, 1.5)


def test_long_session_is_cut_into_parts_and_ends_with_its_users() -> None:
    """45 steps are 15 parts of 3; all users leave after 4 steps, so that two parts are drawn."""
    played = sessions([[[0]]] * 4 + [[[-1]]] * 41)
    found = categories(TWO, {"ppo": played}, 45)
    assert found is not None and found["parts"][0] == [1, 3] and found["parts"][-1] == [43, 45]
    assert len(found["parts"]) == 15 and found["policies"][0]["present"] == pytest.approx([1, 1 / 3])


def test_presence_counts_the_steps_that_nobody_reaches() -> None:
    """Two users of at most 40 steps, parts of 2 steps: one leaves after a step, and one after 3."""
    played = sessions([[[0], [0]], [[0], [-1]], [[0], [-1]]])
    found = categories(TWO, {"ppo": played}, 40)
    assert found is not None and found["policies"][0]["present"] == [0.75, 0.25]
    soon = categories(TWO, {"ppo": played}, 1000)  # parts of 50 steps: 4 of 100 steps of the users
    assert soon is not None and soon["policies"][0]["present"] == pytest.approx([0.04])
    categories_svg(soon)  # the first part is drawn, however few of the users are left


def test_category_with_the_name_of_another_row_is_among_the_others() -> None:
    named = replace(TWO, features=genres_and_year(("others", "B")))
    found = categories(named, {"ppo": sessions([[[0]], [[0]], [[1]], [[3]]])}, 4)
    assert found is not None and found["names"] == ["B", "others"]
    assert found["policies"][0]["mean"] == {"B": 0.25, "others": 0.75}


def test_only_the_first_visit_of_a_life_counts() -> None:
    played = sessions([[[0]], [[1]], [[1]]], days=[[0], [1], [-1]])
    found = categories(TWO, {"ppo": played}, 3)
    assert found is not None and found["visits"] is True and found["policies"][0]["length_mean"] == 1
    assert found["policies"][0]["mean"] == {"A": 1.0, "others": 0.0}


def test_five_most_shown_categories_of_all_policies_are_named() -> None:
    eight = catalogue(torch.eye(8).tolist())
    first = sessions([[[item]] for item in (0, 0, 0, 1, 1, 1, 2, 2)])
    second = sessions([[[item]] for item in (7, 7, 7, 7, 3, 3, 4, 5)])
    found = categories(eight, {"ppo": first, "rule": second}, 8)
    assert found is not None and found["names"] == ["H", "A", "B", "C", "D", "others"]
    assert found["policies"][1]["mean"]["others"] == 0.25


def test_data_without_categories_have_a_sentence(tmp_path: Path) -> None:
    plain = catalogue([[0, 0], [0, 0]])
    assert categories(plain, {"ppo": sessions([[[0]]])}, 1) is None
    page = written(tmp_path, categories=None)
    assert "No picture: the data hold no categories of items." in words(parsed(page))
    assert "Categories over the session" not in written(tmp_path)


def picture() -> dict[str, Any]:
    row = {"users": 131, "length_mean": 36.94, "present": [1.0, 0.5]}
    shares = {"Drama": [0.4, 0.1], "others": [0.6, 0.9]}
    mean = {"Drama": 0.3, "others": 0.7}
    named = {"policy": "ppo-greedy", "shares": shares, "mean": mean}
    short = {
        "policy": "my <policy> with a long name",
        "shares": {"Drama": [0.5], "others": [0.5]},
        "mean": mean,
    }
    return {
        "names": ["Drama", "others"],
        "parts": [[1, 2], [3, 4]],
        "length": 4,
        "visits": False,
        "policies": [row | named, row | short | {"present": [1.0]}],
    }


def test_areas_have_the_height_of_their_shares() -> None:
    # Narrow: two columns of (358 - 16 - 14 - 14) / 2 = 157 from 14 and 185; rows of 74 from 34, the area's
    # floor 10 above the next row. An area of 32 pixels is 50 % of Drama, 90 % of the others.
    root = ElementTree.fromstring(categories_svg(picture(), 358))
    areas = [path.get("d") for path in root.iter(SVG + "path") if "area" in path.get("class", "")]
    assert areas[0] == "M14.0 98.0V72.4H92.5V91.6H171.0V98.0Z"
    assert areas[1] == "M14.0 172.0V150.7H92.5V140.0H171.0V172.0Z"
    assert areas[2] == "M14.0 246.0V214.0H92.5V230.0H171.0V246.0Z"  # users: 1 and 0.5
    assert areas[3] == "M185.0 98.0V66.0H263.5V98.0Z"  # ends where its users left
    said = [words(t) for t in root.iter(SVG + "text")]
    assert said[:3] == ["Dramaup to 50 %", "othersup to 90 %", "users still thereup to 100 %"]
    assert said[3:7] == ["ppo-greedy", "40 → 10 %", "60 → 90 %", "36.9 steps"]
    assert "my <policy> with a l…" in said
    assert root.get("aria-label", "").startswith(
        "Share of the categories among the shown items over the session, 131 users. ppo-greedy, 36.9 steps: "
        "Drama 30 % (40 % in steps 1 to 2, 10 % in steps 3 to 4), others 70 % ("
    )


def test_a_category_that_is_shown_much_leaves_the_others_high() -> None:
    """A share of 2 % has the whole height of its row beside one of 98 %."""
    row = {"policy": "ppo", "users": 9, "length_mean": 2.0, "present": [1.0, 1.0]}
    shares = {"Drama": [0.98, 0.99], "War": [0.02, 0.01]}
    drawn = categories_svg(
        {
            "names": [*shares],
            "parts": [[1, 1], [2, 2]],
            "length": 2,
            "visits": False,
            "policies": [row | {"shares": shares, "mean": {"Drama": 0.985, "War": 0.015}}],
        }
    )
    areas = [
        x.get("d", "")
        for x in ElementTree.fromstring(drawn).iter(SVG + "path")
        if "area" in x.get("class", "")
    ]
    heights = [[float(y) for y in re.findall(r"V([0-9.]+)", area)] for area in areas[:2]]
    floors = [float(re.findall(r"M[0-9.]+ ([0-9.]+)", area)[0]) for area in areas[:2]]
    assert [floor - y[0] for y, floor in zip(heights, floors, strict=True)] == pytest.approx(
        [31.4, 32.0], abs=0.1
    )
    assert floors[1] - heights[1][1] == pytest.approx(16, abs=0.1)


@pytest.mark.parametrize("width", [358, 760, 1072])
def test_words_and_areas_stand_inside_the_picture(width: int) -> None:
    root = ElementTree.fromstring(categories_svg(picture(), width))
    height = float(root.get("height", ""))
    for word in root.iter(SVG + "text"):
        x, letters = float(word.get("x", "")), 6.8 * len(word.text or "")
        start = x - letters if "end" in word.get("class", "").split() else x
        assert start >= 0 and start + letters <= width, word.text
        assert 0 < float(word.get("y", "")) < height


def test_page_has_the_picture_in_three_sizes_and_says_what_it_holds(tmp_path: Path) -> None:
    root = parsed(written(tmp_path, categories=picture()))
    drawn = [
        s for s in root.iter(SVG + "svg") if s.get("aria-label", "").startswith("Share of the categories")
    ]
    assert [s.get("width") for s in drawn] == ["358", "760", "1072"]
    (note,) = [words(p) for p in root.iter("p") if words(p).startswith("What each policy shows")]
    assert "to the same 131 users, one session each" in note and "in each 2 steps of the session" in note


def test_benchmark_refuses_a_checkpoint_without_categories_and_an_unknown_yardstick(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["--data", "synthetic", "--num-items", "40", "--num-users", "40", "--total-timesteps", "512"]
    assert cli(["train", "--env", "satiation", *small, "--n-steps", "8", "--num-envs", "64"]) == 0
    monkeypatch.setattr(benchmark, "IMAGES", tmp_path)
    for options in (
        ["--yardstick", "static-list"],
        ["--yardstick", "best"],
    ):
        monkeypatch.setattr("sys.argv", ["categories", "checkpoints/ppo.pt", *options])
        with pytest.raises(UserError):
            benchmark.main()
    assert not list(tmp_path.glob("*.svg"))


def test_kinds_take_the_place_of_categories() -> None:
    """Two users, who are both shown an item of the second kind, and then one of the first."""
    kinds = ItemFeature("kind", "classes", ("lesson", "review"))
    bare = replace(catalogue([[0, 0]] * 3), features=(kinds,), attributes={"kind": torch.tensor([0, 1, 1])})
    found = categories(bare, {"ppo": sessions([[[1], [2]], [[0], [0]]])}, 2)
    assert found is not None and found["names"] == ["lesson", "review", "others"]
    assert found["policies"][0]["shares"] == {
        "lesson": [0.0, 1.0],
        "review": [1.0, 0.0],
        "others": [0.0, 0.0],
    }

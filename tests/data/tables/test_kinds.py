"""Kinds of events: views, carts and purchases, each with its weight."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from recsys_rl.checkpoint import load
from recsys_rl.cli import main
from recsys_rl.data.event_file import read_events
from recsys_rl.data.log import LogConfig
from recsys_rl.data.tables.events import read_log
from recsys_rl.data.tables.kinds import parse_event_weights
from recsys_rl.evaluation.ranking import RankingConfig
from recsys_rl.logs.describe.survey import describe
from recsys_rl.types import UserError
from tests.data.tables.test_read import RUN

WEIGHTS = {"view": 0.0, "cart": 1.0, "purchase": 3.0}
SHOP = """user,item,event_type,ts
1,10,view,1
1,10,cart,1
1,10,purchase,1
1,11,view,2
2,11,cart,3
2,,view,4
"""


def shop(folder: Path, text: str = SHOP) -> Path:
    path = folder / "shop.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_kinds_of_weight_zero_are_left_out_and_others_are_likes_with_their_weight(tmp_path: Path) -> None:
    log = read_log(shop(tmp_path), event_weights=WEIGHTS)
    assert log.users.tolist() == [0, 0, 1] and log.items.tolist() == [0, 0, 1]
    assert log.ratings.tolist() == [1.0, 1.0, 1.0]
    assert log.weights is not None and log.weights.tolist() == [1.0, 3.0, 1.0]
    assert log.source == (
        "shop.csv (columns: user, item, time = ts, event = event_type; "
        "kinds of events: 3 view left out, 2 cart with weight 1, 1 purchase with weight 3)"
    )


def test_weight_of_a_kind_multiplies_that_of_the_row_and_ratings_are_not_read(tmp_path: Path) -> None:
    text = "user,item,weight,action,rating\n1,2,2,buy,1\n1,3,5,look,5\n2,2,0.5,buy,\n"
    log = read_log(shop(tmp_path, text), event_weights={"buy": 3, "look": 0})
    assert log.weights is not None and log.weights.tolist() == [6.0, 1.5]
    assert log.rating_range == (0.0, 1.0) and "not read: 'rating'" in log.source


def test_kinds_without_a_weight_are_refused_with_their_counts(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        read_log(shop(tmp_path), event_weights={"cart": 1})
    assert "column 'event_type' has kinds without a weight: 'view' (3), 'purchase' (1)" in str(caught.value)


def test_rows_of_one_kind_repeat_others_and_problems_keep_the_rows_of_the_file(tmp_path: Path) -> None:
    text = SHOP + "3,12,,5\n3,12,cart,5\n3,12,cart,5\n"
    with pytest.raises(UserError) as caught:
        read_log(shop(tmp_path, text), event_weights=WEIGHTS)
    assert "column 'event_type' has no value in 1 row (the first is line 8)" in str(caught.value)
    assert "lines 9 and 10 have the same user, item, time, event" in str(caught.value)
    log = read_log(shop(tmp_path, text), event_weights=WEIGHTS, missing="drop", duplicates="sum")
    assert log.weights is not None and log.weights.tolist() == [1.0, 3.0, 1.0, 2.0]


@pytest.mark.parametrize(
    "text", ["view", "view=x", "view=-1", "view=inf", "view=nan", "=1", "a=1,a=2", "a=0,b=0"]
)
def test_weights_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UserError):
        parse_event_weights(text)


def test_names_of_kinds_may_hold_signs() -> None:
    assert parse_event_weights("add to cart = 2, a=b=1") == {"add to cart": 2.0, "a=b": 1.0}


def test_several_kinds_without_weights_are_warned_of(tmp_path: Path) -> None:
    said = read_log(shop(tmp_path), missing="drop", duplicates="keep-first").source
    assert "column 'event_type' has 3 kinds of events (view 50%, cart 33%, purchase 17%)" in said
    assert "see --event-weights" in said and "not read: 'event_type'" in said
    for text in (
        "user,item,event_type\n1,2,view\n1,3,view\n",  # one kind
        "user,item,event,rating\n1,2,view,3\n1,3,buy,4\n",  # ratings tell the likes
        "user,item,event\n" + "".join(f"1,{k},e{k}\n" for k in range(51)),  # no kinds: 51 of them
    ):
        assert "kinds" not in read_log(shop(tmp_path, text)).source
    assert "kinds" not in read_log(shop(tmp_path), event_column="-", missing="drop", duplicates="sum").source


def test_the_first_of_several_common_names_is_taken(tmp_path: Path) -> None:
    text = "user,item,kind,behaviour_type\n1,2,a,view\n1,3,b,buy\n"
    assert "column 'behaviour_type' has 2 kinds" in read_log(shop(tmp_path, text)).source
    assert "column 'kind' has 2 kinds" in read_log(shop(tmp_path, text), event_column="kind").source


def test_describe_counts_the_kinds(tmp_path: Path) -> None:
    found = describe(shop(tmp_path))
    assert found.kinds == {"view": 3, "cart": 2, "purchase": 1} and found.others == ()
    line = "kinds of events: 3 ('view' 3, 'cart' 2, 'purchase' 1), weighted in training by --event-weights"
    assert line in found.lines()
    many = shop(tmp_path, "user,item,event\n" + "".join(f"{k},{k},e{k}\n" for k in range(60)))
    found = describe(many)
    assert found.kinds == {} and found.others == ("event",) and "event" not in found.columns
    decisions = shop(tmp_path, "user,item,propensity,action\n1,2,0.5,a\n2,2,0.5,b\n")
    assert describe(decisions).kinds == {} and describe(decisions).others == ("action",)


def test_weights_of_the_training_hold_for_other_files_with_kinds(tmp_path: Path) -> None:
    trained = LogConfig("shop.csv", event_weights="view=0,cart=1,purchase=3")
    path = str(shop(tmp_path))
    assert read_events(path, RankingConfig(path), trained).weights is not None
    other = RankingConfig(path, event_weights="view=1,cart=0,purchase=0", missing="drop")
    assert read_events(path, other, trained).items.tolist() == [0, 1]
    shop(tmp_path, "user,item\n1,10\n2,11\n")
    assert read_events(path, RankingConfig(path), trained).weights is None


def write_shop(path: Path) -> None:
    """Forty people of two camps: they buy odd or even items, and look at all of them."""
    rows = ["user,item,event_type,weight,ts"]
    for user in range(40):
        for k in range(12):
            rows.append(f"{user},{(2 * k + user % 2) % 24},purchase,{k + 1},{10 * k}")
            rows.append(f"{user},{(7 * k + user) % 24},view,{k + 1},{10 * k + 1}")
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


def test_whole_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_shop(Path("shop.csv"))
    sizes = ["--num-items", "24", "--min-item-likes", "1"]
    given = ["--event-weights", "view=0,purchase=2", "--weight-column", "-"]
    assert main(["train", "--data", "shop.csv", *RUN, *sizes, *given]) == 0
    said = capsys.readouterr().err
    assert "480 view left out, 480 purchase with weight 2" in said and "weighted by" not in said
    embedding = load("checkpoints/ppo.pt").catalogue.embedding
    camps = embedding @ embedding.T  # (24, 24): odd items are near odd ones, and even near even
    same = (torch.arange(24).unsqueeze(1) - torch.arange(24)) % 2 == 0
    assert camps[same].mean() > camps[~same].mean() + 0.5
    assert main(["ranking", "shop.csv", "--weight-column", "-", "--k", "5", "--json", "table.json"]) == 0
    policies = {row["ranking"]: row for row in json.loads(Path("table.json").read_text())["rows"]}
    assert policies["mf"]["ndcg"] > 0.9  # purchases alone are relevant, as in training
    capsys.readouterr()
    table = ["evaluate", "--max-users", "2", "--users", "shop.csv"]
    assert main([*table, "--event-weights", "view=1"]) == 2
    assert main(["evaluate", "--event-weights", "view=1"]) == 2
    for options in (["--event-column", "-"], ["--rating-column", "weight"], ["--like-threshold", "2"]):
        assert main(["train", "--data", "shop.csv", *RUN, *given[:2], *options]) == 2


def test_a_column_found_by_its_name_as_weight_is_named_with_what_it_does(tmp_path: Path) -> None:
    path = shop(tmp_path, "user,item,weight\n1,2,0.5\n1,3,2\n")
    found = read_log(path)
    assert found.weights is not None and "columns: user, item, weight" in found.source
    assert "likes are weighted by 'weight', as if it held plays" in found.source
    assert "give --weight-column - if" in found.source
    none = read_log(path, weight_column="-")
    assert none.weights is None and "not read: 'weight'" in none.source
    assert "weighted by" not in read_log(path, weight_column="weight").source

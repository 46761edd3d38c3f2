"""Items that come and go in a team's own log, by the moments of their file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from recsys_rl.checkpoint import load
from recsys_rl.cli import main
from recsys_rl.data.tables.item_encoding import items_of
from recsys_rl.data.timeline import NEVER
from recsys_rl.errors import UserError
from recsys_rl.logs.decision_table import read_table
from recsys_rl.logs.parts import PART
from recsys_rl.logs.platform import load_log
from recsys_rl.logs.source import Place, open_log
from recsys_rl.logs.transitions import observe, transition_table
from recsys_rl.make import make_world
from recsys_rl.settings.config import Config, brought_settings, overlay
from tests.logs.ope.test_unknown import judged
from tests.own_logs import items_file, policy, write_csv

DAYS = ["2026-05-01", "2026-05-02", "2026-05-03", "2026-05-04"]
ITEMS = [
    ["a", 1.0, "", "2026-05-03"],
    ["b", 2.0, "", ""],
    ["c", 3.0, "2026-05-02", ""],
    ["b2", 4.0, "2026-05-03", "2026-05-04"],
    ["a", 9.0, "2026-05-04", ""],  # again, at another price
]
THERE = {0: {"a", "b"}, 1: {"a", "b", "c"}, 2: {"b", "c", "b2"}, 3: {"a", "b", "c"}}


def log(path: Path, repeats: int = 10) -> Path:
    rows = []
    for turn in range(repeats):
        for day, names in THERE.items():
            for at, name in enumerate(sorted(names)):
                when = f"{DAYS[day]}T10:00:0{at}"
                rows.append([f"u{turn % 7}", when, name, int(name == "c"), 1 / len(names)])
    return write_csv(path, ["user", "time", "item", "clicked", "propensity"], rows)


def items(path: Path, rows: Sequence[Sequence[object]] = ITEMS) -> Path:
    return write_csv(path, ["id", "price", "available_from", "available_to"], rows)


def place(folder: Path) -> Place:
    given = {"log": (str(log(folder / "log.csv")),), "items": str(items(folder / "items.csv"))}
    config = Config(
        **{**overlay(brought_settings("own-log", given), {"algo": "bc", "env": "own-log"}), **given}
    )
    return Place.of_run(config, make_world(config))


def test_each_decision_could_show_the_items_of_its_time(tmp_path: Path) -> None:
    where = place(tmp_path)
    catalogue = where.world.catalogue
    assert catalogue.item_names == ("a", "a", "b", "b2", "c")  # the former one first
    assert catalogue.available.tolist() == [False, True, True, False, True]
    prices = [item.features["price"] for item in items_of(catalogue)]
    assert prices == [1.0, 9.0, 2.0, 4.0, 3.0]
    (part,) = open_log((str(tmp_path / "log.csv"),), where).parts(PART)
    mask = observe(part, catalogue).mask
    assert mask is not None and bool(mask.gather(1, part.items).all())
    day = [
        "".join(catalogue.item_names[row] for row in rows.nonzero().flatten().tolist()) for rows in mask[:11]
    ]
    assert sorted(set(day)) == ["ab", "abc", "bb2c"]
    # On the fourth day the one of the new price is shown.
    times = part.times // (24 * 3600 * 10**6)
    of_a = torch.tensor([catalogue.item_names[row] == "a" for row in part.items.flatten().tolist()])
    late = times == times.max()
    assert part.items.flatten()[of_a & late].unique().tolist() == [1]
    assert part.items.flatten()[of_a & ~late].unique().tolist() == [0]
    table = transition_table(part, catalogue, torch.zeros(part.num_rows))
    batch = table.at(torch.arange(4))
    assert batch.obs.mask is not None and torch.equal(batch.obs.mask, mask[:4])


def test_an_item_with_an_end_to_come_is_still_there(tmp_path: Path) -> None:
    """The last decision is of May 4: an end in June is to come, one of that morning is not."""
    path, ends = str(log(tmp_path / "log.csv")), {"b": "2026-06-01", "c": "2026-05-04T10:00:03"}
    rows = [[*row[:3], ends.get(str(row[0]), row[3])] for row in ITEMS]
    given = {"log": (path,), "items": str(items(tmp_path / "items.csv", rows))}
    catalogue = load_log(given).world.catalogue
    assert dict(zip(catalogue.item_names, catalogue.available.tolist(), strict=True)) == {
        "a": True,
        "b": True,
        "b2": False,
        "c": True,
    }
    assert catalogue.attributes["available_to"].tolist()[2] < NEVER  # a later log may show that it is gone
    lone = write_csv(
        tmp_path / "lone.csv", ["user", "item", "clicked"], [[f"u{x}", "bc"[x % 2], 1] for x in range(9)]
    )
    catalogue = load_log({**given, "log": (str(lone),)}).world.catalogue  # it tells no times
    assert catalogue.item_names[1:3] == ("a", "b") and catalogue.available.tolist()[1:3] == [True, False]


def test_a_reward_of_a_name_with_another_meaning_is_refused(tmp_path: Path) -> None:
    """An export of the record has a column `stock` of its own, which such a reward would replace."""
    rows = [[f"u{x}", "ab"[x % 2], x % 2] for x in range(9)]
    write_csv(tmp_path / "log.csv", ["user", "item", "stock"], rows)
    with pytest.raises(UserError, match=r"log.csv: a column stock"):
        load_log({"log": (str(tmp_path / "log.csv"),), "reward_column": "stock"})
    with pytest.raises(UserError, match=r"log.csv: a column stock"):
        read_table(tmp_path / "log.csv", {"reward": "stock"})


def test_a_log_of_items_that_have_gone_since_is_refused_with_their_number(tmp_path: Path) -> None:
    """Eight items, none twice in a session of three steps. One is there now; each has a former row."""
    header = ["user", "session", "step", "item", "propensity", "clicked"]
    steps = [
        [f"u{user}", f"s{user}", step, f"i{(user + step) % 8}", 0.125, step % 2]
        for user in range(60)
        for step in range(3)
    ]
    old = write_csv(tmp_path / "old.csv", header, steps)
    made = policy(tmp_path / "p.pt", old, "reinforce", items=str(items_file(tmp_path / "items.csv", 8)))
    assert judged(old, made).rows
    header = ["id", "title", "genres", "price", "available_from", "available_to"]
    former = [[f"i{x}", "", "a", x, "", DAYS[1]] for x in range(8)]
    now = [[f"i{x}", "", "a", x, DAYS[1], DAYS[2] if x else ""] for x in range(8)]
    gone = write_csv(tmp_path / "gone.csv", header, [*former, *now])
    with pytest.raises(UserError, match=r"Of the 8 items .* knows 1 is there now.* shows 3: give --items"):
        judged(old, made, items=str(gone))


def test_a_table_has_them_as_candidates(tmp_path: Path) -> None:
    """Without a policy; uniform probabilities over the items of the time have weights with a mean of 1."""
    table = read_table(log(tmp_path / "log.csv"), items=items(tmp_path / "items.csv"))
    assert table.log.candidates is not None and table.items == ("a", "b", "b2", "c")
    number = (table.log.candidates >= 0).sum(1)
    torch.testing.assert_close(1 / number.double(), table.log.logprobs.exp())
    assert table.catalogue.item_names == table.items  # an item that has changed has one row, its last one
    prices = [item.features["price"] for item in items_of(table.catalogue)]
    assert prices == [9.0, 2.0, 4.0, 3.0]
    shown = (table.log.items == torch.arange(4)).double().mean(0)
    torch.testing.assert_close(table.catalogue.popularity.double(), shown, atol=1e-6, rtol=0)


def test_an_item_that_was_not_there_is_named(tmp_path: Path) -> None:
    where = place(tmp_path)
    write_csv(
        tmp_path / "wrong.csv",
        ["user", "time", "item", "clicked", "propensity"],
        [["u1", f"{DAYS[0]}T10:00:00", "b", 1, 0.5], ["u2", f"{DAYS[0]}T11:00:00", "c", 1, 0.5]],
    )
    with pytest.raises(UserError, match=r"line 3.*available_from"):
        [*open_log((str(tmp_path / "wrong.csv"),), where).parts(PART)]


def test_a_wrong_moment_is_named(tmp_path: Path) -> None:
    rows = [*ITEMS[:2], ["c", 3.0, "soon", ""]]
    log(tmp_path / "log.csv")
    with pytest.raises(UserError, match=r"available_from.*soon"):
        load_log({"log": (str(tmp_path / "log.csv"),), "items": str(items(tmp_path / "items.csv", rows))})


@pytest.mark.proof
def test_a_policy_learns_from_them_and_recommends_what_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = ["--log", str(log(tmp_path / "log.csv", 40)), "--items", str(items(tmp_path / "items.csv"))]
    runs = ["--runs-dir", str(tmp_path / "runs"), "--name", "one", "--total-timesteps", "12800"]
    assert main(["train", "--algo", "reinforce", *paths, *runs]) == 0
    made = load(tmp_path / "runs" / "one" / "reinforce.pt")
    assert made.catalogue.available.sum() == 3
    assert main(["recommend", "--checkpoint", str(tmp_path / "runs/one/reinforce.pt"), "--k", "3"]) == 0
    said = capsys.readouterr().out
    assert {line.split("(id ")[1].rstrip(")") for line in said.splitlines()[-3:]} == {"a", "b", "c"}
    # Trained on with a file of items that go: before the last decision of its log, and after.
    rows = [
        [*row[:3], {"b": "2026-05-04T10:00:02", "c": "2026-06-01"}.get(str(row[0]), row[3])] for row in ITEMS
    ]
    rest = [
        "--log",
        str(log(tmp_path / "newer.csv", 40)),
        "--items",
        str(items(tmp_path / "later.csv", rows)),
        *runs[:2],
        "--name",
        "two",
    ]
    given = ["--checkpoint", str(tmp_path / "runs" / "one" / "reinforce.pt"), "--total-timesteps", "1280"]
    assert main(["train", "--algo", "reinforce", *rest, *given]) == 0
    assert "data: newer.csv; " in capsys.readouterr().err
    shop = load(tmp_path / "runs" / "two" / "reinforce.pt").catalogue
    names = {shop.id_of(row) for row in shop.available.nonzero()[:, 0].tolist()}
    assert names == {"a", "c"}

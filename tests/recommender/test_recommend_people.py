"""Recommendations for the people of a log: without what they have, with new items, on any terminal."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import torch

from recsys_rl.checkpoint import load as load_checkpoint
from recsys_rl.checkpoint import save
from recsys_rl.cli import main
from recsys_rl.data.catalogue import build_world
from recsys_rl.data.new_items import join
from recsys_rl.data.tables.items import read_items
from recsys_rl.errors import UserError
from recsys_rl.models.item_columns import item_columns
from recsys_rl.recommender import load
from recsys_rl.types import World
from tests.data.tables.test_read import RUN, camps
from tests.data.test_new_items_and_data import SIZES
from tests.doors import finish, start
from tests.worlds import two_camps

TITLES = ["Toy Story", "Matrix, The", "Heat \x1b[31mred\x1b[0m", *(f"film {item}" for item in range(3, 30))]
LIKED = {user: {i for u, i, _ in camps() if u == user and (u + i) % 2} for user in range(40)}
"""The items that each user of the log likes."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with a run of two-tower networks on a log with titles, genres and years."""
    path = tmp_path_factory.mktemp("runs")
    rows = [f"{u},{i},{5 if (u + i) % 2 else 1},{at % 12}" for at, (u, i, _) in enumerate(camps())]
    (path / "log.csv").write_text("\n".join(["user,item,rating,timestamp", *rows]) + "\n", encoding="utf-8")
    facts = [
        f'{i},"{title}",{"odd" if i % 2 else "even"},{1990 + i},{"north" if i % 2 else "south"},{i / 10}'
        for i, title in enumerate(TITLES)
    ]
    head = "id,title,genres,year,region,price"
    (path / "items.csv").write_text("\n".join([head, *facts]) + "\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        sizes = ["--num-items", "30", "--min-item-likes", "1", "--items", "items.csv"]
        assert main(["train", "--data", "log.csv", *RUN, *sizes, "--name", "first"]) == 0
    return path


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


def lines(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    """The lines that `recommend` prints."""
    assert main(["recommend", *words]) == 0
    return capsys.readouterr().out.splitlines()


def ids(found: list[str]) -> set[int]:
    return {int(re.search(r"\(id (\d+)\)$", line)[1]) for line in found}  # type: ignore[index]


def test_likes_of_the_data_lie_in_the_population(tmp_path: Path) -> None:
    log = two_camps()
    catalogue, population = build_world(log, num_items=12, embedding_dim=4, cache_dir=tmp_path, **SIZES)  # type: ignore[arg-type]
    rows = {id_: row for row, id_ in enumerate(catalogue.item_ids.tolist())}
    users = torch.tensor([3, 0, 7])
    places, items = population.likes_of(users)
    for place, user in enumerate(users.tolist()):
        row = int((log.user_ids == population.user_ids[user]).nonzero())
        liked = log.items[(log.users == row) & (log.ratings >= 4)].tolist()
        wanted = sorted(rows[id_] for item in liked if (id_ := int(log.item_ids[item])) in rows)
        assert items[places == place].tolist() == wanted
    places, items = replace(population, likes={}).likes_of(users)
    assert len(places) == len(items) == 0


def test_own_likes_are_left_out_unless_wanted_again(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On a platform that repeats items, too."""
    checkpoint = load_checkpoint("runs/first/ppo.pt")
    assert checkpoint.interface.repeats
    left = 30 - len(LIKED[3])
    assert ids(lines(capsys, "--user", "3", "--k", str(left))) == set(range(30)) - LIKED[3]
    assert ids(lines(capsys, "--user", "3", "--k", "30", "--again")) == set(range(30))
    assert main(["recommend", "--user", "3", "--k", "30"]) == 2
    assert f"Only {left} items may be shown, but k is 30" in capsys.readouterr().err
    Path("most.txt").write_text("".join(f"{item}\n" for item in range(25)), encoding="utf-8")
    few = set(range(25, 30)) - LIKED[3]
    assert ids(lines(capsys, "--user", "3", "--block", "most.txt")) == few
    assert main(["recommend", "--user", "3", "--block", "most.txt"]) == 0
    assert (
        f"{len(few)} items may be shown, so lists have {len(few)} in place of 10" in capsys.readouterr().err
    )


def test_lists_of_many_users_leave_out_what_each_one_has(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("seen.csv").write_text("visitor,film\n3,0\n3,29\n3,777\n4,1\nx,2\n", encoding="utf-8")
    words = ["--seen", "seen.csv", "--user-column", "visitor", "--item-column", "film"]
    assert main(["recommend", "--users", "all", "--out", "all.parquet", "--k", "30", *words]) == 0
    users = pl.read_parquet("all.parquet")["user"].unique().to_list()
    said = capsys.readouterr().err
    assert f"{len(users)} users: all.parquet ({len(users)} of them have fewer than 30 items left)" in said
    for user, rows in pl.read_parquet("all.parquet").group_by("user"):
        more = {3: {0, 29}, 4: {1}}.get(int(str(user[0])), set())
        assert set(rows["item"]) == set(range(30)) - LIKED[int(str(user[0]))] - more
        assert sorted(rows["place"]) == list(range(1, rows.height + 1))
    shorter = ids(lines(capsys, "--user", "3", *words, "--k", str(28 - len(LIKED[3]))))
    assert shorter <= set(range(1, 29)) - LIKED[3]
    other = next(user for user in users if user not in (3, 4))
    assert main(["recommend", "--user", str(other), *words]) == 2
    assert "--seen seen.csv has no event of this user" in capsys.readouterr().err


def test_checkpoint_of_an_earlier_version_has_no_likes(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = load_checkpoint("runs/first/ppo.pt")
    save("old.pt", replace(old, world=World(old.catalogue, replace(old.population, likes={}))))
    for words in (["--user", "3", "--k", "30"], ["--users", "all", "--k", "30", "--out", "old.parquet"]):
        assert main(["recommend", "--checkpoint", "old.pt", *words]) == 0
        (note, *_) = capsys.readouterr().err.splitlines()
        assert note.startswith("old.pt is of an earlier version and does not hold what its users like")
    assert main(["recommend", "--checkpoint", "old.pt", "--like", "Toy Story"]) == 0
    assert "earlier version" not in capsys.readouterr().err


def test_control_characters_do_not_reach_the_terminal(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = lines(capsys, "--user", "3", "--again", "--k", "30")
    assert any(line.endswith(r"Heat \x1b[31mred\x1b[0m  (id 2)") for line in found)
    assert main(["recommend", "--like", "heat", "--like", "film"]) == 2
    assert "\x1b" not in capsys.readouterr().err
    Path("odd.csv").write_text("user,item,\x1b[1mnote\n1,2,3\n", encoding="utf-8")
    assert main(["data", "describe", "odd.csv"]) == 0
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.proof
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_of_the_output_is_one_sentence(here: Path) -> None:
    code, _, said = finish(start(here, "-c", FULL, "recommend", "--user", "3"))
    assert code == 2 and said.splitlines()[-1].startswith("error: the output can't be written (No space")
    assert "Traceback" not in said and "Exception ignored" not in said


def test_new_items_are_refused_where_users_have_columns_of_items(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recommender = load("runs/first/ppo.pt")
    interface = recommender.checkpoint.interface
    context = (*interface.context, ("owns[region]", 2))
    recommender.checkpoint = replace(recommender.checkpoint, interface=replace(interface, context=context))
    monkeypatch.setattr("recsys_rl.recommender.recommender.join", None)  # to be called is to fail
    with pytest.raises(UserError):
        recommender.with_new_items("items.csv", "id")


def test_new_items_join_without_training(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = ["id,title,genres,year,region,price", '90,"An odd one",odd,2003,north,1.3', "91,Nothing,,,,"]
    Path("new.csv").write_text("\n".join(new) + "\n", encoding="utf-8")
    words = ["--user", "3", "--again", "--items", "new.csv"]
    assert main(["recommend", *words, "--k", "32"]) == 0
    said = capsys.readouterr()
    assert ids(said.out.splitlines()) == {*range(30), 90, 91}
    assert "An odd one  (id 90)" in said.out
    Path("only.txt").write_text("90\n91\n", encoding="utf-8")
    assert ids(lines(capsys, *words, "--allow", "only.txt")) == {90, 91}
    note = next(line for line in said.err.splitlines() if line.startswith("--items"))
    assert "2 new items, for this command alone, with vectors from" in note
    assert "without a value: genres (1), year (1), price (1)" in note
    assert "without any attribute: 1 ('91')" in note
    recommender = load("runs/first/ppo.pt")
    longer, _ = recommender.with_new_items("new.csv")
    odd = longer.catalogue.embedding[longer.row_of_item[90]]
    camp = [float((odd * recommender.catalogue.embedding[side::2]).sum(1).mean()) for side in (0, 1)]
    assert camp[1] > camp[0] + 0.2  # the new item is like those of its genre
    assert longer.item("an odd") == 30 and longer.catalogue.attributes["year"][30] == 2003
    assert float(longer.catalogue.attributes["price"][30]) == pytest.approx(1.3)


def test_known_items_keep_their_features_and_scores(here: Path) -> None:
    """Items that join are no reason to scale the features anew: the network knows those of its training."""
    Path("new.csv").write_text("id,genres,year\n90,odd,2090\n91,odd,2095\n", encoding="utf-8")
    before = load("runs/first/ppo.pt")
    after, _ = before.with_new_items("new.csv")
    columns = item_columns(after.catalogue, before.catalogue)
    assert torch.equal(columns[:30], item_columns(before.catalogue))
    assert not torch.allclose(item_columns(after.catalogue)[:30], columns[:30], atol=0.1)
    profiles, known = before.population.profile[:5], torch.ones(5, 32, dtype=torch.bool)
    torch.testing.assert_close(
        after.scores(profiles, known)[:, :30], before.scores(profiles, known[:, :30]), rtol=1e-4, atol=1e-5
    )
    assert after.catalogue.popularity[30] == before.catalogue.popularity.min()


def test_classes_of_new_items_need_known_ones_in_the_file(here: Path) -> None:
    catalogue = load("runs/first/ppo.pt").catalogue
    Path("new.csv").write_text("id,region\n90,north\n91,west\n", encoding="utf-8")
    alone, _ = join(catalogue, read_items("new.csv", "item", False))
    assert torch.equal(alone.embedding[30], alone.embedding[31])  # a region says nothing without known items
    Path("more.csv").write_text("id,region\n0,south\n1,north\n3,north\n90,north\n91,west\n", encoding="utf-8")
    longer, _ = join(catalogue, read_items("more.csv", "item", False))
    region = longer.attributes["region"]
    assert region[30] == region[1] and region[31] not in region[:31]
    assert not torch.equal(longer.embedding[30], longer.embedding[31])
    Path("same.csv").write_text("id,region\n0,south\n1,north\n", encoding="utf-8")
    with pytest.raises(UserError):
        join(catalogue, read_items("same.csv", "item", False))


def test_dense_head_takes_no_new_items(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dense = ["--data", "log.csv", *RUN, "--head", "dense", "--name", "dense"]
    assert main(["train", *dense]) == 0
    Path("new.csv").write_text("id,genres\n90,odd\n", encoding="utf-8")
    capsys.readouterr()
    words = ["--user", "3", "--items", "new.csv", "--checkpoint", "runs/dense/ppo.pt"]
    assert main(["recommend", *words]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("error: --items: the dense head of this policy has one logit for each of its own")


FULL = (
    "import os, sys; os.dup2(os.open('/dev/full', os.O_WRONLY), 1); "
    "from recsys_rl.cli import main; raise SystemExit(main(sys.argv[1:]))"
)

"""People whom the training data lack: their vectors, and a table in which they play."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recsys_rl.checkpoint import load as load_checkpoint
from recsys_rl.cli import main
from recsys_rl.data.catalogue import build_world
from recsys_rl.data.new_users import new_users
from recsys_rl.data.tables.events import make_log, read_log
from recsys_rl.make import make_env, with_new_users
from recsys_rl.recommender import load
from recsys_rl.types import Catalogue, InteractionLog, UserError, World
from tests.data.tables.test_read import RUN
from tests.data.test_new_items_and_data import SIZES, write_log
from tests.doors import CARTPOLE, steps
from tests.small_runs import settings
from tests.small_runs import world as made_up_world
from tests.worlds import two_camps

LIKED = {"ann": [5, 3, 11, 7, 9, 1, 13, 15, 17, 19], "bob": [2, 4, 6, 8, 10], "cyd": [1, 2, 3, 4]}
"""Liked items, the earliest first; cyd has too few."""


def newcomers(*more: str) -> str:
    """A log of these people; each like is followed by a low rating of another item."""
    rows = [
        line
        for user, items in LIKED.items()
        for at, item in enumerate(items)
        for line in (f"{user},{item},5,{2 * at}", f"{user},{item + 10},1,{2 * at + 1}")
    ]
    return "\n".join(["user,item,rating,timestamp", *rows, *more]) + "\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with a run on the log of two camps and all its 30 items."""
    path = tmp_path_factory.mktemp("runs")
    write_log(path / "log.csv")
    (path / "new.csv").write_text(newcomers("bob,77,5,99", "ann,77,1,98", "ann,78,5,97"), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        sizes = ["--num-items", "30", "--min-item-likes", "1"]
        assert main(["train", "--data", "log.csv", *RUN, *sizes, "--name", "first"]) == 0
    return path


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


def test_vectors_of_new_users_are_those_of_recommend(here: Path) -> None:
    recommender = load("runs/first/ppo.pt")
    log = make_log(
        [user for user, items in LIKED.items() for _ in items],
        [item for items in LIKED.values() for item in items],
        [time for items in LIKED.values() for time in range(len(items))],
        source="likes",
    )
    found = new_users(recommender.catalogue, log, None, 0.8)
    assert found.user_names == ("ann", "bob") and found.heldout.tolist() == [0, 1] and not len(found.train)
    for row, first in enumerate((8, 4)):  # 0.8 of 10 and of 5 likes
        likes = LIKED[found.user_names[row]]
        torch.testing.assert_close(found.profile[row], recommender.profile_of(likes[:first])[0])
        torch.testing.assert_close(found.taste[row], recommender.profile_of(likes)[0])


def test_vectors_by_the_normal_equations() -> None:
    """Confidence 5 for a like, 10 on the norm; an item that the catalogue lacks has no influence."""
    embedding = torch.nn.functional.normalize(
        torch.randn(12, 3, generator=torch.Generator().manual_seed(0)), dim=1
    )
    catalogue = Catalogue(
        embedding,
        torch.arange(12),
        (),
        torch.ones(12),
        torch.ones(12),
        torch.ones(12, dtype=torch.bool),
        "",
    )
    found = new_users(catalogue, make_log([7] * 6, [4, 99, 1, 8, 0, 11], range(6), source="x"), None, 0.6)
    e = embedding.double()
    for rows, vector in (([4, 1, 8], found.profile), ([4, 1, 8, 0, 11], found.taste)):
        liked = e[rows]
        wanted = torch.linalg.solve(e.T @ e + 10 * torch.eye(3) + 4 * liked.T @ liked, 5 * liked.sum(0))
        torch.testing.assert_close(vector[0].double(), wanted / wanted.norm(), rtol=1e-5, atol=1e-6)
    assert found.source == (
        "x: 6 events, each a like; 1 of 1 users, those with at least 5 likes of known items, with "
        "profiles from 3 likes each (median; 3 to 3); 1 events of 1 unknown items are dropped"
    )


def test_a_user_of_the_data_gets_his_own_vectors_from_his_own_events(tmp_path: Path) -> None:
    log = two_camps()
    sizes: dict[str, Any] = {**SIZES, "min_item_likes": 1}
    world = World(*build_world(log, num_items=40, embedding_dim=4, cache_dir=tmp_path, **sizes))
    config = settings("ppo", "drift")
    config = replace(config, env_config=replace(config.env_config, num_items=40, embedding_dim=4))
    found = with_new_users(config, world, log, 4.0)
    assert found.catalogue is world.catalogue
    before, after = world.population, found.population
    count = len(before.train)
    assert torch.equal(after.profile[:count], before.profile[before.train])
    assert torch.equal(after.user_ids[:count], before.user_ids[before.train])
    rows = {int(id_): row for row, id_ in enumerate(before.user_ids)}
    own = torch.tensor([rows[int(id_)] for id_ in after.user_ids[after.heldout]])
    assert len(own) == len(before.user_ids)
    for mine, theirs in ((after.profile, before.profile), (after.taste, before.taste)):
        assert (mine[after.heldout] * theirs[own]).sum(1).min() > 1 - 1e-5
    assert after.source.endswith("(warning: 60 of them have the id of a user of the training data)")
    env = make_env(config, found, 3, torch.Generator().manual_seed(0), heldout=True)
    obs = env.reset(after.heldout[:3])
    torch.testing.assert_close(obs.context[:, :4], after.profile[after.heldout[:3]])


def test_weights_count_for_new_users_as_for_the_data() -> None:
    catalogue = made_up_world(settings("ppo", "drift")).catalogue
    users, items, weights = [1] * 6 + [2] * 6, [*range(6), *range(6)], [1.0] * 6 + [1000.0] + [1.0] * 5
    found = new_users(catalogue, make_log(users, items, source="x", weights=weights), None, 0.9)
    cosines = found.taste @ catalogue.embedding[0]
    assert cosines[1] > cosines[0] + 0.01  # the second user has the item 0 a thousand times


def test_attributes_of_users_are_drawn_for_the_platform() -> None:
    config = settings("ppo", "short-video")
    config = replace(config, env_config=replace(config.env_config, num_items=250))
    world = made_up_world(config)
    log = make_log([0] * 6 + [1] * 6, [*range(6), *range(6)], source="x")
    population = with_new_users(config, world, log).population
    assert len(population.heldout) == 2
    for name, values in world.population.attributes.items():
        assert len(population.attributes[name]) == len(population.user_ids)
        assert torch.equal(
            population.attributes[name][: len(world.population.train)], values[world.population.train]
        )
    env = make_env(config, World(world.catalogue, population), 2, torch.Generator(), heldout=True)
    env.reset(population.heldout)
    assert env.step(torch.tensor([[3], [4]])).streams.isfinite().all()


def test_whole_command(here: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out, page = tmp_path / "t.json", tmp_path / "page.html"
    command = ["evaluate", "--checkpoint", "runs/first/ppo.pt", "--cache-dir", str(tmp_path)]
    assert main([*command, "--users", "new.csv", "--json", str(out), "--report", str(page)]) == 0
    said = capsys.readouterr()
    assert "\n2 users of new.csv, one session each\n" in said.out
    about = (
        "new.csv (columns: user, item, time = timestamp, rating): 41 events, 21 likes (51%) at rating >= 5 "
        "of 1..5; 2 of 3 users, those with at least 5 likes of known items, with profiles from 4 likes each "
        "(median; 4 to 8); 3 events "
        "of 2 unknown items are dropped"
    )
    assert f"users: {about}\n" in said.err
    table = json.loads(out.read_text(encoding="utf-8"))
    assert table["new_users"] == {"file": "new.csv", "about": about} and table["sessions"] == 2
    text = page.read_text(encoding="utf-8")
    assert "from 2 users of new.csv" in text and "held-out users" not in text
    assert main([*command, "--users", "new.csv", "--report"]) == 0  # beside the run's own page
    assert capsys.readouterr().err.splitlines()[-1] == "report: runs/first/report-new.html"
    assert not Path("runs/first/report.html").exists()
    assert main([*command, "--json", str(out)]) == 0
    assert "new_users" not in json.loads(out.read_text(encoding="utf-8"))
    assert "held-out users" in capsys.readouterr().out


def test_each_seed_has_its_own_items_and_folds_the_people_in(
    here: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["train", "--data", "log.csv", *RUN, "--seeds", "0-1", "--name", "two"]) == 0
    capsys.readouterr()
    files = ["runs/two-0/ppo.pt", "runs/two-1/ppo.pt", "--json", str(tmp_path / "t.json")]
    assert main(["evaluate", *files, "--users", "new.csv", "--cache-dir", str(tmp_path)]) == 0
    said = capsys.readouterr()
    sources = []
    for file in files[:2]:
        found = load_checkpoint(file)
        world = with_new_users(found.config, found.world, read_log("new.csv"))
        sources.append(world.population.source)
        assert 0 < len(world.population.heldout) < 3
    assert sources[0] != sources[1]
    about = f"{sources[0]}; on another seed: {sources[1]}"
    assert f"users: {about}\n" in said.err and "sessions, one for each seed and user of new.csv\n" in said.out
    assert json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))["new_users"]["about"] == about


@pytest.mark.parametrize(
    ("text", "options", "sentence"),
    [
        ("user,item\n1,800\n1,801\n", [], "none of its 2 items is in the catalogue of the checkpoint: give"),
        ("user,item\n1,1\n1,2\n", [], "none of its 1 users is with at least 5 likes of known items: give"),
        ("who,item\n1,1\n", [], "it has no column for the user; its columns are"),
        (newcomers(), ["--like-threshold", "9"], "no rating can reach the like threshold of 9"),
        (
            newcomers(",3,5,4"),
            [],
            "column 'user' has no value in 1 row (the first is line 40): fill the gaps",
        ),
    ],
)
def test_files_that_cannot_be_used(
    here: Path, capsys: pytest.CaptureFixture[str], text: str, options: list[str], sentence: str
) -> None:
    Path("bad.csv").write_text(text, encoding="utf-8")
    assert main(["evaluate", "--checkpoint", "runs/first/ppo.pt", "--users", "bad.csv", *options]) == 2
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1


def test_ids_of_numbers_and_of_texts_are_the_same() -> None:
    world = made_up_world(settings("ppo", "drift"))
    named = replace(world.catalogue, item_names=tuple(map(str, range(world.catalogue.num_items))))
    logs: list[InteractionLog] = [
        make_log([1] * 6, ids, source="x") for ids in (list(range(6)), [*map(str, range(5)), "no number"])
    ]
    found = [new_users(c, log, None, 0.5).profile for c in (named, world.catalogue) for log in logs]
    for profile in found:  # half of 6 and of 5 likes; the first two are in both
        assert np.isfinite(profile.numpy()).all()
    torch.testing.assert_close(found[:2], found[2:])


def test_other_worlds_have_no_people(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "new.csv").write_text(newcomers(), encoding="utf-8")
    assert main(["train", *CARTPOLE, *steps(1), "--name", "pole"]) == 0
    assert main(["evaluate", "--checkpoint", "runs/pole/ppo.pt", "--users", "new.csv"]) == 2
    assert "has its own world" in capsys.readouterr().err
    config = load_checkpoint("runs/pole/ppo.pt")
    with pytest.raises(UserError):
        with_new_users(config.config, config.world, two_camps())

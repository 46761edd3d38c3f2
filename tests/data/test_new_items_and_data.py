"""New people and new items: fold-in from a checkpoint, ridge regression, warm starts."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from recsys_rl.checkpoint import load as load_checkpoint
from recsys_rl.cli import main
from recsys_rl.data.catalogue import build_world
from recsys_rl.data.cold import features, heldout_cosines, predict, ridge
from recsys_rl.data.embeddings import first_likes, fold_in, is_earlier, like_matrix, unit_rows
from recsys_rl.data.movielens import load_movielens
from recsys_rl.data.tables.items import read_items
from recsys_rl.training.train import updates
from tests.data.tables import test_read
from tests.data.tables.test_read import camps
from tests.doors import CARTPOLE, SATIATION, steps
from tests.worlds import shared_data, two_camps

RUN = [*test_read.RUN, "--heldout-fraction", "0.1"]  # 5 of the 40 users of `camps`
SIZES = {
    "min_item_likes": 3,
    "heldout_fraction": 0.25,
    "profile_fraction": 0.8,
    "seed": 0,
    "like_threshold": 4.0,
}


def write_log(path: Path, likes: bool = True) -> None:
    rows = [
        f"{user},{item},{5 if (user + item) % 2 else 1},{at % 12}"
        for at, (user, item, _) in enumerate(camps())
    ]
    path.write_text("\n".join(["user,item,rating,timestamp", *rows]) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with a run on a log, and a file about its 30 items and four others."""
    path = tmp_path_factory.mktemp("runs")
    write_log(path / "log.csv")
    items = [f"{item},{'odd' if item % 2 else 'even'},{item}" for item in range(34)]
    (path / "items.csv").write_text("\n".join(["id,camp,noise", *items]) + "\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        assert main(["train", "--data", "log.csv", *RUN, "--name", "first"]) == 0
    return path


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


def test_profile_of_a_stranger_is_the_profile_of_the_data(tmp_path: Path) -> None:
    log = two_camps()
    catalogue, population = build_world(log, num_items=40, embedding_dim=4, cache_dir=tmp_path, **SIZES)  # type: ignore[arg-type]
    users, items = first_likes(log, 4.0)
    first = is_earlier(users, 0.8)
    rows = {id_: row for row, id_ in enumerate(catalogue.item_ids.tolist())}
    factors = (catalogue.factors["norm"].unsqueeze(1) * catalogue.embedding).double().numpy()
    gram = catalogue.factors["gram"].double().numpy()
    cosines = []
    for row in population.heldout.tolist():
        user = int((log.user_ids == population.user_ids[row]).nonzero())
        likes = [int(log.item_ids[item]) for item in items[first & (users == user)]]
        if all(
            like in rows for like in likes
        ):  # the data's own profile uses likes outside the catalogue, too
            matrix = like_matrix(
                np.zeros(len(likes), int), np.array([rows[x] for x in likes]), (1, catalogue.num_items)
            )
            cosines.append((unit_rows(fold_in(matrix, factors, gram=gram)) @ population.profile[row]).item())
    assert len(cosines) >= 10
    assert min(cosines) > 1 - 1e-5


def test_profile_of_a_stranger_on_movielens(tmp_path: Path) -> None:
    log = load_movielens("ml-latest-small", shared_data("movielens-latest-small"))
    sizes = {**SIZES, "min_item_likes": 5, "heldout_fraction": 0.2}
    catalogue, population = build_world(log, num_items=10_000, embedding_dim=32, cache_dir=tmp_path, **sizes)  # type: ignore[arg-type]
    users, items = first_likes(log, 4.0)
    first = is_earlier_of_catalogue(users, items, log.item_ids.numpy(), catalogue.item_ids.numpy())
    factors = (catalogue.factors["norm"].unsqueeze(1) * catalogue.embedding).double().numpy()
    gram = catalogue.factors["gram"].double().numpy()
    rows = {id_: row for row, id_ in enumerate(catalogue.item_ids.tolist())}
    cosines = []
    for row in population.heldout.tolist()[:40]:
        user = int((log.user_ids == population.user_ids[row]).nonzero())
        likes = np.array([rows[int(log.item_ids[item])] for item in items[first & (users == user)]])
        matrix = like_matrix(np.zeros(len(likes), int), likes, (1, catalogue.num_items))
        cosines.append((unit_rows(fold_in(matrix, factors, gram=gram)) @ population.profile[row]).item())
    assert min(cosines) > 0.9999


def is_earlier_of_catalogue(
    users: np.ndarray, items: np.ndarray, ids: np.ndarray, kept: np.ndarray
) -> np.ndarray:
    """True for the earlier likes of each user among items of the catalogue."""
    inside = np.isin(ids[items], kept)
    found = np.zeros(len(users), dtype=bool)
    found[np.flatnonzero(inside)] = is_earlier(users[inside], 0.8)
    return found


def test_ridge_by_hand() -> None:
    # X centred is -1, 1; V centred is -2, 2: B = (1 + 1 + lambda)^-1 (2 + 2) = 4 / (2 + 2) = 1, mean V = 3.
    centre, weights, mean = ridge(np.array([[0.0], [2.0]]), np.array([[1.0], [5.0]]), 2.0)
    assert (centre.tolist(), weights.tolist(), mean.tolist()) == ([1.0], [[1.0]], [3.0])
    v = np.array([[1.0, 0.0], [0.0, 1.0]])
    unit = predict(np.array([[5.0]]), ridge(np.array([[0.0], [2.0]]), v, 1e-9))
    assert unit[0] == pytest.approx(np.array([-3.0, 5.0]) / 34**0.5)


def test_heldout_error_uses_other_items_alone() -> None:
    x = np.eye(4)  # each item has an attribute of its own, so others say nothing about it
    v = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    cosines = heldout_cosines(x, v, 1e-9, np.arange(4))
    assert cosines == pytest.approx([1 / 5**0.5] * 4)  # the mean of the others is (1, 2) / 3 or (2, 1) / 3


def test_features_of_attributes() -> None:
    x = features(
        [torch.tensor([1.0, 3.0, float("nan")]), torch.tensor([0, 1, 1]), torch.tensor([7.0, 7.0, 7.0])],
        torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, 1.0]]),
    )
    assert x.tolist() == [[1, -1, 0, 1], [0, 1, 1, 0], [0, 0, 1, 0]]


def test_infinite_numbers_about_items_are_gaps_and_named(tmp_path: Path) -> None:
    """A price and a weight are numbers; a brand of that name is a text, and so is a creator."""
    (tmp_path / "items.csv").write_text(
        "id,price,weight,brand,creator\n1,2.5,1,inf,inf\n2,inf,2,acme,3\n3,3.5,-Infinity,acme,3\n4,,1e999,acme,3\n"
    )
    facts = read_items(tmp_path / "items.csv", "id", False)
    assert facts.note == (
        "4 items in items.csv (infinite numbers, which count as no value: 'price' (1), 'weight' (2))"
    )
    assert facts.gaps([1, 2, 3, 4]).startswith("items without a value: price (2), weight (2), filled with")
    tensors = facts.tensors([1, 2, 3, 4])
    assert tensors["price"].tolist() == [2.5, 3.0, 3.5, 3.0]
    assert tensors["weight"].tolist() == [1.0, 2.0, 1.5, 1.5]
    assert tensors["brand"].tolist() == [1, 0, 0, 0] and tensors["creator"].tolist() == [1, 0, 0, 0]


def test_warm_start_begins_with_the_weights(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = ["--lr", "1e-12", "--total-timesteps", "64"]
    first = load_checkpoint("runs/first/ppo.pt")
    assert (
        main(["train", "--data", "log.csv", *RUN, *one, "--init-from", "runs/first/ppo.pt", "--name", "warm"])
        == 0
    )
    assert "weights of runs/first/ppo.pt, step 64" in capsys.readouterr().err
    warm = load_checkpoint("runs/warm/ppo.pt")
    assert warm.updates == 1 and int(warm.agent["optimizer.steps"]) == int(first.agent["optimizer.steps"])
    for name, weights in first.agent.items():
        if name.startswith("model.") and not name.endswith("expected.scale"):  # of the latest rewards
            torch.testing.assert_close(warm.agent[name], weights, atol=1e-6, rtol=0)
    assert main(["train", "--run", "runs/warm"]) == 0  # a finished run
    assert (first.steps_before, warm.steps_before) == (0, 64)


def test_rule_is_searched_with_the_steps_of_both_runs(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = ["--total-timesteps", "128", "--init-from", "runs/first/ppo.pt", "--name", "longer"]
    assert main(["train", "--data", "log.csv", *RUN, *start]) == 0
    capsys.readouterr()
    assert main(["evaluate", "runs/longer/ppo.pt", "--max-users", "2"]) == 0
    said = capsys.readouterr()
    assert "searching `rule` with at most 192 steps" in said.err
    assert "ppo after 128 steps (and 64 of the run it began with)" in said.out
    config = load_checkpoint("runs/longer/ppo.pt").config
    for _ in updates(config, folder="part"):
        break
    assert [update.step for update in updates(config, resume=True, folder="part")] == [128]
    assert load_checkpoint("part/ppo.pt").steps_before == 64


def link_to_first() -> Path:
    """checkpoints/ppo.pt, as a link to the run `first`."""
    Path("checkpoints").mkdir(exist_ok=True)
    link = Path("checkpoints/ppo.pt")
    link.unlink(missing_ok=True)
    link.symlink_to("../runs/first/ppo.pt")
    return link


def test_warm_start_from_the_link_names_the_run_behind_it(here: Path) -> None:
    """The link moves on to the new run, whose settings must go on naming the run it began with."""
    link = link_to_first()
    assert main(["train", "--data", "log.csv", *RUN, "--init-from", str(link), "--name", "linked"]) == 0
    text = Path("runs/linked/config.toml").read_text(encoding="utf-8")
    assert f'init_from = "{Path("runs/first/ppo.pt").absolute()}"' in text


def test_all_seeds_begin_with_the_run_behind_the_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not the second with the result of the first, to which the link moves on."""
    monkeypatch.chdir(tmp_path)
    assert main(["train", *CARTPOLE, *steps(1), "--name", "first"]) == 0
    link = link_to_first()
    words = ["--seeds", "0,1", "--init-from", str(link), "--name", "both"]
    assert main(["train", *CARTPOLE, *steps(1), *words]) == 0
    assert link.resolve() == Path("runs/both-1/ppo.pt").resolve()
    for seed in (0, 1):
        text = Path(f"runs/both-{seed}/config.toml").read_text(encoding="utf-8")
        assert f'init_from = "{Path("runs/first/ppo.pt").absolute()}"' in text


def test_run_whose_settings_name_the_link_is_resumed(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As earlier versions wrote them. The link leads to the run itself by then."""
    link = link_to_first()
    settings = load_checkpoint("runs/first/ppo.pt").config
    begun = dataclasses.replace(settings.train_config, init_from=str(link), total_timesteps=128)
    with monkeypatch.context() as patch:
        patch.setattr("recsys_rl.training.folder.checkpoint_behind", lambda path: path)
        for _ in updates(dataclasses.replace(settings, train_config=begun), folder="runs/old", latest=True):
            break
    assert link.resolve() == Path("runs/old/ppo.pt").resolve()
    assert load_checkpoint("runs/old/ppo.pt").updates == 1
    assert main(["train", "--resume"]) == 0
    assert load_checkpoint("runs/old/ppo.pt").updates == 2


def test_warm_start_names_held_out_users_who_were_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Made-up people keep their ids where the items are the same, but a larger share is held out."""
    monkeypatch.chdir(tmp_path)
    assert main(["train", *SATIATION, *steps(1), "--heldout-fraction", "0.2", "--name", "first"]) == 0
    again = ["train", *SATIATION, *steps(1), "--init-from", "runs/first/ppo.pt"]
    assert main([*again, "--heldout-fraction", "0.5", "--name", "other"]) == 0
    assert "9 of the 15 held-out users are training users of that run" in capsys.readouterr().err
    assert main([*again, "--heldout-fraction", "0.2", "--name", "same"]) == 0
    assert "are training users of that run" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "other",
    [
        ["--data", "newer.csv"],
        ["--seed", "1"],
        ["--num-items", "29"],
        ["--embedding-dim", "3"],
        ["--items", "items.csv"],
    ],
)
def test_warm_start_refuses_other_items(
    here: Path, other: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Their embeddings have other axes: only of the same data and seed do weights read them."""
    text = Path("log.csv").read_text(encoding="utf-8")
    more = "".join(
        f"{100 + user},{item},{5 if item % 2 else 1},{item}\n" for user in range(8) for item in range(20)
    )
    Path("newer.csv").write_text(text + more, encoding="utf-8")
    start = ["--data", "log.csv", *RUN, "--init-from", "runs/first/ppo.pt", "--name", "newer"]
    assert main(["train", *start, *other]) == 2
    said = capsys.readouterr().err.splitlines()
    assert "--init-from runs/first/ppo.pt" in said[-1] and "seed" in said[-1]
    assert not Path("runs/newer").exists()


def test_warm_start_refuses_another_network(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Other sizes, another platform, and no file at all."""
    for other in (["--hidden-dims", "7"], ["--env", "satiation"], ["--init-from", "absent.pt"]):
        start = ["--init-from", "runs/first/ppo.pt", "--name", "second"]
        assert main(["train", "--data", "log.csv", *RUN, *start, *other]) == 2
        assert ("absent.pt" if "absent.pt" in other else "runs/first/ppo.pt") in capsys.readouterr().err
        assert not Path("runs/second").exists()

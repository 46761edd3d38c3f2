"""A policy of a team's own place over other items than those of its training."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from recsys_rl.checkpoint import Checkpoint, load, save
from recsys_rl.checkpoint.stock import encoded_anew, encoding_of, over
from recsys_rl.cli import main
from recsys_rl.data.tables.item_encoding import StockItem, fitted, items_of
from recsys_rl.errors import UserError
from recsys_rl.make import agent_of, make_agent
from recsys_rl.models.item_columns import item_features
from recsys_rl.recommender import Recommender
from recsys_rl.types import Obs
from tests.own_logs import clicks, policy, sessions, write_csv

NEW = StockItem("new", "New", {"price": 2.0, "brand": "b"})


def items_file(path: Path, number: int = 6) -> Path:
    rows = [[f"i{x}", f"Thing {x}", "ab"[x % 2], ["x|y", "y"][x % 2], 1.5 * x] for x in range(number)]
    return write_csv(path, ["item", "title", "brand", "genres", "price"], rows)


def trained(folder: Path, algo: str, known: bool, several: bool) -> Checkpoint:
    """A policy whose weights are noise, so that no two logits are alike."""
    log = sessions(folder / "log.csv") if several else clicks(folder / "log.csv", items=6)
    given = {"items": str(items_file(folder / "items.csv"))} if known else {}
    if several:
        given["weights"] = ("clicked=1", "dwell=0.5")  # type: ignore[assignment]
    checkpoint = load(policy(folder / "p.pt", log, algo, **given))
    noise = torch.Generator().manual_seed(1)
    agent = {
        name: x + 0.3 * torch.randn(x.shape, generator=noise) if name.startswith("model.") else x
        for name, x in checkpoint.agent.items()
    }
    return dataclasses.replace(checkpoint, agent=agent)


def scores(checkpoint: Checkpoint) -> Tensor:
    """(4, I): of four contexts at the start of a session."""
    recommender, number = Recommender(checkpoint), 4
    noise = torch.Generator().manual_seed(2)
    pieces = {
        piece.name: torch.rand(number, piece.size, generator=noise) for piece in recommender.pieces or ()
    }
    obs: Obs = recommender.visit(recommender._nobody(number)).with_context(pieces).observe()
    with torch.no_grad():
        return torch.as_tensor(recommender.agent.scores(obs))


@pytest.mark.parametrize("algo", ["reinforce", "cql", "direct"])
@pytest.mark.parametrize(("known", "several"), [(True, False), (True, True), (False, False), (False, True)])
def test_over_its_own_items_in_any_order_a_policy_has_the_same_logits(
    tmp_path: Path, algo: str, known: bool, several: bool
) -> None:
    checkpoint = trained(tmp_path, algo, known, several)
    own, order = items_of(checkpoint.catalogue), [3, 0, 5, 1, 4, 2] if known or not several else [2, 0, 3, 1]
    assert len(own) == len(order)
    before, after = scores(checkpoint), scores(over(checkpoint, [own[at] for at in order]))
    assert torch.allclose(before[:, order], after, rtol=1e-4, atol=1e-4)  # another order of sums
    # A file of the policy over them is whole.
    save(tmp_path / "again.pt", over(checkpoint, own))


def test_new_encodings_are_those_of_the_items_that_may_be_shown(tmp_path: Path) -> None:
    """Brand b is gone and c is new: the others have codes of their own, and the contexts are as before."""
    old = trained(tmp_path, "reinforce", known=True, several=False)
    stock = [item._replace(live=item.features["brand"] == "a") for item in items_of(old.catalogue)]
    laid = over(old, [*stock, NEW._replace(features={"price": 2.0, "brand": "c"})])
    assert encoding_of(laid).unknown([item.features for item in items_of(laid.catalogue)]) == 1
    anew = encoded_anew(laid)
    brands = next(piece for piece in encoding_of(anew).pieces if piece.name == "brand")
    assert brands.values == ("a", "c") and (anew.interface, anew.agent) == (laid.interface, {})
    assert items_of(anew.catalogue) == items_of(laid.catalogue)
    weights = make_agent(anew.config, anew.interface, anew.catalogue).state_dict()
    save(tmp_path / "anew.pt", dataclasses.replace(anew, agent=weights))
    assert encoding_of(load(tmp_path / "anew.pt")) == encoding_of(anew)


def test_a_new_text_is_other_and_a_missing_number_the_mean() -> None:
    rows: list[dict[str, object]] = [
        {"price": 1.0, "brand": "a", "genres": ["x"]},
        {"price": 3.0, "brand": "b"},
        {"brand": "b"},
    ]
    encoding, _ = fitted([StockItem(at, "", row) for at, row in enumerate(rows)])
    new: list[dict[str, object]] = [{"brand": "c", "genres": ["x", "z"]}, {"price": 5.0}]
    assert [encoding.unknown([row]) for row in new] == [1, 0]
    made = encoding.catalogue(
        [StockItem(at, "", row) for at, row in enumerate([*rows, *new])], torch.ones(5), ""
    )
    # x | price | a b other | two zeros; the standard deviation of 1, 3 and the mean, 2, is 1
    assert made.embedding.tolist() == [
        [1, -1, 1, 0, 0, 0, 0],
        [0, 1, 0, 1, 0, 0, 0],
        [0, 0, 0, 1, 0, 0, 0],
        [1, 0, 0, 0, 1, 0, 0],
        [0, 3, 0, 0, 1, 0, 0],
    ]
    assert [item.features for item in items_of(made)] == [*rows, *new]


@pytest.mark.parametrize("algo", ["reinforce", "direct"])
def test_a_dense_head_shows_no_item_that_it_does_not_know(tmp_path: Path, algo: str) -> None:
    checkpoint = trained(tmp_path, algo, known=False, several=False)
    own = items_of(checkpoint.catalogue)
    stock = [NEW, own[4], own[2]._replace(live=False), own[0]]
    serving, learning = over(checkpoint, stock), over(checkpoint, stock, learns=True)
    assert serving.catalogue.available.tolist() == [False, True, False, True]
    assert learning.catalogue.available.tolist() == [True, True, False, True]
    before, after = checkpoint.agent["model.head.logits.bias"], learning.agent["model.head.logits.bias"]
    torch.testing.assert_close(after, torch.stack([before.mean(), before[4], before[2], before[0]]))
    assert agent_of(learning) is not None
    lists = Recommender(serving).recommend(context={"age": 3.0, "device": "desk", "v": [0.0, 0.0]}, k=2)
    assert {one.item for one in lists} == {"i0", "i4"}
    with pytest.raises(UserError):
        over(checkpoint, [])


@pytest.mark.parametrize("several", [False, True])
def test_a_new_item_has_the_logit_of_a_known_one_with_its_features(tmp_path: Path, several: bool) -> None:
    """The share of decisions that show an item is no column of the network: it is 0 for each new item."""
    checkpoint = trained(tmp_path, "reinforce", known=True, several=several)
    own = items_of(checkpoint.catalogue)
    with_twins = scores(over(checkpoint, [*own, *(item._replace(id=f"new {item.id}") for item in own)]))
    torch.testing.assert_close(with_twins[:, :6], with_twins[:, 6:])
    catalogue = dataclasses.replace(checkpoint.catalogue, popularity=torch.rand(6), quality=torch.rand(6))
    assert torch.equal(item_features(catalogue), item_features(checkpoint.catalogue))


@pytest.mark.parametrize(
    ("head", "row", "named"),
    [
        (["item", "brand", "genres", "cost"], ["n1", "a", "x", 1.0], "'price'"),
        (["item", "brand", "genres", "price"], ["n1", "a", "x", 1.0], "each item once"),
    ],
)
def test_a_file_that_would_lose_what_is_known_of_items_is_refused(
    tmp_path: Path, head: list[str], row: list[object], named: str
) -> None:
    checkpoint = trained(tmp_path, "reinforce", known=True, several=False)
    file = write_csv(tmp_path / "new.csv", head, [row, row])
    with pytest.raises(UserError, match=named):
        Recommender(checkpoint).with_new_items(file)
    empty = write_csv(tmp_path / "gap.csv", [*head[:3], "price"], [["n1", "a", "x", ""]])
    assert Recommender(checkpoint).with_new_items(empty)[0].catalogue.num_items == 7


@pytest.mark.proof
def test_train_lays_a_checkpoint_over_a_file_of_items(tmp_path: Path) -> None:
    log, first = clicks(tmp_path / "log.csv", rows=300, items=6), items_file(tmp_path / "items.csv", 6)
    out, old = str(tmp_path / "runs"), str(tmp_path / "runs" / "one" / "reinforce.pt")
    run = ["train", "--log", str(log), "--algo", "reinforce", "--runs-dir", out, "--total-timesteps", "1280"]
    main([*run, "--items", str(first), "--name", "one"])
    rows = [[f"i{x}", "T", "abq"[x % 3], "x", 2.0 * x] for x in range(2, 9)]
    later = write_csv(tmp_path / "later.csv", ["item", "title", "brand", "genres", "price"], rows)
    main([*run, "--items", str(later), "--checkpoint", old, "--init-from", old, "--name", "two"])
    before, after = load(old), load(tmp_path / "runs" / "two" / "reinforce.pt")
    assert after.catalogue.item_names == tuple(f"i{x}" for x in range(9))
    assert after.catalogue.available.tolist() == [False] * 2 + [True] * 7
    assert items_of(after.catalogue)[3].features["price"] == 6.0  # what the newer file says
    assert after.config.env_config.log_shape.items == before.config.env_config.log_shape.items
    assert after.total_steps == 2 * before.total_steps
    shown = Recommender(after).recommend(context={"age": 3.0, "device": "tv", "v": [0.0, 0.0]}, k=7)
    assert {one.item for one in shown} == {f"i{x}" for x in range(2, 9)}

"""`--new-items` where a request has several places: a list of single items, and a slate."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from torch import Tensor

from recsys_rl.checkpoint.home import load_at_home
from recsys_rl.checkpoint.stock import over
from recsys_rl.data.tables.item_encoding import StockItem, items_of
from recsys_rl.recommender import Recommender
from recsys_rl.recommender.contexts import given_context
from recsys_rl.serving.at_rest.check import check
from recsys_rl.serving.at_rest.opened_record import Record
from tests.own_logs import items_file, policy, write_csv
from tests.serving.servers import recommend, serving

SHARE, DRAWS, AGE = 0.4, 400, 30.5
FRESH = {"n1": 0.5, "n2": 7.0}  # their prices


def of_log(folder: Path, slate: bool) -> Path:
    """A policy of 4 items: of slates of two, or of sessions of up to three single items."""
    drawn, rows = random.Random(0), []
    for session in range(60):
        for step in range(1 if slate else 1 + session % 3):
            pair = drawn.sample(range(4), 2)
            item = "|".join(f"i{x}" for x in pair) if slate else f"i{pair[0]}"
            clicked = "|".join(str(drawn.randrange(2)) for _ in pair) if slate else drawn.randrange(2)
            chance = 1 / 12 if slate else 0.25
            rows.append(
                [f"u{session % 20}", f"s{session}", step, item, clicked, chance, drawn.uniform(1, 80)]
            )
    columns = ["user", "session", "step", "items" if slate else "item"]
    log = write_csv(folder / "log.csv", [*columns, "signal.clicked", "propensity", "context.age"], rows)
    items = items_file(folder / "items.csv")
    return policy(folder / "p.pt", log, "reinforce", items=str(items))


def chances(checkpoint: Path, slate: bool) -> tuple[list[str], Tensor]:
    """(I, I) float64: of the first and the second item, by the formula."""
    trained = load_at_home(checkpoint)
    new = [StockItem(id_, id_, {"genres": ["a"], "price": price}) for id_, price in FRESH.items()]
    stock = [*items_of(trained.catalogue), *new]
    laid, number = Recommender(over(trained, stock)), len(stock)
    visit = laid.visit(laid._nobody(1)).with_context(given_context(laid.checkpoint, {"age": AGE}))
    fresh = torch.arange(number) >= number - len(FRESH)

    def mixed(left: Tensor, consumed: list[int]) -> Tensor:
        """(I,) (1 - e) pi + e [new] / new, of the items that are ``left``, after those that were consumed."""
        now = visit.consume(torch.tensor([consumed])) if consumed else visit
        scores = laid.agent.scores(now.observe(left.unsqueeze(0))).double()[0].masked_fill(~left, -torch.inf)
        some = fresh & left
        mixture: Tensor = (1 - SHARE) * scores.softmax(0) + SHARE * some / some.sum()
        return mixture

    every = torch.ones(number, dtype=torch.bool)
    with torch.no_grad():
        first = mixed(every, [])
        rows = []
        for at in range(number):
            left = every & (torch.arange(number) != at)
            # A slate is drawn without replacement from one distribution; a list looks again.
            second = first * left / (first * left).sum() if slate else mixed(left, [at])
            rows.append(first[at] * second)
    return [str(item.id) for item in stock], torch.stack(rows)


@pytest.mark.proof
@pytest.mark.parametrize("slate", [False, True])
def test_each_place_has_its_share(tmp_path: Path, slate: bool) -> None:
    checkpoint, db = of_log(tmp_path, slate), tmp_path / "r.sqlite"
    items = [{"item_id": id_, "features": {"genres": ["a"], "price": price}} for id_, price in FRESH.items()]
    with serving(checkpoint, db, new_items=SHARE, seed=5) as client:
        assert client.post("/v1/items", json={"items": items}).status_code == 200
        answers = [recommend(client, f"u{user}", context={"age": AGE}, n=2) for user in range(DRAWS)]
    ids, wanted = chances(checkpoint, slate)
    assert float(wanted.sum()) == pytest.approx(1)
    counts = torch.zeros_like(wanted)
    for answer in answers:
        first, second = (ids.index(place["item_id"]) for place in answer["items"])
        counts[first, second] += 1
        assert answer["propensity"] == pytest.approx(float(wanted[first, second]), rel=1e-3)
        alone = float(wanted[first].sum())
        assert answer["items"][0]["propensity"] == pytest.approx(alone, rel=1e-3)
    for axis in (0, 1):
        mine, theirs = counts.sum(axis), DRAWS * wanted.sum(axis)
        chi2 = float(((mine - theirs) ** 2 / theirs).sum())
        assert chi2 < 20.6  # 5 degrees of freedom: 0.1 % above
    record = Record(db)
    try:
        assert check(record).replayed == DRAWS
    finally:
        record.store.close()

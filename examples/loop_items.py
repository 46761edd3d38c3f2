"""A made-up shop whose items come and go: one loop learns of those that come, and a frozen one knows none.

    python examples/loop_items.py            # some minutes; --seed for other people and items
    python examples/loop_items.py --quick    # a minute or two: smaller in all

Each person likes one brand and cheap things. A first policy learns from 5,000 decisions that showed 90 of 120
items at random. Then two servers have the same people. To one of them the shop posts its whole stock before
each round (`recsys-rl items shop.csv --only`): 24 items come and 24 go before round 2, and 10 before each
later one. The other one gets the withdrawals alone. After each round both learn from what they recorded
(`recsys-rl retrain`), and the candidate that the gate likes best serves from then on, if it is better. The
value of a policy is the true share of clicks that it earns from all people, of the items that its server has.
"""

from __future__ import annotations

import argparse
import csv
import http.client
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from recsys_rl.checkpoint.home import load_at_home
from recsys_rl.checkpoint.stock import over
from recsys_rl.data.tables.item_encoding import StockItem
from recsys_rl.recommender import Recommender
from recsys_rl.recommender.contexts import given_context

BRANDS = "abcdefgh"
ROUNDS = 3


@dataclass(frozen=True)
class Thing:
    """An item of the shop."""

    id: str
    brand: str
    price: float
    charm: float  # of the item itself, which no column tells

    def rate(self, taste: str) -> float:
        """The probability of a click of a person with this taste."""
        return min(0.95, 0.05 + 0.45 * (self.brand == taste) + 0.2 * (self.price < 3) + self.charm)


def things(name: str, number: int, rng: random.Random) -> list[Thing]:
    return [
        Thing(f"{name}{at:03d}", rng.choice(BRANDS), round(rng.uniform(1, 9), 2), rng.uniform(0, 0.2))
        for at in range(number)
    ]


def write_items(path: Path, items: Sequence[Thing]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["id", "brand", "price"], *([x.id, x.brand, x.price] for x in items)])


def write_log(path: Path, items: Sequence[Thing], rows: int, rng: random.Random) -> None:
    """Decisions that showed each of the items with the same probability."""
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["user", "item", "context.taste", "propensity", "clicked"])
        for row in range(rows):
            taste, item = rng.choice(BRANDS), rng.choice(items)
            clicked = int(rng.random() < item.rate(taste))
            table.writerow([f"u{row % 900}", item.id, taste, 1 / len(items), clicked])


def value(checkpoint: Path, items: Sequence[Thing]) -> float:
    """The true share of clicks that the policy earns where these items are there."""
    stock = [StockItem(x.id, x.id, {"brand": x.brand, "price": x.price}) for x in items]
    laid, total = Recommender(over(load_at_home(checkpoint), stock)), 0.0
    for taste in BRANDS:
        given = given_context(laid.checkpoint, {"taste": taste})
        obs = laid.visit(torch.zeros(1, laid.catalogue.embedding.shape[1])).with_context(given).observe()
        chances = laid.agent.item_probabilities(obs, len(items))[0].tolist()
        total += sum(chance * x.rate(taste) for chance, x in zip(chances, items, strict=True))
    return total / len(BRANDS)


class Shop:
    """A server with a folder of policies and a record, and its people."""

    def __init__(self, folder: Path, first: Path, seed: int) -> None:
        self.folder, self.policies, self.db = folder, folder / "policies", folder / "record.sqlite"
        self.policies.mkdir(parents=True)
        self.serving = self.policies / "first.pt"
        shutil.copy(first, self.serving)
        self.rng, self.port, self.visits = random.Random(seed), 0, 0
        timeouts = ["--session-timeout", "1", "--feedback-window", "1", "--deadline-ms", "5000"]
        options = ["--checkpoint", str(self.policies), "--db", str(self.db), "--port", "0", *timeouts]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "recsys_rl", "serve", *options], stderr=subprocess.PIPE, text=True
        )
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if line.startswith("serving at"):
                self.port = int(line.split(",")[0].rpartition(":")[2])
                break

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        content = json.dumps(body).encode()
        self.connection.request("POST", path, content, {"content-type": "application/json"})
        reply = self.connection.getresponse()
        found: dict[str, Any] = json.loads(reply.read())
        assert reply.status == 200, found
        return found

    def people(self, number: int, items: Sequence[Thing]) -> dict[str, int]:
        """Let so many people visit. Returns the visits until each item was first shown."""
        by_id, first = {x.id: x for x in items}, dict[str, int]()
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port)
        for at in range(number):
            taste, self.visits = self.rng.choice(BRANDS), self.visits + 1
            body = {"user_id": f"p{self.rng.randrange(2500)}", "context": {"taste": taste}}
            answer = self.post("/v1/recommend", body)
            id_ = answer["items"][0]["item_id"]
            first.setdefault(id_, at)
            clicked = float(self.rng.random() < by_id[id_].rate(taste))
            event = {"decision_id": answer["decision_id"], "signal": "clicked", "value": clicked}
            self.post("/v1/feedback", {"events": [event]})
        time.sleep(2.5)  # until the last session has matured
        return first

    def learn(self, decisions: int) -> str:
        """One round; the candidate that the gate likes best serves from then on, if it is better.

        Returns its name.
        """
        files = run(
            "retrain", "--db", self.db, "--policies", self.policies, "--decisions", decisions
        ).splitlines()
        liked = dict[float, Path]()
        for file in map(Path, files):
            run("gate", "--db", self.db, "--policies", self.policies, file, codes=(0, 3, 4, 5))
            verdict = json.loads(next(self.policies.glob(f"{sha256(file)}.gate.json")).read_text())
            liked[verdict["difference"]] = file
        if max(liked) <= 0:
            return "none"
        self.serving = liked[max(liked)]  # in a real shop a canary would decide first
        run("release", "alias", self.serving, "--url", self.url)
        return self.serving.name

    def close(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)
        print(run("log", "check", "--db", self.db).strip())


def sha256(file: Path) -> str:
    from recsys_rl.utils.files import sha256_of

    return sha256_of(file)


def run(*words: object, codes: Sequence[int] = (0,)) -> str:
    command = [sys.executable, "-m", "recsys_rl", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode in codes, done.stderr
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=None, help="folder for records and policies")
    options = parser.parse_args()
    rng, small = random.Random(options.seed), options.quick
    out = options.out or Path(tempfile.mkdtemp(prefix="loop_items_"))
    out.mkdir(parents=True, exist_ok=True)
    visits, decisions = (300, 6_400) if small else (2_000, 64_000)
    items = things("s", 120, rng)
    write_items(out / "items.csv", items)
    write_log(out / "log.csv", items[:90], 1_000 if small else 5_000, rng)
    log = [
        "--log",
        out / "log.csv",
        "--items",
        out / "items.csv",
        "--runs-dir",
        out / "runs",
        "--name",
        "first",
    ]
    run("train", "--algo", "reinforce", *log, "--seed", options.seed, "--total-timesteps", decisions)
    first = out / "runs" / "first" / "reinforce.pt"
    shops = {name: Shop(out / name, first, options.seed) for name in ("open", "frozen")}
    stocks = dict.fromkeys(shops, items)
    print(f"the first policy: {value(first, items):.3f} of clicks, of 120 items")
    lowered = 0
    try:
        for number in range(1, ROUNDS + 1):
            if number > 1:
                come = things(f"r{number}-", 24 if number == 2 else 10, rng)
                gone = {x.id for x in rng.sample(stocks["open"], len(come))}
                stocks["open"] = [x for x in stocks["open"] if x.id not in gone] + come
                stocks["frozen"] = [x for x in stocks["frozen"] if x.id not in gone]
            for name, shop in shops.items():
                stock = stocks[name]
                write_items(out / "shop.csv", stock)
                run("items", out / "shop.csv", "--only", "--url", shop.url)
                seen, before = shop.people(visits, stock), value(shop.serving, stock)
                new = [seen[x.id] for x in stock if x.id.startswith(f"r{number}-") and x.id in seen]
                who = shop.learn(decisions)
                after = value(shop.serving, stock)
                lowered += after < before
                shown = f", a new item after {min(new) + 1} visits" if new else ""
                print(
                    f"round {number}, {name}: {before:.3f} -> {after:.3f} ({who}), {len(stock)} items{shown}"
                )
    finally:
        for shop in shops.values():
            shop.close()
    last = {name: value(shop.serving, stocks[name]) for name, shop in shops.items()}
    gain = last["open"] / last["frozen"] - 1
    print(f"at the end: {last['open']:.3f} with new items, {last['frozen']:.3f} frozen, {gain:+.1%}")
    print(f"rounds after which the truth was lower: {lowered} of {2 * ROUNDS}")
    if options.out is None:
        shutil.rmtree(out)


if __name__ == "__main__":
    main()

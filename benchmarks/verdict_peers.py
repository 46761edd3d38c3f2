"""Our verdicts beside those of skdr-eval, on logs of single decisions whose truth is known.

    python -m benchmarks.verdict_peers --python V/bin/python [--logs 30] [--json FILE] [--csv FILE] [--smoke]

V is an environment of its own with the package:

    python -m venv V && V/bin/pip install skdr-eval

A log has 2,000 decisions of a policy that explores with a probability of 0.65 among five items, as in that
package's recipe. 200 contexts are equally likely, so that what each policy earns is exactly known: the log
earns 0.557 clicks a decision. Six policies are judged, each on 30 logs. ``far`` are mixtures of the best and
the worst choices, which earn just as much, 0.08 more, or 0.08 less; their weights reach 5. ``near`` act in
four of five decisions as the one that logs; they earn as much, 0.025 more or less, and no weight is above 2.

Ours is `recsys-rl ope --verdict target`, once with the logged probabilities and once without them, as
skdr-eval always estimates them. Theirs is read in three ways, which its docs have:
``as_shown`` is its recommendation as its guide calls it, ``baseline`` the same with the log's mean reward as
the baseline, and ``delta`` the interval of the difference from that. ``deploy`` counts as better; its other
answers count as neither, as none of them says that the policy is worse: ``do_not_deploy`` (``stopped``) is
about the support of the log. An answer is wrong if the truth is 0 or on its other side. ``value`` is the mean
of the estimates.
"""

from __future__ import annotations

import contextlib
import json
import math
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from benchmarks.harness import newest, tables
from benchmarks.harness.peer_script import answer_of_peer
from benchmarks.harness.turns import Row
from recsys_rl import cli
from recsys_rl.logs.ope.answer import EXIT_CODES

PEER = tables.ROOT / "benchmarks" / "peers" / "ope" / "skdr.py"
ROWS, CONTEXTS, FEATURES, ITEMS, EXPLORE = 2_000, 200, 3, 5, 0.65
POLICIES = {"near": (0.2, 0.025), "far": (1.0, 0.08)}
"""The share of decisions that are not those of the policy that logs, and the difference that is not 0."""
SIGNS = (0, 1, -1)
OURS, ESTIMATED = "`ope --verdict`", "`ope --verdict`, probabilities estimated"
READINGS = {
    "as_shown": "skdr-eval, `recommendation` as in its guide",
    "baseline": "skdr-eval, `recommendation` with the log's mean as baseline",
    "delta": "skdr-eval, interval of the difference",
}
BETTER, STOPPED = ("better", "deploy"), "do_not_deploy"


@dataclass(frozen=True)
class Game:
    """C equally likely contexts and all that is known of them."""

    contexts: Tensor  # (C, F) float64
    rates: Tensor  # (C, A) float64: clicks of each item
    logging: Tensor  # (C, A) float64: pi_b

    def earned(self, policy: Tensor) -> float:
        """Clicks a decision."""
        return float((policy * self.rates).sum(1).mean())

    def extreme(self, best: bool) -> Tensor:
        """(C, A): shows the best (or the worst) item with a probability of 0.8, and explores."""
        chosen = self.rates.argmax(1) if best else self.rates.argmin(1)
        return 0.8 * one_hot(chosen) + 0.2 / ITEMS

    def policy(self, share: float, difference: float) -> Tensor:
        """(C, A): earns so much more than the one that logs, and acts like it but for a share."""
        best, worst = self.extreme(True), self.extreme(False)
        low, high = self.earned(worst), self.earned(best)
        part = (self.earned(self.logging) + difference / share - low) / (high - low)
        return share * (part * best + (1 - part) * worst) + (1 - share) * self.logging


def one_hot(items: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(items, ITEMS).double()


def game() -> Game:
    """The only one; the policy that logs knows the rates roughly."""
    generator = torch.Generator().manual_seed(0)
    contexts = torch.randn(CONTEXTS, FEATURES, generator=generator, dtype=torch.float64)
    of_items = torch.randn(FEATURES, ITEMS, generator=generator, dtype=torch.float64)
    scores = contexts @ of_items
    rates = 0.05 + 0.9 * scores.sigmoid()
    noise = 2 * torch.randn(scores.shape, generator=generator, dtype=torch.float64)
    logging = EXPLORE / ITEMS + (1 - EXPLORE) * one_hot((scores + noise).argmax(1))
    return Game(contexts, rates, logging)


@dataclass(frozen=True)
class Log:
    """E decisions, and the policy to judge."""

    game: Game
    rows: Tensor  # (E,) int64: of the contexts
    items: Tensor  # (E,) int64
    rewards: Tensor  # (E,) float64
    policy: Tensor  # (C, A)

    def arrays(self) -> dict[str, Any]:
        """What skdr-eval gets."""
        arrays = {"context": self.game.contexts[self.rows], "action": self.items, "reward": self.rewards}
        arrays |= {"known_context": self.game.contexts, "policy": self.policy}
        return {name: values.numpy() for name, values in arrays.items()}

    def verdict(self, folder: Path, known: bool) -> Row:
        """The answer and the value of `recsys-rl ope`, with or without the logged probabilities."""
        log, target, out = (folder / name for name in ("log.parquet", "target.parquet", "ope.json"))
        mine = self.policy[self.rows]  # (E, A)
        columns: dict[str, Any] = {"item": self.items.numpy(), "reward": self.rewards.numpy()}
        columns["context.x"] = self.game.contexts[self.rows].tolist()
        if known:
            logging = self.game.logging[self.rows]
            columns["propensity"] = logging.gather(1, self.items.unsqueeze(1)).squeeze(1).numpy()
        pl.DataFrame(columns).write_parquet(log)
        chosen = mine.gather(1, self.items.unsqueeze(1)).squeeze(1)
        every = {f"probability.{item}": mine[:, item].numpy() for item in range(ITEMS)}
        pl.DataFrame({"propensity": chosen.numpy(), **every}).write_parquet(target)
        words = ["ope", "--log", str(log), "--target", str(target), "--verdict", "target", "--no-world"]
        with contextlib.redirect_stdout(None), contextlib.redirect_stderr(None):
            code = cli.main([*words, "--json", str(out)])
        verdict = json.loads(out.read_text())["verdict"]
        answer = next(name for name, number in EXIT_CODES.items() if number == code)
        return {"answer": answer, "value": verdict["value"]}


def draw(of: Game, policy: Tensor, seed: int, rows: int) -> Log:
    """A log by its number."""
    generator = torch.Generator().manual_seed(seed)
    contexts = torch.randint(CONTEXTS, (rows,), generator=generator)
    items = torch.multinomial(of.logging[contexts], 1, generator=generator).squeeze(1)
    rewards = torch.bernoulli(of.rates[contexts, items], generator=generator)
    return Log(of, contexts, items, rewards, policy)


def counted(
    kind: str, difference: float, truth: float, judge: str, answers: Sequence[str], values: Sequence[float]
) -> Row:
    """How often a judge said better, worse or neither, and how often it was wrong."""
    better = sum(answer in BETTER for answer in answers)
    worse = answers.count("worse")
    wrong = better * (difference <= 0) + worse * (difference >= 0)
    about: Row = {"policy": kind, "difference": difference, "judge": judge, "logs": len(answers)}
    said = {"better": better, "neither": len(answers) - better - worse, "worse": worse, "wrong": wrong}
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    numbers = {"truth": truth, "value": statistics.mean(values), "error": error}
    return about | said | {"stopped": answers.count(STOPPED)} | numbers


def text(results: Path) -> str:
    """The table of the docs."""
    rows = newest.read(results, "verdict_peers")
    lines = []
    for kind in POLICIES:
        for judge in dict.fromkeys(row["judge"] for row in rows):
            mine = [row for row in rows if (row["policy"], row["judge"]) == (kind, judge)]
            cells = [" / ".join(row[name] for name in ("better", "neither", "worse")) for row in mine]
            wrong = f"{sum(int(row['wrong']) for row in mine)} of {sum(int(row['logs']) for row in mine)}"
            errors = ", ".join(f"{float(row['value']) - float(row['truth']):+.3f}" for row in mine)
            lines.append([kind, READINGS.get(judge, judge), *cells, wrong, errors])
    head = [
        "policy",
        "judge",
        "truth 0",
        "truth above",
        "truth below",
        "wrong",
        "mean errors of the estimate",
    ]
    stopped = [int(row["stopped"]) for row in rows if row["judge"] == "baseline"]
    logs = sum(int(row["logs"]) for row in rows if row["judge"] == "baseline")
    about = f"Answers: better / neither / worse. `{STOPPED}` came on {sum(stopped)} of {logs} logs. "
    about += f"{rows[-1]['peer']}; `python -m benchmarks.verdict_peers`, {newest.origin(rows)}."
    return f"{newest.table(head, lines)}\n\n{about}"


def main() -> None:
    parser = tables.parser(__doc__, "logs", 30)
    parser.add_argument("--python", default=sys.executable, help="of the environment with skdr-eval")
    args = tables.parse(parser, "verdict_peers")
    torch.set_num_threads(args.threads or 1)
    number, rows, of = (1, 300, game()) if args.smoke else (args.logs, ROWS, game())
    cases = [(kind, sign * size) for kind, (_, size) in POLICIES.items() for sign in SIGNS]
    logs = {
        f"{case}-{log}": draw(of, of.policy(POLICIES[kind][0], difference), 1000 * case + log, rows)
        for case, (kind, difference) in enumerate(cases)
        for log in range(number)
    }
    answers: dict[str, Mapping[str, Row]] = {}
    with tempfile.TemporaryDirectory(prefix="verdict-peers-") as name:
        folder = Path(name)
        for key, log in logs.items():
            np.savez(folder / f"{key}.npz", **log.arrays())
        found = answer_of_peer(args.python, PEER, "skdr-eval", folder)
        for key, log in logs.items():
            print(f"log {key} of {number}", file=sys.stderr)
            their = found["logs"][key]
            answers[key] = {
                OURS: log.verdict(folder, True),
                ESTIMATED: log.verdict(folder, False),
                **{reading: {"answer": their[reading], "value": their["value"]} for reading in READINGS},
            }
    table: list[Row] = []
    for case, (kind, difference) in enumerate(cases):
        here = [answer for key, answer in answers.items() if key.startswith(f"{case}-")]
        truth = of.earned(of.policy(POLICIES[kind][0], difference))
        for judge in here[0]:
            said = [one[judge]["answer"] for one in here]
            values = [one[judge]["value"] for one in here]
            row = counted(kind, difference, truth, judge, said, values)
            table.append({"peer": found["peer"]} | row)
    tables.publish(table, args, digits=4)
    health = [their["health"] for their in found["logs"].values()]
    print("health of the support:", {name: health.count(name) for name in sorted(set(health))})


if __name__ == "__main__":
    tables.run(main)

"""Do the draws of a server follow the propensities that it logged, and can each be made again?

    python -m benchmarks.serving_draws --draws 200000

People without a profile get one item after another over HTTP, with responses in between; a tenth of the
choices is uniform. Then each decision of the record is drawn again, and its whole distribution is compared
with the items that came.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import torch
from scipy.stats import chi2
from torch import Tensor

from benchmarks.harness.load import loop, request_of, run
from benchmarks.harness.said import checkpoint_in
from benchmarks.harness.served import Server, running
from recsys_rl.serving.at_rest.opened_record import Record
from recsys_rl.serving.draw.decide_again import Replayed, is_same, replay

DECISIONS = 4  # of each person
CONNECTIONS = 32
BATCH = 100  # events of a request
SMALLEST_P = 1e-6
LARGEST_Z = 5.0
"""A right server exceeds each of the two bounds about once in a million runs."""


@dataclass
class Fit:
    """Items that came, beside what their distributions expect."""

    number: int = 0
    replayed: int = 0
    observed: Tensor = field(default_factory=lambda: torch.zeros(0))  # (I,)
    expected: Tensor = field(default_factory=lambda: torch.zeros(0))  # (I,)
    covariance: Tensor = field(default_factory=lambda: torch.zeros(0))  # (I, I)
    weights: list[Tensor] = field(default_factory=list)

    def add(self, replayed: list[Replayed]) -> None:
        """Count some decisions, each with its draw made again."""
        decisions = [again.decision for again in replayed]
        scores = [again.result.rounds[0].choice.scores for again in replayed]
        chances = torch.stack([logits.double().softmax(0) for logits in scores])  # (N, I)
        items = torch.tensor([decision.items[0] for decision in decisions])  # (N,)
        if not self.number:
            self.observed = self.expected = chances.new_zeros(chances.shape[1])
            self.covariance = chances.new_zeros(2 * chances.shape[1:])
        self.number += len(decisions)
        self.replayed += sum(is_same(again.decision, again.result) for again in replayed)
        self.observed = self.observed + torch.bincount(items, minlength=chances.shape[1])
        self.expected = self.expected + chances.sum(0)
        # Of one draw with the chances p: diag(p) - p p'.
        self.covariance += chances.sum(0).diag() - chances.T @ chances
        logged = torch.tensor([decision.logprobs[0] for decision in decisions], dtype=torch.float64)
        self.weights.append(1 / ((chances > 0).sum(1) * logged.exp()))

    def p_value(self) -> float:
        """Of the chi-square of the counts, with the covariance that the draws' own distributions give."""
        off = self.observed - self.expected
        values, vectors = torch.linalg.eigh(self.covariance)
        positive = values > 1e-9 * values.max()  # the counts have a fixed sum
        statistic = ((vectors.T @ off)[positive] ** 2 / values[positive]).sum()
        return float(chi2.sf(float(statistic), int(positive.sum())))

    def mean_weight(self) -> tuple[float, float]:
        """Mean of uniform chance / logged propensity, which is 1 in the long run, and its standard error."""
        weights = torch.cat(self.weights)
        return float(weights.mean()), float(weights.std()) / math.sqrt(len(weights))


def draws(folder: Path, checkpoint: Path, number: int, seed: int = 0) -> list[str]:
    """What is wrong with so many draws of a server."""
    db = folder / "draws.sqlite"
    with running(checkpoint, db, "--explore", "0.1") as server:
        said = play(server, number, random.Random(seed))
    record, fit, wrong = Record(db), Fit(), list[str]()
    try:
        for group in record.groups(record.sessions()):
            for step in replay(group, record.version, report=True):
                fit.add(step)
                wrong += [
                    f"decision {decision.number} was answered with another propensity than the record's"
                    for decision in (again.decision for again in step)
                    if not math.isclose(
                        said.pop(decision.number), math.exp(decision.logprobs[0]), rel_tol=1e-9
                    )
                ]
    finally:
        record.store.close()
    p, (mean, error) = fit.p_value(), fit.mean_weight()
    print(
        f"  {fit.number:,} draws: chi-square p = {p:.3f}, mean weight {mean:.4f} +- {error:.4f}, "
        f"{fit.replayed:,} the same when they are drawn again"
    )
    wrong += [f"decision {number} is not in the record" for number in said]
    if fit.replayed != fit.number:
        wrong.append(f"{fit.number - fit.replayed} draws give other items")
    if p < SMALLEST_P:
        wrong.append(f"items don't come as often as their propensities say (p = {p:.1e})")
    if abs(mean - 1) > LARGEST_Z * error:
        wrong.append(f"the mean weight is {mean:.4f}")
    return wrong


def play(server: Server, number: int, rng: random.Random) -> dict[int, float]:
    """Ask for the decisions, and answer them. Returns the propensity of each."""
    said: dict[int, float] = {}
    people = -(-number // DECISIONS)
    for _ in range(DECISIONS):
        asks = [request_of("/v1/recommend", {"user_id": f"person {number}"}) for number in range(people)]
        answers: list[bytes] = []
        run(loop(server.port, iter(asks[: number - len(said)]), CONNECTIONS, answers.append))
        decoded = [json.loads(answer) for answer in answers]
        said |= {int(decision["decision_id"]): decision["propensity"] for decision in decoded}
        events = [
            {"decision_id": decision["decision_id"], "signal": "engagement", "value": rng.random()}
            for decision in decoded
        ]
        posts = [
            request_of("/v1/feedback", {"events": events[at : at + BATCH]})
            for at in range(0, len(events), BATCH)
        ]
        run(loop(server.port, iter(posts), 4))
    return said


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=200_000)
    number = parser.parse_args().draws
    folder = Path(tempfile.mkdtemp(prefix="serving-draws-"))
    try:
        wrong = draws(folder, checkpoint_in(folder), number)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print("; ".join(wrong[:3]) or "  as logged")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

"""How often intervals of off-policy estimates hold the truth, over many logs of simulated users."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from benchmarks.harness.turns import Row
from recsys_rl.data.synthetic import synthetic_world
from recsys_rl.env.satiation import Satiation, SatiationConfig
from recsys_rl.logs.ope.clipping import by_error
from recsys_rl.logs.ope.clusters import by_cluster, k_means
from recsys_rl.logs.ope.diagnostics import student_t, weigh
from recsys_rl.logs.ope.estimators import CLUSTERS, ESTIMATORS, Evidence, met
from recsys_rl.logs.ope.replay import cumulative
from recsys_rl.logs.ope.reward_model import fit_q, folds_by_user, ridge
from recsys_rl.settings.config import from_dict

NUM_USERS, SEED, MEMORY = 1000, 0, 0.9
SESSIONS = 2000  # of each log
AT_ONCE = 20_000  # sessions simulated together


@dataclass(frozen=True)
class Softmax:
    """softmax(5 b profile . e) over the items not yet shown, mixed with ``uniform`` of uniform."""

    b: float
    uniform: float = 0.2

    def probabilities(self, affinity: Tensor, allowed: Tensor) -> Tensor:
        """(N, I) float64 from profile . e (N, I); 0 where not allowed."""
        soft = (5 * self.b * affinity.double()).masked_fill(~allowed, -torch.inf).softmax(1)
        return (1 - self.uniform) * soft + self.uniform * allowed / allowed.sum(1, keepdim=True)


@dataclass(frozen=True)
class Users:
    """Users of `satiation`; ``settings`` are hyperparameters that differ from its defaults."""

    dim: int  # D, of the embeddings; with it the first case has an effective sample size near 1,150
    settings: Mapping[str, float] = field(default_factory=dict)


TODAY = Users(24)
# The defaults of commit 309d4ec, with which the ranges that docs/log quotes as wanted were found. Patience
# began at 1 there and did not change the appeal.
EARLIER = Users(
    32,
    {
        "affinity_gain": 8.0,
        "affinity_midpoint": 0.3,
        "satiation_recovery": 0.8,
        "catchiness_gain": 2.0,
        "patience_start": 1.0,
        "patience_gain": 0.0,
    },
)


@dataclass(frozen=True)
class Logged:
    """N sessions of T steps; F features of each action, and their average under the judged policy."""

    alive: Tensor  # (N, T) bool
    ratios: Tensor  # (N, T) float64: judged over logging
    rewards: Tensor  # (N, T) float64
    features: Tensor  # (N, T, F) float64
    averaged: Tensor  # (N, T, F) float64: sum_a pi(a|x) of the features
    clusters: Tensor  # (N, T) float64: judged over logging, of the cluster of the item

    def rows(self, at: slice) -> Logged:
        return Logged(*(tensor[at] for tensor in vars(self).values()))


class Simulator:
    """The users of `satiation` over made-up items, as plain tensors."""

    def __init__(self, num_items: int, steps: int, users: Users = TODAY) -> None:
        catalogue, population = synthetic_world(num_items, NUM_USERS, users.dim, 0.2, SEED)
        sizes = {"num_items": num_items, "embedding_dim": users.dim, "max_episode_steps": steps}
        self.users = Satiation(catalogue, population, from_dict(SatiationConfig, {**users.settings, **sizes}))
        self.steps = steps
        number = round(num_items**0.5)  # as `recsys-rl ope` without --clusters
        self.clusters = k_means(catalogue.embedding, number, torch.Generator().manual_seed(SEED))  # (I,)
        popularity = (catalogue.popularity + 1e-3).log()
        self.item_features = torch.stack(  # (I, 2): z-scores
            [(values - values.mean()) / values.std() for values in (popularity, catalogue.quality)], 1
        )

    def play(self, number: int, logging: Softmax, judged: Softmax, generator: torch.Generator) -> Logged:
        """``number`` sessions by ``logging``, of users drawn with replacement."""
        embedding = self.users.catalogue.embedding
        state = self.users.sample(torch.randint(NUM_USERS, (number,), generator=generator))
        alive = torch.ones(number, dtype=torch.bool)
        allowed = torch.ones(number, len(embedding), dtype=torch.bool)
        shown = torch.zeros_like(state.taste)  # decayed sum of the embeddings shown
        earned = torch.zeros(number, 1)
        all_shown = torch.ones(number, 1, dtype=torch.bool)
        affinity = state.profile @ embedding.T  # (N, I)
        rows: list[tuple[Tensor, ...]] = []
        for _ in range(self.steps):
            theirs, mine = (policy.probabilities(affinity, allowed) for policy in (logging, judged))
            items = torch.multinomial(theirs, 1, generator=generator)  # (N, 1)
            every = self._features(affinity, shown @ embedding.T, earned)  # (N, I, F)
            at = items.unsqueeze(2).expand(-1, -1, every.shape[2])
            feedback = self.users.respond(state, items, all_shown, generator)
            reward = self.users.rewards(feedback)  # (N, 1)
            rows.append(
                (
                    alive,
                    (mine.gather(1, items) / theirs.gather(1, items)).squeeze(1),
                    torch.where(alive, reward.squeeze(1), 0.0).double(),
                    every.gather(1, at).squeeze(1),
                    (mine.unsqueeze(1) @ every).squeeze(1),
                    self._cluster_ratios(theirs, mine, items),
                )
            )
            state, left = self.users.advance(state, items, feedback)
            alive = alive & ~left
            allowed = allowed.scatter(1, items, False)
            shown = MEMORY * (shown + embedding[items.squeeze(1)])
            earned = reward
        return Logged(*(torch.stack(column, 1) for column in zip(*rows, strict=True)))

    def _features(self, affinity: Tensor, overlap: Tensor, earned: Tensor) -> Tensor:
        """(N, I, F) float64: affinity, overlap with what was shown, last reward, popularity, quality."""
        parts = [affinity, overlap.clamp_min(0), earned.expand_as(affinity)]
        parts += [column.expand_as(affinity) for column in self.item_features.T]
        return torch.stack(parts, 2).double()

    def _cluster_ratios(self, theirs: Tensor, mine: Tensor, items: Tensor) -> Tensor:
        """(N,) from the probabilities (N, I) and the items (N, 1)."""
        ours, logged = (
            by_cluster(probabilities, self.clusters).gather(1, self.clusters[items])
            for probabilities in (mine, theirs)
        )
        return (ours / logged).squeeze(1)

    def value(self, policy: Softmax, number: int, generator: torch.Generator) -> float:
        """The mean return of ``number`` sessions of ``policy`` itself."""
        total = sum(
            float(self.play(AT_ONCE, policy, policy, generator).rewards.sum())
            for _ in range(max(1, number // AT_ONCE))
        )
        return total / (max(1, number // AT_ONCE) * AT_ONCE)


def estimates(log: Logged, generator: torch.Generator) -> Evidence:
    """The log with a cross-fitted ridge Q; with a linear Q the averaged features give V."""
    number = len(log.alive)
    clusters = log.clusters[:, 0] if log.clusters.shape[1] == 1 else None
    plain = Evidence(cumulative(log.ratios, log.alive), log.rewards, log.alive, 1.0, clusters=clusters)
    folds = folds_by_user(torch.arange(number), generator)

    def alternatives(t: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        return log.averaged[rows, t].unsqueeze(1), torch.ones(len(rows), 1, dtype=torch.float64)

    return fit_q(plain, log.features, alternatives, ridge(), folds)[0]


@dataclass(frozen=True)
class Case:
    name: str
    num_items: int
    steps: int
    logging: Softmax
    judged: Softmax
    users: Users = TODAY


CASES = (
    Case("5 steps", 50, 5, Softmax(0.5), Softmax(1.0)),
    Case("1 step", 20, 1, Softmax(0.5), Softmax(1.0)),
    Case("1 step, heavier weights", 50, 1, Softmax(-0.5, uniform=0.1), Softmax(1.0)),
    Case("no overlap", 50, 5, Softmax(0.0), Softmax(2.0, uniform=0.0)),
    Case("5 steps, earlier users", 50, 5, Softmax(0.5), Softmax(1.0), EARLIER),
    Case("no overlap, earlier users", 50, 5, Softmax(0.0), Softmax(2.0, uniform=0.0), EARLIER),
)


def coverage(case: Case, logs: int, sessions: int, truth_sessions: int, seed: int) -> list[Row]:
    """One row an estimator: how many of ``logs`` logs gave an interval that holds the true value."""
    simulator = Simulator(case.num_items, case.steps, case.users)
    truth = simulator.value(case.judged, truth_sessions, torch.Generator().manual_seed(10_000 + seed))
    covered: dict[str, int] = {}
    ess, shape, warned = [], [], 0
    for number, log in enumerate(played(simulator, case, logs, sessions, seed)):
        bounds = intervals(log, torch.Generator().manual_seed(number))
        for name, (low, high) in bounds.items():
            covered[name] = covered.get(name, 0) + (low <= truth <= high)
        report = weigh(cumulative(log.ratios, log.alive)[:, -1])
        ess.append(report.ess)
        shape.append(report.pareto_k)
        warned += report.ess < 200 or report.pareto_k > 0.5
    numbers = {"ess": float(torch.tensor(ess).median()), "pareto_k": float(torch.tensor(shape).median())}
    return [
        {"case": case.name, "estimator": name, "promise": promise(name), "covered": count, "logs": logs}
        | {"truth": truth}
        | numbers
        | {"warned": warned}
        for name, count in covered.items()
    ]


def played(simulator: Simulator, case: Case, logs: int, sessions: int, seed: int) -> Iterator[Logged]:
    """``logs`` logs of ``sessions`` sessions each, simulated several at once."""
    at_once = max(1, AT_ONCE // sessions)
    for start in range(0, logs, at_once):
        count = min(at_once, logs - start)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + start)
        many = simulator.play(count * sessions, case.logging, case.judged, generator)
        for k in range(count):
            yield many.rows(slice(k * sessions, (k + 1) * sessions))


def promise(name: str) -> str:
    """The kind of the interval of an estimator of ``intervals``, as `recsys-rl ope` has it."""
    estimator = ESTIMATORS[name]
    if estimator.clip is not None:
        return "clip"
    if CLUSTERS in estimator.needs:
        return "cluster"
    return "model" if estimator.weights is None else "student-t"


def intervals(log: Logged, generator: torch.Generator) -> dict[str, tuple[float, float]]:
    """The interval of each estimator; its clip is chosen on the log."""
    sessions, by_name = estimates(log, generator), {}
    for name, estimator in ESTIMATORS.items():
        if not met(sessions).issuperset(estimator.needs):
            continue
        if estimator.clip is None:
            by_name[name] = student_t(estimator.score(sessions))
        else:
            by_name[name] = student_t(estimator.clipped(sessions, by_error(estimator, sessions)))
    return by_name

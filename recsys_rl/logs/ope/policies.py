"""A policy on a log: its probability of each logged decision, the actions that a model averages over, and
its evidence on a part of the log, which the estimators score.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from recsys_rl.logs.ope.clusters import ClusterLog
from recsys_rl.logs.ope.diagnostics import unsupported_mass
from recsys_rl.logs.ope.estimators import CLUSTERS, MODEL, PLACE_MODEL, WORLD, Evidence
from recsys_rl.logs.ope.place_model import place_values, why_no_place_model
from recsys_rl.logs.ope.replay import Probabilities, ReplayedLog, check_weights
from recsys_rl.logs.ope.reward_model import Alternatives, Fit, StepModels, fit_q, with_q
from recsys_rl.logs.ope.slate_choices import Choices
from recsys_rl.logs.ope.slates import SlateLog
from recsys_rl.logs.ope.world import Worlds, world
from recsys_rl.logs.rewards import place_rewards
from recsys_rl.logs.target import Target, check_support
from recsys_rl.protocols import Behaviour
from recsys_rl.types import Feedback, Obs

LOGGER_DRAWS = 64  # slates, at least: a weight divides by the logger's probability, so its noise is a bias


@dataclass(frozen=True)
class Playable:
    """A policy that can be played."""

    name: str
    policy: Behaviour
    certain: bool  # True if the same observation always gives the same items
    # Its slates on a log: of these possible slates (M, K), or a mean over so many drawn slates; True if the
    # policy made the log (slate_choices.py).
    choices: Callable[[ReplayedLog, Tensor | None, int, bool], Choices]


@dataclass(frozen=True)
class Loggers:
    """Facts about the policies that made a log."""

    # The policy at a place in the log's loggers; None if it is not known.
    policy: Callable[[ReplayedLog, int], Playable | None]
    # The probability of each item under the average of the loggers; None if it is not known.
    probabilities: Callable[[ReplayedLog], Probabilities | None]
    unknown: str = ""  # why no policy is known, as the end of a sentence
    with_checkpoint: bool = False


@dataclass(frozen=True)
class Actions:
    """M actions of each row, over which a reward model is averaged."""

    features: Tensor  # (E, M, F) float32
    probabilities: Tensor | None = None  # (E, M) float64; None: draws of the policy, each with 1 / M


@dataclass(frozen=True)
class PolicyOnLog:
    """The probabilities of one policy on the E rows of a log; a part is None if it is unknown."""

    name: str
    logprobs: Tensor  # (E,) float64: of the logged actions
    places: Tensor | None  # (E, K) float64: the terms of logprobs, each place given those above
    actions: Actions | None = None
    probabilities: Probabilities | None = None
    # Its slates, of the possible ones (M, K) or drawn.
    choices: Callable[[Tensor | None], Choices] | None = None
    policy: Behaviour | None = None  # to be played in a model of the users, and asked about places
    certain: bool = False  # the same observation always gives the same items
    lacking: dict[str, str] = field(default_factory=dict)  # reasons of estimators.py's needs


@torch.no_grad()
def read_policy(log: ReplayedLog, of: Playable, draws: int) -> PolicyOnLog:
    """``draws``: number of actions drawn in each row, if they are not averaged over all items."""
    policy, size = of.policy, log.num_items
    draws = 1 if of.certain else draws

    def probabilities(rows: Tensor, obs: Obs) -> Tensor:
        return policy.item_probabilities(obs, size)

    every = log.every_item if log.places == 1 and not of.certain else None
    if every is not None:
        actions = Actions(every, log.of_rows(probabilities).double())
        places = log.of_rows(lambda at, obs: _place_logprobs(log, policy, at, obs))
    else:
        drawn = torch.empty(log.log.num_rows, draws, log.rows.shape[1])

        def read(at: Tensor, obs: Obs) -> Tensor:
            terms = _place_logprobs(log, policy, at, obs)
            for k in range(draws):
                drawn[at, k] = log.features(obs, policy.act(obs).items)
            return terms

        places, actions = log.of_rows(read), Actions(drawn)
    return PolicyOnLog(
        of.name,
        places.sum(1),
        places,
        actions,
        probabilities,
        lambda slates: of.choices(log, slates, draws, False),
        policy,
        of.certain,
    )


@torch.no_grad()
def logged_places(log: ReplayedLog, policy: Behaviour) -> Tensor:
    """(E, K) float64: the log-probability of the logged item of each place, given those above."""
    return log.of_rows(lambda at, obs: _place_logprobs(log, policy, at, obs))


def _place_logprobs(log: ReplayedLog, policy: Behaviour, rows: Tensor, obs: Obs) -> Tensor:
    terms = policy.place_logprobs(obs, log.log.items[rows]).double()  # (B, K)
    return terms.nan_to_num(nan=-torch.inf, neginf=-torch.inf)


def read_target(
    log: ReplayedLog, name: str, target: Target, draws: int, generator: torch.Generator
) -> PolicyOnLog:
    """The probabilities of a file. ``draws``: as in ``read_policy``, by ``generator``."""
    lacking = {WORLD: "a target file holds no policy to play"}
    every = target.every
    if every is None:
        unknown = "the target file has no probabilities of every item"
        return PolicyOnLog(
            name, target.logprobs, target.places, lacking=lacking | dict.fromkeys((MODEL, CLUSTERS), unknown)
        )
    if log.every_item is not None:
        actions = Actions(log.every_item, every)
    else:
        drawn = torch.multinomial(every, draws, replacement=True, generator=generator)
        actions = Actions(log.features_of(drawn))
    return PolicyOnLog(
        name, target.logprobs, target.places, actions, lambda rows, obs: every[rows], lacking=lacking
    )


def check_target(log: ReplayedLog, target: Target) -> None:
    """Raise UserError if the file gives an item above 0 that could not be shown."""
    if target.every is None:
        return
    for at, obs in log.observations():
        check_support(target.every[at], obs.showable(log.num_items), at, log.log)


def weighted(log: ReplayedLog, policy: PolicyOnLog) -> Evidence:
    """The sessions with the policy's weights. Raises UserError for weights that are too large."""
    weights = log.weights(policy.logprobs)
    with log.errors():
        check_weights(log, weights)
    return Evidence(weights, log.on_grid(log.rewards), log.alive, log.gamma)


def with_models(
    log: ReplayedLog, evidence: Evidence, policy: PolicyOnLog, fit: Fit
) -> tuple[Evidence, StepModels | None]:
    """The evidence with the policy's Q and V, by models that are fitted on this log, and these.

    Without the policy's actions it stays as it is.
    """
    if policy.actions is None:
        return evidence, None
    features, folds = log.on_grid(log.rows), log.folds[log.grid[:, 0]]
    return fit_q(evidence, features, _alternatives(log, policy.actions), fit, folds, log.bounds)


def with_values(log: ReplayedLog, evidence: Evidence, policy: PolicyOnLog, models: StepModels) -> Evidence:
    """The evidence with the policy's Q and V, by models that were fitted on other sessions."""
    if policy.actions is None:
        return evidence
    features, folds = log.on_grid(log.rows), log.folds[log.grid[:, 0]]
    return with_q(evidence, features, _alternatives(log, policy.actions), models, folds)


def _alternatives(log: ReplayedLog, actions: Actions) -> Alternatives:
    """The actions of each session at a step, and the policy's probability of each."""
    grid, known = log.grid, actions.probabilities

    def of(t: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        at = actions.features[grid[rows, t]]  # (B, M, F)
        if known is not None:
            return at, known[grid[rows, t]]
        return at, torch.full(at.shape[:2], 1 / at.shape[1], dtype=torch.float64)

    return of


@dataclass(frozen=True)
class Shared:
    """The facts that all policies share on every part, without decisions, so that they are small to send."""

    rewards: Callable[[Feedback], Tensor]
    loggers: Loggers
    draws: int  # of slates, of the loggers too
    worlds: Worlds | None
    lacking: dict[str, str]  # reasons of needs that are missing for every policy
    clusters: Tensor | None  # (I,) int64 of the items


@dataclass(frozen=True)
class Part:
    """A part of the log, for all policies."""

    number: int
    log: ReplayedLog
    slates: SlateLog | None
    clusters: ClusterLog | None
    lacking: dict[str, str]


@dataclass(frozen=True)
class OfPolicy:
    """The evidence of one policy on one part."""

    evidence: Evidence
    lost: float  # sum over rows of the policy's mass that the log lacks
    lost_clusters: float
    lacking: dict[str, str]
    doubts: dict[str, str]
    weights: Tensor  # (2,) float64: the sum of its weights in rows beside unknown items, and in all


def part_of_log(shared: Shared, log: ReplayedLog, number: int = 0) -> Part:
    """The part with this number, made ready for all policies."""
    lacking, loggers = dict(shared.lacking), shared.loggers
    slates = clusters = None
    if log.places > 1:
        each = place_rewards(shared.rewards, log.log.feedback)

        def logger(possible: Tensor | None) -> Choices | None:
            playable = loggers.policy(log, 0)
            draws = max(shared.draws, LOGGER_DRAWS)
            return None if playable is None else playable.choices(log, possible, draws, True)

        slates = SlateLog(log, each, logger, loggers.unknown)
    elif shared.clusters is not None:
        known = loggers.probabilities(log)
        if known is None:
            lacking[CLUSTERS] = "the logger's probability of each item is not known"
        else:
            clusters = ClusterLog.make(log, shared.clusters, known)
    return Part(number, log, slates, clusters, lacking)


def evidence_of(shared: Shared, part: Part, policy: PolicyOnLog, evidence: Evidence) -> OfPolicy:
    """All evidence of a policy on a part; ``evidence`` has its weights, Q and V."""
    log, lacking, doubts = part.log, policy.lacking | part.lacking, dict[str, str]()
    lost, lost_clusters = log.certain_mass(policy.logprobs), 0.0
    if part.slates is not None:
        choices = None
        if policy.choices is not None and part.slates.known:
            choices = policy.choices(part.slates.slates)
        of_slates = part.slates.evidence(policy.places, choices)
        slates, lacking = of_slates.slates, lacking | of_slates.lacking
        doubts |= of_slates.doubts
        if log.totals.steps == 1 and slates.given_above is not None and slates.rewards is not None:
            why = why_no_place_model(log) or (
                "" if policy.policy else "a target file has no policy that scores other items"
            )
            if why:
                lacking[PLACE_MODEL] = why
            else:
                assert policy.policy is not None and part.slates.rewards is not None
                values = place_values(log, policy.policy, policy.certain, part.slates.rewards)
                q, v = map(log.on_grid, values)
                slates = replace(slates, q=q, v=v)
        evidence = replace(evidence, slates=slates)
    if shared.worlds is not None and policy.policy is not None:
        evidence = replace(evidence, world=world(shared.worlds, policy.policy, log, part=part.number))
    if log.totals.steps == 1 and log.places == 1 and policy.probabilities is not None:
        lost = max(lost, _never_shown(log, policy.probabilities))
        if part.clusters is not None:
            of_clusters, lost_clusters = part.clusters.weights(policy.probabilities)
            evidence = replace(evidence, clusters=of_clusters[log.grid[:, 0]])
    rows = log.log.num_rows
    weights = evidence.weights * evidence.alive
    beside = torch.stack([(weights * log.on_grid(log.beside_unknown)).sum(), weights.sum()])
    return OfPolicy(evidence, lost * rows, lost_clusters * rows, lacking, doubts, beside)


def _never_shown(log: ReplayedLog, policy: Probabilities) -> float:
    """Share of the policy's mass on items that the logger never shows, if people's log has its own."""
    every = None if log.table is None else log.table.probabilities
    if every is None:
        return 0.0
    parts = [unsupported_mass(policy(rows, obs), every[rows]) * len(rows) for rows, obs in log.observations()]
    return sum(parts) / log.log.num_rows

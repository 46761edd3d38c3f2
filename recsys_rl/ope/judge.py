"""The judge: a replayed log and policies -> one typed row for each policy and estimator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from recsys_rl.decisions.table_catalogue import knows_items
from recsys_rl.decisions.target import Target
from recsys_rl.ope.clusters import ClusterLog, k_means
from recsys_rl.ope.diagnostics import unsupported_mass
from recsys_rl.ope.estimators import (
    CLUSTERS,
    ESTIMATORS,
    ITEM,
    ONE_STEP,
    SLATE,
    STEPS,
    WORLD,
    Evidence,
    discounts,
)
from recsys_rl.ope.policies import Loggers, Playable, PolicyOnLog, read_policy, read_target
from recsys_rl.ope.propensities import WARNING as ESTIMATED
from recsys_rl.ope.replay import Probabilities, ReplayedLog, check_weights
from recsys_rl.ope.result import Estimate, NotComputed, WorldCheck
from recsys_rl.ope.reward_model import Fit, with_fitted_q
from recsys_rl.ope.rows import Intervals, Knowledge, plain_row, score
from recsys_rl.ope.slate_choices import Choices
from recsys_rl.ope.slates import SlateLog, place_rewards
from recsys_rl.ope.world import Worlds, check_world, fit_world, why_no_world, why_not_checked, world
from recsys_rl.protocols import Behaviour
from recsys_rl.types import Feedback
from recsys_rl.utils.progress import announce

LOGGER_DRAWS = 64  # slates, at least: a weight divides by the logger's probability, so its noise is a bias
LOGGED = "logged"
"""The name of the log's own policies, whose row is what they earned."""


@dataclass(frozen=True)
class Settings:
    """The settings of a judge."""

    intervals: Intervals = field(default_factory=Intervals)
    draws: int = 8  # actions of a policy for each row, where a model is not averaged over every item
    clusters: int | None = None  # of items; None: the square root of their number
    world: bool = True


@dataclass(frozen=True)
class Judged:
    """All rows of all policies on one log."""

    rows: list[Estimate]
    terms: dict[str, dict[str, Tensor]]  # (N,) of each estimator of each policy
    not_computed: tuple[NotComputed, ...]
    checks: tuple[WorldCheck, ...]  # of the world model
    clusters: int = 0  # of items; 0: without clusters


@dataclass(frozen=True)
class _Shared:
    """What the evidence of all policies of a log is made of."""

    log: ReplayedLog
    fit: Fit
    settings: Settings
    worlds: Worlds | None
    slates: SlateLog | None
    clusters: ClusterLog | None
    lacking: dict[str, str]  # the reasons of needs that are missing for every policy


def judge(
    log: ReplayedLog,
    policies: Sequence[Playable],
    targets: Mapping[str, Target],
    fit: Fit,
    rewards: Callable[[Feedback], Tensor],
    loggers: Loggers,
    settings: Settings,
    streams: Mapping[str, torch.Generator],
) -> Judged:
    """All estimators that the log allows, for all policies.

    Args:
        targets: policies of files, by name.
        fit: the regression of reward models.
        rewards: (E,) from the feedback of the log.
        loggers: the policies that made the log.
        streams: ``ope`` for models, ``clusters``, and ``policy`` for actions of targets.

    Raises UserError for a policy whose weights are too large, and for an interval that the log can't have.
    """
    shared = _share(log, policies, fit, rewards, loggers, settings, streams)
    judged = Judged([], {}, (), ())
    lacking: dict[str, dict[str, str]] = {}
    for number, playable in enumerate(policies, 1):
        announce(f"judging {playable.name} ({number} of {len(policies)})")
        lacking[playable.name] = _judge(shared, read_policy(log, playable, settings.draws), judged)
    for name, target in targets.items():
        announce(f"judging {name}")
        read = read_target(log, name, target, settings.draws, streams["policy"])
        lacking[name] = _judge(shared, read, judged)
    checks: list[WorldCheck] = []
    rows = judged.rows
    if any(row.estimator == "world" for row in rows):

        def playable_logger(place: int) -> Behaviour | None:
            found = loggers.policy(place)
            return None if found is None else found.policy

        checks = check_world(log, playable_logger, streams["ope"])
        texts = [x.sentence for x in checks] or [why_not_checked(log, loggers.with_checkpoint)]
        rows = [
            replace(row, warnings=(*row.warnings, *texts)) if row.estimator == "world" else row
            for row in rows
        ]
    clusters = 0 if shared.clusters is None else shared.clusters.number
    missing = _not_computed(_of_this_kind(log), lacking)
    return Judged(rows, judged.terms, missing, tuple(checks), clusters)


def earned(log: ReplayedLog) -> tuple[Estimate, Tensor]:
    """The mean return of the log's own policies, and its terms (N,); it is not an estimate."""
    terms = log.on_grid(log.rewards) @ discounts(log.gamma, log.steps)
    return plain_row(LOGGED, "mean", terms, log.users), terms


def _of_this_kind(log: ReplayedLog) -> dict[str, str]:
    """The needs that no log of this kind meets, each with the reason."""
    found = {ONE_STEP: "for logs of one step, and these sessions have several"}
    if log.steps == 1:
        found = {STEPS: "for sessions of several steps; at one step they are ips, snips, dr, sndr and dm"}
    if log.places > 1:
        return found | {ITEM: "for single items, and these are slates"}
    return found | {SLATE: "for slates of several items"}


def _share(
    log: ReplayedLog,
    policies: Sequence[Playable],
    fit: Fit,
    rewards: Callable[[Feedback], Tensor],
    loggers: Loggers,
    settings: Settings,
    streams: Mapping[str, torch.Generator],
) -> _Shared:
    lacking: dict[str, str] = {}
    no_world = why_no_world(log.log) if settings.world else "--no-world"
    worlds = slates = clusters = None
    if no_world:
        lacking[WORLD] = no_world
    elif policies:
        announce("fitting the world model")
        worlds = fit_world(log, streams["ope"])
    if log.places > 1:
        whole = log.own is not None and log.own.whole
        each = None if whole else place_rewards(rewards, log.log.feedback)

        def logger(possible: Tensor | None) -> Choices | None:
            found = None if whole else loggers.policy(0)
            draws = max(settings.draws, LOGGER_DRAWS)
            return None if found is None else found.choices(log, possible, draws, True)

        slates = SlateLog(log, each, logger, loggers.unknown)
    elif log.steps == 1:
        known = loggers.probabilities()
        if not loggers.with_checkpoint and not knows_items(log.catalogue):
            lacking[CLUSTERS] = "nothing is known of the items that could group them: give --items FILE"
        elif known is None:
            lacking[CLUSTERS] = "the logger's probability of each item is not known"
        else:
            number = settings.clusters or max(2, round(log.num_items**0.5))
            clusters = ClusterLog.make(
                log, k_means(log.catalogue.embedding, number, streams["clusters"]), known
            )
    return _Shared(log, fit, settings, worlds, slates, clusters, lacking)


def _judge(shared: _Shared, policy: PolicyOnLog, judged: Judged) -> dict[str, str]:
    """Add the rows and the terms of the policy. Returns the reasons of needs that are missing for it."""
    log = shared.log
    evidence, knowledge, lacking = _evidence(shared, policy)
    scored = score(policy.name, evidence, log.users, shared.settings.intervals, knowledge)
    least, best = log.bounds
    equal = f"Every reward of the log is {best:g}: it shows no difference between policies."
    for row in scored.rows:
        warnings = row.warnings
        if log.estimated and row.weights is not None:
            warnings = (ESTIMATED, *warnings)
        if least == best:
            warnings = (*warnings, equal)
        judged.rows.append(replace(row, warnings=warnings, estimated_propensities=log.estimated))
    judged.terms[policy.name] = scored.terms
    return lacking


def _evidence(shared: _Shared, policy: PolicyOnLog) -> tuple[Evidence, Knowledge, dict[str, str]]:
    """The evidence of the policy, what its warnings rest on, and the reasons of needs that are missing."""
    log, lacking = shared.log, policy.lacking | shared.lacking
    evidence = sessions_of(log, policy, shared.fit)
    lost, by_need = log.certain_mass(policy.logprobs), {}
    doubts: dict[str, str] = {}
    if shared.slates is not None:
        choices = None
        if policy.choices is not None and shared.slates.known:
            choices = policy.choices(shared.slates.slates)
        found = shared.slates.evidence(policy.places, choices)
        evidence, lacking, doubts = (
            replace(evidence, slates=found.slates),
            lacking | found.lacking,
            found.doubts,
        )
        by_need[SLATE] = 0.0
    if shared.worlds is not None and policy.policy is not None:
        evidence = replace(evidence, world=world(shared.worlds, policy.policy))
    if log.steps == 1 and log.places == 1 and policy.probabilities is not None:
        lost = max(lost, _never_shown(log, policy.probabilities))
        if shared.clusters is not None:
            of_clusters, by_need[CLUSTERS] = shared.clusters.weights(policy.probabilities)
            evidence = replace(evidence, clusters=of_clusters[log.grid[:, 0]])
    missing = {
        name: reason
        for name, estimator in ESTIMATORS.items()
        if (reason := next((lacking[x] for x in estimator.needs if x in lacking), None)) is not None
    }
    return evidence, Knowledge(lost, by_need, log.most, doubts), missing


def sessions_of(log: ReplayedLog, policy: PolicyOnLog, fit: Fit) -> Evidence:
    """The evidence of sessions: the policy's weights, and by cross-fitted models its Q and V.

    Without the policy's actions it has no Q. Raises UserError for weights that are too large.
    """
    weights = log.weights(policy.logprobs)
    with log.errors():
        check_weights(log, weights)
    evidence = Evidence(weights, log.on_grid(log.rewards), log.alive, log.gamma)
    if policy.actions is None:
        return evidence
    grid, actions, known = log.grid, policy.actions, policy.actions.probabilities

    def alternatives(t: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        at = actions.features[grid[rows, t]]  # (B, M, F)
        if known is not None:
            return at, known[grid[rows, t]]
        return at, torch.full(at.shape[:2], 1 / at.shape[1], dtype=torch.float64)

    folds = log.folds[grid[:, 0]]
    return with_fitted_q(evidence, log.on_grid(log.rows), alternatives, fit, folds, log.bounds)


def _never_shown(log: ReplayedLog, policy: Probabilities) -> float:
    """Share of the policy's mass on items that the logger never shows, if people's log has its own."""
    every = None if log.own is None else log.own.probabilities
    if every is None:
        return 0.0
    parts = [unsupported_mass(policy(rows, obs), every[rows]) * len(rows) for rows, obs in log.observations()]
    return sum(parts) / log.log.num_rows


def _not_computed(
    kind: Mapping[str, str], lacking: Mapping[str, Mapping[str, str]]
) -> tuple[NotComputed, ...]:
    """Each reason for which estimators are missing.

    Args:
        kind: the reasons of the kind of the log, by need.
        lacking: of each policy, the reasons by estimator.
    """
    found: dict[str, NotComputed] = {}

    def add(reason: str, estimator: str, *policy: str) -> None:
        of = found.get(reason, NotComputed(reason, (), ()))
        names, policies = dict.fromkeys((*of.estimators, estimator)), dict.fromkeys((*of.policies, *policy))
        found[reason] = NotComputed(reason, tuple(names), tuple(policies))

    rest = []
    for name, estimator in ESTIMATORS.items():
        reason = next((kind[x] for x in estimator.needs if x in kind), None)
        if reason is None:
            rest.append(name)
        else:
            add(reason, name)
    for policy, reasons in lacking.items():
        for name in rest:
            if name in reasons:
                add(reasons[name], name, policy)
    return tuple(found.values())

"""The judge: a replayed log and policies -> one typed row for each policy and estimator."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from recsys_rl.ope.clusters import ClusterLog, k_means
from recsys_rl.ope.diagnostics import is_logger, unsupported_mass
from recsys_rl.ope.estimators import (
    CLUSTERS,
    ITEM,
    ONE_STEP,
    SLATE,
    STEPS,
    WORLD,
    Evidence,
    discounts,
)
from recsys_rl.ope.parts import join
from recsys_rl.ope.policies import (
    Loggers,
    Playable,
    PolicyOnLog,
    read_policy,
    read_target,
    weighted,
    with_models,
)
from recsys_rl.ope.propensities import WARNING as ESTIMATED
from recsys_rl.ope.propensities import by_draws
from recsys_rl.ope.replay import Probabilities, ReplayedLog
from recsys_rl.ope.result import Estimate, NotComputed, WorldCheck
from recsys_rl.ope.reward_model import Fit, StepModels
from recsys_rl.ope.rows import Intervals, Knowledge, Scored, not_computed, score
from recsys_rl.ope.slate_choices import Choices
from recsys_rl.ope.slates import SlateLog, place_rewards
from recsys_rl.ope.world import Worlds, check_world, try_world, why_no_world, why_not_checked, world
from recsys_rl.protocols import Behaviour
from recsys_rl.tables.items import knows_items
from recsys_rl.tables.target import Target
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

    users: Tensor  # (N,) of the sessions
    earned: Tensor  # (N,) float64: what the log's own policies earned in each session
    rows: list[Estimate]
    terms: dict[str, dict[str, Tensor]]  # (N,) of each estimator of each policy
    not_computed: tuple[NotComputed, ...]
    checks: tuple[WorldCheck, ...]  # of the world model
    clusters: int = 0  # of items; 0: without clusters
    loggers: tuple[str, ...] = ()  # policies that give the logged propensities on every row


@dataclass(frozen=True)
class _Shared:
    """Replay, models and rewards that serve all policies; models are fitted on the sample."""

    sample: ReplayedLog
    fit: Fit
    rewards: Callable[[Feedback], Tensor]
    loggers: Loggers
    settings: Settings
    worlds: Worlds | None
    lacking: dict[str, str]  # reasons of needs that are missing for every policy
    clusters: Tensor | None  # (I,) int64 of the items


@dataclass(frozen=True)
class _Part:
    """A part of the log, for all policies."""

    log: ReplayedLog
    slates: SlateLog | None
    clusters: ClusterLog | None
    lacking: dict[str, str]


@dataclass
class _Gathered:
    """The evidence of one policy, part by part."""

    evidence: list[Evidence] = field(default_factory=list)
    models: StepModels | None = None  # of Q
    lost: float = 0.0  # sum over rows of the policy's mass that the log lacks
    lost_clusters: float = 0.0
    lacking: dict[str, str] = field(default_factory=dict)
    doubts: dict[str, str] = field(default_factory=dict)


def judge(
    sample: ReplayedLog,
    parts: Iterable[ReplayedLog],
    policies: Sequence[Playable],
    targets: Mapping[str, Callable[[ReplayedLog], Target]],
    fit: Fit,
    rewards: Callable[[Feedback], Tensor],
    loggers: Loggers,
    settings: Settings,
    streams: Mapping[str, torch.Generator],
) -> Judged:
    """All estimators that the log allows, for all policies.

    Args:
        sample: the sessions on which models are fitted.
        parts: of the log; ``[sample]`` where the sample is the whole log.
        targets: policies of files by name: a function that reads their rows of a part.
        fit: the regression of reward models.
        rewards: (E,) from the feedback of the log.
        loggers: the policies that made the log.
        streams: ``ope`` for reward models, ``world``, ``clusters``, and ``policy`` for actions of targets.

    Raises UserError for a policy whose weights are too large, and for an interval that the log can't have.
    """
    first = {name: read(sample) for name, read in targets.items()}  # refusals come first
    shared = _share(sample, policies, fit, rewards, loggers, settings, streams)

    def read_file(log: ReplayedLog, name: str) -> PolicyOnLog:
        target = first[name] if log is sample else targets[name](log)
        return read_target(log, name, target, settings.draws, streams["policy"])

    readers: dict[str, Callable[[ReplayedLog], PolicyOnLog]] = {
        of.name: partial(read_policy, of=of, draws=settings.draws) for of in policies
    }
    readers |= {name: partial(read_file, name=name) for name in targets}
    gathered = {name: _Gathered() for name in readers}
    users, earned, clusters, done = [], [], 0, 0
    for log in parts:
        part = _part_of_log(shared, log)
        users.append(log.users)
        earned.append(log.on_grid(log.rewards) @ discounts(log.gamma, log.grid.shape[1]))
        clusters = 0 if part.clusters is None else part.clusters.number
        if log is not sample:
            done += log.log.num_rows
            announce(f"judging rows up to {done:,} of {log.totals.rows:,}")
        for number, (name, read) in enumerate(readers.items(), 1):
            if log is sample:
                announce(f"judging {name}" + ("" if name in targets else f" ({number} of {len(policies)})"))
            _gather(shared, part, read, gathered[name])
    judged = Judged(torch.cat(users), torch.cat(earned), [], {}, (), (), clusters)
    lacking = {}
    for name, account in gathered.items():
        scored = _score(shared, name, account, judged.users)
        judged.rows.extend(scored.rows)
        judged.terms[name] = scored.terms
        lacking[name] = account.lacking
    missing = not_computed(_of_this_kind(sample), lacking)
    return _with_checks(
        shared, replace(judged, not_computed=missing, loggers=_made(sample, gathered)), streams["world"]
    )


def _made(sample: ReplayedLog, gathered: Mapping[str, _Gathered]) -> tuple[str, ...]:
    """The policies with a weight of 1 on every row. Estimated propensities can't tell one from another."""
    if sample.estimated or sample.log.header.estimated:
        return ()
    return tuple(
        name
        for name, account in gathered.items()
        if all(is_logger(part.weights) for part in account.evidence)
    )


def _with_checks(shared: _Shared, judged: Judged, generator: torch.Generator) -> Judged:
    """The rows with the checks of the world model, in the warnings of its own rows too."""
    if not any(row.estimator == "world" for row in judged.rows):
        return judged
    sample, loggers = shared.sample, shared.loggers

    def playable_logger(logger: int) -> Behaviour | None:
        playable = loggers.policy(sample, logger)
        return None if playable is None else playable.policy

    checks, failed = check_world(sample, playable_logger, generator)
    texts = [*(check.sentence for check in checks), *failed]
    texts = texts or [why_not_checked(sample, loggers.with_checkpoint)]
    rows = [
        replace(row, warnings=(*row.warnings, *texts)) if row.estimator == "world" else row
        for row in judged.rows
    ]
    return replace(judged, rows=rows, checks=tuple(checks))


def _of_this_kind(log: ReplayedLog) -> dict[str, str]:
    """The needs that no log of this kind meets, each with the reason."""
    reasons = {ONE_STEP: "for logs of one step, and these sessions have several"}
    if log.totals.steps == 1:
        reasons = {STEPS: "for sessions of several steps; at one step they are ips, snips, dr, sndr and dm"}
    if log.places > 1:
        return reasons | {ITEM: "for single items, and these are slates"}
    return reasons | {SLATE: "for slates of several items"}


def _share(
    sample: ReplayedLog,
    policies: Sequence[Playable],
    fit: Fit,
    rewards: Callable[[Feedback], Tensor],
    loggers: Loggers,
    settings: Settings,
    streams: Mapping[str, torch.Generator],
) -> _Shared:
    lacking: dict[str, str] = {}
    worlds = clusters = None
    no_world = why_no_world(sample.log) if settings.world else "--no-world"
    if policies and not no_world:
        announce("fitting the world model")
        worlds, no_world = try_world(sample, streams["world"])
    if no_world:
        lacking[WORLD] = no_world
    if sample.places == 1 and sample.totals.steps == 1:
        if not loggers.with_checkpoint and not knows_items(sample.catalogue):
            lacking[CLUSTERS] = "nothing is known of the items that could group them: give --items FILE"
        else:
            number = settings.clusters or max(2, round(sample.num_items**0.5))
            clusters = k_means(sample.catalogue.embedding, number, streams["clusters"])
    return _Shared(sample, fit, rewards, loggers, settings, worlds, lacking, clusters)


def _part_of_log(shared: _Shared, log: ReplayedLog) -> _Part:
    lacking, loggers = dict(shared.lacking), shared.loggers
    slates = clusters = None
    if log.places > 1:
        whole_slates = log.table is not None and log.table.whole_slates
        each = None if whole_slates else place_rewards(shared.rewards, log.log.feedback)

        def logger(possible: Tensor | None) -> Choices | None:
            playable = None if whole_slates else loggers.policy(log, 0)
            draws = max(shared.settings.draws, LOGGER_DRAWS)
            return None if playable is None else playable.choices(log, possible, draws, True)

        slates = SlateLog(log, each, logger, loggers.unknown)
    elif shared.clusters is not None:
        known = loggers.probabilities(log)
        if known is None:
            lacking[CLUSTERS] = "the logger's probability of each item is not known"
        else:
            clusters = ClusterLog.make(log, shared.clusters, known)
    return _Part(log, slates, clusters, lacking)


def _gather(
    shared: _Shared, part: _Part, read: Callable[[ReplayedLog], PolicyOnLog], account: _Gathered
) -> None:
    """Add the evidence of the part to the ``account`` of a policy."""
    log = part.log
    if account.models is None and log is not shared.sample:
        of_sample = read(shared.sample)
        account.models = with_models(
            shared.sample, weighted(shared.sample, of_sample), of_sample, shared.fit
        )[1]
    policy = read(log)
    evidence, lacking, lost = (
        weighted(log, policy),
        policy.lacking | part.lacking,
        log.certain_mass(policy.logprobs),
    )
    if part.slates is not None:
        choices = None
        if policy.choices is not None and part.slates.known:
            choices = policy.choices(part.slates.slates)
        of_slates = part.slates.evidence(policy.places, choices)
        evidence, lacking = replace(evidence, slates=of_slates.slates), lacking | of_slates.lacking
        account.doubts |= of_slates.doubts
    if shared.worlds is not None and policy.policy is not None:
        played = world(shared.worlds, policy.policy, log, part=len(account.evidence))
        evidence = replace(evidence, world=played)
    evidence, account.models = with_models(log, evidence, policy, shared.fit, account.models)
    if log.totals.steps == 1 and log.places == 1 and policy.probabilities is not None:
        lost = max(lost, _never_shown(log, policy.probabilities))
        if part.clusters is not None:
            of_clusters, lost_here = part.clusters.weights(policy.probabilities)
            evidence = replace(evidence, clusters=of_clusters[log.grid[:, 0]])
            account.lost_clusters += lost_here * log.log.num_rows
    account.evidence.append(evidence)
    account.lost += lost * log.log.num_rows
    account.lacking = lacking | account.lacking


def _score(shared: _Shared, policy: str, account: _Gathered, users: Tensor) -> Scored:
    """The rows and the terms of a policy, from its evidence of all parts."""
    log, rows = shared.sample, shared.sample.totals.rows
    by_need = {CLUSTERS: account.lost_clusters / rows, SLATE: 0.0}
    knowledge = Knowledge(account.lost / rows, by_need, log.most, account.doubts)
    scored = score(policy, join(account.evidence), users, shared.settings.intervals, knowledge)
    least, best = log.bounds
    equal = f"Every reward of the log is {best:g}: it shows no difference between policies."
    marked = []
    for row in scored.rows:
        warnings = row.warnings
        if log.estimated and row.weights is not None:
            warnings = (ESTIMATED, *warnings)
        if log.log.header.estimated and row.weights is not None:
            warnings = (by_draws(log.log.header.estimated), *warnings)
        if least == best:
            warnings = (*warnings, equal)
        marked.append(replace(row, warnings=warnings, estimated_propensities=log.estimated))
    return replace(scored, rows=marked)


def _never_shown(log: ReplayedLog, policy: Probabilities) -> float:
    """Share of the policy's mass on items that the logger never shows, if people's log has its own."""
    every = None if log.table is None else log.table.probabilities
    if every is None:
        return 0.0
    parts = [unsupported_mass(policy(rows, obs), every[rows]) * len(rows) for rows, obs in log.observations()]
    return sum(parts) / log.log.num_rows

"""The judge: a replayed log and policies -> one typed row for each policy and estimator.

Models are fitted on the sample. Then each part of a larger log is judged by itself (``PartJudge``), in this
process or in others, and the terms of all sessions are joined in the order of the parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from recsys_rl.data.tables.items import knows_items
from recsys_rl.logs.ope.clusters import k_means
from recsys_rl.logs.ope.diagnostics import is_logger
from recsys_rl.logs.ope.estimators import CLUSTERS, ITEM, ONE_STEP, SLATE, STEPS, WORLD, discounts
from recsys_rl.logs.ope.parts import join
from recsys_rl.logs.ope.policies import (
    Loggers,
    OfPolicy,
    Part,
    Playable,
    PolicyOnLog,
    Shared,
    evidence_of,
    part_of_log,
    read_policy,
    read_target,
    weighted,
    with_models,
    with_values,
)
from recsys_rl.logs.ope.propensities import WARNING as ESTIMATED
from recsys_rl.logs.ope.propensities import by_draws
from recsys_rl.logs.ope.replay import ReplayedLog
from recsys_rl.logs.ope.result import Estimate, NotComputed, WorldCheck
from recsys_rl.logs.ope.reward_model import Fit, StepModels
from recsys_rl.logs.ope.rows import Knowledge, Scored, not_computed, score
from recsys_rl.logs.ope.world import check_world, try_world, why_no_world, why_not_checked
from recsys_rl.logs.target import Target
from recsys_rl.protocols import Behaviour
from recsys_rl.types import Feedback
from recsys_rl.utils.progress import announce
from recsys_rl.utils.seeding import stream_seed
from recsys_rl.utils.tasks import MapTasks, in_this_process

DRAWS = ("policy", "random", "mixture")
"""The streams from which policies draw; each part of a log has its own, whoever judges it."""
Read = Callable[[ReplayedLog], PolicyOnLog]


@dataclass(frozen=True)
class Settings:
    """The settings of a judge."""

    seed: int = 0  # of the policies' draws on parts
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
    weights: dict[str, Tensor] = field(default_factory=dict)  # (N,) of each policy, of single decisions
    unknown_rows: tuple[int, int] = (0, 0)  # that show, or could show, an item that the policy does not know
    unknown_shares: dict[str, float | None] = field(default_factory=dict)  # as of unknown.UnknownItems


@dataclass(frozen=True)
class _OfPart:
    """The facts of one part that the whole log needs."""

    rows: int
    users: Tensor  # (N,) of its sessions
    earned: Tensor  # (N,) float64
    clusters: int
    policies: dict[str, OfPolicy]
    unknown: Tensor  # (2,) int64: rows that show, and that could show, an item that the policy does not know


@dataclass(frozen=True)
class PartJudge:
    """Judges one part of a log by fitted models. The answer depends on the part and its number alone."""

    shared: Shared
    readers: Mapping[str, Read]
    models: Mapping[str, StepModels | None]  # of Q
    replayed: Callable[[Any], ReplayedLog] | None
    streams: Mapping[str, torch.Generator]
    seed: int  # of the policies' draws

    def __call__(self, numbered: tuple[int, Any]) -> _OfPart:
        number, rows = numbered
        _seed_draws(self.streams, self.seed, f"part {number}")
        log = rows if self.replayed is None else self.replayed(rows)
        assert isinstance(log, ReplayedLog)
        part, found = part_of_log(self.shared, log, number), {}
        for name, read in self.readers.items():
            policy, models = read(log), self.models[name]
            evidence = weighted(log, policy)
            if models is not None:
                evidence = with_values(log, evidence, policy, models)
            found[name] = evidence_of(self.shared, part, policy, evidence)
        return _of_part(part, found)


def judge(
    sample: ReplayedLog,
    parts: Iterable[Any],
    policies: Sequence[Playable],
    targets: Mapping[str, Callable[[ReplayedLog], Target]],
    fit: Fit,
    rewards: Callable[[Feedback], Tensor],
    loggers: Loggers,
    settings: Settings,
    streams: Mapping[str, torch.Generator],
    replayed: Callable[[Any], ReplayedLog] | None = None,
    map_tasks: MapTasks = in_this_process,
) -> Judged:
    """All estimators that the log allows, for all policies.

    Args:
        sample: the sessions on which models are fitted.
        parts: of the log; ``[sample]`` where the sample is the whole log.
        targets: policies of files by name: a function that reads their rows of a part.
        fit: the regression of reward models.
        rewards: (E,) from the feedback of the log.
        loggers: the policies that made the log.
        streams: ``ope`` for reward models, ``world``, ``clusters``, and those of DRAWS for policies.
        replayed: replays one of the parts; None: they are replayed.
        map_tasks: judges the parts, here or in other processes.

    Raises UserError for a policy whose weights are too large.
    """
    first = {name: read(sample) for name, read in targets.items()}  # refusals come first
    shared = _share(sample, policies, rewards, loggers, settings, streams)
    readers: dict[str, Read] = {of.name: partial(read_policy, of=of, draws=settings.draws) for of in policies}

    def of_files(read: Mapping[str, Callable[[ReplayedLog], Target]]) -> dict[str, Read]:
        return {name: partial(_read_file, name, read[name], settings.draws, streams) for name in read}

    rest = iter(parts)
    begin = next(rest)
    if begin is sample:
        known = {name: partial(_known, target) for name, target in first.items()}
        found = [_whole(shared, sample, readers | of_files(known), fit, len(policies))]
    else:
        readers |= of_files(targets)
        models = {name: _models(sample, read(sample), fit) for name, read in readers.items()}
        of_part = PartJudge(shared, readers, models, replayed, streams, settings.seed)
        found, rows = [], 0
        for part in map_tasks(of_part, enumerate(chain([begin], rest))):
            found.append(part)
            rows += part.rows
            announce(f"judging rows up to {rows:,} of {sample.totals.rows:,}")
        _seed_draws(streams, settings.seed, "checks")
    users, earned = (torch.cat([getattr(part, name) for part in found]) for name in ("users", "earned"))
    showing, listing = torch.stack([part.unknown for part in found]).sum(0).tolist()
    judged = Judged(
        users, earned, [], {}, (), (), found[-1].clusters, unknown_rows=(int(showing), int(listing))
    )
    lacking: dict[str, dict[str, str]] = {}
    made = []
    for name in found[0].policies:
        mine = [part.policies[name] for part in found]
        scored = _score(sample, name, mine, users)
        judged.rows.extend(scored.rows)
        judged.terms[name] = scored.terms
        if sample.totals.steps == 1:
            judged.weights[name] = torch.cat([of.evidence.weights[:, 0] for of in mine])
        beside, every = torch.stack([of.weights for of in mine]).sum(0).tolist()
        judged.unknown_shares[name] = beside / every if every else None
        lacking[name] = {need: why for of in reversed(mine) for need, why in of.lacking.items()}
        if all(is_logger(of.evidence.weights) for of in mine):
            made.append(name)
    # Estimated propensities can't tell one policy from another.
    recognised = () if sample.estimated or sample.log.header.estimated else tuple(made)
    judged = replace(judged, not_computed=not_computed(_of_this_kind(sample), lacking), loggers=recognised)
    return _with_checks(sample, loggers, judged, streams["world"])


def _whole(shared: Shared, log: ReplayedLog, readers: Mapping[str, Read], fit: Fit, playable: int) -> _OfPart:
    """A log in one part, on whose sessions the models are fitted."""
    part, found = part_of_log(shared, log), {}
    for number, (name, read) in enumerate(readers.items(), 1):
        announce(f"judging {name}" + (f" ({number} of {playable})" if number <= playable else ""))
        policy = read(log)
        evidence = with_models(log, weighted(log, policy), policy, fit)[0]
        found[name] = evidence_of(shared, part, policy, evidence)
    return _of_part(part, found)


def _models(sample: ReplayedLog, policy: PolicyOnLog, fit: Fit) -> StepModels | None:
    return with_models(sample, weighted(sample, policy), policy, fit)[1]


def _read_file(
    name: str,
    target: Callable[[ReplayedLog], Target],
    draws: int,
    streams: Mapping[str, torch.Generator],
    log: ReplayedLog,
) -> PolicyOnLog:
    return read_target(log, name, target(log), draws, streams["policy"])


def _known(target: Target, log: ReplayedLog) -> Target:
    return target


def _seed_draws(streams: Mapping[str, torch.Generator], seed: int, where: str) -> None:
    """Begin the streams of DRAWS again, with numbers that belong to this place alone."""
    for name in DRAWS:
        if name in streams:
            streams[name].manual_seed(stream_seed(seed, f"{name} of {where}"))


def _with_checks(sample: ReplayedLog, loggers: Loggers, judged: Judged, generator: torch.Generator) -> Judged:
    """The rows with the checks of the world model, in the warnings of its own rows too."""
    if not any(row.estimator == "world" for row in judged.rows):
        return judged

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
    rewards: Callable[[Feedback], Tensor],
    loggers: Loggers,
    settings: Settings,
    streams: Mapping[str, torch.Generator],
) -> Shared:
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
    return Shared(rewards, loggers, settings.draws, worlds, lacking, clusters)


def _of_part(part: Part, policies: dict[str, OfPolicy]) -> _OfPart:
    log, clusters = part.log, 0 if part.clusters is None else part.clusters.number
    earned = log.on_grid(log.rewards) @ discounts(log.gamma, log.grid.shape[1])  # (N,)
    showing = 0 if log.known is None else (~log.known)[log.log.items].any(1).sum()
    unknown = torch.tensor([int(showing), int(log.beside_unknown.sum())])
    return _OfPart(log.log.num_rows, log.users, earned, clusters, policies, unknown)


def _score(log: ReplayedLog, policy: str, parts: Sequence[OfPolicy], users: Tensor) -> Scored:
    """The rows and the terms of a policy, from its evidence of all parts of the log."""
    rows = log.totals.rows
    by_need = {CLUSTERS: sum(part.lost_clusters for part in parts) / rows, SLATE: 0.0}
    doubts = {need: why for part in parts for need, why in part.doubts.items()}
    knowledge = Knowledge(sum(part.lost for part in parts) / rows, by_need, log.most, doubts)
    evidence = join([part.evidence for part in parts])
    scored = score(policy, evidence, users, knowledge)
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

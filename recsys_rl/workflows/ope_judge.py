"""All policies of a run of `recsys-rl ope`, judged on one log."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys_rl.agents.behaviours import Fixed
from recsys_rl.decisions.target import Ids, Target, check_support, read_target
from recsys_rl.decisions.transitions import observations
from recsys_rl.ope.bandit import BANDIT, CLIPPED
from recsys_rl.ope.diagnostics import unsupported_mass
from recsys_rl.ope.estimate import estimated, with_doubt
from recsys_rl.ope.judging import NEEDS_MODEL, Judgement, Terms, at_one_step, judgement
from recsys_rl.ope.logged import (
    Actions,
    Probabilities,
    certain_mass,
    check_weights,
    features_of,
    judge,
    probabilities_of,
    sessions_of,
)
from recsys_rl.ope.logged_slates import Places
from recsys_rl.ope.propensities import WARNING
from recsys_rl.ope.sequential import SEQUENTIAL
from recsys_rl.ope.world import Worlds, world
from recsys_rl.protocols import Behaviour
from recsys_rl.types import Obs
from recsys_rl.utils.progress import announce
from recsys_rl.workflows.ope_bench import CLUSTERED, Bench
from recsys_rl.workflows.ope_choices import slate_choices
from recsys_rl.workflows.ope_config import LOGGED
from recsys_rl.workflows.ope_errors import errors_of


@dataclass(frozen=True)
class _Read:
    """The probabilities of one policy on the log."""

    name: str
    logprobs: Tensor  # (E,) float64: of the logged actions
    actions: Actions | None  # None: its probability of other actions is unknown
    places: Places
    probabilities: Probabilities | None


def judge_all(bench: Bench) -> dict[str, Judgement]:
    """The judgement of each policy, by its name. Raises UserError for a policy that can't be judged."""
    policies = {name: bench.policy(name) for name in bench.names}  # all refusals come first
    target = None
    if bench.options.target is not None:
        with errors_of(bench.options.target, bench.own):
            target = read_target(bench.options.target, bench.prepared.log, _ids(bench))
    worlds = bench.worlds() if policies else None
    found = {}
    for number, (name, policy) in enumerate(policies.items(), 1):
        announce(f"judging {name} ({number} of {len(policies)})")
        found[name] = _judge(bench, name, policy, worlds)
    if target is not None:
        announce(f"judging {bench.target_name}")
        found[bench.target_name] = _judge_target(bench, target)
    if bench.behaviours is None or LOGGED in bench.options.names:
        found[LOGGED] = _logged(bench)
    return found


def _judge(bench: Bench, name: str, policy: Behaviour, worlds: Worlds | None) -> Judgement:
    certain = isinstance(policy, Fixed)
    draws = 1 if certain else bench.options.draws
    size = bench.prepared.catalogue.num_items

    def probabilities(rows: Tensor, obs: Obs) -> Tensor:
        return policy.item_probabilities(obs, size)

    sums = bench.places == 1 and not certain
    actions = _all_items(bench, probabilities) if sums else None
    mine = judge(bench.prepared, policy, draws if actions is None else 0)
    choices = None
    if bench.slates is not None and bench.slates.known:
        choices = slate_choices(bench.prepared, policy, bench.slates.slates, draws)
    more = {} if worlds is None else {"world": Terms(world(worlds, policy))}
    if worlds is None:
        bench.leave_out(name, {"world": bench.no_world})
    places = Places(mine.places, choices)
    read = _Read(name, mine.logprobs, actions or Actions(mine.draws), places, probabilities)
    return _judgement(bench, read, more)


def _judge_target(bench: Bench, target: Target) -> Judgement:
    name, of, every = bench.target_name, bench.prepared, target.every
    bench.leave_out(name, {"world": bench.no_world or "a target file holds no policy to play"})
    places = Places(target.places, None)
    if every is None:
        return _judgement(bench, _Read(name, target.logprobs, None, places, None), {})
    for at, obs in observations(of.log, of.catalogue):
        with errors_of(bench.options.target, bench.own):
            check_support(every[at], obs.showable(every.shape[1]), at, of.log)

    def probabilities(rows: Tensor, obs: Obs) -> Tensor:
        return every[rows]

    actions = _all_items(bench, probabilities) or _drawn(bench, every)
    return _judgement(bench, _Read(name, target.logprobs, actions, places, probabilities), {})


def _drawn(bench: Bench, every: Tensor) -> Actions:
    """Items that are drawn with the probabilities ``every`` (E, I)."""
    number, generator = bench.options.draws, bench.streams["policy"]
    drawn = torch.multinomial(every, number, replacement=True, generator=generator)
    return Actions(features_of(bench.prepared, drawn))


def _judgement(bench: Bench, policy: _Read, more: dict[str, Terms]) -> Judgement:
    of, name, probabilities = bench.prepared, policy.name, policy.probabilities
    sessions = sessions_of(of, policy.logprobs, policy.actions, bench.fit())
    with errors_of(bench.options.log, bench.own):
        check_weights(of, sessions.weights)
    unknown = "the target file has no probabilities of every item"
    if policy.actions is None:
        mine = (*BANDIT, *CLIPPED) if bench.steps == 1 else tuple(SEQUENTIAL)
        bench.leave_out(name, {x: unknown for x in mine if x in NEEDS_MODEL})
    if bench.slates is not None:
        of_slates, reasons = bench.slates.terms(sessions.weights, policy.places)
        more = of_slates | more
        bench.leave_out(name, reasons)
    clusters, reason = bench.clusters
    if clusters is not None and probabilities is not None:
        more = clusters.terms(probabilities, at_one_step(sessions)) | more
    elif bench.steps == 1 and bench.places == 1:
        bench.leave_out(name, dict.fromkeys(CLUSTERED, reason or unknown))
    lost = certain_mass(of, policy.logprobs)
    if probabilities is not None and bench.steps == 1 and bench.places == 1:
        lost = max(lost, _lost(bench, probabilities))
    found = judgement(sessions, of.users, bench.way, lost, of.most, more)
    rows = found.estimates if bench.fitted is None else with_doubt(found.estimates, WARNING)
    least, best = of.bounds
    if least == best:
        text = f"Every reward of the log is {best:g}: it shows no difference between policies."
        rows = [dataclasses.replace(row, warnings=(*row.warnings, text)) for row in rows]
    return dataclasses.replace(found, estimates=rows)


def _lost(bench: Bench, policy: Probabilities) -> float:
    """Share of the policy's mass on items that the logger never shows, if the log holds its own."""
    of = bench.prepared
    if bench.own is None or bench.own.probabilities is None:
        return 0.0
    parts = [
        unsupported_mass(policy(rows, obs), bench.own.probabilities[rows]) * len(rows)
        for rows, obs in observations(of.log, of.catalogue)
    ]
    return sum(parts) / of.log.num_rows


def _ids(bench: Bench) -> Ids | None:
    of = bench.own
    return None if of is None else Ids(of.items, of.rows, of.sessions, of.session_column)


def _logged(bench: Bench) -> Judgement:
    """The mean return of the log's own policies over its sessions; it is no estimate."""
    of = bench.prepared
    discounts = of.gamma ** torch.arange(bench.steps, dtype=torch.float64)
    earned = of.on_grid(of.rewards) @ discounts
    return Judgement({"mean": earned}, [estimated("mean", earned, None, of.users)])


def _all_items(bench: Bench, policy: Probabilities) -> Actions | None:
    """All items with the policy's probabilities; None if they are too many."""
    if bench.every_item is None:
        return None
    return Actions(bench.every_item, probabilities_of(bench.prepared, policy))

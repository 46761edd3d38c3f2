"""Both policies of the gate on the same sessions of held-out users: by `world`, or by `dr` at one step.

Of sessions of several steps, weights can judge next to nothing: of n sessions of T steps, the challenger's
weights leave about n / (1 + chi^2)^T effective ones. So a model is asked: users are learned from the held-out
sessions, cross-fitted, and both policies play in them as they draw (ope/world.py).
"""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from recsys_rl.checkpoint import Checkpoint
from recsys_rl.errors import UserError, one_line
from recsys_rl.experience.log_facts import behaviour_logprobs
from recsys_rl.experience.logged import rewards_of
from recsys_rl.make import make_user_model
from recsys_rl.objective.weighted import stream_weights
from recsys_rl.ope.compare import enough
from recsys_rl.ope.diagnostics import FEW
from recsys_rl.ope.policies import logged_places
from recsys_rl.ope.replay import ReplayedLog
from recsys_rl.ope.world import fit_world, world
from recsys_rl.protocols import Behaviour
from recsys_rl.tables.decision_log import DecisionLog
from recsys_rl.utils.seeding import generators
from recsys_rl.workflows.gate_rule import Compared
from recsys_rl.workflows.ope import estimates, replayed
from recsys_rl.workflows.ope_config import OpeConfig
from recsys_rl.workflows.ope_log import STREAMS, ReadLog
from recsys_rl.workflows.ope_policies import playable

NEW, OLD = "challenger", "champion"
MOST_SESSIONS = 10_000
"""Sessions that are judged, the latest ones."""


def compare(name: Path, log: DecisionLog, place: Checkpoint, new: Behaviour, old: Behaviour) -> Compared:
    """Judge both policies on the sessions of ``log``, which neither of them may have learned from.

    Args:
        name: of the log, for errors.
        place: a checkpoint of the log's platform, with its items; the rewards are those of this platform.
    """
    streams = generators(0, *STREAMS)
    log = _latest(log)
    users = make_user_model(place.config, place.world)
    rewards = partial(rewards_of, log.header, users, stream_weights(users.streams))
    read = ReadLog(log, place.catalogue, rewards, streams)
    if place.interface.session_length == 1:
        return _by_weights(OpeConfig(log=(str(name),), world=False), read, new, old)
    return _by_world(OpeConfig(log=(str(name),)), read, new, old)


def _by_world(options: OpeConfig, read: ReadLog, new: Behaviour, old: Behaviour) -> Compared:
    """Sessions of several steps: the difference of what both policies earn from learned users."""
    known = read.log.has_propensities
    if not known:  # `world` has no weights, so that nothing needs to be estimated
        read = dataclasses.replace(
            read, log=dataclasses.replace(read.log, logprobs=torch.zeros_like(read.log.logprobs))
        )
    of, _, _ = replayed(options, read)
    chi2 = chi2_of(of, new) if known else float("nan")
    terms, doubt = (torch.zeros(len(of.users), dtype=torch.float64),) * 2, ""
    try:
        worlds = fit_world(of, read.streams["world"])
        terms = world(worlds, new), world(worlds, old)
    except UserError as error:
        doubt = one_line(error).rstrip(".")
    return _compared("world", of, terms, chi2, doubt)


def _by_weights(options: OpeConfig, read: ReadLog, new: Behaviour, old: Behaviour) -> Compared:
    """Single decisions: the paired difference by `dr`, the recommended estimator of such logs."""
    result, judged = estimates(options, read, [playable(NEW, new), playable(OLD, old)])
    of, _, _ = replayed(options, read)
    rows = [row for row in result.rows if row.estimator == "dr"]
    doubt, broken = "", ""
    terms = tuple(judged.terms[name].get("dr", torch.zeros(len(of.users))) for name in (NEW, OLD))
    if len(rows) < 2:
        doubt = "the weights of one of the policies are unknown"
    for row in rows:
        if row.weights is None or enough(row):
            continue
        if row.covered and not row.weights.holds_one:
            broken = f"the mean weight of the {row.policy} is {row.weights.mean:.3g} and not 1"
        else:
            worth = f"{row.weights.ess:,.0f} decisions"
            doubt = f"the log is worth {worth} for the {row.policy}, and {FEW} are needed"
    return dataclasses.replace(_compared("dr", of, terms, chi2_of(of, new), doubt), broken=broken)


def _compared(by: str, of: ReplayedLog, terms: tuple[Tensor, ...], chi2: float, doubt: str) -> Compared:
    returns = of.on_grid(of.rewards).sum(1)  # (N,)
    steps = float(of.alive.sum(1).double().mean())
    return Compared(by, *terms, of.users, float(returns.mean()), steps, chi2, doubt)


def chi2_of(of: ReplayedLog, policy: Behaviour) -> float:
    """chi^2 of a decision: the variance of its weight, by the weights of the logged decisions.

    They are divided by their mean, so that a few missing large ones do not make the policy look near.
    """
    rows = torch.bincount(of.log.loggers, minlength=len(of.log.header.loggers))
    mine, theirs = logged_places(of, policy).sum(1), behaviour_logprobs(of.log, rows)
    weights = (mine.double() - theirs).exp()
    return float(weights.pow(2).mean() / weights.mean().clamp_min(1e-12).pow(2)) - 1


def _latest(log: DecisionLog) -> DecisionLog:
    """The latest MOST_SESSIONS sessions."""
    ids = log.sessions.unique()
    return log if len(ids) <= MOST_SESSIONS else log.rows(log.sessions >= ids[-MOST_SESSIONS])

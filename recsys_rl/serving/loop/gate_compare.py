"""Both policies of the gate on the same sessions of held-out users: by `world`, or by `dr` at one step.

Of sessions of several steps, weights can judge next to nothing: of n sessions of T steps, the challenger's
weights leave about n / (1 + chi^2)^T effective ones. So a model is asked: users are learned from the held-out
sessions, cross-fitted, and both policies play in them as they draw (logs/ope/world.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from recsys_rl.checkpoint import Checkpoint
from recsys_rl.data.tables.items import knows_items
from recsys_rl.data.timeline import ItemTimeline, without_gone
from recsys_rl.errors import UserError, amount, listed, one_line
from recsys_rl.functional import categorical
from recsys_rl.logs.decision_log import DecisionLog
from recsys_rl.logs.experience.log_facts import behaviour_logprobs
from recsys_rl.logs.ope.answer import BROKEN
from recsys_rl.logs.ope.config import OpeConfig
from recsys_rl.logs.ope.item_models import MOST_ITEMS
from recsys_rl.logs.ope.lower import LOWER, Bounds, lower_terms, too_large
from recsys_rl.logs.ope.ope import estimates, replayed
from recsys_rl.logs.ope.playable import playable
from recsys_rl.logs.ope.policies import logged_places
from recsys_rl.logs.ope.read_log import STREAMS, ReadLog
from recsys_rl.logs.ope.replay import ReplayedLog
from recsys_rl.logs.ope.reward_bounds import reward_bounds
from recsys_rl.logs.ope.verdict import Estimates, about_log, verdict_on
from recsys_rl.logs.ope.world import Worlds, try_world, world
from recsys_rl.logs.rewards import of_platform, streams_of
from recsys_rl.logs.transitions import observations
from recsys_rl.make import agent_of, make_user_model
from recsys_rl.objective.weighted import weights_of
from recsys_rl.protocols import Behaviour, ScoringPolicy
from recsys_rl.serving.loop.gate_rule import Compared
from recsys_rl.settings.config import Config
from recsys_rl.types import Catalogue, Obs, Stream
from recsys_rl.utils.seeding import generators

NEW, OLD = "challenger", "champion"
MOST_DECISIONS = 200_000
"""Decisions that are judged, of the latest sessions: their observations are held in memory."""


@dataclass(frozen=True)
class Bench:
    """The champion and the sessions of held-out users on which candidates are compared with it.

    It is the same before and after a comparison, so the answer about a candidate does not depend on others.
    """

    place: Checkpoint  # the champion
    options: OpeConfig
    read: ReadLog
    of: ReplayedLog
    chance: bool  # the probabilities of the decisions are known
    worlds: Worlds | None  # users learned from these sessions; None for single decisions, or if that failed
    doubt: str = ""  # why no users can be learned, as the end of a sentence
    broken: str = ""  # what is wrong with the log, whatever the policy, as the end of a sentence
    left_out: int = 0  # earlier sessions that are not judged
    streams: tuple[Stream, ...] = ()  # of the rewards
    weights: Tensor = field(default_factory=lambda: torch.zeros(0))  # (M,): rewards are weighted by these
    bounds: Bounds | None = None  # between which each reward of a single decision lies; None if unknown
    cut: str = ""  # a sentence about values of signals that are cut
    gone: str = ""  # a sentence about items that are gone since
    hidden: tuple[str, ...] = ()  # streams with a weight that the record can't show, and that are left out

    @property
    def champion(self) -> ScoringPolicy:
        """The champion, whose draws begin anew."""
        policy: ScoringPolicy = agent_of(self.place)
        return policy

    @cached_property
    def champion_terms(self) -> Tensor:
        """(N,) float64: of the champion, by `world`."""
        assert self.worlds is not None
        return world(self.worlds, self.champion)

    @cached_property
    def champion_ratios(self) -> Tensor:
        """(E,): ``ratios_of`` the champion; another policy may have logged a part of the sessions."""
        return ratios_of(self.of, self.champion)

    @cached_property
    def champion_items(self) -> float:
        """``effective_items`` of the champion."""
        return effective_items(self.of, self.champion)


def bench(name: Path, log: DecisionLog, place: Checkpoint) -> Bench:
    """Make ready to compare policies on the sessions of ``log``, from which none of them may have learned.

    Args:
        name: of the log, for errors.
        place: the champion, of the log's platform and items; rewards are weighted as in its training. Where
            items come and go, policies are judged among those of a decision that are there now.

    Raises UserError for a log that can judge nothing.
    """
    streams, chance = generators(0, *STREAMS), log.has_propensities
    users, one_step = make_user_model(place.config, place.world), place.interface.session_length == 1
    whole, log = log, _latest(log)
    left_out = len(whole.sessions.unique()) - len(log.sessions.unique())
    log, cut = within(log, place.config)
    catalogue, log, gone = of_now(place.catalogue, log)
    if not log.num_rows:
        raise UserError(f"{one_line(name)} can judge nobody. {gone} Try again when more people have come.")
    if not chance and not one_step:  # `world` has no weights, so that nothing needs to be estimated
        log = dataclasses.replace(log, logprobs=torch.zeros_like(log.logprobs))
    weights = weights_of(place.config.train_config, users.streams)
    unseen = streams_of(log.header, users, log.feedback).isnan().any(0)  # (M,)
    seen = weights.masked_fill(unseen, 0.0)
    hidden = _hidden(users.streams, weights, unseen)
    if hidden and not bool(seen.any()):
        raise UserError(
            f"The record holds nothing of the reward for which the champion was trained ({listed(hidden)}), "
            "as it lacks the hidden signals behind it: train a champion with --weights of other streams."
        )
    rewards = of_platform(log.header, users, seen)
    by_item = one_step and not place.config.platform.simulates and _of_each_item(catalogue, log)
    read = ReadLog(log, catalogue, rewards, streams, by_item=by_item)
    options = OpeConfig(log=(str(name),), world=not one_step)
    of, _, _ = replayed(options, read)
    worlds, doubt = (None, "") if one_step else try_world(of, streams["world"])
    bounds = reward_bounds(log, place.config, users, seen) if one_step else None
    return Bench(
        place=place,
        options=options,
        read=read,
        of=of,
        chance=chance,
        worlds=worlds,
        doubt=doubt,
        broken=about_log(of.totals),
        left_out=left_out,
        streams=tuple(users.streams),
        weights=weights,
        bounds=bounds,
        hidden=hidden,
        cut=cut,
        gone=gone,
    )


def of_now(catalogue: Catalogue, log: DecisionLog) -> tuple[Catalogue, DecisionLog, str]:
    """The catalogue in which items that are gone were never there, and the sessions that can judge by it.

    A policy is then judged among those items of a decision that are there now: among all of then it may be
    the better one by items that it can show no more (benchmarks/ope_stocks.py). A session of whose items too
    few are there is left out. Returns a sentence about both; "" if no item is gone.
    """
    if log.stock is None:
        return catalogue, log, ""
    now = without_gone(catalogue)
    moments, at_moment = log.stock.unique(return_inverse=True)
    then, still = (of.available_at(moments) for of in map(ItemTimeline.of, (catalogue, now)))  # (U, I)
    gone = {catalogue.id_of(row) for row in (then & ~still).any(0).nonzero()[:, 0].tolist()}
    if not gone:
        return catalogue, log, ""
    interface, enough = log.header.interface, torch.empty(log.num_rows, dtype=torch.bool)
    for at, obs in observations(log, now):
        enough[at] = obs.showable(catalogue.num_items).sum(1) >= interface.slate_size
    if not interface.repeats:  # another policy may show others before
        enough &= still.sum(1)[at_moment] >= interface.slate_size * (int(log.steps.max()) + 1)
    kept = log.rows(~torch.isin(log.sessions, log.sessions[~enough]))
    lost = len(log.sessions.unique()) - len(kept.sessions.unique())
    text = (
        f"These sessions could show {amount(len(gone), 'item')} more, gone by now: both policies are judged "
        "without."
    )
    if lost:
        text += f" {amount(lost, 'session')} left out, as too few of their items are there now."
    return now, kept, text


def within(log: DecisionLog, config: Config) -> tuple[DecisionLog, str]:
    """The log of a team's own place with each signal cut to its range in the log of the training.

    One event with an amount that nobody saw before would else decide alone. Returns a sentence about it; ""
    if nothing is cut.
    """
    tables = config.platform.tables
    ranges = {} if tables is None else tables.ranges(config.env_config)
    signals, texts = log.signals.clone(), []
    for index, name in enumerate(log.header.signals):
        if name in ranges:
            low, high, _ = ranges[name]
            values = signals[:, :, index].clamp(low, high)
            number = int((values != signals[:, :, index])[log.shown].sum())
            texts += [f"{amount(number, 'value')} of {name} from {low:g} to {high:g}"] if number else []
            signals[:, :, index] = torch.where(log.shown, values, signals[:, :, index])
    if not texts:
        return log, ""
    what = "Cut to the range in the log from which the champion learned"
    return dataclasses.replace(log, signals=signals), f"{what}: {', '.join(texts)}."


def _hidden(streams: Sequence[Stream], weights: Tensor, unseen: Tensor) -> tuple[str, ...]:
    """The names of the streams with a weight that the record can't show."""
    rows = zip(streams, weights.tolist(), unseen.tolist(), strict=True)
    return tuple(stream.name for stream, by, lacks in rows if by and lacks)


def hidden_part(on: Bench) -> str:
    """A sentence if the champion's reward has streams that the record can't show; "" if not."""
    if not on.hidden:
        return ""
    weightless = " ".join(f"{name}=0" for name in on.hidden)
    return (
        f"The champion was trained for {listed(on.hidden)}, too, which is made of signals that no server "
        "sees: it is left out here, as by the canary. To learn and judge by one reward, train a champion "
        f"with --weights {weightless}."
    )


def other_objective(on: Bench, of: Checkpoint, name: str) -> str:
    """A sentence if the policy was trained for other weights of the streams; "" if not."""
    if torch.equal(weights_of(of.config.train_config, on.streams), on.weights):
        return ""
    given = " ".join(of.config.train_config.weights)
    trained = f"with --weights {given}" if given else "for the platform's own weights"
    return (
        f"{name} was trained {trained}. It is judged by the champion's weights, as by the canary, and may "
        "lose by them where it does what it was told."
    )


def compare(on: Bench, new: Behaviour) -> Compared:
    """The challenger and the champion, as they draw, on the same sessions."""
    # One pass of the challenger's network over all decisions, for chi^2 and for the lower bound.
    ratios = ratios_of(on.of, new) if on.chance else None
    chi2 = float("nan") if ratios is None else chi2_of(ratios)
    if on.of.totals.steps == 1:
        return _by_weights(on, new, ratios, chi2)
    if on.worlds is None:
        return _compared("world", on, (torch.zeros(len(on.of.users)),) * 2, chi2)
    return _compared("world", on, (world(on.worlds, new), on.champion_terms), chi2)


def _by_weights(on: Bench, new: Behaviour, ratios: Tensor | None, chi2: float) -> Compared:
    """Single decisions: the paired difference by `dr`, the recommended estimator of such logs.

    Where its interval would promise nothing, as of a few large weights, there is a lower bound alone, if the
    ends of the reward are known and no mean weight is above 1.
    """
    # Copies, as the models are fitted with numbers of these streams.
    read = dataclasses.replace(
        on.read, streams={name: of.clone_state() for name, of in on.read.streams.items()}
    )
    result, judged = estimates(on.options, read, [playable(NEW, new), playable(OLD, on.champion)])
    known = Estimates(result.rows, judged.terms, judged.users, on.of.log.num_rows, "dr", broken=on.broken)
    answer = verdict_on(known, NEW, OLD)
    doubt = "" if answer.promise else answer.reason
    if doubt and ratios is not None and answer.answer != BROKEN:
        lower = _lower(on, ratios)
        if not isinstance(lower, str):
            return dataclasses.replace(_compared(LOWER, on, lower, chi2), heavy=doubt)
        doubt += f"; no lower bound holds, as {lower}"
    nothing = torch.zeros(len(on.of.users))
    terms = tuple(judged.terms[name].get(answer.estimator, nothing) for name in (NEW, OLD))
    return dataclasses.replace(
        _compared(answer.estimator, on, terms, chi2),
        doubt=doubt,
        broken=answer.reason if answer.answer == BROKEN else "",
    )


def _lower(on: Bench, ratios: Tensor) -> tuple[Tensor, Tensor] | str:
    """The terms of the lower bound; or why there is none, as the end of a sentence.

    ``ratios``: (E,), ``ratios_of`` the challenger.
    """
    if on.bounds is None:
        return "nothing is known of the lowest and the highest reward"
    weights = {}
    for name, each in ((NEW, ratios), (OLD, on.champion_ratios)):
        weights[name] = on.of.on_grid(each)[:, 0]  # (N,)
        mean = too_large(weights[name], on.of.users)
        if mean is not None:
            wrong = f"the mean weight of the {name} is {mean:.3g} and not 1"
            return f"{wrong}: the probabilities in the record are too small"
    return lower_terms(weights[NEW], weights[OLD], on.of.on_grid(on.of.rewards)[:, 0], *on.bounds)


def _compared(by: str, on: Bench, terms: tuple[Tensor, ...], chi2: float) -> Compared:
    returns = on.of.on_grid(on.of.rewards).sum(1)  # (N,)
    return Compared(
        by=by,
        new=terms[0],
        old=terms[1],
        users=on.of.users,
        logged=float(returns.mean()),
        steps=float(on.of.alive.sum(1).double().mean()),
        chi2=chi2,
        left_out=on.left_out,
        doubt=on.doubt,
        broken=on.broken,
    )


def chi2_of(ratios: Tensor) -> float:
    """chi^2 of a decision: the variance of its weight, by the weights of the logged decisions.

    They are divided by their mean, so that a few missing large ones do not make the policy look near.

    Args:
        ratios: (E,), ``ratios_of`` the policy.
    """
    return float(ratios.pow(2).mean() / ratios.mean().clamp_min(1e-12).pow(2)) - 1


def ratios_of(of: ReplayedLog, policy: Behaviour) -> Tensor:
    """(E,) float64: the policy's probability of each decision, divided by that of the logged policies."""
    rows = torch.bincount(of.log.loggers, minlength=len(of.log.header.loggers))
    mine, theirs = logged_places(of, policy).sum(1), behaviour_logprobs(of.log, rows)
    return (mine.double() - theirs).exp()


def effective_items(of: ReplayedLog, policy: ScoringPolicy) -> float:
    """The mean over the decisions of the effective number of items among which the policy draws the first
    place."""
    return float(of.of_rows(lambda at, obs: categorical.effective(policy.scores(obs).double())).mean())


def unjudged(of: ReplayedLog, policy: ScoringPolicy) -> float:
    """The mean share of the policy's draws, among the items of now, of those that were not there then.

    The policy is one over the items of the log. 0 where items are those of the platform for ever.
    """
    log, catalogue = of.log, of.catalogue
    moments = log.stock
    if moments is None:
        return 0.0

    timeline = ItemTimeline.of(catalogue)

    def share(at: Tensor, obs: Obs) -> Tensor:
        now = timeline.available_now.expand(len(at), -1)  # (B, I)
        chances = policy.scores(dataclasses.replace(obs, mask=now, candidates=None)).double().softmax(1)
        return (chances.nan_to_num(0.0) * ~timeline.of_same_ids(timeline.available_at(moments[at]))).sum(1)

    return float(of.of_rows(share).mean())


def new_part(share: float) -> str:
    """A sentence about ``unjudged``; "" if there is nothing to say."""
    if share < 0.001:
        return ""
    return (
        f"The challenger shows in {share:.1%} of these contexts items that no session here could show: they "
        "came later, and this part of it is not judged."
    )


def _of_each_item(catalogue: Catalogue, log: DecisionLog) -> bool:
    """True if the reward model has coefficients of each item: nothing is known of them, and they are few."""
    return not knows_items(catalogue) and catalogue.num_items <= MOST_ITEMS and log.items.shape[1] == 1


def _latest(log: DecisionLog) -> DecisionLog:
    """The sessions of the latest MOST_DECISIONS decisions, in the order of the log."""
    if log.num_rows <= MOST_DECISIONS:
        return log
    cut = log.sessions == log.sessions[-MOST_DECISIONS - 1]  # of intervals the numbers may not ascend
    return log.rows(torch.arange(int(cut.nonzero()[-1]) + 1, log.num_rows))

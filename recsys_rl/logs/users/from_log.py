"""The facts and the sessions from which users are learned, made from a log of decisions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from recsys_rl.logs.decision_log import DecisionHeader, DecisionLog
from recsys_rl.logs.rewards import Rewards, of_matrix
from recsys_rl.logs.users.facts import UserFacts
from recsys_rl.logs.users.session_table import SessionTable, session_table
from recsys_rl.objective.weighted import check_weights, stream_weights
from recsys_rl.protocols import UserModel
from recsys_rl.settings.fields import check_used
from recsys_rl.types import Feedback, Signal, Stream, UserError


class Learnable(NamedTuple):
    """The signals of users that a log offers to learn, and the streams that are made of them."""

    places: Tensor  # (S,) int64: the signals among those of the log
    signals: tuple[Signal, ...]  # (S,)
    streams: tuple[Stream, ...]  # (M,)
    of_signals: Tensor  # (S, M) float32


def check_learnable(name: str, log: DecisionLog) -> None:
    """Raise UserError for a log from which no users can be learned."""
    interface = log.header.interface
    what = ""
    if interface.events:
        what = "the events that users make beside the answers to what was shown"
    elif interface.visits > 1:
        what = "the days between visits"
    elif log.forbids:
        what = "the items that each step forbids"
    if what:
        raise UserError(f"{name} can't be learned from: no model of users predicts {what}; give another log.")


def learnable(
    name: str, log: DecisionLog, users: UserModel | None, weights: Mapping[str, float]
) -> Learnable:
    """The signals and streams of a log.

    Args:
        users: the user model of the log's platform. Its visible signals are learned, and the hidden ones of
            which a stream is made. None: all signals, each a stream with its weight of ``weights`` or 0.
        weights: of streams, for a log that people made.

    Raises UserError if no stream has a weight, for weights that have no effect, if a stream is not a sum of
    signals, or if the log lacks a signal of which a stream with a weight is made.
    """
    names = log.header.signals
    if users is None:
        streams = tuple(Stream(signal, weights.get(signal, 0.0)) for signal in names)
        check_weights(weights, streams, "weights")
        if not any(stream.weight for stream in streams):
            raise UserError(
                f"{name} says nothing of rewards, so each signal needs a weight: give --weights NAME=NUMBER "
                f"for some of {', '.join(names)}."
            )
        visible = set(log.header.interface.signals)
        bounds = [
            (float(values.min()), float(values.max())) for values in log.signals.flatten(0, 1).unbind(1)
        ]
        signals = tuple(
            Signal(signal, signal in visible, *bound) for signal, bound in zip(names, bounds, strict=True)
        )
        return Learnable(torch.arange(len(names)), signals, streams, torch.eye(len(names)))
    of_platform = f"{name} is a log of a platform, which makes the rewards; recsys-rl train has the option"
    check_used(("weights", bool(weights), of_platform))
    every = [signal.name for signal in users.signals]
    matrix = sums_of_signals(name, users, log.header.interface.slate_size)  # (S_all, M)
    used = [signal.visible or bool(matrix[index].any()) for index, signal in enumerate(users.signals)]
    missing = [every[index] for index, one in enumerate(used) if one and every[index] not in names]
    weight = stream_weights(users.streams)
    for signal in missing:
        made = (matrix[every.index(signal)] * weight).nonzero().flatten().tolist()
        if made:
            raise UserError(
                f"{name} lacks the hidden signal {signal}, of which the reward stream "
                f"{users.streams[made[0]].name} is made: give a log of recsys-rl record, which holds all."
            )
    learned = [index for index, one in enumerate(used) if one and every[index] in names]
    return Learnable(
        torch.tensor([names.index(every[index]) for index in learned]),
        tuple(users.signals[index] for index in learned),
        users.streams,
        matrix[learned],
    )


def sums_of_signals(name: str, users: UserModel, places: int) -> Tensor:
    """(S, M): the streams of ``users`` as sums of their signals over the places of a slate.

    ``name``: of the log, for the UserError that it raises if they are not such sums.
    """
    size = len(users.signals)
    signals = torch.zeros(size, places, size)
    signals[:, 0] = torch.eye(size)
    shown = torch.ones(size, places, dtype=torch.bool)
    matrix = users.rewards(Feedback(signals, shown)).float()  # (S, M)
    generator = torch.Generator().manual_seed(0)
    some = torch.rand(64, places, size, generator=generator)
    rewards = users.rewards(Feedback(some, torch.ones(64, places, dtype=torch.bool)))
    if not torch.allclose(rewards, some.sum(1) @ matrix, rtol=1e-4, atol=1e-4):
        raise UserError(
            f"{name} can't be learned from: the reward streams of its platform are not sums of signals; give "
            "a log of another platform."
        )
    return matrix


def pieces_of_users(log: DecisionLog) -> tuple[Tensor, dict[str, Tensor]]:
    """The ids (U,) of the users of a log, ascending, and pieces (U, size) of the context of each.

    They are those of the first decision of the user's first session, in the order of the log's rows.
    """
    first = (log.steps == 0).nonzero().squeeze(1)  # (G,)
    ids, order = log.users[first].sort(stable=True)
    new = torch.ones_like(ids, dtype=torch.bool)
    new[1:] = ids[1:] != ids[:-1]
    return ids[new], {name: values[first[order[new]]] for name, values in log.given.items()}


def facts_of(name: str, log: DecisionLog, what: Learnable) -> UserFacts:
    """The facts of a log; ``name`` is that of its file."""
    users, given = pieces_of_users(log)
    return UserFacts(
        interface=log.header.interface,
        signals=what.signals,
        streams=what.streams,
        of_signals=what.of_signals,
        users=users,
        given=given,
        catalogue=log.header.catalogue,
        platform=log.header.platform,
        log=f"{name} ({log.num_sessions:,} sessions)",
    )


def sessions_of(log: DecisionLog, what: Learnable) -> SessionTable:
    """The sessions of a log, with the signals and the rewards that are learned."""
    rewards = of_matrix(what.places, what.of_signals, what.streams)
    return session_table(log, rewards(log.feedback), what.places)


def of_learned(facts: UserFacts, log: DecisionHeader, weights: Mapping[str, float] | None = None) -> Rewards:
    """The rewards of learned users on a log of their platform.

    ``weights`` replaces the platform's weights of the streams. Raises UserError if the log lacks a signal.
    """
    missing = [signal.name for signal in facts.signals if signal.name not in log.signals]
    if missing:
        raise UserError(f"The log lacks the signal {missing[0]}, of which the learned users make a reward.")
    places = torch.tensor([log.signals.index(signal.name) for signal in facts.signals])
    return of_matrix(places, facts.of_signals, facts.streams, weights)


def split_sessions(
    table: SessionTable, by: str, share: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The rows of the sessions to learn from, and of a ``share`` held out: later ones, or of other users.

    ``by``: "time" or "users". Raises UserError if one side would be empty.
    """
    if by == "time":
        ordered = table.times.sort().values
        cut = ordered[min(int((1 - share) * len(ordered)), len(ordered) - 1)]
        held = table.times >= cut
    else:
        ids, user = table.users.unique(return_inverse=True)
        chosen = torch.randperm(len(ids), generator=generator) < max(1, round(share * len(ids)))
        held = chosen[user]
    if bool(held.all()):
        alone = len((table.times if by == "time" else table.users).unique()) < 2  # no other share would do
        what = "times" if by == "time" else "users"
        more = f"sessions of more {what}" + ("" if alone else ", or a smaller --heldout-share")
        raise UserError(f"The log has too few {what} to hold out a share of {share:g}: give {more}.")
    return (~held).nonzero().squeeze(1), held.nonzero().squeeze(1)

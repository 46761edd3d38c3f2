"""The rewards of a log's decisions: weighted sums of reward streams, which are made of the signals.

One function for every reader of logs. What differs is where the streams come from: of the signals themselves,
of the user model of a platform, or of the matrix of learned users.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from recsys_rl.errors import UserError, one_line
from recsys_rl.logs.decision_log import DecisionHeader
from recsys_rl.objective.weighted import check_weights, parse_weights, stream_weights, weighted_known
from recsys_rl.protocols import UserModel
from recsys_rl.types import Feedback, Stream


@dataclass(frozen=True)
class Rewards:
    """A function from the feedback of a log to the rewards (E,) of its decisions."""

    names: tuple[str, ...]  # (M,) of the streams
    streams: Callable[[Feedback], Tensor]  # (E, M); NaN where the log lacks their hidden signals
    weights: Tensor  # (M,)

    def __call__(self, feedback: Feedback) -> Tensor:
        """Raise UserError for a stream with a weight whose hidden signals the log lacks."""
        values = self.streams(feedback)
        lacks = values.isnan().any(0) & (self.weights != 0)  # (M,)
        if bool(lacks.any()):
            wrong = [name for name, one in zip(self.names, lacks.tolist(), strict=True) if one]
            weightless = " ".join(f"{name}=0" for name in wrong)
            raise UserError(
                f"The log lacks the hidden signals of which the stream {wrong[0]} is made, as that of a "
                f"server does: leave it out of the reward, --weights {weightless}; where the weights are the "
                "champion's, as in recsys-rl retrain and loop, train a champion with these weights."
            )
        return weighted_known(values, self.weights)


def of_signals(names: Sequence[str], weights: Mapping[str, float]) -> Rewards:
    """The rewards of a log without a platform: streams are signals, summed over the places of a slate."""
    by = torch.tensor([weights[name] for name in names])
    return Rewards(tuple(names), _sums, by)


def of_platform(log: DecisionHeader, users: UserModel, weights: Tensor) -> Rewards:
    """The rewards of a log with the feedback of this user model, and ``weights`` (M,) of its streams."""
    return Rewards(tuple(stream.name for stream in users.streams), partial(streams_of, log, users), weights)


def of_matrix(
    places: Tensor, matrix: Tensor, streams: Sequence[Stream], weights: Mapping[str, float] | None = None
) -> Rewards:
    """The rewards whose streams are the signals at ``places`` (S,), summed over a slate, times (S, M)."""
    names = tuple(stream.name for stream in streams)
    return Rewards(names, partial(_times, places, matrix), stream_weights(streams, weights))


def _sums(feedback: Feedback) -> Tensor:
    return feedback.signals.sum(1)


def _times(places: Tensor, matrix: Tensor, feedback: Feedback) -> Tensor:
    return feedback.signals[..., places].sum(1) @ matrix


# r_k = r(feedback without the signals of the other places)
def place_rewards(rewards: Callable[[Feedback], Tensor], feedback: Feedback) -> Tensor | None:
    """The rewards (E, K) of the places of each slate; None if they don't sum to the reward of the slate.

    ``rewards`` gives (E,) from the signals. It is called once for each place, with all other signals 0.
    Rewards of events, or of two places together, belong to no place. A log has one number for each whole
    slate if none of its slates has a reward below the first place, where that number stands.
    """
    events = feedback.events
    if events is not None:
        events = replace(events, signals=torch.zeros_like(events.signals))
    columns = []
    for place in range(feedback.signals.shape[1]):
        signals = torch.zeros_like(feedback.signals)
        signals[:, place] = feedback.signals[:, place]
        columns.append(rewards(replace(feedback, signals=signals, events=events)))
    each, of_slate = torch.stack(columns, 1).double(), rewards(feedback).double()
    of_places = bool(each[:, 1:].any()) and torch.allclose(each.sum(1), of_slate, rtol=1e-4, atol=1e-5)
    return each if of_places else None


def has_signals(log: DecisionHeader, users: UserModel) -> bool:
    """True if a log holds all signals of the user model, or, as that of a server, all visible ones."""
    every = tuple(signal.name for signal in users.signals)
    return log.signals in (every, tuple(signal.name for signal in users.signals if signal.visible))


def streams_of(log: DecisionHeader, users: UserModel, feedback: Feedback) -> Tensor:
    """The reward streams (E, M) of a log's ``feedback``; NaN where the log lacks their hidden signals."""
    every = [signal.name for signal in users.signals]
    if len(log.signals) == len(every):
        return users.rewards(feedback)
    at = torch.tensor([every.index(name) for name in log.signals])

    def filled(signals: Tensor) -> Tensor:
        padded = signals.new_full((*signals.shape[:-1], len(every)), torch.nan)
        return padded.index_copy(-1, at, signals)

    events = feedback.events
    if events is not None:
        events = replace(events, signals=filled(events.signals))
    return users.rewards(replace(feedback, signals=filled(feedback.signals), events=events))


def weights_of_signals(
    source: str, signals: Sequence[str], texts: Sequence[str], field: str
) -> dict[str, float]:
    """The weight of each signal in a reward, by ``texts`` NAME=NUMBER; of a single one it may be left out.

    Raises UserError about the log ``source`` if several signals have no weight, and FieldError about
    ``field`` for a wrong text.
    """
    given = parse_weights(texts, field)
    if len(signals) > 1 and not given:
        raise UserError(
            f"{one_line(source)} has the signals {', '.join(signals)}: say what counts, as in --weights "
            f"{signals[0]}=1."
        )
    check_weights(given, [Stream(name, 0.0) for name in signals], field)
    return {name: given.get(name, 0.0 if given else 1.0) for name in signals}

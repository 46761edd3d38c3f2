"""Streams that a limit can be on: those that any platform can have, and the platform's reward streams.

The value of a stream over many steps is a ratio, sum(amounts) / sum(bases):

    ads              shown items of the kind "ad", as a share of all shown items
    tail_exposure    shown items by creators of the tail, as a share of all shown items
    early_end        sessions that the user left before the last step, as a share of the sessions that ended
    NAME             a reward stream: its mean over the steps, without a weight

An item is shown at each place of a slate that is not -1. The tail is the least popular 80 % of the creators, by
the sum of the popularity of their items in the data; the other 20 % are the short head (Abdollahpouri et al.
2017, arXiv:1706.00204, of items). Where items have no creators, each item counts as a creator of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys_rl.types import Catalogue, Rollout, Stream

ADS, TAIL, EARLY = "ads", "tail_exposure", "early_end"
AD = "ad"  # the kind of item in ``ads``
TAIL_SHARE = 0.8  # of the creators


@dataclass(frozen=True)
class LimitStream:
    """A stream as a ratio of two sums over the steps of a rollout."""

    name: str
    meaning: str  # part of a sentence
    amounts: Callable[[Rollout], Tensor]  # (T, N)
    bases: Callable[[Rollout], Tensor]  # (T, N)
    low: float = -math.inf  # the range of its value
    high: float = math.inf
    of_sessions: bool = False  # the base counts sessions, of which each ends once, whatever the policy does


def limit_streams(catalogue: Catalogue, streams: Sequence[Stream]) -> dict[str, LimitStream]:
    """The streams by name. ``streams``: the platform's; a stream of the same name is the platform's own."""
    found = {name: _of_items(name, items, _meaning(name, catalogue)) for name, items in groups(catalogue).items()}
    left = "sessions that the user left before the last step, as a share of all (of lives, users who left for good)"
    found[EARLY] = LimitStream(EARLY, left, lambda x: x.terminated, _ends, 0.0, 1.0, True)
    return found | {stream.name: _of_rewards(stream, place) for place, stream in enumerate(streams)}


def groups(catalogue: Catalogue) -> dict[str, Tensor]:
    """The items (I,) bool that ``ads`` and ``tail_exposure`` count, without those that do not exist here."""
    kinds, found = catalogue.classes("kind"), {}
    if AD in kinds:
        found[ADS] = catalogue.attributes["kind"] == kinds.index(AD)
    tail = tail_items(catalogue)
    if tail is not None:
        found[TAIL] = tail
    return found


def creators_of(catalogue: Catalogue) -> Tensor:
    """(I,) int64, 0 .. the number of creators - 1: the creator of each item; without creators, the item."""
    if "creator" not in catalogue.attributes:
        return torch.arange(catalogue.num_items, device=catalogue.popularity.device)
    return catalogue.attributes["creator"].unique(return_inverse=True)[1]


def tail_items(catalogue: Catalogue) -> Tensor | None:
    """(I,) bool: items by creators of the tail. None if all creators are equally popular, or in no catalogue.

    Of creators with the same popularity, those of higher numbers come first.
    """
    if not catalogue.num_items:
        return None
    creator = creators_of(catalogue)
    count = int(creator.max()) + 1
    liked = torch.zeros(count, dtype=torch.float64, device=creator.device)
    liked.index_add_(0, creator, catalogue.popularity.double())
    if bool((liked == liked[0]).all()):
        return None
    head = liked.argsort(descending=True, stable=True)[: count - int(TAIL_SHARE * count)]
    is_tail = torch.ones(count, dtype=torch.bool, device=creator.device).index_fill_(0, head, False)
    return is_tail[creator]


def count_items(items: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """The shown items of the ``group`` (I,) bool, and all shown items, at each row of ``items`` (..., K).

    Both (...) are float32 shares of the K places.
    """
    shown = items >= 0
    return (group[items.clamp_min(0)] & shown).float().mean(-1), shown.float().mean(-1)


def _of_items(name: str, group: Tensor, meaning: str) -> LimitStream:
    return LimitStream(
        name,
        meaning,
        lambda x: count_items(x.items, group)[0],
        lambda x: count_items(x.items, group)[1],
        0.0,
        1.0,
    )


def _of_rewards(stream: Stream, place: int) -> LimitStream:
    meaning = "mean of this reward stream over the steps, as stream_NAME_mean in log.csv"
    return LimitStream(
        stream.name, meaning, lambda x: x.streams[..., place], lambda x: torch.ones_like(x.rewards)
    )


def _ends(rollout: Rollout) -> Tensor:
    return rollout.terminated | rollout.truncated


def _meaning(name: str, catalogue: Catalogue) -> str:
    if name == ADS:
        return 'shown items of the kind "ad", as a share of all shown items'
    whose = "items by the" if "creator" in catalogue.attributes else "items among the"
    who = "creators" if "creator" in catalogue.attributes else "items, as these have no creators"
    return f"shown {whose} least popular {TAIL_SHARE:.0%} of the {who}, as a share of all shown items"

"""Streams that a limit can be on: three that any platform can have, and the platform's reward streams.

The value of a stream over many steps is a ratio, sum(amounts) / sum(bases):

    ads              shown items of the kind "ad", as a share of all shown items
    tail_exposure    shown items by creators of the tail, as a share of shown items with a creator
    early_end        sessions that the user left before the last step, as a share of the sessions that ended
    NAME             a reward stream: its mean over the steps, without a weight

An item is shown at each place of a slate that is not -1. The tail is the least popular 80 % of the creators,
by the sum of the popularity of their items in the data; the other 20 % are the short head (for items:
Abdollahpouri et al. 2017, doi:10.1145/3109859.3109912). Where the data hold no creators, each item counts as
a creator of its own; where they do, items without one, such as ads, do not count.
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


@dataclass(frozen=True)
class Group:
    """Items of which a stream is the share among the shown ones."""

    items: Tensor  # (I,) bool
    among: Tensor  # (I,) bool: the items that count at all
    meaning: str  # part of a sentence

    def count(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """The numbers of ``items`` (..., K; -1: none) in the group and of those that count: (...) float32."""
        shown, places = items >= 0, items.clamp_min(0)
        of_group, counted = (mask[places] & shown for mask in (self.items, self.among))
        return of_group.float().sum(-1), counted.float().sum(-1)


def limit_streams(catalogue: Catalogue, streams: Sequence[Stream]) -> dict[str, LimitStream]:
    """The streams by name. ``streams``: the platform's; a stream of the same name is the platform's own."""
    by_name = {name: _of_items(name, group) for name, group in groups(catalogue).items()}
    left = "sessions that the user left before the last step, as a share of all; of lives, users who churned"
    by_name[EARLY] = LimitStream(EARLY, left, _left_early, _ends, 0.0, 1.0, True)
    return by_name | {stream.name: _of_rewards(stream, index) for index, stream in enumerate(streams)}


def groups(catalogue: Catalogue) -> dict[str, Group]:
    """The groups of ``ads`` and ``tail_exposure``, without those that do not exist in this catalogue."""
    kinds, by_name = catalogue.classes("kind"), {}
    if AD in kinds:
        ads = catalogue.attributes["kind"] == kinds.index(AD)
        by_name[ADS] = Group(
            ads, torch.ones_like(ads), 'shown items of the kind "ad", as a share of all shown items'
        )
    tail = tail_items(catalogue)
    if tail is not None:
        who = "items (they have no creators)"
        if "creator" in catalogue.attributes:
            who = "creators"
        said = f"shown items of the least popular {TAIL_SHARE:.0%} of the {who}, as a share of those of all"
        by_name[TAIL] = Group(tail, creators_of(catalogue) >= 0, said)
    return by_name


def creators_of(catalogue: Catalogue) -> Tensor:
    """(I,) int64, 0 .. the number of creators - 1: the creator of each item, -1 for none.

    Where the data hold no creators, each item counts as a creator of its own.
    """
    if "creator" not in catalogue.attributes:
        return torch.arange(catalogue.num_items, device=catalogue.popularity.device)
    given = catalogue.attributes["creator"]
    creators = torch.full_like(given, -1, dtype=torch.int64)
    creators[given >= 0] = given[given >= 0].unique(return_inverse=True)[1]
    return creators


def tail_items(catalogue: Catalogue) -> Tensor | None:
    """(I,) bool: items by creators of the tail. None if all creators are equally popular, or if there are
    none.

    Of creators with the same popularity, those of higher numbers are nearer to the tail.
    """
    creator = creators_of(catalogue)
    count = int(creator.max()) + 1 if catalogue.num_items else 0
    if not count:
        return None
    has_one = creator >= 0
    liked = torch.zeros(count, dtype=torch.float64, device=creator.device)
    liked.index_add_(0, creator[has_one], catalogue.popularity[has_one].double())
    if bool((liked == liked[0]).all()):
        return None
    tail = liked.argsort(descending=True, stable=True)[count - int(TAIL_SHARE * count) :]
    is_tail = torch.zeros(count, dtype=torch.bool, device=creator.device).index_fill_(0, tail, True)
    return has_one & is_tail[creator.clamp_min(0)]


def _of_items(name: str, group: Group) -> LimitStream:
    return LimitStream(
        name,
        group.meaning,
        lambda rollout: group.count(rollout.items)[0] / rollout.items.shape[-1],
        lambda rollout: group.count(rollout.items)[1] / rollout.items.shape[-1],
        0.0,
        1.0,
    )


def _of_rewards(stream: Stream, index: int) -> LimitStream:
    meaning = "mean of this reward stream over the steps, as stream_NAME_mean in log.csv"
    return LimitStream(
        stream.name,
        meaning,
        lambda rollout: rollout.streams[..., index],
        lambda rollout: torch.ones_like(rollout.rewards),
    )


def _left_early(rollout: Rollout) -> Tensor:
    return rollout.terminated if rollout.left_early is None else rollout.left_early


def _ends(rollout: Rollout) -> Tensor:
    return rollout.terminated | rollout.truncated

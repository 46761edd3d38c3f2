"""Items of a newer log that the policy of a checkpoint does not know, and so never shows.

The log keeps them, as items of which nothing is known, so that its probabilities and its observations stay
what they were. The policy chooses among the others: a row that shows an unknown item has weight 0. Where
fewer items are left than it must show, no policy of these items could have answered, and the session is left
out.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from recsys_rl.checkpoint import Checkpoint
from recsys_rl.checkpoint.stock import over
from recsys_rl.data.tables.item_encoding import StockItem, items_of
from recsys_rl.data.tables.values import INTEGER
from recsys_rl.data.timeline import clock_of
from recsys_rl.errors import amount
from recsys_rl.logs.decision_log import DecisionLog
from recsys_rl.logs.transitions import observations
from recsys_rl.protocols import ScoringPolicy
from recsys_rl.types import Action, Catalogue, Obs


def with_unknown(checkpoint: Checkpoint, ids: Sequence[str]) -> Checkpoint:
    """The policy over its own items and, after these, those of ``ids``, of which it knows nothing.

    Raises UserError for a policy that can't be laid over other items.
    """
    catalogue = checkpoint.catalogue
    items = items_of(catalogue)
    numbers = not catalogue.item_names and all(re.fullmatch(INTEGER, id_) for id_ in ids)
    if not numbers:
        items = [item._replace(id=str(item.id)) for item in items]
    more = [StockItem(int(id_) if numbers else id_, id_, {}) for id_ in ids]
    return over(checkpoint, [*items, *more], clock=clock_of(catalogue))


@dataclass(frozen=True)
class Knowing:
    """A policy that chooses among the items that it knows, and among all where too few of these are left."""

    policy: ScoringPolicy
    known: Tensor  # (I,) bool
    places: int  # K

    def own(self, obs: Obs) -> Obs:
        return among(obs, self.known, self.places)

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        return self.policy.act(self.own(obs), greedy)

    def scores(self, obs: Obs) -> Tensor:
        return self.policy.scores(self.own(obs))

    def place_logprobs(self, obs: Obs, items: Tensor) -> Tensor:
        return self.policy.place_logprobs(self.own(obs), items)

    def item_probabilities(self, obs: Obs, num_items: int) -> Tensor:
        return self.policy.item_probabilities(self.own(obs), num_items)


def among(obs: Obs, known: Tensor, places: int) -> Obs:
    """The observation without the items that are not ``known`` (I,), in rows with enough others."""
    if obs.candidates is not None:
        few = obs.candidates.masked_fill(~known[obs.candidates.clamp_min(0)], -1)  # (N, C)
        enough = (few >= 0).sum(1, keepdim=True) >= places
        return dataclasses.replace(obs, candidates=torch.where(enough, few, obs.candidates))
    allowed = obs.allowed(len(known))  # (N, I)
    enough = (allowed & known).sum(1, keepdim=True) >= places
    return dataclasses.replace(obs, mask=torch.where(enough, allowed & known, allowed))


def answerable(log: DecisionLog, catalogue: Catalogue, known: Tensor) -> Tensor:
    """(E,) bool: the rows of sessions in which always enough ``known`` (I,) items could be shown."""
    enough, places = torch.ones(log.num_rows, dtype=torch.bool), log.header.interface.slate_size
    for at, obs in observations(log, catalogue):
        enough[at] = (obs.showable(len(known)) & known).sum(1) >= places
    return ~torch.isin(log.session, log.session[~enough])


@dataclass(frozen=True)
class UnknownItems:
    """The items of a log that the judged policy does not know, and what they concern."""

    items: int  # distinct ones, in the whole log
    rows: int  # of the log
    showing: int  # rows that show one, whose weight is 0
    listing: int  # rows that could show one
    left_out: int  # sessions without enough other items, which are not among the rows
    # The share of each policy's weights that stand in rows which could show one; None: all its weights are 0.
    policies: Mapping[str, float | None]
    several: bool  # sessions have several steps
    by_features: bool  # the policy knows its items by features, and so could know these

    @property
    def sentence(self) -> str:
        """What they concern, and how to mend it."""
        are, it = ("is", "it") if self.items == 1 else ("are", "them")
        later = " from there on in its session" * self.several
        of_weights = [f"{of:.1%} of the weight of {name}" for name, of in self.policies.items() if of]
        weights = f" ({', '.join(of_weights)})" if of_weights else ""
        left = f"; left out: {amount(self.left_out, 'session')} with too few others" * bool(self.left_out)
        mend = f"give --items FILE with {it}, or " * self.by_features + f"train on logs that show {it}"
        return (
            f"{amount(self.items, 'item')} of the log {are} unknown to the policy, which never shows {it}: "
            f"{self.showing:,} of {amount(self.rows, 'row')} ({self.showing / self.rows:.1%}) show one and "
            f"have weight 0{later}; {self.listing:,} ({self.listing / self.rows:.1%}) could show one, and "
            f"there the policy chooses among the others{weights}{left}: {mend}."
        )

    def json(self) -> dict[str, Any]:
        """The values in the JSON file of ``ope``."""
        return dataclasses.asdict(self) | {"share": self.showing / self.rows, "text": self.sentence}

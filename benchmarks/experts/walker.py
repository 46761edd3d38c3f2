"""The walk of an `expert` through the sessions of users, one new entry at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from benchmarks.experts.form import Walk
from recsys_rl.protocols import UserModel
from recsys_rl.records import Known
from recsys_rl.types import Interface, Obs


@dataclass
class Walker:
    """The state of a ``Walk`` for N users; ``follow`` is called with each of their observations.

    Where the history of a user goes on by one entry, so does the walk. It stays where history and profile do,
    and elsewhere starts again from the first entry that the history holds.
    """

    walk: Walk
    user_model: UserModel
    interface: Interface
    numbers: Mapping[str, Tensor]  # () or (N,) each
    last: tuple[Tensor, Tensor] | None = None  # the last history (N, L) and profile (N, D)
    known: Known = field(default_factory=dict)

    def follow(self, obs: Obs, ended: Tensor | None = None) -> Known:
        """The state at this observation, (N, ...) each; ``ended`` as in ``Reader``."""
        assert obs.history is not None and obs.signals is not None
        history, profile = obs.history, obs.context[:, self.interface.place_of("profile")]
        if self.last is None:
            self.known = self._from_start(obs, self.numbers)
        else:
            before, user = self.last
            same = (profile == user).all(1)  # (N,)
            moved = (history != before).any(1)  # (N,)
            added = same & moved & (history[:, :-1] == before[:, 1:]).all(1) & (history[:, -1] >= 0)
            again = ~same | (moved & ~added)
            if ended is not None:
                added, again = torch.zeros_like(ended), ended
            if bool(added.any()):
                after = self._step(self.known, history[:, -1], obs.signals[:, -1], self.numbers)
                self.known = chosen(added, after, self.known)
            other = again.nonzero().squeeze(1)  # (R,)
            if len(other):
                numbers = {
                    name: values[other] if values.ndim else values for name, values in self.numbers.items()
                }
                fresh = self._from_start(obs.rows(other), numbers)
                self.known = {
                    name: values.index_copy(0, other, fresh[name]) for name, values in self.known.items()
                }
        self.last = history, profile
        return self.known

    def _from_start(self, obs: Obs, numbers: Mapping[str, Tensor]) -> Known:
        assert obs.history is not None and obs.signals is not None
        known = self.walk.begin(self.user_model, self.interface, obs)
        there = obs.history >= 0  # (N, L): padding comes first
        for index in range(int((~there.any(0)).sum()), there.shape[1]):
            items, signals = obs.history[:, index], obs.signals[:, index]
            known = chosen(there[:, index], self._step(known, items, signals, numbers), known)
        return known

    def _step(self, known: Known, items: Tensor, signals: Tensor, numbers: Mapping[str, Tensor]) -> Known:
        return self.walk.step(self.user_model, known, items.clamp_min(0), signals, numbers)


def chosen(where: Tensor, first: Known, second: Known) -> Known:
    """The rows of ``first`` where ``where`` (N,) is True, and of ``second`` elsewhere."""
    if bool(where.all()):
        return first
    return {
        name: torch.where(where.view(-1, *[1] * (values.ndim - 1)), first[name], values)
        for name, values in second.items()
    }

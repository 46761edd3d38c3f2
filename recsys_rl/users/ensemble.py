"""Several networks of users as one: each session is played in one of them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from recsys_rl.users.network import UserNetwork
from recsys_rl.users.signals import SignalOutputs

SHARED = ("user", "more", "pieces", "steps")
"""Parts of a memory that are the same for all networks."""


class UserEnsemble:
    """The ResponseNetwork (protocols.py) of E fitted networks, which are never changed here."""

    def __init__(self, members: Sequence[UserNetwork]) -> None:
        self.members = tuple(members)

    @property
    def num_members(self) -> int:
        """E"""
        return len(self.members)

    def to(self, device: torch.device) -> UserEnsemble:
        """The ensemble on ``device``; networks that are elsewhere are copied."""
        if self.members[0].vectors.device == device:
            return self
        return UserEnsemble([copy.deepcopy(member).to(device) for member in self.members])

    @torch.no_grad()
    def begin(self, given: Mapping[str, Tensor], number: int) -> dict[str, Tensor]:
        return self._joined([member.begin(given, number) for member in self.members])

    @torch.no_grad()
    def expected(self, memory: Mapping[str, Tensor], items: Tensor, member: Tensor) -> Tensor:
        found = memory["user"].new_zeros(*items.shape, len(self.members[0].kinds.binary))
        for place, rows in self._rows_of(member):
            mean = self.members[place].respond(self._of(memory, place, rows), items[rows]).expected()
            share = torch.where(member[rows] < 0, 1 / self.num_members, 1.0)  # (R,)
            found[rows] += share.view(-1, 1, 1) * mean
        return found

    @torch.no_grad()
    def drawn(self, memory: Mapping[str, Tensor], items: Tensor, member: Tensor, chance: Tensor) -> Tensor:
        kinds = self.members[0].kinds
        found = chance.new_empty(*items.shape, kinds.num_outputs)
        for place, rows in self._rows_of(member):
            outputs = self.members[place].respond(self._of(memory, place, rows), items[rows]).outputs
            found.index_copy_(0, rows, outputs)
        return SignalOutputs(kinds, found).at(chance)

    @torch.no_grad()
    def after(
        self,
        memory: Mapping[str, Tensor],
        items: Tensor,
        shown: Tensor,
        signals: Tensor,
        member: Tensor,
    ) -> tuple[dict[str, Tensor], Tensor]:
        found = {name: x.clone() for name, x in memory.items() if name not in SHARED}
        leaves = memory["steps"].new_zeros(len(items), self.num_members)  # (N, E)
        for place, rows in self._rows_of(member):
            before = self._of(memory, place, rows)
            later, logit = self.members[place].after(before, items[rows], shown[rows], signals[rows])
            for name, x in found.items():
                x[:, place].index_copy_(0, rows, later[name])
            leaves[rows, place] = logit.sigmoid()
        return {**memory, **found, "steps": memory["steps"] + 1}, leaves * self._varies(leaves)

    def _rows_of(self, member: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Each network that has rows, with these rows (R,): its own and those of all networks."""
        for place in range(self.num_members):
            rows = ((member == place) | (member < 0)).nonzero().squeeze(1)
            if len(rows):
                yield place, rows

    def _varies(self, like: Tensor) -> Tensor:
        """1 if users of the log left, else 0: then nobody leaves."""
        return like.new_tensor(float(self.members[0].kinds.leave_weight > 0))

    def _of(self, memory: Mapping[str, Tensor], place: int, rows: Tensor) -> dict[str, Tensor]:
        """The memory of one network, of ``rows`` (R,)."""
        found = {name: x if name in SHARED else x[:, place] for name, x in memory.items()}
        return {name: x.index_select(0, rows) for name, x in found.items()}

    def _joined(self, parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        return {
            name: x if name in SHARED else torch.stack([part[name] for part in parts], 1)
            for name, x in parts[0].items()
        }

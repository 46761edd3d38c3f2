"""Several networks of users as one: each session is played in one of them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from recsys_rl.logs.users.network import UserNetwork
from recsys_rl.logs.users.signals import SignalOutputs

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
        means = memory["user"].new_zeros(*items.shape, len(self.members[0].kinds.binary))
        for number, rows in self._rows_of(member):
            mean = self.members[number].respond(self._of(memory, number, rows), items[rows]).expected()
            share = torch.where(member[rows] < 0, 1 / self.num_members, 1.0)  # (R,)
            means[rows] += share.view(-1, 1, 1) * mean
        return means

    @torch.no_grad()
    def drawn(self, memory: Mapping[str, Tensor], items: Tensor, member: Tensor, chance: Tensor) -> Tensor:
        kinds = self.members[0].kinds
        joined = chance.new_empty(*items.shape, kinds.num_outputs)
        for number, rows in self._rows_of(member):
            outputs = self.members[number].respond(self._of(memory, number, rows), items[rows]).outputs
            joined.index_copy_(0, rows, outputs)
        return SignalOutputs(kinds, joined).at(chance)

    @torch.no_grad()
    def after(
        self,
        memory: Mapping[str, Tensor],
        items: Tensor,
        shown: Tensor,
        signals: Tensor,
        member: Tensor,
    ) -> tuple[dict[str, Tensor], Tensor]:
        copies = {name: tensor.clone() for name, tensor in memory.items() if name not in SHARED}
        leaves = memory["steps"].new_zeros(len(items), self.num_members)  # (N, E)
        for number, rows in self._rows_of(member):
            before = self._of(memory, number, rows)
            later, logit = self.members[number].after(before, items[rows], shown[rows], signals[rows])
            for name, tensor in copies.items():
                tensor[:, number].index_copy_(0, rows, later[name])
            leaves[rows, number] = logit.sigmoid()
        return {**memory, **copies, "steps": memory["steps"] + 1}, leaves * self._varies(leaves)

    def _rows_of(self, member: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Each network that has rows, with these rows (R,): its own and those of all networks."""
        for number in range(self.num_members):
            rows = ((member == number) | (member < 0)).nonzero().squeeze(1)
            if len(rows):
                yield number, rows

    def _varies(self, like: Tensor) -> Tensor:
        """1 if users of the log left, else 0: then nobody leaves."""
        return like.new_tensor(float(self.members[0].kinds.leave_weight > 0))

    def _of(self, memory: Mapping[str, Tensor], number: int, rows: Tensor) -> dict[str, Tensor]:
        """The memory of one network, of ``rows`` (R,)."""
        own = {name: tensor if name in SHARED else tensor[:, number] for name, tensor in memory.items()}
        return {name: tensor.index_select(0, rows) for name, tensor in own.items()}

    def _joined(self, parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        return {
            name: tensor if name in SHARED else torch.stack([piece[name] for piece in parts], 1)
            for name, tensor in parts[0].items()
        }

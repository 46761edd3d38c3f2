"""Several networks of users as one: each session is played in one of them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from recsys_rl.models.user_network import UserNetwork

SHARED = ("user", "more", "steps")
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
        everybody = (member < 0).nonzero().squeeze(1)
        for place, network in enumerate(self.members):
            mine = (member == place).nonzero().squeeze(1)
            for rows, share in ((mine, 1.0), (everybody, 1 / self.num_members)):
                if len(rows):
                    part = {name: x[rows] for name, x in self._of(memory, place).items()}
                    found[rows] += share * network.respond(part, items[rows]).expected()
        return found

    @torch.no_grad()
    def drawn(
        self, memory: Mapping[str, Tensor], items: Tensor, member: Tensor, chance: Tensor
    ) -> tuple[Tensor, Tensor]:
        outputs = [x.respond(self._of(memory, place), items) for place, x in enumerate(self.members)]
        draws = torch.stack([x.at(chance) for x in outputs])  # (E, N, K, S)
        own = draws[member.clamp_min(0), torch.arange(len(member), device=member.device)]
        found = torch.where((member < 0).view(-1, 1, 1), draws.mean(0), own)
        return found, torch.stack([x.expected() for x in outputs])

    @torch.no_grad()
    def after(
        self, memory: Mapping[str, Tensor], items: Tensor, shown: Tensor, signals: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        parts = [
            member.after(self._of(memory, place), items, shown, signals)
            for place, member in enumerate(self.members)
        ]
        leaves = torch.stack([logit.sigmoid() for _, logit in parts], 1)  # (N, E)
        return self._joined([found for found, _ in parts]), leaves * self._varies(leaves)

    @torch.no_grad()
    def means(self, memory: Mapping[str, Tensor], items: Tensor) -> Tensor:
        """(E, N, K, S): the mean of each signal by each network."""
        return torch.stack(
            [
                member.respond(self._of(memory, place), items).expected()
                for place, member in enumerate(self.members)
            ]
        )

    def _varies(self, like: Tensor) -> Tensor:
        """1 if users of the log left, else 0: then nobody leaves."""
        return like.new_tensor(float(self.members[0].kinds.leave_weight > 0))

    def _of(self, memory: Mapping[str, Tensor], place: int) -> dict[str, Tensor]:
        """The memory of one network."""
        return {name: x if name in SHARED else x[:, place] for name, x in memory.items()}

    def _joined(self, parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        return {
            name: x if name in SHARED else torch.stack([part[name] for part in parts], 1)
            for name, x in parts[0].items()
        }

"""Fit an ensemble of networks of users to the sessions of a log, one network after another.

The members of the ensemble differ in their first weights and in the order of the sessions (Lakshminarayanan,
Pritzel and Blundell 2017, "Simple and scalable predictive uncertainty estimation using deep ensembles").
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor, nn

from recsys_rl.logs.users.network import UserNetwork
from recsys_rl.logs.users.session_table import SessionTable
from recsys_rl.types import UserError

LEAST_STEPS = 400  # of the optimiser for each member, for small logs
AT_ONCE = 2**16  # steps of sessions, with padding, that pass a network together after the fit
PATIENCE = 80
"""Steps of the optimiser without a better epoch, and 5 epochs at least, after which a member is done."""


@dataclass(frozen=True)
class FitSizes:
    """The length of the fit of each member."""

    epochs: int = 10  # at least, see LEAST_STEPS
    rows: int = 1280  # steps of a gradient step, counted as if all sessions were of full length
    lr: float = 4e-3  # of Adam at first; it falls linearly to a hundredth


class UserFitting:
    """The members, fitted in turn. After each ``epoch`` the state can be saved, and the fit goes on from it.

    A member keeps the weights of the epoch with the least loss on the sessions ``checked``. The start counts
    as an epoch: where a log shows nothing, its means are kept. A small log is soon learned, and then left
    (PATIENCE).
    """

    def __init__(
        self,
        members: Sequence[UserNetwork],
        fitted: SessionTable,
        checked: SessionTable,
        sizes: FitSizes,
        generator: torch.Generator,
        columns: Sequence[Tensor] = (),
        fold: Tensor | None = None,
    ) -> None:
        """Begin with the first member.

        Args:
            generator: draws the order of the sessions, and is a part of the state.
            columns: (I, X) each, in place of the members' columns of items: those from which the sessions
                of each fold learn (item_means.py).
            fold: (G,) int64, the fold of each session; needed with ``columns``.
        """
        self.members, self.fitted, self.checked = members, fitted, checked
        self.sizes, self.generator = sizes, generator
        self.columns, self.of_all = tuple(columns), members[0].columns
        self.fold = torch.zeros(fitted.num_sessions, dtype=torch.int64) if fold is None else fold
        self.batch = max(1, sizes.rows // max(1, fitted.items.shape[1]))  # sessions
        self.batches = int((-(-torch.bincount(self.fold) // self.batch)).sum())  # of an epoch
        self.of_member = max(sizes.epochs, -(-LEAST_STEPS // self.batches))  # epochs
        self.patience = max(5, -(-PATIENCE // self.batches))  # epochs
        self.member, self.done = 0, 0  # the member that is fitted, and its epochs
        self.waited = 0  # epochs since its best one
        self.best, self.best_weights = self.checked_loss(members[0]), _weights(members[0])
        self.optimizer = torch.optim.Adam(members[0].parameters(), sizes.lr)

    @property
    def total(self) -> int:
        """Epochs of all members."""
        return len(self.members) * self.of_member

    @property
    def epochs(self) -> int:
        """Epochs so far."""
        return self.member * self.of_member + self.done

    @property
    def finished(self) -> bool:
        return self.member == len(self.members)

    def epoch(self) -> float:
        """One epoch of the present member; its loss on the checked sessions.

        Raises UserError if the loss is not finite: no later epoch could mend the weights.
        """
        member, steps = self.members[self.member], self.of_member * self.batches
        for number, (fold, rows) in enumerate(self._batches()):
            if self.columns:
                member.columns = self.columns[fold]
            done = (self.done * self.batches + number) / steps
            for group in self.optimizer.param_groups:
                group["lr"] = self.sizes.lr * (1 - 0.99 * done)
            loss = loss_of(member, self.fitted.rows(rows))
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(member.parameters(), 1.0)
            self.optimizer.step()
        self.done += 1
        member.columns = self.of_all
        checked = self.checked_loss(member)
        if not math.isfinite(checked):
            raise UserError(
                f"The fit of network {self.member + 1} failed in its epoch {self.done}, as the loss became "
                f"{checked}: look for extreme signals in the log and clip them, or fit with another seed."
            )
        self.waited += 1
        if checked < self.best:
            self.best, self.best_weights, self.waited = checked, _weights(member), 0
        if self.done == self.of_member or self.waited == self.patience:
            member.load_state_dict(self.best_weights)
            self._next()
        return checked

    def _batches(self) -> list[tuple[int, Tensor]]:
        """The sessions (B,) of each batch of an epoch, all of one fold, and the fold."""
        order = torch.randperm(self.fitted.num_sessions, generator=self.generator)
        batches = [
            (fold, rows)
            for fold in range(int(self.fold.max()) + 1)
            for rows in order[self.fold[order] == fold].split(self.batch)
        ]
        if len(self.columns) < 2:
            return batches
        return [batches[at] for at in torch.randperm(len(batches), generator=self.generator).tolist()]

    @torch.no_grad()
    def checked_loss(self, member: UserNetwork) -> float:
        """The mean loss of the checked sessions."""
        total, parts = 0.0, torch.arange(self.checked.num_sessions).split(self.batch)
        for rows in parts:
            total += float(loss_of(member, self.checked.rows(rows))) * len(rows)
        return total / self.checked.num_sessions

    def _next(self) -> None:
        self.member, self.done, self.waited = self.member + 1, 0, 0
        if not self.finished:
            member = self.members[self.member]
            self.best, self.best_weights = self.checked_loss(member), _weights(member)
            self.optimizer = torch.optim.Adam(member.parameters(), self.sizes.lr)

    def state_dict(self) -> dict[str, Tensor]:
        """The state that a resumed fit needs, beside the weights of the members."""
        tensors = {
            "member": torch.tensor(self.member),
            "done": torch.tensor(self.done),
            "waited": torch.tensor(self.waited),
            "best": torch.tensor(self.best, dtype=torch.float64),
            "generator": self.generator.get_state(),
        }
        tensors |= {f"kept.{name}": tensor for name, tensor in self.best_weights.items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{index}.{name}": tensor for name, tensor in state.items()}
        return tensors

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of ``state_dict``.

        Raises KeyError, RuntimeError, TypeError or ValueError if it doesn't fit.
        """
        self.member, self.done = int(state["member"]), int(state["done"])
        if not 0 <= self.member <= len(self.members) or not 0 <= self.done < self.of_member:
            raise ValueError("the epochs of a fit")
        if not all(bool(tensor.isfinite().all()) for tensor in state.values()):
            raise ValueError("the numbers of a fit")
        self.best, self.waited = float(state["best"]), int(state["waited"])
        self.generator.set_state(state["generator"])
        self.best_weights = {
            n.removeprefix("kept."): tensor for n, tensor in state.items() if n.startswith("kept.")
        }
        if self.finished:
            return
        member = self.members[self.member]
        if _shapes(self.best_weights) != _shapes(member.state_dict()):
            raise ValueError("the kept weights of a fit")
        self.optimizer = torch.optim.Adam(member.parameters(), self.sizes.lr)
        of_parameters: dict[int, dict[str, Tensor]] = {}
        for name, tensor in state.items():
            if name.startswith("adam."):
                _, number, what = name.split(".")
                of_parameters.setdefault(int(number), {})[what] = tensor
        for index, parameter in enumerate(member.parameters() if of_parameters else ()):
            shape = (parameter.dtype, tuple(parameter.shape))
            if _shapes(of_parameters[index]) != {
                "step": (torch.float32, ()),
                "exp_avg": shape,
                "exp_avg_sq": shape,
            }:
                raise ValueError("the averages of a fit")
        full_state = self.optimizer.state_dict()
        self.optimizer.load_state_dict({**full_state, "state": of_parameters})


def loss_of(network: UserNetwork, table: SessionTable) -> Tensor:
    """The loss (): the mean over shown places of the weighted losses of all signals, and that of leaving."""
    outputs, leaving = network.of_sessions(table)
    shown, there = table.shown, table.under_way  # (B, T, K), (B, T)
    losses = outputs.loss(table.signals).sum(-1)  # (B, T, K)
    mean_loss = (losses * shown).sum() / shown.sum().clamp_min(1)
    left = table.left_after.float()
    loss = nn.functional.binary_cross_entropy_with_logits(leaving, left, reduction="none")
    return mean_loss + network.kinds.leave_weight * (loss * there).sum() / there.sum()


@torch.no_grad()
def set_means(network: UserNetwork, table: SessionTable) -> None:
    """Shift the intercepts of leaving and of signals with one output until their means are those seen.

    A fit that stops early is far off the mean of seldom signals.
    """
    outputs: list[Tensor] = []
    leaving: list[Tensor] = []
    at_once = max(1, min(256, AT_ONCE // max(1, table.items.shape[1])))
    for rows in torch.arange(table.num_sessions).split(at_once):
        batch = table.rows(rows)
        answers, logits = network.of_sessions(batch)
        outputs.append(torch.cat(answers.parts, -1)[batch.shown])  # (R, O)
        leaving.append(logits[batch.under_way].unsqueeze(1))  # (R', 1)
    kinds, last = network.kinds, (network.body[-1], network.leaving[-1])
    assert isinstance(last[0], nn.Linear) and isinstance(last[1], nn.Linear)
    starts = [0, *accumulate(kinds.output_sizes)]
    places = [index for index, one in enumerate(kinds.binary) if one and kinds.weights[index]]
    at = [starts[index] for index in places]
    last[0].bias[at] += shift(torch.cat(outputs)[:, at], table.signals[table.shown][:, places].mean(0))
    if kinds.leave_weight:
        left = table.left_after[table.under_way].float()
        last[1].bias.add_(shift(torch.cat(leaving), left.mean().view(1)))


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """The type and the shape of each tensor."""
    return {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}


def _weights(network: UserNetwork) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def shift(logits: Tensor, means: Tensor) -> Tensor:
    """(T,) what to add to the logits (E, T) for their sigmoids to have the means (T,); by bisection."""
    low, high = torch.full_like(means, -20.0), torch.full_like(means, 20.0)
    for _ in range(40):
        middle = (low + high) / 2
        above = (logits + middle).sigmoid().mean(0) > means
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return (low + high) / 2

"""A gated recurrent unit over the entries of a history (Cho et al. 2014, arXiv:1406.1078).

The oldest entry of a window can't be taken out of a hidden state. So the state goes on where the window
slides, and remembers what left it. A window read alone gives the same summary up to its length.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recsys_rl.functional import recurrence

INPUT_GAIN = 3.0
"""Gain of the first weights of an entry. Embeddings have length 1: with a gain of 1 the gates hardly move."""


@dataclass(frozen=True)
class Hidden:
    """The state of N users."""

    hidden: Tensor  # (N, H)


class GRU(nn.Module):
    """Reads the entries one after another. The summary is the hidden state, 0 before the first entry."""

    recurrent = True
    entry_weight = ("gru.weight_ih_l0", 1)

    def __init__(self, num_inputs: int, length: int, generator: torch.Generator, size: int = 64) -> None:
        """``num_inputs``: X, numbers of an entry. The unit has the same weights for every length."""
        super().__init__()
        # Made without values, because torch would draw them from the global generator.
        self.gru = nn.GRU(num_inputs, size, device="meta")
        self.gru.to_empty(device="cpu")
        for name, parameter in self.gru.named_parameters():
            if name.startswith("weight"):
                gain = INPUT_GAIN if "ih" in name else 1.0
                nn.init.orthogonal_(parameter, gain, generator=generator)
            else:
                nn.init.zeros_(parameter)
        self.out_features = size

    def start(self, n: int) -> Hidden:
        """The state of ``n`` users before their first entry."""
        return Hidden(next(self.parameters()).new_zeros(n, self.out_features))

    def encode(self, entries: Tensor, shown: Tensor) -> Hidden:
        """The state after the entries (N, L, X) where ``shown`` (N, L); the others stand before them."""
        n, length = shown.shape
        if torch.is_grad_enabled() and entries.device.type == "cpu":
            never = torch.zeros_like(shown).T
            return self.steps(self.start(n), entries.transpose(0, 1), shown.T, never)[0]
        # torch's unit needs a third of the memory, and on an accelerator it is one operation.
        lengths = shown.sum(1)  # (N,)
        # A history begins with padding, and the unit's biases would turn padding into a state. So the
        # padding is moved behind the entries, and the state after the last entry is taken.
        users = torch.arange(n, device=shown.device)
        place = torch.arange(length, device=shown.device).unsqueeze(1)  # (L, 1)
        states: Tensor = self.gru(entries[users, (place - lengths) % length])[0]  # (L, N, H): time first
        return Hidden(torch.where((lengths > 0).unsqueeze(1), states[lengths - 1, users], 0.0))

    def step(self, state: Hidden, entry: Tensor, shown: Tensor | None) -> Hidden:
        """The state after one more entry (N, X) of the users where ``shown`` (N,)."""
        hidden = torch.gru_cell(entry, state.hidden, *self.gru.all_weights[0])
        return Hidden(hidden if shown is None else torch.where(shown.unsqueeze(1), hidden, state.hidden))

    def steps(self, state: Hidden, entries: Tensor, shown: Tensor, empty: Tensor) -> tuple[Hidden, Tensor]:
        """The state after T more entries (T, N, X), and the summaries (T, N, H) after each of them.

        A row takes an entry where ``shown`` (T, N). Its state is 0 after the steps where ``empty`` (T, N).
        """
        weight, across, bias, bias_across = self.gru.all_weights[0]  # (3 H, X), (3 H, H), (3 H,), (3 H,)
        inputs = torch.addmm(bias, entries.flatten(0, 1), weight.T).unflatten(0, shown.shape)  # (T, N, 3 H)
        size = self.out_features
        inputs[..., size : 2 * size].masked_fill_(~shown.unsqueeze(-1), torch.inf)  # no step
        states = recurrence.gru(inputs, state.hidden, across, bias_across, empty)
        return Hidden(states[-1]), states

    def read(self, state: Hidden) -> Tensor:
        """The summary (N, H) of each history."""
        return state.hidden

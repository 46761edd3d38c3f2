"""A causal transformer over the entries of a history (Vaswani et al. 2017, arXiv:1706.03762).

One block, normalised before each part (Xiong et al. 2020, arXiv:2002.04745). For the entry x_j shown k
places before the last one, t, and a head with the learned bias b(k)::

    e_j = x_j E + c        q = norm(e_t) Q        k_j, v_j = norm(e_j) K, norm(e_j) V
    a_j = softmax over j <= t of (q . k_j / sqrt(d) + b(t - j))
    h = e_t + [sum_j a_j v_j of all heads] O        summary = norm(h + relu(norm(h) A) B)

Positions count back from the last entry: the bias b is learned as in T5 (Raffel et al. 2020,
arXiv:1910.10683), and starts as the logarithm of exponential decays (Press et al. 2022, arXiv:2108.12409).
There is one block because a key is then a function of its own entry alone. So cached keys stay right when
the window slides, and only the last place needs a query.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recsys_rl.models.encoders import Linear

DECAYS = (0.25, 0.5, 0.75, 1.0)  # one for each head: first weight of an entry against that of the next one


@dataclass(frozen=True)
class Cache:
    """Keys and values of the last L entries of N users, in a ring: the next entry replaces the oldest one."""

    keys: Tensor  # (N, L, D)
    values: Tensor  # (N, L, D)
    shown: Tensor  # (N, L) bool: slots that hold an entry
    slot: Tensor  # (N,) int64: of the next entry
    last: Tensor  # (N, D): e_t


class Transformer(nn.Module):
    """Attends from the last entry to itself and the earlier ones. Without an entry the summary is 0."""

    slides = True  # a step is right also when the window is full

    def __init__(self, num_inputs: int, length: int, generator: torch.Generator, size: int = 64) -> None:
        """``length``: L, entries of the window. ``num_inputs``: X, numbers of an entry."""
        super().__init__()
        self.out_features, self.length = size, length
        self.embed = Linear(num_inputs, size, 1.0, generator)
        self.query = Linear(size, size, 1.0, generator)
        self.keys_values = nn.ModuleList(Linear(size, size, 1.0, generator) for _ in range(2))
        self.attended = Linear(size, size, 1.0, generator)
        self.widen = Linear(size, 2 * size, 2**0.5, generator)
        self.narrow = Linear(2 * size, size, 1.0, generator)
        self.norms = nn.ModuleList(nn.LayerNorm(size) for _ in range(3))  # before, between, after
        age = torch.arange(length, dtype=torch.float32)
        self.bias = nn.Parameter(torch.tensor(DECAYS).log().unsqueeze(1) * age)  # (heads, L), by age

    def start(self, n: int) -> Cache:
        """The state of ``n`` users before their first entry."""
        zeros = self.bias.new_zeros
        empty = torch.zeros(n, self.length, dtype=torch.bool, device=self.bias.device)
        keys, values = (zeros(n, self.length, self.out_features) for _ in range(2))
        return Cache(keys, values, empty, empty.new_zeros(n, dtype=torch.int64), zeros(n, self.out_features))

    def encode(self, entries: Tensor, shown: Tensor) -> Cache:
        """The state after the entries (N, L, X) where ``shown`` (N, L); the others stand before them."""
        n, length = shown.shape
        embedded = self.embed(entries.flatten(0, 1))  # (N L, D)
        keys, values = self._keys_values(embedded)
        last = embedded.unflatten(0, (n, length))[:, -1]
        window = (n, length, self.out_features)
        slot = torch.zeros(n, dtype=torch.int64, device=last.device)  # The first place is the oldest.
        return Cache(keys.view(window), values.view(window), shown, slot, last)

    def step(self, state: Cache, entry: Tensor, shown: Tensor) -> Cache:
        """The state after one more entry (N, X) of the users where ``shown`` (N,). It replaces ``state``."""
        last = self.embed(entry)  # (N, D)
        at = torch.arange(len(entry), device=entry.device), state.slot
        which = shown.unsqueeze(1)
        for old, new in zip((state.keys, state.values), self._keys_values(last), strict=True):
            old[at] = torch.where(which, new, old[at])
        state.shown[at] |= shown
        slot = (state.slot + shown) % self.length
        return Cache(state.keys, state.values, state.shown, slot, torch.where(which, last, state.last))

    def read(self, state: Cache) -> Tensor:
        """The summary (N, D) of each history."""
        before, between, after = self.norms
        n, heads = len(state.last), len(self.bias)
        split = (n, -1, heads, self.out_features // heads)
        query = self.query(before(state.last)).view(split)  # (N, 1, heads, d)
        scores = (query * state.keys.view(split)).sum(-1) / split[-1] ** 0.5  # (N, L, heads)
        age = torch.arange(self.length, device=scores.device) - state.slot.unsqueeze(1)  # (N, L)
        age = (self.length - 1 - age) % self.length  # of the slot before the next one: 0
        scores = scores + self.bias.T[age]
        scores = scores.masked_fill(~state.shown.unsqueeze(-1), torch.finfo(scores.dtype).min)
        weights = scores.softmax(1).unsqueeze(-1)  # (N, L, heads, 1)
        attended = (weights * state.values.view(split)).sum(1).flatten(1)  # (N, D)
        hidden = state.last + self.attended(attended)
        hidden = after(hidden + self.narrow(self.widen(between(hidden)).relu()))
        return torch.where(state.shown.any(1, keepdim=True), hidden, 0.0)

    def _keys_values(self, embedded: Tensor) -> tuple[Tensor, Tensor]:
        normed = self.norms[0](embedded)
        keys, values = (linear(normed) for linear in self.keys_values)
        return keys, values

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

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from recsys_rl.models.encoders import Linear

DECAYS = (0.25, 0.5, 0.75, 1.0)  # one for each head: first weight of an entry against that of the next one


@dataclass(frozen=True)
class Cache:
    """Keys and values of the last L entries of N users, in a ring: the next entry replaces the oldest one."""

    keys: Tensor  # (N, L, A): of all heads
    values: Tensor  # (N, L, A)
    empty: Tensor  # (N, L) bool: slots without an entry
    slot: Tensor  # (N,) int64: of the next entry
    last: Tensor  # (N, D): e_t
    query: Tensor  # (N, A): of the last entry


class Transformer(nn.Module):
    """Attends from the last entry to itself and the earlier ones. Without an entry the summary is 0."""

    parts: Tensor  # (heads, A): 1 where a number belongs to the head
    products, reads_profile, expects_signals = True, False, True
    profile: slice | None = None

    def __init__(self, num_inputs: int, length: int, generator: torch.Generator, size: int = 64) -> None:
        """``length``: L, entries of the window. ``num_inputs``: X, numbers of an entry."""
        super().__init__()
        self.out_features, self.length = size, length
        inner = size // 2  # A: half as wide, as acting reads all cached keys and values at each step
        self.embed = Linear(num_inputs, size, 1.0, generator)
        self.query, self.key, self.value = (Linear(size, inner, 1.0, generator) for _ in range(3))
        self.attended = Linear(inner, size, 1.0, generator)
        self.widen = Linear(size, 2 * size, 2**0.5, generator)
        self.narrow = Linear(2 * size, size, 1.0, generator)
        self.norms = nn.ModuleList(nn.LayerNorm(size) for _ in range(3))  # before, between, after
        age = torch.arange(length, dtype=torch.float32)
        self.bias = nn.Parameter(torch.tensor(DECAYS).log().unsqueeze(1) * age)  # (heads, L), by age
        parts = torch.eye(len(DECAYS)).repeat_interleave(inner // len(DECAYS), 1)
        self.register_buffer("parts", parts, persistent=False)

    def start(self, n: int) -> Cache:
        """The state of ``n`` users before their first entry."""
        zeros, inner = self.bias.new_zeros, self.parts.shape[1]
        return Cache(
            keys=zeros(n, self.length, inner),
            values=zeros(n, self.length, inner),
            empty=self.bias.new_ones(n, self.length, dtype=torch.bool),
            slot=zeros(n, dtype=torch.int64),
            last=zeros(n, self.out_features),
            query=zeros(n, inner),
        )

    def encode(self, entries: Tensor, shown: Tensor) -> Cache:
        """The state after the entries (N, L, X) where ``shown`` (N, L); the others stand before them."""
        n, length = shown.shape
        normed = self.norms[0](self.embed(entries.flatten(0, 1)))  # (N L, D)
        keys, values = (of(normed).unflatten(0, (n, length)) for of in (self.key, self.value))  # (N, L, A)
        # The last entries once more: backwards, a slice of all rows would first fill all of them with zeros.
        last = self.embed(entries[:, -1])  # (N, D)
        slot = torch.zeros(n, dtype=torch.int64, device=shown.device)  # The first place is the oldest.
        return Cache(keys, values, ~shown, slot, last, self.query(self.norms[0](last)))

    def step(self, state: Cache, entry: Tensor, shown: Tensor | None) -> Cache:
        """The state after one more entry (N, X) of the users where ``shown`` (N,). It replaces ``state``."""
        last = self.embed(entry)  # (N, D)
        at = torch.arange(len(entry), device=entry.device), state.slot
        normed = self.norms[0](last)
        query, key, value = self.query(normed), self.key(normed), self.value(normed)
        empty, moved = torch.zeros_like(state.slot) > 0, torch.ones_like(state.slot)
        if shown is not None:
            which = shown.unsqueeze(1)
            key, value = torch.where(which, key, state.keys[at]), torch.where(which, value, state.values[at])
            last, query = torch.where(which, last, state.last), torch.where(which, query, state.query)
            empty, moved = state.empty[at] & ~shown, shown.long()
        state.keys[at], state.values[at], state.empty[at] = key, value, empty
        return replace(state, slot=(state.slot + moved) % self.length, last=last, query=query)

    def read(self, state: Cache) -> Tensor:
        """The summary (N, D) of each history."""
        # Each head's query stands in its own part of a vector of size A, with 0 elsewhere. Then all heads are
        # one product with the keys as they lie in memory.
        queries = state.query.unsqueeze(1) * self.parts  # (N, heads, A)
        scale = (len(self.parts) / self.parts.shape[1]) ** 0.5  # 1 / sqrt(d)
        scores = torch.baddbmm(self._biases(state.slot), queries, state.keys.mT, alpha=scale)  # (N, heads, L)
        scores = scores.masked_fill(state.empty.unsqueeze(1), torch.finfo(scores.dtype).min)
        attended = ((scores.softmax(-1) @ state.values) * self.parts).sum(1)  # (N, A)
        hidden = state.last + self.attended(attended)
        hidden = self.norms[2](hidden + self.narrow(self.widen(self.norms[1](hidden)).relu()))
        return torch.where(state.empty.all(1, keepdim=True), 0.0, hidden)

    def _biases(self, slot: Tensor) -> Tensor:
        """The biases of the slots (N, heads, L), where ``slot`` (N,) takes the next entry.

        The slot before it has age 0, the one before that age 1, and so on around the ring.
        """
        ages = self.bias.flip(1)  # (heads, L): of the slots if the next entry comes to slot 0
        turned = torch.cat([ages, ages], 1).unfold(1, self.length, 1)  # (heads, L + 1, L): by the way turned
        return turned.transpose(0, 1).index_select(0, self.length - slot)

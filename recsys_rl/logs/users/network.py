"""A network that predicts a user's responses from generic features, without the form of a simulator.

Let e_i be a vector of item i (its embedding, its genres), u the user's embedding, and y_s the signals of the
items shown at step s. For each memory j, with a learned decay d_j and learned weights a_j::

    M_j(t) = sum_{s < t} d_j^(t-1-s) (1 + a_j . y_s) e_s      the items of the session
    x_i(t) = [attributes of the item and a small network of them, u . e_i, A u * B e_i, M_j(t) . e_i,
              columns of the item for the user, clock, other context]
    h_p(t) = sum_{s < t} k_p^(t-1-s) f_p(x_s, y_s)            what the session has done to the user
    signals of item i at step t   ~ g(x_i(t), h(t))
    user leaves after step t      ~ l(h(t + 1), clock)

f, g and l are small networks; the decays k_p are learned as well. On a slate x and the signals are those of
each place, and sums over s run over the places that were shown. A number of the whole step, such as its
reward, has the mean of g over these places, and is none of the y_s (SignalKinds.of_step).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recsys_rl.logs.users.session_table import SessionTable
from recsys_rl.logs.users.signals import SignalKinds, SignalOutputs
from recsys_rl.user_columns import UserColumns

Memory = Mapping[str, Tensor]
"""A network's state of N sessions: user (N, D), more (N, F), sums (N, J, V), state (N, P), steps (N,).

With columns of the items for each user also their pieces (N, A).
"""

DECAYS = (0.6, 0.9, 0.98)
"""First values of the learned decays d_j."""
CHUNK = 128  # steps whose decayed sums are made at once
ATTRIBUTES, RANK, EVENT, STATES = 8, 8, 32, 16
HIDDEN = (64, 64)


@dataclass(frozen=True)
class ItemTables:
    """Numbers of the I items; a network holds none of them among its weights."""

    vectors: tuple[Tensor, ...]  # (I, V_v) each; the first are the embeddings
    columns: Tensor  # (I, X): attributes

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(table.shape[1] for table in self.vectors)


@dataclass(frozen=True)
class ContextSizes:
    """The pieces of the context that no session derives."""

    user: str  # the piece that is the user's embedding; "" if none has the size of the items' embeddings
    more: tuple[tuple[str, int], ...]  # the other pieces and their sizes
    session_length: int  # T: the clock is the share of these steps
    pieces: tuple[str, ...] = ()  # further pieces, which give columns of the items for each user
    columns: UserColumns | None = None  # these columns, by the pieces side by side


class UserNetwork(nn.Module):
    """One member of an ensemble of learned users."""

    def __init__(
        self, items: ItemTables, context: ContextSizes, kinds: SignalKinds, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.sizes = items.sizes
        self.context, self.kinds, self.user_columns = context, kinds, context.columns
        signals, dim, columns = len(kinds.binary), items.sizes[0], items.columns.shape[1]
        self.vectors: Tensor
        self.columns: Tensor
        self.register_buffer("vectors", torch.cat(items.vectors, 1), persistent=False)  # (I, V)
        self.register_buffer("columns", items.columns, persistent=False)  # (I, X)
        of_step = kinds.of_step or (False,) * signals
        sizes = torch.tensor(kinds.output_sizes)
        self.read: Tensor  # (S,) 0 or 1: a later step reads the signal
        self.joint: Tensor  # (O,) bool: the output is of the whole step
        self.register_buffer("read", 1 - torch.tensor(of_step).float(), persistent=False)
        self.register_buffer("joint", torch.tensor(of_step).repeat_interleave(sizes), persistent=False)
        self.decay_logits = nn.Parameter(torch.tensor(DECAYS).logit())
        self.signal_weights = nn.Parameter(torch.zeros(len(DECAYS), signals))  # (J, S)
        self.attributes = nn.Sequential(_linear(columns, ATTRIBUTES, generator), nn.ReLU())
        self.of_user = _linear(dim, RANK, generator) if context.user else None
        self.of_item = _linear(dim + columns, RANK, generator)
        overlaps = len(DECAYS) * len(items.vectors)
        more = sum(size for _, size in context.more) + 1
        features = columns + ATTRIBUTES + RANK + overlaps + len(context.pieces) + more + (context.user != "")
        self.event = nn.Sequential(
            _linear(features + signals, EVENT, generator), nn.ReLU(), _linear(EVENT, STATES, generator)
        )
        self.state_logits = nn.Parameter(torch.linspace(0.0, 6.0, STATES))
        first, second = HIDDEN
        self.body = nn.Sequential(
            _linear(features + STATES, first, generator),
            nn.ReLU(),
            _linear(first, second, generator),
            nn.ReLU(),
            _linear(second, kinds.num_outputs, generator),
        )
        self.leaving = nn.Sequential(
            _linear(STATES + more, EVENT, generator), nn.ReLU(), _linear(EVENT, 1, generator)
        )
        # A new network predicts what the log shows of all items and users.
        for last, start in ((self.body[-1], kinds.start), (self.leaving[-1], (kinds.leave_start,))):
            assert isinstance(last, nn.Linear)
            nn.init.zeros_(last.weight)
            with torch.no_grad():
                last.bias.copy_(torch.tensor(start))

    @property
    def decays(self) -> Tensor:
        """(J,): the decays of the memories."""
        return self.decay_logits.sigmoid()

    @property
    def state_decays(self) -> Tensor:
        """(P,)"""
        return self.state_logits.sigmoid()

    def begin(self, given: Mapping[str, Tensor], number: int) -> dict[str, Tensor]:
        """The memory of ``number`` N users at the start of a session, from pieces (N, size) of their context.

        A platform may give no pieces, so that these don't tell the number.
        """
        n, like = number, self.vectors
        more = [given[name] for name, _ in self.context.more]
        pieces = [given[name] for name in self.context.pieces]
        return {
            **({"pieces": torch.cat(pieces, 1)} if pieces else {}),
            "user": given[self.context.user] if self.context.user else like.new_zeros(n, self.sizes[0]),
            "more": torch.cat([like.new_zeros(n, 0), *more], 1),
            "sums": like.new_zeros(n, len(self.decays), like.shape[1]),
            "state": like.new_zeros(n, STATES),
            "steps": like.new_zeros(n),
        }

    def respond(self, memory: Memory, items: Tensor, shown: Tensor | None = None) -> SignalOutputs:
        """The distributions of the signals (N, K, S) of ``items`` (N, K), shown now.

        ``shown`` (N, K) bool: the places that are; None: all.
        """
        features = self._features(memory, items)  # (N, K, F)
        return SignalOutputs(self.kinds, self._outputs(features, self._scaled(memory["state"]), shown))

    def after(
        self, memory: Memory, items: Tensor, shown: Tensor, signals: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The memory after a step with ``items``, ``shown`` (N, K) and ``signals`` (N, K, S).

        Returns also the logit (N,) of leaving then.
        """
        unit = self._unit(signals)
        done = self._done(memory, items, shown, unit)  # (N, P)
        sums = self.decays.unsqueeze(1) * memory["sums"] + self._entries(items, shown, unit)
        later = {
            **memory,
            "sums": sums,
            "state": self.state_decays * memory["state"] + done,
            "steps": memory["steps"] + 1,
        }
        return later, self._leaving(later)

    def of_sessions(self, table: SessionTable) -> tuple[SignalOutputs, Tensor]:
        """The distributions of the signals (B, T, K, S), and the logits (B, T) of leaving after each step.

        It is what ``begin``, ``respond`` and ``after`` give step by step, all steps at once.
        """
        b, t, _ = table.items.shape
        rows = table.under_way.flatten().nonzero().squeeze(1)  # (R,) of B T: padding passes no network
        shown, items = table.shown.flatten(0, 1), table.items.clamp_min(0).flatten(0, 1)  # (B T, K)
        unit = self._unit(table.signals.flatten(0, 1))  # (B T, K, S)
        overlaps = self._overlaps(table.items.clamp_min(0), self._weights(shown, unit).unflatten(0, (b, t)))
        shown, items, unit = shown[rows], items[rows], unit[rows]
        start, session, step = self.begin(table.given, b), rows // t, (rows % t).to(self.vectors.dtype)
        memory = {"user": start["user"][session], "more": start["more"][session], "steps": step}
        pairs = None
        if self.user_columns is not None:
            flat = table.items.clamp_min(0).flatten(1)  # (B, T K)
            pairs = self._pairs(start["pieces"], flat).view(b * t, -1, len(self.context.pieces))[rows]
        features = self._features(memory, items, overlaps.flatten(0, 1)[rows], pairs)  # (R, K, F)
        done = self._padded(self._done(memory, items, shown, unit, features), rows, b, t)  # (B, T, P)
        states = decayed(done, self.state_decays)  # (B, T + 1, P)
        before, after = (self._scaled(state.flatten(0, 1)[rows]) for state in (states[:, :-1], states[:, 1:]))
        outputs = self._padded(self._outputs(features, before, shown), rows, b, t)  # (B, T, K, O)
        leaving = self.leaving(torch.cat([after, self._context({**memory, "steps": step + 1})], 1)).squeeze(1)
        return SignalOutputs(self.kinds, outputs), self._padded(leaving, rows, b, t)

    @staticmethod
    def _padded(values: Tensor, rows: Tensor, sessions: int, steps: int) -> Tensor:
        """(B, T, ...): the ``values`` (R, ...) at ``rows`` (R,) of B T, 0 elsewhere."""
        padded = values.new_zeros(sessions * steps, *values.shape[1:]).index_copy(0, rows, values)
        return padded.view(sessions, steps, *values.shape[1:])

    def _overlaps(self, items: Tensor, weights: Tensor) -> Tensor:
        """(B, T, K, V' J): the products of each item (B, T, K) with the memories before its step, scaled.

        ``weights`` (B, T, K, J): what each item counts in each memory.
        """
        if items.shape[2] == 1 and items.shape[1] <= self.vectors.shape[1]:
            return self._sums_of_products(items.squeeze(2), weights.squeeze(2)).unsqueeze(2)
        vectors = self.vectors[items]  # (B, T, K, V)
        entries = torch.einsum("btkj,btkv->btjv", weights, vectors)
        return self._products(vectors, decayed(entries, self.decays)[:, :-1])

    def _sums_of_products(self, items: Tensor, weights: Tensor) -> Tensor:
        """(B, T, V' J): the same for single items (B, T) and ``weights`` (B, T, J), without the memories.

        A product with a sum is the sum of products: T numbers for each step in place of V.
        """
        steps = torch.arange(items.shape[1], device=items.device)
        age = steps.unsqueeze(1) - 1 - steps  # (T, T)
        decays = self.decays.view(-1, 1, 1)
        kernel = self._norm(decays) * decays ** age.clamp_min(0) * (age >= 0)  # (J, T, T)
        counts = weights.transpose(1, 2).unsqueeze(3)  # (B, J, T, 1)
        sums = []
        for vectors in self.vectors[items].split(self.sizes, 2):  # (B, T, V_v)
            products = (vectors @ vectors.transpose(1, 2)).unsqueeze(1)  # (B, 1, T, T)
            sums.append(((products * kernel) @ counts).squeeze(3).transpose(1, 2))  # (B, T, J)
        return torch.cat(sums, 2)

    def _products(self, vectors: Tensor, sums: Tensor) -> Tensor:
        """(..., K, V' J): products of ``vectors`` (..., K, V) with memories ``sums`` (..., J, V), scaled."""
        sums = self._norm(self.decays).unsqueeze(1) * sums
        pairs = zip(vectors.split(self.sizes, -1), sums.split(self.sizes, -1), strict=True)
        return torch.cat([torch.einsum("...kv,...jv->...kj", x, y) for x, y in pairs], -1)

    def _pairs(self, pieces: Tensor, items: Tensor) -> Tensor:
        """(N, K, F'): the columns of ``items`` (N, K) for users with these ``pieces`` (N, A)."""
        assert self.user_columns is not None
        return torch.stack(self.user_columns.of_items(pieces, items), -1)

    def _features(
        self, memory: Memory, items: Tensor, overlaps: Tensor | None = None, pairs: Tensor | None = None
    ) -> Tensor:
        """x (N, K, F). ``overlaps`` (N, K, V' J): those of the sums in ``memory``; None: they are made.

        ``pairs``: in the same way ``_pairs``, if there are such columns.
        """
        k = items.shape[1]
        columns, vectors = self.columns[items], self.vectors[items]  # (N, K, X), (N, K, V)
        embedding = vectors[..., : self.sizes[0]]
        learned = self.of_item(torch.cat([embedding, columns], -1))  # (N, K, R)
        parts = [columns, self.attributes(columns)]
        if self.of_user is not None:
            user = memory["user"]
            parts += [
                torch.einsum("nkd,nd->nk", embedding, user).unsqueeze(-1),
                learned * self.of_user(user).unsqueeze(1),
            ]
        else:
            parts.append(learned)
        parts.append(self._products(vectors, memory["sums"]) if overlaps is None else overlaps)
        if self.user_columns is not None:
            parts.append(self._pairs(memory["pieces"], items) if pairs is None else pairs)
        parts.append(self._context(memory).unsqueeze(1).expand(-1, k, -1))
        return torch.cat(parts, -1)

    def _outputs(self, features: Tensor, state: Tensor, shown: Tensor | None) -> Tensor:
        """(N, K, O) from x (N, K, F) and the state h (N, P), scaled."""
        places = features.shape[1]
        outputs: Tensor = self.body(torch.cat([features, state.unsqueeze(1).expand(-1, places, -1)], -1))
        if places == 1 or not any(self.kinds.of_step):
            return outputs
        weights = torch.ones_like(outputs[..., :1]) if shown is None else shown.unsqueeze(-1).to(outputs)
        mean = (weights * outputs).sum(1, keepdim=True) / weights.sum(1, keepdim=True).clamp_min(1)
        return torch.where(self.joint, mean, outputs)  # a number of the whole step has one output

    def _context(self, memory: Memory) -> Tensor:
        """(N, F' + 1): the other pieces of the context, and the clock."""
        clock = memory["steps"].unsqueeze(1) / max(1, self.context.session_length)
        return torch.cat([memory["more"], clock], 1)

    def _weights(self, shown: Tensor, unit: Tensor) -> Tensor:
        """(N, K, J): what each item counts in each memory."""
        return (1 + unit @ self.signal_weights.T) * shown.unsqueeze(-1)

    def _entries(self, items: Tensor, shown: Tensor, unit: Tensor) -> Tensor:
        """(N, J, V): what a step adds to each memory."""
        return torch.einsum("nkj,nkv->njv", self._weights(shown, unit), self.vectors[items])

    def _done(
        self, memory: Memory, items: Tensor, shown: Tensor, unit: Tensor, features: Tensor | None = None
    ) -> Tensor:
        """(N, P): what a step adds to the state."""
        inputs = self._features(memory, items) if features is None else features
        done: Tensor = self.event(torch.cat([inputs, unit], -1)) * shown.unsqueeze(-1)
        return done.sum(1)

    def _leaving(self, memory: Memory) -> Tensor:
        logits: Tensor = self.leaving(torch.cat([self._scaled(memory["state"]), self._context(memory)], 1))
        return logits.squeeze(1)

    def _scaled(self, state: Tensor) -> Tensor:
        return self._norm(self.state_decays) * state

    def _norm(self, decays: Tensor) -> Tensor:
        """One over the deviation of a decayed sum of T independent terms of deviation 1."""
        return (1 - decays**2 + 1 / max(1, self.context.session_length)).sqrt()

    def _unit(self, signals: Tensor) -> Tensor:
        """The signals (..., S) in the unit of what was seen, 0 .. 1; 0 where no later step reads them."""
        low = signals.new_tensor(self.kinds.low)
        size = signals.new_tensor(self.kinds.high) - low
        return (signals - low) / torch.where(size > 0, size, 1.0) * self.read


def decayed(entries: Tensor, decays: Tensor) -> Tensor:
    """The sums (B, T + 1, J, ...) before each step and after the last, of ``entries`` (B, T, J, ...).

    ::

        sum_j(t) = sum_{s < t} decays_j^(t - 1 - s) x_j(s)

    Long sessions are taken in chunks of CHUNK steps, each of which begins with the last sums of the one
    before: memory grows with T and not with its square.
    """
    b, t = entries.shape[:2]
    flat = entries.flatten(3) if entries.dim() > 3 else entries.unsqueeze(-1)  # (B, T, J, V)
    steps = torch.arange(min(t, CHUNK) + 1, device=entries.device)
    age = steps.unsqueeze(1) - 1 - steps[:-1]  # (C + 1, C)
    kernel = decays.view(-1, 1, 1) ** age.clamp_min(0) * (age >= 0)  # (J, C + 1, C)
    if t <= CHUNK:
        return torch.einsum("jts,bsjv->btjv", kernel, flat).reshape(b, t + 1, *entries.shape[2:])
    powers = (decays ** steps.unsqueeze(1)).unsqueeze(2)  # (C + 1, J, 1)
    blocks, sums = [], flat.new_zeros(b, 1, *flat.shape[2:])
    for block in flat.split(CHUNK, 1):
        c = block.shape[1]
        begun = powers[: c + 1] * sums[:, -1:]  # what the steps before the chunk are still worth
        sums = begun + torch.einsum("jts,bsjv->btjv", kernel[:, : c + 1, :c], block)  # (B, c + 1, J, V)
        blocks.append(sums[:, :-1])
    return torch.cat([*blocks, sums[:, -1:]], 1).reshape(b, t + 1, *entries.shape[2:])


def _linear(size: int, wide: int, generator: torch.Generator) -> nn.Linear:
    layer = nn.Linear(size, wide)
    bound = math.sqrt(3 / max(1, size))
    nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer

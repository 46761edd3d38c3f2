"""Encoders that read a history in its order, and the state that they keep while acting.

An encoder has two ways to the same summary of a history: ``encode`` reads a whole window, and ``step`` adds
one entry to a state, as acting needs it. On a full window, ``step`` gives the state of the window without its
oldest entry. So a policy gives the same answer while acting, while learning, and to the reader of a log.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from recsys_rl.models.deep_sets import DeepSets
from recsys_rl.models.fast import deep_sets
from recsys_rl.models.features import SplitFeatures, features_of
from recsys_rl.models.transformer import Transformer
from recsys_rl.types import Obs, tree_map

State = Any  # a frozen dataclass of (N, ...) tensors; each encoder has its own


class Encoder(Protocol):
    """Makes a summary of H numbers from entries (X numbers each). The rows of a state are independent.

    ``encode`` takes a window of entries (N, L, X), the last ones real where the mask (N, L) is True. ``step``
    takes one entry of each user (N, X), real where its mask (N,) is True; None: all are. It may write to its
    state.
    """

    out_features: int  # H
    products: bool
    """True if entries hold the products of features and signals."""
    profile: slice | None
    """The columns of the context with the profile, if entries hold its product with the item's embedding."""
    expects_signals: bool
    """True if it also learns to expect the next signals (next_signals.py)."""

    def start(self, n: int) -> State: ...

    def encode(self, entries: Tensor, shown: Tensor) -> State: ...

    def step(self, state: State, entry: Tensor, shown: Tensor | None) -> State: ...

    def read(self, state: State) -> Tensor: ...


ENCODERS: dict[str, type[Transformer] | type[DeepSets]] = {
    "transformer": Transformer,
    "deep-sets": DeepSets,
}
"""Their constructors take X, L and a generator of the first weights."""


def make_encoder(
    name: str,
    num_item_features: int,
    num_signals: int,
    length: int,
    profile: slice | None,
    generator: torch.Generator,
) -> Encoder:
    """The encoder ``name`` for windows of ``length`` entries.

    ``profile``: where the context holds the user's profile; None where it holds none.
    """
    kind = ENCODERS[name]
    with_profile = kind.reads_profile and profile is not None
    inputs = num_inputs(num_item_features, num_signals, kind.products) + with_profile
    encoder = kind(inputs, length, generator)
    encoder.profile = profile if with_profile else None
    return encoder


def num_inputs(num_item_features: int, num_signals: int, products: bool = True) -> int:
    """X: numbers of an entry without a profile."""
    return num_item_features * (1 + num_signals * products) + num_signals


def entries(
    history: Tensor,
    signals: Tensor,
    items: Tensor | SplitFeatures,
    products: bool = True,
    profile: Tensor | None = None,
) -> Tensor:
    """The entries (..., X) of the items ``history`` (...) with their ``signals`` (..., S).

    An entry is the item's features, their ``products`` with each signal, and the signals. What a reaction
    says depends on the item, and a layer can't multiply its inputs. ``profile`` (N, D), with a history
    (N, P), adds the product of the user's and the item's embedding. At padding, -1, stand numbers that no
    encoder may use.
    """
    features = features_of(items, history.clamp_min(0))  # (..., F_i)
    parts = [features]
    if products:
        parts.append((signals.unsqueeze(-1) * features.unsqueeze(-2)).flatten(-2))  # (..., S F_i)
    parts.append(signals)
    if profile is not None:
        parts.append(features[..., : profile.shape[1]] @ profile.unsqueeze(2))
    return torch.cat(parts, -1)


def summarise(encoder: Encoder, obs: Obs, items: Tensor | SplitFeatures) -> Tensor:
    """The summary (N, H) of each history, read as a whole window."""
    assert obs.history is not None and obs.signals is not None
    if isinstance(encoder, DeepSets) and isinstance(items, Tensor):
        profile = None if encoder.profile is None else obs.context[:, encoder.profile]
        layer, window = encoder.layer, (obs.history, obs.signals, items, profile)
        if deep_sets.serves(layer.weight, *window):
            to_stocks, first = encoder.to_stocks
            return encoder.summary(
                *deep_sets.session_units(layer.weight, layer.bias, to_stocks, first, *window)
            )
    return encoder.read(_state(encoder, obs, items))


def _state(encoder: Encoder, obs: Obs, items: Tensor | SplitFeatures) -> State:
    assert obs.history is not None
    return encoder.encode(_entries(encoder, obs, slice(None), items), obs.history >= 0)


def _entries(encoder: Encoder, obs: Obs, at: slice, items: Tensor | SplitFeatures) -> Tensor:
    """The entries (N, P, X) at P places of the window."""
    assert obs.history is not None and obs.signals is not None
    profile = None if encoder.profile is None else obs.context[:, encoder.profile]
    return entries(obs.history[:, at], obs.signals[:, at], items, encoder.products, profile)


@dataclass
class Reader:
    """An encoder's state of N users who act. ``follow`` takes one observation after another.

    A state goes on where the history is the last one with new entries at its end, and the profile that the
    encoder reads is the same. It starts anew where the history is empty. Elsewhere it is built from the
    window, as at the first observation.
    """

    encoder: Encoder
    items: Tensor | SplitFeatures
    most: int  # entries that one step may add; with more of them the state is built from the window
    state: State = None
    last: Obs | None = None  # history and signals, and as its context the profile that the encoder reads

    def follow(self, obs: Obs, ended: Tensor | None = None) -> Obs:
        """``obs`` with the summary (N, H) of its history.

        ``ended`` (N,) bool: ``obs`` differs from the last one in these rows alone. None: in any.
        """
        assert obs.history is not None and obs.signals is not None
        if self.last is None or self.last.num_rows != obs.num_rows:
            self.state = _state(self.encoder, obs, self.items)
        else:
            self._go_on(obs, self.last, ended)
        # Copies: an environment may write its next observation to the same tensors.
        self.last = Obs(self._profile(obs).clone(), obs.history.clone(), obs.signals.clone())
        return replace(obs, summary=self.encoder.read(self.state))

    def _go_on(self, obs: Obs, last: Obs, ended: Tensor | None) -> None:
        history, signals = obs.history, obs.signals
        assert history is not None and signals is not None and last.history is not None
        if ended is None and self._each_has_one_more(obs, last):
            entry = self._entry(obs, 1)
            self.state = self.encoder.step(self.state, entry, None)
            return
        empty = history[:, -1] < 0  # (N,)
        anew = empty & (last.history[:, -1] >= 0)
        if ended is None:
            number, largest = self._count(obs, last, empty)
        else:  # not counted: where one item fills the window, it is the same with one entry more
            number, largest = torch.where(empty | ~ended, 0, -1), 0
        to_build = number < 0
        some_anew, some_to_build = torch.stack([anew.any(), to_build.any()]).tolist()
        for new in range(largest, 0, -1):
            entry = self._entry(obs, new)
            self.state = self.encoder.step(self.state, entry, number >= new)
        if some_anew:
            rows = anew.nonzero().squeeze(1)
            self._put(rows, self.encoder.start(len(rows)))
        if some_to_build:
            rows = to_build.nonzero().squeeze(1)
            window = Obs(obs.context, history, signals).rows(rows)
            self._put(rows, _state(self.encoder, window, self.items))

    def _each_has_one_more(self, obs: Obs, last: Obs) -> bool:
        """True if one step for all rows does: the usual case, found in a third of the time of ``_count``."""
        assert obs.history is not None and obs.signals is not None
        assert last.history is not None and last.signals is not None
        return (
            torch.equal(obs.history[:, :-1], last.history[:, 1:])
            and torch.equal(obs.signals[:, :-1], last.signals[:, 1:])
            and bool((obs.history[:, -1] >= 0).all())
            and torch.equal(self._profile(obs), last.context)
        )

    def _count(self, obs: Obs, last: Obs, empty: Tensor) -> tuple[Tensor, int]:
        """New entries (N,) of each history, and the largest number; -1 where it does not go on.

        A number counts as 0 where the history is ``empty``.
        """
        assert obs.history is not None and obs.signals is not None
        assert last.history is not None and last.signals is not None
        length = obs.history.shape[1]
        number = torch.where(empty, 0, -1)
        known = (self._profile(obs) == last.context).all(1)  # (N,)
        for new in (1, 0, *range(2, self.most + 1)):
            overlap = length - new
            same = (obs.history[:, :overlap] == last.history[:, new:]).all(1)
            same &= (obs.signals[:, :overlap] == last.signals[:, new:]).flatten(1).all(1)
            if new:  # no padding among them, as in a window that was replaced as a whole
                same &= obs.history[:, overlap] >= 0
            number = torch.where(same & known & (number < 0), new, number)
            if new < self.most and bool((number >= 0).all()):
                break
        return number, max(new, 1)

    def _entry(self, obs: Obs, new: int) -> Tensor:
        """The entry (N, X) before ``new`` - 1 newer ones."""
        assert obs.history is not None
        first = obs.history.shape[1] - new
        return _entries(self.encoder, obs, slice(first, first + 1), self.items).squeeze(1)

    def _profile(self, obs: Obs) -> Tensor:
        """The part of the context (N, D) on which entries depend; (N, 0) without one."""
        return obs.context[:, slice(0) if self.encoder.profile is None else self.encoder.profile]

    def _put(self, rows: Tensor, fresh: State) -> None:
        self.state = tree_map(lambda old, new: old.index_copy(0, rows, new), self.state, fresh)

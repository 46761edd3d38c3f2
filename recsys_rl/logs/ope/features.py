"""Features of a decision for reward models: the context, the items, and what the session has shown so far."""

from __future__ import annotations

import torch
from torch import Tensor

from recsys_rl.models.item_columns import feature_columns
from recsys_rl.types import Catalogue, Interface, Obs
from recsys_rl.user_columns import UserColumns

MEMORY = 0.9
"""Share of an item's overlap that remains after each later item of the history."""


class Features:
    """Numbers about observation and items that every log has. It is made once for a catalogue."""

    def __init__(self, catalogue: Catalogue, interface: Interface, by_item: bool = False) -> None:
        """``by_item``: the last column is the row of the item, for a model of each (item_models.py)."""
        self.by_item = by_item
        self.embedding = catalogue.embedding  # (I, D)
        self.genres = catalogue.unit_tags  # (I, G)
        popularity = _z((catalogue.popularity + 1e-3).log())
        quality = _z(catalogue.quality)
        lure = (popularity - quality).clamp_min(0)  # more popular than good
        numbers = torch.stack([popularity, quality, lure], 1)
        self.item = torch.cat([numbers, feature_columns(catalogue)], 1)  # (I, 3 + X)
        self.interface = interface
        embeddings = interface.embeddings
        profiles = embeddings[:1] if interface.profile else ()
        self.user = next(
            (span for span in profiles if span.stop - span.start == self.embedding.shape[1]), None
        )
        large = {k for span in embeddings for k in range(span.start, span.stop)}
        self.other = [k for k in interface.inputs if k not in large]  # small pieces of context
        self.user_columns = UserColumns.of(interface, catalogue)

    @property
    def of_users(self) -> list[int]:
        """The small pieces of the context, as columns."""
        first = self.item.shape[1]
        return list(range(first, first + len(self.other)))

    def __call__(self, obs: Obs, items: Tensor) -> Tensor:
        """(B, F) float32, from B observations and the items (B, K) shown, -1 at empty places.

        The features of a slate are the means over its places.
        """
        known = (items >= 0).float()  # (B, K)
        count = known.sum(1, keepdim=True).clamp_min(1)
        rows = items.clamp_min(0)

        def mean(values: Tensor) -> Tensor:  # (B, K, ...) -> (B, ...)
            return (values * known.view(*known.shape, *[1] * (values.dim() - 2))).sum(1) / count

        embedding, genres = mean(self.embedding[rows]), mean(self.genres[rows])  # (B, D), (B, G)
        columns = [mean(self.item[rows]), obs.context[:, self.other], count]
        if self.user is None:  # no profile that an item could be compared with
            columns.append(embedding)
        else:
            columns.append((obs.context[:, self.user] * embedding).sum(1, keepdim=True))
        columns += [mean(column.unsqueeze(2)) for column in self.user_columns.of_items(obs.context, rows)]
        if obs.history is not None and obs.signals is not None:
            columns += self._session(obs.history, obs.signals, embedding, genres)
        if self.by_item:
            columns.append(rows[:, :1].float())  # exact up to 2^24 items
        return torch.cat(columns, 1)

    def _session(self, history: Tensor, signals: Tensor, embedding: Tensor, genres: Tensor) -> list[Tensor]:
        """Overlap with what was shown, its mean features, and the user's signals so far."""
        shown = (history >= 0).float()  # (B, L)
        number = shown.sum(1, keepdim=True)  # (B, 1)
        age = shown.flip(1).cumsum(1).flip(1) - 1  # (B, L): 0 for the latest
        decay = shown * MEMORY**age
        rows = history.clamp_min(0)
        past = torch.einsum("bl,bld->bd", decay, self.embedding[rows])
        of_genres = torch.einsum("bl,blg->bg", decay, self.genres[rows])
        overlap = [(past * embedding).sum(1), (of_genres * genres).sum(1)]
        columns = [column.unsqueeze(1).clamp_min(0) for column in overlap]
        columns.append((self.item[rows] * shown.unsqueeze(2)).sum(1) / number.clamp_min(1))
        columns.append((signals * shown.unsqueeze(2)).sum(1) / number.clamp_min(1))
        columns.append((signals * decay.unsqueeze(2)).sum(1))
        columns.append(signals[:, -1])
        columns.append(number)
        return columns


def _z(values: Tensor) -> Tensor:
    return (values - values.mean()) / values.std().clamp_min(1e-6)

"""The first stage of a two-stage policy: the search for a few good items of a large catalogue.

`exact` scores every item, a block at a time. `ivf` and `hnsw` are indices of faiss (Douze et al. 2024,
arXiv:2401.08281) with one byte for each number. They find nearly the same items in much less time. An
inverted file searches only the clusters nearest to the query (Sivic and Zisserman 2003). A graph of
neighbours is walked towards the query (Malkov and Yashunin 2018, arXiv:1603.09320). The index is held in
memory only, at about a quarter of the size of the embeddings. The embeddings are not copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from recsys_rl.errors import FieldError
from recsys_rl.functional.top_k import blocked_top_k
from recsys_rl.models.features import SplitFeatures
from recsys_rl.settings.shared import ModelConfig
from recsys_rl.types import UserError

EXACT_UP_TO = 20_000
"""Largest catalogue that `auto` searches exactly. 64 queries then cost less than scoring 128 candidates."""
NUM_PROBES = 6
"""Clusters that `ivf` searches. docs/08_large_catalogues.md has the recall at other numbers."""
COLUMN_SCALE = 0.1
"""Factor on the features beside the embedding inside an index; the query has 1 / factor. So the products are
unchanged, and clusters and neighbours depend on the embedding."""
_ALIGN = 8  # faiss decodes rows whose length is not a multiple of this one number at a time, 7 times slower
_SAMPLE_PER_CLUSTER = 64  # rows that the clusters are made from
_ROWS = 16_384  # rows read at a time while an index is built
_GRAPH_NEIGHBOURS = 16
_GRAPH_BREADTH = 256  # candidates kept during a walk; with fewer it ends in the first of two clusters


class Retriever:
    """Finds the available items with the highest ``query . f_i``.

    The index is built at the first search. It is built again only if the embedding or the availability is
    another tensor or was written to. The same rows always give the same index.
    """

    def __init__(self, items: SplitFeatures, available: Tensor, index: str) -> None:
        """``available`` (I,) bool; ``index`` is auto, exact, ivf or hnsw. Raises UserError without faiss."""
        self.items = items
        self.available = available
        self.kind = kind_of(index, items.shape[0])
        if self.kind != "exact":
            import_faiss(self.kind)
        self.builds = 0
        self._stamp: tuple[Tensor, int, Tensor, int] | None = None
        self._index: Any = None
        self._rows = torch.empty(0, dtype=torch.int64)

    @property
    def rows(self) -> Tensor:
        """The available items in order, (I',) int64."""
        self._refresh()
        return self._rows

    def search(self, query: Tensor, k: int) -> Tensor:
        """query (N, F_i) -> items (N, k) int64, best first; -1 if fewer than k are available."""
        if k == 0:
            return query.new_empty(len(query), 0, dtype=torch.int64)
        self._refresh()
        query = query.detach()  # a search has no gradient
        if self._index is None:
            return self._exact(query, k)
        places = torch.from_numpy(
            self._index.search(_inside(query, self.items.num_dims, 1 / COLUMN_SCALE), k)[1]
        )
        nearest = torch.where(places < 0, -1, self._rows[places.to(self._rows.device)]).to(query.device)
        # The searched clusters may hold fewer than k items, and a walk in a graph may end early.
        short = (nearest < 0).any(1).nonzero().squeeze(1)  # (R,)
        if len(short):
            nearest[short] = self._exact(query[short], k)
        return nearest

    def _exact(self, query: Tensor, k: int) -> Tensor:
        of_embedding, of_columns = query.split([self.items.num_dims, self.items.columns.shape[1]], 1)

        def score(block: slice) -> Tensor:
            scores: Tensor = of_embedding @ self.items.embedding[block].T  # (N, b)
            scores.addmm_(of_columns, self.items.columns[block].T)  # two products: joining would copy
            return scores.masked_fill_(~self.available[block], -torch.inf)

        return blocked_top_k(score, len(query), self.items.shape[0], k)[1]

    def _refresh(self) -> None:
        embedding = self.items.embedding
        stamp = (embedding, _version(embedding), self.available, _version(self.available))
        if self._stamp is not None and all(
            a is b or (isinstance(a, int) and a == b) for a, b in zip(stamp, self._stamp, strict=True)
        ):
            return
        self._rows = self.available.nonzero().squeeze(1)
        self._index = None if self.kind == "exact" else self._build()
        self._stamp = stamp
        self.builds += 1

    def _build(self) -> Any:
        faiss = import_faiss(self.kind)
        # `--threads` also applies to faiss.
        faiss.omp_set_num_threads(torch.get_num_threads())
        size = -(-self.items.shape[1] // _ALIGN) * _ALIGN
        code, metric = faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
        num_clusters = max(1, round(len(self._rows) ** 0.5))
        if self.kind == "hnsw":
            index = faiss.IndexHNSWSQ(size, code, _GRAPH_NEIGHBOURS, metric)
            index.hnsw.efSearch = _GRAPH_BREADTH
        else:
            index = faiss.IndexIVFScalarQuantizer(faiss.IndexFlatIP(size), size, num_clusters, code, metric)
            index.nprobe = NUM_PROBES
            index.cp.max_points_per_centroid = _SAMPLE_PER_CLUSTER
            index.cp.min_points_per_centroid = 1
        generator = torch.Generator().manual_seed(0)
        sample = torch.randperm(len(self._rows), generator=generator)[: num_clusters * _SAMPLE_PER_CLUSTER]
        index.train(self._inside(self._rows[sample.sort().values.to(self._rows.device)]))
        for block in self._blocks():
            index.add(block)
        return index

    def _blocks(self) -> Iterator[Any]:
        for rows in self._rows.split(_ROWS):
            yield self._inside(rows)

    def _inside(self, rows: Tensor) -> Any:
        return _inside(self.items[rows], self.items.num_dims, COLUMN_SCALE)


def kind_of(index: str, num_items: int) -> str:
    """The kind of search (exact, ivf or hnsw) that ``index`` means for a catalogue of that size."""
    if index == "auto":
        return "exact" if num_items <= EXACT_UP_TO else "ivf"
    return index


def mark_unusable(candidates: Tensor, num_sure: int, exclude: Tensor | None, mask: Tensor | None) -> Tensor:
    """``candidates`` (N, C) with -1 in place of repeated and forbidden items.

    The first ``num_sure`` items of a row must differ from each other. A later item is replaced if it repeats
    an earlier one. Any item is replaced if it is in ``exclude`` (N, X) or if ``mask`` (N, I) forbids it.
    """
    drawn = candidates[:, num_sure:]  # (N, E)
    if drawn.shape[1]:
        same = drawn.unsqueeze(2) == candidates.unsqueeze(1)  # (N, E, C)
        repeats = same.tril(num_sure - 1).any(2)  # (N, E): draw e stands in place num_sure + e
        candidates = torch.cat([candidates[:, :num_sure], drawn.masked_fill(repeats, -1)], 1)
    if exclude is not None:
        shown = (candidates.unsqueeze(2) == exclude.unsqueeze(1)).any(2)
        candidates = candidates.masked_fill(shown, -1)
    if mask is not None:
        candidates = candidates.masked_fill(~mask.gather(1, candidates.clamp_min(0)), -1)
    return candidates


def import_faiss(kind: str) -> Any:
    """Import faiss at its first use. Raises UserError if it isn't installed."""
    try:
        import faiss
    except ImportError as error:
        raise UserError(
            f"The {kind} index needs faiss, which isn't installed: pip install -e '.[ann]' in the checkout, "
            "or give --index exact, which is slower on a large catalogue."
        ) from error
    return faiss


def _inside(features: Tensor, num_dims: int, scale: float) -> Any:
    """Features (N, F_i) as an index takes them: a numpy array (N, F_i + padding)."""
    n, size = features.shape
    inside = torch.zeros(n, -(-size // _ALIGN) * _ALIGN)
    inside[:, :num_dims] = features[:, :num_dims]
    inside[:, num_dims:size] = scale * features[:, num_dims:]
    return inside.numpy()


def _version(tensor: Tensor) -> int:
    """Number of writes to a tensor; 0 for one made in inference mode, as torch doesn't count these."""
    return 0 if tensor.is_inference() else tensor._version


def check_candidates(config: ModelConfig, available: int, most_shown: int, slate_size: int = 1) -> None:
    """Raise FieldError where a first stage over ``available`` items can't fill its list of candidates.

    ``most_shown``: T K items that may not be shown again at the end of a session; 0 where items repeat.
    """
    if config.candidates > available:
        raise FieldError(
            "model_config.candidates",
            f"is {config.candidates}: the catalogue has only {available} available items; give fewer "
            "candidates, or 0 to score all items.",
        )
    drawn = round(config.explore_rate * config.candidates)
    if config.explore_rate > 0 and drawn == 0:
        raise FieldError(
            "model_config.explore_rate",
            f"{config.explore_rate:g} of {config.candidates} candidates is less than one: give more "
            "candidates, a higher explore_rate, or 0 for no exploration.",
        )
    sure = config.candidates - drawn
    left = (
        f"is {config.candidates}, of which explore_rate {config.explore_rate:g} leaves {sure} to the search"
    )
    if slate_size > 1 and sure < slate_size:
        raise FieldError(
            "model_config.candidates",
            f"{left}, and a slate shows {slate_size} different items: give more candidates or a lower "
            "explore_rate.",
        )
    if sure < most_shown:  # Before the last step, all but one slate have been shown.
        raise FieldError(
            "model_config.candidates",
            f"{left}, and {most_shown - slate_size} of those may have been shown in the same session: give "
            "more candidates or a lower explore_rate.",
        )

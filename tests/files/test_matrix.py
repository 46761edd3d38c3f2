"""Matrices of numbers from texts and arrays, and the sentence about each that is not one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from recsys_rl.errors import UserError
from recsys_rl.files.matrix import read_matrix


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
    "gap.csv": ("1,2\n3,\n", "gap.csv has 1 cells without a finite number, the first in line 2, column 2"),
    "nan.csv": ("1,nan\n3,nan\n", "has 2 cells without a finite number, the first in line 1, column 2"),
    "uneven.csv": ("1,2\n3\n", "has 1 cells in line 2 and 2 in line 1"),
    "header.csv": ("a,b\n3,1\n", "has 'a' in line 1, column 1, which is not a number"),
    "large.csv": ("1,2\n3,1e39\n", "has 1 cells without a finite number, the first in line 2, column 2"),
    "blank.csv": ("\n1,2\n\n3,x\n", "has 'x' in line 4, column 2, which is not a number"),
    "blank_gap.csv": ("1,2\n\n3,\n", "the first in line 3, column 2"),
    "blank_uneven.csv": ("\n1,2\n\n3\n", "has 1 cells in line 4 and 2 in line 2"),
    "empty.csv": ("", "a matrix has rows for users and columns for items"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_texts(tmp_path: Path, name: str) -> None:
    text, sentence = BAD[name]
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError) as error:
        read_matrix(tmp_path / name)
    assert sentence in str(error.value)


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
    sentences = {
        "two.npz": "holds 2 arrays ('a, b'): save one matrix",
        "objects.npy": "is not a whole file of an array of numbers",  # nothing is unpickled
        "texts.npy": "save the matrix as numbers",
        "flat.npy": "has the shape (3,)",
        "broken.npz": "is not a whole file of an array of numbers",
        "absent.npy": "can't be read (No such file or directory)",
        "absent.csv": "can't be read (No such file or directory)",
    }
    for name, sentence in sentences.items():
        with pytest.raises(UserError) as error:
            read_matrix(tmp_path / name)
        assert sentence in str(error.value), name

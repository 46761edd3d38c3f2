"""Matrices of numbers from people's files: text with commas or spaces, .npy, or .npz with one array."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys_rl.errors import UserError, error_text, one_line, short

GAPS = ("", "nan", "na", "null", "none", "-")
"""Cells of a text that hold no rating, in small letters."""
ARRAYS = (".npy", ".npz")


def read_matrix(path: str | Path) -> Tensor:
    """The matrix (rows, columns) float32 of a file. Raises UserError, and for a gap it names the place."""
    path = Path(path)
    matrix: NDArray[Any]
    matrix, lines = (_read_array(path), None) if path.suffix.lower() in ARRAYS else _read_text(path)
    name = one_line(path)
    with np.errstate(over="ignore"):  # a number beyond float32 becomes infinite, and is refused below
        matrix = matrix.astype(np.float32)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise UserError(
            f"{name} has the shape {matrix.shape}: a matrix has rows for users and columns for items."
        )
    wrong = np.argwhere(~np.isfinite(matrix))
    if len(wrong):
        row, column = wrong[0]
        where = f"row {row + 1}" if lines is None else f"line {lines[row]}"
        raise UserError(
            f"{name} has {len(wrong):,} cells without a finite number, the first in {where}, column "
            f"{column + 1}: the game needs the rating of every item by every user; estimate the others first."
        )
    return torch.from_numpy(matrix)


def _read_array(path: Path) -> NDArray[np.float64]:
    try:
        array = np.load(path, allow_pickle=False)
        if not isinstance(array, np.ndarray):  # an archive of arrays
            with array as archive:
                names = list(archive)
                if len(names) != 1:
                    raise UserError(
                        f"{one_line(path)} holds {len(names)} arrays ({short(', '.join(names))}): save one "
                        "matrix in a file."
                    )
                array = np.asarray(archive[names[0]])  # bytes, if it is another file
    except OSError as error:
        raise UserError(
            f"{one_line(path)} can't be read ({error_text(error)}): give a matrix of ratings."
        ) from error
    except (EOFError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{one_line(path)} is not a whole file of an array of numbers: save the matrix again with "
            "numpy.save or numpy.savez."
        ) from error
    if array.dtype.kind not in "fiub":
        raise UserError(f"{one_line(path)} holds {array.dtype}: save the matrix as numbers.")
    matrix: NDArray[np.float64] = array.astype(np.float64)
    return matrix


def _read_text(path: Path) -> tuple[NDArray[np.float64], list[int]]:
    """The matrix, and the line of each of its rows."""
    try:
        text = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error_text(error) if isinstance(error, OSError) else "it is not a text"
        raise UserError(f"{one_line(path)} can't be read ({why}): give a matrix of ratings.") from error
    rows: list[list[float]] = []
    lines = [number for number, line in enumerate(text, 1) if line.strip()]
    for number in lines:
        line = text[number - 1]
        cells = [cell.strip() for cell in line.split(",")] if "," in line else line.split()
        if rows and len(cells) != len(rows[0]):
            raise UserError(
                f"{one_line(path)} has {len(cells)} cells in line {number} and {len(rows[0])} in line "
                f"{lines[0]}: give a matrix, with a rating of every item by every user."
            )
        rows.append([_number(path, number, column, cell) for column, cell in enumerate(cells, 1)])
    return np.array(rows, dtype=np.float64), lines


def _number(path: Path, line: int, column: int, cell: str) -> float:
    if cell.lower() in GAPS:
        return float("nan")
    try:
        return float(cell)
    except ValueError:
        raise UserError(
            f"{one_line(path)} has {short(cell)} in line {line}, column {column}, which is not a number: "
            "give a matrix of ratings, without a header."
        ) from None

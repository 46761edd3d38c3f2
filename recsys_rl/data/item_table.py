"""Item embeddings too large to copy: a memory-mapped `.npy` file of (I, D) float32, each row of norm 1.

All processes share one copy in memory. The operating system reads only the rows that are used.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys_rl.errors import error_text
from recsys_rl.types import UserError

FILE_ENDING = ".npy"
_ROWS = 65_536  # checked at a time
_NORM_ERROR = 1e-3  # rows divided by their norm in float32 are much closer to 1
Floats = NDArray[np.float32]


def write_table(path: Path, parts: Iterable[Floats], shape: tuple[int, int]) -> None:
    """Write blocks (b, D) of float32 as one `.npy` file, whole or not at all. Raises UserError."""
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for block in parts:
                file.write(np.ascontiguousarray(block, dtype="<f4").data)
        temporary.replace(path)
    except OSError as error:
        raise UserError(
            f"{path} can't be written ({error_text(error)}): make room or give another --cache-dir."
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def open_table(path: Path) -> Tensor:
    """Map the table (I, D) at ``path`` into memory without a copy. A write never changes the file.

    Only read the result: a checkpoint names the file and does not store changes to the tensor.

    Raises UserError if the file is missing, truncated or not a `.npy` file of float32 in rows, or if the
    norm of a row is not 1.
    """
    array = _map(path)
    if array.dtype != np.dtype("<f4"):
        raise UserError(f"{path} holds {array.dtype}: save item embeddings as float32.")
    if array.ndim != 2 or 0 in array.shape:
        raise UserError(f"{path} has shape {array.shape}: item embeddings have two axes, (items, size).")
    if not array.flags.c_contiguous:
        raise UserError(f"{path} is stored column by column: save numpy.ascontiguousarray of it.")
    table = torch.from_numpy(array)  # (I, D)
    for start in range(0, len(table), _ROWS):
        norms = torch.linalg.vector_norm(table[start : start + _ROWS], dim=1)
        wrong = ~((norms - 1).abs() <= _NORM_ERROR)  # NaN is wrong too: each comparison with it is False
        if bool(wrong.any()):
            row = int(wrong.nonzero()[0])
            raise UserError(
                f"{path} has norm {norms[row].item():g} in row {start + row}: divide each row of the "
                "embeddings by its Euclidean norm, and remove rows that are zero or not finite."
            )
    return table


def table_sha256(path: Path) -> str:
    """sha256 (hex) of the whole file. Raises UserError if it can't be read."""
    _check_file(path)
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path} can't be read ({error_text(error)}): mend that.") from error


def _check_file(path: Path) -> None:
    """Raise UserError for a device or a pipe: a checkpoint from elsewhere may name one that never ends."""
    if path.exists() and not path.is_file():
        raise UserError(
            f"{path} can't be read (it is not a regular file): give a .npy file of item embeddings."
        )


def _map(path: Path) -> NDArray[Any]:
    _check_file(path)
    try:
        # Copy-on-write: torch needs writable memory, and the file must not change.
        with np.errstate(over="ignore"):  # the size of a hostile shape may overflow
            array = np.load(path, mmap_mode="c", allow_pickle=False)
    except OSError as error:
        raise UserError(
            f"{path} can't be read ({error_text(error)}): give a .npy file of item embeddings."
        ) from error
    except (EOFError, OverflowError, TypeError, ValueError) as error:  # a shape may be any Python literal
        cause = "is truncated" if "greater than file size" in str(error) else "is not a whole .npy file"
        raise UserError(f"{path} {cause}: save the item embeddings again with numpy.save.") from error
    if not isinstance(array, np.ndarray):
        raise UserError(f"{path} is an archive of arrays: save the item embeddings with numpy.save.")
    return array

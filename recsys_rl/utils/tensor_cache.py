"""A cache of computed tensors, each in a file with its own sha256.

The tensors can be computed again, so no error here ends the run: a line on stderr reports a damaged file
or a folder that can't be written.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from recsys_rl.errors import error_text


def digest(tensors: Mapping[str, Tensor], *words: object) -> str:
    """sha256 (hex) of named tensors, with types and shapes, and of other values by their exact ``repr``."""
    total = hashlib.sha256(repr(words).encode())
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name].numpy())
        total.update(f"{name} {array.dtype} {array.shape} ".encode())
        total.update(array.reshape(-1).view(np.uint8).data)
    return total.hexdigest()


def read_tensors(path: Path) -> dict[str, Tensor] | None:
    """The tensors that ``write_tensors`` wrote; None if the file is missing or damaged."""
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load(path.read_bytes())
        if tensors.pop("sha256").numpy().tobytes().hex() == digest(tensors):
            return tensors
    except FileNotFoundError:
        return None
    except OSError as error:
        print(f"The cache file {path} can't be read ({error_text(error)}); made again.", file=sys.stderr)
        return None
    except (safetensors.SafetensorError, KeyError, ValueError, RuntimeError):
        pass  # not a safetensors file, or not one of this module
    print(f"The cache file {path} is damaged; made again.", file=sys.stderr)
    return None


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a temporary file and rename it, so that a reader never sees half a file."""
    stamp = torch.frombuffer(bytearray.fromhex(digest(tensors)), dtype=torch.uint8)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            file.write(safetensors.torch.save({**tensors, "sha256": stamp}))
        temporary.replace(path)
    except OSError as error:
        why = error_text(error)
        print(f"Can't write the cache {path.parent} ({why}); the next run computes again.", file=sys.stderr)
        if temporary is not None:
            temporary.unlink(missing_ok=True)

"""The compiled loops of the ``*.c`` files here, for contiguous tensors on the CPU.

``hatch_build.py`` compiles them while the package is installed. The library's name holds a hash of the
sources, so a library of older sources is never loaded: after an edit, install again (``pip install -e .``).
Without the library torch's operators are used, with the same results up to rounding.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch  # must come before the library is loaded, which uses torch's OpenMP
from torch import Tensor

SWITCH = "RECSYS_RL_KERNELS"  # this environment variable, set to "off", leaves torch's operators alone
MIN_PARALLEL = 2**15  # numbers; fewer take less time than it takes to wake a second thread


def library() -> ctypes.CDLL | None:
    """The compiled loops; None if they were not compiled here, are switched off, or torch exports a network.

    A traced tensor has no memory that they could read.
    """
    return None if torch.compiler.is_exporting() else _loaded()


@cache
def _loaded() -> ctypes.CDLL | None:
    try:
        return None if switched_off() else load(path())
    except OSError:
        return None


def switched_off() -> bool:
    return os.environ.get(SWITCH) == "off"


def path() -> Path:
    """The file that ``hatch_build.py`` compiles from the present sources."""
    here = Path(__file__).parent
    source = b"".join(file.read_bytes() for file in sorted(here.glob("*.[ch]")))
    return here / f"kernels-{hashlib.sha256(source).hexdigest()[:16]}.so"


def load(file: Path) -> ctypes.CDLL:
    """Load the library in ``file``. Raises OSError if it can't be opened."""
    loaded = ctypes.CDLL(str(file))
    p, n, i = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    f = ctypes.c_float
    loaded.sample.argtypes = [p, p, n, n, i, p, p]
    loaded.forbid.argtypes = [p, p, n, n, n, n]
    loaded.evaluate.argtypes = [p, p, n, n, n, i, p, p, p, p]
    loaded.evaluate_gradient.argtypes = [p, p, p, p, p, p, n, n, n, i, p]
    loaded.dense_forward.argtypes = [p, p, n, i, p, n, i, p, p, p]
    loaded.dense_backward.argtypes = [p, p, n, i, p, n, i, p, p, p, p, p]
    loaded.ppo_loss.argtypes = [p, p, n, n, n, i, f, f, f, i, *[p] * 10]
    loaded.adam.argtypes = [p, p, p, p, p, n, f, f, f, f, f, f, i]
    loaded.dot_rows.argtypes = [p, p, p, n, n, n, n, i, p]
    loaded.add_rows.argtypes = [p, p, p, p, n, n, n, n, f, i, p]
    loaded.beside_rows.argtypes = [p, p, p, n, n, n, i, p]
    loaded.push_rows.argtypes = [p, p, p, n, n, n, i, p]
    loaded.rows_hold.argtypes = [p, p, n, n, n, i, p]
    loaded.curves.argtypes = [*[p] * 5, n, n, n, i, p]
    loaded.curves_gradient.argtypes = [*[p] * 6, n, n, n, n, i, p, p, p]
    loaded.session_sums.argtypes = [p, n, n, p, p, n, n, n, n, n, i, i, p, p]
    loaded.votes.argtypes = [p, n, n, n, p, n, p, p, p, n, i, p]
    loaded.votes_gradient.argtypes = [p, n, n, p, n, p, p, p, n, n, i, p, p]
    loaded.deep_sets.argtypes = [p, n, n, p, p, n, n, n, p, p, p, p, n, p, n, i, p, p, p]
    loaded.deep_sets_gradient.argtypes = [p, n, n, p, p, n, n, n, p, p, p, p, i, p, p, p]
    checking = loaded.forbid, loaded.evaluate, loaded.ppo_loss, loaded.dot_rows, loaded.add_rows
    gathering = loaded.beside_rows, loaded.session_sums, loaded.deep_sets
    for function in (*checking, *gathering):  # 1 where an index is out of range
        function.restype = i
    plain = loaded.sample, loaded.evaluate_gradient, loaded.dense_forward, loaded.dense_backward, loaded.adam
    of_heads = loaded.curves, loaded.curves_gradient, loaded.votes, loaded.votes_gradient
    for function in (*plain, *of_heads, loaded.push_rows, loaded.rows_hold, loaded.deep_sets_gradient):
        function.restype = None
    return loaded


def serving(tensor: Tensor) -> ctypes.CDLL | None:
    """The library if it can take this tensor, else None."""
    return library() if plain(tensor) else None


def plain(tensor: Tensor) -> bool:
    """True if the tensor is contiguous float32 in the CPU's memory."""
    return tensor.dtype == torch.float32 and tensor.is_cpu and tensor.is_contiguous()


def plain_ids(tensor: Tensor) -> bool:
    """True if the tensor is contiguous int64 in the CPU's memory."""
    return tensor.dtype == torch.int64 and tensor.is_cpu and tensor.is_contiguous()


def threads(work: Tensor | int) -> int:
    """The number of threads for work on this tensor, or on so many numbers."""
    numbers = work if isinstance(work, int) else work.numel()
    return torch.get_num_threads() if numbers >= MIN_PARALLEL else 1


def addresses(tensors: Sequence[Tensor]) -> ctypes.Array[ctypes.c_void_p]:
    """The addresses of contiguous tensors, as an array of pointers. The caller keeps the tensors alive."""
    return (ctypes.c_void_p * len(tensors))(*[tensor.data_ptr() for tensor in tensors])


def check_first_derivative() -> None:
    """Raise RuntimeError in a backward pass with ``create_graph``.

    The gradients here have no graph, so they can't be differentiated again. torch's ``once_differentiable``
    does the same check, but takes as long as a small kernel.
    """
    if torch.is_grad_enabled():
        raise RuntimeError("there is no second derivative here: leave create_graph out")

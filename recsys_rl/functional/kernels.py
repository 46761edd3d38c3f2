"""The compiled loops of kernels.c, for contiguous float32 tensors on the CPU.

``hatch_build.py`` compiles them while the package is installed. The library's name holds a hash of the
source, so that an edited kernels.c is never mistaken for the compiled one: install again
(``pip install -e .``) to compile it. Without the library everything is done by torch's operators,
with the same results up to rounding.
"""

from __future__ import annotations

import ctypes
import hashlib
from functools import cache
from pathlib import Path

import torch  # before the library is opened: it shares torch's OpenMP
from torch import Tensor

MIN_PARALLEL = 2**15  # numbers; fewer are done before a second thread is awake


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels.c; None where it was not compiled here."""
    source = Path(__file__).with_name("kernels.c")
    path = source.with_name(f"kernels-{hashlib.sha256(source.read_bytes()).hexdigest()[:16]}.so")
    try:
        loaded = ctypes.CDLL(str(path))
    except OSError:
        return None
    p, n, i, f = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_float
    loaded.sample.argtypes = [p, p, n, n, i, p, p]
    loaded.policy_gradient.argtypes = [p, p, p, p, n, n, n, f, f, i, p, p, p]
    loaded.tanh_.argtypes = [p, n]
    loaded.adam.argtypes = [p, p, p, p, n, f, f, f, f, f, f, i]
    for function in (loaded.sample, loaded.tanh_, loaded.adam):
        function.restype = None
    loaded.policy_gradient.restype = i
    return loaded


def serving(tensor: Tensor) -> ctypes.CDLL | None:
    """The library, where it can take this tensor; None where torch must."""
    if tensor.dtype != torch.float32 or tensor.device.type != "cpu" or not tensor.is_contiguous():
        return None
    return library()


def threads(tensor: Tensor) -> int:
    """How many threads share the work on this tensor."""
    return torch.get_num_threads() if tensor.numel() >= MIN_PARALLEL else 1

"""`recsys-rl train --num-processes N`: the same command N times, started by torchrun's launcher."""

from __future__ import annotations

import logging
import os
import socket
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from signal import SIGTERM, Signals

from recsys_rl.errors import UserError

LOOPBACK = "127.0.0.1"
LOST = 3
"""Exit code of a rank that lost the others: another one failed first."""
STOP_WITHIN = 600
"""Seconds in which each rank must have ended its update after Ctrl-C."""


def is_first() -> bool:
    """True in rank 0, which alone prints, and in a single process."""
    return os.environ.get("RANK", "0") == "0"


def size_of_run() -> int:
    """The number of processes that torchrun, or ``launch``, started; 1 for a single process."""
    text = os.environ.get("WORLD_SIZE", "1")
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"WORLD_SIZE is {text!r}: start several processes with torchrun, or unset it.")
    return int(text)


def launch(argv: Sequence[str], size: int) -> None:
    """Run `train` with ``argv`` as ``size`` processes. If one fails, the others are ended too.

    Only rank 0 prints. Raises UserError, SystemExit(2) (rank 0 has printed the error) or KeyboardInterrupt,
    as one process does.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in list(logging.root.manager.loggerDict):  # each has a level of its own
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # one sentence comes from here
    warnings.filterwarnings("ignore", module="torch.distributed")
    loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), "lo")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ.setdefault(
        "OMP_NUM_THREADS", str(max(1, cores // size))
    )  # a thread for each core, over all ranks
    os.environ |= {
        "GLOO_SOCKET_IFNAME": loopback,
        "NCCL_SOCKET_IFNAME": loopback,
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(STOP_WITHIN),
    }
    with tempfile.TemporaryDirectory() as folder:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=size,
            run_id="recsys_rl",
            rdzv_backend="c10d",
            rdzv_endpoint=f"{LOOPBACK}:0",
            local_addr=LOOPBACK,
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(folder, redirects=dict.fromkeys(range(1, size), Std.ALL)),
        )
        try:
            elastic_launch(config, sys.executable)("-m", "recsys_rl.cli", "train", *argv)
        except SignalException:
            raise KeyboardInterrupt from None
        except ChildFailedError as error:
            codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
            _raise_failure(codes, size, Path(folder))


def _raise_failure(codes: dict[int, int], size: int, folder: Path) -> None:
    """Raise the one error for the ranks that failed; ``folder`` has what they printed."""
    if set(codes.values()) <= {130, LOST} and 130 in codes.values():  # a signal reached a rank itself
        raise KeyboardInterrupt
    if codes.get(0) == 2:
        raise SystemExit(2)
    # A rank that lost the others did not fail first, nor one that the launcher ended, if there is another.
    first = min(codes, key=lambda rank: (codes[rank] == LOST, codes[rank] == -SIGTERM, rank))
    said = "".join(path.read_text(errors="replace") for path in folder.glob(f"**/{first}/stderr.log"))
    if codes[first] == 2 and "error: " in said:
        raise UserError(said.rpartition("error: ")[2].strip())
    if said:
        print(said[-4000:].rstrip(), file=sys.stderr)
    code = codes[first]
    killed = code < 0 and code != -SIGTERM  # the launcher sends SIGTERM, also to a rank that is just failing
    how = f"was ended by {Signals(-code).name}" if killed else "failed"
    raise UserError(
        f"Rank {first} of {size} {how}, so the others were ended, too: --resume continues from the last "
        "checkpoint."
    )

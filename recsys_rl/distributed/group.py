"""The processes of one run as a group that averages and gathers (torch.distributed; gloo, NCCL on CUDA).

Synchronous data parallelism: each rank steps its own users and takes the gradient of its own part of
each minibatch; the mean over ranks is the gradient of the whole. Weights and optimiser are the same
everywhere at every step, and are never sent.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta

import safetensors.torch
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous

from recsys_rl.distributed.place import LOST, Place
from recsys_rl.ranks import Ranks
from recsys_rl.types import UserError

# How long one exchange may take, and so how long the others may wait for rank 0, which alone evaluates and
# downloads. A rank that dies closes its connections and is noticed at once, whatever this limit.
PATIENCE = timedelta(minutes=30)


GRACE = 10.0  # seconds that joining may take beyond its limit


class LostRank(UserError):
    """An exchange failed: another rank ended, or can't be reached any more."""


class Group(Ranks):
    """This process among the ``place.size`` of its run."""

    def __init__(self, place: Place, group: dist.ProcessGroup, requests: list[int] | None) -> None:
        """``requests`` is the list of requests to stop that the parent writes to, if there is one."""
        self.place, self.group, self.requests = place, group, requests
        self.rank, self.size = place.rank, place.size

    def average(self, x: Tensor) -> None:
        with _reaching():
            dist.all_reduce(x, group=self.group)
        x.div_(self.size)

    def gather(self, mine: Mapping[str, Tensor]) -> list[Mapping[str, Tensor]]:
        """By way of the safetensors format, as torch's own way for such things is pickle."""
        own = {name: x.detach().cpu().contiguous().clone() for name, x in mine.items()}
        blob = torch.frombuffer(bytearray(safetensors.torch.save(own)), dtype=torch.uint8)
        lengths = list(torch.zeros(self.size, 1, dtype=torch.int64))
        with _reaching():
            dist.all_gather(lengths, torch.tensor([len(blob)]), group=self.group)
        longest = int(max(lengths))
        blobs = list(torch.zeros(self.size, longest, dtype=torch.uint8))
        with _reaching():
            dist.all_gather(blobs, torch.nn.functional.pad(blob, (0, longest - len(blob))), group=self.group)
        return [
            safetensors.torch.load(row[: int(length)].numpy().tobytes())
            for row, length in zip(blobs, lengths, strict=True)
        ]

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Every rank meets every other once: after the first of its machine, and before the rest."""
        first = self.place.local_rank == 0
        if not first:
            self.gather({})
        yield
        if first:
            self.gather({})

    def stop_requests(self) -> AbstractContextManager[list[int]]:
        """Signals, or what the parent wrote."""
        return super().stop_requests() if self.requests is None else nullcontext(self.requests)


@contextmanager
def join(place: Place, requests: list[int] | None, join_timeout: float, cuda: bool) -> Iterator[Ranks]:
    """Meet the other ranks within ``join_timeout`` seconds; part from them at the end.

    Raises UserError where they can't be reached, and LostRank, within, when one is lost later.
    """
    if cuda and place.local_rank >= torch.cuda.device_count():
        raise UserError(
            f"This machine has {torch.cuda.device_count()} CUDA devices and needs one for each process: "
            "lower --num-processes, or use --device cpu."
        )
    limit = timedelta(seconds=join_timeout)
    alone = (
        f"Rank {place.rank} of {place.size} did not meet the others at {place.address}:{place.port} "
        f"within {join_timeout:g} s: check that all were started, that MASTER_ADDR and MASTER_PORT are "
        "right and that GLOO_SOCKET_IFNAME names the network card between machines, or raise "
        "--join-timeout."
    )
    try:
        with _ending_after(join_timeout + GRACE, alone):
            dist.init_process_group(
                "gloo", store=_store(place, limit), rank=place.rank, world_size=place.size, timeout=limit
            )
            if cuda:
                torch.cuda.set_device(place.local_rank)
            group = dist.new_group(backend="cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=PATIENCE)
    except RuntimeError as error:
        raise UserError(alone) from error
    try:
        yield Group(place, group, requests)
    except LostRank as lost:
        if place.listener is None:
            raise
        if place.rank > 0:  # kept by the parent, which may know better what came first
            print(lost, file=sys.stderr)
        raise SystemExit(LOST) from None
    finally:
        dist.destroy_process_group()


@contextmanager
def _ending_after(seconds: float, why: str) -> Iterator[None]:
    """End the process if what stands within takes longer; nothing was begun yet that could be lost.

    gloo heeds its limit in some of its waits alone: where one rank can't connect, another waits on.
    """

    def end() -> None:
        print(f"error: {why}", file=sys.stderr, flush=True)
        os._exit(2)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _store(place: Place, limit: timedelta) -> Store:
    """Where ranks find each other: torchrun's, or, at a socket that launch.py bound to loopback, rank 0's."""
    if place.listener is None:
        host = f"[{place.address}]" if ":" in place.address else place.address  # as URLs have IPv6
        url = f"tcp://{host}:{place.port}"
        store: Store = next(rendezvous(url, place.rank, place.size, timeout=limit))[0]
        return store
    ours: Store = TCPStore(
        place.address,
        place.port,
        place.size,
        is_master=place.rank == 0,
        timeout=limit,
        master_listen_fd=place.listener if place.rank == 0 else None,
    )
    return ours


@contextmanager
def _reaching() -> Iterator[None]:
    """The errors of gloo, NCCL and the store are all RuntimeErrors."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).partition("] ")[2] or str(error)  # gloo begins with a line of its source
        reason = " ".join(reason.split(". ")[0].split())[:100]
        raise LostRank(
            f"Another process of this run ended or can't be reached any more ({reason}): look at what it "
            "said last, and go on from the last checkpoint with --resume."
        ) from error

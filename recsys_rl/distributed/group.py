"""The processes of one run as a group that averages and gathers (torch.distributed; gloo, NCCL on CUDA).

Synchronous data parallelism: each rank steps its own users and computes the gradient of its own part of
each minibatch. The mean over ranks is the gradient of the whole minibatch. Weights and optimiser are the
same on all ranks after every step, so they are never sent.
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

# The time limit of one exchange. The other ranks wait that long for rank 0, because only rank 0 evaluates
# and downloads. A rank that dies closes its connections, so the others notice it at once.
PATIENCE = timedelta(minutes=30)


GRACE = 10.0  # seconds that joining may take beyond its limit


class LostRank(UserError):
    """An exchange failed: another rank ended or can't be reached any more."""


class Group(Ranks):
    """This process in a run of ``place.size`` processes."""

    def __init__(self, place: Place, group: dist.ProcessGroup, requests: list[int] | None) -> None:
        """``requests``: the list of the parent's requests to stop; None without a parent."""
        self.place, self.group, self.requests = place, group, requests
        self.rank, self.size = place.rank, place.size

    def average(self, x: Tensor) -> None:
        with _reaching():
            dist.all_reduce(x, group=self.group)
        x.div_(self.size)

    def gather(self, mine: Mapping[str, Tensor]) -> list[Mapping[str, Tensor]]:
        """Send tensors in the safetensors format, because torch would use pickle."""
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
        """Run the block on rank 0 of each machine first. A ``gather`` of all ranks starts the others."""
        first = self.place.local_rank == 0
        if not first:
            self.gather({})
        yield
        if first:
            self.gather({})

    def stop_requests(self) -> AbstractContextManager[list[int]]:
        """The signals of this process, or the requests of the parent."""
        return super().stop_requests() if self.requests is None else nullcontext(self.requests)


@contextmanager
def join(place: Place, requests: list[int] | None, join_timeout: float, cuda: bool) -> Iterator[Ranks]:
    """Connect to the other ranks within ``join_timeout`` seconds; disconnect at the end.

    Raises UserError if they can't be reached. The block raises LostRank if a rank is lost later.
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
        if place.rank > 0:  # the parent keeps this text, and may know the rank that failed first
            print(lost, file=sys.stderr)
        raise SystemExit(LOST) from None
    finally:
        dist.destroy_process_group()


@contextmanager
def _ending_after(seconds: float, why: str) -> Iterator[None]:
    """End the process if the block takes longer than ``seconds``; no work can be lost at this point.

    gloo applies its time limit only to some of its waits: if one rank can't connect, another waits for ever.
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
    """The store through which ranks connect: torchrun's, or rank 0's at the socket that launch.py bound."""
    if place.listener is None:
        host = f"[{place.address}]" if ":" in place.address else place.address  # IPv6 in a URL
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
    """Turn errors of gloo, NCCL and the store (all are RuntimeErrors) into LostRank."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).partition("] ")[2] or str(error)  # gloo's text begins with a line of its source
        reason = " ".join(reason.split(". ")[0].split())[:100]
        raise LostRank(
            f"Another process of this run ended or can't be reached any more ({reason}): look at its last "
            "lines, and continue from the last checkpoint with --resume."
        ) from error

"""The processes of one run as a group that averages and gathers (torch.distributed; gloo, NCCL on CUDA).

Synchronous data parallelism: each rank steps its own users and computes the gradient of its own part of
each minibatch. The mean over ranks is the gradient of the whole minibatch. Weights and optimiser are the
same on all ranks after every step, so they are never sent.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

import safetensors.torch
import torch
import torch.distributed as dist
from torch import Tensor

from recsys_rl.settings.config import Config
from recsys_rl.training.ranks import Ranks, size_of_run
from recsys_rl.types import UserError

LOST = 3
"""Exit code of a rank that lost the others: another one failed first."""
JOIN_WITHIN = timedelta(seconds=60)
"""The time limit of the first exchange."""
# The time limit of every other. The other ranks wait that long for rank 0, because only rank 0 evaluates
# and downloads. A rank that dies closes its connections, so the others notice it at once.
PATIENCE = timedelta(minutes=30)


class LostRank(UserError):
    """An exchange failed: another rank ended or can't be reached any more."""


class Group(Ranks):
    """This process in a run of several processes, connected by ``group``."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        self.group, self.rank, self.size = group, dist.get_rank(), dist.get_world_size()

    def average(self, values: Tensor) -> None:
        with _reaching():
            dist.all_reduce(values, group=self.group)
        values.div_(self.size)

    def gather(self, mine: Mapping[str, Tensor]) -> list[Mapping[str, Tensor]]:
        """Send tensors in the safetensors format, because torch would use pickle."""
        own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in mine.items()}
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
        first = local_rank() == 0
        if not first:
            self.gather({})
        yield
        if first:
            self.gather({})


def local_rank() -> int:
    """The rank of this process among those of its machine, from torchrun's environment."""
    return int(os.environ["LOCAL_RANK"])


def sized(config: Config) -> Config:
    """``config`` with the number of processes that were started; ``train`` refuses another one of a run."""
    settings, size = config.train_config, size_of_run()
    if settings.num_processes > 1:
        return config
    return dataclasses.replace(config, train_config=dataclasses.replace(settings, num_processes=size))


@contextmanager
def join(cuda: bool) -> Iterator[Ranks]:
    """Connect to the other ranks of torchrun's environment; disconnect at the end.

    Raises UserError if they can't be reached. A rank that loses another one later ends with the exit code
    LOST.
    """
    try:
        if cuda and local_rank() >= torch.cuda.device_count():
            raise UserError(
                f"This machine has {torch.cuda.device_count()} CUDA devices and needs one for each process: "
                "start fewer, or use --device cpu."
            )
        dist.init_process_group("gloo", timeout=JOIN_WITHIN)
        if cuda:
            torch.cuda.set_device(local_rank())
        group = dist.new_group(backend="cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=PATIENCE)
    except (KeyError, ValueError, RuntimeError) as error:
        raise UserError(
            f"This process did not meet the others of its run ({' '.join(str(error).split())[:100]}): start "
            "all with torchrun, which sets RANK, LOCAL_RANK, MASTER_ADDR and MASTER_PORT, and see that "
            "GLOO_SOCKET_IFNAME names the network card between machines."
        ) from error
    try:
        yield Group(group)
    except LostRank as lost:
        print(f"error: {lost}", file=sys.stderr)
        raise SystemExit(LOST) from None
    finally:
        dist.destroy_process_group()


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

"""Which process of a run this one is, by the environment variables of torchrun. Needs no tensors."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from recsys_rl.config import Config
from recsys_rl.errors import UserError
from recsys_rl.utils.stopping import STOP_SIGNALS

LAUNCHED = "RECSYS_RL_LISTENER"  # set by launch.py: the descriptor of the socket that rank 0 listens at
LOST = 3  # exit code of a rank that lost the others: launch.py looks for the one that ended first


@dataclass(frozen=True)
class Place:
    """One process of a run."""

    rank: int  # among all, from 0
    size: int
    local_rank: int  # among those of this machine
    address: str  # where rank 0 (or torchrun) listens
    port: int
    listener: int | None = None  # descriptor; None where another program than launch.py started the ranks

    def settle(self, config: Config) -> Config:
        """``config`` with the number of processes that were started.

        Raises UserError where it asks for another number.
        """
        settings = config.train_config
        if settings.num_processes not in (1, self.size):
            raise UserError(
                f"--num-processes is {settings.num_processes}, and {self.size} processes were started: leave "
                "it out, or start as many."
            )
        return dataclasses.replace(
            config, train_config=dataclasses.replace(settings, num_processes=self.size)
        )


def find_place(environment: Mapping[str, str] = os.environ) -> Place | None:
    """The place that torchrun or launch.py gave to this process; None where it is alone.

    Raises UserError where the variables don't make sense.
    """
    if environment.get("WORLD_SIZE", "1") == "1":
        return None
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")
    try:
        rank, size, local_rank, port = (int(environment[name]) for name in names)
        address = environment["MASTER_ADDR"]
        if not (0 <= rank < size and local_rank >= 0 and 0 < port < 2**16 and address):
            raise ValueError
    except (KeyError, ValueError):
        given = ", ".join(f"{name}={environment.get(name)}" for name in (*names, "MASTER_ADDR"))
        raise UserError(
            f"The environment describes no process of a run ({given}): start with torchrun, or unset "
            "WORLD_SIZE."
        ) from None
    listener = environment.get(LAUNCHED)
    return Place(rank, size, local_rank, address, port, None if listener is None else int(listener))


def obey_parent() -> list[int]:
    """For a process that launch.py started: one byte on stdin asks it to stop, and the end of stdin ends it.

    So no rank outlives its parent, however that one died. Signals are ignored, because Ctrl-C in a
    terminal and many supervisors send theirs to the whole group, the parent included. Returns the list
    that the requests are appended to.
    """
    requests: list[int] = []

    def listen() -> None:
        while os.read(0, 1):
            requests.append(signal.SIGTERM)
        os._exit(LOST)

    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=listen, name="parent", daemon=True).start()
    return requests

"""Find the rank of this process from torchrun's environment variables. Imports no torch."""

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

LAUNCHED = "RECSYS_RL_LISTENER"  # set by launch.py: the descriptor of rank 0's listening socket
LOST = 3  # exit code of a rank that lost the others; launch.py looks for the rank that failed first


@dataclass(frozen=True)
class Place:
    """One process of a run."""

    rank: int  # among all processes, from 0
    size: int
    local_rank: int  # among the processes of this machine
    address: str  # of the socket of rank 0 (or torchrun)
    port: int
    listener: int | None = None  # descriptor; None if a program other than launch.py started the ranks

    def settle(self, config: Config) -> Config:
        """``config`` with the number of started processes.

        Raises UserError if ``config`` has another number above 1.
        """
        settings = config.train_config
        if settings.num_processes not in (1, self.size):
            raise UserError(
                f"--num-processes is {settings.num_processes}, but {self.size} processes were started: omit "
                f"it, or start {settings.num_processes}."
            )
        return dataclasses.replace(
            config, train_config=dataclasses.replace(settings, num_processes=self.size)
        )


def find_place(environment: Mapping[str, str] = os.environ) -> Place | None:
    """The place that torchrun or launch.py gave to this process; None for a single process.

    Raises UserError if the variables are missing or contradict each other.
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
    """Read the parent's requests from stdin, in a process of launch.py: a byte means stop, the end exit.

    So a rank ends when its parent dies for any reason. Signals are ignored, because a terminal's Ctrl-C
    and many supervisors signal the whole group, and so the parent too. Returns the list to which requests
    are appended.
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

"""`--on ray`: tasks on the nodes of a Ray cluster. ``in_processes.py`` has the same for one machine.

The cluster is that of RAY_ADDRESS. Without it, one is started on this machine that listens on loopback alone
and ends with the command. Usage statistics are off. A task whose worker or node dies is done again elsewhere.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from typing import Any, TypeVar
from urllib.parse import urlsplit

from recsys_rl.distributed.sent import AHEAD, TRIES, ended, packed, packed_item, result_of
from recsys_rl.errors import UserError, one_line
from recsys_rl.version import __version__

T = TypeVar("T")
R = TypeVar("R")
REACHED_WITHIN = 5
"""Seconds in which the head of a cluster has to answer."""


class OnRay:
    """Maps functions over items on a cluster, which it joins at the first call; a ``MapTasks``."""

    def __init__(self, threads: int = 1) -> None:
        """``threads``: of torch in each task, where the function sets no other number.

        Raises UserError without Ray, and for an address where no cluster answers.
        """
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        self.threads = threads
        self.address = os.environ.get("RAY_ADDRESS")
        if self.address == "local":  # Ray's word for a cluster of this machine
            self.address = None
        if not self.address:  # read while ray is imported: a node without others has the loopback address
            os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        try:
            self.ray = import_module("ray")
        except ImportError as error:
            raise UserError(
                f"--on ray needs the package ray ({one_line(error)}): pip install 'recsys-rl[ray]', or leave "
                "--on out and give --jobs N for processes of this machine."
            ) from None
        if self.address and self.address != "auto":
            _check_answers(self.address)

    def __call__(self, function: Callable[[T], R], items: Iterable[T], /) -> Iterator[R]:
        ray, rest = self._joined(), iter(items)
        remote = ray.remote(num_cpus=1, max_retries=TRIES - 1)(_task())
        sent = ray.put(packed(function, self.threads))
        ahead = AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
        begun = deque[Any]()
        try:
            while True:
                while len(begun) < ahead:
                    for item in rest:
                        begun.append(remote.remote(__version__, sent, packed_item(item)))
                        break
                    else:
                        break
                if not begun:
                    return
                yield self._result(begun[0])
                begun.popleft()
        finally:
            # Not by force: Ray 2.60 ends this process if such a task completes at the same moment.
            for reference in begun:
                with contextlib.suppress(ray.exceptions.RayError):
                    ray.cancel(reference)

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        self.ray.shutdown()

    def _joined(self) -> Any:
        if not self.ray.is_initialized():
            local = {} if self.address else {"include_dashboard": False}
            try:
                self.ray.init(
                    address=self.address or "local",
                    log_to_driver=False,
                    configure_logging=False,
                    logging_level="error",
                    **local,
                )
            except (ConnectionError, ImportError, RuntimeError, ValueError) as error:
                raise UserError(
                    f"The Ray cluster {self.address or 'of this machine'} can't be used "
                    f"({one_line(error)[:200]}): correct RAY_ADDRESS, or unset it for a local cluster."
                ) from None
        return self.ray

    def _result(self, reference: Any) -> Any:
        errors = self.ray.exceptions
        try:
            return result_of(self.ray.get(reference))
        except errors.OutOfMemoryError as error:
            raise _ended(error, "give the nodes more memory, or let each run fewer tasks at once") from None
        except (errors.WorkerCrashedError, errors.NodeDiedError) as error:
            mend = "see Ray's log of that node, or run the command without --on ray"
            raise _ended(error, mend) from None
        except errors.RayTaskError as error:
            raise RuntimeError(str(error)) from None
        except errors.RayError as error:
            raise UserError(
                f"The Ray cluster lost a task ({one_line(error)[:200]}): see that its nodes are alive, and "
                "run the command again."
            ) from None


def _ended(error: Exception, mend: str) -> UserError:
    return ended("The worker of a task on Ray", f"as {type(error).__name__} ({one_line(error)[:200]})", mend)


def _check_answers(address: str) -> None:
    """Raise UserError unless something listens at HOST:PORT, as Ray itself waits for minutes."""
    try:
        place = urlsplit(address if "://" in address else f"//{address}")
        with socket.create_connection((place.hostname or "", place.port or 6379), REACHED_WITHIN):
            pass
    except (OSError, ValueError) as error:
        raise UserError(
            f"RAY_ADDRESS is {one_line(address)}, and no Ray cluster answers there ({one_line(error)}): "
            "start it, correct the address, or unset RAY_ADDRESS for a cluster of this machine."
        ) from None


def _task() -> Callable[[str, bytes, bytes], bytes]:
    """The function that a worker runs. Ray sends its code, as a worker may lack this module."""

    def task(version: str, function: bytes, item: bytes) -> bytes:
        from platform import node

        try:
            from recsys_rl.version import __version__ as here
        except ImportError:
            here = "none"
        if here != version:
            text = (
                f"The Ray worker on {node()} has another version of recsys-rl ({here}) than this machine "
                f"({version}): install {version} on every node."
            )
            return b"!" + text.encode()
        from recsys_rl.distributed.sent import answer

        return answer(function, item)

    return task

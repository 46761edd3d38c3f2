"""A function and its items as bytes for another process, and what comes back.

cloudpickle writes what Python's own pickle can't, as functions within functions. Only processes that this
command started, or the nodes of the user's own cluster, read these bytes; no file holds them.
"""

from __future__ import annotations

import functools
import os
import sys
import traceback
from typing import Any

import cloudpickle
import torch

from recsys_rl.errors import UserError

TRIES = 4
"""Number of times that a task is begun if its process ends each time; then the command ends with an error."""
STOPPED = 130
"""Exit code of a process that was asked to end during a task, as a shell has it for Ctrl-C."""
AHEAD = 4
"""Items that are begun before the first one is done, for each process."""
DONE, WRONG, BROKEN = b"+", b"!", b"x"
"""The first byte of an answer: a result, the sentence of a UserError, or the text of another error."""


def packed(function: Any, threads: int) -> bytes:
    """The function for ``answer``, with the working folder and import path of this process.

    ``threads``: of torch in each process, 0: its choice. Sums of several threads differ in the last digit.
    """
    return packed_item((os.getcwd(), sys.path, threads, packed_item(function)))


def packed_item(item: Any) -> bytes:
    return bytes(cloudpickle.dumps(item))


@functools.lru_cache(maxsize=1)  # the items of one command have one function
def _unpacked(sent: bytes) -> Any:
    folder, path, threads, function = cloudpickle.loads(sent)
    if os.path.isdir(folder):  # another machine may lack it; then a relative path is not found
        os.chdir(folder)
    sys.path += [place for place in path if place not in sys.path]
    if threads:  # else torch's choice
        torch.set_num_threads(threads)
    return cloudpickle.loads(function)


def answer(function: bytes, item: bytes) -> bytes:
    """The result of the function for the item, or its error, as bytes for ``result_of``.

    A KeyboardInterrupt, as of a training that SIGTERM has ended, ends this process, so that the task is done
    again in another one.
    """
    try:
        return DONE + packed_item(_unpacked(function)(cloudpickle.loads(item)))
    except UserError as error:
        return WRONG + str(error).encode()
    except KeyboardInterrupt:
        os._exit(STOPPED)  # Ray would take the exception for one of its own
    except Exception:
        return BROKEN + traceback.format_exc().encode()


def result_of(answered: bytes) -> Any:
    """The result in an answer. Raises UserError for a mistake of the user, RuntimeError for another error."""
    kind, content = answered[:1], answered[1:]
    if kind == DONE:
        return cloudpickle.loads(content)
    if kind == WRONG:
        raise UserError(content.decode())
    raise RuntimeError(f"in another process:\n{content.decode()}")


def ended(what: str, how: str, mend: str) -> UserError:
    """The error for a task whose process ended each time before its answer.

    Args:
        what: the process.
        how: it ended the last time.
        mend: what the user can do, in words.
    """
    return UserError(f"{what} ended {TRIES} times before its answer, the last time {how}: {mend}.")

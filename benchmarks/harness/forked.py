"""Servers that are forks of one process, which has imported what a server needs: no start waits for torch.

For tests, and for benchmarks that don't measure the start. That one process is Python's own fork server. It
has no threads, and it ends with the process that started the first server.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path

from benchmarks.harness.served import Server
from recsys_rl.cli import main

CONTEXT = get_context("forkserver")
IMPORTED = ("recsys_rl.serving.server", "recsys_rl.logs.ope.read_log", "recsys_rl.training.train_seeds")
"""Modules that a fork finds imported, with all that they need."""
CONTEXT.set_forkserver_preload([*IMPORTED])


class Fork:
    """A command in a fork, with the methods of ``subprocess.Popen`` that ``Server`` and tests call."""

    def __init__(
        self, words: Sequence[str], log: Path, environment: Mapping[str, str], context: BaseContext
    ) -> None:
        arguments = ([*words], str(log), dict(environment))
        self._process: BaseProcess = context.Process(  # type: ignore[attr-defined]
            target=_run,
            args=arguments,
            daemon=True,  # ends with this process: a test that fails leaves none
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code. Raises subprocess.TimeoutExpired."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("a fork", timeout or 0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


class Forked(Server):
    """``Server``, but it starts in a moment."""

    context: BaseContext = CONTEXT

    def _begun(self, words: Sequence[str], environment: Mapping[str, str]) -> Fork:
        return Fork(words, self.log, environment, self.context)


class ForkOfThis(Forked):
    """The same, but a fork of this process, which has imported the package and has no threads."""

    context = get_context("fork")


def _run(words: Sequence[str], log: str, environment: Mapping[str, str]) -> None:
    """The command, as a shell would start it."""
    said = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(said, sys.stdout.fileno())
    os.dup2(said, sys.stderr.fileno())
    os.environ.clear()
    os.environ.update(environment)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main([*words]))

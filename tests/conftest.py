"""Settings of all tests: separate folders, and no time limits on a busy machine."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from multiprocessing import forkserver

import pytest
from hypothesis import settings

from benchmarks.harness.forked import CONTEXT
from recsys_rl.distributed import in_processes
from tests import proofs
from tests.doors import STARTED
from tests.proofs import perturbed as perturbed
from tests.proofs import proof as proof

settings.register_profile("any machine", deadline=None, max_examples=50)
settings.load_profile("any machine")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache folder of this session, for what runs in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def own_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A current folder of this session: `train` writes runs/ and checkpoints/ there, not in the checkout."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("current"))
        yield


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk() -> Iterator[None]:
    """No fsync in this process, where nobody cuts the power: it takes most of the time of a tiny run.

    Tests of what survives a power cut have processes of their own.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def workers_are_forked(own_cache: None, own_folder: None) -> Iterator[None]:
    """The processes of ``--jobs`` are forks of one that has imported torch, and not each a new Python.

    That one starts here, so that it has the environment of no single test.

    Commands that have a process of their own, as in tests of Ctrl-C and of a command that is killed, start
    them as users do.
    """
    forkserver.ensure_running()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(in_processes, "get_context", lambda _: CONTEXT)
        yield


@pytest.fixture(scope="session", autouse=True)
def parsers_are_made_once() -> Iterator[None]:
    """This saves time alone: a tyro without these names makes each parser again."""
    with pytest.MonkeyPatch.context() as patch:
        with contextlib.suppress(ImportError, AttributeError):
            from tests.parsers import CLASS, made_once

            patch.setattr(CLASS, "from_callable_or_type", staticmethod(made_once))
        yield


@pytest.fixture(autouse=True)
def no_process_left() -> Iterator[None]:
    """A test that fails leaves no training behind."""
    yield
    while STARTED:
        with STARTED.pop() as process:
            process.kill()


def pytest_addoption(parser: pytest.Parser) -> None:
    proofs.add_options(parser)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    proofs.repeat(metafunc)


@pytest.hookimpl(tryfirst=True)  # before pytest chooses by marker
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests come first: at the end one of two processes would wait for one of them.

    These are the tests with a time limit of their own.
    """
    proofs.mark(items)
    items.sort(key=lambda item: item.get_closest_marker("timeout") is None)

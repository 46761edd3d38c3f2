"""Tasks on a Ray cluster of two nodes on this machine."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recsys_rl.cli import main
from recsys_rl.distributed import on_ray
from recsys_rl.distributed.on_ray import OnRay
from recsys_rl.errors import UserError
from recsys_rl.logs.describe.survey import _problem
from recsys_rl.logs.ope import read_log as ope_log
from tests.doors import DRIFT, assert_same_weights, steps
from tests.log_in_parts import log_of, write_parts

SMALL = 80 * 2**20
"""Bytes of the object store of a node: the least that Ray takes is 75 MiB."""
CLOSE = OnRay.close


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes with one core each, on loopback; RAY_ADDRESS names them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        # With Ray's own 15 a task has a thirtieth of a core that others want: minutes on a busy machine.
        patch.setenv("RAY_worker_niceness", "0")
        utils = pytest.importorskip("ray.cluster_utils")
        made = utils.Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 1, "object_store_memory": SMALL, "include_dashboard": False},
        )
        try:
            made.add_node(num_cpus=1, object_store_memory=SMALL)
            patch.setenv("RAY_ADDRESS", made.address)
            yield made
        finally:
            made.shutdown()


@pytest.fixture(scope="module")
def engine(cluster: Any) -> Iterator[OnRay]:
    """Joined once for all tests: in a job that is new to the nodes, each of them imports torch again."""
    on_cluster = OnRay()
    yield on_cluster
    on_cluster.close()
    assert not on_cluster.ray.is_initialized()


@pytest.fixture
def left(engine: OnRay, monkeypatch: pytest.MonkeyPatch) -> list[OnRay]:
    """The engines that commands have closed; they stay in the job of ``engine``."""
    closed: list[OnRay] = []
    monkeypatch.setattr(OnRay, "close", lambda engine: closed.append(engine))
    return closed


@pytest.mark.proof
def test_results_are_in_order_killed_tasks_are_done_again_and_errors_come_back(
    engine: OnRay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def square(number: int) -> int:
        mark = tmp_path / str(number)
        if number == 3 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if number == 7:
            raise UserError("Number 7 is wrong: give another.")
        return number * number

    assert [*engine(square, iter(range(5)))] == [0, 1, 4, 9, 16]
    assert os.listdir(tmp_path) == ["3"]
    with pytest.raises(UserError, match=r"^Number 7 is wrong: give another\.$"):
        [*engine(square, [6, 7])]
    monkeypatch.setattr(on_ray, "__version__", "0.0.0")
    with pytest.raises(UserError, match="another version"):
        [*engine(square, [1])]


@pytest.mark.proof
def test_ope_of_a_folder_is_that_of_one_process(
    left: list[OnRay], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ope_log, "FITTED", 300)
    log = write_parts(tmp_path / "log", log_of(300, 3), 16)

    def answer(*words: str) -> str:
        out = tmp_path / "out.json"
        shown = ["--policy", "random", "--no-world", "--json", str(out)]
        assert main(["ope", "--log", str(log), *shown, *words]) == 0
        return out.read_text()

    assert answer("--on", "ray") == answer()
    assert len(left) == 1


def test_no_ray_and_no_cluster_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    with pytest.raises(UserError):
        OnRay()
    monkeypatch.setenv("RAY_ADDRESS", "local")  # Ray's word for a cluster of this machine
    assert OnRay().address is None
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match="pip install"):
        OnRay()


@pytest.mark.proof
def test_seeds_and_checksums_on_ray_are_those_of_one_process(
    engine: OnRay, left: list[OnRay], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["train", *DRIFT, *steps(2)]
    assert main([*words, "--seeds", "1,2", "--on", "ray"]) == 0
    assert main([*words, "--seed", "2", "--runs-dir", "alone"]) == 0
    assert_same_weights(Path("runs/drift-synthetic-ppo-2/ppo.pt"), Path("alone/drift-synthetic-ppo-2/ppo.pt"))
    write_parts(tmp_path / "log", log_of(60, 3), 3)

    def description(*words: str) -> str:
        assert main(["data", "describe", "log", "--json", "found.json", *words]) == 0
        return Path("found.json").read_text()

    monkeypatch.setattr(OnRay, "close", CLOSE)  # the last command of this file really leaves the cluster
    assert description("--on", "ray") == description()
    assert len(left) == 1 and not engine.ray.is_initialized()
    with pytest.raises(UserError):  # as on a node that lacks the disk
        _problem(Path("elsewhere.parquet"))

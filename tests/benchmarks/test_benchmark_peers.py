"""The peers of the benchmarks train on our environment and see its sessions as they are."""

from __future__ import annotations

import itertools
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks import throughput
from benchmarks.harness import turns
from benchmarks.harness.settings import Act
from benchmarks.harness.turns import System
from benchmarks.harness.world import World, make_world
from benchmarks.peers import PEERS, original
from recsys_rl.types import UserError


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(seed=0, num_items=20, num_users=20)


def test_original_is_timed_by_its_own_command(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in that fails if it is asked for another number of steps, and leaves a file where it runs."""
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents/ppo.py").touch()
    command = tmp_path / "train.py"
    command.write_text("import sys; assert sys.argv[4] in ('2048', '6144'); open('checkpoint', 'w')")
    original.check(tmp_path)
    dials = throughput.settings(8, 256, 64, 10, updates=2)
    row = original.original(tmp_path, world, dials)
    assert row["steps_per_s"] and sorted(x.name for x in tmp_path.iterdir()) == ["agents", "train.py"]
    with monkeypatch.context() as patch:  # two seconds until it begins, and then a millisecond a step
        patch.setattr(original, "_seconds", lambda folder, steps: 2 + steps / 1000)
        assert original.original(tmp_path, world, dials)["steps_per_s"] == pytest.approx(1000)
    command.write_text("raise SystemExit('no numpy here')")
    system = System("original", "", "", "torch", partial(original.original, tmp_path))
    assert turns.attempt(system, world, dials) == {"note": "RuntimeError: no numpy here"}
    note = original.original(None, world, dials)["note"]
    assert note.startswith("not given: --original DIR")
    with pytest.raises(UserError):
        original.check(tmp_path / "agents")


@pytest.mark.parametrize("name", PEERS)
def test_peers_train_and_act(name: str, world: World) -> None:
    """``between`` comes before the first rollout and after each update, with a policy for batches."""
    pytest.importorskip(PEERS[name].module)
    train = PEERS[name].train
    dials = throughput.settings(4, 8, 16, 1, updates=2)
    context = torch.zeros(9, world.config.env_config.state_dim)
    shown: list[Tensor] = []

    def between(act: Act) -> bool:
        items = act(context, True)
        assert items.shape == (9,) and len(set(items.tolist())) == 1  # the same users, the same answer
        sampled = torch.cat([act(context, False) for _ in range(8)])
        assert sampled.dtype == torch.int64 and len(sampled.unique()) > 1
        assert int(sampled.min()) >= 0 and int(sampled.max()) < 20
        shown.append(items)
        return True

    train(world.env(4, 0), dials, 0, between)
    assert len(shown) == 1 + 3

    calls = itertools.count()
    train(world.env(4, 0), dials, 0, lambda act: next(calls) < 1)
    assert next(calls) == 2  # it stopped when it was told to


def test_torchrl_sees_whole_sessions(world: World) -> None:
    """At an end the next observation is the true successor, and the one after it begins a session."""
    pytest.importorskip("torchrl")
    from benchmarks.peers.torchrl_ppo import BatchedDrift

    played = BatchedDrift(world.env(3, 0)).rollout(25, break_when_any_done=False)  # (3, 25)
    before, after = played["observation"], played["next", "observation"]
    size = world.config.env_config.embedding_dim
    assert played["next", "truncated"][:, 19].all() and not played["next", "terminated"].any()
    assert torch.equal(after[:, :19], before[:, 1:20])
    shown = world.catalogue.embedding[played["action"][:, 19]]
    assert torch.equal(after[:, 19, size:], shown)  # the last item of the session that ended
    assert (before[:, 20, size:] == 0).all()  # nothing shown yet


def test_tianshou_sees_whole_sessions(world: World) -> None:
    pytest.importorskip("tianshou")
    from benchmarks.peers.tianshou_ppo import BatchedDrift

    venv, ids, items = BatchedDrift(world.env(3, 0)), [0, 1, 2], [5, 6, 7]
    size = world.config.env_config.embedding_dim
    venv.reset()
    for step in range(20):
        after, _, terminated, truncated, _ = venv.step(items, ids)
        assert truncated.all() == (step == 19) and not terminated.any()
    assert (after[:, size:] == world.catalogue.embedding[items].numpy()).all()
    fresh, _ = venv.reset([0, 2])
    assert fresh.shape == (2, 2 * size) and (fresh[:, size:] == 0).all()

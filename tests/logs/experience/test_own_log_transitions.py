"""A record of `satiation` as a team's plain CSV file: the same transitions as from the log itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.harness.plain_log import plain_log
from recsys_rl.checkpoint import load
from recsys_rl.data.catalogue import split_users
from recsys_rl.logs.experience.logged import Logged, make_logged
from recsys_rl.logs.parts import read_decisions
from recsys_rl.make import make_world
from recsys_rl.settings.config import Config, brought_settings
from recsys_rl.types import Interface, Obs, World
from tests.learned_world import make_log


def logged(config: Config, world: World) -> Logged:
    return make_logged(config, world, torch.Generator().manual_seed(0))


def pieces(interface: Interface, obs: Obs) -> dict[str, Tensor]:
    """The pieces (N, size) of the context, by name."""
    sizes = [size for _, size in interface.context]
    names = [name for name, _ in interface.context]
    return dict(zip(names, obs.context.split(sizes, 1), strict=True))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Logged, Logged]:
    """The log itself, of the platform, and the CSV file of it."""
    folder = tmp_path_factory.mktemp("satiation")
    path, record = make_log(folder)
    checkpoint = load(path)
    settings: dict[str, Any] = {"log": (str(record),), "checkpoint": str(path)}
    names = ("data_config", "env_config")
    sections = {name: getattr(checkpoint.config, name) for name in names}
    # Made-up users are held out by their number, and those of a log by the hash of their id.
    people, held = checkpoint.population, torch.from_numpy(split_users(range(30), 0.2, 0))
    people = replace(people, train=(~held).nonzero()[:, 0], heldout=held.nonzero()[:, 0])
    of_platform = logged(
        Config(algo="bc", env="satiation", **sections, **settings), World(checkpoint.catalogue, people)
    )
    log, items = plain_log(read_decisions(record), checkpoint.catalogue, folder)
    settings = {"log": (str(log),), "items": str(items)}
    config = Config(**{"algo": "bc", "env": "own-log", **brought_settings("own-log", settings), **settings})
    return of_platform, logged(config, make_world(config))


def test_decisions_rewards_and_ends_are_equal(both: tuple[Logged, Logged]) -> None:
    """The held-out users are the same, too."""
    one, other = (log.table for log in both)
    assert one.num_rows > 200
    for name in ("items", "rewards", "terminated", "truncated", "returns_to_go", "steps_left", "steps"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    torch.testing.assert_close(one.logprobs, other.logprobs, atol=1e-12, rtol=0)
    assert torch.equal(one.possible, other.possible)


def test_observations_are_equal_piece_by_piece(both: tuple[Logged, Logged]) -> None:
    one, other = (log.table.at(torch.arange(log.table.num_rows)) for log in both)
    interface, own = (log.interface for log in both)
    assert own.history_length == interface.history_length and own.signals == interface.signals
    assert own.repeats == interface.repeats and own.profile == interface.profile
    for mine, theirs in ((one.obs, other.obs), (one.next_obs, other.next_obs)):
        here, there = pieces(interface, mine), pieces(own, theirs)
        assert all(torch.equal(here[name], there[name]) for name in ("profile", "last_item"))
        assert torch.equal(there["clock"][:, 0] * own.session_length, (mine.history >= 0).sum(1).float())
        assert torch.equal(mine.history, theirs.history) and torch.equal(mine.signals, theirs.signals)
        assert mine.exclude is not None and torch.equal(mine.exclude, theirs.exclude)
        assert torch.equal(mine.allowed(24), theirs.allowed(24))


def test_items_have_the_embeddings_of_the_record(both: tuple[Logged, Logged]) -> None:
    """So that the last item of an observation is the same vector; a draw of both has the same decisions."""
    one, other = (log.batch().data for log in both)
    assert torch.equal(one.items, other.items) and torch.equal(one.rewards, other.rewards)

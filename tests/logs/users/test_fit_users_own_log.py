"""Users who are learned from a team's own table with sessions, and a policy that is trained in them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from recsys_rl.checkpoint import load, save
from recsys_rl.data.catalogue import split_users
from recsys_rl.errors import UserError
from recsys_rl.logs.users.file import load_users
from recsys_rl.logs.users.fit_users import fit_users
from recsys_rl.make import agent_of
from recsys_rl.models.policy import CHANCE
from recsys_rl.recommender import load as load_recommender
from recsys_rl.recommender.contexts import pieces_of
from recsys_rl.training.train import train, updates
from tests.own_logs import clicks, items_file, policy, sessions

SMALL: dict[str, Any] = {"members": 1, "epochs": 1, "quiet": True}


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys_rl.logs.users.fit.LEAST_STEPS", 2)


def test_users_are_learned_and_a_policy_is_trained_in_them_and_comes_home(tmp_path: Path) -> None:
    log, items = sessions(tmp_path / "s.csv"), str(items_file(tmp_path / "items.csv"))
    out = str(tmp_path / "users.pt")
    fit_users(log=str(log), items=items, weights=("clicked=2",), out=out, **SMALL)
    users = load_users(out)
    assert [signal.name for signal in users.facts.signals] == ["clicked", "dwell"]
    assert [(stream.name, stream.weight) for stream in users.facts.streams] == [("clicked", 2), ("dwell", 0)]
    people = users.world.population
    ids = sorted({int(line.split(",")[0]) for line in log.read_text().splitlines()[1:]})
    assert people.user_ids.tolist() == ids
    held = torch.from_numpy(split_users(ids, 0.2, 0))
    assert torch.equal(people.heldout, held.nonzero().squeeze(1))
    sizes: dict[str, Any] = {"num_envs": 8, "n_steps": 8, "batch_size": 32}
    run = updates(algo="ppo", env="learned", user_model=out, folder=tmp_path / "run", **sizes)
    next(run)
    run.close()
    assert load(tmp_path / "run/ppo.pt").config.env == "learned"
    recommender = load_recommender(tmp_path / "run/ppo.pt")
    assert recommender.checkpoint.config.data_config.items == items
    assert recommender.recommend(context={"age": 30}, k=1)[0].title.startswith("Thing")


def test_users_of_two_files_are_those_of_the_whole(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"weights": ("clicked=1",), **SMALL}
    frame = pl.read_csv(sessions(tmp_path / "s.csv"))
    first = frame["session"].is_in(frame["session"].unique(maintain_order=True)[:20].implode())
    frame.filter(first).write_csv(tmp_path / "a.csv")
    frame.filter(~first).write_parquet(tmp_path / "b.parquet")
    parts = (str(tmp_path / "a.csv"), str(tmp_path / "b.parquet"))
    pl.concat([frame.filter(first), frame.filter(~first)]).write_csv(tmp_path / "whole.csv")
    fit_users(log=str(tmp_path / "whole.csv"), out=str(tmp_path / "whole.pt"), **settings)
    fit_users(log=parts, out=str(tmp_path / "parts.pt"), **settings)
    whole, of_parts = (load_users(str(tmp_path / name)) for name in ("whole.pt", "parts.pt"))
    assert torch.equal(whole.world.population.heldout, of_parts.world.population.heldout)
    assert torch.allclose(whole.means, of_parts.means, atol=1e-4)  # the sums are taken in another order
    weights, same = (of.members[0].state_dict() for of in (whole, of_parts))
    assert weights and all(torch.allclose(weights[name], same[name], atol=1e-3) for name in weights)


def test_its_policy_learns_without_chance_and_serves_with_it(tmp_path: Path) -> None:
    log, out = sessions(tmp_path / "s.csv"), str(tmp_path / "users.pt")
    first = policy(tmp_path / "first.pt", log, weights=("clicked=1",))
    fit_users(log=str(log), checkpoint=str(first), out=out, **SMALL)
    sizes: dict[str, Any] = {
        "num_envs": 8,
        "n_steps": 8,
        "batch_size": 32,
        "hidden_dims": (8,),
        "quiet": True,
    }
    path = train(
        algo="ppo", env="learned", user_model=out, total_timesteps=64, folder=tmp_path / "run", **sizes
    )
    trained, served = load(path), load_recommender(path).checkpoint
    assert agent_of(trained).model.chance == 0.0 and agent_of(served).model.chance == CHANCE
    assert pieces_of(served) == pieces_of(load(first))
    older = {name: value for name, value in trained.info.items() if name != "chance_at_home"}
    save(tmp_path / "older.pt", replace(trained, info=older))
    assert agent_of(load_recommender(tmp_path / "older.pt").checkpoint).model.chance == 0.0
    for wrong in (1.0, -0.1, "0.08"):
        save(tmp_path / "wrong.pt", replace(trained, info={**trained.info, "chance_at_home": wrong}))
        with pytest.raises(UserError):
            load(tmp_path / "wrong.pt")


def test_a_checkpoint_brings_its_items_and_weights(tmp_path: Path) -> None:
    log, out = sessions(tmp_path / "s.csv"), str(tmp_path / "users.pt")
    mine = policy(tmp_path / "mine.pt", log, weights=("dwell=3",))
    newer = sessions(tmp_path / "newer.csv", seed=1)
    fit_users(log=str(newer), checkpoint=str(mine), out=out, **SMALL)
    facts = load_users(out).facts
    assert {stream.name: stream.weight for stream in facts.streams} == {"clicked": 0, "dwell": 3}
    assert facts.interface == load(mine).interface
    for wrong in ({"weights": ("clicked=1",)}, {"items": "items.csv"}, {"data": "synthetic"}):
        with pytest.raises(UserError):
            fit_users(log=str(newer), checkpoint=str(mine), out=out, **SMALL, **wrong)


def test_single_decisions_and_options_without_effect_are_refused(tmp_path: Path) -> None:
    log, out = clicks(tmp_path / "clicks.csv"), tmp_path / "users.pt"
    for settings in ({}, {"env": "drift"}, {"data": "synthetic"}, {"user_column": "who"}):
        with pytest.raises(UserError):
            fit_users(log=str(log), out=str(out), **SMALL, **settings)  # type: ignore[arg-type]
    assert not out.exists()


def test_few_users_of_whom_none_is_held_out_are_refused(tmp_path: Path) -> None:
    log = sessions(tmp_path / "s.csv", users=2)
    seed = next(seed for seed in range(100) if not split_users(range(2), 0.2, seed).any())
    out = tmp_path / "users.pt"
    with pytest.raises(UserError):
        fit_users(log=str(log), weights=("clicked=1",), seed=seed, out=str(out), **SMALL)
    assert not out.exists()

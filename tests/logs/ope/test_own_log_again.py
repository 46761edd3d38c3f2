"""Training goes on from the policy of a team's own log: on a newer log, with its items and encodings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from recsys_rl.checkpoint import Checkpoint, load
from recsys_rl.checkpoint.home import split_of
from recsys_rl.errors import UserError
from recsys_rl.logs.experience.logged import Logged
from recsys_rl.logs.ope.part import heldout_of
from recsys_rl.logs.source import open_log
from recsys_rl.training.train import updates
from tests.own_logs import clicks, policy


def first_update(folder: Path, log: Path, **settings: Any) -> Checkpoint:
    sizes = {"batch_size": 8, "gradient_steps": 1, "total_timesteps": 80}
    run = updates(algo="reinforce", log=str(log), folder=folder, **{**sizes, **settings})
    next(run)
    run.close()
    return load(folder / "reinforce.pt")


def test_a_newer_log_is_read_by_the_encodings_and_weights_of_the_checkpoint(tmp_path: Path) -> None:
    """A step of no length leaves the weights of the start; the other settings may change."""
    mine = policy(tmp_path / "mine.pt", clicks(tmp_path / "old.csv"), "reinforce")
    newer, before = clicks(tmp_path / "newer.csv", seed=1), load(mine)
    again = {"checkpoint": str(mine), "init_from": str(mine)}
    after = first_update(tmp_path / "after", newer, lr=1e-30, **again)
    assert after.config.env_config == before.config.env_config
    assert after.config.model_config == before.config.model_config
    assert after.config.agent_config.log == (str(newer),)
    assert torch.equal(after.catalogue.popularity, before.catalogue.popularity)
    names = [name for name in before.agent if name.startswith("model.")]
    assert names and all(torch.allclose(after.agent[name], before.agent[name]) for name in names)
    anew = first_update(tmp_path / "anew", newer, lr=1e-30, seed=5, checkpoint=str(mine))
    assert anew.config.model_config == before.config.model_config
    assert not all(torch.allclose(anew.agent[name], before.agent[name]) for name in names)


def test_a_newer_log_has_the_columns_of_the_checkpoint(tmp_path: Path) -> None:
    """An argument names another column, as an option of the command does."""
    old, newer, other = (tmp_path / f"{name}.csv" for name in ("old", "newer", "other"))
    for number, (path, name) in enumerate(((old, "article"), (newer, "article"), (other, "thing"))):
        text = clicks(path, seed=number).read_text().replace("clicked", "purchase", 1)
        path.write_text(text.replace("item", name, 1))
    columns = {"item_column": "article", "reward_column": "purchase"}
    mine = str(policy(tmp_path / "mine.pt", old, "reinforce", **columns))
    after = first_update(tmp_path / "after", newer, checkpoint=mine)
    data = after.config.data_config
    assert (data.item_column, data.reward_column) == ("article", "purchase")
    with pytest.raises(UserError):
        first_update(tmp_path / "lacks", other, checkpoint=mine)
    named = first_update(tmp_path / "named", other, checkpoint=mine, item_column="thing")
    data = named.config.data_config
    assert (data.item_column, data.reward_column) == ("thing", "purchase")


def test_weights_without_their_encodings_are_refused(tmp_path: Path) -> None:
    mine = policy(tmp_path / "mine.pt", clicks(tmp_path / "old.csv"), "reinforce")
    with pytest.raises(UserError):
        first_update(tmp_path / "run", clicks(tmp_path / "newer.csv", seed=1), init_from=str(mine))
    assert not (tmp_path / "run").exists()


def test_a_newer_log_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    mine = str(policy(tmp_path / "mine.pt", clicks(tmp_path / "old.csv"), "reinforce"))
    with pytest.raises(UserError):  # an item that the policy lacks
        first_update(tmp_path / "run", clicks(tmp_path / "more.csv", items=6), checkpoint=mine)
    text = clicks(tmp_path / "newer.csv").read_text()
    (tmp_path / "lacks.csv").write_text(text.replace("context.age", "age"))
    with pytest.raises(UserError):  # a piece of the context
        first_update(tmp_path / "run", tmp_path / "lacks.csv", checkpoint=mine)
    assert not (tmp_path / "run").exists()


def test_users_are_held_out_as_in_the_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With another seed too: the items' popularity and the encodings know the other rows."""
    log = clicks(tmp_path / "log.csv", rows=300)
    first = policy(tmp_path / "first.pt", log, "reinforce", seed=3, heldout_fraction=0.4)
    before, sizes = load(first), dict[str, Any]({"algo": "reinforce", "batch_size": 8, "gradient_steps": 1})
    found: list[Path] = []
    warm: dict[str, Any] = {"init_from": str(first)}
    for seed, again in ((3, {}), (5, {}), (5, warm)):
        folder = tmp_path / f"run {len(found)}"
        given: dict[str, Any] = {
            "checkpoint": str(first),
            "log": (str(log),),
            "seed": seed,
            "total_timesteps": 16,
        }
        run = updates(**given, **sizes, **again, folder=folder, quiet=False)
        experience = next(run).run.experience
        assert isinstance(experience, Logged)
        run.close()
        lines = [line for line in capsys.readouterr().err.splitlines() if "held out as in" in line]
        assert len(lines) == (seed != 3)
        after = load(folder / "reinforce.pt")
        assert split_of(after) == (0.4, 3) and after.config.train_config.seed == seed
        (all_rows,) = open_log(after.config.agent_config.log, after).parts(1000)
        assert experience.table.num_rows == int((~heldout_of(all_rows, before)).sum())
        found.append(folder)
    run = updates(resume=True, folder=found[1], config=load(found[1] / "reinforce.pt").config)
    assert next(run).run.info["heldout_seed"] == 3
    run.close()
    second = str(found[1] / "reinforce.pt")
    assert split_of(first_update(tmp_path / "third", log, checkpoint=second, seed=7)) == (0.4, 3)
    with pytest.raises(UserError, match="--heldout-fraction"):
        first_update(tmp_path / "other", log, checkpoint=str(first), heldout_fraction=0.3)
    assert not (tmp_path / "other").exists()

"""A policy that was trained in learned users is served, recorded and judged on the platform of their log."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from recsys_rl.checkpoint import Checkpoint, load, save
from recsys_rl.checkpoint.home import load_at_home, settings_of_items
from recsys_rl.cli import main
from recsys_rl.logs.decision_log import DecisionLog
from recsys_rl.logs.parts import read_decisions
from recsys_rl.logs.record import RecordConfig, record
from recsys_rl.logs.users.file import load_users
from recsys_rl.logs.users.fit_users import fit_users
from recsys_rl.recommender import load as recommender_of
from recsys_rl.settings.config import Config
from recsys_rl.training.worlds import played_in
from recsys_rl.types import UserError, tensors_of
from tests.doors import PPO, SATIATION, SIZES, steps, train_in
from tests.learned_world import SMALL, make_users
from tests.serving.servers import event, recommend, send, serving

OWN = ["--patience-cost", "0.3", "--noise", "0.3"]  # settings that are not the preset's


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The log's policy in run/ppo.pt, log.parquet, in/learned.pt of learned users, and in/home.pt.

    home.pt has the weights of learned.pt, and was never trained in learned users.
    """
    folder = tmp_path_factory.mktemp("home")
    users = make_users(folder, *SATIATION, *OWN)
    options = ["--env", "learned", "--user-model", str(users), *SIZES, *PPO, *steps(2)]
    inside = load(train_in(folder / "learned", *options))
    first = load(folder / "run/ppo.pt")
    settings = {**vars(inside.config), "env": "satiation", "env_config": first.config.env_config}
    info = {name: x for name, x in inside.info.items() if name != "home"}
    save(folder / "in/learned.pt", inside)
    home = dataclasses.replace(inside, config=Config(**settings), world=first.world, info=info)
    save(folder / "in/home.pt", home)
    users.unlink()  # nothing here needs it
    return folder


def recorded(folder: Path, name: str) -> DecisionLog:
    out = folder / f"of {name}.parquet"
    record(RecordConfig(str(folder / "in" / name), sessions=40, users="all", out=str(out), quiet=True))
    return read_decisions(out)


def test_the_checkpoint_has_both_platforms(folder: Path) -> None:
    path = folder / "in/learned.pt"
    assert load(path).config.env == "learned"
    assert load_at_home(path).config == load(folder / "in/home.pt").config
    assert load_at_home(folder / "in/home.pt").config == load(folder / "in/home.pt").config


def test_recorded_sessions_are_those_of_the_platform(folder: Path) -> None:
    one, other = recorded(folder, "learned.pt"), recorded(folder, "home.pt")
    assert one.header == other.header
    assert (one.header.platform, one.header.signals) == ("satiation", ("engagement", "satisfaction"))
    first, second = tensors_of(one), tensors_of(other)
    assert all(torch.equal(values, second[name]) for name, values in first.items())


def test_policy_of_learned_users_recommends_and_is_served_beside_policies_of_the_platform(
    folder: Path,
) -> None:
    lists = [
        recommender_of(folder / "in" / name).recommend(likes=[1, 2]) for name in ("home.pt", "learned.pt")
    ]
    assert lists[0] == lists[1] and len(lists[0]) > 0
    with serving(folder / "in/home.pt", folder / "record.sqlite") as client:
        before = recommend(client, "a")
    with serving(folder / "in/learned.pt", folder / "record.sqlite") as client:
        decision = recommend(client, "b")
        assert client.get("/v1/policies").json()["policies"][0]["champion"]
        assert decision.keys() == before.keys()
        assert send(client, event(decision, "engagement")) == ["accepted"]


def test_policy_of_learned_users_is_judged_on_the_log_as_a_policy_of_the_platform(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = []
    for name in ("learned.pt", "home.pt"):
        out = folder / f"{name}.json"
        ask = ["--policy", "ppo", "--no-world", "--json", str(out)]
        assert (
            main(
                ["ope", "--log", str(folder / "log.parquet"), "--checkpoint", str(folder / "in" / name), *ask]
            )
            == 0
        )
        found.append(json.loads(out.read_text())["rows"])
    assert found[0] == found[1]


def test_in_the_world_of_the_log_it_has_the_settings_of_the_log(folder: Path) -> None:
    """`evaluate --world satiation`, without the file of the users."""
    path, home = folder / "in/learned.pt", load(folder / "in/home.pt")
    moved = played_in(path, load(path), "satiation")
    assert moved.config.env_config == home.config.env_config
    assert torch.equal(tensors_of(moved.world.catalogue)["embedding"], home.catalogue.embedding)


def test_users_and_policies_are_learned_from_its_log_with_its_items(folder: Path) -> None:
    recorded(folder, "learned.pt")
    log, path = folder / "of learned.pt.parquet", folder / "in/learned.pt"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recsys_rl.logs.users.fit.LEAST_STEPS", 2)
        fit_users(log=str(log), checkpoint=str(path), out=str(folder / "again.pt"), **SMALL)
    settings = settings_of_items(path)  # as of `train --log LOG --checkpoint FILE`
    assert settings == settings_of_items(folder / "in/home.pt") and settings["env"] == "satiation"


def altered(folder: Path, home: object) -> Path:
    path = folder / "altered.pt"
    before = load(folder / "in/learned.pt")
    changed: Checkpoint = dataclasses.replace(before, info={**before.info, "home": home})
    save(path, changed)
    return path


@pytest.mark.parametrize(
    "home",
    [
        {"env": "no such platform", "env_config": {}},
        {"env": "satiation", "env_config": {"noise": -1}},
        {"env": "satiation", "env_config": {"nose": 1}},
        {"env": "satiation", "env_config": {"noise": [1]}},
        {"env": "satiation", "env_config": 3},
        {"env": "satiation"},
        {"env": "os:path", "env_config": {}},
        {"env": 3, "env_config": {}},
        {"env_config": {}},
        "satiation",
        None,
    ],
)
def test_an_impossible_platform_is_refused(folder: Path, home: object) -> None:
    path = altered(folder, home)
    with pytest.raises(UserError):
        load_at_home(path)
    if isinstance(home, dict) and home.get("env") == "satiation":
        with pytest.raises(UserError):  # `evaluate --world satiation`
            played_in(path, load(path), "satiation")


def test_a_log_of_other_sessions_than_the_checkpoints_names_no_platform(folder: Path) -> None:
    """The settings of the log's platform are then unknown."""
    other = train_in(folder / "long", *SATIATION, "--max-episode-steps", "4", *steps(1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recsys_rl.logs.users.fit.LEAST_STEPS", 2)
        log = str(folder / "log.parquet")
        fit_users(log=log, checkpoint=str(other), out=str(folder / "others.pt"), **SMALL)
    assert load_users(folder / "others.pt").info["home"] == {}

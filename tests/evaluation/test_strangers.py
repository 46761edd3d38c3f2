"""Strangers: people of the data whose profiles are withheld, from every policy and from every tuning."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from recsys_rl.cli import main
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.evaluation import searched_rows
from recsys_rl.evaluation.rivals import rule_search
from recsys_rl.evaluation.rivals.tuning import Trainees
from recsys_rl.make import make_env
from tests.doors import SATIATION, steps, train_in
from tests.small_runs import settings, world


@pytest.mark.parametrize("platform", ["satiation", "drift", "short-video", "long-video", "social-feed"])
def test_only_the_profile_is_withheld(platform: str) -> None:
    """The same users answer the same items in the same way, also after a session has ended."""
    sizes = {"num_items": 60, "embedding_dim": 4, "max_episode_steps": 3}
    config = settings("ppo", platform, env_config=sizes, data_config={"num_users": 30})
    place = world(config)
    known, strange = (
        make_env(config, place, 8, torch.Generator().manual_seed(0), strangers=x) for x in (False, True)
    )
    assert isinstance(known, RecEnv) and isinstance(strange, RecEnv)
    seen, hidden = known.reset(), strange.reset()
    size, places = known.interface.context[0][1], known.interface.slate_size
    for step in range(5):
        assert bool(seen.context[:, :size].any()) and not bool(hidden.context[:, :size].any())
        assert torch.equal(seen.context[:, size:], hidden.context[:, size:])
        items = (torch.arange(8 * places).view(8, places) + 8 * places * step) % 60
        one, other = known.step(items), strange.step(items)
        assert torch.equal(one.reward, other.reward)
        assert not bool(other.final_obs.context[:, :size].any())
        seen, hidden = one.obs, other.obs


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(train_in(tmp_path_factory.mktemp("strangers") / "run", *SATIATION, *steps(1)))


def test_table_of_strangers(checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache, out = tmp_path / "cache", tmp_path / "table.json"
    command = ["evaluate", checkpoint, "--no-planner", "--cache-dir", str(cache), "--json", str(out)]
    assert main([*command, "--strangers", "--policy", "linucb"]) == 0
    assert "strangers" in capsys.readouterr().out
    strange = json.loads(out.read_text())
    assert strange["strangers"] is True
    kept = {path.name for path in cache.iterdir()}
    assert main(command) == 0  # the searches of strangers are not those of known users
    assert len({path.name for path in cache.iterdir()}) == 2 * len(kept)
    known = json.loads(out.read_text())
    assert "strangers" not in known
    of_known, of_strange = ({row["policy"]: row for row in x["rows"]} for x in (known, strange))
    for name in ("popularity", "one-item", "static-list", "myopic"):  # they know no profile
        assert of_known[name]["return_mean"] == of_strange[name]["return_mean"]
    assert of_known["mf"]["return_mean"] > of_strange["mf"]["return_mean"]
    capsys.readouterr()


def test_trainees_are_strangers_too(checkpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[bool] = []
    rule = rule_search.search_rule

    def search(trainees: Trainees, budget: int) -> rule_search.SearchedRule:
        env = trainees.make_env(trainees.population, 2, trainees.generator)
        made.append(bool(env.reset().context[:, :4].any()))
        return rule(trainees, budget)

    monkeypatch.setattr(rule_search, "search_rule", search)
    monkeypatch.setattr(searched_rows, "read_tensors", lambda path: None)
    monkeypatch.setattr(searched_rows, "write_tensors", lambda path, tensors: None)
    for options in (["--strangers"], []):
        assert main(["evaluate", checkpoint, "--no-planner", *options]) == 0
    assert made and made[0] is False and made[-1] is True


def test_share_of_the_training_users_are_strangers_in_training_alone() -> None:
    config = settings("ppo", "satiation", env_config={"num_items": 30, "embedding_dim": 4})
    config = dataclasses.replace(
        config, data_config=dataclasses.replace(config.data_config, num_users=40, stranger_share=0.25)
    )
    place = world(config)
    train, heldout = place.population.train, place.population.heldout
    found = []
    for _ in range(2):
        env = make_env(config, place, len(train), torch.Generator())
        unknown = ~env.reset(train).context[:, :4].any(1)
        assert isinstance(env, RecEnv)
        assert torch.equal(env.given()["profile"], env.observe().context[:, :4])  # as a log records it
        assert int(unknown.sum()) == round(0.25 * len(train))
        found.append(unknown)
    assert torch.equal(found[0], found[1])
    played = make_env(config, place, len(heldout), torch.Generator(), heldout=True, training=False)
    assert bool(played.reset(heldout).context[:, :4].any(1).all())
    tuned = make_env(config, place, len(train), torch.Generator(), training=False)
    assert bool(tuned.reset(train).context[:, :4].any(1).all())


def test_training_with_strangers_can_be_evaluated_and_shares_a_table(
    checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = train_in(tmp_path / "run", *SATIATION, *steps(1), "--stranger-share", "0.5")
    other = other.rename(other.with_name("mixed.pt"))
    assert main(["evaluate", checkpoint, str(other), "--no-planner", "--strangers"]) == 0
    assert "mixed" in capsys.readouterr().out

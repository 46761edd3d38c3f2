"""DQN through the commands: evaluate, record, ope, recommend, other weights, candidates, and its mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from recsys_rl.checkpoint import load
from recsys_rl.cli import main
from recsys_rl.experience.replay import Replay
from recsys_rl.logs.ope import networks
from recsys_rl.logs.parts import read_decisions
from recsys_rl.logs.transitions import observe
from recsys_rl.make import agent_of
from recsys_rl.training.train import updates
from recsys_rl.types import Transitions
from tests.doors import DQN, assert_same_weights, steps, weights

SATIATION = [*DQN, "--env", "satiation", *steps(8)]
CHECKPOINT = ["--checkpoint", "checkpoints/dqn.pt"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_all_commands_take_the_policy(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stages = ["--candidates", "12", "--explore-rate", "0.25"]
    monkeypatch.setattr(networks, "EPOCHS", 2)
    monkeypatch.setattr(networks, "LEAST_STEPS", 20)
    assert main(["train", *SATIATION, *stages]) == 0
    assert "replay buffer: 60 transitions" in capsys.readouterr().err
    assert main(["evaluate", "checkpoints/dqn.pt", "--no-planner", "--json", "table.json"]) == 0
    rows = {row["policy"] for row in json.loads(Path("table.json").read_text())["rows"]}
    assert {"dqn", "dqn-greedy", "untrained", "random", "mf", "rule"} <= rows

    who = ["--policy", "dqn", "--users", "all", "--sessions", "60", "--quiet"]
    assert main(["record", *CHECKPOINT, *who, "--out", "log.parquet"]) == 0
    checkpoint, log = load(Path("checkpoints/dqn.pt")), read_decisions(Path("log.parquet"))
    obs = observe(log, checkpoint.catalogue)
    own = agent_of(checkpoint).place_logprobs(obs, log.items).sum(1)
    # The log holds the policy's own probabilities, up to the rounding of Q, which the temperature magnifies.
    assert_close(own, log.logprobs, rtol=0, atol=1e-4)
    assert log.candidates is not None

    assert main(["ope", *CHECKPOINT, "--log", "log.parquet", "--json", "ope.json"]) == 0
    found = json.loads(Path("ope.json").read_text())["rows"]
    (row,) = (row for row in found if (row["policy"], row["estimator"]) == ("dqn", "pdis"))
    assert row["value"] == pytest.approx(float(log.signals[:, 0, 0].sum()) / 60, rel=1e-3)  # weights of 1

    capsys.readouterr()
    assert main(["recommend", *CHECKPOINT, "--user", "3", "--k", "4"]) == 0
    said = capsys.readouterr().out
    assert said.count("item ") == 4, said


def test_gym_environment_is_trained_and_evaluated(here: Path) -> None:
    sizes = ["--train-freq", "6", "--learning-starts", "96", "--hidden-dims", "6", "--threads", "1"]
    assert main(["train", "--algo", "dqn", "--env", "gym:CartPole-v1", *sizes, *steps(8)]) == 0
    assert main(["evaluate", "checkpoints/dqn.pt", "--json", "table.json"]) == 0
    means = {row["policy"]: row["return_mean"] for row in json.loads(Path("table.json").read_text())["rows"]}
    assert {"dqn", "dqn-greedy", "untrained", "random"} <= means.keys() and min(means.values()) > 5


def test_candidates_in_the_buffer_hold_the_item_and_successors_get_their_own(here: Path) -> None:
    stages = ["--candidates", "12", "--explore-rate", "0.25", "--buffer-size", "240"]
    assert main(["train", *SATIATION, *stages]) == 0
    *_, last = updates(load(Path("checkpoints/dqn.pt")).config, folder="again")
    experience, agent = last.run.experience, last.agent
    assert isinstance(experience, Replay)
    found = experience.ring.sample(500, torch.Generator().manual_seed(0))
    assert isinstance(found, Transitions) and found.obs.candidates is not None
    assert bool((found.obs.candidates == found.items).any(1).all())
    assert found.next_obs.candidates is None  # proposed by the network of the day that learns
    after = agent.propose(found.next_obs, greedy=True)
    assert after.candidates.shape == (500, 12)
    shown = found.next_obs.history
    assert shown is not None  # (500, L): nothing that was shown is proposed again
    assert not bool(((after.candidates.unsqueeze(2) == shown.unsqueeze(1)) & (shown >= 0).unsqueeze(1)).any())
    assert bool(agent.targets(found).isfinite().all())
    assert_same_weights(Path("checkpoints/dqn.pt"), Path("again/dqn.pt"))


def test_weights_of_another_run_are_those_of_both_networks(here: Path) -> None:
    assert main(["train", *SATIATION, "--name", "first"]) == 0
    again = ["--init-from", "runs/first/dqn.pt", "--name", "second"]
    assert main(["train", *SATIATION, *again, *steps(2), "--learning-starts", "48"]) == 0
    first, second = weights(Path("runs/first/dqn.pt")), weights(Path("runs/second/dqn.pt"))
    assert int(second["updates"]) == 2 and not torch.equal(
        first["target.head.votes"], second["target.head.votes"]
    )
    begun = load(Path("runs/second/dqn.prev.pt")).agent if Path("runs/second/dqn.prev.pt").exists() else None
    assert begun is not None and int(begun["updates"]) == 0
    for name, x in begun.items():
        kind, _, rest = name.partition(".")
        if kind in ("model", "target"):
            assert torch.equal(x, first[f"model.{rest}"]), name

"""Reward streams and their weights."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from recsys_rl.cli import main
from recsys_rl.experience.rollout import collect
from recsys_rl.objective.weighted import (
    apply_weights,
    check_weights,
    parse_weights,
    stream_weights,
    weighted,
)
from recsys_rl.types import Obs, Rollout, Stream, UserError
from tests.small_runs import begin, settings

TWO = (Stream("watch"), Stream("revenue", 0.5))


def rollout(streams: torch.Tensor) -> Rollout:
    none = torch.zeros(streams.shape[:2])
    ended = none > 0
    rewards = weighted(streams, stream_weights(TWO[: streams.shape[2]]))
    return Rollout(Obs(none), none.long(), none, none, none, rewards, streams, ended, ended)


def test_weights_by_hand() -> None:
    streams = torch.tensor([[[1.0, 4.0]], [[0.5, 2.0]]])  # (T, N, M)
    plain = rollout(streams)
    assert plain.rewards.tolist() == [[3.0], [1.5]]
    assert apply_weights(plain, TWO, {}) is plain
    assert apply_weights(plain, TWO, {"watch": 1.0}) is plain
    assert apply_weights(plain, TWO, {"revenue": 0.0}).rewards.tolist() == [[1.0], [0.5]]
    assert apply_weights(plain, TWO, {"revenue": 1.0, "watch": -1.0}).rewards.tolist() == [[3.0], [1.5]]


def test_weight_of_a_single_stream_scales_the_normalised_reward() -> None:
    normalised = replace(rollout(torch.tensor([[[8.0]]])), rewards=torch.tensor([[0.25]]))
    assert apply_weights(normalised, TWO[:1], {"watch": 1.0}) is normalised
    assert apply_weights(normalised, TWO[:1], {"watch": 2.0}).rewards.tolist() == [[0.5]]


def test_weights_as_they_are_typed() -> None:
    assert parse_weights(["watch=1", "revenue=-0.5"]) == {"watch": 1.0, "revenue": -0.5}
    assert parse_weights([]) == {}


@pytest.mark.parametrize(
    "texts",
    [
        ["watch"],
        ["completion=high"],
        ["=1"],
        ["watch=inf"],
        ["watch=nan"],
        ["watch=1", "watch=2"],
    ],
)
def test_weights_that_are_no_numbers_by_name(texts: list[str]) -> None:
    with pytest.raises(UserError):
        parse_weights(texts)


@pytest.mark.parametrize("given", ["foo=1", "match", "match=nan"])
def test_weights_of_a_file_have_the_name_of_its_field(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run.toml").write_text(f'[train_config]\nweights = ["{given}"]\n')
    small = ["train", "--data", "synthetic", "--num-items", "9"]
    assert main([*small, "--config", "run.toml"]) == 2
    of_file = capsys.readouterr().err
    assert main([*small, "--weights", given]) == 2
    typed = capsys.readouterr().err
    assert of_file.startswith(f"error: train_config.weights {'names the stream ' * ('foo' in given)}")
    assert typed == of_file.replace("train_config.weights", "--weights")
    assert [path.name for path in tmp_path.iterdir()] == ["run.toml"]


@pytest.mark.parametrize(
    "weights",
    [
        {"clicks": 1.0},
        {"watch": math.nan},
    ],
)
def test_invalid_weights(weights: dict[str, float]) -> None:
    with pytest.raises(UserError):
        check_weights(weights, TWO)
    with pytest.raises(UserError):
        apply_weights(rollout(torch.zeros(1, 1, 2)), TWO, weights)


@pytest.mark.parametrize("algo", ["ppo", "a2c"])
def test_one_stream_of_weight_one_gives_the_same_network(algo: str) -> None:
    """After two updates."""
    size = {"num_items": 20, "embedding_dim": 4, "max_episode_steps": 5}
    users = {"num_users": 20}
    states = []
    for weigh in (False, True):
        env, agent = begin(settings(algo, "satiation", env_config=size, data_config=users))
        obs = env.reset()
        for _ in range(2):
            record, obs = collect(env, agent, obs, agent.config.n_steps)
            if weigh:
                again = weighted(record.streams, stream_weights(env.streams, {"engagement": 1.0}))
                record = replace(record, rewards=again)
            agent.update(record)
        states.append(agent.state_dict())
    assert states[0].keys() == states[1].keys()
    torch.testing.assert_close(states[0], states[1], rtol=1e-4, atol=1e-5)


def test_stream_without_weight_of_its_own_gets_one() -> None:
    none = Stream("watch", 0.0)
    record = replace(rollout(torch.tensor([[[8.0]]])), rewards=torch.tensor([[0.0]]))
    assert apply_weights(record, [none], {"watch": 2.0}).rewards.tolist() == [[16.0]]

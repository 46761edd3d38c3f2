"""PPO and A2C: their hyperparameters, their common ground, and reproducibility."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from recsys_rl.agents.a2c import A2C, A2CConfig
from recsys_rl.agents.ppo import PPO, Outputs, PPOConfig
from recsys_rl.experience.rollout import collect
from recsys_rl.models.expected import Beside
from recsys_rl.models.optimizer import FlatAdam
from recsys_rl.models.policy import Samples
from recsys_rl.settings.config import Config
from recsys_rl.testing import check_agent
from recsys_rl.types import Obs, Rollout, tree_map
from tests.agents.test_learning import bandit
from tests.small_runs import begin, learn, settings

SMALL_WORLD = {"num_items": 12, "embedding_dim": 4, "max_episode_steps": 5}
SMALL = {"n_steps": 8, "num_envs": 6}


def small(algo: str = "ppo", env: str = "satiation", **sections: Any) -> Config:
    agent = SMALL | ({"batch_size": 16} if algo == "ppo" else {}) | sections.pop("agent_config", {})
    model = {"hidden_dims": [16, 8]} | sections.pop("model_config", {})
    places = {"env_config": SMALL_WORLD, "data_config": {"num_users": 40}}
    return settings(algo, env, **places, agent_config=agent, model_config=model, **sections)


def record(config: Config, num_updates: int = 10) -> tuple[PPO | A2C, Rollout]:
    env, agent = begin(config, num_updates)
    return agent, collect(env, agent, env.reset(), agent.config.n_steps)[0]


def gradients(agent: PPO | A2C) -> dict[str, Tensor]:
    """The gradients of the last step, before clipping."""
    names, sizes = zip(*((name, p.numel()) for name, p in agent.model.named_parameters()), strict=True)
    return dict(zip(names, agent.optimizer.gradient.split(sizes), strict=True))


def in_float64(agent: PPO | A2C, rollout: Rollout) -> Rollout:
    """Model and rollout in float64, with the log-probabilities and values of the present model."""
    agent.optimizer = FlatAdam(agent.model.double(), agent.config.lr, agent.config.max_grad_norm)

    def widen(x: Tensor) -> Tensor:
        return x.double() if x.is_floating_point() else x.clone()

    rollout = tree_map(widen, replace(rollout, obs=rollout.obs.map(widen)))
    with torch.no_grad():
        policy, values = agent.model(rollout.obs.map(lambda x: x.flatten(0, 1)))
        logprobs = policy.logprob(rollout.items.flatten(0, 1))
    shape = rollout.rewards.shape
    return replace(rollout, logprobs=logprobs.view(shape), values=values.view(shape))


@pytest.mark.parametrize("env", ["drift", "satiation"])
@pytest.mark.parametrize("normalize", [False, True])
def test_ppo_with_one_epoch_of_one_minibatch_is_a2c(env: str, normalize: bool) -> None:
    same: dict[str, Any] = {
        "normalize_advantage": normalize,
        "ent_coef": 0.05,
        "max_grad_norm": 0.5,
        "lr": 0.01,
        "gamma": 0.9,
        "gae_lambda": 0.95,
    }
    one = {"update_epochs": 1, "batch_size": 48, "clip_eps": 0.99}
    model = {"encoder": "mlp"}  # that of a preset may be another one for each
    ppo, rollout = record(small("ppo", env, agent_config=same | one, model_config=model))
    a2c, _ = record(small("a2c", env, agent_config=same, model_config=model))
    for name, weight in ppo.model.state_dict().items():
        assert torch.equal(weight, a2c.model.state_dict()[name])
    rollout = in_float64(a2c, in_float64(ppo, rollout))
    ppo.update(rollout)
    a2c.update(rollout)
    expected = gradients(a2c)
    assert sum(g.square().sum() for g in expected.values()) > 1e-4
    for name, gradient in gradients(ppo).items():
        assert_close(gradient, expected[name], atol=1e-12, rtol=1e-7)
    for name, weight in ppo.model.state_dict().items():
        assert_close(weight, a2c.model.state_dict()[name], atol=1e-9, rtol=1e-7)


def test_second_epoch_differs_from_a2c() -> None:
    """A check of the test above: from the second epoch on, ratios differ from 1 and samples are clipped."""
    config = small(agent_config={"update_epochs": 2, "batch_size": 48, "lr": 0.1})
    agent, rollout = record(config)
    metrics = agent.update(rollout)
    assert metrics["approx_kl"] > 1e-3 and metrics["clipfrac"] > 0.1


@pytest.mark.parametrize("env", ["drift", "satiation"])
def test_ratio_of_the_first_minibatch_is_one(env: str) -> None:
    """Acting and learning use the same network, mask, observation and log-probability."""
    config = small("ppo", env, agent_config={"update_epochs": 1, "batch_size": 48, "lr": 0.1})
    agent, rollout = record(config)
    metrics = agent.update(rollout)
    assert abs(metrics["approx_kl"]) < 1e-7 and metrics["clipfrac"] == 0.0
    assert abs(metrics["policy_loss"]) < 1e-6  # minus the mean of standardised advantages


def test_target_kl_stops_the_epochs() -> None:
    def steps(target_kl: float) -> float:
        agent, rollout = record(small(agent_config={"lr": 0.05, "update_epochs": 6, "target_kl": target_kl}))
        agent.update(rollout)
        return agent.state_dict()["optimizer.steps"].item()

    assert steps(0.0) == 18  # 6 epochs of 48 / 16 minibatches
    assert steps(1e9) == 18
    assert steps(1e-9) == 3  # the first epoch has already moved the policy


def epochs_of(ratios: list[float], target_kl: float, monkeypatch: pytest.MonkeyPatch) -> int:
    """Epochs that PPO makes of 48 samples in minibatches of 20, 20 and 8, where each epoch moves the
    probabilities of what was shown by these ratios."""
    dials = {"batch_size": 20, "update_epochs": 4, "target_kl": target_kl}
    agent, rollout = record(small(agent_config=dials))
    assert isinstance(agent, PPO)
    made = 0

    def epoch(batches: list[Samples], ent_coef: float, asides: list[Beside]) -> Outputs:
        nonlocal made
        made += 1
        nothing = torch.zeros(48)
        old_logprob, old_value = (
            torch.cat([getattr(batch.targets, name) for batch in batches])
            for name in ("old_logprob", "old_value")
        )
        return Outputs(old_logprob + torch.tensor(ratios).log(), nothing, old_value)

    monkeypatch.setattr(agent, "_epoch", epoch)
    agent.update(rollout)
    return made


def test_target_kl_is_compared_with_the_last_minibatch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the eight samples of the smaller last minibatch count."""
    assert epochs_of([1.0] * 40 + [2.0] * 8, 0.3, monkeypatch) == 1
    assert epochs_of([2.0] * 40 + [1.0] * 8, 1e-6, monkeypatch) == 4
    # mean of 2 - 1 - ln 2 = 0.306853 over the eight: half of them is 0.153426, and an eighth is 0.038357
    assert epochs_of([1.0] * 44 + [2.0] * 4, 0.153, monkeypatch) == 1
    assert epochs_of([2.0] * 40 + [1.0] * 7 + [2.0], 0.0385, monkeypatch) == 4


def test_target_kl_is_the_limit_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is target_kl itself, not a multiple. The estimate is 2 - 1 - ln 2 = 0.306853."""
    assert epochs_of([2.0] * 48, 0.3068, monkeypatch) == 1
    assert epochs_of([2.0] * 48, 0.3069, monkeypatch) == 4


@pytest.mark.parametrize("algo", ["ppo", "a2c"])
def test_reported_losses(algo: str) -> None:
    """For one gradient step on all samples: half the mean squared error, and the weighted sum."""
    one = {"update_epochs": 1, "batch_size": 48} if algo == "ppo" else {}
    dials = {"gamma": 0.0, "vf_coef": 0.25, "ent_coef": 0.1, "normalize_advantage": False, **one}
    agent, rollout = record(small(algo, agent_config=dials))
    error = rollout.rewards - rollout.values  # with gamma 0 the return is the reward
    found = agent.update(rollout)
    assert found["value_loss"] == pytest.approx(0.5 * error.square().mean().item(), rel=1e-4)
    gain = error if algo == "ppo" else rollout.logprobs * error  # the ratio is 1
    assert found["policy_loss"] == pytest.approx(-gain.mean().item(), rel=1e-4)
    total = found["policy_loss"] + 0.25 * found["value_loss"] - 0.1 * found["entropy"]
    assert found["loss"] == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("algo", ["ppo", "a2c"])
def test_annealing(algo: str) -> None:
    env, agent = begin(small(algo, agent_config={"lr": 0.01}), num_updates=4)
    assert [m["lr"] for m in learn(env, agent, 4)] == pytest.approx([0.01, 0.0075, 0.005, 0.0025])
    env, agent = begin(small(algo, agent_config={"lr": 0.01, "anneal_lr": False}), num_updates=4)
    assert [m["lr"] for m in learn(env, agent, 4)] == [0.01] * 4


@pytest.mark.parametrize("algo", ["ppo", "a2c"])
@pytest.mark.parametrize(
    ("annealing", "wanted"),
    [
        ({}, [0.4, 0.3, 0.2, 0.1]),
        ({"ent_fraction": 0.625}, [0.4, 0.24, 0.08, 0.0]),
        ({"ent_fraction": 0.625, "anneal_ent": False}, [0.4] * 4),
    ],
)
def test_entropy_bonus_annealing(algo: str, annealing: dict[str, Any], wanted: list[float]) -> None:
    """The coefficient c follows from loss = policy_loss + vf_coef * value_loss - c * entropy."""
    config = small(algo, agent_config={"ent_coef": 0.4, "vf_coef": 0.25, **annealing})
    if isinstance(config.agent_config, PPOConfig):
        config = replace(config, agent_config=replace(config.agent_config, update_epochs=1, batch_size=48))
    env, agent = begin(config, num_updates=4)
    found = [
        (m["policy_loss"] + 0.25 * m["value_loss"] - m["loss"]) / m["entropy"] for m in learn(env, agent, 4)
    ]
    assert found == pytest.approx(wanted, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("algo", ["ppo", "a2c"])
def test_max_grad_norm(algo: str) -> None:
    def norm(limit: float) -> float:
        one = {"update_epochs": 1, "batch_size": 48} if algo == "ppo" else {}
        agent, rollout = record(small(algo, agent_config={"max_grad_norm": limit, **one}))
        agent.update(rollout)
        return (
            math.sqrt(agent.optimizer.exp_avg.square().sum().item()) / 0.1
        )  # m = (1 - beta1) g after one step

    free = norm(1e9)
    assert free > 0.1
    assert norm(0.01) == pytest.approx(0.01, rel=1e-3)
    assert norm(2 * free) == pytest.approx(free)  # below the limit it is left alone


@pytest.mark.parametrize("algo", ["ppo", "a2c"])
def test_gamma_zero_with_exact_critic_explains_everything(algo: str) -> None:
    """With gamma 0 and a critic with the exact rewards, the explained variance is 1."""
    agent, rollout = record(small(algo, agent_config={"gamma": 0.0}))
    known = replace(rollout, values=rollout.rewards.clone())
    assert agent.update(known)["explained_variance"] == pytest.approx(1.0)
    other, _ = record(small(algo, agent_config={"gamma": 0.9}))
    assert other.update(known)["explained_variance"] < 0.99


@pytest.mark.parametrize("algo", ["ppo", "a2c"])
def test_no_bootstrap_at_a_real_time_limit(algo: str) -> None:
    """Without bootstrap_time_limit a cut is an end: next_values are not used there."""

    def weights(bootstrap: bool, beyond: float) -> Tensor:
        dials = {"bootstrap_time_limit": bootstrap, "gamma": 0.9}
        config = small(algo, agent_config=dials)
        stays = replace(config.env_config, patience_cost=0.0)  # until the limit
        agent, rollout = record(replace(config, env_config=stays))
        assert rollout.truncated.any()
        changed = torch.where(rollout.truncated, beyond, rollout.next_values)
        agent.update(replace(rollout, next_values=changed))
        return agent.model.value_head.weight.detach()

    assert torch.equal(weights(False, 0.0), weights(False, 7.0))
    assert not torch.equal(weights(True, 0.0), weights(True, 7.0))


@pytest.mark.parametrize("algo", ["ppo", "a2c"])
def test_thirty_updates_find_the_best_arm_of_each_context(algo: str) -> None:
    """From 1/3 each to 0.76 or more; test_learning.py has the proofs."""
    probabilities, _ = bandit(algo, [[0.2, 0.8, 0.1], [0.9, 0.3, 0.5]], 0.0, 30, 0)
    assert probabilities[[0, 1], [1, 0]].min() > 0.5


@pytest.mark.parametrize("algo", ["ppo", "a2c"])
def test_same_seed_same_bytes(algo: str) -> None:
    def run(seed: int) -> dict[str, Tensor]:
        env, agent = begin(small(algo), seed=seed)
        learn(env, agent, 3)
        return agent.state_dict()

    before = torch.get_rng_state()
    first, again, other = run(0), run(0), run(1)
    assert torch.equal(torch.get_rng_state(), before), "the global generator was used"
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["model.value_head.weight"], other["model.value_head.weight"])


@pytest.mark.parametrize("encoder", ["mlp", "transformer", "deep-sets"])
@pytest.mark.parametrize("algo", ["ppo", "a2c"])
def test_saved_agent_resumes_bit_for_bit(algo: str, encoder: str) -> None:
    config = small(algo, model_config={"encoder": encoder})
    env, agent = begin(config)
    obs = env.reset()
    for _ in range(2):
        rollout, obs = collect(env, agent, obs, 8)
        agent.update(rollout)
    saved = {name: value.clone() for name, value in agent.state_dict().items()}
    streams = {name: stream.get_state() for name, stream in agent.generators.items()}
    rollouts = []
    for _ in range(2):
        rollout, obs = collect(env, agent, obs, 8)
        agent.update(rollout)
        rollouts.append(rollout)

    elsewhere, resumed = begin(config)
    learn(elsewhere, resumed, 1)  # other weights, other moments, another count of updates
    resumed.load_state_dict(saved)
    for name, state in streams.items():
        resumed.generators[name].set_state(state)
    assert all(torch.equal(value, saved[name]) for name, value in resumed.state_dict().items())
    for rollout in rollouts:
        acted = resumed.act(rollout.obs.map(lambda x: x[0]))
        assert torch.equal(acted.items, rollout.items[0])
        for t in range(1, 8):
            resumed.act(tree_map(lambda x, t=t: x[t], rollout.obs))
        resumed.update(rollout)
    final, expected = resumed.state_dict(), agent.state_dict()
    assert final.keys() == expected.keys() and int(final["updates"]) == 4
    assert all(torch.equal(final[name], expected[name]) for name in expected)


def test_saved_state_is_a_copy() -> None:
    env, agent = begin(small())
    saved = agent.state_dict()
    before = {name: value.clone() for name, value in saved.items()}
    learn(env, agent, 1)
    assert all(torch.equal(value, before[name]) for name, value in saved.items())


@pytest.mark.parametrize("algo", ["ppo", "a2c"])
@pytest.mark.parametrize("env", ["drift", "satiation"])
@pytest.mark.parametrize("encoder", ["mlp", "transformer", "deep-sets"])
@pytest.mark.parametrize("head", ["two-tower", "dense"])
def test_contract(algo: str, env: str, encoder: str, head: str) -> None:
    if env == "drift" and encoder != "mlp":
        pytest.skip("drift shows no history, and refuses other encoders")
    config = small(algo, env, model_config={"encoder": encoder, "head": head})
    check_agent(lambda: begin(config)[1], observation(config), num_items=12)


def observation(config: Config) -> Obs:
    """The observation after three steps of the sessions."""
    env, agent = begin(config)
    obs = env.reset()
    for _ in range(3):
        obs = env.step(agent.act(obs).items).obs
    return obs


@pytest.mark.parametrize("algo", ["ppo", "a2c"])
def test_action_has_logprob_and_value_of_the_network(algo: str) -> None:
    config = small(algo)
    _, agent = begin(config)
    obs = observation(config)
    with torch.no_grad():
        policy, value = agent.model(obs)
    logits = policy.logits
    for greedy in (False, True):
        action = agent.act(obs, greedy)
        assert_close(action.logprob, logits.log_softmax(-1).squeeze(1).gather(1, action.items).squeeze(1))
        assert action.value is not None
        assert_close(action.value, value)
        assert_close(agent.value(obs), value)
    assert torch.equal(agent.act(obs, greedy=True).items, logits.argmax(-1))


def test_config_class_selects_the_agent() -> None:
    assert isinstance(begin(small("ppo"))[1], PPO) and isinstance(small("ppo").agent_config, PPOConfig)
    assert isinstance(begin(small("a2c"))[1], A2C) and isinstance(small("a2c").agent_config, A2CConfig)


@pytest.mark.parametrize("clip", [False, True])
def test_value_clipping(clip: bool) -> None:
    """With clip_vloss, a value far from its old value has no gradient."""
    config = small(agent_config={"clip_vloss": clip, "update_epochs": 1, "batch_size": 48, "ent_coef": 0.0})
    agent, rollout = record(config)
    # The old value 1 below and the return above the value now: a move of 1 towards it is beyond the clip.
    moved = replace(rollout, values=rollout.values - 1, rewards=rollout.rewards + 1e3)
    agent.update(moved)
    assert bool(gradients(agent)["value_head.weight"].any()) != clip


@pytest.mark.parametrize("algo", ["ppo", "a2c"])
@pytest.mark.parametrize("env", ["drift", "satiation"])
def test_logprob_of_any_items(algo: str, env: str) -> None:
    """That of the drawn items is the one that was recorded; all items together have probability 1."""
    config = small(algo, env)
    _, agent = begin(config)
    obs = observation(config)
    action = agent.act(obs)
    assert_close(agent.logprob(obs, action.items), action.logprob, rtol=1e-5, atol=1e-5)
    every = [agent.logprob(obs, torch.full_like(action.items, item)).exp() for item in range(12)]
    assert_close(torch.stack(every).sum(0), torch.ones(obs.num_rows))

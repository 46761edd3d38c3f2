"""Gymnasium environments for our agents: spaces, ends, masks, normalisation, resumption."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from recsys_rl.foreign.gym import GymEnv
from recsys_rl.foreign.running import RunningMoments
from recsys_rl.testing.envs import check_env, require_same_obs
from recsys_rl.types import UserError


class Clock(gymnasium.Env[Any, Any]):
    """Counts its steps in observation and reward; its spaces and ends are given."""

    taken: ClassVar[list[Any]] = []  # the actions of all clocks, in order

    def __init__(
        self, observation: Any = None, action: Any = None, ends: tuple[int, int] = (99, 99), mask: Any = None
    ) -> None:
        self.observation_space = observation or spaces.Box(0, 99, (1,), np.float64)
        self.action_space = action or spaces.Discrete(2)
        self.ends, self.mask, self.time = ends, mask, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.time = 0
        return self.observe()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        Clock.taken.append(np.array(action).tolist())
        self.time += 1
        obs, info = self.observe()
        return obs, 1.0, self.time >= self.ends[0], self.time >= self.ends[1], info

    def observe(self) -> tuple[Any, dict[str, Any]]:
        info = {} if self.mask is None else {"action_mask": self.allowed()}
        if isinstance(self.observation_space, spaces.Dict):
            parts = {
                "box": np.array([self.time, -self.time], np.float32),
                "apart": 1 + self.time % 3,
                "action_mask": self.allowed(),
            }
            return {name: parts[name] for name in self.observation_space.spaces}, info
        return np.full(self.observation_space.shape or (), self.time, np.float64), info

    def allowed(self) -> Any:
        """At time t all actions but t % 3."""
        return (np.arange(3) != self.time % 3).astype(np.int8)


def register(name: str, **kwargs: Any) -> str:
    env_id = f"tests/{name}-v0"
    if env_id not in gymnasium.registry:
        gymnasium.register(env_id, entry_point=lambda **settings: Clock(**settings), kwargs=kwargs)
    return f"gym:{env_id}"


WITH_MASK = spaces.Dict(
    {
        "box": spaces.Box(-9, 9, (2,)),
        "apart": spaces.Discrete(3, start=1),
        "action_mask": spaces.MultiBinary(3),
    }
)


def act(*rows: list[int]) -> torch.Tensor:
    return torch.tensor(rows)


def test_cartpole_keeps_the_contract() -> None:
    if "tests/ShortCartPole-v0" not in gymnasium.registry:
        gymnasium.register(
            "tests/ShortCartPole-v0",
            entry_point="gymnasium.envs.classic_control.cartpole:CartPoleEnv",
            max_episode_steps=11,
        )
    check_env(lambda seed: GymEnv("gym:tests/ShortCartPole-v0", 3, seed), max_episode_steps=11)
    check_env(
        lambda seed: GymEnv("gym:tests/ShortCartPole-v0", 3, seed, normalize_obs=True, normalize_reward=True),
        max_episode_steps=11,
    )


def test_cartpole_equals_gymnasium() -> None:
    env = GymEnv("gym:CartPole-v1", 2, seed=0)
    assert (env.interface.context_size, env.interface.action_sizes) == (4, (2,))
    obs = env.reset(torch.tensor([5, 6]))
    step = env.step(act([0], [1]))
    assert step.reward.tolist() == [1.0, 1.0] and step.feedback is None
    for row in (0, 1):
        own = gymnasium.make("CartPole-v1")
        np.testing.assert_array_equal(obs.context[row].numpy(), own.reset(seed=5 + row)[0])
        np.testing.assert_array_equal(step.obs.context[row].numpy(), own.step(row)[0])


def test_discrete_observation_is_one_hot() -> None:
    env, own = GymEnv("gym:FrozenLake-v1", 2, seed=0), gymnasium.make("FrozenLake-v1")
    assert (env.interface.context_size, env.interface.action_sizes) == (16, (4,))
    place, _ = own.reset(seed=5)
    context = env.reset(torch.tensor([5, 6])).context
    ended = False
    while not ended:
        assert context.tolist()[0] == np.eye(16)[place].tolist()
        step = env.step(act([2], [2]))
        place, _, ended, *_ = own.step(2)
        context = step.final_obs.context
    assert step.terminated[0] and context.tolist()[0] == np.eye(16)[place].tolist()
    assert step.obs.context.tolist()[0] == np.eye(16)[0].tolist()  # the next episode begins at place 0


def test_dict_observation_with_a_mask() -> None:
    env = GymEnv(
        register("Dict", observation=WITH_MASK, action=spaces.Discrete(3, start=5), ends=(2, 99)), 2, 0
    )
    assert (env.interface.context_size, env.interface.action_sizes) == (5, (3,))
    obs = env.reset()
    # apart (one-hot of 1..3), then box
    assert obs.context.tolist() == [[1, 0, 0, 0, 0]] * 2
    assert obs.mask is not None and obs.mask.tolist() == [[False, True, True]] * 2
    Clock.taken.clear()
    step = env.step(act([1], [2]))
    assert Clock.taken == [6, 7]  # the space starts at 5
    assert step.obs.context.tolist() == [[0, 1, 0, 1, -1]] * 2
    assert step.obs.mask is not None and step.obs.mask.tolist() == [[True, False, True]] * 2
    step = env.step(act([0], [0]))
    assert step.terminated.tolist() == [True, True] and step.truncated.tolist() == [False, False]
    assert step.final_obs.context.tolist() == [[0, 0, 1, 2, -2]] * 2
    assert step.obs.context.tolist() == [[1, 0, 0, 0, 0]] * 2
    assert step.final_obs.mask is not None and step.final_obs.mask.tolist() == [[True, True, False]] * 2
    assert step.obs.mask is not None and step.obs.mask.tolist() == [[False, True, True]] * 2


def test_mask_in_the_info() -> None:
    env = GymEnv(register("Info", action=spaces.Discrete(3), ends=(99, 2), mask=True), 2, 0)
    assert env.reset().mask is not None
    step = env.step(act([1], [2]))
    assert step.obs.mask is not None and step.obs.mask.tolist() == [[True, False, True]] * 2
    step = env.step(act([0], [2]))
    assert step.truncated.tolist() == [True, True] and step.terminated.tolist() == [False, False]
    assert step.final_obs.mask is not None and step.final_obs.mask.tolist() == [[True, True, False]] * 2
    assert step.obs.mask is not None and step.obs.mask.tolist() == [[False, True, True]] * 2


def test_own_platform_through_gymnasium_and_back() -> None:
    gymnasium.register(
        "tests/Satiation-v0",
        entry_point="recsys_rl.foreign.ids:RecSysEnv",
        kwargs={"platform": "satiation", "data": "synthetic", "num_items": 25, "embedding_dim": 4},
    )
    env = GymEnv("gym:tests/Satiation-v0", 2, 0)
    assert (env.interface.context_size, env.interface.action_sizes) == (8 + 20 + 20, (25,))
    env.reset()
    mask = env.step(act([3], [4])).obs.mask
    assert mask is not None and [row.nonzero().flatten().tolist() for row in ~mask] == [[3], [4]]


def test_multidiscrete_actions_have_one_position_for_each_component() -> None:
    env = GymEnv(register("Multi", action=spaces.MultiDiscrete([2, 4], start=[0, 10])), 2, 0)
    assert env.interface.action_sizes == (2, 4)
    env.reset()
    Clock.taken.clear()
    env.step(act([1, 3], [0, 2]))
    assert Clock.taken == [[1, 13], [0, 12]]


def test_both_ends_at_once_are_a_termination() -> None:
    env = GymEnv(register("Both", ends=(1, 1)), 1, 0)
    env.reset()
    step = env.step(act([0]))
    assert step.terminated.tolist() == [True] and step.truncated.tolist() == [False]
    assert step.left_early.tolist() == [False]


def test_observations_are_standardised_by_running_moments() -> None:
    env = GymEnv(register("Plain", ends=(2, 99)), 2, 0, normalize_obs=True)
    assert env.reset().context.tolist() == [[0.0], [0.0]]  # mean 0
    step = env.step(act([0], [0]))  # seen: 0, 0, 1, 1; mean 1/2, deviation 1/2
    torch.testing.assert_close(step.obs.context, torch.tensor([[1.0], [1.0]]))
    step = env.step(act([0], [0]))  # after the reset: 0, 0, 1, 1, 0, 0; mean 1/3, variance 2/9
    deviation = (2 / 9) ** 0.5
    torch.testing.assert_close(step.obs.context, torch.full((2, 1), -1 / 3 / deviation))
    torch.testing.assert_close(step.final_obs.context, torch.full((2, 1), 3.0))  # (2 - 1/3) / deviation, cut


def test_rewards_are_divided_by_the_deviation_of_the_discounted_return() -> None:
    env = GymEnv(register("Plain", ends=(2, 99)), 2, 0, gamma=0.5, normalize_reward=True)
    env.reset()
    assert env.step(act([0], [0])).reward.tolist() == [10.0, 10.0]  # returns 1, 1: no deviation, so cut at 10
    step = env.step(act([0], [0]))  # returns 1, 1, 1.5, 1.5: deviation 1/4
    torch.testing.assert_close(step.reward, torch.tensor([4.0, 4.0]))
    assert step.streams.tolist() == [[1.0], [1.0]]
    step = env.step(act([0], [0]))  # a new episode: 1, 1, 1.5, 1.5, 1, 1, of variance 1/18
    torch.testing.assert_close(step.reward, torch.full((2,), 18**0.5))


def test_evaluation_freezes_statistics_and_keeps_rewards() -> None:
    settings: dict[str, Any] = {"gamma": 0.5, "normalize_obs": True, "normalize_reward": True}
    trained = GymEnv(register("Plain", ends=(2, 99)), 2, 0, **settings)
    trained.reset()
    trained.step(act([0], [0]))  # mean 1/2, deviation 1/2
    saved = trained.state_dict()
    env = GymEnv(register("Plain", ends=(2, 99)), 3, 0, **settings, training=False)
    env.load_statistics(saved)
    torch.testing.assert_close(env.reset().context, torch.full((3, 1), -1.0))
    step = env.step(act([0], [0], [0]))
    torch.testing.assert_close(step.obs.context, torch.full((3, 1), 1.0))
    assert step.reward.tolist() == [1.0, 1.0, 1.0]
    kept = env.statistics()
    assert len(kept) == 6
    assert all(torch.equal(kept[name], saved[name]) for name in kept)
    with pytest.raises(UserError):
        GymEnv(register("Plain", ends=(2, 99)), 2, 0, normalize_obs=True).load_state_dict(saved)


def test_rows_and_seeds_have_their_own_episodes() -> None:
    first, again, other = (GymEnv("gym:CartPole-v1", 2, seed=seed).reset() for seed in (0, 0, 1))
    require_same_obs(first, again, "observations differ")
    assert not torch.equal(first.context, other.context)
    assert not torch.equal(first.context[0], first.context[1])


def test_saved_state_has_all_actions_since_reset() -> None:
    env = GymEnv(register("Plain", ends=(2, 99)), 2, 0)
    env.reset()
    env.step(act([1], [0]))
    env.step(act([0], [1]))
    assert env.state_dict()["actions"].tolist() == [[[1], [0]], [[0], [1]]]
    assert env.state_dict()["actions"].dtype == torch.uint8
    env.reset()
    assert env.state_dict()["actions"].shape == (0, 2, 1)


def test_nondeterministic_environment_is_not_resumed() -> None:
    env = GymEnv(register("Plain", ends=(2, 99)), 2, 0)
    env.reset()
    env.step(act([0], [0]))
    saved = env.state_dict() | {"context": torch.full((2, 1), 7.0)}
    with pytest.raises(UserError):
        env.load_state_dict(saved)


@given(st.lists(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=5), min_size=1, max_size=6))
def test_moments_of_batches_are_the_moments_of_all(batches: list[list[float]]) -> None:
    moments = RunningMoments(1, torch.device("cpu"))
    for batch in batches:
        moments.update(torch.tensor(batch, dtype=torch.float64).unsqueeze(-1))
    everything = np.concatenate([np.array(batch) for batch in batches])
    assert moments.count.item() == len(everything)
    np.testing.assert_allclose(moments.mean.item(), everything.mean(), rtol=1e-9, atol=1e-9)
    expected = np.sqrt(everything.var() + 1e-8) if len(everything) > 1 else 1.0
    np.testing.assert_allclose(moments.deviation.item(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "env_id",
    [
        "gym:NoSuchThing-v3",
        "gym:not an id",
        "gym:Pendulum-v1",
        register("Text", observation=spaces.Text(4)),
        register("Nested", observation=spaces.Dict({"a": spaces.Sequence(spaces.Discrete(2))})),
    ],
)
def test_unsupported_environments(env_id: str) -> None:
    with pytest.raises(UserError) as caught:
        GymEnv(env_id, 2, 0)
    assert "\n" not in str(caught.value)


def test_masks_of_wrong_shape() -> None:
    env = GymEnv(register("Wide", action=spaces.Discrete(4), mask=True), 2, 0)
    with pytest.raises(UserError):
        env.reset()
    env = GymEnv(register("MultiMask", action=spaces.MultiDiscrete([3, 3]), mask=True), 2, 0)
    with pytest.raises(UserError):
        env.reset()


def test_module_is_imported_only_if_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "somebodys_envs.py").write_text(
        "import gymnasium\n"
        "gymnasium.register('somebody/Pole-v0',"
        " entry_point='gymnasium.envs.classic_control.cartpole:CartPoleEnv')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError):
        GymEnv("gym:somebodys_envs:somebody/Pole-v0", 2, 0)
    assert "somebodys_envs" not in sys.modules
    env = GymEnv("gym:somebodys_envs:somebody/Pole-v0", 2, 0, allow_module=True)
    assert env.reset().context.shape == (2, 4)
    with pytest.raises(UserError):
        GymEnv("gym:nobodys_envs:Pole-v0", 2, 0, allow_module=True)

"""Any Gymnasium environment for our agents: ``gym:CartPole-v1``, or ``gym:module:Id``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import Tensor

from recsys_rl.errors import FieldError
from recsys_rl.foreign.running import RunningMoments, normalize_obs, scale_reward
from recsys_rl.foreign.spaces import AUTO, MASK, Bools, Floats, layout_of
from recsys_rl.records import Platform
from recsys_rl.settings.fields import shown
from recsys_rl.types import CANDIDATES, Interface, Obs, Signal, Step, Stream, UserError


@dataclass(frozen=True)
class GymConfig:
    """Observations and rewards of a Gymnasium environment."""

    candidate_features: str = AUTO
    """Key of the part of a Dict observation with one row of features for each action; the same weights score
    each row. auto: the only part that fits; none: each action has its own weights."""
    normalize_obs: bool = False
    """Normalise observations by their running mean and variance, which the checkpoint holds."""
    normalize_reward: bool = False
    """Divide rewards by the running deviation of the return, which the checkpoint holds."""


class GymEnv:
    """N copies of an environment, stepped together, with same-step autoreset.

    Observations (Box, or Dict and Tuple of Box, Discrete, MultiDiscrete and MultiBinary) are flattened to
    ``Obs.context`` (N, F) float32 as ``gymnasium.spaces.utils.flatten`` does. With a Discrete action, an
    ``action_mask`` in a Dict observation, or else in ``info``, becomes ``Obs.mask`` (N, A). Actions are
    Discrete (K = 1) or MultiDiscrete (one position for each component). They count from 0 here, whatever the
    start of the space is.

    If a part of the observation lists C candidates, one for each action, its features are the piece
    "candidates" of the context, and a MultiDiscrete action is a slate of different candidates. The context
    then ends with the number of steps so far.

    If an environment reports both ends in one step, ``terminated`` counts and ``truncated`` does not.

    The inner state of a Gymnasium environment can't be saved. Therefore ``state_dict()`` holds all actions
    since ``reset()``, and ``load_state_dict()`` takes them again. A resumed run first needs the environment
    time of the run so far, and then goes on bit for bit.
    """

    streams: tuple[Stream, ...] = (Stream("reward"),)
    signals: tuple[Signal, ...] = ()

    def __init__(
        self,
        env_id: str,
        num_envs: int,
        seed: int,
        *,
        gamma: float = 0.99,
        candidate_features: str = AUTO,
        normalize_obs: bool = False,
        normalize_reward: bool = False,
        training: bool = True,
        allow_module: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        """
        Args:
            env_id: ``gym:Id``, or ``gym:module:Id`` for an environment that the import of ``module``
                registers; ``gym:`` may be left out.
            gamma: discount of the return whose deviation scales the reward.
            candidate_features: the part of the observation with the features of the candidates; "auto" for
                the only one that fits, "none" for none.
            normalize_obs: standardise observations by their running moments; all candidates have the same.
            normalize_reward: divide rewards by the running deviation of the discounted return.
            training: False freezes these statistics and does not scale rewards, for evaluation.
            allow_module: allow the import of ``module``. Set it only if the user typed the name: a
                checkpoint alone must not decide which code runs.

        Raises UserError for an unknown environment, a forbidden module, or an unsupported space.
        """
        env_id = f"gym:{env_id.removeprefix('gym:')}"
        self.env_id, self.num_envs, self.seed, self.gamma = env_id, num_envs, seed, gamma
        self.training = training
        self.device = torch.device(device)
        self._envs = _make(env_id, num_envs, allow_module)
        self._layout = layout_of(
            env_id,
            self._envs.single_observation_space,
            self._envs.single_action_space,
            candidate_features,
        )
        spec = self._envs.envs[0].spec
        limit = None if spec is None else spec.max_episode_steps
        self.interface = Interface(
            self._layout.context,
            self._layout.action_sizes,
            self._layout.slate_size,
            session_length=limit or 0,
        )
        self._actions: list[Tensor] = []  # (N, K) each: all actions since reset
        self._steps = np.zeros(num_envs, np.int64)  # (N,): of the episodes under way
        self._now: Obs
        self._mask_in_info = False  # known after the first reset
        self._moments: dict[str, RunningMoments] = {}
        if normalize_obs:
            features = self.interface.candidate_features
            of_candidates = features * self._layout.action_sizes[0]
            self._moments["obs"] = RunningMoments(self.interface.context_size - of_candidates, self.device)
            if features:
                self._moments["candidates"] = RunningMoments(features, self.device)
        if normalize_reward:
            self._moments["return"] = RunningMoments(1, self.device)
        self._returns = torch.zeros(num_envs, dtype=torch.float64, device=self.device)  # (N,): discounted

    @property
    def note(self) -> str:
        """One line on the candidates that were found in the observation; "" for one without parts."""
        return self._layout.describe()

    def reset(self, users: Tensor | None = None) -> Obs:
        """Start N episodes. Their seeds are ``users`` (N,) int64 if given, else they come from the seed."""
        if users is None:
            seeds = np.random.SeedSequence(self.seed).generate_state(self.num_envs).tolist()
        else:
            seeds = users.tolist()
        batch, infos = self._envs.reset(seed=seeds)
        self._mask_in_info = not self._layout.masked and MASK in infos
        if (self._layout.masked or self._mask_in_info) and len(self._layout.action_sizes) > 1:
            raise UserError(f"{self.env_id} masks MultiDiscrete actions: only Discrete actions may have one.")
        self._returns = torch.zeros_like(self._returns)
        self._actions = []
        self._steps[:] = 0
        context, mask = self._layout.flatten(batch, self._steps), self._masks(batch, infos)
        self._learn_obs(context)
        self._now = self._obs(context, mask)
        return self._now

    def close(self) -> None:
        """Close the environments."""
        self._envs.close()

    def observe(self) -> Obs:
        """The present observation."""
        return self._now

    def step(self, items: Tensor) -> Step:
        """Take the actions ``items`` (N, K) int64."""
        if self.training:
            self._actions.append(items.to("cpu", self._stored_as))
        actions = items.cpu().numpy() + self._layout.first_action  # (N, K)
        shape = (self.num_envs, *self._layout.action.shape)  # type: ignore[misc]  # known for these spaces
        batch, rewards, terminations, truncations, infos = self._envs.step(actions.reshape(shape))
        terminated = torch.from_numpy(terminations).to(self.device)
        at_limit = torch.from_numpy(truncations).to(self.device)
        truncated = at_limit & ~terminated
        raw_reward = torch.from_numpy(rewards).float().to(self.device)
        reward = self._scale(raw_reward, terminated | truncated)

        ended = terminations | truncations
        played = self._steps + 1
        self._steps = np.where(ended, 0, played)
        context, mask = self._layout.flatten(batch, self._steps), self._masks(batch, infos)
        final_context, final_mask = context.copy(), None if mask is None else mask.copy()
        for row in np.flatnonzero(ended):
            final = infos["final_obs"][row]
            final_context[row] = self._layout.flatten(final, played[row : row + 1])[0]
            if final_mask is not None:
                source = final if self._layout.masked else _info_row(infos["final_info"], int(row))
                final_mask[row] = self._layout.mask_row(source)
        self._learn_obs(context)
        self._now = self._obs(context, mask)
        return Step(
            self._now,
            self._obs(final_context, final_mask),
            reward,
            terminated,
            truncated,
            raw_reward.unsqueeze(1),
            at_limit=at_limit,
        )

    def state_dict(self) -> dict[str, Tensor]:
        """All actions since ``reset()``, the present observation, and the statistics."""
        empty = torch.zeros(0, self.num_envs, len(self.interface.place_sizes), dtype=self._stored_as)
        actions = torch.stack(self._actions) if self._actions else empty  # (T, N, K)
        return {"actions": actions, "context": self._now.context.clone()} | self.statistics()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take the saved actions again. ``observe()`` then returns the saved observation.

        Raises UserError if the state is of another environment, or if this environment is not deterministic.
        """
        self.load_statistics(state)  # a check: the replay computes them again
        for moments in self._moments.values():
            moments.clear()
        self.reset()
        self._check_layout(state, self.state_dict())
        self._check_actions(state["actions"])
        for items in state["actions"]:
            self.step(items.long())
        now = self.state_dict()
        if not all(torch.equal(now[name], value.to(now[name])) for name, value in state.items()):
            raise UserError(
                f"{self.env_id} gave another observation when the saved actions were taken again, so it is "
                "not deterministic and can't be resumed: start a new run without --resume or --run."
            )

    def statistics(self) -> dict[str, Tensor]:
        """The moments of the normalisation, in a flat dict."""
        return {
            f"{prefix}.{name}": value
            for prefix, moments in self._moments.items()
            for name, value in moments.state_dict().items()
        }

    def load_statistics(self, state: Mapping[str, Tensor]) -> None:
        """Load the moments in ``state`` and ignore its other entries. Raises UserError if they don't fit."""
        own = self.statistics()
        self._check_layout({name: value for name, value in state.items() if "." in name}, own)
        for prefix, moments in self._moments.items():
            moments.load_state_dict({name: state[f"{prefix}.{name}"] for name in moments.state_dict()})

    def _check_layout(self, state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
        def layout(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
            return {name: tuple(values.shape[name == "actions" :]) for name, values in tensors.items()}

        if layout(state) != layout(own):
            raise UserError(
                f"The saved state does not fit {self.env_id} with these settings: use the num_envs, "
                "normalize_obs and normalize_reward of the run that saved it."
            )

    def _check_actions(self, actions: Tensor) -> None:
        """Raise UserError if any of ``actions`` (T, N, K) is not an action of this environment."""
        sizes = torch.tensor(self.interface.place_sizes)  # (K,)
        if actions.dtype != self._stored_as or bool(((actions < 0) | (actions >= sizes)).any()):
            raise UserError(
                f"The saved actions do not fit {self.env_id}, which has {tuple(sizes.tolist())} actions: "
                "give a whole checkpoint of this version, or train again."
            )

    @property
    def _stored_as(self) -> torch.dtype:
        return torch.uint8 if max(self.interface.action_sizes) <= 256 else torch.int32

    def _scale(self, reward: Tensor, done: Tensor) -> Tensor:
        moments = self._moments.get("return")
        if moments is None or not self.training:
            return reward
        self._returns = self.gamma * self._returns + reward
        moments.update(self._returns.unsqueeze(-1))
        self._returns = self._returns.masked_fill(done, 0)
        return scale_reward(moments, reward)

    def _learn_obs(self, context: Floats) -> None:
        if "obs" in self._moments and self.training:
            rest, listed = self.interface.split_candidates(torch.from_numpy(context).to(self.device))
            self._moments["obs"].update(rest)
            if listed is not None:
                self._moments["candidates"].update(listed.flatten(0, 1))

    def _obs(self, context: Floats, mask: Bools | None) -> Obs:
        seen = torch.from_numpy(context).to(self.device)  # (N, F)
        if "obs" in self._moments:
            rest, listed = self.interface.split_candidates(seen)
            seen = normalize_obs(self._moments["obs"], rest)
            if listed is not None:
                start = self.interface.place_of(CANDIDATES).start
                features = normalize_obs(self._moments["candidates"], listed).flatten(1)  # (N, C F_c)
                seen = torch.cat([seen[:, :start], features, seen[:, start:]], 1)
        return Obs(seen, mask=None if mask is None else torch.from_numpy(mask).to(self.device))

    def _masks(self, batch: Any, infos: dict[str, Any]) -> Bools | None:
        """(N, A) bool, or None if the environment has no masks."""
        if self._layout.masked:
            return np.stack([self._layout.mask_row({MASK: row}) for row in batch[MASK]])
        if not self._mask_in_info:
            return None
        return np.stack([self._layout.mask_row(_info_row(infos, row)) for row in range(self.num_envs)])


def _make(env_id: str, num_envs: int, allow_module: bool) -> SyncVectorEnv[Any, Any]:
    name = env_id.removeprefix("gym:")
    if ":" in name and not allow_module:
        raise UserError(
            f"{env_id} runs the code of the Python module {name.split(':')[0]!r}: "
            f"type --env {env_id} to allow it."
        )
    try:
        return SyncVectorEnv(
            [lambda: gymnasium.make(name)] * num_envs, autoreset_mode=AutoresetMode.SAME_STEP
        )
    except (gymnasium.error.Error, ImportError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise UserError(
            f"{env_id} can't be made ({reason}): use gym:Id, or gym:module:Id if the import of a module "
            "registers it."
        ) from error


def _info_row(infos: Mapping[str, Any], row: int) -> dict[str, Any]:
    """The info of one environment with its mask only; empty if it had none."""
    return {MASK: infos[MASK][row]} if MASK in infos and infos[f"_{MASK}"][row] else {}


def _check_name(env: str) -> None:
    if not re.fullmatch(r"gym:([A-Za-z_][\w.]*:)?[\w./-]+", env):
        raise FieldError(
            "env", f"is {shown(env)}: it must be gym:Id (as in gym:CartPole-v1) or gym:module:Id."
        )


def _make_env(
    env: str, config: GymConfig, num_envs: int, generator: torch.Generator, gamma: float, training: bool
) -> GymEnv:
    """The environment of a run, seeded from the generator."""
    return GymEnv(
        env,
        num_envs,
        seed=generator.initial_seed(),
        gamma=gamma,
        candidate_features=config.candidate_features,
        normalize_obs=config.normalize_obs,
        normalize_reward=config.normalize_reward,
        training=training,
        allow_module=True,
        device=generator.device,
    )


PLATFORM = Platform(
    GymConfig,
    env=_make_env,
    check=_check_name,
    presets={
        "ppo": {
            "agent_config": {
                "lr": 2e-3,
                "gamma": 0.99,
                "gae_lambda": 0.95,
                "ent_coef": 0.0,
                "update_epochs": 10,
                "batch_size": 128,
                # Of hundreds of actions, each is tried a few times in a rollout: ten epochs would fit noise.
                "target_kl": 0.02,
                "n_steps": 64,
                "num_envs": 16,
                "max_grad_norm": 0.5,
            },
            # The scales of observations and rewards differ within and between environments.
            "env_config": {"normalize_obs": True, "normalize_reward": True},
            "model_config": {"head": "dense", "hidden_dims": [64, 64]},
        },
        "dqn": {
            "agent_config": {
                "lr": 2.3e-3,
                "gamma": 0.99,
                "tau": 0.005,
                # One step would bring a reward of 500 steps ahead back too slowly for 100,000 steps.
                "return_steps": 3,
                "exploration_fraction": 0.16,
                "num_envs": 8,
                "train_freq": 32,
                "gradient_steps": 64,
                "batch_size": 128,
                "learning_starts": 1_000,
            },
            "model_config": {"head": "dense", "hidden_dims": [256, 256]},
            # An update is only 256 steps; an evaluation is many episodes, and a checkpoint has the buffer.
            "train_config": {"log_interval": 4, "eval_interval": 40, "save_interval": 40},
        },
        "a2c": {
            "agent_config": {
                "lr": 1e-3,
                "gamma": 0.99,
                "gae_lambda": 0.95,
                "ent_coef": 0.0,
                "max_grad_norm": 0.5,
                "n_steps": 5,
                "num_envs": 8,
                "normalize_advantage": False,
            },
            "model_config": {"head": "dense", "activation": "tanh"},
            # An update is only 40 steps, but an evaluation is many episodes.
            "train_config": {"log_interval": 100, "eval_interval": 2000, "save_interval": 2000},
        },
    },
    question="Do these agents learn in environments that other people wrote?",
    example="--env gym:CartPole-v1",
)

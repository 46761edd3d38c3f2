"""Replay: a ring of the latest transitions in preallocated tensors (Lin 1992), and the play that fills it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from recsys_rl.errors import FieldError
from recsys_rl.experience.on_policy import session_metrics
from recsys_rl.experience.returns import SessionReturns
from recsys_rl.experience.rollout import follower
from recsys_rl.make import make_env
from recsys_rl.objective.weighted import check_weights, parse_weights, reweighted
from recsys_rl.protocols import Env, Explorer, Learner, Watcher
from recsys_rl.settings.config import Config
from recsys_rl.settings.shared import ReplayConfig
from recsys_rl.types import Action, Batch, Interface, Obs, Step, Transitions, World

BYTES_BESIDE = 8 + 8 + 4 + 4 + 1 + 1
"""Bytes of a transition without its observations: item, log-probability, reward, discount, two ends."""
MOST_MEMORY = 0.8
"""Share of the machine's memory that a buffer may need."""


class Ring:
    """The latest transitions of N users who step together, by slot and user: (slots, N, ...) tensors.

    Each transition holds its true successor, also after the end of a session, and ``terminated`` and
    ``truncated`` apart. So a sampled target never crosses into another session.
    """

    def __init__(self, size: int, num_envs: int, gamma: float, return_steps: int) -> None:
        """``size``: transitions, rounded down to whole slots of N, with ``return_steps`` slots at least."""
        self.slots, self.num_envs = max(size // num_envs, return_steps), num_envs
        self.gamma, self.return_steps = gamma, return_steps
        self.tensors: dict[str, Tensor] = {}  # (slots, N, ...) each; made by the first ``add``
        self.at = 0  # slot of the next transition
        self.filled = 0  # slots with transitions

    def __len__(self) -> int:
        return self.filled * self.num_envs

    @property
    def nbytes(self) -> int:
        """Bytes of the whole buffer, also before it is full."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def add(self, obs: Obs, action: Action, step: Step, rewards: Tensor) -> None:
        """Put the transitions of one step of all users in place of the oldest ones.

        ``obs``: as the policy saw it, with its candidates. ``rewards`` (N,): for learning.
        """
        row = {
            **_fields("obs.", obs),
            **_fields("next_obs.", step.final_obs),
            "items": action.items,
            "logprobs": action.logprob.double(),
            "rewards": rewards,
            "terminated": step.terminated,
            "truncated": step.truncated,
            # Of the value that follows, without the end of the session.
            "discounts": torch.ones_like(rewards) if step.discount is None else step.discount,
        }
        for name, values in row.items():
            if name not in self.tensors:
                self.tensors[name] = self._allocated(name, values)
            self.tensors[name][self.at].copy_(values)
        for name in self.tensors.keys() - row.keys():  # a mask that is not needed any more
            self.tensors[name][self.at].fill_(True)
        self.at = (self.at + 1) % self.slots
        self.filled = min(self.filled + 1, self.slots)

    def _allocated(self, name: str, values: Tensor) -> Tensor:
        """An empty tensor (slots, N, ...). A mask that appears late was True before. Raises FieldError."""
        self.check_memory(self.slots * values.nbytes + self.nbytes)
        shape = (self.slots, *values.shape)
        return values.new_ones(shape) if name.endswith("mask") else values.new_zeros(shape)

    def check_memory(self, needed: int) -> None:
        """Raise FieldError if ``needed`` bytes are more than this machine has for the whole buffer."""
        if needed > MOST_MEMORY * _memory():
            raise FieldError(
                "agent_config.buffer_size",
                f"is {self.slots * self.num_envs:,}: this buffer needs {needed / 1e9:.1f} GB, and this "
                f"machine has {_memory() / 1e9:.1f} GB of memory; lower it.",
            )

    def sample(self, size: int, generator: torch.Generator) -> Transitions:
        """``size`` transitions, drawn uniformly with replacement, with rewards of ``return_steps`` steps.

        The sum of rewards ends with the session. Its successor, ``terminated`` and ``truncated`` are those of
        the last step that it holds. Transitions whose n steps aren't all in the ring are not drawn.
        """
        first = self.return_steps - 1
        device = self.tensors["rewards"].device
        number = max(self.filled - first, 1) * self.num_envs
        drawn = torch.randint(number, (size,), generator=generator, device=device)
        age, user = first + 1 + drawn // self.num_envs, drawn % self.num_envs  # age 1 is the newest slot
        start = (self.at - age) % self.slots
        slot, going = start, torch.ones(size, dtype=torch.bool, device=device)
        total, factor = torch.zeros(size, device=device), torch.ones(size, device=device)
        for n in range(self.return_steps):
            here = (start + n) % self.slots
            slot = torch.where(going, here, slot)
            total = total + torch.where(going, factor * self.tensors["rewards"][here, user], 0.0)
            step = self.gamma * self.tensors["discounts"][here, user]
            factor = torch.where(going, factor * step, factor)
            going = going & ~(self.tensors["terminated"][here, user] | self.tensors["truncated"][here, user])
        return Transitions(
            obs=self._obs("obs.", start, user),
            items=self.tensors["items"][start, user],
            logprobs=self.tensors["logprobs"][start, user],
            rewards=total,
            next_obs=self._obs("next_obs.", slot, user),
            terminated=self.tensors["terminated"][slot, user],
            truncated=self.tensors["truncated"][slot, user],
            discounts=factor,
        )

    def _obs(self, prefix: str, slot: Tensor, user: Tensor) -> Obs:
        fields = {
            name.removeprefix(prefix): values[slot, user]
            for name, values in self.tensors.items()
            if name.startswith(prefix)
        }
        same = fields.pop("same", None)  # the history holds all that is excluded
        return Obs(**fields, **({} if same is None else {"exclude": fields["history"]}))

    def state_dict(self) -> dict[str, Tensor]:
        """The slots that are filled, and the place of the next one."""
        slots = {f"ring.{name}": values[: self.filled].cpu() for name, values in self.tensors.items()}
        return slots | {"ring_at": torch.tensor(self.at), "ring_filled": torch.tensor(self.filled)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of ``state_dict``. Raises KeyError, RuntimeError or ValueError if it doesn't fit."""
        self.at, self.filled = int(state["ring_at"]), int(state["ring_filled"])
        if not (0 <= self.at < self.slots and 0 <= self.filled <= self.slots):
            raise ValueError(f"slot {self.at} of {self.filled}")
        for name, values in state.items():
            if name.startswith("ring."):
                slots = self._allocated(name, values[0]) if len(values) else None
                if slots is not None:
                    slots[: self.filled].copy_(values)
                    self.tensors[name.removeprefix("ring.")] = slots


def _fields(prefix: str, obs: Obs) -> dict[str, Tensor]:
    """The tensors of an observation by name, without the encoder's summary, which depends on its weights.

    Exclusions that are the history itself are marked, and not stored twice.
    """
    fields = {name: values for name, values in vars(obs).items() if values is not None and name != "summary"}
    if obs.exclude is not None and obs.exclude is obs.history:
        fields["same"] = torch.ones(obs.num_rows, dtype=torch.bool, device=obs.context.device)
        del fields["exclude"]
    return {f"{prefix}{name}": values for name, values in fields.items()}


def _memory() -> float:
    """Bytes of the machine's memory; infinite where the system doesn't tell."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return float("inf")


def make_replay(
    config: Config,
    world: World,
    generators: Mapping[str, torch.Generator],
    agent_for: Callable[[Interface], Any],
    num_updates: int = 1,
    average: Callable[[Tensor], None] | None = None,
    process: tuple[int, int] = (0, 1),
) -> tuple[Replay, Learner]:
    """The replay buffer of a run, and the agent that fills it; arguments and errors as ``make_on_policy``."""
    env = make_env(config, world, generator=generators["users"])
    agent = agent_for(env.interface)
    weights = parse_weights(config.train_config.weights)
    return Replay(env, agent, config.agent_config, weights, generators["shuffle"]), agent


class Replay:
    """Plays ``train_freq`` steps of every user for each batch, and draws the batch from the ring."""

    def __init__(
        self,
        env: Env,
        agent: Explorer,
        config: ReplayConfig,
        weights: Mapping[str, float],
        generator: torch.Generator,
    ) -> None:
        """
        Args:
            weights: of reward streams, for learning.
            generator: draws the transitions of each batch.

        Raises FieldError for a stream that does not exist.
        """
        check_weights(weights, env.streams)
        self.env, self.agent, self.config = env, agent, config
        self.weights, self.generator = weights, generator
        self.watcher: Watcher | None = None
        self.ring = Ring(config.buffer_size, env.num_envs, config.gamma, config.return_steps)
        self.sessions = SessionReturns(env.num_envs)
        self._obs: Obs | None = None  # of the next step; None before the first batch

    @property
    def interface(self) -> Interface:
        return self.env.interface

    def batch(self) -> Batch:
        """Play, and draw; a batch without rows before the ring holds ``learning_starts`` transitions."""
        values, done = self._play()
        metrics, ended = session_metrics(values, done, self.env.streams, self.sessions)
        enough = self.ring.filled >= self.ring.return_steps and len(self.ring) >= self.config.learning_starts
        rows = self.config.gradient_steps * self.config.batch_size if enough else 0
        metrics["buffer_gb"] = self.ring.nbytes / 1e9
        return Batch(self.ring.sample(rows, self.generator), metrics, ended)

    @torch.inference_mode()
    def _play(self) -> tuple[Tensor, Tensor]:
        """Fill the ring. Returns the reward streams (T, N, M) and the ends (T, N) of these steps."""
        obs = self.env.observe() if self._obs is None else self._obs
        follow = follower(self.agent)
        now = follow(obs)
        values: list[Tensor] = []
        done: list[Tensor] = []
        for _ in range(self.config.train_freq):
            action = self.agent.explore(now)
            asked = obs if action.candidates is None else obs.among(action.candidates)
            if self.watcher is not None:
                self.watcher.decided(asked, action)
            step = self.env.step(action.items)
            if self.watcher is not None:
                self.watcher.answered(step)
            rewards = reweighted(step.reward, step.streams, self.env.streams, self.weights)
            self.ring.add(asked, action, step, rewards)
            values.append(step.streams)
            done.append(step.terminated | step.truncated)
            obs, now = step.obs, follow(step.final_obs)
            if step.final_obs is not step.obs:
                now = follow(obs, done[-1])
        self._obs = obs
        return torch.stack(values), torch.stack(done)

    def describe(self) -> str:
        """The size of the buffer. Raises FieldError if this machine has too little memory for it.

        A first stage proposes candidates, and makes nothing random, as ``greedy`` draws none.
        """
        obs = self.env.observe()
        row = {**_fields("obs.", self.agent.propose(obs, greedy=True)), **_fields("next_obs.", obs)}
        one = sum(values.nbytes for values in row.values()) + BYTES_BESIDE * obs.num_rows  # bytes of a slot
        self.ring.check_memory(one * self.ring.slots)
        size = self.ring.slots * self.ring.num_envs
        return f"replay buffer: {size:,} transitions, {one * self.ring.slots / 1e9:.2f} GB"

    def verdict(self) -> str:
        return ""

    def state_dict(self, finished: bool = False) -> dict[str, Tensor]:
        """The sessions under way and, unless the run is finished, the ring."""
        return self.sessions.state_dict() | ({} if finished else self.ring.state_dict())

    def load_state_dict(self, state: Mapping[str, Tensor], finished: bool = False) -> None:
        self.sessions.load_state_dict(state)
        if not finished:
            self.ring.load_state_dict(state)
        self._obs = None

"""A network as a policy: actions, probabilities and scores. Algorithms add how it learns.

``OnPolicyLearner`` adds what algorithms that learn from rollouts share: annealing, advantages and returns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from recsys_rl.functional.patterns import Patterns
from recsys_rl.functional.returns import gae
from recsys_rl.models.actor_critic import ActorCritic
from recsys_rl.models.expected import Lessons
from recsys_rl.models.optimizer import FlatAdam
from recsys_rl.protocols import Reader
from recsys_rl.settings.shared import AgentConfig, OnPolicyConfig
from recsys_rl.types import Action, Interface, Obs, Rollout, Transitions

CHANCE = 0.08
"""Share of the draws in which the policy of a team's own log shows all possible items nearly alike, so that
its record can judge and teach other policies; of lists of K places CHANCE / (1 + 1/2 + ... + 1/K). It is the
smallest of .02, .04 .. .1 with which the expected largest weight of the policy that had logged is below 50 on
such a record (docs/11_offline.md)."""

C = TypeVar("C", bound=AgentConfig)
P = TypeVar("P", bound=OnPolicyConfig)


class NetworkPolicy(Generic[C]):
    """The policy of an ActorCritic, with its optimiser and the state of a checkpoint."""

    def __init__(
        self,
        model: ActorCritic,
        config: C,
        num_updates: int,
        generators: Mapping[str, torch.Generator],
        average: Callable[[Tensor], None] | None = None,
    ) -> None:
        """Make the policy of ``model``.

        Args:
            num_updates: updates of the whole run; settings that are annealed are annealed over them.
            generators: holds the streams "policy" (draws actions) and "shuffle" (orders samples).
            average: replaces a tensor in place by its mean over all processes of the run.
        """
        self.model = model
        self.config = config
        self.num_updates = num_updates
        self.generators = generators
        self.average = average
        self.optimizer = FlatAdam(model, config.lr, config.max_grad_norm, average)
        self.updates = 0

    @torch.inference_mode()
    def act(self, obs: Obs, greedy: bool = False) -> Action:
        """The items that are drawn, or the most probable ones, with their log-probability and V(obs)."""
        return self.model.act(obs, greedy, self.generators["policy"])

    @torch.inference_mode()
    def scores(self, obs: Obs) -> Tensor:
        """The scores (N, C) of the candidates of ``obs``, or (N, I) of all items; -inf: it may not be shown.

        The policy draws an item with probability softmax(scores), and a slate place by place without
        repetition (functional/plackett_luce.py). For actions of one position.
        """
        logits: Tensor = self.model.drawn(obs)[0].logits
        return logits if logits.ndim == 2 else logits[:, 0]

    @torch.inference_mode()
    def expected_rewards(self, obs: Obs) -> Tensor | None:
        """The reward (N, C) that the network expects of each candidate of ``obs``, or (N, I) of each item.

        Of a slate: the reward of one whose items are all like this one. None if the network expects none.
        """
        return self.model.expected_rewards(obs)

    @torch.inference_mode()
    def slates(self, obs: Obs) -> Patterns | None:
        """The distribution of slates whose places have kinds; None if ``scores`` tell all."""
        distribution = self.model.drawn(obs)[0]
        return distribution if isinstance(distribution, Patterns) else None

    @torch.inference_mode()
    def logprob(self, obs: Obs, items: Tensor) -> Tensor:
        """Log-probability (N,) of showing ``items`` (N, K); a two-stage policy needs ``obs.candidates``."""
        return self.model.logprob(obs, items)

    @torch.inference_mode()
    def place_logprobs(self, obs: Obs, items: Tensor) -> Tensor:
        """The terms (N, K) of ``logprob``: each place given those above it; -inf if it is impossible."""
        return self.model.place_logprobs(obs, items)

    @torch.inference_mode()
    def item_probabilities(self, obs: Obs, num_items: int) -> Tensor:
        """(N, I) float64: the probability of showing each item, for policies of single items."""
        return self.model.item_probabilities(obs, num_items)

    @torch.inference_mode()
    def value(self, obs: Obs) -> Tensor:
        """V(obs), (N,)."""
        return self.model.value(obs)

    def propose(self, obs: Obs, greedy: bool = False, extra: int = 0) -> Obs:
        """``obs`` with the candidates of a first stage; without one it is returned as it is.

        ``extra``: search so many items more, for a caller who forbids more items than a session does.
        """
        return self.model.propose(obs, greedy, self.generators["policy"], extra)

    @property
    def expects_rewards(self) -> bool:
        """True if ``expected_rewards`` are known."""
        return self.model.expects_rewards

    @property
    def first_stage(self) -> tuple[int, int] | None:
        """The items among which a first stage searches, and C, the candidates that it proposes; or None."""
        if self.model.retriever is None:
            return None
        return len(self.model.retriever.rows), self.model.num_candidates

    @property
    def served_chance(self) -> float:
        """The ``chance`` of the model at a team's own place.

        Of a slate of K places it is CHANCE / (1 + 1/2 + ... + 1/K). The weight of chance stays while the
        items above leave: with K items of equal weights it is left with K, K - 1, ... 1 of these, and so
        fills about the share CHANCE of the places.
        """
        return CHANCE / sum(1 / left for left in range(1, self.model.shapes.slate_size + 1))

    def keep_chance(self) -> None:
        """Draw with ``served_chance`` from now on."""
        self.model.chance = self.served_chance

    def draw_by_rank(self) -> None:
        """Draw slates by the order of their items from now on.

        The ratio of the weights of two neighbours is the K-th root of 1 / ``served_chance``: then the items
        below the K best ones have about the weight of chance.
        """
        self.model.draw_ratio = self.served_chance ** (-1 / self.model.shapes.slate_size)

    def reader(self) -> Reader | None:
        """The state of the encoder for users who act; None if there is nothing to keep."""
        return self.model.reader()

    def share_index(self, other: NetworkPolicy[C]) -> None:
        """Search the first stage's candidates in the index of ``other``, which has the same items."""
        self.model.retriever = other.model.retriever

    def mean_gates(self, obs: Obs, interface: Interface) -> dict[str, float]:
        """The mean gates of a scorer head by name; empty with another head."""
        return self.model.mean_gates(obs, interface)

    def state_dict(self) -> dict[str, Tensor]:
        """Weights, optimiser, count of updates, and how it draws, on the CPU."""
        draws = {"chance": (self.model.chance, 0.0), "draw_ratio": (self.model.draw_ratio, 1.0)}
        own = {k: torch.tensor(x, dtype=torch.float64) for k, (x, plain) in draws.items() if x != plain}
        return self.optimizer.state_dict() | {"updates": torch.tensor(self.updates)} | own

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of ``state_dict``. Raises KeyError, RuntimeError or ValueError if it doesn't fit."""
        self.optimizer.load_state_dict(state)
        self.updates = int(state["updates"])
        chance, ratio = float(state.get("chance", 0.0)), float(state.get("draw_ratio", 1.0))
        self.model.chance, self.model.draw_ratio = chance, ratio
        if self.updates < 0 or not 0 <= chance < 1 or not 1 <= ratio < math.inf:
            raise ValueError(f"{self.updates} updates, a chance of {chance}, a ratio of {ratio}")

    @property
    def remaining(self) -> float:
        """Share of the run that is left: 1 at the first update, towards 0 at the last."""
        return 1 - self.updates / self.num_updates

    def reward_loss(self, batch: Transitions, obs: Obs) -> Tensor:
        """The loss of the rewards that the heads of all networks here expect of a log's decisions.

        ``obs``: the observations of the batch, with the summary that the policy's own network made of them.
        """
        networks = [network for network in self.model.modules() if isinstance(network, ActorCritic)]
        known = batch.items, batch.rewards, self.average
        losses = [
            network.reward_loss(obs if network is self.model else batch.obs, *known) for network in networks
        ]
        return torch.stack(losses).sum()

    def anneal_lr(self) -> None:
        """Set the learning rate of this update."""
        self.optimizer.lr = self.config.lr * (self.remaining if self.config.anneal_lr else 1)


class Targets(NamedTuple):
    """Recorded numbers with which a loss compares the network's outputs, (S,) each."""

    old_logprob: Tensor
    old_value: Tensor
    returns: Tensor
    advantage: Tensor


class Samples(NamedTuple):
    """S = T N steps of a rollout, (S, ...) each."""

    obs: Obs
    places: Tensor  # (S, K): of the items among the alternatives
    targets: Targets
    lessons: Lessons | None  # of what is learned beside the policy

    def rows(self, index: Tensor) -> Samples:
        """Copies of the rows ``index``."""
        lessons = None if self.lessons is None else self.lessons.rows(index)
        targets = Targets(*(tensor.index_select(0, index) for tensor in self.targets))
        return Samples(self.obs.rows(index), self.places.index_select(0, index), targets, lessons)

    def split(self, size: int) -> list[Samples]:
        """Minibatches of ``size`` rows each; the last may have fewer."""
        targets = map(Targets._make, zip(*(tensor.split(size) for tensor in self.targets), strict=True))
        observations = self.obs.split(size)
        lessons = [None] * len(observations) if self.lessons is None else self.lessons.split(size)
        parts = zip(observations, self.places.split(size), targets, lessons, strict=True)
        return [Samples(*piece) for piece in parts]


class OnPolicyLearner(NetworkPolicy[P]):
    """The part of PPO and A2C before their losses: annealing, and samples with advantages and returns."""

    def anneal(self) -> float:
        """Set the learning rate of this update. Returns the weight of its entropy bonus."""
        self.anneal_lr()
        fraction = self.config.ent_fraction
        left = max(0.0, (self.remaining - (1 - fraction)) / fraction) if self.config.anneal_ent else 1
        return self.config.ent_coef * left

    def samples(self, rollout: Rollout) -> Samples:
        """The steps of a rollout in their order, with advantages by GAE and with returns.

        They are views of the rollout, which acting recorded in inference mode: ``Samples.rows`` makes copies
        that can take part in differentiation.
        """
        config, done = self.config, rollout.terminated | rollout.truncated
        advantages = gae(
            rollout.rewards,
            rollout.values,
            rollout.next_values,
            rollout.terminated if config.bootstrap_time_limit else done,
            done,
            config.gamma,
            config.gae_lambda,
            rollout.discounts,
        )  # (T, N)
        returns = advantages + rollout.values  # (T, N)
        targets = Targets(
            *(tensor.flatten() for tensor in (rollout.logprobs, rollout.values, returns, advantages))
        )  # (S,) each
        obs = rollout.obs.map(lambda tensor: tensor.flatten(0, 1))
        places = obs.places_of(rollout.items.flatten(0, 1))
        return Samples(obs, places, targets, self.model.lessons(rollout, self.average))

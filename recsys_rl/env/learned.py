"""`learned`: users who were learned from a log of decisions (recsys-rl fit-users).

An ensemble of networks gives each signal of a shown item as a distribution, and the probability that the
user leaves after the step (models/user_network.py has the equations). Hidden state of a user: which network
plays the session, drawn at its first step, and what the networks keep of the session.

Given this state, the signals of a step are drawn independently of each other. The pieces of the context
that no session derives, such as the profile and the hour, are in each step of each session of a user those of
one decision: the first one of their first session in the log, in the order of its rows. A user with logged
sessions at noon and at night always plays at the hour of the first one. Rewards are those of the log's
platform.

Two further streams, of weight 0, are made for learning that distrusts the networks. A weight of training puts
them into the reward (--weights), a limit bounds them (--limit), and tables show the reward without them::

    spread  = standard deviation over the networks of the item's mean reward      (MOPO, Yu et al. 2020)
    entropy = H(item) + H(last item and this one), of what the log shows next     (DORL, Gao et al. 2023)

``--weights spread=-1`` is the penalty with lambda 1, and ``--weights entropy=0.1`` the bonus with lambda 0.1
(functional/next_entropy.py has H). The second term is that of single items. MOPO measures the error of the
next state, too; the spread here is that of the reward alone.

The spread takes all networks at each step, and the other answers only that of the session. So learning has no
stream ``spread`` unless a weight or a limit names it; ``--weights spread=0`` only shows it in the log. Tables
and recorded logs always have it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from recsys_rl.dials import EnvConfig
from recsys_rl.errors import amount
from recsys_rl.functional.next_entropy import keys_of, look_up
from recsys_rl.objective.limit_streams import limit_streams
from recsys_rl.objective.weighted import stream_weights
from recsys_rl.protocols import Platform, ResponseNetwork
from recsys_rl.types import Catalogue, Feedback, Population, Signal, Stream, UserFacts

BLOCK = 2**17  # items times users that pass the networks together
SCORE_COST = 32
"""The time of an item's mean reward by one network, over that by a simulator's equations: about 1,500 ns, and
26 to 101 ns on three platforms."""


@dataclass(frozen=True)
class LearnedConfig(EnvConfig):
    """Users who were learned from a log; the file brings items, users and sizes."""

    user_model: str | None = None
    """The file of learned users (recsys-rl fit-users). It brings the items, the users and the sizes."""


@dataclass(frozen=True)
class LearnedState:
    given: Mapping[str, Tensor]  # (N, size) each: pieces of the context
    memory: Mapping[str, Tensor]  # (N, ...) each: what the networks keep of the session
    member: Tensor  # (N,) int64: the network of the session; -1 before it is drawn
    last: Tensor  # (N,) int64: the item of the last step, of the first place; -1 at the start


@dataclass(frozen=True)
class LearnedUsers:
    """The user model."""

    catalogue: Catalogue
    population: Population
    config: LearnedConfig
    facts: UserFacts
    network: ResponseNetwork
    used: Collection[str] | None = None  # the streams that learning names; None: all streams are shown
    repeats: ClassVar[bool] = False

    def __post_init__(self) -> None:
        # An object has that of its log; the class has that of most platforms, for checks without a file.
        object.__setattr__(self, "repeats", self.facts.interface.repeats)

    @property
    def context(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.facts.interface.context)

    @cached_property
    def signals(self) -> tuple[Signal, ...]:
        """The signals of the log, what learning may distrust, and the noise that ``advance`` needs."""
        members, most = self.network.num_members, float(torch.finfo(torch.float32).max)
        spread = (Signal("spread", False, high=most),) if self.has_spread else ()
        noise = (Signal("network", False, high=members), Signal("chance", False))
        return (*self.facts.signals, *spread, Signal("entropy", False, high=2.0), *noise)

    @property
    def streams(self) -> tuple[Stream, ...]:
        """Those of the log's platform, then ``spread``, if there is one, and ``entropy``, of no weight."""
        spread = (Stream("spread", 0.0),) if self.has_spread else ()
        return (*self.facts.streams, *spread, Stream("entropy", 0.0))

    @cached_property
    def has_spread(self) -> bool:
        """False if learning names other streams alone. True with an unknown name, as the error lists all."""
        others = {*limit_streams(self.catalogue, self.facts.streams), "entropy"}
        return self.used is None or not others.issuperset(self.used)

    @property
    def slate_size(self) -> int:
        return self.facts.interface.slate_size

    @property
    def history_length(self) -> int:
        return self.facts.interface.history_length

    @property
    def relative(self) -> bool:
        return self.facts.interface.relative

    @property
    def score_cost(self) -> int:
        """Before its first step a session is played in the mean of all networks (protocols.CostlyUsers)."""
        return SCORE_COST * self.network.num_members

    @cached_property
    def bounds(self) -> Mapping[str, float]:
        return {name: float(x.abs().max()) for name, x in self._given.items()}

    @property
    def assumptions(self) -> str:
        """Part of a sentence: the log of which these users are a model."""
        form = "" if self.facts.features == "generic" else "; the model knows the simulator's equations"
        return f"users learned from {self.facts.log}, by {amount(self.network.num_members, 'network')}{form}"

    def sample(self, users: Tensor) -> LearnedState:
        given = {name: x.index_select(0, users) for name, x in self._given.items()}
        nothing = torch.full_like(users, -1)
        return LearnedState(given, self.network.begin(given, len(users)), nothing, nothing.clone())

    def possible(self, user_state: LearnedState) -> bool:
        steps, member = user_state.memory["steps"], user_state.member
        known = (member >= -1) & (member < self.network.num_members) & (steps >= 0)
        known &= (user_state.last >= -1) & (user_state.last < self.catalogue.num_items)
        return bool(known.all())

    def visible(self, user_state: LearnedState) -> Mapping[str, Tensor]:
        return user_state.given

    def respond(
        self, user_state: LearnedState, items: Tensor, shown: Tensor, generator: torch.Generator | None
    ) -> Feedback:
        member, memory, noise = user_state.member, user_state.memory, None
        chance = self.catalogue.embedding.new_full((len(items),), 0.5)
        if generator is not None:
            # Drawn for every row, so that the stream of random numbers does not depend on the sessions.
            noise = torch.rand(
                *items.shape, len(self.facts.signals), generator=generator, device=items.device
            )
            of_session = torch.rand(2, len(items), generator=generator, device=items.device)
            drawn = (of_session[0] * self.network.num_members).long()  # (N,)
            member, chance = torch.where(member < 0, drawn, member), of_session[1]
        parts = self._with_spread if self.has_spread else self._alone
        hidden = torch.stack([member + 1.0, chance], 1).unsqueeze(1).expand(-1, items.shape[1], -1)
        signals = torch.cat(
            [*parts(memory, items, member, noise), self.entropy(user_state, items).unsqueeze(-1), hidden], -1
        )  # (N, K, S + 4), or S + 3 without a spread
        return Feedback(signals.masked_fill_(~shown.unsqueeze(-1), 0), shown)

    def _alone(
        self, memory: Mapping[str, Tensor], items: Tensor, member: Tensor, noise: Tensor | None
    ) -> tuple[Tensor, ...]:
        """The signals (N, K, S) of the log; without ``noise`` their means."""
        if noise is None:
            return (self.network.expected(memory, items, member),)
        return (self.network.drawn(memory, items, member, noise),)

    def _with_spread(
        self, memory: Mapping[str, Tensor], items: Tensor, member: Tensor, noise: Tensor | None
    ) -> tuple[Tensor, ...]:
        """The same, and the spread (N, K, 1)."""
        if noise is None:
            means = self.network.means(memory, items)  # (E, N, K, S)
            own = means[member.clamp_min(0), torch.arange(len(member), device=member.device)]
            signals = torch.where((member < 0).view(-1, 1, 1), means.mean(0), own)
        else:
            signals, means = self.network.drawn_and_means(memory, items, member, noise)
        return signals, (means @ self._reward_of_signals).std(0, correction=0).unsqueeze(-1)

    def entropy(self, user_state: LearnedState, items: Tensor) -> Tensor:
        """(N, K): H of ``items`` (N, K), and on single items that of the last item and this one."""
        shown, number = self._shown_next, self.catalogue.num_items
        found = look_up(shown["keys1"], shown["entropies1"], items)
        if "keys2" in shown:
            pairs = torch.stack([user_state.last.unsqueeze(1).expand_as(items), items], -1)
            found = found + look_up(shown["keys2"], shown["entropies2"], keys_of(pairs, number))
        return found

    def rewards(self, feedback: Feedback) -> Tensor:
        number = len(self.facts.signals)  # S
        of_log, distrust = feedback.signals[..., :number], feedback.signals[..., number:-2]
        return torch.cat([of_log.sum(1) @ self._of_signals, distrust.sum(1)], 1)  # (N, M)

    def advance(
        self, user_state: LearnedState, items: Tensor, feedback: Feedback
    ) -> tuple[LearnedState, Tensor]:
        signals, shown = feedback.signals, feedback.shown
        drawn, chance = signals[..., -2].amax(1).long() - 1, signals[..., -1].amax(1)  # (N,) each
        member = torch.where(user_state.member < 0, drawn, user_state.member)
        memory, leaves = self.network.after(
            user_state.memory,
            items,
            shown,
            signals[..., : len(self.facts.signals)],
            torch.full_like(member, -1) if self.has_spread else member,
        )
        own = leaves.gather(1, member.clamp_min(0).unsqueeze(1)).squeeze(1)
        probability = torch.where(member < 0, leaves.mean(1), own)  # (N,)
        last = torch.where(shown[:, 0], items[:, 0], user_state.last)
        return replace(user_state, memory=memory, member=member, last=last), chance > 1 - probability

    def expected_reward(self, user_state: LearnedState, block: slice = slice(None)) -> Tensor:
        """The mean reward (N, b) of showing each item of the block now, by the networks of the session."""
        items = torch.arange(self.catalogue.num_items, device=user_state.member.device)[block]
        member = user_state.member
        found = [
            self.network.expected(user_state.memory, part.expand(len(member), -1), member)
            for part in items.split(max(1, BLOCK // max(1, len(member))))
        ]
        return torch.cat(found, 1) @ self._reward_of_signals

    @cached_property
    def _given(self) -> Mapping[str, Tensor]:
        """(U', size) each: the first pieces of the context of all users of the population.

        People of whom the file knows nothing have the pieces of others, one after another, but for their own
        profile, if that is the first piece.
        """
        ids, known = self.population.user_ids, self.facts.users.to(self.population.user_ids)
        place = torch.searchsorted(known, ids).clamp_max(len(known) - 1)  # (U',)
        there = known[place] == ids
        row = torch.where(there, place, torch.arange(len(ids), device=ids.device) % len(known))
        found = {name: x.to(ids.device)[row] for name, x in self.facts.given.items()}
        first, profile = self.context[0], self.population.profile
        if first in found and found[first].shape == profile.shape:
            found[first] = torch.where(there.unsqueeze(1), found[first], profile)
        return found

    @cached_property
    def _shown_next(self) -> Mapping[str, Tensor]:
        device = self.catalogue.embedding.device
        return {name: x.to(device) for name, x in self.facts.shown_next.items()}

    @cached_property
    def _reward_of_signals(self) -> Tensor:
        """(S,): the reward is the sum of the signals times these numbers."""
        return self._of_signals @ stream_weights(self.facts.streams).to(self._of_signals)

    @cached_property
    def _of_signals(self) -> Tensor:
        return self.facts.of_signals.to(self.catalogue.embedding.device)


PLATFORM = Platform(
    LearnedConfig,
    users=LearnedUsers,
    user_file="user_model",
    presets={
        "*": {"agent_config": {"gamma": 0.99, "gae_lambda": 0.95}},
        "ppo": {"agent_config": {"lr": 1e-3}, "train_config": {"total_timesteps": 600_000}},
        "a2c": {"train_config": {"total_timesteps": 300_000}},
        "dqn": {"train_config": {"total_timesteps": 300_000}},
    },
)

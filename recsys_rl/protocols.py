"""Protocols of a policy, a learner, a user model and an environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from recsys_rl.types import (
    Action,
    Batch,
    Catalogue,
    Feedback,
    Interface,
    Obs,
    Rollout,
    Signal,
    Step,
    Stream,
)

UserState = Any  # a frozen dataclass of (N, ...) tensors; each user model has its own


class Policy(Protocol):
    """An object that chooses items."""

    def act(self, obs: Obs, greedy: bool = False) -> Action: ...


class Reader(Protocol):
    """The state that a policy keeps of N users while they act."""

    def follow(self, obs: Obs, ended: Tensor | None = None) -> Obs:
        """The next observation of the same users, with the summary of its history.

        ``ended`` (N,) bool: only these rows differ from the last observation. None: any may.
        """
        ...


@runtime_checkable
class ReadingPolicy(Policy, Protocol):
    """A policy that encodes histories, and can go on from its encoding of the last observation."""

    def reader(self) -> Reader | None:
        """A new state; None if there is nothing to keep."""
        ...


class Behaviour(Policy, Protocol):
    """A policy whose decisions have a known probability, so that they can be recorded."""

    def place_logprobs(self, obs: Obs, items: Tensor) -> Tensor:
        """The terms (N, K) of the log-probability of ``items`` (N, K), each place given those above it.

        They are float64, and -inf at an impossible place. The terms below it have no meaning.
        """
        ...

    def item_probabilities(self, obs: Obs, num_items: int) -> Tensor:
        """(N, I) float64: the probability of showing each item, for policies of single items."""
        ...


class ScoringPolicy(Behaviour, Protocol):
    """A policy that draws by the scores of items, as a server needs them."""

    def scores(self, obs: Obs) -> Tensor:
        """The scores (N, C) of the candidates of ``obs``, or (N, I) of all items; -inf at forbidden ones."""
        ...


class Learner(Policy, Protocol):
    """A policy that learns from the batches of its experience."""

    def update(self, batch: Any) -> dict[str, float]:
        """Learn from a ``Rollout`` or ``Transitions``, by ``Algorithm.experience``; return diagnostics."""
        ...

    def state_dict(self) -> dict[str, Tensor]: ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None: ...


class Actor(Learner, Protocol):
    """A learner whose rollouts hold values: its experience is on-policy."""

    def value(self, obs: Obs) -> Tensor: ...


class Explorer(Learner, Protocol):
    """A learner that explores while it fills a replay buffer."""

    def explore(self, obs: Obs) -> Action: ...

    def propose(self, obs: Obs, greedy: bool = False, extra: int = 0) -> Obs:
        """``obs`` with the candidates of a first stage; without one it is returned as it is."""
        ...


class Watcher(Protocol):
    """An object that sees each decision of a run and its outcome."""

    def decided(self, obs: Obs, action: Action) -> None:
        """Called before the environment's step; ``obs`` has the candidates of the policy."""
        ...

    def answered(self, step: Step) -> None: ...

    def state_dict(self) -> dict[str, Tensor]:
        """The state of the decisions that it holds, for a resumed run."""
        ...


class Objective(Protocol):
    """A step from the reward streams of a rollout to the rewards that are learned from."""

    def apply(self, rollout: Rollout) -> tuple[Rollout, dict[str, float]]:
        """The rollout with other ``rewards`` (T, N), and numbers for the log, always of the same names."""
        ...

    def verdict(self) -> str:
        """Sentences about it for the user at the end of the run; "" if there are none."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """The state for a resumed run, on the CPU, under names of the object's own."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of ``state_dict``; ``state`` may hold more. Raises KeyError or ValueError."""
        ...


class Experience(Protocol):
    """The source of the batches of a run: rollouts, a replay buffer or a log."""

    watcher: Watcher | None
    """Sees each decision of a source that acts."""

    @property
    def env(self) -> Env | None:
        """The environment that it plays; None for a log."""
        ...

    @property
    def interface(self) -> Interface:
        """Observations and actions in the batches."""
        ...

    def batch(self) -> Batch:
        """The next batch, of ``steps_per_update`` steps (settings/shared.py)."""
        ...

    def describe(self) -> str:
        """A line about the source before training; "" if there is nothing to say.

        Raises UserError if the source can't serve on this machine.
        """
        ...

    def verdict(self) -> str:
        """Sentences about it for the user at the end of the run; "" if there are none."""
        ...

    def state_dict(self, finished: bool = False) -> dict[str, Tensor]:
        """The state for a resumed run. ``finished``: no run will be resumed from it."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor], finished: bool = False) -> None:
        """The inverse of ``state_dict``. Raises KeyError, RuntimeError or ValueError if it doesn't fit."""
        ...


class Env(Protocol):
    """N sessions stepped together."""

    num_envs: int
    interface: Interface

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The M reward streams."""
        ...

    @property
    def signals(self) -> tuple[Signal, ...]:
        """All signals in ``Step.feedback``, visible and hidden; () without feedback."""
        ...

    def reset(self, users: Tensor | None = None) -> Obs: ...

    def step(self, items: Tensor) -> Step: ...

    def state_dict(self) -> dict[str, Tensor]: ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None: ...

    def observe(self) -> Obs:
        """The present observation, also after ``load_state_dict``."""
        ...

    def statistics(self) -> dict[str, Tensor]:
        """The statistics of the normalisation, which evaluation also needs; empty without one."""
        ...

    def load_statistics(self, state: Mapping[str, Tensor]) -> None:
        """Load the statistics; ``state`` may hold more entries. Raises UserError if they don't fit."""
        ...

    def close(self) -> None: ...


class UserModel(Protocol):
    """The users of a platform: pure functions of their hidden state.

    No method changes its arguments or keeps a state. Rows are independent: row n of every result depends on
    row n of the arguments (and on its own noise).
    """

    @property
    def repeats(self) -> bool:
        """True if an item may be shown twice in one session."""
        ...

    @property
    def context(self) -> tuple[str, ...]:
        """Names of the pieces of the context, from session.py or from ``visible``.

        A profile is the first piece: an embedding of the user, (N, D), from ``visible``. Rankings by profile
        use it. On a platform without a profile the first piece is one of session.py, and tables leave these
        rankings out. A piece COLUMN[ATTRIBUTE] is a column of the items for each user (user_columns.py).
        """
        ...

    @property
    def signals(self) -> tuple[Signal, ...]:
        """The S signals of each shown item."""
        ...

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The M reward streams."""
        ...

    @property
    def slate_size(self) -> int:
        """K: number of items of one step."""
        ...

    @property
    def bounds(self) -> Mapping[str, float]:
        """The largest absolute value of each piece of ``visible``."""
        ...

    @property
    def assumptions(self) -> str:
        """Part of a sentence: an assumption about missing data; "" if there is none."""
        ...

    def sample(self, users: Tensor) -> UserState:
        """The state of ``users`` (N,), rows of the population, at the start of a session."""
        ...

    def possible(self, user_state: UserState) -> bool:
        """True if sessions under way can be in this state. Its numbers are finite.

        It checks the state in a checkpoint before a run is resumed.
        """
        ...

    def visible(self, user_state: UserState) -> Mapping[str, Tensor]:
        """Pieces of the context beside those of session.py, by name, (N, size) each; e.g. the profile."""
        ...

    def respond(
        self, user_state: UserState, items: Tensor, shown: Tensor, generator: torch.Generator | None
    ) -> Feedback:
        """The response of the users to ``items`` (N, K); ``shown`` (N, K) marks the places that were shown.

        The signals of other places are 0, whatever their item is. Without a generator there is no noise, for
        planners.
        """
        ...

    def rewards(self, feedback: Feedback) -> Tensor:
        """The reward streams (N, M)."""
        ...

    def advance(self, user_state: UserState, items: Tensor, feedback: Feedback) -> tuple[UserState, Tensor]:
        """The next state, and the users who leave, (N,) bool."""
        ...

    def expected_reward(self, user_state: UserState, block: slice = slice(None)) -> Tensor:
        """Expected reward of showing each item of the block now, (N, b); of a slate, of each item alone.

        Without a block it is for the whole catalogue, (N, I), which needs much memory if that is large.
        """
        ...


@runtime_checkable
class WindowUsers(UserModel, Protocol):
    """A user model whose history is a window. The history of other models holds all items of a session."""

    @property
    def history_length(self) -> int:
        """L: number of latest entries in the history, at least the slate size."""
        ...


@runtime_checkable
class RelativeUsers(UserModel, Protocol):
    """A user model with a choice of the signals in the history: as they are, or relative."""

    @property
    def relative(self) -> bool:
        """True if policies see the signals minus their mean over the session so far (Session.seen)."""
        ...


@runtime_checkable
class EventUsers(WindowUsers, Protocol):
    """A user model whose history holds the ``events`` of its feedback, and not all shown items."""

    @property
    def num_events(self) -> int:
        """E: number of entries that a step can add to the history."""
        ...


@runtime_checkable
class ReturningUsers(UserModel, Protocol):
    """A user model whose users come back: with ``visits`` above 1 an episode is a life of several visits."""

    @property
    def visits(self) -> int:
        """Most visits of an episode."""
        ...

    @property
    def day_discount(self) -> float:
        """Discount of learning for each day between two visits, 0 .. 1."""
        ...

    def come_back(self, user_state: UserState, chance: Tensor) -> tuple[UserState, Tensor]:
        """The state at the start of the next visit, and the days until then, (N,) int64, at least 1.

        ``user_state`` is that at the end of a visit, and ``chance`` (N,), uniform in [0, 1), its noise. A gap
        of more than LONGEST_GAP days (env/visits.py) means that the user never returns.
        """
        ...


@runtime_checkable
class SettlingUsers(ReturningUsers, Protocol):
    """Returning users of whom something is due when their life ends, such as goods that come back later."""

    def settle(self, user_state: UserState, feedback: Feedback, ended: Tensor) -> Feedback:
        """The feedback of the last screen, with what is due in the rows that ``ended`` (N,) bool.

        ``user_state``: after the screen, and after the gap unless the user never returns. The visible signals
        stay as they are. The environment gives what follows a life that was cut the discount 0, since a value
        of more visits holds what is due, too.
        """
        ...


@runtime_checkable
class ForbiddingUsers(UserModel, Protocol):
    """A user model that forbids items at a step, beside those that were shown before.

    What is forbidden must follow from what a recommender knows: the items and visible signals so far, and the
    pieces of ``visible``. At each step at least one item that can be shown must be permitted.
    """

    def permits(self, user_state: UserState, items: Tensor | None = None) -> Tensor:
        """(N, K) bool: True if the item of ``items`` (N, K) may be shown now; None: of all items, (N, I)."""
        ...


@runtime_checkable
class PatternedUsers(UserModel, Protocol):
    """A user model whose slates have places of different kinds, such as a video and a product."""

    @property
    def patterns(self) -> tuple[tuple[int, ...], ...]:
        """The sequences of K kinds that a slate is meant to have. Other slates are possible too."""
        ...


@runtime_checkable
class CostlyUsers(UserModel, Protocol):
    """A user model whose expected rewards take longer than those of a few equations, such as networks."""

    @property
    def score_cost(self) -> int:
        """The time of an expected reward of one item at the start of a session, over that of equations."""
        ...


@runtime_checkable
class PatientUsers(UserModel, Protocol):
    """A user model with a stock that a planner prices, such as patience, whose end is the session's."""

    def prospects(self, user_state: UserState, block: slice = ...) -> tuple[Tensor, Tensor]: ...

    def tiresomeness(self, user_state: UserState) -> Tensor: ...

    def patience(self, user_state: UserState) -> Tensor:
        """(N,): users leave at 0; infinite where no stock ends a session."""
        ...

    def as_known(self, user_state: UserState) -> UserState: ...


@runtime_checkable
class UncertainUsers(PatientUsers, Protocol):
    """Patient users whose response without a generator is one of many futures, and not the expected one."""

    def scenario(self, user_state: UserState, shifts: Tensor) -> UserState:
        """The state with the draws of another future for each shift (N,) in [0, 1); 0 changes nothing.

        Rows with equal state and shift have the same draws, whatever is shown. Evenly spread shifts give
        evenly spread draws, also in later steps.
        """
        ...


@runtime_checkable
class DelayedUsers(Protocol):
    """A user model in which a part of what a step starts is paid in later steps."""

    def credited_reward(self, user_state: UserState, block: slice = ...) -> Tensor:
        """``expected_reward`` (N, b), with all that the step starts, as if nothing intervened."""
        ...


@runtime_checkable
class SolvedUsers(Protocol):
    """A user model with a known optimum."""

    def best_items(self, user_state: UserState) -> Tensor: ...  # (N, K)


class ResponseNetwork(Protocol):
    """An ensemble of networks that were fitted to the responses of people (logs/users/ensemble.py).

    A memory holds what they keep of N sessions, tensors (N, ...) by name. ``member`` (N,) int64 is the
    network of each row, -1 for the mean of all.
    """

    @property
    def num_members(self) -> int: ...

    def begin(self, given: Mapping[str, Tensor], number: int) -> Mapping[str, Tensor]:
        """The memory at the start of N sessions, their ``number``, from pieces (N, size) of their context."""
        ...

    def expected(self, memory: Mapping[str, Tensor], items: Tensor, member: Tensor) -> Tensor:
        """The mean (N, K, S) of the signals of ``items`` (N, K), shown now."""
        ...

    def drawn(self, memory: Mapping[str, Tensor], items: Tensor, member: Tensor, chance: Tensor) -> Tensor:
        """A draw (N, K, S) of these signals, each row by its network of ``member``, 0 .. E - 1.

        ``chance`` (N, K, S), uniform in [0, 1), is the noise of the draw.
        """
        ...

    def after(
        self,
        memory: Mapping[str, Tensor],
        items: Tensor,
        shown: Tensor,
        signals: Tensor,
        member: Tensor,
    ) -> tuple[Mapping[str, Tensor], Tensor]:
        """The memory after a step, and the probabilities (N, E) of each network that the user leaves then.

        In a row with a network of ``member``, the others keep their earlier memory, and have probability 0.
        """
        ...


class Clock(Protocol):
    @property
    def users(self) -> Tensor: ...

    @property
    def steps(self) -> Tensor: ...


class Simulator(Protocol):
    """The inside of an environment of simulated users, for baselines and references."""

    @property
    def user_model(self) -> UserModel: ...

    @property
    def user_state(self) -> UserState: ...

    @property
    def session(self) -> Clock: ...

    @property
    def interface(self) -> Interface: ...

    @property
    def catalogue(self) -> Catalogue: ...

    def given(self) -> Mapping[str, Tensor]: ...

    def expected_reward(self, block: slice) -> Tensor: ...

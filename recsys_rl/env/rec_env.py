"""N sessions of a user model over a catalogue, stepped together as tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from recsys_rl.env.visits import DAYS, LONGEST_GAP
from recsys_rl.functional import categorical, rows
from recsys_rl.objective.weighted import stream_weights, weighted
from recsys_rl.protocols import (
    EventUsers,
    ForbiddingUsers,
    PatternedUsers,
    RelativeUsers,
    ReturningUsers,
    SettlingUsers,
    UserModel,
    UserState,
    WindowUsers,
)
from recsys_rl.session import Session, make_interface
from recsys_rl.settings.shared import EnvConfig
from recsys_rl.types import Catalogue, Events, Obs, Signal, Step, Stream, UserError, tensors_of, tree_map


class RecEnv:
    """A batched environment with same-step autoreset.

    Each step shows a slate of K items to each of N users. When a session ends, ``Step.obs`` is the first
    observation of another user's session, and ``Step.final_obs`` is the last observation of the old session.
    ``terminated``: the user left. ``truncated``: the time limit ``max_episode_steps`` ended the session.

    With ``visits`` above 1 (ReturningUsers) an episode is a user's life. A user who leaves, or reaches the
    time limit of a visit, comes back some days later in the same row. ``terminated``: the user never returns.
    ``truncated``: the life was cut after DAYS days or ``visits`` visits; ``final_obs`` is then the first
    observation of the visit that was cut off. A gap of g days before the next visit has the discount
    day_discount^g, which the learner multiplies by its gamma: days pass, not steps. After a life of
    SettlingUsers that was cut nothing follows, as all was settled: the discount is 0.
    """

    def __init__(
        self,
        user_model: UserModel,
        catalogue: Catalogue,
        config: EnvConfig,
        users: Tensor,
        num_envs: int,
        generator: torch.Generator,
        history_length: int | None = None,
        strangers: Tensor | None = None,
    ) -> None:
        """
        Args:
            users: (U',) int64, rows of the population. Sessions draw their users from these.
            history_length: items in the history of an observation. None: the user model's (WindowUsers), else
                all items of a session, or no history if items repeat.
            strangers: (U,) bool, rows of the population whose embedding is withheld: the first piece of their
                context is 0. None: nobody's.

        Raises UserError if the slate is larger than the catalogue, or if the catalogue lacks an attribute.
        """
        self.user_model = user_model
        self.forbidding = user_model if isinstance(user_model, ForbiddingUsers) else None
        self.settling = user_model if isinstance(user_model, SettlingUsers) else None
        self.catalogue = catalogue
        self.config = config
        self.users = users
        self.num_envs = num_envs
        self.generator = generator
        self.strangers = strangers
        self.device = catalogue.embedding.device
        pieces = user_model.visible(user_model.sample(users[:1]))
        events = isinstance(user_model, EventUsers)
        if history_length is None and isinstance(user_model, WindowUsers):
            history_length = user_model.history_length
        visible = [index for index, signal in enumerate(user_model.signals) if signal.visible]
        self.interface = make_interface(
            catalogue,
            context=user_model.context,
            given={name: piece.shape[1] for name, piece in pieces.items()},
            signals=[user_model.signals[index].name for index in visible],
            session_length=config.max_episode_steps,
            slate_size=user_model.slate_size,
            repeats=user_model.repeats,
            history_length=history_length,
            events=events,
            visits=user_model.visits if isinstance(user_model, ReturningUsers) else 1,
            relative=isinstance(user_model, RelativeUsers) and user_model.relative,
            patterns=user_model.patterns if isinstance(user_model, PatternedUsers) else (),
        )
        if strangers is not None and not self.interface.profile:
            raise UserError(
                "Strangers are users whose profile is withheld, and observations here hold no profile: leave "
                "--strangers and --stranger-share out."
            )
        self.weights = stream_weights(user_model.streams).to(self.device)  # (M,)
        # (S,): places of the visible ones among all signals
        self._visible = torch.tensor(visible, dtype=torch.int64, device=self.device)
        self._look_at_availability()
        self.user_state: UserState = None
        self.session: Session

    def reset(self, users: Tensor | None = None) -> Obs:
        """Start N sessions, of ``users`` (N,) if given, else of users drawn at random."""
        users = self._draw_users() if users is None else users
        self.num_envs = users.shape[0]
        self.user_state, self.session = self._begin(users)
        return self.observe()

    def observe(self) -> Obs:
        """The present observation. The call changes nothing."""
        self._look_at_availability()
        return self._request(self.user_state, self.session)

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The M reward streams."""
        return self.user_model.streams

    @property
    def signals(self) -> tuple[Signal, ...]:
        """All signals of the feedback, visible and hidden."""
        return self.user_model.signals

    def step(self, items: Tensor) -> Step:
        """Show ``items`` (N, K) int64 and return the response.

        In a slate, -1 leaves a place empty. Raises UserError for another shape, for a number that is not
        an item, and for a slate with an item twice.
        """
        step = self.step_without_reset(items)
        # New users are drawn for every row, even if only some are needed. So the stream of random numbers
        # does not depend on the sessions that ended.
        drawn = self._draw_users()
        ended = (step.terminated | step.truncated).nonzero().squeeze(1)  # (R,)
        if not len(ended):
            return step
        fresh_state, fresh_session = self._begin(drawn.index_select(0, ended))

        def put(old: Tensor, fresh: Tensor) -> Tensor:
            return old.index_copy(0, ended, fresh)

        self.user_state = tree_map(put, self.user_state, fresh_state)
        self.session = session = tree_map(put, self.session, fresh_session)
        fresh = self._request(fresh_state, fresh_session)
        obs = dataclasses.replace(
            step.obs,
            context=put(step.obs.context, fresh.context),
            history=session.history if step.obs.history is not None else None,
            signals=session.seen if step.obs.signals is not None else None,
            exclude=session.excluded,
        )
        if self.forbidding is not None:
            assert step.obs.mask is not None and fresh.mask is not None
            obs = dataclasses.replace(obs, mask=put(step.obs.mask, fresh.mask))
        return dataclasses.replace(step, obs=obs)

    def step_without_reset(self, items: Tensor) -> Step:
        """``step``, but a session that ends is not replaced by a new one: ``obs`` is ``final_obs``.

        Call ``reset`` before the next step of such a session.
        """
        self._look_at_availability()
        items, shown = self._admit(items)  # (N, K) each
        before = self.session
        feedback = self.user_model.respond(self.user_state, items, shown, self.generator)
        user_state, leaves = self.user_model.advance(self.user_state, items, feedback)
        all_shown = self.all_shown and items.shape[1] == 1
        events = feedback.events
        if events is not None:
            events = Events(events.items, self._seen(events.signals))
        session = before.record(items, self._seen(feedback.signals), None if all_shown else shown, events)
        timed_out = session.steps >= self.config.max_episode_steps
        terminated, truncated = leaves, timed_out & ~leaves
        discount: Tensor | None = None
        at_limit: Tensor | None = timed_out
        if self.interface.visits > 1:
            at_limit = None
            user_state, session, terminated, truncated, discount = self._next_visits(
                user_state, session, leaves | timed_out
            )
            if self.settling is not None:
                feedback = self.settling.settle(user_state, feedback, terminated | truncated)
                discount = discount.masked_fill(truncated, 0.0)  # their value holds this too
        streams = self.user_model.rewards(feedback)  # (N, M)
        obs, reward = self._request(user_state, session), weighted(streams, self.weights)  # reward: (N,)
        self.user_state, self.session = user_state, session
        return Step(
            obs, obs, reward, terminated, truncated, streams, feedback, before.day, discount, at_limit
        )

    def expected_reward(self, block: slice = slice(None)) -> Tensor:
        """True expected reward of each item of the block now, (N, b); -inf for forbidden items."""
        expected = self.user_model.expected_reward(self.user_state, block)
        expected = expected.masked_fill(~self.catalogue.available[block], -torch.inf)
        start, stop, _ = block.indices(self.catalogue.num_items)
        if self.forbidding is not None:
            items = torch.arange(start, stop, device=self.device).expand(len(expected), -1)
            expected.masked_fill_(~self.forbidding.permits(self.user_state, items), -torch.inf)
        excluded = self.session.excluded  # (N, X)
        if excluded is None:
            return expected
        column = torch.where((excluded >= start) & (excluded < stop), excluded - start, -1)
        return categorical.forbid_(expected.unsqueeze(1), None, column).squeeze(1)

    def statistics(self) -> dict[str, Tensor]:
        """Empty: observations and rewards are not normalised."""
        return {}

    def load_statistics(self, state: Mapping[str, Tensor]) -> None:
        """Do nothing: there are no statistics."""

    def close(self) -> None:
        """Do nothing: only memory is in use."""

    def state_dict(self) -> dict[str, Tensor]:
        """The sessions under way, in a flat dict. The caller saves the generator's state."""
        return _flat(self.user_state, self.session)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on with saved sessions, bit for bit. ``observe()`` then returns the saved observation.

        Raises UserError if they are not sessions of this environment.
        """
        state = {name: value.to(self.device) for name, value in state.items()}
        users = state.get("session.users", self.users[:0])
        known = users.shape == (self.num_envs,) and bool(torch.isin(users, self.users).all())
        user_state, session = self._begin(users if known else self.users[:0])  # shows the expected layout
        if _layout(_flat(user_state, session)) != _layout(state):
            raise UserError(
                "The saved sessions do not fit this environment: resume with the data and the settings of "
                "the run that saved them."
            )
        user_state = dataclasses.replace(user_state, **_fields_of(state, "user_state."))
        session = dataclasses.replace(session, **_fields_of(state, "session."))
        finite = all(bool(tensor.isfinite().all()) for tensor in state.values())
        if not (finite and self._possible(session) and self.user_model.possible(user_state)):
            raise UserError(
                "The saved sessions hold impossible numbers: give a whole checkpoint of this version, or "
                "train again."
            )
        self.user_state, self.session = user_state, session

    def _possible(self, session: Session) -> bool:
        """True if all steps, visits, days and items are within their ranges."""
        if session.visit is not None and session.day is not None:
            within = (session.visit >= 0) & (session.visit <= session.day) & (session.day < DAYS)
            if not bool((within & (session.visit < self.interface.visits)).all()):
                return False
        in_time = (session.steps >= 0) & (session.steps < self.config.max_episode_steps)
        known = [items for items in (session.history, session.shown_items) if items is not None]
        there = all(bool(((ids >= -1) & (ids < self.catalogue.num_items)).all()) for ids in known)
        return bool(in_time.all()) and there

    def _look_at_availability(self) -> None:
        """Read the availability again: the catalogue may change between steps."""
        self.all_available = bool(self.catalogue.available.all())  # then requests need no mask
        # Then only empty places show nothing.
        self.all_shown = self.all_available and self.user_model.repeats and self.forbidding is None

    def _draw_users(self) -> Tensor:
        picks = torch.randint(len(self.users), (self.num_envs,), generator=self.generator, device=self.device)
        return self.users.index_select(0, picks)

    def _next_visits(
        self, user_state: UserState, session: Session, ends: Tensor
    ) -> tuple[UserState, Session, Tensor, Tensor, Tensor]:
        """Start the next visit where one ``ends`` (N,).

        Returns also terminated, truncated and the discount of what follows, (N,) each.
        """
        assert isinstance(self.user_model, ReturningUsers)
        # Drawn for every row, for the reason given in ``step``.
        chance = torch.rand(len(ends), generator=self.generator, device=self.device)
        terminated, truncated = torch.zeros_like(ends), torch.zeros_like(ends)
        discount = torch.ones_like(chance)
        ended = ends.nonzero().squeeze(1)  # (R,)
        if not len(ended):
            return user_state, session, terminated, truncated, discount

        def pick(tensor: Tensor) -> Tensor:
            return tensor.index_select(0, ended)

        rested, gap = self.user_model.come_back(tree_map(pick, user_state), pick(chance))
        later = tree_map(pick, session).next_visit(gap)
        assert later.visit is not None and later.day is not None
        churned = gap > LONGEST_GAP  # (R,)
        terminated[ended] = churned
        discount[ended] = self.user_model.day_discount**gap
        truncated[ended] = ~churned & ((later.day >= DAYS) | (later.visit >= self.interface.visits))
        back = (~churned).nonzero().squeeze(1)
        places = ended.index_select(0, back)

        def put(old: Tensor, fresh: Tensor) -> Tensor:
            return old.index_copy(0, places, fresh.index_select(0, back))

        user_state, session = tree_map(put, user_state, rested), tree_map(put, session, later)
        return user_state, session, terminated, truncated, discount

    def _begin(self, users: Tensor) -> tuple[UserState, Session]:
        return self.user_model.sample(users), Session.begin(self.interface, self.catalogue, users)

    def _admit(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """The items (N, K), with any item at empty places, and the places that are shown (N, K)."""
        shape = (self.num_envs, self.interface.slate_size)
        if items.shape != shape:
            raise UserError(
                f"The items of a step must be of shape {shape}, users x places, but are {tuple(items.shape)}."
            )
        self._check_range(items, -1 if shape[1] > 1 else 0)
        if shape[1] == 1:
            return items, self._shown(items)
        item = _twice(items)
        if item is not None:
            raise UserError(f"Item {item} is twice in a slate: show each item once, or -1 for no item.")
        there, items = items >= 0, items.clamp_min(0)
        return items, self._shown(items) & there

    def _check_range(self, items: Tensor, lowest: int) -> None:
        """Raise UserError for items that are not ``lowest`` .. I - 1."""
        low, high = map(int, (items, items) if items.numel() == 1 else items.aminmax())
        if low < lowest or high >= self.catalogue.num_items:
            empty = ", and -1 leaves a place empty" if lowest < 0 else ""
            raise UserError(
                f"There is no item {low if low < lowest else high}: the items of this catalogue are 0 to "
                f"{self.catalogue.num_items - 1}{empty}."
            )

    def _shown(self, items: Tensor) -> Tensor:
        """(N, K) bool: True if the item of this place may be shown."""
        if self.all_shown:
            return torch.ones_like(items, dtype=torch.bool)
        excluded = self.session.excluded
        if excluded is None:
            shown = self.catalogue.available[items]
        else:
            shown = ~rows.rows_hold(excluded, items)
            if not self.all_available:
                shown &= self.catalogue.available[items]
        return shown if self.forbidding is None else shown & self.forbidding.permits(self.user_state, items)

    def _seen(self, signals: Tensor) -> Tensor:
        """The visible ones of ``signals`` (..., S)."""
        return signals if len(self._visible) == len(self.signals) else signals.index_select(-1, self._visible)

    def given(self) -> Mapping[str, Tensor]:
        """The pieces of the present observations that no session derives, (N, size) each, by name."""
        return self._given(self.user_state, self.session)

    def _given(self, user_state: UserState, session: Session) -> Mapping[str, Tensor]:
        given = self.user_model.visible(user_state)
        if self.strangers is None:
            return given
        user, _ = self.interface.context[0]
        withheld = self.strangers.index_select(0, session.users).unsqueeze(1)  # (N, 1)
        return {**given, user: given[user].masked_fill(withheld, 0)}

    def _request(self, user_state: UserState, session: Session) -> Obs:
        given = self._given(user_state, session)
        mask = None if self.all_available else self.catalogue.available.expand(len(session.users), -1)
        if self.forbidding is not None:
            permitted = self.forbidding.permits(user_state)  # (N, I)
            mask = permitted if mask is None else permitted & mask
        return session.request(given, mask)


def _twice(items: Tensor) -> int | None:
    """An item that is twice in one of the slates (N, K), or None; -1 is not an item."""
    if len(items) == 1:  # one session: a third of the time of the operators below
        [row] = items.tolist()
        return next((item for at, item in enumerate(row) if item >= 0 and item in row[:at]), None)
    ordered = items.sort(1).values
    twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)  # (N, K - 1)
    return int(ordered[:, 1:][twice][0]) if bool(twice.any()) else None


def _flat(user_state: UserState, session: Session) -> dict[str, Tensor]:
    parts = {"user_state": user_state, "session": session}
    return {
        f"{section}.{name}": tensor
        for section, tree in parts.items()
        for name, tensor in tensors_of(tree).items()
    }


def _fields_of(state: Mapping[str, Tensor], prefix: str) -> dict[str, Any]:
    """The fields of one dataclass; those of a mapping, ``extra.b`` say, are put together again."""
    fields: dict[str, Any] = {}
    for name, value in state.items():
        field, nested, key = name.removeprefix(prefix).partition(".")
        if name.startswith(prefix) and nested:
            fields.setdefault(field, {})[key] = value
        elif name.startswith(prefix):
            fields[field] = value
    return fields


def _layout(state: Mapping[str, Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (value.shape, value.dtype) for name, value in state.items()}

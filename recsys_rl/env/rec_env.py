"""N sessions of a user model over a catalogue, stepped together as tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys_rl.dials import EnvConfig
from recsys_rl.functional import categorical, rows
from recsys_rl.protocols import UserModel, UserState
from recsys_rl.types import Catalogue, Obs, Step, UserError, tree_map


@dataclass(frozen=True)
class Session:
    """The sessions that are under way, as both sides know them."""

    users: Tensor  # (N,) int64: rows of the population
    steps: Tensor  # (N,) int64: items shown so far
    history: Tensor  # (N, L) int64: the items, latest last, -1 before the first
    signals: Tensor  # (N, L, 1) float32: engagement with each


class RecEnv:
    """A batched environment with same-step autoreset.

    Each step shows one item (K = 1) to each of N users. Where a session ends, ``Step.obs`` is the
    first request of a new one by another user, and ``Step.final_obs`` the end of the old one.
    ``terminated``: the user left. ``truncated``: the time limit, ``max_episode_steps``, came first.
    """

    def __init__(
        self,
        user_model: UserModel,
        catalogue: Catalogue,
        config: EnvConfig,
        users: Tensor,
        num_envs: int,
        generator: torch.Generator,
    ) -> None:
        """``users`` (U',) int64 are the rows of the population that sessions are drawn from."""
        self.user_model = user_model
        self.catalogue = catalogue
        self.config = config
        self.users = users
        self.num_envs = num_envs
        self.generator = generator
        self.device = catalogue.embedding.device
        self.context_dim = config.state_dim
        self.action_sizes: tuple[int, ...] = (catalogue.num_items,)
        self.history_length = 0 if user_model.repeats else config.max_episode_steps
        self.num_signals = 1
        self.written: int | None = None
        self._look_at_availability()
        self.user_state: UserState = None
        self.session: Session

    @property
    def time_limit(self) -> int:
        return self.config.max_episode_steps

    def reset(self, users: Tensor | None = None) -> Obs:
        """Start N sessions: of ``users`` (N,) where given, else of users drawn at random."""
        users = self._draw_users() if users is None else users
        self.num_envs = users.shape[0]
        self.user_state, self.session = self._begin(users)
        return self.observe()

    def observe(self) -> Obs:
        """The request that waits for an answer now; asking twice changes nothing."""
        self._look_at_availability()
        return self._request(self._context(self.user_state, self.session), self.session)

    def step(self, items: Tensor) -> Step:
        """Show ``items`` (N, 1) int64 and return what came of it."""
        self._look_at_availability()
        skipped = self._skipped(items)  # (N, 1)
        feedback = self.user_model.respond(self.user_state, items, skipped, self.generator)
        reward = feedback.engagement[:, 0].clone()  # (N,)
        if not self.all_shown:
            reward.masked_fill_(skipped[:, 0], 0.0)
        user_state, terminated = self.user_model.advance(self.user_state, items, feedback)
        session = self._record(items, skipped, reward)
        truncated = (session.steps >= self.config.max_episode_steps) & ~terminated
        context = self._context(user_state, session)  # (N, 2D)
        final_obs = obs = self._request(context, session)

        # Fresh users are drawn for every row, used or not: the stream of random numbers then does
        # not depend on who left when.
        drawn = self._draw_users()
        ended = (terminated | truncated).nonzero().squeeze(1)  # (R,)
        if len(ended):
            fresh_state, fresh_session = self._begin(drawn.index_select(0, ended))

            def put(old: Tensor, fresh: Tensor) -> Tensor:
                return rows.put_rows(old, ended, fresh)

            context = put(context, self._context(fresh_state, fresh_session))
            user_state = tree_map(put, user_state, fresh_state)
            session = tree_map(put, session, fresh_session)
            obs = self._request(context, session)
        self.user_state, self.session = user_state, session
        return Step(obs, final_obs, reward, terminated, truncated, feedback)

    def expected_reward(self, block: slice = slice(None)) -> Tensor:
        """True expected reward now of each item of the block (N, b); -inf where it may not be shown."""
        expected = self.user_model.expected_reward(self.user_state, block)
        expected = expected.masked_fill(~self.catalogue.available[block], -torch.inf)
        if self.user_model.repeats:
            return expected
        start, stop, _ = block.indices(self.catalogue.num_items)
        history = self.session.history  # (N, L)
        place = torch.where((history >= start) & (history < stop), history - start, -1)
        return categorical.forbid_(expected.unsqueeze(1), None, place).squeeze(1)

    def statistics(self) -> dict[str, Tensor]:
        """Nothing: observations and rewards are not normalised."""
        return {}

    def load_statistics(self, state: Mapping[str, Tensor]) -> None:
        """There are none."""

    def close(self) -> None:
        """Holds nothing beside memory."""

    def state_dict(self) -> dict[str, Tensor]:
        """The sessions under way, under flat names; the generator's state is the caller's to keep."""
        return _flat(self.user_state, self.session)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on with saved sessions, bit for bit; ``observe()`` gives the request that was waiting.

        Raises UserError where they are not sessions of this environment.
        """
        state = {name: value.to(self.device) for name, value in state.items()}
        users = state.get("session.users", self.users[:0])
        known = users.shape == (self.num_envs,) and bool(torch.isin(users, self.users).all())
        user_state, session = self._begin(users if known else self.users[:0])  # what the layout must be
        if _layout(_flat(user_state, session)) != _layout(state):
            raise UserError(
                "The saved sessions are not of this environment: resume with the data and the settings of "
                "the run that saved them."
            )
        user_state = dataclasses.replace(user_state, **_part(state, "user_state."))
        session = dataclasses.replace(session, **_part(state, "session."))
        finite = all(bool(x.isfinite().all()) for x in state.values())
        if not (finite and self._possible(session) and self.user_model.possible(user_state)):
            raise UserError(
                "The saved sessions hold numbers that no session can have: give a whole checkpoint of this "
                "version, or train again."
            )
        self.user_state, self.session = user_state, session

    def _possible(self, session: Session) -> bool:
        """True where all steps and items are within their ranges."""
        steps, items = session.steps, session.history
        in_time = (steps >= 0) & (steps < self.config.max_episode_steps)
        return bool(in_time.all()) and bool(((items >= -1) & (items < self.catalogue.num_items)).all())

    def _look_at_availability(self) -> None:
        """The catalogue's owner may write to it between steps."""
        available = self.catalogue.available
        written = None if available.is_inference() else available._version  # which some tensors don't count
        if written is not None and written == self.written:
            return
        self.written = written
        self.all_available = bool(available.all())  # then requests need no mask
        self.all_shown = self.all_available and self.user_model.repeats  # then nothing is skipped

    def _draw_users(self) -> Tensor:
        picks = torch.randint(len(self.users), (self.num_envs,), generator=self.generator, device=self.device)
        return self.users.index_select(0, picks)

    def _begin(self, users: Tensor) -> tuple[UserState, Session]:
        n = users.shape[0]
        length = self.history_length or 1  # the last item is always known
        session = Session(
            users=users,
            steps=torch.zeros(n, dtype=torch.int64, device=self.device),
            history=torch.full((n, length), -1, device=self.device),
            signals=torch.zeros(n, length, 1, device=self.device),
        )
        return self.user_model.sample(users), session

    def _skipped(self, items: Tensor) -> Tensor:
        """(N, 1): what may not be shown and so is skipped."""
        if self.all_shown:
            return torch.zeros_like(items, dtype=torch.bool)
        if self.user_model.repeats:
            return ~self.catalogue.available[items]
        seen = rows.rows_hold(self.session.history, items)
        return seen if self.all_available else seen | ~self.catalogue.available[items]

    def _record(self, items: Tensor, skipped: Tensor, reward: Tensor) -> Session:
        """The session after ``items``; a skipped one was never shown and leaves no trace but time."""
        before, signal = self.session, reward.view(-1, 1, 1)
        if self.all_shown and self.history_length <= 1:  # the last item alone: copies, as others have these
            history = items.to(before.history, copy=True)
            signals = signal.to(before.signals, copy=True)
        else:
            history = rows.push_rows(before.history, items.to(before.history), skipped)  # (N, L)
            signals = rows.push_rows(before.signals, signal.to(before.signals), skipped)  # (N, L, 1)
        return Session(before.users, before.steps + 1, history, signals)

    def _context(self, user_state: UserState, session: Session) -> Tensor:
        """(N, 2D): what may be seen of the user (+) the last item's embedding, zero before the first."""
        visible, last = self.user_model.visible(user_state), session.history[:, -1:].contiguous()
        return rows.beside_rows(visible, self.catalogue.embedding, last)

    def _request(self, context: Tensor, session: Session) -> Obs:
        mask = None if self.all_available else self.catalogue.available.expand(len(context), -1)  # (N, I)
        if self.user_model.repeats:
            return Obs(context, mask=mask)
        return Obs(context, session.history, session.signals, exclude=session.history, mask=mask)


def _flat(user_state: UserState, session: Session) -> dict[str, Tensor]:
    parts = {"user_state": user_state, "session": session}
    return {f"{part}.{name}": value for part, tree in parts.items() for name, value in vars(tree).items()}


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _layout(state: Mapping[str, Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (value.shape, value.dtype) for name, value in state.items()}

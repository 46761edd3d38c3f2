"""A trained policy for real people: users of the data, or new users from their likes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from recsys_rl.checkpoint import Checkpoint
from recsys_rl.checkpoint import load as load_checkpoint
from recsys_rl.data.embeddings import Floats, fold_in, item_factors, unit_rows
from recsys_rl.errors import FieldError, UserError
from recsys_rl.lookup import DEFAULT_ALGO
from recsys_rl.protocols import Reader, ReadingPolicy
from recsys_rl.run import agent_of
from recsys_rl.schema import shown
from recsys_rl.session import PIECES, Session
from recsys_rl.types import Action, Obs

BLOCK = 256  # users scored together
LIST = 10  # items of a list on platforms without slates
HOURS = 168  # of a week
NOON = 12.0  # on Monday: the hour of rankings, which must not depend on the clock


class Recommendation(NamedTuple):
    """One place of a list of recommendations."""

    item: int | str  # the item's id in the data
    title: str
    probability: float  # the policy's probability of showing this item next, in the first place of a slate


class Recommender:
    """A trained policy with its catalogue and its users. It needs no environment."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.catalogue, self.population = checkpoint.world
        agent: Any = agent_of(checkpoint)  # of any algorithm
        self.agent = agent
        self.model: Any = self.agent.model

    @cached_property
    def row_of_item(self) -> dict[int | str, int]:
        """The row of each item id."""
        names = self.catalogue.item_names
        return {id_: row for row, id_ in enumerate(names or self.catalogue.item_ids.tolist())}

    @cached_property
    def row_of_user(self) -> dict[int | str, int]:
        """The row of each user id."""
        names = self.population.user_names
        return {id_: row for row, id_ in enumerate(names or self.population.user_ids.tolist())}

    @property
    def users(self) -> list[int | str]:
        """The ids of all users of the data."""
        return list(self.row_of_user)

    @cached_property
    def _factors(self) -> tuple[Floats, Floats | None]:
        return item_factors(self.catalogue)

    @cached_property
    def _titles(self) -> list[str]:
        """The titles of all items, in lower case for comparison."""
        return [self.catalogue.title(row).casefold() for row in range(self.catalogue.num_items)]

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        """The action of the policy for N observations, as in ``Policy``.

        Raises UserError for an observation of other sizes than those of the checkpoint's ``Interface``.
        """
        self._check_sizes(obs)
        action: Action = self.agent.act(obs, greedy)
        return action

    def _check_sizes(self, obs: Obs) -> None:
        interface, n = self.checkpoint.interface, len(obs.context)
        length = interface.history_length
        wanted: dict[str, tuple[int, ...]] = {"context": (n, interface.context_size)}
        if length:
            wanted |= {"history": (n, length), "signals": (n, length, len(interface.signals))}
        if obs.mask is not None and obs.candidates is None:
            wanted["mask"] = (n, *interface.action_sizes)
        for name, shape in wanted.items():
            given = getattr(obs, name)
            if given is None or given.shape != shape:
                found = "is missing" if given is None else f"is of shape {tuple(given.shape)}"
                raise UserError(
                    f"{name} of the observation {found}, but this policy was trained with {shape}: make the "
                    "observation with the platform and the settings of the checkpoint."
                )

    def reader(self) -> Reader | None:
        """The state of its encoder for N users who act, as in ``ReadingPolicy``."""
        return self.agent.reader() if isinstance(self.agent, ReadingPolicy) else None

    def recommend(
        self,
        user: int | str | None = None,
        *,
        likes: Sequence[int | str] = (),
        history: Sequence[int | str] = (),
        k: int | None = None,
        allow: Sequence[int | str] | None = None,
        block: Sequence[int | str] = (),
        hour: float | None = None,
    ) -> list[Recommendation]:
        """The ``k`` items that the policy shows next to one person with the highest probability, best first.

        On a platform with slates the first K of them, in their order, are the policy's most probable slate.

        Args:
            user: id of a user of the data, a number or a string as in the data; None for a new user. What
                this user has liked is not in the checkpoint: give it in ``block`` to leave it out.
            likes: liked items of a new user: ids, or titles (a beginning that only one title has is enough).
                They are not shown again, except on a platform that repeats items.
            history: items already shown in this session, latest last; each counts as consumed in full, and
                nothing plays after the last.
            k: None for K, the number of places of a slate, or 10 without slates.
            allow: ids of the only items that may be shown; None for all.
            block: ids of items that may not be shown.
            hour: of the week, 0 .. 168 from Monday at midnight, if the policy sees it; None for now.

        Raises UserError for unknown users and items, if fewer than ``k`` items are left, for an hour on a
        platform whose policies do not see it, and for a policy of a platform without items.
        """
        self._check_catalogue()
        if (user is None) == (not likes):
            raise UserError("A recommendation needs either a user or likes: give one of them.")
        profile = self.profile_of(likes) if user is None else self._profiles([user])
        shown = [self.item(item) for item in history]
        k = self.default_k if k is None else k
        mask = self.mask(k, allow, [*block, *self.seen(likes, history)])
        obs = self._request(profile, shown, mask, self.hour(hour))
        return next(self._best(self._among(obs, allow), k))

    def for_users(
        self,
        users: Sequence[int | str],
        k: int | None = None,
        allow: Sequence[int | str] | None = None,
        block: Sequence[int | str] = (),
        hour: float | None = None,
    ) -> Iterator[list[Recommendation]]:
        """``recommend`` for many users of the data, one list after another.

        Raises the errors of ``recommend`` before the first list; one names all unknown users.
        """
        self._check_catalogue()
        self._check_users(users)
        k = self.default_k if k is None else k
        mask, hour = self.mask(k, allow, block), self.hour(hour)
        for start in range(0, len(users), BLOCK):
            profiles = self._profiles(users[start : start + BLOCK])
            obs = self._among(self._request(profiles, [], mask, hour), allow)
            yield from self._best(obs, k)

    def _check_catalogue(self) -> None:
        if self.checkpoint.world.is_empty:
            raise UserError(
                f"This policy of {self.checkpoint.config.env} has no catalogue of items to recommend from: "
                "give observations to act in place of users."
            )

    @property
    def default_k(self) -> int:
        """Items of a list: the number of places of a slate, or 10 without slates."""
        slate_size = self.checkpoint.interface.slate_size
        return slate_size if slate_size > 1 else LIST

    def hour(self, given: float | None) -> float | None:
        """The hour of the week that the policy sees: ``given``, or now; None if it does not see the hour.

        Raises FieldError if ``given`` is out of its range, or has no effect.
        """
        config, opening = self.checkpoint.config, self.checkpoint.config.platform.opening
        if opening is None or not opening.by_hour:
            if given is not None:
                raise FieldError(
                    "hour", f"is {given:g}, but a policy of {config.env} does not see the hour: leave it out."
                )
            return None
        if given is None:
            now = datetime.now()
            return 24 * now.weekday() + now.hour + now.minute / 60
        if not 0 <= given < HOURS:
            raise FieldError("hour", f"is {given:g}: it must be at least 0 and below {HOURS}.")
        return given

    def profile_of(self, likes: Sequence[int | str]) -> Tensor:
        """(1, D): the profile of a new user, folded in from the liked items (data/embeddings.py).

        For the same likes it is the profile of the data: the item factors lie in the checkpoint. Without
        factors (made-up users), the embeddings take their place.
        """
        return self.fold_in([self.item(item) for item in ([likes] if isinstance(likes, str) else likes)])

    def seen(self, *seen: Sequence[int | str]) -> list[int | str]:
        """The ids of these items, ids or titles, which may not be shown again; none if items may repeat."""
        if self.checkpoint.interface.repeats:
            return []
        items = [item for part in seen for item in ([part] if isinstance(part, str) else part)]
        return [self.catalogue.id_of(self.item(item)) for item in items]

    def fold_in(self, items: Sequence[int]) -> Tensor:
        """(1, D): the profile of a user who likes the items in these rows of the catalogue."""
        row = csr_matrix(
            (np.ones(len(items), np.float32), (np.zeros(len(items), int), items)),
            shape=(1, self.catalogue.num_items),
        )
        row.data[:] = 1  # a title given twice is one like
        factors, gram = self._factors
        return unit_rows(fold_in(row, factors, gram=gram))

    @torch.inference_mode()
    def scores(self, profiles: Tensor, allowed: Tensor) -> Tensor:
        """(N, I): the policy's logits of the first place at the start of a session, on Monday at noon.

        Items that the first stage of a two-stage policy does not propose have the same, lowest score.
        """
        obs = self._request(profiles, [], allowed, NOON)
        obs = self.model.propose(obs, True, torch.Generator())
        policy, _ = self.model(obs)
        logits = policy.logits.flatten(1).clamp_min(-1e30)
        if obs.candidates is None:
            return torch.as_tensor(logits)
        scores = logits.new_full((len(profiles), self.catalogue.num_items + 1), -1e30)
        places = torch.where(obs.candidates < 0, self.catalogue.num_items, obs.candidates)
        return torch.as_tensor(scores.scatter(1, places, logits)[:, :-1])

    def item(self, item: int | str) -> int:
        """The row of the item with this id or title. Raises UserError if none or several match."""
        known = self.row_of_item.get(item if isinstance(item, str) else int(item))
        if known is not None:
            return known
        if not isinstance(item, str):
            raise UserError(f"There is no item with the id {item} in the catalogue: give another.")
        text = item.casefold()
        exact = [row for row, title in enumerate(self._titles) if title == text]
        found = exact or [row for row, title in enumerate(self._titles) if title.startswith(text)]
        if len(found) == 1:
            return found[0]
        if not found:
            inside = [row for row, title in enumerate(self._titles) if text in title]
            near = f": did you mean {self._listed(inside)}?" if inside else ": give another."
            raise UserError(f"No title begins with {shown(item)}{near}")
        names = self._listed(found) + (" ..." if len(found) > 5 else "")
        raise UserError(f"{len(found)} titles begin with {shown(item)}: give more of one of them ({names}).")

    def _listed(self, rows: Sequence[int]) -> str:
        """The titles of the first five of these rows."""
        return "; ".join(self.catalogue.title(row) for row in rows[:5])

    def mask(self, k: int, allow: Sequence[int | str] | None, block: Sequence[int | str]) -> Tensor:
        """(1, I) bool: the items that may be shown. Raises UserError if they are fewer than ``k``."""
        if k < 1:
            raise UserError(f"k is {k}: it must be at least 1.")
        mask = self.allowed(allow, block)
        left = int(mask.sum())
        if left < k:
            raise UserError(f"Only {left} items may be shown, but k is {k}: lower k, or allow more items.")
        return mask.unsqueeze(0)

    def allowed(self, allow: Sequence[int | str] | None, block: Sequence[int | str]) -> Tensor:
        """(I,) bool: the available items among ``allow``, None for all, without ``block``."""
        mask = self.catalogue.available.clone()
        if allow is not None:
            allowed = torch.zeros_like(mask)
            allowed[[self.item(item) for item in allow]] = True
            mask &= allowed
        mask[[self.item(item) for item in block]] = False
        return mask

    def _check_users(self, users: Sequence[int | str]) -> None:
        """Raise UserError, one for all of them, if users are unknown."""
        unknown = [user for user in users if user not in self.row_of_user]
        if unknown and len(users) == 1:
            raise UserError(
                f"There is no user with the id {shown(unknown[0])} among those whom training kept (users "
                "with enough likes): give another id, or titles that this user likes."
            )
        if unknown:
            first = ", ".join(map(shown, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
            are, them = ("is", "it") if len(unknown) == 1 else ("are", "them")
            raise UserError(
                f"{len(unknown):,} of {len(users):,} users {are} not among those whom training kept (users "
                f"with enough likes): {first}; leave {them} out."
            )

    def _profiles(self, users: Sequence[int | str]) -> Tensor:
        """The profiles (N, D) of users of the data."""
        self._check_users(users)
        return self.population.profile[[self.row_of_user[user] for user in users]]

    def _request(self, profiles: Tensor, history: Sequence[int], mask: Tensor, hour: float | None) -> Obs:
        interface, opening = self.checkpoint.interface, self.checkpoint.config.platform.opening
        session = Session.begin(interface, self.catalogue, torch.arange(len(profiles)))
        places = torch.arange(interface.slate_size).expand(len(profiles), -1)  # (N, K)
        known = {} if opening is None else opening.consumed
        signals = torch.tensor([known.get(name, 1.0) for name in interface.signals])  # (S,)
        for item in history:  # each item in the first place of its own slate
            items = torch.full_like(places, item)
            session = session.record(items, signals.expand(*places.shape, -1), skipped=places > 0)
        latest = interface.session_length - 1  # a longer history is at the last step of a session
        session = replace(session, steps=session.steps.clamp_max(latest))
        first, *others = ((name, size) for name, size in interface.context if name not in PIECES)
        handed = self._opening(others, hour) if others else {}
        context = {name: x.expand(len(profiles), -1) for name, x in handed.items()} | {first[0]: profiles}
        return session.request(context, mask.expand(len(profiles), -1))

    def _opening(self, wanted: Sequence[tuple[str, int]], hour: float | None) -> dict[str, Tensor]:
        """The pieces (size,) of the context, beside the profile, at the start of a session."""
        config, opening = self.checkpoint.config, self.checkpoint.config.platform.opening
        names = ", ".join(name for name, _ in wanted)
        if opening is None:
            raise UserError(
                f"The policy needs more than the profile of a user ({names}), and the platform "
                f"{config.env} lacks their values at the start of a session: give its Platform an opening."
            )
        found = opening.pieces(self.checkpoint.interface, NOON if hour is None else hour)
        if any(name not in found or found[name].shape != (size,) for name, size in wanted):
            raise UserError(
                f"The checkpoint needs {names} of other sizes than {config.env} has in this version: train "
                "again."
            )
        return {name: found[name] for name, _ in wanted}

    def _among(self, obs: Obs, allow: Sequence[int | str] | None) -> Obs:
        """For a two-stage policy, the allowed items as candidates: its search could miss them."""
        if allow is None or self.model.retriever is None or obs.mask is None:
            return obs
        rows = obs.mask[0].nonzero().squeeze(1)  # the same for all users
        return obs.among(rows.expand(obs.num_rows, -1))

    @torch.inference_mode()
    def _best(self, obs: Obs, k: int) -> Iterator[list[Recommendation]]:
        obs = self.model.propose(obs, True, torch.Generator())
        policy, _ = self.model(obs)
        logits = policy.logits.flatten(1)  # (N, A): of the first place, and of all places of a slate
        left = int((logits > -torch.inf).sum(1).min())
        if left < k:
            raise UserError(
                f"The first stage of this policy proposes {left} items that may be shown, but k is {k}: "
                "lower k, or name the items (allow)."
            )
        top = logits.softmax(-1).topk(min(k, logits.shape[-1]), -1)  # (N, k)
        probabilities, items = top.values, obs.items_at(top.indices)
        for ps, rows in zip(probabilities.tolist(), items.tolist(), strict=True):
            yield [
                Recommendation(self.catalogue.id_of(row), self.catalogue.title(row), p)
                for p, row in zip(ps, rows, strict=True)
            ]


def load(path: str | Path = f"checkpoints/{DEFAULT_ALGO}.pt", env: str | None = None) -> Recommender:
    """Load the policy of a checkpoint on the CPU, to act and to recommend.

    ``env`` is the name of its environment. It is required only if the name holds a module to import. Raises
    UserError for a file that is no whole checkpoint.
    """
    return Recommender(load_checkpoint(path, env))

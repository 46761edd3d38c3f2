"""The form of an expert: a platform's own equations, with a few numbers that a search finds.

Each platform's is in the file of its name; policy.py makes the policy.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from recsys_rl.records import Known
from recsys_rl.types import Interface, Obs


@dataclass(frozen=True)
class FollowedObs(Obs):
    """An observation, with what a ``Walk`` keeps of these users."""

    known: Known = field(default_factory=dict)


@dataclass(frozen=True)
class Walk:
    """Follows what the equations keep of users through the entries of a history, from the start of a session.

    - ``begin(users, interface, obs)``: what is known before the first entry, tensors (N, ...) by name.
    - ``step(users, known, items, signals, numbers)``: the same after an entry: ``items`` (N,), with their
      visible ``signals`` (N, S), and ``numbers`` of the ``Expert``. It may clip what the answer rules out.
    - ``stock``: the name of the hidden stock that the walk is for.
    """

    begin: Callable[[Any, Interface, Obs], Known]
    step: Callable[[Any, Known, Tensor, Tensor, Mapping[str, Tensor]], Known]
    stock: str

    def held(self) -> Walk:
        """The walk with the stock as it is at the start: what following it brings is the difference."""

        def step(
            users: Any, known: Known, items: Tensor, signals: Tensor, numbers: Mapping[str, Tensor]
        ) -> Known:
            return {**self.step(users, known, items, signals, numbers), self.stock: known[self.stock]}

        return dataclasses.replace(self, step=step)


@dataclass(frozen=True)
class Expert:
    """The form of the platform's own equations, with a few numbers that a search on training users finds.

    It shows what somebody could write down who knows the equations, which no recommender does. ``numbers``
    holds a first value and a first deviation of each number, by name. ``scores`` has the scores (N, C) of the
    ``items`` (N, C), -1 padding, or (N, I) of all items for None, with these numbers, () or (N,) each. It may
    use the constants of the user model and the observation, and nothing of the hidden state. With a ``walk``
    it takes a FollowedObs.
    """

    description: str  # one sentence
    numbers: Mapping[str, tuple[float, float]]
    scores: Callable[[Any, Interface, Any, Mapping[str, Tensor], Tensor | None], Tensor]
    walk: Walk | None = None

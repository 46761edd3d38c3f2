"""Other people's recommender games as plain Gymnasium environments; importing this module registers them.

    recsys-rl train --env gym:benchmarks.foreign_envs:Coat-v0

Each has a flat Box observation and a Discrete action, so that any agent takes them as they are.

- ``Coat-v0``: the completed rating matrix of Coat (290 users x 300 items, ratings 1 to 5), on which
  published simulators test. The file is not ours to give away: ``COAT`` says where it is looked for.
- ``Sardine-v0``: SARDINE's ``SingleItem-BoredInf-v0`` (`pip install sardine-rec`; Deffayet et al. 2023).
- ``InterestEvolution-v0``: RecSim's (`pip install recsim-no-tf`; Ie et al. 2019, arXiv:1909.04847), with
  slates of one item out of 10 candidates, which are drawn anew at each step.
- ``TaxiUnmasked-v0``: Gymnasium's Taxi without the action mask in its info, which not every agent takes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.wrappers import FlattenObservation, TransformAction

Floats = npt.NDArray[np.float32]
Outcome = tuple[Floats, float, bool, bool, dict[str, Any]]

SHARED = Path(__file__).resolve().parents[2] / "shared/data"
COAT = Path(os.environ.get("COAT_MATRIX", SHARED / "coat/coat_pseudoGT_ratingM.ascii"))
TURNS, WINDOW = 10, 5
LIKED = 3  # a rating above this, rounded, is a click


class RatingMatrix(gymnasium.Env[Floats, np.int64]):
    """One user of a rating matrix, drawn uniformly at each reset, is shown ``TURNS`` items.

    The reward is 1 where the user likes the item (rounded rating above 3) and has not been shown it
    before, else 0. The observation holds the last ``WINDOW`` items with their clicks: (2 I,) float32, 1 in
    the first half where an item was shown and in the second where it was clicked. The user stays hidden.
    """

    def __init__(self, ratings: npt.NDArray[Any] | None = None) -> None:
        """``ratings`` (U, I), or those of ``COAT``."""
        self.likes = liked(ratings_of_coat() if ratings is None else ratings)  # (U, I)
        self.num_items = self.likes.shape[1]
        self.observation_space = spaces.Box(0, 1, (2 * self.num_items,), np.float32)
        self.action_space = spaces.Discrete(self.num_items)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Floats, dict[str, Any]]:
        super().reset(seed=seed)
        self.user = int(self.np_random.integers(len(self.likes)))
        self.shown: list[int] = []
        self.clicks: list[bool] = []
        return self._observe(), {}

    def step(self, action: np.int64) -> Outcome:
        item = int(action)
        clicked = bool(self.likes[self.user, item]) and item not in self.shown
        self.shown.append(item)
        self.clicks.append(clicked)
        return self._observe(), float(clicked), len(self.shown) == TURNS, False, {}

    def _observe(self) -> Floats:
        obs = np.zeros((2, self.num_items), np.float32)
        for item, clicked in zip(self.shown[-WINDOW:], self.clicks[-WINDOW:], strict=True):
            obs[:, item] = np.maximum(obs[:, item], (1, clicked))
        return obs.reshape(-1)


def ratings_of_coat() -> npt.NDArray[Any]:
    """(290, 300), of the file ``COAT``."""
    return np.loadtxt(COAT)


def liked(ratings: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Whether each user likes each item: the shape of ``ratings`` (U, I)."""
    return np.round(ratings) > LIKED


def references(likes: npt.NDArray[np.bool_]) -> dict[str, float]:
    """Expected returns of the best list for everybody and of a recommender that knows all, exactly.

    Users are drawn uniformly and clicks add up, so the best list is the ``TURNS`` most liked items. The
    oracle shows each user what he likes as long as there is some left.
    """
    shares = np.sort(likes.mean(0))[::-1]  # (I,)
    return {
        "static-list": float(shares[:TURNS].sum()),
        "oracle": float(np.minimum(likes.sum(1), TURNS).mean()),
    }


class InterestEvolution(gymnasium.Env[Floats, np.int64]):
    """RecSim's interest evolution, whose reward is the time watched.

    The observation is the user's interests (20), the topics of the 10 candidates (200), and whether the
    last one was clicked. RecSim draws some of its noise from numpy's global generator, so two runs agree
    only where that one is seeded as well.
    """

    NUM_CANDIDATES = 10

    def __init__(self) -> None:
        self._begin(0)
        self.observation_space = spaces.Box(-1, 1, (20 * (1 + self.NUM_CANDIDATES) + 1,), np.float32)
        self.action_space = spaces.Discrete(self.NUM_CANDIDATES)

    def _begin(self, seed: int) -> None:
        from recsim.environments import interest_evolution

        dials = {"num_candidates": self.NUM_CANDIDATES, "slate_size": 1, "resample_documents": True}
        self.game = interest_evolution.create_environment({**dials, "seed": seed})

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Floats, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self._begin(int(self.np_random.integers(2**31)))
        return self._flat(self.game.reset(), 0), {}

    def step(self, action: np.int64) -> Outcome:
        obs, reward, done, _ = self.game.step([int(action)])
        return self._flat(obs, obs["response"][0]["click"]), float(reward), bool(done), False, {}

    def _flat(self, obs: dict[str, Any], click: int) -> Floats:
        return np.concatenate([obs["user"], *obs["doc"].values(), [click]]).astype(np.float32)


def single_item() -> gymnasium.Env[Any, Any]:
    """SARDINE's environment with a flat observation (last item one-hot, its click, recent topics)."""
    import sardine  # noqa: F401  (registers its environments)

    env = gymnasium.make("sardine/SingleItem-BoredInf-v0", disable_env_checker=True)
    one = spaces.Discrete(env.unwrapped.num_items)  # type: ignore[attr-defined]
    return FlattenObservation(TransformAction(env, lambda item: np.array([item]), one))


class NoMask(gymnasium.Wrapper[Any, Any, Any, Any]):
    """The same environment with an empty info."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return super().reset(seed=seed, options=options)[0], {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        return (*super().step(action)[:4], {})


def taxi() -> gymnasium.Env[Any, Any]:
    """Taxi in the version that the installed Gymnasium has."""
    version = max(spec.version or 0 for spec in gymnasium.registry.values() if spec.name == "Taxi")
    return NoMask(gymnasium.make(f"Taxi-v{version}"))


gymnasium.register("Coat-v0", f"{__name__}:RatingMatrix")
gymnasium.register("InterestEvolution-v0", f"{__name__}:InterestEvolution")
gymnasium.register("Sardine-v0", f"{__name__}:single_item")
gymnasium.register("TaxiUnmasked-v0", f"{__name__}:taxi")

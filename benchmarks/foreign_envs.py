"""Other people's recommender games as plain Gymnasium environments; importing this module registers them.

    recsys-rl train --env gym:benchmarks.foreign_envs:Coat-v0

All but RecSim's two with parts have a flat Box observation and a Discrete action, so that any agent takes
them as they are.

- ``Coat-v0``: the completed rating matrix of Coat (290 users x 300 items, ratings 1 to 5), on which
  published simulators test. The file is not ours to give away: ``COAT`` says where it is looked for.
- ``Sardine-v0``: SARDINE's ``SingleItem-BoredInf-v0`` (`pip install sardine-rec`; Deffayet et al. 2023).
- ``LongTermSatisfaction-v0``: RecSim's (`pip install recsim-no-tf`; Ie et al. 2019, arXiv:1909.04847), with
  one item out of two candidates, which are drawn anew at each step; its observation has parts.
- ``InterestEvolutionSlates-v0``: RecSim's, with slates of 2 out of 10 candidates and parts likewise.
- ``InterestEvolution-v0``: RecSim's, with one item out of 10 candidates, in one flat vector.
- ``TaxiUnmasked-v0``: Gymnasium's Taxi without the action mask in its info, which not every agent takes.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.wrappers import FlattenObservation, TransformAction, TransformObservation

Floats = npt.NDArray[np.float32]
Parts = dict[str, Floats]
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
    oracle shows each user what they like as long as there is some left.
    """
    shares = np.sort(likes.mean(0))[::-1]  # (I,)
    return {
        "static-list": float(shares[:TURNS].sum()),
        "oracle": float(np.minimum(likes.sum(1), TURNS).mean()),
    }


class RecSim(gymnasium.Env[Any, Any]):
    """A game of RecSim whose candidates are drawn anew at each step; the reward is the engagement.

    The observation has what RecSim shows: "user" (U,), "doc" (C, F) with the features of the candidates, and
    "response" (K, 2) with the click and the engagement of each place of the last slate. RecSim draws some of
    its noise from numpy's global generator, so two runs agree only where that one is seeded as well.
    """

    def __init__(self, game: str, num_candidates: int, slate_size: int) -> None:
        """``game``: long_term_satisfaction or interest_evolution."""
        self.name, self.settings = game, {"num_candidates": num_candidates, "slate_size": slate_size}
        self._begin(0)
        seen = self.game.reset()
        docs = np.stack(list(seen["doc"].values()))
        self.observation_space = spaces.Dict(
            {
                "doc": spaces.Box(-1, 1, docs.shape, np.float32),
                "response": spaces.Box(0, np.inf, (slate_size, 2), np.float32),
                "user": spaces.Box(-1, 1, seen["user"].shape, np.float32),
            }
        )
        many = spaces.MultiDiscrete([num_candidates] * slate_size)
        self.action_space = spaces.Discrete(num_candidates) if slate_size == 1 else many

    def _begin(self, seed: int) -> None:
        from recsim import environments

        module = importlib.import_module(f"{environments.__name__}.{self.name}")
        self.game = module.create_environment({**self.settings, "resample_documents": True, "seed": seed})

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Parts, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self._begin(int(self.np_random.integers(2**31)))
        return self._parts(self.game.reset()), {}

    def step(self, action: Any) -> tuple[Parts, float, bool, bool, dict[str, Any]]:
        obs, reward, done, _ = self.game.step(np.atleast_1d(action).tolist())
        return self._parts(obs), float(reward), bool(done), False, {}

    def _parts(self, obs: dict[str, Any]) -> Parts:
        response = np.zeros((self.settings["slate_size"], 2), np.float32)
        for index, reaction in enumerate(obs["response"] or ()):
            response[index] = reaction["click"], reaction.get("watch_time", reaction.get("engagement"))
        docs = np.stack(list(obs["doc"].values())).astype(np.float32)
        return {"doc": docs, "response": response, "user": obs["user"].astype(np.float32)}


def flat_interest_evolution() -> gymnasium.Env[Any, Any]:
    """Interest evolution with one item of 10 and no parts: interests (20), topics (200), the last click."""
    game = RecSim("interest_evolution", 10, 1)

    def flat(parts: Parts) -> Floats:
        return np.concatenate([parts["user"], parts["doc"].ravel(), parts["response"][0, :1]])

    return TransformObservation(game, flat, spaces.Box(-1, 1, (20 * 11 + 1,), np.float32))


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
gymnasium.register("InterestEvolution-v0", f"{__name__}:flat_interest_evolution")
for name, (game, candidates, slate) in {
    "LongTermSatisfaction": ("long_term_satisfaction", 10, 2),
    "InterestEvolutionSlates": ("interest_evolution", 10, 2),
}.items():
    settings = {"game": game, "num_candidates": candidates, "slate_size": slate}
    gymnasium.register(f"{name}-v0", f"{__name__}:RecSim", kwargs=settings)
gymnasium.register("Sardine-v0", f"{__name__}:single_item")
gymnasium.register("TaxiUnmasked-v0", f"{__name__}:taxi")

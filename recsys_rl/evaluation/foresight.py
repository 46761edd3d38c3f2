"""The gain of looking ahead in a world, found on a few training users before training.

Where the item with the highest reward now is nearly the best for the session too, as in worlds without
catchy items, a good ranking is all that reinforcement learning could find.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from recsys_rl.env.rec_env import RecEnv
from recsys_rl.evaluation.rule_cache import search_key
from recsys_rl.experience.rollout import play
from recsys_rl.functional import categorical
from recsys_rl.functional.top_k import highest
from recsys_rl.make import make_env, one_visit
from recsys_rl.protocols import PatientUsers, Policy
from recsys_rl.rivals.references import Myopic, Planner, Search, base_scores, upper_bounds
from recsys_rl.rivals.tuning import training_part
from recsys_rl.settings.config import Config
from recsys_rl.types import Action, Obs, World
from recsys_rl.utils.download import cache_folder
from recsys_rl.utils.seeding import generators
from recsys_rl.utils.tensor_cache import read_tensors, write_tensors

LITTLE = 0.02
"""A gain over `myopic` of at most this share is little."""
USERS = 32  # of the policies that are cheap
PLANNED_STEPS, FEWEST = 160, 4  # steps that the planner plans in all, and its fewest users


@dataclass(frozen=True)
class Foresight:
    """Mean returns of the same training users."""

    myopic: float
    ahead: float  # of the best that looks ahead

    @property
    def gain(self) -> float:
        return (self.ahead - self.myopic) / max(abs(self.myopic), 1e-9)


class Priced:
    """Shows the items with the highest reward now plus that of the stocks at ``prices`` (N, 2).

    This is a base policy of the planner (rivals/references.py). At prices 0 it is `myopic`.
    """

    def __init__(self, env: RecEnv, prices: Tensor) -> None:
        assert isinstance(env.user_model, PatientUsers)
        self.env, self.user_model, self.prices = env, env.user_model, prices

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        length = self.env.interface.session_length
        left = ((length - self.env.session.steps) / length).clamp_min(0)  # (N,)
        state = self.env.user_state
        reward, patience = self.user_model.prospects(state)  # (N, I) each
        scores = base_scores(reward, patience, self.user_model.tiresomeness(state), self.prices, left)
        scores = categorical.mask_logits(scores, obs.allowed(self.env.catalogue.num_items))
        return Action.certain(highest(scores, self.env.interface.slate_size))


def about_foresight(config: Config, world: World, device: torch.device) -> str:
    """A note if looking ahead gains little in this world; "" if it gains more, or if there is no planner."""
    returns = foresight(config, world, device)
    if returns is None or returns.gain > LITTLE:
        return ""
    return (
        "note: this world hardly needs planning. On training users, the items with the highest reward now "
        f"earn {returns.myopic:.2f} a session, and the planner earns {returns.ahead:.2f}: a good ranking is "
        "nearly all that training can find here"
    )


def foresight(config: Config, world: World, device: torch.device) -> Foresight | None:
    """The returns with and without foresight, kept in the cache folder; None if there is no planner.

    First the planner's base policies play: the best of them on half of the users is judged on the others. If
    it gains little, the planner plays, too, which takes seconds.
    """
    config = one_visit(config)
    world = World(world.catalogue, training_part(world.population))
    env = _env(config, world, 1, device)
    if env is None:
        return None
    key = search_key(config, world.catalogue, world.population, 0)
    folder = cache_folder(getattr(config.data_config, "cache_dir", None))
    path = Path(folder) / f"foresight-{key[:32]}.safetensors"
    tensors = read_tensors(path)
    if tensors is None or tensors.keys() != {"returns"}:
        tensors = {"returns": _play(config, world, device)}
        write_tensors(path, tensors)
    return Foresight(*tensors["returns"].tolist())


def _env(config: Config, world: World, rows: int, device: torch.device) -> RecEnv | None:
    """An environment of training users, always with the same noise; None if it has no planner."""
    env = make_env(
        config, world, rows, generators(0, "foresight", device=device)["foresight"], training=False
    )
    return env if isinstance(env, RecEnv) and "planner" in upper_bounds(env) else None


def _play(config: Config, world: World, device: torch.device) -> Tensor:
    """(2,) float64: the fields of Foresight."""
    order = torch.randperm(len(world.population.train), generator=torch.Generator().manual_seed(0))
    users = order[:USERS].to(device)  # (n,)

    def returns(make: type[Myopic] | type[Planner], users: Tensor) -> Tensor:
        env = _env(config, world, len(users), device)
        assert env is not None
        return play(env, make(env), users).returns

    priced = _priced(config, world, users, device)  # (P, n); the first row is that of `myopic`
    half = len(users) // 2
    best = priced[int(priced[:, :half].mean(1).argmax()), half:].mean()
    earned = torch.stack([priced[0, half:].mean(), best]).double()
    if Foresight(*earned.tolist()).gain > LITTLE:
        return earned.cpu()
    few = users[: max(FEWEST, PLANNED_STEPS // config.env_config.max_episode_steps)]
    myopic, planned = (returns(make, few).mean() for make in (Myopic, Planner))
    return torch.stack([myopic, planned]).double().cpu()


def _priced(config: Config, world: World, users: Tensor, device: torch.device) -> Tensor:
    """Returns (P, n) of the base policies, at P pairs of prices, with the same users (n,)."""
    env = _env(config, world, 1, device)
    assert env is not None and isinstance(env.user_model, PatientUsers)
    search = Search.of(env.user_model, env.interface.session_length)
    pairs = torch.cartesian_prod(*(torch.tensor(prices, device=device) for prices in search.prices))
    pairs = torch.cat([pairs.new_zeros(1, 2), pairs])  # (P, 2)
    env = _env(config, world, len(pairs) * len(users), device)
    assert env is not None
    agent: Policy = Priced(env, pairs.repeat_interleave(len(users), 0))
    return play(env, agent, users.repeat(len(pairs))).returns.view(len(pairs), -1)

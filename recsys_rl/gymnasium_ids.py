"""Our platforms as environments of Gymnasium, for any agent: ``recsys_rl/<Platform>-v0``.

    import gymnasium, recsys_rl
    env = gymnasium.make(recsys_rl.gymnasium_id(platform), users="heldout", num_items=200)
    envs = gymnasium.make_vec(recsys_rl.gymnasium_id(platform), num_envs=64, data="synthetic")

Action: ``Discrete(I)``, the item to show. On a platform with slates it is ``MultiDiscrete([I] * K)``, and a
place that repeats an earlier one stays empty. Observation, with profile and last item as in ``RecEnv``:

- if items may be shown again: ``Box (2D,)`` float32, the user embedding (+) the last item's.
- otherwise a ``Dict`` of

  - ``context`` ``Box (2D,)`` float32: the same
  - ``history`` ``Box (L,)`` int64: ids of the items of this session, latest last, -1 before the first.
    Ids are names, not magnitudes: embed them before an MLP, or leave them out
  - ``signals`` ``Box (L,)`` float32: engagement with each of them, 0 at padding
  - ``action_mask`` ``MultiBinary (I,)`` int8: 1 where the item may be shown; also in
    ``info["action_mask"]``, in the form of ``Discrete.sample(mask=...)``

A masked action counts as a skip, with reward 0. ``terminated``: the user left.
``truncated``: ``max_episode_steps`` steps were played. (``gymnasium.make`` uses its argument
``max_episode_steps`` for its own time limit, which can shorten a session but not lengthen it. Give
``env_config=EnvConfig(max_episode_steps=40)`` instead.)

With ``visits=35``, on a platform that has visits, an episode is a user's life of several visits. It goes on
in the next visit without a reset. ``terminated``: the user never returns. ``truncated``: the life was cut.

``reset(options={"users": [3, 8]})`` starts sessions of these rows of the population, one for each
environment.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

from recsys_rl import gymnasium_id
from recsys_rl.config import Config, from_dict, no_setting, section_classes, to_dict
from recsys_rl.dials import DataConfig, EnvConfig
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.lookup import DEFAULT_ALGO
from recsys_rl.make import make_env, make_world
from recsys_rl.schema import did_you_mean, hints
from recsys_rl.types import Interface, Obs, UserError

Arrays = Any  # an observation: one array, or a dict of them
Info = dict[str, Any]


class RecSysEnv(gymnasium.Env[Arrays, Any]):
    """One session at a time."""

    metadata = {"render_modes": []}  # noqa: RUF012 (declared so by gymnasium.Env)

    def __init__(self, platform: str, render_mode: str | None = None, **settings: Any) -> None:
        """``settings`` are those of ``make_rec_env``. Raises UserError.

        ``render_mode`` has no effect, as nothing can be drawn. Some callers always pass it, and Gymnasium
        warns about it.
        """
        self.sessions = make_rec_env(platform, 1, **settings)
        self.observation_space, self.action_space = make_spaces(self.sessions)

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Arrays, Info]:
        super().reset(seed=seed)
        obs = _begin(self.sessions, 1, self.np_random, options)
        arrays, info = _arrays(obs, self.sessions)
        return _row(arrays, 0), _row(info, 0)

    def step(self, action: Any) -> tuple[Arrays, float, bool, bool, Info]:
        _check(action, self.action_space)
        step = self.sessions.step(_items(action, 1))
        arrays, info = _arrays(step.final_obs, self.sessions)
        ended = bool(step.terminated), bool(step.truncated)
        return _row(arrays, 0), step.reward.item(), *ended, _row(info, 0)


class RecSysVectorEnv(VectorEnv[Arrays, npt.NDArray[np.int64], npt.NDArray[Any]]):
    """N sessions as one batch of tensors, with same-step autoreset.

    It works as Gymnasium's SyncVectorEnv in SAME_STEP mode. When a session ends, the observation is the first
    of the next session. ``infos["final_obs"]`` (N,) of objects and ``infos["final_info"]`` hold the last
    observation and info of the old session; ``_final_obs`` and ``_final_info`` are True for these rows. One
    seed makes all N sessions, so they differ from the sessions of N environments with a seed each.
    """

    metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(self, platform: str, num_envs: int = 1, **settings: Any) -> None:
        """``settings`` are those of ``make_rec_env``. Raises UserError."""
        self.sessions = make_rec_env(platform, num_envs, **settings)
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = make_spaces(self.sessions)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Arrays, Info]:
        super().reset(seed=seed)
        obs = _begin(self.sessions, self.num_envs, self.np_random, options)
        arrays, info = _arrays(obs, self.sessions)
        return arrays, self._infos(info)

    def step(
        self, actions: npt.NDArray[np.int64]
    ) -> tuple[Arrays, npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any], Info]:
        _check(actions, self.action_space)
        step = self.sessions.step(_items(actions, self.num_envs))
        arrays, info = _arrays(step.obs, self.sessions)
        infos = self._infos(info)
        ended = torch.nonzero(step.terminated | step.truncated).flatten().tolist()
        if ended:
            final_obs, final_info = _arrays(step.final_obs, self.sessions)
            for row in ended:
                final = {"final_obs": _row(final_obs, row), "final_info": _row(final_info, row)}
                infos = self._add_info(infos, final, row)
        reward, terminated, truncated = step.reward.double(), step.terminated, step.truncated
        return arrays, reward.numpy(), terminated.numpy(), truncated.numpy(), infos

    def _infos(self, info: Info) -> Info:
        """Add to each entry the mask of the rows that have it, as Gymnasium does."""
        everywhere = np.ones(self.num_envs, dtype=np.bool_)
        return info | {f"_{name}": everywhere.copy() for name in info}


def make_rec_env(
    platform: str,
    num_envs: int,
    *,
    users: str = "train",
    world_seed: int = 0,
    env_config: EnvConfig | None = None,
    data_config: DataConfig | None = None,
    **settings: Any,
) -> RecEnv:
    """Make an environment of N sessions of a platform's users.

    Args:
        users: ``train`` or ``heldout``, the part of the population from which sessions draw their users.
        world_seed: seed of the catalogue and of the split of the users. The seed of ``reset`` is another one.
        env_config, data_config: whole sections; ``settings`` replaces some of their fields.
        settings: settings of the platform and of the source ``data``.

    Raises UserError.
    """
    if users not in ("train", "heldout"):
        raise UserError(f"users={users!r} is no part of the population: choose 'train' or 'heldout'.")
    data = settings.get("data", DataConfig.data if data_config is None else data_config.data)
    given = {"env_config": env_config, "data_config": data_config}
    sections = {name: {} if part is None else to_dict(part) for name, part in given.items()}
    classes = section_classes(DEFAULT_ALGO, platform, data)
    for name, value in settings.items():
        home = next((section for section in sections if name in hints(classes[section])), None)
        if home is None:
            raise UserError(f"{gymnasium_id(platform)}: {_unknown(name, platform, data, classes)}")
        sections[home][name] = value
    config = from_dict(Config, {"env": platform, **sections, "train_config": {"seed": world_seed}})
    env = make_env(config, make_world(config), num_envs, torch.Generator(), heldout=users == "heldout")
    assert isinstance(env, RecEnv)  # only platforms with users are registered
    return env


def _unknown(name: str, platform: str, data: str, classes: dict[str, type[Any]]) -> str:
    for section in ("env_config", "data_config"):
        complaint = no_setting(section, name, DEFAULT_ALGO, platform, data)
        if complaint is not None:
            return f"{name} {complaint}"
    names = {"users", "world_seed"} | {
        field for section in ("env_config", "data_config") for field in hints(classes[section])
    }
    return f"there is no setting {name!r}{did_you_mean(name, names)}: choose from {', '.join(sorted(names))}."


def make_spaces(env: RecEnv) -> tuple[spaces.Space[Any], spaces.Space[Any]]:
    """Observation space and action space of one session."""
    interface, num_items = env.interface, env.catalogue.num_items
    slate_size, length = interface.slate_size, interface.history_length
    several = spaces.MultiDiscrete([num_items] * slate_size)
    action = spaces.Discrete(num_items) if slate_size == 1 else several
    context = _context_space(env)
    if not length:
        return context, action
    visible = [signal for signal in env.signals if signal.visible]
    shape = (length,) if len(visible) == 1 else (length, len(visible))
    low = np.broadcast_to(np.array([min(0.0, x.low) for x in visible], np.float32), (length, len(visible)))
    high = np.broadcast_to(np.array([max(0.0, x.high) for x in visible], np.float32), (length, len(visible)))
    observation = spaces.Dict(
        {
            "context": context,
            "history": spaces.Box(-1, num_items - 1, (length,), np.int64),
            "signals": spaces.Box(low.reshape(shape), high.reshape(shape)),
            "action_mask": spaces.MultiBinary(num_items),
        }
    )
    return observation, action


def _context_space(env: RecEnv) -> spaces.Box:
    """The space with the bounds (F,) of the context's pieces. Embeddings have unit norm, up to rounding."""
    interface, rounding = env.interface, 0.001
    visible = [signal for signal in env.signals if signal.visible] * interface.slate_size
    known = {
        "last_item": ([-1 - rounding], [1 + rounding]),
        "last_signals": ([min(0.0, x.low) for x in visible], [max(0.0, x.high) for x in visible]),
        "clock": ([0.0], [1.0]),
        "streak": ([0.0], [float(interface.history_length)]),
    }
    for name, bound in env.user_model.bounds.items():
        known[name] = ([-bound - rounding], [bound + rounding])
    low, high = (
        np.concatenate(
            [np.resize(np.array(known[name][end], np.float32), size) for name, size in interface.context]
        )
        for end in (0, 1)
    )
    return spaces.Box(low, high)


def _items(actions: Any, num_envs: int) -> Tensor:
    """The items (N, K) of an action. A place that repeats an earlier item of the slate stays empty."""
    return without_repeats(torch.as_tensor(actions).long().reshape(num_envs, -1))


def without_repeats(items: Tensor) -> Tensor:
    """Slates (N, K) with -1 in each place that repeats an earlier item."""
    if items.shape[1] == 1:
        return items
    repeated = (items.unsqueeze(2) == items.unsqueeze(1)).tril(-1).any(2)  # (N, K)
    return items.masked_fill(repeated, -1)


def _begin(env: RecEnv, num_envs: int, rng: np.random.Generator, options: Info | None) -> Obs:
    # Only Gymnasium's generator lives on between episodes. It seeds the sessions at every reset.
    env.generator.manual_seed(int(rng.integers(2**63)))
    if options is None or "users" not in options:
        return env.reset()
    users = np.asarray(options["users"])
    if users.shape != (num_envs,) or not np.isin(users, env.users.numpy()).all():
        raise UserError(
            f"options['users'] must list {num_envs} of the {len(env.users)} allowed rows of the population, "
            "one for each environment."
        )
    return env.reset(torch.from_numpy(users.astype(np.int64)))


def _check(action: Any, space: spaces.Space[Any]) -> None:
    if not space.contains(action):
        raise UserError(f"The action {action!r} is not in {space}: show an item by its row of the catalogue.")


def _numpy(tensor: Tensor) -> npt.NDArray[Any]:
    return np.array(tensor.numpy(), copy=True)  # a copy, as the caller may keep it


def as_arrays(obs: Obs, interface: Interface) -> Arrays:
    """The observation of all N users as numpy arrays (N, ...), in the parts of the observation space."""
    if obs.history is None or obs.signals is None:
        return _numpy(obs.context)
    return {
        "context": _numpy(obs.context),
        "history": _numpy(obs.history),
        "signals": _numpy(obs.signals.squeeze(-1)),  # (N, L), or (N, L, S)
        "action_mask": _numpy(obs.allowed(interface.action_sizes[0]).to(torch.int8)),  # (N, I)
    }


def _arrays(obs: Obs, env: RecEnv) -> tuple[Arrays, Info]:
    """The observations of all N users in the form of the observation space, and the info."""
    arrays = as_arrays(obs, env.interface)
    return arrays, {"action_mask": arrays["action_mask"].copy()} if isinstance(arrays, dict) else {}


def _row(batch: Any, row: int) -> Any:
    """Row ``row`` of an array, or of each array of a dict."""
    return {name: x[row] for name, x in batch.items()} if isinstance(batch, dict) else batch[row]

"""Our platforms as environments of Gymnasium, for any agent: ``recsys_rl/<Platform>-v0``.

    import gymnasium, recsys_rl
    env = gymnasium.make(recsys_rl.gymnasium_id(platform), users="heldout", num_items=200)
    envs = gymnasium.make_vec(recsys_rl.gymnasium_id(platform), num_envs=64, data="synthetic")

Action: ``Discrete(I)``, the item to show. On a platform with slates it is ``MultiDiscrete([I] * K)``, and a
place that repeats an earlier one stays empty. Observation, with F, L and the visible signals S of the
platform's ``Interface``:

- without a history (L = 0), a ``Box (F,)`` float32: the pieces of ``Interface.context``, one after another,
  such as the profile, the last item and the clock. Each number has the bounds of its piece.
- otherwise a ``Dict`` of

  - ``context`` ``Box (F,)`` float32: the same
  - ``history`` ``Box (L,)`` int64: ids of the latest L items of the session, or of its events where the
    platform has these; latest last, -1 padding first. Ids are names, not magnitudes: embed them before an
    MLP, or leave them out
  - ``signals`` ``Box (L,)`` float32, or ``(L, S)`` if S is not 1: the visible signals of each, 0 at padding
  - ``action_mask`` ``MultiBinary (I,)`` int8: 1 where the item may be shown; also in
    ``info["action_mask"]``, in the form of ``Discrete.sample(mask=...)``

If an action chooses an item that may not be shown, its place stays empty and earns nothing. ``reward``: the
weighted sum of the platform's reward streams. ``terminated``: the user left. ``truncated``:
``max_episode_steps`` steps were played. (``gymnasium.make`` uses its argument ``max_episode_steps`` for its
own time limit, which can shorten a session but not lengthen it. Give
``env_config=EnvConfig(max_episode_steps=40)`` instead, with the class of the platform's settings.)

With ``visits=35``, on a platform that has visits, an episode is a user's life of several visits. It goes on
in the next visit without a reset. ``terminated``: the user never returns. ``truncated``: the life was cut.

``reset(options={"users": [3, 8]})`` starts sessions of these rows of the population, one for each
environment.

``make_vec`` steps all N sessions as one batch of tensors; ``make`` plays one session with the same operators,
most of whose time does not depend on N.
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

from recsys_rl.env import gymnasium_id
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.make import make_env, make_world
from recsys_rl.settings.config import (
    Config,
    brought_settings,
    data_name,
    from_dict,
    overlay,
    section_classes,
    to_dict,
)
from recsys_rl.settings.fields import did_you_mean, hints
from recsys_rl.settings.names import DEFAULT_ALGO
from recsys_rl.settings.shared import DataConfig, EnvConfig
from recsys_rl.types import Interface, Obs, UserError

Arrays = Any  # an observation: one array, or a dict of them
Info = dict[str, Any]
Bools = npt.NDArray[np.bool_]
MASK = "action_mask"


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

    @torch.inference_mode()
    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Arrays, Info]:
        """Begin a session, as Gymnasium's ``Env.reset``."""
        super().reset(seed=seed)
        return self._given_out(_begin(self.sessions, 1, self.np_random, options))

    @torch.inference_mode()
    def step(self, action: Any) -> tuple[Arrays, float, bool, bool, Info]:
        """Show the items of an action, as Gymnasium's ``Env.step``."""
        _check(action, self.action_space)
        step = self.sessions.step_without_reset(_items(action, 1))
        arrays, info = self._given_out(step.obs)
        return arrays, step.reward.item(), step.terminated.item(), step.truncated.item(), info  # type: ignore[return-value]

    def _given_out(self, obs: Obs) -> tuple[Arrays, Info]:
        arrays = as_arrays(obs, self.sessions.interface)
        if not isinstance(arrays, dict):
            return arrays[0], {}
        arrays = {name: values[0] for name, values in arrays.items()}
        return arrays, {MASK: arrays[MASK].copy()}


class RecSysVectorEnv(VectorEnv[Arrays, npt.NDArray[np.int64], npt.NDArray[Any]]):
    """N sessions as one batch of tensors, with same-step autoreset.

    It works as Gymnasium's SyncVectorEnv in SAME_STEP mode. When a session ends, the observation is the first
    of the next session. ``infos["final_obs"]`` (N,) of objects and ``infos["final_info"]`` hold the last
    observation and info of the old session; ``_final_obs`` and ``_final_info`` are True for these rows. One
    seed makes all N sessions, so they differ from the sessions of N environments with a seed each.
    """

    autoreset_mode = AutoresetMode.SAME_STEP
    metadata = {"render_modes": [], "autoreset_mode": autoreset_mode}  # noqa: RUF012

    def __init__(self, platform: str, num_envs: int = 1, **settings: Any) -> None:
        """``settings`` are those of ``make_rec_env``. Raises UserError."""
        self.sessions = make_rec_env(platform, num_envs, **settings)
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = make_spaces(self.sessions)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    @torch.inference_mode()
    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Arrays, Info]:
        """Begin N sessions, as Gymnasium's ``VectorEnv.reset``."""
        super().reset(seed=seed)
        arrays = as_arrays(
            _begin(self.sessions, self.num_envs, self.np_random, options), self.sessions.interface
        )
        return arrays, self._mask_info(arrays)

    @torch.inference_mode()
    def step(
        self, actions: npt.NDArray[np.int64]
    ) -> tuple[Arrays, npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any], Info]:
        """Show the items of N actions, as Gymnasium's ``VectorEnv.step``."""
        _check(actions, self.action_space)
        step = self.sessions.step(_items(actions, self.num_envs))
        arrays = as_arrays(step.obs, self.sessions.interface)
        infos = self._mask_info(arrays)
        if step.final_obs is not step.obs:  # some sessions ended
            ended = (step.terminated | step.truncated).numpy()
            rows = torch.from_numpy(np.flatnonzero(ended))
            final = as_arrays(step.final_obs.rows(rows), self.sessions.interface)
            infos |= {
                "final_obs": self._final_obs(final, ended),
                "_final_obs": ended,
                "final_info": self._final_info(final, ended),
                "_final_info": ended.copy(),
            }
        reward, terminated, truncated = step.reward.double(), step.terminated, step.truncated
        return arrays, reward.numpy(), terminated.numpy(), truncated.numpy(), infos

    def _mask_info(self, arrays: Arrays) -> Info:
        """The info of N users."""
        if not isinstance(arrays, dict):
            return {}
        return {MASK: arrays[MASK].copy(), f"_{MASK}": np.ones(self.num_envs, dtype=np.bool_)}

    def _final_obs(self, arrays: Arrays, ended: Bools) -> npt.NDArray[Any]:
        """(N,) of objects: the last observation of each session that ``ended`` (N,), else None."""
        final = np.full(self.num_envs, None, dtype=object)
        for row, index in enumerate(np.flatnonzero(ended)):
            is_dict = isinstance(arrays, dict)
            final[index] = {name: values[row] for name, values in arrays.items()} if is_dict else arrays[row]
        return final

    def _final_info(self, arrays: Arrays, ended: Bools) -> Info:
        """The infos of the sessions that ``ended`` (N,), as Gymnasium joins them."""
        if not isinstance(arrays, dict):
            return {}
        masks = np.zeros((self.num_envs, arrays[MASK].shape[1]), np.int8)
        masks[ended] = arrays[MASK]
        return {MASK: masks, f"_{MASK}": ended.copy()}


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
        raise UserError(f"users={users!r} is not a part of the population: choose 'train' or 'heldout'.")
    base = brought_settings(platform, settings)
    known = data_name({"env": platform, **base}) if data_config is None else data_config.data
    data = settings.get("data", known)
    given = {"env_config": env_config, "data_config": data_config}
    sections = {name: {} if section is None else to_dict(section) for name, section in given.items()}
    classes = section_classes(DEFAULT_ALGO, platform, data)
    for name, value in settings.items():
        home = next((section for section in sections if name in hints(classes[section])), None)
        if home is None:
            raise _unknown(name, platform, classes)
        sections[home][name] = value
    merged = overlay(base, {"env": platform, **sections, "train_config": {"seed": world_seed}})
    config = from_dict(Config, merged)
    env = make_env(config, make_world(config), num_envs, torch.Generator(), heldout=users == "heldout")
    assert isinstance(env, RecEnv)  # only platforms with users are registered
    return env


class UnknownSetting(UserError, TypeError):
    """A setting that nothing has: a TypeError too, as from a function without such a parameter.

    Some libraries try a setting such as ``frameskip``, and go on without it if they catch this TypeError.
    """


def _unknown(name: str, platform: str, classes: dict[str, type[Any]]) -> UserError:
    env_id = gymnasium_id(platform)
    names = {"users", "world_seed"} | {
        field for section in ("env_config", "data_config") for field in hints(classes[section])
    }
    return UnknownSetting(
        f"{env_id} got an unexpected keyword argument {name!r}{did_you_mean(name, names)}: choose from "
        f"{', '.join(sorted(names))}."
    )


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
    lows, highs = [min(0.0, signal.low) for signal in visible], [max(0.0, signal.high) for signal in visible]
    if interface.relative:
        lows, highs = (
            [signal.low - signal.high for signal in visible],
            [signal.high - signal.low for signal in visible],
        )
    low = np.broadcast_to(np.array(lows, np.float32), (length, len(visible)))
    high = np.broadcast_to(np.array(highs, np.float32), (length, len(visible)))
    observation = spaces.Dict(
        {
            "context": context,
            "history": spaces.Box(-1, num_items - 1, (length,), np.int64),
            "signals": spaces.Box(low.reshape(shape), high.reshape(shape)),
            MASK: spaces.MultiBinary(num_items),
        }
    )
    return observation, action


def _context_space(env: RecEnv) -> spaces.Box:
    """The space with the bounds (F,) of the context's pieces. Embeddings have unit norm, up to rounding."""
    interface, rounding = env.interface, 0.001
    visible = [signal for signal in env.signals if signal.visible] * interface.slate_size
    known = {
        "last_item": ([-1 - rounding], [1 + rounding]),
        "last_signals": (
            [min(0.0, signal.low) for signal in visible],
            [max(0.0, signal.high) for signal in visible],
        ),
        "relative_signals": (
            [signal.low - signal.high for signal in visible],
            [signal.high - signal.low for signal in visible],
        ),
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
    if len(items) == 1:  # one session: a tenth of the time of the operators below
        [row] = items.tolist()
        return items if len(set(row)) == len(row) else items.new_tensor([_once(row)])
    repeated = (items.unsqueeze(2) == items.unsqueeze(1)).tril(-1).any(2)  # (N, K)
    return items.masked_fill(repeated, -1)


def _once(row: list[int]) -> list[int]:
    return [-1 if item in row[:index] else item for index, item in enumerate(row)]


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
    one = type(action) in (int, np.int64) and isinstance(space, spaces.Discrete)  # in half the time
    if not (0 <= action < space.n if one else space.contains(action)):  # type: ignore[attr-defined]
        raise UserError(f"The action {action!r} is not in {space}: show an item by its row of the catalogue.")


def as_arrays(obs: Obs, interface: Interface) -> Arrays:
    """The observation of all N users as numpy arrays (N, ...), in the parts of the observation space."""
    context = obs.context.numpy()  # made for this observation alone
    if obs.history is None or obs.signals is None:
        return context
    return {
        "context": context,
        # Copies, as the sessions go on with these tensors.
        "history": obs.history.numpy().copy(),
        "signals": obs.signals.squeeze(-1).numpy().copy(),  # (N, L), or (N, L, S)
        MASK: action_mask(obs, interface),
    }


def action_mask(obs: Obs, interface: Interface) -> npt.NDArray[np.int8]:
    """(N, I) int8: 1 where the item may be shown."""
    num_users, num_items = obs.num_rows, interface.action_sizes[0]
    flat = np.ones(num_users * num_items + 1, np.int8)  # padding, -1, is written to the last place
    if obs.exclude is not None:
        excluded = obs.exclude.numpy()  # (N, X)
        if num_users > 1:
            starts = num_items * np.arange(num_users)[:, None]
            excluded = np.where(excluded < 0, -1, excluded + starts)
        flat[excluded] = 0
    mask = flat[:-1].reshape(num_users, num_items)
    return mask if obs.mask is None else mask & obs.mask.numpy()

"""The contract of every environment of N sessions."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from recsys_rl.protocols import Env
from recsys_rl.testing.requirement import require
from recsys_rl.types import Obs, Step


def check_env(make_env: Callable[[int], Env], max_episode_steps: int) -> None:
    """Raise AssertionError with a sentence that names the method, if an environment breaks the contract.

    Args:
        make_env: makes a new environment of at least two rows from a seed.
        max_episode_steps: the time limit of a session, which must end some of the first sessions. Of an
            environment with ``interface.visits`` above 1 it is that of a visit, and the largest number of
            visits or days must cut some of the first lives.
    """
    _check_shapes(make_env(0))
    _check_ends(make_env(0), max_episode_steps)
    if make_env(0).interface.visits > 1:
        _check_lives(make_env(0))
    _check_seed(make_env)
    _check_resume(make_env)


def walk(env: Env, obs: Obs, num_steps: int, seed: int = 0) -> list[Step]:
    """Take ``num_steps`` random allowed actions, starting at ``obs``."""
    rng = torch.Generator().manual_seed(seed)
    steps = []
    for _ in range(num_steps):
        step = env.step(random_items(env, obs, rng))
        steps.append(step)
        obs = step.obs
    return steps


def random_items(env: Env, obs: Obs, rng: torch.Generator) -> Tensor:
    """(N, K): items drawn uniformly from the allowed ones, none twice in a slate."""
    sizes, slate_size = env.interface.action_sizes, env.interface.slate_size
    if obs.mask is not None or obs.exclude is not None or slate_size > 1:
        return torch.multinomial(obs.allowed(sizes[0]).float(), slate_size, generator=rng)
    return torch.stack([torch.randint(size, (obs.num_rows,), generator=rng) for size in sizes], 1)


def require_same_obs(first: Obs, second: Obs, sentence: str) -> None:
    """Raise AssertionError unless two observations are equal, bit for bit."""
    for name, value in vars(first).items():
        other = getattr(second, name)
        same = value is other if value is None or other is None else torch.equal(value, other)
        require(same, f"{sentence} ({name} differs)")


def require_same_steps(first: list[Step], second: list[Step], sentence: str) -> None:
    """Raise AssertionError unless two lists of steps are equal, bit for bit."""
    for one, two in zip(first, second, strict=True):
        require_same_obs(one.obs, two.obs, sentence)
        require_same_obs(one.final_obs, two.final_obs, sentence)
        for name in ("reward", "streams", "terminated", "truncated"):
            require(torch.equal(getattr(one, name), getattr(two, name)), f"{sentence} ({name} differs)")


def _check_obs(env: Env, obs: Obs, method: str) -> None:
    interface, n = env.interface, env.num_envs
    length, num_items = interface.history_length, interface.action_sizes[0]
    _require_tensor(obs.context, (n, interface.context_size), torch.float32, f"{method}: context")
    require(bool(obs.context.isfinite().all()), f"{method}: context holds NaN or infinite numbers")
    there = (obs.history is not None, obs.signals is not None)
    require(
        there == (length > 0, length > 0),
        f"{method}: history and signals must be there if interface.history_length is above 0, and only then",
    )
    if obs.history is not None and obs.signals is not None:
        _require_tensor(obs.history, (n, length), torch.int64, f"{method}: history")
        shape = (n, length, len(interface.signals))
        _require_tensor(obs.signals, shape, torch.float32, f"{method}: signals")
        _require_ids(obs.history, num_items, f"{method}: history")
        padding = obs.history < 0
        require(not bool(obs.signals[padding].any()), f"{method}: signals at padding must be 0")
        first = bool((padding[:, 1:] <= padding[:, :-1]).all())
        require(first, f"{method}: the padding of the history must come first, and its latest item last")
    if obs.mask is not None:
        _require_tensor(obs.mask, (n, num_items), torch.bool, f"{method}: mask")
    if obs.exclude is not None:
        _require_tensor(obs.exclude, (n, obs.exclude.shape[-1]), torch.int64, f"{method}: exclude")
        _require_ids(obs.exclude, num_items, f"{method}: exclude")


def _require_tensor(values: Tensor, shape: tuple[int, ...], dtype: torch.dtype, name: str) -> None:
    actual = f"{values.dtype} of shape {tuple(values.shape)}"
    require(
        tuple(values.shape) == shape and values.dtype == dtype,
        f"{name} is {actual}: it must be {dtype} of {shape}",
    )


def _require_ids(ids: Tensor, num_items: int, name: str) -> None:
    inside = bool(((ids >= -1) & (ids < num_items)).all())
    require(inside, f"{name} must hold items 0 to {num_items - 1}, or -1 as padding")


def _check_shapes(env: Env) -> None:
    n = env.num_envs
    obs = env.reset()
    require(n >= 2, "make_env must give an environment of two rows or more")
    _check_obs(env, obs, "reset")
    for step in walk(env, obs, 5):
        _check_obs(env, step.obs, "step: obs")
        _check_obs(env, step.final_obs, "step: final_obs")
        _require_tensor(step.reward, (n,), torch.float32, "step: reward")
        _require_tensor(step.streams, (n, len(env.streams)), torch.float32, "step: streams")
        _require_tensor(step.terminated, (n,), torch.bool, "step: terminated")
        _require_tensor(step.truncated, (n,), torch.bool, "step: truncated")


def _check_ends(env: Env, max_episode_steps: int) -> None:
    """Check that one end excludes the other, the time limit is exact, and only finished rows are reset.

    A life is cut after a number of visits or days, so that its length in steps has only an upper limit.
    """
    age = torch.zeros(env.num_envs, dtype=torch.int64)
    truncations, visits = 0, env.interface.visits
    longest = max_episode_steps * visits
    for step in walk(env, env.reset(), 3 * longest + 1):
        age += 1
        done = step.terminated | step.truncated
        both = bool((step.terminated & step.truncated).any())
        require(not both, "step: terminated and truncated are both True in one row: only one may be")
        in_time = bool((age <= longest).all())
        require(in_time, f"step: an episode is longer than {longest} steps")
        exact = visits > 1 or torch.equal(step.truncated, (age >= longest) & ~step.terminated)
        require(exact, f"step: truncated must be True after {max_episode_steps} steps of a session only")
        for final, fresh in zip(vars(step.final_obs).values(), vars(step.obs).values(), strict=True):
            same = final is None or torch.equal(final[~done], fresh[~done])
            require(same, "step: obs and final_obs differ in a row whose session goes on")
        other = (step.final_obs.context != step.obs.context).any(1)[done]
        require(bool(other.all()), "step: obs is not the first of a new session in a row that ended")
        if step.obs.history is not None and step.final_obs.history is not None:
            fresh_start = not bool((step.obs.history[done] >= 0).any())
            require(fresh_start, "step: obs of a new session must have an empty history")
            # A life that was cut ends with the first observation of a visit.
            last = done if visits == 1 else step.terminated
            has_history = env.interface.events or bool((step.final_obs.history[last] >= 0).any(1).all())
            require(has_history, "step: final_obs must have the history of the session that ended")
        truncations += int(step.truncated.sum())
        age[done] = 0
    require(truncations > 0, "step: no session reached the time limit, so that it is not tested")


def _check_lives(env: Env) -> None:
    """Check the days of lives, and that all items may be shown again in the next visit."""
    steps = walk(env, env.reset(), env.interface.episode_length + 1)
    day = torch.zeros(env.num_envs, dtype=torch.int64)
    for before, step in pairwise(steps):
        next_day = step.day
        require(next_day is not None, "step: day must be there where an episode has several visits")
        assert next_day is not None
        _require_tensor(next_day, (env.num_envs,), torch.int64, "step: day")
        done = before.terminated | before.truncated
        require(bool((next_day[done] == 0).all()), "step: day of a new life must be 0")
        require(bool((next_day >= day)[~done].all()), "step: day falls within a life")
        later = ~done & (next_day > day)
        if before.obs.exclude is not None:
            again = not bool((before.obs.exclude[later] >= 0).any())
            require(again, "step: obs of a new visit must exclude no item")
        day = next_day


def _check_seed(make_env: Callable[[int], Env]) -> None:
    first, again, other = make_env(3), make_env(3), make_env(4)
    obs, same, different = first.reset(), again.reset(), other.reset()
    require_same_obs(obs, same, "reset: two environments of one seed began differently")
    steps = walk(first, obs, 12), walk(again, same, 12)
    require_same_steps(*steps, "step: two environments of one seed gave different steps")
    apart = not torch.equal(obs.context, different.context)
    if not apart and torch.equal(obs.context, obs.context[:1].expand_as(obs.context)):
        # The context does not tell users apart, but their rewards may.
        pairs = zip(steps[0], walk(other, different, 12), strict=True)
        apart = any(not torch.equal(one.reward, two.reward) for one, two in pairs)
    require(apart, "reset: environments of two seeds began alike")


def _check_resume(make_env: Callable[[int], Env]) -> None:
    """Check that a resumed environment and one without interruption give the same steps, bit for bit."""
    env, resumed = make_env(5), make_env(5)
    walk(env, env.reset(), 7)
    saved = {name: value.clone() for name, value in env.state_dict().items()}
    rng = getattr(env, "generator", None)  # state_dict does not hold the generator
    saved_rng = None if rng is None else rng.get_state()
    on = walk(env, env.observe(), 9, seed=1)

    walk(resumed, resumed.reset(), 2)
    resumed.load_state_dict(saved)
    if saved_rng is not None:
        resumed.generator.set_state(saved_rng)  # type: ignore[attr-defined]
    obs = resumed.observe()
    before = obs.map(torch.clone)
    after = walk(resumed, obs, 9, seed=1)
    require_same_steps(on, after, "load_state_dict: the resumed sessions gave other steps")
    require_same_obs(before, obs, "step: it wrote to an observation that it had returned before")
    moved = any(not torch.equal(step.obs.context, before.context) for step in on)
    require(moved, "step: the context never changed")

"""Batteries: what every environment, whoever made it, has to keep."""

from __future__ import annotations

from collections.abc import Callable

import torch

from recsys_rl.protocols import Env
from recsys_rl.types import Obs, Step


def check_env(make_env: Callable[[int], Env], max_episode_steps: int) -> None:
    """``make_env(seed)`` gives a fresh environment of two rows or more; the time limit ends some sessions."""
    _check_shapes(make_env(0))
    _check_ends(make_env(0), max_episode_steps)
    _check_seed(make_env)
    _check_resume(make_env)


def walk(env: Env, obs: Obs, num_steps: int, seed: int = 0) -> list[Step]:
    """``num_steps`` random allowed actions from ``obs`` on."""
    rng = torch.Generator().manual_seed(seed)
    steps = []
    for _ in range(num_steps):
        step = env.step(random_items(env, obs, rng))
        steps.append(step)
        obs = step.obs
    return steps


def random_items(env: Env, obs: Obs, rng: torch.Generator) -> torch.Tensor:
    """(N, K): uniform among what is allowed."""
    n = obs.num_rows
    sizes, slate_size = env.interface.action_sizes, env.interface.slate_size
    if obs.mask is not None or obs.exclude is not None or slate_size > 1:
        return torch.multinomial(obs.allowed(sizes[0]).float(), slate_size, generator=rng)
    return torch.stack([torch.randint(size, (n,), generator=rng) for size in sizes], 1)


def assert_same_obs(first: Obs, second: Obs) -> None:
    assert vars(first).keys() == vars(second).keys()
    for name, value in vars(first).items():
        other = getattr(second, name)
        assert (value is None) == (other is None), name
        assert value is None or torch.equal(value, other), name


def assert_same_steps(first: list[Step], second: list[Step]) -> None:
    for one, two in zip(first, second, strict=True):
        assert_same_obs(one.obs, two.obs)
        assert_same_obs(one.final_obs, two.final_obs)
        assert torch.equal(one.reward, two.reward)
        assert torch.equal(one.terminated, two.terminated)
        assert torch.equal(one.truncated, two.truncated)


def _check_obs(env: Env, obs: Obs) -> None:
    interface, n = env.interface, env.num_envs
    length, num_items = interface.history_length, interface.action_sizes[0]
    assert obs.context.shape == (n, interface.context_size) and obs.context.dtype == torch.float32
    assert bool(obs.context.isfinite().all())
    assert (obs.history is not None) == (length > 0) == (obs.signals is not None)
    if obs.history is not None and obs.signals is not None:
        assert obs.history.shape == (n, length) and obs.history.dtype == torch.int64
        assert obs.signals.shape == (n, length, len(interface.signals)) and obs.signals.dtype == torch.float32
        assert bool((obs.history >= -1).all()) and bool((obs.history < num_items).all())
        padding = obs.history < 0
        assert not obs.signals[padding].any()
        assert bool((padding[:, 1:] <= padding[:, :-1]).all())  # padding comes first
    if obs.mask is not None:
        assert obs.mask.shape == (n, num_items) and obs.mask.dtype == torch.bool
    if obs.exclude is not None:
        assert obs.exclude.shape[0] == n and obs.exclude.dtype == torch.int64
        assert bool((obs.exclude >= -1).all()) and bool((obs.exclude < num_items).all())


def _check_shapes(env: Env) -> None:
    obs = env.reset()
    assert env.num_envs >= 2
    _check_obs(env, obs)
    for step in walk(env, obs, 5):
        _check_obs(env, step.obs)
        _check_obs(env, step.final_obs)
        assert step.reward.shape == (env.num_envs,) and step.reward.dtype == torch.float32
        assert step.streams.shape == (env.num_envs, len(env.streams))
        for flag in (step.terminated, step.truncated):
            assert flag.shape == (env.num_envs,) and flag.dtype == torch.bool


def _check_ends(env: Env, max_episode_steps: int) -> None:
    """Both ends are apart, the time limit is exact, and only finished rows are reset."""
    age = torch.zeros(env.num_envs, dtype=torch.int64)
    truncations = 0
    for step in walk(env, env.reset(), 3 * max_episode_steps + 1):
        age += 1
        done = step.terminated | step.truncated
        assert not (step.terminated & step.truncated).any()
        assert torch.equal(step.truncated, (age >= max_episode_steps) & ~step.terminated)
        for final, fresh in zip(vars(step.final_obs).values(), vars(step.obs).values(), strict=True):
            assert final is None or torch.equal(final[~done], fresh[~done])
        assert bool((step.final_obs.context != step.obs.context).any(1)[done].all())
        if step.obs.history is not None and step.final_obs.history is not None:
            assert not (step.obs.history[done] >= 0).any()
            assert bool((step.final_obs.history[done] >= 0).any(1).all())
        truncations += int(step.truncated.sum())
        age[done] = 0
    assert truncations > 0


def _check_seed(make_env: Callable[[int], Env]) -> None:
    first, again, other = make_env(3), make_env(3), make_env(4)
    obs, same, different = first.reset(), again.reset(), other.reset()
    assert_same_obs(obs, same)
    assert not torch.equal(obs.context, different.context)
    assert_same_steps(walk(first, obs, 12), walk(again, same, 12))


def _check_resume(make_env: Callable[[int], Env]) -> None:
    """A checkpoint in the middle: the resumed run and the one that goes on see the same, bit for bit."""
    env, resumed = make_env(5), make_env(5)
    walk(env, env.reset(), 7)
    saved = {name: value.clone() for name, value in env.state_dict().items()}
    rng = getattr(env, "generator", None)  # the caller keeps the generators
    saved_rng = None if rng is None else rng.get_state()
    on = walk(env, env.observe(), 9, seed=1)

    walk(resumed, resumed.reset(), 2)
    resumed.load_state_dict(saved)
    if saved_rng is not None:
        resumed.generator.set_state(saved_rng)  # type: ignore[attr-defined]
    obs = resumed.observe()
    before = obs.map(torch.clone)
    assert_same_steps(on, walk(resumed, obs, 9, seed=1))
    assert_same_obs(before, obs)  # what was given out is never written to
    assert any(not torch.equal(step.obs.context, before.context) for step in on)

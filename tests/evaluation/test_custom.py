"""A user's own policy in the table: objects, classes, functions, Stable-Baselines3 models, and mistakes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch

from recsys_rl.cli import main
from recsys_rl.evaluation.custom import Model
from recsys_rl.foreign.gym import GymEnv
from recsys_rl.settings.shared import EnvConfig
from recsys_rl.types import Obs, UserError
from recsys_rl.utils.find import find
from tests.doors import CARTPOLE, DRIFT, SATIATION, finish, start, steps, train_in

OPTIONS = {"drift": DRIFT, "satiation": SATIATION, "gym": CARTPOLE}
POLICIES = '''
import torch
from recsys_rl.types import Action

class Popular:
    """Shows the best liked item that was not shown in this session."""

    def __init__(self, catalogue):
        self.order = catalogue.popularity.sort(descending=True, stable=True).indices

    def act(self, obs, greedy=False):
        shown = torch.zeros(obs.num_rows, dtype=torch.int64)
        if obs.history is not None:
            shown = (obs.history >= 0).sum(1)
            obs.history.fill_(7)  # what a policy does to its copy must not matter
        return Action(self.order[shown].unsqueeze(-1), torch.zeros(obs.num_rows))

class Always:
    """Chooses one action."""

    def __init__(self, action=0):
        self.action = action

    def act(self, obs, greedy=False):
        return Action(torch.full((obs.num_rows, 1), self.action), torch.zeros(obs.num_rows))

class Broken(Always):
    def act(self, obs, greedy=False):
        raise ValueError("no such\\nthing")

class Flat(Always):
    def act(self, obs, greedy=False):
        return Action(torch.zeros(obs.num_rows), torch.zeros(obs.num_rows))

class Plain(Always):
    def act(self, obs, greedy=False):
        return [0] * obs.num_rows

class Refuses:
    def __init__(self, catalogue):
        raise KeyError("mood")

class TakesFour:
    def __init__(self, catalogue, trainees, steps, more):
        pass

class Tuned(Always):
    """Of the items 3, 8 and 11, the one that earns most in sessions of training users."""

    def __init__(self, catalogue, trainees, steps):
        users = trainees.draw(20)
        earned = {item: trainees.play(Always(item), users).returns.mean().item() for item in (3, 8, 11)}
        super().__init__(max(earned, key=earned.get))
        people = trainees.population
        print(f"{steps} steps, {len(people.train)} users, {len(people.heldout)} others")

def make():
    return Always(2)

def nothing():
    return None

one = Always(1)
far = Always(24)
below = Always(-1)
number = 7
'''


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    home, found = tmp_path_factory.mktemp("trained"), {}
    for name, options in OPTIONS.items():
        found[name] = str(train_in(home / name, *options, *steps(1)))
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a module of policies. Its imports are removed afterwards."""
    (tmp_path / "my_policies.py").write_text(POLICIES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "my_policies", raising=False)
    return tmp_path


def rows(*words: str) -> dict[str, dict[str, Any]]:
    assert main(["evaluate", *words, "--json", "t.json"]) == 0
    table = json.loads(Path("t.json").read_text())
    return {row["policy"]: row for row in table["rows"]}


@pytest.mark.parametrize("env", ["drift", "satiation"])
def test_policy_class_gets_the_catalogue(env: str, trained: dict[str, str], folder: Path) -> None:
    """The policy shows the items of `popularity`, so both rows are equal."""
    found = rows(trained[env], "--policy", "my_policies:Popular")
    assert list(found)[2:6] == ["untrained", "expected", "my_policies:Popular", "random"]
    assert found["my_policies:Popular"] | {"policy": ""} == found["popularity"] | {"policy": ""}
    table = json.loads(Path("t.json").read_text())
    assert table["yardstick"] != "my_policies:Popular"
    assert "my_policies:Popular" in [row["policy"] for row in table["paired"]]
    assert [row["policy"] for row in table["shares"]] == ["ppo", "ppo-greedy", "my_policies:Popular"]


def test_objects_classes_and_functions_in_gym_environments(trained: dict[str, str], folder: Path) -> None:
    """If the cart is always pushed to one side, the pole falls within 11 steps."""
    words = [word for name in ("one", "Always") for word in ("--policy", f"my_policies:{name}")]
    found = rows(trained["gym"], *words)
    assert list(found)[3:5] == ["my_policies:one", "my_policies:Always"]
    for name in ("one", "Always"):
        row = found[f"my_policies:{name}"]
        assert 8 <= row["return_mean"] <= 11 and row["distinct_mean"] == 1 and row["users"] == 100
    assert found["my_policies:one"]["return_mean"] != found["my_policies:Always"]["return_mean"]
    alone = rows(trained["gym"])
    assert {name: row for name, row in found.items() if name in alone} == alone


def test_policy_from_a_function(trained: dict[str, str], folder: Path) -> None:
    found = rows(trained["drift"], "--policy", "my_policies:make")
    assert found["my_policies:make"]["coverage"] == 1 / 24


def test_a_policy_may_be_tuned_on_training_users(
    trained: dict[str, str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its sessions of training users change nothing in the other rows, and no held-out user is there."""
    found = rows(trained["satiation"], "--no-planner", "--policy", "my_policies:Tuned")
    assert "24 steps, 24 users, 0 others\n" in capsys.readouterr().out
    assert found["my_policies:Tuned"]["coverage"] == 1 / 24
    alone = rows(trained["satiation"], "--no-planner")
    assert {name: row for name, row in found.items() if name in alone} == alone
    assert main(["evaluate", trained["gym"], "--policy", "my_policies:Tuned"]) == 2  # it has no users


@pytest.mark.proof
def test_policy_module_in_the_working_folder(trained: dict[str, str], folder: Path) -> None:
    code, out, err = finish(
        start(folder, "recsys_rl.cli", "evaluate", trained["drift"], "--policy", "my_policies:one")
    )
    assert code == 0, err
    assert "\nmy_policies:one  " in out and "\nmy_policies:one minus " in out


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ("my_policies", "is not of the form module:NAME, as in my_module:NAME."),
        ("my_policies:", "is not of the form module:NAME"),
        ("a/b.py:one", "is not of the form module:NAME"),
        ("my_policy:one", "there is no module my_policy in this folder"),
        ("my_policies.deep:one", "there is no module my_policies.deep in this folder"),
        ("my_policies:two", "the module my_policies has no two."),
        ("my_policies:number", "is of type int: it must have act(obs, greedy) or predict"),
        ("my_policies:nothing", "made something of type NoneType: it must have act(obs, greedy)"),
        ("my_policies:Refuses", "can't be made (KeyError: 'mood', my_policies.py line"),
        ("my_policies:TakesFour", "can't be made (TypeError: "),
        ("my_policies:Broken", "failed in act (ValueError: no such thing, my_policies.py line"),
        ("my_policies:Flat", "act returned torch.float32 of shape (6,): it must return an Action"),
        (
            "my_policies:Plain",
            "act returned a value of type list: it must return an Action with",
        ),
        ("my_policies:far", "act chose item 24: items must be 0 to 23."),
        ("my_policies:below", "act chose item -1: items must be 0 to 23."),
        ("bad_syntax:x", "can't be imported (SyntaxError"),
        ("needs_more:x", "can't be imported (ModuleNotFoundError: No module named 'not_there'"),
        ("ends:x", "can't be imported (SystemExit: good bye, ends.py line 2)."),
    ],
)
def test_mistakes(
    spec: str,
    complaint: str,
    trained: dict[str, str],
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (folder / "bad_syntax.py").write_text("def\n")
    (folder / "ends.py").write_text("import sys\nsys.exit('good bye')\n")
    (folder / "needs_more.py").write_text("import not_there\n")
    assert main(["evaluate", trained["drift"], "--policy", spec, "--json", "t.json"]) == 2
    said = capsys.readouterr().err
    error = said.splitlines()[-1]
    assert error.startswith(f"error: --policy {spec}") and complaint in error
    assert "tuning" not in said and "playing" not in said  # the error comes first
    assert not Path("t.json").exists()


def test_policy_is_never_read_from_a_file(trained: dict[str, str], folder: Path) -> None:
    """`evaluate` reads no settings from files, and a checkpoint holds no user's policy."""
    from recsys_rl.checkpoint import load
    from recsys_rl.settings.config import to_dict

    assert "policy" not in json.dumps(to_dict(load(Path(trained["drift"])).config))


# ---- Stable-Baselines3


# gymnasium.make keeps the word max_episode_steps for a wrapper of its own.
WORLD: dict[str, Any] = {
    "env_config": EnvConfig(max_episode_steps=5),
    "data": "synthetic",
    "num_items": 24,
    "num_users": 30,
    "embedding_dim": 4,
}


def model(name: str, wrap: Callable[[Any], Any] = lambda env: env, **world: Any) -> Any:
    stable_baselines3 = pytest.importorskip("stable_baselines3")
    env = wrap(gymnasium.make(name, **world))
    policy = "MultiInputPolicy" if isinstance(env.observation_space, gymnasium.spaces.Dict) else "MlpPolicy"
    return stable_baselines3.PPO(policy, env, n_steps=8, batch_size=8, seed=0, device="cpu")


def offered(module: str, made: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """The model as ``<module>:model``."""
    fake: Any = type(sys)(module)
    fake.model = made
    monkeypatch.setitem(sys.modules, module, fake)
    return f"{module}:model"


def without_ids(env: Any) -> Any:
    return gymnasium.wrappers.FilterObservation(env, ("context", "signals", "action_mask"))


@pytest.mark.proof_of("gym-<lambda>")
@pytest.mark.parametrize(
    ("env", "made"),
    [
        ("satiation", lambda: model("recsys_rl/Satiation-v0", without_ids, **WORLD)),
        ("satiation", lambda: model("recsys_rl/Satiation-v0", **WORLD)),
        ("gym", lambda: model("CartPole-v1")),
    ],
)
def test_models_of_stable_baselines3_have_two_rows(
    env: str,
    made: Callable[[], Any],
    trained: dict[str, str],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    agent = made()
    spec = offered("sb3_agent", agent, monkeypatch)
    found = rows(trained[env], "--policy", spec)
    greedy = found[f"{spec}-greedy"]
    assert spec in found and greedy["users"] == found["random"]["users"]
    assert greedy["return_mean"] != found[spec]["return_mean"]
    again = rows(trained[env], "--policy", spec)
    assert again[f"{spec}-greedy"] == greedy


def test_model_observations_equal_the_gymnasium_environment(
    trained: dict[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The greedy return of each held-out user equals the model's return in ``recsys_rl/Drift-v0``."""
    agent = model("recsys_rl/Drift-v0", **WORLD)
    found = rows(trained["drift"], "--policy", offered("sb3_agent", agent, monkeypatch))
    env = gymnasium.make("recsys_rl/Drift-v0", users="heldout", **WORLD)
    heldout = env.unwrapped.sessions.users.tolist()  # type: ignore[attr-defined]
    returns = []
    for user in heldout:
        obs, _ = env.reset(seed=0, options={"users": [user]})
        total, ended = 0.0, False
        while not ended:
            action, _ = agent.predict(obs, deterministic=True)
            obs, reward, terminated, truncated, _ = env.step(action)
            total, ended = total + float(reward), terminated or truncated
        returns.append(total)
    mean = torch.tensor(returns).mean().item()
    assert found["sb3_agent:model-greedy"]["return_mean"] == pytest.approx(mean, abs=1e-5)


def test_model_trained_with_other_observations(
    trained: dict[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = offered("sb3_agent", model("CartPole-v1"), monkeypatch)
    assert main(["evaluate", trained["satiation"], "--policy", spec]) == 2
    assert "was trained with other observations" in capsys.readouterr().err.splitlines()[-1]
    assert main(["evaluate", trained["drift"], "--policy", spec]) == 2
    assert "was trained with other observations" in capsys.readouterr().err.splitlines()[-1]


def test_model_of_discrete_observations() -> None:
    """The model gets numbers, as its own network makes them one-hot."""
    seen: list[Any] = []

    class Doubling:
        observation_space = gymnasium.spaces.Discrete(16)

        def predict(self, observations: Any, deterministic: bool) -> tuple[Any, None]:
            seen.append((observations.tolist(), deterministic))
            return observations * 2, None

    player = Model("m:model", Doubling(), GymEnv("FrozenLake-v1", 2, 0))
    action = player.act(Obs(torch.eye(16)[[2, 0]]), greedy=True)
    assert seen == [([2, 0], True)] and action.items.tolist() == [[4], [0]]


def test_find_policy_by_name(folder: Path) -> None:
    assert find("my_policies:one", "--policy", typed=True) is find("my_policies:one", "--policy")
    with pytest.raises(UserError):
        find("my_policies:three", "--policy", typed=True)

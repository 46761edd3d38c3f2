"""The command: its settings, their priority, and its error messages."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from recsys_rl import __version__
from recsys_rl.agents import AGENTS
from recsys_rl.cli import main
from recsys_rl.cli.evaluate import evaluate_options
from recsys_rl.cli.ranking import RankingOptions
from recsys_rl.cli.train import MAIN, Job, train_options
from recsys_rl.evaluation.options import EvaluateConfig
from recsys_rl.settings.config import Config, from_dict, overlay, to_dict, to_toml
from recsys_rl.settings.shared import ModelConfig
from recsys_rl.types import UserError

ROOT = Path(__file__).parents[2]


def trained(line: str) -> Config:
    return train_options(line.split()).config


def expected(algo: str, env: str, **changes: dict[str, Any]) -> Config:
    return from_dict(Config, {"algo": algo, "env": env, **changes})


def option(name: str) -> str:
    return "--" + name.replace("_", "-")


def run(*arguments: str, encoding: str = "utf-8") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)


# ---- what arrives


def test_default_options_are_the_preset_of_ppo_on_drift() -> None:
    assert train_options([]) == Job(Config(algo="ppo", env="drift"))


@pytest.mark.parametrize("algo", ["ppo", "a2c"])
@pytest.mark.parametrize("env", ["drift", "satiation", "gym:CartPole-v1", "gym:some.module:Id-v0"])
def test_algo_and_env_choose_the_preset(algo: str, env: str) -> None:
    assert (
        trained(f"--algo {algo} --env {env}")
        == trained(f"--env={env} --algo={algo}")
        == Config(algo=algo, env=env)
    )


def test_options_of_every_kind() -> None:
    line = (
        "--algo a2c --lr 1e-2 --num-items 50 --hidden-dims 8 4 --no-anneal-lr --tensorboard --head dense "
        "--device cpu --data-dir some/folder --seed 7"
    )
    assert trained(line) == expected(
        "a2c",
        "drift",
        agent_config={"lr": 0.01, "anneal_lr": False},
        env_config={"num_items": 50},
        model_config={"hidden_dims": [8, 4], "head": "dense"},
        data_config={"data_dir": "some/folder"},
        train_config={"tensorboard": True, "device": "cpu", "seed": 7},
    )


@pytest.mark.parametrize(
    ("algo", "env", "data"),
    [
        ("ppo", "drift", "movielens"),
        ("a2c", "satiation", "synthetic"),
        ("ppo", "satiation", "log.csv"),
        ("a2c", "gym:CartPole-v1", ""),
    ],
)
def test_options_set_their_fields(algo: str, env: str, data: str) -> None:
    """Each option sets the field of the config with its name: nearly all of them in one command."""
    chosen = {"data_config": {"data": data}} if data else {}
    base, begin = (
        expected(algo, env, **chosen),
        ["--algo", algo, "--env", env, *(["--data", data] if data else [])],
    )
    for option_alone in ("", *ALONE):
        words, changes = begin, chosen
        for section, fields in to_dict(base).items():
            for name, value in fields.items() if isinstance(fields, dict) else ():
                if name in ("data", "num_processes") or option_alone != (name if name in ALONE else ""):
                    continue
                if name in ("encoder", "signal_coef") and env != "satiation":
                    continue
                if base.model_config.head == "dense" and name in ("candidates", "explore_rate", "index"):
                    continue  # of the two-tower head alone
                new, more = other_value(name, value)
                assert new != value
                words, changes = words + more, overlay(changes, {section: {name: new}})
        assert to_dict(train_options(words).config) == to_dict(expected(algo, env, **changes)), option_alone


# Options that exclude some of the others.
ALONE = ("head", "record", "judge_log", "init_from", "world")


def other_value(name: str, value: Any) -> tuple[Any, list[str]]:
    """Another allowed value of the field, and the words of its option."""
    fixed = {
        "encoder": "transformer",
        "index": "exact",
        "head": "two-tower" if value == "dense" else "dense",
        "activation": "elu",
        "device": "cpu",
        "target_kl": 0.01,
        "like_threshold": 3.0,
        "missing": "drop",
        "duplicates": "sum",
        "separator": ";",
        "candidates": 200,
        "batch_size": 64,
        "n_steps": 128,
        "num_envs": 128,
    }
    if isinstance(value, bool):
        return not value, [option(f"no_{name}" if value else name)]
    if name == "limit":
        return ["early_end<=1", "watch>=2"], ["--limit", "early_end<=1", "--limit", "watch>=2"]
    if name == "weights":
        return ["watch=2", "revenue=-1"], [option(name), "watch=2", "revenue=-1"]
    if isinstance(value, list):
        return [5, 6], [option(name), "5", "6"]
    if name in fixed:
        new: Any = fixed[name]
    elif value is None or isinstance(value, str):
        new = f"other-{name}"
    else:  # a number: some other one in its range
        new = value + 1 if isinstance(value, int) else value * 0.5 + 0.0625
    return new, [option(name), str(new)]


def test_priority_of_options_file_and_preset(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('algo = "a2c"\nenv = "satiation"\n[agent_config]\nlr = 0.5\ngamma = 0.5\n')
    assert trained(f"--config {file} --lr 0.25") == expected(
        "a2c", "satiation", agent_config={"lr": 0.25, "gamma": 0.5}
    )
    assert trained(f"--algo ppo --env drift --config={file}") == expected(
        "ppo", "drift", agent_config={"lr": 0.5, "gamma": 0.5}
    )


def test_run_repeated_from_its_own_config_file(tmp_path: Path) -> None:
    config = trained("--algo ppo --env satiation --lr 0.125 --hidden-dims 9 --target-kl 0.5 --no-anneal-lr")
    (tmp_path / "config.toml").write_text(to_toml(config))
    assert trained(f"--config {tmp_path / 'config.toml'}") == config
    preset = ModelConfig(hidden_dims=(9,), encoder="deep-sets")
    assert config.model_config == preset and config.agent_config.lr == 0.125


def test_rollout_settings_from_file_and_options(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("[agent_config]\nnum_envs = 2\nn_steps = 8\n")
    assert trained(f"--config {file} --batch-size 16").agent_config.num_envs == 2
    with pytest.raises(UserError):
        trained(f"--config {file}")


def test_evaluate_takes_the_checkpoint_of_the_algorithm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert evaluate_options([]) == EvaluateConfig() and EvaluateConfig().algo is None
    assert evaluate_options([]).paths == (Path("checkpoints/ppo.pt"),)
    options = evaluate_options(["--algo", "a2c"])
    assert options == EvaluateConfig(algo="a2c") and options.paths == (Path("checkpoints/a2c.pt"),)
    line = "--algo a2c --checkpoint x.pt --env gym:m:X-v0 --seed 3 --json t.json --report r.html --device cpu"
    line += " --threads 2 --max-users 9 --full --cache-dir c --policy m:a --policy m.n:b"
    assert evaluate_options(line.split()) == EvaluateConfig(
        "x.pt", "a2c", "gym:m:X-v0", 3, "t.json", "r.html", 9, "cpu", 2, (), ("m:a", "m.n:b"), True, "c"
    )
    assert evaluate_options(["--seed", "3", "a.pt", "b.pt"]) == EvaluateConfig(seed=3, files=("a.pt", "b.pt"))


# ---- the doors, stood in for


@pytest.fixture
def doors(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Records the calls of the commands, which then neither train nor evaluate."""
    calls: list[Any] = []

    class Interrupted(Exception):
        pass

    def train(config: Config, resume: bool, **more: Any) -> None:
        calls.append((config, resume, more))
        if config.train_config.seed == 1:
            raise Interrupted("Stopped at step 8; saved.")
        if config.train_config.seed == 2:
            raise UserError("The loss became nan.")
        if config.train_config.seed == 3:
            raise KeyboardInterrupt

    fake: Any = types.ModuleType("recsys_rl.training.train")
    fake.train, fake.Interrupted = train, Interrupted
    monkeypatch.setitem(sys.modules, "recsys_rl.training.train", fake)
    monkeypatch.setattr("recsys_rl.cli.evaluate.evaluate", lambda options, **_: calls.append(options))
    return calls


def test_commands_call_their_workflows(doors: list[Any]) -> None:
    assert main(["train", "--algo", "a2c"]) == 0
    assert main(["evaluate", "--checkpoint", "x.pt"]) == 0
    more = {"folder": None, "latest": True, "quiet": False}
    assert doors == [(Config(algo="a2c", env="drift"), False, more), EvaluateConfig("x.pt")]


@pytest.mark.parametrize(
    ("seed", "code", "message"),
    [(1, 130, "Stopped at step 8; saved.\n"), (2, 2, "error: The loss became nan.\n"), (3, 130, "")],
)
def test_ends_of_a_run(
    seed: int, code: int, message: str, doors: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--seed", str(seed)]) == code
    assert capsys.readouterr() == ("", message)


def test_typed_module_is_imported(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("env = 'gym:some.module:X-v0'\n")
    assert trained(f"--config {file} --env gym:some.module:X-v0").env == "gym:some.module:X-v0"


# ---- help


def test_overview_without_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in ([], ["--help"], ["-h"]):
        assert main(argv) == 0
        out, err = capsys.readouterr()
        assert err == "" and "\n  train " in out and "\n  evaluate " in out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"recsys-rl {__version__}\n"


@pytest.mark.parametrize("algo", AGENTS)
def test_help_of_train_lists_each_field_with_its_default(
    algo: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["train", "--algo", algo, "--help-all"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    words = set(out.replace(",", " ").split())
    for section, fields in to_dict(Config(algo=algo, env="drift")).items():
        names = fields if isinstance(fields, dict) else {section: fields}
        missing = {option(name) for name in names} - words
        assert missing == ({"--num-processes"} if section == "train_config" else set())  # torchrun gives it
    assert {"--config", "--resume", "--no-anneal-lr"} <= words
    text = " ".join(out.replace("│", " ").split())
    assert "--lr FLOAT Learning rate of Adam. (default: " in text
    assert "--hidden-dims [INT [INT ...]] Hidden layers of actor and critic. (default: 128 64)" in text
    assert "recsys-rl train --env satiation" in text
    assert "--agent-config" not in text


@pytest.mark.parametrize("algo", ["ppo", "bc"])
def test_help_of_train_lists_the_main_options_alone(
    algo: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["train", "--algo", algo, "--help"]) == 0
    out, err = capsys.readouterr()
    assert err == "" and "--help-all" in out
    names = {"algo", "env", "config", "run", "seeds", "resume", "jobs"}
    for fields in to_dict(Config(algo=algo)).values():
        names |= fields.keys() if isinstance(fields, dict) else set()
    listed = {word for word in out.replace("│", " ").replace(",", " ").split() if word.startswith("--")}
    missing = {option(name) for name in names & {*MAIN}} - listed
    assert not missing and len(names & {*MAIN}) <= 33
    assert not listed & {option(name) for name in names - {*MAIN}}


def test_main_options_are_options_of_some_run() -> None:
    runs = [
        Config(),
        Config(algo="bc"),
        Config(env="shop"),
        Config(env="social-feed"),
        Config(data="synthetic"),
    ]
    names = {"config", "run", "seeds", "resume", "jobs", "user_model", "algo", "env"}
    for config in [*runs, Config(data="log.csv")]:
        for fields in to_dict(config).values():
            names |= fields.keys() if isinstance(fields, dict) else set()
    assert names >= {*MAIN}


def test_help_changes_no_class_of_options(capsys: pytest.CaptureFixture[str]) -> None:
    """Inherited options of files come last in the text, and keep their places in the class."""
    before = [field.name for field in dataclasses.fields(RankingOptions)]
    assert main(["ranking", "--help"]) == 0
    out = capsys.readouterr().out
    assert out.index("--user-column") > out.index("--seen")
    assert main(["ranking", "absent.csv"]) == 2
    assert [field.name for field in dataclasses.fields(RankingOptions)] == before


@pytest.mark.proof
def test_help_of_evaluate_lists_each_field() -> None:
    """From a checkout, by the file beside train.py."""
    found = run("-m", "evaluate", "--help")
    assert (found.returncode, found.stderr) == (0, "")
    words = set(found.stdout.replace(",", " ").split())
    options = {option(field.name) for field in dataclasses.fields(EvaluateConfig)}
    assert options - words == {"--files"}  # which are named without an option
    assert "recsys-rl evaluate --algo a2c" in found.stdout


def test_overview_loads_no_tensors() -> None:
    program = "import sys; from recsys_rl.cli import main; main(['--help']); main(['trian']); "
    program += "sys.exit('torch' in sys.modules)"
    assert run("-c", program).returncode == 0


def test_mistake_ends_the_process_with_code_2() -> None:
    found = run("-m", "train", "--num-items", "many", encoding="ascii")
    assert (found.returncode, found.stdout) == (2, "")
    assert "--num-items" in found.stderr and "Traceback" not in found.stderr

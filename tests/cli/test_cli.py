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
from recsys_rl.cli.train import Job, train_options
from recsys_rl.config import Config, defaults, from_dict, overlay, to_dict, to_toml
from recsys_rl.dials import ModelConfig
from recsys_rl.types import UserError
from recsys_rl.workflows.evaluate import EvaluateConfig
from tests.doors import WITH_CATALOGUE

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
    assert train_options([]) == Job(defaults("ppo", "drift"))


@pytest.mark.parametrize("algo", ["ppo", "a2c"])
@pytest.mark.parametrize("env", ["drift", "satiation", "gym:CartPole-v1", "gym:some.module:Id-v0"])
def test_algo_and_env_choose_the_preset(algo: str, env: str) -> None:
    assert (
        trained(f"--algo {algo} --env {env}") == trained(f"--env={env} --algo={algo}") == defaults(algo, env)
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
    """Each option sets the field of the config with its name."""
    chosen = {"data_config": {"data": data}} if data else {}
    base, begin = (
        expected(algo, env, **chosen),
        ["--algo", algo, "--env", env, *(["--data", data] if data else [])],
    )
    for section, fields in to_dict(base).items():
        for name, value in fields.items() if isinstance(fields, dict) else ():
            if name == "data" or (name in ("encoder", "signal_coef") and env != "satiation"):
                continue
            if base.model_config.head == "dense" and name in ("candidates", "explore_rate", "index"):
                continue  # of the two-tower head alone
            new, words = other_value(name, value)
            needed = {
                "explore_rate": ("model_config", "candidates", 200),
                "index": ("model_config", "candidates", 200),
                "signal_coef": ("model_config", "encoder", "transformer"),
            } | dict.fromkeys(
                ("limit_kp", "limit_ki", "limit_most"), ("train_config", "limit", "early_end<=1")
            )
            beside: dict[str, Any] = {}
            if name in needed:
                place, other, needs = needed[name]
                beside = {place: {other: [needs] if other == "limit" else needs}}
                words += [f"--{other}", str(needs)]
            found = train_options([*begin, *words]).config
            assert new != value
            assert to_dict(found) == to_dict(
                expected(algo, env, **overlay(overlay(chosen, beside), {section: {name: new}}))
            ), name


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
        "batch_size": 64,
        "n_steps": 128,
        "num_envs": 128,
    }
    if isinstance(value, bool):
        return not value, [option(f"no_{name}" if value else name)]
    if name == "limit":
        return ["early_end<=1", "watch>=2"], ["--limit", "early_end<=1", "--limit", "watch>=2"]
    if name == "world_set":
        return ["a=1", "b=2"], ["--world-set", "a=1", "--world-set", "b=2"]
    if name == "weights":
        return ["watch=2", "revenue=-1"], [option(name), "watch=2", "revenue=-1"]
    if isinstance(value, list):
        return [5, 6], [option(name), "5", "6"]
    if name in fixed:
        new: Any = fixed[name]
    elif value is None or isinstance(value, str):
        new = "other"
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
    with pytest.raises(UserError, match=r"batch_size is \d+: it must be at most the rollout, .* = 16\.$"):
        trained(f"--config {file}")


def test_evaluate_takes_the_checkpoint_of_the_algorithm() -> None:
    assert evaluate_options([]) == EvaluateConfig(checkpoint="checkpoints/ppo.pt", algo=None)
    assert evaluate_options(["--algo", "a2c"]) == EvaluateConfig(checkpoint="checkpoints/a2c.pt", algo="a2c")
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

    fake: Any = types.ModuleType("recsys_rl.workflows.train")
    fake.train, fake.Interrupted = train, Interrupted
    monkeypatch.setitem(sys.modules, "recsys_rl.workflows.train", fake)
    monkeypatch.setattr("recsys_rl.cli.evaluate.evaluate", calls.append)
    return calls


def test_commands_call_their_workflows(doors: list[Any]) -> None:
    assert main(["train", "--algo", "a2c"]) == 0
    assert main(["evaluate", "--checkpoint", "x.pt"]) == 0
    more = {"folder": None, "latest": True}
    assert doors == [(defaults("a2c", "drift"), False, more), EvaluateConfig("x.pt")]


@pytest.mark.parametrize(
    ("seed", "code", "message"),
    [(1, 130, "Stopped at step 8; saved.\n"), (2, 2, "error: The loss became nan.\n"), (3, 130, "")],
)
def test_ends_of_a_run(
    seed: int, code: int, message: str, doors: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--seed", str(seed)]) == code
    assert capsys.readouterr() == ("", message)


# ---- mistakes


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "trian",
            "There is no command 'trian' (did you mean train?): choose from train, ",
        ),
        ("train --algo sac", "--algo is 'sac': it must be one of ppo, a2c"),
        (
            "train --env satiatoin",
            "--env is 'satiatoin' (did you mean satiation?): it must be one of "
            f"{WITH_CATALOGUE}, gym (gym:Id",
        ),
        (
            "train --lrr 3",
            "There is no option --lrr (did you mean --lr?): see recsys-rl train --algo ppo --env drift --",
        ),
        ("train --lrr=3", "There is no option --lrr (did you mean --lr?)"),
        (
            "train --algo a2c --clip-eps 0.1",
            "--clip-eps is not a setting of a2c: ppo has it.",
        ),
        ("train fast", "There is no option fast: see"),
        ("train --lr", "--lr has no value: give one; see recsys-rl train "),
        ("train --algo", "--algo has no value: give one; see recsys-rl train "),
        (
            "train --lr fast",
            "Error parsing --lr: could not convert string to float: 'fast'. See recsys-rl train",
        ),
        ("train --n-steps 1.5", "Error parsing --n-steps: invalid literal for int() with base 10: '1.5'."),
        (
            "train --device tpu",
            "invalid choice 'tpu' for argument '--device'. Expected one of ('auto', 'cpu', 'cuda').",
        ),
        ("train --tensorboard yes", "There is no option yes: see"),
        ("train --lr nan", "--lr is nan: it must be a number, above 0."),
        ("train --lr -1", "--lr is -1.0: it must be a number, above 0."),
        (
            "train --seed -1",
            "--seed is -1: it must be a whole number, at least 0 and at most 4294967295.",
        ),
        ("train --hidden-dims", "--hidden-dims is (): it must be a list of one or more values"),
        ("train --num-envs 4", "--batch-size is 256: it must be at most the rollout"),
        ("train --config no/such.toml", "--config no/such.toml can't be read (No such file or directory): "),
        ("train --config .", "--config . can't be read"),
        ("train --config", "--config has no value: give one; see recsys-rl train "),
        ("train --noise 0.1", "--noise is not a setting of drift: satiation has it."),
        ("train --noise=0.2", "--noise is not a setting of drift: satiation has it."),
        ("train --env satiation --user_drift 1", "--user_drift is not a setting of satiation: drift has it."),
        ("train --no-normalize-obs", "--no-normalize-obs is not a setting of drift: gym has it."),
        (
            "train --num-users 9",
            "--num-users is not a setting of movielens: synthetic, clustered, .npy have it.",
        ),
        (
            "train --data synthetic --like-threshold 4",
            "--like-threshold is not a setting of synthetic",
        ),
        (
            "train --env gym:CartPole-v1 --num-items 9",
            f"--num-items is not a setting of gym:CartPole-v1: {WITH_CATALOGUE} have it.",
        ),
        (
            "train --env gym:CartPole-v1 --data synthetic",
            "--data is not a setting of gym:CartPole-v1, which has its own world: leave it out.",
        ),
        ("evaluate --algo sac", "--algo is 'sac': it must be one of ppo, a2c"),
        ("evaluate a.pt --seed 3 b.pt", "The position of 'b.pt' is not allowed: name all files together;"),
        ("evaluate --env doom", "--env is 'doom': it must be one of drift"),
        ("evaluate --lr 3", "There is no option --lr: see recsys-rl evaluate --help."),
    ],
)
def test_mistakes_give_one_sentence_and_exit_code_2(
    line: str, message: str, doors: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line.split()) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: " + message) and err.count("\n") == 1
    assert doors == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"lr = \n", "run.toml is not TOML (Invalid value (at line 1, column 6)): mend that place, or give"),
        (b"\xff\xfe", "run.toml can't be read"),
        (b'algo = ""', "algo is '': it must be one of ppo, a2c"),
        (b"algo = ['ppo']", "algo is ['ppo']: it must be a text."),
        (b"env = 3", "env is 3: it must be a text."),
        (b"[env_config]\nnoise = 0.1", "env_config.noise is not a setting of drift: satiation has it."),
        (
            b"algo = 'a2c'\n[agent_config]\nclip_eps = 0.2",
            "agent_config.clip_eps is not a setting of a2c: ppo",
        ),
        (
            b"[data_config]\ndata = 'synthetic'\nrating_column = 'stars'",
            "data_config.rating_column is not a setting of synthetic: .csv has it.",
        ),
        (
            b"env = 'mine:PLATFORM'",
            "run.toml names a module, but a file may not import one: type --env mine:PLATFORM.",
        ),
        (b"lr = 0.1", "There is no field lr (did you mean agent_config.lr?)"),
        (b"resume = true", "There is no field resume: choose from algo, env,"),
        (b"[agent_config]\nclip = 1", "There is no field agent_config.clip"),
        (b"[env_config]\nnum_items = '50'", "env_config.num_items is '50': it must be a whole number"),
        (b"[agent_config]\nlr = -1", "agent_config.lr is -1.0: it must be a number, above 0."),
        (b"env = 'gym:os:X'", "run.toml names a module, but a file may not import one: type --env gym:os:X."),
    ],
)
def test_mistakes_in_a_file(
    content: bytes,
    message: str,
    tmp_path: Path,
    doors: list[Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run.toml").write_bytes(content)
    assert main(["train", "--config", "run.toml"]) == 2
    assert capsys.readouterr().err.removeprefix("error: ").removeprefix("--config ").startswith(message)
    assert doors == []


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("[agent_config]\nlr = -1", ["--lr", "0.5"], "agent_config.lr is -1.0: it must be"),
        ("[agent_config]\nlr = 1", ["--lr", "-2"], "--lr is -2.0: it must be"),
        ("[agent_config]\nlr = 1", ["--max_grad_norm=0"], "--max-grad-norm is 0.0: it must be"),
        ("[agent_config]\nnum_envs = 4", [], "agent_config.batch_size is 256: it must be at most"),
        ("env = 'drift'", ["--env", "doom"], "--env is 'doom': it must be one of drift"),
        ("env = 'doom'", ["--lr", "1"], "env is 'doom': it must be one of drift"),
    ],
)
def test_error_names_the_option_or_the_field(
    content: str,
    options: list[str],
    message: str,
    tmp_path: Path,
    doors: list[Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An error names the option of a typed value. Otherwise it names the field, which may be the file's."""
    file = tmp_path / "run.toml"
    file.write_text(content)
    assert main(["train", "--config", str(file), *options]) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")
    assert doors == []


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
def test_help_of_train_lists_each_field_with_its_default(algo: str) -> None:
    found = run("-m", "train", "--algo", algo, "--help")
    assert (found.returncode, found.stderr) == (0, "")
    words = set(found.stdout.replace(",", " ").split())
    for section, fields in to_dict(defaults(algo, "drift")).items():
        names = fields if isinstance(fields, dict) else {section: fields}
        assert {option(name) for name in names} <= words
    assert {"--config", "--resume", "--no-anneal-lr"} <= words
    text = " ".join(found.stdout.replace("│", " ").split())
    assert "--lr FLOAT Learning rate of Adam. (default: " in text
    assert "--hidden-dims [INT [INT ...]] Hidden layers of actor and critic. (default: 128 64)" in text
    assert "recsys-rl train --env satiation" in text
    assert "--agent-config" not in text


def test_help_of_evaluate_lists_each_field() -> None:
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


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_mistake_ends_the_process_with_code_2(encoding: str) -> None:
    found = run("-m", "train", "--num-items", "many", encoding=encoding)
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.startswith("error: Error parsing --num-items: ") and found.stderr.count("\n") == 1

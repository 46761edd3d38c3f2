"""Wrong options are refused before torch is imported, and names of other libraries get a did-you-mean."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from recsys_rl.agents import AGENTS
from recsys_rl.agents.ppo import PPOConfig
from recsys_rl.cli import COMMANDS, data, evaluate, log, main, names, ope, ranking, recommend, record
from recsys_rl.cli.parse import option_names
from recsys_rl.config import Config, from_dict, section_classes
from recsys_rl.data import SOURCES
from recsys_rl.env import PLATFORMS, WITHOUT_ID
from recsys_rl.lookup import has_own_world, platform_of
from recsys_rl.schema import OTHER_NAMES, hints
from recsys_rl.serve.server import ServeConfig
from recsys_rl.types import UserError
from recsys_rl.utils.fields import Unreadable, fields_of, settings_of
from recsys_rl.workflows.export import ExportConfig
from recsys_rl.workflows.visitors import VisitorsConfig

LINES = {
    "train --lrr 3": "There is no option --lrr (did you mean --lr?): see recsys-rl train --algo ppo --env",
    "train --learning-rate 1": "There is no option --learning-rate (did you mean --lr?)",
    "train --env satiation --learning_rate=1": "There is no option --learning_rate (did you mean --lr?)",
    "train --lr 1 --n-epochs 3": "There is no option --n-epochs (did you mean --update-epochs?)",
    "train --clip-range 0.1": "There is no option --clip-range (did you mean --clip-eps?)",
    "train --clip_coef 0.1": "There is no option --clip_coef (did you mean --clip-eps?)",
    "train --n-envs 8": "There is no option --n-envs (did you mean --num-envs?)",
    "train --num-steps 8": "There is no option --num-steps (did you mean --n-steps?)",
    "train --num-minibatches 4": "There is no option --num-minibatches (did you mean --batch-size?)",
    "train --no-norm-adv": "There is no option --no-norm-adv (did you mean --normalize-advantage?)",
    "train --learning-starts 100": "--learning-starts is not a setting of ppo: dqn has it.",
    "train --noise 1": "--noise is not a setting of drift: satiation has it.",
    "train --env gym:CartPole-v1 --num-items 3": "--num-items is not a setting of gym:CartPole-v1: drift",
    "train --algo sac": "--algo is 'sac': it must be one of",
    "train --env doom": "--env is 'doom': it must be one of",
    "train --data nowhere": "There is no data named 'nowhere'",
    "train --lr": "--lr has no value: give one; see",
    "train --lr --seed 3": "--lr has no value: give one; see",
    "train --config run.toml --lrr 3": "There is no option --lrr (did you mean --lr?): see recsys-rl train -",
    "train --resume --log_dir x": "--log_dir is an option of an earlier version",
    "evaluate x.pt --ful": "There is no option --ful (did you mean --full?): see recsys-rl evaluate --help.",
    "evaluate --json": "--json has no value",
    "recommend --usr 3": "There is no option --usr (did you mean --user?)",
    "recommend --like": "--like has no value",
    "record --ot x.parquet": "There is no option --ot (did you mean --out?)",
    "ope --lg x": "There is no option --lg (did you mean --log?)",
    "ranking test.csv --sen x": "There is no option --sen (did you mean --seen?)",
    "data describe x.csv --jsn x": "There is no option --jsn (did you mean --json?)",
    "data split x.csv --files 3": "There is no option --files",
    "trian": "There is no command 'trian' (did you mean train?)",
}  # fmt: skip


def test_wrong_options_are_refused_without_torch() -> None:
    """One process for all lines. A module that torch needs would be in sys.modules."""
    program = f"""
import contextlib, io, sys
from recsys_rl.cli import main
for line, message in {LINES!r}.items():
    with contextlib.redirect_stderr(io.StringIO()) as err:
        code = main(line.split())
    said = err.getvalue()
    assert code == 2 and said.startswith("error: " + message) and said.count("\\n") == 1, (line, said)
    heavy = {{"torch", "numpy", "polars", "gymnasium", "tyro"}} & set(sys.modules)
    assert not heavy, (line, heavy)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")


# ---- the names that are read from the source are those of the classes


@pytest.mark.parametrize("algo", AGENTS)
@pytest.mark.parametrize("env", PLATFORMS)
@pytest.mark.parametrize(
    "data_name", ["movielens", "kuairec", "kuairand", "coat", "synthetic", "a.csv", "a.npy"]
)
def test_names_of_train(algo: str, env: str, data_name: str) -> None:
    name = f"{env}:X" if env in WITHOUT_ID else env
    for section, cls in section_classes(algo, name, data_name).items():
        spec = {"env_config": PLATFORMS[env], "agent_config": AGENTS[algo]}.get(section)
        if section == "data_config" and not has_own_world(name):
            spec = SOURCES["." + data_name.partition(".")[2] if "." in data_name else data_name]
        if spec is not None:
            assert list(settings_of(spec)) == list(hints(cls))
    for shared in names.SHARED:
        assert fields_of(shared).keys() <= {
            x for cls in section_classes(algo, name, data_name).values() for x in hints(cls)
        }


@pytest.mark.parametrize(
    ("command", "cls"),
    [
        ("evaluate", evaluate.EvaluateOptions),
        ("recommend", recommend.RecommendOptions),
        ("record", record.RecordOptions),
        ("ope", ope.OpeOptions),
        ("ranking", ranking.RankingOptions),
        ("data describe", data.DescribeOptions),
        ("data split", data.SplitOptions),
        ("serve", ServeConfig),
        ("visitors", VisitorsConfig),
        ("export", ExportConfig),
        ("log check", log.CheckOptions),
        ("log export", log.ExportOptions),
        ("log forget", log.ForgetOptions),
    ],
)
def test_names_of_other_commands(command: str, cls: Any) -> None:
    found = fields_of(names.CLASSES[command])
    assert {f"--{name.replace('_', '-')}" for name in found} == {*option_names(cls())}
    positional = {f.name for f in dataclasses.fields(cls) if "Positional" in str(f.type)}
    assert {name for name, kind in found.items() if "Positional[" in kind} == positional


def test_every_command_has_its_classes() -> None:
    assert {command.partition(" ")[0] for command in names.CLASSES} | {"train"} == {*COMMANDS}


def test_platforms_with_their_own_world() -> None:
    for env in PLATFORMS:
        name = f"{env}:CartPole-v1" if env in WITHOUT_ID else env
        assert has_own_world(name) == (platform_of(name).users is None)


@pytest.mark.parametrize("spec", ["no.such.module:X", "recsys_rl.env.drift:Nothing"])
def test_unreadable_sources(spec: str) -> None:
    for read in (fields_of, settings_of):
        with pytest.raises(Unreadable):
            read(spec)


def test_right_options_pass(tmp_path: Path) -> None:
    for line in (
        "--lr -1 --hidden-dims --no-anneal-lr --tensorboard --max_grad_norm=0",
        "--env mine:PLATFORM --some-dial 3",
        "--config x.toml --noise 0.1 --clip-eps 0.1",
        "--foo --help",
    ):
        names.check_names("train", line.split())
    names.check_names(
        "evaluate", ["a.pt", "b.pt", "--report", "--policy", "m:a", "--policy", "m:b", "--report", "out.html"]
    )
    names.check_names("data", ["describe", "-5.csv"])


# ---- other libraries' names


def test_other_names_are_no_settings_here() -> None:
    ours = {
        name
        for algo, env in (("ppo", "drift"), ("dqn", "satiation"))
        for cls in section_classes(algo, env, "a.csv").values()
        for name in hints(cls)
    }
    assert not ours & OTHER_NAMES.keys()
    assert set(OTHER_NAMES.values()) <= ours | {"env"}


@pytest.mark.parametrize(
    ("section", "field", "near"),
    [
        ("agent_config", "learning_rate", "lr"),
        ("agent_config", "clip_range", "clip_eps"),
        ("agent_config", "n_epochs", "update_epochs"),
        ("train_config", "learning_rate", "agent_config.lr"),
        ("agent_config", "net_arch", "model_config.hidden_dims"),
    ],
)
def test_other_names_in_files(
    section: str, field: str, near: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=rf"^There is no field {section}\.{field} \(did you mean {near}\?\)"):
        from_dict(Config, {section: {field: 1}})
    file = tmp_path / "run.toml"
    file.write_text(f"[{section}]\n{field} = 1\n")
    assert main(["train", "--config", str(file)]) == 2
    assert f"did you mean {near}?" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"did you mean lr\?"):
        from_dict(PPOConfig, {"learning_rate": 1})

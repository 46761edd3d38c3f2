"""A mistake ends with code 2 and a text that names the option or the file, and nothing is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from recsys_rl.cli import main

# Each line with a word that the text must hold: the option, the value or the file. Errors of the parser stand
# in its own words; all others are one sentence.
LINES = {
    "trian": "trian",
    # of the parser
    "train --lrr 3": "--lrr",
    "train fast": "fast",
    "train --lr": "--lr",
    "train --lr fast": "--lr",
    "train --n-steps 1.5": "--n-steps",
    "train --device tpu": "tpu",
    "train --tensorboard yes": "yes",
    "train --learning-starts 100": "--learning-starts",  # a setting of another algorithm,
    "train --noise 0.1": "--noise",  # of another platform, with its default there,
    "train --num-users 9": "--num-users",  # and of another source
    "train --env gym:CartPole-v1 --num-items 9": "--num-items",
    "train --env satiation --encoder gru": "gru",
    "evaluate x.pt --ful": "--ful",
    "evaluate --seed x": "--seed",
    "evaluate a.pt --seed 3 b.pt": "b.pt",
    "recommend --usr 3": "--usr",
    "record --ot x.parquet": "--ot",
    "ope --lg x": "--lg",
    "ranking test.csv --sen x": "--sen",
    "data describe x.csv --jsn x": "--jsn",
    "serve --prt 3": "--prt",
    "export": "--onnx",
    "export --onnx policy.bin": "--onnx",
    # names
    "train --algo ppoo": "--algo is 'ppoo'",
    "train --env drfit": "--env is 'drfit'",
    "train --env gym:Nope-v0": "gym:Nope-v0",
    "train --env gym:no_such_module:X-v0": "gym:no_such_module:X-v0",
    "train --env gym:Pendulum-v1": "gym:Pendulum-v1",
    "train --data movielense": "'movielense'",
    "train --data no/such.csv": "no/such.csv",
    "train --data movielens --data-dir no/such": "no/such",
    "train --config no/such.toml": "no/such.toml",
    "train --config .": "--config",
    "evaluate --algo sac": "--algo is 'sac'",
    "evaluate --env doom": "--env is 'doom'",
    # values out of range, and options without an effect in this run
    "train --num-items 1": "--num-items is 1",
    "train --gamma 1.5": "--gamma is 1.5",
    "train --lr inf": "--lr is inf",
    "train --lr nan": "--lr is nan",
    "train --lr -1": "--lr is -1.0",
    "train --seed 4294967296": "--seed is 4294967296",
    "train --seed -1": "--seed is -1",
    "train --heldout-fraction 1": "--heldout-fraction is 1.0",
    "train --data synthetic --num-users 2 --heldout-fraction 0.01": "heldout",
    "train --hidden-dims 0": "--hidden-dims is (0,)",
    "train --hidden-dims": "--hidden-dims is ()",
    "train --num-envs 4": "--batch-size is 256",
    "train --index exact": "--index",
    "train --explore-rate 0": "--explore-rate",
    "train --encoder transformer": "--encoder",
    "train --env gym:CartPole-v1 --head two-tower": "--head",
    "train --name a/b": "--name is 'a/b'",
    "train --seeds 4-0": "--seeds is '4-0'",
    "train --seeds 0-2,1": "--seeds",
    "train --seeds 0-5000": "--seeds is",
    "train --seeds 1-2 --seed 3": "--seed ",
    "train --record new --seeds 0-1": "--seeds",
    "train --record new --env gym:CartPole-v1": "--record",
    "train --env satiation --visits 3": "--visits",
    "train --env short-video --visits 36": "--visits is 36",
    "train --weights likes=1": "--weights",
    "train --weights match": "--weights",
    "train --limit ads<=0.1": "--limit",
    "train --limit match": "--limit",
    "train --limit-ki 0.3": "--limit-ki",
    "train --novelty -1": "--novelty is -1",
    "train --env gym:CartPole-v1 --novelty 0.1": "--novelty",
    "train --candidates -1": "--candidates is -1",
    "train --candidates 1001": "--candidates is 1001",
    "train --candidates 8 --explore-rate 1.5": "--explore-rate is 1.5",
    "train --candidates 8 --head dense": "--candidates",
    "train --index exact --limit-ki 0.3": "--index (only with --candidates), --limit-ki (only with --limit)",
    "train --candidates 8 --index tree": "tree",
    "train --data synthetic --head gated": "kind",
    "train --checkpoint x.pt": "--checkpoint",
    "train --algo bc --log no/such.parquet --checkpoint no/such.pt": "no/such",
    "train --algo dqn --env long-video": "dqn",
    "train --algo dqn --limit match<=0.1": "--limit",
    "train --algo dqn --novelty 0.1": "--novelty",
    "train --algo dqn --buffer-size 100 --learning-starts 999": "--learning-starts is 999",
    "train --encoder transformer --env satiation --signal-coef 1 --algo dqn": "--signal-coef",
    "evaluate --max-users -1": "--max-users is -1",
    "evaluate --item-column x": "--item-column",
    "ope": "--log",
    "ope --log x.csv --compare ppo": "--compare",
    "ope --log x.csv --compare ppo ppo": "--compare",
    "ope --log x.csv --policy ppo --policy ppo": "ppo",
    "ope --log x.csv --discount 1.5": "--discount is 1.5",
    "ope --log x.csv --draws 0": "--draws is 0",
    "ope --log open-bandit --policy random": "--data-dir",
    "ope --log open-bandits --policy random": "open-bandits",
    "ope --log open-bandit --item-column x --policy random": "--item-column",
    "ope --log x.csv --data-dir y --policy random": "--data-dir",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("log.csv").touch()
    return tmp_path


@pytest.mark.parametrize("line", LINES)
def test_mistake_on_the_command_line(line: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 2
    out, err = capsys.readouterr()
    assert LINES[line] in err and "Traceback" not in err and out == ""
    assert [path.name for path in folder.iterdir()] == ["log.csv"]


# Texts of a settings file, each with a field that the error must name.
FILES = {
    b"lr = \n": "run.toml",
    b"\xff\xfe": "run.toml",
    b'algo = ""': "algo is ''",
    b"algo = ['ppo']": "algo is ['ppo']",
    b"env = 3": "env is 3",
    b"[env_config]\nnoise = 0.1": "env_config.noise",
    b"algo = 'a2c'\n[agent_config]\nclip_eps = 0.2": "agent_config.clip_eps",
    b"[data_config]\ndata = 'synthetic'\nrating_column = 'stars'": "data_config.rating_column",
    b"env = 'mine:PLATFORM'": "--env mine:PLATFORM",
    b"lr = 0.1": "field lr",
    b"resume = true": "field resume",
    b"[agent_config]\nclip = 1": "agent_config.clip",
    b"[env_config]\nnum_items = '50'": "env_config.num_items is '50'",
    b"[agent_config]\nlr = -1": "agent_config.lr is -1.0",
    b"[train_config]\nlog_dir = 'x'": "train_config.log_dir",  # of an earlier version
    b"env = 'gym:os:X'": "--env gym:os:X",
}


@pytest.mark.parametrize("content", FILES)
def test_mistake_in_a_file(content: bytes, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("run.toml").write_bytes(content)
    assert main(["train", "--config", "run.toml"]) == 2
    err = capsys.readouterr().err
    assert FILES[content] in err and err.startswith("error: ") and err.count("\n") == 1
    assert {path.name for path in folder.iterdir()} == {"log.csv", "run.toml"}


@pytest.mark.parametrize(
    ("content", "options", "place"),
    [
        ("[agent_config]\nlr = -1", ["--lr", "0.5"], "agent_config.lr is -1.0"),
        ("[agent_config]\nlr = 1", ["--lr", "-2"], "--lr is -2.0"),
        ("[agent_config]\nlr = 1", ["--max_grad_norm=0"], "--max-grad-norm is 0.0"),
        ("[agent_config]\nnum_envs = 4", [], "agent_config.batch_size is 256"),
        ("env = 'drift'", ["--env", "doom"], "--env is 'doom'"),
        ("env = 'doom'", ["--lr", "1"], "env is 'doom'"),
    ],
)
def test_error_names_the_option_or_the_field(
    content: str, options: list[str], place: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An error names the option of a typed value. Otherwise it names the field, which may be the file's."""
    Path("run.toml").write_text(content)
    assert main(["train", "--config", "run.toml", *options]) == 2
    assert capsys.readouterr().err.startswith(f"error: {place}")

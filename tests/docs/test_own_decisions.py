"""README's way from a team's log to a served policy: its commands, run in order on the made-up log."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys_rl.cli import main
from recsys_rl.logs.ope import check_judge
from recsys_rl.logs.users import fit as user_fit
from recsys_rl.recommender import load
from tests.docs.test_docs import ROOT, blocks, commands
from tests.docs.test_examples import load as load_example
from tests.own_tables import SHORT
from tests.serving.servers import recommend, serving

FEWER = {"train": [*SHORT, "--total-timesteps", "9600"], "ope": ["--no-world"]}
"""Options that make a command short: a few seconds of learning are enough here."""


def readme_commands() -> list[list[str]]:
    """The commands of README's block about clicks.csv, without `recsys-rl`."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = next(block for _, block in blocks(text, "bash") if "--log clicks.csv" in block)
    return [words[1:] for words in commands(block)]


def option(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]


def test_the_example_writes_what_its_propensities_say(tmp_path: Path) -> None:
    path = tmp_path / "clicks.csv"
    load_example("own_decisions").write(str(path), 4_000, np.random.default_rng(0))
    frame = pl.read_csv(path)
    inverse = 1 / (6 * frame["propensity"].to_numpy())
    error = inverse.std() / len(frame) ** 0.5
    assert abs(inverse.mean() - 1) < 4 * error  # each of six sections has its chance
    assert frame["context.age"].is_between(16, 80).all() and set(frame["clicked"]) == {0, 1}


def test_six_commands_from_a_log_to_a_served_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(user_fit, "LEAST_STEPS", 5)
    monkeypatch.setattr(check_judge, "SPLITS", 8)
    draw, example = np.random.default_rng(0), load_example("own_decisions")
    example.write("clicks.csv", 6_000, draw)
    example.write("newer.csv", 5_000, draw)
    told = readme_commands()
    assert [words[0] for words in told] == ["data", "train", "ope", "ope", "recommend", "serve"]
    said = {}
    for words in told[:-1]:
        assert main([*words, *([] if "--check" in words else FEWER.get(words[0], []))]) == 0
        said["check" if "--check" in words else words[0]] = capsys.readouterr().out
    assert "can learn: bc, cql, bcq, iql, reinforce" in said["data"]
    table = {line.split("  ")[0]: line for line in said["train"].splitlines()}
    assert {"logged", "best item", "clone", "reinforce", "reinforce-greedy"} <= {*table}
    assert any(answer in table["reinforce"] for answer in ("better by", "can't tell"))
    assert "reinforce  dr " in said["ope"] and "trials, error" in said["check"]
    ranked = [line.split()[2] for line in said["recommend"].splitlines()]
    assert sorted(ranked) == sorted(example.SECTIONS)

    shown, serve = told[-2:]
    values = [word.split("=") for word in shown if "=" in word]
    context = {name: value if name == "device" else float(value) for name, value in values}
    checkpoint = Path(option(serve, "--checkpoint"))
    with serving(checkpoint, Path(option(serve, "--db"))) as client:
        answers = [recommend(client, f"u{number}", n=1, context=context)["items"][0] for number in range(30)]
    chances = {item["item_id"]: item["propensity"] for item in answers}
    first = load(checkpoint).recommend(context=context, k=1)[0]
    assert chances[first.title] == pytest.approx(first.probability, abs=1e-6) == max(chances.values())


def test_a_second_log_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    load_example("own_decisions").write("clicks.csv", 60, np.random.default_rng(0))
    for first, second in (("clicks.csv", "missing.csv"), ("missing.csv", "clicks.csv")):
        assert main(["train", "--algo", "reinforce", "--log", first, "--log", second]) == 2
        assert "missing.csv is not a file" in capsys.readouterr().err
    assert not Path("runs").exists()

"""Regret by step: numbers by hand, the mean over seeds, the chart, and the command."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from recsys_rl.cli import main
from recsys_rl.evaluation.report.lines import lines_svg
from recsys_rl.evaluation.report.regret import mean_regret_by_step, regret_by_step, regret_html
from recsys_rl.evaluation.table import Played
from recsys_rl.experience.rollout import Sessions
from tests.doors import CARTPOLE, DRIFT, steps, train_in
from tests.evaluation.report.test_report import page_of


def played(rewards: list[list[float]], places: list[int]) -> Played:
    earned = torch.tensor(rewards)  # (T, N)
    sessions = Sessions(torch.zeros(*earned.shape, 1, dtype=torch.int64), earned, earned[0] > 9)
    return Played(sessions, torch.tensor(places))


def test_by_hand() -> None:
    """The ceiling played users 0 and 2; their sessions with the other policy end after two steps."""
    table = {
        "ppo": played([[1.0, 9.0, 0.0], [0.5, 9.0, 1.0]], [0, 1, 2]),
        "informed": played([[1.0, 1.0], [1.0, 1.0], [0.0, 2.0]], [0, 2]),
        "oracle": played([[5.0, 5.0, 5.0]], [0, 1, 2]),
    }
    found = regret_by_step(table)
    assert found["versus"] == "informed" and found["users"] == 2
    # Rewards so far, means of users 0 and 2: informed 1, 2, 3; ppo 0.5, 1.25, 1.25.
    assert found["steps"]["ppo"] == pytest.approx([0.5, 0.75, 1.75])
    assert "informed" not in found["steps"]
    assert regret_by_step({"ppo": table["ppo"]}) == {"versus": "", "users": 0, "steps": {}}
    other = {"versus": "informed", "users": 3, "steps": {"ppo": [1.5, 2.75], "mf": [1.0, 1.0]}}
    mean = mean_regret_by_step([found, other])
    assert mean["users"] == 5 and mean["steps"] == {"ppo": pytest.approx([1.0, 1.75, 2.25])}


def test_chart_has_a_line_for_each_policy() -> None:
    lines = {"ppo": [0.0, 1.0, 2.0], "linucb": [0.0, 2.0, 4.0], "mf": [0.0, 3.0]}
    root = ElementTree.fromstring(lines_svg(lines, "regret against informed", "Regret against informed"))
    drawn = {
        (line[0].text or "").partition(":")[0]: [
            tuple(map(float, point.split(","))) for point in line.attrib["points"].split()
        ]
        for line in root.iter("{http://www.w3.org/2000/svg}polyline")
    }
    assert drawn.keys() == lines.keys()
    xs, ys = zip(*drawn["linucb"], strict=True)
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.2)
    assert ys[0] - ys[1] == pytest.approx(ys[1] - ys[2], abs=0.2) and ys[0] > ys[2]
    assert drawn["ppo"][2][1] == pytest.approx(ys[1], abs=0.2)  # the same regret at the same height
    assert len(drawn["mf"]) == 2
    regret = {"versus": "informed", "users": 4, "steps": {**lines, "rule": [1.0, 2.0], "planner": [0.0, 0.0]}}
    page = regret_html(regret, page_of(yardstick="rule"))
    assert "rule 2.00" in page and "planner" not in page
    assert "rule" not in regret_html(regret, page_of(yardstick="mf"))
    assert regret_html(None, page_of()) == ""
    only = {"versus": "oracle", "users": 1, "steps": {"ppo": [1.0]}}
    assert regret_html(only, page_of()) == ""


def test_command_with_strangers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Drift with a history: the regret by step in the table, in its JSON and on the page."""
    path = str(train_in(tmp_path / "run", *DRIFT, *steps(1), "--history-length", "5"))
    out, page = tmp_path / "table.json", tmp_path / "page.html"
    command = ["evaluate", path, "--strangers", "--policy", "linucb"]
    assert main([*command, "--json", str(out), "--report", str(page)]) == 0
    table = json.loads(out.read_text())
    regret = table["regret_by_step"]
    assert regret["versus"] == "oracle" and all(len(x) == 5 for x in regret["steps"].values())
    last = {row["policy"]: row["mean"] for row in table["regret"]}
    assert regret["steps"]["linucb"][-1] == pytest.approx(last["linucb"], rel=1e-5)
    assert "Regret by step" in page.read_text()
    capsys.readouterr()


def test_strangers_need_profiles_and_bandits_need_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drift = str(train_in(tmp_path / "drift", *DRIFT, *steps(1)))
    cartpole = str(train_in(tmp_path / "cartpole", *CARTPOLE, *steps(1)))
    for path, word in ((drift, "lints"), (cartpole, "--strangers")):
        capsys.readouterr()
        assert main(["evaluate", path, "--strangers", "--policy", "lints"]) == 2
        said = capsys.readouterr().err
        assert word in said and "Traceback" not in said and "playing" not in said

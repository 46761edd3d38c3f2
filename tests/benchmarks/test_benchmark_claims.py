"""The claims of README and goals.md: their numbers, and what is measured again."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import claims
from benchmarks.claims import CLAIMS, Measured, ranges, read_served
from benchmarks.harness.tables import RESULTS, ROOT

README = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())


def test_seeds_are_written_as_ranges() -> None:
    assert ranges([]) == "" and ranges([3]) == "3"
    assert ranges({100, 101, 102, 0, 1, 7}) == "0 to 1, 7, 100 to 102"


def test_a_number_moved_if_it_lies_outside() -> None:
    assert not Measured("x", 0.2, 0.2, 0.4).moved and not Measured("x", 0.4, 0.2, 0.4).moved
    assert Measured("x", 0.19, 0.2, 0.4).moved and Measured("x", float("nan"), 0.2, 0.4).moved


def test_each_claim_has_a_number_rows_and_a_command() -> None:
    for claim in CLAIMS:
        assert re.search(r"\d", claim.number(RESULTS)), claim.says
        assert claim.rows(RESULTS) or claim.again is not None
        for module in re.findall(r"python -m ([\w.]+)", claim.command):
            assert importlib.util.find_spec(module) is not None
        for file in re.findall(r"examples/\S+?(?=[;,]|$)", claim.command):
            assert (ROOT / file).is_file()


def test_numbers_of_readme_are_those_of_the_table() -> None:
    """README's marked figures come from the same functions; the two gains of its first table do, too."""
    gains = [claim.number(RESULTS).partition(" (")[0] for claim in CLAIMS[:2]]
    words = [f"{gain.strip('+-')} {'less' if gain.startswith('-') else 'more'}" for gain in gains]
    assert f"PPO earns {words[0]} than the linear score and {words[1]} than the formula." in README


def test_the_text_of_the_served_loop_is_read() -> None:
    said = """2,000 sessions of 500 users: return 2.591 (2.565 to 2.617), length 3.9
policy  estimator        value  95 % interval             ess  weight      k
ppo     wdr              2.950  [2.920, 2.980]          1,100   1.000   0.10  <- recommended
the truth: the second policy, served to the same people
2,000 sessions of 500 users: return 2.960 (2.930 to 2.980), length 3.9
"""
    estimate, earned = read_served(said)
    assert (estimate.value, earned.value) == (2.95, 2.96)
    assert not estimate.moved and not earned.moved
    assert read_served(said.replace("2.960 (", "2.860 ("))[1].moved


def test_the_check_names_what_moved(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def again(folder: Path) -> list[Measured]:
        assert list(folder.iterdir()) == []
        return [Measured("one", 1.0, 0.5, 1.5), Measured("two", 2.0, 0.5, 1.5)]

    monkeypatch.setattr(claims, "CLAIMS", (replace(CLAIMS[0], again=again), replace(CLAIMS[1], again=None)))
    assert claims.check() == 1
    assert capsys.readouterr().out.splitlines() == [
        "holds  one: 1 (published 0.5 to 1.5)",
        "MOVED  two: 2 (published 0.5 to 1.5)",
    ]

"""A log in parts: the same answers as in one, and samples and evidence that do not depend on the parts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from recsys_rl.cli import main
from recsys_rl.data.synthetic import synthetic_world
from recsys_rl.errors import UserError
from recsys_rl.evaluation.mixture import Fixed
from recsys_rl.evaluation.rivals.baselines import FixedList
from recsys_rl.logs.decision_log import DecisionLog
from recsys_rl.logs.ope import read_log as ope_log
from recsys_rl.logs.ope.estimators import Evidence, Slates
from recsys_rl.logs.ope.judge import Judged, Settings, judge
from recsys_rl.logs.ope.parts import join, survey
from recsys_rl.logs.ope.playable import playable
from recsys_rl.logs.ope.policies import Loggers
from recsys_rl.logs.ope.replay import replay
from recsys_rl.logs.ope.reward_model import ridge
from recsys_rl.logs.target import Target
from recsys_rl.logs.users import fit as user_fit
from recsys_rl.logs.writer import write_decisions
from recsys_rl.types import Catalogue, Feedback
from tests.log_in_parts import ITEMS, cut, log_of

CATALOGUE: Catalogue = synthetic_world(ITEMS, 50, 4, 0.2, 0)[0]
POLICY = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)


def rewards(feedback: Feedback) -> Tensor:
    return feedback.signals.sum((1, 2))


def judged(log: DecisionLog, parts: list[DecisionLog]) -> Judged:
    """A target with the probability of each item, on the log; models are fitted on the whole."""
    rng = torch.Generator().manual_seed(0)
    whole = survey([(part, rewards(part.feedback)) for part in parts], rng)
    sample, *replayed = (
        replay(x, CATALOGUE, rewards(x.feedback), 0.9, whole)
        for x in ([log] if len(parts) == 1 else [log, *parts])
    )
    every = POLICY.expand(log.num_rows, -1)

    def target(part: object) -> Target:
        of = part.log  # type: ignore[attr-defined]
        return Target(POLICY[of.items[:, 0]].log(), every[: of.num_rows])

    nobody = Loggers(lambda log, place: None, lambda log: None)
    streams = {name: torch.Generator().manual_seed(1) for name in ("ope", "world", "clusters", "policy")}
    return judge(
        sample, replayed or [sample], [], {"mine": target}, ridge(), rewards, nobody, Settings(), streams
    )


@pytest.mark.parametrize("steps", [1, 4])
def test_answers_in_parts_are_those_of_the_whole_log_to_the_last_digits(steps: int) -> None:
    """The last part has sessions of one step alone."""
    log = log_of(300, steps)
    log = log.rows((log.sessions < 260) | (log.steps == 0))
    alone, apart = judged(log, [log]), judged(log, cut(log, 90, 200, 260))
    assert [row.estimator for row in alone.rows] == [row.estimator for row in apart.rows]
    assert {"wdr", "sdr", "fqe"} & set(alone.terms["mine"]) or steps == 1
    for name, terms in alone.terms["mine"].items():
        assert torch.allclose(apart.terms["mine"][name], terms, rtol=1e-9, atol=1e-12), name
    for one, other in zip(alone.rows, apart.rows, strict=True):
        assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high), rel=1e-9)
        assert one.warnings == other.warnings and one.clip == other.clip
    assert torch.equal(alone.earned, apart.earned) and torch.equal(alone.users, apart.users)
    assert alone.not_computed == apart.not_computed


def test_each_part_has_noise_of_its_own_in_world_and_all_policies_have_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same sessions as two parts, of two policies that show the same item."""
    monkeypatch.setattr(user_fit, "LEAST_STEPS", 20)
    log = log_of(60, 4)
    whole = survey([(log, rewards(log.feedback))] * 2, torch.Generator().manual_seed(0))
    sample, *twice = (replay(log, CATALOGUE, rewards(log.feedback), 1.0, whole) for _ in range(3))
    policies = [playable(name, Fixed(FixedList(torch.tensor([2])))) for name in ("one", "other")]
    nobody = Loggers(lambda log, place: None, lambda log: None)
    streams = {name: torch.Generator().manual_seed(1) for name in ("ope", "world", "clusters", "policy")}
    found = judge(sample, twice, policies, {}, ridge(), rewards, nobody, Settings(), streams)
    first, second = found.terms["one"]["world"].split(60)
    assert not torch.allclose(first, second)
    assert torch.allclose(found.terms["other"]["world"], found.terms["one"]["world"])
    # Only the noise differs: means given the drawn signals are close.
    assert float(first.mean()) == pytest.approx(float(second.mean()), rel=0.1)


def test_evidence_of_a_part_without_an_estimator_takes_it_from_the_whole() -> None:
    short = Evidence(torch.full((2, 1), 3.0), torch.ones(2, 1), torch.ones(2, 1).bool(), world=torch.ones(2))
    long = Evidence(torch.full((1, 3), 2.0), torch.ones(1, 3), torch.ones(1, 3).bool())
    found = join([replace(short, slates=Slates(alone=torch.ones(2, 1, 2))), replace(long, slates=Slates())])
    assert found.weights.tolist() == [[3, 3, 3], [3, 3, 3], [2, 2, 2]]  # the last weight stays
    assert found.rewards.tolist() == [[1, 0, 0], [1, 0, 0], [1, 1, 1]]
    assert found.alive.sum(1).tolist() == [1, 1, 3]
    assert found.world is None and found.slates is not None and found.slates.alone is None


def test_mistake_in_a_later_part_has_its_row_of_the_whole_log() -> None:
    log = log_of(60, 1)
    bad = rewards(log.feedback)
    bad[50] = torch.nan
    parts = cut(log, 40)
    with pytest.raises(UserError):
        survey(zip(parts, bad.split([40, 20]), strict=True), torch.Generator())


def values_of(log: Path, *words: str) -> dict[str, float]:
    """The estimates of ``ope``, of ``log_of(400, 3)``."""
    out = log.parent / "out.json"
    assert main(["ope", "--log", str(log), "--json", str(out), "--policy", "random", *words]) == 0
    found = json.loads(out.read_text())
    assert found["about"]["decisions"] == log_of(400, 3).num_rows and found["about"]["sessions"] == 400
    fitted = min(found["about"]["decisions"], ope_log.FITTED)
    assert fitted - 3 < found["about"]["fitted"] <= fitted
    return {row["estimator"]: row["value"] for row in found["rows"]}


def in_parts(folder: Path) -> Path:
    for number, part in enumerate(cut(log_of(400, 3), 150, 300)):
        write_decisions(folder / f"{number}.parquet", part)
    return folder


@pytest.mark.proof
def test_command_judges_a_folder_of_parts_as_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parts, whole = in_parts(tmp_path / "parts"), tmp_path / "one.parquet"
    write_decisions(whole, log_of(400, 3))
    one = values_of(whole, "--no-world")
    assert values_of(parts, "--no-world") == pytest.approx(one, rel=1e-9)
    # Read in parts of 100 rows, the models fitted on 300 rows: what needs no model is the same.
    monkeypatch.setattr(ope_log, "FITTED", 300)
    monkeypatch.setattr(ope_log, "PART", 100)
    log = log_of(400, 3)
    for path in (whole, parts):
        capsys.readouterr()
        apart = values_of(path, "--no-world")
        out, err = capsys.readouterr()
        assert "models are fitted on a sample of" in out and f"of {log.num_rows:,}\n" in err
        assert {x: apart[x] for x in ("pdis", "wpdis", "mean")} == pytest.approx(
            {x: one[x] for x in ("pdis", "wpdis", "mean")}, rel=1e-9
        )
        for name_of in ("sdr", "wdr", "fqe"):
            assert apart[name_of] == pytest.approx(one["wdr"], rel=0.15)
    unknown = replace(log, logprobs=torch.full_like(log.logprobs, torch.nan), logger_logprobs=None)
    write_decisions(tmp_path / "unknown.parquet", unknown)
    assert main(["ope", "--log", str(tmp_path / "unknown.parquet"), "--policy", "random"]) == 2
    assert "they are estimated for at most" in capsys.readouterr().err


@pytest.mark.proof
def test_world_of_a_sample_of_the_parts_is_near_the_estimate_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = in_parts(tmp_path / "parts")
    wdr = values_of(parts, "--no-world")["wdr"]
    monkeypatch.setattr(ope_log, "FITTED", 300)
    monkeypatch.setattr(ope_log, "PART", 100)
    assert values_of(parts)["world"] == pytest.approx(wdr, rel=0.15)

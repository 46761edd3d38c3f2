"""The command `ope` on recorded logs: whole runs, refusals, and other people's probabilities."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from recsys_rl.checkpoint import load as load_checkpoint
from recsys_rl.cli import main
from recsys_rl.cli.ope import ope_options
from recsys_rl.errors import UserError
from recsys_rl.logs.decision_log import DecisionLog
from recsys_rl.logs.ope import world as world_module
from recsys_rl.logs.ope.features import Features
from recsys_rl.logs.ope.printing import print_warnings
from recsys_rl.logs.ope.read_log import read_log
from recsys_rl.logs.ope.replay import ReplayedLog, replay, session_grid
from recsys_rl.logs.ope.result import Estimate, WorldCheck
from recsys_rl.logs.ope.rows import touches
from recsys_rl.logs.ope.world import Worlds, fit_world, world
from recsys_rl.logs.parts import read_decisions
from recsys_rl.logs.target import read_target
from recsys_rl.logs.transitions import observations
from recsys_rl.logs.users import fit as user_fit
from recsys_rl.logs.writer import write_decisions
from recsys_rl.recommender import load
from recsys_rl.types import Action, Catalogue, Obs
from tests.doors import CARTPOLE, PPO, SATIATION, SIZES, steps, train_in


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, the log of two policies, and a log of random alone."""
    root = tmp_path_factory.mktemp("ope")
    checkpoint = train_in(root / "run", *SATIATION, "--encoder", "mlp", *steps(6))
    checkpoint.rename(root / "ppo.pt")
    for name, policies in (("both", ("random", "ppo")), ("random", ("random",))):
        words = [word for policy in policies for word in ("--policy", policy)]
        sizes = ["--sessions", "300", "--users", "all", "--quiet"]
        out = str(root / f"{name}.parquet")
        assert main(["record", "--checkpoint", str(root / "ppo.pt"), *words, *sizes, "--out", out]) == 0
    return root


@pytest.fixture(autouse=True)
def short_fits(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few steps of the world's optimiser, where its accuracy does not matter."""
    if "world_of_the_logs_own_policy" in request.node.name:
        monkeypatch.setattr(user_fit, "LEAST_STEPS", 200)  # as near as with 400
    else:
        monkeypatch.setattr(user_fit, "LEAST_STEPS", 5)
        monkeypatch.setattr("recsys_rl.logs.ope.world.EPOCHS", 2)


def command(folder: Path, log: str | Path, *words: str) -> dict[str, Any]:
    out = folder / "out.json"
    paths = ["--checkpoint", str(folder / "ppo.pt"), "--log", str(folder / log), "--json", str(out)]
    assert main(["ope", *paths, *words]) == 0
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def refusal(folder: Path, log: str | Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["ope", "--checkpoint", str(folder / "ppo.pt"), "--log", str(folder / log), *words]) == 2
    return capsys.readouterr().err


def test_policies_of_a_log_are_estimated_and_compared(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = command(folder, "both.parquet", "--compare", "ppo", "random")
    rows = {(row["policy"], row["estimator"]): row for row in found["rows"]}
    names = ("pdis", "wpdis", "sdr", "wdr", "fqe", "world")
    assert set(rows) == {(policy, name) for policy in ("ppo", "random") for name in names}
    log = read_decisions(folder / "both.parquet")
    by = {name: log.loggers[session_grid(log)[:, 0]] == k for k, name in enumerate(log.header.loggers)}
    grid = session_grid(log)
    earned = torch.where(grid >= 0, log.signals[grid.clamp_min(0), 0, 0], 0.0).sum(1)  # (N,) engagement
    for policy in ("ppo", "random"):
        row = rows[policy, "wdr"]
        # The logger's true return, within twice the half width of the interval: four standard errors.
        off = abs(row["value"] - float(earned[by[policy]].mean()))
        assert off < row["high"] - row["low"]
        assert row["recommended"] and row["ess"] > 200 and row["warning"] == ""
        assert row["mean_weight_low"] < 1 < row["mean_weight_high"]
        assert rows[policy, "world"]["ess"] is None
    difference = found["compare"]
    paired = rows["ppo", "wdr"]["value"] - rows["random", "wdr"]["value"]
    assert difference["value"] == pytest.approx(paired) and difference["estimator"] == "wdr"
    out = capsys.readouterr().out
    assert difference["text"] in out
    assert "<- marks one estimator, the same for all policies: wdr, as its weights are good for each" in out


@pytest.mark.proof
def test_the_logs_own_policy_has_weights_of_one_and_its_mean_return(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = command(folder, "random.parquet", "--policy", "random")
    rows = {row["estimator"]: row for row in found["rows"]}
    log = read_decisions(folder / "random.parquet")
    earned = float(log.signals[:, 0, 0].sum()) / int((log.steps == 0).sum())  # undiscounted, as evaluate
    assert rows["pdis"]["value"] == pytest.approx(earned, rel=1e-5)
    assert rows["pdis"]["ess"] == pytest.approx(300, rel=1e-5)
    assert found["about"]["discount"] == 1 and found["about"]["log_discount"] == 0.99
    told = "discount 1 (as in the table of evaluate); the log's policy learned with 0.99\n"
    assert told in capsys.readouterr().out
    less = command(folder, "random.parquet", "--policy", "random", "--discount", "0.99", "--no-world")
    assert next(x["value"] for x in less["rows"] if x["estimator"] == "pdis") < rows["pdis"]["value"]
    assert "logged by random; discount 0.99\n" in capsys.readouterr().out
    assert rows["wpdis"]["value"] == pytest.approx(rows["pdis"]["value"])


@pytest.mark.proof
def test_world_of_the_logs_own_policy_earns_its_mean_return(folder: Path) -> None:
    found = command(folder, "random.parquet", "--policy", "random")
    values = {row["estimator"]: row["value"] for row in found["rows"]}
    assert values["world"] == pytest.approx(values["pdis"], rel=0.15)


def test_a_deterministic_policy_is_not_to_be_trusted_and_the_world_is_recommended(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = command(folder, "both.parquet", "--policy", "popularity")
    rows = {row["estimator"]: row for row in found["rows"]}
    assert rows["world"]["recommended"] and not rows["wdr"]["recommended"]
    assert "Do not trust this" in rows["wdr"]["warning"]
    assert {check["logger"] for check in found["world_checks"]} == {"random", "ppo"}
    assert rows["world"]["interval"] == "model"
    assert found["about"]["promises"]["model"].startswith("no promise")
    assert rows["world"]["warning"].startswith("Model-based, no promise of coverage")
    assert all(check["text"] in rows["world"]["warning"] for check in found["world_checks"])
    out = capsys.readouterr().out
    assert "world without the sessions of random predicts" in out and "no promise" in out
    wrong = sum(check["wrong"] for check in found["world_checks"])
    failed = f"the best there is, a model that FAILED {wrong} of 2 checks on other policies: don't rely on it"
    mark = failed if wrong else "recommended (a model, checked on another policy)"
    assert f"<- {mark}\n" in out
    assert "\ness: effective sample size" in out and "weight: mean weight" in out and "k: Pareto k" in out
    alone = command(folder, "random.parquet", "--policy", "popularity")["rows"]
    assert next(row for row in alone if row["estimator"] == "world")["warning"].endswith(
        "The model was not checked on a policy that it was not fitted on, as one policy logged all sessions: "
        "the check needs sessions of a second policy (record --policy A --policy B)."
    )


@pytest.mark.parametrize(
    ("predicted", "wrong", "gap"),
    [(6.6, True, "44% too low"), (11.9, False, "1% too high"), (12.3, True, "4% too high")],
)
def test_world_that_mistakes_the_other_logger_is_not_to_be_trusted(
    predicted: float, wrong: bool, gap: str
) -> None:
    check = WorldCheck("ppo", predicted, earned=11.8, low=11.4, high=12.2)
    assert check.wrong == wrong == check.sentence.startswith("Do not trust this: world without")
    assert gap in check.sentence and "it earned 11.800 [11.400, 12.200]" in check.sentence


def test_world_far_off_within_a_wide_interval_is_not_to_be_trusted() -> None:
    assert WorldCheck("ppo", 1.2, earned=1.0, low=0.5, high=1.5).wrong
    assert "0.300 too high" in WorldCheck("ppo", 0.3, earned=0.0, low=-1.0, high=1.0).sentence


def one_step(folder: Path) -> Path:
    """The first step of each session alone, as a log of one step."""
    log = read_decisions(folder / "random.parquet")
    first = log.rows(log.steps == 0)
    interface = log.header.interface
    first = replace(first, terminated=torch.ones_like(first.terminated), truncated=first.truncated & False)
    write_decisions(folder / "one.parquet", replace(first, header=replace(log.header, interface=interface)))
    return folder / "one.parquet"


def test_one_step_logs_get_the_bandit_estimators_and_their_clips(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one_step(folder)
    found = command(folder, "one.parquet", "--no-world")
    rows = {row["estimator"]: row for row in found["rows"]}
    assert set(rows) == {
        "dm",
        "ips",
        "snips",
        "dr",
        "sndr",
        "clipped-ips",
        "dros",
        "mips",
        "offcem",
    }
    promises = found["about"]["promises"]
    assert set(promises) == {"student-t", "model", "clip", "cluster"}
    assert promises["clip"].startswith("no promise") and rows["ips"]["interval"] == "student-t"
    for name in ("clipped-ips", "dros"):
        assert rows[name]["interval"] == "clip" and rows[name]["warning"].startswith("No promise of coverage")
    out = capsys.readouterr().out
    marked = [line.split()[1] for line in out.splitlines() if line.endswith("  no promise")]
    assert marked == ["dm", "clipped-ips", "dros", "mips", "offcem"]
    assert out.count("the clip was chosen on this log") == 1
    assert rows["dr"]["recommended"] or rows["dr"]["warning"]
    assert rows["dros"]["clip"] is not None and rows["ips"]["clip"] is None
    assert rows["mips"]["mean_weight"] == pytest.approx(1, abs=0.1)
    assert found["about"]["clusters"].startswith("5 clusters")  # the square root of 24 items
    own = command(folder, "one.parquet", "--policy", "random", "--policy", "logged", "--no-world")
    same = {(row["policy"], row["estimator"]): row["value"] for row in own["rows"]}
    assert same["random", "mips"] == pytest.approx(
        same["logged", "mean"], rel=1e-5
    )  # the logger's own weights


def test_steps_that_one_user_alone_reaches_are_estimated(folder: Path) -> None:
    """Nobody else's rows can fit a reward model there, so Q is 0, and sdr stays unbiased."""
    log = read_decisions(folder / "random.parquet")
    last = torch.where(log.users == log.users[0], log.header.interface.session_length, 2) - 1  # (E,)
    short = log.rows(log.steps <= last)
    ends = short.steps == last[log.steps <= last]
    short = replace(short, terminated=ends | short.terminated, truncated=short.truncated & ~ends)
    write_decisions(folder / "late.parquet", short)
    for q in ("ridge", "mlp"):
        found = command(folder, "late.parquet", "--policy", "random", "--no-world", "--q", q)
        rows = {row["estimator"]: row for row in found["rows"]}
        assert rows["sdr"]["value"] == pytest.approx(rows["pdis"]["value"], abs=0.3)


def test_propensities_are_estimated_where_the_log_has_none_and_each_row_names_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = read_decisions(folder / "random.parquet")
    unknown = replace(log, logprobs=torch.full_like(log.logprobs, torch.nan))
    write_decisions(folder / "unknown.parquet", unknown)
    found = command(folder, "unknown.parquet", "--policy", "random")
    for row in found["rows"]:
        assert row["propensities"] == "estimated"
        assert ("they were estimated" in row["warning"]) == (row["ess"] is not None)
    first = found["propensities"]
    assert first["logprob"] == pytest.approx(first["uniform"], abs=0.05)  # the logger was random
    assert "propensities are estimated: log-likelihood" in capsys.readouterr().out
    known = command(folder, "random.parquet", "--policy", "random", "--no-world")
    assert known["propensities"] is None and known["rows"][0]["propensities"] == "logged"


def test_session_of_two_loggers_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = read_decisions(folder / "both.parquet")
    assert log.logger_logprobs is not None
    loggers = torch.where(log.steps == 1, 1 - log.loggers, log.loggers)
    own = log.logger_logprobs.gather(1, loggers.unsqueeze(1)).squeeze(1)
    write_decisions(folder / "mixed.parquet", replace(log, loggers=loggers, logprobs=own))
    assert "decisions of two loggers" in refusal(folder, "mixed.parquet", capsys)


def test_log_with_other_signals_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rewards are made of the signals by their places, so another order gives another number."""
    log = read_decisions(folder / "random.parquet")
    names = log.header.signals
    more = replace(log.header, signals=("hidden", *names))
    signals = torch.cat([torch.zeros_like(log.signals[..., :1]), log.signals], 2)
    write_decisions(folder / "signals.parquet", replace(log, header=more, signals=signals))
    assert "has the signals hidden" in refusal(folder, "signals.parquet", capsys)


def test_json_never_replaces_a_file_that_is_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (folder / "random.parquet").read_bytes()
    words = ("--json", str(folder / "random.parquet"))
    assert "is a file that is read" in refusal(folder, "random.parquet", capsys, *words)
    assert (folder / "random.parquet").read_bytes() == before


def test_random_sessions_support_the_choices_that_a_fixed_logger_never_makes(folder: Path) -> None:
    of = replayed_log(folder, "both.parquet")
    log = of.log
    assert log.logger_logprobs is not None
    logprobs = log.logger_logprobs[:, 0]
    certain = replace(log, logger_logprobs=log.logger_logprobs.clone(), logprobs=torch.zeros(log.num_rows))
    assert certain.logger_logprobs is not None
    certain.logger_logprobs[:, 1] = 0.0  # the second logger has no chance in it, the first is random
    assert replace(of, log=certain).certain_mass(logprobs) == 0
    alone = replace(certain, logger_logprobs=None)
    lost = replace(of, log=alone).certain_mass(logprobs)
    assert lost == pytest.approx(1 - float(logprobs.exp().mean()))


def test_largest_possible_return_of_costs_is_that_of_a_short_session(folder: Path) -> None:
    of = replayed_log(folder, "both.parquet")
    costs = replace(of, totals=replace(of.totals, bounds=(-3.0, -1.0)))
    assert costs.most == -1
    assert touches(-0.5, -1.0) and touches(-1.0, -1.0) and not touches(-1.1, -1.0)
    assert not touches(0.5, float("inf"))  # no bound is known


def replayed_log(folder: Path, name: str) -> ReplayedLog:
    log, catalogue = read_decisions(folder / name), load(folder / "ppo.pt").catalogue
    return replay(log, catalogue, log.signals[:, 0, 0], 1.0, torch.Generator().manual_seed(0))


def test_each_warning_is_printed_once_with_its_rows(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("ppo", "pdis", ["A."]), ("ppo", "wdr", ["A.", "B."]), ("random", "pdis", ["A."])]
    rows += [("random", "wdr", ["A.", "B."]), ("ppo", "world", ["C.", "B."]), ("ppo", "fqe", [])]
    print_warnings(
        [Estimate(a, b, 1.0, 0.9, 1.1, "student-t", None, warnings=tuple(texts)) for a, b, texts in rows]
    )
    assert capsys.readouterr().out.splitlines() == [
        "warning (pdis, wdr of ppo, random): A.",
        "warning (wdr, world of ppo; wdr of random): B.",
        "warning (world of ppo): C.",
    ]


def test_comparison_without_a_trusted_row_is_doubted(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--compare", "popularity", "random")
    by_model = command(folder, "random.parquet", *words)["compare"]
    assert by_model["estimator"] == "world" and "does not cover its error" in by_model["text"]
    none = command(folder, "random.parquet", *words, "--no-world")["compare"]
    assert none["estimator"] == "wdr" and "]: no answer. Do not trust this" in none["text"]
    assert "No row is recommended" in capsys.readouterr().out


def test_world_is_not_checked_by_a_policy_that_has_only_the_loggers_name(folder: Path) -> None:
    log = read_decisions(folder / "both.parquet")
    names = tuple("untrained" if name == "ppo" else name for name in log.header.loggers)
    other = replace(log, header=replace(log.header, loggers=names))
    assert log.logger_logprobs is not None
    theirs = log.logger_logprobs.clone()
    theirs[:, names.index("untrained")] -= 0.1
    own = theirs.gather(1, log.loggers.unsqueeze(1)).squeeze(1)
    write_decisions(folder / "names.parquet", replace(other, logger_logprobs=theirs, logprobs=own))
    found = command(folder, "names.parquet", "--policy", "popularity")
    assert {check["logger"] for check in found["world_checks"]} == {"random"}


def target_file(folder: Path, log: DecisionLog, **columns: Any) -> Path:
    data = {"session": log.sessions.tolist(), "step": log.steps.tolist()} | columns
    path = folder / "target.parquet"
    pl.DataFrame(data).sample(fraction=1.0, shuffle=True, seed=0).write_parquet(path)
    return path


def test_target_file_with_the_loggers_own_probabilities_gives_weights_of_one(folder: Path) -> None:
    log = read_decisions(folder / "random.parquet")
    path = target_file(folder, log, propensity=log.logprobs.exp().tolist())
    found = command(folder, "random.parquet", "--target", str(path))
    rows = {row["estimator"]: row for row in found["rows"]}
    assert set(rows) == {"pdis", "wpdis"}  # without probabilities of every item there is no Q
    assert rows["pdis"]["mean_weight"] == pytest.approx(1) and rows["pdis"]["ess"] == pytest.approx(300)


def test_target_file_with_probabilities_of_every_item_has_the_other_estimators(folder: Path) -> None:
    log = read_decisions(folder / "random.parquet")
    allowed = torch.cat([obs.allowed(24) for _, obs in observations(log, load(folder / "ppo.pt").catalogue)])
    every = (allowed / allowed.sum(1, keepdim=True)).double()
    every /= every.sum(1, keepdim=True)
    path = target_file(folder, log, logprob=log.logprobs.tolist(), probabilities=every.tolist())
    rows = {row["estimator"] for row in command(folder, "random.parquet", "--target", str(path))["rows"]}
    assert rows == {"pdis", "wpdis", "sdr", "wdr", "fqe"}
    found = read_target(path, log)
    assert torch.equal(found.logprobs, log.logprobs)
    assert found.every is not None and torch.allclose(found.every, every)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("propensity", -0.1),
        ("propensity", 1.5),
        ("propensity", float("nan")),
        ("logprob", 0.2),
    ],
)
def test_impossible_target_probabilities_are_refused(folder: Path, column: str, value: float) -> None:
    log = read_decisions(folder / "random.parquet")
    values = [0.5 if column == "propensity" else -1.0] * log.num_rows
    values[7] = value
    with pytest.raises(UserError):
        read_target(target_file(folder, log, **{column: values}), log)


def test_probabilities_of_every_item_that_fit_nothing_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = read_decisions(folder / "random.parquet")
    own = log.logprobs.exp().tolist()
    uniform = torch.full((log.num_rows, 24), 1 / 24, dtype=torch.float64)
    missing = uniform.clone()
    missing[5, 3] = torch.nan
    wrong: dict[str, Any] = {
        "has single values: give a list": own,
        "has no value in 1 row": [None, *uniform[1:].tolist()],
        "are not a distribution": missing.tolist(),
        "has the propensity": uniform.tolist(),  # from the second step on fewer than 24 items are left
    }
    for column in wrong.values():
        with pytest.raises(UserError):
            read_target(target_file(folder, log, propensity=own, probabilities=column), log)
    texts = [["a"] * 24] * log.num_rows
    with pytest.raises(UserError):
        read_target(target_file(folder, log, propensity=own, probabilities=texts), log)
    # Right at the logged item, but with mass on items that were shown before.
    chosen = log.logprobs.exp().unsqueeze(1)
    forbidden = ((1 - chosen) / 23).expand(-1, 24).scatter(1, log.items, chosen)
    path = target_file(folder, log, propensity=own, probabilities=forbidden.tolist())
    words = ("--target", str(path), "--no-world")
    text = refusal(folder, "random.parquet", capsys, *words)
    assert "could not be shown: give it 0" in text
    assert f"{path}: the column probabilities gives item" in text


def test_target_files_with_missing_rows_or_columns_are_refused(folder: Path) -> None:
    log = read_decisions(folder / "random.parquet")
    with pytest.raises(UserError):
        read_target(target_file(folder, log), log)
    part = log.rows(torch.arange(log.num_rows - 1))
    with pytest.raises(UserError):
        read_target(target_file(folder, part, propensity=[0.5] * part.num_rows), log)
    twice = log.rows(torch.cat([torch.arange(log.num_rows), torch.tensor([3])]))
    with pytest.raises(UserError):
        read_target(target_file(folder, twice, propensity=[0.5] * twice.num_rows), log)


def test_bad_logs_and_policies_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "not a file" in refusal(folder, "none.parquet", capsys)
    (folder / "cut.parquet").write_bytes((folder / "both.parquet").read_bytes()[:2000])
    assert "cut.parquet" in refusal(folder, "cut.parquet", capsys)
    assert "There is no policy 'popularty'" in refusal(
        folder, "both.parquet", capsys, "--policy", "popularty"
    )
    assert "reads the simulator's state" in refusal(folder, "both.parquet", capsys, "--policy", "planner")
    assert "names the stream" in refusal(folder, "both.parquet", capsys, "--weights", "sales=1")
    log = read_decisions(folder / "random.parquet")
    write_decisions(folder / "lonely.parquet", replace(log, users=torch.zeros_like(log.users)))
    assert "one user" in refusal(folder, "lonely.parquet", capsys)
    same = log.rows(log.steps == 0)
    same = replace(
        same,
        items=torch.zeros_like(same.items),
        terminated=torch.ones_like(same.terminated),
        truncated=torch.zeros_like(same.truncated),
    )
    write_decisions(folder / "same.parquet", same)
    assert "one item in every row" in refusal(folder, "same.parquet", capsys)
    lost = replace(log, signals=torch.full_like(log.signals, torch.nan))
    write_decisions(folder / "lost.parquet", lost)
    assert "signal" in refusal(folder, "lost.parquet", capsys)
    other = replace(log, header=replace(log.header, catalogue="0" * 64))
    write_decisions(folder / "other.parquet", other)
    text = refusal(folder, "other.parquet", capsys)
    assert "another catalogue than the checkpoint's, made of --data synthetic --seed 0: both have" in text


class Scripted:
    """Shows the first item that is allowed."""

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        return Action.certain(obs.allowed(24).long().argmax(1, keepdim=True))


def test_world_plays_the_policy_for_the_whole_session_and_never_shows_an_item_twice(folder: Path) -> None:
    of = replayed_log(folder, "random.parquet")
    log, constant = of.log, torch.full((of.log.num_rows,), 0.5)
    stay = replace(log, terminated=torch.zeros_like(log.terminated))
    of = replace(of, log=stay, rewards=constant, folds=log.users % 3, gamma=0.9)
    terms = world(fit_world(of, torch.Generator().manual_seed(0)), Scripted(), sessions=20)
    whole = sum(0.5 * 0.9**t for t in range(log.header.interface.session_length))
    assert len(terms) == 20 and terms.tolist() == pytest.approx([whole] * 20)  # nobody ever left


def test_world_of_a_user_is_fitted_on_other_users(folder: Path) -> None:
    of = replayed_log(folder, "random.parquet")
    log, folds, rewards = of.log, of.log.users % 3, of.rewards
    changed = torch.where(folds == 0, rewards + 5, rewards)

    def terms(rewards: torch.Tensor) -> torch.Tensor:
        rng = torch.Generator().manual_seed(0)
        return world(fit_world(replace(of, rewards=rewards, folds=folds), rng), Scripted())

    starts = log.rows(log.steps == 0).users % 3
    before, after = terms(rewards), terms(changed)
    assert torch.equal(before[starts == 0], after[starts == 0])
    assert (after[starts != 0] > before[starts != 0] + 1).all()


def test_features_of_a_slate_are_the_means_of_its_items(folder: Path) -> None:
    log = read_decisions(folder / "random.parquet")
    catalogue: Catalogue = load(folder / "ppo.pt").catalogue
    features = Features(catalogue, log.header.interface)
    _, obs = next(observations(log, catalogue))
    one = [features(obs, torch.full((obs.num_rows, 1), k)) for k in (3, 5)]
    both = features(obs, torch.tensor([3, 5]).expand(obs.num_rows, 2))
    assert torch.allclose(both[:, :3], (one[0][:, :3] + one[1][:, :3]) / 2, atol=1e-6)
    assert torch.isfinite(both).all()


@pytest.mark.parametrize(
    ("platform", "sizes", "names"),
    [
        ("satiation", ("--num-items", "24", "--max-episode-steps", "1"), {"mips", "offcem"}),
        (
            "long-video",
            ("--num-items", "12", "--suggestions", "2", "--max-episode-steps", "2"),
            {"iips", "pi"},
        ),
    ],
)
def test_logger_of_another_checkpoint_is_named(
    tmp_path: Path,
    platform: str,
    sizes: tuple[str, ...],
    names: set[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The log is of an older model, whose checkpoint knows the probabilities of what was not shown."""
    people = ["--data", "synthetic", "--num-users", "30", "--embedding-dim", "4"]
    for name, updates in (("old", 3), ("ppo", 6)):
        made = train_in(tmp_path / name, "--env", platform, *SIZES, *PPO, *people, *sizes, *steps(updates))
        made.rename(tmp_path / f"{name}.pt")
    log = ["--log", str(tmp_path / "log.parquet")]
    words = ["--policy", "ppo", "--sessions", "90", "--users", "all", "--quiet", "--out", log[1]]
    assert main(["record", "--checkpoint", str(tmp_path / "old.pt"), *words]) == 0
    plain = command(tmp_path, "log.parquet", "--no-world")
    assert not names & {row["estimator"] for row in plain["rows"]}
    old = str(tmp_path / "old.pt")
    found = command(tmp_path, "log.parquet", "--no-world", "--logger", old)
    rows = {row["estimator"]: row for row in found["rows"]}
    for name in names:
        row = rows[name]
        assert row["mean_weight_low"] < 1 < row["mean_weight_high"] and row["ess"] < 89.99  # of 90 sessions
    # With the older model as --checkpoint, random has the same weights.
    random = ("--no-world", "--policy", "random")
    given = command(tmp_path, "log.parquet", *random, "--logger", old)["rows"]
    swapped = command(tmp_path, "log.parquet", *random, "--checkpoint", old)
    assert swapped["about"]["checkpoint"] == old
    by_old = {row["estimator"]: row for row in swapped["rows"]}
    for row in given:
        if row["estimator"] in names:
            assert row["ess"] == pytest.approx(by_old[row["estimator"]]["ess"], rel=1e-6)
    read = read_log(ope_options(["--checkpoint", str(tmp_path / "ppo.pt"), *log, "--logger", old]))
    (other,) = read.others
    assert other.table.config == other.checkpoint.config != load_checkpoint(tmp_path / "ppo.pt").config
    if platform == "long-video":
        reasons = {x: part["reason"] for part in plain["not_computed"] for x in part["estimators"]}
        assert reasons["pi"].endswith("ppo.pt gives the logged probabilities (give --logger FILE)")
        ppo = str(tmp_path / "ppo.pt")
        wrong = command(tmp_path, "log.parquet", "--no-world", "--logger", ppo)["not_computed"]
        reasons = {x: part["reason"] for part in wrong for x in part["estimators"]}
        assert reasons["pi"].endswith("ppo.pt gives the logged probabilities") and ppo in reasons["pi"]
    capsys.readouterr()
    path = train_in(tmp_path / "other", *SATIATION, *steps(1))
    assert "other sessions" in refusal(tmp_path, "log.parquet", capsys, "--logger", str(path))


FAILED = (
    "the fit of network 1 failed in its epoch 1, as the loss became nan: look for extreme signals in the log"
)


def test_other_estimators_are_printed_if_the_fit_of_world_fails(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = command(folder, "both.parquet", "--no-world")
    capsys.readouterr()
    monkeypatch.setattr(user_fit, "loss_of", lambda network, table: network.decay_logits.sum() * torch.nan)
    found = command(folder, "both.parquet")
    values, wanted = ({x["estimator"]: x["value"] for x in of["rows"]} for of in (found, whole))
    assert values == pytest.approx(wanted) and found["world_checks"] == []
    assert set(values) == {"pdis", "wpdis", "sdr", "wdr", "fqe"}
    (part,) = (part for part in found["not_computed"] if "world" in part["estimators"])
    assert part["estimators"] == ["world"] and part["policies"] == ["ppo"]
    assert part["reason"].startswith(FAILED)
    assert f"not computed of ppo: world ({FAILED}" in capsys.readouterr().out


def test_world_whose_check_fails_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fits of the three folds succeed, and that without the sessions of the second logger does not."""
    fit_of_users = world_module.fit_world

    def fit(of: ReplayedLog, generator: torch.Generator, keep: torch.Tensor | None = None) -> Worlds:
        if keep is not None and int(of.log.loggers[~keep][0]) == 1:
            raise UserError("The fit failed: clip the signals.")
        return fit_of_users(of, generator, keep)

    monkeypatch.setattr(world_module, "fit_world", fit)
    found = command(folder, "both.parquet")
    assert [check["logger"] for check in found["world_checks"]] == ["random"]
    (warning,) = (row["warning"] for row in found["rows"] if row["estimator"] == "world")
    text = "The model was not checked without the sessions of ppo: the fit failed: clip the signals."
    assert text in warning


def test_logger_of_an_environment_without_items_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = train_in(tmp_path / "run", *CARTPOLE, *steps(1))
    assert "other sessions" in refusal(folder, "random.parquet", capsys, "--logger", str(path))


def test_slates_of_a_mixture_without_a_model_have_exact_weights(tmp_path: Path) -> None:
    """1,560 slates are possible, too many to score each one."""
    sizes = ("--num-items", "40", "--suggestions", "2", "--max-episode-steps", "1")
    people = ("--data", "synthetic", "--num-users", "30", "--embedding-dim", "4")
    path = train_in(tmp_path / "run", "--env", "long-video", *SIZES, *PPO, *people, *sizes, *steps(1))
    path.rename(tmp_path / "ppo.pt")

    def iips(*policy: str) -> dict[str, Any]:
        words = ("--checkpoint", str(tmp_path / "ppo.pt"), *policy, "--sessions", "300", "--users", "all")
        assert main(["record", *words, "--quiet", "--out", str(tmp_path / "log.parquet")]) == 0
        rows = command(tmp_path, "log.parquet", "--no-world", "--policy", "random", "--draws", "1")["rows"]
        found: dict[str, Any] = next(row for row in rows if row["estimator"] == "iips")
        return found

    mixture = iips("--policy", "static-list", "--mix", "random", "--epsilon", "0.1")
    # (1/40) / (0.1/40) where static-list shows another item, and at least 1/40 over its own share.
    assert mixture["largest_weight"] == pytest.approx(10) and "drawn slates" not in mixture["warning"]
    assert "a mean over 64 drawn slates" in iips("--policy", "ppo")["warning"]

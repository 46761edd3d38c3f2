"""Each estimator's numbers on small made logs, as stored in ope_answers.json.

A change of structure must give the same answers. After a change of an estimator that is meant:
``python -m tests.logs.ope.test_ope_answers`` writes the file anew, and its difference shows what has changed.
"""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys_rl.cli import main
from recsys_rl.logs.ope import read_log as ope_log
from recsys_rl.logs.ope import replay
from recsys_rl.logs.ope.estimators import ESTIMATORS, MODEL, WORLD
from recsys_rl.logs.users import fit as user_fit
from tests.doors import PPO, SIZES, steps, train_in

STORED = Path(__file__).with_name("ope_answers.json")
NUMBERS = (
    "value", "low", "high", "ess", "mean_weight", "mean_weight_low", "mean_weight_high", "largest_weight",
    "pareto_k", "unsupported", "mean_q", "q_slope", "clip",
)  # fmt: skip
WORDS = ("policy", "estimator", "interval", "recommended", "propensities")
ITEMS = np.array(["tea", "coffee", "milk", "water"])
LOGGING, POLICY = np.array([0.4, 0.2, 0.25, 0.15]), np.array([0.15, 0.5, 0.2, 0.15])
RATES = np.array([0.2, 0.6, 0.3, 0.1])


def clicks(folder: Path) -> list[str]:
    """600 decisions of one step by 60 users, with the probability of every item, and the items' kinds."""
    rng = np.random.default_rng(1)
    item, place = rng.choice(4, size=600, p=LOGGING), rng.integers(2, size=600)
    clicked = (rng.random(600) < RATES[item] * (1 + place) / 2).astype(int)
    log = {"user": np.arange(600) % 60, "item": ITEMS[item], "click": clicked}
    log |= {"propensity": LOGGING[item], "context.place": np.array(["left", "right"])[place]}
    every = {f"probability.{x}": np.full(600, LOGGING[k]) for k, x in enumerate(ITEMS)}
    pl.DataFrame(log | every).write_csv(folder / "clicks.csv")
    mine = {f"probability.{x}": np.full(600, POLICY[k]) for k, x in enumerate(ITEMS)}
    pl.DataFrame({"propensity": POLICY[item]} | mine).write_csv(folder / "mine.csv")
    kinds = {"item": ITEMS, "kind": ["hot", "hot", "cold", "cold"]}
    pl.DataFrame(kinds).write_csv(folder / "items.csv")
    return ["--target", str(folder / "mine.csv"), "--items", str(folder / "items.csv")]


def sessions(folder: Path) -> list[str]:
    """300 sessions of up to three steps by 60 users, logged by two policies."""
    rng = np.random.default_rng(2)
    length = rng.integers(1, 4, size=300)
    session = np.repeat(np.arange(300), length)
    step = np.concatenate([np.arange(n) for n in length])
    second = rng.random(300)[session] < 0.5
    chances = np.where(second[:, None], 0.25, LOGGING)  # (E, 4)
    item = (rng.random(len(session))[:, None] > chances.cumsum(1)).sum(1)
    log = {"user": session % 60, "session": session, "step": step, "item": ITEMS[item]}
    log |= {"reward": rng.random(len(session)) * RATES[item], "policy": np.where(second, "b", "a")}
    log |= {"propensity.a": LOGGING[item], "propensity.b": np.full(len(session), 0.25)}
    pl.DataFrame(log).write_csv(folder / "sessions.csv")
    mine = {f"probability.{x}": np.full(len(session), POLICY[k]) for k, x in enumerate(ITEMS)}
    file = {"session": session, "step": step, "propensity": POLICY[item]} | mine
    pl.DataFrame(file).write_csv(folder / "steps.csv")
    return ["--target", str(folder / "steps.csv")]


def slates(folder: Path) -> list[str]:
    """500 uniform slates of two of the items, and a target with the probability of each place."""
    rng = np.random.default_rng(3)
    shown = np.argsort(rng.random((500, 4)), 1)[:, :2]
    hits = (rng.random((500, 2)) < RATES[shown] / [1, 2]).astype(int)
    log: dict[str, Any] = {"items": ["|".join(ITEMS[row]) for row in shown]}
    log |= {"signal.click": ["|".join(map(str, row)) for row in hits], "propensity": [1 / 12] * 500}
    log |= {"place_logprobs": [f"{np.log(1 / 4)}|{np.log(1 / 3)}"] * 500}
    pl.DataFrame(log).write_csv(folder / "slates.csv")
    first = POLICY[shown[:, 0]]
    places = np.log(np.stack([first, POLICY[shown[:, 1]] / (1 - first)], 1))
    file = {"logprob": places.sum(1), "place_logprobs": [f"{a}|{b}" for a, b in places]}
    pl.DataFrame(file).write_csv(folder / "places.csv")
    return ["--target", str(folder / "places.csv"), "--policy", "random"]


def unknown(folder: Path) -> list[str]:
    """The log of ``clicks`` without propensities, which are then estimated."""
    words = clicks(folder)
    table = pl.read_csv(folder / "clicks.csv")
    kept = [x for x in table.columns if not x.startswith("prob") and x != "propensity"]
    table.select(kept).write_csv(folder / "unknown.csv")
    return words


def alone(folder: Path) -> list[str]:
    """The sessions of the first policy of ``sessions`` alone."""
    words = sessions(folder)
    log, mine = (pl.read_csv(folder / f"{name}.csv") for name in ("sessions", "steps"))
    log = log.filter(pl.col("policy") == "a")
    mine = mine.join(log.select("session", "step"), on=["session", "step"], how="semi")
    log.select(pl.exclude("policy", "propensity.b")).rename({"propensity.a": "propensity"}).write_csv(
        folder / "alone.csv"
    )
    mine.write_csv(folder / "steps.csv")
    return words


def recorded(folder: Path, items: int, words: list[str], *platform: str) -> list[str]:
    """A log of a new network's checkpoint, by ``record`` with these words."""
    people = ["--data", "synthetic", "--num-users", "30", "--embedding-dim", "4"]
    of_items = ["--num-items", str(items), "--env", *platform]
    train_in(folder / "run", *SIZES, *PPO, *people, *of_items, "--encoder", "mlp", *steps(1)).rename(
        folder / "ppo.pt"
    )
    checkpoint = ["--checkpoint", str(folder / "ppo.pt")]
    out = ["--users", "all", "--quiet", "--out", str(folder / "recorded.parquet")]
    assert main(["record", *checkpoint, *words, *out]) == 0
    return checkpoint


def two_policies(folder: Path) -> list[str]:
    """240 recorded sessions of four steps by `random` and by a new network."""
    policies = ["--policy", "random", "--policy", "untrained", "--sessions", "240"]
    return recorded(folder, 24, policies, "satiation", "--max-episode-steps", "4")


def recorded_slates(folder: Path) -> list[str]:
    """120 recorded sessions of two slates of two of 12 items: each of the 132 slates is scored."""
    policy = ["--policy", "static-list", "--mix", "random", "--epsilon", "0.4", "--sessions", "120"]
    sizes = ["--suggestions", "2", "--max-episode-steps", "2"]
    return recorded(folder, 12, policy, "long-video", *sizes)


def many_slates(folder: Path) -> list[str]:
    """90 recorded sessions of slates of two of 40 items: slates are drawn from the logger."""
    policy = ["--policy", "untrained", "--sessions", "90"]
    return recorded(folder, 40, policy, "long-video", "--suggestions", "2", "--max-episode-steps", "1")


JUDGED = ["--policy", "random", "--policy", "untrained", "--draws", "3"]
CASES: dict[str, tuple[Callable[[Path], list[str]], list[str]]] = {
    "clicks": (clicks, ["--policy", "random", "--no-world"]),
    "clicks logistic": (clicks, ["--no-world", "--q", "logistic"]),
    "clicks drawn": (clicks, ["--no-world", "--policy", "random", "--draws", "3"]),
    "clicks mlp": (clicks, ["--policy", "random", "--q", "mlp"]),
    "unknown": (unknown, ["--policy", "random", "--no-world", "--compare", "target", "random"]),
    "sessions": (sessions, ["--no-world", "--compare", "target", "logged"]),
    "sessions discounted": (sessions, ["--no-world", "--discount", "0.5", "--policy", "random"]),
    "alone": (alone, ["--policy", "random"]),
    "slates": (slates, ["--no-world", "--draws", "3"]),
    "recorded": (two_policies, [*JUDGED, "--policy", "popularity", "--compare", "untrained", "random"]),
    "recorded slates": (recorded_slates, [*JUDGED, "--policy", "popularity", "--no-world"]),
    "recorded many slates": (many_slates, [*JUDGED, "--no-world"]),
}
FILES = {"recorded slates": "recorded.parquet", "recorded many slates": "recorded.parquet"}
FILES["recorded"] = "recorded.parquet"
LEARNED = {"clicks mlp", "unknown", "alone", "recorded"}
"""Cases with a network that is fitted by many steps, in which rounding adds up."""
SHORT = {"recorded": (60, 3)}
"""Least steps and epochs of the world models, where each fold of each check has one."""


def run(case: str, fit: tuple[int, int] | None = None) -> tuple[dict[str, Any], str]:
    """The JSON file and the output of the command on the made log. ``fit``: as in SHORT."""
    make, words = CASES[case]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        if case == "clicks drawn":
            patch.setattr(replay, "PAIRS", 300)  # rows times items are 2,400
        if fit := fit or SHORT.get(case):
            patch.setattr(user_fit, "LEAST_STEPS", fit[0])
            patch.setattr("recsys_rl.logs.ope.world.EPOCHS", fit[1])
        out, printed = Path(folder) / "out.json", io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
            more = make(Path(folder))
            log = str(Path(folder) / FILES.get(case, f"{case.split()[0]}.csv"))
            printed.truncate(0)
            assert main(["ope", "--log", log, *more, *words, "--json", str(out)]) == 0
        return json.loads(out.read_text()), printed.getvalue()


def answers(case: str, fit: tuple[int, int] | None = None) -> dict[str, Any]:
    """The numbers of the command on the made log, and those of its comparison and its checks."""
    found, _ = run(case, fit)
    rows = [{name: row[name] for name in (*WORDS, *NUMBERS)} for row in found["rows"]]
    compared, checks = found["compare"], found["world_checks"]
    return {
        "rows": rows,
        "difference": compared and [compared[x] for x in ("value", "low", "high")],
        "checks": [[check[x] for x in ("predicted", "earned", "low", "high")] for check in checks],
        "not computed": [[part["estimators"], part["policies"]] for part in found["not_computed"]],
    }


@pytest.mark.proof_of("alone")
@pytest.mark.proof_of("clicks mlp", "recorded")
@pytest.mark.parametrize("case", CASES)
def test_estimators_give_the_stored_answers(case: str) -> None:
    stored, found = json.loads(STORED.read_text())[case], answers(case)
    assert [[row[x] for x in WORDS] for row in found["rows"]] == [
        [row[x] for x in WORDS] for row in stored["rows"]
    ]
    assert sorted(found["not computed"]) == sorted(stored["not computed"])
    relative, absolute = (2e-2, 5e-3) if case in LEARNED else (1e-4, 1e-5)
    for one, other in zip(found["rows"], stored["rows"], strict=True):
        near = half_width(other["low"], other["high"]) if other["estimator"] == "world" else absolute
        for name in NUMBERS:
            expected = None if other[name] is None else pytest.approx(other[name], relative, near)
            assert one[name] == expected, (one["policy"], one["estimator"], name)
    if stored["difference"] is not None:
        by_world = any(row["estimator"] == "world" and row["recommended"] for row in stored["rows"])
        near = half_width(*stored["difference"][1:]) if by_world else absolute
        assert found["difference"] == pytest.approx(stored["difference"], relative, near)
    for check, other in zip(found["checks"], stored["checks"], strict=True):
        assert check == pytest.approx(other, relative, half_width(*other[2:]))


def half_width(low: float, high: float) -> float:
    """How near an answer of `world` must be: another rounding in each step of a fit gives other networks."""
    return (high - low) / 2


@pytest.mark.parametrize("case", ["recorded", "recorded slates"])
def test_estimators_without_a_model_give_the_stored_answers_in_parts(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Models are fitted on 150 rows, and the log is judged in parts of 64."""
    monkeypatch.setattr(ope_log, "FITTED", 150)
    monkeypatch.setattr(ope_log, "PART", 64)
    stored = json.loads(STORED.read_text())[case]["rows"]
    found = answers(case, (5, 1))["rows"]  # the answers of models are not compared
    assert [row["estimator"] for row in found] == [row["estimator"] for row in stored]
    compared = 0
    for one, other in zip(found, stored, strict=True):
        if {MODEL, WORLD}.isdisjoint(ESTIMATORS[one["estimator"]].needs):
            for name in ("value", "low", "high", "ess", "mean_weight", "pareto_k", "unsupported"):
                expected = None if other[name] is None else pytest.approx(other[name], rel=1e-4, abs=1e-5)
                assert one[name] == expected, (one["policy"], one["estimator"], name)
            compared += 1
    assert compared >= 6


def test_every_estimator_has_a_stored_answer() -> None:
    stored = {row["estimator"] for case in json.loads(STORED.read_text()).values() for row in case["rows"]}
    assert stored == {*ESTIMATORS, "mean"}


if __name__ == "__main__":

    def rounded(x: Any) -> Any:
        return float(f"{x:.7g}") if isinstance(x, float) else x

    table = {case: answers(case) for case in CASES}
    for case in table.values():
        case["rows"] = [{name: rounded(x) for name, x in row.items()} for row in case["rows"]]
    rows = ",\n".join(
        f" {json.dumps(case)}: {{"
        + "".join(f"{json.dumps(x)}: {json.dumps(of[x])}, " for x in of if x != "rows")
        + '"rows": [\n  '
        + ",\n  ".join(map(json.dumps, of["rows"]))
        + "\n ]}"
        for case, of in table.items()
    )
    STORED.write_text("{\n" + rows + "\n}\n", encoding="utf-8")

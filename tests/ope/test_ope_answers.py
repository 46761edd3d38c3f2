"""Each estimator's numbers on small made logs, as stored in ope_answers.json.

A change of structure must give the same answers. After a change of an estimator that is meant:
``python -m tests.ope.test_ope_answers`` writes the file anew, and its difference shows what has changed.
"""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys_rl.cli import main
from recsys_rl.ope.bandit import BANDIT, CLIPPED
from recsys_rl.ope.sequential import SEQUENTIAL
from recsys_rl.ope.slate import SLATE
from recsys_rl.workflows.ope_bench import CLUSTERED

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


CASES = {
    "clicks": (clicks, ["--policy", "random", "--no-world"]),
    "clicks slope": (clicks, ["--no-world", "--clip", "slope", "--q", "logistic", "--q-by", "place"]),
    "clicks bernstein": (clicks, ["--no-world", "--interval", "bernstein", "--largest-weight", "2.5"]),
    "sessions": (sessions, ["--no-world", "--compare", "target", "logged"]),
    "sessions discounted": (sessions, ["--no-world", "--discount", "0.5", "--policy", "random"]),
    "slates": (slates, ["--no-world", "--draws", "3"]),
}


def answers(case: str) -> dict[str, Any]:
    """The numbers of the command on the made log, and those of its comparison."""
    make, words = CASES[case]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        more = make(Path(folder))
        log = str(Path(folder) / f"{case.split()[0]}.csv")
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            assert main(["ope", "--log", log, *more, *words, "--json", str(out)]) == 0
        found = json.loads(out.read_text())
    rows = [{name: row[name] for name in (*WORDS, *NUMBERS)} for row in found["rows"]]
    compared = found["compare"]
    return {"rows": rows, "difference": compared and [compared[x] for x in ("value", "low", "high")]}


@pytest.mark.parametrize("case", CASES)
def test_estimators_give_the_stored_answers(case: str) -> None:
    stored, found = json.loads(STORED.read_text())[case], answers(case)
    assert [[row[x] for x in WORDS] for row in found["rows"]] == [
        [row[x] for x in WORDS] for row in stored["rows"]
    ]
    for one, other in zip(found["rows"], stored["rows"], strict=True):
        for name in NUMBERS:
            expected = None if other[name] is None else pytest.approx(other[name], rel=1e-4, abs=1e-5)
            assert one[name] == expected, (one["policy"], one["estimator"], name)
    if stored["difference"] is not None:
        assert found["difference"] == pytest.approx(stored["difference"], rel=1e-4, abs=1e-5)


def test_every_estimator_but_the_learned_world_has_a_stored_answer() -> None:
    stored = {row["estimator"] for case in json.loads(STORED.read_text()).values() for row in case["rows"]}
    assert stored == {*BANDIT, *CLIPPED, *SEQUENTIAL, *SLATE, *CLUSTERED, "mean"}


if __name__ == "__main__":

    def rounded(x: Any) -> Any:
        return float(f"{x:.7g}") if isinstance(x, float) else x

    table = {case: answers(case) for case in CASES}
    for case in table.values():
        case["rows"] = [{name: rounded(x) for name, x in row.items()} for row in case["rows"]]
    rows = ",\n".join(
        f' {json.dumps(case)}: {{"difference": {json.dumps(of["difference"])}, "rows": [\n  '
        + ",\n  ".join(map(json.dumps, of["rows"]))
        + "\n ]}"
        for case, of in table.items()
    )
    STORED.write_text("{\n" + rows + "\n}\n", encoding="utf-8")

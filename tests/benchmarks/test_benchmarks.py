"""The benchmarks run, say what is missing, and count what they claim; how fast is not a test's matter."""

from __future__ import annotations

import itertools
import json
import subprocess
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import learning, planner, proofs, simulator, throughput, time_to_quality
from benchmarks.harness import commands, tables
from benchmarks.harness.turns import System
from benchmarks.harness.world import World, make_world
from benchmarks.peers import PEERS
from tests.doors import benchmark_here

MODULES = [*(peer.module for peer in PEERS.values()), "recsim", "sardine"]


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(seed=0, num_items=20, num_users=20)


@pytest.mark.proof
@pytest.mark.parametrize(
    ("benchmark", "peers"),
    [
        (throughput, ["stable-baselines3", "sbx", "tianshou", "torchrl"]),
        (simulator, ["recsim", "sardine"]),
        (time_to_quality, ["stable-baselines3", "sbx", "tianshou", "torchrl"]),
    ],
    ids=["throughput", "simulator", "time_to_quality"],
)
def test_smoke(benchmark: ModuleType, peers: list[str], tmp_path: Path) -> None:
    """It runs with our package alone, measures us, and says of each peer that it isn't installed."""
    options = ["--smoke", "--threads", "1", "--json", "table.json"]
    benchmark_here(benchmark.main, tmp_path, *options, without=MODULES)
    table = json.loads((tmp_path / "table.json").read_text())
    assert set(table["about"]) == {"date", "hardware", "commit", "python", "torch"}
    ours = [row for row in table["rows"] if row["system"] == "recsys_rl"]
    assert ours and all(row["steps_per_s"] > 0 and row["settings"] for row in ours)
    theirs = [row for row in table["rows"] if row["system"] != "recsys_rl"]
    assert list(dict.fromkeys(row["system"] for row in theirs)) == peers
    assert all(row["steps_per_s"] is None and row["note"] == "not installed" for row in theirs)
    if benchmark is throughput:
        assert table["floor_steps_per_s"] > 0
        assert all(row["floor_steps_per_s"] > 0 for row in table["rows"])
        # Shares of two times: a busy machine can slow the floor down by more than our update.
        assert ours[0]["update_share_of_floor"] > 0 and ours[0]["rollout_share_of_floor"] > 0
        assert ours[-1]["settings"] == "flagship" and ours[-1]["update_share_of_floor"] > 0
        assert ours[-1]["share_low"] == ours[-1]["update_share_of_floor"] == ours[-1]["share_high"]
    assert [path.name for path in tmp_path.iterdir()] == ["table.json"]  # no CSV, nothing half-written


@pytest.mark.proof
def test_smoke_of_planner(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A wider search tries all that the planner tries, and so earns no less on a world without noise."""
    benchmark_here(planner.main, tmp_path, "--smoke", "--json", "table.json")
    first, *wider = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert first["search"] == "as it is" and "gain" not in first
    assert len(wider) == 3 and all(row["gain_low"] <= row["gain"] <= row["gain_high"] for row in wider)
    assert all(row["gain"] >= -0.02 for row in wider)
    benchmark_here(planner.main, tmp_path, "--smoke", "--env", "long-video", "--only", "0", "3")
    assert "twice the futures" in capsys.readouterr().out
    wrong = ["--smoke", "--env", "long-video", "--only", "0", "4"]
    with pytest.raises(SystemExit, match="2"):
        benchmark_here(lambda: tables.run(planner.main), tmp_path, *wrong)
    assert "--only has places 0 to 3" in capsys.readouterr().err


@pytest.mark.proof
def test_smoke_of_proofs(tmp_path: Path) -> None:
    """Two outcomes as shipped, one with other instructions, and a bound that has room for all three."""
    benchmark_here(proofs.main, tmp_path, "--smoke", "--json", "table.json")
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    name = "agents/test_learning.py::test_best_arm_of_each_context_is_learned[0-a2c]"
    assert [row["proof"] for row in rows] == [name] * 3 + [f"{name} values"] * 3
    assert [(row["way"], row["runs"]) for row in rows] == [("as shipped", 2), ("default", 1), ("all", 3)] * 2
    assert all(row["smallest"] <= row["mean"] <= row["largest"] for row in rows)
    first, values = rows[2], rows[5]
    assert first["safe"] and 1 / 3 < first["above"] <= first["limit"] <= first["mean"]
    assert values["safe"] and values["below"] >= values["limit"] >= values["mean"]
    assert [path.name for path in tmp_path.iterdir()] == ["table.json"]


def test_a_bound_is_safe_five_deviations_from_the_mean() -> None:
    """1 and 3 have mean 2 and deviation 1."""
    each = [{"outcome": x, "above": -3.0, "below": None} for x in (1.0, 3.0)]
    *ways, every = proofs.table({"a": {"as shipped": each[:1], "avx2": each[1:]}})
    assert [(row["way"], row["mean"]) for row in ways] == [("as shipped", 1), ("avx2", 3)]
    assert (every["way"], every["mean"], every["deviation"], every["runs"]) == ("all", 2, 1, 2)
    assert (every["limit"], every["above"], every["safe"]) == (-3, -3, True)
    assert not proofs.judged(every, above=-2.9, below=None)["safe"]
    assert proofs.judged(every, above=None, below=7.0)["safe"]
    assert not proofs.judged(every, above=None, below=6.9)["safe"]


@pytest.mark.proof
def test_smoke_of_learning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    benchmark_here(learning.main, tmp_path, "drift", "--seeds", "3", "--smoke")
    out = capsys.readouterr().out
    assert "\ndrift, seeds 3: mean over seeds" in out
    rows = [line.split()[1] for line in out.splitlines() if line.startswith("| ")]
    assert rows[1:5] == ["ppo", "ppo-greedy", "ranker", "ranker-greedy"] and rows[-1] == "oracle"
    assert "\nyardstick: " in out and "seed 3: ppo-greedy " in out and ", ranker-greedy " in out


def test_a_command_has_a_process_of_its_own(tmp_path: Path) -> None:
    """As all full runs have, and no smoke run."""
    commands.recsys_rl(tmp_path, ["--version"])
    with pytest.raises(subprocess.CalledProcessError):
        commands.recsys_rl(tmp_path, ["no-such-command"])


def test_gains_by_hand() -> None:
    """Over the seed's yardstick and over `ranker`, with whether the intervals are disjoint."""
    values = {"ppo": (12, 11, 13), "ranker": (10, 9, 11), "mf": (8, 7, 9), "rule": (10, 9.5, 11.5)}
    rows = [
        {"policy": name + end, "return_mean": mean, "return_low": low, "return_high": high}
        for name, (mean, low, high) in values.items()
        for end in ("", "-greedy")
        if not (end and name in ("mf", "rule"))
    ]
    first, second, *_ = learning.gains("ppo", {"rows": rows, "yardstick": "rule"})
    assert first == "ppo 12.00 [11.00, 13.00], rule 10.00 [9.50, 11.50]: gain +20.0%, intervals overlap"
    assert second == "ppo 12.00 [11.00, 13.00], ranker 10.00 [9.00, 11.00]: gain +20.0%, intervals overlap"
    lines = learning.gains("ppo", {"rows": rows, "yardstick": "mf"})
    assert lines[0].endswith("gain +50.0%, intervals disjoint")


def test_floor_counts_the_products(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every product a second long: 8 rollout steps of 5 layers; 2 minibatches of 5 forward products,
    5 for the weights' gradients, and 3 for those of what came before (not for the two first layers)."""
    monkeypatch.setattr(throughput, "_seconds", lambda *arguments: 1.0)
    found = throughput.floor(world, throughput.SMOKE["batched"])
    assert found == {"rollout_s": 8 * 5, "update_s": 2 * (5 + 5 + 3), "steps_per_s": 4 * 8 / 66}


def test_floor_of_the_flagship_counts_the_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """With every product a second long, of each minibatch: 2 of the sums, 3 of each of 7 layers (4 hidden,
    value, query, scores), 2 of the items' tower. 4 epochs of 2,048 samples in minibatches of 512."""
    monkeypatch.setattr(throughput, "_seconds", lambda *arguments: 1.0)
    world, dials = throughput.flagship_run(updates=2)
    assert dials.num_updates == 3
    assert throughput.flagship_floor(world, dials) == 4 * 4 * (2 + 3 * 7 + 2)


def test_users_per_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that moves a second at each look: 9 steps of 7 users fit 10 seconds, and 12 pass by the end.

    The clock of the processor's work is looked at twice: 3 seconds pass.
    """
    ticks, work = itertools.count(), itertools.count(0, 3)
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(ticks)))
    monkeypatch.setattr(time, "process_time", lambda: float(next(work)))
    found = simulator.per_second(lambda: 7, 10.0)
    assert found == {"steps_per_s": 9 * 7 / 12, "steps_per_cpu_s": 9 * 7 / 3}


def test_random_slates_are_uniform_without_repetition() -> None:
    """Of 4 items the slates of 3 places are 24, each with a chance of 1/24, within 4 standard errors."""
    generator = torch.Generator().manual_seed(0)
    slates = simulator.random_slates(4, 24_000, 3, generator)
    assert slates.shape == (24_000, 3) and slates.dtype == torch.int64
    counts = torch.unique(slates, dim=0, return_counts=True)[1]
    assert len(counts) == 24 and (counts - 1000).abs().max() < 4 * 31
    assert (slates.sort(1).values.diff(dim=1) > 0).all()


@pytest.mark.parametrize("system", simulator.SYSTEMS, ids=lambda system: f"{system.name}-{system.settings}")
def test_simulators_step(system: System) -> None:
    pytest.importorskip(system.module)
    small = make_world(seed=0, num_items=300, num_users=20, env="satiation")  # enough for slates of six
    assert system.measure(small, 0.05)["steps_per_s"] > 0


def test_the_oracle_has_all_of_the_optimum(world: World) -> None:
    size = world.config.env_config.embedding_dim

    def best(context: Tensor, greedy: bool) -> Tensor:
        return (context[:, :size] @ world.catalogue.embedding.T).argmax(-1)

    def worst(context: Tensor, greedy: bool) -> Tensor:
        return (context[:, :size] @ world.catalogue.embedding.T).argmin(-1)

    assert time_to_quality.heldout_share(world, best, 0, True) == pytest.approx(1, abs=1e-5)
    assert time_to_quality.heldout_share(world, worst, 0, True) < 0


def test_the_clock_of_a_course_stands_still_while_held_out_users_play(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An update takes 10 s and a look 1000 s; a look every second update, as updates are 1,024 steps."""
    now = [0.0]
    shares = iter([0.5, 0.91, 0.92, 0.96, 0.89, 0.97])  # sampled and greedy, at each look

    def share(*arguments: Any, **options: Any) -> float:
        now[0] += 1000
        return next(shares)

    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(time_to_quality, "heldout_share", share)
    run = time_to_quality.OpenRun(world, 0, per_update=1024, total_steps=6 * 1024)
    assert run.between(lambda context, greedy: context)
    goes_on = []
    for _ in range(6):
        now[0] += 10
        goes_on.append(run.between(lambda context, greedy: context))
    assert goes_on == [True] * 6 and next(shares, None) is None
    assert (run.seconds, run.step) == (60, 6 * 1024)
    assert run.reached == {
        ("greedy", 0.90): (20, 2048),
        ("sampled", 0.90): (40, 4096),
        ("greedy", 0.95): (40, 4096),
    }
    assert run.best == {"sampled": 0.92, "greedy": 0.97}

    made = System("x", "some", "torch", "json", dict)
    never = time_to_quality.OpenRun(world, 0, 1024, 6 * 1024, seconds=30, step=6144, best=dict(run.best))
    sampled, greedy = time_to_quality.summary(made, [{"course": run}, {"course": never}, {"course": run}])
    assert (greedy["seconds_to_0.95"], greedy["steps_to_0.95"], greedy["seeds_to_0.95"]) == (
        40,
        4096,
        "2 of 3",
    )
    assert sampled["seconds_to_0.95"] is None and sampled["seeds_to_0.95"] == "0 of 3"
    assert sampled["note"] == "0.95 not reached within 6,144 steps" and "note" not in greedy
    assert greedy["steps_per_s"] == 6144 / 60

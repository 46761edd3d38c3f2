"""The benchmarks run, say what is missing, and count what they claim; how fast is not a test's matter."""

from __future__ import annotations

import csv
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import learning, original, simulator, tables, throughput, time_to_quality
from benchmarks.peers import PEERS, Act, World, make_world
from benchmarks.tables import Row, System
from recsys_rl.types import UserError
from tests.doors import ROOT, benchmark_without, finish, start

MODULES = [*(peer.module for peer in PEERS.values()), "recsim", "sardine"]


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(seed=0, num_items=20, num_users=20)


def run_without_peers(benchmark: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return benchmark_without(MODULES, benchmark, folder, *options)


@pytest.mark.parametrize(
    ("benchmark", "peers"),
    [
        ("throughput", ["stable-baselines3", "sbx", "tianshou", "torchrl"]),
        ("simulator", ["recsim", "sardine"]),
        ("time_to_quality", ["stable-baselines3", "sbx", "tianshou", "torchrl"]),
    ],
)
def test_smoke(benchmark: str, peers: list[str], tmp_path: Path) -> None:
    """It runs with our package alone, measures us, and says of each peer that it isn't installed."""
    done = run_without_peers(benchmark, tmp_path, "--smoke", "--threads", "1", "--json", "table.json")
    assert done.returncode == 0, done.stderr
    table = json.loads((tmp_path / "table.json").read_text())
    assert set(table["about"]) == {"date", "hardware", "commit", "python", "torch"}
    ours = [row for row in table["rows"] if row["system"] == "recsys_rl"]
    assert ours and all(row["steps_per_s"] > 0 and row["dials"] for row in ours)
    theirs = [row for row in table["rows"] if row["system"] != "recsys_rl"]
    assert list(dict.fromkeys(row["system"] for row in theirs)) == peers
    assert all(row["steps_per_s"] is None and row["note"] == "not installed" for row in theirs)
    if benchmark == "throughput":
        assert table["floor_steps_per_s"] > 0
        assert all(row["floor_steps_per_s"] > 0 for row in table["rows"])
        assert 0 < ours[0]["update_share_of_floor"] < 1
        assert 0 < ours[0]["rollout_share_of_floor"] < 1
        assert ours[-1]["dials"] == "flagship" and 0 < ours[-1]["update_share_of_floor"] < 1
    assert [path.name for path in tmp_path.iterdir()] == ["table.json"]  # no CSV, nothing half-written


def test_the_original_is_timed_as_its_user_runs_it(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in that fails if it is asked for another number of steps, and leaves a file where it runs."""
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents/ppo.py").touch()
    command = tmp_path / "train.py"
    command.write_text("import sys; assert sys.argv[4] in ('2048', '6144'); open('checkpoint', 'w')")
    original.check(tmp_path)
    dials = throughput.dials(8, 256, 64, 10, updates=2)
    row = original.original(tmp_path, world, dials)
    assert row["steps_per_s"] and sorted(x.name for x in tmp_path.iterdir()) == ["agents", "train.py"]
    with monkeypatch.context() as patch:  # two seconds until it begins, and then a millisecond a step
        patch.setattr(original, "_seconds", lambda folder, steps: 2 + steps / 1000)
        assert original.original(tmp_path, world, dials)["steps_per_s"] == pytest.approx(1000)
    command.write_text("raise SystemExit('no numpy here')")
    system = System("original", "", "", "torch", partial(original.original, tmp_path))
    assert tables.attempt(system, world, dials) == {"note": "RuntimeError: no numpy here"}
    note = original.original(None, world, dials)["note"]
    assert note.startswith("not given: --original DIR")
    with pytest.raises(UserError, match=r"holds no train\.py"):
        original.check(tmp_path / "agents")


def test_smoke_of_planner(tmp_path: Path) -> None:
    """A wider search tries all that the planner tries, and so earns no less on a world without noise."""
    done = run_without_peers("planner", tmp_path, "--smoke", "--json", "table.json")
    assert done.returncode == 0, done.stderr
    first, *wider = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert first["search"] == "as it is" and first["gain"] is None
    assert len(wider) == 3 and all(row["gain"] >= -0.02 for row in wider)


@pytest.mark.slow
def test_smoke_of_learning(tmp_path: Path) -> None:
    code, out, err = finish(start(tmp_path, "benchmarks.learning", "drift", "--seeds", "3", "--smoke"))
    assert code == 0, err
    assert "\ndrift, seeds 3: mean over seeds" in out
    rows = [line.split()[1] for line in out.splitlines() if line.startswith("| ")]
    assert rows[1:5] == ["ppo", "ppo-greedy", "ranker", "ranker-greedy"] and rows[-1] == "oracle"
    assert "\nyardstick: " in out and "seed 3: ppo-greedy " in out and ", ranker-greedy " in out


def test_seeds_of_learning_are_named() -> None:
    assert learning.parse_seeds("0-4") == [0, 1, 2, 3, 4]
    assert learning.parse_seeds("7") == [7]
    assert learning.parse_seeds("3,0,5-6") == [3, 0, 5, 6]
    for text in ("", "4-2", "1,1", "0-2,2", "many", "1--2", "-1"):
        with pytest.raises(ValueError):  # noqa: PT011 (argparse words it)
            learning.parse_seeds(text)


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


def test_a_table_of_an_older_version_gets_the_new_columns(tmp_path: Path) -> None:
    table = tmp_path / "learning.csv"
    table.write_text("date,policy,return_mean\n2026-11-24,ppo,17.25\n")
    learning.add_columns(table)
    with table.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert tuple(row) == learning.COLUMNS
    assert (row["date"], row["policy"], row["return_mean"], row["share"]) == (
        "2026-11-24",
        "ppo",
        "17.25",
        "",
    )
    before = table.read_bytes()
    learning.add_columns(table)
    assert table.read_bytes() == before


@pytest.mark.parametrize("benchmark", ["throughput", "simulator", "time_to_quality"])
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--json", "{folder}"], "--json"),
        (["--csv", "{folder}/file/x.csv"], "--csv"),
        (["--threads", "-1"], "--threads is -1: it must be at least 0."),
        (["--fast"], "--fast"),
    ],
)
def test_a_mistake_is_told_before_anything_is_measured(
    benchmark: str,
    options: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").touch()
    argv = [benchmark, "--smoke", *(option.format(folder=tmp_path) for option in options)]
    monkeypatch.setattr(sys, "argv", argv)
    module = {"throughput": throughput, "simulator": simulator, "time_to_quality": time_to_quality}[benchmark]
    monkeypatch.setattr(module, "make_world", None)  # to be called is to fail
    with pytest.raises(SystemExit) as ended:
        tables.run(module.main)
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1 and says in err


def test_exit_code_of_the_command(tmp_path: Path) -> None:
    for option, value in (("--rounds", "0"), ("--rounds", "many"), ("--json", "/dev/null/x.json")):
        code, out, err = finish(start(tmp_path, "benchmarks.simulator", "--smoke", option, value))
        assert (code, out) == (2, "")
        assert option in err and "Traceback" not in err and len(err.splitlines()) == 1


def system(name: str, measure: Any, module: str = "json") -> System:
    return System(name, "some", "torch", module, measure)


def test_rounds_are_interleaved_and_the_table_has_medians() -> None:
    numbers = {"a": iter([1.0, 9.0, 2.0]), "b": iter([40.0, 10.0, 20.0])}
    turns: list[str] = []

    def measure(name: str) -> Row:
        turns.append(name)
        return {"steps_per_s": next(numbers[name])}

    rows = tables.interleaved([system("a", lambda: measure("a")), system("b", lambda: measure("b"))], 3)
    assert turns == ["a", "b", "a", "b", "a", "b"]
    assert [row["steps_per_s"] for row in rows] == [2.0, 20.0]
    assert (
        rows[0]["version"] == torch.__version__.partition("+")[0] or rows[0]["version"] == torch.__version__
    )
    tables.add_ratios(rows, 2.0)
    assert [row["ours_over_it"] for row in rows] == [1.0, 0.1]


def test_a_peer_that_breaks_has_a_row_and_the_others_go_on() -> None:
    calls = itertools.count()

    def breaks() -> Row:
        if next(calls) == 1:
            raise RuntimeError("out of luck\nand more")
        return {"steps_per_s": 5.0}

    peers = [
        system("broken", breaks),
        system("missing", breaks, module="no_such_package"),
        system("well", lambda: {"steps_per_s": 7.0}),
    ]
    broken, missing, well = tables.interleaved(peers, 4)
    assert broken["note"] == "RuntimeError: out of luck" and broken["steps_per_s"] is None
    assert missing["note"] == "not installed" and missing["steps_per_s"] is None
    assert well["steps_per_s"] == 7.0
    assert next(calls) == 2  # it is not tried again

    def needs_more() -> Row:
        raise ModuleNotFoundError("No module named 'abacus'", name="abacus")

    (row,) = tables.interleaved([system("half", needs_more)], 1)  # installed, but not whole
    assert row["note"] == "ModuleNotFoundError: No module named 'abacus'"
    with pytest.raises(RuntimeError):  # our own mistakes are not a row
        tables.interleaved([system("recsys_rl", _raise, module="recsys_rl")], 1)


def _raise() -> Row:
    raise RuntimeError


def test_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """JSON without NaN; a CSV whose older rows had other columns keeps them."""
    older = tmp_path / "old.csv"
    older.write_text("date,system,colour\n2020-01-01,old,red\n")
    args = tables.parse(tables.parser(""), "x", ["--json", str(tmp_path / "x.json"), "--csv", str(older)])
    tables.publish([{"system": "new", "steps_per_s": 1234.56, "share": math.nan}], args, floor=0.123456)
    table = json.loads((tmp_path / "x.json").read_text())
    assert table["rows"] == [{"system": "new", "steps_per_s": 1235, "share": None}]
    assert table["floor"] == 0.1235
    with older.open() as file:
        old, new = csv.DictReader(file)
    assert (old["date"], old["system"], old["colour"], old["steps_per_s"]) == ("2020-01-01", "old", "red", "")
    assert (new["system"], new["colour"], new["steps_per_s"]) == ("new", "", "1235")
    assert new["commit"] and new["torch"] == torch.__version__
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old.csv", "x.json"]
    assert "steps_per_s=1235" in capsys.readouterr().out


def test_csv_goes_to_the_results_unless_it_is_a_smoke_run() -> None:
    assert tables.parse(tables.parser(""), "x", ["--smoke"]).csv is None
    assert tables.parse(tables.parser(""), "x", []).csv == ROOT / "benchmarks" / "results" / "x.csv"
    with pytest.raises(UserError, match="--seeds is 0: it must be at least 1"):
        tables.parse(tables.parser("", "seeds", 5), "x", ["--seeds", "0"])


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
    assert throughput.flagship_floor(world, dials)["update_s"] == 4 * 4 * (2 + 3 * 7 + 2)


def test_users_per_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that moves a second at each look: 9 steps of 7 users fit 10 seconds, and 12 pass by the end."""
    ticks = itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(ticks)))
    assert simulator.per_second(lambda: 7, 10.0) == {"steps_per_s": 9 * 7 / 12}


@pytest.mark.parametrize("system", simulator.SYSTEMS, ids=lambda system: f"{system.name}-{system.dials}")
def test_simulators_step(system: System) -> None:
    pytest.importorskip(system.module)
    small = make_world(seed=0, num_items=30, num_users=20, env="satiation")
    assert system.measure(small, 0.05)["steps_per_s"] > 0


@pytest.mark.parametrize("name", PEERS)
def test_peers_train_and_act(name: str, world: World) -> None:
    """``between`` comes before the first rollout and after each update, with a policy for batches."""
    pytest.importorskip(PEERS[name].module)
    train = PEERS[name].train
    dials = throughput.dials(4, 8, 16, 1, updates=2)
    context = torch.zeros(9, world.config.env_config.state_dim)
    shown: list[Tensor] = []

    def between(act: Act) -> bool:
        items = act(context, True)
        assert items.shape == (9,) and len(set(items.tolist())) == 1  # the same users, the same answer
        sampled = torch.cat([act(context, False) for _ in range(8)])
        assert sampled.dtype == torch.int64 and len(sampled.unique()) > 1
        assert int(sampled.min()) >= 0 and int(sampled.max()) < 20
        shown.append(items)
        return True

    train(world.env(4, 0), dials, 0, between)
    assert len(shown) == 1 + 3

    calls = itertools.count()
    train(world.env(4, 0), dials, 0, lambda act: next(calls) < 1)
    assert next(calls) == 2  # it stopped when it was told to


def test_torchrl_sees_whole_sessions(world: World) -> None:
    """At an end the next observation is the true successor, and the one after it begins a session."""
    pytest.importorskip("torchrl")
    from benchmarks.torchrl_ppo import BatchedDrift

    played = BatchedDrift(world.env(3, 0)).rollout(25, break_when_any_done=False)  # (3, 25)
    before, after = played["observation"], played["next", "observation"]
    size = world.config.env_config.embedding_dim
    assert played["next", "truncated"][:, 19].all() and not played["next", "terminated"].any()
    assert torch.equal(after[:, :19], before[:, 1:20])
    shown = world.catalogue.embedding[played["action"][:, 19]]
    assert torch.equal(after[:, 19, size:], shown)  # the last item of the session that ended
    assert (before[:, 20, size:] == 0).all()  # nothing shown yet


def test_tianshou_sees_whole_sessions(world: World) -> None:
    pytest.importorskip("tianshou")
    from benchmarks.tianshou_ppo import BatchedDrift

    venv, ids, items = BatchedDrift(world.env(3, 0)), [0, 1, 2], [5, 6, 7]
    size = world.config.env_config.embedding_dim
    venv.reset()
    for step in range(20):
        after, _, terminated, truncated, _ = venv.step(items, ids)
        assert truncated.all() == (step == 19) and not terminated.any()
    assert (after[:, size:] == world.catalogue.embedding[items].numpy()).all()
    fresh, _ = venv.reset([0, 2])
    assert fresh.shape == (2, 2 * size) and (fresh[:, size:] == 0).all()


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
    run = time_to_quality.Course(world, 0, per_update=1024, total_steps=6 * 1024)
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

    made = system("x", None)
    never = time_to_quality.Course(world, 0, 1024, 6 * 1024, seconds=30, step=6144, best=dict(run.best))
    sampled, greedy = time_to_quality.summary(made, [{"course": run}, {"course": never}, {"course": run}])
    assert (greedy["seconds_to_0.95"], greedy["steps_to_0.95"], greedy["seeds_to_0.95"]) == (
        40,
        4096,
        "2 of 3",
    )
    assert sampled["seconds_to_0.95"] is None and sampled["seeds_to_0.95"] == "0 of 3"
    assert sampled["note"] == "0.95 not reached within 6,144 steps" and "note" not in greedy
    assert greedy["steps_per_s"] == 6144 / 60


def test_apart_measures_in_a_process_of_its_own() -> None:
    """As all full runs do, and no smoke run."""
    found = tables.apart(System("peer", "d", "torch", "torch", _own_pid))
    assert found["pid"] != os.getpid() and found["peak_mb"] > 10


def test_a_peer_that_is_killed_gets_a_row() -> None:
    found = tables.apart(System("peer", "d", "torch", "torch", _killed))
    assert "ended by a signal" in found["note"]


def _own_pid() -> Row:
    return {"pid": os.getpid()}


def _killed() -> Row:
    os.kill(os.getpid(), signal.SIGKILL)
    return {}

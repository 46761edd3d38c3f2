"""Several processes, one policy: averages, checkpoints, errors and the end of such a run."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from recsys_rl.checkpoint import load
from recsys_rl.cli import main
from recsys_rl.cli.train import train_options
from recsys_rl.distributed import group
from recsys_rl.distributed.group import sized
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.evaluation.rivals.references import Oracle
from recsys_rl.experience import on_policy
from recsys_rl.experience.rollout import collect, play
from recsys_rl.make import make_agent, make_env, make_world
from recsys_rl.protocols import Policy
from recsys_rl.settings.config import Config
from recsys_rl.training import learning_curve, loop
from recsys_rl.training.begin import begin
from recsys_rl.training.ranks import Ranks
from recsys_rl.training.train import Interrupted, train
from recsys_rl.types import Rollout, UserError, World, tree_map
from recsys_rl.utils.logger import read_log
from recsys_rl.utils.seeding import generators
from tests.doors import (
    A2C,
    CARTPOLE,
    DQN,
    DRIFT,
    PATIENCE,
    SATIATION,
    assert_names,
    assert_same_weights,
    finish,
    start,
    steps,
    weights,
)
from tests.proofs import Proof

CPU = torch.device("cpu")
TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "recsys_rl.cli", "train")
PLAIN_CARTPOLE = [word for word in CARTPOLE if not word.startswith("--normalize")]
PLAIN_CARTPOLE += ["--no-normalize-obs", "--no-normalize-reward"]


class Threads(Ranks):
    """Ranks that are threads of this process and exchange tensors through one list."""

    def __init__(self, rank: int, size: int, shared: list[Any], barrier: threading.Barrier) -> None:
        self.rank, self.size, self.shared, self.barrier = rank, size, shared, barrier
        self.requests: list[int] = []
        self.stop_after = -1  # updates until a request to stop reaches this rank

    def gather(self, mine: Mapping[str, Tensor]) -> list[Mapping[str, Tensor]]:
        if "stop" in mine:  # once in each update
            self.stop_after -= 1
            self.requests += [signal.SIGTERM] * (self.stop_after == 0)
        self.shared[self.rank] = {name: x.clone() for name, x in mine.items()}
        self.barrier.wait(60)
        everyone = list(self.shared)
        self.barrier.wait(60)
        return everyone

    def average(self, x: Tensor) -> None:
        x.copy_(torch.stack([other["x"] for other in self.gather({"x": x})]).mean(0))

    def stop_requests(self) -> AbstractContextManager[list[int]]:
        return nullcontext(self.requests)


def together(size: int, work: Callable[[Threads], Any]) -> list[Any]:
    """Run ``work`` in each of ``size`` ranks; the results or errors in the order of ranks."""
    results: list[Any] = [None] * size
    shared: list[Any] = [None] * size
    barrier = threading.Barrier(size)

    def target(rank: int) -> None:
        try:
            results[rank] = work(Threads(rank, size, shared, barrier))
        except (UserError, Interrupted) as error:  # all ranks raise these at the same point
            results[rank] = error
        except BaseException as error:
            results[rank] = error
            barrier.abort()

    threads = [threading.Thread(target=target, args=(rank,), name=f"rank {rank}") for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def settings(options: list[str], *more: str) -> Config:
    return train_options([*options, *more]).config


def of_two(options: list[str], *more: str) -> Config:
    """The settings of a run of two processes."""
    config = settings(options, *more)
    return dataclasses.replace(config, train_config=dataclasses.replace(config.train_config, num_processes=2))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ---- shared and separate parts of ranks


def joined(rollouts: list[Rollout]) -> Rollout:
    """One rollout of the users of all ranks, joined along N."""
    first, *rest = rollouts
    both = tree_map(lambda *xs: torch.cat(xs, 1), first, *rest)
    obs = tree_map(lambda *xs: torch.cat(xs, 1), first.obs, *(other.obs for other in rest))
    return dataclasses.replace(both, obs=obs)


@pytest.mark.parametrize("options", [DRIFT, SATIATION, A2C], ids=["drift", "satiation", "a2c"])
def test_mean_gradient_equals_the_gradient_of_all_users(options: list[str]) -> None:
    """One minibatch of 24 samples in one process, and 12 in each of two."""
    more = ["--no-normalize-advantage"]
    more += [] if options is A2C else ["--batch-size", "24", "--update-epochs", "1"]
    config = of_two(options, *more)

    def work(ranks: Threads) -> tuple[Rollout, list[Tensor]]:
        seen: list[Tensor] = []
        run = begin(config, None, CPU, ranks)
        average = ranks.average

        def record(x: Tensor) -> None:
            average(x)
            seen.append(x.clone())

        patched = _with_average(run.agent, record)
        rollout, _ = collect(run.env, patched, run.env.observe(), 6)
        patched.update(rollout)
        return rollout, seen

    (first, seen), (second, seen_there) = together(2, work)
    assert not torch.equal(first.items, second.items)  # each rank has its own users
    alone: list[Tensor] = []
    run = begin(settings(options, *more), None, CPU)
    agent = _with_average(run.agent, lambda x: alone.append(x.clone()))
    agent.update(joined([first, second]))
    # Besides gradients the two moments of the rewards are averaged, and with target_kl a scalar.
    (ours,), (theirs,), (whole,) = ([x for x in xs if x.numel() > 2] for xs in (seen, seen_there, alone))
    assert torch.equal(ours, theirs) and whole.abs().max() > 1e-3
    assert_close(ours, whole, rtol=1e-4, atol=1e-6)


def _with_average(agent: Any, average: Callable[[Tensor], None]) -> Any:
    """A new agent with the same network and another averaging function."""
    return type(agent)(agent.model, agent.config, agent.num_updates, agent.generators, average)


def test_ranks_have_different_streams() -> None:
    """All ranks share the stream of weights and have their own users and items; rank 0 equals one process."""

    config = of_two(DRIFT)

    def work(ranks: Threads) -> dict[str, int]:
        run = begin(config, None, CPU, ranks)
        assert run.env.num_envs == 2 and run.per_update == 24  # of 4 users and 6 steps
        return {name: stream.initial_seed() for name, stream in run.streams.items()}

    first, second = together(2, work)
    lone = begin(settings(DRIFT), None, CPU)
    assert first == {name: stream.initial_seed() for name, stream in lone.streams.items()}
    assert [name for name in first if first[name] == second[name]] == ["model"]


@pytest.mark.parametrize("name", ["settings", "data", "weights"])
def test_ranks_with_different_settings_do_not_begin(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other data on rank 1, or other weights, as another torch or processor could draw them."""
    if name == "data":
        make = make_world

        def other_edition(*arguments: Any) -> Any:
            catalogue, population = make(*arguments)
            if threading.current_thread().name == "rank 1":
                catalogue = dataclasses.replace(catalogue, quality=catalogue.quality + 0.125)
            return World(catalogue, population)

        monkeypatch.setattr("recsys_rl.training.begin.make_world", other_edition)
    if name == "weights":
        real = generators

        def other_draws(seed: int, *names: str, **more: Any) -> Any:
            return real(seed + (threading.current_thread().name == "rank 1"), *names, **more)

        monkeypatch.setattr("recsys_rl.training.begin.generators", other_draws)

    rates = ("0.25", "0.5" if name == "settings" else "0.25")
    configs = [of_two(DRIFT, "--lr", lr) for lr in rates]

    def work(ranks: Threads) -> None:
        begin(configs[ranks.rank], None, CPU, ranks)

    for error in together(2, work):
        assert isinstance(error, UserError)
        assert_names(str(error), f"different {name}", "options", "data", "checkpoint", "torch")


def test_different_weights_on_ranks_are_not_saved(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One bit of one weight differs in rank 1."""
    config = of_two(DRIFT, *steps(9), "--save-interval", "2")

    def nudge(env: Any, agent: Any, *arguments: Any) -> Any:
        if threading.current_thread().name == "rank 1" and agent.updates == 2:
            weight = next(agent.model.parameters()).data
            weight.view(-1)[0] = torch.nextafter(weight.view(-1)[0], torch.tensor(9.0))
        return collect(env, agent, *arguments)

    monkeypatch.setattr(on_policy, "collect", nudge)
    for error in together(2, lambda ranks: train(config, ranks=ranks)):
        assert str(error).startswith(
            "The processes' weights have drifted apart by step 96: use machines with the same"
        )
    assert load(Path("checkpoints/ppo.pt")).updates == 2


# ---- the log and the checkpoint


@pytest.mark.parametrize(
    "options",
    [DRIFT, SATIATION, A2C, DQN, PLAIN_CARTPOLE, [*DRIFT, "--target-kl", "1e-4", "--update-epochs", "9"]],
    ids=["drift", "satiation", "a2c", "dqn", "gym", "target_kl"],
)
def test_stopped_run_resumes_bit_for_bit(options: list[str], here: Path) -> None:
    """A request to rank 1 stops both ranks after the same update; the resumed run equals a whole one."""
    config = of_two(options, *steps(7))
    algo = config.algo
    assert all(isinstance(x, Path) for x in together(2, lambda ranks: train(config, ranks=ranks)))

    def in_pieces(name: str, resume: bool, stop_after: int) -> list[Any]:
        def work(ranks: Threads) -> Path:
            ranks.stop_after = stop_after if ranks.rank else -1
            return train(config, resume, ranks, folder=name)

        return together(2, work)

    stopped = in_pieces("pieces", False, 3)
    assert all(isinstance(x, Interrupted) for x in stopped), stopped
    assert load(Path(f"pieces/{algo}.pt")).updates == 4
    assert all(isinstance(x, Path) for x in in_pieces("pieces", True, -1))
    one, two = load(Path(f"checkpoints/{algo}.pt")), load(Path(f"pieces/{algo}.pt"))
    assert_same_weights(Path(f"checkpoints/{algo}.pt"), Path(f"pieces/{algo}.pt"))
    for part in ("env", "generators"):
        mine, other = getattr(one, part), getattr(two, part)
        assert {n: x.tolist() for n, x in mine.items()} == {n: x.tolist() for n, x in other.items()}
    assert {name: x.tolist() for name, x in one.experience.items()} == {
        name: x.tolist() for name, x in two.experience.items()
    }
    assert one.info["curve"] == two.info["curve"]
    assert {"users", "rank1/users"} <= one.generators.keys()
    assert one.step == 7 * 24 and one.config.agent_config.num_envs == 4
    assert len(one.experience["running"]) == len(one.experience["rank1/running"]) == 2


def test_ranks_of_a_replay_have_their_own_buffers_and_the_same_weights() -> None:
    """Each rank plays two of the four users, and its buffer is half as large: learning starts as alone."""
    config = of_two(DQN, *steps(4))

    def work(ranks: Threads) -> tuple[dict[str, Tensor], dict[str, Tensor], list[float]]:
        run = begin(config, None, CPU, ranks)
        losses = [run.agent.update(run.experience.batch().data)["loss"] for _ in range(run.num_updates)]
        return run.agent.state_dict(), run.experience.state_dict(), losses

    (one, own, losses), (two, other, _) = together(2, work)
    assert {name: x.tolist() for name, x in one.items()} == {name: x.tolist() for name, x in two.items()}
    assert own["ring.items"].shape == other["ring.items"].shape == (15, 2, 1)  # slots of a rank's two users
    assert not torch.equal(own["ring.items"], other["ring.items"])
    assert losses[0] == 0 and min(losses[1:]) > 0  # 24 transitions are fewer than 30
    start = begin(config, None, CPU, Ranks()).agent.state_dict()
    changed = {name.partition(".")[0] for name, x in start.items() if not torch.equal(x, one[name])}
    assert {"model", "target"} <= changed


def test_log_covers_all_ranks(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Means over ranks, returns of all ranks' sessions; only rank 0 evaluates and writes."""
    rewards: dict[int, list[float]] = {0: [], 1: []}
    evaluated: list[int] = []
    config = of_two(DRIFT, *steps(5))
    exchange, evaluate = loop.exchange, learning_curve.evaluate_training_users

    def watch(metrics: Any, ended: Any, stop: bool, ranks: Ranks) -> Any:
        rewards[ranks.rank].append(metrics["reward_mean"])
        return exchange(metrics, ended, stop, ranks)

    def count(run: Any) -> Any:
        evaluated.append(run.updates)
        return evaluate(run)

    monkeypatch.setattr(loop, "exchange", watch)
    monkeypatch.setattr(learning_curve, "evaluate_training_users", count)
    together(2, lambda ranks: train(config, ranks=ranks))
    rows = read_log(next(here.glob("runs/*/log.csv")))
    logged = [value for _, _, name, value in rows if name == "reward_mean"]
    assert logged == [(a + b) / 2 for a, b in zip(rewards[0], rewards[1], strict=True)]
    assert rewards[0] != rewards[1] and evaluated == [0, 4, 5]
    # Each session has 5 steps: 4 sessions of 4 users have ended after 6 steps; a single rank has only 2.
    assert [step for step, _, name, _ in rows if name == "return_mean"] == [24, 48, 72, 96, 120]


# ---- the rank of a process


def test_config_gets_the_number_of_started_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert sized(settings(DRIFT)).train_config.num_processes == 2
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert sized(of_two(DRIFT)).train_config.num_processes == 2  # which train refuses
    with pytest.raises(UserError):
        sized(settings(DRIFT))


# ---- mistakes


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (
            "--num-envs 9",
            ("--num-envs is 9", "num_processes = 2"),
        ),
        ("--batch-size 11", ("--batch-size is 11", "num_processes = 2")),
        ("--algo a2c --num-envs 5", ("--num-envs is 5", "num_processes = 2")),
        (
            "--env gym:CartPole-v1",  # its preset standardises observations and scales rewards
            ("normalize_obs", "num_processes is 2", "--no-normalize-obs --no-normalize-reward"),
        ),
    ],
)
def test_settings_that_do_not_divide_among_processes(
    options: str, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error comes before the processes meet."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["train", *options.split()]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {names[0]}")
    assert_names(said, *names)


def test_train_function_refuses_several_processes(here: Path) -> None:
    with pytest.raises(UserError):
        train(of_two(DRIFT))


def test_resume_with_another_number_of_processes(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = of_two(DRIFT, *steps(1))
    together(2, lambda ranks: train(config, ranks=ranks))
    capsys.readouterr()
    assert main(["train", "--resume"]) == 2
    assert_names(capsys.readouterr().err, "num_processes = 2", "this run has 1", "--nproc-per-node 2")
    for error in together(3, lambda ranks: train(config, True, ranks)):
        assert_names(str(error), "num_processes = 2", "this run has 3")


@pytest.mark.parametrize("missing", ["MASTER_ADDR", "RANK", "LOCAL_RANK"])
def test_incomplete_environment_of_a_rank_is_a_user_error(
    missing: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in {
        "RANK": "0",
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
    }.items():
        monkeypatch.setenv(name, text)
    monkeypatch.delenv(missing)
    monkeypatch.setattr(group, "JOIN_WITHIN", timedelta(seconds=0.5))  # rank 1 never comes
    assert main(["train", *DRIFT]) == 2
    assert_names(capsys.readouterr().err, "torchrun", "MASTER_ADDR")
    assert not list(here.iterdir())


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


# ---- whole commands, in separate processes


# Two ranks, of which one is a fork of the other, check the collectives and write their final weights.
PROGRAM = """
import os, sys
from pathlib import Path
import torch
import recsys_rl.training.train as door
from recsys_rl.cli.train import train_options
from recsys_rl.distributed.group import join, sized

rank = int(os.fork() == 0)
os.environ["RANK"] = os.environ["LOCAL_RANK"] = str(rank)
runs, real = [], door.begin
door.begin = lambda *arguments: runs.append(real(*arguments)) or runs[0]
with join(cuda=False) as ranks:
    x = torch.tensor([1.0, 2.0]) * (ranks.rank + 1)
    ranks.average(x)
    assert x.tolist() == [1.5, 3.0]
    seen = ranks.gather({"a": torch.arange(ranks.rank + 1), "b": torch.tensor(ranks.rank == 1)})
    assert [rank["a"].tolist() for rank in seen] == [[0], [0, 1]]
    assert [rank["b"].item() for rank in seen] == [False, True]
    assert seen[0]["a"].dtype == torch.int64 and ranks.gather({}) == [{}, {}]
    config = sized(train_options(sys.argv[1:]).config)
    state = door.begin(config, None, torch.device("cpu"), ranks).agent.state_dict()
    before = {name: x.clone() for name, x in state.items()}
    runs.clear()
    door.train(config, False, ranks)
after = runs[0].agent.state_dict()
assert any(not torch.equal(after[name], before[name]) for name in after)
Path(f"weights{ranks.rank}").write_bytes(b"".join(after[name].numpy().tobytes() for name in sorted(after)))
if rank == 0:
    sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""


@pytest.mark.proof
def test_all_ranks_end_with_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights also equal those of the same run in threads: gloo computes the mean."""
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    for name, text in {
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0",
    }.items():
        monkeypatch.setenv(name, text)
    code, _, err = finish(start(tmp_path, str(script), *DRIFT, *steps(4)))
    assert code == 0, err
    for name in ("WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name)
    ours, theirs = ((tmp_path / f"weights{rank}").read_bytes() for rank in range(2))
    assert ours == theirs
    monkeypatch.chdir(tmp_path)
    in_threads(tmp_path / "threads", *DRIFT, *steps(4))
    assert_close(weights(tmp_path / "checkpoints/ppo.pt"), weights(tmp_path / "threads/ppo.pt"))


def in_threads(folder: Path, *options: str) -> None:
    """The run of two ranks in this process, in ``folder``."""
    config = of_two([*options])
    assert together(2, lambda ranks: train(config, ranks=ranks, folder=folder)) == [folder / "ppo.pt"] * 2


def children(process: subprocess.Popen[str]) -> list[int]:
    """Pids of the child processes, the oldest first."""
    table = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True)
    rows = [tuple(map(int, line.split())) for line in table.stdout.splitlines()]
    most = int(Path("/proc/sys/kernel/pid_max").read_text())  # after it the numbers begin anew
    own = [pid for pid, parent in rows if parent == process.pid]
    return sorted(own, key=lambda pid: (pid - process.pid) % most)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout
    return state.strip()[:1] in ("", "Z")  # a zombie has ended, too


def wait_until(condition: Callable[[], object], process: subprocess.Popen[str] | None = None) -> None:
    """Wait with patience, but not after ``process`` has ended."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert process is None or process.poll() is None, finish(process)
        assert time.monotonic() < deadline
        time.sleep(0.01)


def updates(path: Path) -> int:
    return load(path).updates if path.exists() else 0


LENGTH = 40
"""Updates of the run that is killed, and of the whole one."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two ranks that torchrun started."""
    folder = tmp_path_factory.mktemp("whole")
    code, _, err = finish(start(folder, *TORCHRUN, *DRIFT, *steps(LENGTH), "--name", "torchrun"))
    assert code == 0, err
    return folder / "runs/torchrun"


@pytest.mark.proof
def test_run_under_torchrun(whole: Path, tmp_path: Path) -> None:
    """The run ends with the weights of two threads."""
    in_threads(tmp_path / "threads", *DRIFT, *steps(LENGTH))
    assert_close(weights(whole / "ppo.pt"), weights(tmp_path / "threads/ppo.pt"))
    assert load(whole / "ppo.pt").config.train_config.num_processes == 2


@pytest.mark.proof
def test_run_with_a_killed_rank_can_be_resumed(whole: Path, tmp_path: Path) -> None:
    """kill -9 of a rank: no process left; the resumed run equals the whole one, bit for bit."""
    path = tmp_path / "checkpoints/ppo.pt"
    process = start(tmp_path, *TORCHRUN, *DRIFT, *steps(LENGTH), "--save-interval", "1")
    wait_until(lambda: updates(path) > 2, process)
    ranks = children(process)
    assert len(ranks) == 2
    os.kill(ranks[1], signal.SIGKILL)
    code, out, err = finish(process)
    assert (code, out) == (1, "") and "SIGKILL" in err and all(gone(pid) for pid in ranks)
    reached = load(path)
    assert 2 < reached.updates < LENGTH

    code, out, err = finish(start(tmp_path, *TORCHRUN, "--resume", "--save-interval", "3"))
    assert (code, out) == (0, ""), err
    assert err.splitlines()[0].startswith("data: ") and err.count("data: ") == 1  # only rank 0 prints
    total = f"{24 * LENGTH:,}"
    assert f"resuming runs/drift-synthetic-ppo-0 at step {reached.step:,} of {total}" in err.splitlines()
    assert err.splitlines()[-1].startswith(f"done: {total} steps; ")
    assert_same_weights(whole / "ppo.pt", path)
    logs = [
        [row for row in read_log(file) if row[2] != "steps_per_second"]
        for file in (whole / "log.csv", *tmp_path.glob("runs/*/log.csv"))
    ]
    assert [repr((row[0], *row[2:])) for row in logs[0]] == [repr((row[0], *row[2:])) for row in logs[1]]


@pytest.mark.proof
@pytest.mark.parametrize("to_all", [False, True], ids=["to the parent", "to the whole group"])
def test_ctrl_c_stops_all_ranks(to_all: bool, tmp_path: Path) -> None:
    """One request, whether the signal reaches the parent or, as from a terminal, all processes."""
    process = start(tmp_path, *TORCHRUN, *DRIFT, *steps(100_000), new_session=True)
    wait_until(lambda: updates(tmp_path / "checkpoints/ppo.pt") > 0, process)
    if to_all:
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGTERM)
    code, out, err = finish(process)
    step = load(tmp_path / "checkpoints/ppo.pt").step
    folder = "runs/drift-synthetic-ppo-0"
    said = f"Stopped at step {step:,}; {folder} holds the run: continue it with torchrun "
    said += f"--standalone --nproc-per-node 2 -m recsys_rl.cli train --run {folder}."
    assert (code, out) == (1, "") and err.splitlines().count(said) == 1


@pytest.mark.learning
def test_two_ranks_learn(tmp_path: Path, proof: Proof) -> None:
    """On a small drift, the policy earns nearly the oracle's return from held-out users.

    The ranks are threads. Two processes end with the same weights, as is shown above.
    """
    world = ["--data", "synthetic", "--num-items", "50", "--num-users", "200", "--threads", "1"]
    in_threads(tmp_path / "run", *world, "--total-timesteps", "16384")
    trained = load(tmp_path / "run/ppo.pt")
    users, noise = trained.population.heldout, torch.Generator().manual_seed(0)
    env = make_env(trained.config, trained.world, len(users), noise, heldout=True)
    assert isinstance(env, RecEnv)
    agent = make_agent(trained.config, env.interface, trained.catalogue)

    def mean_return(policy: Policy) -> float:
        return play(env, policy, users, greedy=True).returns.mean().item()

    best = mean_return(Oracle(env))
    assert mean_return(agent) < 0.6 * best
    agent.load_state_dict(trained.agent)
    proof(mean_return(agent) / best, above=0.9)

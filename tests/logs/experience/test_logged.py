"""Learning from a log: its rewards, its training users, clones of a policy, and errors."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from recsys_rl.checkpoint import load
from recsys_rl.cli import main
from recsys_rl.cli.train import train_options
from recsys_rl.data.synthetic import synthetic_world
from recsys_rl.errors import FieldError, UserError
from recsys_rl.logs.decision_log import DecisionHeader, DecisionLog
from recsys_rl.logs.experience.logged import Logged, make_logged
from recsys_rl.logs.parts import read_decisions
from recsys_rl.logs.record import RecordConfig, record
from recsys_rl.logs.rewards import of_platform, of_signals, weights_of_signals
from recsys_rl.logs.source import heldout_rows
from recsys_rl.logs.transitions import transition_table
from recsys_rl.logs.writer import write_decisions
from recsys_rl.make import agent_of, make_env, make_user_model, make_world
from recsys_rl.objective.weighted import stream_weights
from recsys_rl.session import make_interface
from recsys_rl.settings.config import Config, brought_settings, overlay
from recsys_rl.settings.shared import LoggedConfig
from recsys_rl.training.train import train, updates
from recsys_rl.types import Transitions
from recsys_rl.utils.logger import read_log
from recsys_rl.utils.user_hashes import number_of
from tests.doors import SATIATION, WORLD, assert_same_weights, steps, train_in, weights
from tests.own_logs import clicks
from tests.proofs import Proof

TINY = ["--env", "satiation", *WORLD, "--hidden-dims", "6", "--threads", "1", "--device", "cpu"]
BC = [
    "--algo",
    "bc",
    "--batch-size",
    "8",
    "--gradient-steps",
    "3",
    "--save-interval",
    "2",
]  # 24 rows an update


LOG_ONLY = ("bc", "cql", "bcq", "iql", "reinforce", "dt", "direct")


@pytest.fixture(scope="module")
def logger(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint of PPO on a tiny `satiation`, and the log of its decisions for all users."""
    folder = tmp_path_factory.mktemp("logger")
    checkpoint = train_in(folder / "run", *SATIATION, *steps(3))
    log = folder / "log.parquet"
    record(RecordConfig(str(checkpoint), sessions=60, users="all", out=str(log), quiet=True))
    return checkpoint, log


def test_batches_hold_training_users_with_their_rewards(logger: tuple[Path, Path]) -> None:
    checkpoint, path = load(logger[0]), logger[1]
    log = read_decisions(path)
    config = Config(algo="bc", env="satiation", log=str(path), **sections(checkpoint.config))
    world, generator = checkpoint.world, torch.Generator().manual_seed(0)
    source = make_logged(config, world, generator)
    train_ids = set(world.population.user_ids[world.population.train].tolist())
    expected = torch.tensor([user in train_ids for user in log.users.tolist()])
    assert source.table.num_rows == int(expected.sum()) < log.num_rows
    users = make_user_model(config, world)
    rewards = of_platform(log.header, users, stream_weights(users.streams))(log.feedback)[expected]
    assert torch.equal(source.table.rewards, rewards)
    found = source.batch()
    assert isinstance(found.data, Transitions) and found.data.num_rows == config.agent_config.steps_per_update
    assert found.metrics["reward_mean"] == pytest.approx(found.data.rewards.mean().item())


def sections(config: Config) -> dict[str, Any]:
    return {name: getattr(config, name) for name in ("env_config", "data_config", "model_config")}


def test_rewards_by_hand(logger: tuple[Path, Path]) -> None:
    checkpoint, log = load(logger[0]), read_decisions(logger[1])
    users = make_user_model(checkpoint.config, checkpoint.world)
    (stream,) = users.streams
    own, doubled = (
        of_platform(log.header, users, torch.tensor([weight]))(log.feedback)
        for weight in (stream.weight, -2.0)
    )
    assert torch.equal(doubled, -2 * own)
    signal, other = log.header.signals
    by_signal = {signal: 3.0, other: 0.0}
    assert torch.equal(of_signals(log.header.signals, by_signal)(log.feedback), 3 * log.signals[:, 0, 0])
    with pytest.raises(FieldError, match="no_such"):
        weights_of_signals("log", [signal], ["no_such=1"], "weights")
    with pytest.raises(UserError, match="--weights one=1"):
        weights_of_signals("log", ["one", "two"], [], "weights")
    assert weights_of_signals("log", ["one", "two"], ["two=3"], "weights") == {"one": 0.0, "two": 3.0}


def test_users_whom_the_population_lacks_are_held_out_by_their_hash(logger: tuple[Path, Path]) -> None:
    log, population = read_decisions(logger[1]), load(logger[0]).population
    strangers = dataclasses.replace(log, users=log.users + 10_000)
    found = heldout_rows(strangers, population, 0.5, 3)
    one_user = strangers.users == strangers.users[0]
    assert len(found[one_user].unique()) == 1 and 0 < found.float().mean() < 1
    assert torch.equal(found, heldout_rows(strangers, population, 0.5, 3))


def test_strangers_of_a_log_are_on_the_side_of_the_data_that_know_them_by_now(
    logger: tuple[Path, Path],
) -> None:
    """A server knew them by text that its data lacked; in grown data the text is one of their ids."""
    log, population = read_decisions(logger[1]), load(logger[0]).population
    names = tuple(f"user {row}" for row in range(len(population.user_ids)))
    grown = dataclasses.replace(population, user_names=names)
    rows = torch.searchsorted(population.user_ids, log.users)
    strangers = dataclasses.replace(log, users=torch.tensor([number_of(names[row]) for row in rows]))
    for seed in (3, 4):
        found = heldout_rows(strangers, grown, 0.5, seed)
        assert torch.equal(found, torch.isin(rows, population.heldout))


def test_run_without_an_environment_is_a_run(logger: tuple[Path, Path], tmp_path: Path) -> None:
    """Its checkpoint evaluates, recommends and records, and nothing was simulated in its training."""
    checkpoint, log = logger
    options = [*BC, "--checkpoint", str(checkpoint), "--log", str(log), *steps(4), "--hidden-dims", "6"]
    path = train_in(tmp_path / "run", *options)
    made = load(path)
    assert made.config.env == "satiation" and made.step == 4 * 24 and made.info["curve"] == []
    assert torch.equal(made.catalogue.embedding, load(checkpoint).catalogue.embedding)
    assert {p.name for p in path.parent.iterdir()} >= {"bc.pt", "config.toml", "log.csv"}
    assert main(["evaluate", "--checkpoint", str(path), "--no-planner"]) == 0
    assert (
        main(["recommend", "--checkpoint", str(path), "--user", str(int(made.population.user_ids[0]))]) == 0
    )
    own = tmp_path / "own.parquet"
    assert main(["record", "--checkpoint", str(path), "--sessions", "5", "--out", str(own), "--quiet"]) == 0
    agent, table = agent_of(made), read_decisions(own)
    assert table.header.loggers == ("bc",) and agent.updates == 4


@pytest.mark.parametrize("algo", LOG_ONLY)
def test_resumed_run_ends_as_the_whole_one(
    algo: str, logger: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = logger[1]
    options = [*TINY, *BC, "--algo", algo, "--log", str(log), *steps(7), "--eval-interval", "2"]
    whole = train_in(tmp_path / "whole", *options)
    monkeypatch.chdir(tmp_path)
    config = train_options(options).config

    for update in updates(config, folder=tmp_path / "pieces"):
        if update.step == 3 * 24:
            break  # saved there
    again = train(config, resume=True, folder=tmp_path / "pieces", quiet=True)
    assert_same_weights(whole, again)
    assert load(whole).info["curve"] == load(again).info["curve"] != []


@pytest.mark.learning
def test_clone_decides_as_the_logger(logger: tuple[Path, Path], tmp_path: Path, proof: Proof) -> None:
    """The log of a policy that always shows the available item with the smallest number."""
    checkpoint, log = logger
    decided = read_decisions(log)
    items = decided.steps.unsqueeze(1)  # item 0 first, then 1, 2 ...
    lowest = tmp_path / "lowest.parquet"
    write_decisions(
        lowest, dataclasses.replace(decided, items=items, logprobs=torch.zeros(len(items)).double())
    )
    options = ["--algo", "bc", "--batch-size", "32", "--gradient-steps", "10", "--lr", "0.01"]
    options += ["--checkpoint", str(checkpoint), "--log", str(lowest), "--total-timesteps", str(320 * 20)]
    path = train_in(tmp_path / "run", *options, "--head", "dense", "--hidden-dims", "16")
    rows = (tmp_path / "run" / "log.csv").read_text().splitlines()
    (last,) = [row for row in rows if row.split(",")[2:3] == ["loss"]][-1:]
    proof(float(last.split(",")[3]), below=0.5)  # log 24 = 3.18 at the start
    assert weights(path)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--env", "satiation"], "--log"),
        (["--env", "gym:CartPole-v1", "--log", "LOG"], "catalogue"),
        (["--env", "satiation", *WORLD, "--seed", "5", "--log", "LOG"], "another catalogue"),
        (["--env", "drift", *WORLD, "--log", "LOG"], "other sessions"),
        (["--checkpoint", "CHECKPOINT", "--env", "satiation", "--log", "LOG"], "--checkpoint"),
        (["--checkpoint", "CHECKPOINT", "--log", "LOG", "--candidates", "80"], "candidates"),
        (["--checkpoint", "CHECKPOINT", "--log", "LOG", "--n-steps", "8"], "n_steps|n-steps"),
        (["--checkpoint", "CHECKPOINT", "--log", "nowhere.parquet"], "nowhere.parquet"),
        (["--env", "satiation", *WORLD, "--stranger-share", "0.5", "--log", "LOG"], "stranger"),
        (["--checkpoint", "CHECKPOINT", "--log", __file__], "not a log of `recsys-rl record`"),
        (["--checkpoint", "CHECKPOINT", "--log", "LOG", "--weights", "glory=1"], "glory"),
    ],
)
def test_mistakes_are_one_sentence(
    options: list[str],
    error: str,
    logger: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"LOG": str(logger[1]), "CHECKPOINT": str(logger[0])}
    assert main(["train", "--algo", "bc", *(names.get(x, x) for x in options)]) == 2
    said = capsys.readouterr().err
    assert any(part in said for part in error.split("|")) and ("error: " in said or "nrecognized" in said)
    assert "Traceback" not in said and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("algo", LOG_ONLY)
def test_policy_of_each_learner_evaluates_and_records(
    algo: str, logger: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, log = logger
    options = [*BC, "--algo", algo, "--checkpoint", str(checkpoint), "--log", str(log), *steps(4)]
    path = train_in(tmp_path / "run", *options, "--hidden-dims", "6")
    own = tmp_path / "own.parquet"
    assert main(["record", "--checkpoint", str(path), "--sessions", "5", "--out", str(own), "--quiet"]) == 0
    assert read_decisions(own).header.loggers == (algo,)
    rows = {name: value for _, _, name, value in read_log(path.parent / "log.csv")}
    if algo not in ("bc", "direct"):  # the value of the first state, beside the returns of the log
        assert 0 < rows["return_start"] < 5 and abs(rows["value_start"]) < 5
    table = tmp_path / "table.json"
    files = [str(path), "--behaviour", str(checkpoint), "--no-planner", "--json", str(table)]
    assert main(["evaluate", *files]) == 0
    found = json.loads(table.read_text())
    names = [row["policy"] for row in found["rows"]]
    assert names[:4] == [algo, f"{algo}-greedy", "behaviour", "behaviour-greedy"]
    pairs = {(row["policy"], row["versus"]) for row in found["paired"]}
    assert (f"{algo}-greedy", "behaviour-greedy") in pairs
    capsys.readouterr()


def test_learner_with_a_first_stage_is_resumed_and_evaluates(
    logger: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [*TINY, *BC, "--algo", "cql", "--log", str(logger[1]), *steps(4), "--candidates", "12"]
    whole = train_in(tmp_path / "whole", *options, "--eval-interval", "2")
    monkeypatch.chdir(tmp_path)
    config = train_options([*options, "--eval-interval", "2"]).config
    for _ in updates(config, folder=tmp_path / "pieces"):
        break
    assert_same_weights(whole, train(config, resume=True, folder=tmp_path / "pieces", quiet=True))
    assert load(whole).info["curve"]
    assert main(["evaluate", "--checkpoint", str(whole), "--no-planner"]) == 0


def test_run_that_was_stopped_early_records_a_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy of medium quality is the checkpoint of a run that was stopped after a part of its updates."""
    config = train_options([*SATIATION, *steps(30)]).config
    monkeypatch.chdir(tmp_path)
    for update in updates(config, folder=tmp_path / "run"):
        if update.run.updates == 3:
            break
    path, log = tmp_path / "run" / "ppo.pt", tmp_path / "medium.parquet"
    assert load(path).updates == 3
    options = ["--sessions", "40", "--users", "all", "--quiet"]
    assert main(["record", "--checkpoint", str(path), *options, "--out", str(log)]) == 0
    made = train_in(
        tmp_path / "cql", *BC, "--algo", "cql", "--checkpoint", str(path), "--log", str(log), *steps(2)
    )
    assert load(made).updates == 2


def test_clone_of_the_best_sessions_sees_no_others(logger: tuple[Path, Path]) -> None:
    checkpoint, path = load(logger[0]), logger[1]
    dials = {"log": str(path), **sections(checkpoint.config)}
    sums = []
    for share in (1.0, 0.25):
        config = Config(algo="bc", env="satiation", best_sessions=share, **dials)
        source = make_logged(config, checkpoint.world, torch.Generator().manual_seed(0))
        sums.append(source.table.returns_to_go[source.table.steps == 0])
    every, best = sums
    count = -(-len(every) // 4)
    assert torch.equal(best.sort().values, every.sort().values[-count:])


def changed(log: Path, out: Path, **columns: Any) -> Path:
    """A log with other columns, at ``out``."""
    write_decisions(out, dataclasses.replace(read_decisions(log), **columns))
    return out


def test_resumed_run_refuses_a_log_with_other_decisions(
    logger: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log.parquet"
    log.write_bytes(logger[1].read_bytes())
    options = [*TINY, *BC, "--log", str(log), *steps(4), "--eval-interval", "0"]
    for _ in updates(train_options(options).config, folder=tmp_path / "run"):
        break
    decided = read_decisions(log)
    changed(log, log, logprobs=decided.logprobs - 0.25)
    with pytest.raises(UserError):
        train(train_options(options).config, resume=True, folder=tmp_path / "run", quiet=True)
    write_decisions(log, decided)
    train(train_options(options).config, resume=True, folder=tmp_path / "run", quiet=True)
    assert load(tmp_path / "run" / "bc.pt").updates == 4


def test_logs_that_a_learner_cannot_use(logger: tuple[Path, Path], tmp_path: Path) -> None:
    log = read_decisions(logger[1])
    bare = changed(logger[1], tmp_path / "bare.parquet", logprobs=torch.full_like(log.logprobs, torch.nan))
    start = (log.steps == 0).nonzero().squeeze(1)
    firsts = log.rows(start)
    short, same = tmp_path / "short.parquet", tmp_path / "same.parquet"
    yes, no = torch.ones(len(start), dtype=torch.bool), torch.zeros(len(start), dtype=torch.bool)
    firsts = dataclasses.replace(firsts, terminated=yes, truncated=no)
    write_decisions(short, firsts)
    write_decisions(same, dataclasses.replace(firsts, items=torch.zeros_like(firsts.items)))
    for algo, path in (
        ("reinforce", bare),
        ("dt", short),
        ("cql", same),
        ("bc", same),
    ):
        with pytest.raises(UserError):
            train_in(
                tmp_path / "run", *BC, "--algo", algo, "--checkpoint", str(logger[0]), "--log", str(path)
            )
        assert not (tmp_path / "run").exists()
    of_loss = ("--weights", f"{log.header.signals[0]}=-1")
    for path, more in ((bare, ()), (logger[1], of_loss)):  # weights need propensities, and no loss
        with pytest.raises(UserError):
            train_in(
                tmp_path / "run",
                *BC,
                "--weighted",
                "--checkpoint",
                str(logger[0]),
                "--log",
                str(path),
                *more,
            )
        assert not (tmp_path / "run").exists()
    for algo in ("bc", "cql", "iql"):  # they need no propensities
        options = [*BC, "--algo", algo, "--checkpoint", str(logger[0]), "--log", str(bare), *steps(1)]
        assert load(train_in(tmp_path / algo, *options)).updates == 1


@pytest.mark.parametrize(
    ("algo", "works"), [("bc", True), ("reinforce", True), ("iql", True), ("cql", True), ("dt", False)]
)
def test_ppo_begins_with_a_policy_from_a_log(
    algo: str, works: bool, logger: tuple[Path, Path], tmp_path: Path
) -> None:
    """The first policy of PPO has the probabilities of the policy from the log, where the network fits."""
    checkpoint, log = logger
    options = [*BC, "--algo", algo, "--checkpoint", str(checkpoint), "--log", str(log), *steps(4)]
    path = train_in(tmp_path / "run", *options, "--hidden-dims", "6", "--lr", "0.05")
    begin = [*SATIATION, "--encoder", "mlp", *steps(2), "--init-from", str(path)]
    if not works:
        with pytest.raises(UserError):
            train_in(tmp_path / "ppo", *begin)
        return
    with pytest.raises(UserError):  # another encoder than that of the log's policy
        train_in(tmp_path / "other", *begin, "--encoder", "deep-sets")
    assert not (tmp_path / "other").exists()
    train_in(tmp_path / "ppo", *begin)
    start = load(tmp_path / "ppo" / "ppo.prev.pt")
    assert start.step == 0 and start.steps_before == 4 * 24
    env = make_env(start.config, start.world, 8)
    obs = env.reset()
    one, two = (agent_of(x).scores(obs).log_softmax(1) for x in (load(path), start))
    assert torch.allclose(one, two, atol=1e-3)


def test_init_from_another_catalogue_is_refused(logger: tuple[Path, Path], tmp_path: Path) -> None:
    other = train_in(tmp_path / "other", *SATIATION, *steps(1), "--num-items", "23")
    with pytest.raises(UserError):
        train_in(tmp_path / "run", *TINY, *BC, "--log", str(logger[1]), *steps(1), "--init-from", str(other))


def test_log_of_held_out_users_alone_is_refused(logger: tuple[Path, Path], tmp_path: Path) -> None:
    log = tmp_path / "heldout.parquet"
    record(RecordConfig(str(logger[0]), sessions=5, users="heldout", out=str(log), quiet=True))
    with pytest.raises(UserError):
        train_in(tmp_path / "run", *BC, "--checkpoint", str(logger[0]), "--log", str(log))
    assert not (tmp_path / "run").exists()


def test_large_log_is_read_in_parts(logger: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of at most 40 rows serve batches in their order; a saved place is found again."""
    from recsys_rl.logs.experience import logged

    checkpoint = load(logger[0])
    changes = {"log": str(logger[1]), "batch_size": 8, "gradient_steps": 2, **sections(checkpoint.config)}
    config = Config(algo="bc", env="satiation", **changes)

    def source() -> logged.Logged:
        return make_logged(config, checkpoint.world, torch.Generator().manual_seed(0))

    whole = source()
    monkeypatch.setattr(logged, "MOST_ROWS", 40)
    parts, other = source(), source()
    seen = []
    for _ in range(40):
        parts.batch()
        seen.append(parts.part)
    count = max(seen) + 1
    assert count > 3 and seen[0] == 0 and seen.count(1) >= 2 and 0 in seen[seen.index(count - 1) :]
    rows = sum(table.num_rows for table in parts.tables())
    assert rows == whole.table.num_rows
    other.load_state_dict(parts.state_dict())
    other.generator.set_state(parts.generator.get_state())
    for _ in range(5):
        one, two = parts.batch().data, other.batch().data
        assert torch.equal(one.items, two.items) and torch.equal(one.obs.context, two.obs.context)
    with pytest.raises(ValueError, match="part 99"):
        other.load_state_dict(parts.state_dict() | {"part": torch.tensor(99)})


def test_small_log_in_several_files_is_held_as_a_whole(logger: tuple[Path, Path], tmp_path: Path) -> None:
    checkpoint, folder = load(logger[0]), tmp_path / "log"
    record(RecordConfig(str(logger[0]), sessions=60, users="all", parts=100, out=str(folder), quiet=True))
    assert len([*folder.iterdir()]) > 1
    held = []
    for log in (logger[1], folder):
        config = Config(algo="bc", env="satiation", log=str(log), **sections(checkpoint.config))
        held.append(make_logged(config, checkpoint.world, torch.Generator().manual_seed(0)))
    assert torch.equal(held[0].table.items, held[1].table.items)
    assert torch.equal(held[0].batch().data.items, held[1].batch().data.items)


def test_slate_with_an_empty_place_is_never_drawn() -> None:
    """The rows have the rewards 0 to 3; the second and the third have an empty place."""
    catalogue, _ = synthetic_world(6, 5, 4, 0.2, 0)
    one_item = make_interface(
        catalogue, context=("profile",), given={"profile": 1}, signals=["liked"], session_length=1
    )
    interface = dataclasses.replace(one_item, slate_size=2, history_length=2)
    rows = torch.arange(4)
    log = DecisionLog(
        header=DecisionHeader(("one",), interface, ("liked",)),
        users=rows,
        sessions=rows,
        steps=torch.zeros_like(rows),
        times=rows,
        items=torch.tensor([[0, 1], [2, -1], [-1, 3], [4, 5]]),
        logprobs=torch.zeros(4).double(),
        signals=torch.zeros(4, 2, 1),
        terminated=torch.ones(4, dtype=torch.bool),
        truncated=torch.zeros(4, dtype=torch.bool),
        loggers=torch.zeros_like(rows),
        given={"profile": torch.zeros(4, 1)},
    )
    table = transition_table(log, catalogue, rows.float())
    settings, rng = LoggedConfig(batch_size=64, gradient_steps=1), torch.Generator().manual_seed(0)
    drawn = Logged("log", lambda: iter([table]), True, interface, settings, rng).batch().data
    assert isinstance(drawn, Transitions)
    assert set(drawn.rewards.tolist()) == {0.0, 3.0} and bool((drawn.items >= 0).all())


@pytest.mark.parametrize("candidates", [False, True])
def test_a_teams_log_of_two_files_is_learned_from_whole(tmp_path: Path, candidates: bool) -> None:
    """The second file has candidates, or the same columns as the first: the batches are drawn from both."""
    logs = clicks(tmp_path / "old.csv", rows=100), clicks(tmp_path / "new.csv", rows=60, seed=1)
    if candidates:
        more = pl.read_csv(logs[1]).with_columns(candidates=pl.lit("i0|i1|i2|i3"))
        more.write_csv(logs[1])
    names = tuple(map(str, logs))
    settings = overlay(brought_settings("own-log", {"log": names}), {"algo": "bc", "env": "own-log"})
    config = Config(**settings, log=names, batch_size=32, gradient_steps=1)
    logged = make_logged(config, make_world(config), torch.Generator().manual_seed(0))
    assert logged.in_one_part
    expected = {round(value, 4) for log in logs for value in pl.read_csv(log)["context.age"]}
    place = logged.interface.place_of("age")
    age = next(piece for piece in config.env_config.log_shape.pieces if piece.name == "age")
    seen: set[float] = set()
    for _ in range(40):
        batch = logged.batch().data.obs.context[:, place][:, 0].double()
        seen |= {round(value, 4) for value in (batch * age.scale[0] + age.shift[0]).tolist()}
    training = 160 - int(logged.sides.split(", ")[1].split()[0])
    assert len({round(x, 2) for x in seen}) > 0.9 * training > 80
    assert {round(x, 1) for x in seen} <= {round(x, 1) for x in expected}


def in_order(columns: list[torch.Tensor]) -> torch.Tensor:
    """The rows of these columns side by side, in ascending order."""
    rows = torch.cat([x.double().reshape(len(x), -1) for x in columns], 1)
    return torch.tensor(sorted(rows.tolist()))


def test_recorded_run_and_its_replay_hold_the_same_transitions(tmp_path: Path) -> None:
    """Each transition of the ring is in the log that the run wrote, with its successor."""
    options = ["--algo", "dqn", *TINY, "--num-envs", "4", "--train-freq", "6", "--learning-starts", "9"]
    options += ["--batch-size", "8", "--eval-interval", "0", "--record", str(tmp_path / "log")]
    runs = []
    for update in updates(train_options([*options, *steps(5)]).config, folder=tmp_path / "run"):
        runs.append(update.run)
    run, log = runs[-1], read_decisions(tmp_path / "log")
    assert log.num_rows == 5 * 24 and log.header.loggers == ("dqn",)
    assert bool(
        log.truncated[log.sessions.diff(append=log.sessions[-1:] + 1) > 0]
        .logical_or(log.terminated[log.sessions.diff(append=log.sessions[-1:] + 1) > 0])
        .all()
    )
    users = run.env.user_model
    rewards = of_platform(log.header, users, stream_weights(users.streams))
    table = transition_table(log, run.world.catalogue, rewards(log.feedback))
    experience: Any = run.experience
    ring = experience.ring
    names = ("obs.context", "items", "rewards", "logprobs", "terminated", "truncated", "next_obs.context")
    for slot in range(ring.filled - 1):  # after the last one the end of the run has cut the sessions
        found = table.at((log.times == slot).nonzero().squeeze(1))
        mine = [found.obs.context, found.items, found.rewards, found.logprobs, found.terminated]
        mine += [found.truncated, found.next_obs.context]
        theirs = [ring.tensors[name][slot] for name in names]
        assert torch.allclose(in_order(mine), in_order(theirs), atol=1e-6)


@pytest.mark.parametrize("algo", ["ppo", "dqn"])
def test_record_of_a_resumed_run_is_whole(algo: str, tmp_path: Path) -> None:
    small = ["--batch-size", "8", "--learning-starts", "9"]
    own = {"ppo": ["--n-steps", "6", "--batch-size", "12"], "dqn": ["--train-freq", "6", *small]}
    options = ["--algo", algo, *TINY, "--num-envs", "4", *own[algo], "--eval-interval", "0", *steps(6)]
    options += ["--save-interval", "2"]
    config = train_options([*options, "--record", str(tmp_path / "whole")]).config
    train(config, folder=tmp_path / "one", quiet=True)
    config = train_options([*options, "--record", str(tmp_path / "pieces")]).config
    for update in updates(config, folder=tmp_path / "two"):
        if update.step == 3 * 24:
            break
    (tmp_path / "pieces" / "part-00000009.parquet").write_bytes(b"of an update after the checkpoint")
    train(config, resume=True, folder=tmp_path / "two", quiet=True)
    one, two = (read_decisions(tmp_path / name) for name in ("whole", "pieces"))
    order = [torch.stack([log.times, log.users], 1).unique(dim=0) for log in (one, two)]
    assert one.num_rows == two.num_rows == 6 * 24 and torch.equal(*order)
    assert torch.allclose(one.signals.sum(), two.signals.sum())


def test_bad_places_for_a_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    for options, word in (
        ([*TINY, "--record", str(tmp_path / "full")], "--record"),
        ([*TINY, "--record", str(tmp_path / "new"), "--seeds", "0-1"], "--seeds"),
        (["--env", "gym:CartPole-v1", "--record", str(tmp_path / "new")], "catalogue"),
    ):
        assert main(["train", *options, "--runs-dir", str(tmp_path / "runs")]) == 2
        assert word in capsys.readouterr().err
    assert not (tmp_path / "new").exists() and not list((tmp_path).glob("runs/*"))


def test_a_fifth_of_the_training_users_is_held_back_from_the_direct_method(
    logger: tuple[Path, Path], tmp_path: Path
) -> None:
    """The rows of a user are drawn, or held back, or held out; both of the first are users of training."""
    checkpoint = load(logger[0])
    common: dict[str, Any] = {"env": "satiation", "log": str(logger[1]), **sections(checkpoint.config)}
    made = [
        make_logged(Config(algo=algo, **common), checkpoint.world, torch.Generator().manual_seed(0))
        for algo in ("bc", "direct")
    ]
    whole, direct = made
    assert whole.held_back is None and direct.held_back is not None
    assert direct.table.num_rows + direct.held_back.num_rows == whole.table.num_rows
    assert direct.of_all_sessions().table.num_rows == whole.table.num_rows  # for the clone and the best item
    assert (
        direct.num_decisions == round(0.8 * whole.table.num_rows)
        and whole.num_decisions > direct.num_decisions
    )
    users = direct.table.obs.context[direct.table.before][:, :4], direct.held_back.obs.context[:, :4]
    drawn, back = ({tuple(row) for row in profiles.tolist()} for profiles in users)
    assert back and drawn and not back & drawn
    assert 0.05 < len(back) / len(back | drawn) < 0.4

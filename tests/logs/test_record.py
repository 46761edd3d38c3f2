"""`recsys-rl record`: the log of decisions, read back as observations and probabilities."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from recsys_rl.checkpoint import Checkpoint, load
from recsys_rl.cli import main
from recsys_rl.data.catalogue_hash import catalogue_hash
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.evaluation.mixture import EpsilonMixture, Fixed
from recsys_rl.evaluation.policies import candidate_rule
from recsys_rl.evaluation.rivals.baselines import FixedList, RandomPolicy
from recsys_rl.logs import record as workflow
from recsys_rl.logs.decision_log import DecisionHeader, DecisionLog
from recsys_rl.logs.experience.decisions import record
from recsys_rl.logs.parts import read_decisions
from recsys_rl.logs.transitions import observe
from recsys_rl.logs.users import fit as user_fit
from recsys_rl.make import agent_of, make_env, make_user_model
from recsys_rl.protocols import Behaviour
from recsys_rl.types import Action, Obs, Step, UserError, empty_world, tree_map
from recsys_rl.utils.tensor_cache import digest
from tests.doors import DRIFT, SATIATION, train_in
from tests.small_runs import begin, settings

RUNS = {
    "satiation": [*SATIATION, "--total-timesteps", "48"],
    "drift": [*DRIFT, "--total-timesteps", "48"],
    "long-video": [*DRIFT, "--env", "long-video", "--num-items", "60", "--total-timesteps", "48"],
    "visits": [
        *(*DRIFT, "--env", "short-video", "--num-items", "60", "--visits", "3"),
        *("--total-timesteps", "48"),
    ],
    "two-stage": [
        *(*SATIATION, "--head", "two-tower", "--candidates", "12", "--explore-rate", "0.25"),
        *("--total-timesteps", "48"),
    ],
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The checkpoint of a tiny run by its name in RUNS, trained at the first call."""
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            made[name] = train_in(tmp_path_factory.mktemp("record") / name, *RUNS[name])
        return made[name]

    return get


def recorded(folder: Path, checkpoint: Path, *options: str) -> DecisionLog:
    """The log of `record` with these options."""
    out = folder / "log.parquet"
    assert main(["record", "--checkpoint", str(checkpoint), "--out", str(out), "--quiet", *options]) == 0
    return read_decisions(out)


class Witness:
    """A behaviour that keeps its observations."""

    def __init__(self, behaviour: Any) -> None:
        self.behaviour = behaviour
        self.seen: list[Obs] = []

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        self.seen.append(obs.map(torch.clone))
        action: Action = self.behaviour.act(obs, greedy)
        return action

    def place_logprobs(self, obs: Obs, items: Tensor) -> Tensor:
        found: Tensor = self.behaviour.place_logprobs(obs, items)
        return found

    def item_probabilities(self, obs: Obs, num_items: int) -> Tensor:
        found: Tensor = self.behaviour.item_probabilities(obs, num_items)
        return found


class WatchedEnv(RecEnv):
    """An environment that keeps the streams of its steps."""

    kept: list[Tensor]

    def step(self, items: Tensor) -> Step:
        step = super().step(items)
        self.kept.append(step.streams)
        return step


def watched_log(checkpoint: Checkpoint, behaviours: list[Behaviour]) -> tuple[DecisionLog, WatchedEnv]:
    made = make_env(checkpoint.config, checkpoint.world, 7, torch.Generator().manual_seed(3), training=False)
    assert isinstance(made, RecEnv)
    env = WatchedEnv.__new__(WatchedEnv)
    vars(env).update(vars(made), kept=[])
    header = DecisionHeader(
        tuple(f"logger {n}" for n in range(len(behaviours))),
        env.interface,
        tuple(signal.name for signal in env.signals),
    )
    users = checkpoint.population.heldout[torch.arange(7) % len(checkpoint.population.heldout)]

    def given() -> Mapping[str, Tensor]:
        return env.user_model.visible(env.user_state)

    ids, noise = checkpoint.population.user_ids[users], torch.Generator().manual_seed(1)
    return record(env, given, behaviours, header, users, ids, 10, noise), env


@pytest.mark.parametrize("name", ["satiation", "drift", "long-video"])
def test_log_gives_back_observations_streams_and_logprobs(name: str, trained: Callable[[str], Path]) -> None:
    """Of all rows together; log-probabilities agree to 1e-6."""
    checkpoint = load(trained(name))
    agent: Any = agent_of(checkpoint)
    first, generator = Witness(agent), torch.Generator().manual_seed(5)
    sizes = checkpoint.interface.action_sizes, generator, checkpoint.interface.slate_size
    log, env = watched_log(checkpoint, [first, RandomPolicy(*sizes)])
    read = observe(log, checkpoint.catalogue)
    streams = make_user_model(checkpoint.config, checkpoint.world).rewards(log.feedback)  # (E, M)
    assert log.sessions.unique().tolist() == list(range(10, 17)) and len(log.loggers.unique()) == 2
    for step, (seen, earned) in enumerate(zip(first.seen, env.kept, strict=True)):
        here = log.steps == step
        rows = log.sessions[here] - 10
        for name, x in vars(read.rows(here.nonzero().squeeze(1))).items():
            assert_close(x, getattr(seen.rows(rows), name), msg=f"{name}: {{}}".format)
        assert_close(streams[here], earned[rows])
    assert log.logger_logprobs is not None
    again = agent.place_logprobs(read, log.items).sum(1)
    assert_close(again, log.logger_logprobs[:, 0], rtol=0, atol=1e-6)
    assert_close(agent.logprob(read, log.items).double(), again, rtol=1e-5, atol=1e-5)


def test_file_of_the_command_holds_true_propensities(trained: Callable[[str], Path], tmp_path: Path) -> None:
    path = trained("long-video")
    checkpoint = load(path)
    log = recorded(
        tmp_path, path, "--policy", "ppo", "--mix", "random", "--epsilon", "0.3", "--sessions", "40"
    )
    assert log.header.loggers == ("0.7 ppo + 0.3 random",)
    assert log.header.platform == "long-video" and log.header.catalogue == catalogue_hash(
        checkpoint.catalogue
    )
    assert log.header.discount == checkpoint.config.agent_config.gamma
    assert len(log.sessions.unique()) == 40
    assert set(log.users.tolist()) <= set(
        checkpoint.population.user_ids[checkpoint.population.heldout].tolist()
    )
    obs = observe(log, checkpoint.catalogue)
    agent: Any = agent_of(checkpoint)
    ours = agent.place_logprobs(obs, log.items).sum(1).exp()
    left = 60 - 6 * log.steps.double()  # items not yet shown
    theirs = torch.stack([1 / (left - place) for place in range(6)]).prod(0)
    assert_close(log.logprobs, (0.7 * ours + 0.3 * theirs).log(), rtol=0, atol=1e-6)
    assert log.place_logprobs is not None
    assert_close(log.place_logprobs.sum(1), log.logprobs)


def test_several_policies_share_a_file_with_the_logprob_under_each(
    trained: Callable[[str], Path], tmp_path: Path
) -> None:
    names = ("--policy", "random", "--policy", "popularity", "--policy", "ppo-greedy")
    log = recorded(tmp_path, trained("satiation"), *names, "--sessions", "60")
    assert log.header.loggers == ("random", "popularity", "ppo-greedy")
    assert log.logger_logprobs is not None
    assert_close(log.logger_logprobs[:, 0], -(24 - log.steps.double()).log())  # 24 items, one fewer a step
    fixed = log.logger_logprobs[:, 1:]
    assert bool(((fixed == 0) | (fixed == -torch.inf)).all())
    own = log.logger_logprobs.gather(1, log.loggers.unsqueeze(1)).squeeze(1)
    assert_close(own, log.logprobs)
    first = (log.steps == 0) & (log.loggers == 1)
    assert len(log.items[first].unique()) == 1  # popularity begins with the same item


def test_candidates_are_logged_and_random_draws_among_them(
    trained: Callable[[str], Path], tmp_path: Path
) -> None:
    path = trained("two-stage")
    checkpoint = load(path)
    log = recorded(
        tmp_path, path, "--policy", "ppo", "--mix", "random", "--epsilon", "0.5", "--sessions", "30"
    )
    assert log.candidates is not None and log.header.candidates == candidate_rule(checkpoint, "ppo")
    assert "12 candidates" in log.header.candidates
    assert candidate_rule(checkpoint, "ppo-greedy") != log.header.candidates
    obs = observe(log, checkpoint.catalogue)
    agent: Any = agent_of(checkpoint)
    ours = agent.place_logprobs(obs, log.items).sum(1).exp()
    theirs = 1 / (log.candidates >= 0).sum(1)
    assert_close(log.logprobs, (0.5 * ours + 0.5 * theirs).log(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ("--policy ppo --mix popularity --epsilon 0.2", "popularity does not know"),
        ("--policy random --mix ppo --epsilon 0.2", "give --policy ppo --mix random"),
        ("--policy ppo --policy random", "it can't share a log"),
    ],
)
def test_first_stage_is_not_mixed_with_policies_of_the_whole_catalogue(
    options: str,
    complaint: str,
    trained: Callable[[str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "log.parquet"
    line = ["record", "--checkpoint", str(trained("two-stage")), "--out", str(out), *options.split()]
    assert main(line) == 2
    assert complaint in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (
            "--policy nobody --out log.parquet",
            "There is no policy 'nobody': choose from ppo, ppo-greedy, untrained",
        ),
        ("--policy ppo --policy ppo --out log.parquet", "--policy ppo is given twice"),
        ("--mix random --out log.parquet", "--mix and --epsilon belong together"),
        ("--mix random --epsilon 1.5 --out log.parquet", "--epsilon"),
        ("--mix myopic --epsilon 0.5 --out log.parquet", "myopic reads the simulator's state"),
        ("--policy myopic --policy ppo --out log.parquet", "myopic reads the simulator's state"),
        ("--sessions 0 --out log.parquet", "--sessions"),
        ("--policy ppo", "give --out FILE.parquet"),
        ("--out log.csv", "--out log.csv is to be a Parquet file: end its name with .parquet"),
    ],
)
def test_mistakes_of_the_command_are_refused(
    options: str,
    complaint: str,
    trained: Callable[[str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["record", "--checkpoint", str(trained("satiation")), *options.split()]) == 2
    assert complaint in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_policy_without_chance_has_logprob_zero_and_a_warning(
    trained: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = recorded(tmp_path, trained("satiation"), "--policy", "popularity", "--sessions", "5")
    assert bool((log.logprobs == 0).all())
    assert "popularity: every decision has probability 1 (logprob 0)" in capsys.readouterr().err


def test_deterministic_policy_beside_random_is_named_without_the_advice_to_mix(
    trained: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded(
        tmp_path, trained("satiation"), "--policy", "popularity", "--policy", "random", "--sessions", "5"
    )
    printed = capsys.readouterr().err
    assert "popularity: every decision has probability 1" in printed and "--mix" not in printed


def test_brackets_in_the_name_of_the_file_are_no_pattern(
    trained: Callable[[str], Path], tmp_path: Path
) -> None:
    out = tmp_path / "log[1]*.parquet"
    line = ["record", "--checkpoint", str(trained("drift")), "--out", str(out), "--sessions", "5", "--quiet"]
    assert main(line) == 0
    assert len(read_decisions(out).sessions.unique()) == 5
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_lives_of_several_visits_are_refused(
    trained: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Steps and exclusions begin anew at each visit, which the columns of a log don't show."""
    out = tmp_path / "log.parquet"
    assert main(["record", "--checkpoint", str(trained("visits")), "--out", str(out), "--quiet"]) == 2
    assert "trained with --visits 1" in capsys.readouterr().err and not out.exists()
    log = recorded(tmp_path, trained("drift"), "--sessions", "2")
    interface = dataclasses.replace(log.header.interface, visits=2)
    lives = dataclasses.replace(log, header=dataclasses.replace(log.header, interface=interface))
    with pytest.raises(UserError):
        observe(lives, load(trained("drift")).catalogue)


def test_pieces_and_seed_do_not_change_the_log(
    trained: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log in pieces of a few rows equals the log in one piece; another seed gives another log."""
    monkeypatch.setattr(workflow, "WIDTH", 4)
    whole = recorded(tmp_path, trained("drift"), "--sessions", "10")
    monkeypatch.setattr(workflow, "ROWS", 20)
    pieces = recorded(tmp_path, trained("drift"), "--sessions", "10")
    other = recorded(tmp_path, trained("drift"), "--sessions", "10", "--seed", "1")
    assert torch.equal(whole.items, pieces.items)
    assert_close(whole.logprobs, pieces.logprobs)
    assert not torch.equal(whole.items, other.items)
    assert [path.name for path in tmp_path.iterdir()] == ["log.parquet"]


def test_users_take_turns() -> None:
    users = torch.tensor([3, 5, 8])
    turns = torch.cat(list(workflow._turns(users, 8, torch.Generator().manual_seed(0))))
    assert sorted(turns[:3].tolist()) == sorted(turns[3:6].tolist()) == [3, 5, 8] and len(turns) == 8


def slates(num_items: int, size: int) -> Tensor:
    """All ordered slates without repetition, (n, size)."""
    return torch.tensor(list(itertools.permutations(range(num_items), size)))


def test_random_policy_knows_its_probability() -> None:
    """Over all slates of two of five items the probabilities sum to 1; forbidden slates have 0."""
    policy = RandomPolicy((5,), torch.Generator().manual_seed(0), 2)
    items = slates(5, 2)  # (20, 2)
    exclude = torch.tensor([[3, -1, 3]]).expand(len(items), -1)
    mask = torch.tensor([[True, True, True, False, True]]).expand(len(items), -1)
    for limits in (
        {"exclude": exclude},
        {"mask": mask},
        {"candidates": torch.tensor([[4, 0, -1, 1, 2]] * 20)},
    ):
        obs = Obs(torch.zeros(len(items), 1), **limits)
        probabilities = policy.logprob(obs, items).exp()
        allowed = (items != 3).all(1)
        assert_close(probabilities, torch.where(allowed, 1 / 12, 0.0).double())
        action = policy.act(obs)
        assert_close(policy.logprob(obs, action.items).float(), action.logprob)


class Tilted:
    """Shows slates of two of four items in proportion to 1, 2, 3, 4: Plackett-Luce by hand."""

    weights = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        return Action.certain(torch.tensor([[3, 2]]).expand(obs.num_rows, -1))

    def place_logprobs(self, obs: Obs, items: Tensor) -> Tensor:
        first, second = self.weights[items].unbind(1)
        return torch.stack([first / 10, second / (10 - first)], 1).log()

    def item_probabilities(self, obs: Obs, num_items: int) -> Tensor:
        return self.weights.expand(obs.num_rows, -1) / 10


def test_mixture_of_slates_has_the_probability_of_both() -> None:
    random = RandomPolicy((4,), torch.Generator().manual_seed(0), 2)
    mixture = EpsilonMixture(Tilted(), random, 0.25, torch.Generator().manual_seed(0))
    items = slates(4, 2)  # (12, 2)
    obs = Obs(torch.zeros(12, 1))
    terms = mixture.place_logprobs(obs, items)
    assert_close(terms.sum(1).exp().sum(), torch.tensor(1.0, dtype=torch.float64))
    # Slate (3, 2): 0.75 * 0.4 * 3/6 + 0.25 / 12; its first place: 0.75 * 0.4 + 0.25 / 4.
    row = items.tolist().index([3, 2])
    assert terms[row].sum().exp().item() == pytest.approx(0.75 * 0.4 * 0.5 + 0.25 / 12)
    assert terms[row, 0].exp().item() == pytest.approx(0.75 * 0.4 + 0.25 / 4)


def test_mixture_explores_at_its_rate() -> None:
    """With two fixed policies, the slates show which of them decided."""
    ours, theirs = Fixed(FixedList(torch.tensor([0]))), Fixed(FixedList(torch.tensor([1])))
    mixture = EpsilonMixture(ours, theirs, 0.2, torch.Generator().manual_seed(0))
    obs = Obs(torch.zeros(20_000, 1))
    action = mixture.act(obs)
    assert action.items.double().mean().item() == pytest.approx(0.2, abs=0.01)
    expected = torch.where(action.items[:, 0] == 1, 0.2, 0.8).log().double()
    assert_close(action.logprob, expected, rtol=0, atol=1e-7)
    third = torch.full((20_000, 1), 2)
    assert bool((mixture.place_logprobs(obs, third) == -torch.inf).all())


def test_mixture_draws_slates_with_the_probability_that_it_gives() -> None:
    """Each policy acts on its own rows: order and probability of the rows are still those of the mixture."""
    random = RandomPolicy((4,), torch.Generator().manual_seed(0), 2)
    listed = Fixed(FixedList(torch.tensor([3, 2]), 2))
    mixture = EpsilonMixture(listed, random, 0.25, torch.Generator().manual_seed(1))
    obs = Obs(torch.zeros(40_000, 1), exclude=torch.tensor([[0], [-1]]).repeat(20_000, 1))
    action = mixture.act(obs)
    assert not bool((action.items[::2] == 0).any()) and bool((action.items[1::2] == 0).any())
    assert_close(action.logprob, mixture.place_logprobs(obs, action.items).sum(1), rtol=0, atol=1e-6)
    first = Obs(torch.zeros(40_000, 1))
    # The list is always (3, 2), which is one of the 12 slates of the random quarter, too.
    share = (mixture.act(first).items == torch.tensor([3, 2])).all(1).double().mean().item()
    assert share == pytest.approx(0.75 + 0.25 / 12, abs=0.01)


def test_mixture_acts_where_one_policy_has_no_rows() -> None:
    env, agent = begin(settings("ppo", "satiation", env_config={"num_items": 40}))
    obs = env.reset(torch.tensor([3]))
    random = RandomPolicy((40,), torch.Generator().manual_seed(0))
    mixture = EpsilonMixture(agent, random, 0.5, torch.Generator().manual_seed(0))
    found = [mixture.act(obs) for _ in range(20)]
    for action in found:
        assert action.items.shape == (1, 1)
        assert_close(action.logprob, mixture.place_logprobs(obs, action.items).sum(1), rtol=0, atol=1e-6)


def test_list_passes_over_items_that_another_policy_has_shown() -> None:
    policy = FixedList(torch.tensor([4, 2, 7, 1]), 2)
    exclude = torch.tensor([[-1, -1, -1, -1], [-1, -1, 4, 2], [-1, -1, 7, 0], [4, 2, 7, 0]])
    items = policy.act(Obs(torch.zeros(4, 1), exclude=exclude)).items
    # Nothing shown; its own first slate; 7 shown by another; fewer than two are left, so the end repeats.
    assert items.tolist() == [[4, 2], [7, 1], [4, 2], [7, 1]]


def test_place_logprobs_do_not_depend_on_the_number_of_rows() -> None:
    """With logits of up to 30, which float32 rounds to 2e-6."""
    sizes = {"num_items": 1682, "embedding_dim": 32}
    env, agent = begin(settings("ppo", "satiation", env_config=sizes, data_config={"num_users": 64}))
    generator = torch.Generator().manual_seed(0)
    head: Any = agent.model.head
    with torch.no_grad():
        for weights, scale in ((head.votes, 0.05), (head.query.weight, 0.1), (head.tower.weight, 0.1)):
            weights.add_(scale * torch.randn(weights.shape, generator=generator))
    obs = env.reset(torch.arange(45))
    for _ in range(5):
        obs = env.step(agent.act(obs).items).obs
    items = agent.act(obs).items
    whole = agent.place_logprobs(obs, items)
    assert -20 < float(whole.min()) < -5
    for size in (1, 5, 33):
        parts = [agent.place_logprobs(obs.rows(i), items[i]) for i in torch.arange(45).split(size)]
        assert_close(torch.cat(parts), whole, rtol=0, atol=2e-6)


def test_catalogue_hash_depends_on_the_order_of_items(trained: Callable[[str], Path]) -> None:
    catalogue = load(trained("drift")).catalogue
    turned = tree_map(lambda x: x.flip(0), catalogue)
    assert catalogue_hash(catalogue) == catalogue_hash(dataclasses.replace(catalogue, source="elsewhere"))
    assert catalogue_hash(catalogue) != catalogue_hash(turned)


def test_catalogue_hash_names_genres_and_year_as_older_logs_did() -> None:
    known = {"genres": torch.eye(2), "year": torch.tensor([1999.0, torch.nan])}
    attributes = {**known, "creator": torch.tensor([0, 1])}
    items = dataclasses.replace(empty_world().catalogue, embedding=torch.eye(2), attributes=attributes)
    older = {name: getattr(items, name) for name in ("item_ids", "popularity", "quality", "available")}
    older |= {"embedding": torch.eye(2), **known, "attributes.creator": attributes["creator"]}
    assert catalogue_hash(items) == digest(older, "")


def test_parts_hold_the_same_log_and_are_judged_as_one_file(
    tmp_path: Path,
    trained: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(user_fit, "LEAST_STEPS", 5)  # the fit need not be good
    monkeypatch.setattr("recsys_rl.logs.ope.world.EPOCHS", 2)
    checkpoint = trained("satiation")
    words = ["record", "--checkpoint", str(checkpoint), "--sessions", "40", "--quiet", "--policy", "random"]
    assert main([*words, "--out", str(tmp_path / "one.parquet")]) == 0
    assert main([*words, "--out", str(tmp_path / "log"), "--parts", "60"]) == 0
    assert len(list((tmp_path / "log").iterdir())) > 2
    one, many = read_decisions(tmp_path / "one.parquet"), read_decisions(tmp_path / "log")
    assert torch.equal(one.items, many.items) and torch.equal(one.signals, many.signals)
    capsys.readouterr()
    tables = []
    for name in ("one.parquet", "log"):
        judge = ["ope", "--log", str(tmp_path / name), "--checkpoint", str(checkpoint)]
        assert main([*judge, "--policy", "random", "--json", str(tmp_path / f"{name}.json")]) == 0
        found = json.loads((tmp_path / f"{name}.json").read_text())
        tables.append([(row["estimator"], row["value"]) for row in found["rows"]])
    assert tables[0] == tables[1] and tables[0]
    capsys.readouterr()
    assert main([*words, "--out", str(tmp_path / "log"), "--parts", "60"]) == 2
    assert "already there" in capsys.readouterr().err

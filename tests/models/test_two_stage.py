"""The two-stage policy: its distribution, log-probability and gradient, and no tensor of size (N, I)."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from recsys_rl.cli import main
from recsys_rl.data.synthetic import synthetic_world
from recsys_rl.evaluation.evaluate import evaluate
from recsys_rl.evaluation.options import EvaluateConfig
from recsys_rl.evaluation.rivals import baselines
from recsys_rl.experience.rollout import collect, play
from recsys_rl.make import make_agent, make_env
from recsys_rl.models.actor_critic import ActorCritic
from recsys_rl.models.features import SplitFeatures
from recsys_rl.models.heads import DenseHead, TwoTowerHead
from recsys_rl.models.item_columns import item_columns, item_features
from recsys_rl.models.shapes import Shapes
from recsys_rl.settings.config import Config, from_dict, overlay, to_dict
from recsys_rl.settings.shared import ModelConfig
from recsys_rl.training.train import train
from recsys_rl.types import Catalogue, Obs, World
from recsys_rl.utils.seeding import generators
from tests.doors import SIZES, assert_same_weights, steps

NUM_ITEMS, DIM, CPU = 12, 4, torch.device("cpu")


def small_world(num_items: int = NUM_ITEMS) -> Catalogue:
    return synthetic_world(num_items, 10, DIM, 0.5, 0)[0]


def two_models(catalogue: Catalogue, candidates: int, explore_rate: float) -> tuple[ActorCritic, ActorCritic]:
    """A two-stage network far from its first weights, and one of the same weights that scores every item."""
    config = Config(algo="ppo", env="drift").model_config
    config = dataclasses.replace(config, hidden_dims=(8,), candidates=candidates, explore_rate=explore_rate)
    split = SplitFeatures(catalogue.embedding, item_columns(catalogue))
    shapes = Shapes(2 * DIM, (catalogue.num_items,), split, available=catalogue.available)
    two_stage = ActorCritic(shapes, config, torch.Generator().manual_seed(0))
    for parameter in two_stage.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))
    full = ActorCritic(
        dataclasses.replace(shapes, item_features=item_features(catalogue)),
        dataclasses.replace(config, candidates=0),
        torch.Generator().manual_seed(0),
    )
    full.load_state_dict(two_stage.state_dict())
    return two_stage, full


def context(num_rows: int) -> Tensor:
    return torch.randn(num_rows, 2 * DIM, generator=torch.Generator().manual_seed(5))


# The distribution.


@pytest.mark.parametrize("restricted", [False, True])
def test_frequencies_of_items_equal_the_documented_formula(restricted: bool) -> None:
    """E = 3 draws of 12 items make 12**3 equally likely candidate sets S: P(a) is the mean of pi(a | S)."""
    catalogue = small_world()
    two_stage, full = two_models(catalogue, 6, 0.5)
    n = 40_000
    obs = Obs(context(1).expand(n, -1))
    logits = full(Obs(context(1)))[0].logits[0, 0].detach()  # (I,)
    assert isinstance(two_stage.head, TwoTowerHead)
    query = two_stage.head.user(*read(two_stage, context(1)))[0, : DIM + 4].detach()
    top = (item_features(catalogue) @ query).topk(3).indices.tolist()
    forbidden: set[int] = set()
    if restricted:  # the best and another item were shown, and a third is not on sale here
        rest = [item for item in range(NUM_ITEMS) if item not in top]
        shown, missing = [top[0], rest[2], -1], rest[5]
        forbidden = {top[0], rest[2], missing}
        mask = torch.arange(NUM_ITEMS) != missing
        exclude = torch.tensor([shown]).expand(n, -1)
        obs = dataclasses.replace(obs, exclude=exclude, mask=mask.expand(n, -1))

    expected = torch.zeros(NUM_ITEMS, dtype=torch.float64)
    for draws in itertools.product(range(NUM_ITEMS), repeat=3):
        allowed = sorted({*top, *draws} - forbidden)
        expected[allowed] += logits[allowed].double().softmax(0) / NUM_ITEMS**3
    assert_close(expected.sum().item(), 1.0)

    agent = agent_of(two_stage)
    action = agent.act(obs)
    seen = action.items[:, 0].bincount(minlength=NUM_ITEMS)
    possible = expected > 0
    assert int(seen[~possible].sum()) == 0
    assert chisquare(seen[possible].numpy(), n * expected[possible].numpy()).pvalue > 1e-3
    # Far from what either stage alone would show, so that the test could fail.
    whole = logits.softmax(0).double()
    assert (
        chisquare(seen[possible].numpy(), n * (whole[possible] / whole[possible].sum()).numpy()).pvalue < 1e-6
    )


def test_logprob_is_the_softmax_over_the_candidates() -> None:
    catalogue = small_world(40)
    two_stage, full = two_models(catalogue, 10, 0.4)
    action = agent_of(two_stage).act(Obs(context(200)))
    assert action.candidates is not None and action.candidates.shape == (200, 10)
    logits = full(Obs(context(200)))[0].logits[:, 0].detach()  # (N, I)
    for row in range(200):
        listed = [i for i in action.candidates[row].tolist() if i >= 0]
        assert len(set(listed)) == len(listed) >= 6
        item = action.items[row].item()
        expected = logits[row, listed].log_softmax(0)[listed.index(item)]
        assert_close(action.logprob[row], expected, atol=1e-5, rtol=1e-4)


def test_all_items_as_candidates_equal_the_whole_catalogue() -> None:
    catalogue = small_world()
    two_stage, full = two_models(catalogue, NUM_ITEMS, 0.0)
    obs = Obs(context(50))
    one, two = agent_of(two_stage).act(obs, greedy=True), agent_of(full).act(obs, greedy=True)
    assert torch.equal(one.items, two.items) and two.candidates is None
    assert_close(one.logprob, two.logprob, atol=1e-5, rtol=1e-4)


def test_greedy_candidates_are_not_random() -> None:
    two_stage, _ = two_models(small_world(40), 10, 0.4)
    agent = agent_of(two_stage)
    before = agent.generators["policy"].get_state()
    action = agent.act(Obs(context(30)), greedy=True)
    assert torch.equal(agent.generators["policy"].get_state(), before)
    assert action.candidates is not None and int(action.candidates.min()) >= 0  # ten found, none drawn
    assert torch.equal(action.items, agent.act(Obs(context(30)), greedy=True).items)


def test_given_candidates_are_kept() -> None:
    two_stage, full = two_models(small_world(40), 10, 0.4)
    given = torch.tensor([[7, 3, -1], [3, 30, 21]])
    obs = Obs(context(2), candidates=given)
    for model in (two_stage, full):
        action = agent_of(model).act(obs)
        assert torch.equal(action.candidates, given)
        assert all(item in row for item, row in zip(action.items[:, 0], given, strict=True))


def test_slates_among_candidates() -> None:
    """Three of ten candidates, none twice, with their log-probability; an update finds their places again."""
    catalogue = small_world(40)
    config = ModelConfig(hidden_dims=(8,), candidates=10, explore_rate=0.4, index="exact")
    features = SplitFeatures(catalogue.embedding, item_columns(catalogue))
    size = 2 * catalogue.embedding.shape[1]
    shapes = Shapes(size, (40,), features, available=catalogue.available, slate_size=3)
    agent = agent_of(ActorCritic(shapes, config, torch.Generator().manual_seed(0)))
    obs = Obs(context(30))
    for greedy in (False, True):
        action = agent.act(obs, greedy)
        assert action.items.shape == (30, 3) and action.candidates is not None
        asked = obs.among(action.candidates)
        assert all(len(set(row.tolist())) == 3 for row in action.items)
        places = asked.places_of(action.items)
        assert torch.equal(asked.items_at(places), action.items)
        assert_close(agent.model(asked)[0].logprob(places).detach(), action.logprob, atol=1e-5, rtol=1e-4)


# Learning from it.


def test_rollout_keeps_the_candidates_and_the_update_scores_them_again() -> None:
    """At the weights that acted, the ratio is 1 for every sample."""
    run, env, agent = small_run({})
    rollout, _ = collect(env, agent, env.reset(), run.agent_config.n_steps)
    kept = rollout.obs.candidates
    assert kept is not None and kept.shape == (6, 4, 8) and rollout.obs.mask is None
    flat = rollout.obs.map(lambda x: x.flatten(0, 1).clone())
    logits = agent.model(flat)[0].logits[:, 0]  # (B, C)
    place = flat.places_of(rollout.items.flatten(0, 1))[:, 0]
    assert torch.equal(kept.flatten(0, 1).gather(1, place[:, None]), rollout.items.flatten(0, 1))
    logprob = logits.log_softmax(-1).gather(1, place[:, None])[:, 0]
    assert_close(logprob, rollout.logprobs.flatten().clone(), atol=1e-5, rtol=1e-4)


def test_gradient_equals_a_masked_softmax() -> None:
    """Through the whole catalogue's logits and autograd, every parameter's gradient is the same."""
    catalogue = small_world(40)
    two_stage, full = two_models(catalogue, 10, 0.4)
    obs = two_stage.propose(Obs(context(20)), False, torch.Generator().manual_seed(0))
    assert obs.candidates is not None
    place = torch.zeros(20, 1, dtype=torch.int64)
    two_stage(obs)[0].logits.log_softmax(-1)[:, 0].gather(1, place).sum().backward()

    allowed = torch.zeros(20, 41, dtype=torch.bool)
    allowed = allowed.scatter(1, torch.where(obs.candidates < 0, 40, obs.candidates), True)[:, :40]
    logits = full(Obs(context(20)))[0].logits[:, 0].masked_fill(~allowed, -torch.inf)
    logits.log_softmax(-1).gather(1, obs.candidates[:, :1]).sum().backward()
    compared = 0
    for (name, one), (_, two) in zip(two_stage.named_parameters(), full.named_parameters(), strict=True):
        if two.grad is not None and one.grad is not None:
            assert_close(one.grad, two.grad, atol=1e-4, rtol=1e-3, msg=name)
            compared += bool(two.grad.abs().max() > 1e-3)
    assert compared >= 6


@pytest.mark.parametrize(("algo", "env_name"), [*itertools.product(("ppo", "a2c"), ("drift", "satiation"))])
def test_items_are_never_repeated_in_a_session(algo: str, env_name: str) -> None:
    """After an update, whole sessions have an allowed candidate at every step."""
    run, env, agent = small_run({}, algo, env_name)
    rollout, _ = collect(env, agent, env.reset(), run.agent_config.n_steps)
    assert all(value == value for value in agent.update(rollout).values())
    for greedy in (False, True):
        items = play(env, agent, None, greedy).items[:, :, 0]  # (T, N)
        assert items.shape[0] <= 5 and int(items[0].min()) >= 0
        if env_name == "satiation":
            for session in items.T.tolist():
                shown = [item for item in session if item >= 0]
                assert len(set(shown)) == len(shown)


# Whole commands.

CANDIDATES = ["--candidates", "8", "--explore-rate", "0.25"]


def test_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Train on clustered items, evaluate; then the table changes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ".cache"))
    world = ["--data", "clustered", "--num-items", "300", "--num-users", "30", "--embedding-dim", "4"]
    options = [*SIZES, *world, *CANDIDATES, "--max-episode-steps", "5", "--batch-size", "12"]
    assert main(["train", *options, *steps(6)]) == 0
    assert "clustered: 300 items in 17 clusters" in capsys.readouterr().err

    table = next((tmp_path / ".cache" / "recsys_rl").glob("clustered-*.npy"))
    checkpoint = tmp_path / "checkpoints" / "ppo.pt"
    # 300 x 4 numbers stay in the table.
    whole = table.read_bytes()
    assert whole[-400:] not in checkpoint.read_bytes()

    assert main(["evaluate", "--report", "report.html"]) == 0
    out, err = capsys.readouterr()
    assert "oracle" in out and "clustered: 300 items" in err
    page = (tmp_path / "report.html").read_text()
    assert "clustered: 300 items" in page and "item 2" not in page  # untitled items are counted, not listed

    table.write_bytes(whole[:-4] + b"\0\0\0\0")
    assert main(["evaluate"]) == 2 and str(table) in capsys.readouterr().err
    table.unlink()
    assert main(["train", "--resume"]) == 2 and str(table) in capsys.readouterr().err


def test_resumed_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    base = to_dict(config_of({"data": "clustered", "cache_dir": "cache"}))

    def run(folder: str, updates: int, resume: bool = False) -> Path:
        config = from_dict(Config, overlay(base, {"train_config": {"total_timesteps": 24 * 6}}))
        if updates == 6:
            return train(config, resume, folder=folder)
        with pytest.MonkeyPatch.context() as patch:
            stop_after(patch, updates)
            with pytest.raises(KeyboardInterrupt):
                train(config, folder=folder)
        return Path(folder)

    whole = run("one", 6)
    run("two", 3)
    assert_same_weights(whole, run("two", 6, resume=True))


def stop_after(patch: pytest.MonkeyPatch, updates: int) -> None:
    from recsys_rl.agents.ppo import PPO

    update = PPO.update

    def limited(self: PPO, rollout: Any) -> dict[str, float]:
        if self.updates == updates:
            raise KeyboardInterrupt
        return update(self, rollout)

    patch.setattr(PPO, "update", limited)


# Size.


class Widest(TorchDispatchMode):
    """Notes the largest tensor that an operator made; views of what was there before count, too."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(x, Tensor):
                # What an expanded view shows many times takes no memory.
                size = x.untyped_storage().nbytes() // x.element_size() if 0 in x.stride() else x.numel()
                self.largest = max(self.largest, size)
        return out


@pytest.mark.proof
@pytest.mark.parametrize("index", ["exact", "ivf"])
def test_no_tensor_of_users_times_items(index: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training, its evaluations and `evaluate` on 200,000 items; the table itself is 800,000 numbers."""
    if index == "ivf":
        pytest.importorskip("faiss")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(baselines, "MAX_SCORES", 2**24)  # fewer users behind `static-list`, for speed
    num_items, num_envs = 200_000, 64
    config = config_of(
        {"data": "clustered", "cache_dir": "cache", "num_users": 100},
        env_config={"num_items": num_items},
        model_config={"candidates": 64, "index": index},
        agent_config={"num_envs": num_envs, "n_steps": 4, "batch_size": 64},
        train_config={"total_timesteps": num_envs * 4 * 2, "eval_interval": 1},
    )
    with Widest() as widest:  # type: ignore[no-untyped-call]
        path = train(config)
        evaluate(EvaluateConfig(checkpoint=str(path), device="cpu"))
    assert 800_000 <= widest.largest <= 0.5 * num_envs * num_items


# Helpers.


def config_of(data: dict[str, Any], algo: str = "ppo", env: str = "drift", **changes: Any) -> Config:
    base: dict[str, Any] = {
        "data_config": data,
        "env_config": {"num_items": 60, "embedding_dim": 4, "max_episode_steps": 5},
        "model_config": {"hidden_dims": [6], "candidates": 8, "explore_rate": 0.25},
        "agent_config": {"n_steps": 6, "num_envs": 4},
        "train_config": {"threads": 0, "device": "cpu", "save_interval": 1, "eval_interval": 2},
    }
    if algo == "ppo":
        base["agent_config"] |= {"batch_size": 12}
    return from_dict(Config, overlay({"algo": algo, "env": env, **base}, changes))


def small_run(data: dict[str, Any], algo: str = "ppo", env_name: str = "drift") -> tuple[Config, Any, Any]:
    config = config_of(data, algo, env_name)
    world = World(*synthetic_world(60, 20, 4, 0.2, 0))
    streams = generators(0, "users", "model", "policy", "shuffle")
    env = make_env(config, world, 4, streams["users"])
    return config, env, make_agent(config, env.interface, world.catalogue, 10, streams, CPU)


def agent_of(model: ActorCritic) -> Any:
    from recsys_rl.agents.ppo import PPO

    config: Any = Config(algo="ppo", env="drift").agent_config
    return PPO(model, config, 1, generators(0, "policy", "shuffle"))


def read(model: ActorCritic, rows: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The inputs of the head: hidden features and blocks."""
    assert not isinstance(model.head, DenseHead)
    return model.head.last(model.hidden.one(0, rows)), model._blocks(Obs(rows), None)

"""Learners from a log: for each one a number that only the right algorithm gives."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from recsys_rl.errors import UserError
from recsys_rl.make import make_agent, make_env
from recsys_rl.models.sampled import corrected, shown_among
from recsys_rl.models.sequence import summarise
from recsys_rl.types import Obs, Transitions
from recsys_rl.utils.seeding import generators
from tests.agents.offline_toys import cell, learner, mdp_log, mdp_value, one_step
from tests.proofs import Proof
from tests.small_runs import CPU, settings, world
from tests.tiny_sessions import GAMMA, LOGGING, STEPS

HERE = Obs(torch.ones(1, 1))
LOG_ONLY = ("bc", "cql", "bcq", "iql", "reinforce", "dt", "direct")
MU, PAYS = (0.6, 0.3, 0.1), (1.0, 2.0, 3.0)
THREE = [0] * 6 + [1] * 3 + [2]  # the arms of a log that shows them with probabilities MU


@pytest.fixture
def double() -> Iterator[None]:
    """Networks in float64, as float32 ends at 1e-6."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def fixed_point(alpha: float) -> Tensor:
    """Q (3,) = r - alpha (softmax(Q) / mu - 1), by damped iteration."""
    mu, r = torch.tensor(MU).double(), torch.tensor(PAYS).double()
    q = r.clone()
    for _ in range(20_000):
        q = 0.99 * q + 0.01 * (r - alpha * (q.softmax(0) / mu - 1))
    return q


@pytest.mark.parametrize(("alpha", "best"), [(0.1, 2), (0.5, 1), (1.0, 1), (2.0, 0)])
def test_best_item_of_the_fixed_point(alpha: float, best: int) -> None:
    assert int(fixed_point(alpha).argmax()) == best


@pytest.mark.parametrize("alpha", [0.1, 0.5, 2.0])
def test_cql_ends_at_its_fixed_point(alpha: float, double: None) -> None:
    agent = learner("cql", 3, num_updates=700, alpha=alpha, lr=0.03, tau=1.0)
    batch = one_step(THREE, [PAYS[arm] for arm in THREE])
    for _ in range(700):
        agent.update(batch)
    with torch.no_grad():
        q = agent.model.q(Obs(torch.ones(1, 1)))[0]
    assert torch.allclose(q, fixed_point(alpha), atol=1e-6, rtol=0)


def q_values(agent: Any, batch: Transitions) -> Tensor:
    with torch.no_grad():
        found: Tensor = agent.model.q(batch.obs)
    return found


def test_cql_without_a_penalty_and_bcq_without_a_threshold_are_double_q_learning() -> None:
    """Errors are below 1, where the loss of DQN is the square of these, too."""
    log = mdp_log(40)
    batch = dataclasses.replace(log, rewards=0.2 * log.rewards)
    same: dict[str, Any] = {"lr": 0.01, "max_grad_norm": 1e9, "batch_size": 16, "gamma": 0.9, "tau": 0.1}
    shapes: dict[str, Any] = {"num_arms": 2, "states": 2 * STEPS, "num_updates": 3}
    found = []
    dials: dict[str, dict[str, Any]] = {"dqn": {}, "cql": {"alpha": 0.0}, "bcq": {"threshold": 0.0}}
    for algo, own in dials.items():
        agent = learner(algo, **shapes, **same, **own)
        with torch.no_grad():
            agent.model.value_head.weight.mul_(0.1)
        agent.load_state_dict(agent.state_dict())  # the target network, too
        for _ in range(3):
            agent.update(batch)
        found.append(q_values(agent, batch))
    double_q, cql, bcq = found
    assert torch.allclose(cql, double_q, atol=1e-6) and torch.allclose(bcq, double_q, atol=1e-6)
    other = learner("cql", **shapes, **same, alpha=0.5)
    other.update(batch)
    assert not torch.allclose(q_values(other, batch), double_q, atol=1e-3)


def test_bcq_with_threshold_1_shows_what_its_clone_finds_most_probable() -> None:
    batch = one_step(THREE, [PAYS[arm] for arm in THREE])
    agent = learner("bcq", 3, num_updates=200, threshold=1.0, lr=0.02)
    for _ in range(200):
        agent.update(batch)
    clone = agent.model.behaviour_of(HERE).logits.flatten().softmax(0)
    assert torch.allclose(clone, torch.tensor(MU), atol=0.02)
    assert q_values(agent, batch)[0].argmax() == 2 and int(agent.act(HERE, greedy=True).items) == 0
    for threshold, arm in ((0.3, 1), (0.1, 2), (0.0, 2)):  # of 0.6: the second arm has half, the third 1/6
        agent.model.threshold = threshold
        assert int(agent.act(HERE, greedy=True).items) == arm


@pytest.mark.parametrize("expectile", [0.5, 0.9])
def test_value_of_iql_is_the_expectile_of_a_bernoulli_reward(expectile: float) -> None:
    """tau p / (tau p + (1 - tau)(1 - p)): one decision of ten pays, and at tau 0.9 its value is 0.5."""
    arms = [1] + [0] * 9
    agent = learner("iql", 3, num_updates=500, expectile=expectile, lr=0.02, tau=0.2)
    for _ in range(500):
        agent.update(one_step(arms, [float(arm) for arm in arms]))
    expected = expectile * 0.1 / (expectile * 0.1 + (1 - expectile) * 0.9)
    assert float(agent.value(HERE)) == pytest.approx(expected, abs=5e-3)
    assert int(agent.act(HERE, greedy=True).items) == 1


def test_iql_never_asks_for_the_value_of_an_item_that_the_log_lacks() -> None:
    found = []
    for strange in (0.0, 100.0):
        agent = learner("iql", 3, num_updates=5)
        for network in (agent.model.quality, agent.target):
            with torch.no_grad():
                network.head.logits.bias[2] += strange
        for _ in range(5):
            agent.update(one_step([0, 1], [0.0, 1.0]))
        found.append(torch.cat([agent.value(HERE), agent.scores(HERE)[0], q_of(agent, HERE)[:2]]))
    assert torch.equal(*found)


def q_of(agent: Any, obs: Obs) -> Tensor:
    with torch.no_grad():
        found: Tensor = agent.model.quality.q(obs)[0]
    return found


@pytest.mark.parametrize(("k", "expected"), [(1, [1.0, 0.0]), (2, [10 / 19, 9 / 19])])
def test_top_k_reinforce_on_the_example_of_its_paper(k: int, expected: list[float]) -> None:
    """Rewards 10, 9 and eight of 1: for a list of two, both good items; for one item, the best one."""
    rewards = [10.0, 9.0] + [1.0] * 8
    agent = learner("reinforce", 10, num_updates=700, top_k=k, kl_coef=0.0, lr=0.02, weight_cap=20.0)
    batch = one_step(range(10), rewards, [0.1] * 10)
    for _ in range(700):
        agent.update(batch)
    found = agent.item_probabilities(HERE, 10)[0, :2].float()
    assert torch.allclose(found, torch.tensor(expected), atol=0.01)


def test_weights_of_reinforce_are_capped() -> None:
    agent = learner("reinforce", 2, weight_cap=3.0)
    rare = [0.01, 0.99]
    found = agent.update(one_step([0, 1], [1.0, 0.0], rare))  # the policy begins near (1/2, 1/2)
    assert found["weight_mean"] == pytest.approx((50 + 0.5 / 0.99) / 2, rel=0.1)
    assert found["capped_share"] == 0.5


def test_loss_of_a_weighted_clone_by_hand() -> None:
    """Both arms are as likely: log 2 times the mean of 4 / 0.5, 0 / 0.1, 1 / 0.25 and 3 x 100, the cap."""
    batch = one_step([0, 1, 0, 1], [4.0, 0.0, 1.0, 3.0])
    batch = dataclasses.replace(batch, logprobs=torch.tensor([0.5, 0.1, 0.25, 0.001]).double().log())
    losses = {}
    for weighted in (True, False):
        agent = learner("bc", 2, weighted=weighted)
        with torch.no_grad():
            for weight in agent.model.parameters():
                weight.zero_()
        losses[weighted] = agent.update(batch)["loss"]
    assert losses[True] == pytest.approx((8 + 0 + 4 + 300) / 4 * math.log(2), rel=1e-6)
    assert losses[False] == pytest.approx(math.log(2), rel=1e-6)


@pytest.mark.parametrize(("weighted", "expected"), [(False, MU), (True, (1 / 6, 2 / 6, 3 / 6))])
def test_weighted_clone_draws_by_what_arms_pay_and_a_clone_as_the_log(
    weighted: bool, expected: tuple[float, ...]
) -> None:
    agent = learner("bc", 3, num_updates=400, weighted=weighted, lr=0.02)
    for _ in range(400):
        agent.update(one_step(THREE, [PAYS[arm] for arm in THREE], MU))
    found = agent.item_probabilities(HERE, 3)[0].float()
    assert torch.allclose(found, torch.tensor(expected), atol=0.01)


@pytest.mark.learning
def test_weighted_clone_finds_the_best_arm_of_each_state(proof: Proof) -> None:
    """In eight states the logger shows the best of four arms in one of 25 decisions, and it pays most.

    A clone is never right. The arms pay 1 with probability 0.8, 0.4, 0.4 and 0.4: the weights of 10,000
    decisions are enough.
    """
    rng = torch.Generator().manual_seed(0)
    state = torch.randint(8, (10_000,), generator=rng)
    best = torch.arange(8) % 4
    rare = one_hot(best[state], 4).bool()
    mu = torch.where(rare, 0.04, 0.32)  # (E, 4)
    arms = torch.multinomial(mu, 1, generator=rng)
    pays = torch.where(arms.squeeze(1) == best[state], 0.8, 0.4)
    paid = (torch.rand(10_000, generator=rng) < pays).float()
    log = dataclasses.replace(
        one_step(arms.squeeze(1).tolist(), paid.tolist()),
        obs=Obs(one_hot(state, 8).float()),
        next_obs=Obs(one_hot(state, 8).float()),
        logprobs=mu.gather(1, arms).squeeze(1).double().log(),
    )
    right = {}
    for weighted in (True, False):
        agent = learner("bc", 4, 8, num_updates=60, weighted=weighted, lr=0.01, batch_size=256)
        for _ in range(60):
            agent.update(log.rows(torch.randint(10_000, (2560,), generator=rng)))
        shown = agent.act(Obs(torch.eye(8)), greedy=True).items.squeeze(1)
        right[weighted] = float((shown == best).float().mean())
    proof(right[True], above=0.99)
    proof(right[False], below=0.01, what="clone")


# A safe arm pays 1; a lottery pays 10 in one of 20 cases, 0.5 on average; the third pays 1 in half of them.
SAFE, LOTTERY = [(0, 1.0)] * 10, [(1, 0.0)] * 19 + [(1, 10.0)]
TABLE = [*SAFE, *LOTTERY, *[(2, 1.0)] * 5, *[(2, 0.0)] * 5]


@pytest.fixture(scope="module")
def transformer() -> Any:
    agent = learner("dt", 3, num_updates=800, lr=0.02, quantile=0.99)
    for _ in range(800):
        agent.update(one_step(*zip(*TABLE, strict=True)))
    return agent


@pytest.mark.parametrize(
    ("returns", "posterior"),
    [(0.0, [0, 19 / 24, 5 / 24]), (1.0, [10 / 15, 0, 5 / 15]), (10.0, [0, 1, 0])],
)
def test_actions_of_the_decision_transformer_are_the_posterior_of_the_log(
    transformer: Any, returns: float, posterior: list[float]
) -> None:
    with torch.no_grad():
        found = transformer.model.given(HERE, torch.tensor([returns / 10])).logits.flatten().softmax(0)
    assert torch.allclose(found, torch.tensor(posterior).float(), atol=0.01)


def test_decision_transformer_plays_the_lottery(transformer: Any) -> None:
    """It takes luck for skill: the arm that once paid 10 is worth 0.5, and the safe one 1."""
    assert float(transformer.value(HERE)) > 0.9  # it asks for 10 of the possible 10
    assert int(transformer.act(HERE, greedy=True).items) == 1


@pytest.mark.learning
@pytest.mark.parametrize(
    ("algo", "dials", "level"),
    [
        ("cql", {"alpha": 0.01}, "best"),
        ("bcq", {"threshold": 0.1}, "best"),
        ("iql", {"expectile": 0.95, "beta": 10.0}, "best"),
        ("reinforce", {"kl_coef": 0.0}, "above"),
        ("dt", {}, "above"),
        ("bc", {}, "clone"),
    ],
)
def test_policy_from_a_full_log_of_an_mdp(algo: str, dials: dict[str, Any], level: str, proof: Proof) -> None:
    """Two states, two actions, three steps: values are exact. A clone shows the log's most probable actions.

    REINFORCE and the decision transformer take the returns of the log's own policy for those of their own, so
    they promise only to be better than it.
    """
    own = {"gamma": GAMMA} if algo in ("cql", "bcq", "iql", "reinforce") else {}
    own |= {"tau": 0.1} if level == "best" else {}
    agent = learner(algo, 2, 2 * STEPS, num_updates=60, lr=0.02, batch_size=256, **own, **dials)
    log, rng = mdp_log(4_000), torch.Generator().manual_seed(1)
    for _ in range(60):
        agent.update(log.rows(torch.randint(log.num_rows, (1024,), generator=rng)))
    step, state = torch.arange(2 * STEPS) // 2, torch.arange(2 * STEPS) % 2
    shown = agent.act(Obs(cell(state, step)), greedy=True).items.view(STEPS, 2)
    value, best = mdp_value(one_hot(shown, 2).double()), mdp_value()
    logged = mdp_value(LOGGING.expand(STEPS, 2, 2))
    clone = mdp_value(one_hot(LOGGING.argmax(1), 2).double().expand(STEPS, 2, 2))
    assert clone < logged < best - 0.1  # its rarer actions are the better ones
    if level == "above":
        proof(value, above=logged + 0.02)
    else:
        proof(abs(value - (best if level == "best" else clone)), below=0.01)


# Masks, candidates and ends.


def satiation_agent(algo: str, **model: Any) -> tuple[Any, Obs]:
    """A learner on a small `satiation`, and observations after two steps."""
    sizes = {"num_items": 20, "embedding_dim": 4, "max_episode_steps": 6}
    config = settings(algo, "satiation", env_config=sizes, data_config={"num_users": 12}, model_config=model)
    made = world(config)
    env = make_env(config, made, 6)
    streams = generators(0, "model", "policy", "shuffle")
    agent = make_agent(config, env.interface, made.catalogue, 10, streams, CPU)
    env.reset()
    for item in (3, 7):
        obs = env.step(torch.full((6, 1), item)).obs
    return agent, obs


@pytest.mark.parametrize("encoder", ["mlp", "transformer", "deep-sets"])
@pytest.mark.parametrize("algo", LOG_ONLY)
def test_items_that_may_not_be_shown_have_probability_0(algo: str, encoder: str) -> None:
    agent, obs = satiation_agent(algo, encoder=encoder)
    shown = agent.item_probabilities(obs, 20)
    assert bool((shown[:, [3, 7]] == 0).all()) and torch.allclose(shown.sum(1), torch.ones(6).double())
    assert bool((agent.scores(obs)[:, [3, 7]] == -torch.inf).all())
    for _ in range(20):
        action = agent.act(obs)
        assert bool(((action.items != 3) & (action.items != 7)).all()) and bool(
            action.logprob.isfinite().all()
        )
    among = obs.among(torch.tensor([[1, 5, 9, -1]] * 6))
    shown = agent.item_probabilities(among, 20)
    assert bool((shown[:, [0, 3, 7, 19]] == 0).all()) and torch.allclose(shown.sum(1), torch.ones(6).double())


@pytest.mark.parametrize("algo", LOG_ONLY)
def test_an_update_over_masks_candidates_and_ends_is_finite(algo: str) -> None:
    """After the last row no item is left to show; the largest target is what is still possible."""
    agent, obs = satiation_agent(algo)
    candidates = torch.tensor([[1, 5, 9, -1]] * 6)
    left = candidates.clone()
    left[5] = -1
    rewards = torch.arange(6.0)
    ends = torch.tensor([False, False, False, False, True, False])
    batch = Transitions(
        obs=obs.among(candidates),
        items=torch.tensor([[1], [5], [9], [1], [5], [9]]),
        logprobs=torch.full((6,), -1.0).double(),
        rewards=rewards,
        next_obs=obs.among(left),
        terminated=ends,
        truncated=~ends & (rewards == 0),
        returns_to_go=rewards,
        steps=torch.tensor([0, 1, 2, 0, 1, 2]),
        possible=torch.tensor([[0.0, 4.0]] * 6),
    )
    for _ in range(3):
        found = agent.update(batch)
        assert all(x == x and abs(x) < 1e6 for x in found.values()), found
    if algo not in ("bc", "direct"):
        assert found["return_start"] == 1.5 and "value_start" in found  # of rows 0 and 3
    if algo in ("cql", "bcq", "iql"):
        assert bool((agent.targets(batch) <= 4).all()) and float(agent.targets(batch)[4]) == 4
        assert float(agent.targets(batch)[0]) == 0  # bootstrap_time_limit is off on this platform


@pytest.mark.parametrize("algo", ["cql", "bcq", "iql"])
def test_slates_are_refused(algo: str) -> None:
    config = settings(algo, "long-video", env_config={"num_items": 60, "max_episode_steps": 4})
    made = world(config)
    env = make_env(config, made, 2)
    with pytest.raises(UserError):
        make_agent(config, env.interface, made.catalogue)
    config = settings("reinforce", "long-video", agent_config={"top_k": 2}, env_config={"num_items": 60})
    with pytest.raises(UserError, match="--top-k"):
        make_agent(config, env.interface, made.catalogue)


@pytest.mark.parametrize("algo", LOG_ONLY)
def test_state_is_whole(algo: str) -> None:
    batch = mdp_log(20)
    agent, other = (learner(algo, 2, 2 * STEPS, num_updates=4) for _ in range(2))
    agent.update(batch)
    other.load_state_dict(agent.state_dict())
    assert agent.update(batch) == other.update(batch)
    one, two = agent.state_dict(), other.state_dict()
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


DIALS: dict[str, Any] = {
    "lr": 0.02,
    "max_grad_norm": 1e-3,
    "anneal_lr": False,
    "gamma": 0.9,
    "bootstrap_time_limit": False,
    "tau": 0.5,
    "batch_size": 16,
    "alpha": 2.0,
    "threshold": 1.0,
    "expectile": 0.9,
    "beta": 0.5,
    "largest_weight": 1.01,
    "weight_cap": 0.5,
    "top_k": 3,
    "kl_coef": 1.0,
    "vf_coef": 2.0,
    "quantile": 0.5,
    "weighted": True,
}
OF_THE_SOURCE = {
    "log",
    "checkpoint",
    "gradient_steps",
    "best_sessions",
}  # tests/logs/experience/test_logged.py


@pytest.mark.parametrize("algo", LOG_ONLY)
def test_each_setting_has_an_effect(algo: str) -> None:
    log = mdp_log(60)
    assert log.steps is not None
    cut = log.steps == STEPS - 1  # the last steps end by a time limit here
    log = dataclasses.replace(log, terminated=log.terminated & ~cut, truncated=cut)
    first = learner(algo, 2, 2 * STEPS, num_updates=3)
    names = {field.name for field in dataclasses.fields(first.config)} - OF_THE_SOURCE - {"temperature"}
    found: dict[str, Any] = {}
    for name in ("", *sorted(names)):
        agent = learner(algo, 2, 2 * STEPS, num_updates=3, **({name: DIALS[name]} if name else {}))
        for _ in range(3):
            agent.update(log)
        found[name] = agent.state_dict()
    same = [name for name in names if all(torch.equal(x, found[""][key]) for key, x in found[name].items())]
    assert set(same) <= ({"gamma"} if algo == "reinforce" else set())  # of the returns in its batches


@pytest.mark.parametrize("algo", ["cql", "bcq"])
def test_drawn_policy_is_softmax_of_q_over_the_temperature(algo: str) -> None:
    agent = learner(algo, 3, temperature=0.5)
    q = agent.model.eligible(HERE)
    assert torch.allclose(agent.item_probabilities(HERE, 3).float(), (q / 0.5).softmax(1), atol=1e-6)


@pytest.mark.parametrize("algo", LOG_ONLY)
def test_sums_over_candidates_estimate_those_over_all_items(algo: str) -> None:
    """The shown item and the best ones count once, and the drawn ones for all the others."""
    agent, obs = satiation_agent(algo, candidates=12, explore_rate=0.5)
    items, rng = torch.tensor([[1], [5], [9], [1], [5], [9]]), torch.Generator().manual_seed(0)
    assert obs.exclude is not None
    network = agent.model
    if algo == "bcq":
        network.threshold = 0.0  # which items are likely depends on the best of the candidates
    every = torch.tensor([[i for i in range(20) if i not in (3, 7)]] * 6)
    with torch.no_grad():
        whole = network(obs.among(every))[0].logits.squeeze(1).logsumexp(1)
        found = []
        for _ in range(400):
            among, weights = shown_among(network, obs, items, rng)
            assert weights is not None and among.candidates is not None
            shown = among.candidates
            assert torch.equal(among.places_of(items), torch.zeros_like(items))
            assert bool((weights[:, :7] == 0).all()) and bool(((shown == items).sum(1) == 1).all())
            logits = corrected(network(among)[0], weights).logits.squeeze(1)
            found.append(logits.logsumexp(1).exp())
    assert torch.allclose(torch.stack(found).mean(0), whole.exp(), rtol=0.02)


@pytest.mark.parametrize("algo", LOG_ONLY)
def test_update_over_candidates_is_finite_and_moves_the_shown_item(algo: str) -> None:
    agent, obs = satiation_agent(algo, candidates=12)
    items = torch.tensor([[1], [5], [9], [1], [5], [9]])
    no = torch.zeros(6, dtype=torch.bool)
    batch = Transitions(
        obs=obs,
        items=items,
        logprobs=torch.full((6,), -3.0).double(),
        rewards=torch.ones(6),
        next_obs=obs,
        terminated=no,
        truncated=no,
        returns_to_go=torch.ones(6),
        steps=torch.tensor([0, 1, 2, 0, 1, 2]),
        possible=torch.tensor([[0.0, 4.0]] * 6),
    )
    before = agent.item_probabilities(obs.among(items.T.expand(6, -1)[:, :3]), 20).gather(1, items)
    for _ in range(5):
        assert all(x == x for x in agent.update(batch).values())
    after = agent.item_probabilities(obs.among(items.T.expand(6, -1)[:, :3]), 20).gather(1, items)
    assert not torch.allclose(before, after) and agent.act(obs, greedy=True).items.shape == (6, 1)


@pytest.mark.parametrize("algo", LOG_ONLY)
def test_heads_expect_the_rewards_of_the_log(algo: str) -> None:
    """Items 1, 5 and 9 earned 0, 1 and 2, whatever the state: so the head expects them in that order."""
    agent, obs = satiation_agent(algo)
    again = torch.arange(6).repeat(400)
    items = torch.tensor([[1], [5], [9]]).repeat(800, 1)
    rewards = torch.tensor([0.0, 1.0, 2.0]).repeat(800)
    no = torch.zeros(2400, dtype=torch.bool)
    batch = Transitions(
        obs=obs.rows(again),
        items=items,
        logprobs=torch.full((2400,), -3.0).double(),
        rewards=rewards,
        next_obs=obs.rows(again),
        terminated=~no,
        truncated=no,
        returns_to_go=rewards,
        steps=torch.zeros(2400, dtype=torch.int64),
        possible=torch.tensor([[0.0, 2.0]]).expand(2400, 2),
    )
    for _ in range(10):
        agent.update(batch)
    if algo == "dt":  # whatever return is asked for
        obs = dataclasses.replace(obs, context=torch.cat([obs.context, torch.ones(6, 1)], 1))
    model, expected = agent.model, agent.model.head.expected
    with torch.no_grad():
        query = model._evaluate(model.summarised(obs))[2]
        beta = expected.of(query, model.items, torch.tensor([[1, 5, 9]] * 6))
    found = expected.in_units_of_reward(beta)
    assert torch.allclose(found, torch.tensor([0.0, 1.0, 2.0]).expand(6, 3), atol=0.35)


@pytest.mark.parametrize(("algo", "reads"), [("bc", 1), ("reinforce", 1), ("dt", 1), ("cql", 3)])
def test_an_encoder_reads_a_minibatch_once_for_all_losses(
    algo: str, reads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two more of cql are of the next observations, by the network and its target."""
    agent, obs = satiation_agent(algo, encoder="deep-sets")
    rewards, no = torch.arange(6.0), torch.zeros(6, dtype=torch.bool)
    batch = Transitions(
        obs=obs,
        items=torch.tensor([[1], [5], [9], [1], [5], [9]]),
        logprobs=torch.full((6,), -1.0).double(),
        rewards=rewards,
        next_obs=obs,
        terminated=no,
        truncated=no,
        returns_to_go=rewards,
        steps=torch.ones(6, dtype=torch.int64),  # no start of a session, of which values are reported
        possible=torch.tensor([[0.0, 9.0]] * 6),
    )
    read = [0]

    def counted(*arguments: Any) -> Tensor:
        read[0] += 1
        return summarise(*arguments)

    monkeypatch.setattr("recsys_rl.models.actor_critic.summarise", counted)
    agent.update(batch)
    assert read[0] == reads

"""`world`: users learned from a log, right where the answer is known, for all kinds of logs that it takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from recsys_rl.data.synthetic import synthetic_world
from recsys_rl.errors import UserError
from recsys_rl.logs.decision_log import DecisionHeader, DecisionLog
from recsys_rl.logs.ope.networks import held_out, mlp_of_shares, shares
from recsys_rl.logs.ope.replay import ReplayedLog, replay
from recsys_rl.logs.ope.world import Worlds, fit_world, world
from recsys_rl.logs.users import fit as user_fit
from recsys_rl.logs.users.fit import shift
from recsys_rl.types import Action, Catalogue, Interface, Obs
from tests.proofs import Proof

ITEMS, USERS = 6, 60
CATALOGUE: Catalogue = synthetic_world(ITEMS, 50, 4, 0.2, 0)[0]


class Always:
    """Shows these items at every step, and keeps what it saw."""

    def __init__(self, *items: int) -> None:
        self.items, self.seen = items, []  # type: ignore[var-annotated]

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        self.seen.append(obs)
        return Action.certain(torch.tensor(self.items).expand(len(obs.context), -1))


def log_of(
    sessions: int,
    steps: int,
    answer: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    *,
    slate: int = 1,
    history: int = 0,
    seed: int = 0,
) -> DecisionLog:
    """Uniform items. ``answer``: (items (N, K), chance (N, K)) -> signals (N, K), (N,) bool leaving."""
    rng = torch.Generator().manual_seed(seed)
    n, t = sessions, steps
    items = torch.rand(n, t, ITEMS, generator=rng).argsort(2)[..., :slate]  # (N, T, K)
    signals, left = answer(items.flatten(0, 1), torch.rand(n * t, slate, generator=rng))
    signals, left = signals.view(n, t, slate, 1), left.view(n, t)
    ended = (left.cumsum(1) - left.long()) > 0  # left before
    alive = ~ended
    session, step = alive.nonzero().unbind(1)
    last = torch.diff(session, append=torch.tensor([n])) > 0
    interface = Interface(
        context=(("profile", 4),),
        action_sizes=(ITEMS,),
        slate_size=slate,
        repeats=True,
        history_length=history,
        signals=("click",),
        session_length=t,
    )
    return DecisionLog(
        header=DecisionHeader(loggers=("random",), interface=interface, signals=("click",)),
        users=session % USERS,
        sessions=session,
        steps=step,
        times=step,
        items=items[alive],
        logprobs=torch.zeros(len(step), dtype=torch.float64),
        signals=signals[alive],
        terminated=left[alive],
        truncated=last & ~left[alive],
        loggers=torch.zeros_like(step),
        given={"profile": torch.randn(USERS, 4, generator=rng)[session % USERS]},
    )


def of_log(log: DecisionLog, rewards: Tensor | None = None, gamma: float = 1.0) -> ReplayedLog:
    """Rewards are the clicks; a column of rewards of their own may be given."""
    found = log.signals.sum((1, 2)) if rewards is None else rewards
    return replay(log, CATALOGUE, found, gamma, torch.Generator().manual_seed(1))


def fitted(of: ReplayedLog, seed: int = 0) -> Worlds:
    return fit_world(of, torch.Generator().manual_seed(seed))


def value(worlds: Worlds, *items: int) -> float:
    return float(world(worlds, Always(*items)).mean())


def stays(items: Tensor, chance: Tensor) -> tuple[Tensor, Tensor]:
    """A click of item i with probability i / 5; nobody leaves."""
    return (chance < items / 5).float(), torch.zeros(len(items), dtype=torch.bool)


@pytest.mark.learning
def test_reward_of_the_item_alone_is_learned_in_sessions_and_discounted(proof: Proof) -> None:
    worlds = fitted(of_log(log_of(2000, 4, stays, history=4), gamma=0.5))
    for item in (0, 2, 5):
        expected = item / 5 * (1 + 0.5 + 0.25 + 0.125)
        proof(abs(value(worlds, item) - expected), below=0.25, what=f"item {item}")


@pytest.mark.learning
def test_column_of_rewards_beside_the_signals_is_predicted_in_its_own_range(proof: Proof) -> None:
    """Rewards from -4 to 6 by the item, which the clicks do not show."""
    log = log_of(600, 1, stays)
    worlds = fitted(of_log(log, 2.0 * log.items[:, 0].double() - 4))
    for item in (0, 3, 5):
        proof(abs(value(worlds, item) - (2 * item - 4)), below=0.5, what=f"item {item}")


@pytest.mark.learning
def test_users_leave_after_the_signal_that_makes_them_leave(proof: Proof) -> None:
    """A click ends the session: item i is shown until it is clicked, which has probability i / 5."""

    def leaves(items: Tensor, chance: Tensor) -> tuple[Tensor, Tensor]:
        clicked = chance < items / 5
        return clicked.float(), clicked[:, 0]

    log = log_of(2000, 4, leaves, history=4)
    worlds = fitted(of_log(log, torch.ones(log.num_rows)))  # a reward of 1 for each step
    for item, steps in ((0, 4.0), (2, 1 + 0.6 + 0.36 + 0.216), (5, 1.0)):
        proof(abs(value(worlds, item) - steps), below=0.35, what=f"item {item}")


@pytest.mark.learning
@pytest.mark.parametrize("whole", [False, True], ids=["of each place", "of the whole slate"])
def test_reward_of_a_slate_is_the_sum_of_its_places(whole: bool, proof: Proof) -> None:
    """A reward of the whole slate stands at the first place, and the other place earns as much of it."""
    log = log_of(2000, 2, stays, slate=2, history=4)
    rewards = log.signals.sum((1, 2))
    if whole:
        signals = torch.zeros_like(log.signals)
        signals[:, 0, 0] = rewards
        log = replace(log, signals=signals)
    worlds = fitted(of_log(log, rewards))
    for items in ((0, 1), (5, 0), (4, 5)):
        proof(abs(value(worlds, *items) - 2 * sum(items) / 5), below=0.5, what=str(items))


@pytest.mark.learning
def test_rare_clicks_of_other_users_have_their_rate(proof: Proof) -> None:
    """About 0.6 % of 20,000 decisions of one step, without a history."""

    def rare(items: Tensor, chance: Tensor) -> tuple[Tensor, Tensor]:
        return (chance < 0.001 * (1 + 2 * items)).float(), torch.ones(len(items), dtype=torch.bool)

    of = of_log(log_of(20_000, 1, rare))
    worlds = fitted(of)
    found = sum(value(worlds, item) for item in range(ITEMS)) / ITEMS
    proof(abs(found / float(of.rewards.mean()) - 1), below=0.15)


def test_fit_and_play_depend_on_the_seed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_fit, "LEAST_STEPS", 5)
    of = of_log(log_of(90, 3, stays, history=3))
    first, again, other = fitted(of), fitted(of), fitted(of, seed=1)
    assert torch.allclose(world(first, Always(3)), world(again, Always(3)))
    assert torch.allclose(world(first, Always(3)), world(first, Always(3)))
    assert not torch.allclose(world(first, Always(3)), world(other, Always(3)))


def test_policy_sees_drawn_signals_and_no_means(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_fit, "LEAST_STEPS", 5)
    policy = Always(3)
    world(fitted(of_log(log_of(90, 3, stays, history=3))), policy)
    last = policy.seen[-1]
    assert last.signals is not None and last.history is not None
    shown = last.signals[last.history >= 0]
    assert set(shown.flatten().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("left", [False, True])
def test_constant_rewards_and_leaving_are_predicted_exactly(
    left: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_fit, "LEAST_STEPS", 5)

    def same(items: Tensor, chance: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones(items.shape), torch.full((len(items),), left)

    log = log_of(60, 3, same)
    terms = world(fitted(of_log(log, torch.full((log.num_rows,), 2.5))), Always(1))
    assert terms.tolist() == pytest.approx([2.5 if left else 7.5] * 60)


def test_log_of_few_users_and_of_no_profile_is_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three users none is held out to stop early: a network has the sessions of two."""
    monkeypatch.setattr(user_fit, "LEAST_STEPS", 5)
    log = log_of(40, 2, stays)
    interface = replace(log.header.interface, context=(("clock", 1),), profile=False)
    log = replace(log, header=replace(log.header, interface=interface), given={}, users=log.sessions % 3)
    assert torch.isfinite(world(fitted(of_log(log)), Always(1))).all()


def test_excluded_items_of_the_log_stay_excluded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_fit, "LEAST_STEPS", 5)
    log = log_of(40, 2, stays)
    policy = Always(1)
    world(fitted(of_log(replace(log, exclude=torch.full((log.num_rows, 1), 4)))), policy)
    assert all(obs.exclude is not None and (obs.exclude == 4).any(1).all() for obs in policy.seen)


def test_candidates_limit_the_policy_at_their_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every second session has candidates at its second step, and those of one step hold on."""
    monkeypatch.setattr(user_fit, "LEAST_STEPS", 5)
    log = log_of(40, 2, stays)
    log = log.rows((log.steps == 0) | (log.sessions % 4 != 1))  # every fourth session has one step
    candidates = torch.arange(ITEMS).repeat(log.num_rows, 1)
    limited = (log.sessions % 2 == 1) & ((log.steps == 1) | (log.sessions % 4 == 1))
    candidates[limited] = torch.tensor([0, 2, 5, -1, -1, -1])
    policy = Always(2)
    world(fitted(of_log(replace(log, candidates=candidates))), policy)
    for step, number in ((0, 10), (1, 20)):
        allowed = torch.cat([obs.allowed(ITEMS) for obs in policy.seen[step::2]])  # of all folds
        limits = allowed.sum(1) < ITEMS
        assert len(allowed) == 40 and int(limits.sum()) == number
        assert [row.nonzero().flatten().tolist() for row in allowed[limits]] == [[0, 2, 5]] * number


@pytest.mark.parametrize(
    ("repeats", "expected"),
    [
        (True, [[0, 1, 4], [0, 4], [5], [0, 1, 2, 3, 4, 5]]),
        (False, [[0, 1, 4], [0, 1, 4], [0, 1], [0, 1, 4]]),
    ],
)
def test_another_policy_can_show_items_that_the_log_had_shown(
    repeats: bool, expected: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log shows 1, 0, 4 and 2, and the policy that plays 5. Candidates of no item limit nothing."""
    monkeypatch.setattr(user_fit, "LEAST_STEPS", 5)
    log = log_of(40, 4, stays, history=4)
    header = replace(log.header, interface=replace(log.header.interface, repeats=repeats))
    items = torch.tensor([1, 0, 4, 2]).repeat(40).unsqueeze(1)
    candidates = torch.tensor([[0, 1, 4], [0, 4, -1], [5, -1, -1], [-1, -1, -1]]).repeat(40, 1)
    policy = Always(5)
    world(fitted(of_log(replace(log, header=header, items=items, candidates=candidates))), policy)
    for obs, allowed in zip(policy.seen, expected, strict=False):  # of the first fold
        assert all(row.nonzero().flatten().tolist() == allowed for row in obs.allowed(ITEMS))


def test_a_list_holds_no_item_twice_where_a_log_is_judged() -> None:
    """Three lists of two items; sessions may repeat items."""
    log = log_of(3, 2, stays)
    of = of_log(replace(log, list_place=log.steps))
    [(rows, obs)] = of.observations()
    allowed = obs.allowed(ITEMS)
    assert rows.tolist() == [*range(6)] and allowed.sum(1).tolist() == [ITEMS, ITEMS - 1] * 3
    assert not allowed[1::2].gather(1, log.items[::2]).any()


def test_logs_of_a_first_stage_are_refused() -> None:
    log = log_of(40, 1, stays)
    everything = torch.arange(ITEMS).expand(log.num_rows, -1)
    header = replace(log.header, candidates="20 candidates")
    with pytest.raises(UserError):
        fitted(of_log(replace(log, header=header, candidates=everything)))


def test_forbidden_items_are_refused_but_not_excluded_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(user_fit, "LEAST_STEPS", 5)
    log = log_of(40, 2, stays)
    log = replace(log, exclude=log.steps.unsqueeze(1) + 3)
    with pytest.raises(UserError):
        fitted(of_log(log))
    policy = Always(1)
    world(fitted(of_log(replace(log, header=replace(log.header, requested=True)))), policy)
    for step, obs in enumerate(policy.seen):
        assert obs.exclude is not None and bool((obs.exclude == 3 + step % 2).any(1).all())


@pytest.mark.learning
def test_network_of_shares_has_the_rate_of_rare_clicks_and_does_not_overfit(proof: Proof) -> None:
    """20,000 rows with 0.5 % clicks; the other half of the rows judges."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(20_000, 15, generator=rng)
    clicks = torch.bernoulli((0.6 * x[:, 0] + 0.6 * x[:, 1] * x[:, 2] - 5.7).sigmoid(), generator=rng)
    predict = mlp_of_shares(rng)(x[:10_000], clicks[:10_000])
    found, seen = predict(x[10_000:]).float(), clicks[10_000:]
    proof(abs(float(found.mean() / clicks.mean()) - 1), below=0.25, what="rate")
    entropy = torch.nn.functional.binary_cross_entropy
    proof(float(entropy(found, seen) / entropy(clicks.mean().expand(10_000), seen)), below=1.02)


@pytest.mark.parametrize(("users", "number"), [(50, 10), (5, 1), (4, 0), (1, 0)])
def test_a_fifth_of_the_users_is_held_out_with_all_their_rows(users: int, number: int) -> None:
    of = torch.arange(users).repeat(3)
    held = held_out(of, torch.Generator().manual_seed(0))
    assert len(of[held].unique()) == number and int(held.sum()) == 3 * number


def test_weights_and_shifts_of_outputs_by_hand() -> None:
    targets = torch.tensor([[0.0, 0.25, 0.0], [1.0, 0.75, 0.0]])
    found = shares(targets, torch.tensor([0.5, 0.5, 1e-6]))
    # log 2 for 0 and 1; log 2 less the entropy of 1/4, 0.5623, for 1/4 and 3/4; a constant counts nothing
    assert found.tolist() == pytest.approx([1 / 0.693147, 1 / (0.693147 - 0.562335), 0.0], rel=1e-4)
    logits = torch.tensor([[1.0], [1.0]])
    assert float(shift(logits, torch.tensor([0.5]))[0]) == pytest.approx(-1.0, abs=1e-5)

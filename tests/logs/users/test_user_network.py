"""The network of learned users: its distributions by hand, and all steps at once against step by step."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from recsys_rl.logs.users.ensemble import UserEnsemble
from recsys_rl.logs.users.fit import FitSizes, UserFitting, loss_of, set_means
from recsys_rl.logs.users.inputs import context_sizes, item_tables
from recsys_rl.logs.users.network import ContextSizes, ItemTables, UserNetwork, decayed
from recsys_rl.logs.users.session_table import SessionTable
from recsys_rl.logs.users.signals import LEVELS, SignalKinds, SignalOutputs, kinds_of, pinball
from recsys_rl.types import Interface, UserError
from tests.proofs import Proof
from tests.tiny_world import tiny_catalogue

LOGIT = math.log(3)  # of 3/4


def kinds(*binary: bool, low: float = 0.0, high: float = 1.0) -> SignalKinds:
    outputs = tuple(0.0 for one in binary for _ in range(1 if one else len(LEVELS)))
    n = len(binary)
    return SignalKinds(binary, (low,) * n, (high,) * n, (1.0,) * n, 1.0, outputs, 0.0)


def of_quantiles(values: list[float]) -> Tensor:
    """(1, Q) the outputs whose quantiles are ``values``."""
    x = torch.tensor(values)
    return torch.cat([x[:1], x.diff().expm1().log()]).unsqueeze(0)


def test_pinball_loss_by_hand() -> None:
    found = pinball(torch.zeros(1, len(LEVELS)), torch.tensor([[2.0]]))
    assert_close(found[0], 2 * torch.tensor(LEVELS))  # above the quantile: level times distance
    found = pinball(torch.full((1, len(LEVELS)), 3.0), torch.tensor([[2.0]]))
    assert_close(found[0], 1 - torch.tensor(LEVELS))


def test_mean_and_draws_of_a_uniform_number() -> None:
    outputs = SignalOutputs(kinds(False, low=10, high=20), of_quantiles([*LEVELS]))
    assert_close(outputs.quantiles(0), 10 + 10 * torch.tensor([LEVELS]))
    assert_close(outputs.expected(), torch.tensor([[15.0]]))
    for chance, value in ((0.5, 15.0), (0.25, 12.5), (0.0, 10.1), (0.999, 19.9)):
        assert_close(outputs.at(torch.tensor([[chance]])), torch.tensor([[value]]))


def test_mean_of_draws_is_the_expected_signal() -> None:
    steps = [0.0, 0.0, 0.1, 0.1, 0.2, 0.2, 0.5, 0.6, 0.9, 1.0, 1.0]
    outputs = SignalOutputs(kinds(False), of_quantiles([x + 1e-5 * n for n, x in enumerate(steps)]))
    chance = (torch.arange(10_000) + 0.5).div(10_000).unsqueeze(1)
    many = SignalOutputs(kinds(False), outputs.parts[0].expand(10_000, -1))
    assert_close(many.at(chance).mean(0, keepdim=True), outputs.expected(), rtol=0, atol=1e-4)


def test_probability_of_a_binary_signal() -> None:
    outputs = SignalOutputs(kinds(True), torch.tensor([[LOGIT]]))
    assert outputs.expected().item() == pytest.approx(0.75)
    assert outputs.at(torch.tensor([[0.74]])).item() == 1 and outputs.at(torch.tensor([[0.76]])).item() == 0
    loss = outputs.loss(torch.tensor([[1.0]])) + outputs.loss(torch.tensor([[0.0]]))
    assert loss.item() == pytest.approx(-math.log(0.75) - math.log(0.25))


def test_kinds_of_signals() -> None:
    signals = torch.tensor([[1.0, 0.0, 7.0], [0.0, 2.5, 7.0], [0.0, 5.0, 7.0], [0.0, 5.0, 7.0]])
    found = kinds_of(signals, torch.tensor([True, False]))
    assert found.binary == (True, False, False)
    assert found.low == (0.0, 0.0, 7.0) and found.high == (1.0, 5.0, 7.0)
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert found.weights[0] == pytest.approx(1 / entropy, rel=1e-5) and found.weights[2] == 0
    assert found.leave_weight == pytest.approx(1 / math.log(2), rel=1e-5)
    assert kinds_of(signals, torch.tensor([False, False])).leave_weight == 0
    constant = SignalOutputs(found, torch.randn(3, found.num_outputs))
    assert_close(constant.expected()[:, 2], torch.full((3,), 7.0))


def test_decayed_sums_by_hand() -> None:
    x = torch.tensor([[[1.0], [2.0], [4.0]]])  # (1, 3, 1)
    assert_close(decayed(x, torch.tensor([0.5])).flatten(), torch.tensor([0.0, 1.0, 2.5, 5.25]))
    both = decayed(x.expand(1, 3, 2), torch.tensor([1.0, 0.0]))
    assert_close(both[0, :, 0], torch.tensor([0.0, 1.0, 3.0, 7.0]))
    assert_close(both[0, :, 1], torch.tensor([0.0, 1.0, 2.0, 4.0]))


@pytest.mark.parametrize("shape", [(2, 300, 3), (1, 257, 3, 2, 2), (2, 128, 3)])
def test_decayed_sums_of_long_sessions_are_those_of_a_recurrence(shape: tuple[int, ...]) -> None:
    """300 steps are two whole chunks and a part of one, 257 two and a step, 128 one."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=rng, dtype=torch.float64, requires_grad=True)
    logits = torch.tensor([-2.0, 1.0, 6.0], dtype=torch.float64, requires_grad=True)
    decays = logits.sigmoid()
    weights = torch.randn(shape[0], shape[1] + 1, *shape[2:], generator=rng, dtype=torch.float64)
    sums = [torch.zeros_like(weights[:, 0])]
    for step in range(shape[1]):
        sums.append(decays.view(-1, *(1 for _ in shape[3:])) * sums[-1] + x[:, step])
    wanted, found = torch.stack(sums, 1), decayed(x, decays)
    assert_close(found, wanted)
    by_hand = torch.autograd.grad((weights * wanted).sum(), (x, logits), retain_graph=True)
    for one, two in zip(torch.autograd.grad((weights * found).sum(), (x, logits)), by_hand, strict=True):
        assert_close(one, two)


def network(seed: int = 0, items: int = 9, signals: tuple[bool, ...] = (True, False)) -> UserNetwork:
    """A network with random weights in its last layers too."""
    rng = torch.Generator().manual_seed(seed)
    tables = ItemTables(
        (torch.randn(items, 4, generator=rng), torch.rand(items, 3, generator=rng)),
        torch.randn(items, 5, generator=rng),
    )
    made = UserNetwork(tables, ContextSizes("profile", (("hour", 2),), 6), kinds(*signals), rng)
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=rng))
    return made


def table(slate: int, seed: int = 0) -> SessionTable:
    """Three sessions of 5, 3 and 1 steps, with an empty place in the first."""
    rng, lengths = torch.Generator().manual_seed(seed), torch.tensor([5, 3, 1])
    there = (torch.arange(5) < lengths.unsqueeze(1)).view(3, 5, 1)
    items = torch.stack([torch.randperm(9, generator=rng)[: 4 * slate + slate] for _ in range(3)])
    items = items.view(3, 5, slate).masked_fill(~there, -1)
    items[0, 2, -1] = -1
    signals = torch.rand(3, 5, slate, 2, generator=rng)
    signals[..., 0] = signals[..., 0].round()
    signals = signals.masked_fill((items < 0).unsqueeze(-1), 0)
    return SessionTable(
        users=torch.arange(3),
        times=torch.arange(3),
        given={"profile": torch.randn(3, 4, generator=rng), "hour": torch.rand(3, 2, generator=rng)},
        items=items,
        signals=signals,
        rewards=torch.zeros(3, 5),
        lengths=lengths,
        left=torch.tensor([True, False, True]),
    )


def test_all_steps_at_once_are_the_steps_one_by_one() -> None:
    made, sessions = network(), table(1)
    outputs, leaving = made.of_sessions(sessions)
    memory = made.begin(sessions.given, sessions.num_sessions)
    for step in range(5):
        items = sessions.items[:, step]
        shown, rows = items >= 0, items.clamp_min(0)
        there = sessions.lengths > step
        now = made.respond(memory, rows).expected()
        assert_close(now[there], outputs.expected()[there, step], rtol=1e-4, atol=1e-5)
        memory, logit = made.after(memory, rows, shown, sessions.signals[:, step])
        assert_close(logit[there], leaving[there, step], rtol=1e-4, atol=1e-5)


def test_a_piece_of_user_columns_is_a_column_of_the_items() -> None:
    """A user who owns brand 1 is another one for its items alone, step by step and all steps at once."""
    brand = torch.tensor([0, 1, -1])
    plain = tiny_catalogue()
    catalogue = replace(plain, attributes={**plain.attributes, "brand": brand})
    interface = Interface((("profile", 2), ("owns[brand]", 2), ("hour", 1)), (3,), session_length=4)
    given = {"profile": torch.ones(2, 2), "owns[brand]": torch.tensor([[0.0, 0.0], [0.0, 1.0]])}
    given["hour"] = torch.zeros(2, 1)
    sizes = context_sizes(interface, given, catalogue)
    assert sizes.more == (("hour", 1),) and sizes.pieces == ("owns[brand]",)
    made = UserNetwork(item_tables(catalogue), sizes, kinds(True), torch.Generator().manual_seed(0))
    with torch.no_grad():
        made.body[-1].weight.normal_(generator=torch.Generator().manual_seed(1))  # type: ignore[operator]
    ensemble = UserEnsemble([made, made])
    memory, every = ensemble.begin(given, 2), torch.tensor([[0, 1, 2]] * 2)
    one, two = ensemble.expected(memory, every, torch.zeros(2, dtype=torch.int64))[..., 0]
    assert bool((((one - two).abs() > 1e-4) == (brand == 1)).all())
    sessions = SessionTable(
        users=torch.arange(2),
        times=torch.arange(2),
        given=given,
        items=every.unsqueeze(2),
        signals=torch.zeros(2, 3, 1, 1),
        rewards=torch.zeros(2, 3),
        lengths=torch.tensor([3, 2]),
        left=torch.tensor([True, False]),
    )
    outputs, leaving = made.of_sessions(sessions)
    memory = made.begin(given, 2)
    for step in range(2):
        items, shown = every[:, step : step + 1], torch.ones(2, 1, dtype=torch.bool)
        assert_close(made.respond(memory, items).expected(), outputs.expected()[:, step])
        memory, logit = made.after(memory, items, shown, sessions.signals[:, step])
        assert_close(logit, leaving[:, step])


def test_place_that_is_never_shown_changes_nothing() -> None:
    """The products with the memories are made in another way for slates."""
    made, one = network(), table(1)
    items = torch.cat([one.items, torch.full_like(one.items, -1)], 2)
    two = replace(one, items=items, signals=torch.cat([one.signals, torch.zeros_like(one.signals)], 2))
    (outputs, leaving), (wide, same) = made.of_sessions(one), made.of_sessions(two)
    there = one.under_way
    assert_close(wide.expected()[there][:, :1], outputs.expected()[there], rtol=1e-4, atol=1e-5)
    assert_close(same, leaving, rtol=1e-4, atol=1e-5)


class Largest(TorchDispatchMode):
    """The most numbers that a tensor has which is made in the block."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        self.numbers = max(self.numbers, found.numel() if isinstance(found, Tensor) else 0)
        return found


def test_memory_grows_with_the_places_of_a_slate_and_not_with_their_square() -> None:
    sizes = []
    for slate in (32, 64):
        one = table(1)
        items, signals = (x.repeat_interleave(slate, 2) for x in (one.items, one.signals))
        with Largest() as largest:  # type: ignore[no-untyped-call]
            network().of_sessions(replace(one, items=items, signals=signals))
        sizes.append(largest.numbers)
    assert sizes[1] == 2 * sizes[0]


def test_memory_of_a_fit_grows_with_the_steps_of_a_session_and_not_with_their_square() -> None:
    """A step of the optimiser and the means, for one session of 20,000 steps and for one of half of them."""
    sizes = []
    for steps in (10_000, 20_000):
        one = table(1).rows(torch.tensor([0]))
        items, signals = (x[:, :1].repeat_interleave(steps, 1) for x in (one.items, one.signals))
        rewards, lengths = torch.zeros(1, steps), torch.tensor([steps])
        long = replace(one, items=items, signals=signals, rewards=rewards, lengths=lengths)
        made = network()
        with Largest() as largest:  # type: ignore[no-untyped-call]
            loss_of(made, long).backward()
            set_means(made, long)
        sizes.append(largest.numbers)
    assert sizes[1] == pytest.approx(2 * sizes[0], rel=0.01) and sizes[1] < 100 * 20_000


def test_number_of_the_whole_step_is_one_for_all_places_and_later_steps_do_not_read_it() -> None:
    whole = replace(kinds(True, True), of_step=(False, True))
    tables = ItemTables((torch.randn(9, 4), torch.eye(9)), torch.randn(9, 3))
    made = UserNetwork(tables, ContextSizes("profile", (("hour", 2),), 5), whole, torch.Generator())
    with torch.no_grad():
        for weights in made.parameters():
            weights.normal_(0, 0.15, generator=torch.Generator().manual_seed(weights.numel()))
    one = table(1)  # of two places, a third step shows one or none
    second = torch.where(one.items < 0, -1, (one.items + 1) % 9)
    second[1, 2] = -1
    signals = torch.cat([one.signals, 1 - one.signals], 2).round()
    items = torch.cat([one.items, second], 2)
    sessions = replace(one, items=items, signals=signals.masked_fill((items < 0).unsqueeze(-1), 0))
    outputs, leaving = made.of_sessions(sessions)
    found = outputs.expected()
    assert_close(found[:, :, 0, 1], found[:, :, 1, 1])
    assert float((found[0, 0, 0, 0] - found[0, 0, 1, 0]).detach().abs()) > 1e-3
    memory = made.begin(sessions.given, 3)
    for step in range(5):
        items, there = sessions.items[:, step], sessions.lengths > step
        shown, rows = items >= 0, items.clamp_min(0)
        now = made.respond(memory, rows, shown).expected()
        assert_close(now[there], found[there, step], rtol=1e-4, atol=1e-5)
        memory, logit = made.after(memory, rows, shown, sessions.signals[:, step])
        assert_close(logit[there], leaving[there, step], rtol=1e-4, atol=1e-5)
    other = sessions.signals.clone()
    other[..., 1] = 0.5
    again, same = made.of_sessions(replace(sessions, signals=other))
    assert_close(again.expected(), found)
    assert_close(same, leaving)


def test_items_of_other_sessions_and_later_steps_change_nothing() -> None:
    made, sessions = network(), table(1)
    outputs, leaving = made.of_sessions(sessions)
    part, other = made.of_sessions(sessions.rows(torch.tensor([1])))
    assert_close(part.expected()[0], outputs.expected()[1, :3], rtol=1e-4, atol=1e-5)
    assert_close(other[0], leaving[1, :3], rtol=1e-4, atol=1e-5)


def test_row_of_an_ensemble_is_that_of_its_network() -> None:
    members = [network(seed) for seed in range(3)]
    both, sessions = UserEnsemble(members), table(1)
    given, items = sessions.given, torch.tensor([[1], [2], [3]])
    memory = both.begin(given, 3)
    own = torch.stack([member.respond(member.begin(given, 3), items).expected() for member in members])
    assert_close(both.expected(memory, items, torch.tensor([0, 2, -1]))[0], own[0, 0])
    assert_close(both.expected(memory, items, torch.tensor([0, 2, -1]))[1], own[2, 1])
    assert_close(both.expected(memory, items, torch.tensor([0, 2, -1]))[2], own[:, 2].mean(0))
    chance = torch.full((3, 1, own.shape[-1]), 0.5)
    member = torch.tensor([0, 2, 1])
    drawn = both.drawn(memory, items, member, chance)
    alone = members[2].respond(members[2].begin(sessions.given, sessions.num_sessions), items).at(chance)
    assert_close(drawn[1], alone[1])


def test_only_the_network_of_a_session_keeps_its_step() -> None:
    members = [network(seed) for seed in range(3)]
    both, sessions = UserEnsemble(members), table(1)
    items, shown = torch.tensor([[1], [2], [3]]), torch.ones(3, 1, dtype=torch.bool)
    signals = sessions.signals[:, 0, :1]
    memory = both.begin(sessions.given, 3)
    later, leaves = both.after(memory, items, shown, signals, torch.tensor([0, 2, -1]))
    assert later["steps"].tolist() == [1, 1, 1]
    for place, made in enumerate(members):
        own, logit = made.after(made.begin(sessions.given, 3), items, shown, signals)
        for row in range(3):
            if row == 2 or (row, place) in ((0, 0), (1, 2)):
                assert_close(later["sums"][row, place], own["sums"][row])
                assert_close(later["state"][row, place], own["state"][row])
                assert_close(leaves[row, place], logit[row].sigmoid())
            else:
                assert not later["sums"][row, place].any() and not later["state"][row, place].any()
                assert leaves[row, place] == 0
    assert not memory["sums"].any() and not memory["steps"].any()


def known_world(sessions: int, seed: int) -> SessionTable:
    """Users who click items of even number with probability 0.8, others with 0.2.

    After two clicks a user leaves, otherwise the session has four steps.
    """
    rng = torch.Generator().manual_seed(seed)
    items = torch.stack([torch.randperm(8, generator=rng)[:4] for _ in range(sessions)]).unsqueeze(2)
    clicks = torch.rand(sessions, 4, 1, generator=rng) < torch.where(items % 2 == 0, 0.8, 0.2)
    enough = clicks.squeeze(2).cumsum(1) >= 2
    lengths = torch.where(enough.any(1), enough.int().argmax(1) + 1, 4)
    there = (torch.arange(4) < lengths.unsqueeze(1)).unsqueeze(2)
    return SessionTable(
        users=torch.arange(sessions),
        times=torch.arange(sessions),
        given={"profile": torch.ones(sessions, 2)},
        items=items.masked_fill(~there, -1),
        signals=(clicks & there).float().unsqueeze(3),
        rewards=torch.zeros(sessions, 4),
        lengths=lengths,
        left=enough.any(1),
    )


def fit_of(sessions: SessionTable, epochs: int = 6, members: int = 1) -> UserFitting:
    """A fit to sessions of the known world, whose items have one column: whether their number is even."""
    rng = torch.Generator().manual_seed(0)
    shown = sessions.items >= 0
    step = torch.arange(4)
    left = (step == sessions.lengths.unsqueeze(1) - 1) & sessions.left.unsqueeze(1)
    found = kinds_of(sessions.signals[shown], left[step < sessions.lengths.unsqueeze(1)])
    even = (torch.arange(8) % 2 == 0).float().unsqueeze(1)
    tables = ItemTables((torch.eye(8)[:, :2],), even)
    context = ContextSizes("profile", (), 4)
    made = [UserNetwork(tables, context, found, rng) for _ in range(members)]
    some = torch.arange(sessions.num_sessions)
    fitted, checked = (sessions.rows(some[(some % 10 == 0) == held]) for held in (False, True))
    return UserFitting(made, fitted, checked, FitSizes(epochs=epochs, rows=256), rng)


@pytest.mark.learning
def test_fit_recovers_a_known_response(proof: Proof, perturbed: None) -> None:
    sessions = known_world(3_000, 0)
    fitting = fit_of(sessions)
    while not fitting.finished:
        fitting.epoch()
    (found,) = fitting.members
    with torch.no_grad():
        outputs, leaving = found.of_sessions(known_world(2_000, 1))
    other = known_world(2_000, 1)
    shown = other.items[..., 0] >= 0
    truth = torch.where(other.items[..., 0] % 2 == 0, 0.8, 0.2)
    error = float((outputs.probability(0)[..., 0] - truth)[shown].abs().mean())
    proof(error, below=0.06, what="click")
    second = (other.signals[..., 0, 0].cumsum(1) >= 2).float()
    proof(float((leaving.sigmoid() - second)[shown].abs().mean()), below=0.06, what="leaving")


def test_start_is_kept_if_every_epoch_is_worse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys_rl.logs.users.fit.LEAST_STEPS", 1)
    fitting = fit_of(known_world(100, 0), 2, 2)
    fitting.sizes = replace(fitting.sizes, lr=100.0)
    starts = [fitting.checked_loss(member) for member in fitting.members]
    found = [fitting.epoch() for _ in range(4)]
    assert fitting.finished and min(found) > max(starts)
    assert [fitting.checked_loss(member) for member in fitting.members] == pytest.approx(starts)


def test_weights_of_the_best_epoch_are_kept_though_later_epochs_change_the_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("recsys_rl.logs.users.fit.LEAST_STEPS", 1)
    fitting = fit_of(known_world(100, 0), 3)
    start = fitting.best
    best = fitting.epoch()
    (member,) = fitting.members
    weights = {name: x.clone() for name, x in member.state_dict().items()}
    fitting.sizes = replace(fitting.sizes, lr=100.0)
    assert best < start and fitting.epoch() > start
    kept = fitting.state_dict()  # what a resumed fit begins with
    assert fitting.epoch() > start and fitting.finished
    for name, x in weights.items():
        assert torch.equal(member.state_dict()[name], x), name
        assert torch.equal(kept[f"kept.{name}"], x), name


def test_fit_with_a_loss_that_is_not_a_number_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys_rl.logs.users.fit.LEAST_STEPS", 1)
    fitting = fit_of(known_world(100, 0), 2, 2)
    fitting.epoch()
    with torch.no_grad():
        next(iter(fitting.members[0].parameters())).fill_(torch.nan)
    with pytest.raises(UserError):
        fitting.epoch()


def test_interrupted_fit_goes_on_to_the_same_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys_rl.logs.users.fit.LEAST_STEPS", 1)
    sessions = known_world(300, 0)
    whole, first = fit_of(sessions, 2, 2), fit_of(sessions, 2, 2)
    while not whole.finished:
        whole.epoch()
    for _ in range(4):
        first.epoch()
        again = fit_of(sessions, 2, 2)
        for member, saved in zip(again.members, first.members, strict=True):
            member.load_state_dict(saved.state_dict())
        again.load_state_dict({name: x.clone() for name, x in first.state_dict().items()})
        first = again
    assert first.finished
    for one, two in zip(whole.members, first.members, strict=True):
        for name, x in one.state_dict().items():
            assert torch.equal(x, two.state_dict()[name]), name


def test_set_means_gives_the_means_that_were_seen() -> None:
    sessions = known_world(200, 0)
    (made,) = fit_of(sessions).members
    with torch.no_grad():
        for part, by in ((made.body, 2.0), (made.leaving, -1.0)):
            last = part[-1]
            assert isinstance(last, torch.nn.Linear)
            last.bias.add_(by)
    set_means(made, sessions)
    with torch.no_grad():
        outputs, leaving = made.of_sessions(sessions)
    clicks, left = sessions.signals[..., 0][sessions.shown], sessions.left_after[sessions.under_way]
    found = outputs.probability(0)[sessions.shown].mean()
    assert float(found) == pytest.approx(float(clicks.mean()), abs=1e-4)
    chance = leaving.sigmoid()[sessions.under_way].mean()
    assert float(chance) == pytest.approx(float(left.float().mean()), abs=1e-4)

"""Encoders of histories: a window at once, and one entry after another while acting."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from recsys_rl import protocols
from recsys_rl.agents.a2c import A2C
from recsys_rl.agents.ppo import PPO
from recsys_rl.env.short_video import ShortVideo
from recsys_rl.experience.rollout import collect, play
from recsys_rl.models import sequence
from recsys_rl.models.deep_sets import LOUD, STOCKS, DeepSets
from recsys_rl.models.sequence import ENCODERS, Encoder, Reader, summarise
from recsys_rl.models.towers import RATE
from recsys_rl.models.transformer import DECAYS, Transformer
from recsys_rl.protocols import Env
from recsys_rl.settings.fields import hints
from recsys_rl.settings.shared import ModelConfig
from recsys_rl.types import Action, Obs, Step, tree_map
from tests.small_runs import begin, settings

N, L, X = 4, 5, 3
LENGTHS = torch.tensor([0, 1, 3, 5])
SHOWN = torch.arange(L) >= L - LENGTHS.unsqueeze(1)  # (N, L)
NAMES = sorted(ENCODERS)


def test_every_encoder_is_a_value_of_the_setting() -> None:
    assert {*get_args(hints(ModelConfig)["encoder"])} == {"mlp", *ENCODERS}


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def stirred(name: str, size: int = 8) -> Any:
    """An encoder whose weights differ from their first values; also the biases, which padding would show."""
    made = ENCODERS[name](X, L, rng(), size)
    if made.reads_profile:
        made.profile = slice(0, 1)
    for parameter in made.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=rng(parameter.numel()))
    return made


def read(encoder: Encoder, window: Tensor, shown: Tensor = SHOWN) -> Tensor:
    return encoder.read(encoder.encode(window, shown))


def test_entry_by_hand() -> None:
    """Item 1 with the features (3, 4) and the signals (0.5, 2), and padding."""
    items = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    signals = torch.tensor([[0.0, 0.0], [0.5, 2.0]])
    found = sequence.entries(torch.tensor([-1, 1]), signals, items)
    assert found[1].tolist() == [3.0, 4.0, 1.5, 2.0, 6.0, 8.0, 0.5, 2.0]
    assert found.shape == (2, sequence.num_inputs(2, 2))


@pytest.mark.parametrize("name", NAMES)
def test_padding_is_ignored(name: str) -> None:
    encoder, window = stirred(name), torch.randn(N, L, X, generator=rng())
    garbage = torch.where(SHOWN.unsqueeze(-1), window, 100 * torch.randn(N, L, X, generator=rng(1)))
    found = read(encoder, window)
    assert_close(read(encoder, garbage), found)
    assert not found[0].any() and bool(found[1:].any(1).all())  # an empty history has summary 0
    for n in range(N):
        assert_close(read(encoder, window[n : n + 1], SHOWN[n : n + 1]), found[n : n + 1])


@pytest.mark.parametrize("name", NAMES)
def test_steps_agree_with_windows_at_any_cut(name: str) -> None:
    """Entries come at other times for each user, in slots that the ring has reached at other times."""
    encoder, rows = stirred(name), torch.randn(N, 9, X, generator=rng())
    come = torch.rand(9, N, generator=rng(1)) < 0.7
    state, window, shown = encoder.start(N), torch.zeros(N, L, X), torch.zeros(N, L, dtype=torch.bool)
    for at in range(9):
        which = come[at]
        state = encoder.step(state, rows[:, at], which)
        moved = torch.cat([window[:, 1:], rows[:, at : at + 1]], 1)
        window = torch.where(which.view(N, 1, 1), moved, window)
        shown = torch.where(which.unsqueeze(1), torch.cat([shown[:, 1:], torch.ones(N, 1) > 0], 1), shown)
        assert_close(encoder.read(state), read(encoder, window, shown), atol=1e-5, rtol=0)
        state = encoder.step(state, rows[:, 0], torch.zeros(N, dtype=torch.bool))  # no entry: no change
    assert bool(shown.all())


@pytest.mark.parametrize("name", NAMES)
def test_summary_depends_on_no_later_entry(name: str) -> None:
    encoder, rows = stirred(name), torch.randn(1, L, X, generator=rng())
    other, everyone = rows.clone(), None
    other[:, 3] += 1
    changed = []
    first, second = encoder.start(1), encoder.start(1)
    for at in range(L):
        first = encoder.step(first, rows[:, at], everyone)
        second = encoder.step(second, other[:, at], everyone)
        changed.append(not torch.allclose(encoder.read(first), encoder.read(second)))
    assert changed == [False, False, False, True, True]


@pytest.mark.parametrize("name", NAMES)
def test_gradients_agree_with_differences(name: str) -> None:
    encoder = stirred(name).double()
    window = torch.randn(N, L, X, generator=rng(), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: read(encoder, x)[1:], window)
    read(encoder, window)[1:].square().sum().backward()
    assert window.grad is not None
    assert torch.equal(window.grad.any(-1), SHOWN)  # each entry counts, and no padding
    # all weights together, a small step in one direction
    weights = list(encoder.parameters())
    ways = [torch.randn(weight.shape, generator=rng(2), dtype=torch.float64) for weight in weights]
    expected = sum(float((weight.grad * way).sum()) for weight, way in zip(weights, ways, strict=True))
    losses = []
    for step in (1e-6, -2e-6):
        for weight, way in zip(weights, ways, strict=True):
            weight.data += step * way
        losses.append(read(encoder, window)[1:].square().sum().item())
    assert (losses[0] - losses[1]) / 2e-6 == pytest.approx(expected, rel=1e-6)


@torch.no_grad()
def test_deep_sets_by_hand() -> None:
    """Two units over entries of three numbers, windows of five, and stocks that keep half or all."""
    encoder = DeepSets(3, L, rng(), 2)
    encoder.layer.weight.copy_(torch.tensor([[1.0, -1.0], [0.0, 2.0], [3.0, 0.0]]))
    encoder.layer.bias.copy_(torch.tensor([0.5, -0.5]))
    encoder.push.weight.zero_()
    encoder.push.weight[:, :3] = torch.tensor([[0.5, 0.1, 0.25], [0.0, 0.04, -0.2]])
    encoder.push.bias.copy_(torch.tensor([-0.25, 0.0, 0.0, 0.3, *[0.0] * 4]))
    for weight in encoder.push.parameters():
        weight.div_(RATE)
    encoder.keep.copy_(torch.tensor([50.0, 0.0, 50.0, 0.0, *[0.0] * 4]) / RATE)  # logits of 1 and a half
    window = torch.zeros(1, L, X)
    window[0, -2:] = torch.tensor([[1.0, 0.0, 0.5], [-1.0, 1.0, 0.0]])
    # units: relu(1 + 1.5 + 0.5), relu(-1 - 0.5) and relu(-1 + 0.5), relu(1 + 2 - 0.5)
    found = read(encoder, window, torch.arange(L).unsqueeze(0) >= L - 2)
    assert_close(found[:, :2], torch.tensor([[3.0 / L, 2.5 / L]]))
    # pushes: 1.25 and -0.25; 0.3 and 0.1; 0.75 and -0.5; 0.3 and 0.3
    stocks = [1 - 0.25, 0.3 / 2 + 0.1, 0.75 - 0.5, 0.3 / 2 + 0.3, *[0.0] * 4]
    assert_close(found[:, 2:], LOUD * torch.tensor([stocks]))


def test_stocks_stop_at_one_and_forget_what_came_before() -> None:
    """The stocks of a window against their steps, one entry after another."""
    encoder = stirred("deep-sets")
    for weight in encoder.push.parameters():
        weight.data /= RATE
    encoder.push.bias.data += 0.1
    window = torch.randn(64, L, X, generator=rng(), requires_grad=True)
    shown = torch.arange(L) >= L - torch.arange(64).unsqueeze(1) % (L + 1)
    pushes, keep = RATE * encoder.push(encoder.layer(window).relu()), (RATE * encoder.keep).sigmoid()
    expected, full = torch.zeros(64, STOCKS), torch.zeros(64, STOCKS, dtype=torch.bool)
    for at in range(L):
        there = shown[:, at].unsqueeze(1)
        grown = keep * expected + pushes[:, at]
        full = torch.where(there, grown > 1, full)
        expected = torch.where(there, grown.clamp_max(1), expected)
    found = read(encoder, window, shown)[:, -STOCKS:] / LOUD
    assert_close(found, expected)
    assert bool((found <= 1 + 1e-6).all()) and 0.1 < full.float().mean() < 0.9
    # A stock that is full after the last entry depends on no entry.
    (gradient,) = torch.autograd.grad(found[full].sum(), window)
    assert not gradient.any()


def test_entry_with_the_profile_by_hand() -> None:
    items = torch.tensor([[1.0, 2.0, 9.0], [3.0, 4.0, 8.0]])  # embeddings of two numbers
    found = sequence.entries(
        torch.tensor([[1]]), torch.tensor([[[0.5]]]), items, False, torch.tensor([[10.0, 1.0]])
    )
    assert found.tolist() == [[[3.0, 4.0, 8.0, 0.5, 34.0]]]


@torch.no_grad()
def test_transformer_by_its_equations() -> None:
    """The equations at the top of its file, for one user and one head at a time."""
    encoder = stirred("transformer")
    window = torch.randn(N, L, X, generator=rng())
    found, size = read(encoder, window), 4 // len(DECAYS)
    before, between, after = encoder.norms
    for n in (1, 2, 3):
        entries = window[n, L - LENGTHS[n] :]  # the entries alone
        embedded = entries @ encoder.embed.weight + encoder.embed.bias
        normed = before(embedded)
        keys, values = encoder.key(normed), encoder.value(normed)
        heads = []
        for head in range(len(DECAYS)):
            part = slice(head * size, (head + 1) * size)
            q = encoder.query(normed[-1:])[0, part]
            scores = [
                float(q @ keys[j, part]) / math.sqrt(size) + float(encoder.bias[head, len(entries) - 1 - j])
                for j in range(len(entries))
            ]
            weights = torch.tensor(scores).softmax(0)
            heads.append(weights @ values[:, part])
        hidden = embedded[-1] + encoder.attended(torch.cat(heads).unsqueeze(0))[0]
        wide = torch.relu(encoder.widen(between(hidden).unsqueeze(0)))
        assert_close(after(hidden + encoder.narrow(wide)[0]), found[n], atol=1e-5, rtol=1e-5)


def test_transformer_starts_with_exponential_decays() -> None:
    weights = Transformer(X, L, rng()).bias.exp()
    expected = torch.tensor([[decay**age for age in range(L)] for decay in DECAYS])
    assert_close(weights, expected)


# The reader: observations of the same users, one after another.

ITEMS = torch.randn(30, (X - 1) // 2, generator=rng(5))  # with one signal


def observed(history: list[list[int]]) -> Obs:
    """Each item has its signal: the same each time, so that a window tells its entries."""
    ids = torch.tensor([[-1] * (L - len(row)) + row[-L:] for row in history])
    signals = torch.where(ids >= 0, ids / 30.0, 0.0).unsqueeze(-1)
    profile = torch.arange(1.0, len(history) + 1).unsqueeze(1)
    return Obs(profile, ids, signals)


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of windows of each time that states were built from windows."""
    counts: list[int] = []
    build = sequence._state

    def counted(encoder: Encoder, obs: Obs, items: Tensor) -> Any:
        counts.append(obs.num_rows)
        return build(encoder, obs, items)

    monkeypatch.setattr(sequence, "_state", counted)
    return counts


@pytest.mark.parametrize("name", NAMES)
def test_reader_follows_entries_resets_and_jumps(name: str, built: list[int]) -> None:
    encoder = stirred(name)
    reader = Reader(encoder, ITEMS, 2)
    full = [1, 2, 3, 4, 5]
    steps = [
        ([[], [7], [1, 2, 3]], [3]),  # the first observation: all are built from their windows
        ([[4], [7, 8], [1, 2, 3]], []),  # one entry, one entry, none
        ([[4, 4], [], [1, 2, 3, 4, 5]], []),  # the same item again, a new session, two entries
        ([[4, 4, 4], [], [*full, 6]], []),  # the window slides
        ([[], [9], [*full, 6, 6]], []),  # a new session
        ([[3], [9, 9], [*full, 6, 6]], []),  # a full window without a new entry
        ([[2, 1], [9], [*full, 6, 6]], [2]),  # histories that do not go on: of other users, say
    ]
    for history, builds in steps:
        del built[:]
        obs = observed(history)
        found = reader.follow(obs).summary
        assert found is not None
        assert built == builds, history
        assert_close(found, summarise(encoder, obs, ITEMS), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_reader_builds_a_short_history_after_a_full_window(name: str) -> None:
    """A step may fill the whole window, so any window could be the next one; but padding is not an entry."""
    encoder = stirred(name)
    reader = Reader(encoder, ITEMS, L)
    full, other = [1, 2, 3, 4, 5], [9, 8, 7, 6, 5]
    for history in ([full, []], [[7, 8], full], [full, other]):
        obs = observed(history)
        found = reader.follow(obs).summary
        assert found is not None
        assert_close(found, summarise(encoder, obs, ITEMS), atol=1e-5, rtol=0)


def test_reader_builds_where_the_profile_is_another(built: list[int]) -> None:
    """Hidden units of earlier entries were made with the profile of that time."""
    encoder = stirred("deep-sets")
    reader, obs = Reader(encoder, ITEMS, 1), observed([[1], [2], [3]])
    reader.follow(obs)
    after = observed([[1, 4], [2, 4], [3, 4]])
    after.context[1] = 7.0
    del built[:]
    assert_close(reader.follow(after).summary, summarise(encoder, after, ITEMS), atol=1e-5, rtol=0)
    assert built[0] == 1  # one row; the last count is that of summarise


def test_reader_copies_what_it_compares() -> None:
    """An environment may write its next observation to the tensors of the last one."""
    encoder = stirred("transformer")
    reader, obs = Reader(encoder, ITEMS, 1), observed([[1], [2]])
    assert obs.history is not None and obs.signals is not None
    reader.follow(obs)
    after = observed([[1, 3], [2, 4]])
    assert after.history is not None and after.signals is not None
    obs.history.copy_(after.history)
    obs.signals.copy_(after.signals)
    assert_close(reader.follow(obs).summary, summarise(encoder, after, ITEMS), atol=1e-5, rtol=0)


# Rollouts and sessions with an encoder's state.


class Watched:
    """An environment that keeps the true successors."""

    def __init__(self, env: Env) -> None:
        self.env, self.successors = env, []  # type: tuple[Env, list[Obs]]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)

    def step(self, items: Tensor) -> Step:
        step = self.env.step(items)
        self.successors.append(step.final_obs)
        return step


def small(
    encoder: str, algo: str = "ppo", patience_cost: float = 0.19, **model: Any
) -> tuple[Env, PPO | A2C]:
    config = settings(
        algo,
        "satiation",
        env_config={
            "num_items": 40,
            "embedding_dim": 4,
            "max_episode_steps": 7,
            "patience_cost": patience_cost,
        },
        data_config={"num_users": 30},
        agent_config={"n_steps": 20, "num_envs": 6} | ({"batch_size": 60} if algo == "ppo" else {}),
        model_config={"encoder": encoder, "hidden_dims": [8], **model},
    )
    env, agent = begin(config)
    for parameter in agent.model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=rng(parameter.numel()))
    return env, agent


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("head", ["two-tower", "dense", "scorer"])
def test_rollout_has_the_numbers_of_whole_windows(name: str, head: str) -> None:
    """20 steps of sessions of at most 7: values and log-probabilities, also across time limits."""
    env, agent = small(name, patience_cost=0.22 if head == "scorer" else 0.25, head=head)
    watched, obs, ends = Watched(env), env.reset(), torch.zeros(2)
    for _ in range(2):
        del watched.successors[:]
        rollout, obs = collect(watched, agent, obs, 20)
        assert rollout.obs.summary is None  # an update must read the windows with its own weights
        ends += torch.stack([rollout.truncated.sum(), rollout.terminated.sum()])
        for t in range(20):
            now = tree_map(lambda x, t=t: x[t], rollout.obs)
            assert_close(agent.value(now), rollout.values[t], atol=1e-5, rtol=1e-5)
            assert_close(agent.logprob(now, rollout.items[t]), rollout.logprobs[t], atol=1e-4, rtol=1e-5)
            follows = ~rollout.terminated[t]
            successor = agent.value(watched.successors[t])
            assert_close(successor[follows], rollout.next_values[t][follows], atol=1e-5, rtol=1e-5)
        agent.update(rollout)  # the next rollout must begin with a state of the new weights
    assert bool(ends.all())


@pytest.mark.parametrize("name", NAMES)
def test_played_sessions_act_on_summaries_of_whole_windows(name: str) -> None:
    env, agent = small(name)
    largest = []

    class Compared:
        def reader(self) -> protocols.Reader | None:
            return agent.reader()

        def act(self, obs: Obs, greedy: bool = False) -> Action:
            assert obs.summary is not None and agent.model.encoder is not None
            again = summarise(agent.model.encoder, obs, agent.model.items)
            largest.append(float((again - obs.summary).abs().max()))
            return agent.act(obs, greedy)

    play(env, Compared())
    assert len(largest) == 7 and max(largest) < 1e-5


def test_sums_alone_keep_no_state() -> None:
    env, agent = small("mlp")
    assert agent.reader() is None
    assert collect(env, agent, env.reset(), 3)[0].obs.summary is None


def sliding(encoder: str, algo: str, window: int = 4, patience: float = 1.5) -> tuple[Env, PPO | A2C]:
    """Sessions of up to 30 videos, which most users leave sooner, with windows of 4."""
    config = settings(
        algo,
        "short-video",
        env_config={"num_items": 40, "embedding_dim": 4, "max_episode_steps": 30, "first_patience": patience},
        data_config={"num_users": 30},
        agent_config={"n_steps": 20, "num_envs": 6} | ({"batch_size": 45} if algo == "ppo" else {}),
        model_config={"encoder": encoder, "hidden_dims": [8]},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ShortVideo, "history_length", window)
        env, agent = begin(config)
    for name, parameter in agent.model.named_parameters():
        size = 0.2 / RATE if "push" in name else 0.2  # stocks far below 0 would make logits of some hundreds
        parameter.data += size * torch.randn(parameter.shape, generator=rng(parameter.numel()))
    return env, agent


@pytest.mark.parametrize("algo", ["ppo", "a2c"])
@pytest.mark.parametrize("name", NAMES)
def test_learning_reads_what_acting_read(name: str, algo: str) -> None:
    """Windows slide and sessions end within a rollout. Yet the ratio of probabilities begins at 1."""
    env, agent = sliding(name, algo)
    obs, seen = env.reset(), []
    for _ in range(3):
        rollout, obs = collect(env, agent, obs, 20)
        history = rollout.obs.history
        assert history is not None and history.shape[-1] == 4
        seen.append((bool((history[:, :, 0] >= 0).any()), bool((history[1:, :, -1] < 0).any())))
        flat = rollout.obs.map(lambda x: x.flatten(0, 1).clone())
        distribution, value = agent.model(flat)
        items = rollout.items.flatten(0, 1).clone()
        logprob = distribution.logprob(items)
        assert_close(logprob, rollout.logprobs.flatten(), atol=1e-4, rtol=1e-5)
        assert_close(value, rollout.values.flatten(), atol=1e-5, rtol=1e-5)
        agent.update(rollout)
    assert seen == [(True, True)] * 3


def test_window_of_one_entry_is_read_once_where_another_session_ends() -> None:
    """With one entry, a window that stays can't be told from one that moved on."""
    env, agent = sliding("transformer", "ppo", window=1)
    rollout, _ = collect(env, agent, env.reset(), 20)
    ends = rollout.terminated | rollout.truncated
    assert bool((ends.any(1) & ~ends.all(1)).any())  # some users go on while another one begins anew
    read = rollout.obs.map(lambda x: x.flatten(0, 1).clone())
    with torch.no_grad():
        logprob = agent.model.logprob(read, rollout.items.flatten(0, 1).clone())
    assert_close(logprob, rollout.logprobs.flatten(), atol=1e-4, rtol=1e-5)

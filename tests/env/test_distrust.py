"""The two streams of learned users by which learning may distrust them, by hand and in a whole run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from recsys_rl.checkpoint.users import load_users
from recsys_rl.config import Config
from recsys_rl.env.learned import LearnedConfig, LearnedUsers
from recsys_rl.experience.rollout import collect
from recsys_rl.functional.next_entropy import keys_of
from recsys_rl.make import make_agent, make_env
from recsys_rl.models import user_fit
from recsys_rl.objective.weighted import Weighted
from recsys_rl.types import Interface, Signal, Stream, UserFacts
from recsys_rl.workflows.fit_users import fit_users
from recsys_rl.workflows.record import RecordConfig, record
from tests.doors import PPO, SATIATION, SIZES, steps, train_in
from tests.tiny_world import population, tiny_catalogue


class ThreeNetworks:
    """Networks whose mean of the signal `click` of items 0, 1, 2 is 0.1, 0.5, 0.9, times 1, 2 and 3."""

    num_members = 3
    table = torch.tensor([0.1, 0.5, 0.9])

    def begin(self, given: Mapping[str, Tensor], number: int) -> dict[str, Tensor]:
        return {"steps": torch.zeros(len(given["profile"]))}

    def means(self, memory: Mapping[str, Tensor], items: Tensor) -> Tensor:
        of_members = torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1)
        return torch.stack([of_members * self.table[items], torch.zeros(3, *items.shape)], -1)

    def expected(self, memory: Mapping[str, Tensor], items: Tensor, member: Tensor) -> Tensor:
        return self.means(memory, items).mean(0)

    def drawn(self, memory: Mapping[str, Tensor], items: Tensor, member: Tensor, chance: Tensor) -> Tensor:
        return self.expected(memory, items, member)

    def drawn_and_means(
        self, memory: Mapping[str, Tensor], items: Tensor, member: Tensor, chance: Tensor
    ) -> tuple[Tensor, Tensor]:
        return self.expected(memory, items, member), self.means(memory, items)

    def after(
        self,
        memory: Mapping[str, Tensor],
        items: Tensor,
        shown: Tensor,
        signals: Tensor,
        member: Tensor,
    ) -> tuple[dict[str, Tensor], Tensor]:
        return {"steps": memory["steps"] + 1}, torch.zeros(len(items), 3)


def users(shown_next: dict[str, Tensor]) -> LearnedUsers:
    """Clicks that earn 2 each."""
    facts = UserFacts(
        Interface((("profile", 2), ("last_item", 2)), (3,), signals=("click",), session_length=3),
        signals=(Signal("click"), Signal("like")),
        streams=(Stream("click", 2.0), Stream("like", 1.0)),
        of_signals=torch.eye(2),
        users=torch.arange(2),
        given={"profile": torch.eye(2)},
        catalogue="",
        shown_next=shown_next,
    )
    config = LearnedConfig(num_items=3, embedding_dim=2, max_episode_steps=3)
    return LearnedUsers(tiny_catalogue(), population(torch.eye(2)), config, facts, ThreeNetworks())


def test_streams_by_hand() -> None:
    """Spread: 2 x mean x std(1, 2, 3). Entropy: of the item, and from the second step on of the pair."""
    shown_next = {
        "keys1": torch.tensor([0, 2]),
        "entropies1": torch.tensor([0.25, 0.5]),
        "keys2": keys_of(torch.tensor([[0, 2]]), 3),
        "entropies2": torch.tensor([0.125]),
    }
    model = users(shown_next)
    assert [(x.name, x.weight) for x in model.streams] == [
        ("click", 2.0),
        ("like", 1.0),
        ("spread", 0.0),
        ("entropy", 0.0),
    ]
    state, shown = model.sample(torch.arange(2)), torch.ones(2, 1, dtype=torch.bool)
    items = torch.tensor([[0], [1]])
    feedback = model.respond(state, items, shown, None)
    deviation = (2 / 3) ** 0.5  # of 1, 2, 3
    expected = [[0.2, 0.0, 2 * 0.1 * deviation, 0.25], [1.0, 0.0, 2 * 0.5 * deviation, 0.0]]
    torch.testing.assert_close(model.rewards(feedback), torch.tensor(expected))
    state, _ = model.advance(state, items, feedback)
    assert state.last.tolist() == [0, 1]
    feedback = model.respond(state, torch.tensor([[2], [2]]), shown, None)
    entropy = model.rewards(feedback)[:, 3]
    assert entropy.tolist() == pytest.approx([0.5 + 0.125, 0.5])  # the log has the pair {0, 2}, not {1, 2}
    empty = model.respond(state, torch.tensor([[2], [2]]), ~shown, None)
    assert not bool(model.rewards(empty).any())
    undoubted = torch.tensor([[0.4, 2.0, 3.6]] * 2)
    torch.testing.assert_close(model.expected_reward(state), undoubted)


def test_a_weight_makes_the_reward_of_learning_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--weights spread=-2 entropy=0.5`: r - 2 u + 0.5 H in learning; the environment's reward stays."""
    path = train_in(tmp_path / "first", *SATIATION, *steps(2))
    log, file = tmp_path / "log.parquet", tmp_path / "users.pt"
    record(RecordConfig(checkpoint=str(path), policy=("random",), sessions=120, users="all", out=str(log)))
    monkeypatch.setattr(user_fit, "LEAST_STEPS", 5)
    fit_users(log=str(log), checkpoint=str(path), out=str(file), members=2, epochs=1, quiet=True)
    learned = load_users(file)
    assert {"keys1", "entropies1", "keys2", "entropies2"} == set(learned.facts.shown_next)
    config = Config(env="learned", user_model=str(file), **learned.settings)
    env = make_env(config, learned.world, 8)
    agent = make_agent(config, env.interface, learned.world.catalogue)
    rollout, _ = collect(env, agent, env.reset(), 4)
    u, h = rollout.streams[..., -2], rollout.streams[..., -1]
    assert bool((u > 0).all()) and bool((h >= 0).all()) and bool((h > 0).any())
    torch.testing.assert_close(rollout.rewards, rollout.streams[..., 0])
    doubted, _ = Weighted(env.streams, {"spread": -2.0, "entropy": 0.5}).apply(rollout)
    torch.testing.assert_close(doubted.rewards, rollout.streams[..., 0] - 2 * u + 0.5 * h)
    options = ["--env", "learned", "--user-model", str(file), "--weights", "spread=-2", "entropy=0.5"]
    trained = train_in(tmp_path / "inside", *options, *SIZES, *PPO, *steps(2))
    assert trained.is_file()

"""The ring of transitions: against a list, by hand at the end of a session, saved and resumed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from recsys_rl.errors import FieldError
from recsys_rl.experience import replay
from recsys_rl.experience.replay import Ring
from recsys_rl.types import Action, Obs, Step

N = 2


def moment(t: int) -> Obs:
    """Time t and the user's number; all that was shown is excluded."""
    history = torch.full((N, 2), t)
    return Obs(torch.tensor([[t, 0.0], [t, 1.0]]), history, torch.zeros(N, 2, 1), exclude=history)


def fill(ring: Ring, steps: int, ends: dict[int, str] | None = None) -> list[dict[str, Any]]:
    """Add ``steps`` steps with reward 1 + t + 100 user. ``ends``: how the sessions end at a step, by t.

    Returns a row for each transition, in order. The successor of a last step has time -t.
    """
    rows = []
    for t in range(steps):
        end = (ends or {}).get(t, "")
        final = moment(-t) if end else moment(t + 1)
        rewards = torch.tensor([1.0 + t, 101.0 + t])
        left, cut = (torch.full((N,), end == kind) for kind in ("terminated", "truncated"))
        step = Step(moment(t + 1), final, rewards, left, cut, rewards.unsqueeze(1))
        items = torch.full((N, 1), t)
        ring.add(moment(t), Action(items, torch.full((N,), -1.0)), step, rewards)
        for user in range(N):
            row = {"time": t, "user": user, "reward": rewards[user].item(), "end": end}
            rows.append(row | {"next": float(-t if end else t + 1)})
    return rows


def sampled(ring: Ring, size: int, seed: int = 0) -> dict[tuple[int, int], tuple[float, ...]]:
    """(time, user) -> reward, time of the successor, terminated, truncated, discount."""
    found = ring.sample(size, torch.Generator().manual_seed(seed))
    assert found.discounts is not None
    keys = [(int(t), int(u)) for t, u in found.obs.context.tolist()]
    assert found.items[:, 0].tolist() == [t for t, _ in keys] and bool((found.logprobs == -1).all())
    assert found.obs.exclude is found.obs.history  # stored once
    values = zip(
        found.rewards.tolist(),
        found.next_obs.context[:, 0].tolist(),
        found.terminated.tolist(),
        found.truncated.tolist(),
        found.discounts.tolist(),
        strict=True,
    )
    return dict(zip(keys, values, strict=True))


def test_ring_holds_the_latest_transitions_as_a_list_would() -> None:
    ring = Ring(size=10, num_envs=N, gamma=0.5, return_steps=1)  # 5 slots
    rows = fill(ring, 12, {8: "terminated", 10: "truncated"})[-10:]
    expected = {
        (row["time"], row["user"]): (
            row["reward"],
            row["next"],
            row["end"] == "terminated",
            row["end"] == "truncated",
            0.5,
        )
        for row in rows
    }
    assert sampled(ring, 2_000) == expected
    assert len(ring) == 10


def test_each_transition_is_equally_likely() -> None:
    ring = Ring(10, N, 0.5, 1)
    fill(ring, 7)
    drawn = ring.sample(20_000, torch.Generator().manual_seed(1)).obs.context
    counts = torch.stack(
        [(drawn == torch.tensor([t, u])).all(1).sum() for t in range(2, 7) for u in range(N)]
    )
    chi_square = float(((counts - 2_000.0) ** 2 / 2_000).sum())
    assert chi_square < 27.9  # 9 degrees of freedom, one in a thousand


def test_returns_of_three_steps_by_hand() -> None:
    """Rewards 1, 2, 3, 4, 5, 6; a session ends at time 3, and its last transitions sum up to there."""
    ring = Ring(100, N, 0.5, return_steps=3)
    fill(ring, 6, {3: "terminated"})
    found = {key[0]: value for key, value in sampled(ring, 500).items() if key[1] == 0}
    assert found == {
        0: (1 + 2 / 2 + 3 / 4, 3.0, False, False, 0.125),
        1: (2 + 3 / 2 + 4 / 4, -3.0, True, False, 0.125),
        2: (3 + 4 / 2, -3.0, True, False, 0.25),  # the session has two steps left
        3: (4.0, -3.0, True, False, 0.5),
        # 4 and 5 lack their third step
    }


def test_discount_before_a_gap_multiplies_the_value_that_follows() -> None:
    ring = Ring(100, N, 0.5, return_steps=2)
    for t, discount in enumerate((1.0, 0.25, 1.0)):
        rewards = torch.tensor([1.0, 1.0])
        no = torch.zeros(N, dtype=torch.bool)
        step = Step(moment(t + 1), moment(t + 1), rewards, no, no, rewards.unsqueeze(1))
        step = Step(**{**vars(step), "discount": torch.full((N,), discount)})
        ring.add(moment(t), Action(torch.full((N, 1), t), torch.full((N,), -1.0)), step, rewards)
    found = sampled(ring, 100)
    assert found[0, 0] == (1.5, 2.0, False, False, 0.5 * 0.5 * 0.25)
    assert found[1, 1] == (1 + 0.25 * 0.5, 3.0, False, False, 0.25 * 0.5 * 0.5)


def test_mask_that_appears_late_was_true_before() -> None:
    ring = Ring(100, N, 0.5, 1)
    fill(ring, 1)
    masked = Obs(**{**vars(moment(1)), "mask": torch.tensor([[True, False]] * N)})
    no, rewards = torch.zeros(N, dtype=torch.bool), torch.ones(N)
    step = Step(moment(2), moment(2), rewards, no, no, rewards.unsqueeze(1))
    ring.add(masked, Action(torch.zeros(N, 1, dtype=torch.int64), -rewards), step, rewards)
    fill(ring, 1)
    found = ring.sample(100, torch.Generator().manual_seed(0)).obs
    assert found.mask is not None
    second = found.context[:, 0] == 1
    assert bool(found.mask[~second].all()) and found.mask[second].unique(dim=0).tolist() == [[True, False]]


def test_mask_of_an_old_slot_does_not_limit_the_transition_that_replaces_it() -> None:
    ring = Ring(3 * N, N, 0.5, 1)
    masked = Obs(**{**vars(moment(9)), "mask": torch.tensor([[True, False]] * N)})
    no, rewards = torch.zeros(N, dtype=torch.bool), torch.ones(N)
    step = Step(masked, masked, rewards, no, no, rewards.unsqueeze(1))
    ring.add(masked, Action(torch.zeros(N, 1, dtype=torch.int64), -rewards), step, rewards)
    fill(ring, 3)  # the last one takes the masked slot
    found = ring.sample(100, torch.Generator().manual_seed(0))
    assert sorted(found.obs.context[:, 0].unique().tolist()) == [0, 1, 2]
    for obs in (found.obs, found.next_obs):
        assert obs.mask is not None and bool(obs.mask.all())


def test_state_is_that_of_the_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    ring, other = Ring(10, N, 0.5, 2), Ring(10, N, 0.5, 2)
    fill(ring, 7, {5: "truncated"})
    other.load_state_dict(ring.state_dict())
    assert sampled(ring, 300) == sampled(other, 300)
    fill(ring, 2)
    fill(other, 2)
    assert sampled(ring, 300) == sampled(other, 300)
    state = ring.state_dict() | {"ring_at": torch.tensor(9)}
    with pytest.raises(ValueError, match="slot"):
        other.load_state_dict(state)


def test_ring_larger_than_the_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "_memory", lambda: 1e6)
    with pytest.raises(FieldError):
        fill(Ring(1_000_000, N, 0.5, 1), 1)

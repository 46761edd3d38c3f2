"""Named streams: reproducible, independent, and separate from the global generator."""

from __future__ import annotations

import itertools

import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys_rl.utils.seeding import generators, stream_seed


def test_stream_numbers_never_change() -> None:
    """Literal numbers: a resumed run must have the same streams in a later version."""
    # sha256 of "0/users" and "7/policy", first eight bytes, little-endian, halved
    assert stream_seed(0, "users") == 3_099_621_053_757_599_431
    assert stream_seed(7, "policy") == 2_604_923_878_236_591_687


@given(st.integers(0, 2**32 - 1), st.text(max_size=20))
def test_stream_seeds_are_valid_for_torch(seed: int, name: str) -> None:
    assert 0 <= stream_seed(seed, name) < 2**63
    assert stream_seed(seed, name) == stream_seed(seed, name)


def test_neighbouring_seeds_give_different_streams() -> None:
    names = ("model", "users", "policy", "shuffle")
    seeds = {stream_seed(seed, name) for seed in range(200) for name in names}
    assert len(seeds) == 800


def test_streams_are_independent() -> None:
    draws = {
        (seed, name): torch.randn(10_000, generator=stream)
        for seed in (0, 1)
        for name, stream in generators(seed, "users", "policy").items()
    }
    for first, second in itertools.combinations(draws.values(), 2):
        correlation = torch.corrcoef(torch.stack([first, second]))[0, 1]
        assert abs(correlation) < 0.04  # four deviations


def test_draws_from_one_stream_do_not_change_others() -> None:
    streams, untouched = generators(0, "users", "policy"), generators(0, "policy")
    torch.rand(1000, generator=streams["users"])
    assert torch.equal(
        torch.rand(5, generator=streams["policy"]), torch.rand(5, generator=untouched["policy"])
    )


def test_global_generator_is_not_used() -> None:
    before = torch.get_rng_state()
    torch.rand(3, generator=generators(0, "users")["users"])
    assert torch.equal(torch.get_rng_state(), before)

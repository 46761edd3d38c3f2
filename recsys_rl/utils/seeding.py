"""Independent, named streams of random numbers from one seed. No global generator is used."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def stream_seed(seed: int, name: str) -> int:
    """The seed of one stream, in [0, 2**63): a hash, so streams and neighbouring seeds are independent."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generators(seed: int, *names: str, device: torch.device | str = "cpu") -> dict[str, torch.Generator]:
    """One generator for each name: ``generators(0, "users", "policy")["policy"]``."""
    return {name: torch.Generator(device).manual_seed(stream_seed(seed, name)) for name in names}


def set_state(generator: torch.Generator, state: Tensor) -> None:
    """Continue from a saved state. Raises RuntimeError or ValueError if it is not a valid state.

    A state may hold a normal number that was drawn and not used yet. torch does not check that number.
    """
    generator.set_state(state)
    drawn = torch.randn(1, generator=generator.clone_state(), device=generator.device)
    if not bool(drawn.isfinite()):
        raise ValueError("a generator would draw NaN or an infinite number")

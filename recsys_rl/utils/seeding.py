"""Independent, named streams of random numbers from one seed. No global generator is used."""

from __future__ import annotations

import hashlib
import re
from collections import Counter

import torch
from torch import Tensor

from recsys_rl.errors import UserError
from recsys_rl.settings.fields import shown


def stream_seed(seed: int, name: str) -> int:
    """The seed of one stream, in [0, 2**63): a hash, so streams and neighbouring seeds are independent."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generators(seed: int, *names: str, device: torch.device | str = "cpu") -> dict[str, torch.Generator]:
    """One generator for each name: ``generators(0, "users", "policy")["policy"]``."""
    return {name: torch.Generator(device).manual_seed(stream_seed(seed, name)) for name in names}


def parse_seeds(text: str) -> tuple[int, ...]:
    """The seeds in a text such as "0-4", "0,2,5" or "0-2,7", in that order.

    Raises UserError for another text, a seed over 2**32 - 1, a range of more than 1000, and a seed twice.
    """
    seeds: list[int] = []
    for entry in text.split(","):
        ends = re.fullmatch(r"\s*(\d{1,10})(?:-(\d{1,10}))?\s*", entry)
        low, high = (int(ends[1]), int(ends[2] or ends[1])) if ends else (1, 0)
        if not low <= high < 2**32 or high - low >= 1000:
            raise UserError(
                f"--seeds is {shown(text)}: give seeds as 0-4 or 0,2,5, each at most 4294967295 and "
                "at most 1000 of them."
            )
        seeds += range(low, high + 1)
    twice = [seed for seed, times in Counter(seeds).items() if times > 1]
    if twice:
        raise UserError(f"--seeds {text} has the seed {twice[0]} twice, and that is one run: name it once.")
    return tuple(seeds)


def set_state(generator: torch.Generator, state: Tensor) -> None:
    """Continue from a saved state. Raises RuntimeError or ValueError if it is not a valid state.

    A state may hold a normal number that was drawn and not used yet. torch does not check that number.
    """
    generator.set_state(state)
    drawn = torch.randn(1, generator=generator.clone_state(), device=generator.device)
    if not bool(drawn.isfinite()):
        raise ValueError("a generator would draw NaN or an infinite number")

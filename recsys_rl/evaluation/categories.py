"""The shares of the categories that a policy shows over the session: the values of the report's picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from recsys_rl.evaluation.report.categories import STAY
from recsys_rl.experience.rollout import Sessions
from recsys_rl.types import Catalogue

NAMED = 5  # categories with a row of their own
OTHERS = "others"
TAKEN = (OTHERS, STAY)  # names of other rows: a category of that name is among the others
BINS = 20  # most parts of a session
FEWEST = 0.1  # share of the users who must still be there, or else a part has too few items to draw


def categories(
    catalogue: Catalogue, sessions: Mapping[str, Sessions], session_length: int
) -> dict[str, Any] | None:
    """The shares of the categories among the shown items over the session, for each policy of ``sessions``.

    A session of at most ``session_length`` steps is cut into BINS parts or fewer. An item of several
    categories counts in equal shares in each. The NAMED most shown categories are named; the last name,
    OTHERS, has the rest and the items without a category. Of a life, its first visit counts. Where no
    item has a category, the kinds of the items take their place.

    Returns: plain values: ``names``; ``parts``, the first and last step of each part, from 1; ``length``;
    ``visits``, True if the sessions are first visits of lives; and ``policies`` (``policy``, ``users``,
    ``length_mean``, ``present`` [0..1] and ``shares`` {name: [0..1]} of each part, to the last part with
    FEWEST of the users, and ``mean`` {name: [0..1]} of the whole sessions). None if the data hold no
    categories.
    """
    groups, tags = groups_of(catalogue)
    if not bool(groups.any()):
        return None
    size = -(-session_length // BINS)
    starts = range(0, session_length, size)
    counts = {name: _counts(groups, played, starts, size) for name, played in sessions.items()}
    shares = torch.stack([_shares(count.sum(0)) for count in counts.values()]).sum(0)  # (G + 1,)
    order = shares[:-1].argsort(descending=True, stable=True).tolist()
    named = [tag for tag in order if shares[tag] > 0 and tags[tag] not in TAKEN][:NAMED]
    rest = [tag for tag in range(len(shares)) if tag not in named]
    names = [*(tags[tag] for tag in named), OTHERS]

    def by_name(values: Tensor) -> dict[str, Any]:  # (..., G + 1)
        columns = [*(values[..., tag] for tag in named), values[..., rest].sum(-1)]
        return dict(zip(names, (column.tolist() for column in columns), strict=True))

    rows = []
    for name, played in sessions.items():
        there = _there(played)  # (T, N)
        every = [min(size, session_length - at) * there.shape[1] for at in starts]  # if no user had left
        present = torch.stack([there[at : at + size].sum() for at in starts]) / torch.tensor(every)
        drawn = max(1, int((present >= FEWEST).cumprod(0).sum()))
        rows.append(
            {
                "policy": name,
                "users": there.shape[1],
                "length_mean": there.sum(0).double().mean().item(),
                "present": present[:drawn].tolist(),
                "shares": by_name(_shares(counts[name][:drawn])),
                "mean": by_name(_shares(counts[name].sum(0))),
            }
        )
    return {
        "names": names,
        "parts": [[at + 1, min(at + size, session_length)] for at in starts],
        "length": session_length,
        "visits": any(played.days is not None for played in sessions.values()),
        "policies": rows,
    }


def groups_of(catalogue: Catalogue) -> tuple[Tensor, tuple[str, ...]]:
    """The categories (I, G) of each item, and their names: the tags, or without any the kinds."""
    names = catalogue.classes("kind")
    if bool(catalogue.tags.any()) or not names:
        return catalogue.tags, catalogue.tag_names
    kinds = catalogue.attributes["kind"].unsqueeze(1) == torch.arange(len(names)).to(catalogue.tags.device)
    return kinds.to(catalogue.tags), names


def _there(sessions: Sessions) -> Tensor:
    """(T, N) bool: steps of the session, or of a life's first visit."""
    if sessions.days is not None:
        return sessions.days.cpu() == 0
    return torch.arange(len(sessions.items)).unsqueeze(1) < sessions.lengths.cpu()


def _counts(groups: Tensor, sessions: Sessions, starts: range, size: int) -> Tensor:
    """(parts, G + 1): shown items by category in each part of the session; the last column has none."""
    tags = groups / groups.sum(1, keepdim=True).clamp_min(1)  # (I, G)
    weights = torch.cat([tags, 1 - tags.sum(1, keepdim=True)], 1)  # (I, G + 1)
    items = sessions.items.cpu().masked_fill(~_there(sessions).unsqueeze(-1), -1)  # (T, N, K)
    parts = [items[at : at + size] for at in starts]
    shown = [ids[ids >= 0].bincount(minlength=len(weights)).to(weights.dtype) for ids in parts]
    return torch.stack(shown) @ weights


def _shares(counts: Tensor) -> Tensor:
    """Counts (..., G + 1) as shares of their sum."""
    return counts / counts.sum(-1, keepdim=True).clamp_min(1)

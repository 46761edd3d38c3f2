"""The picture of the categories over the session: a row for each category, a column for each policy."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from recsys_rl.evaluation.report.drawing import kind, number, percent, scale, sizes, svg, text
from recsys_rl.evaluation.report.page import Evaluated, Page, Picture, Row
from recsys_rl.experience.rollout import Sessions
from recsys_rl.types import Catalogue

STAY = "users still there"
TOP = "up to"
LETTER = 7.4
"""Width of a letter of a name, in pixels."""
LINE, AREA, GAP = 16, 32, 10  # heights in pixels: a line of text, an area, the space below it
HEIGHTS = (0.01, 0.02, 0.05, *(tenths / 10 for tenths in range(1, 11)))
"""Shares at the top of a row: the first one that none of its values exceeds."""
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


def categories_html(picture: Row | None, page: Page) -> str:
    """The section of the page: the chart in three sizes, or one sentence if the data hold no categories.

    An empty picture is no section.
    """
    if picture == {}:
        return ""
    head = "<h2>Categories over the session</h2>"
    if picture is None:
        said = "No picture: the data hold no categories of items."
        return f'{head}<p class="plain">{said}</p>'
    return f'{head}<p class="note">{text(_note(picture))}</p>{sizes(lambda px: categories_svg(picture, px))}'


def _note(picture: Row) -> str:
    users = picture["policies"][0]["users"]
    of = "each user's first visit" if picture["visits"] else "one session each"
    first, last = picture["parts"][0]
    steps = "each step" if first == last else f"each {last - first + 1} steps"
    return (
        f"What each policy shows to the same {number(users, 0)} users, {of}: the share of each "
        f"category among the items shown in {steps} of the session. The numbers are its first and last "
        "values. An item of several categories counts in equal shares in each. A column ends where fewer "
        "than a tenth of the users are left."
    )


def categories_svg(picture: Row, width: int = 760) -> str:
    """One small area for each category (row) and policy (column), over the steps of the session.

    ``picture`` is a result of ``evaluation.categories``. The areas of a row have one scale, which its name
    tells: with one for all rows, a category that is shown much would make the others flat. The last row is
    the share of the users who are still there. ``width`` is in pixels; below 500 the names stand above their
    rows.
    """
    names, policies = [*picture["names"], STAY], picture["policies"]
    narrow = width < 500
    left = 14.0 if narrow else 26 + LETTER * max(len(TOP) + 3, *map(len, names))
    between = 14.0 if narrow else 28.0
    room = (width - 16 - left - between * (len(policies) - 1)) / len(policies)
    tops = {name: _top(name, policies) for name in names}
    pitch = (LINE if narrow else 0) + LINE + AREA + GAP
    floor = 34 + pitch * len(names)

    parts = []
    for index, name in enumerate(names):
        top = 34 + pitch * index
        muted = ' class="muted"' if name == STAY else ""
        said = f"{TOP} {percent(tops[name], 0)}"
        if narrow:
            dx = f'dx="{LETTER}" class="muted"'
            parts.append(
                f'<text x="{left:.1f}" y="{top + 12}"{muted}>{text(name)}<tspan {dx}>{said}</tspan></text>'
            )
        else:
            parts.append(
                f'<text x="14" y="{top + LINE + AREA - 3}"{muted}>{text(name)}</text>'
                f'<text x="14" y="{top + LINE + 9}" class="muted">{said}</text>'
            )
    for column, row in enumerate(policies):
        start = left + column * (room + between)
        letters = max(2, int(room / LETTER))
        policy = str(row["policy"])
        title = policy if len(policy) <= letters else policy[: letters - 1] + "…"
        parts.append(f'<text class="strong {kind(policy)}" x="{start:.1f}" y="22">{text(title)}</text>')
        for index, name in enumerate(names):
            floor_of = 34 + pitch * (index + 1) - GAP
            parts.append(_cell(picture, row, name, start, room, floor_of, tops[name]))
        parts.append(_steps(picture["length"], start, room, floor + 6))
    said = (
        f"Across: step of the session. Up: share of the items shown, {TOP} the percentage beside the row's "
        "name; the numbers are its first and last values. Last row: share of the users who are still there, "
        "and mean length."
    )
    lines = textwrap.wrap(said, int((width - 28) / 6.9))
    parts += [
        f'<text class="muted" x="14" y="{floor + 34 + 18 * index}">{text(line)}</text>'
        for index, line in enumerate(lines)
    ]
    return svg(width, floor + 34 + 18 * len(lines), _said(picture), parts)


def _top(name: str, policies: Sequence[Row]) -> float:
    """The share at the top of a row."""
    if name == STAY:
        return 1.0
    highest = max((value for row in policies for value in row["shares"][name]), default=0.0)
    return next(top for top in HEIGHTS if highest <= top + 1e-6)


def _cell(picture: Row, row: Row, name: str, start: float, room: float, floor: float, full: float) -> str:
    """The area above ``floor``, and its ends in numbers; the mean is in the tooltip."""
    values: Sequence[float] = row["present"] if name == STAY else row["shares"][name]
    parts = picture["parts"]
    x, y = scale(0, picture["length"], start, start + room), scale(0, full, floor, floor - AREA)
    path = f"M{start:.1f} {floor:.1f}"
    for (_, last), value in zip(parts, values, strict=False):  # values end where few users are left
        path += f"V{y(value):.1f}H{x(last):.1f}"
    tip = f"{row['policy']}, {name}: {_ends(parts, values)}"
    if name == STAY:
        said = f"{number(row['length_mean'], 1)} steps"
    else:
        tip += f"; {percent(row['mean'][name], 0)} in all"
        said = " → ".join(number(100 * values[at], 0) for at in (0, -1)) + " %" if values else "–"
    return (
        f'<g><title>{text(tip)}</title><path class="area {kind(str(row["policy"]))}" '
        f'd="{path}V{floor:.1f}Z"/><path class="axis" d="M{start:.1f} {floor:.1f}H{start + room:.1f}"/>'
        f'<text class="muted end" x="{start + room:.1f}" y="{floor - AREA - 4:.1f}">{said}</text></g>'
    )


def _steps(length: int, start: float, room: float, top: float) -> str:
    return (
        f'<text class="muted" x="{start:.1f}" y="{top:.1f}">1</text>'
        f'<text class="muted end" x="{start + room:.1f}" y="{top:.1f}">step {length}</text>'
    )


def _ends(parts: Sequence[Sequence[int]], values: Sequence[float]) -> str:
    """``20 % in steps 1 to 2, 28 % in steps 39 to 40``."""
    ends = dict.fromkeys((0, len(values) - 1)) if values else {}
    return ", ".join(f"{percent(values[at], 0)} in {_when(*parts[at])}" for at in ends)


def _when(first: int, last: int) -> str:
    return f"step {first}" if first == last else f"steps {first} to {last}"


def _said(picture: Row) -> str:
    """The picture in words."""
    shares_of = []
    for row in picture["policies"]:
        shares = ", ".join(
            f"{name} {percent(row['mean'][name], 0)} ({_ends(picture['parts'], row['shares'][name])})"
            for name in picture["names"]
        )
        shares_of.append(f"{row['policy']}, {number(row['length_mean'], 1)} steps: {shares}")
    users = number(picture["policies"][0]["users"], 0)
    each = "; ".join(shares_of)
    return f"Share of the categories among the shown items over the session, {users} users. {each}."


def _values(evaluated: Evaluated) -> dict[str, Any] | None:
    """Empty for an environment without items of a catalogue."""
    if evaluated.user_model is None:
        return {}
    sessions = {name: evaluated.played[name].sessions for name in evaluated.compared}
    length = evaluated.checkpoint.interface.session_length
    return categories(evaluated.checkpoint.catalogue, sessions, length)


CATEGORIES = Picture("categories", _values, categories_html)

"""The picture of the categories over the session: a row for each category, a column for each policy."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from recsys_rl.evaluation.report.drawing import kind, number, scale, sizes, svg, text
from recsys_rl.evaluation.report.page import Row

STAY = "users still there"
TOP = "up to"
LETTER = 7.4
"""Width of a letter of a name, in pixels."""
LINE, AREA, GAP = 16, 32, 10  # heights in pixels: a line of text, an area, the space below it
HEIGHTS = (0.01, 0.02, 0.05, *(tenths / 10 for tenths in range(1, 11)))
"""Shares at the top of a row: the first one that none of its values exceeds."""


def categories_html(picture: Row | None) -> str:
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
        said = f"{TOP} {_percent(tops[name])}"
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
        tip += f"; {_percent(row['mean'][name])} in all"
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
    return ", ".join(f"{_percent(values[at])} in {_when(*parts[at])}" for at in ends)


def _when(first: int, last: int) -> str:
    return f"step {first}" if first == last else f"steps {first} to {last}"


def _percent(share: float) -> str:
    return f"{number(100 * share, 0)} %"


def _said(picture: Row) -> str:
    """The picture in words."""
    shares_of = []
    for row in picture["policies"]:
        shares = ", ".join(
            f"{name} {_percent(row['mean'][name])} ({_ends(picture['parts'], row['shares'][name])})"
            for name in picture["names"]
        )
        shares_of.append(f"{row['policy']}, {number(row['length_mean'], 1)} steps: {shares}")
    users = number(picture["policies"][0]["users"], 0)
    each = "; ".join(shares_of)
    return f"Share of the categories among the shown items over the session, {users} users. {each}."

"""The pictures of docs/ whose alternative texts quote figures, each as a line of HTML."""

from __future__ import annotations

import html
import re
import statistics
from pathlib import Path

from benchmarks.harness.newest import read
from benchmarks.harness.tables import ROOT

IMAGES = ROOT / "docs" / "images"
WHEN = r"(\d+) % in (steps? [\d to]+)"
AREA = re.compile(rf"<title>(.+?), ([^,<]+): {WHEN}(?:, {WHEN})?[;<]")
"""The text of an area of the picture (report/categories.py): policy, row, its first and its last value."""
STAY, OTHERS = "users still there", "others"


def image(name: str, said: str) -> str:
    return f'<img src="images/{name}.svg" width="100%" alt="{html.escape(said)}">'


def categories(results: Path, env: str, what: str, images: Path = IMAGES) -> str:
    """The picture of the categories over the session, with the numbers that it has itself.

    For each policy: the two categories whose shares change the most, and the users at its last steps.
    ``what``: the things shown. ``results`` is not read.
    """
    areas: dict[str, dict[str, tuple[int, int, str]]] = {}
    picture = (images / f"categories-{env}.svg").read_text(encoding="utf-8")
    for policy, row, first, start, last, end in AREA.findall(picture):
        found = int(first), int(last or first), end or start
        areas.setdefault(html.unescape(policy), {})[html.unescape(row)] = found
    latest = max((rows[STAY][2] for rows in areas.values()), key=lambda steps: int(steps.split()[-1]))
    parts = []
    for policy, rows in areas.items():
        named = [row for row in rows if row not in (STAY, OTHERS)]
        most = sorted(named, key=lambda row: -abs(rows[row][1] - rows[row][0]))[:2]
        shares = ", ".join(f"{row} from {rows[row][0]} to {rows[row][1]} %" for row in most)
        _, stay, steps = rows[STAY]
        users = f"{stay} % of the users stay to the last"
        if steps != latest:  # a column ends where fewer than a tenth of the users are left
            users = f"fewer than a tenth of the users stay beyond {steps}"
        parts.append(f"{policy}: {shares}; {users}.")
    number = len(next(iter(areas.values()))) - 1  # with "others"
    words = {4: "four", 5: "five", 6: "six"}
    return image(
        f"categories-{env}",
        f"Share of {words.get(number, number)} categories among the {what}, and of the users who are still "
        f"there, over the session. {' '.join(parts)}",
    )


def million(results: Path) -> str:
    """The curve of a million items, with its first three points and its end; means over seeds."""
    shares: dict[int, list[float]] = {}
    for row in read(results, "million"):
        shares.setdefault(int(row["step"]), []).append(float(row["greedy_share_of_oracle"]))
    steps = sorted(shares)
    points = [f"{statistics.mean(shares[step]):.2f} after {step:,} steps" for step in (*steps[:3], steps[-1])]
    return image(
        "million",
        "Share of the exact optimum that held-out users get on a million items from the greedy policy, mean "
        f"of {len(shares[0])} seeds: {', '.join(points)}.",
    )

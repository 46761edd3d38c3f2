"""The definitions of the rows and columns in the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from recsys_rl.evaluation.report.drawing import finite, number
from recsys_rl.evaluation.report.page import Page, Row
from recsys_rl.evaluation.table import YARDSTICKS
from recsys_rl.records import TRADE

POLICIES = {
    "untrained": "The same network before its first update.",
    "expected": "The items of which the network expects the highest reward now: what a feed ranks by.",
    "random": "Any allowed {item}, each with the same probability.",
    "popularity": "The items that most training users like, the most liked first; the same for everybody.",
    "one-item": "One item for everybody, with the highest mean first reward among training users.",
    "static-list": "One list for everybody, found by a greedy search on training users.",
    "mf": "Matrix factorisation: the items with the largest product of the user's profile and the item's "
    "embedding, best first.",
    "mmr": "The list of mf, diversified (maximal marginal relevance); its settings are tuned on training "
    "users.",
    "linucb": "A linear bandit: it learns each user's taste from the answers of the session, and shows the "
    "items with the highest upper confidence bounds; its settings are tuned on training users.",
    "lints": "As linucb, but it shows the best items by a draw from what it knows (Thompson sampling).",
    "rule": "A linear score of a few values that a recommender sees; its weights (seven at most) are found "
    "by trials in the simulator with training users, with the agent's number of steps.",
    "searched": "As rule, and where it helps with weights for each surface or part of the session, hinges of "
    "the items' numbers, and a product of factors of item and user; found by trials in the simulator with "
    "training users, with the agent's number of steps.",
    "ranker": "The agent's network and number of steps, trained for the next reward alone (gamma 0).",
    "myopic": "Sees the true expected reward of each item now, shows the highest, and never looks ahead.",
    "credited": "As myopic, but the reward that an item pays in later steps is counted at once.",
    "informed": "The planner with the user's profile in place of the hidden taste, never updated.",
    "oracle": "Sees the hidden user and plays the optimum, known in closed form.",
    "planner": "Sees the hidden user, simulates {reach}, and shows the best first item found: a strong "
    "reference, not a proven optimum.",
}
RETURN = (
    "Sum of the rewards of {session}, undiscounted: the mean over {players}, and its 95 % "
    "interval (Student's t)."
)

NO_DIFFERENCE = "no difference seen"


def define_policy(policy: str, learned: Sequence[str], episodes: bool, reach: str = "the session") -> str:
    """One or two sentences about a row of the table.

    ``reach`` is what the planner simulates (``planner_reach``). ``learned`` are the rows of checkpoints: for
    each checkpoint one that draws items, and a ``-greedy`` one.
    """
    meaning = POLICIES.get(policy.removesuffix("-greedy"), "")
    if policy in learned:
        meaning = meaning or "The trained policy."
        if policy.endswith("-greedy"):
            meaning += " Always takes the most probable {item}."
        else:
            meaning += " Draws each {item} with the probability that the policy gives it."
    if policy.startswith(TRADE):
        meaning = "A heuristic of this platform's trade, tuned on training users."
    meaning = meaning or "Given to this evaluation beside the checkpoint."
    return meaning.format(item="action" if episodes else "item", reach=reach)


def planner_reach(steps: Sequence[int] | None) -> str:
    """The steps that the planner simulates, in words. ``steps``: the most of them, and of a session."""
    if steps is None:
        return "sessions from here on"
    simulated, length = steps
    if simulated >= length:
        return "to the end of the session"
    return f"at most {simulated} of the {length} steps of a session, extrapolates the others"


def define_column(meaning: str, episodes: bool, lives: bool = False) -> str:
    """The ``meaning`` of a column of the table in its words; ``lives``: an episode is a user's life."""
    players, items = ("seeds", "actions") if episodes else ("users", "items")
    return meaning.format(session=session(episodes, lives), players=players, items=items)


def session(episodes: bool, lives: bool) -> str:
    """The noun for the unit of a number of the table, such as "a session"."""
    return "an episode" if episodes else "a life" if lives else "a session"


def unit(page: Page) -> str:
    """The noun for the same unit, such as "session"."""
    return session(page.foreign, has_lives(page.rows)).rpartition(" ")[2]


def define_yardstick(yardstick: str, policies: Sequence[str]) -> str:
    """The sentence that defines the yardstick; ``policies`` are all rows of the table."""
    names = [*YARDSTICKS, *(name for name in policies if name.startswith(TRADE))]
    simple = [name for name in names if name in policies]
    best = f"The best of {', '.join(simple)}: {yardstick}."
    return f"{best} Training is worth its cost only if the policy beats it."


def population(page: Page, rows: Sequence[Row]) -> str:
    """The sentence about the users behind the means and intervals."""
    unit, count = "life of several visits" if has_lives(rows) else "session", page.heldout_users
    who = f"{people_of(page, count)}, one whole {unit} each"
    over = "episodes on unseen seeds" if page.foreign else who
    fewer: dict[int, list[str]] = {}
    for row in rows:
        if row.get("users") not in (None, count):
            fewer.setdefault(row["users"], []).append(str(row["policy"]))
    some = "".join(f" {', '.join(names)}: {number(users, 0)} of them." for users, names in fewer.items())
    return (
        f"Means and intervals are over {number(count, 0)} {over}, of one training run (seed {page.seed})."
        f"{some} The intervals don't cover the choice of the training seed."
    )


def people_of(page: Page, count: int = 0) -> str:
    """The noun for the users of the page, or for ``count`` of them."""
    return people(page.new_users, page.everyone, count)


def people(new_users: Mapping[str, str] | None, everyone: bool, count: int = 0) -> str:
    """The noun for ``count`` users: those of a file, of the training (``everyone``), or held out of it."""
    noun = "user" if count == 1 else "users"
    if new_users:
        return f"{noun} of {new_users['file']}"
    return f"{noun} of the training" if everyone else f"held-out {noun}"


def in_doubt(row: Row) -> bool:
    """True if the interval of a difference, a gain or a share holds 0; False without an interval."""
    return finite(row["low"]) and finite(row["high"]) and bool(row["low"] <= 0 <= row["high"])


def fewer_users(row: Row, total: int, people: str) -> str:
    """The users of a comparison, if one of its rows was not played with the ``total`` of the table."""
    count = row.get("users")
    return "" if count in (None, total) else f", over {count:,} of {total:,} {people}"


def has_lives(rows: Sequence[Row]) -> bool:
    """True if an episode is a user's life of several visits."""
    return any("active_days" in row for row in rows)
